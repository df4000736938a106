"""CUDA devices, their memory and streams through CuPy. Imported when a script asks for them and there is a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import cupy

from .device import as_device

__all__ = ["Event", "Stream"]


def number(where: Any = None) -> int:
    """A device's number; the current one's for None."""
    if where is None:
        return cupy.cuda.runtime.getDevice()
    if isinstance(where, int):
        return where
    index = as_device(where).index
    return cupy.cuda.runtime.getDevice() if index is None else index


def set_device(where: Any) -> None:
    """Make a device the current one."""
    if number(where) >= 0:  # a negative number means nothing to do, as in PyTorch
        cupy.cuda.Device(number(where)).use()


@contextmanager
def using(where: Any) -> Iterator[None]:
    """A device as the current one in a with-block."""
    with cupy.cuda.Device(number(where)):
        yield


def properties(where: Any = None) -> Any:
    """What the driver says of a device, under PyTorch's names."""
    p = cupy.cuda.runtime.getDeviceProperties(number(where))
    return SimpleNamespace(
        name=p["name"].decode(),
        major=p["major"],
        minor=p["minor"],
        total_memory=p["totalGlobalMem"],
        multi_processor_count=p["multiProcessorCount"],
        max_threads_per_multi_processor=p["maxThreadsPerMultiProcessor"],
        warp_size=p["warpSize"],
        is_integrated=p["integrated"],
        is_multi_gpu_board=p["isMultiGpuBoard"],
        L2_cache_size=p["l2CacheSize"],
    )


def synchronize(where: Any = None) -> None:
    """Wait until a device has finished."""
    cupy.cuda.Device(number(where)).synchronize()


def empty_cache() -> None:
    """Give memory that no array uses back to the driver."""
    cupy.get_default_memory_pool().free_all_blocks()
    cupy.get_default_pinned_memory_pool().free_all_blocks()


def allocated(where: Any = None) -> int:
    """Bytes that arrays use on a device."""
    with using(where):
        return cupy.get_default_memory_pool().used_bytes()


def reserved(where: Any = None) -> int:
    """Bytes that are used or kept for arrays to come."""
    with using(where):
        return cupy.get_default_memory_pool().total_bytes()


def limit(fraction: float, where: Any = None) -> None:
    """The most of a device's memory that arrays may use."""
    with using(where):
        cupy.get_default_memory_pool().set_limit(fraction=fraction)


def free_and_total(where: Any = None) -> tuple[int, int]:
    """Bytes that the driver has free on a device, and all."""
    with using(where):
        return cupy.cuda.runtime.memGetInfo()


class Stream:
    """A queue of work on a device; as ``torch.cuda.Stream``."""

    def __init__(self, device: Any = None, priority: int = 0, *, of: Any = None):
        if of is None:
            with using(device):
                of = cupy.cuda.Stream(non_blocking=True, priority=priority)
        self._stream = of

    @property
    def cuda_stream(self) -> int:
        """The driver's pointer."""
        return self._stream.ptr

    def synchronize(self) -> None:
        """Wait until it is empty."""
        self._stream.synchronize()

    def query(self) -> bool:
        """Whether it is empty."""
        return self._stream.done

    def record_event(self, event: Event | None = None) -> Event:
        """An event that happens when what is queued now is done."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Let what is queued from now on wait for an event."""
        self._stream.wait_event(event._event)

    def wait_stream(self, stream: Stream) -> None:
        """Let what is queued from now on wait for what is queued in another stream now."""
        self.wait_event(stream.record_event())

    def __enter__(self) -> Stream:
        self._stream.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stream.__exit__(*exception)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.cuda_stream == other.cuda_stream

    def __hash__(self) -> int:
        return hash(self.cuda_stream)


class Event:
    """A mark in a stream; as ``torch.cuda.Event``."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False):
        self._event = cupy.cuda.Event(block=blocking, disable_timing=not enable_timing, interprocess=interprocess)

    def record(self, stream: Stream | None = None) -> None:
        """Put it into a stream."""
        self._event.record(None if stream is None else stream._stream)

    def wait(self, stream: Stream | None = None) -> None:
        """Let a stream wait for it."""
        (current_stream() if stream is None else stream).wait_event(self)

    def query(self) -> bool:
        """Whether it has happened."""
        return self._event.done

    def synchronize(self) -> None:
        """Wait until it has happened."""
        self._event.synchronize()

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this to another."""
        return cupy.cuda.get_elapsed_time(self._event, end_event._event)


def current_stream() -> Stream:
    """The stream that work goes to."""
    return Stream(of=cupy.cuda.get_current_stream())


def default_stream() -> Stream:
    """The driver's own stream."""
    return Stream(of=cupy.cuda.Stream.null)


def push_range(message: str) -> None:
    """Begin a range that profilers show."""
    cupy.cuda.nvtx.RangePush(message)


def pop_range() -> None:
    """End it."""
    cupy.cuda.nvtx.RangePop()
