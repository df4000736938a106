"""Max pooling and the gradients of pooling in place, a block of planes at a time.

A maximum is found first and its position after: at each offset of the kernel a byte counts up for the windows that have
not met their maximum yet, which leaves the number of the offset where they do.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ..kernels import pooling as plain
from ..kernels.windows import Dims, offsets, tap

__all__ = ["avg_pool_backward", "max_pool", "max_pool_backward"]

#: Input elements at a time: 512 KiB of float32, half of the usual second-level cache.
BLOCK = 131072


def max_pool(x: Any, kernel: Dims, stride: Dims, padding: Dims, dilation: Dims, ceil_mode: bool) -> tuple[Any, Any]:
    parameters = (kernel, stride, padding, dilation, ceil_mode)
    shape = plain.pool_shape(x.shape[2:], *parameters)
    if x.dtype.kind != "f" or x.dtype.itemsize < 4 or prod(kernel) > 255:
        return plain.max_pool(np, x, *parameters)
    spatial = x.shape[2:]
    out, indices = np.empty(x.shape[:2] + shape, x.dtype), np.empty(x.shape[:2] + shape, np.int64)
    starts = plain.flat_position([np.arange(n) * s - p for n, s, p in zip(shape, stride, padding)], spatial)
    steps = plain.flat_position([np.arange(k) * d for k, d in zip(kernel, dilation)], spatial).reshape(-1)
    size, inside = frame(x.shape, shape, kernel, stride, padding, dilation)
    memory = None if size[2:] == spatial else np.full(size, -np.inf, x.dtype)
    for block, o, at in blocks(x.shape, as_planes(x), as_planes(out), as_planes(indices)):
        padded = block
        if memory is not None:
            padded = memory[: len(block)]
            padded[inside] = block
        taps = [tap(padded, offset, shape, stride, dilation) for offset in offsets(kernel)]
        o[...] = taps[0]
        for seen in taps[1:]:
            np.maximum(o, seen, out=o)
        if not np.isfinite(o).all():
            # nan is equal to nothing, and minus infinity equal to the padding
            o[...], at[...] = plain.max_pool(np, block, *parameters)
            continue
        missed, number = np.ones(o.shape, bool), np.zeros(o.shape, np.uint8)
        for seen in taps[:-1]:
            missed &= seen != o
            number += missed.view(np.uint8)
        np.add(steps.take(number), starts, out=at)
    return out, indices


def max_pool_backward(g: Any, indices: Any, x_shape: Dims) -> Any:
    if g.shape != indices.shape:
        raise RuntimeError(f"max_pool_backward: g has the shape {g.shape} and its indices {indices.shape}")
    dtype, size = g.dtype, prod(x_shape[2:])
    g = g.astype(np.float32) if dtype.itemsize < 4 else g
    total = np.zeros(x_shape, g.dtype)
    if not g.size or not total.size:
        return total.astype(dtype, copy=False)
    for into, above, at in blocks(x_shape, as_planes(total), as_planes(g), as_planes(indices)):
        flat = at.reshape(len(at), -1) + np.arange(len(at))[:, None] * size
        np.add.at(into.reshape(-1), flat.reshape(-1), above.reshape(-1))
    return total.astype(dtype, copy=False)


def avg_pool_backward(
    g: Any,
    x_shape: Dims,
    kernel: Dims,
    stride: Dims,
    padding: Dims,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Any:
    ones = (1,) * len(kernel)
    shape = plain.pool_shape(tuple(x_shape[2:]), kernel, stride, padding, ones, ceil_mode)
    rest = (kernel, stride, padding, count_include_pad, divisor_override)
    if g.dtype.itemsize < 4 or tuple(g.shape) != (*x_shape[:2], *shape):
        return plain.avg_pool_backward(
            np, g, x_shape, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override
        )
    divisor = plain.divisors(np, g.dtype, tuple(x_shape[2:]), shape, *rest)
    out = np.empty(x_shape, g.dtype)
    size, inside = frame(x_shape, shape, kernel, stride, padding, ones)
    memory = np.empty(size, g.dtype)
    for above, o in blocks(x_shape, as_planes(g), as_planes(out)):
        share = above / divisor
        padded = memory[: len(o)]
        padded[...] = 0
        for offset in offsets(kernel):
            seen = tap(padded, offset, shape, stride, ones)
            np.add(seen, share, out=seen)
        o[...] = padded[inside]
    return out


def frame(
    x_shape: Dims, shape: Dims, kernel: Dims, stride: Dims, padding: Dims, dilation: Dims
) -> tuple[Dims, tuple[slice, ...]]:
    """The shape of a block of padded inputs, and where the inputs lie in it."""
    reached = ((n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(shape, stride, dilation, kernel))
    size = tuple(max(n + p, r) for n, p, r in zip(x_shape[2:], padding, reached))
    inside = (slice(None), slice(None), *(slice(p, p + n) for n, p in zip(x_shape[2:], padding)))
    return (min(x_shape[0] * x_shape[1], planes_in_block(x_shape)), 1, *size), inside


def as_planes(array: Any) -> Any:
    """``(N, C, *spatial)`` as ``(N * C, 1, *spatial)``: a view where the array is contiguous."""
    return array.reshape(array.shape[0] * array.shape[1], 1, *array.shape[2:])


def planes_in_block(x_shape: Dims) -> int:
    """How many planes make a block of inputs of shape `x_shape`."""
    return max(1, BLOCK // max(1, prod(x_shape[2:])))


def blocks(x_shape: Dims, *planes: Any) -> Iterator[list[Any]]:
    """The same planes of each array, a block at a time."""
    step = planes_in_block(x_shape)
    for start in range(0, x_shape[0] * x_shape[1], step):
        yield [p[start : start + step] for p in planes]
