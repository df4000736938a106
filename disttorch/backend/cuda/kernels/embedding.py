"""The gradient of an embedding, the same bits for the same input: see sources/embedding.cu and sources/sort.cu."""

from __future__ import annotations

from typing import Any

import cupy

from ... import dtypes as dt
from .arrays import ELEMENT, THREADS, WIDE, blocks, contiguous, plain
from .compilation import ELEMENTS, declare, function, launch

__all__ = ["add_rows"]

SOURCE, SORT = "embedding.cu", "sort.cu"
declare(SOURCE, [{"ELEMENT": e} for e in ELEMENTS])
declare(SORT, [{}])

#: as in sort.cu
TILE, DIGIT_BITS, DIGITS = 2048, 8, 256
UINT32, INT32, INT64 = (dt.PUBLIC_DTYPES[name].numpy for name in ("uint32", "int32", "int64"))


def sorted_rows(index: Any, rows: int) -> tuple[Any, Any]:
    """The numbers of an index sorted, and where each comes from; uint32. What is no row is `rows`, at the end."""
    m = index.size
    index = contiguous(index if index.dtype == INT32 else index.astype(INT64, copy=False))
    keys, places = cupy.empty((m,), UINT32), None
    launch(function(SORT, f"keys_of_{index.dtype.name}"), blocks(m), THREADS, (index, keys, m, rows))
    tiles = -(-m // TILE)
    counts = cupy.empty((DIGITS * tiles,), UINT32)
    for shift in range(0, rows.bit_length(), DIGIT_BITS):
        new_keys, new_places = cupy.empty((m,), UINT32), cupy.empty((m,), UINT32)
        launch(function(SORT, "count_digits"), tiles, DIGITS, (keys, counts, m, shift))
        launch(function(SORT, "sum_counts"), 1, 1024, (counts, counts.size))
        launch(function(SORT, "move_by_digit"), tiles, 256, (keys, places, new_keys, new_places, counts, m, shift))
        keys, places = new_keys, new_places
    return keys, places


def chunk_length(m: int) -> int:
    """How many sorted rows one walk adds up: more for more, so that neither walks nor their number grow too long."""
    return max(16, min(512, 1 << (int(m**0.5) // 8).bit_length()))


def add_rows(g: Any, index: Any, rows: int) -> Any:
    m, width = g.shape
    if g.dtype not in ELEMENT or index.dtype.kind not in "iu" or not g.size or not 0 < rows < 2**32 - 1 or m >= 2**31:
        return plain("add_rows", g, index, rows)
    g = contiguous(g)
    keys, places = sorted_rows(index, rows)
    out = cupy.zeros((rows, width), g.dtype)
    length = chunk_length(m)
    chunks = -(-m // length)
    heads, tails = (cupy.empty((chunks, width), WIDE[g.dtype]) for _ in range(2))
    by_packs = width % (16 // g.dtype.itemsize) == 0
    groups = -(-width // (32 * (16 // g.dtype.itemsize if by_packs else 1)))
    element = ELEMENT[g.dtype]
    launch(
        function(SOURCE, "sum_chunks", ELEMENT=element),
        (-(-chunks // 8), min(groups, 65535)),
        (32, 8),
        (g, keys, places, out, heads, tails, m, width, rows, length, chunks),
    )
    if chunks > 1:
        launch(
            function(SOURCE, "join_chunks", ELEMENT=element),
            (-(-chunks // 8), min(-(-width // 32), 65535)),
            (32, 8),
            (keys, out, heads, tails, m, width, rows, length, chunks),
        )
    return out
