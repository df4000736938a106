"""Norms, similarities and distances of vectors, as compositions."""

from __future__ import annotations

from ...autograd.variable import Tensor
from .. import pointwise, reduction
from ..indexing import clamp

__all__ = ["cosine_similarity", "normalize", "pairwise_distance"]


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
    result = input / clamp(reduction.norm(input, p, dim, True), min=eps)
    return result if out is None else out.copy_(result)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along a dimension; as ``torch.nn.functional.cosine_similarity``.

    Parameters
    ----------
    x1, x2 : Tensor
        Of shapes that broadcast.
    dim : int
    eps : float
        The least length that each vector is taken to have.
    """
    lengths = (clamp(reduction.norm(x, 2.0, dim, True), min=eps) for x in (x1, x2))
    unit1, unit2 = (x / n for x, n in zip((x1, x2), lengths))
    return reduction.sum(unit1 * unit2, dim)


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
    return reduction.norm(pointwise.sub(x1, x2) + eps, p, -1, keepdim)
