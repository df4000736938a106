"""Transport: the plain operations that carry arrays from rank to rank, one small file for each way of doing it.

What surrounds a call (checks, numbering, copies of arrays that are not contiguous, averages, comparing what the ranks called,
timeouts, the record) is written once, in `collectives.operations`. A transport sees contiguous arrays only, that do
not overlap, of a dtype that the reduction allows, and ranks that exist.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from .reductions import Reduction
from .staging import Array
from .work import Work

__all__ = ["Counts", "Transport"]

Counts = Sequence[int] | None
"""How many elements belong to each rank; None: the same number to each."""


class Transport(ABC):
    """One way of carrying arrays between the ranks of a group.

    Every operation starts at once and returns a `Work`, complete or under way. Arrays are contiguous. Where an
    operation has a part for each rank, `counts` says how many elements each has; without it there are rows, one for
    each rank, and none is empty. With it parts may be empty, also all of them. Other arrays are never empty.

    An operation never blocks for longer than it takes to move data: what has to wait for other ranks waits in the
    Work's `poll`, so that whoever waits can see how long, and name the ranks that are missing.

    Attributes
    ----------
    name : str
        ``"local"``, ``"mpi"``, ``"shared"``, ``"hierarchical"``, ``"tcp"``, ``"nccl"``.
    rank, size : int
        This process's number in the group, and how many there are.
    """

    name: str
    array_types: tuple[Any, ...] = (np.ndarray,)
    """Types of array that this transport carries."""
    accumulates_half = False
    """Whether reductions of float16 and bfloat16 are accumulated in float32 here; else the caller gives float32."""
    averages = False
    """Whether ``"avg"`` is done here; else the caller asks for ``"sum"`` and divides."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size

    @abstractmethod
    def all_reduce(self, array: Array, op: Reduction) -> Work:
        """Combine the ranks' arrays, in place on every rank."""

    @abstractmethod
    def reduce(self, array: Array, root: int, op: Reduction) -> Work:
        """Combine the ranks' arrays, in place on `root`; the others' stay as they are."""

    @abstractmethod
    def reduce_scatter(self, array: Array, source: Array, op: Reduction, counts: Counts = None) -> Work:
        """Combine the ranks' `source`; `array` receives this rank's part."""

    @abstractmethod
    def broadcast(self, array: Array, root: int) -> Work:
        """Overwrite every rank's array with that of `root`."""

    @abstractmethod
    def all_gather(self, out: Array, array: Array, counts: Counts = None) -> Work:
        """Put the ranks' arrays one after the other into every rank's `out`."""

    @abstractmethod
    def gather(self, out: Array | None, array: Array, root: int, counts: Counts = None) -> Work:
        """Put the ranks' arrays one after the other into `out` of `root` (None elsewhere)."""

    @abstractmethod
    def scatter(self, array: Array, source: Array | None, root: int, counts: Counts = None) -> Work:
        """Hand out the parts of `source` of `root` (None elsewhere)."""

    @abstractmethod
    def all_to_all(self, out: Array, array: Array, out_counts: Counts = None, counts: Counts = None) -> Work:
        """Part r of `array` goes to rank r; part r of `out` is what rank r sent here. Both counts are given, or none."""

    @abstractmethod
    def send(self, array: Array, destination: int, tag: int) -> Work:
        """Send to a rank; to oneself, too. The array may be empty."""

    @abstractmethod
    def recv(self, array: Array, source: int | None, tag: int) -> Work:
        """Receive a message of just this many bytes, from any rank where `source` is None; sets ``Work.source``."""

    @abstractmethod
    def barrier(self) -> Work:
        """Complete when every rank has come here."""

    @abstractmethod
    def split(self, color: int | None, key: int) -> Transport | None:
        """A plain transport of the ranks with the same color, in the order of their keys; None for color None.

        What is best on top of it, `collectives.connect.best_transport` decides. Called when all ranks are known to be
        there. May wait for them.
        """

    def allocate(self, nbytes: int) -> np.ndarray | None:
        """Bytes in memory that this transport reduces without copying; None where it has no such memory.

        Called on all ranks with one size, when all are known to be there.
        """
        return None

    def description(self) -> str:
        """What it is made of, for people."""
        return self.name

    def begin_group(self) -> None:  # noqa: B027  most transports gain nothing
        """What starts until `end_group` may be taken together."""

    def end_group(self) -> None:  # noqa: B027
        """Start what was called since `begin_group`."""

    def late(self) -> Sequence[int] | None:
        """The ranks that have not come to the operation that this rank waits in, where the transport can see it."""
        return None

    @abstractmethod
    def abort(self, code: int) -> None:
        """End the whole job at once with an exit code."""

    @abstractmethod
    def close(self) -> None:
        """Give resources back. Called on all ranks, when nothing is under way."""
