"""Convolution as few large matrix products, on blocks of the batch whose columns stay in the cache.

A block's padded inputs are copied into one matrix with a row for each (channel, kernel offset) and a column for each
window (im2col: Chellapilla et al., "High performance convolutional neural networks for document processing", 2006).
Where all strides are 1, the windows that would straddle two rows of the image are computed as well and dropped: then
each copied run is a whole image long instead of one row.

Arrays with channels last, if there are no groups, are `convolution_last`'s. The result lies as one of the two operands with channels last.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..kernels.convolution import check_gradient, convolution_shape
from ..kernels.precision import wide
from ..kernels.windows import Dims, spread
from ..layout import is_channels_last
from . import convolution_last
from .layouts import with_channels_last

__all__ = ["convolution", "convolution_input", "convolution_weight"]

#: Bytes of columns at a time: measured best of 0.5 to 16 MiB, with 1 MiB of second-level cache a core.
COLUMN_BYTES = 5 << 19
#: The share of dropped windows up to which copying whole images is worth it.
WASTE = 1.3


def convolution(x: Any, weight: Any, stride: Dims, padding: Dims, dilation: Dims, groups: int) -> Any:
    shape = convolution_shape(x.shape, weight.shape, stride, padding, dilation, groups)
    if is_channels_last(x) or is_channels_last(weight):
        if groups == 1 and 0 not in shape:
            return convolution_last.convolution(x, weight, shape, stride, padding, dilation)
        x, weight = np.ascontiguousarray(x), np.ascontiguousarray(weight)
        return with_channels_last(_convolution(x, weight, shape, stride, padding, dilation, groups))
    return _convolution(x, weight, shape, stride, padding, dilation, groups)


def _convolution(x: Any, weight: Any, shape: Dims, stride: Dims, padding: Dims, dilation: Dims, groups: int) -> Any:
    dtype, x, weight = x.dtype, wide(np, x), wide(np, weight)
    channels, kernel = weight.shape[1], weight.shape[2:]
    out = np.empty(shape, x.dtype)
    rows = np.ascontiguousarray(weight).reshape(groups, shape[1] // groups, channels * prod(kernel))
    if max(kernel) == 1 and not any(padding):
        x = x[(..., *(slice(None, None, s) for s in stride))]
        x = x.reshape(shape[0], groups, channels, prod(shape[2:]))
        np.matmul(rows, x, out=out.reshape(shape[0], groups, rows.shape[1], prod(shape[2:])))
        return out.astype(dtype, copy=False)
    layout = Layout.of(x.shape, shape, kernel, stride, padding, dilation, groups)
    frame = layout.frame(x.dtype)
    columns = np.empty(layout.columns_size, x.dtype)
    if layout.each_image:
        for images, lines in layout.blocks():
            block = layout.columns(columns, layout.load(frame, x, images, lines))
            target = out[images].reshape(-1, *rows.shape[:2], prod(shape[2:]))
            np.matmul(rows, block.reshape(-1, groups, rows.shape[2], prod(shape[2:])), out=target)
        return out.astype(dtype, copy=False)
    products = np.empty(shape[1] * layout.images * layout.lines * prod(layout.grid[1:]), x.dtype)
    crop: tuple[Any, ...] = (..., *(slice(n) for n in shape[3:]))
    for images, lines in layout.blocks():
        block = layout.columns(columns, layout.load(frame, x, images, lines))
        windows = block.shape[1 + len(kernel) :]
        product = products[: shape[1] * prod(windows)].reshape(shape[1], *windows)
        np.matmul(rows, block.reshape(groups, rows.shape[2], -1), out=product.reshape(*rows.shape[:2], -1))
        out[images, :, lines] = product[crop].swapaxes(0, 1)
    return out.astype(dtype, copy=False)


def convolution_weight(
    g: Any, x: Any, weight_shape: Dims, stride: Dims, padding: Dims, dilation: Dims, groups: int
) -> Any:
    check_gradient(g.shape, x.shape, weight_shape, stride, padding, dilation, groups)
    if is_channels_last(x) or is_channels_last(g):
        if groups == 1:
            return convolution_last.convolution_weight(g, x, weight_shape, stride, padding, dilation)
        window = (stride, padding, dilation, groups)
        return with_channels_last(_convolution_weight(np.ascontiguousarray(g), np.ascontiguousarray(x), weight_shape, *window))
    return _convolution_weight(g, x, weight_shape, stride, padding, dilation, groups)


def _convolution_weight(
    g: Any, x: Any, weight_shape: Dims, stride: Dims, padding: Dims, dilation: Dims, groups: int
) -> Any:
    dtype, g, x = x.dtype, wide(np, g), wide(np, x)
    kernel = weight_shape[2:]
    layout = Layout.of(x.shape, g.shape, kernel, stride, padding, dilation, groups)
    frame = layout.frame(x.dtype)
    columns = np.empty(layout.columns_size, x.dtype)
    total = np.zeros((groups, weight_shape[0] // groups, prod(weight_shape[1:])), x.dtype)
    product = np.empty_like(total)
    for images, lines in layout.blocks():
        block = layout.columns(columns, layout.load(frame, x, images, lines))
        if layout.each_image:
            rows = np.ascontiguousarray(g[images]).reshape(-1, *total.shape[:2], prod(g.shape[2:]))
            block = block.reshape(-1, groups, total.shape[2], rows.shape[3])
            np.add.reduce(np.matmul(rows, block.swapaxes(2, 3)), 0, out=product)
        else:
            rows = layout.outputs(g, images, lines).reshape(*total.shape[:2], -1)
            np.matmul(rows, block.reshape(groups, total.shape[2], -1).swapaxes(1, 2), out=product)
        total += product
    return total.reshape(weight_shape).astype(dtype, copy=False)


def convolution_input(
    g: Any, weight: Any, x_shape: Dims, stride: Dims, padding: Dims, dilation: Dims, groups: int
) -> Any:
    check_gradient(g.shape, x_shape, weight.shape, stride, padding, dilation, groups)
    if is_channels_last(g) or is_channels_last(weight):
        if groups == 1 and 0 not in x_shape:
            return convolution_last.convolution_input(g, weight, x_shape, stride, padding, dilation)
        window = (stride, padding, dilation, groups)
        return with_channels_last(_convolution_input(np.ascontiguousarray(g), np.ascontiguousarray(weight), x_shape, *window))
    return _convolution_input(g, weight, x_shape, stride, padding, dilation, groups)


def _convolution_input(
    g: Any, weight: Any, x_shape: Dims, stride: Dims, padding: Dims, dilation: Dims, groups: int
) -> Any:
    dtype, g, weight = g.dtype, wide(np, g), wide(np, weight)
    kernel, channels, per_group = weight.shape[2:], weight.shape[1], weight.shape[0] // groups
    if max(stride) == 1 and per_group <= 2 * channels:
        return transposed(g, weight, x_shape, padding, dilation, groups).astype(dtype, copy=False)
    # Otherwise the columns' gradients are computed and added to the inputs that they are copies of (col2im).
    layout = Layout.of(x_shape, g.shape, kernel, stride, padding, dilation, groups)
    frame = layout.frame(g.dtype)
    columns = np.empty(layout.columns_size, g.dtype)
    rows = np.ascontiguousarray(weight.reshape(groups, per_group, channels * prod(kernel)).swapaxes(1, 2))
    out = np.empty(x_shape, g.dtype)
    for images, lines in layout.blocks():
        if lines.start == 0:
            frame[...] = 0
        taps = layout.taps(frame, images, lines)
        block = columns[: taps.size].reshape(taps.shape)
        if layout.each_image:
            outputs = np.ascontiguousarray(g[images]).reshape(-1, groups, per_group, prod(g.shape[2:]))
            np.matmul(rows, outputs, out=block.reshape(-1, *rows.shape[:2], outputs.shape[3]))
        else:
            outputs = layout.outputs(g, images, lines).reshape(groups, per_group, -1)
            np.matmul(rows, outputs, out=block.reshape(*rows.shape[:2], -1))
        channel = (slice(None),) * (2 if layout.each_image else 1)
        for offset in np.ndindex(*kernel):
            taps[(*channel, *offset)] += block[(*channel, *offset)]
        if lines.stop == g.shape[2]:
            out[images] = layout.inside(frame)[: images.stop - images.start]
    return out.astype(dtype, copy=False)


def transposed(g: Any, weight: Any, x_shape: Dims, padding: Dims, dilation: Dims, groups: int) -> Any:
    """The input's gradient where all strides are 1: a convolution with the flipped and transposed weight."""
    kernel, ones = weight.shape[2:], (1,) * len(dilation)
    weight = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:]).swapaxes(1, 2)
    weight = np.flip(weight, tuple(range(3, weight.ndim))).reshape(x_shape[1], -1, *kernel)
    around = tuple(d * (k - 1) - p for k, p, d in zip(kernel, padding, dilation))
    if min(around) < 0:
        g, around = spread(np, g, x_shape[2:], kernel, ones, padding, dilation), (0,) * len(ones)
    return convolution(g, weight, ones, around, dilation, groups)


class Layout(NamedTuple):
    """How a batch is cut into blocks, and where windows lie in a block's padded inputs.

    A *frame* holds the padded inputs of `images` images, ``(images, C, frame)``. A window's column stands in a `grid`,
    which is the output's shape, or, where all strides are 1, the padded input's but for the first dimension. Columns
    are ``(C, *kernel, images, *grid)``: one matrix for a block. Where they are few, ``(images, C, *kernel, *grid)``
    and a matrix for each image saves copying the outputs, which are many.
    """

    shape: Dims
    padding: Dims
    padded: Dims
    kernel: Dims
    dilation: Dims
    stride: Dims
    output: Dims
    grid: Dims
    images: int
    lines: int
    each_image: bool

    @classmethod
    def of(
        cls, x_shape: Dims, shape: Dims, kernel: Dims, stride: Dims, padding: Dims, dilation: Dims, groups: int
    ) -> Layout:
        """The layout of an input and an output of these shapes."""
        padded = tuple(n + 2 * p for n, p in zip(x_shape[2:], padding))
        output = tuple(shape[2:])
        length = x_shape[1] * prod(kernel)
        each_image = length < shape[1] and 4 * length * prod(output) <= COLUMN_BYTES
        grid = (output[0], *padded[1:])
        if each_image or max(stride) > 1 or prod(grid) > WASTE * prod(output):
            grid = output
        line = 4 * length * prod(grid[1:])
        lines = min(output[0], max(1, COLUMN_BYTES // line))
        images = max(1, min(x_shape[0], COLUMN_BYTES // (line * output[0])))
        return cls(
            tuple(x_shape), padding, padded, kernel, dilation, stride, output, grid, images, lines, each_image
        )

    @property
    def columns_size(self) -> int:
        return self.shape[1] * prod(self.kernel) * self.images * self.lines * prod(self.grid[1:])

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """The images and the lines (positions along the output's first dimension) of each block."""
        for start in range(0, self.shape[0], self.images):
            images = slice(start, min(start + self.images, self.shape[0]))
            for line in range(0, self.output[0], self.lines):
                yield images, slice(line, min(line + self.lines, self.output[0]))

    def frame(self, dtype: Any) -> Any:
        """Zeros for a block's padded inputs; the last windows of a whole grid reach beyond them by `slack`."""
        slack = sum(d * (k - 1) * n for d, k, n in zip(self.dilation, self.kernel, self.steps))
        return np.zeros((self.images, self.shape[1], prod(self.padded) + slack), dtype)

    @property
    def steps(self) -> Dims:
        """How many elements of a frame lie between neighbours along each spatial dimension."""
        return tuple(prod(self.padded[i + 1 :]) for i in range(len(self.padded)))

    def inside(self, frame: Any) -> Any:
        """The view of a frame without padding, ``(images, C, *spatial)``."""
        strides = frame.strides[:2] + tuple(frame.itemsize * n for n in self.steps)
        view: Any = as_strided(frame, (*frame.shape[:2], *self.padded), strides)
        return view[(..., *(slice(p, p + n) for p, n in zip(self.padding, self.shape[2:])))]

    def taps(self, frame: Any, images: slice, lines: slice) -> Any:
        """The view of a frame that has the shape of a block's columns."""
        first = frame[: images.stop - images.start, :, lines.start * self.stride[0] * self.steps[0] :]
        view = as_strided(
            first,
            (*first.shape[:2], *self.kernel, lines.stop - lines.start, *self.grid[1:]),
            (
                *first.strides[:2],
                *(frame.itemsize * n * d for n, d in zip(self.steps, self.dilation)),
                *(frame.itemsize * n * s for n, s in zip(self.steps, self.stride)),
            ),
        )
        return view if self.each_image else np.moveaxis(view, 0, 1 + len(self.kernel))

    def load(self, frame: Any, x: Any, images: slice, lines: slice) -> Any:
        """The taps of a block, after its images are copied into the frame."""
        if lines.start == 0:
            self.inside(frame)[: images.stop - images.start] = x[images]
        return self.taps(frame, images, lines)

    def columns(self, memory: Any, taps: Any) -> Any:
        """The taps as contiguous columns, at the beginning of `memory`."""
        block = memory[: taps.size].reshape(taps.shape)
        block[...] = taps
        return block

    def outputs(self, g: Any, images: slice, lines: slice) -> Any:
        """A block of the output's gradient as rows ``(O, images, *grid)``, 0 for windows that are dropped."""
        block = g[images, :, lines].swapaxes(0, 1)
        if self.grid == self.output:
            return np.ascontiguousarray(block)
        rows = np.zeros(block.shape[:3] + self.grid[1:], g.dtype)
        rows[tuple(map(slice, block.shape))] = block
        return rows
