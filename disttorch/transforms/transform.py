"""What all transforms are: a function of a batch of images, given one image or a batch.

A transform writes its `_batch` for arrays (N, C, H, W) in their namespace; random ones draw a number for each image there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..autograd.variable import Tensor, wrap
from ..backend import cpu, namespace
from ..backend import dtypes as dt
from ..ops.random import Generator, default_generator

__all__ = ["RandomTransform", "Transform", "in_float", "pair"]


class Transform:
    """A function from images to images: tensors (C, H, W) or (N, C, H, W). Results have no history for gradients.

    Raises
    ------
    TypeError, ValueError
        If it is given something else.
    """

    def __call__(self, img: Tensor) -> Tensor:
        a = _image_array(type(self).__name__, img)
        xp = namespace(a)
        with xp.on(xp.device_of(a)):
            return wrap(self._batch(a) if a.ndim == 4 else self._batch(a[None])[0])

    def _batch(self, a: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} is a Transform without _batch")

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in self.__dict__.items() if not k.startswith("_") and k != "generator")
        return f"{type(self).__name__}({shown})"


class RandomTransform(Transform):
    """A transform that draws, for each image of a batch by itself.

    Parameters
    ----------
    generator : Generator, optional
        On the CPU. The default generator unless given, which in a worker of a `DataLoader` is the worker's own: seeded for
        the epoch, and restored where an epoch is resumed.
    """

    def __init__(self, generator: Generator | None = None) -> None:
        self.generator = generator

    def _uniform(self, n: int, low: float = 0.0, high: float = 1.0) -> Any:
        """One number for each image, as a float64 array on the CPU."""
        source = self.generator if self.generator is not None else default_generator()
        return low + (high - low) * source.uniform((n,), dt.float64)

    def _below(self, counts: Any, n: int) -> Any:
        """An integer from 0 to below a count, for each image."""
        return cpu.floor(self._uniform(n) * counts).astype(dt.int64.numpy)

    def _chosen(self, n: int, p: float) -> Any:
        return self._uniform(n) < p


def check_probability(name: str, p: float) -> float:
    """The probability, if it is one."""
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p must be between 0 and 1, got {p}")
    return p


def pair(name: str, size: int | Sequence[int]) -> tuple[int, int]:
    """A height and a width from one number or two."""
    both = (size, size) if isinstance(size, int) else tuple(size) * (2 if len(size) == 1 else 1)
    if len(both) != 2 or min(both) < 1:
        raise ValueError(f"{name}: size must be a positive int or (height, width), got {size!r}")
    return both[0], both[1]


def there(values: Any, a: Any) -> Any:
    """Values drawn on the CPU, on the device of an array."""
    return namespace(a).from_host(values)


def per_image(values: Any, a: Any) -> Any:
    """Values for each image, to be multiplied with images, in their dtype."""
    return there(values.astype(a.dtype), a).reshape(-1, 1, 1, 1)


def in_float(function: Callable[[Any], Any], a: Any) -> Any:
    """A function of floating-point images, of images of any dtype: integers are rounded and kept in their range."""
    if a.dtype in dt.FLOATING:
        return function(a)
    xp = namespace(a)
    result = function(a.astype(dt.float32.numpy))
    limits = dt.iinfo(dt.DTYPES[a.dtype])
    return xp.clip(xp.rint(result), limits.min, limits.max).astype(a.dtype)


def bound_of(a: Any) -> float:
    """The value of white: 1 for floating-point images, the highest of an integer dtype."""
    return 1.0 if a.dtype in dt.FLOATING else dt.iinfo(dt.DTYPES[a.dtype]).max


def _image_array(name: str, img: Any) -> Any:
    if not isinstance(img, Tensor):
        raise TypeError(f"{name}: expected a Tensor image, got {type(img).__name__}; ToTensor makes one of arrays and PIL images")
    if img.ndim not in (3, 4):
        raise ValueError(f"{name}: expected images of shape (C, H, W) or (N, C, H, W), got shape {list(img.shape)}")
    return img._array
