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
from ..operands import write_out
from ..world import tensors
from .arguments import batched, spatial

# What users find of this family, and where: see ops/public.py.
FUNCTIONS = "avg_pool1d max_pool1d max_pool2d max_pool3d"

__all__ = [
    "average",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "gather_maxima",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
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
        if 0 in input.shape[-ndim - 1 :]:
            raise RuntimeError(f"{name}(): Expected input's non-batch dimensions to have positive length, but got {list(input.shape)}")
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
        *,
        out: Tensor | None = None,
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
        result = batched(name, input, ndim, lambda x: apply(_avg_pool, x, window=window))
        return result if out is None else write_out(name, result, out)

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


def gather_maxima(x: Tensor, indices: Tensor) -> Tensor:
    """The elements of (N, C, *spatial) at flat positions (N, C, *output) in each spatial block."""
    return apply(_max_pool_gather, x, indices)


def average(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]) -> Tensor:
    """The mean of each window of (N, C, *spatial), padding counted."""
    return apply(_avg_pool, x, window=(kernel, stride, padding, False, True, None))


def _lp_pool_over(ndim: int) -> Callable[..., Tensor]:
    name = f"lp_pool{ndim}d"

    def function(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
        kernel = spatial(kernel_size, ndim, name, "kernel_size", 1)
        means = _AVG_POOLS[ndim](input.pow(norm_type), kernel, stride, 0, ceil_mode)
        return (means.sign() * means.abs().relu() * prod(kernel)).pow(1.0 / norm_type)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""The power mean of each window, ``sum(x ** p) ** (1 / p)``; as ``torch.nn.functional.{name}``.

    Parameters
    ----------
    input : Tensor
        (N, C, *spatial), or one sample (C, *spatial).
    norm_type : float
        The exponent p.
    kernel_size : int or tuple of int
    stride : int or tuple of int, optional
        The kernel size unless given.
    ceil_mode : bool
        Whether a last window may hang over the end.
    """
    return function


max_pool1d, max_pool2d, max_pool3d = (_max_pool_over(n) for n in (1, 2, 3))
avg_pool1d, avg_pool2d, avg_pool3d = (_avg_pool_over(n) for n in (1, 2, 3))
_AVG_POOLS = {1: avg_pool1d, 2: avg_pool2d, 3: avg_pool3d}
lp_pool1d, lp_pool2d, lp_pool3d = (_lp_pool_over(n) for n in (1, 2, 3))
