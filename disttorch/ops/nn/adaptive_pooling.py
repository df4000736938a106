"""Adaptive pooling: as many windows as asked for, which cover the input."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor, wrap
from ...backend import namespace
from ...backend.layout import is_channels_last, last_axes
from .arguments import batched
from .pooling import average, gather_maxima

# What users find of this family, and where: see ops/public.py.
FUNCTIONS = "adaptive_avg_pool1d"

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
]

_adaptive_max_pool = Operation(
    "adaptive_max_pool",
    lambda xp, x, *, shape: xp.adaptive_max_pool(x, shape),
    extras=("indices",),
    x=lambda g, indices, x_shape, xp: xp.max_pool_backward(g, indices, x_shape),
)


def _means(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    have = x._array.shape[2:]
    ndim = len(have)
    if prod(shape) == 1:
        return x.mean(tuple(range(2, ndim + 2)), True)
    if all(w and h % w == 0 for h, w in zip(have, shape)):
        kernel = tuple(h // w for h, w in zip(have, shape))
        return average(x, kernel, kernel, (0,) * ndim)
    # windows of unequal length: the mean over a block is a mean along each dimension in turn
    if is_channels_last(x._array):
        order, back = last_axes(ndim + 2)
        x = x.permute(order)
        for dim, (h, w) in enumerate(zip(have, shape), 1):
            if h != w:
                size = x._array.shape
                means = _window_means(x, h, w).t().matmul(x.reshape(prod(size[:dim]), h, prod(size[dim + 1 :])))
                x = means.reshape(*size[:dim], w, *size[dim + 1 :])
        return x.permute(back)
    for dim, (h, w) in enumerate(zip(have, shape), 2):
        if h != w:
            x = x.movedim(dim, -1).matmul(_window_means(x, h, w)).movedim(-1, dim)
    return x


def _window_means(like: Tensor, size: int, count: int) -> Tensor:
    """The matrix (size, count) that takes the means of adaptive windows, in a tensor's dtype and on its device."""
    xp = namespace(like._array)
    rows, windows = xp.arange(size)[:, None], xp.arange(count)[None, :]
    start, end = windows * size // count, -(-(windows + 1) * size // count)
    inside = (rows >= start) & (rows < end)
    return wrap((inside / (end - start)).astype(like._array.dtype))


def _maxima(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return apply(_adaptive_max_pool, x, shape=shape)


def _maxima_and_indices(x: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    indices = wrap(namespace(x._array).adaptive_max_pool(x._array, shape)[1])
    return gather_maxima(x, indices), indices


def _over(ndim: int, name: str, input: Tensor, output_size: Any, compute: Callable[[Tensor, tuple[int, ...]], Any]) -> Any:
    """Check the arguments and pool a batch or one sample."""
    sizes = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * ndim
    if ndim > 1 and isinstance(output_size, (tuple, list)) and input.ndim <= len(sizes):
        raise ValueError(f"{name}(): Input dimension should be at least {len(sizes) + 1}, but got input of size {list(input.shape)}")
    if len(sizes) != ndim:
        raise RuntimeError(f"{name}(): output_size must be one integer or {ndim} of them, but is {output_size!r}")

    def on_batch(x: Tensor) -> Any:
        have = x._array.shape[2:]
        wanted = tuple(h if w is None else int(w) for h, w in zip(have, sizes))
        if min(wanted) < 0:
            raise RuntimeError(f"{name}(): elements of output_size must be greater than or equal to 0, but got {output_size!r}")
        if 0 in have:
            raise RuntimeError(f"{name}(): expected input to have non-zero size for non-batch dimensions, but got {list(x._array.shape)}")
        return compute(x, wanted)

    return batched(name, input, ndim, on_batch)


def _adaptive_avg_pool(ndim: int) -> Callable[..., Tensor]:
    name = f"adaptive_avg_pool{ndim}d"

    def function(input: Tensor, output_size: Any) -> Tensor:
        return _over(ndim, name, input, output_size, _means)

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


def _adaptive_max_pool_over(ndim: int) -> Callable[..., Any]:
    name = f"adaptive_max_pool{ndim}d"

    def function(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
        return _over(ndim, name, input, output_size, _maxima_and_indices if return_indices else _maxima)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""Maxima of as many windows as asked for, which cover the input; as ``torch.nn.functional.{name}``.

    Window i of n along a dimension of size s reaches from ``floor(i * s / n)`` to ``ceil((i + 1) * s / n)``.

    Parameters
    ----------
    input : Tensor
        (N, C, *spatial), or one sample (C, *spatial).
    output_size : int or tuple of int or None
        The spatial size of the result; None keeps the input's.
    return_indices : bool
        Whether to return the flat spatial positions of the maxima as well.

    Returns
    -------
    Tensor, or with `return_indices` a tuple of it and an int64 Tensor of its shape
    """
    return function


adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = (_adaptive_avg_pool(n) for n in (1, 2, 3))
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = (_adaptive_max_pool_over(n) for n in (1, 2, 3))
