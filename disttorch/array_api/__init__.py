"""disttorch under the names of the Python array API standard, 2024.12 (https://data-apis.org/array-api/2024.12/).

    xp = x.__array_namespace__()          # of a Tensor: this module
    xp.sum(x, axis=0, keepdims=True)

The package's own names keep PyTorch's meaning; here the same operations have the standard's names, keywords and promotion rules.
"""

from . import fft, linalg
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

e, inf, nan, newaxis, pi = 2.718281828459045, float("inf"), float("nan"), None, 3.141592653589793

globals().update(FUNCTIONS)
globals().update(DTYPES)

__all__ = [
    "__array_api_version__", "__array_namespace_info__", "e", "inf", "nan", "newaxis", "pi", "all", "any", "arange", "argmax", "argmin",
    "argsort", "asarray", "astype", "broadcast_arrays", "broadcast_to", "can_cast", "clip", "concat", "count_nonzero", "cumulative_prod",
    "cumulative_sum", "diff", "empty", "empty_like", "expand_dims", "eye", "fft", "finfo", "flip", "from_dlpack", "full", "full_like",
    "iinfo", "isdtype", "linalg", "linspace", "matmul", "matrix_transpose", "max", "mean", "meshgrid", "min", "moveaxis", "nonzero",
    "ones", "ones_like", "permute_dims", "prod", "repeat", "reshape", "result_type", "roll", "searchsorted", "sort", "squeeze", "stack",
    "std", "sum", "take", "take_along_axis", "tensordot", "tile", "tril", "triu", "unique_all", "unique_counts", "unique_inverse",
    "unique_values", "unstack", "var", "vecdot", "where", "zeros", "zeros_like", *FUNCTIONS, *DTYPES,
]  # fmt: skip
