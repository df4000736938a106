"""Scaled dot product attention, softmax(q k^T scale + mask) v, and its gradients, without a matrix of all weights.

Forward and backward go over blocks of queries; forward keeps the logarithm of each row's sum of exponentials, from which backward
computes a block's weights again (Rabe and Staats, "Self-attention does not need O(n^2) memory", 2021; Dao et al.,
"FlashAttention", NeurIPS 2022). Rows in which all keys are masked give zeros, as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

from . import kernel
from .precision import narrow, wide

__all__ = ["attention", "attention_backward", "attention_keep", "query_blocks"]

#: Weights at a time: 64 MiB of float32.
BLOCK = 1 << 24


@kernel
def attention(xp: Any, q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float, p: float, seed: int) -> tuple[Any, Any]:
    """Attention of each query to all keys.

    Parameters
    ----------
    q, k, v : array (*batch, L, E), (*batch, S, E), (*batch, S, D)
    mask : array or None
        Broadcast to (*batch, L, S), with as many dimensions: bool, true where a key takes part; or what is added to the products.
    causal : bool
        Whether query i only sees keys up to i.
    scale : float
    p : float
        The probability with which a weight is dropped.
    seed : int
        Of the random numbers that decide it.

    Returns
    -------
    out : array (*batch, L, D)
    lse : array (*batch, L, 1)
        The logarithm of the sum of the exponentials of each row; 0 where all keys are masked.
    """
    dtype, q, k, v = q.dtype, wide(xp, q), wide(xp, k), wide(xp, v)
    mask = mask if mask is None or _is_bool(mask) else wide(xp, mask)
    batch, (length, keys) = q.shape[:-2], (q.shape[-2], k.shape[-2])
    if not (prod(batch) and length and keys):
        return xp.zeros((*batch, length, v.shape[-1]), dtype), xp.zeros((*batch, length, 1), q.dtype)
    outs, sums = [], []
    for start, stop, end in query_blocks(length, keys, max(1, BLOCK // (prod(batch) * keys)), causal):
        scores = _scores(xp, q, k, mask, causal, scale, start, stop, end)
        largest = xp.max(scores, axis=-1, keepdims=True)
        largest = xp.where(xp.isinf(largest), 0.0, largest)
        weights = xp.exp(scores - largest)
        total = xp.sum(weights, axis=-1, keepdims=True)
        total = xp.where(total == 0, 1.0, total)
        if p:
            weights = weights * _kept(xp, q, keys, start, stop, end, p, seed)
        outs.append(xp.matmul(weights, v[..., :end, :]) / total)
        sums.append(xp.log(total) + largest)
    return narrow(xp, xp.concatenate(outs, axis=-2), dtype), xp.concatenate(sums, axis=-2)


@kernel
def attention_backward(
    xp: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, out: Any, lse: Any, causal: bool, scale: float, p: float, seed: int, need_mask: bool
) -> tuple[Any, Any, Any, Any]:
    """The gradients at q, k, v and, if `need_mask`, the mask, of `attention` with the results `out` and `lse`.

    With P the weights, K what dropout leaves of them (0 or 1 / (1 - p)), and G = g v^T: the gradient at the scores is
    P * (G * K - sum(g * out)).
    """
    types = [None if a is None else a.dtype for a in (q, k, v, mask)]
    g, q, k, v, out = (wide(xp, a) for a in (g, q, k, v, out))
    mask = mask if mask is None or _is_bool(mask) else wide(xp, mask)
    batch, (length, keys) = q.shape[:-2], (q.shape[-2], k.shape[-2])
    gm = xp.zeros(mask.shape, q.dtype) if need_mask else None
    if not (prod(batch) and length and keys):
        return xp.zeros_like(q), xp.zeros_like(k), xp.zeros_like(v), gm
    shared = xp.sum(g * out, axis=-1, keepdims=True)
    gq, gk, gv, gm = [], None, None, []
    for start, stop, end in query_blocks(length, keys, max(1, BLOCK // (prod(batch) * keys)), causal):
        rows = (..., slice(start, stop), slice(None))
        weights = xp.exp(_scores(xp, q, k, mask, causal, scale, start, stop, end) - lse[rows])
        above = xp.matmul(g[rows], xp.swapaxes(v[..., :end, :], -1, -2))
        dropped = weights
        if p:
            kept = _kept(xp, q, keys, start, stop, end, p, seed)
            above, dropped = above * kept, weights * kept
        d = weights * (above - shared[rows])
        gq.append(xp.matmul(d, k[..., :end, :]) * scale)
        gk_here = _with_rows(xp, xp.matmul(xp.swapaxes(d, -1, -2), q[rows]) * scale, keys)
        gv_here = _with_rows(xp, xp.matmul(xp.swapaxes(dropped, -1, -2), g[rows]), keys)
        gk, gv = (gk_here, gv_here) if gk is None else (gk + gk_here, gv + gv_here)
        if need_mask:
            gm.append(_sum_to(xp, xp.swapaxes(_with_rows(xp, xp.swapaxes(d, -1, -2), keys), -1, -2), mask.shape))
    at_mask = None
    if need_mask:
        at_mask = xp.concatenate(gm, axis=-2) if mask.shape[-2] > 1 else sum(gm[1:], gm[0])
    gradients = (xp.concatenate(gq, axis=-2), gk, gv, at_mask)
    return tuple(None if a is None else narrow(xp, a, t) for a, t in zip(gradients, types))  # type: ignore[return-value]


@kernel
def attention_keep(xp: Any, like: Any, shape: tuple[int, int, int], start: int, stop: int, p: float, seed: Any) -> Any:
    """Which weights dropout keeps: bool (N, stop - start, S), true with probability 1 - p, for the queries from `start` to `stop`
    of all of `shape` (N, L, S); the same whenever the same block is asked for again. `like` is an array of the device; the seed may be
    one, of one element.
    """
    return xp.random(seed + start).random((shape[0], stop - start, shape[2]), xp.asarray(0.0, "float32").dtype) >= p


def query_blocks(length: int, keys: int, rows: int, causal: bool) -> Iterator[tuple[int, int, int]]:
    """(first query, first query that is not in it, number of keys that any of them sees) of each block."""
    for start in range(0, length, rows):
        stop = min(start + rows, length)
        yield start, stop, min(stop, keys) if causal else keys


def _is_bool(mask: Any) -> bool:
    return mask.dtype.itemsize == 1


def _scores(xp: Any, q: Any, k: Any, mask: Any, causal: bool, scale: float, start: int, stop: int, end: int) -> Any:
    """The scaled and masked products of some queries with the first `end` keys."""
    scores = xp.matmul(q[..., start:stop, :] * scale, xp.swapaxes(k[..., :end, :], -1, -2))
    if mask is not None:
        here = mask[..., start:stop, :] if mask.shape[-2] > 1 else mask
        here = here[..., :end]
        scores = xp.where(here, scores, -float("inf")) if _is_bool(mask) else scores + here
    if causal and end > start + 1:
        seen = xp.arange(end) <= xp.arange(start, stop)[:, None]
        scores = xp.where(seen, scores, -float("inf"))
    return scores


def _kept(xp: Any, q: Any, keys: int, start: int, stop: int, end: int, p: float, seed: Any) -> Any:
    """1 / (1 - p) where dropout keeps a weight, else 0."""
    batch = q.shape[:-2]
    keep = xp.attention_keep(q, (prod(batch), q.shape[-2], keys), start, stop, p, seed)[..., :end]
    return xp.asarray(keep.reshape((*batch, stop - start, end)), dtype=q.dtype) * (1 / (1 - p) if p < 1 else 0.0)


def _with_rows(xp: Any, a: Any, rows: int) -> Any:
    """The array with zeros below, for `rows` rows."""
    missing = rows - a.shape[-2]
    if not missing:
        return a
    return xp.concatenate((a, xp.zeros((*a.shape[:-2], missing, a.shape[-1]), a.dtype)), axis=-2)


def _sum_to(xp: Any, a: Any, shape: tuple[int, ...]) -> Any:
    """The sum over those dimensions in which `shape` is 1; in the last but one a block of its size is left alone."""
    axes = tuple(i for i, (n, wanted) in enumerate(zip(a.shape, shape)) if wanted == 1 and n != 1)
    return xp.sum(a, axis=axes, keepdims=True) if axes else a
