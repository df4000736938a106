"""Putting values at places: the derivatives of taking them from there."""

from __future__ import annotations

from typing import Any

from . import kernel


@kernel
def put_slice(xp: Any, g: Any, shape: tuple[int, ...], index: Any) -> Any:
    """Zeros of a shape with ``g`` at a basic index (integers, slices, None, ...)."""
    result = xp.zeros(shape, g.dtype)
    result[index] = g
    return result


@kernel
def put_index(xp: Any, g: Any, shape: tuple[int, ...], index: Any) -> Any:
    """Zeros of a shape with ``g`` added at an advanced index, where places may occur more than once."""
    result = xp.zeros(shape, g.dtype)
    xp.add_at(result, index, g)
    return result


def _grid(xp: Any, index: Any, axis: int) -> tuple:
    """An advanced index that stands for ``index`` along ``axis`` and each place itself along the others."""
    grid = []
    for i, n in enumerate(index.shape):
        shape = [1] * index.ndim
        shape[i] = n
        grid.append(xp.reshape(xp.arange(n), shape))
    grid[axis] = index
    return tuple(grid)


@kernel
def gather(xp: Any, x: Any, index: Any, axis: int) -> Any:
    """``out[i, j] = x[index[i, j], j]`` for axis 0, and so on; the index may be smaller than x on other axes."""
    return x[_grid(xp, index, axis)]


@kernel
def scatter_add(xp: Any, source: Any, index: Any, shape: tuple[int, ...], axis: int) -> Any:
    """Zeros of a shape with ``source`` added at ``index`` along ``axis``."""
    result = xp.zeros(shape, source.dtype)
    xp.add_at(result, _grid(xp, index, axis), source)
    return result


@kernel
def scatter(xp: Any, x: Any, index: Any, source: Any, axis: int) -> Any:
    """A copy of x with ``source`` put at ``index`` along ``axis``."""
    result = xp.array(x)
    result[_grid(xp, index, axis)] = source
    return result


@kernel
def diagonal_backward(xp: Any, g: Any, shape: tuple[int, ...], offset: int, dim1: int, dim2: int) -> Any:
    """Zeros of a shape with ``g`` on the diagonal of two dimensions."""
    result = xp.zeros(shape, g.dtype)
    rows = xp.arange(g.shape[-1]) + max(-offset, 0)
    columns = xp.arange(g.shape[-1]) + max(offset, 0)
    turned = xp.moveaxis(result, (dim1, dim2), (-2, -1))
    turned[..., rows, columns] = g
    return result
