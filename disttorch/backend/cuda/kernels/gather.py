"""Elements taken by their number along an axis, in one launch: see sources/gather.cu."""

from __future__ import annotations

from typing import Any

import cupy

from ... import dtypes as dt
from .arrays import THREADS, blocks, contiguous, plain, split_at
from .compilation import declare, function, launch

__all__ = ["gather"]

SOURCE = "gather.cu"
declare(SOURCE, [{}])
INT64 = dt.int64.numpy


def gather(x: Any, index: Any, axis: int) -> Any:
    axis %= max(x.ndim, 1)
    alike = x.ndim == index.ndim > 0 and all(n == m for i, (n, m) in enumerate(zip(x.shape, index.shape)) if i != axis)
    if not alike or not x.size or not index.size or not x.flags.c_contiguous or index.dtype.kind not in "iu":
        return plain("gather", x, index, axis)
    out = cupy.empty(index.shape, x.dtype)
    _, along, inner = split_at(x.shape, axis)
    index = contiguous(index.astype(INT64, copy=False))
    kernel = function(SOURCE, f"gather_{x.dtype.itemsize}")
    launch(kernel, blocks(index.size), THREADS, (x, index, out, index.size, along, index.shape[axis], inner))
    return out
