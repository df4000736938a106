"""CuPy's functions where they have gaps: the CPU world's order of arguments, and half types.

bfloat16 is a dtype of CuPy's elementwise functions and sums, but its other functions refuse it, or give float32 (`where`, `clip`,
`tril`). Where a function adds up, half types are computed in float32 and rounded once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import cupy
import numpy

from .. import dtypes as dt
from ..dtypes import HALF
from ..layout import is_channels_last, last_axes
from . import capturing

__all__ = ["FUNCTIONS"]

BFLOAT16, FLOAT16, FLOAT32, UINT16 = (dt.PUBLIC_DTYPES[name].numpy for name in ("bfloat16", "float16", "float32", "uint16"))
#: of more arrays, if they are small, CuPy's `concatenate` copies the addresses from the host
MOST_JOINED = 8


def _with_our_arguments(reduction: Any) -> Any:
    """A reduction with the arguments in the CPU world's order, whose frequent ones come first."""

    def reduce(a: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        return reduction(a, axis=axis, keepdims=keepdims, **options)

    return reduce


def _adding_up(reduction: Any) -> Any:
    """The same of `sum` and `prod`: CuPy gives what it can to CUB, which adds float16 up in float16; with a dtype it does so itself."""

    def reduce(a: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        if a.dtype == FLOAT16 and options.get("dtype") in (None, FLOAT16):
            return reduction(a, axis=axis, keepdims=keepdims, **{**options, "dtype": FLOAT32}).astype(FLOAT16)
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


def _of_bits(function: Any) -> Any:
    """A function that moves elements or puts 0 in their places: of bfloat16, it moves the bits."""

    @functools.wraps(function)
    def moved(a: Any, *args: Any, **options: Any) -> Any:
        if a.dtype != BFLOAT16:
            return function(a, *args, **options)
        return function(a.view(UINT16), *args, **options).view(BFLOAT16)

    return moved


def _divided(function: Any, of_floats: Callable[[Any, Any], Any]) -> Any:
    """An elementwise function of two that is exchanged for floating-point numbers, of which half types are computed in float32."""

    def divide(x: Any, y: Any) -> Any:
        dtypes = [each.dtype for each in (x, y) if hasattr(each, "dtype")]
        if all(d.kind in "iub" for d in dtypes):
            return function(x, y)
        result = of_floats(*(each.astype(FLOAT32) if getattr(each, "dtype", None) in HALF else each for each in (x, y)))
        return result.astype(dtypes[0]) if dtypes[0] in HALF and dtypes[0] == dtypes[-1] else result

    return divide


def _remainder(x: Any, y: Any) -> Any:
    """Of Python's sign and exact, where CuPy rounds the quotient and what it is multiplied by."""
    rest = cupy.fmod(x, y)
    return cupy.where((rest != 0) & ((rest < 0) != (y < 0)), rest + y, rest)


def _floor_quotient(x: Any, y: Any) -> Any:
    """What belongs to `_remainder`: CuPy's is larger by one where the quotient is rounded to a whole number."""
    rest = cupy.fmod(x, y)
    quotient = (x - rest) / y
    quotient = cupy.where((rest != 0) & ((rest < 0) != (y < 0)), quotient - 1, quotient)
    whole = cupy.rint(quotient)  # which it is but for rounding
    return cupy.where(y == 0, x / y, cupy.where(whole == 0, cupy.copysign(0 * rest, x / y), whole))


def fmod(x: Any, y: Any) -> Any:
    """The remainder of C's sign; of integers exact, where CuPy's goes by float64."""
    dtypes = [each.dtype for each in (x, y) if hasattr(each, "dtype")]
    if any(d.kind not in "iub" for d in dtypes) or max(d.itemsize for d in dtypes) < 8:
        return cupy.fmod(x, y)
    rest = cupy.remainder(x, y)
    return cupy.where((rest != 0) & ((rest < 0) != (x < 0)), rest - y, rest)


def concatenate(arrays: Any, axis: int | None = 0, **options: Any) -> Any:
    """Arrays one behind the other; with channels last if all of them are.

    A captured graph would copy addresses from the host at every replay, when others have that memory: there few are joined at a time.
    """
    arrays = list(arrays)
    if axis is not None and all(is_channels_last(a) for a in arrays):
        order, back = last_axes(arrays[0].ndim)
        return concatenate([a.transpose(order) for a in arrays], order.index(axis % len(order)), **options).transpose(back)
    if capturing.in_this_thread():
        while len(arrays) > MOST_JOINED:
            arrays = [cupy.concatenate(arrays[i : i + MOST_JOINED], axis) for i in range(0, len(arrays), MOST_JOINED)]
    return cupy.concatenate(arrays, axis, **options)


def stack(arrays: Any, axis: int = 0, **options: Any) -> Any:
    """Arrays beside each other, along a new dimension."""
    return concatenate([cupy.expand_dims(a, axis) for a in arrays], axis, **options)


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
    **{name: _with_our_arguments(getattr(cupy, name)) for name in ("max", "min")},
    **{name: _adding_up(getattr(cupy, name)) for name in ("prod", "sum")},
    **{name: _of_bits(getattr(cupy, name)) for name in ("tril", "triu")},
    **{name: _widened(getattr(cupy, name), HALF) for name in ("cumsum", "cumprod", "std", "trace", "var")},
    **{
        name: _widened(getattr(cupy, name), frozenset((BFLOAT16,)))
        for name in ("diff", "nan_to_num", "outer", "sort", "tensordot", "unique")
    },
    **{
        name: _widened(getattr(cupy, name), frozenset((BFLOAT16,)), narrow=False)
        for name in ("argmax", "argmin", "argpartition", "argsort", "isin", "lexsort", "nonzero", "searchsorted")
    },
    "remainder": _divided(cupy.remainder, _remainder),
    "floor_divide": _divided(cupy.floor_divide, _floor_quotient),
    "fmod": fmod,
    "concatenate": concatenate,
    "stack": stack,
    "where": where,
    "clip": clip,
    "mean": mean,
    "any": _is_true(cupy.any),
    "all": _is_true(cupy.all),
}
"""Name in the namespace -> function."""
