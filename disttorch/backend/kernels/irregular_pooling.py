"""Maxima of windows that lie at no equal distances: adaptive pooling, whose windows share the input out, and fractional
pooling, whose windows begin at random steps. And maxima put back where they were found.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from . import kernel
from .windows import Dims, offsets

__all__ = ["adaptive_max_pool", "fractional_max_positions", "max_unpool"]


@kernel
def adaptive_max_pool(xp: Any, x: Any, shape: Dims) -> tuple[Any, Any]:
    """The maxima (N, C, *shape) of windows from ``floor(i * s / n)`` to ``ceil((i + 1) * s / n)``, and their flat positions;
    as https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveMaxPool2d.html. The first of equal maxima; nan is
    larger than any number.
    """
    spatial = x.shape[2:]
    flat = x.reshape((*x.shape[:2], prod(spatial)))
    tables = []
    for size, count in zip(spatial, shape):
        start, end = np.arange(count) * size // count, -(-np.arange(1, count + 1) * size // count)
        steps = np.arange(int((end - start).max(initial=1)))[:, None]
        tables.append(np.minimum(start + steps, end - 1))  # shorter windows see their last element again
    out: Any = None
    at: Any = None
    for offset in offsets(tuple(len(t) for t in tables)):
        here: Any = 0
        for axis, (table, o, size) in enumerate(zip(tables, offset, spatial)):
            here = here * size + table[o].reshape(-1, *(1,) * (len(spatial) - 1 - axis))
        where = xp.asarray(here.reshape(-1))
        seen = xp.take(flat, where, axis=2)
        if out is None:
            out, at = seen, xp.broadcast_to(where, seen.shape)
        else:
            larger = (seen > out) | ((seen != seen) & (out == out))
            out, at = xp.where(larger, seen, out), xp.where(larger, where, at)
    full = (*x.shape[:2], *shape)
    return out.reshape(full), xp.ascontiguousarray(at).reshape(full)


@kernel
def fractional_max_positions(xp: Any, x: Any, kernel: Dims, shape: Dims, samples: Any) -> Any:
    """The flat positions (N, C, *shape) of the maxima of windows that begin at pseudorandom steps
    (B. Graham, Fractional Max-Pooling, 2014).

    With ``alpha = (size - kernel) / (count - 1)`` and a random number u, window i begins at
    ``floor((i + u) * alpha) - floor(u * alpha)``, the last at the end.

    Parameters
    ----------
    x : array (N, C, *spatial)
    kernel, shape : tuple of int
        The windows' size, and how many there are.
    samples : array (N, C, dimensions)
        The random numbers.
    """
    spatial, ndim = x.shape[2:], len(shape)
    begins = []
    for axis, (size, k, count) in enumerate(zip(spatial, kernel, shape)):
        u = samples[:, :, axis][:, :, None]
        alpha = (size - k) / (count - 1) if count > 1 else 0.0
        begin = xp.floor((xp.arange(count) + u) * alpha) - xp.floor(u * alpha)
        begin = xp.where(xp.arange(count) == count - 1, size - k, begin)
        begins.append(xp.asarray(begin, dtype="int64").reshape((*x.shape[:2], *(1,) * axis, count, *(1,) * (ndim - 1 - axis))))
    flat = x.reshape((*x.shape[:2], prod(spatial)))
    best: Any = None
    at: Any = None
    for offset in offsets(kernel):
        here: Any = 0
        for begin, o, size in zip(begins, offset, spatial):
            here = here * size + begin + o
        here = here.reshape((*x.shape[:2], prod(shape)))
        seen = xp.take_along_axis(flat, here, axis=2)
        if best is None:
            best, at = seen, here
        else:
            larger = (seen > best) | (seen != seen)
            best, at = xp.where(larger, seen, best), xp.where(larger, here, at)
    return at.reshape((*x.shape[:2], *shape))


@kernel
def max_unpool(xp: Any, x: Any, indices: Any, spatial: Dims) -> Any:
    """Zeros (N, C, *spatial) with the elements of x at the flat positions `indices`, of its shape."""
    planes, size = x.shape[0] * x.shape[1], prod(spatial)
    out = xp.zeros((planes * size,), x.dtype)
    out[(indices.reshape((planes, -1)) + xp.arange(planes)[:, None] * size).reshape(-1)] = x.reshape(-1)
    return out.reshape((*x.shape[:2], *spatial))
