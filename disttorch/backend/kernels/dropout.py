"""What dropout keeps: the same operation on a tensor and, in the way back, on its gradient."""

from __future__ import annotations

from typing import Any

from . import kernel

__all__ = ["where_kept"]


@kernel
def where_kept(xp: Any, x: Any, kept: Any, scale: float) -> Any:
    """x times scale where `kept`, a truth value for each element or broadcast, is true, else times 0."""
    return xp.multiply(x, kept) * xp.scalar(scale, x.dtype)
