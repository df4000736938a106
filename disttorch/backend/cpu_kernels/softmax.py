"""Softmax and cross entropy in place on one buffer, a block of rows at a time.

Only along the last axis, where numbers of one row lie together; along other axes and for half types the plain kernels
run. Of a few elements the fewest calls are the fastest way.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..kernels import softmax as plain

__all__ = [
    "cross_entropy",
    "cross_entropy_backward",
    "log_softmax",
    "log_softmax_backward",
    "softmax",
    "softmax_backward",
]

#: Elements at a time: 128 KiB of float32.
BLOCK = 32768
#: Up to so many elements the interpreter is the cost.
SMALL = 2048


def softmax(x: Any, axis: int) -> Any:
    if 0 < x.size <= SMALL and x.dtype.itemsize >= 4:
        out = x - np.maximum.reduce(x, axis, keepdims=True)
        np.exp(out, out)
        return np.divide(out, np.add.reduce(out, axis, keepdims=True), out)
    if not rowwise(x, axis):
        return plain.softmax(np, x, axis)
    out = np.empty(x.shape, x.dtype)
    for rows, o in blocks(x, out):
        np.subtract(rows, row_max(rows), o)
        np.exp(o, o)
        np.divide(o, row_sum(o), o)
    return out


def softmax_backward(g: Any, out: Any, axis: int) -> Any:
    if not rowwise(out, axis) or g.dtype is not out.dtype:
        return plain.softmax_backward(np, g, out, axis)
    if out.size <= SMALL:
        grad = g - np.vecdot(g, out)[..., None]
        return np.multiply(grad, out, grad)
    grad = np.empty(out.shape, out.dtype)
    for from_above, o, result in blocks(g, out, grad):
        np.subtract(from_above, np.vecdot(from_above, o)[:, None], result)
        np.multiply(result, o, result)
    return grad


def log_softmax(x: Any, axis: int) -> Any:
    if not rowwise(x, axis):
        return plain.log_softmax(np, x, axis)
    if x.size <= SMALL:
        out = x - np.maximum.reduce(x, axis, keepdims=True)
        total = np.add.reduce(np.exp(out), axis, keepdims=True)
        return np.subtract(out, np.log(total, total), out)
    out = np.empty(x.shape, x.dtype)
    for rows, o in blocks(x, out):
        np.subtract(rows, row_max(rows), o)
        total = row_sum(np.exp(o))
        np.subtract(o, np.log(total, total), o)
    return out


def log_softmax_backward(g: Any, out: Any, axis: int) -> Any:
    if not rowwise(out, axis) or g.dtype != out.dtype:
        return plain.log_softmax_backward(np, g, out, axis)
    if out.size <= SMALL:
        grad = np.exp(out)
        np.multiply(grad, np.add.reduce(g, axis, keepdims=True), grad)
        return np.subtract(g, grad, grad)
    grad = np.empty(out.shape, out.dtype)
    for from_above, o, result in blocks(g, out, grad):
        np.exp(o, result)
        np.multiply(result, row_sum(from_above), result)
        np.subtract(from_above, result, result)
    return grad


def cross_entropy(
    logits: Any, target: Any, weight: Any, ignore_index: int, label_smoothing: float
) -> tuple[Any, Any]:
    """As the plain kernel.

    Raises
    ------
    IndexError
        If a target is neither a class index nor `ignore_index`.
    """
    all_count = check_targets(logits, target, ignore_index)
    if logits.dtype.itemsize < 4 or weight is not None or label_smoothing:
        return plain.cross_entropy(np, logits, target, weight, ignore_index, label_smoothing)
    log_p = log_softmax(logits, 1)
    if all_count:
        losses = log_p[np.arange(len(target)), target]
        return np.negative(losses, losses), log_p
    ignored = target == ignore_index
    losses = log_p[np.arange(len(target)), np.where(ignored, 0, target)] if logits.shape[1] else np.zeros_like(target)
    np.negative(losses, losses)
    losses[ignored] = 0
    return losses, log_p


def cross_entropy_backward(
    g: Any, log_probabilities: Any, target: Any, weight: Any, ignore_index: int, label_smoothing: float
) -> Any:
    if log_probabilities.dtype.itemsize < 4 or weight is not None or label_smoothing:
        return plain.cross_entropy_backward(np, g, log_probabilities, target, weight, ignore_index, label_smoothing)
    g = g.astype(log_probabilities.dtype, copy=False)
    if log_probabilities.size <= SMALL:
        grad = np.exp(log_probabilities)
        np.multiply(grad, g[:, None], grad)
        if ignore_index < 0 and target.size and np.minimum.reduce(target) >= 0:
            grad[np.arange(len(target)), target] -= g
            return grad
        ignored = target == ignore_index
        grad[np.arange(len(target)), np.where(ignored, 0, target)] -= g
        grad[ignored] = 0
        return grad
    ignored = target == ignore_index
    grad = np.empty(log_probabilities.shape, log_probabilities.dtype)
    for log_p, result, factor in blocks(log_probabilities, grad, g[:, None]):
        np.exp(log_p, result)
        np.multiply(result, factor, result)
    grad[np.arange(len(target)), np.where(ignored, 0, target)] -= g
    grad[ignored] = 0
    return grad


def check_targets(logits: Any, target: Any, ignore_index: int) -> bool:
    """Raise an IndexError if a target is neither a class index nor `ignore_index`; True if none can be the latter."""
    classes = logits.shape[1]
    inside = not target.size or bool(np.minimum.reduce(target) >= 0 and np.maximum.reduce(target) < classes)
    if inside:
        return classes > 0 and not 0 <= ignore_index < classes
    wrong = ((target < 0) | (target >= classes)) & (target != ignore_index)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise IndexError(
            f"cross_entropy: target {int(target[at])} of sample {at} is out of bounds: with logits of shape "
            f"{logits.shape} it must be from 0 to {classes - 1}, or ignore_index={ignore_index}"
        )
    return False


def row_max(rows: Any) -> Any:
    """The maximum of each row, (N, 1). NumPy's argmax takes 0.1 ns an element where its maximum, which starts anew for
    each row, takes 0.6 (rows of 128) to 4.5 (rows of 10)."""
    return rows[np.arange(len(rows)), rows.argmax(1)][:, None]


def row_sum(rows: Any) -> Any:
    """The sum of each row, (N, 1): dot products with ones, or pairwise where rows are long and rounding would add up."""
    if rows.shape[1] <= 1024:
        return np.vecdot(rows, np.ones(rows.shape[1], rows.dtype))[:, None]
    return np.add.reduce(rows, 1, keepdims=True)


def rowwise(x: Any, axis: int) -> bool:
    """Whether the fast kernels apply: rows along the last axis, of float32 or float64."""
    return x.ndim > 0 and axis in (-1, x.ndim - 1) and x.dtype.itemsize >= 4 and x.size > 0


def blocks(*arrays: Any) -> Any:
    """The arrays as matrices of rows, a block of rows of each at a time."""
    length = arrays[0].shape[-1]
    count = prod(arrays[0].shape[:-1])
    matrices = [a.reshape(count, a.shape[-1]) for a in arrays]
    step = max(1, BLOCK // length)
    if step >= count:
        yield matrices
        return
    for start in range(0, count, step):
        yield [m[start : start + step] for m in matrices]
