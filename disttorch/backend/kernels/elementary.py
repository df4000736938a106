"""Elementwise functions that the array libraries do not have under one name."""

from __future__ import annotations

from typing import Any

from . import kernel


@kernel
def relu(xp: Any, x: Any) -> Any:
    """max(x, 0); NaN stays NaN."""
    return xp.maximum(x, xp.zeros_like(x[..., :1]) if x.ndim else xp.zeros_like(x))


@kernel
def frac(xp: Any, x: Any) -> Any:
    """The part behind the point, with the sign of x."""
    return x - xp.trunc(x)


@kernel
def linear(xp: Any, x: Any, weight: Any, bias: Any) -> Any:
    """x @ weight.T + bias for x (..., k), weight (m, k), bias (m) or None."""
    product = xp.matmul(x, xp.swapaxes(weight, 0, 1))
    return product if bias is None else product + bias
