"""Which backward pass an arriving gradient belongs to, and whether that one is to be reduced.

A pass that comes from an output of DistributedDataParallel's forward is reduced, unless that forward ran in no_sync().
One that comes from elsewhere, such as from the bare module on one rank only, is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary, ref

from ..autograd.engine import Pass, current_pass
from ..autograd.graph import AccumulateGrad, Node, RemovableHandle
from ..autograd.variable import Tensor

__all__ = ["BackwardPasses", "is_running"]


class BackwardPasses:
    """The outputs of a model's forward passes, and the backward pass that is being reduced.

    Parameters
    ----------
    begin : callable
        Called with a backward pass that is to be reduced, when it is seen for the first time.

    Attributes
    ----------
    root : Pass or None
        The one that is being reduced.
    """

    def __init__(self, begin: Callable[[Pass], None]):
        self._begin = begin
        self.root: Pass | None = None
        self._outputs: WeakKeyDictionary[Node, bool] = WeakKeyDictionary()
        self._armed = False  # whether the last forward pass is to be reduced, and no backward has been since
        self._handles: list[RemovableHandle] = []
        self._seen: ref[Pass] | None = None
        self._seen_root: Pass | None = None

    def note_outputs(self, outputs: Iterable[Tensor], reduces: bool) -> None:
        """Remember the tensors that came out of a forward pass, and whether backward from them is reduced."""
        self._armed = reduces
        self._forget_leaves()
        for t in outputs:
            node = t._node
            if node is None:
                continue
            self._outputs[node] = reduces
            if reduces:
                # so the pass begins even where it reaches no parameter on this rank
                handle = node.add_hook("node_pre_hooks", self._output_reached)
                if isinstance(node, AccumulateGrad):  # an input or a parameter, which lives longer than the graph
                    self._handles.append(handle)

    def current(self) -> Pass | None:
        """The pass to be reduced that the gradient just arriving belongs to, or None; begins it where it is new."""
        running = current_pass()
        if self._seen is not None and self._seen() is running:
            return self._seen_root
        root = self._find(running)
        self._seen, self._seen_root = ref(running), root
        if root is not None and root is not self.root:
            self._begin(root)
        return root

    def end(self) -> None:
        """The pass that was being reduced is over."""
        self.root = self._seen_root = self._seen = None
        self._armed = False
        self._forget_leaves()

    def _forget_leaves(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _find(self, running: Pass) -> Pass | None:
        """The innermost of the passes in which this thread is that comes from a known output.

        A model may hide an output from us, in an attribute or an object of its own; then it is the first pass after the forward.
        """
        outermost = running
        at: Pass | None = running
        while at is not None:
            if at is self.root:
                return at
            known = [reduces for node, reduces in self._outputs.items() if node in at.nodes]
            if known:
                return at if any(known) else None
            outermost, at = at, at.outer
        return outermost if self._armed else None

    def _output_reached(self, gradients: Any) -> None:
        if current_pass().is_whole:
            self.current()


def is_running(root: Pass) -> bool:
    """Whether a backward pass is one of those that this thread is in."""
    try:
        at: Pass | None = current_pass()
    except RuntimeError:
        return False
    while at is not None and at is not root:
        at = at.outer
    return at is not None
