"""A linear map and the activation after it, as one where the device has a kernel for that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd.variable import Tensor
from ..ops.linear import linear
from ..ops.nn import activation as functions
from .activation import GELU, SiLU
from .linear import Linear

__all__ = ["activated"]


def _kind(activation: Any) -> str | None:
    """The name under which the kernel knows an activation; None for others, and where somebody watches it."""
    if activation is functions.gelu:
        return "none"
    if activation is functions.silu:
        return "silu"
    if type(activation) not in (GELU, SiLU) or activation._hooks is not None:
        return None
    return activation.approximate if type(activation) is GELU else "silu"


def activated(layer: Callable[[Tensor], Tensor], activation: Callable[[Tensor], Tensor], input: Tensor) -> Tensor:
    """``activation(layer(input))``.

    On a GPU the bias of a `Linear` is added by the kernel of the activation, and its gradient summed by that of the way back: what lies
    between is read once less in each direction.
    """
    kind = _kind(activation) if input.device.type == "cuda" else None
    if kind is None or type(layer) is not Linear or layer.bias is None or layer._hooks is not None or "forward" in layer.__dict__:
        return activation(layer(input))
    product = linear(input, layer.weight)
    return functions.biased(product, layer.bias.to(dtype=product.dtype), kind)
