"""Batch normalization: see sources/batch_norm.cu."""

from __future__ import annotations

from math import prod
from typing import Any

import cupy

from .arrays import ELEMENT, WIDE, contiguous, empty, in_order, plain
from .compilation import ELEMENTS, declare, function, launch

__all__ = ["batch_norm", "batch_norm_backward", "batch_norm_stats"]

SOURCE = "batch_norm.cu"
declare(SOURCE, [{"ELEMENT": e} for e in ELEMENTS])

THREADS, WARPS, WARP = 256, 8, 32
#: blocks that fill a device
BLOCKS = 1024
#: parts of a sum over a channel, at most, and the fewest elements of one
PARTS, OF_A_PART = 256, 2048
MOST_BLOCKS_Y = 65535


class Layout:
    """How an array (N, C, *spatial) lies in memory: as (outer, channels, inner), or as (outer, channels).

    Attributes
    ----------
    last : bool
        Whether channels come last.
    """

    def __init__(self, x: Any):
        self.shape, positions = x.shape, prod(x.shape[2:])
        self.last = x.ndim > 2 and positions > 1 and not x.flags.c_contiguous and cupy.moveaxis(x, 1, -1).flags.c_contiguous
        self.channels = x.shape[1]
        self.columns = self.last or positions == 1
        self.outer: int = x.shape[0] * positions if self.columns else x.shape[0]
        self.inner: int = 1 if self.columns else positions

    def of(self, a: Any) -> Any:
        """The array, or a copy, lying so."""
        return in_order(a, self.last)

    def empty(self, dtype: Any) -> Any:
        """A new array of the same shape, lying so."""
        return empty(self.shape, dtype, self.last)

    @property
    def sizes(self) -> tuple[int, ...]:
        """As the kernels of sums take them."""
        return (self.outer, self.channels) if self.columns else (self.outer, self.channels, self.inner)

    def sum_grid(self) -> tuple[int, int]:
        """Blocks for sums over channels: of channels, and of parts of the batch."""
        blocks = -(-self.channels // WARP) if self.columns else self.channels
        parts = min(PARTS, self.outer, -(-BLOCKS // blocks), -(-self.outer * self.inner // OF_A_PART))
        return blocks, max(1, parts)

    def map_grid(self) -> tuple[int, int]:
        """Blocks for a function of each element."""
        if self.columns:
            blocks = -(-self.channels // WARP)
            return blocks, max(1, min(-(-self.outer // WARPS), -(-BLOCKS * 4 // blocks), MOST_BLOCKS_Y))
        return -(-self.outer * self.channels // WARPS), max(1, min(-(-self.inner // 4096), MOST_BLOCKS_Y))

    def named(self, name: str, dtype: Any) -> Any:
        """The kernel for this layout."""
        return function(SOURCE, f"{name}_of_{'columns' if self.columns else 'planes'}", ELEMENT=ELEMENT[dtype])


def takes(x: Any) -> bool:
    """Whether the kernels know the type of elements, and there are any."""
    return x.dtype in ELEMENT and x.size > 0


def channel_numbers(a: Any, wide: Any) -> Any:
    """One number for each channel, in the type that is computed in; None stays None."""
    return None if a is None else contiguous(a.astype(wide, copy=False))


def batch_norm_stats(x: Any) -> tuple[Any, Any]:
    if not takes(x):
        return plain("batch_norm_stats", x)
    layout, wide = Layout(x), WIDE[x.dtype]
    x = layout.of(x)
    blocks, parts = layout.sum_grid()
    means, squares = cupy.empty((parts, layout.channels), wide), cupy.empty((parts, layout.channels), wide)
    launch(layout.named("stats", x.dtype), (blocks, parts), THREADS, (x, means, squares, *layout.sizes))
    mean, var = cupy.empty((layout.channels,), wide), cupy.empty((layout.channels,), wide)
    whole = function(SOURCE, "stats_of_parts", ELEMENT=ELEMENT[x.dtype])
    sizes = (parts, layout.channels, layout.outer, layout.inner)
    launch(whole, -(-layout.channels // THREADS), THREADS, (means, squares, mean, var, *sizes))
    return mean, var


def batch_norm(x: Any, weight: Any, bias: Any, mean: Any, rstd: Any) -> Any:
    if not takes(x):
        return plain("batch_norm", x, weight, bias, mean, rstd)
    layout, wide = Layout(x), WIDE[x.dtype]
    x, out = layout.of(x), layout.empty(x.dtype)
    numbers = [channel_numbers(a, wide) for a in (weight, bias, mean, rstd)]
    launch(layout.named("norm", x.dtype), layout.map_grid(), THREADS, (x, *numbers, out, *map_sizes(layout)))
    return out


def batch_norm_backward(g: Any, x: Any, weight: Any, mean: Any, rstd: Any) -> tuple[Any, Any, Any]:
    if not takes(x) or g.dtype != x.dtype:
        return plain("batch_norm_backward", g, x, weight, mean, rstd)
    layout, wide = Layout(x), WIDE[x.dtype]
    x, g, gx = layout.of(x), layout.of(g), layout.empty(x.dtype)
    scale, mean, rstd = (channel_numbers(a, wide) for a in (weight, mean, rstd))
    blocks, parts = layout.sum_grid()
    sums_gh, sums_g = cupy.empty((parts, layout.channels), wide), cupy.empty((parts, layout.channels), wide)
    launch(layout.named("sums", x.dtype), (blocks, parts), THREADS, (g, x, mean, rstd, sums_gh, sums_g, *layout.sizes))
    gw, gb = cupy.empty((layout.channels,), wide), cupy.empty((layout.channels,), wide)
    whole = function(SOURCE, "sums_of_parts", ELEMENT=ELEMENT[x.dtype])
    launch(whole, -(-layout.channels // THREADS), THREADS, (sums_gh, sums_g, gw, gb, parts, layout.channels))
    launch(layout.named("back", x.dtype), layout.map_grid(), THREADS, (g, x, scale, mean, rstd, gw, gb, gx, *map_sizes(layout)))
    to = wide if weight is None else weight.dtype
    return gx, gw.astype(to, copy=False), gb.astype(to, copy=False)


def map_sizes(layout: Layout) -> tuple[int, ...]:
    """As the kernels of functions of each element take them: planes, channels, inner, or outer, channels."""
    return layout.sizes if layout.columns else (layout.outer * layout.channels, layout.channels, layout.inner)
