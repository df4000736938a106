"""The CPU as a device, by PyTorch's names."""

from __future__ import annotations

from typing import Any

from . import amp
from .streams import Event, Stream, StreamContext, current_stream, stream

__all__ = [
    "Event", "Stream", "StreamContext", "amp", "current_device", "current_stream", "device_count", "is_available", "is_initialized",
    "set_device", "stream", "synchronize",
]  # fmt: skip


def is_available() -> bool:
    """Whether there is one."""
    return True


def is_initialized() -> bool:
    """Whether it is ready."""
    return True


def set_device(device: Any) -> None:
    """There is one."""


def device_count() -> int:
    """There is one."""
    return 1


def current_device() -> str:
    """Its name."""
    return "cpu"


def synchronize(device: Any = None) -> None:
    """Operations have finished when they return."""
