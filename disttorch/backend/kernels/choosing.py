"""The extreme along an axis with its index, the way back, values put at indices that name no element twice, and ones at indices."""

from __future__ import annotations

from typing import Any

from . import kernel

__all__ = ["max_with_index", "min_with_index", "one_hot", "put_chosen"]


@kernel
def max_with_index(xp: Any, x: Any, axis: int, keepdims: bool) -> tuple[Any, Any]:
    """The greatest along an axis, and where it is first; NaN is the greatest."""
    return xp.max(x, axis=axis, keepdims=keepdims), xp.argmax(x, axis=axis, keepdims=keepdims)


@kernel
def min_with_index(xp: Any, x: Any, axis: int, keepdims: bool) -> tuple[Any, Any]:
    """The smallest along an axis, and where it is first; NaN is the smallest."""
    return xp.min(x, axis=axis, keepdims=keepdims), xp.argmin(x, axis=axis, keepdims=keepdims)


@kernel
def put_chosen(xp: Any, source: Any, index: Any, shape: tuple[int, ...], axis: int) -> Any:
    """Zeros of a shape with ``source`` at ``index`` along ``axis``, where no place is named twice."""
    return xp.scatter_add(source, index, shape, axis)


@kernel
def one_hot(xp: Any, index: Any, count: int) -> Any:
    """Zeros of the index's shape and a new last dimension of size `count`, with 1 at the index; int64."""
    return (index[..., None] == xp.arange(count)).astype("int64")
