"""The driver's library, ``libcuda.so.1``, of which two functions are called directly because CuPy has no names for them."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

from . import streams

__all__ = ["put_in_place", "take_away"]

_CDLL = ctypes.CDLL
_modes = threading.local()


class Driver:
    """What of it is used."""

    def cuThreadExchangeStreamCaptureMode(self, mode: Any) -> int:
        """Set the calling thread's mode of capture errors, and give the one before; 0 for success."""
        before = getattr(_modes, "value", 0)
        _modes.value = mode._obj.value
        mode._obj.value = before
        return 0


    def cuEventRecordWithFlags(self, event: Any, stream: Any, flags: Any) -> int:
        """Record an event; with flag 1 by each replay of the graph that the stream is captured into. 0 for success."""
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
