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
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import numpy as np

from .arrivals import (
    ARRIVED,
    CARDS,
    CHECKED,
    DONE,
    FENCES,
    FIRST_CARD,
    PAGE,
    POSTED,
    READ,
    REDUCED,
    Pages,
    fence,
    make_card,
    page_words,
)  # fmt: skip
from .reductions import Reduction, combine, is_half
from .shared_blocks import Allocations, Placed, share_blocks
from .staging import Array
from .transport import Counts, Transport
from .work import Work, cores_are_scarce

__all__ = ["SharedTransport"]

SLOT = 256 * 1024
"""Bytes of a slot: a step's data stays in the second-level cache on its way."""
SLOTS = 4
SMALL = 16 * 1024
"""Bytes up to which every rank adds up all arrays by itself, which is one step instead of two."""
BLOCK = 128 * 1024
"""Bytes that are reduced at a time where arrays are in shared memory."""
ASKS = 400
"""Looks at another rank's word before the caller is asked to come again, which takes about as long; one where ranks share cores."""

DONE_AT_ONCE = Work("all_reduce")
"""What a small all-reduce returns that needs nothing more; one for all of them."""

TURNS = 20
"""Times that a small all-reduce gives its core away, where ranks share cores, before it is carried on with later."""

Steps = Generator[None, None, None]


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
        blocks = share_blocks(base, PAGE + 2 * SLOTS * SLOT)
        self._pages = Pages(base.rank, [page_words(block) for block in blocks])
        self._data = [block.bytes[PAGE:] for block in blocks]
        self._gives_way = cores_are_scarce()
        self._asks = range(1 if cores_are_scarce() else ASKS)
        self._step = 0
        self._read_by_all = 0
        self._queue: deque[_Entry] = deque()
        self._lock = threading.Lock()
        self._small: dict[Any, tuple[list[Any], int, bool]] = {}
        self._cards: dict[Any, int] = {}
        self._awaited = (ARRIVED, 0)
        self._allocations = Allocations(base, BLOCK)
        self.watch: Callable[[float], None] | None = None

    # Operations ------------------------------------------------------------------------------------------------------

    def all_reduce(self, array: Array, op: Reduction) -> Work:
        if array.nbytes <= SMALL:
            return self._small_all_reduce(array, op)
        placed = self._allocations.find(array)
        if placed is not None:
            return self._all_reduce_in_place(array, op, placed)
        n = self._arrive(self._card("all_reduce", array, op))
        return self._start("all_reduce", self._all_reduce(n, array.reshape(-1), op, None, None), array)

    def reduce(self, array: Array, root: int, op: Reduction) -> Work:
        n = self._arrive(self._card("reduce", array, op, root))
        return self._start("reduce", self._all_reduce(n, array.reshape(-1), op, root), array)

    def reduce_scatter(self, array: Array, source: Array, op: Reduction, counts: Counts = None) -> Work:
        name = "reduce_scatter" if counts is None else "reduce_scatter with counts"
        placed = self._allocations.find(source)
        n = self._arrive(self._card(name, source, op), 0 if placed is None else placed.place)
        steps = self._reduce_scatter(n, array.reshape(-1), source, _parts(source, self.size, counts), op, placed)
        return self._start("reduce_scatter", steps, array, source)

    def broadcast(self, array: Array, root: int) -> Work:
        n = self._arrive(self._card("broadcast", array, None, root))
        return self._start("broadcast", self._broadcast(n, _bytes(array), root), array)

    def all_gather(self, out: Array, array: Array, counts: Counts = None) -> Work:
        n = self._arrive(self._card("all_gather" if counts is None else "all_gather with counts", out))
        parts = _byte_parts(out, self.size, counts)
        return self._start("all_gather", self._gather(n, _bytes(array), parts, None, _most(array, counts)), out, array)

    def gather(self, out: Array | None, array: Array, root: int, counts: Counts = None) -> Work:
        whole = array.nbytes * self.size if counts is None else sum(counts) * array.dtype.itemsize
        n = self._arrive(self._card("gather" if counts is None else "gather with counts", array, None, root, whole))
        parts = None if out is None else _byte_parts(out, self.size, counts)
        return self._start("gather", self._gather(n, _bytes(array), parts, root, _most(array, counts)), out, array)

    def scatter(self, array: Array, source: Array | None, root: int, counts: Counts = None) -> Work:
        whole = array.nbytes * self.size if counts is None else sum(counts) * array.dtype.itemsize
        n = self._arrive(self._card("scatter" if counts is None else "scatter with counts", array, None, root, whole))
        parts = None if source is None else _byte_parts(source, self.size, counts)
        steps = self._scatter(n, _bytes(array), parts, root, _most(array, counts))
        return self._start("scatter", steps, array, source)

    def all_to_all(self, out: Array, array: Array, out_counts: Counts = None, counts: Counts = None) -> Work:
        if counts is None:
            n = self._arrive(self._card("all_to_all", array))
        else:  # each rank has counts of its own
            n = self._arrive(self._card("all_to_all with counts", array, None, 0, 0))
        given, taken = _byte_parts(array, self.size, counts), _byte_parts(out, self.size, out_counts)
        return self._start("all_to_all", self._all_to_all(n, taken, given, counts is not None), out, array)

    def barrier(self) -> Work:
        return self._start("barrier", self._all_here(self._arrive(make_card("barrier"))))

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
        return self._pages.behind(*self._awaited)

    def name_ranks(self, names: Sequence[int]) -> None:
        """How messages call the ranks, where they are a part of a group of others."""
        self._pages.names = names

    def description(self) -> str:
        return f"shared memory (messages over {self.base.description()})"

    def abort(self, code: int) -> None:
        self.base.abort(code)

    def close(self) -> None:
        self._small.clear()
        self._data = []
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
                self._awaited = (CHECKED, n)
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

    def _all_here(self, n: int) -> Steps:
        """Wait until all ranks have come to operation `n`, and see that they called the same."""
        yield from self._until(ARRIVED, n + 1)
        self._compare(n)

    def _compare(self, n: int) -> None:
        pages = self._pages
        at = FIRST_CARD + n % CARDS * 2
        card = pages.mine[at]
        for block in pages.others:
            if block[at] != card:
                raise pages.mismatch(n)
        pages.mine[CHECKED] = n + 1

    def _until(self, word: int, value: int, ranks: Iterable[int] | None = None) -> Steps:
        """Wait until a word of every rank (or of these) has come to a value."""
        blocks = self._pages.others if ranks is None else [self._pages.blocks[rank] for rank in ranks]
        for block in blocks:
            while block[word] < value:
                for _ in self._asks:
                    if block[word] >= value:
                        break
                else:
                    self._awaited = (word, value)
                    yield
        if FENCES:
            fence()

    def _say(self, word: int, value: int) -> None:
        if FENCES:
            fence()
        self._pages.mine[word] = value

    def _free(self, step: int) -> Steps:
        """Wait until the slot of a step may be written: all have read what was there."""
        needed = step - SLOTS + 1
        if self._read_by_all < needed:
            yield from self._until(READ, needed)
            self._read_by_all = min(block[READ] for block in self._pages.others)

    def _take_steps(self, count: int) -> int:
        first = self._step
        self._step += count
        return first

    def _slot(self, rank: int, step: int) -> Array:
        """Where a rank puts a step's data."""
        start = step % SLOTS * SLOT
        return self._data[rank][start : start + SLOT]

    def _sum(self, rank: int, step: int) -> Array:
        """Where a rank puts its share of a step's sum."""
        start = (SLOTS + step % SLOTS) * SLOT
        return self._data[rank][start : start + SLOT]

    # Operations in steps ---------------------------------------------------------------------------------------------

    def _small_all_reduce(self, array: Array, op: Reduction) -> Work:
        """Done at once where that is possible, without what carries on with an operation later: time is short here."""
        if self._queue or not self._lock.acquire(False):
            n = self._arrive(self._card("all_reduce", array, op))
            return self._start("all_reduce", self._small_steps(n, None, array, op), array)
        try:
            step, pages = self._step, self._pages
            n = pages.count
            if self._read_by_all < step - SLOTS + 1:
                self._read_by_all = min(block[READ] for block in pages.others)
                if self._read_by_all < step - SLOTS + 1:
                    return self._small_later(array, op, None)
            if n >= CARDS and not n % (CARDS // 2):
                return self._small_later(array, op, None)
            self._step = step + 1
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
                    for _ in self._asks:
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
            step = self._take_steps(1)
            yield from self._free(step)
            self._small_views(step, array, op)[0][self.rank][...] = array
            self._say(POSTED, step + 1)
        pages = self._pages
        views, card, _ = self._small_views(step, array, op)
        at = FIRST_CARD + n % CARDS * 2
        for block in pages.others:
            while block[POSTED] <= step:
                for _ in self._asks:
                    if block[POSTED] > step:
                        break
                else:
                    # A rank that called something else may never put data here.
                    if block[ARRIVED] > n and block[at] != card:
                        raise pages.mismatch(n)
                    self._awaited = (POSTED, step + 1)
                    yield
            if block[at] != card:
                raise pages.mismatch(n)
        if FENCES:
            fence()
        combine(op, views, array, self.size)
        pages.mine[CHECKED] = n + 1
        self._say(READ, step + 1)

    def _small_views(self, step: int, array: Array, op: Reduction) -> tuple[list[Any], int, bool]:
        """The slots as arrays like this one; its card; whether one call of the reduction's function does it all."""
        key = step % SLOTS, array.dtype, array.shape, op
        known = self._small.get(key)
        if known is None:
            if len(self._small) >= 512:
                self._small.clear()
            views = [
                self._slot(rank, step)[: array.nbytes].view(array.dtype).reshape(array.shape) for rank in range(self.size)
            ]
            plain = self.size == 2 and not is_half(array.dtype) and op.name != "avg"
            known = self._small[key] = views, self._card("all_reduce", array, op), plain
        return known

    def _all_reduce(self, n: int, flat: Array, op: Reduction, root: int | None, placed: Placed | None = None) -> Steps:
        """To one rank, or to all where `root` is None.

        Three things in turn, for three steps at a time: give data, add up one's share of it, take the sums.
        """
        yield from self._all_here(n)
        if placed is not None and self._all_at(n, placed):
            yield from self._reduce_in_place(n, flat, op, placed)
            return
        if self.size == 2:
            yield from self._all_reduce_of_two(flat, op, root)
            return
        size, rank, dtype = self.size, self.rank, flat.dtype
        itemsize = dtype.itemsize
        length = SLOT // itemsize
        share = -(-length // size)
        steps = -(-flat.size // length)
        first = self._take_steps(steps)
        receives = root is None or rank == root
        for i in range(steps + 2):
            if i < steps:
                part = flat[i * length : (i + 1) * length]
                yield from self._free(first + i)
                self._slot(rank, first + i)[: part.nbytes].view(dtype)[...] = part
                self._say(POSTED, first + i + 1)
            if 1 <= i <= steps:
                step = first + i - 1
                count = min(length, flat.size - (i - 1) * length)
                begin, end = min(count, rank * share), min(count, (rank + 1) * share)
                yield from self._until(POSTED, step + 1)
                if end > begin:
                    where = slice(begin * itemsize, end * itemsize)
                    parts = [self._slot(q, step)[where].view(dtype) for q in range(size)]
                    combine(op, parts, self._sum(rank, step)[: parts[0].nbytes].view(dtype), size)
                self._say(DONE, step + 1)
            if i >= 2:
                step, start = first + i - 2, (i - 2) * length
                count = min(length, flat.size - start)
                for q in range(size) if receives else ():
                    begin, end = min(count, q * share), min(count, (q + 1) * share)
                    if end > begin:
                        yield from self._until(DONE, step + 1, () if q == rank else (q,))
                        sums = self._sum(q, step)[: (end - begin) * itemsize]
                        flat[start + begin : start + end] = sums.view(dtype)
                self._say(READ, step + 1)

    def _all_reduce_of_two(self, flat: Array, op: Reduction, root: int | None) -> Steps:
        """Each adds the other's data to its own: as much comes from the other as in shares, and nothing is written twice."""
        rank, dtype = self.rank, flat.dtype
        length = SLOT // dtype.itemsize
        steps = -(-flat.size // length)
        first = self._take_steps(steps)
        receives, gives = root in (None, rank), root != rank
        for i in range(steps + 1):
            if i < steps:
                part = flat[i * length : (i + 1) * length]
                if gives:
                    yield from self._free(first + i)
                    self._slot(rank, first + i)[: part.nbytes].view(dtype)[...] = part
                self._say(POSTED, first + i + 1)
            if i >= 1:
                step = first + i - 1
                if receives:
                    part = flat[(i - 1) * length : i * length]
                    yield from self._until(POSTED, step + 1)
                    theirs = self._slot(1 - rank, step)[: part.nbytes].view(dtype)
                    combine(op, (theirs, part) if rank else (part, theirs), part, 2)
                self._say(READ, step + 1)

    def _all_at(self, n: int, placed: Placed) -> bool:
        """Whether the arrays of all ranks lie at one place of shared memory."""
        return all(place == placed.place for place in self._pages.places(n))

    def _all_reduce_in_place(self, array: Array, op: Reduction, placed: Placed) -> Work:
        """Arrays in shared memory; done at once where the other ranks are there, without what carries on with it later."""
        pages, card, place = self._pages, self._card("all_reduce", array, op), placed.place
        if self._queue or pages.count % (CARDS // 2) == 0 or not self._lock.acquire(False):
            n = self._arrive(card, place)
            return self._start("all_reduce", self._all_reduce(n, array.reshape(-1), op, None, placed), array)
        try:
            n = pages.arrive(card, place)
            flat = array.reshape(-1)
            at = FIRST_CARD + n % CARDS * 2
            for block in pages.others:
                if block[ARRIVED] <= n:
                    for _ in self._asks:
                        if block[ARRIVED] > n:
                            break
                    else:
                        return self._enqueue("all_reduce", self._all_reduce(n, flat, op, None, placed), array)
                if block[at] != card:
                    raise pages.mismatch(n)
                if block[at + 1] != place:
                    return self._enqueue("all_reduce", self._all_reduce(n, flat, op, None, placed), array)
            if FENCES:
                fence()
            self._reduce_share(flat, op, placed)
            self._say(REDUCED, n + 1)
            if not n % 16:
                pages.mine[CHECKED] = n + 1
            for block in pages.others:
                if block[REDUCED] <= n:
                    for _ in self._asks:
                        if block[REDUCED] > n:
                            break
                    else:
                        return self._enqueue("all_reduce", self._until(REDUCED, n + 1), array)
            if FENCES:
                fence()
            return DONE_AT_ONCE
        finally:
            self._lock.release()

    def _reduce_in_place(self, n: int, flat: Array, op: Reduction, placed: Placed) -> Steps:
        self._reduce_share(flat, op, placed)
        self._say(REDUCED, n + 1)
        yield from self._until(REDUCED, n + 1)

    def _reduce_share(self, flat: Array, op: Reduction, placed: Placed) -> None:
        """This rank's share of all ranks' arrays is combined where it lies, and written to all."""
        size = self.size
        scratch = np.empty(BLOCK // flat.dtype.itemsize, flat.dtype) if size > 2 and placed.pieces else None
        for piece in placed.pieces:
            parts = [flat[part] if type(part) is slice else part for part in piece]
            sums = parts[0] if scratch is None else scratch[: len(parts[0])]
            combine(op, parts, sums, size)
            for part in parts:
                if part is not sums:
                    part[...] = sums

    def _reduce_scatter(
        self, n: int, array: Array, source: Array, parts: list[Array], op: Reduction, placed: Placed | None
    ) -> Steps:
        yield from self._all_here(n)
        size, rank, dtype = self.size, self.rank, array.dtype
        if placed is not None and self._all_at(n, placed):
            # The sources lie in shared memory: read this rank's part of all of them where it is.
            begin = sum(part.size for part in parts[:rank])
            mine = self._allocations.sources(placed, source, begin, array.size)
            length = BLOCK // dtype.itemsize
            for start in range(0, array.size, length):
                combine(op, [a[start : start + length] for a in mine], array[start : start + length], size)
            self._say(REDUCED, n + 1)
            yield from self._until(REDUCED, n + 1)
            return
        length = SLOT // size // dtype.itemsize
        width = length * dtype.itemsize
        steps = -(-max(part.size for part in parts) // length)
        first = self._take_steps(steps)
        for i in range(steps + 1):
            if i < steps:
                yield from self._free(first + i)
                slot = self._slot(rank, first + i)
                for q, whole in enumerate(parts):
                    part = whole[i * length : (i + 1) * length]
                    slot[q * width : q * width + part.nbytes].view(dtype)[...] = part
                self._say(POSTED, first + i + 1)
            if i >= 1:
                step = first + i - 1
                out = array[(i - 1) * length : i * length]
                yield from self._until(POSTED, step + 1)
                if out.size:
                    where = slice(rank * width, rank * width + out.nbytes)
                    combine(op, [self._slot(q, step)[where].view(dtype) for q in range(size)], out, size)
                self._say(READ, step + 1)

    def _broadcast(self, n: int, array: Array, root: int) -> Steps:
        yield from self._all_here(n)
        steps = -(-array.size // SLOT)
        first = self._take_steps(steps)
        for i in range(steps):
            step = first + i
            part = array[i * SLOT : (i + 1) * SLOT]
            if self.rank == root:
                yield from self._free(step)
                self._slot(root, step)[: part.size] = part
                self._say(POSTED, step + 1)
            else:
                yield from self._until(POSTED, step + 1, (root,))
                part[...] = self._slot(root, step)[: part.size]
            self._say(READ, step + 1)

    def _gather(self, n: int, array: Array, out: list[Array] | None, root: int | None, most: int) -> Steps:
        """To one rank, or to all where `root` is None; `most`: bytes of the longest rank's array."""
        yield from self._all_here(n)
        rank = self.rank
        if out is not None:
            out[rank][...] = array
        steps = -(-most // SLOT)
        first = self._take_steps(steps)
        for i in range(steps + 1):
            if i < steps:
                part = array[i * SLOT : (i + 1) * SLOT]
                if part.size and rank != root:
                    yield from self._free(first + i)
                    self._slot(rank, first + i)[: part.size] = part
                self._say(POSTED, first + i + 1)
            if i >= 1:
                step = first + i - 1
                for q, whole in enumerate(out or ()):
                    part = whole[(i - 1) * SLOT : i * SLOT]
                    if q != rank and part.size:
                        yield from self._until(POSTED, step + 1, (q,))
                        part[...] = self._slot(q, step)[: part.size]
                self._say(READ, step + 1)

    def _scatter(self, n: int, array: Array, parts: list[Array] | None, root: int, most: int) -> Steps:
        yield from self._all_here(n)
        width = SLOT // self.size
        steps = -(-most // width)
        first = self._take_steps(steps)
        if parts is not None:
            array[...] = parts[self.rank]
        for i in range(steps):
            step = first + i
            if parts is not None:
                yield from self._free(step)
                self._put(step, parts, i, width)
                self._say(POSTED, step + 1)
            else:
                out = array[i * width : (i + 1) * width]
                if out.size:
                    yield from self._until(POSTED, step + 1, (root,))
                    out[...] = self._slot(root, step)[self.rank * width :][: out.size]
            self._say(READ, step + 1)

    def _all_to_all(self, n: int, out: list[Array], parts: list[Array], uneven: bool) -> Steps:
        yield from self._all_here(n)
        rank = self.rank
        most = parts[0].size
        if uneven:  # how long the longest part is between any two ranks
            step = self._take_steps(1)
            yield from self._free(step)
            self._slot(rank, step)[:8].view(np.int64)[0] = max(part.size for part in parts)
            self._say(POSTED, step + 1)
            yield from self._until(POSTED, step + 1)
            most = max(int(self._slot(q, step)[:8].view(np.int64)[0]) for q in range(self.size))
            self._say(READ, step + 1)
        width = SLOT // self.size
        steps = -(-most // width)
        first = self._take_steps(steps)
        out[rank][...] = parts[rank]
        for i in range(steps + 1):
            if i < steps:
                yield from self._free(first + i)
                self._put(first + i, parts, i, width)
                self._say(POSTED, first + i + 1)
            if i >= 1:
                step = first + i - 1
                for q, whole in enumerate(out):
                    part = whole[(i - 1) * width : i * width]
                    if q != rank and part.size:
                        yield from self._until(POSTED, step + 1, (q,))
                        part[...] = self._slot(q, step)[rank * width :][: part.size]
                self._say(READ, step + 1)

    def _put(self, step: int, parts: list[Array], i: int, width: int) -> None:
        """Put the `i`-th piece of each other rank's part into its section of this rank's slot."""
        slot = self._slot(self.rank, step)
        for q, whole in enumerate(parts):
            part = whole[i * width : (i + 1) * width]
            if q != self.rank and part.size:
                slot[q * width : q * width + part.size] = part


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
