"""Transforms that overwrite a rectangle of each image (Zhong et al., arXiv:1708.04896; DeVries and Taylor, arXiv:1708.04552)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..backend import cpu, namespace
from ..backend import dtypes as dt
from ..ops.random import Generator, default_generator
from .transform import RandomTransform, check_probability, there

__all__ = ["Cutout", "RandomErasing"]

_TRIALS = 10


class RandomErasing(RandomTransform):
    """A rectangle of random area and shape overwritten, with a probability.

    Parameters
    ----------
    p : float
    scale : (float, float)
        The least and greatest part of the image's area.
    ratio : (float, float)
        The least and greatest height over width.
    value : number, sequence of numbers or "random"
        One for all, one for each channel, or normally distributed numbers.
    inplace : bool
        Overwrite the image that is given.
    generator : Generator, optional
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: Sequence[float] = (0.02, 0.33),
        ratio: Sequence[float] = (0.3, 3.3),
        value: Any = 0,
        inplace: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(generator)
        if isinstance(value, str) and value != "random":
            raise ValueError(f"If value is str, it should be 'random', got {value!r}")
        if not 0 <= scale[0] <= scale[1] <= 1:
            raise ValueError(f"RandomErasing: scale should be between 0 and 1, got {tuple(scale)}")
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"RandomErasing: ratio should be positive, the lower first, got {tuple(ratio)}")
        self.p, self.scale, self.ratio = check_probability("RandomErasing", p), tuple(scale), tuple(ratio)
        self.value, self.inplace = value, inplace

    def _batch(self, a: Any) -> Any:
        n, _, height, width = a.shape
        chosen = self._chosen(n, self.p)
        h, w, fits = rectangles(self, n, height, width, self.scale, self.ratio, strictly=True)
        top, left = self._below(height - h + 1, n), self._below(width - w + 1, n)
        h = cpu.where(chosen & fits, h, 0)
        return _erased(self, a, (top, top + h), (left, left + w), self.value, self.inplace)


class Cutout(RandomTransform):
    """A square overwritten that may stick out of the image: its centre is anywhere in it.

    Parameters
    ----------
    length : int
        Of the square's sides.
    value : number or sequence of numbers
    p : float
    generator : Generator, optional
    """

    def __init__(self, length: int, value: Any = 0, p: float = 1.0, generator: Generator | None = None) -> None:
        super().__init__(generator)
        if length < 1:
            raise ValueError(f"Cutout: length must be 1 or more, got {length}")
        self.length, self.value, self.p = length, value, check_probability("Cutout", p)

    def _batch(self, a: Any) -> Any:
        n, _, height, width = a.shape
        size = cpu.where(self._chosen(n, self.p), self.length, 0)
        top = self._below(height, n) - self.length // 2
        left = self._below(width, n) - self.length // 2
        return _erased(self, a, (top, top + size), (left, left + size), self.value, False)


def rectangles(
    source: RandomTransform, n: int, height: int, width: int, scale: Any, ratio: Any, strictly: bool = False
) -> tuple[Any, Any, Any]:
    """Heights and widths of rectangles of random area and shape, and whether one that fits was found in ten trials.

    The logarithm of the shape is uniform, so that a shape and its inverse are as likely; erasing draws height over width, as
    the paper does, and cropping the other way round, which is the same by this symmetry only if `ratio` is symmetric.
    """
    area = source._uniform(n * _TRIALS, *scale).reshape(_TRIALS, n) * (height * width)
    aspect = cpu.exp(source._uniform(n * _TRIALS, math.log(ratio[0]), math.log(ratio[1]))).reshape(_TRIALS, n)
    first, second = cpu.rint(cpu.sqrt(area * aspect)), cpu.rint(cpu.sqrt(area / aspect))
    h, w = (first, second) if strictly else (second, first)
    fits = (h < height) & (w < width) if strictly else (h > 0) & (h <= height) & (w > 0) & (w <= width)
    trial = fits.argmax(0)
    found = fits.any(0)
    columns = cpu.arange(n)
    integer = dt.int64.numpy
    return cpu.where(found, h[trial, columns], 0).astype(integer), cpu.where(found, w[trial, columns], 0).astype(integer), found


def _erased(source: RandomTransform, a: Any, rows: Any, columns: Any, value: Any, inplace: bool) -> Any:
    xp = namespace(a)
    inside = []
    for (begin, end), size in ((rows, a.shape[2]), (columns, a.shape[3])):
        places = cpu.arange(size)
        inside.append(there((places >= begin[:, None]) & (places < end[:, None]), a))
    mask = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    if isinstance(value, str):
        generator = source.generator if source.generator is not None else default_generator()
        values = there(generator.normal(a.shape, dt.float32).astype(a.dtype), a)
    else:
        values = there(cpu.array(value, a.dtype).reshape(-1, 1, 1), a)
        if values.size not in (1, a.shape[1]):
            raise ValueError(f"{type(source).__name__}: value has {values.size} numbers, for {a.shape[1]} channels")
    if inplace:
        xp.copyto(a, values, where=mask)
        return a
    return xp.where(mask, values, a)
