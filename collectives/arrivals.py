"""The words in shared memory by which the ranks of a node follow each other: who has come to which operation.

Each rank has a page that it alone writes and all read: how many operations it has called, how many steps of data it has
put into its slots and taken from those of others, and a card for each of its latest calls. The card says what was called, so
that ranks that call different things find out before any data moves, at the price of two stores and two loads.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import CollectiveMismatchError
from .reductions import REDUCTIONS, Reduction

__all__ = [
    "ARRIVED", "CARDS", "CHECKED", "DONE", "FENCES", "FIRST_CARD", "PAGE", "POSTED", "READ", "REDUCED", "Card", "Pages",
    "card_text", "fence", "make_card", "page_words",
]  # fmt: skip

# Places of the 64-bit words in a rank's page; those that are written together share a cache line of 8 words.
ARRIVED = 0  # operations called
POSTED = 1  # steps whose data is in this rank's slot
CHECKED = 8  # operations whose cards were compared
DONE = 9  # steps whose share of the reduction is done
READ = 10  # steps whose data was taken out of all slots
REDUCED = 11  # the same as DONE, for operations on arrays that lie in shared memory
FIRST_CARD = 64
CARDS = 64
"""How many operations a rank may be ahead of another. Its cards are overwritten after that many."""
PAGE = 8192
"""Bytes of a rank's page."""

OPERATIONS = (
    "all_reduce", "reduce", "reduce_scatter", "broadcast", "all_gather", "gather", "scatter", "all_to_all", "barrier",
    "reduce_scatter with counts", "all_gather with counts", "gather with counts", "scatter with counts", "all_to_all with counts",
)  # fmt: skip
_DTYPES = tuple("bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 bfloat16 float32 float64 longdouble "
                "complex64 complex128 clongdouble".split())  # fmt: skip
_OTHER = 31
_REDUCTIONS = ("", *REDUCTIONS)
# A card is one number: 5 bits for the operation, 4 for the reduction, 5 for the dtype, 10 for the root, 39 for the bytes.
_MOST_BYTES = 2**39 - 1

Card = int


def make_card(operation: str, dtype: np.dtype | None = None, op: Reduction | None = None, root: int = 0) -> Card:
    """What is the same for every call of this kind; the number of bytes is added to it.

    Examples
    --------
    >>> card = make_card("all_reduce", np.dtype("float32"), REDUCTIONS["avg"])
    >>> card_text(card + 4096)
    'all_reduce avg of float32, 4,096 bytes'
    >>> card_text(make_card("broadcast", np.dtype("int64"), root=3) + 8)
    'broadcast of int64, 8 bytes, root 3'
    """
    if dtype is None:
        kind = 0
    else:
        name = {"float128": "longdouble", "complex256": "clongdouble"}.get(dtype.name, dtype.name)
        kind = _DTYPES.index(name) + 1 if name in _DTYPES and dtype.isnative else _OTHER
    number = OPERATIONS.index(operation)
    reduction = 0 if op is None else _REDUCTIONS.index(op.name) if op.name in REDUCTIONS else 15
    return ((((number << 4 | reduction) << 5 | kind) << 10) | root % 1024) << 39


def card_text(card: Card) -> str:
    """A card in words."""
    nbytes, rest = card & _MOST_BYTES, card >> 39
    root, rest = rest & 1023, rest >> 10
    kind, rest = rest & 31, rest >> 5
    reduction, number = rest & 15, rest >> 4
    operation = OPERATIONS[number]
    words = operation
    if reduction:
        words += f" {_REDUCTIONS[reduction] if reduction < len(_REDUCTIONS) else 'scaled_sum'}"
    if kind:
        words += f" of {_DTYPES[kind - 1] if kind != _OTHER else 'another dtype'}, {nbytes:,} bytes"
    if operation.split()[0] in ("reduce", "broadcast", "gather", "scatter"):
        words += f", root {root}"
    return words


class Pages:
    """The pages of a group of ranks, seen by one of them.

    Parameters
    ----------
    rank : int
    blocks : sequence of memoryview
        Each rank's page as 64-bit integers.
    """

    def __init__(self, rank: int, blocks: Sequence[memoryview]):
        self.rank = rank
        self.size = len(blocks)
        self.blocks = list(blocks)
        self.mine = self.blocks[rank]
        self.others = [block for other, block in enumerate(self.blocks) if other != rank]
        self.count = 0
        """Operations that this rank has called."""
        self.names: Sequence[int] = range(self.size)
        """What the ranks are called in messages: their numbers in the group that users see."""

    def close(self) -> None:
        """Let go of the memory."""
        self.blocks, self.others, self.mine = [], [], memoryview(b"")

    def arrive(self, card: Card, place: int = 0) -> int:
        """Say what is called next; returns its number. `place`: where in shared memory its array is, 0 for elsewhere."""
        n = self.count
        mine = self.mine
        at = FIRST_CARD + (n % CARDS) * 2
        mine[at] = card
        mine[at + 1] = place
        self.count = n + 1
        if FENCES:
            fence()
        mine[ARRIVED] = n + 1
        return n

    def card(self, rank: int, n: int) -> Card:
        """What a rank that has come to operation `n` called there."""
        return self.blocks[rank][FIRST_CARD + (n % CARDS) * 2]

    def places(self, n: int) -> list[int]:
        """Where the ranks' arrays are; all must have come to operation `n`."""
        return [block[FIRST_CARD + (n % CARDS) * 2 + 1] for block in self.blocks]

    def behind(self, word: int, value: int) -> list[int]:
        """The ranks whose word is less than a value."""
        return [rank for rank, block in enumerate(self.blocks) if block[word] < value]

    def mismatch(self, n: int) -> CollectiveMismatchError:
        """The error for ranks that called different things as their `n`-th operation."""
        lines = [
            f"  rank {self.names[rank]}: " + (card_text(self.card(rank, n)) if block[ARRIVED] > n else "has not come here yet")
            for rank, block in enumerate(self.blocks)
        ]
        return CollectiveMismatchError(
            f"the ranks called different things as operation {n + 1} of this group:\n" + "\n".join(lines) + "\n"
            'With debug="mismatch" (DISTTORCH_DEBUG=mismatch) the table has shapes and lines of the script.'
        )


_order = threading.Lock()
_order.acquire()

# Processors of the x86 family show stores to each other in the order of the program; others may not.
FENCES = platform.machine().lower() not in ("x86_64", "amd64", "i686")


def fence() -> None:
    """See to it that what is stored before is visible to others before what is stored after.

    Giving a lock back and taking it again are a release and an acquire on one place in memory, so that nothing before
    the one can move behind the other.
    """
    _order.release()
    _order.acquire()


def page_words(block: Any) -> memoryview:
    """The first page of a block of shared memory as 64-bit integers."""
    return block.words()[: PAGE // 8]
