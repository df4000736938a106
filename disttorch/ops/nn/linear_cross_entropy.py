"""Cross entropy of a linear layer, a chunk of samples at a time: the logits of a large vocabulary are never whole in memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import Any

from ...autograd.grad_mode import is_grad_enabled
from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from ...backend import dtypes as dt
from ...backend.kernels.precision import narrow, wide
from ..linear import linear, matmul
from .arguments import warn
from .classification import check_bounds, check_indices, counted, cross_entropy
from .loss import reduction_of

__all__ = ["LinearCrossEntropyOptions", "linear_cross_entropy"]

#: How many logits at a time: 64 MiB of float32. Smaller chunks would spend their time adding up the weight's gradient.
CHUNK = 2**24


@dataclass
class LinearCrossEntropyOptions:
    """How `linear_cross_entropy` divides its work; as ``torch.nn.LinearCrossEntropyOptions``.

    Parameters
    ----------
    allow_retain_graph : bool
        Accepted as in PyTorch; backward may always be called again here.
    batch_chunk_size : int, optional
        How many samples are computed at a time.
    chunking_method : str, optional
        ``"auto"`` or ``"aspect_ratio:n"``, a chunk of n times as many logits as the input has elements.
    acc_policy : {"accurate", "balanced", "compact", "auto"}
    acc_dtype : dtype, optional
        Both accepted as in PyTorch; sums are computed in float32 or wider here.
    """

    allow_retain_graph: bool = False
    batch_chunk_size: int | None = None
    chunking_method: str | None = "auto"
    acc_policy: str = "auto"
    acc_dtype: Any = None

    def __post_init__(self) -> None:
        size = self.batch_chunk_size
        if size is not None and (not isinstance(size, int) or size <= 0):
            raise ValueError(f"batch_chunk_size must be positive int or None, got {size!r}")
        if self.chunking_method not in (None, "auto") and not re.fullmatch(r"aspect_ratio:[1-9]\d*", self.chunking_method or ""):
            raise ValueError(f"invalid chunking_method: {self.chunking_method!r}")
        if self.acc_policy not in ("accurate", "balanced", "compact", "auto"):
            raise ValueError(f"invalid acc_policy: {self.acc_policy!r}")


def _samples(options: Any, input: Tensor, classes: int) -> int:
    """How many samples make a chunk."""
    if options is not None and options.batch_chunk_size is not None:
        return options.batch_chunk_size
    if options is not None and options.chunking_method not in (None, "auto"):
        return max(1, int(options.chunking_method.partition(":")[2]) * input.numel() // max(classes, 1))
    return max(1, CHUNK // max(classes, 1))


def _chunked(
    xp: Any, x: Any, weight: Any, bias: Any, target: Any, class_weight: Any, *, ignore_index: int, label_smoothing: float,
    mean: bool, chunk: int, asks: bool,
) -> tuple:  # fmt: skip
    """The reduced loss, and, where `asks`, the gradients at input, weight and bias, which are at hand while the logits are."""
    _, factor = counted(xp, target, class_weight, ignore_index, wide(xp, x).dtype)
    scale = 1.0 / xp.sum(factor) if mean else 1.0
    losses, gx, gw, gb = [], [], None, None
    for start in range(0, x.shape[0], chunk):
        rows = slice(start, start + chunk)
        options = (target[rows], class_weight, ignore_index, label_smoothing)
        logits = xp.linear(x[rows], weight, bias)
        loss, kept = xp.class_losses(logits, *options)
        losses.append(wide(xp, loss))
        if not asks:
            continue
        each = xp.zeros_like(losses[-1]) + scale
        d = xp.class_losses_backward(xp.asarray(each, dtype=logits.dtype), logits, kept, *options)
        gx.append(xp.matmul(d, weight))
        part = wide(xp, xp.matmul(xp.swapaxes(d, 0, 1), x[rows]))
        gw = part if gw is None else gw + part
        along = xp.sum(wide(xp, d), axis=0)
        gb = along if gb is None else gb + along
    total = xp.sum(xp.concatenate(losses)) * scale
    if not asks:
        return xp.asarray(total, dtype=x.dtype), None, None, None
    return xp.asarray(total, dtype=x.dtype), xp.concatenate(gx), narrow(xp, gw, weight.dtype), narrow(xp, gb, weight.dtype)


_linear_cross_entropy = Operation(
    "linear_cross_entropy",
    _chunked,
    extras=("gx", "gw", "gb"),
    recompute=lambda xp, x, weight, bias, target, class_weight, **options: _chunked(
        xp, x, weight, bias, target, class_weight, **options
    )[1:],
    x=lambda g, x, weight, bias, target, class_weight, gx: g * gx,
    weight=lambda g, x, weight, bias, target, class_weight, gw: g * gw,
    bias=lambda g, x, weight, bias, target, class_weight, gb: g * gb,
)


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: LinearCrossEntropyOptions | None = None,
) -> Tensor:
    """``cross_entropy(linear(input, linear_weight, linear_bias), target)``; as ``torch.nn.functional.linear_cross_entropy``.

    Where the logits are many they are computed a chunk of samples at a time, with the gradients, and are never whole in
    memory; derivatives of any order are the same.

    Parameters
    ----------
    input : Tensor
        (N, D) or (D,)
    linear_weight : Tensor
        (C, D), or (C, d1, ..., dK, D) for a loss with K dimensions.
    target : Tensor
        Integer, (N, d1, ..., dK) or (): class indices. Or floating point, (N, C, d1, ..., dK) or (C,): probabilities.
    linear_bias : Tensor, optional
        (C, d1, ..., dK)
    weight : Tensor, optional
        (C,), how much each class counts.
    reduction : {"mean", "sum", "none"}
    ignore_index : int, optional
        A class index that does not count, -100 unless given.
    label_smoothing : float
    options : LinearCrossEntropyOptions, optional
        How large the chunks are.

    Raises
    ------
    RuntimeError, ValueError
        If shapes do not fit.
    IndexError
        If a target is no class.
    """
    how = reduction_of(None, None, reduction)
    if input.ndim not in (1, 2) or linear_weight.ndim < 2 or input.shape[-1] != linear_weight.shape[-1]:
        raise RuntimeError(
            f"linear_cross_entropy: an input of shape {list(input.shape)} does not fit a linear weight of shape {list(linear_weight.shape)}"
        )
    if ignore_index is not None and target._array.dtype not in dt.INTEGRAL:
        raise RuntimeError("linear_cross_entropy: ignore_index cannot be specified when target contains probabilities")
    ignored = -100 if ignore_index is None else ignore_index
    classes = linear_weight.shape[0]
    supported = linear_weight.ndim == 2 and how != "none" and target._array.dtype in dt.INTEGRAL and input.ndim == 2
    if options is not None and not supported:
        warn(
            "linear_cross_entropy: options are for class indices, two-dimensional weights and inputs, and a reduction; the logits are "
            "computed at once"
        )
    large = options is not None or input.shape[0] * classes > CHUNK
    if not (supported and large and input.numel()):
        return cross_entropy(
            _logits(input, linear_weight, linear_bias), target, weight, ignore_index=ignored, reduction=how, label_smoothing=label_smoothing
        )
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    shape = (input.shape[0], classes)
    check_indices("linear_cross_entropy", shape, target, weight)
    check_bounds("linear_cross_entropy", shape, target._array, ignored)
    asks = is_grad_enabled() and any(t is not None and t._node is not None for t in (input, linear_weight, linear_bias))
    return apply(
        _linear_cross_entropy, input, linear_weight, linear_bias, target, weight, ignore_index=ignored,
        label_smoothing=label_smoothing, mean=how == "mean", chunk=_samples(options, input, classes),
        asks=asks,
    )  # fmt: skip


def _logits(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The logits (N, C, d1, ..., dK) of one linear map, or (C,) of one sample."""
    if weight.ndim == 2:
        return linear(input, weight, bias)
    if input.ndim == 1:
        raise RuntimeError(f"linear_cross_entropy: a weight of shape {list(weight.shape)} needs inputs (N, D), but got {list(input.shape)}")
    flat = weight.reshape(prod(weight.shape[:-1]), weight.shape[-1])
    logits = matmul(input, flat.transpose(0, 1)).reshape(input.shape[0], *weight.shape[:-1])
    return logits if bias is None else logits + bias
