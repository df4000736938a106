"""Attention: scaled dot products of queries and keys as weights of values, block by block."""

from __future__ import annotations

import math
from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from ...backend import dtypes as dt
from ..random import default_generator
from ..shape import broadcast_shapes

__all__ = ["scaled_dot_product_attention"]


def _gradients(
    g: Any, q: Any, k: Any, v: Any, mask: Any, out: Any, lse: Any, causal: bool, scale: float, p: float, seed: int, needs: tuple, xp: Any
) -> tuple:
    found = xp.attention_backward(g, q, k, v, mask, out, lse, causal, scale, p, seed, needs[3])
    return tuple(gradient if asked else None for gradient, asked in zip(found, needs))


_attention = Operation(
    "scaled_dot_product_attention",
    lambda xp, q, k, v, mask, *, causal, scale, p, seed: xp.attention(q, k, v, mask, causal, scale, p, seed),
    extras=("lse",),
    recompute=lambda xp, q, k, v, mask, *, causal, scale, p, seed: xp.attention(q, k, v, mask, causal, scale, p, seed)[1:],
    gradients=_gradients,
)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(query @ key^T * scale + mask) @ value; as ``torch.nn.functional.scaled_dot_product_attention``.

    The matrix of weights is never there as a whole: memory grows with L + S, not with L * S.

    Parameters
    ----------
    query : Tensor
        (*batch, L, E), of a floating-point dtype. Half types are computed in float32.
    key, value : Tensor
        (*batch, S, E) and (*batch, S, D); batches are broadcast.
    attn_mask : Tensor, optional
        Broadcast to (*batch, L, S): bool, true where a key takes part; or floating point, added to the products. A query that no key
        takes part for gets zeros.
    dropout_p : float
        The probability with which a weight is dropped, whether in training or not.
    is_causal : bool
        Whether query i only sees keys up to i.
    scale : float, optional
        1 / sqrt(E) unless given.
    enable_gqa : bool
        Whether key and value may have fewer heads (dimension -3) than the query, each for a group of the query's.

    Returns
    -------
    Tensor
        (*batch, L, D)

    Raises
    ------
    RuntimeError
        If shapes or dtypes do not fit.

    Examples
    --------
    >>> import disttorch
    >>> q, k, v = (disttorch.randn(2, 8, n, 16) for n in (5, 7, 7))
    >>> disttorch.nn.functional.scaled_dot_product_attention(q, k, v).shape
    disttorch.Size([2, 8, 5, 16])
    """
    _check(query, key, value, attn_mask, dropout_p)
    if enable_gqa:
        key, value = (_for_groups(t, query) for t in (key, value))
    q, k, v = (t._array.shape for t in (query, key, value))
    if q[-1] != k[-1] or k[-2] != v[-2]:
        raise RuntimeError(
            f"scaled_dot_product_attention: expected query (..., L, E), key (..., S, E) and value (..., S, D), got {list(q)}, "
            f"{list(k)} and {list(v)}"
        )
    batch = broadcast_shapes(q[:-2], k[:-2], v[:-2])
    query, key, value = (t if t._array.shape[:-2] == batch else t.expand(*batch, *t.shape[-2:]) for t in (query, key, value))
    if attn_mask is not None:
        attn_mask = _fitting(attn_mask, (*batch, q[-2], k[-2]))
    scale = (1 / math.sqrt(q[-1]) if q[-1] else 1.0) if scale is None else scale
    seed: Any = 0
    if dropout_p:
        seed = default_generator(query.device).integers(0, 2**62, (), dt.int64)
        if query.device.type == "cpu":  # on a GPU it stays there: to look would mean to wait
            seed = seed.item()
    return apply(
        _attention, query, key, value, attn_mask, causal=is_causal, scale=float(scale), p=float(dropout_p), seed=seed
    )


def _check(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, p: float) -> None:
    for name, t in (("query", query), ("key", key), ("value", value)):
        if not isinstance(t, Tensor):
            raise TypeError(f"scaled_dot_product_attention(): argument '{name}' must be Tensor, not {type(t).__name__}")
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise RuntimeError(
            "Expected query, key, and value to all be at least 2 dimensional, but got query.dim: "
            f"{query.ndim} key.dim: {key.ndim} and value.dim: {value.ndim}"
        )
    if not query.dtype == key.dtype == value.dtype:
        raise RuntimeError(
            "Expected query, key, and value to have the same dtype, but got query.dtype: "
            f"{query.dtype} key.dtype: {key.dtype} and value.dtype: {value.dtype}"
        )
    if query._array.dtype not in dt.FLOATING:
        raise RuntimeError(f"scaled_dot_product_attention() is not implemented for {query.dtype}, it needs floating-point inputs")
    if mask is not None and mask.dtype not in (dt.bool_, dt.float32, query.dtype):
        raise RuntimeError(
            f"Expected attn_mask dtype to be bool or float or to match query dtype, but got attn_mask.dtype: {mask.dtype} and "
            f"query.dtype: {query.dtype}"
        )
    if not 0 <= p <= 1:
        raise RuntimeError(f"dropout probability has to be between 0 and 1, but got {p}")


def _for_groups(t: Tensor, query: Tensor) -> Tensor:
    """Heads of keys or values, each repeated for its group of the query's heads."""
    if query.ndim < 3 or t.ndim < 3:
        raise RuntimeError(f"enable_gqa: expected heads in dimension -3, got shapes {list(query.shape)} and {list(t.shape)}")
    heads, own = query.shape[-3], t.shape[-3]
    if heads == own:
        return t
    if not own or heads % own:
        raise RuntimeError(f"Number of heads in key and value must divide the number of heads in query, but they are {own} and {heads}")
    grouped = t.unsqueeze(-3)
    return grouped.expand(*grouped.shape[:-3], heads // own, *grouped.shape[-2:]).flatten(-4, -3)


def _fitting(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A mask with as many dimensions as the weights, each of the weights' size or 1."""
    if mask.ndim < 2:
        raise IndexError(f"attn_mask must have at least 2 dimensions, (L, S), but its shape is {list(mask.shape)}")
    own = tuple(mask.shape)
    fits = len(own) <= len(shape) and all(n in (1, wanted) for n, wanted in zip(own[::-1], shape[::-1]))
    if not fits:
        raise RuntimeError(f"attn_mask of shape {list(own)} cannot be broadcast to the weights' shape {list(shape)}")
    return mask if len(own) == len(shape) else mask.reshape((1,) * (len(shape) - len(own)) + own)
