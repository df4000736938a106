"""How the coefficient tables of special functions are used: Chebyshev series, in a variable from -1 to 1.

The tables are our own: the function, divided by what it behaves like at the ends, was computed in 40 digits at Chebyshev nodes,
and the series cut where its terms fall under 2e-17 of the first.
"""

from __future__ import annotations

from typing import Any

__all__ = ["chebyshev"]


def chebyshev(coefficients: tuple[float, ...], t: Any) -> Any:
    """The sum of ``coefficients[k] * T_k(t)`` (Clenshaw 1955); the terms that the dtype of t cannot hold are left out."""
    least = abs(max(coefficients, key=abs)) * (2e-17 if t.dtype.itemsize >= 8 else 1e-9)
    count = len(coefficients)
    while count > 2 and abs(coefficients[count - 1]) < least:
        count -= 1
    twice = t + t
    later, last = 0.0, t * 0.0 + coefficients[count - 1]
    for c in coefficients[count - 2 : 0 : -1]:
        later, last = last, twice * last - later + c
    return t * last - later + coefficients[0]
