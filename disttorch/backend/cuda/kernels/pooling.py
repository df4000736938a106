"""Max and average pooling: see sources/pooling.cu. cuDNN has them, but not in its graph interface for Python."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy

from ...choices import CHOICES
from ...dtypes import int64
from ...kernels.pooling import pool_shape
from ...kernels.windows import Dims
from ...layout import is_channels_last
from .arrays import ELEMENT, THREADS, WIDE, blocks, empty, in_order, plain
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
    last = is_channels_last(x)
    out = empty((*x.shape[:2], *shape), x.dtype, last)
    indices = empty(out.shape, INT64, last)
    sizes = (out.size, window(spatial, shape, kernel, stride, padding, dilation), x.shape[1] if last else 1)
    launch(function(SOURCE, "max_pool", ELEMENT=ELEMENT[x.dtype]), blocks(out.size), THREADS, (in_order(x, last), out, indices, *sizes))
    return out, indices


def max_pool_backward(g: Any, indices: Any, x_shape: Dims) -> Any:
    spatial = tuple(x_shape[2:])
    if g.shape != indices.shape or not takes(g, spatial) or indices.dtype != INT64:
        return plain("max_pool_backward", g, indices, x_shape)
    last = is_channels_last(indices) or is_channels_last(g)  # as the input did, of which these were the maxima
    gx = empty(tuple(x_shape), WIDE[g.dtype], last)
    gx.fill(0)
    planes = x_shape[0] * x_shape[1]
    sizes = (planes, prod(g.shape[2:]), prod(spatial), x_shape[1] if last else 1, int(CHOICES.deterministic))
    threads = planes if CHOICES.deterministic else g.size
    kernel = function(SOURCE, "max_pool_backward", ELEMENT=ELEMENT[g.dtype])
    launch(kernel, blocks(threads), THREADS, (in_order(g, last), in_order(indices, last), gx, *sizes))
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
    last = is_channels_last(x)
    out = empty((*x.shape[:2], *shape), x.dtype, last)
    width, counting = x.shape[1] if last else 1, (int(count_include_pad), divisor_override or 0)
    sizes = (out.size, window(spatial, shape, kernel, stride, padding, ones), width, *counting)
    launch(function(SOURCE, "avg_pool", ELEMENT=ELEMENT[x.dtype]), blocks(out.size), THREADS, (in_order(x, last), out, *sizes))
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
    last = is_channels_last(g)
    gx = empty(tuple(x_shape), g.dtype, last)
    width, counting = x_shape[1] if last else 1, (int(count_include_pad), divisor_override or 0)
    sizes = (gx_size, window(spatial, shape, kernel, stride, padding, ones), width, *counting)
    launch(function(SOURCE, "avg_pool_backward", ELEMENT=ELEMENT[g.dtype]), blocks(gx_size), THREADS, (in_order(g, last), gx, *sizes))
    return gx
