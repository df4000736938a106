"""Each operation as messages between the ranks.

An algorithm is a generator: it starts messages, yields those that it has to wait for, and goes on when they are done. Ranks are the
group's; arrays are flat. Every reduction combines in an order that depends on the number of ranks and the size of the array
alone, never on who is faster, and every rank of an all-reduce gets the same bits.

Short arrays take few steps (the latency counts), long ones send every byte as seldom as possible (the bandwidth counts): a ring
all-reduce sends 2 (n - 1) / n of the array from each rank, which no algorithm can do with less (Patarasuk and Yuan 2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from ..reductions import Reduction, is_half
from .calls import Call, Steps
from .requests import Receive

__all__ = [
    "LONG", "all_gather", "all_reduce", "all_to_all", "barrier", "broadcast", "gather", "parts_of", "receive", "reduce",
    "reduce_scatter", "scatter", "send",
]  # fmt: skip

LONG = 1 << 16
"""Bytes from which an array is worth being cut into parts."""
HALF_SEGMENT = 1 << 25
"""Elements of a half type that are reduced at a time: their sums in float32 take memory."""

_NOTHING = np.empty(0, np.uint8)


def parts_of(flat: np.ndarray, counts: Sequence[int] | None, size: int) -> list[np.ndarray]:
    """The array's part for each rank; without counts as even as it goes.

    Examples
    --------
    >>> [len(part) for part in parts_of(np.arange(7), None, 3)]
    [2, 2, 3]
    >>> [len(part) for part in parts_of(np.arange(7), [0, 7, 0], 3)]
    [0, 7, 0]
    """
    ends = [len(flat) * (rank + 1) // size for rank in range(size)] if counts is None else list(accumulate(counts))
    return [flat[begin:end] for begin, end in zip([0, *ends], ends)]


def barrier(call: Call) -> Steps:
    """Dissemination (Hensgen, Finkel and Manber 1988): after step k each rank knows of 2 ** k others."""
    distance = 1
    while distance < call.size:
        yield (
            call.send((call.rank + distance) % call.size, _NOTHING, distance),
            call.receive((call.rank - distance) % call.size, _NOTHING.copy(), distance),
        )
        distance *= 2


def send(call: Call, array: np.ndarray, rank: int) -> Steps:
    """One message."""
    yield (call.send(rank, array),)


def receive(call: Call, array: np.ndarray, rank: int | None) -> Steps:
    """One message."""
    yield (call.receive(rank, array),)


# Reductions ----------------------------------------------------------------------------------------------------------


def all_reduce(call: Call, array: np.ndarray, op: Reduction) -> Steps:
    """Combine the ranks' arrays in place."""
    if call.size == 1:
        if op.logical:
            array[...] = array != 0
    elif array.nbytes < LONG or len(array) < call.size:
        yield from _doubling(call, array, op)
    elif is_half(array.dtype):
        # Sums travel rounded in a ring, so each part goes to the rank that adds it up, in float32.
        slot = 0
        for begin in range(0, len(array), HALF_SEGMENT):
            parts = parts_of(array[begin : begin + HALF_SEGMENT], None, call.size)
            yield from _scattered(call, parts[call.rank], parts, op, slot)
            yield from _ring_gather(call, parts, call.rank, slot + call.size)
            slot += 2 * call.size
    else:
        yield from _ring(call, array, op)


def _doubling(call: Call, array: np.ndarray, op: Reduction) -> Steps:
    """Recursive doubling: ranks exchange their sums with one that is 1, 2, 4, ... away.

    Ranks beyond a power of two give theirs to a neighbour first. The sums that are combined are always those of two runs of
    neighbouring ranks, the lower run's first, on both sides.
    """
    sums = array.astype(np.float32) if is_half(array.dtype) else array
    other = np.empty_like(sums)
    power = 1 << (call.size.bit_length() - 1)
    extra = call.size - power
    paired = call.rank < 2 * extra
    if paired and call.rank % 2:
        yield (call.send(call.rank - 1, sums),)
        yield (call.receive(call.rank - 1, sums, 1),)
    else:
        if paired:
            yield (call.receive(call.rank + 1, other),)
            _combine(op, sums, other, sums)
        place = call.rank // 2 if paired else call.rank - extra
        distance = 1
        while distance < power:
            partner = place ^ distance
            rank = 2 * partner if partner < extra else partner + extra
            yield call.send(rank, sums, 1 + distance), call.receive(rank, other, 1 + distance)
            first, second = (sums, other) if place < partner else (other, sums)
            _combine(op, first, second, sums)
            distance *= 2
        _average(op, sums, call.size)
        if paired:
            yield (call.send(call.rank + 1, sums, 1),)
    _round(array, sums)


def _ring(call: Call, array: np.ndarray, op: Reduction) -> Steps:
    """Each part's sum goes around the ring and grows, then around again, complete."""
    rank, size = call.rank, call.size
    parts = parts_of(array, None, size)
    before, after = (rank - 1) % size, (rank + 1) % size

    def expect(step: int) -> Receive:
        part = parts[(rank - step - 1) % size]

        def combine(begin: int, end: int, block: np.ndarray) -> None:
            sums = part[begin:end]
            op.function(sums, block, out=sums)
            if step == size - 2:
                _average(op, sums, size)

        return call.receive_and_combine(before, len(part), array.dtype, combine, step)

    receives = [expect(step) for step in range(size - 1)]
    for step in range(size - 1):
        yield call.send(after, parts[(rank - step) % size], step), receives[step]
    yield from _ring_gather(call, parts, after, size)


def _ring_gather(call: Call, parts: list[np.ndarray], mine: int, slot: int) -> Steps:
    """Each rank's part goes around the ring; `mine` is the one that this rank has."""
    rank, size = call.rank, call.size
    receives = [call.receive((rank - 1) % size, parts[(mine - step - 1) % size], slot + step) for step in range(size - 1)]
    sends = []
    for step in range(size - 1):
        sends.append(call.send((rank + 1) % size, parts[(mine - step) % size], slot + step))
        yield (receives[step],)
    yield sends


def _scattered(call: Call, out: np.ndarray, parts: Sequence[np.ndarray], op: Reduction, slot: int = 0) -> Steps:
    """Each rank adds up the part that is for it, in the order of its neighbours; `out` may be its own part."""
    rank, size = call.rank, call.size
    mine = parts[rank]
    if size == 1:
        out[...] = mine != 0 if op.logical else mine
        return
    half = is_half(out.dtype)
    # Half types are added in float32 and rounded once; two ranks need no memory for it but the block's.
    sums = np.empty(len(mine), np.float32) if half and size > 2 else out

    def expect(step: int) -> Receive:
        def combine(begin: int, end: int, block: np.ndarray) -> None:
            so_far = mine[begin:end] if step == 1 else sums[begin:end]
            result = sums[begin:end]
            if half:
                result = so_far.astype(np.float32) if step == 1 else so_far
                op.function(result, block.astype(np.float32), out=result)
            else:
                op.function(so_far, block, out=result)
            if step == size - 1:
                _average(op, result, size)
                if half:
                    out[begin:end] = result
            elif half and step == 1:
                sums[begin:end] = result

        return call.receive_and_combine((rank - step) % size, len(mine), out.dtype, combine, slot + step)

    sends = [call.send((rank + step) % size, parts[(rank + step) % size], slot + step) for step in range(1, size)]
    for step in range(1, size):
        # One after the other: two at once would be added in the order in which they come.
        yield (expect(step),)
    yield sends


def reduce_scatter(call: Call, out: np.ndarray, source: np.ndarray, counts: Sequence[int] | None, op: Reduction) -> Steps:
    """Combine the ranks' sources, each rank its own part."""
    yield from _scattered(call, out, parts_of(source, counts, call.size), op)


def reduce(call: Call, array: np.ndarray, root: int, op: Reduction) -> Steps:
    """Combine the ranks' arrays on one of them; the others' stay as they are."""
    if call.size == 1:
        if op.logical:
            array[...] = array != 0
        return
    if array.nbytes >= LONG and len(array) >= call.size:
        parts = parts_of(array, None, call.size)
        mine = parts[call.rank]
        sums = mine if call.rank == root else np.empty_like(mine)
        yield from _scattered(call, sums, parts, op)
        yield from _gather(call, parts if call.rank == root else None, sums, root, call.size)
        return
    # A binomial tree: the ranks of each subtree are neighbours, counted from the root.
    place = (call.rank - root) % call.size
    wide = is_half(array.dtype)
    sums = array.astype(np.float32) if wide else array if place == 0 else array.copy()
    other = np.empty_like(sums)
    distance = 1
    while distance < call.size:
        if place & distance:
            yield (call.send((place - distance + root) % call.size, sums, distance),)
            return
        if place + distance < call.size:
            yield (call.receive((place + distance + root) % call.size, other, distance),)
            _combine(op, sums, other, sums)
        distance *= 2
    _average(op, sums, call.size)
    _round(array, sums)


# Movements -----------------------------------------------------------------------------------------------------------


def broadcast(call: Call, array: np.ndarray, root: int) -> Steps:
    """A binomial tree; long arrays go from rank to rank in a chain, each passing on what comes as it comes."""
    place = (call.rank - root) % call.size
    if array.nbytes >= LONG:
        received = call.receive((call.rank - 1) % call.size, array) if place else None
        sent = call.send((call.rank + 1) % call.size, array, origin=received) if place < call.size - 1 else None
        yield [request for request in (received, sent) if request is not None]
        return
    distance = 1
    while distance < call.size:
        distance *= 2
    if place:
        parent = place & (place - 1)
        yield (call.receive((parent + root) % call.size, array),)
        distance = place & -place
    sends = []
    while distance > 1:
        distance //= 2
        if place + distance < call.size:
            sends.append(call.send((place + distance + root) % call.size, array))
    yield sends


def all_gather(call: Call, out: np.ndarray, array: np.ndarray, counts: Sequence[int] | None) -> Steps:
    """Every rank's array to every rank: short ones directly, long ones around a ring."""
    rank, size = call.rank, call.size
    parts = parts_of(out, counts, size)
    parts[rank][...] = array
    if max(part.nbytes for part in parts) >= LONG:
        yield from _ring_gather(call, parts, rank, 0)
        return
    others = [(rank + step) % size for step in range(1, size)]
    receives = [call.receive(other, parts[other]) for other in others]
    yield [*(call.send(other, array) for other in others), *receives]


def gather(call: Call, out: np.ndarray | None, array: np.ndarray, root: int, counts: Sequence[int] | None) -> Steps:
    """Every rank's array to one."""
    parts = None if out is None else parts_of(out, counts, call.size)
    if parts is not None:
        parts[root][...] = array
    yield from _gather(call, parts, array, root, 0)


def _gather(call: Call, parts: list[np.ndarray] | None, array: np.ndarray, root: int, slot: int) -> Steps:
    if parts is None:
        yield (call.send(root, array, slot),)
    else:
        yield [call.receive(other, parts[other], slot) for other in range(call.size) if other != root]


def scatter(call: Call, array: np.ndarray, source: np.ndarray | None, root: int, counts: Sequence[int] | None) -> Steps:
    """One rank's parts to all."""
    if source is None:
        yield (call.receive(root, array),)
        return
    parts = parts_of(source, counts, call.size)
    array[...] = parts[root]
    yield [call.send(other, parts[other]) for other in range(call.size) if other != root]


def all_to_all(
    call: Call, out: np.ndarray, array: np.ndarray, out_counts: Sequence[int] | None, counts: Sequence[int] | None
) -> Steps:
    """Every rank's parts to all, beginning with the next rank, so that not all send to the same one."""
    rank, size = call.rank, call.size
    incoming, outgoing = parts_of(out, out_counts, size), parts_of(array, counts, size)
    incoming[rank][...] = outgoing[rank]
    receives = [call.receive((rank - step) % size, incoming[(rank - step) % size]) for step in range(1, size)]
    sends = [call.send((rank + step) % size, outgoing[(rank + step) % size]) for step in range(1, size)]
    yield [*receives, *sends]


# Elements ------------------------------------------------------------------------------------------------------------


def _combine(op: Reduction, first: np.ndarray, second: np.ndarray, out: np.ndarray) -> None:
    with np.errstate(all="ignore"):
        op.function(first, second, out=out)


def _average(op: Reduction, sums: np.ndarray, size: int) -> None:
    if op.name == "avg":
        np.divide(sums, size, out=sums)


def _round(array: np.ndarray, sums: np.ndarray) -> None:
    """Half types are rounded once, at the end; a sum beyond their range is an infinity."""
    if sums.dtype != array.dtype:
        with np.errstate(over="ignore", invalid="ignore"):
            array[...] = sums
