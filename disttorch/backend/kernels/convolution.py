"""Convolution over 1 to 3 spatial dimensions, and its gradients with respect to input and weight.

The result is linear in the input and in the weight, so the three kernels are each other's derivatives. Here each is a
sum of matrix products, one for each position inside the kernel.
"""

from __future__ import annotations

from math import prod
from typing import Any

from . import kernel
from .precision import narrow, wide
from .windows import Dims, offsets, output_shape, padded, spread, tap

__all__ = ["convolution", "convolution_input", "convolution_shape", "convolution_weight"]


@kernel
def convolution(xp: Any, x: Any, weight: Any, stride: Dims, padding: Dims, dilation: Dims, groups: int) -> Any:
    """Cross-correlation, as https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv2d.html.

    Parameters
    ----------
    x : array (N, C, *spatial)
    weight : array (O, C / groups, *kernel)
    stride, padding, dilation : tuple of int
        One entry a spatial dimension; zeros are padded on both sides.
    groups : int

    Returns
    -------
    array (N, O, *output)

    Raises
    ------
    RuntimeError
        If the channels do not match or no window fits.
    """
    shape = convolution_shape(x.shape, weight.shape, stride, padding, dilation, groups)
    dtype, x, weight = x.dtype, wide(xp, x), wide(xp, weight)
    x = padded(xp, x, padding, padding)
    out: Any = None
    for offset in offsets(weight.shape[2:]):
        seen = tap(x, offset, shape[2:], stride, dilation)
        seen = seen.reshape((x.shape[0], groups, weight.shape[1], prod(shape[2:])))
        taps = weight[(slice(None), slice(None), *offset)].reshape((groups, -1, weight.shape[1]))
        product = xp.matmul(taps, seen)
        out = product if out is None else out + product
    return narrow(xp, out.reshape(shape), dtype)


@kernel
def convolution_input(
    xp: Any, g: Any, weight: Any, x_shape: Dims, stride: Dims, padding: Dims, dilation: Dims, groups: int
) -> Any:
    """The gradient at the input, of shape `x_shape`, where `g` (N, O, *output) is the gradient at the output: a
    convolution with the transposed and flipped weight.
    """
    check_gradient(g.shape, x_shape, weight.shape, stride, padding, dilation, groups)
    kernel_shape, ones = weight.shape[2:], (1,) * len(stride)
    g = spread(xp, g, x_shape[2:], kernel_shape, stride, padding, dilation)
    # (O, C / groups) becomes (C, O / groups)
    weight = weight.reshape((groups, weight.shape[0] // groups, weight.shape[1], *kernel_shape))
    weight = xp.swapaxes(weight, 1, 2).reshape((x_shape[1], -1, *kernel_shape))
    weight = xp.flip(weight, tuple(range(2, weight.ndim)))
    return convolution(xp, g, weight, ones, (0,) * len(stride), dilation, groups)


@kernel
def convolution_weight(
    xp: Any, g: Any, x: Any, weight_shape: Dims, stride: Dims, padding: Dims, dilation: Dims, groups: int
) -> Any:
    """The gradient at the weight, of shape `weight_shape`, where `g` (N, O, *output) is the gradient at the output."""
    check_gradient(g.shape, x.shape, weight_shape, stride, padding, dilation, groups)
    dtype, g, x = x.dtype, wide(xp, g), wide(xp, x)
    n, positions = x.shape[0], prod(g.shape[2:])
    per_group, channels = weight_shape[0] // groups, weight_shape[1]
    x = padded(xp, x, padding, padding)
    rows = xp.moveaxis(g.reshape((n, groups, per_group, positions)), 0, 2)
    rows = rows.reshape((groups, per_group, n * positions))
    taps = []
    for offset in offsets(weight_shape[2:]):
        seen = tap(x, offset, g.shape[2:], stride, dilation).reshape((n, groups, channels, positions))
        columns = xp.swapaxes(xp.moveaxis(seen, 0, 2).reshape((groups, channels, n * positions)), 1, 2)
        taps.append(xp.matmul(rows, columns))
    return narrow(xp, xp.stack(taps, axis=-1).reshape(weight_shape), dtype)


def convolution_shape(
    x_shape: Dims, weight_shape: Dims, stride: Dims, padding: Dims, dilation: Dims, groups: int
) -> Dims:
    """The shape (N, O, *output) of a convolution's result.

    Raises
    ------
    RuntimeError
        If the channels do not match or no window fits.
    """
    if len(x_shape) != len(weight_shape) or len(weight_shape) != len(stride) + 2:
        raise RuntimeError(
            f"convolution over {len(stride)} spatial dimensions expects an input (N, C, *spatial) and a weight "
            f"(O, C / groups, *kernel), got the shapes {tuple(x_shape)} and {tuple(weight_shape)}"
        )
    if x_shape[1] != weight_shape[1] * groups or weight_shape[0] % groups:
        raise RuntimeError(
            f"with groups={groups}, a weight of shape {tuple(weight_shape)} expects {weight_shape[1] * groups} input "
            f"channels and output channels divisible by {groups}, but the input has the shape {tuple(x_shape)}"
        )
    return (x_shape[0], weight_shape[0], *output_shape(x_shape[2:], weight_shape[2:], stride, padding, dilation))


def check_gradient(
    g_shape: Dims, x_shape: Dims, weight_shape: Dims, stride: Dims, padding: Dims, dilation: Dims, groups: int
) -> None:
    """Raise a RuntimeError unless `g_shape` is the shape of the convolution's output."""
    shape = convolution_shape(x_shape, weight_shape, stride, padding, dilation, groups)
    if tuple(g_shape) != shape:
        raise RuntimeError(f"the convolution's output has the shape {shape}, its gradient {tuple(g_shape)}")
