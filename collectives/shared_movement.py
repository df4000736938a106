"""Movement of data through shared memory, as steps of an `Exchange`; arrays are of bytes."""

from __future__ import annotations

import numpy as np

from .arrivals import POSTED, READ
from .exchange import SLOT, Exchange, Steps
from .staging import Array

__all__ = ["all_to_all", "broadcast", "gather", "scatter"]


def broadcast(x: Exchange, n: int, array: Array, root: int) -> Steps:
    """From one rank to all."""
    yield from x.all_here(n)
    steps = -(-array.size // SLOT)
    first = x.take_steps(steps)
    for i in range(steps):
        step = first + i
        part = array[i * SLOT : (i + 1) * SLOT]
        if x.rank == root:
            yield from x.free(step)
            x.slot(root, step)[: part.size] = part
            x.say(POSTED, step + 1)
        else:
            yield from x.until(POSTED, step + 1, (root,))
            part[...] = x.slot(root, step)[: part.size]
        x.say(READ, step + 1)


def gather(x: Exchange, n: int, array: Array, out: list[Array] | None, root: int | None, most: int) -> Steps:
    """To one rank, or to all where `root` is None; `most`: bytes of the longest rank's array."""
    yield from x.all_here(n)
    rank = x.rank
    if out is not None:
        out[rank][...] = array
    steps = -(-most // SLOT)
    first = x.take_steps(steps)
    for i in range(steps + 1):
        if i < steps:
            part = array[i * SLOT : (i + 1) * SLOT]
            if part.size and rank != root:
                yield from x.free(first + i)
                x.slot(rank, first + i)[: part.size] = part
            x.say(POSTED, first + i + 1)
        if i >= 1:
            step = first + i - 1
            for q, whole in enumerate(out or ()):
                part = whole[(i - 1) * SLOT : i * SLOT]
                if q != rank and part.size:
                    yield from x.until(POSTED, step + 1, (q,))
                    part[...] = x.slot(q, step)[: part.size]
            x.say(READ, step + 1)


def scatter(x: Exchange, n: int, array: Array, parts: list[Array] | None, root: int, most: int) -> Steps:
    """From one rank its part to each; `most`: bytes of the longest part."""
    yield from x.all_here(n)
    width = SLOT // x.size
    steps = -(-most // width)
    first = x.take_steps(steps)
    if parts is not None:
        array[...] = parts[x.rank]
    for i in range(steps):
        step = first + i
        if parts is not None:
            yield from x.free(step)
            put(x, step, parts, i, width)
            x.say(POSTED, step + 1)
        else:
            out = array[i * width : (i + 1) * width]
            if out.size:
                yield from x.until(POSTED, step + 1, (root,))
                out[...] = x.slot(root, step)[x.rank * width :][: out.size]
        x.say(READ, step + 1)


def all_to_all(x: Exchange, n: int, out: list[Array], parts: list[Array], uneven: bool) -> Steps:
    """From each rank its part to each; where they are `uneven` the ranks first tell each other how long they are."""
    yield from x.all_here(n)
    rank = x.rank
    most = parts[0].size
    if uneven:  # how long the longest part is between any two ranks
        step = x.take_steps(1)
        yield from x.free(step)
        x.slot(rank, step)[:8].view(np.int64)[0] = max(part.size for part in parts)
        x.say(POSTED, step + 1)
        yield from x.until(POSTED, step + 1)
        most = max(int(x.slot(q, step)[:8].view(np.int64)[0]) for q in range(x.size))
        x.say(READ, step + 1)
    width = SLOT // x.size
    steps = -(-most // width)
    first = x.take_steps(steps)
    out[rank][...] = parts[rank]
    for i in range(steps + 1):
        if i < steps:
            yield from x.free(first + i)
            put(x, first + i, parts, i, width)
            x.say(POSTED, first + i + 1)
        if i >= 1:
            step = first + i - 1
            for q, whole in enumerate(out):
                part = whole[(i - 1) * width : i * width]
                if q != rank and part.size:
                    yield from x.until(POSTED, step + 1, (q,))
                    part[...] = x.slot(q, step)[rank * width :][: part.size]
            x.say(READ, step + 1)


def put(x: Exchange, step: int, parts: list[Array], i: int, width: int) -> None:
    """Put the `i`-th piece of each other rank's part into its section of this rank's slot."""
    slot = x.slot(x.rank, step)
    for q, whole in enumerate(parts):
        part = whole[i * width : (i + 1) * width]
        if q != x.rank and part.size:
            slot[q * width : q * width + part.size] = part
