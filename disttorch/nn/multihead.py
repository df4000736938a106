"""Multi-head attention as a layer."""

from __future__ import annotations

from typing import Any

from ..autograd.variable import Tensor
from ..ops.creation import empty
from ..ops.nn.multihead import multi_head_attention_forward
from . import init
from .linear import Linear
from .module import Module
from .parameter import Parameter

__all__ = ["MultiheadAttention", "NonDynamicallyQuantizableLinear"]


class NonDynamicallyQuantizableLinear(Linear):
    """`Linear` under the name that PyTorch's `MultiheadAttention` prints for its last part."""


class MultiheadAttention(Module):
    """Attention of several heads, each on its own projections; as ``torch.nn.MultiheadAttention``.

    Parameters
    ----------
    embed_dim : int
        Features of the query and of the result.
    num_heads : int
        Heads that these are divided among.
    dropout : float
        The probability with which a weight is dropped in training.
    bias : bool
        Whether the projections have one.
    add_bias_kv : bool
        Whether there is one more, learned, key and value.
    add_zero_attn : bool
        Whether there is one more key and value of zeros.
    kdim, vdim : int, optional
        Features of key and value; `embed_dim` unless given.
    batch_first : bool
        Whether inputs and output are (batch, steps, features), not (steps, batch, features).
    device, dtype : optional
        Of the parameters.

    Examples
    --------
    >>> import disttorch
    >>> attention = disttorch.nn.MultiheadAttention(16, 4, batch_first=True)
    >>> x = disttorch.randn(2, 5, 16)
    >>> output, weights = attention(x, x, x)
    >>> output.shape, weights.shape
    (disttorch.Size([2, 5, 16]), disttorch.Size([2, 5, 5]))
    """

    bias_k: Tensor | None
    bias_v: Tensor | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError(f"embed_dim and num_heads must be greater than 0, got embed_dim={embed_dim} and num_heads={num_heads} instead")
        if embed_dim % num_heads:
            raise AssertionError(f"embed_dim must be divisible by num_heads, got embed_dim={embed_dim} and num_heads={num_heads}")
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        made: dict[str, tuple[int, ...]] = {"in_proj_weight": (3 * embed_dim, embed_dim)}
        if not self._qkv_same_embed_dim:
            made = {
                "q_proj_weight": (embed_dim, embed_dim),
                "k_proj_weight": (embed_dim, self.kdim),
                "v_proj_weight": (embed_dim, self.vdim),
            }
        if bias:
            made["in_proj_bias"] = (3 * embed_dim,)
        if add_bias_kv:
            made["bias_k"] = made["bias_v"] = (1, 1, embed_dim)
        for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_weight", "in_proj_bias", "bias_k", "bias_v"):
            value = Parameter(empty(made[name], device=device, dtype=dtype)) if name in made else None
            self.register_parameter(name, value)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        self.add_zero_attn = add_zero_attn
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if getattr(self, name) is not None:
                init.xavier_uniform_(getattr(self, name))
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        for extra in (self.bias_k, self.bias_v):
            if extra is not None:
                init.xavier_normal_(extra)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Let each query attend to the keys.

        Parameters
        ----------
        query, key, value : Tensor
            (L, N, embed_dim), (S, N, kdim), (S, N, vdim); with N first if `batch_first`; or without N.
        key_padding_mask : Tensor, optional
            (N, S): bool, true where a key is not looked at; or what is added to the products.
        need_weights : bool
            Whether to return the weights; without them memory does not grow with L * S.
        attn_mask : Tensor, optional
            (L, S) or (N * num_heads, L, S), likewise.
        average_attn_weights : bool
            Whether the weights are the mean over the heads.
        is_causal : bool
            A promise that `attn_mask` is the causal mask.

        Returns
        -------
        output : Tensor
            Of the query's shape.
        weights : Tensor or None
            (N, L, S), or (N, num_heads, L, S) if not averaged.
        """
        turn = self.batch_first and query.ndim == 3
        if turn:
            turned = {id(t): t.transpose(0, 1) for t in (query, key, value)}  # what is one tensor stays one
            query, key, value = (turned[id(t)] for t in (query, key, value))
        separate = not self._qkv_same_embed_dim
        output, weights = multi_head_attention_forward(
            query, key, value, self.embed_dim, self.num_heads, self.in_proj_weight, self.in_proj_bias, self.bias_k, self.bias_v,
            self.add_zero_attn, self.dropout, self.out_proj.weight, self.out_proj.bias, self.training, key_padding_mask, need_weights,
            attn_mask, separate, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight,
            average_attn_weights=average_attn_weights, is_causal=is_causal,
        )  # fmt: skip
        return output.transpose(0, 1) if turn else output, weights
