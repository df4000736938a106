"""Inverses and systems of equations with square matrices."""

from __future__ import annotations

from math import prod
from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from ..public import with_out
from .arguments import SINGULAR, broadcast_matrices, check_fit, check_same_dtype, check_square, raise_for
from .matrices import adjoint
from .results import InvExResult, SolveExResult

__all__ = ["inv", "inv_ex", "solve", "solve_ex", "tensorinv", "tensorsolve"]


def _inv_rule(g: Any, out: Any, xp: Any) -> tuple:
    turned = adjoint(xp, out[0])
    return (-xp.matmul(turned, xp.matmul(g[0], turned)),)


def _solve_rule(g: Any, a: Any, out: Any, needs: Any, xp: Any) -> tuple:
    g_b = xp.solve(adjoint(xp, a), g[0])[0]
    return (-xp.matmul(g_b, adjoint(xp, out[0])) if needs[0] else None, g_b)


_inv = Operation("linalg_inv_ex", lambda xp, a: xp.inv(a), results=2, gradients=_inv_rule)
_solve = Operation("linalg_solve_ex", lambda xp, a, b: xp.solve(a, b), results=2, gradients=_solve_rule)


@with_out
def inv_ex(A: Tensor, *, check_errors: bool = False) -> InvExResult:
    """`inv` that returns instead of raising where a matrix is singular; as ``torch.linalg.inv_ex``."""
    check_square("linalg.inv_ex", A)
    result = InvExResult(*apply(_inv, A))
    if check_errors:
        raise_for("linalg.inv_ex", result.info, SINGULAR.replace("{what}", "inversion"))
    return result


@with_out
def inv(A: Tensor) -> Tensor:
    """The inverse of square matrices; as ``torch.linalg.inv``.

    Parameters
    ----------
    A : Tensor
        (..., n, n)

    Raises
    ------
    LinAlgError
        If a matrix is singular; the message says which of the batch.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.linalg.inv(disttorch.tensor([[2.0, 0.0], [0.0, 4.0]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])
    """
    check_square("linalg.inv", A)
    result, info = apply(_inv, A)
    raise_for("linalg.inv", info, SINGULAR.replace("{what}", "inversion"))
    return result


def _solve_with_info(name: str, A: Tensor, B: Tensor, left: bool) -> tuple[Tensor, Tensor]:
    check_square(name, A)
    check_same_dtype(name, A, B)
    is_vector = B.ndim == 1 or (B.ndim == A.ndim - 1 and B.shape == A.shape[:-1])
    if is_vector and not left:
        raise RuntimeError(
            f"{name}: Vector broadcasting of the left hand side is not supported for left=False. "
            f"In this case linalg.solve is equivalent to B / A.squeeze(-1)"
        )
    if is_vector:
        B = B.unsqueeze(-1)
    elif B.ndim < 2:
        raise RuntimeError(f"{name}: B must have at least 1 dimension")
    check_fit(name, A, B, left)
    A, B = broadcast_matrices(name, A, B)
    if left:
        result, info = apply(_solve, A, B)
    else:
        result, info = apply(_solve, A.transpose(-2, -1), B.transpose(-2, -1))
        result = result.transpose(-2, -1)
    return (result.squeeze(-1) if is_vector else result), info


@with_out
def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> SolveExResult:
    """`solve` that returns instead of raising where a matrix is singular; as ``torch.linalg.solve_ex``."""
    result, info = _solve_with_info("linalg.solve_ex", A, B, left)
    if check_errors:
        raise_for("linalg.solve_ex", info, SINGULAR.replace("{what}", "solve"))
    return SolveExResult(result, info)


@with_out
def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """X with A X = B, or X A = B; as ``torch.linalg.solve``.

    Parameters
    ----------
    A : Tensor
        (..., n, n)
    B : Tensor
        (..., n, k), or (..., k, n) without `left`; or vectors: (n,), or the shape of A without its last dimension.
    left : bool
        Whether A stands to the left of X.

    Raises
    ------
    LinAlgError
        If a matrix is singular; the message says which of the batch.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.linalg.solve(disttorch.tensor([[2.0, 0.0], [0.0, 4.0]]), disttorch.tensor([2.0, 2.0]))
    tensor([1.0000, 0.5000])
    """
    result, info = _solve_with_info("linalg.solve", A, B, left)
    raise_for("linalg.solve", info, SINGULAR.replace("{what}", "solve"))
    return result


@with_out
def tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """The inverse of `tensordot` with A over the last dimensions, the first `ind` of A being its rows; as ``torch.linalg.tensorinv``."""
    if ind <= 0:
        raise RuntimeError(f"Expected a strictly positive integer for 'ind', got {ind}")
    rows, columns = A.shape[:ind], A.shape[ind:]
    if prod(rows) != prod(columns):
        raise RuntimeError(
            f"Expected self to satisfy the requirement prod(self.shape[ind:]) == prod(self.shape[:ind]), "
            f"but got {prod(columns)} != {prod(rows)}"
        )
    return inv(A.reshape(prod(rows), prod(columns))).reshape(*columns, *rows)


@with_out
def tensorsolve(A: Tensor, B: Tensor, dims: Any = None) -> Tensor:
    """X with tensordot(A, X, X.ndim) = B; as ``torch.linalg.tensorsolve``.

    Parameters
    ----------
    A : Tensor
        Its first B.ndim dimensions are B's.
    B : Tensor
    dims : tuple of int, optional
        Dimensions of A that are moved to its end first.
    """
    if dims is not None:
        A = A.movedim(tuple(dims), tuple(range(A.ndim - len(dims), A.ndim)))
    shape = A.shape[B.ndim :]
    if prod(shape) != prod(B.shape):
        raise RuntimeError(
            f"Expected self to satisfy the requirement prod(self.shape[other.ndim:]) == prod(self.shape[:other.ndim]), "
            f"but got {prod(shape)} != {prod(B.shape)}"
        )
    return solve(A.reshape(prod(shape), -1) if prod(shape) else A.reshape(0, 0), B.reshape(-1)).reshape(*shape)
