"""Values put at places: scatter in all its forms, and the derivatives of taking values from there.

Here an index is what the array library takes: an array, or a tuple of slices and arrays.
"""

from __future__ import annotations

from typing import Any

from ..layout import hides_samples, is_channels_last, last_axes
from . import kernel


@kernel
def put_slice(xp: Any, g: Any, shape: tuple[int, ...], index: Any) -> Any:
    """Zeros of a shape with ``g`` at a basic index (integers, slices, None, ...)."""
    if len(shape) == g.ndim and not hides_samples(g) and is_channels_last(g):  # images of which it is a part lie as it does
        order, back = last_axes(len(shape))
        result = xp.zeros(tuple([shape[d] for d in order]), g.dtype).transpose(back)
    else:
        result = xp.zeros(shape, g.dtype)
    result[index] = g
    return result


@kernel
def put_index(xp: Any, g: Any, shape: tuple[int, ...], index: Any) -> Any:
    """Zeros of a shape with ``g`` added at an advanced index, where places may occur more than once."""
    result = xp.zeros(shape, g.dtype)
    xp.add_at(result, index, g)
    return result


@kernel
def put_at(xp: Any, x: Any, index: Any, source: Any) -> Any:
    """A copy of x with ``source`` at an index; of places that occur more than once, one value counts."""
    result = xp.array(x)
    result[index] = source
    return result


@kernel
def reduce_at(xp: Any, x: Any, index: Any, source: Any, how: str, include_self: bool = True) -> Any:
    """A copy of x with ``source`` added, multiplied, ... (`how`: add, multiply, maximum, minimum) at an index.

    Without `include_self`, places that are written to begin as if x had nothing there.
    """
    result = xp.array(x)
    if not include_self:
        # any one of the values is a beginning for the extremes
        result[index] = {"add": 0, "multiply": 1}[how] if how in ("add", "multiply") else source
    xp.add_at(result, index, source, how)
    return result


@kernel
def grid(xp: Any, index: Any, axis: int) -> tuple:
    """An advanced index that stands for ``index`` along ``axis`` and each place itself along the others."""
    parts = []
    for i, n in enumerate(index.shape):
        shape = [1] * index.ndim
        shape[i] = n
        parts.append(xp.reshape(xp.arange(n), tuple(shape)))
    parts[axis] = index
    return tuple(parts)


@kernel
def gather(xp: Any, x: Any, index: Any, axis: int) -> Any:
    """``out[i, j] = x[index[i, j], j]`` for axis 0, and so on; the index may be smaller than x on other axes."""
    return x[grid(xp, index, axis)]


@kernel
def scatter_add(xp: Any, source: Any, index: Any, shape: tuple[int, ...], axis: int) -> Any:
    """Zeros of a shape with ``source`` added at ``index`` along ``axis``."""
    result = xp.zeros(shape, source.dtype)
    xp.add_at(result, grid(xp, index, axis), source)
    return result


@kernel
def scatter(xp: Any, x: Any, index: Any, source: Any, axis: int) -> Any:
    """A copy of x with ``source`` put at ``index`` along ``axis``."""
    return xp.put_at(x, grid(xp, index, axis), source)


@kernel
def diagonal_backward(xp: Any, g: Any, shape: tuple[int, ...], offset: int, dim1: int, dim2: int) -> Any:
    """Zeros of a shape with ``g`` on the diagonal of two dimensions."""
    result = xp.zeros(shape, g.dtype)
    rows = xp.arange(g.shape[-1]) + max(-offset, 0)
    columns = xp.arange(g.shape[-1]) + max(offset, 0)
    turned = xp.moveaxis(result, (dim1, dim2), (-2, -1))
    turned[..., rows, columns] = g
    return result


@kernel
def in_layout(xp: Any, a: Any, strides: tuple[int, ...]) -> Any:
    """A copy with other strides (bytes), all positive, of its elements in memory."""
    extent = 1 + sum((n - 1) * s // a.dtype.itemsize for n, s in zip(a.shape, strides))
    result = xp.restride(xp.empty((extent,), a.dtype), a.shape, strides)
    result[...] = a
    return result
