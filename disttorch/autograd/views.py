"""Views: tensors on the same memory, and how the graph follows a change made through one of them.

A view knows the tensor it is a view of (its base) and the operations that lead there. When the memory is changed in
place, the base gets a new node, and every living view is led there again from the base, so all of them tell the truth
about where their values come from (PyTorch: https://docs.pytorch.org/docs/stable/notes/autograd.html#in-place-operations).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from ..backend import NAMESPACES
from .grad_mode import enable_grad
from .graph import Node
from .variable import Tensor, share_version

if TYPE_CHECKING:
    from .operation import Operation

__all__ = ["AssignedView", "register_view", "set_history"]


def register_view(result: Tensor, source: Tensor | None, operation: Operation, params: dict, index: int | None = None) -> None:
    """Note that `result` is a view of `source`, if it is: some operations copy where they cannot make a view."""
    assert source is not None
    a, b = result._array, source._array
    if a.base is None or (a.base is not b and not NAMESPACES[a.__class__].shares_memory(a, b)):
        return
    share_version(source, result)
    base, path = (source, ()) if source._view is None else source._view
    result._view = (base, (*path, (operation, params, index)))
    views = base._views
    if views is None:
        base._views = [ref(result)]
        return
    views.append(ref(result))
    if len(views) & (len(views) - 1) == 0:  # at 2, 4, 8, ... look for those that are gone
        views[:] = [v for v in views if v() is not None]


def follow(path: tuple, base: Tensor) -> Tensor:
    """Take the same view of another tensor."""
    for operation, params, index in path:
        base = operation(base, **params)
        if index is not None:
            base = base[index]  # type: ignore[assignment]
    return base


class AssignedView(Node):
    """The base after a part of it was changed: the gradient of that part goes to what was put there."""

    __slots__ = ("path",)

    returns_fresh_arrays = False

    def __init__(self, base: Tensor, path: tuple, value: Node):
        self.edges = (base._node, value)
        self.path = path
        self.shape = base._array.shape
        self.dtype = base._array.dtype

    @property
    def name(self) -> str:
        return "CopySlices"

    def propagate(self, gradient: Any, create_graph: bool) -> tuple[Any, Any]:
        xp = NAMESPACES[gradient.__class__]
        if create_graph:
            rest = gradient.clone()
            part = self._part(gradient)
            self._part(rest).zero_()
            return rest, part
        rest = xp.array(gradient)
        self._part_of_array(xp, rest)[...] = 0
        return rest, self._part_of_array(xp, gradient)

    def _part(self, tensor: Tensor) -> Tensor:
        return follow(self.path, tensor)

    def _part_of_array(self, xp: Any, array: Any) -> Any:
        for operation, params, index in self.path:
            array = operation.forward(xp, array, **params)
            if index is not None:
                array = array[index]
        return array


def set_history(x: Tensor, node: Node) -> None:
    """Let `node` be where the values of `x` come from, for all tensors that share them."""
    if x._view is None:
        base = x
        x._node = node
    else:
        base, path = x._view
        base._node = AssignedView(base, path, node)
    for weak in base._views or ():
        view = weak()
        if view is not None and view._view is not None:
            with enable_grad():
                view._node = follow(view._view[1], base)._node
