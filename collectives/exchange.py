"""Exchange: the slots of shared memory through which the ranks of a node hand data to each other, step by step.

Every rank has a page of words (`collectives.arrivals`) and a few slots. In a step it puts data into its slot of that step, says so
in a word, and takes what it needs from the slots of the others. Slots take turns, so that a rank need not wait until all
have read. What has to wait is written as a generator, which yields where it would wait.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence

from .arrivals import ARRIVED, CARDS, CHECKED, FENCES, FIRST_CARD, PAGE, READ, Pages, fence, page_words
from .memory import Shared
from .staging import Array
from .work import cores_are_scarce

__all__ = ["BLOCK_BYTES", "SLOT", "SLOTS", "Exchange", "Steps"]

SLOT = 256 * 1024
"""Bytes of a slot: a step's data stays in the second-level cache on its way."""
SLOTS = 4
BLOCK_BYTES = PAGE + 2 * SLOTS * SLOT
"""Bytes of each rank's block of shared memory."""
ASKS = 400
"""Looks at another rank's word before the caller is asked to come again, which takes about as long; one where ranks share cores."""

Steps = Generator[None, None, None]


class Exchange:
    """The blocks of all ranks, and how far this rank is.

    Parameters
    ----------
    rank : int
    blocks : sequence of Shared
        One of `BLOCK_BYTES` for each rank.

    Attributes
    ----------
    step : int
        Steps that operations have taken so far.
    awaited : tuple of (int, int)
        The word that was waited for last, and the value.
    """

    def __init__(self, rank: int, blocks: Sequence[Shared]):
        self.rank, self.size = rank, len(blocks)
        self.pages = Pages(rank, [page_words(block) for block in blocks])
        self.data = [block.bytes[PAGE:] for block in blocks]
        self.asks = range(1 if cores_are_scarce() else ASKS)
        self.step = 0
        self.read_by_all = 0
        self.awaited = (ARRIVED, 0)

    def close(self) -> None:
        """Let go of the memory."""
        self.data = []
        self.pages.close()

    def all_here(self, n: int) -> Steps:
        """Wait until all ranks have come to operation `n`, and see that they called the same."""
        yield from self.until(ARRIVED, n + 1)
        self.compare(n)

    def compare(self, n: int) -> None:
        """See that all ranks, which have come to operation `n`, called the same."""
        pages = self.pages
        at = FIRST_CARD + n % CARDS * 2
        card = pages.mine[at]
        for block in pages.others:
            if block[at] != card:
                raise pages.mismatch(n)
        pages.mine[CHECKED] = n + 1

    def until(self, word: int, value: int, ranks: Iterable[int] | None = None) -> Steps:
        """Wait until a word of every rank (or of these) has come to a value."""
        blocks = self.pages.others if ranks is None else [self.pages.blocks[rank] for rank in ranks]
        for block in blocks:
            while block[word] < value:
                for _ in self.asks:
                    if block[word] >= value:
                        break
                else:
                    self.awaited = (word, value)
                    yield
        if FENCES:
            fence()

    def say(self, word: int, value: int) -> None:
        """Write a word of this rank, after all that was written before."""
        if FENCES:
            fence()
        self.pages.mine[word] = value

    def free(self, step: int) -> Steps:
        """Wait until the slot of a step may be written: all have read what was there."""
        needed = step - SLOTS + 1
        if self.read_by_all < needed:
            yield from self.until(READ, needed)
            self.read_by_all = min(block[READ] for block in self.pages.others)

    def take_steps(self, count: int) -> int:
        """Begin an operation of so many steps; returns the number of its first."""
        first = self.step
        self.step += count
        return first

    def slot(self, rank: int, step: int) -> Array:
        """Where a rank puts a step's data."""
        start = step % SLOTS * SLOT
        return self.data[rank][start : start + SLOT]

    def sums(self, rank: int, step: int) -> Array:
        """Where a rank puts its share of a step's sum."""
        start = (SLOTS + step % SLOTS) * SLOT
        return self.data[rank][start : start + SLOT]
