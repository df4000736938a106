"""Softmax and its logarithm, log-sum-exp, and cross entropy with class indices, each with its gradient."""

from __future__ import annotations

from typing import Any

from . import kernel
from .precision import is_complex, narrow, wide

__all__ = [
    "class_losses",
    "class_losses_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "log_softmax",
    "log_softmax_backward",
    "logsumexp",
    "softmax",
    "softmax_backward",
]


@kernel
def softmax(xp: Any, x: Any, axis: int) -> Any:
    """``exp(x) / sum(exp(x))`` along an axis; nan where all of it is -inf, as in PyTorch."""
    dtype, x = x.dtype, wide(xp, x)
    if 0 in x.shape:
        return narrow(xp, xp.exp(x), dtype)
    e = xp.exp(x - xp.max(x, axis=axis, keepdims=True))
    return narrow(xp, e / xp.sum(e, axis=axis, keepdims=True), dtype)


@kernel
def softmax_backward(xp: Any, g: Any, out: Any, axis: int) -> Any:
    """The gradient at the input of `softmax`, whose result is `out`."""
    dtype, g, out = out.dtype, wide(xp, g), wide(xp, out)
    return narrow(xp, out * (g - xp.sum(g * out, axis=axis, keepdims=True)), dtype)


@kernel
def log_softmax(xp: Any, x: Any, axis: int) -> Any:
    """``x - log(sum(exp(x)))`` along an axis."""
    dtype, x = x.dtype, wide(xp, x)
    if 0 in x.shape:
        return narrow(xp, xp.exp(x), dtype)
    x = x - xp.max(x, axis=axis, keepdims=True)
    return narrow(xp, x - xp.log(xp.sum(xp.exp(x), axis=axis, keepdims=True)), dtype)


@kernel
def log_softmax_backward(xp: Any, g: Any, out: Any, axis: int) -> Any:
    """The gradient at the input of `log_softmax`, whose result is `out`."""
    dtype, g, out = out.dtype, wide(xp, g), wide(xp, out)
    return narrow(xp, g - xp.exp(out) * xp.sum(g, axis=axis, keepdims=True), dtype)


@kernel
def logsumexp(xp: Any, x: Any, axis: int | tuple[int, ...], keepdims: bool) -> Any:
    """``log(sum(exp(x)))`` along one or more axes; -inf where there is nothing but -inf, or nothing at all."""
    dtype, x = x.dtype, wide(xp, x)
    if 0 in x.shape:
        return narrow(xp, xp.log(xp.sum(xp.exp(x), axis=axis, keepdims=keepdims)), dtype)
    # of complex numbers the greatest real part, for their exponential is as large as that
    largest = xp.max(x.real if is_complex(x) else x, axis=axis, keepdims=True)
    # An infinite maximum would turn into inf - inf.
    largest = xp.where(xp.isinf(largest), 0.0, largest)
    result = xp.log(xp.sum(xp.exp(x - largest), axis=axis, keepdims=True)) + largest
    if not keepdims:
        result = xp.squeeze(result, axis=axis)
    return narrow(xp, result, dtype)


@kernel
def cross_entropy(
    xp: Any, logits: Any, target: Any, weight: Any, ignore_index: int, label_smoothing: float
) -> tuple[Any, Any]:
    """The loss of each sample, as https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html.

    With p = softmax(logits), t the target, w the class weights and s the label smoothing, a sample's loss is
    ``-(1 - s) * w[t] * log(p[t]) - s / C * sum(w * log(p))``, and 0 where its target is `ignore_index`.

    Parameters
    ----------
    logits : array (N, C)
    target : integer array (N,)
        Class indices from 0 to C - 1, or `ignore_index`.
    weight : array (C,) or None
    ignore_index : int
    label_smoothing : float

    Returns
    -------
    losses : array (N,)
        Not reduced, and not divided by the weights.
    log_probabilities : array (N, C)
    """
    log_p = log_softmax(xp, wide(xp, logits), 1)
    ignored = target == ignore_index
    at = xp.where(ignored, 0, target)
    losses = -xp.take_along_axis(log_p, at[:, None], axis=1)[:, 0]
    if weight is not None:
        weight = wide(xp, weight)
        losses = losses * weight[at]
    if label_smoothing:
        smooth = -xp.sum(log_p if weight is None else log_p * weight, axis=1)
        losses = (1 - label_smoothing) * losses + label_smoothing / logits.shape[1] * smooth
    losses = xp.where(ignored, 0.0, losses)
    return narrow(xp, losses, logits.dtype), narrow(xp, log_p, logits.dtype)


@kernel
def cross_entropy_backward(
    xp: Any, g: Any, log_probabilities: Any, target: Any, weight: Any, ignore_index: int, label_smoothing: float
) -> Any:
    """The gradient (N, C) at the logits of `cross_entropy`, where `g` (N,) is the gradient at its losses."""
    dtype, g, p = log_probabilities.dtype, wide(xp, g)[:, None], xp.exp(wide(xp, log_probabilities))
    classes = p.shape[1]
    ignored = (target == ignore_index)[:, None]
    at = xp.where(target == ignore_index, 0, target)
    chosen = xp.asarray(at[:, None] == xp.arange(classes), dtype=p.dtype) * (1 - label_smoothing)
    if weight is None:
        grad = p - chosen - label_smoothing / classes
    else:
        weight = wide(xp, weight)
        picked, smooth = weight[at][:, None], weight * (label_smoothing / classes)
        grad = p * (picked * (1 - label_smoothing) + xp.sum(smooth)) - chosen * picked - smooth
    return narrow(xp, xp.where(ignored, 0.0, g * grad), dtype)


@kernel
def class_losses(
    xp: Any, logits: Any, target: Any, weight: Any, ignore_index: int, label_smoothing: float
) -> tuple[Any, Any]:
    """The losses of `cross_entropy`, and what `class_losses_backward` of the same world needs besides the logits: here the
    logarithms of all probabilities; a world that has them again for little keeps less.
    """
    return xp.cross_entropy(logits, target, weight, ignore_index, label_smoothing)


@kernel
def class_losses_backward(
    xp: Any, g: Any, logits: Any, kept: Any, target: Any, weight: Any, ignore_index: int, label_smoothing: float
) -> Any:
    """The gradient (N, C) at the logits of `class_losses`, where `g` (N,) is the gradient at its losses."""
    return xp.cross_entropy_backward(g, kept, target, weight, ignore_index, label_smoothing)
