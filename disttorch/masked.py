"""Reductions and normalizations that leave out elements; as ``torch.masked``, on plain tensors with ``mask=``.

Each function is the unmasked one of the input with its left-out elements replaced by what does not change the result: 0 for sums,
1 for products, infinities for extremes. Where everything is left out the result is that of no elements.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .autograd.variable import Tensor
from .backend import dtypes as dt
from .ops import arithmetic, cumulative, extremes, linalg, pointwise, reduction, sorting
from .ops.dims import normal_dims
from .ops.indexing import where
from .ops.nn import softmax as softmaxes
from .ops.shape.views import expand

__all__ = [
    "amax", "amin", "argmax", "argmin", "cumprod", "cumsum", "log_softmax", "logaddexp", "logsumexp", "mean", "median", "norm",
    "normalize", "prod", "softmax", "softmin", "std", "sum", "var",
]  # fmt: skip

INFINITY = float("inf")


def _filled(name: str, input: Tensor, mask: Tensor | None, value: Any) -> Tensor:
    """The input with a value where the mask is false."""
    if mask is None:
        return input
    if mask.dtype is not dt.bool_:
        raise TypeError(f"masked.{name}: expected a bool mask, got {mask.dtype}")
    if mask.ndim > input.ndim:
        raise IndexError(f"masked.{name}: mask of shape {list(mask.shape)} has more dimensions than input of shape {list(input.shape)}")
    return where(expand(mask, input.shape), input, value)


def _lowest(input: Tensor) -> Any:
    return -INFINITY if input.dtype.category >= dt.FLOAT else 0 if input.dtype is dt.bool_ else dt.iinfo(input.dtype).min


def _highest(input: Tensor) -> Any:
    return INFINITY if input.dtype.category >= dt.FLOAT else 1 if input.dtype is dt.bool_ else dt.iinfo(input.dtype).max


def _cast(input: Tensor, dtype: Any, whole: Any = None) -> Tensor:
    """The input in a dtype; without one integers in `whole`, if that is given."""
    if dtype is None and whole is not None and input._array.dtype in dt.INTEGRAL:
        dtype = whole
    return input if dtype is None else input.to(dtype=dtype)


def _default_float(input: Tensor, dtype: Any) -> Tensor:
    return _cast(input, dtype, dt.get_default_dtype())


def _document(function: Callable[..., Any], name: str, text: str) -> Any:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""{text} Elements where the mask is false are left out; as ``torch.masked.{name}``."""
    return function


def sum(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The sum of the elements where the mask is true; as ``torch.masked.sum``.

    Parameters
    ----------
    input : Tensor
    dim : int or tuple of int, optional
        All dimensions if absent.
    keepdim : bool
        Whether these dimensions stay with size 1.
    dtype : dtype, optional
        To convert to first.
    mask : Tensor, optional
        bool, broadcast to the input's shape; all true if absent.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.masked.sum(disttorch.tensor([1.0, 2.0, 4.0]), mask=disttorch.tensor([True, False, True]))
    tensor(5.)
    """
    return reduction.sum(_filled("sum", _cast(input, dtype, dt.int64), mask, 0), dim, keepdim)


def prod(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The product of the elements where the mask is true; as ``torch.masked.prod``."""
    x = _filled("prod", _cast(input, dtype, dt.int64), mask, 1)
    dims = normal_dims(dim, x.ndim, "prod")
    for d in sorted(dims if dims is not None else range(x.ndim), reverse=True):
        x = reduction.prod(x, d, keepdim)
    return x


def _extreme(name: str, function: Callable[..., Tensor], neutral: Callable[[Tensor], Any]) -> Any:
    def masked(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
        x = _cast(input, dtype)
        return function(_filled(name, x, mask, neutral(x)), () if dim is None else dim, keepdim)

    return _document(masked, name, f"The {'greatest' if name == 'amax' else 'smallest'} value.")


amax, amin = _extreme("amax", extremes.amax, _lowest), _extreme("amin", extremes.amin, _highest)


def _place(name: str, function: Callable[..., Tensor], neutral: Callable[[Tensor], Any]) -> Any:
    def masked(input: Tensor, dim: int | None = None, *, keepdim: bool = False, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
        x = _cast(input, dtype)
        return function(_filled(name, x, mask, neutral(x)), dim, keepdim).to(dtype=x.dtype)

    return _document(masked, name, f"Where the {'greatest' if name == 'argmax' else 'smallest'} value is, in the input's dtype.")


argmax, argmin = _place("argmax", extremes.argmax, _lowest), _place("argmin", extremes.argmin, _highest)


def _running(name: str, function: Callable[..., Tensor], neutral: int) -> Any:
    def masked(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
        x = _filled(name, _cast(input, dtype), mask, neutral)
        return function(x, dim, dtype=x.dtype)

    return _document(masked, name, f"Running {'sums' if name == 'cumsum' else 'products'} along a dimension.")


cumsum, cumprod = _running("cumsum", cumulative.cumsum, 0), _running("cumprod", cumulative.cumprod, 1)


def _soft(name: str, function: Callable[..., Tensor], neutral: float) -> Any:
    def masked(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
        return function(_filled(name, _default_float(input, dtype), mask, neutral), dim)

    return _document(masked, name, f"`{name}` along a dimension.")


softmax = _soft("softmax", softmaxes.softmax, -INFINITY)
log_softmax = _soft("log_softmax", softmaxes.log_softmax, -INFINITY)
softmin = _soft("softmin", softmaxes.softmin, INFINITY)


def logsumexp(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """log(sum(exp(x))) of the elements where the mask is true, in the input's dtype; as ``torch.masked.logsumexp``."""
    x = _cast(input, dtype)
    return reduction.logsumexp(_filled("logsumexp", x, mask, _lowest(x)), () if dim is None else dim, keepdim).to(dtype=x.dtype)


def logaddexp(
    input: Tensor, other: Tensor, *, dtype: Any = None, input_mask: Tensor | None = None, other_mask: Tensor | None = None
) -> Tensor:
    """log(exp(input) + exp(other)), where what a mask leaves out adds nothing; as ``torch.masked.logaddexp``."""
    x = _filled("logaddexp", _default_float(input, dtype), input_mask, -INFINITY)
    return pointwise.logaddexp(x, _filled("logaddexp", _default_float(other, dtype), other_mask, -INFINITY))


def _count(input: Tensor, dim: Any, keepdim: bool, mask: Tensor | None, dtype: Any) -> Tensor:
    one = input.new_ones(input.shape, dtype=dtype)
    return reduction.sum(one if mask is None else _filled("count", one, mask, 0), dim, keepdim)


def mean(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The mean of the elements where the mask is true, NaN where there are none; as ``torch.masked.mean``.

    Raises
    ------
    ValueError
        For integers.
    """
    x = _cast(input, dtype)
    if x._array.dtype in dt.INTEGRAL:
        raise ValueError(
            f"mean(): could not infer output dtype. Input dtype must be either a floating point or complex dtype. Got: {x.dtype}"
        )
    count = _count(x, dim, keepdim, mask, dt.int64)
    return sum(x, dim, keepdim=keepdim, mask=mask) / count


def median(input: Tensor, dim: int = -1, *, keepdim: bool = False, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The median along a dimension of the elements where the mask is true, NaN where there are none; as ``torch.masked.median``.

    Raises
    ------
    ValueError
        If the input has NaN itself, which could not be told from what is left out.
    """
    x = _cast(input, dtype)
    if mask is None:
        return sorting.median(x, dim, keepdim).values
    if bool(pointwise.isnan(x).any()):
        raise ValueError("masked.median expects an input without NaN")
    return sorting.nanmedian(_filled("median", x, mask, float("nan")), dim, keepdim).values


def norm(
    input: Tensor,
    ord: float = 2.0,
    dim: Any = None,
    *,
    keepdim: bool = False,
    dtype: Any = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The vector norm of the elements where the mask is true; as ``torch.masked.norm``."""
    x = _default_float(input, dtype)
    return linalg.norms.vector_norm(_filled("norm", x, mask, INFINITY if ord == -INFINITY else 0), ord, dim, keepdim)


def normalize(
    input: Tensor, ord: float, dim: int, *, eps: float = 1e-12, dtype: Any = None, mask: Tensor | None = None
) -> Tensor:
    """The input divided by its norm along a dimension, at least `eps`; as ``torch.masked.normalize``."""
    x = _default_float(input, dtype)
    length = norm(x, ord, dim, keepdim=True, mask=mask)
    return _filled("normalize", x, mask, 0) / arithmetic.clamp(length, min=eps)


def var(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
    dtype: Any = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The variance of the elements where the mask is true, in the input's dtype; as ``torch.masked.var``."""
    if correction is None:
        correction = 0 if unbiased is False else 1
    x = _default_float(input, dtype)
    centred = x - mean(x, dim, keepdim=True, mask=mask)
    squares = pointwise.square(pointwise.abs(centred)) if x.is_complex() else centred * centred
    total = sum(squares, dim, keepdim=keepdim, mask=mask)
    count = _count(x, dim, keepdim, mask, total.dtype)
    return (total / arithmetic.clamp(count - correction, min=0)).to(dtype=x.dtype)


def std(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
    dtype: Any = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The standard deviation of the elements where the mask is true; as ``torch.masked.std``."""
    return pointwise.sqrt(var(input, dim, unbiased, correction=correction, keepdim=keepdim, dtype=dtype, mask=mask))
