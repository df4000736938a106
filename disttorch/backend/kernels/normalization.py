"""Batch, layer and RMS normalization, and their gradients.

Statistics of half types are float32. A gradient takes the statistics of the forward pass; where it is itself to be
differentiated, they must be functions of the input there (`batch_norm_stats` and `layer_norm` run on tensors too).
"""

from __future__ import annotations

from typing import Any

from . import kernel
from .precision import narrow, wide

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_stats",
    "layer_norm",
    "layer_norm_backward",
    "rms_norm",
    "rms_norm_backward",
]


@kernel
def batch_norm_stats(xp: Any, x: Any) -> tuple[Any, Any]:
    """The mean and the biased variance (C,) of an array (N, C, *spatial), for each channel."""
    x = wide(xp, x)
    axes = (0, *range(2, x.ndim))
    mean = xp.mean(x, axis=axes, keepdims=True)
    centered = x - mean
    return mean.reshape(-1), xp.mean(centered * centered, axis=axes)


@kernel
def batch_norm(xp: Any, x: Any, weight: Any, bias: Any, mean: Any, rstd: Any) -> Any:
    """``(x - mean) * rstd * weight + bias`` for each channel,
    as https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html.

    Parameters
    ----------
    x : array (N, C, *spatial)
    weight, bias : array (C,) or None
    mean, rstd : array (C,)
        The mean and 1 / sqrt(variance + eps): the batch's in training, the running ones in evaluation.

    Returns
    -------
    array (N, C, *spatial)
    """
    per_channel = (-1,) + (1,) * (x.ndim - 2)
    scale = wide(xp, rstd) if weight is None else wide(xp, rstd) * wide(xp, weight)
    out = (wide(xp, x) - wide(xp, mean).reshape(per_channel)) * scale.reshape(per_channel)
    if bias is not None:
        out = out + wide(xp, bias).reshape(per_channel)
    return narrow(xp, out, x.dtype)


@kernel
def batch_norm_backward(xp: Any, g: Any, x: Any, weight: Any, mean: Any, rstd: Any) -> tuple[Any, Any, Any]:
    """The gradients at x, weight and bias where mean and rstd are the batch's own (training).

    With h = (x - mean) * rstd normalized and means over the batch:
    ``gx = weight * rstd * (g - mean(g) - h * mean(g * h))``.
    """
    per_channel = (-1,) + (1,) * (x.ndim - 2)
    axes = (0, *range(2, x.ndim))
    wide_g, rstd = wide(xp, g), wide(xp, rstd)
    h = (wide(xp, x) - wide(xp, mean).reshape(per_channel)) * rstd.reshape(per_channel)
    gb = xp.sum(wide_g, axis=axes)
    gw = xp.sum(wide_g * h, axis=axes)
    count = max(1, x.shape[0])
    for size in x.shape[2:]:
        count *= max(1, size)
    scale = rstd if weight is None else rstd * wide(xp, weight)
    gx = (wide_g - (gb / count).reshape(per_channel) - h * (gw / count).reshape(per_channel)) * scale.reshape(
        per_channel
    )
    to = gw.dtype if weight is None else weight.dtype
    return narrow(xp, gx, x.dtype), narrow(xp, gw, to), narrow(xp, gb, to)


@kernel
def layer_norm(xp: Any, x: Any, weight: Any, bias: Any, ndim: int, eps: float) -> tuple[Any, Any, Any]:
    """``(x - mean) / sqrt(variance + eps) * weight + bias`` over the last `ndim` axes,
    as https://docs.pytorch.org/docs/stable/generated/torch.nn.LayerNorm.html.

    Parameters
    ----------
    x : array (*batch, *normalized)
    weight, bias : array (*normalized) or None
    ndim : int
        How many axes are normalized.
    eps : float

    Returns
    -------
    out : array (*batch, *normalized)
    mean, rstd : array (*batch, 1, ...)
        With the normalized axes kept as 1.
    """
    axes = tuple(range(x.ndim - ndim, x.ndim))
    wide_x = wide(xp, x)
    mean = xp.mean(wide_x, axis=axes, keepdims=True)
    centered = wide_x - mean
    rstd = 1.0 / xp.sqrt(xp.mean(centered * centered, axis=axes, keepdims=True) + eps)
    out = centered * rstd
    if weight is not None:
        out = out * wide(xp, weight)
    if bias is not None:
        out = out + wide(xp, bias)
    return narrow(xp, out, x.dtype), mean, rstd


@kernel
def layer_norm_backward(
    xp: Any, g: Any, x: Any, weight: Any, mean: Any, rstd: Any, ndim: int, sums: bool = True
) -> tuple[Any, Any, Any]:
    """The gradients at x, weight and bias of `layer_norm`; without `sums` those at weight and bias are not asked for, and may be None.

    With h = (x - mean) * rstd normalized, v = g * weight and means over the normalized axes:
    ``gx = rstd * (v - mean(v) - h * mean(v * h))``.
    """
    axes, batch = tuple(range(x.ndim - ndim, x.ndim)), tuple(range(x.ndim - ndim))
    wide_g = wide(xp, g)
    h = (wide(xp, x) - mean) * rstd
    gh = wide_g * h
    v, vh = wide_g, gh
    if weight is not None:
        v, vh = wide_g * wide(xp, weight), gh * wide(xp, weight)
    gx = (v - xp.mean(v, axis=axes, keepdims=True) - h * xp.mean(vh, axis=axes, keepdims=True)) * rstd
    if not sums:
        return narrow(xp, gx, x.dtype), None, None
    gw, gb = xp.sum(gh, axis=batch), xp.sum(wide_g, axis=batch)
    to = gw.dtype if weight is None else weight.dtype
    return narrow(xp, gx, x.dtype), narrow(xp, gw, to), narrow(xp, gb, to)


@kernel
def rms_norm(xp: Any, x: Any, weight: Any, ndim: int, eps: float) -> tuple[Any, Any]:
    """``x / sqrt(mean(x ** 2) + eps) * weight`` over the last `ndim` axes,
    as https://docs.pytorch.org/docs/stable/generated/torch.nn.RMSNorm.html.

    Returns
    -------
    out : array (*batch, *normalized)
    rstd : array (*batch, 1, ...)
        1 / sqrt(mean(x ** 2) + eps), with the normalized axes kept as 1.
    """
    axes = tuple(range(x.ndim - ndim, x.ndim))
    wide_x = wide(xp, x)
    rstd = 1.0 / xp.sqrt(xp.mean(wide_x * wide_x, axis=axes, keepdims=True) + eps)
    out = wide_x * rstd
    if weight is not None:
        out = out * wide(xp, weight)
    return narrow(xp, out, x.dtype), rstd


@kernel
def rms_norm_backward(xp: Any, g: Any, x: Any, weight: Any, rstd: Any, ndim: int, sums: bool = True) -> tuple[Any, Any]:
    """The gradients at x and weight of `rms_norm`: with h = x * rstd and v = g * weight,
    ``gx = rstd * (v - h * mean(v * h))``; without `sums` that at weight is not asked for, and may be None.
    """
    axes, batch = tuple(range(x.ndim - ndim, x.ndim)), tuple(range(x.ndim - ndim))
    wide_g = wide(xp, g)
    h = wide(xp, x) * rstd
    gh = wide_g * h
    v, vh = wide_g, gh
    if weight is not None:
        v, vh = wide_g * wide(xp, weight), gh * wide(xp, weight)
    gx = (v - h * xp.mean(vh, axis=axes, keepdims=True)) * rstd
    if not sums:
        return narrow(xp, gx, x.dtype), None
    gw = xp.sum(gh, axis=batch)
    return narrow(xp, gx, x.dtype), narrow(xp, gw, gw.dtype if weight is None else weight.dtype)
