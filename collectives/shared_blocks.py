"""Blocks of shared memory that all ranks of a node have mapped, and the arrays of users that lie in them."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import CollectiveTimeoutError, CommunicationError
from .memory import Handle, Shared, create_shared, open_shared
from .reductions import REDUCTIONS
from .staging import Array
from .transport import Transport
from .work import Work

__all__ = ["Allocations", "Placed", "complete", "share_blocks"]


def complete(base: Transport, work: Work, timeout: float | None) -> None:
    """Wait for something that is done before anybody can see what the other ranks do.

    Raises
    ------
    CollectiveTimeoutError
        If they do not all come to it.
    """
    try:
        work.wait(timeout)
    except TimeoutError as error:
        raise CollectiveTimeoutError(
            f"connect: rank {base.rank} of {base.size} has waited {timeout:g} s for all ranks to come together over {base.name}; "
            "some have not come, or have ended"
        ) from error


def share_blocks(base: Transport, nbytes: int, timeout: float | None = None) -> list[Shared]:
    """A block of each rank, in the order of the ranks, mapped by all of them.

    Raises
    ------
    CommunicationError
        On all ranks, if one could not make its block or open another's; `CollectiveTimeoutError`, if some do not come.
    """
    failure: OSError | None = None
    own = None
    try:
        own = create_shared(nbytes)
    except OSError as error:
        failure = error
    handle = own.handle() if own else Handle(-1, -1, 0)
    handles = np.empty((base.size, 3), np.int64)
    complete(base, base.all_gather(handles, np.array(handle, np.int64)), timeout)
    blocks: list[Shared] = []
    if (handles[:, 0] >= 0).all():
        try:
            for rank, row in enumerate(handles.tolist()):
                blocks.append(own if rank == base.rank and own else open_shared(Handle(*row)))
        except OSError as error:
            failure = error
    opened = np.array([len(blocks) == base.size], np.int64)
    complete(base, base.all_reduce(opened, REDUCTIONS["min"]), timeout)
    if own is not None:
        own.sealed()
    if not opened[0]:
        why = f": {failure}" if failure else " (another rank says why)"
        raise CommunicationError(f"rank {base.rank}: no shared memory between the ranks of this node{why}") from failure
    return blocks


@dataclass(frozen=True, slots=True)
class _Allocation:
    number: int
    address: int
    blocks: list[Any]  # bytes of each rank's block; None for this rank's, which is its users'
    users: Any  # weak reference to the array that all arrays in the block are views of


@dataclass(frozen=True, slots=True)
class Placed:
    """An array that lies in shared memory.

    Attributes
    ----------
    place : int
        The same number on all ranks for arrays at one place of one allocation.
    pieces : list of list of ndarray
        This rank's share of the array, in blocks: of each block the arrays of all ranks.
    """

    place: int
    pieces: list[list[Array]]
    array: Any  # weak reference


class Allocations:
    """Memory that users have asked for, and where arrays lie in it.

    It is freed with its last user. A rank that still uses its own keeps those of the others mapped.

    Parameters
    ----------
    base : Transport
        Between the ranks of the node.
    block : int
        Bytes that are worked on at a time.
    """

    def __init__(self, base: Transport, block: int):
        self._base = base
        self._block = block
        self._count = 0
        self._by_base: dict[int, _Allocation] = {}
        self._placed: dict[int, Placed] = {}

    def allocate(self, nbytes: int) -> np.ndarray:
        """Bytes of this rank; called on all ranks with the same number."""
        blocks = share_blocks(self._base, nbytes)
        self._count += 1
        own = blocks[self._base.rank].bytes
        identity = id(own)

        def forget(_: object) -> None:
            self._by_base.pop(identity, None)

        others = [None if rank == self._base.rank else block.bytes for rank, block in enumerate(blocks)]
        self._by_base[identity] = _Allocation(self._count, own.ctypes.data, others, weakref.ref(own, forget))
        return own[:nbytes]

    def find(self, array: Array) -> Placed | None:
        """Where an array lies; None for elsewhere. What was found once is remembered as long as the array lives."""
        identity = id(array)
        placed = self._placed.get(identity)
        if placed is not None and placed.array() is array:
            return placed
        allocation = self._by_base.get(id(array.base))
        if allocation is None or not array.flags.c_contiguous:
            return None
        offset = array.__array_interface__["data"][0] - allocation.address
        placed = Placed(
            allocation.number << 40 | offset + 1,
            self._pieces(allocation, array, offset),
            weakref.ref(array, lambda _: self._placed.pop(identity, None)),
        )
        self._placed[identity] = placed
        return placed

    def _pieces(self, allocation: _Allocation, array: Array, offset: int) -> list[list[Array]]:
        size, rank, dtype = self._base.size, self._base.rank, array.dtype
        own = array.reshape(-1)
        # Pieces hold no reference to this rank's memory but through the array itself, so that it can be freed.
        arrays = [
            None if block is None else block[offset : offset + array.nbytes].view(dtype) for block in allocation.blocks
        ]
        line = max(1, 64 // dtype.itemsize)
        share = -(-own.size // (size * line)) * line
        begin, end = min(own.size, rank * share), min(own.size, (rank + 1) * share)
        length = max(1, self._block // dtype.itemsize)
        spans = [slice(start, min(end, start + length)) for start in range(begin, end, length)]
        return [[span if a is None else a[span] for a in arrays] for span in spans]

    def sources(self, placed: Placed, array: Array, begin: int, count: int) -> list[Array]:
        """Some elements of the arrays of all ranks at a place."""
        allocation = self._by_base[id(array.base)]
        start = (placed.place & (1 << 40) - 1) - 1 + begin * array.dtype.itemsize
        stop = start + count * array.dtype.itemsize
        flat = array.reshape(-1)
        return [
            flat[begin : begin + count] if block is None else block[start:stop].view(array.dtype)
            for block in allocation.blocks
        ]

    def clear(self) -> None:
        """Let go of the other ranks' memory."""
        self._by_base.clear()
        self._placed.clear()
