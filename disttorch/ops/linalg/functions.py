"""Functions of square matrices: powers and the exponential."""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from ...backend import dtypes as dt
from ..linear import matmul
from ..public import with_out
from .arguments import check_square
from .matrices import identity
from .solves import inv

__all__ = ["matrix_exp", "matrix_power"]


def _matrix_exp_rule(g: Any, a: Any, xp: Any) -> Any:
    """The corner of exp([[A^T, G], [0, A^T]]) (I. Najfeld and T. Havel, Adv. Appl. Math. 16, 1995)."""
    n = a.shape[-1]
    turned = xp.swapaxes(a, -1, -2)
    upper = xp.concatenate((turned, g), axis=-1)
    lower = xp.concatenate((xp.zeros_like(turned), turned), axis=-1)
    return xp.matrix_exp(xp.concatenate((upper, lower), axis=-2))[..., :n, n:]


_matrix_exp = Operation("linalg_matrix_exp", lambda xp, a: xp.matrix_exp(a), a=_matrix_exp_rule)


_identity = Operation("linalg_matrix_power", lambda xp, a: identity(xp, a), a=lambda g, xp: xp.zeros_like(g))


def matrix_exp(input: Tensor) -> Tensor:
    """The matrix exponential 1 + A + A^2 / 2! + ...; as ``torch.matrix_exp`` and ``torch.linalg.matrix_exp``.

    Parameters
    ----------
    input : Tensor
        (..., n, n), floating point; half types are computed in float32.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.matrix_exp(disttorch.zeros(2, 2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    check_square("linalg.matrix_exp", input, floating=False)
    if input._array.dtype in dt.INTEGRAL:
        raise RuntimeError(
            f"linalg.matrix_exp: Expected a floating point or complex tensor as input. Got {input.dtype}"
        )
    if input._array.dtype in dt.HALF:
        return apply(_matrix_exp, input.to(dtype=dt.float32)).to(dtype=input.dtype)
    return apply(_matrix_exp, input)


@with_out
def matrix_power(A: Tensor, n: int) -> Tensor:
    """A multiplied n times with itself, by squaring; the inverse for negative n; as ``torch.linalg.matrix_power``.

    Parameters
    ----------
    A : Tensor
        (..., n, n)
    n : int

    Raises
    ------
    LinAlgError
        For negative n, if a matrix is singular.
    """
    check_square("linalg.matrix_power", A, floating=n < 0)
    if n < 0:
        return matrix_power(inv(A), -n)
    if n == 0:
        return apply(_identity, A)
    result = None
    while True:
        if n & 1:
            result = A if result is None else matmul(result, A)
        n >>= 1
        if not n:
            return result.clone() if result is A else result  # type: ignore[return-value]
        A = matmul(A, A)
