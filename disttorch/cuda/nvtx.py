"""Ranges that NVIDIA's profilers show; as ``torch.cuda.nvtx``. Without a device they do nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..backend import cuda_is_available

__all__ = ["mark", "range", "range_pop", "range_push"]


def range_push(msg: str) -> None:
    """Begin a range."""
    if cuda_is_available():
        from ..backend.cuda import devices

        devices.push_range(msg)


def range_pop() -> None:
    """End the range that was begun last."""
    if cuda_is_available():
        from ..backend.cuda import devices

        devices.pop_range()


def mark(msg: str) -> None:
    """A moment."""
    if cuda_is_available():
        from ..backend.cuda import devices

        devices.mark(msg)


@contextmanager
def range(msg: str, *args: Any, **options: Any) -> Iterator[None]:
    """A range for a with-block; its name is formatted with the arguments."""
    range_push(msg.format(*args, **options))
    try:
        yield
    finally:
        range_pop()
