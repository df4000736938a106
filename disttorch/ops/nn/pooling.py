"""Pooling over 1 to 3 spatial dimensions: maxima and means of windows.

A maximum's gradient is put where the maximum was found, and the gradient of that is taken from there. A mean is linear.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor, wrap
from ...backend import namespace
from ..world import tensors
from .arguments import batched, spatial

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
]


def _max_pool_forward(xp: Any, x: Any, *, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Any:
    return xp.max_pool(x, kernel, stride, padding, dilation, ceil_mode)


_max_pool = Operation(
    "max_pool",
    _max_pool_forward,
    extras=("indices",),
    x=lambda g, indices, x_shape, xp: xp.max_pool_backward(g, indices, x_shape),
)
_max_pool_backward = Operation(
    "max_pool_backward",
    lambda xp, y, indices, *, size: xp.max_pool_backward(y, indices, size),
    y=lambda g, indices, xp: xp.max_pool_gather(g, indices),
)
_max_pool_gather = Operation(
    "max_pool_gather",
    lambda xp, x, indices: xp.max_pool_gather(x, indices),
    x=lambda g, indices, x_shape, xp: xp.max_pool_backward(g, indices, x_shape),
)
_avg_pool = Operation(
    "avg_pool",
    lambda xp, x, *, window: xp.avg_pool(x, *window),
    x=lambda g, x_shape, window, xp: xp.avg_pool_backward(g, x_shape, *window),
)
_avg_pool_backward = Operation(
    "avg_pool_backward",
    lambda xp, y, *, size, window: xp.avg_pool_backward(y, size, *window),
    y=lambda g, window, xp: xp.avg_pool(g, *window),
)

# the kernels as rules call them, where they run on tensors
tensors.max_pool_backward = lambda y, indices, size: apply(_max_pool_backward, y, indices, size=tuple(size))
tensors.max_pool_gather = lambda x, indices: apply(_max_pool_gather, x, indices)
tensors.avg_pool = lambda x, *window: apply(_avg_pool, x, window=window)
tensors.avg_pool_backward = lambda y, size, *window: apply(_avg_pool_backward, y, size=tuple(size), window=window)


def _max_pool_over(ndim: int) -> Callable[..., Any]:
    name = f"max_pool{ndim}d"

    def function(
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        window = {
            "kernel": spatial(kernel_size, ndim, name, "kernel_size", 1),
            "stride": spatial(kernel_size if stride in (None, ()) else stride, ndim, name, "stride", 1),
            "padding": spatial(padding, ndim, name, "padding"),
            "dilation": spatial(dilation, ndim, name, "dilation", 1),
            "ceil_mode": bool(ceil_mode),
        }
        if not return_indices:
            return batched(name, input, ndim, lambda x: apply(_max_pool, x, **window))

        def compute(x: Tensor) -> tuple[Tensor, Tensor]:
            indices = wrap(namespace(x._array).max_pool(x._array, *window.values())[1])
            return apply(_max_pool_gather, x, indices), indices

        return batched(name, input, ndim, compute)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""The maximum of each window; as ``torch.nn.functional.{name}``.

    Parameters
    ----------
    input : Tensor
        (N, C, *spatial), or one sample (C, *spatial).
    kernel_size : int or tuple of int
    stride : int or tuple of int, optional
        The kernel size unless given.
    padding : int or tuple of int
        Of minus infinity on both sides, at most half a window.
    dilation : int or tuple of int
    ceil_mode : bool
        Whether a last window may hang over the end.
    return_indices : bool
        Whether to return the flat spatial positions of the maxima as well.

    Returns
    -------
    Tensor, or with `return_indices` a tuple of it and an int64 Tensor of its shape
    """
    return function


def _avg_pool_over(ndim: int) -> Callable[..., Tensor]:
    name = f"avg_pool{ndim}d"

    def function(
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Tensor:
        if divisor_override == 0:
            raise RuntimeError(f"{name}(): divisor_override must not be zero")
        window = (
            spatial(kernel_size, ndim, name, "kernel_size", 1),
            spatial(kernel_size if stride in (None, ()) else stride, ndim, name, "stride", 1),
            spatial(padding, ndim, name, "padding"),
            bool(ceil_mode),
            bool(count_include_pad),
            divisor_override,
        )
        return batched(name, input, ndim, lambda x: apply(_avg_pool, x, window=window))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""The mean of each window; as ``torch.nn.functional.{name}``.

    Parameters
    ----------
    input : Tensor
        (N, C, *spatial), or one sample (C, *spatial).
    kernel_size : int or tuple of int
    stride : int or tuple of int, optional
        The kernel size unless given.
    padding : int or tuple of int
        Of zeros on both sides, at most half a window.
    ceil_mode : bool
        Whether a last window may hang over the end.
    count_include_pad : bool
        Whether padded zeros count as elements of the mean.
    divisor_override : int, optional
        What to divide the sum by instead.
    """
    return function


def _adaptive_avg_pool_over(ndim: int) -> Callable[..., Tensor]:
    name = f"adaptive_avg_pool{ndim}d"

    def compute(x: Tensor, wanted: tuple[int, ...]) -> Tensor:
        have = x._array.shape[2:]
        if 0 in have:
            raise RuntimeError(f"{name}(): expected input to have non-zero size for non-batch dimensions, but got {list(x._array.shape)}")
        if prod(wanted) == 1:
            return x.mean(tuple(range(2, ndim + 2)), True)
        if all(w and h % w == 0 for h, w in zip(have, wanted)):
            kernel = tuple(h // w for h, w in zip(have, wanted))
            return apply(_avg_pool, x, window=(kernel, kernel, (0,) * ndim, False, True, None))
        # windows of unequal length: the mean over a block is a mean along each dimension in turn
        for dim, (h, w) in enumerate(zip(have, wanted), 2):
            if h != w:
                x = x.movedim(dim, -1).matmul(_window_means(x, h, w)).movedim(-1, dim)
        return x

    def function(input: Tensor, output_size: Any) -> Tensor:
        sizes = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * ndim
        if len(sizes) != ndim:
            raise RuntimeError(f"{name}(): output_size must be one integer or {ndim} of them, but is {output_size!r}")

        def on_batch(x: Tensor) -> Tensor:
            wanted = tuple(h if w is None else int(w) for h, w in zip(x._array.shape[2:], sizes))
            if min(wanted) < 0:
                raise RuntimeError(f"{name}(): elements of output_size must be greater than or equal to 0, but got {output_size!r}")
            return compute(x, wanted)

        return batched(name, input, ndim, on_batch)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""Means of as many windows as asked for, which cover the input; as ``torch.nn.functional.{name}``.

    Window i of n along a dimension of size s reaches from ``floor(i * s / n)`` to ``ceil((i + 1) * s / n)``.

    Parameters
    ----------
    input : Tensor
        (N, C, *spatial), or one sample (C, *spatial).
    output_size : int or tuple of int or None
        The spatial size of the result; None keeps the input's.
    """
    return function


def _window_means(like: Tensor, size: int, count: int) -> Tensor:
    """The matrix (size, count) that takes the means of adaptive windows, in a tensor's dtype and on its device."""
    xp = namespace(like._array)
    rows, windows = xp.arange(size)[:, None], xp.arange(count)[None, :]
    start, end = windows * size // count, -(-(windows + 1) * size // count)
    inside = (rows >= start) & (rows < end)
    return wrap((inside / (end - start)).astype(like._array.dtype))


max_pool1d, max_pool2d, max_pool3d = (_max_pool_over(n) for n in (1, 2, 3))
avg_pool1d, avg_pool2d, avg_pool3d = (_avg_pool_over(n) for n in (1, 2, 3))
adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = (_adaptive_avg_pool_over(n) for n in (1, 2, 3))
