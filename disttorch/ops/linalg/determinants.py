"""Determinants."""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from ...backend import namespace
from ..public import with_out
from .arguments import check_square
from .matrices import adjoint, identity, is_complex
from .results import SlogdetResult

__all__ = ["det", "logdet", "slogdet"]

#: Below this part of the product of the rows' lengths (Hadamard's bound) a determinant may be that of a singular matrix.
NEARLY_SINGULAR = 1e-6


def _det_rule(g: Any, a: Any, out: Any, xp: Any) -> Any:
    """The cofactors: det A^-T; of a matrix that may be singular, of its singular value decomposition, where a product of all
    singular values but one stands in place of det / s.
    """
    g = g[..., None, None]
    if not _may_be_singular(xp, a, out):
        return g * out[..., None, None] * xp.swapaxes(xp.inv(a)[0], -1, -2)
    u, s, vh = xp.svd(a, False)
    others = xp.where(identity(xp, a).real == 1, xp.ones_like(a.real), xp.expand_dims(s, -2))
    phase = xp.det(u) * xp.det(vh)
    products = xp.expand_dims(xp.prod(others, axis=-1), -1)
    if is_complex(u):
        u, vh = xp.conjugate(u), xp.conjugate(vh)
    return g * phase[..., None, None] * xp.matmul(u, products * vh)


def _may_be_singular(xp: Any, a: Any, out: Any) -> bool:
    if isinstance(a, Tensor):
        a, out = a._array, out._array
        xp = namespace(a)
    bound = xp.prod(xp.sqrt(xp.sum(xp.abs(a) ** 2, axis=-1)), axis=-1)
    return bool(xp.any(xp.abs(out) <= NEARLY_SINGULAR * bound))


_det = Operation("linalg_det", lambda xp, a: xp.det(a), a=_det_rule)


def _slogdet_rule(g: Any, a: Any, out: Any, xp: Any) -> tuple:
    g_sign, g_log = g
    inverse = adjoint(xp, xp.inv(a)[0])
    along = g_log
    if is_complex(a):  # the sign turns with the imaginary part of the logarithm
        along = g_log - 1j * (xp.conjugate(g_sign) * out[0]).imag
    return (along[..., None, None] * inverse,)


def _slogdet_forward(xp: Any, a: Any) -> tuple:
    sign, logabsdet = xp.linalg.slogdet(a)
    return sign, logabsdet


_slogdet = Operation("linalg_slogdet", _slogdet_forward, results=2, gradients=_slogdet_rule)


@with_out
def det(A: Tensor) -> Tensor:
    """The determinant of square matrices; as ``torch.linalg.det``.

    The gradient is the matrix of cofactors, also where A is singular.

    Parameters
    ----------
    A : Tensor
        (..., n, n)

    Examples
    --------
    >>> import disttorch
    >>> disttorch.linalg.det(disttorch.tensor([[2.0, 0.0], [0.0, 4.0]]))
    tensor(8.)
    """
    check_square("linalg.det", A)
    return apply(_det, A)


@with_out
def slogdet(A: Tensor) -> SlogdetResult:
    """The sign of the determinant and the logarithm of its absolute value; as ``torch.linalg.slogdet``.

    Returns
    -------
    named tuple (sign, logabsdet)
        For a singular matrix 0 and minus infinity.
    """
    check_square("linalg.slogdet", A)
    return SlogdetResult(*apply(_slogdet, A))


def logdet(input: Tensor) -> Tensor:
    """The logarithm of the determinant, NaN where that is negative; as ``torch.logdet``."""
    check_square("logdet", input)
    sign, logabsdet = apply(_slogdet, input)
    return logabsdet + sign.log()
