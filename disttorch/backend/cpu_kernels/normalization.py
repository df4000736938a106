"""Normalization in blocks that stay in the cache: rows for layer and RMS normalization, images and channels for batch
normalization. Sums along contiguous memory are dot products, which BLAS does faster than NumPy adds.

Half types, and batch normalization without spatial dimensions, take the plain kernels' way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import gcd, prod
from typing import Any

import numpy as np

from ..kernels import normalization as plain
from .layouts import empty_last

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_stats",
    "layer_norm",
    "layer_norm_backward",
    "rms_norm",
    "rms_norm_backward",
]

#: Elements at a time: 128 KiB of float32.
BLOCK = 32768
#: Up to so many elements the interpreter is the cost.
SMALL = 2048


def batch_norm_stats(x: Any) -> tuple[Any, Any]:
    if not by_channel(x):
        return plain.batch_norm_stats(np, x)
    if lies_in_rows(x):
        return row_stats(pixel_rows(x))
    planes = as_planes(x)
    count = planes.shape[0] * planes.shape[2]
    mean = np.add.reduce(np.vecdot(planes, np.ones(planes.shape[2], x.dtype)), 0) / x.dtype.type(count)
    squares, column = np.zeros(planes.shape[1], x.dtype), columns(mean, planes)
    for images, channels in channel_blocks(planes.shape):
        centered = planes[images, channels] - column[channels]
        squares[channels] += np.add.reduce(np.vecdot(centered, centered), 0)
    return mean, squares / x.dtype.type(count)


def batch_norm(x: Any, weight: Any, bias: Any, mean: Any, rstd: Any) -> Any:
    if not by_channel(x):
        return plain.batch_norm(np, x, weight, bias, mean, rstd)
    if lies_in_rows(x):
        return normalized_rows(x, weight, bias, mean, rstd)
    planes = as_planes(x)
    out = np.empty(planes.shape, x.dtype)
    mean, scale = columns(mean, planes), columns(rstd if weight is None else rstd * weight, planes)
    bias = None if bias is None else columns(bias, planes)
    for images, channels in channel_blocks(planes.shape):
        o = out[images, channels]
        np.subtract(planes[images, channels], mean[channels], o)
        np.multiply(o, scale[channels], o)
        if bias is not None:
            np.add(o, bias[channels], o)
    return out.reshape(x.shape)


def batch_norm_backward(g: Any, x: Any, weight: Any, mean: Any, rstd: Any) -> tuple[Any, Any, Any]:
    if not by_channel(x) or g.dtype != x.dtype:
        return plain.batch_norm_backward(np, g, x, weight, mean, rstd)
    if lies_in_rows(x):
        return normalized_rows_backward(g, x, weight, mean, rstd)
    planes, above = as_planes(x), as_planes(g)
    count = x.dtype.type(planes.shape[0] * planes.shape[2])
    gb = np.add.reduce(np.vecdot(above, np.ones(planes.shape[2], x.dtype)), 0)
    products, mean = np.zeros_like(gb), columns(mean, planes)
    for images, channels in channel_blocks(planes.shape):
        centered = planes[images, channels] - mean[channels]
        products[channels] += np.add.reduce(np.vecdot(above[images, channels], centered), 0)
    gw = products * rstd
    scale = columns(rstd if weight is None else rstd * weight, planes)
    slope, shift = columns(gw * rstd / count, planes), columns(gb / count, planes)
    gx = np.empty(planes.shape, x.dtype)
    for images, channels in channel_blocks(planes.shape):
        o = gx[images, channels]
        np.subtract(planes[images, channels], mean[channels], o)
        np.multiply(o, slope[channels], o)
        np.add(o, shift[channels], o)
        np.subtract(above[images, channels], o, o)
        np.multiply(o, scale[channels], o)
    to = gw.dtype if weight is None else weight.dtype
    return gx.reshape(x.shape), gw.astype(to, copy=False), gb.astype(to, copy=False)


# --- batch normalization where channels lie last: a row for each position, and BLAS adds the rows up -----------------------


def lies_in_rows(x: Any) -> bool:
    """Whether an array (N, C, *spatial) is in memory (N, *spatial, C), and not in C order as well."""
    return not x.flags.c_contiguous and np.moveaxis(x, 1, -1).flags.c_contiguous


def pixel_rows(x: Any) -> Any:
    """``(N, C, *spatial)`` as ``(N * positions, C)``: a view where it lies so."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)).reshape(-1, x.shape[1])


def row_stats(rows: Any) -> tuple[Any, Any]:
    """The mean and the biased variance of each column; blocks are added up in float64."""
    total, squares = np.zeros((2, rows.shape[1]))
    ones = np.ones(max(1, BLOCK // rows.shape[1]), rows.dtype)
    for r in row_blocks(rows):
        total += ones[: len(rows[r])] @ rows[r]
    mean = (total / len(rows)).astype(rows.dtype)
    for r in row_blocks(rows):
        centered = rows[r] - mean
        np.multiply(centered, centered, centered)
        squares += ones[: len(centered)] @ centered
    return mean, (squares / len(rows)).astype(rows.dtype)


def normalized_rows(x: Any, weight: Any, bias: Any, mean: Any, rstd: Any) -> Any:
    out = empty_last(x.shape, x.dtype)
    (rows, wide_out), beside = wide_rows(pixel_rows(x), pixel_rows(out))
    scale = beside(rstd if weight is None else rstd * weight)
    mean, bias = beside(mean), None if bias is None else beside(bias)
    for r in row_blocks(rows):
        o = wide_out[r]
        np.subtract(rows[r], mean, o)
        np.multiply(o, scale, o)
        if bias is not None:
            np.add(o, bias, o)
    return out


def normalized_rows_backward(g: Any, x: Any, weight: Any, mean: Any, rstd: Any) -> tuple[Any, Any, Any]:
    rows, above = pixel_rows(x), pixel_rows(g)
    count = x.dtype.type(len(rows))
    sums_g, products = np.zeros((2, rows.shape[1]))
    ones = np.ones(max(1, BLOCK // rows.shape[1]), rows.dtype)
    for r in row_blocks(rows):
        centered = rows[r] - mean
        np.multiply(centered, above[r], centered)
        products += ones[: len(centered)] @ centered
        sums_g += ones[: len(centered)] @ above[r]
    gb, gw = sums_g.astype(x.dtype), products.astype(x.dtype) * rstd
    gx = empty_last(x.shape, x.dtype)
    (rows, above, wide_gx), beside = wide_rows(rows, above, pixel_rows(gx))
    scale = beside(rstd if weight is None else rstd * weight)
    mean, slope, shift = beside(mean), beside(gw * rstd / count), beside(gb / count)
    for r in row_blocks(rows):
        o = wide_gx[r]
        np.subtract(rows[r], mean, o)
        np.multiply(o, slope, o)
        np.add(o, shift, o)
        np.subtract(above[r], o, o)
        np.multiply(o, scale, o)
    to = gw.dtype if weight is None else weight.dtype
    return gx, gw.astype(to, copy=False), gb.astype(to, copy=False)


def wide_rows(*arrays: Any) -> tuple[list[Any], Callable[[Any], Any]]:
    """Rows joined to rows of at least 512 elements where their number allows it, since NumPy's start of a loop for each takes long; and
    what brings a number for each channel beside them.
    """
    count, channels = arrays[0].shape
    together = gcd(count, 1 << max(0, 512 // channels).bit_length())
    return [a.reshape(count // together, -1) for a in arrays], lambda values: np.tile(values, together)


def layer_norm(x: Any, weight: Any, bias: Any, ndim: int, eps: float) -> tuple[Any, Any, Any]:
    if x.dtype.itemsize < 4 or not x.size:
        return plain.layer_norm(np, x, weight, bias, ndim, eps)
    rows, kept = as_rows(x, ndim)
    count = x.dtype.type(rows.shape[1])
    if x.size <= SMALL:
        mean = np.add.reduce(rows, 1, keepdims=True)
        np.divide(mean, count, mean)
        out = rows - mean
        rstd = np.empty(mean.shape, x.dtype)
        inverse_root(np.vecdot(out, out)[:, None], count, eps, rstd)
        np.multiply(out, rstd, out)
        if weight is not None:
            np.multiply(out, weight.reshape(-1), out)
        if bias is not None:
            np.add(out, bias.reshape(-1), out)
        return out.reshape(x.shape), mean.reshape(kept), rstd.reshape(kept)
    out, ones = np.empty(rows.shape, x.dtype), np.ones(rows.shape[1], x.dtype)
    mean, rstd = np.empty((2, len(rows), 1), x.dtype)
    for r in row_blocks(rows):
        o, m, s = out[r], mean[r], rstd[r]
        np.divide(np.vecdot(rows[r], ones)[:, None], count, m)
        np.subtract(rows[r], m, o)
        inverse_root(np.vecdot(o, o)[:, None], count, eps, s)
        np.multiply(o, s, o)
        if weight is not None:
            np.multiply(o, weight.reshape(-1), o)
        if bias is not None:
            np.add(o, bias.reshape(-1), o)
    return out.reshape(x.shape), mean.reshape(kept), rstd.reshape(kept)


def layer_norm_backward(
    g: Any, x: Any, weight: Any, mean: Any, rstd: Any, ndim: int, sums: bool = True
) -> tuple[Any, Any, Any]:
    if x.dtype.itemsize < 4 or not x.size or g.dtype != x.dtype:
        return plain.layer_norm_backward(np, g, x, weight, mean, rstd, ndim, sums)
    return rows_backward(g, x, weight, mean, rstd, ndim)


def rms_norm(x: Any, weight: Any, ndim: int, eps: float) -> tuple[Any, Any]:
    if x.dtype.itemsize < 4 or not x.size:
        return plain.rms_norm(np, x, weight, ndim, eps)
    rows, kept = as_rows(x, ndim)
    out, rstd = np.empty(rows.shape, x.dtype), np.empty((len(rows), 1), x.dtype)
    for r in row_blocks(rows):
        inverse_root(np.vecdot(rows[r], rows[r])[:, None], x.dtype.type(rows.shape[1]), eps, rstd[r])
        np.multiply(rows[r], rstd[r], out[r])
        if weight is not None:
            np.multiply(out[r], weight.reshape(-1), out[r])
    return out.reshape(x.shape), rstd.reshape(kept)


def rms_norm_backward(g: Any, x: Any, weight: Any, rstd: Any, ndim: int, sums: bool = True) -> tuple[Any, Any]:
    if x.dtype.itemsize < 4 or not x.size or g.dtype != x.dtype:
        return plain.rms_norm_backward(np, g, x, weight, rstd, ndim, sums)
    return rows_backward(g, x, weight, None, rstd, ndim)[:2]


def rows_backward(g: Any, x: Any, weight: Any, mean: Any, rstd: Any, ndim: int) -> tuple[Any, Any, Any]:
    """The gradients of layer normalization, or, without a mean, of RMS normalization."""
    rows, _ = as_rows(x, ndim)
    above, _ = as_rows(g, ndim)
    length = rows.shape[1]
    count = x.dtype.type(length)
    mean = None if mean is None else mean.reshape(-1, 1)
    rstd = rstd.reshape(-1, 1)
    if x.size <= SMALL:
        return small_rows_backward(above, rows, weight, mean, rstd, count, x.shape, ndim)
    factor = np.ones(length, x.dtype) if weight is None else weight.reshape(-1)
    gx, gw, gb = np.empty(rows.shape, x.dtype), np.zeros(length, x.dtype), np.zeros(length, x.dtype)
    scratch = np.empty((min(len(rows), max(1, BLOCK // length)), length), x.dtype)
    for r in row_blocks(rows):
        up, s, o = above[r], rstd[r], gx[r]
        h = scratch[: len(up)]
        if mean is None:
            np.multiply(rows[r], s, h)
        else:
            np.subtract(rows[r], mean[r], h)
            np.multiply(h, s, h)
        np.multiply(up, h, o)
        gw += np.add.reduce(o, 0)
        np.multiply(h, (np.vecdot(o, factor) / count)[:, None], h)
        if weight is None:
            np.subtract(up, h, o)
        else:
            np.subtract(np.multiply(up, factor, o), h, o)
        if mean is not None:
            gb += np.add.reduce(up, 0)
            np.subtract(o, (np.vecdot(up, factor) / count)[:, None], o)
        np.multiply(o, s, o)
    shape = x.shape[x.ndim - ndim :]
    to = gw.dtype if weight is None else weight.dtype
    gw, gb = (a.reshape(shape).astype(to, copy=False) for a in (gw, gb))
    return gx.reshape(x.shape), gw, gb


def small_rows_backward(
    above: Any, rows: Any, weight: Any, mean: Any, rstd: Any, count: Any, shape: tuple[int, ...], ndim: int
) -> tuple[Any, Any, Any]:
    """`rows_backward` in as few calls as there are, where the interpreter is the cost."""
    total = np.add.reduce
    h = rows * rstd if mean is None else np.multiply(rows - mean, rstd)
    tail = shape[len(shape) - ndim :]
    to = rows.dtype if weight is None else weight.dtype
    gw, gb = (total(a, 0).reshape(tail).astype(to, copy=False) for a in (above * h, above))
    scaled = above if weight is None else above * weight.reshape(-1)
    gx = h * (np.vecdot(h, scaled) / count)[:, None]
    np.subtract(scaled, gx, gx)
    if mean is not None:
        np.subtract(gx, total(scaled, 1, keepdims=True) / count, gx)
    return np.multiply(gx, rstd, gx).reshape(shape), gw, gb


def inverse_root(sums: Any, count: Any, eps: float, out: Any) -> None:
    """``1 / sqrt(sums / count + eps)``."""
    np.divide(sums, count, out)
    np.add(out, eps, out)
    np.sqrt(out, out)
    np.divide(1, out, out)


def by_channel(x: Any) -> bool:
    """Whether the fast batch normalization applies: spatial dimensions, something in them, and no half type."""
    return x.ndim > 2 and x.size > 0 and x.dtype.itemsize >= 4


def as_planes(x: Any) -> Any:
    """``(N, C, *spatial)`` as ``(N, C, positions)``."""
    return np.ascontiguousarray(x).reshape(x.shape[0], x.shape[1], -1)


def columns(values: Any, planes: Any) -> Any:
    """One number a channel as ``(C, 1)``; as ``(C, positions)`` where planes are so small that NumPy's start of a loop
    for each of them would take longer than reading the numbers again.
    """
    positions = planes.shape[2]
    return values[:, None] if positions >= 512 else np.repeat(values, positions).reshape(-1, positions)


def as_rows(x: Any, ndim: int) -> tuple[Any, tuple[int, ...]]:
    """The array as a matrix with a row for what is normalized together, and the shape of the statistics."""
    batch = x.shape[: x.ndim - ndim]
    return np.ascontiguousarray(x).reshape(prod(batch), -1), (*batch, *(1,) * ndim)


def channel_blocks(shape: tuple[int, int, int]) -> Iterator[tuple[slice, slice]]:
    """The images and channels of each block."""
    images, channels, positions = shape
    wide = min(channels, max(1, BLOCK // positions))
    deep = max(1, BLOCK // (positions * wide))
    for i in range(0, images, deep):
        for c in range(0, channels, wide):
            yield slice(i, i + deep), slice(c, c + wide)


def row_blocks(rows: Any) -> Iterator[slice]:
    """The rows of each block."""
    step = max(1, BLOCK // rows.shape[1])
    for start in range(0, len(rows), step):
        yield slice(start, start + step)
