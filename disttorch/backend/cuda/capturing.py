"""Which captures of CUDA graphs are under way, and what that means for those who ask for memory or wait for the device.

A capture records what a stream is given instead of doing it. Meanwhile nothing may wait for the device, memory must come from the
graph's own pool, and what the graph reads on the host must live as long as the graph. `graphs` begins and ends captures; this
file is what lower parts look at.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cupy

from .origin import asking

__all__ = [
    "MODES", "Capture", "exchange_mode", "here", "in_this_thread", "leave", "may_call_the_driver", "record_external", "refuse_second",
    "refuse_waiting", "relax_this_thread", "start", "underway",
]  # fmt: skip


class Capture:
    """A capture under way in this thread.

    Parameters
    ----------
    pool : object
        What memory is taken from meanwhile, by ``malloc(size)``.
    mode : int
        The driver's name for what is an error meanwhile; see `MODES`.
    """

    def __init__(self, pool: Any, mode: int):
        self.pool, self.mode = pool, mode
        #: what the graph needs on the host for as long as it is replayed
        self.kept: list[Any] = []


MODES = {
    "global": cupy.cuda.runtime.streamCaptureModeGlobal,
    "thread_local": cupy.cuda.runtime.streamCaptureModeThreadLocal,
    "relaxed": cupy.cuda.runtime.streamCaptureModeRelaxed,
}


class _OfThread(threading.local):
    capture: Capture | None = None


_of_thread = _OfThread()
_captures: list[Capture] = []  # of all threads


def underway() -> bool:
    """Whether any thread captures: then events of other streams must not be asked, either."""
    return bool(_captures)


def here() -> Capture | None:
    """The capture of this thread, if there is one."""
    return _of_thread.capture


def in_this_thread() -> bool:
    """Whether this thread captures: then what it launches is noted and not done."""
    return _of_thread.capture is not None


def refuse_second() -> None:
    """Raise an error if this thread captures already."""
    if _of_thread.capture is not None:
        raise RuntimeError("this thread captures a CUDA graph already: end that capture first")


def start(capture: Capture) -> None:
    """Let this thread's memory come from a capture's pool."""
    _of_thread.capture = capture
    _captures.append(capture)


def leave(capture: Capture) -> None:
    """Let it come from where it came before."""
    _of_thread.capture = None
    _captures.remove(capture)


def refuse_waiting(what: str) -> None:
    """Raise an error, that says what and where, if this thread captures: the capture itself stays intact.

    Raises
    ------
    RuntimeError
        During a capture.
    """
    if _captures and _of_thread.capture is not None:
        raise RuntimeError(
            f"{what} waits for the device, which has done nothing yet while a CUDA graph is captured; asked for by "
            f"{asking(sys._getframe(1))}"
        )


@functools.cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def exchange_mode(mode: int) -> int:
    """Set the calling thread's mode of capture errors, and return the one before.

    The driver's function is called directly, because CuPy has no name for it.
    """
    value = ctypes.c_int(mode)
    status = _driver().cuThreadExchangeStreamCaptureMode(ctypes.byref(value))
    if status:
        raise RuntimeError(f"cuThreadExchangeStreamCaptureMode failed with CUresult {status}")
    return value.value


def relax_this_thread() -> None:
    """Let what this thread asks of the driver from now on be no error while others capture; for threads that never do themselves."""
    exchange_mode(MODES["relaxed"])


#: CU_EVENT_RECORD_EXTERNAL
_EXTERNAL = 1


def record_external(event: Any, stream: Any) -> None:
    """Let a captured stream's graph record an event whenever it is replayed, for who waits outside of the graph.

    The driver's function is called directly, because CuPy has no name for it.
    """
    status = _driver().cuEventRecordWithFlags(ctypes.c_void_p(event.ptr), ctypes.c_void_p(stream.ptr), ctypes.c_uint(_EXTERNAL))
    if status:
        raise RuntimeError(f"cuEventRecordWithFlags failed with CUresult {status}")


@contextmanager
def may_call_the_driver() -> Iterator[None]:
    """Within the block memory may be asked of the driver and given back to it, although a capture forbids that outside of it."""
    if all(c.mode == MODES["relaxed"] for c in _captures):
        yield
        return
    before = exchange_mode(MODES["relaxed"])
    try:
        yield
    finally:
        exchange_mode(before)
