"""Norms of weights that several parametrizations divide by."""

from __future__ import annotations

from ...autograd.variable import Tensor
from ...ops.linalg.norms import vector_norm
from ...ops.linear import matmul
from ...ops.nn.distance import normalize

__all__ = ["norm_except_dim", "power_iteration", "singular_value", "start_vectors"]


def norm_except_dim(v: Tensor, dim: int) -> Tensor:
    """The norms along all dimensions but one, which are kept with size 1; with -1 the norm of all, without dimensions."""
    if dim == -1:
        return vector_norm(v)
    dim = dim % v.ndim
    others = tuple(d for d in range(v.ndim) if d != dim)
    return vector_norm(v, 2.0, others, True) if others else v.abs()


def start_vectors(matrix: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Random directions, one of the rows' and one of the columns' space."""
    return tuple(normalize(matrix.new_empty((n,)).normal_(), dim=0, eps=eps) for n in matrix.shape)  # type: ignore[return-value]


def power_iteration(matrix: Tensor, u: Tensor, v: Tensor, steps: int, eps: float, first: str = "u") -> tuple[Tensor, Tensor]:
    """Estimates of the singular vectors of the largest singular value, some steps on; `first` says which is renewed first."""
    for _ in range(steps):
        if first == "v":
            v = normalize(matmul(matrix.mT.conj(), u), dim=0, eps=eps)
        u = normalize(matmul(matrix, v), dim=0, eps=eps)
        if first == "u":
            v = normalize(matmul(matrix.mT.conj(), u), dim=0, eps=eps)
    return u, v


def singular_value(matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """u^H A v, which the gradient goes through A alone of."""
    return matmul(u.conj(), matmul(matrix, v))
