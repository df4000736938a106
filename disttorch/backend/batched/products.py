"""Products, matrix factorizations, and functions of samples (N, C, *spatial): convolutions, pools, normalizations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..kernels import PLAIN
from .one_by_one import Family, as_axes, is_array, padded_to, sample_by_sample, spread, table

__all__ = ["PRODUCTS"]

# --- products --------------------------------------------------------------------------------------------------------


def _matmul(world: Any, name: str) -> Callable[..., Any]:
    def matmul(a: Any, b: Any) -> Any:
        level, _, (x, y), (x_hides, y_hides) = world.split((a, b))
        inner = world.world_of(x, y)
        if not level:
            return world.make(inner.matmul(x, y), 0)
        x_ndim, y_ndim = x.ndim - x_hides, y.ndim - y_hides
        if x_hides and not y_hides and y_ndim <= 2 and x_ndim >= 1:
            # the samples are more rows of one product
            return world.make(inner.matmul(x, y), level)
        if x_ndim == 1:
            x = x.reshape((*x.shape[:-1], 1, x.shape[-1]))
        if y_ndim == 1:
            y = y.reshape((*y.shape, 1))
        ndim = max(x_ndim, y_ndim, 2)
        x = padded_to(x, ndim) if x_hides else x
        y = padded_to(y, ndim) if y_hides else y
        result = inner.matmul(x, y)
        shape = result.shape
        if x_ndim == 1:
            shape = (*shape[:-2], shape[-1])
        if y_ndim == 1:
            shape = shape[:-1]
        return world.make(result if shape == result.shape else result.reshape(shape), level)

    return matmul


def _linear(world: Any, name: str) -> Callable[..., Any]:
    def linear(x: Any, weight: Any, bias: Any) -> Any:
        level, _, values, hides = world.split((x, weight, bias))
        if level and (hides[1] or hides[2]):
            product = world.matmul(x, world.swapaxes(weight, 0, 1))
            return product if bias is None else product + bias
        return world.make(world.world_of(*values).linear(*values), level)

    return linear


def _einsum(world: Any, name: str) -> Callable[..., Any]:
    def einsum(subscripts: str, *arrays: Any, **options: Any) -> Any:
        level, _, values, hides = world.split(arrays)
        if level:
            letter = next(c for c in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if c not in subscripts)
            inputs, _, output = subscripts.replace(" ", "").partition("->")
            inputs = ",".join(letter + part if h else part for part, h in zip(inputs.split(","), hides))
            subscripts = f"{inputs}->{letter}{output}"
        return world.make(world.world_of(*values).einsum(subscripts, *values, **options), level)

    return einsum


def _tensordot(world: Any, name: str) -> Callable[..., Any]:
    def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
        if isinstance(axes, int):
            axes = (tuple(range(a.ndim - axes, a.ndim)), tuple(range(axes)))
        left, right = ([d % x.ndim for d in as_axes(side)] for x, side in zip((a, b), axes))
        free_a, free_b = ([d for d in range(x.ndim) if d not in side] for x, side in ((a, left), (b, right)))
        shape = tuple(a.shape[d] for d in free_a) + tuple(b.shape[d] for d in free_b)
        count = 1
        for d in left:
            count *= a.shape[d]
        rows = world.reshape(world.transpose(a, (*free_a, *left)), (-1 if count else _size(a, free_a), count))
        columns = world.reshape(world.transpose(b, (*right, *free_b)), (count, -1 if count else _size(b, free_b)))
        return world.reshape(world.matmul(rows, columns), shape)

    return tensordot


def _size(a: Any, dims: list[int]) -> int:
    return math.prod(a.shape[d] for d in dims)


def _dot(world: Any, name: str) -> Callable[..., Any]:
    return lambda a, b: world.sum(world.multiply(a, b)) if a.ndim == b.ndim == 1 else world.matmul(a, b)


def _outer(world: Any, name: str) -> Callable[..., Any]:
    return lambda a, b: world.multiply(world.reshape(a, (-1, 1)), world.reshape(b, (1, -1)))


def _leading(world: Any, name: str) -> Callable[..., Any]:
    """Functions of matrices with any dimensions before them: samples are one more of those."""

    def function(*args: Any, **options: Any) -> Any:
        level, size, values, hides = world.split(args)
        if level:
            ndim = max([v.ndim - h for v, h in zip(values, hides) if is_array(v)])
            values = [padded_to(spread(world, v, h, size), ndim) if is_array(v) else v for v, h in zip(values, hides)]
        return world.make(getattr(world.world_of(*values), name)(*values, **options), level)

    return function


# --- samples (N, C, *spatial) of convolutions and pools --------------------------------------------------------------


def _folded(arrays: int, shape_at: int | None = None) -> Callable[[Any, str], Callable[..., Any]]:
    """Functions that treat each of N alike: samples are more of them. Argument `shape_at` is the shape of a result."""

    def family(world: Any, name: str) -> Callable[..., Any]:
        def function(*args: Any, **options: Any) -> Any:
            level, size, values, hides = world.split(args)
            if level:
                if any(hides[arrays:]):
                    return sample_by_sample(world, name)(*args, **options)
                for i in range(arrays):
                    each = spread(world, values[i], hides[i], size)
                    values[i] = each.reshape((size * each.shape[1], *each.shape[2:]))
                if shape_at is not None:
                    values[shape_at] = (size * values[shape_at][0], *values[shape_at][1:])
            result = getattr(world.world_of(*values), name)(*values, **options)
            if level:
                result = _unfolded(result, size)
            return world.make(result, level)

        return function

    return family


def _unfolded(result: Any, size: int) -> Any:
    if isinstance(result, tuple):
        return tuple(_unfolded(r, size) for r in result)
    return result.reshape((size, result.shape[0] // size, *result.shape[1:])) if is_array(result) else result


def _into_channels(world: Any, x: Any, hidden: bool, size: int) -> Any:
    """(N, samples * C, *spatial) of (samples, N, C, *spatial): each sample's channels are a group."""
    x = spread(world, x, hidden, size)
    x = world.world_of(x).swapaxes(x, 0, 1)
    return x.reshape((x.shape[0], size * x.shape[2], *x.shape[3:]))


def _out_of_channels(world: Any, out: Any, size: int) -> Any:
    out = out.reshape((out.shape[0], size, out.shape[1] // size, *out.shape[2:]))
    return world.world_of(out).swapaxes(out, 0, 1)


def _convolution(world: Any, name: str) -> Callable[..., Any]:
    fold = _folded(1)(world, name)

    def convolution(x: Any, weight: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        level, size, (a, w), (a_hides, w_hides) = world.split((x, weight))
        if not w_hides:
            return fold(x, weight, stride, padding, dilation, groups)
        out = world.world_of(a, w).convolution(
            _into_channels(world, a, a_hides, size), w.reshape((size * w.shape[1], *w.shape[2:])), stride, padding, dilation, groups * size
        )
        return world.make(_out_of_channels(world, out, size), level)

    return convolution


def _convolution_input(world: Any, name: str) -> Callable[..., Any]:
    fold = _folded(1, shape_at=2)(world, name)

    def convolution_input(
        g: Any, weight: Any, x_shape: Any, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> Any:
        level, size, (a, w), (a_hides, w_hides) = world.split((g, weight))
        if not w_hides:
            return fold(g, weight, x_shape, stride, padding, dilation, groups)
        out = world.world_of(a, w).convolution_input(
            _into_channels(world, a, a_hides, size), w.reshape((size * w.shape[1], *w.shape[2:])),
            (x_shape[0], size * x_shape[1], *x_shape[2:]), stride, padding, dilation, groups * size,
        )  # fmt: skip
        return world.make(_out_of_channels(world, out, size), level)

    return convolution_input


def _convolution_weight(world: Any, name: str) -> Callable[..., Any]:
    def convolution_weight(
        g: Any, x: Any, weight_shape: Any, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> Any:
        level, size, (a, b), hides = world.split((g, x))
        inner = world.world_of(a, b)
        if not level:
            return world.make(inner.convolution_weight(a, b, weight_shape, stride, padding, dilation, groups), 0)
        out = inner.convolution_weight(
            _into_channels(world, a, hides[0], size), _into_channels(world, b, hides[1], size),
            (size * weight_shape[0], *weight_shape[1:]), stride, padding, dilation, groups * size,
        )  # fmt: skip
        return world.make(out.reshape((size, *weight_shape)), level)

    return convolution_weight


def _normalized(world: Any, name: str) -> Callable[..., Any]:
    """layer_norm and rms_norm: over the last dimensions; with a scale of each sample, after the normalization."""
    def function(*args: Any, **options: Any) -> Any:
        level, _, values, hides = world.split(args)
        if any(hides[1:]) or not level:
            return PLAIN[name](world, *args, **options)
        return world.make(getattr(world.world_of(*values), name)(*values, **options), level)

    return function


PRODUCTS: dict[str, Family] = {
    "matmul": _matmul,
    "linear": _linear,
    "einsum": _einsum,
    "tensordot": _tensordot,
    "dot": _dot,
    "outer": _outer,
    **table(_leading, "lu_factor permutation solve_triangular cholesky solve inv eig eigh svd matrix_exp ldl_factor"),
    "convolution": _convolution,
    "convolution_input": _convolution_input,
    "convolution_weight": _convolution_weight,
    **table(_folded(1), "max_pool avg_pool"),
    "max_pool_backward": _folded(2, shape_at=2),
    "max_pool_gather": _folded(2),
    "avg_pool_backward": _folded(1, shape_at=1),
    **table(_normalized, "layer_norm rms_norm"),
}
