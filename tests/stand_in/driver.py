"""The driver's library, ``libcuda.so.1``, of which two functions are called directly because CuPy has no names for them."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

__all__ = ["RELAXED", "mode_of_this_thread", "open_captures", "put_in_place", "take_away", "unsafe"]

RELAXED = 2
open_captures: list[Any] = []
"""Of all threads; see `graphs`."""

_CDLL = ctypes.CDLL
_modes = threading.local()


def mode_of_this_thread() -> int:
    """The calling thread's mode of capture errors: 0 global, 1 thread-local, 2 relaxed."""
    return getattr(_modes, "value", 0)


def unsafe(what: str) -> None:
    """Said before what may wait or take from the driver: cudaMalloc, cudaFree, cudaHostAlloc, cudaEventQuery, cuModuleLoadData.

    Raises
    ------
    CUDARuntimeError, CUDADriverError
        In a thread that captures in a mode other than relaxed, and in all threads while one captures in global mode, unless the thread
        has set its own mode to relaxed.
    """
    mode = mode_of_this_thread()
    for capture in open_captures if mode != RELAXED else ():
        own = capture.thread == threading.get_ident() and capture.mode != RELAXED
        if own or (mode == 0 and capture.mode == 0):
            from .streams import CUDADriverError, CUDARuntimeError

            capture.broken = what
            text = f"operation not permitted when stream is capturing ({what})"
            if what == "cuModuleLoadData":
                raise CUDADriverError(900, f"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: {text}")
            raise CUDARuntimeError(900, f"cudaErrorStreamCaptureUnsupported: {text}")


class Driver:
    """What of it is used."""

    def cuThreadExchangeStreamCaptureMode(self, mode: Any) -> int:
        """Set the calling thread's mode of capture errors, and give the one before; 0 for success."""
        before = mode_of_this_thread()
        _modes.value = mode._obj.value
        mode._obj.value = before
        return 0

    def cuEventRecordWithFlags(self, event: Any, stream: Any, flags: Any) -> int:
        """Record an event; with flag 1 by each replay of the graph that the stream is captured into. 0 for success."""
        from . import streams

        streams.record_external(event.value, stream.value, flags.value)
        return 0


class CDLL(ctypes.CDLL):
    """Loads libraries as ever, but for that one."""

    def __new__(cls, name: Any = None, *args: Any, **options: Any) -> Any:
        return Driver() if name == "libcuda.so.1" else super().__new__(cls)


def put_in_place() -> None:
    """Let programs find it."""
    ctypes.CDLL = CDLL  # type: ignore[misc]


def take_away() -> None:
    """Let them find the machine's own, if it has one."""
    ctypes.CDLL = _CDLL  # type: ignore[misc]
