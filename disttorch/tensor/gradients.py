"""A tensor's place in the graph: its gradient, hooks and backward."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

from ..autograd.differentiate import backward
from ..autograd.graph import AccumulateGrad, Node, Pick, RemovableHandle, retain_gradient
from ..autograd.variable import Tensor, wrap
from ..backend import namespace
from ..ops import creation
from .attach import add_property, method

add_property(
    "grad_fn",
    lambda self: (
        None
        if self._node is None or self._node.__class__ is AccumulateGrad
        else (self._node.edges[0] if isinstance(self._node, Pick) else self._node)
    ),
    "The node that computed this tensor; None for leaves.",
)
add_property("retains_grad", lambda self: self._retains_grad, "Whether `retain_grad` was called on a tensor that is no leaf.")
add_property("_version_count", lambda self: 0 if self._version is None else self._version[0], "How often it was changed in place.")


def _set_requires_grad(self: Tensor, value: bool) -> None:
    creation.require_grad(self, value)


def _set_grad(self: Tensor, value: Tensor | None) -> None:
    if value is not None:
        if not isinstance(value, Tensor):
            raise TypeError(f"assigned grad expected to be a Tensor or None but got {builtins.type(value).__name__}")
        if value._array.shape != self._array.shape:
            raise RuntimeError(f"assigned grad has data of a different size: {list(value.shape)} for a tensor of {list(self.shape)}")
        if value._array.dtype != self._array.dtype:
            raise RuntimeError(f"assigned grad has data of a different type: {value.dtype} for a tensor of {self.dtype}")
        if namespace(value._array) is not namespace(self._array):
            raise RuntimeError(f"assigned grad has data located on a different device: {value.device} for a tensor on {self.device}")
    self._grad = value


def _set_data(self: Tensor, value: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"Variable data has to be a tensor, but got {builtins.type(value).__name__}")
    self._array = value._array
    if self._node.__class__ is AccumulateGrad:
        self._node.shape, self._node.dtype = self._array.shape, self._array.dtype


add_property("requires_grad", lambda self: self._node is not None, "Whether its gradient is computed.", _set_requires_grad)
add_property("grad", lambda self: self._grad, "The gradient that backward has added up for this leaf, or None.", _set_grad)
add_property("data", lambda self: wrap(self._array), "The same memory without the graph; changes go unnoticed.", _set_data)


@method
def requires_grad_(self: Tensor, requires_grad: bool = True) -> Tensor:
    """Let this leaf ask for its gradient, or stop asking."""
    return creation.require_grad(self, requires_grad)


def _backward(
    self: Tensor, gradient: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False, inputs: Any = None
) -> None:
    """Add the gradients of this tensor to the leaves' ``.grad``; see `disttorch.autograd.backward`."""
    backward(self, gradient, retain_graph, create_graph, inputs=inputs)


setattr(Tensor, "backward", _backward)  # noqa: B010 - the name is taken by the function


@method
def retain_grad(self: Tensor) -> None:
    """Keep the gradient of this tensor, which is no leaf, in its ``.grad``.

    Raises
    ------
    RuntimeError
        If it requires no gradient.
    """
    if self._node is None:
        raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
    if self._node.__class__ is not AccumulateGrad and not self._retains_grad:
        retain_gradient(self)
        self._retains_grad = True


@method
def register_hook(self: Tensor, hook: Callable) -> RemovableHandle:
    """Call ``hook(grad)`` whenever this tensor's gradient is computed; what it returns, if not None, replaces it.

    Raises
    ------
    RuntimeError
        If the tensor requires no gradient.
    """
    if self._node is None:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    return self._node.add_hook("hooks", hook)


@method
def register_post_accumulate_grad_hook(self: Tensor, hook: Callable) -> RemovableHandle:
    """Call ``hook(tensor)`` after the gradient of this leaf has been added to its ``.grad``.

    Raises
    ------
    RuntimeError
        If it is no leaf that requires a gradient.
    """
    node: Node | None = self._node
    if not isinstance(node, AccumulateGrad):
        raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
    return node.add_hook("post_hooks", hook)
