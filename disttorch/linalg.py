"""Linear algebra, as ``torch.linalg``: factorizations, solutions, norms and functions of matrices, batched over leading dimensions."""

from .ops.linalg.arguments import LinAlgError
from .ops.linalg.conditioning import cond, matrix_rank
from .ops.linalg.determinants import det, slogdet
from .ops.linalg.factorizations import cholesky, cholesky_ex, lu, lu_factor, lu_factor_ex
from .ops.linalg.functions import matrix_exp, matrix_power
from .ops.linalg.indefinite import ldl_factor, ldl_factor_ex, ldl_solve
from .ops.linalg.least_squares import lstsq, pinv
from .ops.linalg.norms import matrix_norm, norm, vector_norm
from .ops.linalg.orthogonal import householder_product, qr
from .ops.linalg.products import diagonal, multi_dot, vander, vecdot
from .ops.linalg.products import linalg_cross as cross
from .ops.linalg.solves import inv, inv_ex, solve, solve_ex, tensorinv, tensorsolve
from .ops.linalg.spectral import eig, eigh, eigvals, eigvalsh, svd, svdvals
from .ops.linalg.triangular import lu_solve, solve_triangular
from .ops.linear import matmul
from .ops.spelling import spelled_in

__all__ = [
    "LinAlgError", "cholesky", "cholesky_ex", "cond", "cross", "det", "diagonal", "eig", "eigh", "eigvals", "eigvalsh",
    "householder_product", "inv", "inv_ex", "ldl_factor", "ldl_factor_ex", "ldl_solve", "lstsq",
    "lu", "lu_factor", "lu_factor_ex", "lu_solve", "matmul", "matrix_exp",
    "matrix_norm", "matrix_power", "matrix_rank", "multi_dot", "norm", "pinv", "qr", "slogdet", "solve", "solve_ex",
    "solve_triangular", "svd", "svdvals", "tensorinv", "tensorsolve", "vander", "vecdot", "vector_norm",
]  # fmt: skip
spelled_in(globals(), __all__)
