"""Many values into few places: NumPy's ufunc.at, led to the one case in which it is fast.

``numpy.add.at`` takes 10 to 20 ns an element, but 1 to 2 where array, index and values have one dimension. So places are
numbered through, wherever the index allows.
"""

from __future__ import annotations

from typing import Any

import numpy

from ..dtypes import HALF
from ..kernels.indexing import grid

__all__ = ["gather"]

#: up to so many elements NumPy's own way is shorter
FEW = 512


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
    if how == "add" and lead == 1 and trail >= 32 and a.flags.c_contiguous:
        _add_rows(a.reshape(-1, trail), inner, values.reshape(-1, trail))
        return
    number = inner if lead == 1 else (numpy.arange(lead)[:, None] * block + inner).reshape(-1)
    if trail != 1:
        number = (number[:, None] * trail + numpy.arange(trail)).reshape(-1)
    function.at(flat, number, numpy.ascontiguousarray(values, a.dtype).reshape(-1))


def gather(x: Any, index: Any, axis: int) -> Any:
    """``out[i, j] = x[index[i, j], j]`` for axis 0, and so on; the index may be smaller than x on other axes."""
    if not x.flags.c_contiguous:
        return x[grid(numpy, index, axis)]
    number = index * (x.strides[axis] // x.itemsize) if axis != x.ndim - 1 else index
    for d, n in enumerate(index.shape):
        if d != axis and n > 1:
            along = numpy.arange(n) * (x.strides[d] // x.itemsize)
            number = number + along.reshape((n,) + (1,) * (x.ndim - 1 - d))
    return x.reshape(-1)[number]


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
        if p.size and (int(p.max()) >= n or int(p.min()) < -n):
            raise IndexError(f"index out of bounds for dimension {d} with size {n}")
        step = numpy.where(p < 0, p + n, p) * block
        inner = step if inner is None else inner + step
        block *= n
    assert inner is not None
    lead, trail = _product(a.shape[:first]), _product(a.shape[last + 1 :])
    return lead, block, inner.astype(numpy.intp, copy=False).reshape(-1), trail, (*a.shape[:first], *inner.shape, *a.shape[last + 1 :])


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for n in shape:
        result *= n
    return result


def _add_rows(table: Any, numbers: Any, rows: Any) -> None:
    """In rounds: of each place one row is added as a whole, until few are left, which are added element by element."""
    last = numpy.empty(len(table), numpy.intp)
    left = numpy.arange(len(numbers))
    few = len(numbers) // 16
    while len(left) > few:
        places = numbers[left]
        turn = numpy.arange(len(left))
        last[places] = turn
        is_last = last[places] == turn
        now, left = left[is_last], left[~is_last]
        places = numbers[now]
        sums = table.take(places, 0)
        sums += rows.take(now, 0)
        table[places] = sums
        if len(now) < few:  # many rows for few places
            break
    if len(left):
        trail = table.shape[1]
        number = (numbers[left][:, None] * trail + numpy.arange(trail)).reshape(-1)
        numpy.add.at(table.reshape(-1), number, rows.take(left, 0).astype(table.dtype, copy=False).reshape(-1))
