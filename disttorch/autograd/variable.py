"""The bare Tensor: an array and its place in the graph. The room ``tensor/`` gives it its methods.

It stands below the operations because they create tensors, and the methods stand above them because they call them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .graph import Edge
    from .methods import Methods  # written from the tables that attach them
else:
    Methods = object

__all__ = ["Tensor", "bump_version", "share_version", "wrap"]


class Tensor(Methods):
    """A multi-dimensional array that records what is computed from it.

    Its methods are attached in ``disttorch/tensor/``.

    Attributes
    ----------
    _array : numpy.ndarray or cupy.ndarray
        The elements; never a NumPy scalar.
    _node : Node or None
        Where its gradient goes: the node that computed it, the accumulator of a leaf, or None if no gradient is asked.
    _grad : Tensor or None
        What ``.grad`` says.
    _version : list, or None
        How often the memory was changed in place, then weak references to views on it; shared by all tensors on that
        memory. Made when first needed.
    _view : tuple or None
        Of a view: the tensor that it was taken of (which may be a view itself), the operation and its parameters.
    """

    __slots__ = ("__dict__", "__weakref__", "_array", "_grad", "_node", "_version", "_view")

    _array: Any
    _node: Edge | None
    _grad: Tensor | None
    _version: list[Any] | None
    _view: tuple[Tensor, Any, dict] | None

    # rarely there, so kept in the instance's __dict__ once set
    _retains_grad: bool = False


_new = object.__new__


def wrap(array: Any, node: Edge | None = None) -> Tensor:
    """A tensor on an array, without a copy."""
    tensor = _new(Tensor)
    tensor._array = array
    tensor._node = node
    tensor._grad = tensor._version = tensor._view = None
    return tensor


def share_version(source: Tensor, other: Tensor) -> None:
    """Let two tensors on the same memory count its changes together."""
    if source._version is None:
        source._version = [0]
    other._version = source._version


def bump_version(tensor: Tensor) -> None:
    """Note that the memory of a tensor was changed in place."""
    if tensor._version is not None:
        tensor._version[0] += 1
