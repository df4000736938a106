"""Factorizations with an orthogonal matrix: QR, and Householder vectors that stand for Q."""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from ..creation import eye
from ..public import with_out
from ..shape import tril, triu
from .arguments import check_matrix, check_same_dtype
from .matrices import adjoint, adjoint_of, diagonal, diagonal_matrix, mul_adjoint
from .results import GeqrfResult, QRResult
from .triangular import solve_triangular

__all__ = ["geqrf", "householder_product", "ormqr", "qr"]


def _qr_rule(g: Any, out: Any, mode: str, xp: Any) -> tuple:
    """gA = (gQ + Q M) R^-H with M of the upper triangle of gR R^H - Q^H gQ; for more columns than rows, R = (R1 R2) and
    R2 = Q^H A2, so that A2 is one more way into Q.
    """
    g_q, g_r = g
    q, r = out
    m, n = q.shape[-2], r.shape[-1]
    if mode == "r":
        raise RuntimeError(
            "The derivative of linalg.qr depends on Q, which is not computed when mode='r'; use mode='reduced'"
        )
    if mode == "complete" and m > n:
        raise RuntimeError(
            f"The QR decomposition is not differentiable when mode='complete' and nrows > ncols, as for {m} by {n} matrices"
        )
    if n <= m:
        return (_qr_of_square(xp, g_q, g_r, q, r),)
    beside = r[..., :, m:]
    g_beside = None if g_r is None else g_r[..., :, m:]
    g_r = None if g_r is None else g_r[..., :, :m]
    if g_beside is not None:
        more = xp.matmul(xp.matmul(q, beside), adjoint(xp, g_beside))
        g_q = more if g_q is None else g_q + more
    first = _qr_of_square(xp, g_q, g_r, q, r[..., :, :m])
    second = xp.zeros_like(xp.matmul(q, beside)) if g_beside is None else xp.matmul(q, g_beside)
    return (xp.concatenate((first, second), axis=-1),)


def _qr_of_square(xp: Any, g_q: Any, g_r: Any, q: Any, r: Any) -> Any:
    inner: Any = None
    if g_r is not None:
        inner = xp.matmul(g_r, adjoint(xp, r))
    if g_q is not None:
        turned = mul_adjoint(xp, q, g_q)
        inner = -turned if inner is None else inner - turned
    strict = xp.triu(inner, 1)
    inner = strict + adjoint(xp, strict) + diagonal_matrix(xp, diagonal(xp, inner).real)
    whole = xp.matmul(q, inner)
    if g_q is not None:
        whole = whole + g_q
    return adjoint(xp, xp.solve_triangular(r, adjoint(xp, whole), True, False))


def _qr_forward(xp: Any, x: Any, *, mode: str) -> tuple:
    if mode == "r":
        return xp.zeros(0, x.dtype), xp.linalg.qr(x, mode="r")
    q, r = xp.linalg.qr(x, mode=mode)
    return q, r


_qr = Operation("linalg_qr", _qr_forward, results=2, fills_missing=False, gradients=_qr_rule)


@with_out
def qr(A: Tensor, mode: str = "reduced") -> QRResult:
    """A = Q R, Q with orthonormal columns and R upper triangular; as ``torch.linalg.qr``.

    Parameters
    ----------
    A : Tensor
        (..., m, n); k = min(m, n).
    mode : {"reduced", "complete", "r"}
        Q is (..., m, k) and R (..., k, n); or (..., m, m) and (..., m, n); or there is no Q.

    Returns
    -------
    named tuple (Q, R)

    Examples
    --------
    >>> import disttorch
    >>> disttorch.linalg.qr(disttorch.eye(2)).R.abs()
    tensor([[1., 0.],
            [0., 1.]])
    """
    check_matrix("linalg.qr", A)
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(
            f"qr received unrecognized mode '{mode}' but expected one of 'reduced' (default), 'r', or 'complete'"
        )
    return QRResult(*apply(_qr, A, mode=mode))


def _geqrf_forward(xp: Any, x: Any) -> tuple:
    h, tau = xp.linalg.qr(x, mode="raw")
    return xp.ascontiguousarray(xp.swapaxes(h, -1, -2)), tau


_geqrf = Operation("geqrf", _geqrf_forward, results=2)


@with_out
def geqrf(input: Tensor) -> GeqrfResult:
    """The QR factorization with Q as Householder vectors below R, and their factors; as ``torch.geqrf``."""
    check_matrix("torch.geqrf", input)
    return GeqrfResult(*apply(_geqrf, input))


def _compact(vectors: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """V and T with H_1 H_2 ... H_k = 1 - V T V^H (C. Puglisi, SIAM J. Sci. Stat. Comput. 13, 1992): T = (1 + D W)^-1 D with D of
    the factors tau and W what V^H V has above the diagonal.
    """
    k = tau.shape[-1]
    m = vectors.shape[-2]
    v = tril(vectors[..., :, :k], -1) + eye(m, k, dtype=vectors.dtype, device=vectors.device)
    above = triu(adjoint_of(v) @ v, 1)
    return v, solve_triangular(tau.unsqueeze(-1) * above, tau.diag_embed(), upper=True, unitriangular=True)


@with_out
def householder_product(input: Tensor, tau: Tensor) -> Tensor:
    """The first n columns of the product of Householder matrices 1 - tau_i v_i v_i^H; as ``torch.linalg.householder_product``.

    Parameters
    ----------
    input : Tensor
        (..., m, n) with v_i below the diagonal of column i, as `geqrf` returns it.
    tau : Tensor
        (..., k), k <= n <= m.
    """
    name = "linalg.householder_product"
    check_matrix(name, input)
    check_same_dtype(name, input, tau)
    *batch, m, n = input.shape
    if m < n:
        raise RuntimeError(
            f"{name}: input.shape[-2] must be greater than or equal to input.shape[-1], got {list(input.shape)}"
        )
    if tau.ndim < 1 or tau.shape[-1] > n:
        raise RuntimeError(
            f"{name}: input.shape[-1] must be greater than or equal to tau.shape[-1], got {n} and {list(tau.shape)}"
        )
    if input.ndim - tau.ndim != 1:
        raise RuntimeError(
            f"{name}: Expected tau to have one dimension less than input, but got tau.ndim equal to {tau.ndim} and input.ndim {input.ndim}"
        )
    if list(tau.shape[:-1]) != batch:
        raise RuntimeError(
            f"{name}: Expected batch dimensions of tau to be equal to input.shape[:-2], but got {list(tau.shape[:-1])}"
        )
    v, t = _compact(input, tau)
    start = eye(m, n, dtype=input.dtype, device=input.device)
    return start - v @ (t @ adjoint_of(v)[..., :, :n])


@with_out
def ormqr(input: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False) -> Tensor:
    """The product of a matrix with the whole Q of Householder vectors, or its adjoint; as ``torch.ormqr``.

    Parameters
    ----------
    input, tau : Tensor
        (..., mn, k) and (..., k), as `geqrf` returns them.
    other : Tensor
        (..., m, n)
    left : bool
        Whether Q stands to the left of `other`.
    transpose : bool
        Whether to multiply by Q^H.
    """
    name = "ormqr"
    check_matrix(name, input, other)
    check_same_dtype(name, input, other)
    check_same_dtype(name, input, tau)
    mn, side = input.shape[-2], other.shape[-2 if left else -1]
    if mn != side:
        raise RuntimeError(
            f"torch.ormqr: other.shape[{-2 if left else -1}] must be equal to input.shape[-2], got {side} and {mn}"
        )
    if tau.shape[-1] > input.shape[-1] or tau.shape[-1] > side:
        raise RuntimeError(
            f"torch.ormqr: other.shape[{-2 if left else -1}] must be greater than or equal to tau.shape[-1], got {side} and {tau.shape[-1]}"
        )
    if input.ndim - tau.ndim != 1:
        raise RuntimeError(
            f"torch.ormqr: Expected tau to have one dimension less than input, "
            f"but got tau.ndim equal to {tau.ndim} and input.ndim {input.ndim}"
        )
    if input.ndim != other.ndim:
        raise RuntimeError(
            f"torch.ormqr: Expected other to have as many dimensions as input, but got {other.ndim} and {input.ndim}"
        )
    if tau.shape[:-1] != input.shape[:-2] or other.shape[:-2] != input.shape[:-2]:
        raise RuntimeError(
            f"torch.ormqr: Expected batch dimensions of tau and other to be equal to input.shape[:-2], "
            f"but got {list(tau.shape[:-1])} and {list(other.shape[:-2])}"
        )
    v, t = _compact(input, tau)
    if transpose:
        t = adjoint_of(t)
    if left:
        return other - v @ (t @ (adjoint_of(v) @ other))
    return other - ((other @ v) @ t) @ adjoint_of(v)
