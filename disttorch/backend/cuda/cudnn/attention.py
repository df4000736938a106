"""Attention and its gradients in one kernel of cuDNN each (Dao et al., "FlashAttention", NeurIPS 2022), for half types.

Queries, keys and values are read where they lie, in any order of heads and positions. A mask is added to the products, as the least
number where a key does not take part; a query that none takes part for then has all alike, and gets zeros afterwards.
"""

from __future__ import annotations

from math import prod
from typing import Any

import cupy

from ...choices import CHOICES
from ...dtypes import HALF, bool_, float32
from ..kernels.arrays import plain
from .library import usable
from .plans import Unsupported, data_type, run, tensor

__all__ = ["attention", "attention_backward"]

FLOAT32 = float32.numpy
#: numbers of the tensors in a graph
Q, K, V, OUT, LSE, BIAS, G, GQ, GK, GV = range(1, 11)
#: What is added where a key does not take part. Larger than the least number of float16 by enough not to become infinite.
HIDDEN = -32768.0


def attention(q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float, p: float, seed: int) -> tuple[Any, Any]:
    if takes(q, k, v, mask, causal, p):
        try:
            return forward(q, k, v, mask, causal, scale)
        except Unsupported:
            pass
    return plain("attention", q, k, v, mask, causal, scale, p, seed)


def attention_backward(
    g: Any, q: Any, k: Any, v: Any, mask: Any, out: Any, lse: Any, causal: bool, scale: float, p: float, seed: int, need_mask: bool
) -> tuple[Any, Any, Any, Any]:
    if not need_mask and g.dtype == q.dtype and takes(q, k, v, mask, causal, p):
        try:
            return (*backward(g, q, k, v, mask, out, lse, causal, scale), None)
        except Unsupported:
            pass
    return plain("attention_backward", g, q, k, v, mask, out, lse, causal, scale, p, seed, need_mask)


def takes(q: Any, k: Any, v: Any, mask: Any, causal: bool, p: float) -> bool:
    """Whether cuDNN may be asked at all: for half types, without dropout, and a mask alone."""
    return bool(
        q.dtype in HALF
        and q.dtype == k.dtype == v.dtype
        and not p
        and not (causal and mask is not None)
        and q.size
        and k.size
        and v.size
        and (CHOICES.attention["cudnn"] or CHOICES.attention["flash"])
        and usable()
    )


def forward(q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float) -> tuple[Any, Any]:
    """The result, and the logarithm of each row's sum.

    Raises
    ------
    Unsupported
        If cuDNN has no plan for it.
    """
    batch, dtype = q.shape[:-2], q.dtype
    length, keys = q.shape[-2], k.shape[-2]
    shaped = {uid: in_heads(a) for uid, a in ((Q, q), (K, k), (V, v))}
    heads = shaped[Q].shape[:2]
    bias = None if mask is None else as_bias(mask, batch, heads, length, keys, dtype)
    if bias is not None:
        shaped[BIAS] = bias
    out = empty_like_queries(q, shaped[Q], v.shape[-1])
    lse = cupy.empty((*heads, length, 1), FLOAT32)
    layouts = {uid: layout(a) for uid, a in (*shaped.items(), (OUT, out), (LSE, lse))}

    def build(cudnn: Any, handle: Any) -> Any:
        graph = new_graph(cudnn, "attention", dtype, handle)
        operands = {name: tensor(cudnn, graph, uid, layouts[uid]) for name, uid in (("q", Q), ("k", K), ("v", V))}
        if bias is not None:
            operands["bias"] = tensor(cudnn, graph, BIAS, layouts[BIAS])
        results = graph.sdpa(
            **operands,
            **masking(cudnn, causal),
            attn_scale=scale,
            generate_stats=True,
            compute_data_type=cudnn.data_type.FLOAT,
            name="attention",
        )
        for uid, result in zip((OUT, LSE), results):
            as_output(cudnn, result, uid, layouts[uid])
        return graph

    run(("attention", causal, scale, *layouts.items()), build, {**shaped, OUT: out, LSE: lse})
    if mask is not None:
        alive = has_keys(mask)
        out = cleared(shaped_as(out, (*batch, length, v.shape[-1])), alive)
        lse = cupy.where(alive, lse.reshape(*batch, length, 1), cupy.zeros((), FLOAT32))
    return shaped_as(out, (*batch, length, v.shape[-1])), lse.reshape(*batch, length, 1)


def backward(g: Any, q: Any, k: Any, v: Any, mask: Any, out: Any, lse: Any, causal: bool, scale: float) -> tuple[Any, Any, Any]:
    """The gradients at queries, keys and values.

    Raises
    ------
    Unsupported
        If cuDNN has no plan for it.
    """
    batch, dtype = q.shape[:-2], q.dtype
    length, keys = q.shape[-2], k.shape[-2]
    if mask is not None:  # what no key takes part for has no gradient
        g = cleared(g, has_keys(mask))
    shaped = {uid: in_heads(a) for uid, a in ((Q, q), (K, k), (V, v), (OUT, out), (G, g))}
    heads = shaped[Q].shape[:2]
    shaped[LSE] = cupy.ascontiguousarray(lse).reshape(*heads, length, 1)
    bias = None if mask is None else as_bias(mask, batch, heads, length, keys, dtype)
    if bias is not None:
        shaped[BIAS] = bias
    gradients = {to: empty_like_queries(a, shaped[uid], a.shape[-1]) for to, uid, a in ((GQ, Q, q), (GK, K, k), (GV, V, v))}
    layouts = {uid: layout(a) for uid, a in (*shaped.items(), *gradients.items())}
    deterministic = CHOICES.deterministic or CHOICES.cudnn_deterministic

    def build(cudnn: Any, handle: Any) -> Any:
        graph = new_graph(cudnn, "attention_backward", dtype, handle)
        names = (("q", Q), ("k", K), ("v", V), ("o", OUT), ("dO", G), ("stats", LSE))
        operands = {name: tensor(cudnn, graph, uid, layouts[uid]) for name, uid in names}
        if bias is not None:
            operands["bias"] = tensor(cudnn, graph, BIAS, layouts[BIAS])
        results = graph.sdpa_backward(
            **operands,
            **masking(cudnn, causal),
            attn_scale=scale,
            use_deterministic_algorithm=deterministic,
            compute_data_type=cudnn.data_type.FLOAT,
            name="attention_backward",
        )
        for uid, result in zip((GQ, GK, GV), results):
            as_output(cudnn, result, uid, layouts[uid])
        return graph

    run(("attention_backward", causal, scale, *layouts.items()), build, {**shaped, **gradients})
    found = [shaped_as(gradients[uid], a.shape) for uid, a in ((GQ, q), (GK, k), (GV, v))]
    return found[0], found[1], found[2]


# --- parts of both graphs ---------------------------------------------------------------------------------------------------


def new_graph(cudnn: Any, name: str, dtype: Any, handle: Any) -> Any:
    """A graph without operations, which computes in float32."""
    wide = cudnn.data_type.FLOAT
    kind = data_type(cudnn, dtype)
    return cudnn.pygraph(name=name, io_data_type=kind, intermediate_data_type=wide, compute_data_type=wide, handle=handle)


def masking(cudnn: Any, causal: bool) -> dict[str, Any]:
    """The arguments that let query i see keys up to i."""
    if not causal:
        return {}
    return {"diagonal_alignment": cudnn.diagonal_alignment.TOP_LEFT, "diagonal_band_right_bound": 0}


def as_output(cudnn: Any, result: Any, uid: int, array: tuple[Any, Any, Any]) -> None:
    """Let a result of an operation be one of the graph, in an array of this layout."""
    shape, strides, dtype = array
    result.set_uid(uid).set_output(True).set_data_type(data_type(cudnn, dtype)).set_dim(list(shape)).set_stride(list(strides))


def layout(a: Any) -> tuple[Any, Any, Any]:
    """Shape, strides in elements, and dtype. A dimension of one element, whose stride is any number, has the one of a full array."""
    strides: list[int] = []
    step = 1
    for n, s in zip(reversed(a.shape), reversed(a.strides)):
        strides.insert(0, step if n == 1 else s // a.dtype.itemsize)
        step = strides[0] * n
    return a.shape, tuple(strides), a.dtype


# --- arrays as cuDNN wants them ---------------------------------------------------------------------------------------------


def in_heads(a: Any) -> Any:
    """(*batch, n, m) as (batches, heads, n, m): a view where the batch's dimensions allow it, and elements of a position lie together."""
    if a.ndim < 4:
        a = a.reshape((1,) * (4 - a.ndim) + a.shape) if a.ndim == 2 else a[:, None]
    elif a.ndim > 4:
        a = a.reshape(-1, *a.shape[-3:])
    item = a.dtype.itemsize
    steps = [s for n, s in zip(a.shape[:3], a.strides) if n > 1]
    if not all(s > 0 and not s % 16 for s in steps) or (a.strides[-1] != item and a.shape[-1] > 1) or a.data.ptr % 16:
        a = cupy.ascontiguousarray(a)
    return a


def shaped_as(a: Any, shape: tuple[int, ...]) -> Any:
    """The array in another shape, and as it is if it has that."""
    return a if a.shape == shape else a.reshape(shape)


def empty_like_queries(a: Any, shaped: Any, columns: int) -> Any:
    """A new array (batches, heads, n, columns), with positions before heads in memory if they lie so in an array (*batch, n, m)."""
    batches, heads, n = shaped.shape[:3]
    if a.ndim == 4 and heads > 1 and n > 1 and shaped.strides[1] < shaped.strides[2]:
        return cupy.swapaxes(cupy.empty((batches, n, heads, columns), shaped.dtype), 1, 2)
    return cupy.empty((batches, heads, n, columns), shaped.dtype)


def as_bias(mask: Any, batch: tuple[int, ...], heads: tuple[int, int], length: int, keys: int, dtype: Any) -> Any:
    """What a mask adds to the products, as (batches or 1, heads or 1, L, S)."""
    if mask.dtype == bool_.numpy:
        bias = cupy.where(mask, FLOAT32.type(0), FLOAT32.type(HIDDEN))
    else:  # minus infinity would become NaN
        bias = cupy.maximum(mask.astype(FLOAT32, copy=False), FLOAT32.type(HIDDEN))
    bias = bias.astype(dtype)
    own = mask.shape[:-2]
    if prod(own) == 1:
        shape: tuple[int, ...] = (1, 1)
    elif len(batch) == 2:
        shape = own
    else:
        bias, shape = cupy.broadcast_to(bias, (*batch, *bias.shape[-2:])), heads
    return cupy.ascontiguousarray(cupy.broadcast_to(bias.reshape(*shape, *bias.shape[-2:]), (*shape, length, keys)))


def cleared(a: Any, kept: Any) -> Any:
    """An array of a half type with zeros where nothing is kept. By its bits, for CuPy has no choice between bfloat16 numbers."""
    return cupy.where(kept, a.view(cupy.uint16), cupy.zeros((), cupy.uint16)).view(a.dtype)


def has_keys(mask: Any) -> Any:
    """Whether any key takes part for a query: (..., L or 1, 1)."""
    takes_part = mask if mask.dtype == bool_.numpy else mask > -float("inf")
    return cupy.any(takes_part, axis=-1, keepdims=True)
