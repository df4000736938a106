"""The sum of squares of many numbers, for norms of gradients."""

from __future__ import annotations

from typing import Any

from . import kernel
from .precision import wide

__all__ = ["sum_of_squares"]


@kernel
def sum_of_squares(xp: Any, a: Any) -> Any:
    """The sum of abs(x) ** 2 over an array of any shape, without dimensions; float32 for half types."""
    size = xp.abs(wide(xp, a)) if a.dtype.kind == "c" else wide(xp, a)
    return xp.sum(size * size)
