"""Multi-head attention (Vaswani et al., "Attention is all you need", NeurIPS 2017) as a function of all its weights."""

from __future__ import annotations

import math
import warnings

from ...autograd.variable import Tensor
from ...backend import dtypes as dt
from ..creation import zeros
from ..indexing import masked_fill
from ..linear import linear, matmul
from ..reduction import mean
from ..shape import cat
from .attention import scaled_dot_product_attention
from .dropout import dropout
from .padding import pad
from .softmax import softmax

__all__ = ["additive_mask", "multi_head_attention_forward"]


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention of several heads, each on its own projections; as ``torch.nn.functional.multi_head_attention_forward``.

    Parameters
    ----------
    query, key, value : Tensor
        (L, N, E), (S, N, kdim) and (S, N, vdim); or all without N.
    embed_dim_to_check, num_heads : int
        E, and the number of heads that it is divided among.
    in_proj_weight, in_proj_bias : Tensor or None
        (3 E, E) and (3 E,): the projections of query, key and value below each other.
    bias_k, bias_v : Tensor or None
        (1, 1, E): one more key and value.
    add_zero_attn : bool
        Whether there is one more key and value of zeros.
    dropout_p : float
        The probability with which a weight is dropped in training.
    out_proj_weight, out_proj_bias : Tensor
        (E, E) and (E,)
    training : bool
    key_padding_mask : Tensor, optional
        (N, S) or (S,): bool, true where a key is *not* looked at; or floating point, added to the products.
    need_weights : bool
        Whether the weights are returned, which takes the memory for all of them.
    attn_mask : Tensor, optional
        (L, S) or (N * num_heads, L, S), likewise.
    use_separate_proj_weight : bool
        Whether the projections are `q_proj_weight` (E, E), `k_proj_weight` (E, kdim) and `v_proj_weight` (E, vdim).
    static_k, static_v : Tensor, optional
        (N * num_heads, S, E / num_heads): to be used instead of projections of key and value.
    average_attn_weights : bool
        Whether the weights returned are the mean over the heads.
    is_causal : bool
        A promise that `attn_mask` is the causal mask.

    Returns
    -------
    output : Tensor
        (L, N, E) or (L, E)
    weights : Tensor or None
        (N, L, S) or (L, S); with a dimension for the heads before L if not averaged.

    Raises
    ------
    AssertionError, RuntimeError
        If shapes or dtypes do not fit, of the types that PyTorch raises.
    """
    is_batched = _check_dimensions(query, key, value, key_padding_mask, attn_mask, num_heads)
    if not is_batched:
        query, key, value = query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    length, batch, embed = query.shape
    keys, head = key.shape[0], embed // num_heads
    if is_causal and attn_mask is None:
        raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
    if key_padding_mask is not None and attn_mask is not None and key_padding_mask.dtype != attn_mask.dtype:
        warnings.warn("Support for mismatched key_padding_mask and attn_mask is deprecated. Use same type for both instead.", stacklevel=2)
    key_padding_mask = additive_mask(key_padding_mask, "key_padding_mask", query.dtype)
    if is_causal and key_padding_mask is None and not need_weights:
        attn_mask = None  # the promise is enough
    else:
        attn_mask = additive_mask(attn_mask, "attn_mask", query.dtype)
        is_causal = False
    _assert(embed == embed_dim_to_check, f"was expecting embedding dimension of {embed_dim_to_check}, but got {embed}")
    _assert(head * num_heads == embed, f"embed_dim {embed} not divisible by num_heads {num_heads}")
    if use_separate_proj_weight:
        _assert(key.shape[:2] == value.shape[:2], f"key's sequence and batch dims {key.shape[:2]} do not match value's {value.shape[:2]}")
        for weight, name in ((q_proj_weight, "q"), (k_proj_weight, "k"), (v_proj_weight, "v")):
            _assert(weight is not None, f"use_separate_proj_weight is True but {name}_proj_weight is None")
        biases = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
        weights = (q_proj_weight, k_proj_weight, v_proj_weight)
        q, k, v = (linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases))  # type: ignore[arg-type]
    else:
        _assert(key.shape == value.shape, f"key shape {key.shape} does not match value shape {value.shape}")
        _assert(in_proj_weight is not None, "use_separate_proj_weight is False but in_proj_weight is None")
        q, k, v = _projections(query, key, value, in_proj_weight, in_proj_bias)  # type: ignore[arg-type]
    attn_mask = _check_mask(attn_mask, length, keys, batch * num_heads)

    _assert((bias_k is None) == (bias_v is None), "bias_k and bias_v must be given both or not at all")
    if bias_k is not None and bias_v is not None:
        _assert(static_k is None and static_v is None, "bias cannot be added to static key or value.")
        k, v = (cat([x, b.expand(1, batch, embed)]) for x, b in ((k, bias_k), (v, bias_v)))
        attn_mask, key_padding_mask = _one_more(attn_mask), _one_more(key_padding_mask)
    q = _heads(q, batch * num_heads, head)
    k = _heads(k, batch * num_heads, head) if static_k is None else _check_static("static_k", static_k, batch * num_heads, head)
    v = _heads(v, batch * num_heads, head) if static_v is None else _check_static("static_v", static_v, batch * num_heads, head)
    if add_zero_attn:
        k, v = (cat([x, zeros(x.shape[0], 1, head, dtype=x.dtype, device=x.device)], 1) for x in (k, v))
        attn_mask, key_padding_mask = _one_more(attn_mask), _one_more(key_padding_mask)
    keys = k.shape[1]
    if key_padding_mask is not None:
        _assert(
            tuple(key_padding_mask.shape) == (batch, keys),
            f"expecting key_padding_mask shape of {(batch, keys)}, but got {tuple(key_padding_mask.shape)}",
        )
    if not training:
        dropout_p = 0.0
    mask = _joined(attn_mask, key_padding_mask, batch, num_heads)
    q, k, v = (x.unflatten(0, (batch, num_heads)) for x in (q, k, v))
    weights_out = None
    if need_weights:
        weights_out = softmax(_scores(q * math.sqrt(1.0 / head), k, mask), -1)
        if dropout_p > 0:
            weights_out = dropout(weights_out, dropout_p)
        output = matmul(weights_out, v)
        weights_out = mean(weights_out, 1) if average_attn_weights else weights_out
        weights_out = weights_out if is_batched else weights_out.squeeze(0)
    else:
        output = scaled_dot_product_attention(q, k, v, mask, dropout_p, is_causal)
    output = linear(output.permute(2, 0, 1, 3).reshape(length, batch, embed), out_proj_weight, out_proj_bias)
    return output if is_batched else output.squeeze(1), weights_out


def additive_mask(mask: Tensor | None, name: str, dtype: dt.dtype) -> Tensor | None:
    """A mask as what is added to the products: -inf where a bool one is true."""
    if mask is None or mask.dtype.is_floating_point:
        return mask
    _assert(mask.dtype == dt.bool_, f"only bool and floating types of {name} are supported, got {mask.dtype}")
    return masked_fill(zeros(mask.shape, dtype=dtype, device=mask.device), mask, -math.inf)


def _assert(holds: bool, message: str) -> None:
    """PyTorch raises AssertionError for these, and callers may rely on it."""
    if not holds:
        raise AssertionError(f"multi_head_attention: {message}")


def _check_dimensions(
    query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None, num_heads: int
) -> bool:
    """Whether there is a batch dimension."""
    n = query.ndim
    _assert(n in (2, 3), f"query should be unbatched 2D or batched 3D tensor but received {n}-D query tensor")
    _assert(
        key.ndim == n and value.ndim == n,
        f"for a {n}-D query expected key and value to be {n}-D but found {key.ndim}-D and {value.ndim}-D tensors respectively",
    )
    if key_padding_mask is not None:
        _assert(
            key_padding_mask.ndim == n - 1,
            f"for a {n}-D query expected key_padding_mask to be None or {n - 1}-D but found {key_padding_mask.ndim}-D tensor instead",
        )
    if attn_mask is not None:
        _assert(attn_mask.ndim in (2, 3), f"expected attn_mask to be None, 2-D or 3-D but found {attn_mask.ndim}-D tensor instead")
        expected = (num_heads, query.shape[0], key.shape[0])
        if n == 2 and attn_mask.ndim == 3:
            _assert(tuple(attn_mask.shape) == expected, f"expected attn_mask shape to be {expected} but got {tuple(attn_mask.shape)}")
    return n == 3


def _projections(q: Tensor, k: Tensor, v: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
    """Query, key and value through their parts of one weight, in as few products as there are different inputs."""
    embed = q.shape[-1]
    if k is v:
        if q is k:
            return list(linear(q, weight, bias).chunk(3, -1))
        own, others = weight.split([embed, 2 * embed])
        own_bias, other_bias = (None, None) if bias is None else bias.split([embed, 2 * embed])
        return [linear(q, own, own_bias), *linear(k, others, other_bias).chunk(2, -1)]
    biases = (None, None, None) if bias is None else bias.chunk(3)
    return [linear(x, w, b) for x, w, b in zip((q, k, v), weight.chunk(3), biases)]


def _check_mask(mask: Tensor | None, length: int, keys: int, heads: int) -> Tensor | None:
    """The mask with three dimensions."""
    if mask is None:
        return None
    expected = {2: (length, keys), 3: (heads, length, keys)}.get(mask.ndim)
    if expected is None:
        raise RuntimeError(f"attn_mask's dimension {mask.ndim} is not supported")
    if tuple(mask.shape) != expected:
        raise RuntimeError(f"The shape of the {mask.ndim}D attn_mask is {tuple(mask.shape)}, but should be {expected}.")
    return mask.unsqueeze(0) if mask.ndim == 2 else mask


def _check_static(name: str, x: Tensor, heads: int, head: int) -> Tensor:
    _assert(x.shape[0] == heads, f"expecting {name}.size(0) of {heads}, but got {x.shape[0]}")
    _assert(x.shape[2] == head, f"expecting {name}.size(2) of {head}, but got {x.shape[2]}")
    return x


def _heads(x: Tensor, count: int, head: int) -> Tensor:
    """(L, N, E) as (N * heads, L, E / heads)."""
    return x.reshape(x.shape[0], count, head).transpose(0, 1)


def _one_more(mask: Tensor | None) -> Tensor | None:
    """A mask for one more key, which all look at."""
    return None if mask is None else pad(mask, (0, 1))


def _scores(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    """q k^T + mask, of half types added up in float32 and rounded once."""
    if mask is None:
        return matmul(q, k.transpose(-2, -1))
    if q.dtype.itemsize == 2:
        return (matmul(q.float(), k.transpose(-2, -1).float()) + mask).to(q.dtype)
    return matmul(q, k.transpose(-2, -1)) + mask


def _joined(mask: Tensor | None, padding: Tensor | None, batch: int, heads: int) -> Tensor | None:
    """Both masks as one that broadcasts to (batch, heads, L, S)."""
    if mask is not None:
        mask = mask if mask.shape[0] == 1 else mask.unflatten(0, (batch, heads))
        mask = mask.unsqueeze(0) if mask.ndim == 3 else mask
    if padding is None:
        return mask
    padding = padding.unsqueeze(1).unsqueeze(1)
    return padding if mask is None else mask + padding
