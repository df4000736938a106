"""Special functions under SciPy's names; as ``torch.special``."""

from __future__ import annotations

from .ops.arithmetic import xlogy
from .ops.nn.names import log_softmax, softmax
from .ops.pointwise import erf, erfc, exp2, expm1, log1p, logit, sinc
from .ops.pointwise import sigmoid as expit
from .ops.reduction import logsumexp
from .ops.special import (
    POLYNOMIAL_FUNCTIONS,
    airy_ai,
    bessel_j0,
    bessel_j1,
    bessel_y0,
    bessel_y1,
    digamma,
    entr,
    erfcx,
    erfinv,
    i0,
    i0e,
    i1,
    i1e,
    log_ndtr,
    modified_bessel_i0,
    modified_bessel_i1,
    modified_bessel_k0,
    modified_bessel_k1,
    multigammaln,
    ndtr,
    ndtri,
    polygamma,
    round,
    scaled_modified_bessel_k0,
    scaled_modified_bessel_k1,
    spherical_bessel_j0,
    xlog1py,
    zeta,
)
from .ops.special import digamma as psi
from .ops.special import igamma as gammainc
from .ops.special import igammac as gammaincc
from .ops.special import lgamma as gammaln
from .ops.spelling import spelled_in

__all__ = [
    "airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "digamma", "entr", "erf", "erfc", "erfcx", "erfinv", "exp2",
    "expit", "expm1", "gammainc", "gammaincc", "gammaln", "i0", "i0e", "i1", "i1e", "log1p", "log_ndtr", "log_softmax", "logit",
    "logsumexp", "modified_bessel_i0", "modified_bessel_i1", "modified_bessel_k0", "modified_bessel_k1", "multigammaln", "ndtr",
    "ndtri", "polygamma", "psi", "round", "scaled_modified_bessel_k0", "scaled_modified_bessel_k1", "sinc", "softmax",
    "spherical_bessel_j0", "xlog1py", "xlogy", "zeta",
]  # fmt: skip
globals().update(POLYNOMIAL_FUNCTIONS)
__all__ += list(POLYNOMIAL_FUNCTIONS)
_OF_X = ["airy_ai", "scaled_modified_bessel_k0", "scaled_modified_bessel_k1", "spherical_bessel_j0", *POLYNOMIAL_FUNCTIONS]
spelled_in(globals(), __all__, {name: {"x": "input", "n": "other"} for name in _OF_X})
