"""Max pooling undone: values put back where the maxima were found, zeros elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from ...backend import dtypes as dt
from ...backend.dtypes import DTYPES
from .arguments import batched, spatial

__all__ = ["max_unpool1d", "max_unpool2d", "max_unpool3d"]

_max_unpool = Operation(
    "max_unpool",
    lambda xp, x, indices, *, spatial: xp.max_unpool(x, indices, spatial),
    x=lambda g, indices, xp: xp.max_pool_gather(g, indices),
)


def _max_unpool_over(ndim: int) -> Callable[..., Tensor]:
    name = f"max_unpool{ndim}d"

    def function(
        input: Tensor,
        indices: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        output_size: Sequence[int] | None = None,
    ) -> Tensor:
        kernel = spatial(kernel_size, ndim, name, "kernel_size", 1)
        step = spatial(kernel_size if stride is None else stride, ndim, name, "stride", 1)
        around = spatial(padding, ndim, name, "padding")
        if not isinstance(indices, Tensor) or indices._array.dtype != dt.int64.numpy:
            what = DTYPES[indices._array.dtype] if isinstance(indices, Tensor) else type(indices).__name__
            raise RuntimeError(f"{name}(): elements in indices should be type int64 but got: {what}")
        if indices.shape != input.shape:
            raise RuntimeError(
                f"{name}(): Expected shape of indices to be same as that of the input tensor ({list(input.shape)}) but got indices "
                f"tensor with shape: {list(indices.shape)}"
            )
        usual = tuple((n - 1) * s - 2 * p + k for n, s, p, k in zip(input.shape[-ndim:], step, around, kernel))
        size = usual if output_size is None else _chosen_size(output_size, usual, step, ndim)
        if input._array.ndim in (ndim + 1, ndim + 2) and 0 in input.shape[input._array.ndim - ndim - 1 :]:
            raise RuntimeError(f"{name}(): Expected input to have non-zero size for non-batch dimensions, but got {list(input.shape)}")

        def compute(x: Tensor) -> Tensor:
            at = indices if indices._array.ndim == ndim + 2 else indices.unsqueeze(0)
            outside = (at._array < 0) | (at._array >= prod(size))
            if outside.any():
                raise RuntimeError(
                    f"Found an invalid max index: {int(at._array[outside][0])} (output volumes are of size {'x'.join(map(str, size))})"
                )
            return apply(_max_unpool, x, at, spatial=size)

        return batched(name, input, ndim, compute)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""Values put back where `max_pool{ndim}d` found them, zeros elsewhere; as ``torch.nn.functional.{name}``.

    Parameters
    ----------
    input : Tensor
        (N, C, *spatial), or one sample (C, *spatial).
    indices : Tensor
        Of its shape, as ``max_pool{ndim}d(..., return_indices=True)`` returns them.
    kernel_size, stride, padding : int or tuple of int
        The pool's.
    output_size : sequence of int, optional
        The size of the pool's input, of several that the pool maps to the same.

    Raises
    ------
    RuntimeError
        If an index lies outside of the result, or the indices are of another shape or dtype.
    ValueError
        If the pool does not map `output_size` to the input's size.
    """
    return function


def _chosen_size(output_size: Sequence[int], usual: tuple[int, ...], step: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    size = tuple(int(n) for n in output_size)
    if len(size) == ndim + 2:
        size = size[2:]
    if len(size) != ndim:
        raise ValueError(f"output_size should be a sequence containing {ndim} or {ndim + 2} elements, but it has a length of '{len(size)}'")
    for dim, (n, u, s) in enumerate(zip(size, usual, step)):
        if not u - s < n < u + s:
            raise ValueError(f'invalid output_size "{tuple(output_size)}" (dim {dim} must be between {u - s} and {u + s})')
    return size


max_unpool1d, max_unpool2d, max_unpool3d = (_max_unpool_over(n) for n in (1, 2, 3))
