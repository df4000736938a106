"""Resampling by matrix products where dimensions are short, and by taps that are copied row by row where they are long.

Dimensions that shrink come first; of those that grow the last comes first, whose elements have to be picked one by one.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..kernels.precision import wide
from ..kernels.resampling import Taps

__all__ = ["resample"]

#: up to how many elements a tap is multiplying by zeros faster than looking elements up
DENSE = 96
#: up to how many slices copying them is faster than looking elements up
MOST_SLICES = 8


def resample(x: Any, along: tuple[tuple[int, Taps], ...]) -> Any:
    dtype = x.dtype
    if any(taps.count > 1 or taps.weights is not None for _, taps in along):
        x = wide(np, x)

    def turn(entry: tuple[int, Taps]) -> tuple[float, int]:
        axis, taps = entry
        growth = taps.length / max(1, taps.size)
        return growth, axis if growth < 1 else -axis

    for axis, taps in sorted(along, key=turn):
        x = resample_one(x, axis, taps)
    return x.astype(dtype, copy=False)


def resample_one(x: Any, axis: int, taps: Taps) -> Any:
    """One axis resampled."""
    if not taps.size:  # of nothing comes nothing
        return np.zeros((*x.shape[:axis], taps.length, *x.shape[axis + 1 :]), x.dtype)
    if taps.count > 1 and taps.size <= DENSE * taps.count and x.dtype.kind == "f":
        out = by_matrix(x, axis, taps)
        # a tap of weight 0 is no tap, but infinity times 0 is not 0
        if np.isfinite(np.add.reduce(out, None)):
            return out
    beside = (slice(None), *(None,) * (x.ndim - 1 - axis))
    total: Any = None
    for k in range(taps.count):
        seen = picked(x, taps.indices[k], axis)
        if taps.weights is not None:
            seen = np.multiply(seen, taps.weights[k].astype(x.dtype)[beside], out=seen if seen.base is None else None)
        if total is None:
            total = seen
        else:
            total = np.add(total, seen, out=total if total.base is None else None)
    return total if total.base is None else total.copy()


def by_matrix(x: Any, axis: int, taps: Taps) -> Any:
    """The resampled axis as a product with the table's matrix."""
    matrix = taps.matrix.astype(x.dtype)
    inner = prod(x.shape[axis + 1 :])
    if inner == 1:
        out = np.dot(x.reshape(-1, taps.size), matrix.T)
    else:
        out = np.matmul(matrix, x.reshape(-1, taps.size, inner))
    return out.reshape(*x.shape[:axis], taps.length, *x.shape[axis + 1 :])


def picked(x: Any, positions: Any, axis: int) -> Any:
    """The elements at positions along an axis: a view where they lie at equal distances, else a copy, by slices if they are few."""
    before = (slice(None),) * axis
    found = slices(positions)
    if found is None:
        return np.take(x, positions, axis=axis, mode="clip")
    if len(found) == 1 and (found[0][1].step or 0) > 0:
        return x[(*before, found[0][1])]
    out = np.empty((*x.shape[:axis], len(positions), *x.shape[axis + 1 :]), x.dtype)
    for there, here in found:
        out[(*before, there)] = x[(*before, here)]
    return out


def slices(positions: Any) -> list[tuple[slice, slice]] | None:
    """Positions as (slice of the result, slice of the input); None where they are too many."""
    steps = np.diff(positions)
    changes = np.flatnonzero(np.diff(steps)) + 1
    if len(changes) > MOST_SLICES or len(positions) < 2:
        return None
    found, start = [], 0
    for last in (*changes.tolist(), len(steps)):
        if last < start:  # the step from one slice to the next
            continue
        first, end, step = int(positions[start]), int(positions[last]), int(steps[start]) if last > start else 1
        if step == 0:
            return None
        behind = end + (1 if step > 0 else -1)
        found.append((slice(start, last + 1), slice(first, behind if behind >= 0 else None, step)))
        start = last + 1
    return found
