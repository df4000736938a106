"""What dropout keeps, in the way back and in attention: see sources/random.cu. Elsewhere `random.Philox` draws it."""

from __future__ import annotations

from typing import Any

import cupy

from .arrays import ELEMENT, THREADS, blocks, contiguous, plain
from .compilation import function, launch
from .random import BOOL, INT64, SOURCE, signed

__all__ = ["attention_keep", "where_kept"]


def where_kept(x: Any, kept: Any, scale: float) -> Any:
    if x.dtype not in ELEMENT or kept.dtype != BOOL or x.shape != kept.shape or not x.size:
        return plain("where_kept", x, kept, scale)
    x, kept = contiguous(x), contiguous(kept)
    out = cupy.empty(x.shape, x.dtype)
    kernel = function(SOURCE, "where_kept", ELEMENT=ELEMENT[x.dtype])
    launch(kernel, blocks(x.size, 16 // x.dtype.itemsize), THREADS, (x, kept, out, x.size, float(scale)))
    return out


def attention_keep(like: Any, shape: tuple[int, int, int], start: int, stop: int, p: float, seed: Any) -> Any:
    out = cupy.empty((shape[0], stop - start, shape[2]), BOOL)
    if out.size:
        held = isinstance(seed, cupy.ndarray)
        where, added = (contiguous(seed.astype(INT64, copy=False)), start) if held else (None, seed + start)
        kernel = function(SOURCE, "kept_by_seed", ELEMENT="float32")
        launch(kernel, blocks(out.size, 4), THREADS, (where, out, out.size, signed(added), float(p)))
    return out
