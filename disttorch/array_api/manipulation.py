"""The standard's functions that change shapes and join arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd.variable import Tensor
from ..ops import FUNCTIONS as OURS
from .dtypes import promoted

__all__ = [
    "broadcast_arrays", "broadcast_shapes", "broadcast_to", "concat", "expand_dims", "flip", "moveaxis", "permute_dims", "repeat",
    "reshape", "roll", "squeeze", "stack", "tile", "unstack",
]  # fmt: skip


def broadcast_arrays(*arrays: Tensor) -> list[Tensor]:
    """Arrays in the one shape that they have together."""
    return list(OURS["broadcast_tensors"](*arrays))


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The one shape that arrays of these shapes have together."""
    return tuple(OURS["broadcast_shapes"](*shapes))


def broadcast_to(x: Tensor, /, shape: Sequence[int]) -> Tensor:
    """An array in a larger shape, without a copy."""
    return OURS["broadcast_to"](x, tuple(shape))


def concat(arrays: Sequence[Tensor], /, *, axis: int | None = 0) -> Tensor:
    """Arrays one after the other along an axis; flattened before if it is None."""
    parts = promoted(*arrays)
    if axis is None:
        return OURS["cat"]([p.reshape(-1) for p in parts], 0)
    for p in parts:  # PyTorch lets empty vectors pass
        if p.ndim != parts[0].ndim:
            raise ValueError(f"concat: arrays of {parts[0].ndim} and {p.ndim} dimensions")
    return OURS["cat"](parts, axis)


def stack(arrays: Sequence[Tensor], /, *, axis: int = 0) -> Tensor:
    """Arrays along a new axis."""
    return OURS["stack"](promoted(*arrays), axis)


def unstack(x: Tensor, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The parts of an array along an axis, which they lose."""
    return tuple(OURS["unbind"](x, axis))


def expand_dims(x: Tensor, /, axis: Any = 0) -> Tensor:
    """An array with new axes of size 1, by their places in the result."""
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    ndim = x.ndim + len(axes)
    for a in sorted(a + ndim if a < 0 else a for a in axes):
        x = OURS["unsqueeze"](x, a)
    return x


def squeeze(x: Tensor, /, axis: int | tuple[int, ...]) -> Tensor:
    """An array without axes of size 1.

    Raises
    ------
    ValueError
        If one is of another size.
    """
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    for a in axes:
        if x.shape[a] != 1:
            raise ValueError(f"squeeze: axis {a} of shape {list(x.shape)} is not of size 1")
    return OURS["squeeze"](x, axes) if axes else x


def flip(x: Tensor, /, *, axis: Any = None) -> Tensor:
    """An array with its elements in the other order along axes, all unless given."""
    return OURS["flip"](x, tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis))


def moveaxis(x: Tensor, source: Any, destination: Any, /) -> Tensor:
    """An array with axes at other places."""
    return OURS["movedim"](x, source, destination)


def permute_dims(x: Tensor, /, axes: Sequence[int]) -> Tensor:
    """An array with its axes in another order."""
    return OURS["permute"](x, tuple(axes))


def repeat(x: Tensor, repeats: Any, /, *, axis: int | None = None) -> Tensor:
    """Each element several times; of the flattened array unless an axis is given."""
    return OURS["repeat_interleave"](x, repeats, axis)


def reshape(x: Tensor, /, shape: Sequence[int], *, copy: bool | None = None) -> Tensor:
    """An array in another shape; with a copy, without one, or as it comes (None).

    Raises
    ------
    ValueError
        If there must be no copy and one is needed.
    """
    result = OURS["reshape"](x, tuple(shape))
    shares = result.data_ptr() == x.data_ptr()
    if copy is False and not shares and x.numel():
        raise ValueError(f"reshape: {list(x.shape)} with strides {x.stride()} cannot become {list(shape)} without a copy")
    return OURS["clone"](result) if copy and shares else result


def roll(x: Tensor, /, shift: Any, *, axis: Any = None) -> Tensor:
    """An array turned along axes: what leaves at the end comes in at the begin; of the flattened array unless given."""
    return OURS["roll"](x, shift, axis)


def tile(x: Tensor, repetitions: Sequence[int], /) -> Tensor:
    """An array several times along each axis."""
    return OURS["tile"](x, tuple(repetitions))
