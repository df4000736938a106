"""Rows added up by their number, as a flat vector.

``numpy.add.at`` takes 1.2 ns an element where array and index are one-dimensional, and 6.6 where an index means a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["add_rows"]

#: Elements at a time: half a megabyte of positions.
BLOCK = 65536


def add_rows(g: Any, index: Any, rows: int) -> Any:
    width = g.shape[1]
    dtype = np.dtype(np.float32) if g.dtype.itemsize < 4 and g.dtype.kind != "i" else g.dtype
    result = np.zeros((rows, width), dtype)
    if not g.size:
        return result.astype(g.dtype, copy=False)
    flat = result.reshape(-1)
    starts, columns = index.astype(np.int64, copy=False) * width, np.arange(width)
    step = max(1, BLOCK // width)
    positions = np.empty((min(step, len(index)), width), np.int64)
    for first in range(0, len(index), step):
        block = starts[first : first + step, None]
        here = np.add(block, columns, positions[: len(block)])
        np.add.at(flat, here.reshape(-1), g[first : first + step].astype(dtype, copy=False).reshape(-1))
    return result.astype(g.dtype, copy=False)
