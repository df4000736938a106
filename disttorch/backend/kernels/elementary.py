"""Elementwise functions that the array libraries do not have under one name."""

from __future__ import annotations

from math import log, pi
from typing import Any

from . import kernel
from .precision import is_complex, narrow, wide


@kernel
def relu(xp: Any, x: Any) -> Any:
    """max(x, 0); NaN stays NaN."""
    return xp.maximum(x, xp.zeros_like(x[..., :1]) if x.ndim else xp.zeros_like(x))


@kernel
def frac(xp: Any, x: Any) -> Any:
    """The part behind the point, with the sign of x."""
    return x - xp.trunc(x)


@kernel
def linear(xp: Any, x: Any, weight: Any, bias: Any) -> Any:
    """x @ weight.T + bias for x (..., k), weight (m, k), bias (m) or None."""
    product = xp.matmul(x, xp.swapaxes(weight, 0, 1))
    return product if bias is None else product + bias


@kernel
def sgn(xp: Any, x: Any) -> Any:
    """The sign; of a complex number, the number divided by its absolute value, and 0 for 0."""
    if x.dtype.kind == "b":
        return xp.array(x)
    if not is_complex(x):
        return xp.sign(x)
    size = xp.abs(x)
    return x / xp.where(size == 0, xp.ones_like(size), size)


@kernel
def angle(xp: Any, x: Any) -> Any:
    """The argument of a complex number; of a real one pi where it is negative, else 0, and NaN for NaN."""
    if is_complex(x):
        return xp.arctan2(x.imag, x.real)
    x_wide = wide(xp, x)  # of two numbers CuPy makes an array in float16
    return narrow(xp, xp.where(xp.isnan(x), x_wide, xp.where(x < 0, xp.full_like(x_wide, pi), 0.0)), x.dtype)


@kernel
def to_complex(xp: Any, real: Any, imag: Any) -> Any:
    """Complex numbers of their two parts."""
    real, imag = xp.broadcast_arrays(real, imag)
    result = xp.empty(real.shape, "complex64" if real.dtype.itemsize < 8 else "complex128")
    result.real[...] = real
    result.imag[...] = imag
    return result


@kernel
def sinc(xp: Any, x: Any) -> Any:
    """``sin(pi x) / (pi x)``, 1 at 0."""
    y = wide(xp, x) * pi
    return narrow(xp, xp.where(y == 0, 1.0, xp.sin(y) / xp.where(y == 0, 1.0, y)), x.dtype)


@kernel
def logit(xp: Any, x: Any) -> Any:
    """``log(x / (1 - x))``."""
    y = wide(xp, x)
    return narrow(xp, xp.log(y / (1.0 - y)), x.dtype)


@kernel
def xlogy(xp: Any, x: Any, y: Any) -> Any:
    """``x * log(y)``, 0 where x is 0 and y no NaN."""
    return narrow(xp, xp.where((x == 0) & (y == y), 0.0, wide(xp, x) * xp.log(wide(xp, y))), x.dtype)


@kernel
def xlog1py(xp: Any, x: Any, y: Any) -> Any:
    """``x * log(1 + y)``, 0 where x is 0 and y no NaN."""
    return narrow(xp, xp.where((x == 0) & (y == y), 0.0, wide(xp, x) * xp.log1p(wide(xp, y))), x.dtype)


@kernel
def log_add_exp(xp: Any, x: Any, y: Any) -> Any:
    """``log(exp(x) + exp(y))`` without overflow, also of complex numbers."""
    if not is_complex(x):
        return xp.logaddexp(x, y)
    first = (x.real >= y.real) | xp.isnan(x)
    large, small = xp.where(first, x, y), xp.where(first, y, x)
    # equal infinities would be subtracted
    same = (x == y) & xp.isinf(x.real)
    return xp.where(same, xp.where(x.real > 0, x + log(2), x), large + xp.log1p(xp.exp(small - large)))


@kernel
def integer_power(xp: Any, x: Any, y: Any) -> Any:
    """``x ** y`` of integers; to a negative power 0, but for x = 1 and -1, as in PyTorch."""
    if y.dtype.kind == "u" or y.dtype.kind == "b" or not xp.any(y < 0):
        return xp.power(x, y)
    negative = y < 0
    odd = (y & 1).astype(bool)
    inverse = xp.where(x == 1, 1, xp.where(x == -1, xp.where(odd, -1, 1), 0)).astype(x.dtype)
    return xp.where(negative, inverse, xp.power(x, xp.where(negative, xp.zeros_like(y), y)))


@kernel
def replace_nonfinite(xp: Any, x: Any, nan: float, posinf: float, neginf: float) -> Any:
    """NaN and infinities as numbers."""
    if is_complex(x):
        return xp.to_complex(*(replace_nonfinite(xp, part, nan, posinf, neginf) for part in (x.real, x.imag)))
    infinite = xp.isinf(x)
    filled = xp.where(infinite, xp.where(x > 0, posinf, neginf), xp.where(xp.isnan(x), nan, 0.0)).astype(x.dtype)
    return xp.where(xp.isfinite(x), x, filled)


@kernel
def trunc_divide(xp: Any, x: Any, y: Any) -> Any:
    """The quotient rounded towards zero, of integers exactly."""
    if x.dtype.kind not in "iu":
        return xp.trunc(x / y)
    quotient = xp.floor_divide(x, y)
    return quotient + ((quotient < 0) & (quotient * y != x)).astype(x.dtype)
