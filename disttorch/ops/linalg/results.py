"""Results with names: named tuples with PyTorch's fields (``torch.return_types``)."""

from __future__ import annotations

from typing import NamedTuple

from ...autograd.variable import Tensor

__all__ = [
    "CholeskyExResult",
    "EigResult",
    "EighResult",
    "GeqrfResult",
    "InvExResult",
    "LDLExResult",
    "LDLResult",
    "LUExResult",
    "LUFactorResult",
    "LUResult",
    "LstsqResult",
    "QRResult",
    "SVDLegacyResult",
    "SVDResult",
    "SlogdetResult",
    "SolveExResult",
    "TriangularSolveResult",
]  # fmt: skip


class EigResult(NamedTuple):
    """Eigenvalues and eigenvectors, the columns of a matrix."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class EighResult(NamedTuple):
    """Real eigenvalues in ascending order and eigenvectors, the columns of a matrix."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class SVDResult(NamedTuple):
    """A = U diag(S) Vh."""

    U: Tensor
    S: Tensor
    Vh: Tensor


class SVDLegacyResult(NamedTuple):
    """A = U diag(S) V^H, of ``torch.svd``."""

    U: Tensor
    S: Tensor
    V: Tensor


class QRResult(NamedTuple):
    """A = Q R."""

    Q: Tensor
    R: Tensor


class LUResult(NamedTuple):
    """A = P L U."""

    P: Tensor
    L: Tensor
    U: Tensor


class LUFactorResult(NamedTuple):
    """L and U in one matrix, and the rows that were exchanged."""

    LU: Tensor
    pivots: Tensor


class LUExResult(NamedTuple):
    """`LUFactorResult` and which diagonal element of U is zero."""

    LU: Tensor
    pivots: Tensor
    info: Tensor


class LDLResult(NamedTuple):
    """L and D in one matrix, and how rows were exchanged."""

    LD: Tensor
    pivots: Tensor


class LDLExResult(NamedTuple):
    """`LDLResult` and which block of D is singular."""

    LD: Tensor
    pivots: Tensor
    info: Tensor


class CholeskyExResult(NamedTuple):
    """The factor, and which leading minor is not positive."""

    L: Tensor
    info: Tensor


class InvExResult(NamedTuple):
    """The inverse, and which diagonal element of U is zero."""

    inverse: Tensor
    info: Tensor


class SolveExResult(NamedTuple):
    """The solution, and which diagonal element of U is zero."""

    result: Tensor
    info: Tensor


class SlogdetResult(NamedTuple):
    """The sign of a determinant and the logarithm of its absolute value."""

    sign: Tensor
    logabsdet: Tensor


class LstsqResult(NamedTuple):
    """The solution of a least-squares problem, squared residuals, ranks and singular values."""

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


class GeqrfResult(NamedTuple):
    """Householder vectors below R, and their factors."""

    a: Tensor
    tau: Tensor


class TriangularSolveResult(NamedTuple):
    """The solution, and a copy of the coefficients."""

    solution: Tensor
    cloned_coefficient: Tensor
