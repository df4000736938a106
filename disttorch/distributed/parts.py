"""Parts: tensors of all ranks as one array, one after the other, on the way to or from a collective.

Parts of one shape are rows; parts that differ are laid out in one dimension, and the ranks say how many elements each has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..autograd.variable import Tensor, bump_version
from ..backend import namespace
from .groups import ProcessGroup

__all__ = [
    "Parts",
    "check_own",
    "check_whole",
    "same_shape",
    "written",
]


class Parts:
    """A part for each rank of a group as one array, one after the other.

    Parameters
    ----------
    name, argument : str
        Whose argument it is, for messages.
    tensors : list of Tensor
        The parts.

    Attributes
    ----------
    array : ndarray
        Rows of the parts' shape where all have one; else, and where `flat`, their elements in one dimension.
    counts : list of int or None
        Numbers of elements, where the parts stand in one dimension.
    """

    def __init__(self, name: str, argument: str, tensors: list[Tensor], group: ProcessGroup, flat: bool = False):
        if len(tensors) != group.size():
            raise ValueError(f"{name}: {argument} has {len(tensors)} tensors, but the group has {group.size()} ranks")
        self.tensors = tensors
        first = tensors[0]._array
        xp = namespace(first)
        if flat or any(t._array.shape != first.shape for t in tensors):
            self.counts: list[int] | None = [t._array.size for t in tensors]
            with xp.on(tensors[0].device):
                self.array = xp.empty((sum(self.counts),), first.dtype)
            stops = [sum(self.counts[: i + 1]) for i in range(len(tensors))]
            self.slices = [
                self.array[stop - n : stop].reshape(t._array.shape) for stop, n, t in zip(stops, self.counts, tensors)
            ]
        else:
            self.counts = None
            with xp.on(tensors[0].device):
                self.array = xp.empty((len(tensors), *first.shape), first.dtype)
            self.slices = [self.array[i, ...] for i in range(len(tensors))]

    def filled(self) -> Parts:
        """With the tensors' values."""
        with namespace(self.array).on(self.tensors[0].device):
            for part, tensor in zip(self.slices, self.tensors):
                part[...] = tensor._array
        return self

    def received(self) -> Callable[[], None]:
        """What brings the values that are received into the tensors."""
        for tensor in self.tensors:
            bump_version(tensor)

        def finish() -> None:
            with namespace(self.array).on(self.tensors[0].device):
                for part, tensor in zip(self.slices, self.tensors):
                    tensor._array[...] = part

        return finish

    def own(self, tensor: Tensor) -> Any:
        """The array of the part of this rank's own tensor, in the way in which all stand here."""
        return tensor._array if self.counts is None else tensor._array.reshape(-1)


def check_own(name: str, argument: str, parts: list[Tensor], group: ProcessGroup, tensor: Tensor, what: str) -> None:
    """Refuse parts of which this rank's own has another shape than its tensor."""
    if len(parts) == group.size() and parts[group.rank()].shape != tensor.shape:
        raise ValueError(
            f"{name}: {argument}[{group.rank()}] is of shape {list(parts[group.rank()].shape)}, but this rank's {what} of shape "
            f"{list(tensor.shape)}"
        )


def written(tensor: Tensor, shape: Sequence[int]) -> tuple[Any, Callable[[], None] | None]:
    """An array of a shape to receive a tensor's values in, and what brings them there where it is another one's memory."""
    array = tensor._array
    bump_version(tensor)
    if array.flags.c_contiguous:
        return array.reshape(shape), None
    xp = namespace(array)
    with xp.on(tensor.device):
        buffer = xp.empty(shape, array.dtype)

    def finish() -> None:
        with xp.on(tensor.device):
            array[...] = buffer.reshape(array.shape)

    return buffer, finish


def check_whole(name: str, argument: str, whole: Tensor, part: Tensor, size: int) -> None:
    """Refuse a tensor that has not a part for each rank."""
    if whole._array.size != part._array.size * size:
        raise ValueError(
            f"{name}: {argument} of shape {list(whole.shape)} must have {size} times the elements of the other tensor, whose shape is "
            f"{list(part.shape)}"
        )


def same_shape(name: str, argument: str, tensors: list[Tensor], tensor: Tensor, group: ProcessGroup) -> Parts:
    """Parts that all have the shape of a tensor; refuses others."""
    for i, other in enumerate(tensors):
        if other.shape != tensor.shape:
            raise ValueError(
                f"{name}: {argument}[{i}] is of shape {list(other.shape)}, but this rank's tensor of shape {list(tensor.shape)}"
            )
    return Parts(name, argument, tensors, group)
