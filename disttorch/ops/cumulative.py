"""Running sums, products and extremes, differences, and the trapezoidal rule."""

from __future__ import annotations

from typing import Any

from ..autograd.operation import Operation, apply
from ..autograd.variable import Tensor
from ..backend import dtypes as dt
from ..backend import namespace
from ..backend.dtypes import INTEGRAL
from . import pointwise
from .dims import normal_dim
from .reducing import Extreme, in_dtype, pick, picking
from .reduction import sum
from .shape.joining import cat

# What users find of this family, and where: see ops/public.py.
BOTH = "cummax cummin cumprod cumsum diff logcumsumexp"
FUNCTIONS = "cumulative_trapezoid gradient trapezoid trapz"
TWINS = "cumprod cumsum"
OUT = "cummax cummin cumprod cumsum diff logcumsumexp"


def _part(axis: int, start: int | None, stop: int | None) -> tuple[slice, ...]:
    return (slice(None),) * axis + (slice(start, stop),)


def _backwards(xp: Any, g: Any, dim: int) -> Any:
    return xp.flip(xp.cumsum(xp.flip(g, dim), dim), dim)


_cumsum = Operation("cumsum", lambda xp, x, *, dim: xp.cumsum(x, dim), x=lambda g, dim, xp: _backwards(xp, g, dim))


def _cumprod_rule(g: Any, x: Any, out: Any, dim: int, xp: Any) -> Any:
    """The k-th element's gradient is the sum over i >= k of g[i] times the product of x up to i without x[k]."""
    zero = x == 0
    if not xp.any(zero):
        return _backwards(xp, g * out, dim) / x
    if xp.name == "tensors":
        # the derivative of this needs those products where they are 0, too
        ahead = xp.expand_dims(x, dim)
        n = x.shape[dim]
        shape = [1] * ahead.ndim
        shape[dim] = shape[dim + 1] = n
        places = xp.arange(n)
        itself = xp.reshape(places, (n, 1)) == xp.reshape(places, (1, n))
        without = xp.where(xp.reshape(itself, tuple(shape)), xp.ones_like(ahead), ahead)
        products = xp.triu(xp.moveaxis(xp.cumprod(without, dim + 1), (dim, dim + 1), (-2, -1)))
        return xp.moveaxis(xp.sum(xp.expand_dims(xp.moveaxis(g, dim, -1), -2) * products, -1), -1, dim)
    # without the first zero the product goes on; behind it nothing has a gradient
    first = zero & (xp.cumsum(zero, dim) == 1)
    there = _backwards(xp, g * xp.cumprod(xp.where(first, xp.ones_like(x), x), dim), dim)
    before = _backwards(xp, g * out, dim) / xp.where(zero, xp.ones_like(x), x)
    return xp.where(first, there, before)


_cumprod = Operation("cumprod", lambda xp, x, *, dim: xp.cumprod(x, dim), x=_cumprod_rule)


def _running(name: str, operation: Operation, word: str) -> Any:
    def function(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
        dim = normal_dim(dim, input.ndim, name)
        if dtype is None and input._array.dtype in INTEGRAL:
            dtype = dt.int64
        input = in_dtype(input, dtype)
        if not input.ndim:
            return input.clone()
        result = apply(operation, input, dim=dim)
        return result if dtype is None else result.to(dtype=dtype)  # the library widens small integers

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Running {word} along a dimension, of integers in int64; as ``torch.{name}``."
    return function


cumsum, cumprod = _running("cumsum", _cumsum, "sums"), _running("cumprod", _cumprod, "products")


def _logcumsumexp_rule(g: Any, x: Any, out: Any, dim: int, xp: Any) -> Any:
    """``sum over i >= k of g[i] exp(x[k] - out[i])``, a recurrence whose factors are at most 1."""
    if not x.shape:
        return g
    low = out == -float("inf")
    shown = xp.where(low, xp.zeros_like(out), out)
    following = xp.concatenate((shown[_part(dim, 1, None)], shown[_part(dim, -1, None)]), axis=dim)
    factor = xp.where(low, xp.zeros_like(out), xp.exp(shown - following))
    return xp.exp(x - shown) * xp.suffix_recurrence(factor, g, dim)


_logcumsumexp = Operation(
    "logcumsumexp", lambda xp, x, *, dim: xp.logcumsumexp(x, dim) if x.shape else xp.array(x), x=_logcumsumexp_rule
)


def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log(cumsum(exp(x))) along a dimension without overflow; as ``torch.logcumsumexp``."""
    if input._array.dtype in INTEGRAL:
        raise NotImplementedError(f"logcumsumexp is not implemented for {input.dtype}")
    return apply(_logcumsumexp, input, dim=normal_dim(dim, input.ndim, "logcumsumexp"))


# --- extremes ---------------------------------------------------------------------------------------------------------


def _running_extreme(name: str, kernel: str, word: str) -> Any:
    operation = picking(name, repeats=True)

    def function(input: Tensor, dim: int) -> Extreme:
        a = input._array
        dim = normal_dim(dim, a.ndim, name)
        xp = namespace(a)
        if not a.ndim:
            return pick(operation, input, xp.zeros((), dt.int64.numpy), 0)
        values = getattr(xp, kernel)(a, dim)
        # the last of equal ones, and of several NaN
        places = xp.reshape(xp.arange(a.shape[dim]), (-1,) + (1,) * (a.ndim - 1 - dim))
        new = xp.where((a == values) | (a != a), places, 0)
        return pick(operation, input, xp.cumulative_maximum(new, dim), dim)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The {word} up to each element along a dimension, and where it is; as ``torch.{name}``."
    return function


cummax = _running_extreme("cummax", "cumulative_maximum", "greatest")
cummin = _running_extreme("cummin", "cumulative_minimum", "smallest")


# --- differences ------------------------------------------------------------------------------------------------------


def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """Differences of neighbours along a dimension, n times; of bool whether they differ. As ``torch.diff``.

    Parameters
    ----------
    input : Tensor
        Of at least one dimension.
    n : int
        How often.
    dim : int
    prepend, append : Tensor, optional
        What is put before and behind first.

    Raises
    ------
    RuntimeError
        For a tensor without dimensions, or a negative `n`.
    """
    if not input.ndim:
        raise RuntimeError("diff expects input to be at least one-dimensional")
    if n < 0:
        raise RuntimeError(f"diff: order must be non-negative but got {n}")
    dim = normal_dim(dim, input.ndim, "diff")
    around = [t for t in (prepend, input, append) if t is not None]
    for t in around:
        if t.ndim != input.ndim:
            raise RuntimeError(
                f"diff expects prepend or append to have as many dimensions as input, got {list(t.shape)} and {list(input.shape)}"
            )
    if n == 0:
        return input.clone()
    if len(around) > 1:
        input = cat(around, dim)
    for _ in range(min(n, input.shape[dim])):
        later, earlier = input[_part(dim, 1, None)], input[_part(dim, None, -1)]
        input = pointwise.logical_xor(later, earlier) if input.dtype is dt.bool_ else later - earlier
    return input


def gradient(input: Tensor, *, spacing: Any = 1, dim: Any = None, edge_order: int = 1) -> tuple[Tensor, ...]:
    """Derivatives of sampled functions by second-order differences; as ``torch.gradient``.

    Parameters
    ----------
    input : Tensor
        Values on a grid.
    spacing : number, or a sequence of one number or one coordinate vector (Tensor) for each dimension
        The distance of grid points, or where they are.
    dim : int or sequence of int, optional
        All dimensions if absent.
    edge_order : {1, 2}
        Order of the one-sided differences at the ends.

    Returns
    -------
    tuple of Tensor
        For each dimension the derivative along it.

    Raises
    ------
    RuntimeError
        If a dimension has fewer than ``edge_order + 1`` points, or the spacings do not fit the dimensions.
    """
    if edge_order not in (1, 2):
        raise RuntimeError(f"torch.gradient only supports edge_order=1 and edge_order=2, got {edge_order}")
    if dim is None:
        dims = list(range(input.ndim))
    else:
        dims = [normal_dim(d, input.ndim, "gradient") for d in ([dim] if isinstance(dim, int) else dim)]
    if len(set(dims)) != len(dims):
        raise RuntimeError(f"torch.gradient: dim {dims} names a dimension more than once")
    if isinstance(spacing, (list, tuple)):
        if len(spacing) != len(dims):
            raise RuntimeError(
                f"torch.gradient expected spacing to be unspecified, a scalar or a list of length {len(dims)}, the number of dims, "
                f"but got a list of length {len(spacing)}"
            )
        if len({isinstance(s, Tensor) for s in spacing}) > 1:
            raise RuntimeError("torch.gradient expects all spacings to be numbers, or all to be tensors")
    else:
        if isinstance(spacing, Tensor):
            raise RuntimeError("torch.gradient expects spacing to be a number or a sequence of numbers or of tensors, got a Tensor")
        spacing = [1 if spacing is None else spacing] * len(dims)
    if input.dtype is dt.uint8 or input.dtype is dt.bool_:
        raise RuntimeError(f"torch.gradient does not support {input.dtype} input.")
    for d in dims:
        if input.shape[d] < edge_order + 1:
            raise RuntimeError(
                f"torch.gradient expected each dimension size to be at least edge_order+1 = {edge_order + 1}, but the shape is "
                f"{list(input.shape)}"
            )
    for s, d in zip(spacing, dims):
        if isinstance(s, Tensor) and (s.ndim != 1 or s.shape[0] != input.shape[d]):
            raise RuntimeError(
                f"torch.gradient expected each element of spacing to have one dimension of size {input.shape[d]}, but got {list(s.shape)}"
            )
    if input._array.dtype in INTEGRAL:
        input = input.to(dtype=dt.get_default_dtype())
    return tuple(_slopes(input, s, d, edge_order) for s, d in zip(spacing, dims))


def _slopes(x: Tensor, spacing: Any, dim: int, edge_order: int) -> Tensor:
    """The derivative along one dimension: the parabola through three neighbours, which are h and k apart."""

    def at(start: int | None, stop: int | None) -> Tensor:
        return x[_part(dim, start, stop)]

    if not isinstance(spacing, Tensor):
        first, last = (at(1, 2) - at(0, 1)) / spacing, (at(-1, None) - at(-2, -1)) / spacing
        if edge_order == 2:
            first = (at(0, 1) * -3 + at(1, 2) * 4 - at(2, 3)) / (2 * spacing)
            last = (at(-1, None) * 3 - at(-2, -1) * 4 + at(-3, -2)) / (2 * spacing)
        return cat((first, (at(2, None) - at(None, -2)) / (2 * spacing), last), dim)
    steps = (spacing[1:] - spacing[:-1]).reshape((-1,) + (1,) * (x.ndim - 1 - dim)).to(dtype=x.dtype)
    h, k = steps[:-1], steps[1:]
    left, centre, right = -k / (h * (h + k)), (k - h) / (h * k), h / (k * (h + k))
    middle = at(None, -2) * left + at(1, -1) * centre + at(2, None) * right
    if edge_order == 1:
        first, last = (at(1, 2) - at(0, 1)) / steps[:1], (at(-1, None) - at(-2, -1)) / steps[-1:]
    else:
        h, k = steps[:1], steps[1:2]
        first = -at(0, 1) * (h * 2 + k) / (h * (h + k)) + at(1, 2) * (h + k) / (h * k) - at(2, 3) * h / (k * (h + k))
        h, k = steps[-2:-1], steps[-1:]
        last = at(-3, -2) * k / (h * (h + k)) - at(-2, -1) * (h + k) / (h * k) + at(-1, None) * (k * 2 + h) / (k * (h + k))
    return cat((first, middle, last), dim)


# --- the trapezoidal rule ---------------------------------------------------------------------------------------------


def _areas(name: str, y: Tensor, x: Tensor | None, dx: Any, dim: int) -> tuple[Tensor, int]:
    if x is not None and dx is not None:
        raise TypeError(f"{name}(): x and dx are two ways to say the spacing; give one")
    if not y.ndim:
        raise IndexError(f"{name}: dimension out of range, y has no dimensions")
    dim = normal_dim(dim, y.ndim, name)
    if y.dtype is dt.bool_:
        raise RuntimeError(f"{name}: received a bool input for `y`, but bool is not supported")
    pairs = y[_part(dim, 1, None)] + y[_part(dim, None, -1)]
    if x is None:
        return pairs * (1 if dx is None else dx) / 2, dim
    if x.dtype is dt.bool_:
        raise RuntimeError(f"{name}: received a bool input for `x`, but bool is not supported")
    if x.ndim == 1:
        if x.shape[0] != y.shape[dim]:
            raise RuntimeError(f"{name}: there must be one `x` value for each sample point, got {x.shape[0]} for {y.shape[dim]}")
        steps = (x[1:] - x[:-1]).reshape((-1,) + (1,) * (y.ndim - 1 - dim))
    else:
        along = dim + x.ndim - y.ndim
        steps = x[_part(along, 1, None)] - x[_part(along, None, -1)] if x.ndim else x
    return pairs * steps / 2, dim


def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """The integral along a dimension by the trapezoidal rule; as ``torch.trapezoid``.

    Parameters
    ----------
    y : Tensor
        Values.
    x : Tensor, optional
        Where they are: a vector, or a tensor that broadcasts with y.
    dx : number, optional
        Their distance, 1 unless given.
    dim : int
    """
    return _integrate(sum, "trapezoid", y, x, dx, dim)


def _integrate(add_up: Any, name: str, y: Tensor, x: Tensor | None, dx: Any, dim: int) -> Tensor:
    areas, dim = _areas(name, y, x, dx, dim)
    return add_up(areas, dim)


def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """Running integrals along a dimension by the trapezoidal rule; as ``torch.cumulative_trapezoid``."""
    return _integrate(cumsum, "cumulative_trapezoid", y, x, dx, dim)


trapz = trapezoid
