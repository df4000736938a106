"""Special functions and their derivatives. Integers are taken as the default floating-point dtype."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..autograd.operation import Operation, apply
from ..autograd.variable import Tensor
from ..backend import dtypes as dt
from ..backend.dtypes import INTEGRAL
from ..backend.kernels.polynomials import POLYNOMIALS
from . import pointwise
from .elementwise import binary, unary
from .operands import write_out

# What users find of this family under the package's own name, and where: see ops/public.py. The rest is in disttorch.special.
BOTH = "digamma erfinv i0 igamma igammac lgamma mvlgamma polygamma"
TWINS = "mvlgamma polygamma"
OUT = "mvlgamma polygamma"

# --- the gamma function -----------------------------------------------------------------------------------------------

lgamma = unary("lgamma", "lgamma", lambda g, x, xp: g * xp.digamma(x), doc="log(abs(gamma(x)))")
digamma = unary("digamma", "digamma", lambda g, x, xp: g * xp.polygamma(x, 1), doc="the derivative of lgamma")
_polygamma = Operation(
    "polygamma",
    lambda xp, x, *, n: xp.polygamma(x, n),
    x=lambda g, x, n, xp: g * xp.polygamma(x, n + 1),
)
zeta = binary(
    "zeta",
    "zeta",
    y=lambda g, x, y, xp: -g * x * xp.zeta(x + 1, y),
    to_float=True,
    in_place=False,
    doc="the Hurwitz zeta function, the sum of (k + other) ** -input over k >= 0",
)


def _density(g: Any, x: Any, y: Any, xp: Any) -> Any:
    """g times the derivative of the incomplete gamma function at its upper end."""
    return g * xp.exp((x - 1) * xp.log(y) - y - xp.lgamma(x))


igamma = binary(
    "igamma", "igamma", y=_density, numbers="none", to_float=True, doc="the regularized lower incomplete gamma function"
)
igammac = binary(
    "igammac",
    "igammac",
    y=lambda g, x, y, xp: -_density(g, x, y, xp),
    numbers="none",
    to_float=True,
    doc="the regularized upper incomplete gamma function",
)


def polygamma(n: Any, input: Any) -> Tensor:
    """The n-th derivative of the digamma function; as ``torch.polygamma``, and as the method, whose first argument is the tensor.

    Raises
    ------
    RuntimeError
        If `n` is negative.
    """
    if isinstance(n, Tensor):
        n, input = input, n
    if n < 0:
        raise RuntimeError(f"polygamma(n, x) does not support negative n, got {n}")
    return apply(_polygamma, _floating(input), n=n)


def mvlgamma(input: Tensor, p: int) -> Tensor:
    """The logarithm of the multivariate gamma function of dimension p; as ``torch.mvlgamma``.

    Raises
    ------
    RuntimeError
        If p is less than 1.
    """
    if p < 1:
        raise RuntimeError(f"mvlgamma: p has to be greater than or equal to 1, got {p}")
    x = _floating(input)
    total = lgamma(x) + p * (p - 1) / 4 * math.log(math.pi)
    for j in range(1, p):
        total = total + lgamma(x - j / 2)
    return total


def _floating(input: Tensor) -> Tensor:
    return input.to(dtype=dt.get_default_dtype()) if input._array.dtype in INTEGRAL else input


# --- the normal distribution ------------------------------------------------------------------------------------------

erfinv = unary("erfinv", "erfinv", lambda g, out, xp: g * xp.exp(out * out) * (math.sqrt(math.pi) / 2), doc="the inverse of erf")
erfcx = unary(
    "erfcx", "erfcx", lambda g, x, out: g * (2 * x * out - 2 / math.sqrt(math.pi)), in_place=False, doc="exp(x ** 2) * erfc(x)"
)
ndtr = unary(
    "ndtr",
    "ndtr",
    lambda g, x, xp: g * xp.exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi)),
    in_place=False,
    doc="the normal distribution function",
)
ndtri = unary(
    "ndtri",
    "ndtri",
    lambda g, out, xp: g * xp.exp(out * out * 0.5) * math.sqrt(2 * math.pi),
    in_place=False,
    doc="quantiles of the normal distribution",
)
log_ndtr = unary(
    "log_ndtr",
    "log_ndtr",
    lambda g, x, xp: g * math.sqrt(2 / math.pi) / xp.erfcx(x * -math.sqrt(0.5)),
    in_place=False,
    doc="the logarithm of the normal distribution function",
)
entr = unary("entr", "entr", lambda g, x, xp: -g * (xp.log(x) + 1), in_place=False, doc="-x * log(x)")
xlog1py = binary(
    "xlog1py",
    "xlog1py",
    x=lambda g, x, y, xp: g * xp.where((x == 0) & (y <= -1), xp.zeros_like(y), xp.log1p(y)),
    y=lambda g, x, y: g * x / (y + 1),
    to_float=True,
    in_place=False,
    doc="x * log1p(y), 0 where x is 0",
)

# --- Bessel functions -------------------------------------------------------------------------------------------------


def _ratio(xp: Any, out: Any, x: Any) -> Any:
    """out / x for functions that are x / 2 near 0."""
    return xp.where(x == 0, xp.full_like(x, 0.5), out / xp.where(x == 0, xp.ones_like(x), x))


def _bessel(name: str, kernel: str, rule: Callable[..., Any] | None, doc: str) -> Callable[..., Tensor]:
    return unary(name, kernel, rule, in_place=name == "i0", doc=doc)


i0 = _bessel("i0", "i0", lambda g, x, xp: g * xp.i1(x), "the modified Bessel function I0")
i0e = _bessel("i0e", "i0e", lambda g, x, out, xp: g * (xp.i1e(x) - xp.sign(x) * out), "exp(-abs(x)) * i0(x)")
i1 = _bessel("i1", "i1", lambda g, x, out, xp: g * (xp.i0(x) - _ratio(xp, out, x)), "the modified Bessel function I1")
i1e = _bessel(
    "i1e",
    "i1e",
    lambda g, x, out, xp: g * (xp.i0e(x) - xp.sign(x) * out - _ratio(xp, out, x)),
    "exp(-abs(x)) * i1(x)",
)
modified_bessel_i0, modified_bessel_i1 = i0, i1
modified_bessel_k0 = _bessel("modified_bessel_k0", "k0", lambda g, x, xp: -g * xp.k1(x), "the modified Bessel function K0")
modified_bessel_k1 = _bessel(
    "modified_bessel_k1", "k1", lambda g, x, out, xp: -g * (xp.k0(x) + out / x), "the modified Bessel function K1"
)
scaled_modified_bessel_k0 = _bessel(
    "scaled_modified_bessel_k0", "k0e", lambda g, x, out, xp: g * (out - xp.k1e(x)), "exp(x) * K0(x)"
)
scaled_modified_bessel_k1 = _bessel(
    "scaled_modified_bessel_k1", "k1e", lambda g, x, out, xp: g * (out - xp.k0e(x) - out / x), "exp(x) * K1(x)"
)
bessel_j0 = _bessel("bessel_j0", "bessel_j0", lambda g, x, xp: -g * xp.bessel_j1(x), "the Bessel function J0")
bessel_j1 = _bessel(
    "bessel_j1", "bessel_j1", lambda g, x, out, xp: g * (xp.bessel_j0(x) - _ratio(xp, out, x)), "the Bessel function J1"
)
bessel_y0 = _bessel("bessel_y0", "bessel_y0", lambda g, x, xp: -g * xp.bessel_y1(x), "the Bessel function Y0")
bessel_y1 = _bessel(
    "bessel_y1", "bessel_y1", lambda g, x, out, xp: g * (xp.bessel_y0(x) - out / x), "the Bessel function Y1"
)
spherical_bessel_j0 = _bessel(
    "spherical_bessel_j0",
    "spherical_bessel_j0",
    lambda g, x, out, xp: g * xp.where(x == 0, xp.zeros_like(x), (xp.cos(x) - out) / xp.where(x == 0, xp.ones_like(x), x)),
    "the spherical Bessel function j0",
)
airy_ai = _bessel("airy_ai", "airy_ai", None, "the Airy function Ai")

# --- orthogonal polynomials, of a degree that may differ from element to element ------------------------------------------

#: their functions by name; as in PyTorch without gradient
POLYNOMIAL_FUNCTIONS = {
    name: binary(name, name, to_float=True, in_place=False, doc=f"the {name.replace('_', ' ')} at input, of degree other")
    for name in POLYNOMIALS
}


# --- functions of the package under their names in disttorch.special ---------------------------------------------------------


def round(input: Tensor, *, decimals: int = 0, out: Tensor | None = None) -> Tensor:
    """To that many decimal places, halves to even; as ``torch.special.round``."""
    return pointwise.round(input, decimals=decimals, out=out)


def multigammaln(input: Tensor, p: int, *, out: Tensor | None = None) -> Tensor:
    """`mvlgamma` by its name in SciPy; as ``torch.special.multigammaln``."""
    result = mvlgamma(input, p)
    return result if out is None else write_out("multigammaln", result, out)
