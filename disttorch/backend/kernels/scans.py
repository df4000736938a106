"""Running extremes, running log-sum-exp, and linear recurrences, all along one axis.

A scan by doubling: after the step of distance d every element knows 2 d elements up to itself, so n elements take
log2(n) array expressions (Hillis and Steele 1986).
"""

from __future__ import annotations

from typing import Any

from . import kernel
from .precision import is_complex

__all__ = ["cumulative_maximum", "cumulative_minimum", "logcumsumexp", "suffix_recurrence"]


def _part(axis: int, start: int | None, stop: int | None) -> tuple[slice, ...]:
    return (slice(None),) * axis + (slice(start, stop),)


def _scan(xp: Any, x: Any, axis: int, combine: Any) -> Any:
    distance = 1
    while distance < x.shape[axis]:
        joined = combine(x[_part(axis, None, -distance)], x[_part(axis, distance, None)])
        x = xp.concatenate((x[_part(axis, None, distance)], joined), axis=axis)
        distance *= 2
    return x


@kernel
def cumulative_maximum(xp: Any, x: Any, axis: int) -> Any:
    """The greatest up to here; after a NaN, NaN."""
    return _scan(xp, x, axis, xp.maximum)


@kernel
def cumulative_minimum(xp: Any, x: Any, axis: int) -> Any:
    """The smallest up to here; after a NaN, NaN."""
    return _scan(xp, x, axis, xp.minimum)


@kernel
def logcumsumexp(xp: Any, x: Any, axis: int) -> Any:
    """``log(cumsum(exp(x)))`` without overflow."""
    if not is_complex(x):
        return _scan(xp, x, axis, xp.log_add_exp)
    # a complex logarithm is known up to 2 pi j: one after the other gives the imaginary parts that follow each other
    parts = [x[_part(axis, 0, 1)]] if x.shape[axis] else [x]
    for i in range(1, x.shape[axis]):
        parts.append(xp.log_add_exp(x[_part(axis, i, i + 1)], parts[-1]))
    return xp.concatenate(tuple(parts), axis=axis)


@kernel
def suffix_recurrence(xp: Any, a: Any, b: Any, axis: int) -> Any:
    """``s`` with ``s[i] = b[i] + a[i] * s[i + 1]``, and ``s[n] = 0``."""
    distance, n = 1, b.shape[axis]
    while distance < n:
        head, tail = _part(axis, None, -distance), _part(axis, distance, None)
        last = _part(axis, -distance, None)
        b = xp.concatenate((b[head] + a[head] * b[tail], b[last]), axis=axis)
        a = xp.concatenate((a[head] * a[tail], a[last]), axis=axis)
        distance *= 2
    return b
