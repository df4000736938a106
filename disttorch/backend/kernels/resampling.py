"""Resampling along dimensions: each element of the result is a weighted sum of a few elements, its taps. What images are
resized with, and what padding with an image's own elements is.

Where the taps lie is known before the data is, so a table is made once on the host. The table read the other way round,
which outputs an input has a part in, is the gradient's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from . import kernel
from .precision import narrow, wide

__all__ = ["Taps", "nearest_taps", "resample", "selected", "smooth_taps"]


@kernel
def resample(xp: Any, x: Any, along: tuple[tuple[int, Taps], ...]) -> Any:
    """Each axis in `along` resampled by its table, of whatever dtype where elements are only picked; half types are added
    in float32.
    """
    dtype = x.dtype
    if any(taps.count > 1 or taps.weights is not None for _, taps in along):
        x = wide(xp, x)
    for axis, taps in along:
        if not taps.size:  # of nothing comes nothing
            x = xp.zeros((*x.shape[:axis], taps.length, *x.shape[axis + 1 :]), dtype=x.dtype)
            continue
        beside = (slice(None), *(None,) * (x.ndim - 1 - axis))
        total: Any = None
        for k in range(taps.count):
            seen = xp.take(x, xp.asarray(taps.indices[k]), axis=axis)
            if taps.weights is not None:
                seen = seen * xp.asarray(taps.weights[k], dtype=x.dtype)[beside]
            total = seen if total is None else total + seen
        x = total
    return narrow(xp, x, dtype)


class Taps:
    """Of which elements, with which weights, each element of a resampled dimension is made.

    Parameters
    ----------
    size : int
        The dimension's length before.
    indices : int array (count, length)
        Where the taps of each element lie.
    weights : float64 array (count, length), optional
        What they are multiplied by; 1 unless given.
    """

    def __init__(self, size: int, indices: Any, weights: Any = None):
        self.size, self.indices, self.weights = size, indices, weights
        self.count, self.length = indices.shape

    @cached_property
    def transposed(self) -> Taps:
        """The table of the gradient."""
        weights = np.ones(self.indices.shape) if self.weights is None else self.weights
        used = weights != 0
        inputs, weights = self.indices[used], weights[used]
        outputs = np.broadcast_to(np.arange(self.length), self.indices.shape)[used]
        order = np.argsort(inputs, kind="stable")
        inputs, outputs, weights = inputs[order], outputs[order], weights[order]
        counts = np.bincount(inputs, minlength=self.size)
        rank = np.arange(inputs.size) - np.repeat(np.cumsum(counts) - counts, counts)
        shape = (int(counts.max(initial=1)), self.size)
        where, how = np.zeros(shape, np.int64), np.zeros(shape)
        where[rank, inputs], how[rank, inputs] = outputs, weights
        return Taps(self.length, where, None if (how == 1).all() else how)

    @cached_property
    def is_identity(self) -> bool:
        """Whether nothing changes."""
        picks = self.count == 1 and self.length == self.size and (self.indices[0] == np.arange(self.size)).all()
        return bool(picks and (self.weights is None or (self.weights == 1).all()))

    @cached_property
    def fixed_point(self) -> Taps:
        """The table with weights of as many binary places as 16-bit integers have room for, as uint8 images are resized."""
        if self.weights is None:
            return self
        largest = float(np.abs(self.weights).max(initial=0.0))
        places = next((p for p in range(22) if int(0.5 + largest * 2 ** (p + 1)) >= 2**15), 22)
        scaled = self.weights * 2.0**places
        return Taps(self.size, self.indices, np.trunc(scaled + np.copysign(0.5, scaled)) / 2.0**places)

    @cached_property
    def matrix(self) -> Any:
        """The table as a matrix (length, size)."""
        dense = np.zeros((self.length, self.size))
        if not self.size:
            return dense
        weights = 1.0 if self.weights is None else self.weights
        np.add.at(dense, (np.broadcast_to(np.arange(self.length), self.indices.shape), self.indices), weights)
        return dense


def selected(size: int, positions: Any) -> Taps:
    """A table that picks elements."""
    return Taps(size, np.asarray(positions, np.int64)[None])


def _linear(t: Any) -> Any:
    return np.clip(1 - np.abs(t), 0, None)


def _cubic(a: float) -> Callable[[Any], Any]:
    """Keys' cubic convolution kernel (IEEE Trans. ASSP 29, 1981)."""

    def weight(t: Any) -> Any:
        t = np.abs(t)
        near = ((a + 2) * t - (a + 3)) * t * t + 1
        far = ((t - 5) * t + 8) * t * a - 4 * a
        return np.where(t <= 1, near, np.where(t < 2, far, 0.0))

    return weight


def _lanczos(t: Any) -> Any:
    return np.where(np.abs(t) < 3, np.sinc(t) * np.sinc(t / 3), 0.0)


#: mode -> reach and weight function; with and without a filter against aliasing PyTorch's cubics differ
SMOOTH: dict[str, tuple[int, Callable[[Any], Any]]] = {"linear": (1, _linear), "cubic": (2, _cubic(-0.75))}
FILTERS: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "linear": (1, _linear),
    "cubic": (2, _cubic(-0.5)),
    "lanczos": (3, _lanczos),
}


@lru_cache(maxsize=256)
def nearest_taps(size: int, length: int, step: float | None, exact: bool) -> Taps:
    """The nearest element for each place: ``floor(i * step)``, or, `exact`, ``floor((i + 0.5) * step)``, of float32 numbers
    as in PyTorch. `step` is ``size / length`` unless given.
    """
    width = np.float32(size) / np.float32(length) if step is None else np.float32(step)
    at = np.arange(length, dtype=np.float32)
    return selected(size, np.minimum(np.floor((at + np.float32(0.5) if exact else at) * width), size - 1))


@lru_cache(maxsize=256)
def smooth_taps(mode: str, size: int, length: int, step: float | None, align_corners: bool, antialias: bool) -> Taps:
    """The taps of an interpolation at ``(i + 0.5) * step - 0.5``, or, where corners are aligned, ``i * step``.

    Parameters
    ----------
    mode : {"linear", "cubic", "lanczos"}
    size, length : int
        Of the dimension before and after.
    step : float or None
        ``size / length`` unless given.
    align_corners : bool
        Whether the first and the last places coincide; then the step follows from the sizes.
    antialias : bool
        Whether the weights are those of a filter that is as wide as the step.
    """
    if align_corners:
        width = (size - 1) / (length - 1) if length > 1 else 0.0
    else:
        width = size / length if step is None else step
    places = np.arange(length, dtype=np.float64)
    if antialias:
        return _filter_taps(mode, size, (places + 0.5) * width, width)
    at = places * width if align_corners else (places + 0.5) * width - 0.5
    reach, weight = SMOOTH[mode]
    if mode == "linear" and not align_corners:
        at = np.clip(at, 0, None)
    first = np.floor(at)
    steps = np.arange(1 - reach, reach + 1)[:, None]
    indices, weights = np.clip(first + steps, 0, size - 1).astype(np.int64), weight(at - first - steps)
    for k in range(len(steps) - 1, 0, -1):  # beyond an end several taps are the same element
        same = indices[k] == indices[k - 1]
        weights[k - 1, same] += weights[k, same]
        weights[k, same] = 0
    used = (weights != 0).any(1)
    if used.sum() == 1 and (weights[used] == 1).all():
        return Taps(size, indices[used])
    return Taps(size, indices[used], weights[used])


def _filter_taps(mode: str, size: int, centre: Any, width: float) -> Taps:
    reach, weight = FILTERS[mode]
    stretch = max(width, 1.0)
    support = reach * stretch
    start = np.clip((centre - support + 0.5).astype(np.int64), 0, None)
    end = np.clip((centre + support + 0.5).astype(np.int64), None, size)
    steps = np.arange(max(1, math.ceil(support) * 2 + 1))[:, None]
    indices = start + steps
    weights = np.where(indices < end, weight((indices - centre + 0.5) / stretch), 0.0)
    weights /= weights.sum(0)
    return Taps(size, np.clip(indices, 0, size - 1), weights)
