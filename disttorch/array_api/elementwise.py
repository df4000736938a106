"""The standard's elementwise functions: `ONE` and `TWO` say which of ours each is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd.variable import Tensor
from ..ops import FUNCTIONS as OURS
from ..ops.conversion import clone, to
from .dtypes import promoted

__all__ = ["FUNCTIONS", "clip"]

#: Of one array, and of two; "name=ours" where ours has another name.
ONE = """
    abs acos acosh asin asinh atan atanh bitwise_invert=bitwise_not ceil conj cos cosh exp expm1 floor imag isfinite isinf isnan log
    log1p log2 log10 logical_not negative=neg positive real reciprocal round sign=sgn signbit sin sinh square sqrt tan tanh trunc
""".split()
TWO = """
    add atan2 bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor copysign divide=div equal=eq floor_divide
    greater=gt greater_equal=ge hypot less=lt less_equal=le logaddexp logical_and logical_or logical_xor maximum minimum multiply=mul
    nextafter not_equal=ne pow remainder subtract=sub
""".split()


def _of_one(name: str, ours: str) -> Callable[..., Any]:
    def elementwise(x: Tensor, /) -> Tensor:
        return OURS[ours](x)  # looked up when it is called: another may stand in its place by then

    elementwise.__name__ = elementwise.__qualname__ = name
    elementwise.__doc__ = f"`disttorch.{ours}` of each element."
    return elementwise


def _of_two(name: str, ours: str) -> Callable[..., Any]:
    def elementwise(x1: Any, x2: Any, /) -> Tensor:
        x1, x2 = promoted(x1, x2)
        like = x1 if isinstance(x1, Tensor) else x2
        return OURS[ours](*[_like(v, like) if isinstance(v, (bool, int, float, complex)) else v for v in (x1, x2)])

    elementwise.__name__ = elementwise.__qualname__ = name
    elementwise.__doc__ = f"`disttorch.{ours}` of each pair of elements, broadcast; one may be a Python number."
    return elementwise


def _like(number: Any, x: Tensor) -> Tensor:
    """A number as an array of another's dtype; of the kind that it needs, where that is of a higher kind."""
    from .dtypes import result_type

    return OURS["full"]((), number, dtype=result_type(x, number), device=x.device)


def _table(names: list[str], make: Callable[[str, str], Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    pairs = [(name.partition("=")[0], name.rpartition("=")[2]) for name in names]
    return {name: make(name, ours) for name, ours in pairs}


#: The functions by the standard's names.
FUNCTIONS = {**_table(ONE, _of_one), **_table(TWO, _of_two)}


def clip(x: Tensor, /, min: Any = None, max: Any = None) -> Tensor:
    """Each element within bounds, which are numbers or arrays; the dtype is that of `x`."""
    if min is None and max is None:
        return clone(x)
    bounds = [to(b, dtype=x.dtype) if isinstance(b, Tensor) else None if b is None else _like(b, x).to(x.dtype) for b in (min, max)]
    return OURS["clamp"](x, *bounds)
