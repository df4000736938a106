"""Max and average pooling over 1 to 3 spatial dimensions, and their gradients.

Pooling keeps the flat positions of the maxima, so its gradient is a scatter and the gradient of that a gather.
"""

from __future__ import annotations

from math import prod
from typing import Any

from . import kernel
from .precision import narrow, wide
from .windows import Dims, offsets, output_shape, padded, spread, tap

__all__ = ["avg_pool", "avg_pool_backward", "max_pool", "max_pool_backward", "max_pool_gather", "pool_shape"]


@kernel
def max_pool(
    xp: Any, x: Any, kernel: Dims, stride: Dims, padding: Dims, dilation: Dims, ceil_mode: bool
) -> tuple[Any, Any]:
    """The maximum of each window, as https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool2d.html.

    Parameters
    ----------
    x : array (N, C, *spatial)
    kernel, stride, padding, dilation : tuple of int
    ceil_mode : bool
        Whether a last window may hang over the end.

    Returns
    -------
    out : array (N, C, *output)
    indices : int64 array (N, C, *output)
        Flat positions in the input's spatial block. The first of equal maxima; nan is larger than any number.

    Raises
    ------
    RuntimeError
        If no window fits, or the padding is more than half the kernel, so that a window could lie in the padding alone.
    """
    spatial = x.shape[2:]
    shape = pool_shape(spatial, kernel, stride, padding, dilation, ceil_mode)
    after = tuple(
        max(0, (n - 1) * s + d * (k - 1) + 1 - size - p)
        for n, s, d, k, size, p in zip(shape, stride, dilation, kernel, spatial, padding)
    )
    lowest = lowest_value(x.dtype)
    x = padded(xp, x, padding, after, lowest)
    starts = [xp.arange(n) * s - p for n, s, p in zip(shape, stride, padding)]
    # Where a window holds nothing above the lowest value, PyTorch names the first position that is not padding.
    first = [xp.where(a < 0, a + d * ((d - 1 - a) // d), a) for a, d in zip(starts, dilation)]
    out = xp.full(x.shape[:2] + shape, lowest, dtype=x.dtype)
    indices = xp.broadcast_to(flat_position(first, spatial), out.shape)
    for offset in offsets(kernel):
        seen = tap(x, offset, shape, stride, dilation)
        larger = (seen > out) | (seen != seen)
        out = xp.where(larger, seen, out)
        here = flat_position([a + o * d for a, o, d in zip(starts, offset, dilation)], spatial)
        indices = xp.where(larger, here, indices)
    return out, xp.asarray(indices, dtype="int64")


@kernel
def max_pool_backward(xp: Any, g: Any, indices: Any, x_shape: Dims) -> Any:
    """The gradient at the input, of shape `x_shape`: each element of `g` (N, C, *output) added at its index."""
    planes, size = x_shape[0] * x_shape[1], prod(x_shape[2:])
    if g.shape != indices.shape:
        raise RuntimeError(f"max_pool_backward: g has the shape {g.shape} and its indices {indices.shape}")
    if not planes * size or not prod(g.shape):
        return xp.zeros(tuple(x_shape), dtype=g.dtype)
    at = indices.reshape((planes, -1)) + xp.arange(planes)[:, None] * size
    total = xp.bincount(at.reshape(-1), weights=wide(xp, g).reshape(-1), minlength=planes * size)
    return narrow(xp, total.reshape(tuple(x_shape)), g.dtype)


@kernel
def max_pool_gather(xp: Any, x: Any, indices: Any) -> Any:
    """The elements of `x` (N, C, *spatial) at the flat positions `indices` (N, C, *output): the derivative of
    `max_pool_backward`.
    """
    flat = x.reshape(x.shape[:2] + (prod(x.shape[2:]),))
    at = indices.reshape(indices.shape[:2] + (prod(indices.shape[2:]),))
    return xp.take_along_axis(flat, at, axis=2).reshape(indices.shape)


@kernel
def avg_pool(
    xp: Any,
    x: Any,
    kernel: Dims,
    stride: Dims,
    padding: Dims,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Any:
    """The mean of each window, as https://docs.pytorch.org/docs/stable/generated/torch.nn.AvgPool2d.html.

    Parameters
    ----------
    x : array (N, C, *spatial)
    kernel, stride, padding : tuple of int
    ceil_mode : bool
        Whether a last window may hang over the end.
    count_include_pad : bool
        Whether padded zeros count as elements of the mean.
    divisor_override : int or None
        What to divide the sum by instead.

    Returns
    -------
    array (N, C, *output)
    """
    ones, spatial, dtype = (1,) * len(kernel), x.shape[2:], x.dtype
    shape = pool_shape(spatial, kernel, stride, padding, ones, ceil_mode)
    after = tuple(
        max(0, (n - 1) * s + k - size - p) for n, s, k, size, p in zip(shape, stride, kernel, spatial, padding)
    )
    x = padded(xp, wide(xp, x), padding, after)
    total: Any = None
    for offset in offsets(kernel):
        seen = tap(x, offset, shape, stride, ones)
        total = seen if total is None else total + seen
    divisor = divisors(xp, x.dtype, spatial, shape, kernel, stride, padding, count_include_pad, divisor_override)
    return narrow(xp, total / divisor, dtype)


@kernel
def avg_pool_backward(
    xp: Any,
    g: Any,
    x_shape: Dims,
    kernel: Dims,
    stride: Dims,
    padding: Dims,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Any:
    """The gradient at the input, of shape `x_shape`, where `g` (N, C, *output) is the gradient at the output."""
    ones, spatial, dtype = (1,) * len(kernel), tuple(x_shape[2:]), g.dtype
    shape = pool_shape(spatial, kernel, stride, padding, ones, ceil_mode)
    if tuple(g.shape) != (*x_shape[:2], *shape):
        raise RuntimeError(f"the pool's output has the shape {(*x_shape[:2], *shape)}, its gradient {tuple(g.shape)}")
    g = wide(xp, g)
    g = g / divisors(xp, g.dtype, spatial, shape, kernel, stride, padding, count_include_pad, divisor_override)
    g = spread(xp, g, spatial, kernel, stride, padding, ones)
    total: Any = None
    for offset in offsets(kernel):
        seen = tap(g, offset, spatial, ones, ones)
        total = seen if total is None else total + seen
    return narrow(xp, total, dtype)


def pool_shape(spatial: Dims, kernel: Dims, stride: Dims, padding: Dims, dilation: Dims, ceil_mode: bool) -> Dims:
    """The spatial shape of a pool's output.

    Raises
    ------
    RuntimeError
        If no window fits, or the padding is more than half the kernel.
    """
    if any(p < 0 or p > k // 2 for k, p in zip(kernel, padding)):
        raise RuntimeError(
            f"pooling: the padding must be at least 0 and at most half the kernel, but is {tuple(padding)} for a "
            f"kernel of size {tuple(kernel)}"
        )
    return output_shape(spatial, kernel, stride, padding, dilation, ceil_mode)


def lowest_value(dtype: Any) -> float:
    """What pads a maximum: minus infinity, or the smallest integer."""
    if dtype.kind == "u":
        return 0
    return -(2 ** (8 * dtype.itemsize - 1)) if dtype.kind == "i" else float("-inf")


def flat_position(along: list[Any], spatial: Dims) -> Any:
    """Positions along each spatial dimension, one vector each, as flat positions in the spatial block."""
    flat = along[0]
    for positions, size in zip(along[1:], spatial[1:]):
        flat = flat[..., None] * size + positions
    return flat


def divisors(
    xp: Any,
    dtype: Any,
    spatial: Dims,
    shape: Dims,
    kernel: Dims,
    stride: Dims,
    padding: Dims,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Any:
    """What each window's sum is divided by: a number, or an array of the output's spatial shape."""
    if divisor_override is not None:
        return divisor_override
    counts: Any = None
    for n, size, k, s, p in zip(shape, spatial, kernel, stride, padding):
        start = xp.arange(n) * s - p
        # Overhang beyond the padding, which ceil_mode allows, never counts.
        end = xp.minimum(start + k, size + p)
        count = end - start if count_include_pad else xp.minimum(end, size) - xp.maximum(start, 0)
        counts = count if counts is None else counts[..., None] * count
    return xp.asarray(counts, dtype=dtype)
