"""Transforms that move pixels and do not change them: crops, padding, flips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..backend import cpu, namespace
from ..ops.random import Generator
from .transform import RandomTransform, Transform, check_probability, pair, there

__all__ = ["CenterCrop", "Pad", "RandomCrop", "RandomHorizontalFlip", "RandomVerticalFlip"]

#: torchvision's names are NumPy's
_MODES = ("constant", "edge", "reflect", "symmetric")


class Pad(Transform):
    """Wider images.

    Parameters
    ----------
    padding : int or sequence of int
        On all sides; or left and right, above and below; or left, above, right, below.
    fill : number or sequence of numbers
        What is there with "constant"; one for each channel.
    padding_mode : "constant", "edge", "reflect" or "symmetric"
    """

    def __init__(self, padding: int | Sequence[int], fill: Any = 0, padding_mode: str = "constant") -> None:
        if padding_mode not in _MODES:
            raise ValueError(f"Pad: padding_mode must be one of {_MODES}, got {padding_mode!r}")
        self.padding, self.fill, self.padding_mode = _sides(padding), fill, padding_mode

    def _batch(self, a: Any) -> Any:
        left, above, right, below = self.padding
        return _padded(a, (above, below), (left, right), self.fill, self.padding_mode)


class CenterCrop(Transform):
    """The middle of images; of smaller ones with zeros around.

    Parameters
    ----------
    size : int or (int, int)
        Height and width.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = pair("CenterCrop", size)

    def _batch(self, a: Any) -> Any:
        (h, w), (height, width) = self.size, a.shape[2:]
        if h > height or w > width:
            rows, columns = max(h - height, 0), max(w - width, 0)
            a = _padded(a, (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), 0, "constant")
            height, width = a.shape[2:]
        top, left = round((height - h) / 2), round((width - w) / 2)
        return a[:, :, top : top + h, left : left + w].copy()


class RandomCrop(RandomTransform):
    """A part of each image, at random places.

    Parameters
    ----------
    size : int or (int, int)
        Height and width.
    padding : int or sequence of int, optional
        Wider images first, as `Pad`.
    pad_if_needed : bool
        Whether smaller images are made wide enough.
    fill, padding_mode
        As of `Pad`.
    generator : Generator, optional

    Raises
    ------
    ValueError
        If images are smaller than `size`, and `pad_if_needed` is false.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        padding: int | Sequence[int] | None = None,
        pad_if_needed: bool = False,
        fill: Any = 0,
        padding_mode: str = "constant",
        generator: Generator | None = None,
    ) -> None:
        super().__init__(generator)
        self.size = pair("RandomCrop", size)
        self.padding, self.pad_if_needed, self.fill, self.padding_mode = padding, pad_if_needed, fill, padding_mode
        self._pad = None if padding is None else Pad(padding, fill, padding_mode)

    def _batch(self, a: Any) -> Any:
        (h, w), xp = self.size, namespace(a)
        a = a if self._pad is None else self._pad._batch(a)
        if self.pad_if_needed:
            rows, columns = max(h - a.shape[2], 0), max(w - a.shape[3], 0)
            a = _padded(a, (rows, rows), (columns, columns), self.fill, self.padding_mode)
        n, channels, height, width = a.shape
        if h > height or w > width:
            raise ValueError(f"RandomCrop: required crop size {(h, w)} is larger than input image size {(height, width)}")
        tops, lefts = self._below(height - h + 1, n), self._below(width - w + 1, n)
        if not a.size:
            return a[:, :, :h, :w].copy()
        # all parts that there are as one view, of which one for each image is copied
        a = xp.ascontiguousarray(a)
        of_image, of_channel, of_row, of_column = a.strides
        shape = n, height - h + 1, width - w + 1, channels, h, w
        parts = xp.restride(a, shape, (of_image, of_row, of_column, of_channel, of_row, of_column))
        return parts[there(cpu.arange(n), a), there(tops, a), there(lefts, a)]


class _Flip(RandomTransform):
    def __init__(self, p: float = 0.5, generator: Generator | None = None) -> None:
        super().__init__(generator)
        self.p = check_probability(type(self).__name__, p)

    def _batch(self, a: Any) -> Any:
        result = a.copy()
        places = there(cpu.nonzero(self._chosen(len(a), self.p))[0], a)
        result[places] = self._flipped(a[places])
        return result

    def _flipped(self, a: Any) -> Any:
        raise NotImplementedError


class RandomHorizontalFlip(_Flip):
    """Left and right exchanged, with probability `p`."""

    def _flipped(self, a: Any) -> Any:
        return a[..., ::-1]


class RandomVerticalFlip(_Flip):
    """Top and bottom exchanged, with probability `p`."""

    def _flipped(self, a: Any) -> Any:
        return a[..., ::-1, :]


def _sides(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    sides = [padding] if isinstance(padding, int) else list(padding)
    if len(sides) not in (1, 2, 4):
        raise ValueError(f"Padding must be an int or a 1, 2, or 4 element tuple, not a {len(sides)} element tuple")
    left, above, right, below = (sides * 4)[:4]
    return left, above, right, below


def _padded(a: Any, rows: tuple[int, int], columns: tuple[int, int], fill: Any, mode: str) -> Any:
    xp = namespace(a)
    if min(*rows, *columns) < 0:
        raise ValueError(f"Pad: padding must not be negative, got {rows} rows and {columns} columns")
    width = ((0, 0), (0, 0), rows, columns)
    if mode != "constant":
        return xp.pad(a, width, mode=mode)
    shape = (*a.shape[:2], a.shape[2] + sum(rows), a.shape[3] + sum(columns))
    values = cpu.array(fill, a.dtype)
    if values.ndim and values.size not in (1, a.shape[1]):
        raise ValueError(f"Pad: {values.size} values to fill with, for {a.shape[1]} channels")
    result = xp.empty(shape, a.dtype)
    result[...] = there(values.reshape(-1, 1, 1), a)
    result[:, :, rows[0] : shape[2] - rows[1], columns[0] : shape[3] - columns[1]] = a
    return result
