"""Orthogonal polynomials by their recurrences, of a degree that may differ from element to element.

Below degree 0 they are 0; a degree is rounded towards zero. Where the recurrence of the four kinds of Chebyshev polynomials would
take long, their formulas in cosines do, which hold between -1 and 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import PLAIN
from .precision import narrow

__all__ = ["POLYNOMIALS"]

#: The degree from which on a Chebyshev polynomial between -1 and 1 is computed by its formula.
HIGH = 6
#: PyTorch gives NaN for Hermite polynomials beyond these degrees, where they exceed the dtype.
HERMITE_LIMIT = {4: 128, 8: 512}


def _recurrence(xp: Any, x: Any, n: Any, first: Any, step: Callable[[int, Any, Any], Any], limit: int | None = None) -> Any:
    """The polynomial of each element's degree, where ``p[k + 1] = step(k, p[k], p[k - 1])`` from p[0] = 1 and p[1] = first."""
    result = xp.where(n == 0, xp.ones_like(x), xp.zeros_like(x))
    result = xp.where(n == 1, first, result)
    highest = int(xp.max(n)) if n.size else 0
    before, last = xp.ones_like(x), first
    for k in range(1, highest if limit is None else min(highest, limit)):
        before, last = last, step(k, last, before)
        result = xp.where(n == k + 1, last, result)
    return result


def _degrees(xp: Any, x: Any, n: Any) -> tuple[Any, Any]:
    x, n = xp.broadcast_arrays(xp.asarray(x, dtype="float64"), xp.trunc(xp.asarray(n, dtype="float64")))
    return x, xp.where(xp.isnan(n), -1.0, n)


def _chebyshev(first: Callable[[Any], Any], formula: Callable[[Any, Any, Any], Any], at_1: Any, at_minus_1: Any) -> Any:
    """One of the four kinds, which differ in their first polynomial."""

    def polynomial(xp: Any, x: Any, n: Any) -> Any:
        y, degree = _degrees(xp, x, n)
        inside = xp.abs(y) < 1
        theta = xp.arccos(xp.where(inside, y, 0.5))
        by_formula = inside & (degree > HIGH)
        at_ends = xp.abs(y) == 1
        sign = 1.0 - 2.0 * (degree - 2.0 * xp.floor(degree * 0.5))
        ends = xp.where(y > 0, at_1(degree), at_minus_1(degree) * sign)
        long_way = xp.where(by_formula | at_ends, -1.0, degree)
        result = _recurrence(xp, y, long_way, first(y), lambda k, last, before: (y + y) * last - before)
        result = xp.where(by_formula, formula(xp, theta, degree), xp.where(at_ends, ends, result))
        return narrow(xp, xp.where(degree < 0, 0.0, result), x.dtype)

    return polynomial


def _one(n: Any) -> Any:
    return n * 0.0 + 1.0


def _odd(n: Any) -> Any:
    return 2.0 * n + 1.0


_KINDS = {
    "t": _chebyshev(lambda x: x, lambda xp, a, n: xp.cos(n * a), _one, _one),
    "u": _chebyshev(
        lambda x: x + x, lambda xp, a, n: xp.sin((n + 1.0) * a) / xp.sin(a), lambda n: n + 1.0, lambda n: n + 1.0
    ),
    "v": _chebyshev(lambda x: x + x - 1.0, lambda xp, a, n: xp.cos((n + 0.5) * a) / xp.cos(a * 0.5), _one, _odd),
    "w": _chebyshev(lambda x: x + x + 1.0, lambda xp, a, n: xp.sin((n + 0.5) * a) / xp.sin(a * 0.5), _odd, _one),
}


def _shifted(polynomial: Any) -> Any:
    return lambda xp, x, n: narrow(xp, polynomial(xp, xp.asarray(x, dtype="float64") * 2.0 - 1.0, n), x.dtype)


def _hermite(factor: float) -> Any:
    """The physicists' polynomials H with factor 2, the probabilists' He with 1."""

    def polynomial(xp: Any, x: Any, n: Any) -> Any:
        y, degree = _degrees(xp, x, n)
        limit = HERMITE_LIMIT[min(max(x.dtype.itemsize, 4), 8)]
        result = _recurrence(xp, y, degree, y * factor, lambda k, last, before: (y * last - k * before) * factor, limit + 1)
        return narrow(xp, xp.where(degree > limit, float("nan"), result), x.dtype)

    return polynomial


def _laguerre(xp: Any, x: Any, n: Any) -> Any:
    y, degree = _degrees(xp, x, n)
    result = _recurrence(
        xp, y, degree, 1.0 - y, lambda k, last, before: ((2 * k + 1 - y) * last - k * before) / (k + 1)
    )
    return narrow(xp, result, x.dtype)


def _legendre(xp: Any, x: Any, n: Any) -> Any:
    y, degree = _degrees(xp, x, n)
    result = _recurrence(xp, y, degree, y, lambda k, last, before: ((2 * k + 1) * y * last - k * before) / (k + 1))
    return narrow(xp, result, x.dtype)


#: name of the kernel -> plain implementation
POLYNOMIALS: dict[str, Callable[..., Any]] = {
    **{f"chebyshev_polynomial_{kind}": p for kind, p in _KINDS.items()},
    **{f"shifted_chebyshev_polynomial_{kind}": _shifted(p) for kind, p in _KINDS.items()},
    "hermite_polynomial_h": _hermite(2.0),
    "hermite_polynomial_he": _hermite(1.0),
    "laguerre_polynomial_l": _laguerre,
    "legendre_polynomial_p": _legendre,
}
PLAIN.update(POLYNOMIALS)
