"""Norms, similarities and distances of vectors."""

from __future__ import annotations

import math
from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor, wrap
from ...backend import dtypes as dt
from ...backend import namespace
from .. import pointwise, reduction
from ..arithmetic import clamp
from ..linalg.norms import vector_norm
from ..shape import broadcast_tensors
from .arguments import check_floating

__all__ = ["cosine_similarity", "normalize", "pairwise_distance", "pdist"]

# What users find of this family, and where: see ops/public.py.
FUNCTIONS = "cosine_similarity pairwise_distance pdist"


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None) -> Tensor:
    """x / max(norm(x), eps) along a dimension; as ``torch.nn.functional.normalize``.

    Parameters
    ----------
    input : Tensor
    p : float
        Which norm.
    dim : int or tuple of int
    eps : float
        The least number to divide by.
    """
    result = input / clamp(vector_norm(input, p, dim, True), min=eps)
    return result if out is None else out.copy_(result)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along a dimension; as ``torch.nn.functional.cosine_similarity``.

    Parameters
    ----------
    x1, x2 : Tensor
        Of shapes that broadcast, and of a floating-point dtype.
    dim : int
        Of what both are broadcast to.
    eps : float
        The least length that each vector is taken to have.
    """
    x1, x2 = broadcast_tensors(x1, x2)
    if x1.dtype != x2.dtype:
        common = dt.result_of([(x1.dtype, 2), (x2.dtype, 2)])
        x1, x2 = x1.to(dtype=common), x2.to(dtype=common)
    check_floating("cosine_similarity", x1)
    half = x1.dtype if x1.dtype.itemsize < 4 else None
    if half is not None:  # squares of half types leave their range
        x1, x2 = x1.to(dtype=dt.float32), x2.to(dtype=dt.float32)
    lengths = (clamp(vector_norm(x, 2.0, dim, True), min=eps) for x in (x1, x2))
    unit1, unit2 = (x / n for x, n in zip((x1, x2), lengths))
    result = reduction.sum(unit1 * unit2, dim)
    return result if half is None else result.to(dtype=half)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """norm(x1 - x2 + eps) along the last dimension; as ``torch.nn.functional.pairwise_distance``.

    Parameters
    ----------
    x1, x2 : Tensor
        (N, features) or (features,)
    p : float
        Which norm.
    eps : float
        Added to each difference, against an infinite gradient at 0.
    keepdim : bool
    """
    return vector_norm(pointwise.sub(x1, x2) + eps, p, -1, keepdim)


def _distance(xp: Any, d: Any, *, p: float) -> Any:
    """The p-norm along the last axis of differences."""
    if p == 2:
        return xp.sqrt(xp.sum(d * d, axis=-1))
    size = xp.abs(d)
    if p == 1:
        return xp.sum(size, axis=-1)
    if p == 0:
        return xp.asarray(xp.sum(size != 0, axis=-1), dtype=d.dtype)
    if math.isinf(p):
        return xp.max(size, axis=-1) if d.shape[-1] else xp.zeros(d.shape[:-1], d.dtype)
    return xp.power(xp.sum(xp.power(size, xp.scalar(p, d.dtype)), axis=-1), xp.scalar(1 / p, d.dtype))


def _distance_rule(g: Any, d: Any, out: Any, p: float, xp: Any) -> Any:
    """sign(d) * (abs(d) / out) ** (p - 1); 0 where d or the distance is 0, and whole for every difference that is the largest."""
    g, out = g[..., None], out[..., None]
    if p == 0:
        return xp.zeros_like(d) * g
    if p == 1:
        return g * xp.sign(d)
    if math.isinf(p):
        return g * xp.where(xp.abs(d) == out, xp.sign(d), xp.zeros_like(d))
    none = xp.logical_or(out == 0, d == 0)
    ratio = d / xp.where(out == 0, xp.ones_like(out), out)
    if p == 2:
        return g * ratio
    safe = xp.where(none, xp.ones_like(d), xp.abs(ratio))
    return g * xp.where(none, xp.zeros_like(d), xp.sign(d) * safe ** (p - 1))


_distances = Operation("pdist", _distance, d=_distance_rule)


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm distances between all pairs of rows; as ``torch.nn.functional.pdist``.

    Parameters
    ----------
    input : Tensor
        (N, M), floating point.
    p : float
        From 0 (how many elements differ) to infinity (the largest difference).

    Returns
    -------
    Tensor
        (N * (N - 1) / 2,): rows 0 and 1, 0 and 2, ..., 1 and 2, ...

    Raises
    ------
    RuntimeError
        If the input is no matrix or p is negative.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.nn.functional.pdist(disttorch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]))
    tensor([5.0000, 1.0000, 4.2426])
    """
    if input.ndim != 2:
        raise RuntimeError(f"pdist only supports 2D tensors, got: {input.ndim}D")
    check_floating("pdist", input)
    if p < 0:
        raise RuntimeError(f"pdist only supports non-negative p values, got {p}")
    xp = namespace(input._array)
    rows = xp.arange(input.shape[0])
    first, second = xp.nonzero(rows[:, None] < rows)
    return apply(_distances, input[wrap(first)] - input[wrap(second)], p=float(p))
