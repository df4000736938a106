"""The error function and the activation functions that are more than one array call.

NumPy has no error function, and SciPy is not a dependency of ours; the coefficients below are our own.
"""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

from . import kernel
from .precision import narrow, wide

__all__ = ["erf", "erfc", "gelu", "gelu_backward", "sigmoid", "silu", "softplus"]

# float32: erf(x) = tanh(x * A(x^2)). A is the minimax polynomial of atanh(erf(x)) / x for x in [0, 4.2], weighted by
# what an error in it does to erf; found by linear programming over Chebyshev nodes in 40 digits. Relative error of
# erf at most 7.1e-8, the largest that half a unit in the last place can be being 6.0e-8. A grows beyond the interval.
ERF_AS_TANH = (
    1.1283792472, 0.1027698652, -0.00019529190507, -0.0006148339955, 8.4594487084e-05, -4.7941154445e-06,
    2.7523547678e-08, 5.4236639067e-09,
)  # fmt: skip

# float64, |x| < 1: erf(x) = x * P(x^2) / Q(x^2), rational interpolation of erf(x) / x at the Chebyshev nodes of [0, 1]
# in x^2, in 60 digits. Relative error at most 9.5e-19.
ERF_P = (
    1.12837916709551257, 0.143655817150287623, 0.0455033341653278001, 0.00188291554715639824,
    0.000197095880697525152, 8.62560244572637566e-8,
)  # fmt: skip
ERF_Q = (
    1.0, 0.460644986489836549, 0.0938746087651240953, 0.0107052518719731755, 0.00069373623323491591,
    0.0000208664841010191631,
)  # fmt: skip

# float64, 0.5 <= x <= 28: erfc(x) = exp(-x^2) * P(x) / Q(x), rational interpolation of exp(x^2) * erfc(x) at the
# Chebyshev nodes in (x - 2.5) / (x + 2.5), in 60 digits. Relative error at most 5.5e-18; all coefficients are positive,
# so nothing cancels. Beyond 27.3 erfc is 0 in float64.
ERFC_P = (
    0.999999999973500529, 2.27017205906681036, 2.54311775357967081, 1.81122814834027439, 0.896368571549866161,
    0.318795364685107399, 0.0815978248758574119, 0.0145766422455178061, 0.00166804606500849236,
    0.00009542982370590041,
)  # fmt: skip
ERFC_Q = (
    1.0, 3.39855122574010587, 5.37797215817545818, 5.23332143026976974, 3.48013694071941544, 1.65960782546810381,
    0.577883713214561616, 0.146106646226752518, 0.0259209981614115786, 0.00295653467140092247,
    0.000169144958518827395,
)  # fmt: skip
ERFC_ENDS = 28.0

HALF_ERF_AS_TANH = tuple(c * sqrt(0.5) * 0.5**k for k, c in enumerate(ERF_AS_TANH))

GELU_SLOPE, GELU_CUBIC = sqrt(2 / pi), 0.044715


@kernel
def erf(xp: Any, x: Any) -> Any:
    """The error function, 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x, to a few units in the last place
    (https://docs.pytorch.org/docs/stable/special.html#torch.special.erf).
    """
    if x.dtype.itemsize < 8:
        wide_x = wide(xp, x)
        return narrow(xp, xp.tanh(wide_x * horner(ERF_AS_TANH, wide_x * wide_x)), x.dtype)
    size = xp.abs(x)
    inner = erf_inside(x)
    outer = xp.copysign(1.0 - erfc_outside(xp, size), x)
    return xp.where(size < 1.0, inner, outer)


@kernel
def erfc(xp: Any, x: Any) -> Any:
    """``1 - erf(x)`` without the cancellation where erf is nearly 1."""
    dtype, x = x.dtype, xp.asarray(x, dtype="float64")
    size = xp.abs(x)
    tail = erfc_outside(xp, size)
    return narrow(xp, xp.where(size < 0.5, 1.0 - erf_inside(x), xp.where(x < 0, 2.0 - tail, tail)), dtype)


@kernel
def sigmoid(xp: Any, x: Any) -> Any:
    """``1 / (1 + exp(-x))``; where the exponential is infinite the result is the 0 that it rounds to."""
    return narrow(xp, 1.0 / (xp.exp(-wide(xp, x)) + 1.0), x.dtype)


@kernel
def softplus(xp: Any, x: Any, beta: float, threshold: float) -> Any:
    """``log(1 + exp(beta * x)) / beta``, and x itself where ``beta * x > threshold``
    (https://docs.pytorch.org/docs/stable/generated/torch.nn.Softplus.html).
    """
    wide_x = wide(xp, x)
    scaled = wide_x * beta
    curve = xp.log1p(xp.exp(xp.minimum(scaled, threshold))) / beta
    return narrow(xp, xp.where(scaled > threshold, wide_x, curve), x.dtype)


@kernel
def gelu(xp: Any, x: Any, approximate: str) -> Any:
    """``x * Phi(x)`` with the normal distribution function Phi, or its approximation by a hyperbolic tangent
    (https://docs.pytorch.org/docs/stable/generated/torch.nn.GELU.html).

    Raises
    ------
    RuntimeError
        If `approximate` is neither ``"none"`` nor ``"tanh"``.
    """
    check_gelu(approximate)
    wide_x = wide(xp, x)
    if approximate == "none":
        twice = erf_of_half(xp, wide_x, wide_x * wide_x) + 1.0
    else:
        twice = xp.tanh((wide_x * wide_x * (GELU_SLOPE * GELU_CUBIC) + GELU_SLOPE) * wide_x) + 1.0
    return narrow(xp, wide_x * twice * 0.5, x.dtype)


@kernel
def gelu_backward(xp: Any, g: Any, x: Any, approximate: str) -> Any:
    """The gradient at the input of `gelu`: g times the derivative, Phi(x) + x * phi(x) with the normal density phi."""
    check_gelu(approximate)
    wide_x = wide(xp, x)
    square = wide_x * wide_x
    if approximate == "none":
        slope = erf_of_half(xp, wide_x, square) * 0.5 + 0.5 + wide_x * xp.exp(square * -0.5) * (1 / sqrt(2 * pi))
    else:
        t = xp.tanh((square * (GELU_SLOPE * GELU_CUBIC) + GELU_SLOPE) * wide_x)
        inner = square * (3 * GELU_SLOPE * GELU_CUBIC) + GELU_SLOPE
        slope = (t + 1.0) * 0.5 + wide_x * (1.0 - t * t) * inner * 0.5
    return narrow(xp, wide(xp, g) * slope, x.dtype)


@kernel
def silu(xp: Any, x: Any) -> Any:
    """``x * sigmoid(x)`` (https://docs.pytorch.org/docs/stable/generated/torch.nn.SiLU.html)."""
    wide_x = wide(xp, x)
    return narrow(xp, wide_x * sigmoid(xp, wide_x), x.dtype)


def check_gelu(approximate: str) -> None:
    """Refuse another approximation than those of PyTorch."""
    if approximate not in ("none", "tanh"):
        raise RuntimeError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")


def horner(coefficients: tuple[float, ...], x: Any) -> Any:
    """The polynomial with these coefficients, the constant first."""
    total = x * coefficients[-1] + coefficients[-2]
    for c in coefficients[-3::-1]:
        total = total * x + c
    return total


def erf_of_half(xp: Any, x: Any, square: Any) -> Any:
    """``erf(x / sqrt(2))``, given the square of x; in float32 the root is in the coefficients."""
    if x.dtype.itemsize < 8:
        return xp.tanh(x * horner(HALF_ERF_AS_TANH, square))
    return xp.erf(x * sqrt(0.5))


def erf_inside(x: Any) -> Any:
    """erf for float64 and |x| < 1."""
    square = x * x
    return x * horner(ERF_P, square) / horner(ERF_Q, square)


def erfc_outside(xp: Any, x: Any) -> Any:
    """erfc for float64 and x >= 0.5; nan passes through, beyond 28 it is the value there, 0."""
    x = xp.minimum(x, ERFC_ENDS)
    # exp(-x^2) multiplies the rounding of x^2 by x^2. The upper half of x's bits (Dekker 1971) has an exact square.
    shifted = x * 134217729.0
    upper = shifted - (shifted - x)
    return xp.exp(-(upper * upper)) * xp.exp((upper - x) * (upper + x)) * horner(ERFC_P, x) / horner(ERFC_Q, x)
