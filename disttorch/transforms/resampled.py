"""Transforms that compute pixels between pixels: resizing, crops of random size, rotation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..autograd.variable import wrap
from ..backend import cpu, namespace
from ..backend import dtypes as dt
from ..ops.nn.resampling import interpolate
from ..ops.nn.sampling import affine_grid, grid_sample
from ..ops.random import Generator
from .erasing import rectangles
from .transform import RandomTransform, Transform, in_float, pair, there

__all__ = ["RandomResizedCrop", "RandomRotation", "Resize"]


class Resize(Transform):
    """Images of another size.

    Parameters
    ----------
    size : int or (int, int)
        Of the shorter side, the other in proportion; or height and width.
    interpolation : "bilinear", "bicubic", "nearest" or "nearest-exact"
    max_size : int, optional
        With an int: the longer side is at most that, if need be with a shorter one below `size`.
    antialias : bool
        Whether to filter where images become smaller.
    """

    def __init__(
        self, size: int | Sequence[int], interpolation: str = "bilinear", max_size: int | None = None, antialias: bool = True
    ) -> None:
        short = isinstance(size, int) or len(size) == 1
        if max_size is not None and not short:
            raise ValueError("max_size should only be passed if size specifies the length of the smaller edge")
        both = pair("Resize", size)
        if max_size is not None and max_size <= both[0]:
            raise ValueError(f"max_size = {max_size} must be strictly greater than the requested size for the smaller edge size = {size}")
        self.size: int | tuple[int, int] = both[0] if short else both
        self.interpolation, self.max_size, self.antialias = _mode("Resize", interpolation), max_size, antialias

    def _batch(self, a: Any) -> Any:
        size = self.size
        if isinstance(size, int):
            height, width = a.shape[2:]
            short, long = sorted((height, width))
            new_short, new_long = size, int(size * long / short)
            if self.max_size is not None and new_long > self.max_size:
                new_short, new_long = int(self.max_size * new_short / new_long), self.max_size
            size = (new_short, new_long) if height <= width else (new_long, new_short)
        smooth = self.interpolation in ("bilinear", "bicubic")

        def resized(x: Any) -> Any:
            return interpolate(wrap(x), size, mode=self.interpolation, antialias=smooth and self.antialias)._array

        return in_float(resized, a)


class RandomResizedCrop(RandomTransform):
    """A part of random area and shape of each image, resized to one size.

    Parameters
    ----------
    size : int or (int, int)
        Height and width of the results.
    scale : (float, float)
        The least and greatest part of the image's area.
    ratio : (float, float)
        The least and greatest width over height.
    interpolation : "bilinear" or "nearest"
    antialias : bool
        Whether to filter where the part is larger than `size`.
    generator : Generator, optional

    Notes
    -----
    A bilinear resize is a product with two narrow matrices, one for each direction. Each image of a batch has its own two, so
    the batch is two batched matrix products.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: str = "bilinear",
        antialias: bool = True,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(generator)
        if not 0 < scale[0] <= scale[1] or not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"RandomResizedCrop: scale and ratio should be positive, the lower first, got {scale} and {ratio}")
        if interpolation not in ("bilinear", "nearest"):
            raise ValueError(f"RandomResizedCrop: interpolation must be 'bilinear' or 'nearest', got {interpolation!r}")
        self.size, self.scale, self.ratio = pair("RandomResizedCrop", size), tuple(scale), tuple(ratio)
        self.interpolation, self.antialias = interpolation, antialias

    def boxes(self, n: int, height: int, width: int) -> tuple[Any, Any, Any, Any]:
        """Draw top, left, height and width of the parts of n images; where none fits, the largest central one of allowed shape."""
        h, w, found = rectangles(self, n, height, width, self.scale, self.ratio)
        low, high = self.ratio
        whole_h, whole_w = height, width
        if width / height < low:
            whole_h = round(width / low)
        elif width / height > high:
            whole_w = round(height * high)
        h, w = cpu.where(found, h, whole_h), cpu.where(found, w, whole_w)
        top, left = self._below(height - h + 1, n), self._below(width - w + 1, n)
        return cpu.where(found, top, (height - h) // 2), cpu.where(found, left, (width - w) // 2), h, w

    def _batch(self, a: Any) -> Any:
        n, _, height, width = a.shape
        top, left, h, w = self.boxes(n, height, width)

        def resized(x: Any) -> Any:
            xp = namespace(x)
            rows = there(self._taps(top, h, self.size[0], height).astype(x.dtype), x)
            columns = there(self._taps(left, w, self.size[1], width).astype(x.dtype), x)
            return xp.matmul(xp.matmul(rows[:, None], x), columns.swapaxes(1, 2)[:, None])

        return in_float(resized, a)

    def _taps(self, begin: Any, extent: Any, count: int, size: int) -> Any:
        """(n, count, size): how much of each input pixel is in each output pixel."""
        scale = (extent / count)[:, None, None]
        begin, end = begin[:, None, None], (begin + extent)[:, None, None]
        places = cpu.arange(count)[None, :, None]
        pixels = cpu.arange(size)[None, None, :]
        if self.interpolation == "nearest":
            return (pixels == begin + cpu.floor(places * scale)).astype(dt.float32.numpy)
        # a triangle around the place that the output pixel's centre comes from, as wide as the pixel is there
        reach = cpu.maximum(scale, 1.0) if self.antialias else 1.0
        centre = begin + cpu.clip((places + 0.5) * scale, 0.5, end - begin - 0.5)
        if self.antialias:
            centre = begin + (places + 0.5) * scale
        weights = cpu.maximum(1 - cpu.absolute(pixels + 0.5 - centre) / reach, 0.0) * ((pixels >= begin) & (pixels < end))
        return weights / weights.sum(2, keepdims=True)


class RandomRotation(RandomTransform):
    """Images turned by random angles; they keep their size.

    Parameters
    ----------
    degrees : float or (float, float)
        The least and greatest angle, counter-clockwise; a number d stands for (-d, d).
    interpolation : "nearest" or "bilinear"
    center : (float, float), optional
        What stays in place, as (x, y) in pixels from the upper left corner; the image's middle unless given.
    fill : number or sequence of numbers
        What comes in at the corners; one for each channel.
    generator : Generator, optional
    """

    def __init__(
        self,
        degrees: float | Sequence[float],
        interpolation: str = "nearest",
        center: Sequence[float] | None = None,
        fill: Any = 0,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(generator)
        if isinstance(degrees, (int, float)):
            if degrees < 0:
                raise ValueError(f"If degrees is a single number, it must be positive, got {degrees}")
            degrees = (-degrees, degrees)
        if len(degrees) != 2:
            raise ValueError(f"degrees should be a sequence of length 2, got {degrees}")
        if interpolation not in ("nearest", "bilinear"):
            raise ValueError(f"RandomRotation: interpolation must be 'nearest' or 'bilinear', got {interpolation!r}")
        self.degrees, self.interpolation, self.center, self.fill = tuple(degrees), interpolation, center, fill

    def _batch(self, a: Any) -> Any:
        n, channels, height, width = a.shape
        if not a.size:
            return a.copy()
        angles = self._uniform(n, *self.degrees) * (math.pi / 180)
        cosine, sine = cpu.cos(angles), cpu.sin(angles)
        x, y = (0.0, 0.0) if self.center is None else (self.center[0] - width / 2, self.center[1] - height / 2)
        # from a pixel of the result, measured from the middle, to where it comes from, in units of half the image
        theta = cpu.zeros((n, 2, 3), dt.float64.numpy)
        theta[:, 0, 0], theta[:, 0, 1] = cosine, -sine * height / width
        theta[:, 1, 0], theta[:, 1, 1] = sine * width / height, cosine
        theta[:, 0, 2] = (x - cosine * x + sine * y) * 2 / width
        theta[:, 1, 2] = (y - sine * x - cosine * y) * 2 / height
        fill = cpu.array(self.fill, dt.float32.numpy).reshape(-1, 1, 1)
        if fill.size not in (1, channels):
            raise ValueError(f"RandomRotation: {fill.size} values to fill with, for {channels} channels")

        def turned(images: Any) -> Any:
            around = there(fill.astype(images.dtype), images)
            grid = affine_grid(wrap(there(theta.astype(images.dtype), images)), a.shape, align_corners=False)
            inside = grid_sample(wrap(images - around), grid, self.interpolation, "zeros", align_corners=False)
            return inside._array + around

        return in_float(turned, a)


def _mode(name: str, interpolation: Any) -> str:
    modes = ("bilinear", "bicubic", "nearest", "nearest-exact")
    if interpolation not in modes:
        raise ValueError(f"{name}: interpolation must be one of {modes}, got {interpolation!r}")
    return interpolation
