"""The graph, as users see it: its nodes and edges, hooks on them, and what happens to saved tensors.

As ``torch.autograd.graph``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import Literal, NamedTuple
from weakref import WeakKeyDictionary

from .engine import Pass, current_pass
from .grad_mode import no_grad
from .node import CONSTANT as CONSTANT
from .node import AccumulateGrad, Edge, Node, OperationNode, Pick, RemovableHandle, retain_gradient
from .saved import allow_mutation_on_saved_tensors, disable_saved_tensors_hooks, save_on_cpu, saved_tensors_hooks
from .variable import Tensor, bump_version

__all__ = [
    "AccumulateGrad",
    "Edge",
    "GradientEdge",
    "Node",
    "OperationNode",
    "Pick",
    "RemovableHandle",
    "allow_mutation_on_saved_tensors",
    "disable_saved_tensors_hooks",
    "get_gradient_edge",
    "increment_version",
    "register_multi_grad_hook",
    "retain_gradient",
    "save_on_cpu",
    "saved_tensors_hooks",
]


class GradientEdge(NamedTuple):
    """Where the gradient of a tensor goes: a node, and which of its results the tensor is.

    `backward` and `grad` take it in place of the tensor, whose memory may be freed meanwhile.
    """

    node: Node
    output_nr: int
    ownership_token: Node | None = None

    @property
    def _node(self) -> Node:
        if self.ownership_token is not None:
            return self.ownership_token
        return Pick(self.node, self.output_nr) if self.node.dtype.__class__ is tuple else self.node


def get_gradient_edge(tensor: Tensor) -> GradientEdge:
    """The place in the graph that a tensor's gradient goes to; as ``torch.autograd.graph.get_gradient_edge``.

    Raises
    ------
    RuntimeError
        If the tensor requires no gradient.
    """
    node = tensor._node
    if node is None:
        raise RuntimeError("It is not possible to get the gradient edge for a Tensor that does not require gradients")
    if isinstance(node, Pick):
        assert node.edges[0] is not None
        return GradientEdge(node.edges[0], node.index, node)
    return GradientEdge(node, 0)


def increment_version(tensor: Tensor | Iterable[Tensor]) -> None:
    """Say that the memory of tensors was changed in place by other means; graphs that saved them will notice."""
    for t in (tensor,) if isinstance(tensor, Tensor) else tensor:
        bump_version(t)


class _Group(RemovableHandle):
    """Several hooks that are removed together."""

    def __init__(self, handles: Sequence[RemovableHandle]):
        self._handles = handles

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def register_multi_grad_hook(
    tensors: Sequence[Tensor], fn: Callable[..., None], *, mode: Literal["all", "any"] = "all"
) -> RemovableHandle:
    """Call a function once a backward pass with the gradients of several tensors.

    As ``torch.autograd.graph.register_multi_grad_hook``.

    Parameters
    ----------
    tensors : sequence of Tensor
    fn : callable
        With "all": takes the list of gradients, None for tensors that no gradient reaches, once all others are there. With
        "any": takes the first gradient.
    mode : "all" or "any"

    Returns
    -------
    RemovableHandle
    """
    if mode not in ("all", "any"):
        raise ValueError(f"Expects mode to be one of ('all', 'any') but got {mode}")
    lock = Lock()
    # of each backward pass that is running: how many gradients are still to come, and what has arrived
    arrived: WeakKeyDictionary[Pass, list] = WeakKeyDictionary()

    def for_all(number: int) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            running = current_pass()
            with lock:
                if running not in arrived:
                    arrived[running] = [sum(t._node in running.nodes for t in tensors), [None] * len(tensors)]
                entry = arrived[running]
                entry[0] -= 1
                entry[1][number] = gradient
                complete = entry[0] == 0
            if complete:
                with no_grad():
                    fn(entry[1])

        return hook

    def first(gradient: Tensor) -> None:
        running = current_pass()
        with lock:
            if running in arrived:
                return
            arrived[running] = []
        with no_grad():
            fn(gradient)

    return _Group([t.register_hook(for_all(i) if mode == "all" else first) for i, t in enumerate(tensors)])
