"""Views: tensors on the same memory, and how the graph follows a change made through one of them.

A view knows the tensor it is a view of (its base) and the operations that lead there. When the memory is changed in
place, the base gets a new node, and every living view is led there again from the base, so all of them tell the truth
about where their values come from (PyTorch: https://docs.pytorch.org/docs/stable/notes/autograd.html#in-place-operations).
"""

from __future__ import annotations

from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import ref

from ..backend import NAMESPACES
from .grad_mode import enable_grad, recording
from .node import Node, OperationNode
from .variable import Tensor

if TYPE_CHECKING:
    from .operation import Operation

__all__ = ["AssignedView", "base_of", "set_history", "view_of"]


def view_of(operation: Operation, x: Tensor, array: Any, params: dict) -> Tensor:
    """The tensor on an array that an operation took of the memory of `x`; recorded, and known as a view of its base."""
    result = _new(Tensor)
    result._array = array
    result._grad = result._node = None
    version = x._version
    if version is None:
        x._version = version = [0]
    result._version = version
    result._view = (x, operation, params)
    version.append(ref(result))
    count = len(version)
    if count & (count - 1) == 0 and count > 8:  # at 16, 32, 64, ... look for those that are gone
        with _pruning:  # other threads may append meanwhile, behind what is looked at here
            count = len(version)
            version[1:count] = [v for v in version[1:count] if v() is not None]
    edge = x._node
    if edge is not None:
        mode = recording.get()
        if mode:  # a view has its base's dtype, so a gradient has a meaning
            result._node = node = _new(OperationNode)
            node.operation = operation
            node.edges = (edge,)
            node.shape = array.shape
            node.dtype = array.dtype
            node.params = params
            node.versions = ()
            if mode > 1:
                node.note(mode)
    return result


_new = object.__new__
_pruning = Lock()


def base_of(x: Tensor) -> Tensor:
    """The tensor that a view is a view of in the end; of others, themselves."""
    while x._view is not None:
        x = x._view[0]
    return x


def follow(path: tuple, base: Tensor) -> Tensor:
    """Take the same view of another tensor."""
    for operation, params in path:
        base = operation(base, **params)
    return base


class AssignedView(Node):
    """The base after a part of it was changed: the gradient of that part goes to what was put there."""

    __slots__ = ("path", "strides")

    returns_fresh_arrays = False

    def __init__(self, base: Tensor, path: tuple, value: Node | None):
        self.edges = (base._node, value)
        self.path = path
        # in another layout of memory some views would be copies, or views of other elements
        self.strides = base._array.strides
        self.shape = base._array.shape
        self.dtype = base._array.dtype

    def name(self) -> str:
        return "CopySlices"

    def propagate(self, gradient: Any, create_graph: bool) -> tuple[Any, Any]:
        xp = NAMESPACES[gradient.__class__]
        array = gradient._array if create_graph else gradient
        if array.strides != self.strides and min(self.strides, default=1) > 0:
            gradient = xp.in_layout(gradient, self.strides)
        rest = xp.array(gradient)
        take = follow if create_graph else partial(_follow_arrays, xp)
        # an advanced index takes a copy, so the last step is an assignment
        changed, last = take(self.path[:-1], rest), self.path[-1:]
        if last and "index" in last[0][1]:
            changed[last[0][1]["index"]] = 0
        else:
            take(last, changed)[...] = 0
        return rest, take(self.path, gradient)


def _follow_arrays(xp: Any, path: tuple, array: Any) -> Any:
    for operation, params in path:
        array = operation.forward(xp, array, **params)
    return array


def set_history(x: Tensor, node: Node) -> None:
    """Let `node` be where the values of `x` come from, for all tensors that share them."""
    if x._view is None:
        base = x
        x._node = node
    else:
        path: list[tuple] = []
        base = x
        while base._view is not None:
            base, *step = base._view
            path.append(tuple(step))
        base._node = AssignedView(base, tuple(reversed(path)), node)
    led = {base}  # to the new node; detached tensors share the list, but not the history
    for weak in (base._version or ())[1:]:
        view = weak()
        chain = []
        while view is not None and view not in led:
            chain.append(view)
            view = None if view._view is None else view._view[0]
        if view is None:  # not of this family
            continue
        # what a view is taken of has been led to the new node before it
        for view in reversed(chain):
            source, operation, params = view._view
            with enable_grad():
                view._node = operation(source, **params)._node
            led.add(view)
