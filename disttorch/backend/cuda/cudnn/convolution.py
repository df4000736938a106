"""Convolution over 1 to 3 spatial dimensions and its gradients, by cuDNN.

Arrays lie in memory as (N, C, *spatial) or as (N, *spatial, C), "channels last", if one of the two operands does; then so does the
result. One spatial dimension is two, the first of size 1.
"""

from __future__ import annotations

from math import prod
from typing import Any

import cupy

from ...choices import CHOICES
from ...dtypes import float32
from ...kernels.convolution import check_gradient, convolution_shape
from ...kernels.windows import Dims
from ...layout import is_channels_last, last_axes, strides_along
from ..kernels.arrays import ELEMENT, empty, in_order, plain
from .library import usable
from .plans import Unsupported, data_type, run, tensor

__all__ = ["convolution", "convolution_input", "convolution_weight"]

FLOAT32 = float32.numpy
#: numbers of the tensors in a graph
FIRST, SECOND, RESULT = 1, 2, 3


def convolution(x: Any, weight: Any, stride: Dims, padding: Dims, dilation: Dims, groups: int) -> Any:
    shape = convolution_shape(x.shape, weight.shape, stride, padding, dilation, groups)
    window = (stride, padding, dilation)
    if takes(x, weight, shape, stride):
        try:
            return computed("conv_fprop", ("image", "weight"), (x, weight), shape, window, lies_last(x, weight))
        except Unsupported:
            pass
    return plain("convolution", x, weight, *window, groups)


def convolution_input(g: Any, weight: Any, x_shape: Dims, stride: Dims, padding: Dims, dilation: Dims, groups: int) -> Any:
    check_gradient(g.shape, x_shape, weight.shape, stride, padding, dilation, groups)
    window = (stride, padding, dilation)
    if takes(g, weight, x_shape, stride):
        try:
            return computed("conv_dgrad", ("loss", "filter"), (g, weight), tuple(x_shape), window, lies_last(g, weight))
        except Unsupported:
            pass
    return plain("convolution_input", g, weight, x_shape, *window, groups)


def convolution_weight(g: Any, x: Any, weight_shape: Dims, stride: Dims, padding: Dims, dilation: Dims, groups: int) -> Any:
    check_gradient(g.shape, x.shape, weight_shape, stride, padding, dilation, groups)
    window = (stride, padding, dilation)
    if takes(g, x, weight_shape, stride):
        try:
            return computed("conv_wgrad", ("image", "loss"), (x, g), tuple(weight_shape), window, lies_last(x, g))
        except Unsupported:
            pass
    return plain("convolution_weight", g, x, weight_shape, *window, groups)


def takes(a: Any, b: Any, shape: Dims, stride: Dims) -> bool:
    """Whether cuDNN may be asked at all: for two arrays of one type of elements, with something in them, and a result likewise."""
    return bool(
        a.dtype in ELEMENT and a.dtype == b.dtype and a.size and b.size and prod(shape) and 1 <= len(stride) <= 3 and usable()
    )


def computed(operation: str, names: tuple[str, str], arrays: tuple[Any, Any], shape: Dims, window: tuple[Dims, ...], last: bool) -> Any:
    """The result of one of the three operations, of this shape.

    Raises
    ------
    Unsupported
        If cuDNN has no plan for it.
    """
    dtype = arrays[0].dtype
    first, second = (in_order(a, last) for a in arrays)
    out = empty(shape, dtype, last)
    shapes = [two_dimensional(a.shape) for a in (first, second, out)]
    inputs = [(s, strides_of(s, last), dtype) for s in shapes]
    stride, padding, dilation = ((neutral, *dims) if len(dims) == 1 else dims for neutral, dims in zip((1, 0, 1), window))

    def build(cudnn: Any, handle: Any) -> Any:
        sums = cudnn.data_type.DOUBLE if dtype.itemsize == 8 else cudnn.data_type.FLOAT
        graph = cudnn.pygraph(
            name=operation,
            io_data_type=data_type(cudnn, dtype),
            intermediate_data_type=sums,
            compute_data_type=sums,
            handle=handle,
        )
        operands = {name: tensor(cudnn, graph, uid, a) for name, uid, a in zip(names, (FIRST, SECOND), inputs)}
        result = getattr(graph, operation)(
            **operands, padding=list(padding), stride=list(stride), dilation=list(dilation), compute_data_type=sums, name=operation
        )
        result.set_uid(RESULT).set_output(True).set_data_type(data_type(cudnn, dtype))
        result.set_dim(list(shapes[2])).set_stride(list(inputs[2][1]))
        return graph

    exact = dtype == FLOAT32 and not CHOICES.cudnn_tf32
    key = (operation, *shapes, dtype, last, stride, padding, dilation)
    run(key, build, {FIRST: first, SECOND: second, RESULT: out}, exact)
    return out


# --- how arrays lie in memory -----------------------------------------------------------------------------------------------


def lies_last(a: Any, b: Any) -> bool:
    """Whether one of two arrays has channels last, as PyTorch sees it; of one spatial dimension, whether the first's channels lie next to
    each other.
    """
    if a.ndim > 3:
        return is_channels_last(a) or is_channels_last(b)
    return not a.flags.c_contiguous and a.shape[1] > 1 and cupy.moveaxis(a, 1, -1).flags.c_contiguous


def two_dimensional(shape: Dims) -> Dims:
    """A shape with at least two spatial dimensions."""
    return (*shape[:2], 1, shape[2]) if len(shape) == 3 else tuple(shape)


def strides_of(shape: Dims, last: bool) -> Dims:
    """The distances in elements of an array of this shape, in the usual order or with channels last."""
    return strides_along(last_axes(len(shape))[0] if last else range(len(shape)), shape, 1)
