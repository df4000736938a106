"""A bias and an activation function as one operation, for the layers between two matrix products."""

from __future__ import annotations

from typing import Any

from . import kernel
from .precision import narrow, wide

__all__ = ["biased", "biased_backward"]


@kernel
def biased(xp: Any, x: Any, bias: Any, kind: str) -> Any:
    """``silu(x + bias)`` for the kind "silu", else ``gelu(x + bias)`` with the approximation of that name.

    Parameters
    ----------
    x : array (..., n)
    bias : array (n,)
    kind : {"none", "tanh", "silu"}
    """
    a = wide(xp, x) + wide(xp, bias)
    return narrow(xp, xp.silu(a) if kind == "silu" else xp.gelu(a, kind), x.dtype)


@kernel
def biased_backward(xp: Any, g: Any, x: Any, bias: Any, kind: str) -> tuple[Any, Any]:
    """The gradients at x and bias of `biased`."""
    a = wide(xp, x) + wide(xp, bias)
    gx = xp.silu_backward(wide(xp, g), a) if kind == "silu" else xp.gelu_backward(wide(xp, g), a, kind)
    return narrow(xp, gx, x.dtype), narrow(xp, xp.sum(gx, axis=tuple(range(x.ndim - 1))), bias.dtype)
