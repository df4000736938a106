"""Buffers of DistributedDataParallel, such as running statistics: copied from one rank to all of them, or made alike by a hook."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from enum import Enum, auto
from typing import Any

import collectives

from ..autograd.variable import Tensor
from ..futures import Future
from ..nn.module import Module
from .model_state import copy_from

__all__ = ["BufferCommHookLocation", "BufferSync"]


class BufferCommHookLocation(Enum):
    """When the hook for buffers is called: before or after the module's own forward."""

    PRE_FORWARD = auto()
    POST_FORWARD = auto()


class BufferSync:
    """Makes the ranks' buffers alike.

    Parameters
    ----------
    module : Module
    ignored : collection of str
        Names of buffers that are left alone.

    Attributes
    ----------
    hook : tuple or None
        ``(hook, state, BufferCommHookLocation)``: what is done in place of copying.
    """

    def __init__(self, module: Module, ignored: Collection[str]):
        self._module, self._ignored = module, ignored
        self.hook: tuple[Callable, Any, BufferCommHookLocation] | None = None

    def named(self, communicator: collectives.Communicator) -> list[tuple[str, Tensor]]:
        """The buffers for which there is something to do; modules may have replaced some since the last time."""
        if communicator.size == 1 and self.hook is None:
            return []
        return [(n, b) for n, b in self._module.named_buffers() if n not in self._ignored]

    def at(
        self, location: BufferCommHookLocation, communicator: collectives.Communicator, named: list[tuple[str, Tensor]], root: int
    ) -> Iterable[Future]:
        """Make buffers alike, if this is the place for it.

        Parameters
        ----------
        location : BufferCommHookLocation
            Where this is.
        communicator : collectives.Communicator
        named : list of (str, Tensor)
        root : int
            The rank whose buffers are copied.

        Returns
        -------
        iterable of Future
            What is to be waited for when backward ends.
        """
        if not named or location is not (BufferCommHookLocation.PRE_FORWARD if self.hook is None else self.hook[2]):
            return ()
        if self.hook is None:
            # graphs that have saved a buffer go on with the new values: one more forward pass is no reason to refuse a backward
            copy_from(communicator, root, [b for _, b in named], notice=False)
            return ()
        hook, state, _ = self.hook
        return hook(state, dict(named)) or ()
