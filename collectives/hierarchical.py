"""HierarchicalTransport: inside the nodes first, then between them, so that as little as possible crosses the network.

Sums over nodes with equally many ranks go in slices: inside a node each rank gets the sum of one slice, adds it up with
the ranks of the other nodes that have the same slice, all at once, and hands the result out in its node. Where nodes
differ, one rank of a node does it for all. Operations whose every byte has to cross anyway go directly.

float16 and bfloat16 come here in float32 (`Transport.accumulates_half`), so that they are rounded once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from .reductions import Reduction
from .shared import SharedTransport
from .staging import Array
from .transport import Counts, Transport
from .work import Work

__all__ = ["HierarchicalTransport"]

Steps = Generator[Work, None, None]


class HierarchicalTransport(Transport):
    """Ranks on several nodes.

    Parameters
    ----------
    base : Transport
        Between all ranks: messages, and operations that gain nothing.
    node_of : sequence of int
        Each rank's node, numbered from 0 in the order of their first ranks.
    node : Transport
        The ranks of this node, in their order.
    across : Transport
        The ranks of the other nodes that have this rank's number in theirs, in the order of the nodes. Where nodes have
        different numbers of ranks, only that of the first ranks is used.
    """

    name = "hierarchical"

    def __init__(self, base: Transport, node_of: Sequence[int], node: Transport, across: Transport):
        super().__init__(base.rank, base.size)
        self.base, self.node, self.across = base, node, across
        self.node_of = list(node_of)
        self._members = [[r for r in range(base.size) if node_of[r] == n] for n in range(max(node_of) + 1)]
        self._even = len({len(members) for members in self._members}) == 1
        self._in_order = [r for members in self._members for r in members] == list(range(base.size))
        if isinstance(node, SharedTransport):
            node.name_ranks(self._members[node_of[base.rank]])
        self._queue: deque[_Entry] = deque()
        self._lock = threading.Lock()

    @classmethod
    def over(cls, base: Transport, node_of: Sequence[int], shared: Any) -> HierarchicalTransport:
        """Make the transports of the parts; `shared` makes that of a node of more than one rank."""
        mine = node_of[base.rank]
        members = [r for r in range(base.size) if node_of[r] == mine]
        node, across = base.split(mine, base.rank), base.split(members.index(base.rank), mine)
        assert node is not None and across is not None
        return cls(base, node_of, shared(node), across)

    # Reductions ------------------------------------------------------------------------------------------------------

    def all_reduce(self, array: Array, op: Reduction) -> Work:
        return self._start("all_reduce", self._all_reduce(array.reshape(-1), op), array)

    def _all_reduce(self, flat: Array, op: Reduction) -> Steps:
        size, rank = self.node.size, self.node.rank
        if size > 1 and self._even and flat.size >= size:
            share = flat.size // size
            counts = [share + (q < flat.size % size) for q in range(size)]
            begin = sum(counts[:rank])
            mine = flat[begin : begin + counts[rank]]
            yield self.node.reduce_scatter(own := np.empty_like(mine), flat, op, counts)
            yield self.across.all_reduce(own, op)
            yield self.node.all_gather(flat, own, counts)
            return
        if size > 1:
            yield self.node.reduce(flat, 0, op)
        if rank == 0:
            yield self.across.all_reduce(flat, op)
        if size > 1:
            yield self.node.broadcast(flat, 0)

    def reduce(self, array: Array, root: int, op: Reduction) -> Work:
        return self._start("reduce", self._reduce(array.reshape(-1), root, op), array)

    def _reduce(self, flat: Array, root: int, op: Reduction) -> Steps:
        home = self.node_of[root]
        here = self.node_of[self.rank] == home
        # The first rank of each node collects; on the root's node the result goes on to the root.
        partial = flat.copy() if self.node.rank == 0 and self.rank != root else flat
        if self.node.size > 1:
            yield self.node.reduce(partial, 0, op)
        if self.node.rank == 0:
            yield self.across.reduce(partial, home, op)
        local_root = self._members[home].index(root)
        if here and local_root:
            if self.rank == root:
                yield self.node.recv(flat, 0, _TAG)
            elif self.node.rank == 0:
                yield self.node.send(partial, local_root, _TAG)

    def reduce_scatter(self, array: Array, source: Array, op: Reduction, counts: Counts = None) -> Work:
        if not (self._even and self._in_order and counts is None and self.node.size > 1):
            return self.base.reduce_scatter(array, source, op, counts)
        return self._start("reduce_scatter", self._reduce_scatter(array, source, op), array, source)

    def _reduce_scatter(self, array: Array, source: Array, op: Reduction) -> Steps:
        # (node, rank in it, elements) becomes (rank in it, node, elements): what local rank r's peers everywhere need.
        rows = np.ascontiguousarray(source.reshape(len(self._members), self.node.size, -1).swapaxes(0, 1))
        mine = np.empty_like(rows[0])
        yield self.node.reduce_scatter(mine, rows, op)
        yield self.across.reduce_scatter(array, mine, op)

    # Movement --------------------------------------------------------------------------------------------------------

    def broadcast(self, array: Array, root: int) -> Work:
        return self._start("broadcast", self._broadcast(array, root), array)

    def _broadcast(self, array: Array, root: int) -> Steps:
        home = self.node_of[root]
        local_root = self._members[home].index(root)
        if self.node_of[self.rank] == home and self.node.size > 1:
            yield self.node.broadcast(array, local_root)
        if self.node.rank == 0:
            yield self.across.broadcast(array, home)
        if self.node_of[self.rank] != home and self.node.size > 1:
            yield self.node.broadcast(array, 0)

    def all_gather(self, out: Array, array: Array, counts: Counts = None) -> Work:
        if not self._in_order or max(map(len, self._members)) == 1:
            return self.base.all_gather(out, array, counts)
        return self._start("all_gather", self._all_gather(out.reshape(-1), array.reshape(-1), counts), out, array)

    def _all_gather(self, out: Array, array: Array, counts: Counts) -> Steps:
        each = [array.size] * self.size if counts is None else list(counts)
        totals = [sum(each[r] for r in members) for members in self._members]
        mine = self.node_of[self.rank]
        begin = sum(totals[:mine])
        own = out[begin : begin + totals[mine]]
        first = self.node.rank == 0
        yield self.node.gather(own if first else None, array, 0, [each[r] for r in self._members[mine]])
        if first:
            yield self.across.all_gather(out, own.copy(), totals)
        if out.size:
            yield self.node.broadcast(out, 0)

    def gather(self, out: Array | None, array: Array, root: int, counts: Counts = None) -> Work:
        return self.base.gather(out, array, root, counts)

    def scatter(self, array: Array, source: Array | None, root: int, counts: Counts = None) -> Work:
        return self.base.scatter(array, source, root, counts)

    def all_to_all(self, out: Array, array: Array, out_counts: Counts = None, counts: Counts = None) -> Work:
        return self.base.all_to_all(out, array, out_counts, counts)

    def send(self, array: Array, destination: int, tag: int) -> Work:
        return self.base.send(array, destination, tag)

    def recv(self, array: Array, source: int | None, tag: int) -> Work:
        return self.base.recv(array, source, tag)

    def barrier(self) -> Work:
        return self._start("barrier", self._barrier())

    def _barrier(self) -> Steps:
        if self.node.size > 1:
            yield self.node.barrier()
        if self.node.rank == 0:
            yield self.across.barrier()
        if self.node.size > 1:
            yield self.node.barrier()

    # The group -------------------------------------------------------------------------------------------------------

    def split(self, color: int | None, key: int) -> Transport | None:
        return self.base.split(color, key)

    def description(self) -> str:
        return f"hierarchical ({self.node.description()} inside of nodes, {self.across.description()} between them)"

    def abort(self, code: int) -> None:
        self.base.abort(code)

    def close(self) -> None:
        for part in (self.node, self.across, self.base):
            part.close()

    def late(self) -> Sequence[int] | None:
        waiting = self.node.late()
        mine = self._members[self.node_of[self.rank]]
        return [mine[r] for r in waiting] if waiting else None

    # Carrying operations out -----------------------------------------------------------------------------------------

    def _start(self, operation: str, steps: Steps, *keep: Array | None) -> Work:
        entry = _Entry(steps)
        self._queue.append(entry)

        def poll() -> bool:
            if not entry.done and entry.error is None:
                self._advance()
            if entry.error is not None:
                raise entry.error
            return entry.done

        work = Work(operation, poll, keep=keep)
        work.test()
        return work

    def _advance(self) -> None:
        """Carry on with the operation that is first in order, and with those after it."""
        if not self._lock.acquire(blocking=False):  # another thread does
            return
        try:
            while self._queue:
                entry = self._queue[0]
                try:
                    while True:
                        if entry.part is not None:
                            if not entry.part.test():
                                return
                            entry.part.wait()  # raises what went wrong
                        entry.part = next(entry.steps)
                except StopIteration:
                    entry.done = True
                except Exception as error:
                    entry.error = error
                self._queue.popleft()
        finally:
            self._lock.release()


_TAG = 0
"""Tags of messages inside the transport: the parts' transports carry nobody else's."""


class _Entry:
    """An operation in the queue."""

    __slots__ = ("done", "error", "part", "steps")

    def __init__(self, steps: Steps):
        self.steps = steps
        self.part: Work | None = None
        self.done = False
        self.error: Exception | None = None
