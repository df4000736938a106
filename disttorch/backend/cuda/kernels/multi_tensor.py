"""Operations on many arrays in few launches: see sources/multi_tensor.cu."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import cupy
import numpy

from ... import dtypes as dt
from ...layout import is_dense
from .arrays import ELEMENT, THREADS, WIDE, plain
from .compilation import ELEMENTS, declare, function, launch

__all__ = ["sum_of_squares", "total_norm", "unscale_", "update_scale_"]

SOURCE = "multi_tensor.cu"
#: the p of a norm -> what the source adds up; for others powers
NORMS = {2.0: "squares", 1.0: "sizes", math.inf: "greatest"}
declare(SOURCE, [{"ELEMENT": e} for e in ELEMENTS])

#: as in the source
ARRAYS, PART = 180, 16384
TABLE = numpy.dtype([("data", "u8", ARRAYS), ("sizes", "i8", ARRAYS), ("first_blocks", "i4", ARRAYS + 1), ("unused", "i4")])
FLOAT32, FLOAT64, INT32 = dt.float32.numpy, dt.float64.numpy, dt.PUBLIC_DTYPES["int32"].numpy


def tables(arrays: Sequence[Any]) -> Iterator[tuple[Any, int]]:
    """Arrays of one dtype, none of them empty, as tables for one launch each, with how many blocks they need."""
    for start in range(0, len(arrays), ARRAYS):
        some = arrays[start : start + ARRAYS]
        table = numpy.zeros(1, TABLE)
        row = table[0]
        sizes = [a.size for a in some]
        row["data"][: len(some)] = [a.data.ptr for a in some]
        row["sizes"][: len(some)] = sizes
        ends = numpy.cumsum([-(-n // PART) for n in sizes])
        row["first_blocks"][1 : len(some) + 1] = ends
        row["first_blocks"][len(some) + 1 :] = ends[-1]
        yield table, int(ends[-1])


def _by_dtype(arrays: Sequence[Any]) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = {}
    for a in arrays:
        if a.size:
            groups.setdefault(a.dtype, []).append(a)
    return groups


def unscale_(arrays: Sequence[Any], inverse_scale: Any, found_inf: Any) -> None:
    simple = found_inf.dtype == FLOAT32 and inverse_scale.size == found_inf.size == 1
    if not simple:
        plain("unscale_", arrays, inverse_scale, found_inf)
        return
    fast = [a for a in arrays if a.dtype in ELEMENT and is_dense(a)]
    others = [a for a in arrays if not (a.dtype in ELEMENT and is_dense(a))]
    if others:
        plain("unscale_", others, inverse_scale, found_inf)
    factor = inverse_scale.astype(FLOAT32, copy=False)
    for dtype, group in _by_dtype(fast).items():
        kernel = function(SOURCE, "unscale", ELEMENT=ELEMENT[dtype])
        for table, blocks in tables(group):
            launch(kernel, blocks, THREADS, (table, factor, found_inf))


def update_scale_(
    scale: Any, growth_tracker: Any, found_inf: Any, growth_factor: float, backoff_factor: float, growth_interval: int
) -> None:
    if scale.dtype != FLOAT32 or growth_tracker.dtype != INT32 or found_inf.dtype != FLOAT32 or scale.size != 1:
        plain("update_scale_", scale, growth_tracker, found_inf, growth_factor, backoff_factor, growth_interval)
        return
    launch(
        function(SOURCE, "update_scale", ELEMENT="float32"),
        1,
        1,
        (scale, growth_tracker, found_inf, float(growth_factor), float(backoff_factor), int(growth_interval)),
    )


def total_norm(arrays: Sequence[Any], p: float) -> Any:
    p = float(p)
    if p <= 0 or any(a.dtype not in ELEMENT for a in arrays):
        return plain("total_norm", arrays, p)
    return _norm(arrays, p, root=True)


def sum_of_squares(a: Any) -> Any:
    return _norm([a], 2.0, root=False) if a.dtype in ELEMENT else plain("sum_of_squares", a)


def _norm(arrays: Sequence[Any], p: float, root: bool) -> Any:
    """In two steps of fixed order: a sum for each part of an array, in the arrays' own precision, and in float64 the sum of those."""
    # a copy where there are gaps
    groups = _by_dtype([a if is_dense(a) else cupy.ascontiguousarray(a) for a in arrays])
    wide = FLOAT64 if any(WIDE[a.dtype] == FLOAT64 for a in arrays) else FLOAT32
    launches = [(dtype, *made) for dtype, group in groups.items() for made in tables(group)]
    count = sum(blocks for _, _, blocks in launches)
    if not count:
        return cupy.zeros((), wide)
    out, parts = cupy.empty((), wide), cupy.empty((count,), FLOAT64)
    kind, power = NORMS.get(p, "powers"), 0.0 if math.isinf(p) else p
    first = 0
    for dtype, table, blocks in launches:
        launch(function(SOURCE, f"{kind}_of_parts", ELEMENT=ELEMENT[dtype]), blocks, THREADS, (table, parts, first, power))
        first += blocks
    kernel = function(SOURCE, f"norm_of_{kind}", ELEMENT=ELEMENT[launches[0][0]])
    to = (out, None) if wide == FLOAT64 else (None, out)
    launch(kernel, 1, THREADS, (parts, *to, count, power, int(root)))
    return out
