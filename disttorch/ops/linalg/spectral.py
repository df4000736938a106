"""Eigenvalues and singular values.

The rules are those of M. Giles, An extended collection of matrix derivative results for forward and reverse mode algorithmic
differentiation (2008), and for complex matrices of Z. Wan and S. Zhang, arXiv:1909.02659. Eigenvectors and singular vectors
have no phase of their own, so a loss that depends on it has no gradient: it is refused.
"""

from __future__ import annotations

from typing import Any

from ...autograd.grad_mode import recording
from ...autograd.operation import Operation
from ...autograd.variable import Tensor
from ...backend import namespace
from ..public import with_out
from .arguments import check_matrix, check_square, converging
from .matrices import adjoint, diagonal, diagonal_matrix, is_complex, mul_adjoint, skew
from .results import EighResult, EigResult, SVDResult

__all__ = ["eig", "eigh", "eigvals", "eigvalsh", "svd", "svdvals"]


# --- eigenvalues ---------------------------------------------------------------------------------------------------


def _differences(xp: Any, values: Any) -> Any:
    """E_ij = v_j - v_i, and 1 on the diagonal."""
    e = xp.expand_dims(values, -2) - xp.expand_dims(values, -1)
    return e + diagonal_matrix(xp, xp.ones_like(values))


def _check_phase(name: str, rotation: Any, of: Any) -> None:
    """Refuse gradients that depend on the phase of vectors: the diagonal of V^H gV has an imaginary part."""
    array = rotation._array if isinstance(rotation, Tensor) else rotation
    if not is_complex(array) or not array.size:
        return
    xp = namespace(array)
    imaginary = xp.abs(diagonal(xp, array).imag)
    scale = xp.max(xp.abs(array))
    if bool(xp.any(imaginary > 1e-2 * scale + 1e-2)):
        raise RuntimeError(
            f"{name}: the {of} in the complex case are specified up to multiplication by e^(i phi). The specified loss "
            "function depends on this quantity, so it is ill-defined."
        )


def _eigh_rule(g: Any, out: Any, xp: Any) -> tuple:
    g_values, g_vectors = g
    values, vectors = out
    if g_vectors is None:
        return (xp.matmul(vectors * xp.expand_dims(g_values, -2), adjoint(xp, vectors)),)
    rotation = mul_adjoint(xp, vectors, g_vectors)
    _check_phase("linalg_eigh_backward", rotation, "eigenvectors")
    inner = rotation / _differences(xp, values)
    inner = inner - diagonal_matrix(xp, diagonal(xp, inner))
    if g_values is not None:
        inner = inner + diagonal_matrix(xp, g_values)
    return (xp.matmul(vectors, xp.matmul(inner, adjoint(xp, vectors))),)


def _eig_rule(g: Any, out: Any, xp: Any) -> tuple:
    g_values, g_vectors = g
    values, vectors = out
    turned = adjoint(xp, vectors)
    if g_vectors is None:
        return (_solve(xp, turned, xp.expand_dims(g_values, -1) * turned),)
    rotation = xp.matmul(turned, g_vectors)
    _check_phase("linalg_eig_backward", rotation, "eigenvectors")
    # eigenvectors are normalized: what would lengthen them is taken out
    lengthening = xp.expand_dims(diagonal(xp, rotation).real, -2)
    inner = (rotation - xp.matmul(turned, vectors * lengthening)) / xp.conjugate(_differences(xp, values))
    inner = inner - diagonal_matrix(xp, diagonal(xp, inner))
    if g_values is not None:
        inner = inner + diagonal_matrix(xp, g_values)
    return (_solve(xp, turned, xp.matmul(inner, turned)),)


def _solve(xp: Any, a: Any, b: Any) -> Any:
    return xp.solve(a, b)[0]


_eigh = Operation(
    "linalg_eigh", lambda xp, x, *, uplo: xp.eigh(x, uplo), results=2, fills_missing=False, gradients=_eigh_rule
)
_eigvalsh = Operation("linalg_eigvalsh", lambda xp, x, *, uplo: xp.linalg.eigvalsh(x, uplo))
_eigvals = Operation("linalg_eigvals", lambda xp, x: xp.eig(x)[0])
_eig = Operation("linalg_eig", lambda xp, x: xp.eig(x), results=2, fills_missing=False, gradients=_eig_rule)


@with_out
def eigh(A: Tensor, UPLO: str = "L") -> EighResult:
    """Eigenvalues and eigenvectors of Hermitian matrices; as ``torch.linalg.eigh``.

    Parameters
    ----------
    A : Tensor
        (..., n, n), of which one triangle is read.
    UPLO : {"L", "U"}
        Which one.

    Returns
    -------
    named tuple (eigenvalues, eigenvectors)
        Real (..., n), in ascending order; (..., n, n), in columns.

    Raises
    ------
    LinAlgError
        If the algorithm does not converge, as for NaN.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.linalg.eigh(disttorch.tensor([[2.0, 0.0], [0.0, 1.0]])).eigenvalues
    tensor([1., 2.])
    """
    check_square("linalg.eigh", A)
    uplo = _triangle("linalg.eigh", UPLO)
    return EighResult(*converging("linalg.eigh", _eigh, A, uplo=uplo))


def _triangle(name: str, uplo: str) -> str:
    if not isinstance(uplo, str) or uplo.upper() not in ("L", "U"):
        raise RuntimeError(f"{name}: Expected UPLO argument to be 'L' or 'U', but got {uplo}")
    return uplo.upper()


@with_out
def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """Eigenvalues (..., n) of Hermitian matrices, in ascending order; as ``torch.linalg.eigvalsh``."""
    check_square("linalg.eigvalsh", A)
    uplo = _triangle("linalg.eigvalsh", UPLO)
    if A._node is not None and recording.get():
        return converging("linalg.eigvalsh", _eigh, A, uplo=uplo)[0]
    return converging("linalg.eigvalsh", _eigvalsh, A, uplo=uplo)


@with_out
def eig(A: Tensor) -> EigResult:
    """Eigenvalues and eigenvectors of square matrices; as ``torch.linalg.eig``.

    Parameters
    ----------
    A : Tensor
        (..., n, n)

    Returns
    -------
    named tuple (eigenvalues, eigenvectors)
        Complex (..., n), in no particular order; (..., n, n), in columns of length 1.

    Raises
    ------
    LinAlgError
        If the algorithm does not converge, as for NaN.
    """
    check_square("linalg.eig", A)
    return EigResult(*converging("linalg.eig", _eig, A))


@with_out
def eigvals(A: Tensor) -> Tensor:
    """Complex eigenvalues (..., n) of square matrices; as ``torch.linalg.eigvals``."""
    check_square("linalg.eigvals", A)
    if A._node is not None and recording.get():
        return converging("linalg.eigvals", _eig, A)[0]
    return converging("linalg.eigvals", _eigvals, A)


# --- singular values -----------------------------------------------------------------------------------------------


def _svd_rule(g: Any, out: Any, full: bool, xp: Any) -> tuple:
    """gA = U [(skew(U^H gU) / E) S + S (skew(V^H gV) / E) + gS] V^H, E_ij = s_j^2 - s_i^2, and what leaves the spaces of U and V:
    (1 - U U^H) gU S^-1 V^H and U S^-1 gV^H (1 - V V^H).
    """
    g_u, g_s, g_vh = g
    u, s, vh = out
    k = s.shape[-1]
    if full:  # the further singular vectors are any basis of what is left
        u, vh = u[..., :, :k], vh[..., :k, :]
        g_u = None if g_u is None else g_u[..., :, :k]
        g_vh = None if g_vh is None else g_vh[..., :k, :]
    row, column = xp.expand_dims(s, -2), xp.expand_dims(s, -1)
    if g_u is None and g_vh is None:
        return (xp.matmul(u * row, vh) if g_s is None else xp.matmul(u * xp.expand_dims(g_s, -2), vh),)
    turn_u = None if g_u is None else mul_adjoint(xp, u, g_u)
    turn_v = None if g_vh is None else xp.matmul(vh, adjoint(xp, g_vh))
    skew_u = None if turn_u is None else skew(xp, turn_u)
    skew_v = None if turn_v is None else skew(xp, turn_v)
    _check_phase(
        "svd_backward", skew_u if skew_v is None else skew_v if skew_u is None else skew_u + skew_v, "singular vectors"
    )
    e = _differences(xp, s * s)
    if skew_v is None:
        inner = skew_u / e * row
    elif skew_u is None:
        inner = column * (skew_v / e)
    else:
        inner = (skew_u * row + column * skew_v) / e
        if is_complex(u):  # the phase that U and V turn together
            inner = inner + diagonal_matrix(xp, diagonal(xp, skew_u) / (2 * s))
    if g_s is not None:
        inner = inner + diagonal_matrix(xp, g_s)
    left = xp.matmul(u, inner)
    if g_u is not None and u.shape[-2] > k:
        scaled = g_u / row
        left = left + scaled - xp.matmul(u, mul_adjoint(xp, u, scaled))
    result = xp.matmul(left, vh)
    if g_vh is not None and vh.shape[-1] > k:
        scaled = g_vh / column
        result = result + xp.matmul(u, scaled - xp.matmul(xp.matmul(scaled, adjoint(xp, vh)), vh))
    return (result,)


_svd = Operation(
    "linalg_svd", lambda xp, x, *, full: xp.svd(x, full), results=3, fills_missing=False, gradients=_svd_rule
)
_svdvals = Operation("linalg_svdvals", lambda xp, x: xp.linalg.svd(x, compute_uv=False))


@with_out
def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> SVDResult:
    """The singular value decomposition A = U diag(S) Vh; as ``torch.linalg.svd``.

    Parameters
    ----------
    A : Tensor
        (..., m, n); k = min(m, n).
    full_matrices : bool
        Whether U and Vh are square, or (..., m, k) and (..., k, n).
    driver : str, optional
        A choice between cuSOLVER's algorithms, which PyTorch refuses on the CPU and so do we.

    Returns
    -------
    named tuple (U, S, Vh)
        S is real (..., k), in descending order.

    Raises
    ------
    LinAlgError
        If the algorithm does not converge, as for NaN.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.linalg.svd(disttorch.tensor([[3.0, 0.0], [0.0, -4.0]])).S
    tensor([4., 3.])
    """
    check_matrix("linalg.svd", A)
    _check_driver("linalg.svd", A, driver)
    return SVDResult(*converging("linalg.svd", _svd, A, full=full_matrices))


@with_out
def svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """Singular values (..., min(m, n)) in descending order; as ``torch.linalg.svdvals``."""
    check_matrix("linalg.svdvals", A)
    _check_driver("linalg.svdvals", A, driver)
    if A._node is not None and recording.get():
        return converging("linalg.svdvals", _svd, A, full=False)[1]
    return converging("linalg.svdvals", _svdvals, A)


def _check_driver(name: str, A: Tensor, driver: str | None) -> None:
    if driver is not None and not A.is_cuda:
        raise RuntimeError(
            f"{name}: keyword argument `driver=` is only supported on CUDA inputs, got driver={driver!r}"
        )
