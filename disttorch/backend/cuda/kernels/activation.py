"""GELU and SiLU, also with a bias: see sources/activation.cu."""

from __future__ import annotations

from typing import Any

import cupy

from .arrays import ELEMENT, THREADS, WIDE, blocks, contiguous, plain
from .compilation import ELEMENTS, declare, function, launch

__all__ = ["biased", "biased_backward", "gelu", "gelu_backward", "silu", "silu_backward"]

SOURCE = "activation.cu"
#: what users call it -> what the source does
KINDS = {"none": "Gelu", "tanh": "GeluTanh", "silu": "Silu"}
declare(SOURCE, [{"ELEMENT": e, "KIND": k} for e in ELEMENTS for k in KINDS.values()])

#: into how many parts rows are divided to sum the gradient of a bias
PARTS = 64


def _forward(kind: str, x: Any) -> Any:
    x = contiguous(x)
    out = cupy.empty(x.shape, x.dtype)
    kernel = function(SOURCE, "forward", ELEMENT=ELEMENT[x.dtype], KIND=KINDS[kind])
    launch(kernel, blocks(x.size, 16 // x.dtype.itemsize), THREADS, (x, out, x.size))
    return out


def _backward(kind: str, g: Any, x: Any) -> Any:
    g, x = contiguous(g), contiguous(x)
    out = cupy.empty(x.shape, x.dtype)
    kernel = function(SOURCE, "backward", ELEMENT=ELEMENT[x.dtype], KIND=KINDS[kind])
    launch(kernel, blocks(x.size, 16 // x.dtype.itemsize), THREADS, (g, x, out, x.size))
    return out


def _fits(g: Any, x: Any) -> bool:
    return x.dtype in ELEMENT and g.dtype == x.dtype and g.shape == x.shape and x.size > 0


def gelu(x: Any, approximate: str) -> Any:
    if x.dtype not in ELEMENT or not x.size or approximate not in ("none", "tanh"):
        return plain("gelu", x, approximate)
    return _forward(approximate, x)


def gelu_backward(g: Any, x: Any, approximate: str) -> Any:
    if not _fits(g, x) or approximate not in ("none", "tanh"):
        return plain("gelu_backward", g, x, approximate)
    return _backward(approximate, g, x)


def silu(x: Any) -> Any:
    return _forward("silu", x) if x.dtype in ELEMENT and x.size else plain("silu", x)


def silu_backward(g: Any, x: Any) -> Any:
    return _backward("silu", g, x) if _fits(g, x) else plain("silu_backward", g, x)


def biased(x: Any, bias: Any, kind: str) -> Any:
    if x.dtype not in ELEMENT or bias.dtype != x.dtype or not x.size or kind not in KINDS:
        return plain("biased", x, bias, kind)
    x, bias = contiguous(x), contiguous(bias)
    n = bias.size
    rows = x.size // n
    out = cupy.empty(x.shape, x.dtype)
    columns = -(-n // (THREADS * 16 // x.dtype.itemsize))
    kernel = function(SOURCE, "biased_forward", ELEMENT=ELEMENT[x.dtype], KIND=KINDS[kind])
    launch(kernel, (columns, min(rows, 65535, 4096)), THREADS, (x, bias, out, rows, n))
    return out


def biased_backward(g: Any, x: Any, bias: Any, kind: str) -> tuple[Any, Any]:
    if not _fits(g, x) or bias.dtype != x.dtype or kind not in KINDS:
        return plain("biased_backward", g, x, bias, kind)
    g, x, bias = contiguous(g), contiguous(x), contiguous(bias)
    n = bias.size
    rows = x.size // n
    macros = {"ELEMENT": ELEMENT[x.dtype], "KIND": KINDS[kind]}
    gx, gb = cupy.empty(x.shape, x.dtype), cupy.empty(bias.shape, bias.dtype)
    parts = max(1, min(PARTS, -(-rows // 32)))
    sums = cupy.empty((parts, n), WIDE[x.dtype])
    launch(function(SOURCE, "biased_backward", **macros), (-(-n // 32), parts), (32, 8), (g, x, bias, gx, sums, rows, n))
    launch(function(SOURCE, "add_up", **macros), -(-n // THREADS), THREADS, (sums, gb, parts, n))
    return gx, gb
