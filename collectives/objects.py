"""Python objects between ranks: pickled, and moved as arrays of bytes by the operations every transport has."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import CommunicationError

if TYPE_CHECKING:
    from .communicator import Communicator

__all__ = ["all_gather", "broadcast", "gather", "receive", "scatter", "send"]

ROUND = 16 * 2**20
"""Bytes of each rank that are gathered at a time: one large object among small ones must not cost `size` times its
length in padding."""


def all_gather(world: Communicator, obj: Any) -> list[Any]:
    """The objects of all ranks, in their order."""
    return [pickle.loads(pickled) for pickled in _gather_pickled(world, "all_gather_object", obj, None)]


def gather(world: Communicator, obj: Any, root: int) -> list[Any] | None:
    """The objects of all ranks in their order on `root`, None on the others."""
    pickled = _gather_pickled(world, "gather_object", obj, root)
    return [pickle.loads(one) for one in pickled] if world.rank == root else None


def broadcast(world: Communicator, obj: Any, root: int) -> Any:
    """The object of `root`; on `root` that very object, elsewhere a copy."""
    payload, failure = _pickled(obj) if world.rank == root else (bytearray(), None)
    length = np.array([-1 if failure else len(payload)], np.int64)
    world.broadcast(length, root)
    _raise_failures(world, "broadcast_object", {root: int(length[0])}, failure)
    if world.rank != root:
        payload = bytearray(int(length[0]))
    world.broadcast(np.frombuffer(payload, np.uint8), root)
    return obj if world.rank == root else pickle.loads(payload)


def scatter(world: Communicator, objs: Sequence[Any] | None, root: int) -> Any:
    """This rank's object of those of `root`; on `root` that very object, elsewhere a copy."""
    payloads: list[bytearray] = []
    failure: Exception | None = None
    if world.rank == root:
        if objs is None or len(objs) != world.size:
            given = "none" if objs is None else len(objs)
            raise ValueError(f"scatter_object: rank {root} must give {world.size} objects, one for each rank, got {given}")
        for obj in objs:
            payload, why = _pickled(obj)
            failure = failure or why
            payloads.append(payload)
    lengths = np.array([-1 if failure else len(payload) for payload in payloads] or [0] * world.size, np.int64)
    world.broadcast(lengths, root)
    counts = lengths.tolist()
    _raise_failures(world, "scatter_object", {root: min(counts)}, failure)
    mine = np.empty(counts[world.rank], np.uint8)
    source = np.frombuffer(b"".join(payloads), np.uint8) if world.rank == root else None
    world.scatter(mine, source, root, counts=counts)
    return objs[root] if world.rank == root and objs is not None else pickle.loads(mine.tobytes())


def send(world: Communicator, obj: Any, destination: int, tag: int) -> None:
    """Send an object: its length, then itself."""
    payload = pickle.dumps(obj, protocol=pickle.HIGHEST_PROTOCOL)
    with world.coalesce() as both:
        world.send(np.array([len(payload)], np.int64), destination, tag)
        world.send(np.frombuffer(payload, np.uint8), destination, tag)
    if destination != world.rank:
        both.wait()


def receive(world: Communicator, source: int | None, tag: int) -> tuple[Any, int]:
    """Receive an object, and which rank sent it."""
    length = np.empty(1, np.int64)
    sender = world.recv(length, source, tag).source
    assert sender is not None
    payload = np.empty(int(length[0]), np.uint8)
    world.recv(payload, sender, tag)
    return pickle.loads(payload.tobytes()), sender


def _pickled(obj: Any) -> tuple[bytearray, Exception | None]:
    """The pickled object, or why it cannot be: the other ranks wait for us and must be told."""
    try:
        return bytearray(pickle.dumps(obj, protocol=pickle.HIGHEST_PROTOCOL)), None
    except Exception as error:
        return bytearray(), error


def _gather_pickled(world: Communicator, name: str, obj: Any, root: int | None) -> list[bytearray]:
    """What each rank pickled; on all ranks if `root` is None, otherwise on `root` (empty elsewhere)."""
    payload, failure = _pickled(obj)
    lengths = np.empty((world.size, 1), np.int64)
    world.all_gather(lengths, np.array([-1 if failure else len(payload)], np.int64))
    _raise_failures(world, name, dict(enumerate(lengths[:, 0].tolist())), failure)
    receives = root is None or world.rank == root
    collected = [bytearray() for _ in range(world.size)]
    longest = int(lengths.max())
    for start in range(0, longest, ROUND):
        width = min(ROUND, longest - start)
        part = np.zeros(width, np.uint8)
        mine = np.frombuffer(payload, np.uint8)[start : start + width]
        part[: mine.size] = mine
        rows = np.empty((world.size, width), np.uint8) if receives else None
        if root is None:
            world.all_gather(rows, part)
        else:
            world.gather(rows, part, root)
        if rows is not None:
            for rank, row in enumerate(rows):
                collected[rank] += row[: max(0, int(lengths[rank, 0]) - start)].tobytes()
    return collected


def _raise_failures(world: Communicator, name: str, lengths: dict[int, int], failure: Exception | None) -> None:
    failed = [rank for rank, length in lengths.items() if length < 0]
    if failed:
        ranks = ", ".join(str(rank) for rank in failed)
        own = f": {type(failure).__name__}: {failure}" if failure else ""
        raise CommunicationError(f"{name}: the object of rank {ranks} cannot be pickled{own}") from failure
