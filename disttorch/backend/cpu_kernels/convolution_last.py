"""Convolution where channels lie last: a window is a row, whose elements are runs of whole pixels.

An array (N, C, *spatial) with channels last is in memory (N, *spatial, C). A block's windows are copied into a matrix with a row for each
window and a column for each (kernel offset, channel), and one product with the weights gives the block's outputs where they belong.
Without groups: groups take the way of `convolution`, and are laid out afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..kernels.precision import wide
from ..kernels.windows import Dims
from .layouts import empty_last

__all__ = ["convolution", "convolution_input", "convolution_weight"]

#: Bytes of windows at a time.
ROW_BYTES = 5 << 19


def convolution(x: Any, weight: Any, shape: Dims, stride: Dims, padding: Dims, dilation: Dims) -> Any:
    """The convolution, of this shape."""
    dtype, x, factors = x.dtype, pixels(x), matrix(weight)
    out = empty_last(shape, factors.dtype)
    positions = np.moveaxis(out, 1, -1)
    for images, lines, rows in windows(x, weight.shape[2:], shape[2:], stride, padding, dilation):
        np.matmul(rows, factors.T, out=positions[images, lines].reshape(len(rows), shape[1]))
    return out.astype(dtype, copy=False)


def convolution_weight(g: Any, x: Any, weight_shape: Dims, stride: Dims, padding: Dims, dilation: Dims) -> Any:
    """The gradient at the weight, which has channels last, too."""
    dtype, x, g = x.dtype, pixels(x), pixels(g)
    result = empty_last(weight_shape, x.dtype)
    total = np.moveaxis(result, 1, -1).reshape(weight_shape[0], -1)
    total[...] = 0
    product = np.empty_like(total)
    for images, lines, rows in windows(x, weight_shape[2:], g.shape[1:-1], stride, padding, dilation):
        np.matmul(g[images, lines].reshape(len(rows), -1).T, rows, out=product)
        total += product
    return result.astype(dtype, copy=False)


def convolution_input(g: Any, weight: Any, x_shape: Dims, stride: Dims, padding: Dims, dilation: Dims) -> Any:
    """The gradient at the input, where windows overlap a sum of what each of them says of it."""
    kernel = weight.shape[2:]
    around = tuple(d * (k - 1) - p for k, p, d in zip(kernel, padding, dilation))
    if max(stride) == 1 and min(around) >= 0 and weight.shape[0] <= 2 * weight.shape[1]:
        flipped = np.flip(weight.swapaxes(0, 1), tuple(range(2, weight.ndim)))
        return convolution(g, flipped, x_shape, stride, around, dilation)
    dtype, g, factors = g.dtype, pixels(g), matrix(weight)
    padded = tuple(n + 2 * p for n, p in zip(x_shape[2:], padding))
    output = g.shape[1:-1]
    within: Any = (0, *(slice(p, p + n) for p, n in zip(padding, x_shape[2:])))
    out = empty_last(x_shape, g.dtype)
    positions = np.moveaxis(out, 1, -1)
    frame: Any = np.empty((1, *padded, x_shape[1]), g.dtype)
    memory = np.empty(prod(output) * factors.shape[1], g.dtype)
    for image in range(len(g)):  # windows of one image alone overlap
        rows = memory.reshape(prod(output), -1)
        np.matmul(g[image].reshape(prod(output), -1), factors, out=rows)
        taps: Any = rows.reshape(*output, *kernel, x_shape[1])
        frame[...] = 0
        for offset in np.ndindex(*kernel):
            reached = tuple(slice(o * d, o * d + (n - 1) * s + 1, s) for o, d, n, s in zip(offset, dilation, output, stride))
            where: Any = (0, *reached)
            frame[where] += taps[(slice(None),) * len(output) + offset]
        positions[image] = frame[within]
    return out.astype(dtype, copy=False)


def pixels(a: Any) -> Any:
    """(N, C, *spatial) as (N, *spatial, C) in C order, in a type that is computed in; a view where it lies so."""
    return np.ascontiguousarray(np.moveaxis(wide(np, a), 1, -1))


def matrix(weight: Any) -> Any:
    """(O, C, *kernel) as a matrix (O, kernel offsets and channels)."""
    return pixels(weight).reshape(weight.shape[0], -1)


def windows(x: Any, kernel: Dims, output: Dims, stride: Dims, padding: Dims, dilation: Dims) -> Iterator[tuple[slice, slice, Any]]:
    """Blocks of images and of lines (positions along the output's first dimension), with the matrix of their windows.

    A matrix is overwritten by the next one's.
    """
    channels = x.shape[-1]
    length = channels * prod(kernel)
    if max(kernel) == 1 and max(stride) == 1 and not any(padding):
        yield slice(None), slice(None), x.reshape(-1, channels)
        return
    line = x.itemsize * length * prod(output[1:])
    lines = min(output[0], max(1, ROW_BYTES // line))
    images = max(1, min(len(x), ROW_BYTES // (line * output[0]))) if lines == output[0] else 1
    memory = np.empty(images * lines * prod(output[1:]) * length, x.dtype)
    inside = tuple(slice(p, p + n) for p, n in zip(padding, x.shape[1:-1]))
    frame = np.zeros((images, *(n + 2 * p for n, p in zip(x.shape[1:-1], padding)), channels), x.dtype) if any(padding) else None
    for first in range(0, len(x), images):
        chosen = slice(first, min(first + images, len(x)))
        block = x[chosen]
        if frame is not None:
            frame[(slice(len(block)), *inside)] = block
            block = frame[: len(block)]
        steps = block.strides[1:-1]
        for start in range(0, output[0], lines):
            stop = min(start + lines, output[0])
            seen = as_strided(
                block[:, start * stride[0] :],
                (len(block), stop - start, *output[1:], *kernel, channels),
                (block.strides[0], *(n * s for n, s in zip(steps, stride)), *(n * d for n, d in zip(steps, dilation)), block.strides[-1]),
            )
            rows = memory[: seen.size].reshape(seen.shape)
            rows[...] = seen
            yield chosen, slice(start, stop), rows.reshape(-1, length)
