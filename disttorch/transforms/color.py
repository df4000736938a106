"""Transforms of values: conversion, normalization, colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd.variable import Tensor, wrap
from ..backend import cpu, namespace
from ..backend import dtypes as dt
from ..ops.random import Generator
from .transform import RandomTransform, Transform, bound_of, per_image, there

__all__ = ["ColorJitter", "ConvertImageDtype", "Grayscale", "Normalize", "ToTensor"]

_LUMA = (0.2989, 0.587, 0.114)  # of ITU-R BT.601, as torchvision rounds them


class ToTensor:
    """A tensor (C, H, W) of an array or PIL image (H, W, C) or (H, W); (N, C, H, W) of a batch (N, H, W, C).

    Values of uint8 are divided by 255 to floating point; bool becomes 0 and 1; others stay as they are.

    Raises
    ------
    TypeError, ValueError
        If it is no array, or has another number of dimensions.
    """

    def __call__(self, pic: Any) -> Tensor:
        if not hasattr(pic, "__array_interface__") and not hasattr(pic, "__array__"):
            raise TypeError(f"pic should be PIL Image or ndarray. Got {type(pic).__name__}")
        a = cpu.asarray(pic)
        if a.ndim not in (2, 3, 4):
            raise ValueError(f"pic should be 2/3/4 dimensional. Got {a.ndim} dimensions.")
        a = a[..., None] if a.ndim == 2 else a
        a = cpu.ascontiguousarray(cpu.moveaxis(a, -1, -3))
        default = dt.get_default_dtype().numpy
        if a.dtype == dt.uint8.numpy:
            return wrap(cpu.divide(a, 255, dtype=default))
        if a.dtype.kind == "b":
            return wrap(a.astype(default))
        return wrap(a.copy())

    def __repr__(self) -> str:
        return "ToTensor()"


class ConvertImageDtype(Transform):
    """Images of another dtype, and values in its range: floating-point ones from 0 to 1, integers from 0 to the highest.

    Raises
    ------
    RuntimeError
        If floating-point values cannot be told apart in so wide an integer dtype.
    """

    def __init__(self, dtype: Any) -> None:
        self.dtype = dt.as_dtype(dtype)

    def _batch(self, a: Any) -> Any:
        target, here = self.dtype.numpy, dt.DTYPES[a.dtype]
        xp = namespace(a)
        if target == a.dtype:
            return a.copy()
        from_float, to_float = a.dtype in dt.FLOATING, target in dt.FLOATING
        if from_float and to_float:
            return a.astype(target)
        if from_float:
            bits = 8 * target.itemsize
            if (a.dtype.itemsize <= 4 and bits >= 32) or (a.dtype.itemsize == 8 and bits >= 64):
                raise RuntimeError(f"The cast from {here} to {self.dtype} cannot be performed safely.")
            # so that each value stands for an equally wide part of 0 to 1
            return xp.multiply(a, bound_of_dtype(self.dtype) + 1 - 1e-3, dtype=a.dtype).astype(target)
        if to_float:
            return a.astype(target) / xp.asarray(bound_of(a), dtype=target)
        old, new = bound_of(a) + 1, bound_of_dtype(self.dtype) + 1
        return (a // (old // new)).astype(target) if old > new else a.astype(target) * (new // old)


class Normalize(Transform):
    """``(image - mean) / std``.

    Parameters
    ----------
    mean, std : float or sequence of float
        One for all channels, or one for each.
    inplace : bool
        Overwrite the image that is given.

    Raises
    ------
    ValueError
        If `std` has a zero, or there are not as many numbers as channels.
    TypeError
        If images are not floating point.
    """

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float], inplace: bool = False) -> None:
        self.mean, self.std, self.inplace = mean, std, inplace
        self._mean, self._std = (cpu.array(v, dt.float64.numpy).reshape(-1, 1, 1) for v in (mean, std))
        if not self._std.all():
            raise ValueError(f"Normalize: std evaluated to zero, leading to division by zero: {std}")

    def _batch(self, a: Any) -> Any:
        if a.dtype not in dt.FLOATING:
            raise TypeError(f"Input tensor should be a float tensor. Got {dt.DTYPES[a.dtype]}.")
        for name, v in (("mean", self._mean), ("std", self._std)):
            if v.size not in (1, a.shape[1]):
                raise ValueError(f"Normalize: {name} has {v.size} numbers, for {a.shape[1]} channels")
        mean, factor = there(self._mean.astype(a.dtype), a), there((1 / self._std).astype(a.dtype), a)
        result = a if self.inplace else a - mean
        if self.inplace:
            result -= mean
        result *= factor
        return result


class Grayscale(Transform):
    """The brightness of colour images, in one channel or three."""

    def __init__(self, num_output_channels: int = 1) -> None:
        if num_output_channels not in (1, 3):
            raise ValueError(f"num_output_channels should be either 1 or 3, got {num_output_channels}")
        self.num_output_channels = num_output_channels

    def _batch(self, a: Any) -> Any:
        gray = _gray(a).astype(a.dtype)
        return gray if self.num_output_channels == 1 else namespace(a).repeat(gray, 3, 1)


class ColorJitter(RandomTransform):
    """Brightness, contrast, saturation and hue changed at random, for each image by itself.

    Parameters
    ----------
    brightness, contrast, saturation : float or (float, float)
        The least and greatest factor; a number d stands for (max(0, 1 - d), 1 + d).
    hue : float or (float, float)
        The least and greatest turn of the colour circle, at most half a turn; a number d stands for (-d, d).
    generator : Generator, optional

    Notes
    -----
    The order of the four is drawn too, once for a batch. Images have one channel or three; of those with one, saturation and
    hue change nothing.
    """

    def __init__(
        self,
        brightness: float | Sequence[float] = 0,
        contrast: float | Sequence[float] = 0,
        saturation: float | Sequence[float] = 0,
        hue: float | Sequence[float] = 0,
        generator: Generator | None = None,
    ) -> None:
        super().__init__(generator)
        self.brightness = _limits("brightness", brightness, 1.0, 0.0, float("inf"))
        self.contrast = _limits("contrast", contrast, 1.0, 0.0, float("inf"))
        self.saturation = _limits("saturation", saturation, 1.0, 0.0, float("inf"))
        self.hue = _limits("hue", hue, 0.0, -0.5, 0.5)

    def _batch(self, a: Any) -> Any:
        if a.shape[1] not in (1, 3):
            raise ValueError(f"ColorJitter: images have 1 or 3 channels, these have {a.shape[1]}")
        steps = [
            (limits, change)
            for limits, change, none in (
                (self.brightness, _brighter, (1, 1)),
                (self.contrast, _contrasted, (1, 1)),
                (self.saturation, _saturated, (1, 1)),
                (self.hue, _turned, (0, 0)),
            )
            if limits != none
        ]
        order = cpu.argsort(self._uniform(len(steps))).tolist()
        white = bound_of(a)
        x = a.astype(dt.float32.numpy) / white if a.dtype not in dt.FLOATING else a
        for i in order:
            (low, high), change = steps[i]
            x = change(x, per_image(self._uniform(len(a), low, high), x))
        if a.dtype in dt.FLOATING:
            return x if order else a.copy()
        return namespace(a).rint(x * white).astype(a.dtype)


def _limits(name: str, value: Any, middle: float, least: float, greatest: float) -> tuple[float, float]:
    if isinstance(value, (int, float)):
        if value < 0:
            raise ValueError(f"If {name} is a single number, it must be non negative, got {value}")
        value = (max(middle - value, 0.0) if middle else -value, middle + value)
    low, high = value
    if not least <= low <= high <= greatest:
        raise ValueError(f"{name} values should be between {least} and {greatest}, the lower first, got {(low, high)}")
    return low, high


def bound_of_dtype(d: Any) -> int:
    """The highest value of an integer dtype."""
    return dt.iinfo(d).max


def _gray(x: Any) -> Any:
    """The brightness, with one channel."""
    if x.shape[1] == 1:
        return x
    if x.shape[1] != 3:
        raise ValueError(f"Grayscale: images have 1 or 3 channels, these have {x.shape[1]}")
    kind = x.dtype if x.dtype in dt.FLOATING else dt.float32.numpy
    red, green, blue = (x[:, i : i + 1].astype(kind) for i in range(3))
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def _mixed(x: Any, other: Any, factor: Any) -> Any:
    result = x - other
    result *= factor
    result += other
    return namespace(x).clip(result, 0, 1)


def _brighter(x: Any, factor: Any) -> Any:
    return namespace(x).clip(x * factor, 0, 1)


def _contrasted(x: Any, factor: Any) -> Any:
    return _mixed(x, namespace(x).mean(_gray(x), (1, 2, 3), keepdims=True), factor)


def _saturated(x: Any, factor: Any) -> Any:
    return _mixed(x, _gray(x), factor)


def _turned(x: Any, turn: Any) -> Any:
    """Hue turned, by way of HSV (Smith, "Color gamut transform pairs", SIGGRAPH 1978)."""
    if x.shape[1] == 1:
        return x
    xp = namespace(x)
    high, low = xp.amax(x, 1, keepdims=True), xp.amin(x, 1, keepdims=True)
    chroma = high - low
    red, green, blue = (x[:, i : i + 1] for i in range(3))
    safe = xp.where(chroma == 0, xp.ones_like(chroma), chroma)
    sector = xp.where(
        high == red, (green - blue) / safe, xp.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    )
    sector = xp.remainder(sector + 6 * turn, 6)
    # red, green and blue fall from full to none around 0, 2 and 4 of the circle of 6
    parts = []
    for middle in (0, 2, 4):
        away = xp.absolute(xp.remainder(sector - middle + 3, 6) - 3)
        parts.append(high - chroma * xp.clip(away - 1, 0, 1))
    return xp.concatenate(parts, 1)
