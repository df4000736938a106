"""Max and average pooling: see sources/pooling.cu. cuDNN has them, but not in its graph interface for Python."""

from __future__ import annotations

from math import prod
from typing import Any

import cupy
import numpy

from ...choices import CHOICES
from ...dtypes import int64
from ...kernels.pooling import pool_shape
from ...kernels.windows import Dims
from .arrays import ELEMENT, THREADS, WIDE, blocks, contiguous, plain
from .compilation import ELEMENTS, declare, function, launch

__all__ = ["avg_pool", "avg_pool_backward", "max_pool", "max_pool_backward"]

SOURCE = "pooling.cu"
declare(SOURCE, [{"ELEMENT": e} for e in ELEMENTS])

INT64 = int64.numpy
#: the structure Window
WINDOW = numpy.dtype([(name, "i8", 3) for name in ("in", "out", "kernel", "stride", "padding", "dilation")])


def window(spatial: Dims, shape: Dims, kernel: Dims, stride: Dims, padding: Dims, dilation: Dims) -> Any:
    """The structure, with sizes of 1 for dimensions that are not there."""
    missing = 3 - len(spatial)
    found = numpy.zeros(1, WINDOW)
    for name, values, neutral in (
        ("in", spatial, 1), ("out", shape, 1), ("kernel", kernel, 1), ("stride", stride, 1), ("padding", padding, 0),
        ("dilation", dilation, 1),
    ):  # fmt: skip
        found[name] = (*(neutral,) * missing, *values)
    return found


def takes(a: Any, spatial: Dims) -> bool:
    """Whether the kernels know the type of elements and the number of dimensions, and there are any."""
    return a.dtype in ELEMENT and a.size > 0 and 1 <= len(spatial) <= 3


def max_pool(x: Any, kernel: Dims, stride: Dims, padding: Dims, dilation: Dims, ceil_mode: bool) -> tuple[Any, Any]:
    spatial = x.shape[2:]
    shape = pool_shape(spatial, kernel, stride, padding, dilation, ceil_mode)
    if not takes(x, spatial):
        return plain("max_pool", x, kernel, stride, padding, dilation, ceil_mode)
    out = cupy.empty((*x.shape[:2], *shape), x.dtype)
    indices = cupy.empty(out.shape, INT64)
    arguments = (contiguous(x), out, indices, out.size, window(spatial, shape, kernel, stride, padding, dilation))
    launch(function(SOURCE, "max_pool", ELEMENT=ELEMENT[x.dtype]), blocks(out.size), THREADS, arguments)
    return out, indices


def max_pool_backward(g: Any, indices: Any, x_shape: Dims) -> Any:
    spatial = tuple(x_shape[2:])
    if g.shape != indices.shape or not takes(g, spatial) or indices.dtype != INT64:
        return plain("max_pool_backward", g, indices, x_shape)
    gx = cupy.zeros(tuple(x_shape), WIDE[g.dtype])
    planes = x_shape[0] * x_shape[1]
    sizes = (planes, prod(g.shape[2:]), prod(spatial), int(CHOICES.deterministic))
    threads = planes if CHOICES.deterministic else g.size
    kernel = function(SOURCE, "max_pool_backward", ELEMENT=ELEMENT[g.dtype])
    launch(kernel, blocks(threads), THREADS, (contiguous(g), contiguous(indices), gx, *sizes))
    return gx.astype(g.dtype, copy=False)


def avg_pool(
    x: Any,
    kernel: Dims,
    stride: Dims,
    padding: Dims,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Any:
    spatial, ones = x.shape[2:], (1,) * len(kernel)
    shape = pool_shape(spatial, kernel, stride, padding, ones, ceil_mode)
    if not takes(x, spatial):
        return plain("avg_pool", x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override)
    out = cupy.empty((*x.shape[:2], *shape), x.dtype)
    sizes = (out.size, window(spatial, shape, kernel, stride, padding, ones), int(count_include_pad), divisor_override or 0)
    launch(function(SOURCE, "avg_pool", ELEMENT=ELEMENT[x.dtype]), blocks(out.size), THREADS, (contiguous(x), out, *sizes))
    return out


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
    spatial, ones = tuple(x_shape[2:]), (1,) * len(kernel)
    shape = pool_shape(spatial, kernel, stride, padding, ones, ceil_mode)
    gx_size = prod(x_shape)
    if tuple(g.shape) != (*x_shape[:2], *shape) or not takes(g, spatial) or not gx_size:
        return plain("avg_pool_backward", g, x_shape, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override)
    gx = cupy.empty(tuple(x_shape), g.dtype)
    sizes = (gx_size, window(spatial, shape, kernel, stride, padding, ones), int(count_include_pad), divisor_override or 0)
    launch(function(SOURCE, "avg_pool_backward", ELEMENT=ELEMENT[g.dtype]), blocks(gx_size), THREADS, (contiguous(g), gx, *sizes))
    return gx
