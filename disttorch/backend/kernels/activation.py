"""Activation functions and elementwise losses with pieces, and their gradients.

Pieces are added up, each of its own part of the numbers or times a mask, where a selection by ``where`` would take ten
times as long on a CPU. Formulas are those of https://docs.pytorch.org/docs/stable/nn.functional.html; where pieces meet, the
derivative is the one that PyTorch takes. Half types are computed in float32 and rounded once.
"""

from __future__ import annotations

from typing import Any

from . import kernel
from .precision import narrow, wide

__all__ = [
    "bce_with_logits", "bce_with_logits_backward", "elu", "elu_backward", "hardsigmoid", "hardsigmoid_backward", "hardswish",
    "hardswish_backward", "leaky_relu", "leaky_relu_backward", "logsigmoid", "mish", "mish_backward", "silu_backward", "smooth_l1",
    "smooth_l1_backward", "softplus_backward",
]  # fmt: skip


def positive_part(xp: Any, x: Any) -> Any:
    """max(x, 0)"""
    return xp.maximum(x, xp.zeros_like(x))


def negative_part(xp: Any, x: Any) -> Any:
    """min(x, 0)"""
    return xp.minimum(x, xp.zeros_like(x))


def mask(xp: Any, condition: Any, like: Any) -> Any:
    """1 where a condition holds, else 0, in the dtype of an array."""
    return xp.asarray(condition, dtype=like.dtype)


@kernel
def leaky_relu(xp: Any, x: Any, slope: float) -> Any:
    """x where it is positive, else ``slope * x``."""
    a = wide(xp, x)
    if 0 <= slope <= 1:
        return narrow(xp, xp.maximum(a, a * slope), x.dtype)
    return narrow(xp, positive_part(xp, a) + negative_part(xp, a) * slope, x.dtype)


@kernel
def leaky_relu_backward(xp: Any, g: Any, x: Any, slope: float) -> Any:
    """The gradient at the input of `leaky_relu`."""
    return narrow(xp, wide(xp, g) * (mask(xp, x > 0, wide(xp, x)) * (1 - slope) + slope), x.dtype)


@kernel
def elu(xp: Any, x: Any, alpha: float, scale: float, rate: float) -> Any:
    """``scale * x`` where x is positive, else ``scale * alpha * (exp(rate * x) - 1)``."""
    a = wide(xp, x)
    return narrow(xp, positive_part(xp, a) * scale + xp.expm1(negative_part(xp, a) * rate) * (alpha * scale), x.dtype)


@kernel
def elu_backward(xp: Any, g: Any, x: Any, alpha: float, scale: float, rate: float) -> Any:
    """The gradient at the input of `elu`."""
    a = wide(xp, x)
    at_zero = alpha * scale * rate
    slope = xp.exp(negative_part(xp, a) * rate) * at_zero
    if at_zero != scale:
        slope = slope + mask(xp, a > 0, a) * (scale - at_zero)
    return narrow(xp, wide(xp, g) * slope, x.dtype)


@kernel
def silu_backward(xp: Any, g: Any, x: Any) -> Any:
    """The gradient at the input of `silu`."""
    a = wide(xp, x)
    s = xp.sigmoid(a)
    return narrow(xp, wide(xp, g) * (s * (a * (1 - s) + 1)), x.dtype)


@kernel
def softplus_backward(xp: Any, g: Any, x: Any, beta: float, threshold: float) -> Any:
    """The gradient at the input of `softplus`: the sigmoid, and 1 where ``beta * x > threshold``."""
    a = wide(xp, x) * beta
    s = xp.sigmoid(a)
    return narrow(xp, wide(xp, g) * (s + mask(xp, a > threshold, a) * (1 - s)), x.dtype)


def softplus_whole(xp: Any, a: Any) -> Any:
    """``log(1 + exp(a))`` for any number, without overflow."""
    return positive_part(xp, a) + xp.log1p(xp.exp(-xp.abs(a)))


@kernel
def logsigmoid(xp: Any, x: Any) -> Any:
    """``log(sigmoid(x))`` without overflow."""
    return narrow(xp, -softplus_whole(xp, -wide(xp, x)), x.dtype)


@kernel
def mish(xp: Any, x: Any) -> Any:
    """``x * tanh(softplus(x))``."""
    a = wide(xp, x)
    return narrow(xp, a * xp.tanh(softplus_whole(xp, a)), x.dtype)


@kernel
def mish_backward(xp: Any, g: Any, x: Any) -> Any:
    """The gradient at the input of `mish`."""
    a = wide(xp, x)
    t = xp.tanh(softplus_whole(xp, a))
    return narrow(xp, wide(xp, g) * (t + a * (1 - t * t) * xp.sigmoid(a)), x.dtype)


@kernel
def hardsigmoid(xp: Any, x: Any) -> Any:
    """``min(max(x + 3, 0), 6) / 6``."""
    return narrow(xp, xp.clip(wide(xp, x) + 3, 0, 6) / 6, x.dtype)


@kernel
def hardsigmoid_backward(xp: Any, g: Any, x: Any) -> Any:
    """The gradient at the input of `hardsigmoid`."""
    a = wide(xp, x)
    return narrow(xp, wide(xp, g) * (mask(xp, xp.abs(a) < 3, a) * (1 / 6)), x.dtype)


@kernel
def hardswish(xp: Any, x: Any) -> Any:
    """``x * hardsigmoid(x)``."""
    a = wide(xp, x)
    return narrow(xp, a * (xp.clip(a + 3, 0, 6) / 6), x.dtype)


@kernel
def hardswish_backward(xp: Any, g: Any, x: Any) -> Any:
    """The gradient at the input of `hardswish`."""
    a = wide(xp, x)
    middle = mask(xp, xp.abs(a) < 3, a)
    return narrow(xp, wide(xp, g) * (middle * (xp.clip(a, -3, 3) / 3 + 0.5) + mask(xp, a >= 3, a)), x.dtype)


@kernel
def smooth_l1(xp: Any, x: Any, beta: float) -> Any:
    """``x**2 / (2 * beta)`` where ``abs(x) < beta``, else ``abs(x) - beta / 2``."""
    size = xp.abs(wide(xp, x))
    inner = xp.minimum(size, xp.full_like(size, beta))
    return narrow(xp, inner * (size - inner * 0.5) / beta, x.dtype)


@kernel
def smooth_l1_backward(xp: Any, g: Any, x: Any, beta: float) -> Any:
    """The gradient at the input of `smooth_l1`."""
    return narrow(xp, wide(xp, g) * xp.clip(wide(xp, x) / beta, -1, 1), x.dtype)


@kernel
def bce_with_logits(xp: Any, x: Any, target: Any) -> Any:
    """``softplus(x) - x * target``: the binary cross entropy of sigmoid(x)."""
    a = wide(xp, x)
    return narrow(xp, softplus_whole(xp, a) - a * wide(xp, target), x.dtype)


@kernel
def bce_with_logits_backward(xp: Any, g: Any, x: Any, target: Any) -> Any:
    """The gradient at the logits of `bce_with_logits`."""
    return narrow(xp, wide(xp, g) * (xp.sigmoid(wide(xp, x)) - wide(xp, target)), x.dtype)
