"""Least squares and the pseudo-inverse."""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor, wrap
from ...backend import dtypes as dt
from ...backend import namespace
from ..linear import matmul
from ..public import with_out
from .arguments import broadcast_matrices, check_matrix, check_square, converging
from .matrices import adjoint, identity, in_own_convention
from .results import LstsqResult

__all__ = ["lstsq", "pinv", "tolerances"]


def _truncated(xp: Any, s: Any, atol: Any, rtol: Any) -> Any:
    """1 / s where s is above the tolerance max(atol, rtol * s_max), else 0."""
    if not s.shape[-1]:
        return s
    bound = xp.maximum(xp.asarray(atol, dtype=s.dtype), xp.asarray(rtol, dtype=s.dtype) * s[..., 0])[..., None]
    kept = s > bound
    return xp.where(kept, 1 / xp.where(kept, s, xp.ones_like(s)), xp.zeros_like(s))


def _pinv_forward(xp: Any, a: Any, *, atol: Any, rtol: Any, hermitian: bool) -> Any:
    if hermitian:
        values, vectors = xp.eigh(a, "L")
        size = xp.abs(values)
        order = xp.flip(xp.argsort(size, axis=-1), -1)
        inverse = _truncated(xp, xp.take_along_axis(size, order, axis=-1), atol, rtol)
        values = xp.sign(xp.take_along_axis(values, order, axis=-1)) * inverse
        vectors = xp.take_along_axis(vectors, order[..., None, :], axis=-1)
        return xp.matmul(vectors * values[..., None, :], adjoint(xp, vectors))
    u, s, vh = xp.svd(a, False)
    return xp.matmul(adjoint(xp, vh) * _truncated(xp, s, atol, rtol)[..., None, :], adjoint(xp, u))


@in_own_convention
def _pinv_rule(g: Any, a: Any, out: Any, xp: Any) -> Any:
    """For constant rank (G. Golub and V. Pereyra, SIAM J. Numer. Anal. 10, 1973)."""
    return _pinv_gradient(xp, g, a, out)


def _pinv_gradient(xp: Any, g: Any, a: Any, x: Any) -> Any:
    turned_x, turned_g = adjoint(xp, x), adjoint(xp, g)
    result = -xp.matmul(turned_x, xp.matmul(g, turned_x))
    right = xp.matmul(turned_g, xp.matmul(x, turned_x))
    left = xp.matmul(xp.matmul(turned_x, x), turned_g)
    return result + right - xp.matmul(a, xp.matmul(x, right)) + left - xp.matmul(xp.matmul(left, x), a)


_pinv = Operation("linalg_pinv", _pinv_forward, a=_pinv_rule)


def tolerances(name: str, A: Tensor, atol: Any, rtol: Any, rcond: Any = None) -> tuple[Any, Any]:
    """Absolute and relative tolerance as arrays; where neither is given, max(m, n) times the dtype's eps."""
    if rcond is not None and rtol is None:
        rtol = rcond
    for tolerance in (atol, rtol):
        if isinstance(tolerance, Tensor) and tolerance.dtype.is_complex:
            raise RuntimeError(f"{name}: tolerance must not be of complex dtype, got {tolerance.dtype}")
    if rtol is None:
        default = dt.finfo(A.dtype).eps * max(A.shape[-2:])
        if isinstance(atol, Tensor):
            xp = namespace(atol._array)
            rtol = wrap(xp.where(atol._array > 0, xp.zeros(atol.shape, "float64"), default))
        else:
            rtol = 0.0 if atol is not None and atol > 0 else default
    atol = 0.0 if atol is None else atol
    return tuple(t._array if isinstance(t, Tensor) else t for t in (atol, rtol))


@with_out
@with_out
def pinv(A: Tensor, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Tensor:
    """The pseudo-inverse (Moore-Penrose); as ``torch.linalg.pinv``.

    Parameters
    ----------
    A : Tensor
        (..., m, n)
    rcond, rtol : float or Tensor, optional
        Singular values up to this part of the greatest count as 0; max(m, n) times the dtype's eps unless `atol` is given.
    hermitian : bool
        Whether A is Hermitian: then its eigenvalues are taken.
    atol : float or Tensor, optional
        Singular values up to this count as 0.

    Returns
    -------
    Tensor
        (..., n, m)
    """
    check_matrix("linalg.pinv", A)
    if hermitian:
        check_square("linalg.pinv", A)
    absolute, relative = tolerances("linalg.pinv", A, atol, rtol, rcond)
    return converging("linalg.pinv", _pinv, A, atol=absolute, rtol=relative, hermitian=hermitian)


def _lstsq_forward(xp: Any, a: Any, b: Any, *, rcond: float, values: bool) -> tuple:
    solved = None if values else _by_orthogonalizing(xp, a, b, rcond)
    if solved is not None:
        return solved
    u, s, vh = xp.svd(a, False)
    inverse = _truncated(xp, s, 0.0, rcond)
    x = xp.matmul(adjoint(xp, vh), inverse[..., None] * xp.matmul(adjoint(xp, u), b))
    return x, xp.sum(inverse != 0, axis=-1).astype("int64"), s


def _by_orthogonalizing(xp: Any, a: Any, b: Any, rcond: float) -> Any:
    """The solution by A = Q R, three times as fast as by singular values, for matrices that certainly have full rank: their least
    singular value is at least 1 / |R^-1|, the greatest at most |R|. None for others.
    """
    m, n = a.shape[-2:]
    if not a.size:
        return None
    q, r = xp.linalg.qr(a if m >= n else adjoint(xp, a))
    inverse = xp.solve_triangular(r, identity(xp, r), True, False)
    size, inverse_size = (xp.sqrt(xp.sum(xp.abs(x) ** 2, axis=(-2, -1))) for x in (r, inverse))
    if not bool(xp.all(size * inverse_size * rcond < 1)):
        return None
    if m >= n:
        x = xp.solve_triangular(r, xp.matmul(adjoint(xp, q), b), True, False)
    else:
        x = xp.matmul(q, xp.solve_triangular(adjoint(xp, r), b, False, False))
    rank = xp.zeros(a.shape[:-2], "int64") + min(m, n)
    return x, rank, xp.zeros(0, x.real.dtype)


def _lstsq_rule(g: Any, a: Any, b: Any, rcond: float, needs: Any, xp: Any) -> tuple:
    x = xp.pinv(a, rcond)
    g_x = g[0]
    g_a = _pinv_gradient(xp, xp.matmul(g_x, adjoint(xp, b)), a, x) if needs[0] else None
    return g_a, xp.matmul(adjoint(xp, x), g_x)


_lstsq = Operation("linalg_lstsq", _lstsq_forward, results=3, gradients=_lstsq_rule)
DRIVERS = ("gels", "gelsy", "gelsd", "gelss")


@with_out
@with_out
def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> LstsqResult:
    """X that makes the norm of A X - B least, and of those the least X; as ``torch.linalg.lstsq``.

    Parameters
    ----------
    A : Tensor
        (..., m, n)
    B : Tensor
        (..., m, k) or (..., m); leading dimensions broadcast.
    rcond : float, optional
        Singular values up to this part of the greatest count as 0; max(m, n) times the dtype's eps if absent.
    driver : {"gelsy", "gels", "gelsd", "gelss"}, optional
        LAPACK's algorithm in PyTorch. Here all are computed by singular values; it says which of the results there are.

    Returns
    -------
    named tuple (solution, residuals, rank, singular_values)
        (..., n, k); squared residuals (..., k) if m > n, all matrices have full rank and the driver is not gelsy, else empty; ranks,
        empty for gels; singular values, empty for gels and gelsy.
    """
    name = "torch.linalg.lstsq"
    check_matrix(name, A)
    if B.ndim < 1:
        raise RuntimeError(f"{name}: other must have at least 1 dimension.")
    if A.dtype != B.dtype:
        raise RuntimeError(
            f"{name}: Expected input and other to have the same dtype, but got input's dtype {A.dtype} and other's dtype {B.dtype}"
        )
    driver = driver or ("gels" if A.is_cuda else "gelsy")
    if driver not in DRIVERS:
        raise RuntimeError(f"{name}: parameter `driver` should be one of (gels, gelsy, gelsd, gelss), got {driver!r}")
    is_vector = B.ndim == 1 or (A.ndim - 1 == B.ndim and B.shape == A.shape[:-1])
    if is_vector:
        B = B.unsqueeze(-1)
    if B.shape[-2] != A.shape[-2]:
        raise RuntimeError(
            f"{name}: input.size(-2) should match other.size({-1 if is_vector else -2}), got {A.shape[-2]} and {B.shape[-2]}"
        )
    A, B = broadcast_matrices(name, A, B)
    m, n = A.shape[-2:]
    rcond = dt.finfo(A.dtype).eps * max(m, n) if rcond is None else rcond
    solution, rank, values = apply(_lstsq, A, B, rcond=rcond, values=driver in ("gelsd", "gelss"))
    nothing = A.new_empty(0).real
    residuals = nothing
    if m > n and driver != "gelsy" and (driver == "gels" or bool((rank == n).all())):
        difference = matmul(A, solution) - B
        residuals = (
            (difference * difference.conj()).real.sum(-2) if A.dtype.is_complex else (difference * difference).sum(-2)
        )
    if is_vector:
        solution = solution.squeeze(-1)
        residuals = residuals.squeeze(-1) if residuals.numel() else residuals
    return LstsqResult(
        solution,
        residuals,
        A.new_empty(0, dtype=dt.int64) if driver == "gels" else rank,
        values if driver in ("gelsd", "gelss") else nothing,
    )
