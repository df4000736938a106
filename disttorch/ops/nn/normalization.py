"""Batch, layer, RMS, group and instance normalization.

The statistics that rules need are extras of the forward pass; where a gradient is differentiated itself, they are
computed again as functions of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from ...autograd.operation import Operation, apply, as_array
from ...autograd.variable import Tensor, bump_version, wrap
from ...backend import dtypes as dt
from ...backend import namespace
from ...backend.batched import BatchedArray
from .. import pointwise
from .arguments import check_floating
from .padding import pad
from .pooling import avg_pool2d, avg_pool3d

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "rms_norm"]


def _rstd(xp: Any, var: Any, eps: float) -> Any:
    return 1.0 / xp.sqrt(var + eps)


def _batch_statistics(xp: Any, x: Any, weight: Any, bias: Any, *, mean_and_var: Any, eps: float) -> tuple:
    mean, var = xp.batch_norm_stats(x)
    return mean, _rstd(xp, var, eps)


def _batch_norm_forward(xp: Any, x: Any, weight: Any, bias: Any, *, mean_and_var: Any, eps: float) -> tuple:
    mean, var = mean_and_var
    rstd = _rstd(xp, var, eps)
    return xp.batch_norm(x, weight, bias, mean, rstd), mean, rstd


_batch_norm = Operation(
    "batch_norm",
    _batch_norm_forward,
    extras=("mean", "rstd"),
    recompute=_batch_statistics,
    gradients=lambda g, x, weight, mean, rstd, xp: xp.batch_norm_backward(g, x, weight, mean, rstd),
)


def _per_channel(v: Any, ndim: int) -> Any:
    return v.reshape((-1,) + (1,) * (ndim - 2))


def _channel_sum(xp: Any, a: Any) -> Any:
    return xp.sum(a, axis=(0, *range(2, a.ndim)))


# with statistics that do not depend on the input: an affine map of each channel
_batch_affine = Operation(
    "batch_norm",
    lambda xp, x, weight, bias, mean, rstd: xp.batch_norm(x, weight, bias, mean, rstd),
    x=lambda g, weight, rstd, xp: xp.multiply(g, _per_channel(rstd if weight is None else rstd * weight, g.ndim)),
    weight=lambda g, x, mean, rstd, xp: _channel_sum(
        xp, xp.multiply(xp.multiply(g, xp.subtract(x, _per_channel(mean, g.ndim))), _per_channel(rstd, g.ndim))
    ),
    bias=lambda g, xp: _channel_sum(xp, g),
)
_layer_norm = Operation(
    "layer_norm",
    lambda xp, x, weight, bias, *, ndim, eps: xp.layer_norm(x, weight, bias, ndim, eps),
    extras=("mean", "rstd"),
    recompute=lambda xp, x, weight, bias, *, ndim, eps: xp.layer_norm(x, None, None, ndim, eps)[1:],
    gradients=lambda g, x, weight, mean, rstd, ndim, needs, xp: xp.layer_norm_backward(
        g, x, weight, mean, rstd, ndim, needs[1] or needs[2]
    ),
)
_rms_norm = Operation(
    "rms_norm",
    lambda xp, x, weight, *, ndim, eps: xp.rms_norm(x, weight, ndim, eps),
    extras=("rstd",),
    recompute=lambda xp, x, weight, *, ndim, eps: xp.rms_norm(x, None, ndim, eps)[1:],
    gradients=lambda g, x, weight, rstd, ndim, needs, xp: xp.rms_norm_backward(g, x, weight, rstd, ndim, needs[1]),
)


def check_channels(name: str, input: Tensor, **per_channel: Tensor | None) -> None:
    """Refuse parameters and statistics that are not one value for each channel of the input."""
    channels = input._array.shape[1]
    for what, tensor in per_channel.items():
        if tensor is not None and tensor._array.shape != (channels,):
            raise RuntimeError(
                f"{name}: {what} should contain {channels} elements, one for each channel of the input of size "
                f"{list(input._array.shape)}, not be of size {list(tensor._array.shape)}"
            )


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Each channel with the mean taken away and divided by its standard deviation; as ``torch.nn.functional.batch_norm``.

    Parameters
    ----------
    input : Tensor
        (N, C, *spatial)
    running_mean, running_var : Tensor or None
        (C,), used when not training; when training, changed in place towards the batch's mean and unbiased variance.
    weight, bias : Tensor, optional
        (C,), what the result is multiplied by and what is added.
    training : bool
        Whether to use the batch's mean and biased variance.
    momentum : float
        The share of the batch in the new running statistics.
    eps : float
        Added to the variance.

    Raises
    ------
    ValueError
        If there is only one value a channel when training.
    RuntimeError
        If shapes do not fit, or there are no statistics to use.
    """
    check_floating("batch_norm", input)
    if eps < 0 or (training and not eps):
        raise ValueError(f"batch_norm eps must be {'positive during training' if training else 'non-negative'}, but got {eps}")
    shape = input._array.shape
    if shape == (0,):
        return input.clone()
    if len(shape) < 2:
        raise RuntimeError(f"batch_norm: expected an input (N, C, *spatial), but got size {list(shape)}")
    check_channels("batch_norm", input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if not training:
        if running_mean is None or running_var is None:
            raise RuntimeError("batch_norm: expected running_mean and running_var to be defined when training=False")
        rstd = wrap(as_array(_rstd(namespace(running_var._array), running_var._array, eps)))
        return apply(_batch_affine, input, weight, bias, running_mean.detach(), rstd)
    count = shape[0] * prod(shape[2:])
    if count == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {list(shape)}")
    mean, var = batch_statistics(input, running_mean, running_var, momentum, count)
    return apply(_batch_norm, input, weight, bias, mean_and_var=(mean, var), eps=eps)


def batch_statistics(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, momentum: float, count: int
) -> tuple[Any, Any]:
    """The batch's mean and biased variance, of `count` values a channel, after the running ones have moved towards them.
    Nothing is learned of an empty batch.
    """
    xp = namespace(input._array)
    if not count:
        nothing = xp.zeros(input._array.shape[1:2], input._array.dtype)
        return nothing, nothing
    mean, var = xp.batch_norm_stats(input._array)
    move_running(running_mean, mean, momentum)
    move_running(running_var, var * (count / max(1, count - 1)), momentum)
    return mean, var


def move_running(running: Tensor | None, batch: Any, momentum: float) -> None:
    """Move a running statistic towards a batch's, in place."""
    if running is not None:
        if isinstance(batch, BatchedArray) and not isinstance(running._array, BatchedArray):
            raise RuntimeError(
                "vmap: the running statistics are the same for all samples, so they cannot be changed in place to values that differ "
                "between them. Give each sample its own, or track none: func.replace_all_batch_norm_modules_(model)"
            )
        running._array[...] = running._array * (1 - momentum) + batch * momentum
        bump_version(running)


def _check_normalized(name: str, input: Tensor, normalized_shape: Any, **affine: Tensor | None) -> int:
    """How many last dimensions are normalized."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape:
        raise RuntimeError(f"{name}: expected normalized_shape to be at least 1-dimensional, but it is {normalized_shape!r}")
    if input._array.shape[-len(shape) :] != shape:
        raise RuntimeError(
            f"Given normalized_shape={list(shape)}, expected input with shape [*, {', '.join(map(str, shape))}], but got input of size "
            f"{list(input._array.shape)}"
        )
    for what, tensor in affine.items():
        if tensor is not None and tensor._array.shape != shape:
            raise RuntimeError(
                f"{name}: expected {what} to be of the same shape as normalized_shape, but got {what} of shape "
                f"{list(tensor._array.shape)} and normalized_shape = {list(shape)}"
            )
    return len(shape)


def layer_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Mean 0 and variance 1 over the last dimensions of each sample; as ``torch.nn.functional.layer_norm``.

    Parameters
    ----------
    input : Tensor
        (*batch, *normalized_shape)
    normalized_shape : int or sequence of int
        The sizes of the dimensions that are normalized together.
    weight, bias : Tensor, optional
        Of `normalized_shape`, what the result is multiplied by and what is added.
    eps : float
        Added to the variance.

    Raises
    ------
    RuntimeError
        If shapes do not fit.
    """
    check_floating("layer_norm", input)
    ndim = _check_normalized("layer_norm", input, normalized_shape, weight=weight, bias=bias)
    return apply(_layer_norm, input, weight, bias, ndim=ndim, eps=eps)


def rms_norm(
    input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """x / sqrt(mean(x ** 2) + eps) over the last dimensions; as ``torch.nn.functional.rms_norm``.

    Parameters
    ----------
    input : Tensor
        (*batch, *normalized_shape)
    normalized_shape : int or sequence of int
    weight : Tensor, optional
        Of `normalized_shape`.
    eps : float, optional
        The distance from 1 to the next number of the input's dtype unless given.
    """
    if not isinstance(input, Tensor) or input._array.dtype not in dt.COMPLEX_DTYPES:
        check_floating("rms_norm", input)
    ndim = _check_normalized("rms_norm", input, normalized_shape, weight=weight)
    eps = vars(dt.finfo(input.dtype))["eps"] if eps is None else eps
    if input._array.dtype in dt.COMPLEX_DTYPES:
        result = input / pointwise.sqrt((input * input).mean(tuple(range(-ndim, 0)), True) + eps)
        return result if weight is None else result * weight
    return apply(_rms_norm, input, weight, ndim=ndim, eps=eps)


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Mean 0 and variance 1 over groups of channels of each sample; as ``torch.nn.functional.group_norm``.

    Parameters
    ----------
    input : Tensor
        (N, C, *spatial)
    num_groups : int
        Into how many groups the channels are divided.
    weight, bias : Tensor, optional
        (C,)
    eps : float
        Added to the variance.

    Raises
    ------
    RuntimeError
        If the channels cannot be divided like that.
    """
    check_floating("group_norm", input)
    shape = input._array.shape
    if len(shape) < 2:
        raise RuntimeError(f"Expected at least 2 dimensions for input tensor but received {len(shape)}")
    if num_groups < 1 or shape[1] % num_groups:
        raise RuntimeError(
            f"Expected number of channels in input to be divisible by num_groups, but got input of shape {list(shape)} and "
            f"num_groups={num_groups}"
        )
    check_channels("group_norm", input, weight=weight, bias=bias)
    if not input._array.size:
        return input.clone()
    wide = input
    for parameter in (weight, bias):  # of a half type it may have parameters in float32, and is rounded once, at the end
        if parameter is not None and parameter._array.dtype != wide._array.dtype:
            wide = wide.to(dtype=dt.promote_types(wide.dtype, parameter.dtype))
    result = apply(_layer_norm, wide.reshape(shape[0], num_groups, -1), None, None, ndim=1, eps=eps).reshape(shape)
    return _affine(result, weight, bias).to(dtype=input.dtype)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    trailing = (1,) * (x._array.ndim - 2)
    if weight is not None:
        x = x * weight.reshape(-1, *trailing)
    return x if bias is None else x + bias.reshape(-1, *trailing)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`batch_norm` of each sample by itself; as ``torch.nn.functional.instance_norm``.

    Parameters
    ----------
    input : Tensor
        (N, C, *spatial)
    running_mean, running_var : Tensor, optional
        (C,), changed in place towards the means over the samples where `use_input_stats`, else used.
    weight, bias : Tensor, optional
        (C,)
    use_input_stats : bool
    momentum, eps : float
        As in `batch_norm`.
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    check_floating("instance_norm", input)
    shape = input._array.shape
    if len(shape) < 3 or prod(shape[2:]) == 1:
        raise ValueError(f"Expected more than 1 spatial element when training, got input size {list(shape)}")
    check_channels("instance_norm", input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    xp = namespace(input._array)
    flat = input.reshape(1, shape[0] * shape[1], *shape[2:])
    mean, var = xp.batch_norm_stats(flat._array)
    count = prod(shape[2:])
    for running, batch in ((running_mean, mean), (running_var, var * (count / (count - 1)))):
        move_running(running, xp.mean(batch.reshape(shape[:2]), axis=0), momentum)
    result = apply(_batch_norm, flat, None, None, mean_and_var=(mean, var), eps=eps).reshape(shape)
    return _affine(result, weight, bias)


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """``x / (k + alpha * mean(x ** 2)) ** beta``, the mean over neighbouring channels; as
    ``torch.nn.functional.local_response_norm``.

    Parameters
    ----------
    input : Tensor
        (N, C, *spatial)
    size : int
        How many channels make a mean; those beyond the first and the last count as 0.
    alpha, beta, k : float

    Raises
    ------
    ValueError
        If the input has fewer than 3 dimensions.
    """
    shape = input.shape
    if len(shape) < 3:
        raise ValueError(f"Expected 3D or higher dimensionality input (got {len(shape)} dimensions)")
    if not input._array.size:
        return input
    squares = (input * input).unsqueeze(1)
    around = (size // 2, (size - 1) // 2)
    if len(shape) == 3:
        means = avg_pool2d(pad(squares, (0, 0, *around)), (size, 1), stride=1).squeeze(1)
    else:
        flat = squares.reshape(shape[0], 1, shape[1], shape[2], -1)
        means = avg_pool3d(pad(flat, (0, 0, 0, 0, *around)), (size, 1, 1), stride=1).reshape(shape)
    return input / (means * alpha + k) ** beta
