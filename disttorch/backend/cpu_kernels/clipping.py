"""The sum of squares as dot products of blocks: no array of squares is made, and blocks are added up in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels import clipping as plain
from ..layout import is_dense

__all__ = ["sum_of_squares"]

#: Elements at a time: so few that a sum in float32 keeps its digits.
BLOCK = 65536
BLAS = (np.dtype(np.float32), np.dtype(np.float64))


def sum_of_squares(a: Any) -> Any:
    if a.dtype not in BLAS or not is_dense(a):
        return np.asarray(plain.sum_of_squares(np, a))
    flat = a.ravel(order="K")
    if flat.size <= BLOCK:
        return np.asarray(flat.dot(flat))
    return np.asarray(sum(float(part.dot(part)) for part in blocks(flat)), dtype=a.dtype)


def blocks(flat: Any) -> Any:
    """A vector, a block at a time."""
    return (flat[start : start + BLOCK] for start in range(0, flat.size, BLOCK))
