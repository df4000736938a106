"""What the kernels ask of arrays before they read them as memory: the element's name, contiguity, and sizes of grids."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import cupy

from ... import dtypes as dt
from ...kernels import PLAIN
from ...layout import last_axes, strides_along
from ...namespace import NAMESPACES

__all__ = ["ELEMENT", "THREADS", "WIDE", "blocks", "contiguous", "empty", "in_order", "plain", "split_at"]

#: dtype -> its name in the sources; other dtypes are left to the plain kernels
ELEMENT = {d.numpy: d.numpy.name for d in (dt.float16, dt.bfloat16, dt.float32, dt.float64)}
#: dtype -> the dtype that it is computed in
WIDE = {d: dt.float64.numpy if d == dt.float64.numpy else dt.float32.numpy for d in ELEMENT}
#: threads of a block of an elementwise kernel
THREADS = 256
#: of such a grid: enough to fill any device several times
MOST_BLOCKS = 8192


def plain(name: str, *args: Any) -> Any:
    """The plain kernel of a name, on CuPy's functions."""
    return PLAIN[name](NAMESPACES[cupy.ndarray], *args)


def contiguous(a: Any) -> Any:
    """The array, or a copy, with its elements in order in memory."""
    return a if a.flags.c_contiguous else cupy.ascontiguousarray(a)


def in_order(a: Any, last: bool) -> Any:
    """The array (N, C, *spatial), or a copy, with its elements in C order, or with channels last."""
    if not last:
        return contiguous(a)
    return cupy.moveaxis(cupy.ascontiguousarray(cupy.moveaxis(a, 1, -1)), -1, 1)


def empty(shape: Sequence[int], dtype: Any, last: bool) -> Any:
    """A new array (N, C, *spatial) in C order, or with channels last; no view of another one."""
    made = cupy.empty(tuple(shape), dtype)
    if not last:
        return made
    strides = strides_along(last_axes(len(shape))[0], shape, made.itemsize)
    return cupy.ndarray(made.shape, made.dtype, memptr=made.data, strides=strides)


def blocks(elements: int, of_a_thread: int = 1) -> int:
    """How many blocks an elementwise kernel gets, of which each thread does so many elements at a time."""
    return max(1, min(MOST_BLOCKS, -(-elements // (THREADS * of_a_thread))))


def split_at(shape: Sequence[int], axis: int) -> tuple[int, int, int]:
    """A shape as (before, along, behind) an axis."""
    axis %= len(shape)
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
