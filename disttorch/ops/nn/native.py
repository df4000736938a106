"""Normalization as functions of the package: with other orders of arguments than in ``nn.functional``, and, where the name
begins with "native", with the statistics as results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...autograd.variable import Tensor, wrap
from ...backend import namespace
from ...backend.dtypes import float32
from . import normalization

# What users find of this family, and where: see ops/public.py.
FUNCTIONS = "batch_norm group_norm instance_norm layer_norm native_batch_norm native_group_norm native_layer_norm rms_norm"
OUT = "native_batch_norm"

rms_norm = normalization.rms_norm


def batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Batch normalization; as ``torch.batch_norm``."""
    return normalization.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def instance_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Instance normalization; as ``torch.instance_norm``."""
    return normalization.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """Layer normalization; as ``torch.layer_norm``."""
    return normalization.layer_norm(input, normalized_shape, weight, bias, eps)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Group normalization; as ``torch.group_norm``."""
    return normalization.group_norm(input, num_groups, weight, bias, eps)


def native_batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch normalization with the batch's mean and 1 / sqrt(variance + eps), empty when not training; as
    ``torch.native_batch_norm``.
    """
    xp = namespace(input._array)
    mean, var = xp.batch_norm_stats(input._array)
    if not training:
        mean, var = mean[:0], var[:0]
    out = normalization.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    like = next((t for t in (weight, running_mean) if t is not None), input)
    return out, _statistic(mean, like), _statistic(1.0 / xp.sqrt(var + eps), like)


def _statistic(array: Any, like: Tensor) -> Tensor:
    """A statistic, in the dtype of the parameters, or, without any, of the input."""
    return wrap(namespace(array).asarray(array, dtype=like._array.dtype))


def native_layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Layer normalization with the mean and 1 / sqrt(variance + eps) of each sample; as ``torch.native_layer_norm``."""
    out = normalization.layer_norm(input, normalized_shape, weight, bias, eps)
    _, mean, rstd = namespace(input._array).layer_norm(input._array, None, None, len(normalized_shape), eps)
    like = input if weight is None else weight
    return out, _statistic(mean, like), _statistic(rstd, like)


def native_group_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, N: int, C: int, HxW: int, group: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Group normalization of N samples with C channels of HxW elements, with the mean and 1 / sqrt(variance + eps) of each
    group; as ``torch.native_group_norm``.
    """
    out = normalization.group_norm(input, group, weight, bias, eps)
    groups = input.reshape(N, group, C // group * HxW)
    if groups._array.dtype.itemsize < 4:
        groups = groups.to(dtype=float32)
    mean = groups.mean(-1)
    centred = groups - mean.unsqueeze(-1)
    rstd = ((centred * centred).mean(-1) + eps).rsqrt()
    to = input.dtype if weight is None else weight.dtype
    return out, mean.to(dtype=to), rstd.to(dtype=to)
