"""TCPTransport: the operations of a group of ranks that are connected by sockets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..reductions import REDUCTIONS, Reduction
from ..staging import Array
from ..store import Store
from ..transport import Counts, Transport
from ..work import Work
from . import algorithms
from .calls import Call, Group, Steps
from .engine import Engine
from .frames import LARGEST_TAG
from .mesh import meet

__all__ = ["TCPTransport"]

WORLD = 1
"""The group of all ranks; others are numbered by one of their members' ranks and a count."""


class TCPTransport(Transport):
    """Arrays between ranks over TCP. `TCPTransport.world` connects all ranks of a job; `split` makes groups of them.

    Everything that one process has under way, in all its groups, goes on while it waits for any part of it. Between waits
    nothing moves but what the system's buffers hold: there is no thread.

    Parameters
    ----------
    engine : Engine
        This process's connections.
    group : Group
        The ranks.
    """

    name = "tcp"
    accumulates_half = True
    averages = True

    def __init__(self, engine: Engine, group: Group) -> None:
        super().__init__(group.rank, group.size)
        self._engine, self._group = engine, group
        engine.groups[group.id] = group

    @classmethod
    def world(
        cls, store: Store, rank: int, size: int, timeout: float = 300.0, *, address: str | None = None
    ) -> TCPTransport:
        """Connect all ranks of a job with each other, who find each other through a store.

        Parameters
        ----------
        store : Store
            One that all ranks reach.
        rank, size : int
            This rank, and how many there are.
        timeout : float, default 300
            Seconds to wait for the others, here and in `split`.
        address : str, optional
            The address at which the others reach this rank. Without it the one by which this machine reaches the
            store, or that of its name where the store is no `TCPStore`.

        Raises
        ------
        CommunicationError
            If ranks do not come or cannot be reached; the message names them.

        Examples
        --------
        >>> from collectives.store import HashStore
        >>> from collectives.reductions import REDUCTIONS
        >>> world = TCPTransport.world(HashStore(), 0, 1, address="127.0.0.1")
        >>> world.rank, world.size
        (0, 1)
        >>> world.close()
        """
        if not 0 <= rank < size:
            raise ValueError(f"TCPTransport: rank {rank} is none of {size}")
        host, connected = meet(store, rank, size, timeout, address)
        return cls(Engine(rank, host, connected, timeout), Group(WORLD, range(size), rank))

    def all_reduce(self, array: Array, op: Reduction) -> Work:
        flat = array.reshape(-1)
        return self._collective("all_reduce", _reduced(array, op), lambda call: algorithms.all_reduce(call, flat, op), array)

    def reduce(self, array: Array, root: int, op: Reduction) -> Work:
        flat = array.reshape(-1)
        return self._collective(
            "reduce", (root, *_reduced(array, op)), lambda call: algorithms.reduce(call, flat, root, op), array
        )

    def reduce_scatter(self, array: Array, source: Array, op: Reduction, counts: Counts = None) -> Work:
        out, flat = array.reshape(-1), source.reshape(-1)
        return self._collective(
            "reduce_scatter", (*_reduced(source, op), *(counts or ())),
            lambda call: algorithms.reduce_scatter(call, out, flat, counts, op), array, source,
        )  # fmt: skip

    def broadcast(self, array: Array, root: int) -> Work:
        flat = _bytes(array)
        return self._collective("broadcast", (flat.size, root), lambda call: algorithms.broadcast(call, flat, root), array)

    def all_gather(self, out: Array, array: Array, counts: Counts = None) -> Work:
        gathered, mine, in_bytes = _bytes(out), _bytes(array), _scaled(counts, array)
        return self._collective(
            "all_gather", (gathered.size, *(in_bytes or ())),
            lambda call: algorithms.all_gather(call, gathered, mine, in_bytes), out, array,
        )  # fmt: skip

    def gather(self, out: Array | None, array: Array, root: int, counts: Counts = None) -> Work:
        gathered, mine, in_bytes = None if out is None else _bytes(out), _bytes(array), _scaled(counts, array)
        return self._collective(
            "gather", (root, *(in_bytes or (mine.size,))),
            lambda call: algorithms.gather(call, gathered, mine, root, in_bytes), out, array,
        )  # fmt: skip

    def scatter(self, array: Array, source: Array | None, root: int, counts: Counts = None) -> Work:
        whole, mine, in_bytes = None if source is None else _bytes(source), _bytes(array), _scaled(counts, array)
        return self._collective(
            "scatter", (root, *(in_bytes or (mine.size,))),
            lambda call: algorithms.scatter(call, mine, whole, root, in_bytes), array, source,
        )  # fmt: skip

    def all_to_all(self, out: Array, array: Array, out_counts: Counts = None, counts: Counts = None) -> Work:
        incoming, outgoing = _scaled(out_counts, out), _scaled(counts, array)
        received, sent = _bytes(out), _bytes(array)
        return self._collective(
            "all_to_all", () if counts is not None else (sent.size,),
            lambda call: algorithms.all_to_all(call, received, sent, incoming, outgoing), out, array,
        )  # fmt: skip

    def send(self, array: Array, destination: int, tag: int) -> Work:
        _check_tag("send", tag)
        call = Call(self._engine, self._group, "send", tag)
        self._engine.start(call, algorithms.send(call, _bytes(array), destination))
        return self._work(call, array)

    def recv(self, array: Array, source: int | None, tag: int) -> Work:
        _check_tag("recv", tag)
        call = Call(self._engine, self._group, "recv", tag)
        self._engine.start(call, algorithms.receive(call, _bytes(array), source))

        def poll() -> bool:
            if not self._engine.poll(call):
                return False
            work.source = self._group.place_of[_came_from(call)]
            return True

        work = Work("recv", poll, cancel=lambda: self._engine.cancel(call), keep=(array,))
        return work

    def barrier(self) -> Work:
        return self._collective("barrier", (), algorithms.barrier)

    def split(self, color: int | None, key: int) -> TCPTransport | None:
        engine = self._engine
        with engine.lock:
            engine.groups_made += 1
            made = engine.groups_made
        told = np.zeros((self.size, 4), np.int64)
        mine = np.array([color is not None, color or 0, key, made], np.int64)
        call = self._call("split")
        engine.start(call, algorithms.all_gather(call, _bytes(told), _bytes(mine), None))
        engine.wait(call)
        if color is None:
            return None
        places = [place for place in range(self.size) if told[place, 0] and told[place, 1] == color]
        places.sort(key=lambda place: (told[place, 2], place))
        members = [self._group.members[place] for place in places]
        # The first member's count is its own: no other group has the pair of them.
        return TCPTransport(engine, Group((members[0] << 32) + int(told[places[0], 3]) + WORLD, members, places.index(self.rank)))

    def late(self) -> Sequence[int] | None:
        with self._engine.lock:  # another thread may let calls go on
            waiting = [call for call in self._engine.calls.values() if call.group is self._group]
            if not waiting:
                waiting = [call for call in self._engine.messages if call.group is self._group and not call.finished]
        if not waiting:
            return None
        return sorted(self._group.place_of[rank] for rank in self._engine.late(min(waiting, key=lambda call: call.number)))

    def abort(self, code: int) -> None:
        self._engine.abort(code)

    def close(self) -> None:
        if self._group.id == WORLD:
            self._engine.close()

    def _call(self, operation: str, arguments: tuple[int, ...] = ()) -> Call:
        # Python's hash of whole numbers is the same in all processes.
        code = hash(arguments) & 0xFFFFFFFF
        with self._engine.lock:
            self._group.calls += 1
            return Call(self._engine, self._group, operation, self._group.calls, code)

    def _collective(
        self, operation: str, arguments: tuple[int, ...], algorithm: Callable[[Call], Steps], *keep: Array | None
    ) -> Work:
        """Start a collective; `arguments` is what must be the same on all ranks."""
        call = self._call(operation, arguments)
        self._engine.start(call, algorithm(call))
        return self._work(call, *keep)

    def _work(self, call: Call, *keep: Array | None) -> Work:
        if call.finished and call.error is None:
            return Work(call.operation)
        return Work(call.operation, lambda: self._engine.poll(call), keep=keep)


def _check_tag(operation: str, tag: int) -> None:
    if tag > LARGEST_TAG:
        raise ValueError(f"{operation}: tag is {tag}, but over TCP 0 to {LARGEST_TAG} are allowed")


def _bytes(array: Array) -> np.ndarray:
    """Data that is only moved is moved as bytes, so every dtype can be."""
    return array.reshape(-1).view(np.uint8)


_NUMBERS = {name: number for number, name in enumerate((*REDUCTIONS, "scaled_sum"))}


def _reduced(array: Array, op: Reduction) -> tuple[int, ...]:
    """What must be the same on all ranks of a reduction."""
    return array.size, array.itemsize, ord(array.dtype.kind), _NUMBERS[op.name]


def _scaled(counts: Counts, array: Array) -> list[int] | None:
    return None if counts is None else [count * array.itemsize for count in counts]


def _came_from(call: Call) -> int:
    request = call.started[0]
    assert request.peer is not None
    return request.peer
