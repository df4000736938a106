"""Reductions through shared memory, as steps of an `Exchange`."""

from __future__ import annotations

import numpy as np

from .arrivals import DONE, POSTED, READ, REDUCED
from .exchange import SLOT, Exchange, Steps
from .reductions import Reduction, combine
from .shared_blocks import Placed
from .staging import Array

__all__ = ["BLOCK", "all_reduce", "reduce_scatter", "reduce_share"]

BLOCK = 128 * 1024
"""Bytes that are reduced at a time where arrays are in shared memory."""


def all_reduce(
    x: Exchange, n: int, flat: Array, op: Reduction, root: int | None = None, placed: Placed | None = None
) -> Steps:
    """To one rank, or to all where `root` is None.

    Three things in turn, for three steps at a time: give data, add up one's share of it, take the sums.
    """
    yield from x.all_here(n)
    if placed is not None and all_at(x, n, placed):
        yield from reduce_in_place(x, n, flat, op, placed)
        return
    if x.size == 2:
        yield from all_reduce_of_two(x, flat, op, root)
        return
    size, rank, dtype = x.size, x.rank, flat.dtype
    itemsize = dtype.itemsize
    length = SLOT // itemsize
    share = -(-length // size)
    steps = -(-flat.size // length)
    first = x.take_steps(steps)
    receives = root is None or rank == root
    for i in range(steps + 2):
        if i < steps:
            part = flat[i * length : (i + 1) * length]
            yield from x.free(first + i)
            x.slot(rank, first + i)[: part.nbytes].view(dtype)[...] = part
            x.say(POSTED, first + i + 1)
        if 1 <= i <= steps:
            step = first + i - 1
            count = min(length, flat.size - (i - 1) * length)
            begin, end = min(count, rank * share), min(count, (rank + 1) * share)
            yield from x.until(POSTED, step + 1)
            if end > begin:
                where = slice(begin * itemsize, end * itemsize)
                parts = [x.slot(q, step)[where].view(dtype) for q in range(size)]
                combine(op, parts, x.sums(rank, step)[: parts[0].nbytes].view(dtype), size)
            x.say(DONE, step + 1)
        if i >= 2:
            step, start = first + i - 2, (i - 2) * length
            count = min(length, flat.size - start)
            for q in range(size) if receives else ():
                begin, end = min(count, q * share), min(count, (q + 1) * share)
                if end > begin:
                    yield from x.until(DONE, step + 1, () if q == rank else (q,))
                    sums = x.sums(q, step)[: (end - begin) * itemsize]
                    flat[start + begin : start + end] = sums.view(dtype)
            x.say(READ, step + 1)


def all_reduce_of_two(x: Exchange, flat: Array, op: Reduction, root: int | None) -> Steps:
    """Each adds the other's data to its own: as much comes from the other as in shares, and nothing is written twice."""
    rank, dtype = x.rank, flat.dtype
    length = SLOT // dtype.itemsize
    steps = -(-flat.size // length)
    first = x.take_steps(steps)
    receives, gives = root in (None, rank), root != rank
    for i in range(steps + 1):
        if i < steps:
            part = flat[i * length : (i + 1) * length]
            if gives:
                yield from x.free(first + i)
                x.slot(rank, first + i)[: part.nbytes].view(dtype)[...] = part
            x.say(POSTED, first + i + 1)
        if i >= 1:
            step = first + i - 1
            if receives:
                part = flat[(i - 1) * length : i * length]
                yield from x.until(POSTED, step + 1)
                theirs = x.slot(1 - rank, step)[: part.nbytes].view(dtype)
                combine(op, (theirs, part) if rank else (part, theirs), part, 2)
            x.say(READ, step + 1)


def all_at(x: Exchange, n: int, placed: Placed) -> bool:
    """Whether the arrays of all ranks lie at one place of shared memory."""
    return all(place == placed.place for place in x.pages.places(n))


def reduce_in_place(x: Exchange, n: int, flat: Array, op: Reduction, placed: Placed) -> Steps:
    """Arrays that lie in shared memory, all at one place; ends when all ranks have reduced their shares."""
    reduce_share(flat, op, placed)
    x.say(REDUCED, n + 1)
    yield from x.until(REDUCED, n + 1)


def reduce_share(flat: Array, op: Reduction, placed: Placed) -> None:
    """This rank's share of all ranks' arrays is combined where it lies, and written to all."""
    if not placed.pieces:
        return
    size = len(placed.pieces[0])
    scratch = np.empty(BLOCK // flat.dtype.itemsize, flat.dtype) if size > 2 else None
    for piece in placed.pieces:
        parts = [flat[part] if type(part) is slice else part for part in piece]
        sums = parts[0] if scratch is None else scratch[: len(parts[0])]
        combine(op, parts, sums, size)
        for part in parts:
            if part is not sums:
                part[...] = sums


def reduce_scatter(
    x: Exchange, n: int, array: Array, parts: list[Array], op: Reduction,
    placed: Placed | None = None, sources: list[Array] | None = None,
) -> Steps:  # fmt: skip
    """`parts` are this rank's; `sources`, where they lie in shared memory, all ranks' for this one, read where they are."""
    yield from x.all_here(n)
    size, rank, dtype = x.size, x.rank, array.dtype
    if placed is not None and sources is not None and all_at(x, n, placed):
        length = BLOCK // dtype.itemsize
        for start in range(0, array.size, length):
            combine(op, [a[start : start + length] for a in sources], array[start : start + length], size)
        x.say(REDUCED, n + 1)
        yield from x.until(REDUCED, n + 1)
        return
    length = SLOT // size // dtype.itemsize
    width = length * dtype.itemsize
    steps = -(-max(part.size for part in parts) // length)
    first = x.take_steps(steps)
    for i in range(steps + 1):
        if i < steps:
            yield from x.free(first + i)
            slot = x.slot(rank, first + i)
            for q, whole in enumerate(parts):
                part = whole[i * length : (i + 1) * length]
                slot[q * width : q * width + part.nbytes].view(dtype)[...] = part
            x.say(POSTED, first + i + 1)
        if i >= 1:
            step = first + i - 1
            out = array[(i - 1) * length : i * length]
            yield from x.until(POSTED, step + 1)
            if out.size:
                where = slice(rank * width, rank * width + out.nbytes)
                combine(op, [x.slot(q, step)[where].view(dtype) for q in range(size)], out, size)
            x.say(READ, step + 1)
