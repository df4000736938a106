"""Recurrent layers: a step is one product and one kernel, see sources/recurrent.cu.

All steps' input products are one, and so is each weight's gradient. What is kept for the gradient lies as the plain kernel has it. Half
types are computed in float32, and multiplied as TF32, which has as many digits as they or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cupy

from ...kernels.recurrent import segments
from ...namespace import NAMESPACES
from ..products import multiply
from .arrays import ELEMENT, THREADS, WIDE, blocks, contiguous, plain
from .compilation import declare, function, launch

__all__ = ["recurrent", "recurrent_backward"]

SOURCE = "recurrent.cu"
#: mode -> the cell in the source, its gates, and how many numbers a unit keeps
CELLS = {"RNN_TANH": ("Tanh", 1, 1), "RNN_RELU": ("Relu", 1, 1), "LSTM": ("Lstm", 4, 4), "GRU": ("Gru", 3, 4)}
declare(SOURCE, [{"ELEMENT": e, "CELL": cell} for e in ("float32", "float64") for cell, _, _ in CELLS.values()])


def recurrent(
    x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any, mode: str, sizes: Sequence[int], reverse: bool
) -> tuple[Any, Any, Any, Any, Any, Any]:
    given = (x, h, c, w_ih, w_hh, b_ih, b_hh)
    if w_hr is not None or not _fit(given):
        return plain("recurrent", *given, w_hr, mode, sizes, reverse)
    dtype, real = x.dtype, WIDE[x.dtype]
    tf32 = dtype != real
    x, w_ih, w_hh, b_ih, b_hh = (None if a is None else contiguous(a.astype(real, copy=False)) for a in (x, w_ih, w_hh, b_ih, b_hh))
    h, c = cupy.array(h, real, order="C"), None if c is None else cupy.array(c, real, order="C")  # copies, which the kernel changes
    cell, gates, kept_by_unit = CELLS[mode]
    total, (batch, hidden) = len(x), h.shape
    projected = _product(x, w_ih.T, tf32, b_ih)
    y, before = (cupy.empty((total, hidden), real) for _ in range(2))
    cells = None if c is None else cupy.empty((total, hidden), real)
    kept, product = cupy.empty((total, kept_by_unit * hidden), real), cupy.empty((batch, gates * hidden), real)
    kernel, of_state = function(SOURCE, "forward", ELEMENT=ELEMENT[real], CELL=cell), w_hh.T
    for start, count in segments(sizes, reverse):
        multiply(_first(product, count), _first(h, count), of_state, tf32=tf32)
        arguments = (projected, product, b_hh, h, c, y, kept, before, cells, start, count, hidden)
        launch(kernel, blocks(count * hidden), THREADS, arguments)
    y, h, c = (None if a is None else a.astype(dtype, copy=False) for a in (y, h, c))
    return y, h, c, kept, before, cells


def recurrent_backward(
    gy: Any, gh: Any, gc: Any, x: Any, w_ih: Any, w_hh: Any, w_hr: Any, kept: Any, before: Any, cells: Any, mode: str,
    sizes: Sequence[int], reverse: bool, need_x: bool,
) -> tuple[Any, ...]:  # fmt: skip
    given = (gy, gh, gc, x, w_ih, w_hh)
    if w_hr is not None or not _fit(given):
        return plain("recurrent_backward", *given, w_hr, kept, before, cells, mode, sizes, reverse, need_x)
    dtype, real = x.dtype, WIDE[x.dtype]
    tf32 = dtype != real
    gy, x, w_ih, w_hh = (contiguous(a.astype(real, copy=False)) for a in (gy, x, w_ih, w_hh))
    dh, dc = cupy.array(gh, real, order="C"), None if gc is None else cupy.array(gc, real, order="C")
    cell, gates, _ = CELLS[mode]
    total, hidden = len(x), dh.shape[1]
    d_input = cupy.empty((total, gates * hidden), real)
    d_state = cupy.empty_like(d_input) if mode == "GRU" else d_input
    kernel = function(SOURCE, "backward", ELEMENT=ELEMENT[real], CELL=cell)
    for start, count in segments(sizes, not reverse):
        arguments = (gy, dh, dc, kept, before, cells, d_input, d_state, start, count, hidden)
        launch(kernel, blocks(count * hidden), THREADS, arguments)
        multiply(_first(dh, count), d_state[start : start + count], w_hh, add=mode == "GRU", tf32=tf32)
    total_of = NAMESPACES[cupy.ndarray].sum
    found = (
        _product(d_input, w_ih, tf32) if need_x else None, dh, dc, _product(d_input.T, x, tf32), _product(d_state.T, before, tf32),
        total_of(d_input, axis=0), total_of(d_state, axis=0), None,
    )  # fmt: skip
    return tuple([None if a is None else a.astype(dtype, copy=False) for a in found])


def _fit(given: Sequence[Any]) -> bool:
    """Whether the kernels know the arrays, all of one dtype and none of them empty."""
    dtype = given[0].dtype
    return dtype in ELEMENT and all(a is None or (a.dtype == dtype and a.size) for a in given)


def _product(a: Any, b: Any, tf32: bool, bias: Any = None) -> Any:
    out = cupy.empty((a.shape[0], b.shape[1]), a.dtype)
    if bias is not None:
        out[...] = bias
    multiply(out, a, b, add=bias is not None, tf32=tf32)
    return out


def _first(a: Any, count: int) -> Any:
    return a if len(a) == count else a[:count]
