"""Attention in blocks of queries, or of whole heads where those are small, on memory that stays in the cache.

What backward subtracts from each row is one more column of its matrix products: [q, -lse] @ [k, 1]^T are the logarithms of the
weights, [g, -sum(g * out)] @ [v, 1]^T is what they are multiplied by.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ..kernels.attention import query_blocks
from ..kernels.precision import wide
from .softmax import row_max, row_sum

__all__ = ["attention", "attention_backward", "attention_keep"]

#: Weights at a time, of one head: 2 MiB of float32; and the fewest queries at a time, for the sake of the matrix products.
BLOCK, FEWEST = 1 << 19, 32
#: Weights at a time where heads are smaller than that: 512 KiB.
HEADS = 1 << 17
#: Queries at a time where later keys are not seen: the fewer, the more blocks of keys can be left out.
CAUSAL = 128


def attention(q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float, p: float, seed: int) -> tuple[Any, Any]:
    batch, dtype = q.shape[:-2], q.dtype
    q, k, v = (heads_of(a) for a in (q, k, v))
    out, lse = np.empty((*q.shape[:2], v.shape[2]), q.dtype), np.zeros((*q.shape[:2], 1), q.dtype)
    shape = (*q.shape[:2], k.shape[1])
    if not prod(shape):
        out[...] = 0
    q = q * q.dtype.type(scale)
    k = k.swapaxes(1, 2)
    masks = Masks(mask, batch, causal, q.dtype)
    memory = np.empty(block_size(shape, causal), q.dtype)
    for heads, start, stop, end in blocks(shape, causal):
        weights = memory[: (heads.stop - heads.start) * (stop - start) * end].reshape(-1, stop - start, end)
        np.matmul(q[heads, start:stop], k[heads, :, :end], weights)
        masks.add(weights, heads, start, stop, end)
        rows = weights.reshape(-1, end)
        largest = row_max(rows)
        if masks.hides:
            largest[np.isinf(largest)] = 0
        np.subtract(rows, largest, rows)
        np.exp(rows, rows)
        total = row_sum(rows)
        if masks.hides:
            total[total == 0] = 1
        if p:
            weights *= kept(shape, heads, start, stop, end, p, seed)
        here = out[heads, start:stop]
        np.matmul(weights, v[heads, :end], here)
        total = total.reshape(-1, stop - start, 1)
        here /= total * (1 - p) if 0 < p < 1 else total
        np.log(total, total)
        np.add(total, largest.reshape(total.shape), lse[heads, start:stop])
    return out.reshape(*batch, *out.shape[1:]).astype(dtype, copy=False), lse.reshape(*batch, *lse.shape[1:])


def attention_backward(
    g: Any, q: Any, k: Any, v: Any, mask: Any, out: Any, lse: Any, causal: bool, scale: float, p: float, seed: int, need_mask: bool
) -> tuple[Any, Any, Any, Any]:
    batch, types = q.shape[:-2], (q.dtype, k.dtype, v.dtype)
    g, q, k, v, out, lse = (heads_of(a) for a in (g, q, k, v, out, lse))
    shape = (*q.shape[:2], k.shape[1])
    shared = np.vecdot(g, out)[..., None]
    q = with_column(q * q.dtype.type(scale), -lse)
    kt = with_column(k, 1).swapaxes(1, 2)
    if not p:
        g_and_shared, vt = with_column(g, -shared), with_column(v, 1).swapaxes(1, 2)
    else:
        g_and_shared, vt = g, v.swapaxes(1, 2)
    gq, gk, gv = np.zeros_like(k, shape=(*shape[:2], k.shape[2])), np.zeros_like(k), np.zeros_like(v)
    masks = Masks(mask, batch, causal, q.dtype, need_mask)
    size = block_size(shape, causal)
    memory, memory_above = np.empty(size, q.dtype), np.empty(size, q.dtype)
    for heads, start, stop, end in blocks(shape, causal):
        used = (heads.stop - heads.start) * (stop - start) * end
        weights, above = (m[:used].reshape(-1, stop - start, end) for m in (memory, memory_above))
        np.matmul(q[heads, start:stop], kt[heads, :, :end], weights)
        masks.add(weights, heads, start, stop, end)
        np.exp(weights, weights)
        np.matmul(g_and_shared[heads, start:stop], vt[heads, :, :end], above)
        d = above
        if p:
            keep = kept(shape, heads, start, stop, end, p, seed) * weights.dtype.type(1 / (1 - p) if p < 1 else 0)
            above *= keep
            above -= shared[heads, start:stop]
            d *= weights
            weights *= keep
        else:
            d *= weights
        np.matmul(d, k[heads, :end], gq[heads, start:stop])
        add_product(gv[heads, :end], weights.swapaxes(1, 2), g[heads, start:stop], start)
        add_product(gk[heads, :end], d.swapaxes(1, 2), q[heads, start:stop, :-1], start)
        masks.collect(d, heads, start, stop, end)
    gq *= q.dtype.type(scale)
    gradients = [a.reshape(*batch, *a.shape[1:]).astype(t, copy=False) for a, t in zip((gq, gk, gv), types)]
    return gradients[0], gradients[1], gradients[2], masks.gradient()


def attention_keep(like: Any, shape: tuple[int, int, int], start: int, stop: int, p: float, seed: int) -> Any:
    return kept(shape, slice(0, shape[0]), start, stop, shape[2], p, seed)


def kept(shape: tuple[int, int, int], heads: slice, start: int, stop: int, end: int, p: float, seed: int) -> Any:
    """What dropout keeps of a block. A row's numbers are found at a place of its own in the stream, whatever the blocks are."""
    if p >= 1:
        return np.zeros((heads.stop - heads.start, stop - start, end), bool)
    steps = -(-shape[2] // 8)  # of the counter; each gives 8 numbers of 32 bits
    rows, whole = stop - start, stop - start == shape[1]
    found = []
    for first in (heads.start,) if whole else range(heads.start, heads.stop):
        stream = np.random.Philox(key=seed)
        stream.advance((first * shape[1] + start) * steps)
        bits = stream.random_raw((heads.stop - first if whole else 1) * rows * steps * 4).view(np.uint32)
        found.append(bits.reshape(-1, rows, steps * 8)[..., :end] >= np.uint32(p * 2.0**32))
    return found[0] if len(found) == 1 else np.concatenate(found)


def blocks(shape: tuple[int, int, int], causal: bool) -> Iterator[tuple[slice, int, int, int]]:
    """(heads, first query, first query that is not in it, keys) of each block; queries change more slowly than heads."""
    count, length, keys = shape
    if not prod(shape):
        return
    rows = rows_of(length, keys, causal)
    at_once = max(1, HEADS // (rows * keys))
    for start, stop, end in query_blocks(length, keys, rows, causal):
        for first in range(0, count, at_once):
            yield slice(first, min(first + at_once, count)), start, stop, end


def rows_of(length: int, keys: int, causal: bool) -> int:
    """Queries at a time."""
    rows = max(FEWEST, BLOCK // keys)
    return min(length, CAUSAL, rows) if causal else min(length, rows)


def block_size(shape: tuple[int, int, int], causal: bool) -> int:
    """The most weights that a block of `blocks` has."""
    if not prod(shape):
        return 0
    rows = rows_of(shape[1], shape[2], causal)
    return min(shape[0], max(1, HEADS // (rows * shape[2]))) * rows * shape[2]


def heads_of(a: Any) -> Any:
    """(*batch, n, m) as (heads, n, m), not of a half type."""
    return wide(np, a).reshape(prod(a.shape[:-2]), *a.shape[-2:])


def with_column(a: Any, column: Any) -> Any:
    """Matrices with one more column."""
    wider = np.empty((*a.shape[:2], a.shape[2] + 1), a.dtype)
    wider[..., :-1] = a
    wider[..., -1:] = column
    return wider


def add_product(total: Any, a: Any, b: Any, start: int) -> None:
    """total += a @ b; the first time that anything is added, `total` is overwritten."""
    if start:
        total += a @ b
    else:
        np.matmul(a, b, total)


class Masks:
    """The mask and the causal mask, a block at a time, as something to add; and the gradient at the mask.

    Attributes
    ----------
    hides : bool
        Whether a row may have no key at all.
    """

    def __init__(self, mask: Any, batch: tuple[int, ...], causal: bool, dtype: Any, need_gradient: bool = False):
        self.mask, self.causal, self.dtype = mask, causal, dtype
        self.hides = mask is not None
        self.sums: Any = None
        self.later = np.triu(np.full((CAUSAL, CAUSAL), -np.inf, dtype), 1) if causal else None
        if mask is None:
            return
        # one mask for all heads, or the number of its mask for each head
        several = mask.shape[:-2]
        self.which = np.broadcast_to(np.arange(prod(several)).reshape(several), batch).reshape(-1) if prod(several) > 1 else None
        self.shape, self.mask = mask.shape, mask.reshape(prod(several), *mask.shape[-2:])
        self.made: tuple[Any, Any] = (None, None)
        if need_gradient:
            self.sums = np.zeros(self.mask.shape, dtype)

    def place(self, heads: slice, start: int, stop: int, end: int) -> tuple[Any, ...]:
        """Where a block's part of the mask is."""
        rows = slice(start, stop) if self.mask.shape[1] > 1 else slice(None)
        columns = slice(end) if self.mask.shape[2] > 1 else slice(None)
        return slice(None) if self.which is None else self.which[heads], rows, columns

    def add(self, weights: Any, heads: slice, start: int, stop: int, end: int) -> None:
        """Add what belongs to a block to its products."""
        if self.mask is not None:
            block = (start, None if self.which is None else heads.start)
            if self.made[0] != block:  # with one mask for all heads, the next heads take the same
                here = self.mask[self.place(heads, start, stop, end)]
                if here.dtype == bool:
                    here = np.where(here, self.dtype.type(0), self.dtype.type(-np.inf))
                self.made = (block, here.astype(self.dtype, copy=False))
            weights += self.made[1]
        if self.later is not None and end > start:
            weights[..., start:end] += self.later[: stop - start, : end - start]

    def collect(self, d: Any, heads: slice, start: int, stop: int, end: int) -> None:
        """Add a block's gradient to that of the mask."""
        if self.sums is None:
            return
        which, rows, columns = self.place(heads, start, stop, end)
        axes = tuple(axis for axis in (1, 2) if self.mask.shape[axis] == 1 and d.shape[axis] != 1)
        if axes:
            d = np.add.reduce(d, axes, keepdims=True)
        if self.which is None:
            self.sums[:, rows, columns] += np.add.reduce(d, 0)
            return
        for number, part in zip(which, d):  # heads may share a mask, which an advanced index would add to once
            self.sums[number, rows, columns] += part

    def gradient(self) -> Any:
        """The gradient at the mask, if it was asked for."""
        return None if self.sums is None else self.sums.reshape(self.shape).astype(self.mask.dtype, copy=False)
