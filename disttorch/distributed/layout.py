"""Which gradients share a bucket, and the order in which buckets are reduced: a guess at first, then that of the first pass.

Delayed gradients have buckets of their own, behind the bucket of the parameter that they wait for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import collectives

from ..backend import namespace
from .buckets import Bucket, Entry, Memory, MiB, divide

__all__ = ["Layout"]


class Layout:
    """The buckets of a model's gradients.

    Parameters
    ----------
    entries : sequence of Entry
        The parameters, in the order in which the model registered them.
    communicator : collectives.Communicator
    limits : sequence of int
        As of `buckets.divide`. The last bucket, which nothing hides, has at most 1 MiB.
    awaited : Tensor, optional
        The parameter that delayed gradients wait for.

    Attributes
    ----------
    buckets : list of Bucket
        In the order in which they are reduced; none before the first forward pass.
    rebuilt : bool
        Whether they are in the order in which gradients arrived in the first pass.
    first_sizes : list of int
        Bytes of the gradients in each bucket before that.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        communicator: collectives.Communicator,
        *,
        limits: Sequence[int],
        awaited: Any = None,
    ):
        self._entries, self._communicator = entries, communicator
        self._limits, self._last_limit = limits, min(MiB, limits[-1])
        self._awaited = next((e for e in entries if e.parameter is awaited), None)
        self._memories: dict[Any, Memory] = {}
        self.buckets: list[Bucket] = []
        self.rebuilt = False
        self.first_sizes: list[int] = []

    def guess(self, flags: int) -> None:
        """Fill buckets for the first time, with room for flags behind the last one's gradients."""
        # the reverse of the registration is a good guess: backward reaches the last layer first
        self._fill(self._undelayed(reversed(self._entries)), flags)
        self.first_sizes = self.sizes()

    def rebuild(self, arrivals: Iterable[int], useless: Collection[int], flags: int) -> None:
        """Fill the buckets in the order in which gradients arrived on rank 0 in the first pass; every rank calls.

        Parameters
        ----------
        arrivals : iterable of int
            Numbers of the parameters as their gradients arrived on this rank.
        useless : collection of int
            Numbers of those that need not be reduced.
        flags : int
        """
        arrived = self._communicator.broadcast_object(list(arrivals), 0)
        others = [e.number for e in reversed(self._entries) if e.number not in set(arrived)]
        order = self._undelayed(self._entries[i] for i in [*arrived, *others] if i not in useless)
        self._fill(order or self._undelayed(reversed(self._entries)), flags)
        self.rebuilt = True

    def sizes(self) -> list[int]:
        """Bytes of the gradients in each bucket."""
        return [b.flat.nbytes for b in self.buckets]

    @staticmethod
    def _undelayed(entries: Iterable[Entry]) -> list[Entry]:
        return [e for e in entries if not e.is_delayed]

    def _fill(self, order: Sequence[Entry], flags: int) -> None:
        """Make buckets of parameters in the order in which their gradients are expected; gradients move with them."""
        if not self._memories:
            kinds: dict[Any, list[Entry]] = {}
            for e in self._entries:
                kinds.setdefault(e.kind, []).append(e)
            for kind, members in kinds.items():
                self._memories[kind] = Memory(self._communicator, members, flags)
        moving = [(e, namespace(e.slice).array(e.slice)) for e in self._entries if e.gradient_is_here()]
        for memory in self._memories.values():
            memory.forget()
        for e in self._entries:
            e.bucket = e.slice = None
        groups = self._groups(order)
        self.buckets = [
            Bucket(i, members, self._memories[members[0].kind], flags if i == len(groups) - 1 else 0)
            for i, members in enumerate(groups)
        ]
        for e, copy in moving:
            assert e.parameter._grad is not None
            if e.bucket is not None:
                e.slice[...] = copy
                copy = e.slice
            e.parameter._grad._array = copy
        for e in self._entries:
            e.set_home()

    def _groups(self, order: Sequence[Entry]) -> list[list[Entry]]:
        """The parameters of each bucket: those that are delayed behind the one that they wait for, or at the end."""
        groups = divide(order, self._limits, self._last_limit) if order else []
        delayed: dict[Any, list[Entry]] = {}
        for e in self._entries:
            if e.is_delayed:
                delayed.setdefault(e.kind, []).append(e)
        place = next((i + 1 for i, members in enumerate(groups) if self._awaited in members), len(groups))
        groups[place:place] = delayed.values()
        return groups
