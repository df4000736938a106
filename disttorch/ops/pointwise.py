"""Elementwise functions: name, the array library's function, and the derivative.

A rule reads as calculus does: ``g`` is the gradient of the result, ``x`` and ``y`` the operands, ``out`` the result.
Broadcasting is undone by the engine.
"""

from __future__ import annotations

import math
from typing import Any

from ..autograd.operation import Operation, apply
from ..autograd.variable import Tensor
from ..backend import dtypes as dt
from ..backend.dtypes import COMPLEX_DTYPES, DIFFERENTIABLE, INTEGRAL
from .elementwise import IN_PLACE, OPERATORS, binary, unary
from .operands import expect_tensors, write_out

# What users find of this family, and where: see ops/public.py.
BOTH = """
    abs acos acosh add asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_not bitwise_or
    bitwise_right_shift bitwise_xor ceil copysign cos cosh deg2rad div eq erf erfc exp exp2 expm1 floor floor_divide
    fmax fmin fmod frac ge gt hypot isfinite isinf isnan le log log10 log1p log2 logaddexp logical_and logical_not
    logical_or logical_xor logit lt maximum minimum mul ne neg positive pow rad2deg reciprocal relu remainder round
    rsqrt sigmoid sign signbit sin sinc sinh sqrt square sub tan tanh trunc
"""
FUNCTIONS = "rsub"
TWINS = "logit pow round"
ALIASES = {
    "absolute": "abs", "arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh", "arctan": "atan",
    "arctan2": "atan2", "arctanh": "atanh", "divide": "div", "fix": "trunc", "greater": "gt", "greater_equal": "ge",
    "less": "lt", "less_equal": "le", "multiply": "mul", "negative": "neg", "not_equal": "ne", "subtract": "sub",
    "true_divide": "div",
}  # fmt: skip

BOOL, INT64 = dt.bool_.numpy, dt.int64.numpy

# Powers, roots, exponentials and logarithms
exp = unary("exp", "exp", lambda g, out: g * out)
exp2 = unary("exp2", "exp2", lambda g, out: g * out * math.log(2))
expm1 = unary("expm1", "expm1", lambda g, out: g * (out + 1))
log = unary("log", "log", lambda g, x: g / x)
log2 = unary("log2", "log2", lambda g, x: g / (x * math.log(2)))
log10 = unary("log10", "log10", lambda g, x: g / (x * math.log(10)))
log1p = unary("log1p", "log1p", lambda g, x: g / (x + 1))
sqrt = unary("sqrt", "sqrt", lambda g, out: g / (2 * out))
rsqrt = unary("rsqrt", lambda xp, x: xp.reciprocal(xp.sqrt(x)), lambda g, out: g * out * out * out * -0.5, doc="1 / sqrt(x)")
reciprocal = unary("reciprocal", "reciprocal", lambda g, out: -g * out * out)
square = unary(
    "square",
    lambda xp, x: xp.square(x if x.dtype != BOOL else x.astype(INT64)),  # as a power with an integer exponent
    lambda g, x: g * 2 * x,
    to_float=False,
)

# Trigonometric and hyperbolic functions
sin = unary("sin", "sin", lambda g, x, xp: g * xp.cos(x))
cos = unary("cos", "cos", lambda g, x, xp: -g * xp.sin(x))
tan = unary("tan", "tan", lambda g, out: g * (1 + out * out))
asin = unary("asin", "arcsin", lambda g, x, xp: g / xp.sqrt(1 - x * x))
acos = unary("acos", "arccos", lambda g, x, xp: -g / xp.sqrt(1 - x * x))
atan = unary("atan", "arctan", lambda g, x: g / (1 + x * x))
sinh = unary("sinh", "sinh", lambda g, x, xp: g * xp.cosh(x))
cosh = unary("cosh", "cosh", lambda g, x, xp: g * xp.sinh(x))
tanh = unary("tanh", "tanh", lambda g, out: g * (1 - out * out))
asinh = unary("asinh", "arcsinh", lambda g, x, xp: g / xp.sqrt(x * x + 1))
acosh = unary("acosh", "arccosh", lambda g, x, xp: g / xp.sqrt(x * x - 1))
atanh = unary("atanh", "arctanh", lambda g, x: g / (1 - x * x))
deg2rad = unary("deg2rad", "deg2rad", lambda g: g * (math.pi / 180))
rad2deg = unary("rad2deg", "rad2deg", lambda g: g * (180 / math.pi))

# Special functions
sigmoid = unary("sigmoid", "sigmoid", lambda g, out: g * out * (1 - out), doc="1 / (1 + exp(-x))")


def _sinc_rule(g: Any, x: Any, out: Any, xp: Any) -> Any:
    # at 0 the derivative is 0
    some = xp.where(x == 0, xp.ones_like(x), x)
    return g * xp.where(x == 0, xp.zeros_like(x), (xp.cos(math.pi * x) - out) / some)


sinc = unary("sinc", "sinc", _sinc_rule, doc="sin(pi x) / (pi x)")
_logit = unary("logit", "logit", lambda g, x: g / (x * (1 - x)), doc="log(x / (1 - x))", in_place=False)
erf = unary("erf", "erf", lambda g, x, xp: g * xp.exp(-x * x) * (2 / math.sqrt(math.pi)))
erfc = unary("erfc", "erfc", lambda g, x, xp: g * xp.exp(-x * x) * (-2 / math.sqrt(math.pi)))

# Sign and rounding; the derivative of a step is zero wherever there is one
neg = unary("neg", "negative", lambda g: -g, to_float=False)
positive = unary("positive", "positive", lambda g: g, to_float=False, in_place=False)


def _abs_rule(g: Any, x: Any, xp: Any) -> Any:
    if g.dtype == x.dtype:
        return g * xp.sign(x)
    size = xp.abs(x)  # of complex numbers
    return g * (x / xp.where(size == 0, xp.ones_like(size), size))


def _of_real(name: str, kernel: str) -> Any:
    def function(xp: Any, x: Any) -> Any:
        if x.dtype in COMPLEX_DTYPES:
            raise RuntimeError(f"Unlike NumPy, torch.{name} doesn't support complex numbers; see sgn()")
        return getattr(xp, kernel)(x)

    return function


abs = unary("abs", "abs", _abs_rule, to_float=False)
sign = unary("sign", _of_real("sign", "sgn"), lambda g, xp: xp.zeros_like(g), to_float=False)
floor = unary("floor", "floor", lambda g, xp: xp.zeros_like(g), to_float=False)
ceil = unary("ceil", "ceil", lambda g, xp: xp.zeros_like(g), to_float=False)
trunc = unary("trunc", "trunc", lambda g, xp: xp.zeros_like(g), to_float=False)
_rint = unary("round", "rint", lambda g, xp: xp.zeros_like(g), to_float=False)
frac = unary("frac", "frac", lambda g: g, to_float=False, doc="x - trunc(x)")
relu = unary("relu", "relu", lambda g, out: g * (out > 0), to_float=False, doc="max(x, 0)")

# Tests and logic: results are bool or integers, without gradient
isnan = unary("isnan", "isnan", to_float=False, in_place=False)
isinf = unary("isinf", "isinf", to_float=False, in_place=False)
isfinite = unary("isfinite", "isfinite", to_float=False, in_place=False)
signbit = unary("signbit", "signbit", to_float=False, in_place=False)
logical_not = unary("logical_not", "logical_not", to_float=False)
bitwise_not = unary("bitwise_not", "invert", to_float=False)

# Arithmetic
_add = binary("add", "add", x=lambda g: g, y=lambda g: g)
_sub = binary("sub", "subtract", x=lambda g: g, y=lambda g: -g)
mul = binary("mul", "multiply", x=lambda g, y: g * y, y=lambda g, x: g * x)
_div = binary("div", "divide", x=lambda g, y: g / y, y=lambda g, y, out: -g * out / y, to_float=True)
_pow = binary(
    "pow",
    lambda xp, x, y: xp.integer_power(x, y) if x.dtype in INTEGRAL else xp.power(x, y),
    # where the exponent is 0 the derivative is 0, also at x = 0 where x ** -1 is infinite
    x=lambda g, x, y, xp: g * xp.where(y == 0, xp.zeros_like(y), y * x ** (y - 1)),
    # x ** y does not change with y at x = 0, y > 0, where log(x) is infinite
    y=lambda g, x, y, out, xp: g * xp.where((x == 0) & (y >= 0), xp.zeros_like(out), out * xp.log(x)),
)
_pow_number = Operation(
    "pow",
    lambda xp, x, *, exponent: xp.power(x, xp.scalar(exponent, x.dtype)),
    x=lambda g, x, exponent, xp: g * (exponent * x ** (exponent - 1)) if exponent else xp.zeros_like(g),
    elementwise=True,
)


def _dividing(kernel: str) -> Any:
    def divide(xp: Any, x: Any, y: Any) -> Any:
        if y.dtype in INTEGRAL and xp.name == "cpu" and not xp.all(y):
            raise RuntimeError(f"ZeroDivisionError: {kernel} of integers by zero")
        return getattr(xp, kernel)(x, y)

    return divide


floor_divide = binary("floor_divide", _dividing("floor_divide"))
# div with a rounding mode has a gradient, which is zero; floor_divide has none, as in PyTorch
_ROUNDED = {
    mode: binary(
        f"div_{mode}",
        _dividing(kernel),
        x=lambda g, xp: xp.zeros_like(g),
        y=lambda g, xp: xp.zeros_like(g),
        in_place=False,
    )
    for mode, kernel in (("floor", "floor_divide"), ("trunc", "trunc_divide"))
}
remainder = binary("remainder", _dividing("remainder"), x=lambda g: g, y=lambda g, x, y, xp: -g * xp.floor(x / y))
fmod = binary("fmod", _dividing("fmod"), x=lambda g: g, y=lambda g, x, y, xp: -g * xp.trunc(x / y), numbers="second")
atan2 = binary(
    "atan2",
    "arctan2",
    x=lambda g, x, y: g * y / (x * x + y * y),
    y=lambda g, x, y: -g * x / (x * x + y * y),
    to_float=True,
    numbers="none",
)
hypot = binary("hypot", "hypot", x=lambda g, x, out: g * x / out, y=lambda g, y, out: g * y / out, numbers="none")
logaddexp = binary(
    "logaddexp",
    "log_add_exp",
    x=lambda g, x, out, xp: g * xp.exp(x - out),
    y=lambda g, y, out, xp: g * xp.exp(y - out),
    in_place=False,
    numbers="none",
)
copysign = binary(
    "copysign", "copysign", x=lambda g, x, out, xp: g * xp.sign(x) * xp.sign(out), to_float=True,
    numbers="second",
)


# Greater and smaller; equal operands share the gradient and NaN gives it to both, as in PyTorch


def _share(xp: Any, g: Any, equal: Any, lost: Any) -> Any:
    return xp.where(equal, g * 0.5, xp.where(lost, xp.zeros_like(g), g))


maximum = binary(
    "maximum",
    "maximum",
    x=lambda g, x, y, xp: _share(xp, g, x == y, x < y),
    y=lambda g, x, y, xp: _share(xp, g, x == y, x > y),
    in_place=False,
    numbers="none",
)
minimum = binary(
    "minimum",
    "minimum",
    x=lambda g, x, y, xp: _share(xp, g, x == y, x > y),
    y=lambda g, x, y, xp: _share(xp, g, x == y, x < y),
    in_place=False,
    numbers="none",
)
fmax = binary("fmax", "fmax", x=lambda g, x, out: g * (x == out), y=lambda g, x, out: g * (x != out), in_place=False, numbers="none")
fmin = binary("fmin", "fmin", x=lambda g, x, out: g * (x == out), y=lambda g, x, out: g * (x != out), in_place=False, numbers="none")

# Comparisons and logic
eq = binary("eq", "equal", numbers="second")
ne = binary("ne", "not_equal", numbers="second")
lt = binary("lt", "less", numbers="second")
le = binary("le", "less_equal", numbers="second")
gt = binary("gt", "greater", numbers="second")
ge = binary("ge", "greater_equal", numbers="second")
logical_and = binary("logical_and", "logical_and", numbers="none")
logical_or = binary("logical_or", "logical_or", numbers="none")
logical_xor = binary("logical_xor", "logical_xor", numbers="none")
bitwise_and = binary("bitwise_and", "bitwise_and")
bitwise_or = binary("bitwise_or", "bitwise_or")
bitwise_xor = binary("bitwise_xor", "bitwise_xor")
bitwise_left_shift = binary("bitwise_left_shift", "left_shift")
bitwise_right_shift = binary("bitwise_right_shift", "right_shift")


# Functions of the table with one more argument, or a shorter way


def pow(input: Any, exponent: Any, *, out: Tensor | None = None) -> Tensor:
    """input ** exponent, elementwise with broadcasting; as ``torch.pow``.

    Raises
    ------
    RuntimeError
        For integers to a negative power.
    """
    if exponent.__class__ in (int, float) and isinstance(input, Tensor):
        if input._array.dtype in DIFFERENTIABLE:
            result = apply(_pow_number, input, exponent=exponent)
            return result if out is None else write_out("pow", result, out)
        if exponent.__class__ is int and exponent < 0:
            raise RuntimeError(f"pow: integers to negative integer powers are not allowed, got exponent {exponent}")
    return _pow(input, exponent, out=out)


def _pow_operator(input: Any, exponent: Any) -> Any:
    return pow(input, exponent) if exponent.__class__ in (int, float) else OPERATORS[_pow](input, exponent)


OPERATORS[pow] = _pow_operator


def reflected_division(input: Tensor, other: Any) -> Any:
    """other / input, for an `other` that is no tensor: by name, since autocast on a GPU computes it in float32, as a reciprocal."""
    return OPERATORS[_div](other, input)


def add(input: Any, other: Any, *, alpha: Any = 1, out: Tensor | None = None) -> Tensor:
    """input + alpha * other, elementwise with broadcasting; as ``torch.add``."""
    return _add(input, other if alpha == 1 else other * alpha, out=out)


def sub(input: Any, other: Any, *, alpha: Any = 1, out: Tensor | None = None) -> Tensor:
    """input - alpha * other, elementwise with broadcasting; as ``torch.sub``."""
    return _sub(input, other if alpha == 1 else other * alpha, out=out)


def rsub(input: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """other - alpha * input, elementwise with broadcasting; as ``torch.rsub``."""
    expect_tensors("rsub", input)
    return _sub(other, input if alpha == 1 else mul(input, alpha))


def div(input: Any, other: Any, *, rounding_mode: str | None = None, out: Tensor | None = None) -> Tensor:
    """input / other, elementwise with broadcasting; as ``torch.div``.

    Parameters
    ----------
    input, other : Tensor or number
    rounding_mode : {None, "trunc", "floor"}
        None divides truly (integers become floating point), the others round towards zero or down and keep integers.
    out : Tensor, optional

    Raises
    ------
    ValueError
        For another rounding mode.
    """
    if rounding_mode is None:
        return _div(input, other, out=out)
    if rounding_mode in _ROUNDED:
        return _ROUNDED[rounding_mode](input, other, out=out)
    raise RuntimeError(f"div: rounding_mode must be None, 'trunc' or 'floor', not {rounding_mode!r}")


def round(input: Tensor, *, decimals: int = 0, out: Tensor | None = None) -> Tensor:
    """To the nearest integer, or that many decimal places, halves to even; as ``torch.round``."""
    if input._array.dtype in INTEGRAL:
        return positive(input, out=out)
    if decimals == 0:
        return _rint(input, out=out)
    scale = 10.0**decimals
    return _div(_rint(mul(input, scale)), scale, out=out)


def logit(input: Tensor, eps: float | None = None, *, out: Tensor | None = None) -> Tensor:
    """log(x / (1 - x)), elementwise; as ``torch.logit``.

    Parameters
    ----------
    input : Tensor
    eps : float, optional
        To clamp to [eps, 1 - eps] first.
    """
    if eps is None:
        return _logit(input, out=out)
    if input._array.dtype in INTEGRAL:
        input = input.to(dtype=dt.get_default_dtype())
    return _logit(apply(_clamped, input, eps=eps), out=out)


_clamped = Operation(
    "clamp", lambda xp, x, *, eps: xp.clip(x, eps, 1 - eps), x=lambda g, x, eps: g * ((x >= eps) & (x <= 1 - eps))
)


def _with_alpha(name: str) -> Any:
    plain = IN_PLACE[name]

    def function(input: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
        return plain(input, other if alpha == 1 else other * alpha)

    function.__name__, function.__doc__ = name, plain.__doc__
    return function


def _div_in_place(input: Tensor, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """`div` in place."""
    if rounding_mode is None:
        return _true_div_in_place(input, other)
    return input.copy_(div(input, other, rounding_mode=rounding_mode))


_true_div_in_place = IN_PLACE["div_"]
IN_PLACE.update(
    add_=_with_alpha("add_"),
    sub_=_with_alpha("sub_"),
    div_=_div_in_place,
)
