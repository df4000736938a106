"""Many values into few places: NumPy's ufunc.at, led to the one case in which it is fast.

``numpy.add.at`` takes 10 to 20 ns an element, but 1 to 2 where array, index and values have one dimension. So places are
numbered through, wherever the index allows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from ..dtypes import HALF
from ..kernels.indexing import grid
from .embedding import WIDE, row_sums

__all__ = ["gather"]

#: up to so many elements NumPy's own way is shorter
FEW = 512
#: elements taken at a time: 256 KiB of positions, so that they stay in the cache
BLOCK = 32768


def accumulate_at(a: Any, index: Any, values: Any, how: str = "add") -> None:
    """``a[index] += values`` with repeated places taken one after another; `how`: add, multiply, maximum, minimum.

    Half types are computed in float32 and rounded once.
    """
    function = getattr(numpy, how)
    if a.dtype in HALF:
        wide = a.astype(numpy.float32)
        accumulate_at(wide, index, values, how)
        a[...] = wide
        return
    if getattr(values, "size", 1) <= FEW and getattr(index, "size", FEW) <= FEW:
        function.at(a, index, values)
        return
    parts = index if index.__class__ is tuple else (index,)
    if len(parts) == 1 and getattr(parts[0], "dtype", None) == numpy.bool_:  # no place comes twice
        a[index] = function(a[index], values)
        return
    places = _places(a, parts)
    if places is None:
        function.at(a, index, values)
        return
    lead, block, inner, trail, shape = places
    flat = a.reshape(-1)
    values = numpy.broadcast_to(values, shape)
    if how == "add" and lead == 1 and trail >= WIDE and block <= 4 * len(inner) and a.dtype.kind != "b":
        chosen, sums = row_sums(values.astype(a.dtype, copy=False).reshape(-1, trail), inner, block)
        table = a.reshape(-1, trail)
        sums += table.take(chosen, 0)
        table[chosen] = sums
        return
    number = inner if lead == 1 else (numpy.arange(lead)[:, None] * block + inner).reshape(-1)
    if trail != 1:
        number = (number[:, None] * trail + numpy.arange(trail)).reshape(-1)
    function.at(flat, number, numpy.ascontiguousarray(values, a.dtype).reshape(-1))


def gather(x: Any, index: Any, axis: int) -> Any:
    """``out[i, j] = x[index[i, j], j]`` for axis 0, and so on; the index may be smaller than x on other axes."""
    if not x.flags.c_contiguous:
        return x[grid(numpy, index, axis)]
    flat, out = x.reshape(-1), numpy.empty(index.shape, x.dtype)
    steps = [n // x.itemsize for n in x.strides]
    along = [
        (d, (numpy.arange(n) * step).reshape((n,) + (1,) * (x.ndim - 1 - d)))
        for d, (n, step) in enumerate(zip(index.shape, steps))
        if d != axis and n > 1
    ]
    rows = max(1, BLOCK * len(index) // max(1, index.size))
    for start in range(0, len(index), rows):
        here = slice(start, start + rows)
        number = numpy.multiply(index[here], steps[axis], dtype=numpy.int64)
        for d, places in along:
            number += places if d else places[here]
        # without mode="clip" the result would be buffered; the indices are known to be in range
        flat.take(number, out=out[here], mode="clip")
    return out


def _places(a: Any, parts: tuple) -> tuple[int, int, Any, int, tuple[int, ...]] | None:
    """An index of integer arrays that stand together, whole slices around them: how many blocks come before, places of a block,
    the places' numbers in a block, how many elements a place has, and the shape of what is indexed. None for other indices.
    """
    if not a.flags.c_contiguous or not a.size:
        return None
    arrays = [(d, p) for d, p in enumerate(parts) if hasattr(p, "dtype")]
    others = [p for p in parts if not hasattr(p, "dtype")]
    if not arrays or any(p.__class__ is not slice or p != slice(None) for p in others) or len(parts) > a.ndim:
        return None
    first, last = arrays[0][0], arrays[-1][0]
    if last - first + 1 != len(arrays) or any(p.dtype.kind not in "iu" for _, p in arrays):
        return None
    block, inner = 1, None
    for d, p in reversed(arrays):
        n = a.shape[d]
        low = int(p.min()) if p.size else 0
        if p.size and (int(p.max()) >= n or low < -n):
            raise IndexError(f"index out of bounds for dimension {d} with size {n}")
        step = p if low >= 0 else numpy.where(p < 0, p + n, p)
        step = step * block if block != 1 else step
        inner = step if inner is None else inner + step
        block *= n
    assert inner is not None
    lead, trail = math.prod(a.shape[:first]), math.prod(a.shape[last + 1 :])
    return lead, block, inner.astype(numpy.intp, copy=False).reshape(-1), trail, (*a.shape[:first], *inner.shape, *a.shape[last + 1 :])
