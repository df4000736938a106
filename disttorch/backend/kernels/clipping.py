"""Sums of squares and norms of many numbers, for gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from . import kernel
from .precision import wide

__all__ = ["sum_of_squares", "total_norm"]


@kernel
def sum_of_squares(xp: Any, a: Any) -> Any:
    """The sum of abs(x) ** 2 over an array of any shape, without dimensions; float32 for half types."""
    size = xp.abs(wide(xp, a)) if a.dtype.kind == "c" else wide(xp, a)
    return xp.sum(size * size)


@kernel
def total_norm(xp: Any, arrays: Sequence[Any], p: float) -> Any:
    """The p-norm of all elements of all arrays together, without dimensions; float32 for half types.

    Parameters
    ----------
    arrays : sequence of array
        At least one.
    p : float
        May be infinite. For 0, as in PyTorch, the number of arrays that are not all 0.
    """
    each = [_norm(xp, a, p) for a in arrays]
    if len(each) == 1 and p != 0:
        return each[0]
    return _norm(xp, xp.stack([xp.asarray(n) for n in each]), p)


def _norm(xp: Any, a: Any, p: float) -> Any:
    if p == 2:
        return xp.sqrt(xp.sum_of_squares(a))
    size = xp.abs(wide(xp, a))
    if math.isinf(p):
        if not a.size:
            return xp.asarray(0.0 if p > 0 else math.inf, dtype=size.dtype)
        return xp.max(size) if p > 0 else xp.min(size)
    if p == 0:
        return xp.asarray(xp.sum(size != 0), dtype=size.dtype)
    return xp.sum(size**p) ** (1.0 / p)
