"""Streams of a device, queues of work, through CuPy. What users see of them is in `disttorch.cuda.streams`."""

from __future__ import annotations

import threading
from typing import Any

import cupy

from .. import in_use
from . import capturing
from .devices import number, using

__all__ = [
    "ForeignStream", "current", "default", "from_pool", "make_current", "milliseconds", "new_event", "pop", "push", "record", "wait",
]  # fmt: skip

#: of each device and priority, as PyTorch keeps them: a stream is never destroyed, so that memory which belongs to it is found again
POOL_SIZE = 32
_made: dict[tuple[int, int], list[Any]] = {}
_taken: dict[tuple[int, int], int] = {}
_pools = threading.Lock()


def from_pool(device: Any, priority: int) -> tuple[Any, int]:
    """The next stream of a device's pool and the device's number.

    Parameters
    ----------
    device : device, str, int or None
    priority : int
        A lower number goes first; what the device does not have is taken for the nearest that it has.
    """
    index = number(device)
    key = index, priority
    with _pools:  # what one thread is making is in its place before another takes its turn
        streams = _made.setdefault(key, [])
        if len(streams) < POOL_SIZE:
            with using(index):
                streams.append(cupy.cuda.Stream(non_blocking=True, priority=priority))
        turn = _taken[key] = _taken.get(key, -1) + 1
        return streams[turn % POOL_SIZE], index


class ForeignStream(cupy.cuda.Stream):
    """A stream that another library made and will destroy.

    Parameters
    ----------
    pointer : int
        The driver's handle.
    index : int
        The device's number.
    """

    def __init__(self, pointer: int, index: int):
        super().__init__(null=True)
        self.ptr, self.device_id = pointer, index

    def __del__(self) -> None:
        """It is not ours to destroy."""


def current(device: Any = None) -> tuple[Any, int]:
    """The stream that a device's work goes to in this thread, and the device's number."""
    index = number(device)
    return cupy.cuda.get_current_stream(index), index


def default(device: Any = None) -> tuple[Any, int]:
    """A device's default stream, and the device's number."""
    return cupy.cuda.Stream.null, number(device)


def make_current(stream: Any, index: int) -> None:
    """Let this thread's work go to a stream from now on, and to its device."""
    in_use.others_than(index)
    cupy.cuda.Device(index).use()
    stream.use()


class _Before(threading.local):
    """This thread's with-blocks, the innermost last: the device outside, the block's device and stream, and that device's stream before."""

    def __init__(self) -> None:
        self.blocks: list[tuple[int, int, Any, Any]] = []


_before = _Before()


def push(stream: Any, index: int) -> None:
    """Let this thread's work go to a stream and its device until `pop`.

    It is a with-block of CuPy's, too: where one of those ends (in its `get`, too), the stream of the block around it becomes the current
    one, whatever was made current by ``use``.
    """
    outside, before = cupy.cuda.runtime.getDevice(), cupy.cuda.get_current_stream(index)
    in_use.others_than(index)
    cupy.cuda.Device(index).use()
    stream.__enter__()
    _before.blocks.append((outside, index, stream, before))


def pop() -> None:
    """Let it go where it went before."""
    outside, index, stream, before = _before.blocks.pop()
    cupy.cuda.Device(index).use()
    stream.__exit__(None, None, None)
    before.use()
    cupy.cuda.Device(outside).use()


def new_event(options: dict[str, bool]) -> Any:
    """An event of the current device."""
    return cupy.cuda.Event(**options)


#: cudaEventWaitExternal
_EXTERNAL = 1


def record(event: Any, stream: Any, external: bool) -> None:
    """Put an event into a stream; an `external` one is recorded by each replay, where the stream is captured."""
    if external and stream.is_capturing():
        capturing.record_external(event, stream)
    else:
        event.record(stream)


def wait(stream: Any, event: Any, external: bool) -> None:
    """Let a stream wait for an event; for an `external` one in each replay, where the stream is captured."""
    if external and stream.is_capturing():
        cupy.cuda.runtime.streamWaitEvent(stream.ptr, event.ptr, _EXTERNAL)
    else:
        stream.wait_event(event)


def milliseconds(start: Any, end: Any) -> float:
    """From one event to another."""
    return cupy.cuda.get_elapsed_time(start, end)
