"""Bessel functions of the first and second kind, of orders 0 and 1."""

from __future__ import annotations

from math import pi
from typing import Any

from . import kernel
from .precision import narrow
from .series import chebyshev

__all__ = ["bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "spherical_bessel_j0"]

# x <= 8: J0(x), in x^2 / 32 - 1
J0_INSIDE = (
    0.15772797147489012, -0.00872344235285222129, 0.26517861320333681, -0.370094993872649779, 0.158067102332097261,
    -0.0348937694114088852, 0.0048191800694676045, -0.000460626166206275048, 0.0000324603288210050808,
    -1.76194690776215075e-6, 7.60816359241878187e-8, -2.6792535305576729e-9, 7.84869631447946442e-11,
    -1.94383468673701657e-12, 4.12532059563437393e-14, -7.58850812544754634e-16, 1.2218515873961411e-17,
)  # fmt: skip

# x <= 8: J1(x) / x, in x^2 / 32 - 1
J1_INSIDE = (
    0.0810448463256581151, -0.148975145067652109, 0.160999262357209703, -0.0826804917668179066,
    0.0222136396549660354, -0.00364694060076927596, 0.000405033772835482183, -0.0000325555486685725852,
    1.98587740499151674e-6, -9.52198475675043618e-8, 3.68713375909714824e-9, -1.17802662269588484e-10,
    3.16015458034800332e-12, -7.22175523965177343e-14, 1.42321440035139423e-15, -2.44419729161904639e-17,
)  # fmt: skip

# x <= 8: Y0(x) - 2 / pi * log(x) * J0(x), in x^2 / 32 - 1
Y0_INSIDE = (
    -0.0331461132032849417, -0.274474305529745265, 0.179034314077182663, 0.261567346255046637,
    -0.177302012781143582, 0.0471966895957633869, -0.00728796247955207918, 0.000753113593257774228,
    -0.0000563207914105698698, 3.20653253765480098e-6, -1.44072332740186995e-7, 5.24879478733051612e-9,
    -1.58375525418120151e-10, 4.02633081830612075e-12, -8.74734120331076955e-14, 1.6434898714919469e-15,
    -2.69778811525668356e-17,
)  # fmt: skip

# x <= 8: (Y1(x) - 2 / pi * (log(x) * J1(x) - 1 / x)) / x, in x^2 / 32 - 1
Y1_INSIDE = (
    0.00253801323574178173, -0.0160871730476687502, -0.0959120453608307425, 0.0844519725965234584,
    -0.0283281239445943656, 0.00528989754416711301, -0.000641455145132635599, 0.0000550598287333874384,
    -3.5380800186893499e-6, 1.77078045561544034e-7, -7.11055004989927978e-9, 2.34433790591151639e-10,
    -6.46515184141159424e-12, 1.51429151205001995e-13, -3.05118596944732527e-15, 5.34668038572867012e-17,
)  # fmt: skip

# x >= 8: P, in 2 (8/x)^2 - 1, where J0 + i Y0 = sqrt(2 / (pi x)) exp(i (x - pi / 4)) (P + i Q 8 / x)
P0 = (
    0.999460349347518665, -0.000536522046813211742, 3.07518478751947462e-6, -5.1705945376060977e-8,
    1.63064646351513831e-9, -7.86409137723707e-11, 5.16826238734919246e-12, -4.30457886992539122e-13,
    4.32659574315494056e-14, -5.06903409593523608e-15, 6.7480722157338737e-16, -1.00115137234677858e-16,
    1.63059192337441847e-17,
)  # fmt: skip

# and Q
Q0 = (
    -0.0155558546053370091, 0.000068385199426116496, -7.41449841106064726e-7, 1.79724572479689918e-8,
    -7.27191593686631998e-10, 4.22012190466873844e-11, -3.20674742099663474e-12, 3.00614512535170631e-13,
    -3.336328185322427e-14, 4.25522504024546112e-15, -6.09993013164005001e-16, 9.66212897030325674e-17,
    -1.66860652143781463e-17, 3.10824404867381443e-18, -6.19111578735814493e-19,
)  # fmt: skip

# x >= 8: P, in 2 (8/x)^2 - 1, where J1 + i Y1 = sqrt(2 / (pi x)) exp(i (x - 3 pi / 4)) (P + i Q 8 / x)
P1 = (
    1.0009030408600137, 0.000898989833085940856, -3.98728430048890852e-6, 6.17763396064429853e-8,
    -1.87189074910630661e-9, 8.8168986595823389e-11, -5.7048636403956447e-12, 4.69919551523054238e-13,
    -4.68422378399048922e-14, 5.45267489604471717e-15, -7.22118084227401792e-16, 1.06676891143354125e-16,
    -1.7312313216116335e-17,
)  # fmt: skip

# and Q
Q1 = (
    0.0467777870695353252, -0.0000962772354915707932, 9.13861525795545412e-7, -2.09597813840834225e-8,
    8.22919332765055413e-10, -4.68636368817694523e-11, 3.51521879496860809e-12, -3.26431567432789993e-13,
    3.59677658291652919e-14, -4.56125239507729719e-15, 6.50828295778338395e-16, -1.02691475318232429e-16,
    1.76763554877647916e-17, -3.28345198729816146e-18, 6.5240811495892603e-19,
)  # fmt: skip


def _inside(xp: Any, size: Any) -> Any:
    return xp.minimum(size, 8.0) ** 2 / 32.0 - 1.0


def _wave(xp: Any, size: Any, p: tuple, q: tuple) -> tuple[Any, Any, Any, Any]:
    """sqrt(2 / (pi x)) times P, and Q 8 / x, and the cosine and sine of x, for x >= 8."""
    x = xp.maximum(size, 8.0)
    z = (8.0 / x) ** 2 * 2.0 - 1.0
    height = xp.where(xp.isinf(x), 0.0, xp.sqrt(1.0 / (pi * x)))
    angle = xp.where(xp.isinf(x), 0.0, x)
    return height * chebyshev(p, z), height * chebyshev(q, z) * 8.0 / x, xp.cos(angle), xp.sin(angle)


@kernel
def bessel_j0(xp: Any, x: Any) -> Any:
    """The Bessel function J0."""
    y = xp.asarray(x, dtype="float64")
    size = xp.abs(y)
    p, q, c, s = _wave(xp, size, P0, Q0)
    # cos(x - pi / 4) = (cos x + sin x) / sqrt(2)
    return narrow(xp, xp.where(size <= 8.0, chebyshev(J0_INSIDE, _inside(xp, size)), p * (c + s) - q * (s - c)), x.dtype)


@kernel
def bessel_j1(xp: Any, x: Any) -> Any:
    """The Bessel function J1."""
    y = xp.asarray(x, dtype="float64")
    size = xp.abs(y)
    p, q, c, s = _wave(xp, size, P1, Q1)
    # cos(x - 3 pi / 4) = (sin x - cos x) / sqrt(2)
    outside = p * (s - c) + q * (s + c)
    result = xp.where(size <= 8.0, size * chebyshev(J1_INSIDE, _inside(xp, size)), outside)
    return narrow(xp, xp.where(y < 0, -result, result), x.dtype)


@kernel
def bessel_y0(xp: Any, x: Any) -> Any:
    """The Bessel function Y0: minus infinity at 0, NaN below."""
    y = xp.asarray(x, dtype="float64")
    p, q, c, s = _wave(xp, y, P0, Q0)
    inside = chebyshev(Y0_INSIDE, _inside(xp, y)) + 2 / pi * xp.log(y) * chebyshev(J0_INSIDE, _inside(xp, y))
    return narrow(xp, _from_0(xp, y, xp.where(y <= 8.0, inside, p * (s - c) + q * (s + c))), x.dtype)


@kernel
def bessel_y1(xp: Any, x: Any) -> Any:
    """The Bessel function Y1: minus infinity at 0, NaN below."""
    y = xp.asarray(x, dtype="float64")
    p, q, c, s = _wave(xp, y, P1, Q1)
    some = xp.where(y > 0, y, 1.0)
    j1 = y * chebyshev(J1_INSIDE, _inside(xp, y))
    inside = y * chebyshev(Y1_INSIDE, _inside(xp, y)) + 2 / pi * (xp.log(some) * j1 - 1.0 / some)
    return narrow(xp, _from_0(xp, y, xp.where(y <= 8.0, inside, q * (s - c) - p * (s + c))), x.dtype)


def _from_0(xp: Any, y: Any, value: Any) -> Any:
    return xp.where(y > 0, value, xp.where(y == 0, -float("inf"), float("nan")))


@kernel
def spherical_bessel_j0(xp: Any, x: Any) -> Any:
    """The spherical Bessel function j0, ``sin(x) / x``."""
    y = xp.asarray(x, dtype="float64")
    some = xp.where((y == 0) | xp.isinf(y), 1.0, y)
    return narrow(xp, xp.where(y == 0, 1.0, xp.where(xp.isinf(y), 0.0, xp.sin(some) / some)), x.dtype)
