"""Values into places of an array, of which some may come twice; see sources/scatter.cu. Where the same bits are asked for,
sums of floating-point numbers are made in a fixed order (`embedding.add_rows`).

CuPy's ``ufunc.at`` knows neither int64, the small integers, bfloat16 nor products, rounds half types after every addition, and loses NaN.
"""

from __future__ import annotations

from typing import Any

import cupy

from ... import dtypes as dt
from ...choices import CHOICES
from .arrays import THREADS, blocks, contiguous
from .compilation import declare, function, launch
from .embedding import add_rows

__all__ = ["accumulate_at"]

SOURCE = "scatter.cu"
#: in the order of the numbers that the source gives them
HOW = ("add", "multiply", "maximum", "minimum")
TYPES = ("int32", "uint32", "int64", "uint64", "float32", "float64")
declare(SOURCE, [{"TYPE": t, "HOW": how} for t in TYPES for how in range(len(HOW))])

BOOL, INT32, INT64, FLOAT32 = (dt.PUBLIC_DTYPES[name].numpy for name in ("bool", "int32", "int64", "float32"))
#: more rows than these are not numbered in 32 bits
MOST_ROWS = 2**32 - 2


def accumulate_at(a: Any, index: Any, values: Any, how: str = "add") -> None:
    """``a[index] += values`` with repeated places taken one after another; `how`: add, multiply, maximum, minimum.

    Half types are computed in float32 and rounded once.
    """
    parts = index if index.__class__ is tuple else (index,)
    if any(getattr(part, "dtype", None) == BOOL for part in parts):  # no place comes twice
        a[index] = getattr(cupy, how)(a[index], values)
        return
    places = _places(a.shape, index)
    values = cupy.broadcast_to(cupy.asarray(values, a.dtype), places.shape)
    if not places.size:
        return
    if a.dtype in dt.COMPLEX_DTYPES:
        _complex(a, places, values, how)
        return
    flat = _flat(a)
    _scatter(flat, places.reshape(-1), values.reshape(-1).astype(flat.dtype, copy=False), how)
    if flat.dtype != a.dtype or not a.flags.c_contiguous:
        a[...] = flat.reshape(a.shape).astype(a.dtype)


def _flat(a: Any) -> Any:
    """The elements in order without gaps, in a dtype that the kernel has: on the array's memory if they lie so."""
    flat = contiguous(a).reshape(-1)
    if a.dtype in dt.HALF:
        return flat.astype(FLOAT32)
    if a.dtype.itemsize < INT32.itemsize:
        return flat.astype(INT32)
    return flat


def _places(shape: tuple[int, ...], index: Any) -> Any:
    """Where the elements that an index chooses lie, counted in elements: each dimension's part of it, chosen and added up."""
    places: Any = 0
    step = 1
    for axis in range(len(shape) - 1, -1, -1):
        along = cupy.arange(0, shape[axis] * step, step, INT64) if shape[axis] else cupy.empty((0,), INT64)
        part = cupy.broadcast_to(along.reshape((-1,) + (1,) * (len(shape) - 1 - axis)), shape)[index]
        places = part + places
        step *= max(1, shape[axis])
    return places if shape else cupy.zeros((1,), INT64)[0][index]


def _scatter(flat: Any, places: Any, values: Any, how: str) -> None:
    if CHOICES.deterministic and how == "add" and flat.dtype.kind == "f" and flat.size <= MOST_ROWS and values.size < 2**31:
        flat += add_rows(values.reshape(-1, 1), places, flat.size).reshape(-1)
        return
    kernel = function(SOURCE, "scatter", TYPE=flat.dtype.name, HOW=HOW.index(how))
    launch(kernel, blocks(places.size), THREADS, (flat, places, cupy.ascontiguousarray(values), places.size))


def _complex(a: Any, places: Any, values: Any, how: str) -> None:
    if how == "add":  # the parts are numbers of their own
        for part, of in ((a.real, values.real), (a.imag, values.imag)):
            sums = cupy.ascontiguousarray(part).reshape(-1)
            _scatter(sums, places.reshape(-1), cupy.ascontiguousarray(of).reshape(-1), how)
            part[...] = sums.reshape(a.shape)
        return
    # The n-th values of all places are put together, for n = 0, 1, ...
    ordered, order = _sorted(places.reshape(-1))
    first = cupy.concatenate([cupy.ones(1, bool), ordered[1:] != ordered[:-1]])
    turn = cupy.arange(ordered.size) - cupy.nonzero(first)[0][cupy.cumsum(first) - 1]
    values, result = values.reshape(-1), cupy.ascontiguousarray(a).reshape(-1)
    for n in range(int(turn.max()) + 1):
        now = turn == n
        result[ordered[now]] = getattr(cupy, how)(result[ordered[now]], values[order[now]])
    a[...] = result.reshape(a.shape)


def _sorted(places: Any) -> tuple[Any, Any]:
    order = cupy.argsort(places, kind="stable")
    return places[order], order
