"""CuPy's functions where they have gaps: the CPU world's order of arguments, and half types.

bfloat16 is a dtype of CuPy's elementwise functions and sums, but its other functions refuse it, or give float32 (`where`, `clip`).
Where a function adds up, half types are computed in float32 and rounded once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import cupy
import numpy

from .. import dtypes as dt
from ..dtypes import HALF

__all__ = ["FUNCTIONS"]

BFLOAT16, FLOAT32, UINT16 = (dt.PUBLIC_DTYPES[name].numpy for name in ("bfloat16", "float32", "uint16"))


def _with_our_arguments(reduction: Any) -> Any:
    """A reduction with the arguments in the CPU world's order, whose frequent ones come first."""

    def reduce(a: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        return reduction(a, axis=axis, keepdims=keepdims, **options)

    return reduce


def _widened(function: Any, types: frozenset, narrow: bool = True) -> Any:
    """A function of arrays whose first is computed in float32 if its dtype is one of some; the result in its dtype again."""

    @functools.wraps(function)
    def wide(a: Any, *args: Any, **options: Any) -> Any:
        if a.dtype not in types:
            return function(a, *args, **options)
        others = [arg.astype(FLOAT32) if getattr(arg, "dtype", None) in types else arg for arg in args]
        result = function(a.astype(FLOAT32), *others, **options)
        return result.astype(a.dtype) if narrow and options.get("dtype") is None else result

    return wide


def _of_list(function: Any) -> Any:
    """The same of a function that takes a list of arrays first."""

    @functools.wraps(function)
    def wide(arrays: Any, *args: Any, **options: Any) -> Any:
        if all(a.dtype != BFLOAT16 for a in arrays):
            return function(arrays, *args, **options)
        return function([a.astype(FLOAT32) for a in arrays], *args, **options)

    return wide


def where(condition: Any, x: Any, y: Any) -> Any:
    """x where a condition holds, else y; of bfloat16, the bits are chosen."""
    if BFLOAT16 not in (getattr(x, "dtype", None), getattr(y, "dtype", None)):
        return cupy.where(condition, x, y)
    x, y = (each if hasattr(each, "dtype") else BFLOAT16.type(each) for each in (x, y))
    if x.dtype != y.dtype:
        wide = numpy.promote_types(x.dtype, y.dtype)
        return where(condition, x.astype(wide), y.astype(wide))
    return cupy.where(condition, x.view(UINT16), y.view(UINT16)).view(BFLOAT16)


def clip(a: Any, a_min: Any, a_max: Any) -> Any:
    """Between two limits, of which one may be None."""
    if a.dtype == BFLOAT16:
        limits = [limit.astype(FLOAT32) if hasattr(limit, "dtype") else limit for limit in (a_min, a_max)]
        return cupy.clip(a.astype(FLOAT32), *limits).astype(BFLOAT16)
    return cupy.clip(a, a_min, a_max)


def mean(a: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The mean."""
    if a.dtype in HALF:
        return cupy.mean(a.astype(FLOAT32), axis=axis, keepdims=keepdims).astype(a.dtype)
    return cupy.mean(a, axis=axis, keepdims=keepdims)


def _is_true(function: Any) -> Callable[..., Any]:
    """`any` and `all`, also of NumPy's scalars, which numbers beside arrays are."""

    def reduce(a: Any, *args: Any, **options: Any) -> Any:
        return function(cupy.asarray(a), *args, **options)

    return reduce


FUNCTIONS: dict[str, Any] = {
    **{name: _with_our_arguments(getattr(cupy, name)) for name in ("sum", "max", "min", "prod")},
    **{name: _widened(getattr(cupy, name), HALF) for name in ("cumsum", "cumprod", "std", "trace", "var")},
    **{
        name: _widened(getattr(cupy, name), frozenset((BFLOAT16,)))
        for name in ("diff", "nan_to_num", "outer", "sort", "tensordot", "unique")
    },
    **{
        name: _widened(getattr(cupy, name), frozenset((BFLOAT16,)), narrow=False)
        for name in ("argmax", "argmin", "argpartition", "argsort", "isin", "nonzero", "searchsorted")
    },
    "lexsort": _of_list(cupy.lexsort),
    "where": where,
    "clip": clip,
    "mean": mean,
    "any": _is_true(cupy.any),
    "all": _is_true(cupy.all),
}
"""Name in the namespace -> function."""
