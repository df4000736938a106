"""Windows as columns, and columns added up where windows overlap: each other's transposes."""

from __future__ import annotations

from math import prod
from typing import Any

from . import kernel
from .windows import Dims, offsets, output_shape, padded, spread, tap

__all__ = ["fold_windows", "unfold_windows"]


@kernel
def unfold_windows(xp: Any, x: Any, kernel: Dims, dilation: Dims, padding: Dims, stride: Dims) -> Any:
    """The windows of an array (N, C, *spatial) as columns (N, C * prod(kernel), windows),
    as https://docs.pytorch.org/docs/stable/generated/torch.nn.Unfold.html.
    """
    shape = output_shape(x.shape[2:], kernel, stride, padding, dilation)
    x = padded(xp, x, padding, padding)
    taps = [tap(x, offset, shape, stride, dilation) for offset in offsets(kernel)]
    return xp.stack(taps, axis=2).reshape((x.shape[0], x.shape[1] * len(taps), prod(shape)))


@kernel
def fold_windows(
    xp: Any, columns: Any, spatial: Dims, kernel: Dims, dilation: Dims, padding: Dims, stride: Dims
) -> Any:
    """Columns (N, C * prod(kernel), windows) added up to an array (N, C, *spatial): the transpose of `unfold_windows`."""
    shape = output_shape(spatial, kernel, stride, padding, dilation)
    count, ones = prod(kernel), (1,) * len(kernel)
    blocks = columns.reshape((columns.shape[0], columns.shape[1] // count, count, *shape))
    total: Any = None
    for at, offset in enumerate(offsets(kernel)):
        laid = spread(xp, blocks[:, :, at], spatial, kernel, stride, padding, dilation)
        # what a window sees at an offset came from the opposite one of the flipped kernel
        seen = tap(laid, tuple(k - 1 - o for k, o in zip(kernel, offset)), spatial, ones, dilation)
        total = seen if total is None else total + seen
    return total
