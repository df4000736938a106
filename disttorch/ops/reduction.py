"""Reductions: sums, means, extremes, norms and their relatives over some dimensions or all."""

from __future__ import annotations

import builtins
from typing import Any, NamedTuple

from ..autograd.grad_mode import recording
from ..autograd.operation import Operation, apply, as_array, record, recorded
from ..autograd.variable import Tensor, wrap
from ..backend import NAMESPACES, namespace
from ..backend import dtypes as dt
from ..backend.dtypes import INTEGRAL
from . import pointwise
from .dims import normal_dim, normal_dims
from .elementwise import write_out

# What users find of this family, and where: see ops/public.py.
BOTH = """
    all amax amin any argmax argmin argsort bincount cumsum logsumexp max mean min norm prod sort std sum topk var
"""
TWINS = "cumsum"


class Extreme(NamedTuple):
    """What max, min, sort and topk along a dimension return."""

    values: Tensor
    indices: Tensor



def _spread(xp: Any, a: Any, shape: tuple[int, ...], dim: Any, keepdim: bool) -> Any:
    """A reduced array over the shape it was reduced from."""
    if not keepdim and dim is not None and shape:
        a = xp.reshape(a, tuple(1 if i in dim else n for i, n in enumerate(shape)))
    return xp.broadcast_to(a, shape)


def _axis(dim: tuple[int, ...] | None) -> Any:
    return dim[0] if dim is not None and len(dim) == 1 else dim


def _spread_rule(g: Any, x_shape: Any, dim: Any, keepdim: bool, xp: Any) -> Any:
    return _spread(xp, g, x_shape, dim, keepdim)


_sum = Operation(
    "sum", lambda xp, x, *, dim, keepdim: xp.sum(x, dim, keepdim), x=_spread_rule
)
_mean = Operation(
    "mean",
    lambda xp, x, *, dim, keepdim: xp.mean(x, dim, keepdim),
    x=lambda g, x_shape, dim, keepdim, xp: _spread(xp, g * (1 / builtins.max(_count(x_shape, dim), 1)), x_shape, dim, keepdim),
)


def _count(shape: tuple[int, ...], dim: tuple[int, ...] | None) -> int:
    n = 1
    for i, d in enumerate(shape):
        if dim is None or i in dim:
            n *= d
    return n


def _prod_rule(g: Any, x: Any, out: Any, dim: Any, keepdim: bool, xp: Any) -> Any:
    # out / x, but where x is 0 the product of the others, from both sides
    if not xp.any(x == 0):
        return _spread(xp, g * out, x.shape, dim, keepdim) / x
    if dim is None:
        flat = xp.reshape(x, (-1,))
        return g * xp.reshape(_product_of_others(xp, flat, 0), x.shape)
    return _spread(xp, g, x.shape, dim, keepdim) * _product_of_others(xp, x, dim[0])


def _product_of_others(xp: Any, x: Any, axis: int) -> Any:
    n = x.shape[axis]

    def part(start: int, stop: int) -> Any:
        return x[(slice(None),) * axis + (slice(start, stop),)]

    parts = []
    for i in range(n):
        others = xp.concatenate((part(0, i), part(i + 1, n)), axis=axis)
        parts.append(xp.prod(others, axis=axis, keepdims=True))
    return xp.concatenate(tuple(parts), axis=axis)


_prod = Operation("prod", lambda xp, x, *, dim, keepdim: xp.prod(x, axis=_axis(dim), keepdims=keepdim), x=_prod_rule)


def _extreme_rule(g: Any, x: Any, out: Any, dim: Any, keepdim: bool, xp: Any) -> Any:
    """amax and amin: equal extremes share the gradient, as PyTorch documents."""
    chosen = x == _spread(xp, out, x.shape, dim, keepdim)
    share = xp.astype(chosen, g.dtype)
    total = xp.sum(share, axis=_axis(dim), keepdims=keepdim)
    return _spread(xp, g / total, x.shape, dim, keepdim) * share


_amax = Operation("amax", lambda xp, x, *, dim, keepdim: xp.max(x, axis=_axis(dim), keepdims=keepdim), x=_extreme_rule)
_amin = Operation("amin", lambda xp, x, *, dim, keepdim: xp.min(x, axis=_axis(dim), keepdims=keepdim), x=_extreme_rule)


def _chosen(function: str) -> Any:
    """max and min along one dimension: the values, and (an extra, as only they have a gradient) where they were."""

    def forward(xp: Any, x: Any, *, dim: int, keepdim: bool) -> Any:
        if not x.ndim:
            return xp.array(x), xp.zeros((), dt.int64.numpy)
        values = getattr(xp, function.removeprefix("arg"))(x, dim, keepdim)
        indices = getattr(x, function)(dim, keepdims=keepdim)
        return values, xp.asarray(indices)

    return forward


def _chosen_rule(g: Any, indices: Any, x_shape: Any, dim: int, keepdim: bool, xp: Any) -> Any:
    if not x_shape:
        return g
    if not keepdim:
        g, indices = xp.expand_dims(g, dim), xp.expand_dims(indices, dim)
    return xp.scatter_add(g, indices, x_shape, dim)


_max_along = Operation("max", _chosen("argmax"), extras=("indices",), x=_chosen_rule)
_min_along = Operation("min", _chosen("argmin"), extras=("indices",), x=_chosen_rule)


def _in_dtype(input: Tensor, dtype: Any) -> Tensor:
    return input if dtype is None else input.to(dtype=dtype)


def _whole_number_sum(input: Tensor) -> Any:
    """PyTorch adds and multiplies integers in int64."""
    return dt.int64 if input._array.dtype in dt.INTEGRAL else None


def sum(
    input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, out: Tensor | None = None, axis: Any = None
) -> Tensor:
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
    a = input._array
    if axis is not None:
        dim = axis
    if dim is not None:
        dim = normal_dims(dim, a.ndim, "sum")
    if dtype is not None or a.dtype in INTEGRAL:
        input = _in_dtype(input, dtype or dt.int64)
        a = input._array
    result = recorded(_sum, input, NAMESPACES[a.__class__].sum(a, dim, keepdim), {"dim": dim, "keepdim": keepdim})
    return result if out is None else write_out("sum", result, out)


def mean(
    input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, out: Tensor | None = None, axis: Any = None
) -> Tensor:
    """The mean over some dimensions or all; as ``torch.mean``.

    Raises
    ------
    RuntimeError
        For integers, which have no mean of their own dtype.
    """
    if dtype is not None:
        input = _in_dtype(input, dtype)
    if input._array.dtype in dt.INTEGRAL:
        raise RuntimeError(
            f"mean(): could not infer output dtype. Input dtype must be either a floating point or complex dtype. Got: {input.dtype}"
        )
    dim = dim if axis is None else axis
    if dim is not None:
        dim = normal_dims(dim, input._array.ndim, "mean")
    a = input._array
    result = recorded(_mean, input, NAMESPACES[a.__class__].mean(a, dim, keepdim), {"dim": dim, "keepdim": keepdim})
    return result if out is None else write_out("mean", result, out)


def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The product of all elements or along a dimension; as ``torch.prod``."""
    dims = normal_dims(dim, input.ndim, "prod")
    return apply(_prod, _in_dtype(input, dtype or _whole_number_sum(input)), dim=dims, keepdim=keepdim)


def _refuse_empty(name: str, input: Tensor, dims: tuple[int, ...] | None) -> None:
    shape = input._array.shape
    if 0 in (shape if dims is None else [shape[d] for d in dims]):
        raise IndexError(
            f"{name}(): expected reduction dim to have non-zero size, but the shape is {list(shape)} and dim "
            f"{'all' if dims is None else list(dims)}"
        )


def amax(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """The greatest value over some dimensions or all; equal ones share the gradient. As ``torch.amax``."""
    dims = normal_dims(dim, input.ndim, "amax")
    _refuse_empty("amax", input, dims)
    return apply(_amax, input, dim=dims, keepdim=keepdim)


def amin(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """The smallest value over some dimensions or all; equal ones share the gradient. As ``torch.amin``."""
    dims = normal_dims(dim, input.ndim, "amin")
    _refuse_empty("amin", input, dims)
    return apply(_amin, input, dim=dims, keepdim=keepdim)


def _extreme(name: str, along: Operation, whole: Operation, pairwise: str) -> Any:
    def function(input: Tensor, dim: Any = None, keepdim: bool = False, *, out: Any = None, axis: Any = None) -> Any:
        if isinstance(dim, Tensor):
            return getattr(pointwise, pairwise)(input, dim, out=out)
        if dim is None and axis is None:
            _refuse_empty(name, input, None)
            result = apply(whole, input, dim=None, keepdim=False)
            return result if out is None else write_out(name, result, out)
        a = input._array
        dim = normal_dim(dim if axis is None else axis, a.ndim, name)
        if a.ndim and not a.shape[dim]:
            _refuse_empty(name, input, (dim,))
        values, indices = along.forward(NAMESPACES[a.__class__], a, dim=dim, keepdim=keepdim)
        both = Extreme(wrap(as_array(values)), wrap(indices))
        mode = recording.get()
        if mode and input._node is not None:
            record(along, (input,), (a,), both.values, (indices,), {"dim": dim, "keepdim": keepdim}, mode)
        return both if out is None else Extreme(*(write_out(name, r, o) for r, o in zip(both, out)))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""The {name}imum of all elements, along a dimension with its indices, or of two tensors; as ``torch.{name}``.

    Parameters
    ----------
    input : Tensor
    dim : int or Tensor, optional
        The dimension; or another tensor, for `{pairwise}`.
    keepdim : bool
        Whether that dimension stays with size 1.

    Returns
    -------
    Tensor, or with `dim` a named tuple (values, indices)
    """
    return function


max = _extreme("max", _max_along, _amax, "maximum")
min = _extreme("min", _min_along, _amin, "minimum")


def _arg(name: str) -> Any:
    def function(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
        a = input._array
        xp = namespace(a)
        dims = None if dim is None else normal_dim(dim, a.ndim, name)
        _refuse_empty(name, input, None if dims is None or not a.ndim else (dims,))
        if not a.ndim:
            return wrap(xp.zeros((), dt.int64.numpy))
        found = getattr(xp, name)(a, axis=dims)
        if keepdim:
            found = xp.reshape(found, (1,) * a.ndim) if dims is None else xp.expand_dims(found, dims)
        return wrap(xp.asarray(found, dt.int64.numpy))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The index of the {name[3:]}imum, in the flattened tensor or along a dimension; as ``torch.{name}``."
    return function


argmax, argmin = _arg("argmax"), _arg("argmin")


def _truth(name: str) -> Any:
    def function(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
        a = input._array
        xp = namespace(a)
        found = getattr(xp, name)(a, axis=normal_dims(dim, a.ndim, name), keepdims=keepdim)
        # PyTorch keeps uint8 for uint8
        return wrap(xp.asarray(found, dt.uint8.numpy if a.dtype == dt.uint8.numpy else dt.bool_.numpy))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Whether {name} of the elements are true, over some dimensions or all; as ``torch.{name}``."
    return function


all, any = _truth("all"), _truth("any")


def var(
    input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
) -> Tensor:
    """The variance over some dimensions or all; as ``torch.var``.

    Parameters
    ----------
    input : Tensor
        Floating point.
    dim : int or tuple of int, optional
    unbiased : bool, optional
        False for ``correction=0``.
    keepdim : bool
    correction : float
        What is taken from the number of elements before dividing; 1 (Bessel's correction) unless given.
    """
    if isinstance(dim, bool):  # var(x, unbiased)
        dim, unbiased = None, dim
    if correction is None:
        correction = 0 if unbiased is False else 1
    dims = normal_dims(dim, input.ndim, "var")
    n = _count(input._array.shape, dims)
    centred = input - mean(input, dims, True)
    squares = sum(centred * centred, dims, keepdim)
    return squares / (n - correction) if n > correction else squares * float("nan" if not n else "inf")


def std(
    input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
) -> Tensor:
    """The standard deviation: the square root of `var`; as ``torch.std``."""
    return pointwise.sqrt(var(input, dim, unbiased, keepdim, correction=correction))


def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """log(sum(exp(x))) without overflow, floating point for integers too; as ``torch.logsumexp``."""
    if input._array.dtype in dt.INTEGRAL:
        input = input.to(dtype=dt.get_default_dtype())
    return apply(_logsumexp, input, dim=normal_dims(dim, input.ndim, "logsumexp"), keepdim=keepdim)


_logsumexp = Operation(
    "logsumexp",
    lambda xp, x, *, dim, keepdim: xp.logsumexp(x, _axis(dim), keepdim),
    x=lambda g, x, out, dim, keepdim, xp: (
        _spread(xp, g, x.shape, dim, keepdim) * xp.exp(x - _spread(xp, out, x.shape, dim, keepdim))
    ),
)


def norm(input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
    """The p-norm of the elements over some dimensions or all; as ``torch.norm``.

    Parameters
    ----------
    input : Tensor
        Floating point.
    p : float or "fro"
        ``"fro"`` is 2; infinities give the greatest and smallest absolute value; 0 counts what is not zero.
    dim : int or tuple of int, optional
    keepdim : bool
    """
    input = _in_dtype(input, dtype)
    if p == "fro" or p is None:
        p = 2.0
    if not isinstance(p, (int, float)):
        raise RuntimeError(f"norm: p must be a number or 'fro', not {p!r}")
    dims = normal_dims(dim, input.ndim, "norm")
    if p == 2:
        return apply(_norm2, input, dim=dims, keepdim=keepdim)
    size = pointwise.abs(input)
    if p == float("inf"):
        return amax(size, dims, keepdim)
    if p == -float("inf"):
        return amin(size, dims, keepdim)
    if p == 0:
        return sum(pointwise.ne(input, 0), dims, keepdim, dtype=input.dtype)
    if p == 1:
        return sum(size, dims, keepdim)
    return sum(size**p, dims, keepdim) ** (1.0 / p)


_norm2 = Operation(
    "norm",
    lambda xp, x, *, dim, keepdim: xp.sqrt(
        xp.sum(x.real**2 + x.imag**2 if x.dtype.kind == "c" else x * x, axis=_axis(dim), keepdims=keepdim)
    ),
    # at 0 the subgradient 0, as in PyTorch
    x=lambda g, x, out, dim, keepdim, xp: x * _spread(
        xp, xp.where(out == 0, xp.zeros_like(g), g / xp.where(out == 0, xp.ones_like(out), out)), x.shape, dim, keepdim
    ),
)

_cumsum = Operation(
    "cumsum", lambda xp, x, *, dim: xp.cumsum(x, axis=dim), x=lambda g, dim, xp: xp.flip(xp.cumsum(xp.flip(g, dim), axis=dim), dim)
)


def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Running sums along a dimension; as ``torch.cumsum``."""
    input = _in_dtype(input, dtype or _whole_number_sum(input))
    return apply(_cumsum, input, dim=normal_dim(dim, input.ndim, "cumsum")) if input.ndim else input.clone()


_sorted_values = Operation(
    "sort",
    lambda xp, x, order, *, dim: xp.take_along_axis(x, order, axis=dim),
    x=lambda g, order, x_shape, dim, xp: xp.scatter_add(g, order, x_shape, dim),
)


def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The indices that sort along a dimension; as ``torch.argsort``. Always stable."""
    a = input._array
    xp = namespace(a)
    if not a.ndim:
        return wrap(xp.zeros((), dt.int64.numpy))
    dim = normal_dim(dim, a.ndim, "argsort")
    if descending:
        # flipped twice, so that equal elements keep their order
        order = a.shape[dim] - 1 - xp.flip(xp.argsort(xp.flip(a, dim), axis=dim, kind="stable"), dim)
    else:
        order = xp.argsort(a, axis=dim, kind="stable")
    return wrap(xp.ascontiguousarray(order))


def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Extreme:
    """Sorted values and where they were; as ``torch.sort``. Always stable."""
    order = argsort(input, dim, descending)
    if not input.ndim:
        return Extreme(input.clone(), order)
    return Extreme(apply(_sorted_values, input, order, dim=normal_dim(dim, input.ndim)), order)


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Extreme:
    """The k greatest (or smallest) values along a dimension, in order, and where they were; as ``torch.topk``.

    Raises
    ------
    RuntimeError
        If the dimension has fewer than `k` elements.
    """
    dim = normal_dim(dim, input.ndim, "topk")
    size = input.shape[dim] if input.ndim else 1
    if not 0 <= k <= size:
        raise RuntimeError(f"topk: selected index k out of range: k is {k}, but dimension {dim} has size {size}")
    values, order = sort(input, dim, largest)
    if not input.ndim:
        return Extreme(values, order)
    return Extreme(values.narrow(dim, 0, k), order.narrow(dim, 0, k))


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each non-negative integer occurs, or the sum of the weights there; as ``torch.bincount``.

    Raises
    ------
    RuntimeError
        If the input is not one-dimensional, has negative values or is not of an integer dtype.
    """
    a = input._array
    if a.ndim != 1 or a.dtype not in dt.INTEGRAL or (a.size and int(a.min()) < 0):
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    xp = namespace(a)
    counts = xp.bincount(a, None if weights is None else weights._array, minlength)
    return wrap(counts if weights is not None else counts.astype(dt.int64.numpy))
