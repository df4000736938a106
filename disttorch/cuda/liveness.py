"""Whether what a CUDA graph reads from outside of its capture is still there when it is replayed.

A graph reads addresses. A tensor that was made before the capture, was used in it and is gone since leaves its address to others, and
a replay computes with what these have put there, without an error. Who asks for ``check_input_liveness`` gets one.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from ..autograd import profiler
from ..autograd.variable import Tensor
from ..backend import NAMESPACES
from ._room import room

__all__ = ["InputsOfCapture"]


class InputsOfCapture:
    """The memory that operations of a capture were given and that does not belong to the graph.

    Operations, the optimizers' steps and the nodes of backward passes are listened to, as profiles do; what other libraries
    launch on the captured stream is not seen.

    Parameters
    ----------
    recorded : RecordedGraph
        The graph whose capture has begun.
    """

    #: to those who tell of operations: there is nothing to wait for
    synchronizes = False

    def __init__(self, recorded: Any):
        self._recorded = recorded
        self._known: dict[int, tuple[weakref.ref[Any], str]] = {}
        self._listens = True
        profiler.begin(self)

    def stop(self) -> None:
        """The capture has ended."""
        if self._listens:
            self._listens = False
            profiler.end(self)

    def note(self, name: str, start: int, end: int, args: Any, result: Any, is_annotation: bool, given: Any) -> None:
        """Hear of an operation; see `profiler.begin`."""
        if not room("graphs").is_capturing():
            return
        for array in _arrays((args, given)):
            memory = self._recorded.memory_outside(array)
            if memory is not None and id(memory) not in self._known:
                text = f"{array.dtype.name} of shape {tuple(array.shape)}, used by {name}"
                self._known[id(memory)] = weakref.ref(memory), text

    def check(self) -> None:
        """Refuse a replay that would read what is gone.

        Raises
        ------
        RuntimeError
            If memory that was used in the capture has been given back since.
        """
        gone = [text for memory, text in self._known.values() if memory() is None]
        if gone:
            raise RuntimeError(
                f"CUDAGraph.replay: {len(gone)} of the {len(self._known)} tensors from outside that the graph reads or writes "
                f"{'is' if len(gone) == 1 else 'are'} gone since the capture: {'; '.join(gone[:8])}{'; ...' if len(gone) > 8 else ''}. "
                "Keep a reference to them for as long as the graph is replayed."
            )


def _arrays(values: Iterable[Any]) -> Iterable[Any]:
    """The arrays on GPUs among arguments: of tensors, in containers, of what a node has saved, of an optimizer's parameters."""
    for value in values:
        if isinstance(value, Tensor):
            value = value._array
        if getattr(NAMESPACES.get(value.__class__), "name", "") == "cuda":
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _arrays(value)
        elif isinstance(value, dict):
            yield from _arrays(value.values())
        elif hasattr(value, "param_groups"):
            for group in value.param_groups:
                yield from _arrays(group["params"])
                yield from _arrays([p.grad for p in group["params"] if p.grad is not None])
            yield from _arrays(value.state.values())
