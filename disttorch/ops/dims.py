"""Dimensions as PyTorch's users give them: negative, one or several, as arguments or as a sequence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..autograd.variable import Tensor
from ..backend.choices import CHOICES

__all__ = ["Size", "as_shape", "infer_shape", "normal_dim", "normal_dims"]


class Size(tuple):
    """The shape of a tensor: a tuple that knows its product.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.zeros(2, 3).shape.numel()
    6
    """

    __slots__ = ()

    def numel(self) -> int:
        """How many elements a tensor of this shape has."""
        return math.prod(self)

    def __repr__(self) -> str:
        return f"{CHOICES.package}.Size({list(self)})"

    def __add__(self, other: Any) -> Size:
        return Size(tuple.__add__(self, tuple(other)))

    def __radd__(self, other: Any) -> Size:
        return Size(tuple(other) + tuple(self))

    def __mul__(self, times: Any) -> Size:
        return Size(tuple.__mul__(self, times))

    __rmul__ = __mul__

    def __getitem__(self, index: Any) -> Any:
        item = tuple.__getitem__(self, index)
        return Size(item) if isinstance(index, slice) else item


def normal_dim(dim: int, ndim: int, name: str = "") -> int:
    """A dimension as a number from 0 up.

    Raises
    ------
    IndexError
        If the tensor has no such dimension. A tensor without dimensions takes 0 and -1.
    """
    n = ndim or 1
    if not -n <= dim < n:
        raise IndexError(f"{name}{': ' if name else ''}dimension out of range (expected to be in range of [{-n}, {n - 1}], but got {dim})")
    return dim + n if dim < 0 else dim


def normal_dims(dim: Any, ndim: int, name: str = "") -> tuple[int, ...] | None:
    """Several dimensions as numbers from 0 up; None, and nothing given, stand for all."""
    if dim is None:
        return None
    if isinstance(dim, int):
        return (normal_dim(dim, ndim, name),) if ndim else _check_scalar(dim, name)
    if isinstance(dim, str):
        raise TypeError(f"{name}(): dim must be a number or several, not the text {dim!r}")
    dims = tuple(normal_dim(int(d), ndim, name) for d in dim)
    if len(set(dims)) != len(dims):
        raise RuntimeError(f"{name}: dim {tuple(dim)} names a dimension more than once")
    return (dims or None) if ndim else ()


def _check_scalar(dim: int, name: str) -> tuple[int, ...]:
    normal_dim(dim, 0, name)
    return ()


def as_shape(sizes: Sequence[Any], name: str = "") -> tuple[int, ...]:
    """A shape given as several integers or as one sequence of them."""
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = sizes[0]
    if set(map(type, sizes)) == {int}:
        return tuple(sizes)
    shape = []
    for n in sizes:
        if isinstance(n, Tensor) or hasattr(n, "__index__"):
            n = n.__index__()
        if not isinstance(n, int):
            raise TypeError(f"{name}: sizes must be integers, got {n!r} of type {type(n).__name__}")
        shape.append(n)
    return tuple(shape)


def infer_shape(shape: tuple[int, ...], count: int, name: str = "reshape") -> tuple[int, ...]:
    """A shape with its -1, if there is one, filled in.

    Raises
    ------
    RuntimeError
        If `count` elements do not make up the shape.
    """
    unknown = [i for i, n in enumerate(shape) if n == -1]
    known = 1
    for n in shape:
        if n < -1:
            raise RuntimeError(f"{name}: invalid shape dimension {n} in {list(shape)}")
        known *= n if n != -1 else 1
    if len(unknown) > 1:
        raise RuntimeError(f"{name}: only one dimension can be inferred, not those in {list(shape)}")
    if unknown and known and count % known == 0:
        return tuple(count // known if n == -1 else n for n in shape)
    if unknown and not known:
        raise RuntimeError(f"{name}: cannot infer the -1 in {list(shape)}, as another dimension is 0")
    if unknown or known != count:
        raise RuntimeError(f"{name}: shape {list(shape)} is invalid for input of size {count}")
    return shape
