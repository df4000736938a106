"""The standard's linear algebra: what is in its main namespace, and its extension ``linalg``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import linalg as ours
from ..autograd.variable import Tensor
from ..ops import FUNCTIONS as OURS
from .dtypes import promoted
from .statistical import sum as _sum

__all__ = [
    "cholesky", "cross", "det", "diagonal", "eigh", "eigvalsh", "inv", "matmul", "matrix_norm", "matrix_power", "matrix_rank",
    "matrix_transpose", "outer", "pinv", "qr", "slogdet", "solve", "svd", "svdvals", "tensordot", "trace", "vecdot", "vector_norm",
]  # fmt: skip


def matmul(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The matrix product, batched and broadcast."""
    return OURS["matmul"](*promoted(x1, x2))


def matrix_transpose(x: Tensor, /) -> Tensor:
    """The last two axes exchanged."""
    return x.mT


def tensordot(x1: Tensor, x2: Tensor, /, *, axes: int | tuple[Sequence[int], Sequence[int]] = 2) -> Tensor:
    """The sum of products over several axes."""
    x1, x2 = promoted(x1, x2)
    return OURS["tensordot"](x1, x2, axes if isinstance(axes, int) else tuple(list(a) for a in axes))


def vecdot(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """The inner product along an axis, with the first vector conjugated."""
    x1, x2 = promoted(x1, x2)
    return ours.vecdot(x1, x2, dim=axis)


def outer(x1: Tensor, x2: Tensor, /) -> Tensor:
    """All products of two vectors' elements."""
    return OURS["outer"](*promoted(x1, x2))


def cross(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """The cross product of vectors of three elements along an axis."""
    x1, x2 = promoted(x1, x2)
    return ours.cross(x1, x2, dim=axis)


def diagonal(x: Tensor, /, *, offset: int = 0) -> Tensor:
    """The diagonals of matrices."""
    return OURS["diagonal"](x, offset, -2, -1)


def trace(x: Tensor, /, *, offset: int = 0, dtype: Any = None) -> Tensor:
    """The sums of the diagonals of matrices."""
    return _sum(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def cholesky(x: Tensor, /, *, upper: bool = False) -> Tensor:
    """The Cholesky factor of positive definite matrices."""
    return ours.cholesky(x, upper=upper)


def det(x: Tensor, /) -> Tensor:
    """The determinants of matrices."""
    return ours.det(x)


def slogdet(x: Tensor, /) -> Any:
    """The signs of the determinants and the logarithms of their sizes: ``sign``, ``logabsdet``."""
    return ours.slogdet(x)


def inv(x: Tensor, /) -> Tensor:
    """The inverse matrices."""
    return ours.inv(x)


def pinv(x: Tensor, /, *, rtol: Any = None) -> Tensor:
    """The pseudo-inverses of matrices."""
    return ours.pinv(x, rtol=rtol)


def solve(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The solutions of systems of linear equations; only an `x2` of one dimension is a vector."""
    x1, x2 = promoted(x1, x2)
    if x2.ndim == 1:
        return ours.solve(x1, x2.unsqueeze(-1))[..., 0]
    if x2.ndim < x1.ndim:  # ours would take a batch of matrices for one of vectors, by its shape
        x2 = x2.expand(*x1.shape[: x1.ndim - x2.ndim], *x2.shape)
    return ours.solve(x1, x2)


def eigh(x: Tensor, /) -> Any:
    """``eigenvalues`` and ``eigenvectors`` of Hermitian matrices."""
    return ours.eigh(x)


def eigvalsh(x: Tensor, /) -> Tensor:
    """The eigenvalues of Hermitian matrices."""
    return ours.eigvalsh(x)


def qr(x: Tensor, /, *, mode: str = "reduced") -> Any:
    """``Q`` and ``R``, whose product is the matrix."""
    return ours.qr(x, mode)


def svd(x: Tensor, /, *, full_matrices: bool = True) -> Any:
    """``U``, ``S`` and ``Vh``: the singular values with their vectors."""
    return ours.svd(x, full_matrices)


def svdvals(x: Tensor, /) -> Tensor:
    """The singular values of matrices."""
    return ours.svdvals(x)


def matrix_norm(x: Tensor, /, *, keepdims: bool = False, ord: Any = "fro") -> Tensor:
    """A norm of matrices."""
    return ours.matrix_norm(x, ord, keepdim=keepdims)


def matrix_power(x: Tensor, n: int, /) -> Tensor:
    """A power of square matrices."""
    return ours.matrix_power(x, n)


def matrix_rank(x: Tensor, /, *, rtol: Any = None) -> Tensor:
    """How many singular values are above a tolerance."""
    return ours.matrix_rank(x, rtol=rtol)


def vector_norm(x: Tensor, /, *, axis: Any = None, keepdims: bool = False, ord: float = 2) -> Tensor:
    """A norm of vectors along axes; of all elements unless given."""
    return ours.vector_norm(x, ord, axis, keepdims)
