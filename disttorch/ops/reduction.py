"""Reductions: sums, means, products and truth over some dimensions or all."""

from __future__ import annotations

from typing import Any

from ..autograd.operation import Operation, apply, recorded
from ..autograd.variable import Tensor, wrap
from ..backend import NAMESPACES, namespace
from ..backend import dtypes as dt
from ..backend.dtypes import INTEGRAL
from . import pointwise
from .dims import normal_dim, normal_dims
from .operands import expect_tensors, write_out
from .reducing import axis_of, count_of, in_dtype, spread

# What users find of this family, and where: see ops/public.py.
BOTH = "all any count_nonzero logsumexp mean nanmean nansum prod sum"
OUT = "all any logsumexp prod"


_sum = Operation(
    "sum",
    lambda xp, x, *, dim, keepdim: xp.sum(x, axis=dim, keepdims=keepdim),
    x=lambda g, x_shape, dim, keepdim, xp: spread(xp, g, x_shape, dim, keepdim),
)
_mean = Operation(
    "mean",
    lambda xp, x, *, dim, keepdim: xp.mean(x, axis=dim, keepdims=keepdim),
    x=lambda g, x_shape, dim, keepdim, xp: spread(xp, g * (1 / (count_of(x_shape, dim) or 1)), x_shape, dim, keepdim),
)


def sum(
    input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, out: Tensor | None = None, axis: Any = None,
    keepdims: bool = False,
) -> Tensor:  # fmt: skip
    """The sum over some dimensions or all; as ``torch.sum``.

    Parameters
    ----------
    input : Tensor
        Of any shape and dtype; integers and bool are added in int64, half types in float32.
    dim : int or tuple of int, optional
        What to sum over; all dimensions if absent.
    keepdim : bool
        Whether these dimensions stay with size 1.
    dtype : dtype, optional
        To convert to first.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.ones(2, 3).sum(dim=1)
    tensor([3., 3.])
    """
    try:
        a = input._array
    except AttributeError:
        raise TypeError(f"sum(): argument 'input' must be Tensor, not {type(input).__name__}") from None
    if axis is not None:
        dim = axis
    keepdim = keepdim or keepdims
    if keepdim is not False and keepdim is not True:
        raise TypeError(f"sum(): argument 'keepdim' must be bool, not {type(keepdim).__name__}; several dimensions are one tuple")
    if dim is not None:
        dim = normal_dims(dim, a.ndim, "sum")
    if dtype is not None or a.dtype in INTEGRAL:
        input = in_dtype(input, dtype or dt.int64)
        a = input._array
        total = NAMESPACES[a.__class__].sum(a, dim, keepdim).astype(a.dtype)  # the library adds small integers in large ones
    else:
        total = NAMESPACES[a.__class__].sum(a, dim, keepdim)
    result = recorded(_sum, input, total, {"dim": dim, "keepdim": keepdim})
    return result if out is None else write_out("sum", result, out)


def mean(
    input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, out: Tensor | None = None, axis: Any = None,
    keepdims: bool = False,
) -> Tensor:  # fmt: skip
    """The mean over some dimensions or all; as ``torch.mean``.

    Parameters
    ----------
    input : Tensor
        Floating point or complex.
    dim : int or tuple of int, optional
        All dimensions if absent.
    keepdim : bool
        Whether these dimensions stay with size 1.
    dtype : dtype, optional
        To convert to first.

    Raises
    ------
    RuntimeError
        For integers, which have no mean of their own dtype.
    """
    if dtype is not None:
        input = in_dtype(input, dtype)
    if input._array.dtype in INTEGRAL:
        raise RuntimeError(
            f"mean(): could not infer output dtype. Input dtype must be either a floating point or complex dtype. Got: {input.dtype}"
        )
    dim = dim if axis is None else axis
    keepdim = keepdim or keepdims
    if keepdim is not False and keepdim is not True:
        raise TypeError(f"mean(): argument 'keepdim' must be bool, not {type(keepdim).__name__}; several dimensions are one tuple")
    if dim is not None:
        dim = normal_dims(dim, input._array.ndim, "mean")
    a = input._array
    result = recorded(_mean, input, NAMESPACES[a.__class__].mean(a, dim, keepdim), {"dim": dim, "keepdim": keepdim})
    return result if out is None else write_out("mean", result, out)


# NaN is left out: of the sum, and of the count
_nansum = Operation(
    "nansum",
    lambda xp, x, *, dim, keepdim: xp.sum(xp.where(xp.isnan(x), xp.zeros_like(x), x), axis=axis_of(dim), keepdims=keepdim),
    x=lambda g, x, dim, keepdim, xp: spread(xp, g, x.shape, dim, keepdim) * ~xp.isnan(x),
)


def nansum(
    input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, out: Tensor | None = None
) -> Tensor:
    """The sum without NaN; as ``torch.nansum``."""
    if input._array.dtype in INTEGRAL:
        return sum(input, dim, keepdim, dtype=dtype, out=out)
    if input.is_complex():
        raise RuntimeError("nansum does not support complex inputs")
    result = apply(_nansum, in_dtype(input, dtype), dim=normal_dims(dim, input.ndim, "nansum"), keepdim=keepdim)
    return result if out is None else write_out("nansum", result, out)


def nanmean(
    input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, out: Tensor | None = None
) -> Tensor:
    """The mean of what is not NaN; as ``torch.nanmean``.

    Raises
    ------
    RuntimeError
        For integers.
    """
    if input._array.dtype in INTEGRAL:
        raise RuntimeError(f"nanmean(): expected input to have floating point or complex dtype but got {input.dtype}")
    input = in_dtype(input, dtype)
    there = sum(pointwise.logical_not(pointwise.isnan(input)), dim, keepdim)
    result = nansum(input, dim, keepdim) / there
    return result if out is None else write_out("nanmean", result, out)


# --- products ---------------------------------------------------------------------------------------------------------


def _prod_rule(g: Any, x: Any, out: Any, dim: Any, keepdim: bool, xp: Any) -> Any:
    # out / x, but where x is 0 the product of the others, from both sides
    if not x.shape:
        return g
    if not xp.any(x == 0):
        return spread(xp, g * out, x.shape, dim, keepdim) / x
    if dim is None:
        flat = xp.reshape(x, (-1,))
        return g * xp.reshape(_product_of_others(xp, flat, 0), x.shape)
    return spread(xp, g, x.shape, dim, keepdim) * _product_of_others(xp, x, dim[0])


def _product_of_others(xp: Any, x: Any, axis: int) -> Any:
    """For each element the product of those before it times the product of those behind it."""
    before, behind = (slice(None),) * axis + (slice(None, -1),), (slice(None),) * axis + (slice(1, None),)
    one = xp.ones_like(x[(slice(None),) * axis + (slice(None, 1),)])
    left = xp.concatenate((one, xp.cumprod(x[before], axis)), axis=axis)
    right = xp.concatenate((xp.flip(xp.cumprod(xp.flip(x[behind], axis), axis), axis), one), axis=axis)
    return left * right


_prod = Operation("prod", lambda xp, x, *, dim, keepdim: xp.prod(x, axis=axis_of(dim), keepdims=keepdim), x=_prod_rule)


def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The product of all elements or along a dimension, of integers in int64; as ``torch.prod``.

    Parameters
    ----------
    input : Tensor
    dim : int, optional
        All dimensions if absent.
    keepdim : bool
        Whether that dimension stays with size 1.
    dtype : dtype, optional
        To convert to first.
    """
    dims = None if dim is None else normal_dims(normal_dim(dim, input.ndim, "prod"), input.ndim)
    if dtype is None and input._array.dtype in INTEGRAL:
        dtype = dt.int64
    input = in_dtype(input, dtype)
    return apply(_prod, input, dim=dims, keepdim=keepdim and dim is not None).to(dtype=input.dtype)


# --- truth ------------------------------------------------------------------------------------------------------------


def _truth(name: str) -> Any:
    def function(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
        expect_tensors(name, input)
        a = input._array
        xp = namespace(a)
        if a.dtype != dt.bool_.numpy:
            a = a != 0
        found = getattr(xp, name)(a, axis=normal_dims(dim, a.ndim, name), keepdims=keepdim)
        # PyTorch keeps uint8 for uint8
        return wrap(xp.asarray(found, dt.uint8.numpy if input._array.dtype == dt.uint8.numpy else dt.bool_.numpy))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Whether {name} of the elements are true, over some dimensions or all; as ``torch.{name}``."
    return function


all, any = _truth("all"), _truth("any")


def count_nonzero(input: Tensor, dim: Any = None) -> Tensor:
    """How many elements are not zero, over some dimensions or all; as ``torch.count_nonzero``."""
    expect_tensors("count_nonzero", input)
    a = input._array
    xp = namespace(a)
    return wrap(xp.asarray(xp.sum(a != 0, normal_dims(dim, a.ndim, "count_nonzero")), dt.int64.numpy))


# --- logarithms of sums -----------------------------------------------------------------------------------------------

_logsumexp = Operation(
    "logsumexp",
    lambda xp, x, *, dim, keepdim: xp.logsumexp(x, axis=axis_of(dim), keepdims=keepdim),
    x=lambda g, x, out, dim, keepdim, xp: (
        spread(xp, g, x.shape, dim, keepdim) * xp.exp(x - _finite(xp, spread(xp, out, x.shape, dim, keepdim)))
    ),
)


def _finite(xp: Any, a: Any) -> Any:
    # exp(-inf - -inf) shall be exp(-inf)
    return xp.where(a == -float("inf"), xp.zeros_like(a), a)


def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """log(sum(exp(x))) without overflow, floating point for integers too; as ``torch.logsumexp``.

    Parameters
    ----------
    input : Tensor
    dim : int or tuple of int
    keepdim : bool
        Whether these dimensions stay with size 1.
    """
    if input._array.dtype in INTEGRAL:
        input = input.to(dtype=dt.get_default_dtype())
    return apply(_logsumexp, input, dim=normal_dims(dim, input.ndim, "logsumexp"), keepdim=keepdim)
