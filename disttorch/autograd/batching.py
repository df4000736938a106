"""Tensors whose arrays hide a dimension of samples (see backend/batched), and the way of gradients into and out of them."""

from __future__ import annotations

from typing import Any

from ..backend import NAMESPACES
from ..backend.batched import BatchedArray, batch, levels, lifted, unbatch
from .operation import Operation, apply
from .variable import Tensor, wrap
from .views import view_of

__all__ = ["batch_tensor", "current_levels", "in_current_levels", "lift_tensor", "unbatch_tensor"]


def _batched(g: Any, axis: int, level: int) -> Any:
    return batch_tensor(g, axis, level) if isinstance(g, Tensor) else batch(g, axis, level)


def _unbatched(g: Any, axis: int, level: int, size: int) -> Any:
    return unbatch_tensor(g, axis, level, size) if isinstance(g, Tensor) else unbatch(g, axis, level, size)


_batch = Operation(
    "batch", lambda xp, x, *, axis, level, size: batch(x, axis, level), is_view=True,
    x=lambda g, axis, level, size: _unbatched(g, axis, level, size),
)  # fmt: skip
_unbatch = Operation(
    "unbatch", lambda xp, x, *, axis, level, size: unbatch(x, axis, level, size),
    x=lambda g, axis, level, size: _batched(g, axis, level),
)  # fmt: skip
_forget = Operation(
    "sum_samples", lambda xp, x, *, kept: without_other_levels(x, kept), x=lambda g: lift_tensor(g) if isinstance(g, Tensor) else lifted(g)
)


def batch_tensor(x: Tensor, axis: int, level: int) -> Tensor:
    """A view of the tensor with one of its dimensions hidden; recorded."""
    return view_of(_batch, x, batch(x._array, axis, level), {"axis": axis, "level": level, "size": x._array.shape[axis]})


def unbatch_tensor(x: Tensor, axis: int, level: int, size: int) -> Tensor:
    """The tensor with the samples of a level as a dimension again; recorded."""
    return apply(_unbatch, x, axis=axis, level=level, size=size)


def lift_tensor(x: Tensor) -> Tensor:
    """The tensor among those that hide samples: it is the same for all of them."""
    return x if isinstance(x._array, BatchedArray) else wrap(lifted(x._array), x._node)


def current_levels() -> frozenset[int]:
    """The batches that the running program is inside of."""
    return frozenset(level.number for level in levels.get())


def without_other_levels(array: Any, kept: frozenset[int]) -> Any:
    """An array summed over the samples of all levels but some."""
    if not isinstance(array, BatchedArray):
        return array
    value = without_other_levels(array.value, kept)
    if array.level in kept:
        return type(array)(value, array.level)
    return NAMESPACES[value.__class__].sum(value, 0) if array.level else value


def in_current_levels(gradient: Any) -> Any:
    """A gradient, array or tensor, for what is outside of the batches that have been left: the sum over their samples."""
    kept = current_levels()
    if isinstance(gradient, Tensor):
        return apply(_forget, gradient, kept=kept) if _has_others(gradient._array, kept) else gradient
    return without_other_levels(gradient, kept) if _has_others(gradient, kept) else gradient


def _has_others(array: Any, kept: frozenset[int]) -> bool:
    while isinstance(array, BatchedArray):
        if array.level not in kept:
            return True
        array = array.value
    return False
