"""What the graphs of the stand-in for cuDNN compute, with NumPy: convolution and its gradients, attention and its gradients."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

__all__ = ["dgrad", "fprop", "sdpa", "sdpa_backward", "wgrad"]


def _taps(a: Any, kernel: Any, out: Any, stride: Any, dilation: Any) -> Any:
    """(offset, view of what all windows see there) of a padded image."""
    for offset in itertools.product(*map(range, kernel)):
        where = tuple(slice(o * d, o * d + (n - 1) * s + 1, s) for o, d, n, s in zip(offset, dilation, out, stride))
        yield offset, a[(slice(None), slice(None), *where)]


def _padded(a: Any, padding: Any) -> Any:
    return np.pad(a, ((0, 0), (0, 0), *((p, p) for p in padding)))


def _grouped(a: Any, groups: int, axis: int) -> Any:
    return a.reshape(*a.shape[:axis], groups, a.shape[axis] // groups, *a.shape[axis + 1 :])


def fprop(image: Any, weight: Any, padding: Any, stride: Any, dilation: Any, shape: Any) -> tuple[Any, ...]:
    groups = image.shape[1] // weight.shape[1]
    out = np.zeros((shape[0], groups, shape[1] // groups, *shape[2:]), image.dtype)
    for offset, seen in _taps(_padded(image, padding), weight.shape[2:], shape[2:], stride, dilation):
        out += np.einsum("ngc...,goc->ngo...", _grouped(seen, groups, 1), _grouped(weight[(..., *offset)], groups, 0))
    return (out.reshape(shape),)


def dgrad(loss: Any, filter: Any, padding: Any, stride: Any, dilation: Any, shape: Any) -> tuple[Any, ...]:
    groups = shape[1] // filter.shape[1]
    padded = _padded(np.zeros(shape, loss.dtype), padding)
    for offset, seen in _taps(padded, filter.shape[2:], loss.shape[2:], stride, dilation):
        part = np.einsum("ngo...,goc->ngc...", _grouped(loss, groups, 1), _grouped(filter[(..., *offset)], groups, 0))
        seen += part.reshape(seen.shape)
    return (padded[(slice(None), slice(None), *(slice(p, p + n) for p, n in zip(padding, shape[2:])))],)


def wgrad(image: Any, loss: Any, padding: Any, stride: Any, dilation: Any, shape: Any) -> tuple[Any, ...]:
    groups = image.shape[1] // shape[1]
    out = np.zeros(shape, image.dtype)
    flat = _grouped(loss, groups, 1).reshape(loss.shape[0], groups, loss.shape[1] // groups, -1)
    for offset, seen in _taps(_padded(image, padding), shape[2:], loss.shape[2:], stride, dilation):
        here = _grouped(seen, groups, 1).reshape(*seen.shape[:1], groups, shape[1], -1)
        out[(..., *offset)] = np.einsum("ngop,ngcp->goc", flat, here).reshape(shape[:2])
    return (out,)


def _scores(q: Any, k: Any, bias: Any, scale: float, causal: bool) -> Any:
    scores = np.einsum("bhld,bhsd->bhls", q, _repeated(k, q)) * np.float32(scale)
    if bias is not None:
        scores = scores + bias
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    return scores


def _repeated(a: Any, q: Any) -> Any:
    return np.repeat(a, q.shape[1] // a.shape[1], axis=1)


def sdpa(q: Any, k: Any, v: Any, scale: float, causal: bool, shape: Any, bias: Any = None) -> tuple[Any, ...]:
    scores = _scores(q, k, bias, scale, causal)
    largest = scores.max(-1, keepdims=True)
    total = np.exp(scores - largest).sum(-1, keepdims=True)
    lse = np.log(total) + largest
    return np.einsum("bhls,bhsd->bhld", np.exp(scores - lse), _repeated(v, q)), lse


def sdpa_backward(
    q: Any, k: Any, v: Any, o: Any, dO: Any, stats: Any, scale: float, causal: bool, shape: Any, bias: Any = None
) -> tuple[Any, ...]:
    weights = np.exp(_scores(q, k, bias, scale, causal) - stats)
    above = np.einsum("bhld,bhsd->bhls", dO, _repeated(v, q)) - (dO * o).sum(-1, keepdims=True)
    d = weights * above * np.float32(scale)
    own = (k.shape[0], k.shape[1], q.shape[1] // k.shape[1])
    gk = np.einsum("bhls,bhld->bhsd", d, q).reshape(*own, *k.shape[2:]).sum(2)
    gv = np.einsum("bhls,bhld->bhsd", weights, dO).reshape(*own, *v.shape[2:]).sum(2)
    return np.einsum("bhls,bhsd->bhld", d, _repeated(k, q)), gk, gv
