"""Factorizations into triangular matrices: Cholesky and LU."""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor, wrap
from ...backend import namespace
from ..creation import eye
from ..public import with_out
from ..shape import tril, triu
from .arguments import check_matrix, check_square, check_tensor, raise_for
from .matrices import adjoint, adjoint_of, diagonal, diagonal_matrix, mul_adjoint
from .results import CholeskyExResult, LUExResult, LUFactorResult, LUResult

__all__ = ["cholesky", "cholesky_ex", "lu", "lu_factor", "lu_factor_ex", "lu_unpack"]


# --- Cholesky ------------------------------------------------------------------------------------------------------


def _cholesky_rule(g: Any, out: Any, xp: Any) -> tuple:
    """gA = L^-H (P + P^H) L^-1 / 2, where P is the lower triangle of L^H gL with half its diagonal."""
    lower = out[0]
    p = xp.tril(mul_adjoint(xp, lower, g[0]))
    p = p - diagonal_matrix(xp, diagonal(xp, p)) * 0.5
    p = (p + adjoint(xp, p)) * 0.5
    turned = adjoint(xp, lower)
    half = adjoint(xp, xp.solve_triangular(turned, p, True, False))
    return (adjoint(xp, xp.solve_triangular(turned, half, True, False)),)


_cholesky = Operation("linalg_cholesky_ex", lambda xp, x: xp.cholesky(x), results=2, gradients=_cholesky_rule)

NOT_POSITIVE = (
    "The factorization could not be completed because the input is not positive-definite (the leading minor of order {info} "
    "is not positive-definite)."
)


def _cholesky_of(name: str, A: Tensor, upper: bool, check: bool) -> tuple[Tensor, Tensor]:
    check_square(name, A)
    lower, info = apply(_cholesky, adjoint_of(A) if upper else A)
    if check:
        raise_for(name, info, NOT_POSITIVE)
    return (adjoint_of(lower) if upper else lower), info


@with_out
def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """The triangular L with A = L L^H of a positive-definite matrix, or U with A = U^H U; as ``torch.linalg.cholesky``.

    Parameters
    ----------
    A : Tensor
        (..., n, n), Hermitian; one triangle is read.
    upper : bool
        Whether to return U, of the upper triangle.

    Raises
    ------
    LinAlgError
        If a matrix is not positive-definite; the message says which of the batch.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.linalg.cholesky(disttorch.tensor([[4.0, 0.0], [0.0, 9.0]]))
    tensor([[2., 0.],
            [0., 3.]])
    """
    return _cholesky_of("linalg.cholesky", A, upper, True)[0]


@with_out
def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> CholeskyExResult:
    """`cholesky` that returns instead of raising which leading minor is not positive; as ``torch.linalg.cholesky_ex``."""
    return CholeskyExResult(*_cholesky_of("linalg.cholesky_ex", A, upper, check_errors))


# --- LU ------------------------------------------------------------------------------------------------------------


def _lu_rule(g: Any, out: Any, xp: Any) -> tuple:
    """With P^T A = L U, M = tril(L^H gL, -1) + triu(gU U^H): gA = P L^-H M U^-H. What a rectangular matrix has below or beside
    its square part goes its own way and is taken off M.
    """
    lu, pivots, _ = out
    packed = g[0]
    m, n = lu.shape[-2:]
    k = min(m, n)
    square = lu[..., :k, :k]
    if m >= n:
        strict = xp.tril(square, -1)
        upper = xp.triu(square)
        g_below, below = packed[..., k:, :], lu[..., k:, :]
        inner = xp.tril(_with_unit_adjoint(xp, strict, xp.tril(packed[..., :k, :], -1)), -1)
        inner = inner + xp.triu(
            xp.matmul(xp.triu(packed[..., :k, :]), adjoint(xp, upper)) - mul_adjoint(xp, below, g_below)
        )
        turned = adjoint(xp, strict)
        inner = xp.solve_triangular(turned, inner, True, True)
        whole = inner if m == n else xp.concatenate((inner, g_below), axis=-2)
        # X U^-H: the adjoint of U^-1 X^H
        result = adjoint(xp, xp.solve_triangular(upper, adjoint(xp, whole), True, False))
    else:
        strict = xp.tril(square, -1)
        upper = xp.triu(square)
        g_beside, beside = packed[..., :, k:], lu[..., :, k:]
        inner = xp.tril(
            _with_unit_adjoint(xp, strict, xp.tril(packed[..., :, :k], -1)) - xp.matmul(g_beside, adjoint(xp, beside)),
            -1,
        )
        inner = inner + xp.triu(xp.matmul(xp.triu(packed[..., :, :k]), adjoint(xp, upper)))
        inner = adjoint(xp, xp.solve_triangular(upper, adjoint(xp, inner), True, False))
        result = xp.solve_triangular(adjoint(xp, strict), xp.concatenate((inner, g_beside), axis=-1), True, True)
    return (_rows_back(xp, result, pivots),)


def _with_unit_adjoint(xp: Any, strict: Any, a: Any) -> Any:
    """L^H A for L with ones on the diagonal, of what is below."""
    return a + mul_adjoint(xp, strict, a)


def _rows_back(xp: Any, a: Any, pivots: Any) -> Any:
    """P A, for the exchanges that gave P^T A."""
    order = xp.permutation(pivots, a.shape[-2], True)
    return xp.take_along_axis(a, xp.expand_dims(order, -1), axis=-2)


_lu_factor = Operation("linalg_lu_factor_ex", lambda xp, x: xp.lu_factor(x), results=3, gradients=_lu_rule)


def _lu_of(name: str, A: Tensor, pivot: bool) -> LUExResult:
    check_matrix(name, A)
    if not pivot:
        if not A.is_cuda:
            raise RuntimeError(f"{name}: LU without pivoting is not implemented on the CPU")
        raise RuntimeError(f"{name}: LU without pivoting is not implemented")
    return LUExResult(*apply(_lu_factor, A))


@with_out
def lu_factor(A: Tensor, *, pivot: bool = True) -> LUFactorResult:
    """The LU factorization with partial pivoting, L and U in one matrix; as ``torch.linalg.lu_factor``.

    Parameters
    ----------
    A : Tensor
        (..., m, n)
    pivot : bool
        Only True: pivoting is what makes it stable.

    Returns
    -------
    named tuple (LU, pivots)
        (..., m, n); int32 (..., min(m, n)): row i was exchanged with row pivots[i] - 1.
    """
    return LUFactorResult(*_lu_of("linalg.lu_factor", A, pivot)[:2])


@with_out
def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> LUExResult:
    """`lu_factor` that also says which diagonal element of U is zero; as ``torch.linalg.lu_factor_ex``."""
    result = _lu_of("linalg.lu_factor_ex", A, pivot)
    if check_errors:
        raise_for(
            "linalg.lu_factor_ex",
            result.info,
            "U[{info},{info}] is zero and using it on lu_solve would result in a division by zero.",
        )
    return result


@with_out
def lu_unpack(LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True) -> LUResult:
    """P, L and U of what `lu_factor` returned; as ``torch.lu_unpack``. What is not asked for is empty."""
    check_tensor("lu_unpack", LU_data, LU_pivots)
    if unpack_pivots and LU_pivots.dtype.name != "int32":
        raise RuntimeError(
            "torch.lu_unpack: LU_pivots is expected to be a contiguous tensor of torch.int32 dtype. Note: this function is "
            f"intended to be used with the output produced by linalg.lu_factor; got {LU_pivots.dtype}"
        )
    m, n = LU_data.shape[-2:]
    k = min(m, n)
    nothing = LU_data.new_empty(0)
    p, lower, upper = nothing, nothing, nothing
    if unpack_pivots:
        p = _permutation_matrix(LU_data, LU_pivots, m)
    if unpack_data:
        lower = tril(LU_data[..., :, :k], -1) + eye(m, k, dtype=LU_data.dtype, device=LU_data.device)
        upper = triu(LU_data[..., :k, :])
    return LUResult(p, lower, upper)


def _permutation_matrix(data: Tensor, pivots: Tensor, m: int) -> Tensor:
    xp = namespace(pivots._array)
    order = xp.permutation(pivots._array, m, True)
    return wrap(xp.asarray(order[..., None] == xp.arange(m), dtype=data._array.dtype))


@with_out
def lu(A: Tensor, *, pivot: bool = True) -> LUResult:
    """A = P L U with partial pivoting; as ``torch.linalg.lu``.

    Parameters
    ----------
    A : Tensor
        (..., m, n); k = min(m, n).
    pivot : bool
        Only True.

    Returns
    -------
    named tuple (P, L, U)
        A permutation (..., m, m), lower (..., m, k) with ones on the diagonal, upper (..., k, n).
    """
    packed, pivots, _ = _lu_of("linalg.lu", A, pivot)
    return lu_unpack(packed, pivots)
