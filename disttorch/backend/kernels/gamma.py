"""The gamma function: its logarithm, the derivatives of that, the Hurwitz zeta function, and the incomplete gamma functions."""

from __future__ import annotations

from functools import cache
from math import cos, factorial, log, pi
from typing import Any

from . import kernel
from .precision import narrow
from .series import chebyshev
from .special import horner

__all__ = ["digamma", "igamma", "igammac", "lgamma", "polygamma", "zeta"]

# 0.5 <= x <= 3: lgamma(x) / ((x - 1) * (x - 2)), in (x - 1.75) / 1.25
LGAMMA_INSIDE = (
    0.496919649624128236, -0.189837702953641265, 0.0516423632782491371, -0.0162088858271952898,
    0.00548086875690119561, -0.0019373470781938533, 0.000704891008203558038, -0.000261696973377408167,
    0.0000986113056551924852, -0.0000375848569089884053, 0.0000144558398285561312, -5.60143427811944017e-6,
    2.18399631026393277e-6, -8.56051099349418904e-7, 3.3707703487176756e-7, -1.33256989910821963e-7,
    5.28662342175987874e-8, -2.10390266105719431e-8, 8.39634611599445838e-9, -3.35932797035888341e-9,
    1.347128417758247e-9, -5.41341358508166139e-10, 2.17952389556412807e-10, -8.79047693403115192e-11,
    3.55110746620852308e-11, -1.43668898799169143e-11, 5.82052396201664144e-12, -2.36112811614631595e-12,
    9.58952865217164443e-13, -3.89906995040567563e-13, 1.58701097341689467e-13, -6.46585422093382281e-14,
    2.63677710207050068e-14, -1.0762152407586304e-14, 4.39624329665939898e-15, -1.7972213575031321e-15,
    7.35259545927287813e-16, -3.01011027128328473e-16, 1.2331372609685956e-16, -5.05491088376659213e-17,
    2.07336359808466289e-17,
)  # fmt: skip

#: Bernoulli numbers B2, B4, ...
BERNOULLI = (
    1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330, 854513 / 138,
    -236364091 / 2730,
)  # fmt: skip
#: log(gamma(x)) = (x - 1/2) log(x) - x + log(2 pi) / 2 + sum of B(2k) / (2k (2k - 1) x^(2k - 1))
STIRLING = tuple(b / (2 * k * (2 * k - 1)) for k, b in enumerate(BERNOULLI[:9], 1))
#: digamma(x) = log(x) - 1 / (2 x) - sum of B(2k) / (2k x^(2k)), and its derivative
DIGAMMA = tuple(b / (2 * k) for k, b in enumerate(BERNOULLI[:9], 1))
#: from where on these asymptotic series are exact to rounding
FAR = 10.0


@kernel
def lgamma(xp: Any, x: Any) -> Any:
    """log(abs(gamma(x))); infinite at 0 and the negative integers."""
    y = xp.asarray(x, dtype="float64")
    negative = y < 0.5
    z = xp.where(negative, 1.0 - y, y)
    t = xp.clip(z, 0.5, 3.0)
    near = chebyshev(LGAMMA_INSIDE, (t - 1.75) / 1.25) * (z - 1.0) * (z - 2.0)
    # up to where the asymptotic series holds: gamma(z) = gamma(z + 7) / (z (z + 1) ... (z + 6))
    middle = xp.clip(z, 3.0, FAR)
    rising = middle
    for k in range(1, 7):
        rising = rising * (middle + k)
    shifted = xp.where(z < FAR, middle + 7.0, z)
    far = stirling(xp, shifted) - xp.where(z < FAR, xp.log(rising), 0.0)
    positive = xp.where(xp.isinf(z), z, xp.where(z < 3.0, near, far))
    # gamma(y) gamma(1 - y) = pi / sin(pi y); between -0.5 and 0.5 by gamma(y + 1) = y gamma(y)
    reflected = log(pi) - xp.log(xp.abs(sine_of_pi(xp, y))) - positive
    around_0 = chebyshev(LGAMMA_INSIDE, (xp.clip(y + 1.0, 0.5, 1.5) - 1.75) / 1.25) * y * (y - 1.0) - xp.log(xp.abs(y))
    result = xp.where(negative, xp.where(xp.abs(y) <= 0.5, around_0, reflected), positive)
    poles = (y <= 0) & (xp.floor(y) == y)
    return narrow(xp, xp.where(poles, float("inf"), result), x.dtype)


def stirling(xp: Any, x: Any) -> Any:
    """log(gamma(x)) for x >= 10."""
    return (x - 0.5) * xp.log(x) - x + 0.5 * log(2 * pi) + horner(STIRLING, 1.0 / (x * x)) / x


def sine_of_pi(xp: Any, x: Any) -> Any:
    """sin(pi x), exact in how far x is from an integer."""
    whole = xp.rint(x)
    sine = xp.sin(pi * (x - whole))
    return xp.where(xp.floor(whole * 0.5) * 2.0 == whole, sine, -sine)


@kernel
def digamma(xp: Any, x: Any) -> Any:
    """The derivative of lgamma: minus infinity at 0 (with the sign of -x), NaN at the negative integers."""
    y = xp.asarray(x, dtype="float64")
    negative = y < 0.5
    z = xp.where(negative, 1.0 - y, y)
    lower, total = xp.minimum(z, FAR), 0.0
    for k in range(10):
        total = total + 1.0 / (lower + k)
    shifted = xp.where(z < FAR, lower + 10.0, z)
    square = 1.0 / (shifted * shifted)
    positive = xp.log(shifted) - 0.5 / shifted - horner(DIGAMMA, square) * square - xp.where(z < FAR, total, 0.0)
    # digamma(1 - y) - digamma(y) = pi / tan(pi y)
    gap = y - xp.rint(y)
    pole = (y <= 0) & (gap == 0)
    reflected = positive - pi / xp.tan(pi * xp.where(gap == 0, 0.25, gap))
    result = xp.where(negative, reflected, positive)
    at_pole = xp.where(y == 0, xp.copysign(float("inf"), -y), float("nan"))
    return narrow(xp, xp.where(pole, at_pole, result), x.dtype)


@kernel
def polygamma(xp: Any, x: Any, n: int) -> Any:
    """The n-th derivative of digamma: ``(-1)^(n + 1) n! zeta(n + 1, x)``."""
    if n == 0:
        return digamma(xp, x)
    y = xp.asarray(x, dtype="float64")
    order = xp.full_like(y, float(n + 1))
    if n == 1:
        # zeta(2, y) + zeta(2, 1 - y) = (pi / sin(pi y))^2
        mirrored = y < 0.5
        z = hurwitz(xp, order, xp.where(mirrored, 1.0 - y, y))
        result = xp.where(mirrored, (pi / sine_of_pi(xp, y)) ** 2 - z, z)
        return narrow(xp, result, x.dtype)
    return narrow(xp, zeta(xp, order, y) * (float(factorial(n)) * (-1.0) ** (n + 1)), x.dtype)


@kernel
def zeta(xp: Any, x: Any, q: Any) -> Any:
    """The Hurwitz zeta function, the sum of ``(k + q)^-x`` over k >= 0: infinite at x = 1 and at whole q <= 0, NaN for x < 1 and
    for q < 0 where x is not whole.
    """
    s, a = xp.asarray(x, dtype="float64"), xp.asarray(q, dtype="float64")
    whole = xp.floor(a) == a
    # a negative q is shifted up: a few terms with negative base, which only have a meaning for whole x
    lowest = float(xp.min(xp.where(xp.isfinite(a) & ~whole, a, 0.0))) if a.size else 0.0
    extra, base = 0.0, a
    for _ in range(min(int(-lowest) + 1, 500) if lowest < 0 else 0):
        below = (base < 0) & ~whole
        extra = extra + xp.where(below, xp.power(xp.where(below, base, 1.0), -s), 0.0)
        base = xp.where(below, base + 1.0, base)
    result = extra + hurwitz(xp, s, xp.where(base > 0, base, 1.0))
    invalid = (s < 1) | ((a < 0) & (xp.floor(s) != s)) | xp.isnan(s) | xp.isnan(a)
    result = xp.where((a <= 0) & whole, float("inf"), result)
    result = xp.where(invalid, float("nan"), result)
    return narrow(xp, xp.where(s == 1, float("inf"), result), x.dtype)


def hurwitz(xp: Any, s: Any, q: Any) -> Any:
    """The zeta function for q > 0 by the formula of Euler and Maclaurin: some terms, the integral of the rest, corrections."""
    total = 0.0
    for k in range(10):
        total = total + xp.power(q + k, -s)
    end = q + 10.0
    last = xp.power(end, -s)
    total = total + last * end / (s - 1.0) + 0.5 * last
    # B(2k) / (2k)! s (s + 1) ... (s + 2k - 2) end^(-s - 2k + 1)
    term = s * last / end
    for k, b in enumerate(BERNOULLI, 1):
        total = total + term * (b / factorial(2 * k))
        term = term * ((s + (2 * k - 1)) / end) * ((s + 2 * k) / end)
    # a large s leaves the first term only, and the corrections would be 0 times infinity
    return xp.where(s > 200.0, xp.power(q, -s), total)


@kernel
def igamma(xp: Any, x: Any, y: Any) -> Any:
    """The regularized lower incomplete gamma function P(x, y)."""
    return narrow(xp, incomplete_gamma(xp, x, y)[0], x.dtype)


@kernel
def igammac(xp: Any, x: Any, y: Any) -> Any:
    """The regularized upper incomplete gamma function, ``1 - igamma(x, y)`` without the cancellation."""
    return narrow(xp, incomplete_gamma(xp, x, y)[1], x.dtype)


#: where the exponent of the integrand is looked at as a bell, its integral by a quadrature
LARGE = 60.0


def incomplete_gamma(xp: Any, a: Any, x: Any) -> tuple[Any, Any]:
    """P(a, x) and Q(a, x) by the series for P where x < a + 1, by the continued fraction for Q where it is larger, and for
    large a by a quadrature of the integrand (t / a)^(a - 1) exp(a - t), which is a bell.
    """
    a, x = xp.broadcast_arrays(xp.asarray(a, dtype="float64"), xp.asarray(x, dtype="float64"))
    plain = (a > 0) & (x > 0) & xp.isfinite(a) & xp.isfinite(x)
    small = plain & (a <= LARGE)
    a1, x1 = xp.where(small, a, 1.0), xp.where(small, x, 1.0)
    below = x1 < a1 + 1.0
    # both converge fast enough on their sides
    factor = xp.exp(a1 * xp.log(x1) - x1 - lgamma(xp, a1 + 1.0))
    by_series = factor * series(xp, a1, xp.where(below, x1, 0.0))
    by_fraction = factor * a1 * fraction(xp, a1, xp.where(below, a1 + 2.0, x1))
    p = xp.where(below, by_series, 1.0 - by_fraction)
    q = xp.where(below, 1.0 - by_series, by_fraction)
    large = plain & ~small
    if bool(xp.any(large)):
        p_large, q_large = bell(xp, xp.where(large, a, 100.0), xp.where(large, x, 100.0))
        p, q = xp.where(large, p_large, p), xp.where(large, q_large, q)
    # the borders
    nan = (a < 0) | (x < 0) | xp.isnan(a) | xp.isnan(x) | ((a == 0) & (x == 0)) | (xp.isinf(a) & xp.isinf(x))
    zero = (x == 0) | xp.isinf(a)
    one = (a == 0) | xp.isinf(x)
    p = xp.where(plain, p, xp.where(nan, float("nan"), xp.where(one & ~zero, 1.0, 0.0)))
    q = xp.where(plain, q, xp.where(nan, float("nan"), xp.where(one & ~zero, 0.0, 1.0)))
    return p, q


def series(xp: Any, a: Any, x: Any) -> Any:
    """1 + x / (a + 1) + x^2 / ((a + 1) (a + 2)) + ... for x < a + 1 and a up to `LARGE`."""
    term = xp.ones_like(x)
    total = term
    for k in range(1, 400):
        term = term * (x / (a + k))
        total = total + term
        if k % 16 == 0 and not bool(xp.any(term > total * 1e-17)):
            break
    return total


def fraction(xp: Any, a: Any, x: Any) -> Any:
    """Legendre's continued fraction for x >= a + 1, from its first terms on (Lentz)."""
    b = x + 1.0 - a
    c, d = xp.full_like(b, 1e300), 1.0 / b
    h = d
    for k in range(1, 400):
        step = k * (a - k)
        b = b + 2.0
        d = 1.0 / (step * d + b)
        c = b + step / c
        h = h * (c * d)
        if k % 16 == 0 and not bool(xp.any(xp.abs(c * d - 1.0) > 1e-16)):
            break
    return h


def bell(xp: Any, a: Any, x: Any) -> tuple[Any, Any]:
    """P and Q for large a: the tail on x's side of the summit, in 64 steps of Gauss and Legendre."""
    summit = a - 1.0
    width = xp.sqrt(a)
    upper = x > summit
    # where the integrand has fallen under 1e-18 of what it is at x, or at most to 0
    behind = xp.minimum(40.0, 40.0 * width / xp.maximum(xp.abs(x - summit), 1e-300))
    right = xp.maximum(x + 9.0 * width + behind, summit + 10.0 * width)
    end = xp.where(upper, right, xp.maximum(xp.minimum(x, summit) - 10.0 * width, 0.0))
    # exp(-t + (a - 1) log(t)) / gamma(a) with the summit's height by Stirling's series
    inverse = 1.0 / summit
    height = xp.exp(-horner(STIRLING, inverse * inverse) * inverse) / xp.sqrt(2.0 * pi * summit)
    total = 0.0
    for node, weight in legendre_rule(64):
        t = x + (end - x) * node
        off = (t - summit) * inverse
        total = total + weight * xp.exp(-summit * (off - xp.log1p(off)))
    tail = xp.abs(end - x) * total * height
    p, q = xp.where(upper, 1.0 - tail, tail), xp.where(upper, tail, 1.0 - tail)
    return p, q


@cache
def legendre_rule(n: int) -> list[tuple[float, float]]:
    """Nodes in (0, 1) and weights of the quadrature of Gauss and Legendre, by Newton's method on the polynomial."""
    rule = []
    for i in range(n):
        z = cos(pi * (i + 0.75) / (n + 0.5))
        for _ in range(100):
            p, before = 1.0, 0.0
            for k in range(n):
                p, before = ((2 * k + 1) * z * p - k * before) / (k + 1), p
            slope = n * (z * p - before) / (z * z - 1)
            z, old = z - p / slope, z
            if abs(z - old) < 1e-15:
                break
        rule.append((0.5 * (1 - z), 1 / ((1 - z * z) * slope * slope)))
    return rule
