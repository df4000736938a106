"""Layer and RMS normalization: see sources/normalization.cu."""

from __future__ import annotations

from math import prod
from typing import Any

import cupy

from .arrays import ELEMENT, WIDE, contiguous, plain
from .compilation import ELEMENTS, declare, function, launch
from .softmax import row_grid

__all__ = ["layer_norm", "layer_norm_backward", "rms_norm", "rms_norm_backward"]

SOURCE = "normalization.cu"
# weights are of the input's type, or float32 beside half types
declare(SOURCE, [{"ELEMENT": e, "WEIGHT": w} for e in ELEMENTS for w in dict.fromkeys((e, "float32")) if e != "float64" or w == e])

#: bytes of shared memory for a block's sums of columns
SHARED = 48 * 1024 - 1024
#: how many blocks make sums of columns: more would make the second step long
PARTS = 1024
MOST_BLOCKS = 2**31 - 1


def _weight_of(x: Any, *weights: Any) -> str | None:
    """The weights' element type; None where the kernels do not take them."""
    given = [w.dtype for w in weights if w is not None]
    if x.dtype not in ELEMENT or not x.size or any(d != given[0] for d in given):
        return None
    name = ELEMENT.get(given[0]) if given else ELEMENT[x.dtype]
    mixed = name == "float32" and x.dtype.itemsize == 2
    return name if name == ELEMENT[x.dtype] or mixed else None


def _split(x: Any, ndim: int) -> tuple[int, int]:
    return prod(x.shape[: x.ndim - ndim]), prod(x.shape[x.ndim - ndim :])


def _flat(weight: Any) -> Any:
    return None if weight is None else contiguous(weight)


def layer_norm(x: Any, weight: Any, bias: Any, ndim: int, eps: float) -> tuple[Any, Any, Any]:
    element = _weight_of(x, weight, bias)
    if element is None:
        return plain("layer_norm", x, weight, bias, ndim, eps)
    rows, n = _split(x, ndim)
    x = contiguous(x)
    out = cupy.empty(x.shape, x.dtype)
    statistics = (*x.shape[: x.ndim - ndim], *(1,) * ndim)
    mean, rstd = cupy.empty(statistics, WIDE[x.dtype]), cupy.empty(statistics, WIDE[x.dtype])
    kernel = function(SOURCE, "layer_norm", ELEMENT=ELEMENT[x.dtype], WEIGHT=element)
    launch(kernel, *row_grid(rows, n, x.dtype.itemsize), (x, _flat(weight), _flat(bias), out, mean, rstd, rows, n, float(eps)))
    return out, mean, rstd


def rms_norm(x: Any, weight: Any, ndim: int, eps: float) -> tuple[Any, Any]:
    element = _weight_of(x, weight)
    if element is None:
        return plain("rms_norm", x, weight, ndim, eps)
    rows, n = _split(x, ndim)
    x = contiguous(x)
    out = cupy.empty(x.shape, x.dtype)
    rstd = cupy.empty((*x.shape[: x.ndim - ndim], *(1,) * ndim), WIDE[x.dtype])
    kernel = function(SOURCE, "rms_norm", ELEMENT=ELEMENT[x.dtype], WEIGHT=element)
    launch(kernel, *row_grid(rows, n, x.dtype.itemsize), (x, _flat(weight), out, rstd, rows, n, float(eps)))
    return out, rstd


def layer_norm_backward(
    g: Any, x: Any, weight: Any, mean: Any, rstd: Any, ndim: int, sums: bool = True
) -> tuple[Any, Any, Any]:
    element = _weight_of(x, weight)
    if element is None or g.dtype != x.dtype or mean.dtype != WIDE[x.dtype] or rstd.dtype != WIDE[x.dtype]:
        return plain("layer_norm_backward", g, x, weight, mean, rstd, ndim, sums)
    return _backward(g, x, weight, mean, rstd, ndim, sums, element)


def rms_norm_backward(g: Any, x: Any, weight: Any, rstd: Any, ndim: int, sums: bool = True) -> tuple[Any, Any]:
    element = _weight_of(x, weight)
    if element is None or g.dtype != x.dtype or rstd.dtype != WIDE[x.dtype]:
        return plain("rms_norm_backward", g, x, weight, rstd, ndim, sums)
    gx, gw, _ = _backward(g, x, weight, None, rstd, ndim, sums, element)
    return gx, gw


def _backward(
    g: Any, x: Any, weight: Any, mean: Any, rstd: Any, ndim: int, sums: bool, element: str
) -> tuple[Any, Any, Any]:
    rows, n = _split(x, ndim)
    g, x, rstd = contiguous(g), contiguous(x), contiguous(rstd)
    mean = None if mean is None else contiguous(mean)
    wide = WIDE[x.dtype]
    if weight is None and x.dtype.itemsize == 2:
        element = "float32"  # as the plain kernel's sums, which nothing rounds
    macros = {"ELEMENT": ELEMENT[x.dtype], "WEIGHT": element}
    gx = cupy.empty(x.shape, x.dtype)
    threads = max(32, min(512, -(-n * x.dtype.itemsize // (16 * 32)) * 32))
    kernel = function(SOURCE, "norm_backward", **macros)
    inputs = (g, x, _flat(weight), mean, rstd, gx)
    if not sums:
        launch(kernel, min(rows, MOST_BLOCKS), threads, (*inputs, None, None, rows, n))
        return gx, None, None
    shape, to = x.shape[x.ndim - ndim :], wide if weight is None else weight.dtype
    gw = cupy.empty(shape, to)
    gb = None if mean is None else cupy.empty(shape, to)
    shared = (1 if mean is None else 2) * n * wide.itemsize
    if shared <= SHARED:
        parts = min(PARTS, rows)
        sums_gh, sums_g = _sums(parts, n, wide, mean)
        launch(kernel, parts, threads, (*inputs, sums_gh, sums_g, rows, n), shared)
    else:
        parts = max(1, min(PARTS, -(-rows // 64)))
        sums_gh, sums_g = _sums(parts, n, wide, mean)
        launch(kernel, min(rows, MOST_BLOCKS), threads, (*inputs, None, None, rows, n))
        columns = function(SOURCE, "norm_column_sums", **macros)
        launch(columns, (-(-n // 32), parts), (32, 8), (g, x, mean, rstd, sums_gh, sums_g, rows, n))
    launch(function(SOURCE, "norm_add_up", **macros), -(-n // 32), (32, 8), (sums_gh, sums_g, gw, gb, parts, n))
    return gx, gw, gb


def _sums(parts: int, n: int, wide: Any, mean: Any) -> tuple[Any, Any]:
    return cupy.empty((parts, n), wide), None if mean is None else cupy.empty((parts, n), wide)
