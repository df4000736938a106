"""Arithmetic beyond the four operations: limits, mixtures, integers' divisors, powers of two, floating-point numbers' parts."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..autograd.operation import Operation, apply
from ..autograd.variable import Tensor, wrap
from ..backend import dtypes as dt
from ..backend import namespace
from ..backend.dtypes import DTYPES
from .elementwise import IN_PLACE, binary
from .operands import expect_tensors, promoted
from .pointwise import mul, pow

# What users find of this family, and where: see ops/public.py.
BOTH = """
    addcdiv addcmul clamp clamp_max clamp_min float_power frexp gcd heaviside lcm ldexp lerp logaddexp2 nan_to_num nextafter
    xlogy
"""
TWINS = "addcdiv addcmul clamp clamp_max clamp_min ldexp lerp nan_to_num"
OUT = "addcdiv addcmul clamp clamp_max clamp_min float_power frexp ldexp lerp nan_to_num"
ALIASES = {"clip": "clamp"}

# --- of two operands --------------------------------------------------------------------------------------------------

gcd = binary("gcd", "gcd", numbers="none", doc="the greatest common divisor of integers")
lcm = binary("lcm", "lcm", numbers="none", doc="the least common multiple of integers")
nextafter = binary(
    "nextafter",
    "nextafter",
    x=lambda g: g,
    y=lambda g, xp: xp.zeros_like(g),
    numbers="none",
    doc="the next floating-point number after x towards y",
)
logaddexp2 = binary(
    "logaddexp2",
    "logaddexp2",
    x=lambda g, x, out, xp: g * xp.exp2(x - out),
    y=lambda g, y, out, xp: g * xp.exp2(y - out),
    in_place=False,
    numbers="none",
    doc="log2(2 ** x + 2 ** y)",
)
xlogy = binary(
    "xlogy",
    "xlogy",
    x=lambda g, x, y, xp: g * xp.where((x == 0) & (y <= 0), xp.zeros_like(y), xp.log(y)),
    y=lambda g, x, y: g * x / y,
    to_float=True,
    doc="x * log(y), 0 where x is 0",
)
_heaviside = binary(
    "heaviside", lambda xp, x, y: xp.where(x == 0, y, x > 0).astype(x.dtype), in_place=False, numbers="none"
)


def heaviside(input: Tensor, values: Tensor, *, out: Tensor | None = None) -> Tensor:
    """0 where x < 0, 1 where x > 0, and `values` where x is 0; as ``torch.heaviside``.

    Raises
    ------
    RuntimeError
        If the dtypes differ.
    """
    expect_tensors("heaviside", input, values)
    if input._array.dtype != values._array.dtype:
        raise RuntimeError(f"heaviside is not yet implemented for tensors with different dtypes, got {input.dtype} and {values.dtype}")
    return _heaviside(input, values, out=out)


def _heaviside_in_place(input: Tensor, values: Tensor) -> Tensor:
    """`heaviside` in place."""
    return input.copy_(heaviside(input, values))


IN_PLACE["heaviside_"] = _heaviside_in_place


def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """input * 2 ** other, floating point; as ``torch.ldexp``."""
    expect_tensors("ldexp", input, other)
    return mul(input, pow(2.0, other))


def float_power(input: Any, exponent: Any) -> Tensor:
    """input ** exponent in float64, or complex128; as ``torch.float_power``."""
    is_complex = any(v.dtype.is_complex if isinstance(v, Tensor) else isinstance(v, complex) for v in (input, exponent))
    wide = dt.complex128 if is_complex else dt.float64
    operands = [v.to(dtype=wide) if isinstance(v, Tensor) else v for v in (input, exponent)]
    return pow(*operands)


def _float_power_in_place(input: Tensor, exponent: Any) -> Tensor:
    """`float_power` in place."""
    result = float_power(input, exponent)
    if result._array.dtype != input._array.dtype:
        raise RuntimeError(f"float_power_: the base given has dtype {input.dtype} but the operation's result requires dtype {result.dtype}")
    return input.copy_(result)


IN_PLACE["float_power_"] = _float_power_in_place


class Parts(NamedTuple):
    """What `frexp` returns."""

    mantissa: Tensor
    exponent: Tensor


_frexp = Operation(
    "frexp",
    lambda xp, x: xp.frexp(x) if x.dtype.itemsize > 2 or x.dtype.kind == "f" else _frexp_wide(xp, x),
    extras=("exponent",),
    x=lambda g, exponent, xp: g * xp.exp2(xp.asarray(-exponent, dtype=g.dtype)),
)


def _frexp_wide(xp: Any, x: Any) -> tuple:
    mantissa, exponent = xp.frexp(x.astype("float32"))
    return mantissa.astype(x.dtype), exponent


def frexp(input: Tensor) -> Parts:
    """mantissa and exponent with ``input = mantissa * 2 ** exponent`` and 0.5 <= abs(mantissa) < 1; as ``torch.frexp``.

    Raises
    ------
    RuntimeError
        For tensors that are not floating point.
    """
    if input._array.dtype not in dt.FLOATING:
        raise RuntimeError(f"torch.frexp() only supports floating-point dtypes, got {input.dtype}")
    xp = namespace(input._array)
    _, exponent = _frexp.forward(xp, input._array)
    return Parts(apply(_frexp, input), wrap(xp.asarray(exponent, dt.int32.numpy)))


# --- of three ---------------------------------------------------------------------------------------------------------

_lerp = Operation(
    "lerp",
    # from the nearer end, so that 0 and 1 give the ends themselves
    lambda xp, start, end, weight: xp.where(
        xp.abs(weight) < 0.5, start + weight * (end - start), end - (end - start) * (1 - weight)
    ).astype(start.dtype),
    start=lambda g, weight: g * (1 - weight),
    end=lambda g, weight: g * weight,
    weight=lambda g, start, end: g * (end - start),
    elementwise=True,
)


def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """input + weight * (end - input): the point between, with broadcasting; as ``torch.lerp``.

    Parameters
    ----------
    input, end : Tensor
        Of one floating-point or complex dtype.
    weight : Tensor or number

    Raises
    ------
    RuntimeError
        If the dtypes differ.
    """
    expect_tensors("lerp", input, end)
    for v in (end, weight):
        if isinstance(v, Tensor) and v._array.dtype != input._array.dtype:
            raise RuntimeError(f"lerp: expected dtype {input.dtype} for all tensors but got dtype {v.dtype}")
    return apply(_lerp, *promoted("lerp", input, end, weight))


_addcmul = Operation(
    "addcmul",
    lambda xp, x, tensor1, tensor2, *, value: x + _times(xp, tensor1 * tensor2, value),
    x=lambda g: g,
    tensor1=lambda g, tensor2, value: g * tensor2 * value,
    tensor2=lambda g, tensor1, value: g * tensor1 * value,
    elementwise=True,
)
_addcdiv = Operation(
    "addcdiv",
    lambda xp, x, tensor1, tensor2, *, value: x + _times(xp, tensor1 / tensor2, value),
    x=lambda g: g,
    tensor1=lambda g, tensor2, value: g * value / tensor2,
    tensor2=lambda g, tensor1, tensor2, value: -g * value * tensor1 / (tensor2 * tensor2),
    elementwise=True,
)


def _times(xp: Any, a: Any, value: Any) -> Any:
    return a if value == 1 else a * xp.scalar(value, a.dtype)


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """input + value * tensor1 * tensor2, with broadcasting; as ``torch.addcmul``."""
    expect_tensors("addcmul", input, tensor1, tensor2)
    return apply(_addcmul, *promoted("addcmul", input, tensor1, tensor2), value=_fitting("addcmul", input, value))


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """input + value * tensor1 / tensor2, with broadcasting; as ``torch.addcdiv``.

    Raises
    ------
    RuntimeError
        For integers.
    """
    expect_tensors("addcdiv", input, tensor1, tensor2)
    if tensor1._array.dtype in dt.INTEGRAL and tensor2._array.dtype in dt.INTEGRAL:
        raise RuntimeError(
            f"addcdiv: integer division with addcdiv is not supported, got {tensor1.dtype} / {tensor2.dtype}; "
            "use (input + value * torch.trunc(tensor1 / tensor2)) or convert to floating point"
        )
    return apply(_addcdiv, *promoted("addcdiv", input, tensor1, tensor2), value=_fitting("addcdiv", input, value))


def _fitting(name: str, input: Tensor, value: Any) -> Any:
    if input._array.dtype in dt.INTEGRAL and not isinstance(value, int):
        raise RuntimeError(f"{name}: for integral input tensors, argument value must not be a floating point number, got {value}")
    return value


# --- limits -----------------------------------------------------------------------------------------------------------

_clamp_numbers = Operation(
    "clamp",
    lambda xp, x, *, low, high: xp.clip(x, low, high),
    x=lambda g, x, low, high: g * _within(x, low, high),
    elementwise=True,
)
_clamp = Operation(
    "clamp",
    lambda xp, x, low, high: xp.minimum(xp.maximum(x, low), high),
    x=lambda g, x, low, high: g * _within(x, low, high),
    low=lambda g, x, low, high: g * ((x < low) & (low < high)),
    high=lambda g, x, low, high: g * ((x > high) | (low > high)),
    elementwise=True,
)
_clamp_min = Operation(
    "clamp_min", lambda xp, x, low: xp.maximum(x, low), x=lambda g, x, low: g * (x >= low), low=lambda g, x, low: g * (x < low),
    elementwise=True,
)
_clamp_max = Operation(
    "clamp_max", lambda xp, x, high: xp.minimum(x, high), x=lambda g, x, high: g * (x <= high), high=lambda g, x, high: g * (x > high),
    elementwise=True,
)


def _within(x: Any, low: Any, high: Any) -> Any:
    if low is None:
        return x <= high
    return x >= low if high is None else (x >= low) & (x <= high)


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Each element, but not less than `min` and not more than `max`; as ``torch.clamp``.

    Parameters
    ----------
    input : Tensor
    min, max : number or Tensor, optional
        Where min > max the result is max.

    Raises
    ------
    RuntimeError
        If both are absent.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.clamp(disttorch.tensor([-2.0, 0.5, 3.0]), -1, 1)
    tensor([-1.0000,  0.5000,  1.0000])
    """
    if min is None and max is None:
        raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        if max is None:
            return apply(_clamp_min, *promoted("clamp", input, min))
        if min is None:
            return apply(_clamp_max, *promoted("clamp", input, max))
        return apply(_clamp, *promoted("clamp", input, min, max))
    result = dt.result_type(*(v for v in (input, min, max) if v is not None))
    if result.category == dt.COMPLEX:
        raise RuntimeError(f"clamp is not supported for complex types, got {DTYPES[input._array.dtype]}")
    if result.numpy != input._array.dtype:
        input = input.to(dtype=result)
    xp = namespace(input._array)
    for bound in (min, max):
        if bound is not None and bound != bound:
            return input * math.nan
    low, high = (None if v is None else xp.scalar(v, result.numpy) for v in (min, max))
    return apply(_clamp_numbers, input, low=low, high=high)


def clamp_min(input: Tensor, min: Any) -> Tensor:
    """`clamp` from below; as ``torch.clamp_min``."""
    expect_tensors("clamp_min", input)
    return clamp(input, min=min)


def clamp_max(input: Tensor, max: Any) -> Tensor:
    """`clamp` from above; as ``torch.clamp_max``."""
    expect_tensors("clamp_max", input)
    return clamp(input, max=max)


clip = clamp

_nan_to_num = Operation(
    "nan_to_num",
    lambda xp, x, *, nan, posinf, neginf: xp.replace_nonfinite(x, nan, posinf, neginf),
    x=lambda g, x, xp: g * xp.isfinite(x),
)


def nan_to_num(input: Tensor, nan: float | None = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """NaN, infinity and minus infinity replaced by numbers; as ``torch.nan_to_num``.

    Parameters
    ----------
    input : Tensor
    nan : float
        What stands for NaN.
    posinf, neginf : float, optional
        The greatest and smallest number of the dtype unless given.
    """
    d = input._array.dtype
    if d in dt.INTEGRAL:
        return input.clone()
    limits: Any = dt.finfo(DTYPES[d])
    return apply(
        _nan_to_num,
        input,
        nan=0.0 if nan is None else nan,
        posinf=limits.max if posinf is None else posinf,
        neginf=limits.min if neginf is None else neginf,
    )
