"""Factorizations and triangular systems that the array libraries lack, batched over leading dimensions.

They write into arrays of their own, block by block. Tensors do not go through them: the operations in ``ops/linalg`` have
rules, which stand under the same names in the namespace of tensors. Algorithms: Golub and Van Loan, Matrix Computations,
sections 3.1 and 3.4 (triangular systems, LU) and 4.2 (Cholesky); pivots and `info` as LAPACK's getrf and potrf give them.
"""

from __future__ import annotations

import math
from typing import Any

from . import kernel

#: Columns that are eliminated one by one before the rest of the matrix is updated by one product.
BLOCK = 32


def magnitude(xp: Any, a: Any) -> Any:
    """What LAPACK compares pivots by: for complex numbers |re| + |im|."""
    return xp.abs(a.real) + xp.abs(a.imag) if a.dtype.kind == "c" else xp.abs(a)


@kernel
def lu_factor(xp: Any, a: Any) -> tuple[Any, Any, Any]:
    """P A = L U with partial pivoting, for a of (..., m, n).

    Returns L below and U on and above the diagonal of one array, the rows that were exchanged with rows 1, 2, ... (counted
    from 1, int32), and info (...): 0, or the number of the first diagonal element of U that is zero.
    """
    batch, (m, n) = a.shape[:-2], a.shape[-2:]
    k = min(m, n)
    lu = xp.reshape(xp.array(a), (-1, m, n) if a.size else (math.prod(batch), m, n))
    count = lu.shape[0]
    pivots = xp.zeros((count, k), "int32")
    matrices = xp.arange(count)
    for start in range(0, k, BLOCK):
        stop = min(start + BLOCK, k)
        for j in range(start, stop):
            chosen = xp.argmax(magnitude(xp, lu[:, j:, j]), axis=1) + j
            pivots[:, j] = chosen + 1
            row = xp.array(lu[:, j])
            lu[:, j] = lu[matrices, chosen]
            lu[matrices, chosen] = row
            pivot = lu[:, j, j, None]
            lu[:, j + 1 :, j] /= xp.where(pivot == 0, xp.ones_like(pivot), pivot)
            lu[:, j + 1 :, j + 1 : stop] -= lu[:, j + 1 :, j, None] * lu[:, j, None, j + 1 : stop]
        if stop < n:
            lu[:, start:stop, stop:] = xp.solve_triangular(
                lu[:, start:stop, start:stop], lu[:, start:stop, stop:], False, True
            )
            lu[:, stop:, stop:] -= xp.matmul(lu[:, stop:, start:stop], lu[:, start:stop, stop:])
    zero = xp.diagonal(lu, 0, -2, -1) == 0
    info = xp.where(xp.any(zero, axis=-1), xp.argmax(zero, axis=-1) + 1, 0) if k else xp.zeros(count, "int32")
    return xp.reshape(lu, a.shape), xp.reshape(pivots, (*batch, k)), xp.reshape(info, batch).astype("int32")


@kernel
def permutation(xp: Any, pivots: Any, m: int, inverse: bool) -> Any:
    """The order of rows, int64 (..., m), that exchanging by pivots (..., k) in turn gives; or the order that undoes it."""
    batch, k = pivots.shape[:-1], pivots.shape[-1]
    flat = xp.reshape(pivots, (math.prod(batch), k)).astype("int64") - 1
    order = xp.array(xp.broadcast_to(xp.arange(m), (flat.shape[0], m)))
    rows = xp.arange(flat.shape[0])
    for j in reversed(range(k)) if inverse else range(k):
        other = flat[:, j]
        kept = xp.array(order[:, j])
        order[:, j] = order[rows, other]
        order[rows, other] = kept
    return xp.reshape(order, (*batch, m))


@kernel
def solve_triangular(xp: Any, a: Any, b: Any, upper: bool, unitriangular: bool) -> Any:
    """X with A X = B for a triangular of (..., n, n) and b of (..., n, k), whose leading dimensions broadcast.

    The other triangle is not looked at; nor, with `unitriangular`, the diagonal, which counts as 1.
    """
    n = a.shape[-1]
    batch = _broadcast(a.shape[:-2], b.shape[:-2])
    x = xp.array(xp.broadcast_to(b, batch + b.shape[-2:]))
    starts = range(0, n, BLOCK)
    for start in reversed(starts) if upper else starts:
        stop = min(start + BLOCK, n)
        for i in reversed(range(start, stop)) if upper else range(start, stop):
            known = slice(i + 1, stop) if upper else slice(start, i)
            here = slice(i, i + 1)
            if known.start < known.stop:
                x[..., here, :] -= xp.matmul(a[..., here, known], x[..., known, :])
            if not unitriangular:
                x[..., here, :] /= a[..., here, here]
        left = slice(0, start) if upper else slice(stop, n)
        if left.start < left.stop:
            x[..., left, :] -= xp.matmul(a[..., left, start:stop], x[..., start:stop, :])
    return x


def _broadcast(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    if one == other:
        return one
    width = max(len(one), len(other))
    one, other = (1,) * (width - len(one)) + one, (1,) * (width - len(other)) + other
    return tuple(n if m == 1 else m for m, n in zip(one, other))


@kernel
def cholesky(xp: Any, a: Any) -> tuple[Any, Any]:
    """Lower L with A = L L^H, of the lower triangle of a (..., n, n); and info (...): 0, or the order of the first leading
    minor that is not positive, and L up to there.
    """
    try:
        lower = xp.linalg.cholesky(a)
        if xp.name == "cpu" or bool(xp.all(xp.isfinite(lower))):
            return lower, xp.zeros(a.shape[:-2], "int32")
    except xp.linalg.LinAlgError:
        pass
    return _cholesky_by_columns(xp, a)


def _cholesky_by_columns(xp: Any, a: Any) -> tuple[Any, Any]:
    n = a.shape[-1]
    lower = xp.tril(a)
    info = xp.zeros(a.shape[:-2], "int32")
    for j in range(n):
        row = lower[..., j : j + 1, :j]
        minor = lower[..., j, j].real - xp.sum((row * xp.conjugate(row)).real, axis=(-2, -1))
        info = xp.where((info == 0) & ~(minor > 0), xp.asarray(j + 1, "int32"), info)
        root = xp.sqrt(xp.where(minor > 0, minor, xp.ones_like(minor)))
        lower[..., j, j] = root
        if j + 1 < n:
            known = xp.matmul(lower[..., j + 1 :, :j], xp.conjugate(xp.swapaxes(row, -1, -2)))[..., 0]
            lower[..., j + 1 :, j] = (lower[..., j + 1 :, j] - known) / root[..., None]
    return lower, info


@kernel
def solve(xp: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """X with A X = B for a of (..., n, n) and b of (..., n, k), whose leading dimensions broadcast; and info (...) of the LU
    factorization of a: 0, or which diagonal element of U is zero.
    """
    try:
        x = xp.linalg.solve(a, b)
        if xp.name == "cpu" or bool(xp.all(xp.isfinite(x))):
            return x, xp.zeros(a.shape[:-2], "int32")
    except xp.linalg.LinAlgError:
        pass
    lu, pivots, info = xp.lu_factor(a)
    order = xp.permutation(pivots, a.shape[-1], False)
    b = xp.broadcast_to(b, _broadcast(a.shape[:-2], b.shape[:-2]) + b.shape[-2:])
    b = xp.take_along_axis(b, xp.broadcast_to(order, b.shape[:-1])[..., None], axis=-2)
    return xp.solve_triangular(lu, xp.solve_triangular(lu, b, False, True), True, False), info


@kernel
def inv(xp: Any, a: Any) -> tuple[Any, Any]:
    """The inverse of a (..., n, n), and info as of `solve`."""
    try:
        x = xp.linalg.inv(a)
        if xp.name == "cpu" or bool(xp.all(xp.isfinite(x))):
            return x, xp.zeros(a.shape[:-2], "int32")
    except xp.linalg.LinAlgError:
        pass
    return xp.solve(a, xp.broadcast_to(xp.eye(a.shape[-1], dtype=a.dtype), a.shape))


@kernel
def det(xp: Any, a: Any) -> Any:
    """The determinant (...) of a (..., n, n)."""
    return xp.asarray(xp.linalg.det(a))


@kernel
def pinv(xp: Any, a: Any, rcond: float) -> Any:
    """The pseudo-inverse (..., n, m) of a (..., m, n); singular values up to rcond times the greatest count as 0."""
    u, s, vh = xp.svd(a, False)
    kept = s > rcond * xp.max(s, axis=-1, keepdims=True) if s.shape[-1] else s > 0
    inverse = xp.where(kept, 1 / xp.where(kept, s, xp.ones_like(s)), xp.zeros_like(s))
    return xp.matmul(
        xp.conjugate(xp.swapaxes(vh, -1, -2)) * inverse[..., None, :], xp.conjugate(xp.swapaxes(u, -1, -2))
    )


@kernel
def eig(xp: Any, a: Any) -> tuple[Any, Any]:
    """Eigenvalues (..., n) and eigenvectors (..., n, n), complex."""
    values, vectors = xp.linalg.eig(a)
    wide = "complex64" if a.dtype in ("float32", "complex64") else "complex128"
    return xp.asarray(values, dtype=wide), xp.asarray(vectors, dtype=wide)


@kernel
def eigh(xp: Any, a: Any, uplo: str) -> tuple[Any, Any]:
    """Eigenvalues (..., n) in ascending order and eigenvectors (..., n, n) of Hermitian matrices, of one triangle of them."""
    values, vectors = xp.linalg.eigh(a, uplo)
    return values, vectors


@kernel
def svd(xp: Any, a: Any, full: bool) -> tuple[Any, Any, Any]:
    """U (..., m, k or m), S (..., k) in descending order and V^H (..., k or n, n) with A = U S V^H, k = min(m, n)."""
    u, s, vh = xp.linalg.svd(a, full_matrices=full)
    return u, s, vh


@kernel
def matrix_exp(xp: Any, a: Any) -> Any:
    """exp(A) for a of (..., n, n), by scaling and squaring with a Padé approximant of degree 13 (N. Higham, The scaling and
    squaring method for the matrix exponential revisited, SIAM J. Matrix Anal. Appl. 26, 2005).
    """
    n = a.shape[-1]
    if not a.size:
        return xp.array(a)
    if a.dtype in ("float32", "complex64"):  # large elements of opposite signs cancel in the products
        return xp.matrix_exp(a.astype("float64" if a.dtype == "float32" else "complex128")).astype(a.dtype)
    norm = xp.max(xp.sum(xp.abs(a), axis=-2), axis=-1)
    scale = norm / xp.asarray(THETA, norm.dtype)
    squarings = xp.ceil(xp.log2(xp.where(scale > 1, scale, xp.ones_like(scale))))
    squarings = xp.where(xp.isfinite(squarings), squarings, xp.zeros_like(squarings))  # of NaN and infinity comes NaN
    a = a * xp.exp2(-squarings)[..., None, None]
    b, one = PADE, xp.broadcast_to(xp.eye(n, dtype=a.dtype), a.shape)
    a2 = xp.matmul(a, a)
    a4 = xp.matmul(a2, a2)
    a6 = xp.matmul(a4, a2)
    odd = xp.matmul(a6, b[13] * a6 + b[11] * a4 + b[9] * a2) + b[7] * a6 + b[5] * a4 + b[3] * a2 + b[1] * one
    odd = xp.matmul(a, odd)
    even = xp.matmul(a6, b[12] * a6 + b[10] * a4 + b[8] * a2) + b[6] * a6 + b[4] * a4 + b[2] * a2 + b[0] * one
    result = xp.solve(even - odd, even + odd)[0]
    for i in range(int(xp.max(squarings))):
        result = xp.where((squarings > i)[..., None, None], xp.matmul(result, result), result)
    return result


#: Up to this norm the approximant is exact to double precision; its coefficients.
THETA = 5.371920351148152
PADE = (
    64764752532480000.0, 32382376266240000.0, 7771770303897600.0, 1187353796428800.0, 129060195264000.0, 10559470521600.0,
    670442572800.0, 33522128640.0, 1323241920.0, 40840800.0, 960960.0, 16380.0, 182.0, 1.0,
)  # fmt: skip
