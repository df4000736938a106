"""Columns of windows written and added in place."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..kernels.windows import Dims, offsets, output_shape, padded, tap

__all__ = ["fold_windows", "unfold_windows"]


def unfold_windows(x: Any, kernel: Dims, dilation: Dims, padding: Dims, stride: Dims) -> Any:
    shape = output_shape(x.shape[2:], kernel, stride, padding, dilation)
    x = padded(np, x, padding, padding)
    columns = np.empty((*x.shape[:2], prod(kernel), *shape), x.dtype)
    for at, offset in enumerate(offsets(kernel)):
        columns[:, :, at] = tap(x, offset, shape, stride, dilation)
    return columns.reshape(x.shape[0], x.shape[1] * prod(kernel), prod(shape))


def fold_windows(columns: Any, spatial: Dims, kernel: Dims, dilation: Dims, padding: Dims, stride: Dims) -> Any:
    shape = output_shape(spatial, kernel, stride, padding, dilation)
    count, dtype = prod(kernel), columns.dtype
    blocks = columns.reshape(columns.shape[0], columns.shape[1] // count, count, *shape)
    half = dtype.itemsize < 4 and dtype.kind not in "iub"
    total = np.zeros((*blocks.shape[:2], *(n + 2 * p for n, p in zip(spatial, padding))), np.float32 if half else dtype)
    for at, offset in enumerate(offsets(kernel)):
        seen = tap(total, offset, shape, stride, dilation)
        np.add(seen, blocks[:, :, at], out=seen)
    margins = (slice(p, p + n) for n, p in zip(spatial, padding))
    inside = total[(slice(None), slice(None), *margins)]
    return inside.astype(dtype, copy=False)
