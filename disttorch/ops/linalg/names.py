"""Linear algebra under the package's own names and as methods of Tensor, where they differ from those in ``disttorch.linalg``."""

from __future__ import annotations

from typing import Any

from ...autograd.variable import Tensor
from ..linear import outer as _outer
from ..public import with_out
from . import determinants, factorizations, functions, least_squares, norms, orthogonal, solves, triangular
from .arguments import check_matrix
from .low_rank import pca_lowrank, svd_lowrank
from .matrices import adjoint_of
from .norms import dist, nuclear_norm, renorm
from .norms import torch_norm as norm
from .products import (
    addbmm,
    addmm,
    addmv,
    addr,
    baddbmm,
    chain_matmul,
    cross,
    inner,
    kron,
    tensordot,
    trace,
)
from .results import LUExResult, QRResult, SVDLegacyResult
from .spectral import svd as _svd
from .statistics import cdist, corrcoef, cov
from .triangular import cholesky_inverse, cholesky_solve, triangular_solve

# What users find of this family, and where: see ops/public.py.
BOTH = """
    addbmm addmm addmv addr baddbmm cholesky cholesky_inverse cholesky_solve corrcoef cov cross det dist geqrf inner inverse kron
    logdet lu lu_solve matrix_exp matrix_power norm orgqr ormqr outer pinverse qr renorm slogdet svd trace triangular_solve
"""
FUNCTIONS = "cdist chain_matmul lu_unpack nuclear_norm pca_lowrank svd_lowrank tensordot"
TWINS = "addbmm addmm addmv addr baddbmm renorm"
OUT = "renorm"
ALIASES = {"ger": "outer"}
ARGUMENTS = {
    "cholesky_solve": {"input2": "L"},
    "orgqr": {"input2": "tau"},
    "ormqr": {"input2": "tau", "input3": "other"},
}

__all__ = [
    "addbmm", "addmm", "addmv", "addr", "baddbmm", "cdist", "chain_matmul", "cholesky", "cholesky_inverse", "cholesky_solve",
    "corrcoef", "cov", "cross", "det", "dist", "geqrf", "inner", "inverse", "kron", "logdet", "lu", "lu_solve", "lu_unpack",
    "matrix_exp", "matrix_power", "norm", "nuclear_norm", "orgqr", "ormqr", "outer", "pca_lowrank", "pinverse", "qr", "renorm", "slogdet",
    "svd", "svd_lowrank", "tensordot", "trace", "triangular_solve",
]  # fmt: skip

det, slogdet, logdet = determinants.det, determinants.slogdet, determinants.logdet
matrix_exp, matrix_power = functions.matrix_exp, functions.matrix_power
geqrf, ormqr, orgqr = orthogonal.geqrf, orthogonal.ormqr, orthogonal.householder_product
lu_unpack = factorizations.lu_unpack
inverse = solves.inv
outer = with_out(_outer)


@with_out
def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """The Cholesky factor L, or U = L^H; as ``torch.cholesky``, for which ``linalg.cholesky`` is the newer name."""
    return factorizations.cholesky(input, upper=upper)


@with_out
def qr(input: Tensor, some: bool = True) -> QRResult:
    """Q and R, reduced or complete; as ``torch.qr``, for which ``linalg.qr`` is the newer name."""
    return orthogonal.qr(input, "reduced" if some else "complete")


@with_out
def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> SVDLegacyResult:
    """U, S and V (not V^H); as ``torch.svd``, for which ``linalg.svd`` is the newer name. Without `compute_uv` U and V are 0."""
    check_matrix("linalg.svd", input)
    if not compute_uv:
        m, n = input.shape[-2:]
        batch = input.shape[:-2]
        return SVDLegacyResult(input.new_zeros(*batch, m, m), norms.svdvals(input), input.new_zeros(*batch, n, n))
    u, s, vh = _svd(input, full_matrices=not some)
    return SVDLegacyResult(u, s, adjoint_of(vh))


def lu(A: Tensor, pivot: bool = True, get_infos: bool = False, out: Any = None) -> Any:
    """The packed factorization (LU, pivots), with infos on request; as ``torch.lu``. See ``linalg.lu`` and ``linalg.lu_factor``."""
    result = factorizations.lu_factor_ex(A, pivot=pivot, out=out)
    if get_infos:
        return LUExResult(*result)
    return tuple(result[:2])


@with_out
def lu_solve(b: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """X with A X = b, given the LU factorization of A; as ``torch.lu_solve``."""
    return triangular.lu_solve(LU_data, LU_pivots, b)


def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """The pseudo-inverse; as ``torch.pinverse``, for which ``linalg.pinv`` is the newer name."""
    return least_squares.pinv(input, rcond)
