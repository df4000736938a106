"""Triangular systems, and systems whose matrix has been factorized into triangular ones."""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor, wrap
from ...backend import namespace
from ..public import with_out
from .arguments import broadcast_matrices, check_fit, check_matrix, check_same_dtype, check_square
from .matrices import adjoint_of
from .results import TriangularSolveResult

__all__ = ["cholesky_inverse", "cholesky_solve", "lu_solve", "solve_triangular", "triangular_solve"]


def _triangular_a(g: Any, a: Any, out: Any, upper: bool, unitriangular: bool, xp: Any) -> Any:
    g_b = xp.solve_triangular(xp.swapaxes(a, -1, -2), g, not upper, unitriangular)
    g_a = -xp.matmul(g_b, xp.swapaxes(out, -1, -2))
    offset = 1 if unitriangular else 0
    return xp.triu(g_a, offset) if upper else xp.tril(g_a, -offset)


_solve_triangular = Operation(
    "linalg_solve_triangular",
    lambda xp, a, b, *, upper, unitriangular: xp.solve_triangular(a, b, upper, unitriangular),
    a=_triangular_a,
    b=lambda g, a, upper, unitriangular, xp: xp.solve_triangular(xp.swapaxes(a, -1, -2), g, not upper, unitriangular),
)


@with_out
def solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    """X with A X = B, or X A = B, for a triangular A; as ``torch.linalg.solve_triangular``.

    Parameters
    ----------
    A : Tensor
        (..., n, n). The other triangle is not looked at, and a zero on the diagonal gives infinities.
    B : Tensor
        (..., n, k), or (..., k, n) without `left`; leading dimensions broadcast.
    upper : bool
        Which triangle.
    left : bool
        Whether A stands to the left of X.
    unitriangular : bool
        Whether the diagonal counts as ones.

    Raises
    ------
    RuntimeError
        If the shapes do not fit, or the dtypes differ.
    """
    name = "linalg.solve_triangular"
    check_square(name, A)
    check_matrix(name, B)
    check_same_dtype(name, A, B)
    check_fit(name, A, B, left)
    A, B = broadcast_matrices(name, A, B)
    if left:
        return apply(_solve_triangular, A, B, upper=upper, unitriangular=unitriangular)
    turned = apply(
        _solve_triangular, A.transpose(-2, -1), B.transpose(-2, -1), upper=not upper, unitriangular=unitriangular
    )
    return turned.transpose(-2, -1)


@with_out
def triangular_solve(
    input: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> TriangularSolveResult:
    """X with A X = input, or A^T X = input, and a copy of A; as ``torch.triangular_solve``."""
    name = "triangular_solve"
    check_square(name, A)
    check_matrix(name, input)
    check_same_dtype(name, input, A)
    check_fit(name, A, input, True)
    A, input = broadcast_matrices(name, A, input)
    matrix = A.transpose(-2, -1) if transpose else A
    solution = apply(_solve_triangular, matrix, input, upper=upper != transpose, unitriangular=unitriangular)
    return TriangularSolveResult(solution, A.clone())


@with_out
def cholesky_solve(B: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """X with A X = B, given the Cholesky factor of A; as ``torch.cholesky_solve``.

    Parameters
    ----------
    B : Tensor
        (..., n, k)
    L : Tensor
        (..., n, n), lower with A = L L^H, or `upper` with A = U^H U.
    upper : bool
    """
    name = "cholesky_solve"
    for operand, letter in ((B, "b"), (L, "u")):
        if operand.ndim < 2:
            raise RuntimeError(f"{letter} should have at least 2 dimensions, but has {operand.ndim} dimensions instead")
    check_square(name, L)
    check_matrix(name, B)
    check_same_dtype(name, B, L)
    check_fit(name, L, B, True)
    turned = adjoint_of(L)
    first, second = (turned, L) if upper else (L, turned)
    return solve_triangular(second, solve_triangular(first, B, upper=False), upper=True)


@with_out
def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """The inverse of A, given its Cholesky factor; as ``torch.cholesky_inverse``."""
    check_square("cholesky_inverse", L)
    eye = wrap(namespace(L._array).eye_of((L.shape[-1],) * 2, L._array.dtype))
    return cholesky_solve(eye.expand(L.shape), L, upper)


@with_out
def lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False) -> Tensor:
    """X with A X = B, given what `lu_factor` made of A; as ``torch.linalg.lu_solve``.

    Parameters
    ----------
    LU, pivots : Tensor
        (..., n, n) and int32 (..., n)
    B : Tensor
        (..., n, k), or (..., k, n) without `left`; leading dimensions broadcast.
    left : bool
        Whether A stands to the left of X.
    adjoint : bool
        Whether A^H stands in A's place.
    """
    name = "linalg.lu_solve"
    check_square(name, LU)
    check_matrix(name, B)
    check_same_dtype(name, LU, B)
    if pivots.dtype.name != "int32":
        raise RuntimeError(f"{name}: pivots should be a Tensor of scalar type torch.int32, got {pivots.dtype}")
    check_fit(name, LU, B, left)
    if pivots.shape[-1:] != LU.shape[-1:]:
        raise RuntimeError(
            f"{name}: Number of pivots per batch should be same as the dimension of the matrix, "
            f"got {list(pivots.shape)} and {list(LU.shape)}"
        )
    if pivots.shape[:-1] != LU.shape[:-2]:
        raise RuntimeError(
            f"{name}: Expected LU.shape[:-1] to be the same as pivots.shape, got {list(LU.shape)} and {list(pivots.shape)}"
        )
    if not left:  # X A = B is A^H X^H = B^H
        return adjoint_of(lu_solve(LU, pivots, adjoint_of(B), adjoint=not adjoint))
    n = LU.shape[-1]
    order = wrap(namespace(pivots._array).permutation(pivots._array, n, adjoint)).unsqueeze(-1)
    LU, B = broadcast_matrices(name, LU, B)
    order = order.expand(*B.shape[:-1], 1)
    if not adjoint:
        B = B.take_along_dim(order, -2)
        return solve_triangular(LU, solve_triangular(LU, B, upper=False, unitriangular=True), upper=True)
    turned = adjoint_of(LU)
    X = solve_triangular(turned, solve_triangular(turned, B, upper=False), upper=True, unitriangular=True)
    return X.take_along_dim(order, -2)
