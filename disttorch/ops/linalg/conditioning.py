"""How near a matrix is to a singular one: condition numbers and numerical ranks."""

from __future__ import annotations

from math import inf
from typing import Any

from ...autograd.variable import Tensor, wrap
from ...backend import NAMESPACES
from ...backend import dtypes as dt
from ..public import with_out
from .arguments import check_matrix, check_square
from .least_squares import tolerances
from .norms import matrix_norm
from .solves import inv_ex
from .spectral import eigvalsh, svdvals

__all__ = ["cond", "matrix_rank"]


@with_out
def cond(A: Tensor, p: Any = None) -> Tensor:
    """The condition number norm(A) norm(A^-1); as ``torch.linalg.cond``.

    Parameters
    ----------
    A : Tensor
        (..., n, n), or for p of None, 2 and -2 (..., m, n).
    p : {None, 2, -2, "fro", "nuc", 1, -1, inf, -inf}
        The norm; None is 2.

    Returns
    -------
    Tensor
        Real; infinity for a singular matrix.
    """
    name = "linalg.cond"
    if isinstance(p, str) and p not in ("fro", "nuc"):
        raise RuntimeError(f"{name} got an invalid norm type: {p}")
    if p in (None, 2, -2):
        check_matrix(name, A)
        if not A._array.size:
            return A.new_zeros(A.shape[:-2]).real
        values = svdvals(A)
        return values[..., -1] / values[..., 0] if p == -2 else values[..., 0] / values[..., -1]
    if not isinstance(p, str) and (isinstance(p, bool) or not isinstance(p, (int, float)) or abs(p) not in (1, inf)):
        raise RuntimeError(f"{name} got an invalid norm type: {p}")
    check_square(name, A)
    if not A._array.size:
        return A.new_zeros(A.shape[:-2]).real
    if p == "nuc":
        values = svdvals(A)
        return values.sum(-1) * values.reciprocal().sum(-1)
    inverse, info = inv_ex(A)
    inverse = inverse.masked_fill((info != 0).unsqueeze(-1).unsqueeze(-1), inf) if bool((info != 0).any()) else inverse
    return matrix_norm(A, p) * matrix_norm(inverse, p)


@with_out
def matrix_rank(A: Tensor, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Tensor:
    """How many singular values, int64 (...), are greater than the tolerance; as ``torch.linalg.matrix_rank``.

    Parameters
    ----------
    A : Tensor
        (..., m, n)
    tol, atol : float or Tensor, optional
        Absolute tolerance.
    hermitian : bool
        Whether A is Hermitian: then its eigenvalues' absolute values are taken.
    rtol : float or Tensor, optional
        Relative tolerance; max(m, n) times the dtype's eps where no absolute one is given.
    """
    name = "linalg.matrix_rank"
    check_matrix(name, A)
    if hermitian:
        check_square(name, A)
    if tol is not None and atol is None:
        atol, rtol = tol, 0.0 if rtol is None else rtol
    absolute, relative = tolerances(name, A, atol, rtol)
    A = A.detach()
    if not A._array.size:
        return A.new_zeros(A.shape[:-2], dtype=dt.int64)
    values = eigvalsh(A).abs() if hermitian else svdvals(A)
    greatest = values.amax(-1)
    xp = NAMESPACES[values._array.__class__]
    bound = xp.maximum(
        xp.asarray(absolute, dtype=values._array.dtype),
        xp.asarray(relative, dtype=values._array.dtype) * greatest._array,
    )
    return (values > wrap(xp.asarray(bound)[..., None])).sum(-1)
