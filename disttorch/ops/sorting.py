"""Sorting, and what stands at a place of the sorted order: top k, k-th value, median, mode, quantiles. NaN is the largest."""

from __future__ import annotations

from typing import Any

from ..autograd.operation import Operation, apply
from ..autograd.variable import Tensor, wrap
from ..backend import dtypes as dt
from ..backend import namespace
from ..backend.dtypes import HALF, INTEGRAL
from . import arithmetic
from .dims import normal_dim
from .indexing import take_along_dim, where
from .operands import expect_tensors, write_out
from .reducing import Extreme, pick, picking, refuse_empty

# What users find of this family, and where: see ops/public.py.
BOTH = "argsort kthvalue median mode msort nanmedian nanquantile quantile sort topk"
OUT = "argsort mode msort nanquantile quantile sort topk"


def _keys(a: Any) -> Any:
    """What is sorted instead of half types, for which the libraries have slow ways or none."""
    return a.astype("float32") if a.dtype in HALF else a


def _order(xp: Any, a: Any, dim: int, descending: bool) -> Any:
    """The stable order along a dimension, NaN last, or first where it descends."""
    keys = _keys(a)
    if not descending:
        return xp.argsort(keys, axis=dim, kind="stable")
    # flipped twice, so that equal elements keep their order
    return a.shape[dim] - 1 - xp.flip(xp.argsort(xp.flip(keys, dim), axis=dim, kind="stable"), dim)


def _check(name: str, input: Tensor, dim: int) -> int:
    expect_tensors(name, input)
    if input._array.dtype in dt.COMPLEX_DTYPES:
        raise RuntimeError(f"{name}: sort() does not support complex tensors, got {input.dtype}")
    return normal_dim(dim, input.ndim, name)


_sort, _topk, _kthvalue, _median, _nanmedian, _mode = map(picking, "sort topk kthvalue median nanmedian mode".split())


def argsort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Tensor:
    """The indices that sort along a dimension; as ``torch.argsort``. Always stable."""
    dim = _check("argsort", input, dim)
    xp = namespace(input._array)
    return wrap(xp.ascontiguousarray(_order(xp, input._array, dim, descending)) if input.ndim else xp.zeros((), dt.int64.numpy))


def sort(input: Tensor, dim: Any = -1, descending: bool = False, *, stable: bool | None = None) -> Extreme:
    """Sorted values and where they were; as ``torch.sort``. Always stable.

    Parameters
    ----------
    input : Tensor
    dim : int
    descending : bool
    stable : bool, optional
        Accepted as in PyTorch: equal elements keep their order in any case.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.sort(disttorch.tensor([3, 1, 2])).indices
    tensor([1, 2, 0])
    """
    order = argsort(input, dim, descending)
    return pick(_sort, input, order._array, normal_dim(dim, input.ndim))


def msort(input: Tensor) -> Tensor:
    """Sorted along the first dimension; as ``torch.msort``."""
    return sort(input, 0).values


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Extreme:
    """The k greatest (or smallest) values along a dimension, in order, and where they were; as ``torch.topk``.

    Parameters
    ----------
    input : Tensor
    k : int
    dim : int
    largest : bool
        The greatest, or the smallest.
    sorted : bool
        Accepted as in PyTorch: they are in order in any case.

    Raises
    ------
    RuntimeError
        If the dimension has fewer than `k` elements.
    """
    dim = _check("topk", input, dim)
    a = input._array
    xp = namespace(a)
    size = a.shape[dim] if a.ndim else 1
    if not 0 <= k <= size:
        raise RuntimeError(f"selected index k out of range: topk's k is {k}, but dimension {dim} has size {size}")
    if not a.ndim:
        return pick(_topk, input, xp.zeros((), dt.int64.numpy), dim) if k else Extreme(input[None][:0], input[None][:0].long())
    part = (slice(None),) * dim + (slice(0, k),)
    if 0 < k * 8 < size and xp.name == "cpu":
        # those k in any order first; NaN is the largest there, too
        first = size - k if largest else 0
        few = xp.argpartition(_keys(a), first or k, axis=dim)[(slice(None),) * dim + (slice(first, first + k),)]
        among = xp.take_along_axis(a, few, axis=dim)
        return pick(_topk, input, xp.take_along_axis(few, _order(xp, among, dim, largest), axis=dim), dim)
    return pick(_topk, input, _order(xp, a, dim, largest)[part], dim)


def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False, *, out: Any = None) -> Extreme:
    """The k-th smallest value along a dimension, and where it is; as ``torch.kthvalue``.

    Raises
    ------
    RuntimeError
        If the dimension has fewer than `k` elements.
    """
    dim = _check("kthvalue", input, dim)
    a = input._array
    xp = namespace(a)
    size = a.shape[dim] if a.ndim else 1
    if a.ndim and not size:
        refuse_empty("kthvalue", input, (dim,))
    if not 1 <= k <= size:
        raise RuntimeError(f"kthvalue(): selected number k out of range for dimension {dim}: k is {k}, the size {size}")
    if out is not None and xp.shares_memory(out[0]._array, a):
        raise RuntimeError(
            "kthvalue(): unsupported operation: some elements of the input tensor and the written-to tensor refer to a single memory "
            "location; clone() the input first"
        )
    if a.ndim:
        places = xp.argpartition(_keys(a), k - 1, axis=dim)[(slice(None),) * dim + (slice(k - 1, k),)]
    else:
        places = xp.zeros((), dt.int64.numpy)
    result = pick(_kthvalue, input, places, dim, keepdim)
    return result if out is None else Extreme(*(write_out("kthvalue", r, o) for r, o in zip(result, out)))


# --- median and mode --------------------------------------------------------------------------------------------------


def _middle(name: str, operation: Operation, skips_nan: bool) -> Any:
    whole = Operation(name, _whole_median(skips_nan), x=_whole_rule)

    def function(input: Tensor, dim: int | None = None, keepdim: bool = False, *, out: Any = None) -> Any:
        expect_tensors(name, input)
        if dim is None:
            return apply(whole, input)
        dim = _check(name, input, dim)
        a = input._array
        xp = namespace(a)
        if not a.ndim:
            result = pick(operation, input, xp.zeros((), dt.int64.numpy), dim)
        else:
            refuse_empty(name, input, (dim,))
            result = pick(operation, input, _median_place(xp, a, dim, skips_nan), dim, keepdim)
        return result if out is None else Extreme(*(write_out(name, r, o) for r, o in zip(result, out)))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""The median of all elements, or along a dimension and where it is; the lower of two. As ``torch.{name}``.

    Parameters
    ----------
    input : Tensor
        {"NaN is left out." if skips_nan else "Where there is NaN the median is NaN."}
    dim : int, optional
    keepdim : bool
        Whether that dimension stays with size 1.

    Returns
    -------
    Tensor, or with `dim` a named tuple (values, indices)
    """
    return function


def _median_place(xp: Any, a: Any, dim: int, skips_nan: bool) -> Any:
    """Where the median is, with the dimension of size 1."""
    keys, size = _keys(a), a.shape[dim]
    lacks_nan = a.dtype in INTEGRAL
    if skips_nan and not lacks_nan:
        there = xp.sum(~xp.isnan(keys), axis=dim, keepdims=True)
        return xp.take_along_axis(_order(xp, a, dim, False), xp.maximum((there - 1) // 2, 0), axis=dim)
    k = (size - 1) // 2
    places = xp.argpartition(keys, k, axis=dim)[(slice(None),) * dim + (slice(k, k + 1),)]
    if lacks_nan:
        return places
    nan = xp.isnan(keys)
    return xp.where(xp.any(nan, axis=dim, keepdims=True), xp.expand_dims(xp.argmax(nan, axis=dim), dim), places)


def _whole_median(skips_nan: bool) -> Any:
    def forward(xp: Any, x: Any) -> Any:
        flat = xp.reshape(x, (-1,))
        if not flat.size:
            return xp.full((), float("nan"), x.dtype)
        return xp.reshape(flat[_median_place(xp, flat, 0, skips_nan)], ())

    return forward


def _whole_rule(g: Any, x: Any, out: Any, xp: Any) -> Any:
    """Elements equal to the median share the gradient."""
    chosen = (x == out) | (xp.isnan(x) & xp.isnan(out))
    return chosen * (g / xp.sum(xp.astype(chosen, g.dtype)))


median, nanmedian = _middle("median", _median, False), _middle("nanmedian", _nanmedian, True)


def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Extreme:
    """The most frequent value along a dimension, the smallest of several, and where it is last; as ``torch.mode``."""
    dim = _check("mode", input, dim)
    a = input._array
    xp = namespace(a)
    if not a.ndim:
        return pick(_mode, input, xp.zeros((), dt.int64.numpy), dim)
    refuse_empty("mode", input, (dim,))
    order = _order(xp, a, dim, False)
    values = xp.moveaxis(xp.take_along_axis(a, order, axis=dim), dim, -1)
    places = xp.arange(a.shape[dim])
    begins = xp.concatenate((xp.ones_like(values[..., :1], dtype=bool), values[..., 1:] != values[..., :-1]), axis=-1)
    # how many of the same there are up to here
    length = places - xp.cumulative_maximum(xp.where(begins, places, 0), values.ndim - 1)
    ends = xp.expand_dims(xp.argmax(length, axis=-1), dim)
    return pick(_mode, input, xp.take_along_axis(order, ends, axis=dim), dim, keepdim)


# --- quantiles --------------------------------------------------------------------------------------------------------


def _quantile(name: str, skips_nan: bool) -> Any:
    def function(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear") -> Tensor:
        _check_quantile(name, input, q, interpolation)
        xp = namespace(input._array)
        share = q if isinstance(q, Tensor) else wrap(xp.asarray(xp.scalar(q, input._array.dtype)))
        if bool((share < 0).any()) or bool((share > 1).any()):
            raise RuntimeError(f"{name}() q values must be in the range [0, 1], got {q}")
        shape = input.shape
        whole = dim is None
        dim = 0 if dim is None else normal_dim(dim, input.ndim, name)
        x = input.reshape(-1) if whole or not input.ndim else input.movedim(dim, -1)
        if not x.shape[-1]:
            raise RuntimeError(f"{name}() input tensor must be non-empty, got shape {list(shape)}")
        ordered = sort(x, -1).values
        nan = xp.isnan(x._array)
        size = x.shape[-1]
        # the rank of each quantile in each row: (..., number of quantiles)
        last = xp.sum(~nan, axis=-1, keepdims=True) - 1 if skips_nan else xp.asarray(size - 1)
        ranks = share.reshape(-1) * wrap(xp.maximum(last, 0).astype(x._array.dtype))
        if not skips_nan:
            spoiled = wrap(xp.any(nan, axis=-1, keepdims=True))
            ranks = where(spoiled, float(size - 1), ranks)
        ranks = ranks.expand((*x.shape[:-1], share.numel()))
        result = _between(ordered, ranks, interpolation)
        if keepdim:
            ones = [1] * len(shape) if whole else list(shape)
            if not whole and shape:
                ones[dim] = 1
            result = result.movedim(-1, 0).reshape((share.numel(), *ones))
        else:
            result = result.movedim(-1, 0)
        return result if share.ndim else result[0]

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""The q-th quantiles of all elements or along a dimension; as ``torch.{name}``.

    Parameters
    ----------
    input : Tensor
        float32 or float64. {"NaN is left out." if skips_nan else "Where there is NaN the quantiles are NaN."}
    q : float or Tensor
        Between 0 and 1; of a vector the results are stacked in front.
    dim : int, optional
    keepdim : bool
        Whether that dimension stays with size 1.
    interpolation : {{"linear", "lower", "higher", "midpoint", "nearest"}}
        What stands for a quantile between two elements.
    """
    return function


def _check_quantile(name: str, input: Tensor, q: Any, interpolation: str) -> None:
    expect_tensors(name, input)
    if input.dtype not in (dt.float32, dt.float64):
        raise RuntimeError(f"{name}() input tensor must be either float or double dtype, got {input.dtype}")
    if isinstance(q, Tensor):
        if q.ndim > 1:
            raise RuntimeError(f"{name}() q must be a scalar or 1D tensor, got shape {list(q.shape)}")
        if q.dtype is not input.dtype:
            raise RuntimeError(f"{name}() q tensor must be same dtype as the input tensor, got {q.dtype} and {input.dtype}")
    if interpolation not in ("linear", "lower", "higher", "midpoint", "nearest"):
        raise RuntimeError(
            f"{name}() interpolation must be one of linear, lower, higher, midpoint or nearest, but got {interpolation!r}"
        )


def _between(ordered: Tensor, ranks: Tensor, interpolation: str) -> Tensor:
    if interpolation in ("lower", "higher", "nearest"):
        ranks = {"lower": ranks.floor, "higher": ranks.ceil, "nearest": ranks.round}[interpolation]()
        return take_along_dim(ordered, ranks.long(), -1)
    low = ranks.floor()
    lower = take_along_dim(ordered, low.long(), -1)
    upper = take_along_dim(ordered, ranks.ceil().long(), -1)
    weight = 0.5 * (ranks != low).to(dtype=ranks.dtype) if interpolation == "midpoint" else ranks - low
    return arithmetic.lerp(lower, upper, weight)


quantile, nanquantile = _quantile("quantile", False), _quantile("nanquantile", True)
