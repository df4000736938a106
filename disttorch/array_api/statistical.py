"""The standard's reductions and cumulative functions."""

from __future__ import annotations

from typing import Any

from ..autograd.variable import Tensor
from ..backend.dtypes import FLOAT, INTEGER, PUBLIC_DTYPES, get_default_dtype
from ..ops import FUNCTIONS as OURS

__all__ = ["all", "any", "cumulative_prod", "cumulative_sum", "diff", "max", "mean", "min", "prod", "std", "sum", "var"]


def max(x: Tensor, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The largest element, of all or along axes."""
    return OURS["amax"](x, _axes(x, axis), keepdims) if axis != () else OURS["clone"](x)


def min(x: Tensor, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The smallest element, of all or along axes."""
    return OURS["amin"](x, _axes(x, axis), keepdims) if axis != () else OURS["clone"](x)


def mean(x: Tensor, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The mean, of all or along axes."""
    x = _floating(x)
    return OURS["mean"](x, _axes(x, axis), keepdims) if axis != () else OURS["clone"](x)


def sum(x: Tensor, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """The sum, of all or along axes; of small integers in the default type, of unsigned ones in uint64."""
    dtype = _dtype_of_sums(x, dtype)
    return OURS["sum"](x, _axes(x, axis), keepdims, dtype=dtype) if axis != () else OURS["clone"](x).to(dtype=dtype)


def prod(x: Tensor, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """The product, of all or along axes."""
    dtype = _dtype_of_sums(x, dtype)
    result = x.to(dtype=dtype)
    for a in sorted((a % x.ndim for a in _axes(x, axis)), reverse=True):
        result = OURS["prod"](result, a, keepdims, dtype=dtype)
    return result


def var(x: Tensor, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The variance, of all or along axes; divided by N - `correction`."""
    return OURS["var"](_floating(x), _axes(x, axis), correction=correction, keepdim=keepdims)


def std(x: Tensor, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The standard deviation, of all or along axes."""
    return OURS["std"](_floating(x), _axes(x, axis), correction=correction, keepdim=keepdims)


def all(x: Tensor, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Whether all elements are not zero, in the array or along axes."""
    nonzero: Any = x != 0
    return OURS["all"](nonzero, _axes(x, axis), keepdims) if axis != () else nonzero


def any(x: Tensor, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Whether one element is not zero, in the array or along axes."""
    nonzero: Any = x != 0
    return OURS["any"](nonzero, _axes(x, axis), keepdims) if axis != () else nonzero


def _floating(x: Tensor) -> Tensor:
    """Integers in the default floating-point dtype: the standard leaves it open, NumPy's users expect it."""
    return x if x.dtype.category >= FLOAT else x.to(get_default_dtype())


def _axes(x: Tensor, axis: Any) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(x.ndim))
    return (axis,) if isinstance(axis, int) else tuple(axis)


def _dtype_of_sums(x: Tensor, dtype: Any) -> Any:
    """The dtype in which a sum is computed."""
    if dtype is not None:
        return dtype
    unsigned = x.dtype.category == INTEGER and not x.dtype.is_signed
    return PUBLIC_DTYPES["uint64"] if unsigned else OURS["sum"](x[:0] if x.ndim else x).dtype


def cumulative_sum(x: Tensor, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Tensor:
    """The sums of an element and all before it along an axis; with a zero in front, if asked for."""
    return _cumulative("cumsum", 0, x, axis, dtype, include_initial)


def cumulative_prod(x: Tensor, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Tensor:
    """The products of an element and all before it along an axis; with a one in front, if asked for."""
    return _cumulative("cumprod", 1, x, axis, dtype, include_initial)


def _cumulative(name: str, initial: int, x: Tensor, axis: int | None, dtype: Any, include_initial: bool) -> Tensor:
    if axis is None:
        if x.ndim != 1:
            raise ValueError(f"{name}: an axis must be given for an array of {x.ndim} dimensions")
        axis = 0
    result = OURS[name](x, axis, dtype=_dtype_of_sums(x, dtype))
    if not include_initial:
        return result
    shape = list(x.shape)
    shape[axis] = 1
    return OURS["cat"]([OURS["full"](shape, initial, dtype=result.dtype, device=x.device), result], axis)


def diff(x: Tensor, /, *, axis: int = -1, n: int = 1, prepend: Tensor | None = None, append: Tensor | None = None) -> Tensor:
    """The differences of neighbours along an axis, n times."""
    return OURS["diff"](x, n, axis, prepend, append)
