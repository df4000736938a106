"""SharedTransport: the ranks of one node, through memory that they share. Reductions are NumPy's, done where the data is.

Every rank has a block of shared memory: a page of words (`collectives.arrivals`) and a few slots for data. An operation
goes through its arrays in steps of one slot: a rank copies its part into its slot, says so in a word, and takes what it
needs from the slots of the others. Slots take turns, so that a rank need not wait until all have read. What is small is
one step: a copy, a word, and a sum.

Arrays that live in shared memory themselves (`allocate`) are not copied at all: each rank sums its share of all ranks'
arrays where they lie and writes the result to all of them, so a node's memory is read and written once.

Operations are carried out one after the other in the order of the calls, by whoever waits for any of them. They add up in
the order of the ranks, so results are the same to the bit on every rank and in every run. Floating-point warnings are
NumPy's, as `numpy.seterr` has them.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import shared_movement as movement
from . import shared_reductions as reductions
from .arrivals import ARRIVED, CARDS, CHECKED, FENCES, FIRST_CARD, POSTED, READ, REDUCED, fence, make_card
from .exchange import BLOCK_BYTES, SLOTS, Exchange, Steps
from .reductions import Reduction, combine, is_half
from .shared_blocks import Allocations, Placed, share_blocks
from .staging import Array
from .transport import Counts, Transport
from .work import Work, cores_are_scarce

__all__ = ["SharedTransport"]

SMALL = 16 * 1024
"""Bytes up to which every rank adds up all arrays by itself, which is one step instead of two."""
TURNS = 20
"""Times that a small all-reduce gives its core away, where ranks share cores, before it is carried on with later."""
DONE_AT_ONCE = Work("all_reduce")
"""What an all-reduce returns that needs nothing more; one for all of them."""


class SharedTransport(Transport):
    """The ranks of one node.

    Parameters
    ----------
    base : Transport
        Between the same ranks: carries messages from one rank to another, and what is needed to begin.

    Raises
    ------
    CommunicationError
        On all ranks, if one of them cannot see the memory of another.
    """

    name = "shared"
    accumulates_half = True
    averages = True

    def __init__(self, base: Transport):
        super().__init__(base.rank, base.size)
        self.base = base
        self._exchange = Exchange(base.rank, share_blocks(base, BLOCK_BYTES))
        self._pages = self._exchange.pages
        self._gives_way = cores_are_scarce()
        self._queue: deque[_Entry] = deque()
        self._lock = threading.Lock()
        self._small: dict[Any, tuple[list[Any], int, bool]] = {}
        self._cards: dict[Any, int] = {}
        self._allocations = Allocations(base, reductions.BLOCK)
        self.watch: Callable[[float], None] | None = None

    # Operations ------------------------------------------------------------------------------------------------------

    def all_reduce(self, array: Array, op: Reduction) -> Work:
        if array.nbytes <= SMALL:
            return self._small_all_reduce(array, op)
        placed = self._allocations.find(array)
        if placed is not None:
            return self._all_reduce_in_place(array, op, placed)
        n = self._arrive(self._card("all_reduce", array, op))
        return self._start("all_reduce", reductions.all_reduce(self._exchange, n, array.reshape(-1), op), array)

    def reduce(self, array: Array, root: int, op: Reduction) -> Work:
        n = self._arrive(self._card("reduce", array, op, root))
        return self._start("reduce", reductions.all_reduce(self._exchange, n, array.reshape(-1), op, root), array)

    def reduce_scatter(self, array: Array, source: Array, op: Reduction, counts: Counts = None) -> Work:
        name = "reduce_scatter" if counts is None else "reduce_scatter with counts"
        placed = self._allocations.find(source)
        n = self._arrive(self._card(name, source, op), 0 if placed is None else placed.place)
        parts = _parts(source, self.size, counts)
        sources = None
        if placed is not None:
            begin = sum(part.size for part in parts[: self.rank])
            sources = self._allocations.sources(placed, source, begin, array.size)
        steps = reductions.reduce_scatter(self._exchange, n, array.reshape(-1), parts, op, placed, sources)
        return self._start("reduce_scatter", steps, array, source)

    def broadcast(self, array: Array, root: int) -> Work:
        n = self._arrive(self._card("broadcast", array, None, root))
        return self._start("broadcast", movement.broadcast(self._exchange, n, _bytes(array), root), array)

    def all_gather(self, out: Array, array: Array, counts: Counts = None) -> Work:
        n = self._arrive(self._card("all_gather" if counts is None else "all_gather with counts", out))
        parts = _byte_parts(out, self.size, counts)
        steps = movement.gather(self._exchange, n, _bytes(array), parts, None, _most(array, counts))
        return self._start("all_gather", steps, out, array)

    def gather(self, out: Array | None, array: Array, root: int, counts: Counts = None) -> Work:
        whole = array.nbytes * self.size if counts is None else sum(counts) * array.dtype.itemsize
        n = self._arrive(self._card("gather" if counts is None else "gather with counts", array, None, root, whole))
        parts = None if out is None else _byte_parts(out, self.size, counts)
        steps = movement.gather(self._exchange, n, _bytes(array), parts, root, _most(array, counts))
        return self._start("gather", steps, out, array)

    def scatter(self, array: Array, source: Array | None, root: int, counts: Counts = None) -> Work:
        whole = array.nbytes * self.size if counts is None else sum(counts) * array.dtype.itemsize
        n = self._arrive(self._card("scatter" if counts is None else "scatter with counts", array, None, root, whole))
        parts = None if source is None else _byte_parts(source, self.size, counts)
        steps = movement.scatter(self._exchange, n, _bytes(array), parts, root, _most(array, counts))
        return self._start("scatter", steps, array, source)

    def all_to_all(self, out: Array, array: Array, out_counts: Counts = None, counts: Counts = None) -> Work:
        if counts is None:
            n = self._arrive(self._card("all_to_all", array))
        else:  # each rank has counts of its own
            n = self._arrive(self._card("all_to_all with counts", array, None, 0, 0))
        given, taken = _byte_parts(array, self.size, counts), _byte_parts(out, self.size, out_counts)
        steps = movement.all_to_all(self._exchange, n, taken, given, counts is not None)
        return self._start("all_to_all", steps, out, array)

    def barrier(self) -> Work:
        return self._start("barrier", self._exchange.all_here(self._arrive(make_card("barrier"))))

    def send(self, array: Array, destination: int, tag: int) -> Work:
        return self.base.send(array, destination, tag)

    def recv(self, array: Array, source: int | None, tag: int) -> Work:
        return self.base.recv(array, source, tag)

    # The group -------------------------------------------------------------------------------------------------------

    def split(self, color: int | None, key: int) -> Transport | None:
        return self.base.split(color, key)

    def allocate(self, nbytes: int) -> np.ndarray | None:
        return self._allocations.allocate(nbytes)

    def late(self) -> Sequence[int] | None:
        return self._pages.behind(*self._exchange.awaited)

    def name_ranks(self, names: Sequence[int]) -> None:
        """How messages call the ranks, where they are a part of a group of others."""
        self._pages.names = names

    def description(self) -> str:
        return f"shared memory (messages over {self.base.description()})"

    def abort(self, code: int) -> None:
        self.base.abort(code)

    def close(self) -> None:
        # The record of the last calls keeps the group for long; the memory need not stay.
        self._small.clear()
        self._exchange.close()
        self._allocations.clear()
        self.base.close()

    # Carrying operations out -----------------------------------------------------------------------------------------

    def _start(self, operation: str, steps: Steps, *keep: Array | None) -> Work:
        """Begin an operation; what can be done at once is done at once."""
        error: Exception | None = None
        if not self._queue and self._lock.acquire(False):
            try:
                next(steps)
            except StopIteration:
                return Work(operation)
            except Exception as failure:
                error = failure
            finally:
                self._lock.release()
        return self._enqueue(operation, steps, *keep, error=error)

    def _enqueue(self, operation: str, steps: Steps, *keep: Array | None, error: Exception | None = None) -> Work:
        entry = _Entry(steps)
        entry.error = error
        if error is None:
            self._queue.append(entry)

        def poll() -> bool:
            if not entry.done and entry.error is None:
                self._advance()
            if entry.error is not None:
                raise entry.error
            return entry.done

        return Work(operation, poll, keep=keep)

    def _advance(self) -> None:
        """Carry on with the operation that is first in order, and with those after it."""
        if not self._lock.acquire(False):  # another thread does
            return
        queue = self._queue
        try:
            while queue:
                entry = queue[0]
                try:
                    next(entry.steps)
                    return
                except StopIteration:
                    entry.done = True
                except Exception as error:
                    entry.error = error
                queue.popleft()
        finally:
            self._lock.release()

    def _arrive(self, card: int, place: int = 0) -> int:
        n = self._pages.count
        if n >= CARDS and n % (CARDS // 2) == 0:
            self._hold_back(n - CARDS // 2)
        return self._pages.arrive(card, place)

    def _hold_back(self, n: int) -> None:
        """Wait until all have compared the first `n` cards, so that none is overwritten that somebody has yet to read."""

        def compared() -> bool:
            self._advance()
            behind = self._pages.behind(CHECKED, n)
            if behind:
                self._exchange.awaited = (CHECKED, n)
            return not behind

        if not compared():
            work = Work("a collective", compared)
            work.watch = self.watch
            work.wait()

    def _card(
        self, operation: str, array: Array, op: Reduction | None = None, root: int = 0, nbytes: int | None = None
    ) -> int:
        key = operation, array.dtype, None if op is None else op.name, root
        card = self._cards.get(key)
        if card is None:
            card = self._cards[key] = make_card(operation, array.dtype, op, root)
        return card + (array.nbytes if nbytes is None else nbytes)

    # Without a detour -------------------------------------------------------------------------------------------------

    def _small_all_reduce(self, array: Array, op: Reduction) -> Work:
        """Done at once where that is possible, without what carries on with an operation later: time is short here."""
        if self._queue or not self._lock.acquire(False):
            n = self._arrive(self._card("all_reduce", array, op))
            return self._start("all_reduce", self._small_steps(n, None, array, op), array)
        try:
            exchange, pages = self._exchange, self._pages
            n, step = pages.count, exchange.step
            if exchange.read_by_all < step - SLOTS + 1:
                exchange.read_by_all = min(block[READ] for block in pages.others)
                if exchange.read_by_all < step - SLOTS + 1:
                    return self._small_later(array, op, None)
            if n >= CARDS and not n % (CARDS // 2):
                return self._small_later(array, op, None)
            exchange.step = step + 1
            known = self._small.get((step % SLOTS, array.dtype, array.shape, op))
            views, card, plain = known or self._small_views(step, array, op)
            views[self.rank][...] = array
            at = FIRST_CARD + n % CARDS * 2
            mine = pages.mine
            mine[at] = card
            pages.count = n + 1
            if FENCES:
                fence()
            mine[ARRIVED] = n + 1
            mine[POSTED] = step + 1
            for block in pages.others:
                if block[POSTED] <= step:
                    for _ in exchange.asks:
                        if block[POSTED] > step:
                            break
                    else:
                        if not self._gives_way or not _given_way(block, step):
                            return self._small_later(array, op, (n, step))
                if block[at] != card:
                    # As any work fails, so that the group hears of it.
                    steps = self._small_steps(n, step, array, op)
                    return self._enqueue("all_reduce", steps, array, error=pages.mismatch(n))
            if FENCES:
                fence()
            if plain:
                op.function(views[0], views[1], out=array)
            else:
                combine(op, views, array, self.size)
            if not n % 16:
                mine[CHECKED] = n + 1
            if FENCES:
                fence()
            mine[READ] = step + 1
            return DONE_AT_ONCE
        finally:
            self._lock.release()

    def _small_later(self, array: Array, op: Reduction, begun: tuple[int, int] | None) -> Work:
        """Go on with it as with any operation; `begun`: its number and step, where the data is in the slot already."""
        if begun is None:
            n, step = self._arrive(self._card("all_reduce", array, op)), None
        else:
            n, step = begun
        return self._enqueue("all_reduce", self._small_steps(n, step, array, op), array)

    def _small_steps(self, n: int, step: int | None, array: Array, op: Reduction) -> Steps:
        if step is None:
            step = self._exchange.take_steps(1)
            yield from self._exchange.free(step)
            self._small_views(step, array, op)[0][self.rank][...] = array
            self._exchange.say(POSTED, step + 1)
        pages = self._pages
        views, card, _ = self._small_views(step, array, op)
        at = FIRST_CARD + n % CARDS * 2
        for block in pages.others:
            while block[POSTED] <= step:
                for _ in self._exchange.asks:
                    if block[POSTED] > step:
                        break
                else:
                    # A rank that called something else may never put data here.
                    if block[ARRIVED] > n and block[at] != card:
                        raise pages.mismatch(n)
                    self._exchange.awaited = (POSTED, step + 1)
                    yield
            if block[at] != card:
                raise pages.mismatch(n)
        if FENCES:
            fence()
        combine(op, views, array, self.size)
        pages.mine[CHECKED] = n + 1
        self._exchange.say(READ, step + 1)

    def _small_views(self, step: int, array: Array, op: Reduction) -> tuple[list[Any], int, bool]:
        """The slots as arrays like this one; its card; whether one call of the reduction's function does it all."""
        key = step % SLOTS, array.dtype, array.shape, op
        known = self._small.get(key)
        if known is None:
            if len(self._small) >= 512:
                self._small.clear()
            views = [
                self._exchange.slot(rank, step)[: array.nbytes].view(array.dtype).reshape(array.shape)
                for rank in range(self.size)
            ]
            plain = self.size == 2 and not is_half(array.dtype) and op.name != "avg"
            known = self._small[key] = views, self._card("all_reduce", array, op), plain
        return known

    def _all_reduce_in_place(self, array: Array, op: Reduction, placed: Placed) -> Work:
        """Arrays in shared memory; done at once where the other ranks are there, without what carries on with it later."""
        pages, card, place = self._pages, self._card("all_reduce", array, op), placed.place
        if self._queue or pages.count % (CARDS // 2) == 0 or not self._lock.acquire(False):
            n = self._arrive(card, place)
            steps = reductions.all_reduce(self._exchange, n, array.reshape(-1), op, None, placed)
            return self._start("all_reduce", steps, array)
        try:
            n = pages.arrive(card, place)
            exchange, flat = self._exchange, array.reshape(-1)
            at = FIRST_CARD + n % CARDS * 2
            for block in pages.others:
                if block[ARRIVED] <= n:
                    for _ in self._exchange.asks:
                        if block[ARRIVED] > n:
                            break
                    else:
                        steps = reductions.all_reduce(exchange, n, flat, op, None, placed)
                        return self._enqueue("all_reduce", steps, array)
                if block[at] != card:
                    raise pages.mismatch(n)
                if block[at + 1] != place:
                    return self._enqueue("all_reduce", reductions.all_reduce(exchange, n, flat, op, None, placed), array)
            if FENCES:
                fence()
            reductions.reduce_share(flat, op, placed)
            self._exchange.say(REDUCED, n + 1)
            if not n % 16:
                pages.mine[CHECKED] = n + 1
            for block in pages.others:
                if block[REDUCED] <= n:
                    for _ in self._exchange.asks:
                        if block[REDUCED] > n:
                            break
                    else:
                        return self._enqueue("all_reduce", self._exchange.until(REDUCED, n + 1), array)
            if FENCES:
                fence()
            return DONE_AT_ONCE
        finally:
            self._lock.release()

def _given_way(block: Any, step: int) -> bool:
    """Give the core away a few times, so that a rank which shares it can put its data there; whether it has."""
    for _ in range(TURNS):
        os.sched_yield()
        if block[POSTED] > step:
            return True
    return False


class _Entry:
    """An operation in the queue."""

    __slots__ = ("done", "error", "steps")

    def __init__(self, steps: Steps):
        self.steps = steps
        self.done = False
        self.error: Exception | None = None


def _bytes(array: Array) -> Array:
    return array.reshape(-1).view(np.uint8)


def _parts(array: Array, size: int, counts: Counts) -> list[Array]:
    """The flat parts of an array, one for each rank."""
    flat = array.reshape(-1)
    if counts is None:
        return list(flat.reshape(size, -1))
    ends = np.cumsum(counts)
    return [flat[end - count : end] for end, count in zip(ends.tolist(), counts)]


def _byte_parts(array: Array, size: int, counts: Counts) -> list[Array]:
    return [_bytes(part) for part in _parts(array, size, counts)]


def _most(array: Array, counts: Counts) -> int:
    """Bytes of the longest rank's array."""
    return array.nbytes if counts is None else max(counts) * array.dtype.itemsize
