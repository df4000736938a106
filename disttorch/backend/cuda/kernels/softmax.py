"""Softmax, its logarithm and cross entropy: see sources/softmax.cu."""

from __future__ import annotations

from typing import Any

import cupy

from ... import dtypes as dt
from .arrays import ELEMENT, WIDE, contiguous, plain, split_at
from .compilation import ELEMENTS, declare, function, launch

__all__ = ["class_losses", "class_losses_backward", "log_softmax", "log_softmax_backward", "softmax", "softmax_backward"]

SOURCE = "softmax.cu"
declare(SOURCE, [{"ELEMENT": e} for e in ELEMENTS])

#: up to so many elements a row is a warp's work, of which a block has so many
WARP_ROW, WARPS = 1024, 4
INT64 = dt.int64.numpy


def row_grid(rows: int, n: int, itemsize: int) -> tuple[int, tuple[int, int]]:
    """The grid and the block for kernels on rows."""
    if n <= WARP_ROW:
        return -(-rows // WARPS), (32, WARPS)
    threads = -(-n * itemsize // (16 * 4))  # four packs each
    return rows, (max(128, min(1024, -(-threads // 32) * 32)), 1)


def _along(name: str, inputs: tuple[Any, ...], axis: int) -> Any:
    last = inputs[-1]
    inputs = tuple(contiguous(a) for a in inputs)
    out = cupy.empty(last.shape, last.dtype)
    outer, n, inner = split_at(last.shape, axis)
    element = ELEMENT[last.dtype]
    if inner == 1:
        suffix = name.removesuffix("_backward") + "_rows" + ("_backward" if name.endswith("_backward") else "")
        launch(function(SOURCE, suffix, ELEMENT=element), *row_grid(outer, n, last.dtype.itemsize), (*inputs, out, outer, n))
    else:
        suffix = name.removesuffix("_backward") + "_columns" + ("_backward" if name.endswith("_backward") else "")
        grid = outer * -(-inner // 32)
        launch(function(SOURCE, suffix, ELEMENT=element), grid, (32, 8), (*inputs, out, n, inner))
    return out


def softmax(x: Any, axis: int) -> Any:
    if x.dtype not in ELEMENT or not x.size or not x.ndim:
        return plain("softmax", x, axis)
    return _along("softmax", (x,), axis)


def softmax_backward(g: Any, out: Any, axis: int) -> Any:
    if out.dtype not in ELEMENT or g.dtype != out.dtype or not out.size or g.shape != out.shape:
        return plain("softmax_backward", g, out, axis)
    return _along("softmax_backward", (g, out), axis)


def log_softmax(x: Any, axis: int) -> Any:
    if x.dtype not in ELEMENT or not x.size or not x.ndim:
        return plain("log_softmax", x, axis)
    return _along("log_softmax", (x,), axis)


def log_softmax_backward(g: Any, out: Any, axis: int) -> Any:
    if out.dtype not in ELEMENT or g.dtype != out.dtype or not out.size or g.shape != out.shape:
        return plain("log_softmax_backward", g, out, axis)
    return _along("log_softmax_backward", (g, out), axis)


def class_losses(logits: Any, target: Any, weight: Any, ignore_index: int, label_smoothing: float) -> tuple[Any, Any]:
    """As the plain kernel; what is kept for the gradient is two numbers a row. A target that is no class has the loss NaN."""
    if logits.dtype not in ELEMENT or not logits.size or (weight is not None and weight.dtype != logits.dtype):
        return plain("class_losses", logits, target, weight, ignore_index, label_smoothing)
    rows, n = logits.shape
    logits = contiguous(logits)
    losses = cupy.empty((rows,), logits.dtype)
    kept = cupy.empty((rows, 2, 1), WIDE[logits.dtype])
    launch(
        function(SOURCE, "cross_entropy_rows", ELEMENT=ELEMENT[logits.dtype]),
        *row_grid(rows, n, logits.dtype.itemsize),
        (logits, _classes(target), _weight(weight), losses, kept, rows, n, ignore_index, float(label_smoothing)),
    )
    return losses, kept


def class_losses_backward(
    g: Any, logits: Any, kept: Any, target: Any, weight: Any, ignore_index: int, label_smoothing: float
) -> Any:
    if kept.ndim != 3:  # those that the plain kernel kept
        return plain("class_losses_backward", g, logits, kept, target, weight, ignore_index, label_smoothing)
    rows, n = logits.shape
    logits = contiguous(logits)
    out = cupy.empty(logits.shape, logits.dtype)
    launch(
        function(SOURCE, "cross_entropy_rows_backward", ELEMENT=ELEMENT[logits.dtype]),
        *row_grid(rows, n, logits.dtype.itemsize),
        (
            contiguous(g.astype(logits.dtype, copy=False)), logits, kept, _classes(target), _weight(weight), out,
            rows, n, ignore_index, float(label_smoothing),
        ),
    )  # fmt: skip
    return out


def _classes(target: Any) -> Any:
    return contiguous(target.astype(INT64, copy=False))


def _weight(weight: Any) -> Any:
    return None if weight is None else contiguous(weight)
