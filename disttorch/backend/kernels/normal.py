"""The normal distribution function, its logarithm and inverse, and the relatives of the error function."""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

from . import kernel
from .precision import narrow, wide
from .series import chebyshev
from .special import ERFC_ENDS, ERFC_P, ERFC_Q, horner

__all__ = ["entr", "erfcx", "erfinv", "log_ndtr", "ndtr", "ndtri"]

# |x| <= 0.75: erfinv(x) / x, in x^2 / 0.28125 - 1
ERFINV_INSIDE = (
    0.974485919619708746, 0.0976712136542976168, 0.0106798426748877, 0.00145839261934235995,
    0.000221395617935346453, 0.0000357546426953869466, 6.01305243584652659e-6, 1.04056052819195312e-6,
    1.83930999886522429e-7, 3.3048595802566893e-8, 6.0159229649242209e-9, 1.10675054607426936e-9,
    2.05405000628736342e-10, 3.84048549583537847e-11, 7.22613514301305057e-12, 1.36709063800064216e-12,
    2.59870809853805502e-13, 4.960649711523937e-14, 9.50461236358905433e-15, 1.82714074387549288e-15,
    3.52293509753830067e-16, 6.81093748244002488e-17,
)  # fmt: skip

# 0.125 >= p >= exp(-12.5): -ndtri(p) / s with s = sqrt(-2 log(p)), in a variable from -1 at s = 2 to 1 at s = 5 that
# is linear in 1 / s
NDTRI_NEAR = (
    0.733260062064464924, 0.173197171436830547, -0.00980651383296741141, -0.000541604946124150045,
    -0.000041720244010588824, -3.94538004943037002e-6, -4.42646189252129088e-7, -5.70866946228782926e-8,
    -8.13722163886747269e-9, -1.23839501951626268e-9, -1.96756607132647439e-10, -3.22542123249097107e-11,
    -5.42601937046679105e-12, -9.342089019628167e-13, -1.64284766086565094e-13, -2.94454302956236133e-14,
    -5.36673598369081314e-15, -9.92422111778886087e-16, -1.85825245622146927e-16, -3.51732096744254796e-17,
)  # fmt: skip

# below, down to the smallest number (s = 38.7): the same, with s from 5 to 40
NDTRI_FAR = (
    0.953492149927112657, 0.0510136162168261851, -0.0068394164821303525, -0.00047459652814763302,
    -0.0000598057644085883408, -0.0000110592981797294781, -2.5528068991775802e-6, -6.75549785500837916e-7,
    -1.96530922919054326e-7, -6.12970386738866741e-8, -2.01542113328193369e-8, -6.90500802210883224e-9,
    -2.4450047858879386e-9, -8.89460921323193555e-10, -3.30951694094318649e-10, -1.25515414167056264e-10,
    -4.83890214226252283e-11, -1.89221558679270902e-11, -7.49205489295323477e-12, -2.99919768584656706e-12,
    -1.21242583479752461e-12, -4.94431664044719611e-13, -2.03226267768435214e-13, -8.41300541097382891e-14,
    -3.50541650216729663e-14, -1.46926806002132089e-14, -6.19186704994854009e-15, -2.62248589689532405e-15,
    -1.11585836774356823e-15, -4.76827430325071305e-16, -2.04567822115390145e-16, -8.80883924434185695e-17,
    -3.8062603570663501e-17,
)  # fmt: skip


@kernel
def erfinv(xp: Any, x: Any) -> Any:
    """The inverse of erf on (-1, 1); infinite at the ends, NaN outside
    (https://docs.pytorch.org/docs/stable/special.html#torch.special.erfinv).
    """
    y = xp.asarray(x, dtype="float64")
    size = xp.abs(y)
    inner = y * chebyshev(ERFINV_INSIDE, xp.minimum(y * y, 0.5625) / 0.28125 - 1.0)
    outer = xp.copysign(upper_quantile(xp, (1.0 - size) * 0.5) * sqrt(0.5), y)
    return narrow(xp, xp.where(size <= 0.75, inner, outer), x.dtype)


@kernel
def ndtri(xp: Any, x: Any) -> Any:
    """The x-th quantile of the normal distribution, the inverse of `ndtr`."""
    p = xp.asarray(x, dtype="float64")
    y = 2.0 * p - 1.0
    inner = y * chebyshev(ERFINV_INSIDE, xp.minimum(y * y, 0.5625) / 0.28125 - 1.0) * sqrt(2)
    outer = xp.copysign(upper_quantile(xp, xp.where(p < 0.5, p, 1.0 - p)), y)
    return narrow(xp, xp.where(xp.abs(y) <= 0.75, inner, outer), x.dtype)


def upper_quantile(xp: Any, p: Any) -> Any:
    """-ndtri(p) for p <= 0.125: infinite at 0, NaN below."""
    s = xp.sqrt(-2.0 * xp.log(p))
    near = chebyshev(NDTRI_NEAR, (0.7 - 2.0 / xp.clip(s, 2.0, 5.0)) / 0.3)
    far = chebyshev(NDTRI_FAR, (0.225 - 2.0 / xp.clip(s, 5.0, 40.0)) / 0.175)
    return xp.where(xp.isinf(s), s, s * xp.where(s < 5.0, near, far))


@kernel
def ndtr(xp: Any, x: Any) -> Any:
    """The normal distribution function."""
    return narrow(xp, 0.5 * xp.erfc(wide(xp, x) * -sqrt(0.5)), x.dtype)


@kernel
def erfcx(xp: Any, x: Any) -> Any:
    """``exp(x^2) * erfc(x)``."""
    y = xp.asarray(x, dtype="float64")
    size = xp.abs(y)
    square = size * size
    near = xp.exp(xp.minimum(square, 1.0)) * xp.erfc(xp.minimum(size, 1.0))
    middle = xp.clip(size, 0.5, ERFC_ENDS)
    ratio = horner(ERFC_P, middle) / horner(ERFC_Q, middle)
    inverse = 0.5 / xp.where(size > 1.0, square, 1.0)
    # the asymptotic series: 1 - 1!! / (2 x^2) + 3!! / (2 x^2)^2 - ...
    terms = 1.0 - inverse * (1.0 - 3.0 * inverse * (1.0 - 5.0 * inverse * (1.0 - 7.0 * inverse)))
    far = terms / (xp.where(size == 0, 1.0, size) * sqrt(pi))
    right = xp.where(size < 0.5, near, xp.where(size < ERFC_ENDS, ratio, far))
    return narrow(xp, xp.where(y < 0, 2.0 * exp_of_square(xp, size) - right, right), x.dtype)


def exp_of_square(xp: Any, x: Any) -> Any:
    """exp(x^2) without the error that rounding x^2 makes; the upper half of x's bits (Dekker 1971) has an exact square."""
    x = xp.minimum(x, 30.0)
    shifted = x * 134217729.0
    upper = shifted - (shifted - x)
    return xp.exp(upper * upper) * xp.exp((x - upper) * (x + upper))


@kernel
def log_ndtr(xp: Any, x: Any) -> Any:
    """The logarithm of the normal distribution function, without the cancellation in its tails."""
    y = xp.asarray(x, dtype="float64")
    z = y * -sqrt(0.5)
    left = xp.log(0.5 * erfcx(xp, xp.maximum(z, 0.0))) - z * z
    right = xp.log1p(-0.5 * xp.erfc(-xp.minimum(z, 1.0)))
    return narrow(xp, xp.where(y < -1.0, left, right), x.dtype)


@kernel
def entr(xp: Any, x: Any) -> Any:
    """``-x * log(x)``, 0 at 0 and minus infinity below."""
    y = wide(xp, x)
    inside = -y * xp.log(xp.where(y > 0, y, 1.0))
    return narrow(xp, xp.where(y > 0, inside, xp.where(y == 0, 0.0, xp.where(y < 0, -float("inf"), y))), x.dtype)
