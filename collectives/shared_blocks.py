"""Blocks of shared memory that all ranks of a node have mapped, and the arrays of users that lie in them."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import CommunicationError
from .memory import Handle, Shared, create_shared, open_shared
from .reductions import REDUCTIONS
from .staging import Array
from .transport import Transport

__all__ = ["Allocations", "share_blocks"]


def share_blocks(base: Transport, nbytes: int) -> list[Shared]:
    """A block of each rank, in the order of the ranks, mapped by all of them.

    Raises
    ------
    CommunicationError
        On all ranks, if one could not make its block or open another's.
    """
    failure: OSError | None = None
    own = None
    try:
        own = create_shared(nbytes)
    except OSError as error:
        failure = error
    handle = own.handle() if own else Handle(-1, -1, 0)
    handles = np.empty((base.size, 3), np.int64)
    base.all_gather(handles, np.array(handle, np.int64)).wait()
    blocks: list[Shared] = []
    if (handles[:, 0] >= 0).all():
        try:
            for rank, row in enumerate(handles.tolist()):
                blocks.append(own if rank == base.rank and own else open_shared(Handle(*row)))
        except OSError as error:
            failure = error
    opened = np.array([len(blocks) == base.size], np.int64)
    base.all_reduce(opened, REDUCTIONS["min"]).wait()
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


class Allocations:
    """Memory that users have asked for, and where arrays lie in it.

    It is freed with its last user. A rank that still uses its own keeps those of the others mapped.
    """

    def __init__(self, base: Transport):
        self._base = base
        self._count = 0
        self._by_base: dict[int, _Allocation] = {}
        self._by_number: dict[int, int] = {}

    def allocate(self, nbytes: int) -> np.ndarray:
        """Bytes of this rank; called on all ranks with the same number."""
        blocks = share_blocks(self._base, nbytes)
        self._count += 1
        number = self._count
        own = blocks[self._base.rank].bytes
        identity = id(own)

        def forget(_: object) -> None:
            self._by_base.pop(identity, None)
            self._by_number.pop(number, None)

        others = [None if rank == self._base.rank else block.bytes for rank, block in enumerate(blocks)]
        self._by_base[identity] = _Allocation(number, own.ctypes.data, others, weakref.ref(own, forget))
        self._by_number[number] = identity
        return own[:nbytes]

    def place(self, array: Array) -> int:
        """Where an array lies: the same number on all ranks for arrays at one place of one allocation; 0 for elsewhere."""
        allocation = self._by_base.get(id(array.base))
        if allocation is None:
            return 0
        return allocation.number << 40 | array.__array_interface__["data"][0] - allocation.address + 1

    def arrays(self, place: int, like: Array | int, rank: int, dtype: Any = None) -> list[Array]:
        """The arrays of all ranks at a place: flat, as long as `like` (this rank's array, or a number of elements)."""
        allocation = self._by_base[self._by_number[place >> 40]]
        start = (place & (1 << 40) - 1) - 1
        count = like if isinstance(like, int) else like.size
        dtype = dtype or like.dtype  # type: ignore[union-attr]
        own = allocation.users()
        blocks = [own if q == rank else block for q, block in enumerate(allocation.blocks)]
        return [block[start : start + count * dtype.itemsize].view(dtype) for block in blocks]

    def clear(self) -> None:
        """Let go of the other ranks' memory."""
        self._by_base.clear()
        self._by_number.clear()
