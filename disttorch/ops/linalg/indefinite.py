"""L D L^T of symmetric or Hermitian matrices that are not positive definite, and solutions with it."""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from ..public import with_out
from .arguments import broadcast_matrices, check_matrix, check_same_dtype, check_square, raise_for
from .results import LDLExResult, LDLResult

__all__ = ["ldl_factor", "ldl_factor_ex", "ldl_solve"]

_ldl_factor = Operation("linalg_ldl_factor_ex", lambda xp, a, *, hermitian: xp.ldl_factor(a, hermitian), results=3)
_ldl_solve = Operation("linalg_ldl_solve", lambda xp, a, pivots, b, *, hermitian: xp.ldl_solve(a, pivots, b, hermitian))
ZERO = "D[{info},{info}] is zero and using ldl_solve would result in a division by zero."


def _factor(name: str, A: Tensor, hermitian: bool, check: bool) -> LDLExResult:
    check_square(name, A)
    result = LDLExResult(*apply(_ldl_factor, A, hermitian=hermitian and A.dtype.is_complex))
    if check:
        raise_for(name, result.info, ZERO)
    return result


@with_out
def ldl_factor_ex(A: Tensor, *, hermitian: bool = False, check_errors: bool = False) -> LDLExResult:
    """`ldl_factor` that also says which block of D is zero; as ``torch.linalg.ldl_factor_ex``."""
    return _factor("linalg.ldl_factor_ex", A, hermitian, check_errors)


@with_out
def ldl_factor(A: Tensor, *, hermitian: bool = False) -> LDLResult:
    """A = L D L^T, or L D L^H, with blocks of one and two rows in D; as ``torch.linalg.ldl_factor``.

    Parameters
    ----------
    A : Tensor
        (..., n, n), of which the lower triangle is read.
    hermitian : bool
        Whether a complex A is Hermitian rather than symmetric.

    Returns
    -------
    named tuple (LD, pivots)
        In LAPACK's form, for `ldl_solve`.
    """
    return LDLResult(*_factor("linalg.ldl_factor", A, hermitian, True)[:2])


@with_out
def ldl_solve(LD: Tensor, pivots: Tensor, B: Tensor, *, hermitian: bool = False) -> Tensor:
    """X with A X = B, given what `ldl_factor` made of A; as ``torch.linalg.ldl_solve``.

    Parameters
    ----------
    LD, pivots : Tensor
        (..., n, n) and (..., n)
    B : Tensor
        (..., n, k); leading dimensions broadcast.
    hermitian : bool
        As given to `ldl_factor`.
    """
    name = "linalg.ldl_solve"
    check_square(name, LD)
    check_matrix(name, B)
    if B.ndim < 2:
        raise RuntimeError(f"{name}: Expected B to have at least 2 dimensions, but it has {B.ndim} dimensions instead")
    if pivots.dtype.category != 1:
        raise RuntimeError(f"{name}: Expected pivots to be integers. Got {pivots.dtype}")
    if pivots.shape != LD.shape[:-1]:
        raise RuntimeError(
            f"{name}: Expected LD.shape[:-1] and pivots.shape to be the same, "
            f"but got pivots with shape {list(pivots.shape)} and LD with shape {list(LD.shape)}"
        )
    check_same_dtype(name, LD, B)
    if LD.shape[-1] != B.shape[-2]:
        raise RuntimeError(f"{name}: Incompatible shapes of LD and B: {list(LD.shape)} and {list(B.shape)}")
    wide_ld, wide_b = broadcast_matrices(name, LD, B)
    wide_pivots: Any = pivots if wide_ld is LD else pivots.expand(wide_ld.shape[:-1])
    return apply(_ldl_solve, wide_ld, wide_pivots, wide_b, hermitian=hermitian and LD.dtype.is_complex)
