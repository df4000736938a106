"""Approximate singular vectors of large matrices, by products with random ones (N. Halko, P. Martinsson, J. Tropp, Finding
structure with randomness, SIAM Rev. 53, 2011, algorithms 4.4 and 5.1).
"""

from __future__ import annotations

from ...autograd.variable import Tensor, wrap
from ..linear import matmul
from ..random import generator_for
from .arguments import check_matrix
from .matrices import adjoint_of
from .orthogonal import qr
from .results import SVDLegacyResult
from .spectral import svd

__all__ = ["pca_lowrank", "svd_lowrank"]


def svd_lowrank(A: Tensor, q: int | None = 6, niter: int | None = 2, M: Tensor | None = None) -> SVDLegacyResult:
    """About the q greatest singular values and their vectors; as ``torch.svd_lowrank``.

    Parameters
    ----------
    A : Tensor
        (..., m, n)
    q : int
        How many, 6 if None; a few more than the rank that is looked for.
    niter : int
        How often the random start is multiplied by A A^H: more where singular values fall slowly.
    M : Tensor, optional
        Taken from A first, broadcast.

    Returns
    -------
    named tuple (U, S, V)
        (..., m, q), (..., q), (..., n, q)
    """
    check_matrix("svd_lowrank", A)
    q, niter = 6 if q is None else q, 2 if niter is None else niter
    m, n = A.shape[-2:]
    if not 0 <= q <= min(m, n):
        raise ValueError(f"q(={q}) must be non-negative integer and not greater than min(m, n)={min(m, n)}")
    if niter < 0:
        raise ValueError(f"niter(={niter}) must be non-negative integer")
    if M is not None:
        A = A - M.expand(A.shape)
    transposed = m < n
    B = adjoint_of(A) if transposed else A
    turned = adjoint_of(B)
    Q = qr(matmul(B, _random(B, q))).Q
    for _ in range(niter):
        Q = qr(matmul(turned, Q)).Q
        Q = qr(matmul(B, Q)).Q
    U, S, Vh = svd(matmul(adjoint_of(Q), B), full_matrices=False)
    U, V = matmul(Q, U), adjoint_of(Vh)
    return SVDLegacyResult(V, S, U) if transposed else SVDLegacyResult(U, S, V)


def _random(A: Tensor, q: int) -> Tensor:
    real = A.dtype.to_real()
    source = generator_for(A.device, None)
    drawn = source.normal((A.shape[-1], q), real)
    if A.dtype.is_complex:
        drawn = drawn + 1j * source.normal((A.shape[-1], q), real)
    return wrap(drawn).to(dtype=A.dtype)


def pca_lowrank(A: Tensor, q: int | None = None, center: bool = True, niter: int = 2) -> SVDLegacyResult:
    """Principal components of observations in rows: `svd_lowrank` of A without the columns' means; as ``torch.pca_lowrank``.

    Parameters
    ----------
    A : Tensor
        (..., m, n)
    q : int, optional
        How many; min(6, m, n) if absent.
    center : bool
        Whether to take off the means.
    niter : int
        As of `svd_lowrank`.
    """
    check_matrix("pca_lowrank", A)
    m, n = A.shape[-2:]
    q = min(6, m, n) if q is None else q
    if not 0 <= q <= min(m, n):
        raise ValueError(f"q(={q}) must be non-negative integer and not greater than min(m, n)={min(m, n)}")
    if niter < 0:
        raise ValueError(f"niter(={niter}) must be non-negative integer")
    return svd_lowrank(A - A.mean(-2, keepdim=True) if center else A, q, niter)
