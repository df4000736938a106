"""disttorch under the names of the Python array API standard, 2024.12 (https://data-apis.org/array-api/2024.12/).

    xp = x.__array_namespace__()          # of a Tensor: this module
    xp.sum(x, axis=0, keepdims=True)

The package's own names keep PyTorch's meaning; here the same operations have the standard's names, keywords and promotion rules.
"""

import math

from . import fft as fft
from . import linalg as linalg
from .creation import (
    arange,
    asarray,
    empty,
    empty_like,
    eye,
    from_dlpack,
    full,
    full_like,
    linspace,
    meshgrid,
    ones,
    ones_like,
    tril,
    triu,
    zeros,
    zeros_like,
)
from .dtypes import (
    DTYPES,
    __array_namespace_info__,
    astype,
    can_cast,
    finfo,
    iinfo,
    isdtype,
    result_type,
)
from .elementwise import FUNCTIONS, clip
from .linalg import matmul, matrix_transpose, tensordot, vecdot
from .manipulation import (
    broadcast_arrays,
    broadcast_shapes,
    broadcast_to,
    concat,
    expand_dims,
    flip,
    moveaxis,
    permute_dims,
    repeat,
    reshape,
    roll,
    squeeze,
    stack,
    tile,
    unstack,
)
from .searching import (
    argmax,
    argmin,
    argsort,
    count_nonzero,
    isin,
    nonzero,
    searchsorted,
    sort,
    take,
    take_along_axis,
    unique_all,
    unique_counts,
    unique_inverse,
    unique_values,
    where,
)
from .statistical import all, any, cumulative_prod, cumulative_sum, diff, max, mean, min, prod, std, sum, var

__array_api_version__ = "2024.12"

e, inf, nan, pi, newaxis = math.e, math.inf, math.nan, math.pi, None

globals().update(FUNCTIONS)
globals().update(DTYPES)

__all__ = sorted(  # noqa: PLE0605 - the standard's names, from the files and the tables above
    name
    for name, value in globals().items()
    if name.startswith("__array_")
    or name in ("fft", "linalg")
    or not (name.startswith("_") or name in ("FUNCTIONS", "DTYPES") or isinstance(value, type(math)))
)
