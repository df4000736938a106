"""Distinct values, counts and histograms, and where values would stand in a sorted sequence."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..autograd.variable import Tensor, wrap
from ..backend import dtypes as dt
from ..backend import namespace
from ..backend.dtypes import HALF, INTEGRAL
from .dims import normal_dim
from .operands import promoted, write_out

# What users find of this family, and where: see ops/public.py.
BOTH = "bincount histc histogram unique unique_consecutive"
FUNCTIONS = "bucketize histogramdd searchsorted"
OUT = "histc histogram"


# --- distinct values --------------------------------------------------------------------------------------------------


def unique(
    input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The distinct elements, or slices along a dimension, in order; as ``torch.unique``.

    Parameters
    ----------
    input : Tensor
    sorted : bool
        Accepted as in PyTorch: they are in order in any case.
    return_inverse : bool
        Also return where each element of the input is among them.
    return_counts : bool
        Also return how often each occurs.
    dim : int, optional
        Compare whole slices along this dimension.

    Returns
    -------
    Tensor, or tuple of the distinct elements, the inverse and the counts, as asked for
    """
    a, rows, dim = _rows(input, dim, "unique")
    xp = namespace(a)
    if rows.ndim == 1 and not return_inverse:  # then it does not matter which of the equal ones is taken
        a = xp.sort(a) if rows is a else a[xp.argsort(rows)]
        return _distinct(xp, input, a, a.astype(rows.dtype, copy=False), None, dim, False, return_counts)
    order = xp.argsort(rows, kind="stable") if rows.ndim == 1 else xp.lexsort(xp.flip(rows.T, 0)) if rows.shape[1] else xp.arange(len(rows))
    return _distinct(xp, input, a, rows, order, dim, return_inverse, return_counts)


def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """One of each run of equal elements, or of equal slices along a dimension; as ``torch.unique_consecutive``."""
    a, rows, dim = _rows(input, dim, "unique_consecutive")
    return _distinct(namespace(a), input, a, rows, None, dim, return_inverse, return_counts)


def _rows(input: Tensor, dim: int | None, name: str) -> tuple[Any, Any, int | None]:
    """The elements, or the slices, in the first dimension: as they are, and as vectors that can be compared."""
    a = input._array
    xp = namespace(a)
    if dim is None:
        a = xp.reshape(a, (-1,))
        return a, a.astype("float32") if a.dtype in HALF else a, None
    dim = normal_dim(dim, a.ndim, name)
    if not a.ndim:
        a = xp.reshape(a, (1,))
    a = xp.moveaxis(a, dim, 0)
    if not a.size and a.shape[0] and 0 in a.shape[1:]:
        raise RuntimeError(
            f"{name}: there are 0 sized dimensions and they aren't selected, so unique cannot be applied; the shape is {list(input.shape)}"
        )
    rows = xp.reshape(a, (a.shape[0], -1)) if a.size else xp.zeros((a.shape[0], 1), a.dtype)
    return a, rows.astype("float32") if a.dtype in HALF else rows, dim


def _distinct(
    xp: Any, input: Tensor, a: Any, rows: Any, order: Any, dim: int | None, return_inverse: bool, return_counts: bool
) -> Any:
    arranged = rows if order is None else rows[order]
    differs = arranged[1:] != arranged[:-1]
    if differs.ndim > 1:
        differs = xp.any(differs, axis=1)
    begins = xp.concatenate((xp.ones((min(len(a), 1),), bool), differs))
    first = xp.nonzero(begins)[0]
    values = a[first if order is None else order[first]]
    results = [wrap(values if dim is None else xp.ascontiguousarray(xp.moveaxis(values, 0, dim)))]
    if return_inverse:
        number = xp.cumsum(begins, 0, dtype=dt.int64.numpy) - 1
        inverse = number
        if order is not None:
            inverse = xp.empty_like(number)
            inverse[order] = number
        results.append(wrap(xp.reshape(inverse, input.shape) if dim is None else inverse))
    if return_counts:
        ends = xp.concatenate((first[1:], xp.asarray([len(a)] if len(a) else [], dtype=first.dtype)))
        results.append(wrap((ends - first).astype(dt.int64.numpy)))
    return results[0] if len(results) == 1 else tuple(results)


# --- places in a sorted sequence --------------------------------------------------------------------------------------


def searchsorted(
    sorted_sequence: Tensor,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Where values would be put into sorted sequences so that they stay sorted; as ``torch.searchsorted``.

    Parameters
    ----------
    sorted_sequence : Tensor
        Sorted along the last dimension: one sequence, or one for each row of `input`.
    input : Tensor or number
    out_int32 : bool
        Whether the result is int32 and not int64.
    right : bool
        Behind equal elements, not before them.
    side : {"left", "right"}, optional
        The same by name.
    sorter : Tensor, optional
        The indices that sort `sorted_sequence`, which then need not be sorted.

    Raises
    ------
    RuntimeError
        If the shapes or dtypes do not fit, or `side` contradicts `right`.
    """
    if side not in (None, "left", "right"):
        raise RuntimeError(f"torch.searchsorted(): side can only be 'left' or 'right' but got {side}")
    if side == "left" and right:
        raise RuntimeError("torch.searchsorted(): side and right can't be set to opposites, got side of left while right was True")
    xp = namespace(sorted_sequence._array)
    is_number = not isinstance(input, Tensor)
    if is_number:
        input = wrap(xp.asarray(xp.scalar(input, dt.as_dtype(type(input)).numpy)))
    edges, a = sorted_sequence._array, input._array
    if edges.ndim != 1 and (is_number or edges.shape[:-1] != a.shape[:-1]):
        raise RuntimeError(
            "torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries tensor and input "
            f"value tensor must match, but we got boundaries tensor {list(edges.shape)} and input value tensor {list(a.shape)}"
        )
    if not is_number and edges.dtype != a.dtype:
        raise RuntimeError(
            "torch.searchsorted(): boundary tensor and input value tensor should have same dtype, but got boundary tensor dtype "
            f"{sorted_sequence.dtype} and input value tensor dtype {input.dtype}"
        )
    if sorter is not None:
        _check_sorter(sorted_sequence, sorter)
        edges = xp.take_along_axis(edges, sorter._array, axis=-1)
    if out is not None and out.dtype is not (dt.int32 if out_int32 else dt.int64):
        raise RuntimeError(
            "torch.searchsorted(): output tensor's dtype is wrong, it can only be Int(int32) or Long(int64) depending on whether "
            f"out_int32 flag is True, but we got output tensor's dtype {out.dtype} and out_int32 flag is {out_int32}"
        )
    if edges.dtype in HALF:
        edges, a = edges.astype("float32"), a.astype("float32")
    behind = right or side == "right"
    found = _search(xp, edges, a, behind) if edges.ndim > 1 else xp.searchsorted(edges, a, side="right" if behind else "left")
    result = wrap(xp.asarray(found, dt.int32.numpy if out_int32 else dt.int64.numpy))
    return result if out is None else write_out("searchsorted", result, out)


def _check_sorter(sorted_sequence: Tensor, sorter: Tensor) -> None:
    if sorter.dtype is not dt.int64:
        raise RuntimeError(f"torch.searchsorted(): sorter must be a tensor of long dtype but got dtype {sorter.dtype}")
    if sorter.shape != sorted_sequence.shape:
        raise RuntimeError(
            "torch.searchsorted(): boundary and sorter must have the same size, but got boundary tensor "
            f"{list(sorted_sequence.shape)} and got sorter tensor {list(sorter.shape)}"
        )
    if sorter.numel() and (int(sorter.min()) < 0 or int(sorter.max()) >= sorted_sequence.shape[-1]):
        raise RuntimeError("torch.searchsorted(): sorter index out of range")


def _search(xp: Any, edges: Any, a: Any, behind: bool) -> Any:
    """Binary search in all rows at once."""
    low = xp.zeros(a.shape, dt.int64.numpy)
    high = low + edges.shape[-1]
    for _ in range(edges.shape[-1].bit_length()):
        middle = (low + high) // 2
        there = xp.take_along_axis(edges, xp.minimum(middle, edges.shape[-1] - 1), axis=-1)
        open_yet = low < high
        goes_up = open_yet & ~(there > a if behind else there >= a)
        low = xp.where(goes_up, middle + 1, low)
        high = xp.where(open_yet & ~goes_up, middle, high)
    return low


def bucketize(
    input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False, out: Tensor | None = None
) -> Tensor:
    """The number of the bucket, between sorted boundaries, that each value is in; as ``torch.bucketize``.

    Raises
    ------
    RuntimeError
        If the boundaries are not a vector.
    """
    if boundaries.ndim != 1:
        raise RuntimeError(f"bucketize(): boundaries tensor must be 1 dimension, but got dim({boundaries.ndim})")
    if isinstance(input, Tensor) and input.dtype is not boundaries.dtype:
        input, boundaries = promoted("bucketize", input, boundaries, broadcast=False)
    return searchsorted(boundaries, input, out_int32=out_int32, right=right, out=out)


# --- counts -----------------------------------------------------------------------------------------------------------


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each non-negative integer occurs, or the sum of the weights there; as ``torch.bincount``.

    Raises
    ------
    RuntimeError
        If the input is not one-dimensional, has negative values or is not of an integer dtype, or the weights have another
        shape.
    """
    a = input._array
    if a.ndim != 1 or a.dtype not in INTEGRAL or (a.size and int(a.min()) < 0):
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    if minlength < 0:
        raise RuntimeError(f"minlength should be >= 0, got {minlength}")
    if weights is not None and weights.shape != input.shape:
        raise RuntimeError(f"weights should be 1-d and have the same length as input, got {list(weights.shape)} and {list(a.shape)}")
    xp = namespace(a)
    counts = xp.bincount(a, None if weights is None else weights._array.astype(dt.float64.numpy), minlength)
    if weights is None:
        return wrap(counts.astype(dt.int64.numpy))
    return wrap(counts.astype(dt.float32.numpy if weights.dtype is dt.float32 else dt.float64.numpy))


def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements are in each of equally wide bins; as ``torch.histc``.

    Parameters
    ----------
    input : Tensor
        Floating point (integers in PyTorch only on a GPU).
    bins : int
    min, max : float
        The range, both ends within; of the data if they are equal. What is outside is not counted.
    """
    a = input._array
    if bins <= 0:
        raise RuntimeError(f"torch.histogram(): bins must be > 0, but got {bins}")
    if max < min:
        raise RuntimeError("torch.histc: max must be larger than min, got {max} and {min}")
    if a.dtype in INTEGRAL:
        raise NotImplementedError(f"histc is not implemented for {input.dtype}")
    low, high = _range(input, float(min), float(max), "histc", 1.0)
    xp = namespace(a)
    flat = xp.reshape(a, (-1,))
    inside = (flat >= low) & (flat <= high)
    first, width = (xp.scalar(v, a.dtype) for v in (low, high - low))
    places = ((xp.where(inside, flat, first) - first) * xp.scalar(bins, a.dtype) / width).astype(dt.int64.numpy)
    counts = xp.bincount(xp.where(inside, xp.clip(places, 0, bins - 1), bins), None, bins + 1)
    return wrap(counts[:bins].astype(a.dtype))


def _range(input: Tensor, low: float, high: float, name: str, around: float) -> tuple[float, float]:
    """The ends of the bins: of the data if they are equal, and `around` a single value."""
    if low == high:
        if not input.numel():
            return (low, high + 1) if around < 1 else (low - 1, high + 1)
        low, high = float(input.min()), float(input.max())
    if low == high:
        low, high = low - around, high + around
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise RuntimeError(f"{name}: range of [{low}, {high}] is not finite")
    return low, high


def _edges(input: Tensor, bins: int, low: float, high: float) -> Any:
    return namespace(input._array).linspace(low, high, bins + 1, dtype=input._array.dtype)


def _places(xp: Any, flat: Any, edges: Any, even: tuple[float, float] | None) -> Any:
    bins = len(edges) - 1
    if even is None:
        return xp.clip(xp.searchsorted(edges, flat, side="right") - 1, 0, bins - 1)
    low, high = even
    places = xp.where(xp.isfinite(flat), (flat - low) * (bins / (high - low)), 0).astype("int64")
    places = xp.clip(places, 0, bins - 1)
    # rounding may have put a value beside its bin
    places = places - ((flat < edges[places]) & (places > 0))
    return places + ((flat >= edges[places + 1]) & (places < bins - 1))


class Histogram(NamedTuple):
    """What `histogram` and `histogramdd` return."""

    hist: Tensor
    bin_edges: Any


def histogram(
    input: Tensor, bins: Any = 100, *, range: Any = None, weight: Tensor | None = None, density: bool = False
) -> Histogram:
    """Counts, sums of weights or densities in bins, and the bins' edges; as ``torch.histogram``.

    Parameters
    ----------
    input : Tensor
    bins : int or Tensor
        How many equally wide bins, or their edges, ascending.
    range : (float, float), optional
        Of equally wide bins; the data's unless given.
    weight : Tensor, optional
        Of the input's shape: what each element adds to its bin.
    density : bool
        Whether to divide by the sum and the width of each bin.
    """
    hist, edges = _histogram_nd(input.reshape(-1, 1), [bins], range, weight, density, "histogram")
    return Histogram(hist, edges[0])


def histogramdd(
    input: Tensor, bins: Any, range: Any = None, weight: Tensor | None = None, density: bool = False
) -> Histogram:
    """`histogram` of points with several coordinates, in the last dimension; as ``torch.histogramdd``.

    Parameters
    ----------
    input : Tensor (..., n)
    bins : int, sequence of n int, or sequence of n Tensor
    range : sequence of 2 n floats, optional
        The lowest and highest edge of each coordinate in turn.
    weight : Tensor (...), optional
    density : bool
    """
    if input.ndim < 2:
        raise RuntimeError(f"histogramdd: input tensor should have at least 2 dimensions, but got {input.ndim}")
    n = input.shape[-1]
    all_bins = [bins] * n if isinstance(bins, int) else list(bins)
    if len(all_bins) != n:
        raise RuntimeError(f"histogramdd: expected {n} sequences of bin edges for a {n}-dimensional histogram but got {len(all_bins)}")
    hist, edges = _histogram_nd(input.reshape(-1, n), all_bins, range, weight, density, "histogramdd")
    return Histogram(hist, tuple(edges))


def _histogram_nd(
    points: Tensor, bins: list[Any], range_: Any, weight: Tensor | None, density: bool, name: str
) -> tuple[Tensor, list[Tensor]]:
    a = points._array
    xp = namespace(a)
    if a.dtype not in dt.FLOATING:
        raise NotImplementedError(f"{name} is not implemented for {points.dtype}")
    if weight is not None and weight.numel() != a.shape[0]:
        raise RuntimeError(
            f"{name}: if weight tensor is provided it should have the same shape as the input tensor excluding its innermost dimension, "
            f"got {weight.numel()} weights for {a.shape[0]} points"
        )
    if weight is not None and weight.dtype is not points.dtype:
        raise RuntimeError(
            f"{name}: if weight tensor is provided, input tensor and weight tensor should have the same dtype, "
            f"got {points.dtype} and {weight.dtype}"
        )
    edges, inside, place = [], xp.ones((a.shape[0],), bool), xp.zeros((a.shape[0],), "int64")
    for i, wanted in enumerate(bins):
        column, even = a[:, i], None
        if isinstance(wanted, Tensor):
            if wanted.ndim != 1:
                raise RuntimeError(f"{name}: bins tensor should have one dimension, but got {wanted.ndim}")
            if wanted.dtype is not points.dtype:
                raise RuntimeError(
                    f"{name}: input tensor and bins tensors should have the same dtype, got {points.dtype} and {wanted.dtype}"
                )
            borders = wanted._array
        else:
            if wanted <= 0:
                raise RuntimeError(f"{name}: bins must be > 0, but got {wanted}")
            low, high = (range_[2 * i], range_[2 * i + 1]) if range_ is not None else (0.0, 0.0)
            if high < low:
                raise RuntimeError(f"{name}: min should not exceed max, but got min {low} max {high}")
            even = _range(wrap(column), float(low), float(high), name, 0.5)
            borders = _edges(points, wanted, *even)
        edges.append(borders)
        inside = inside & (column >= borders[0]) & (column <= borders[-1])
        place = place * (len(borders) - 1) + _places(xp, column, borders, even)
    shape = tuple(len(e) - 1 for e in edges)
    count = math.prod(shape)
    weights = xp.ones((a.shape[0],), "float64") if weight is None else xp.reshape(weight._array, (-1,)).astype("float64")
    hist = xp.bincount(xp.where(inside, place, count), xp.where(inside, weights, 0), count + 1)[:count]
    hist = xp.reshape(hist, shape)
    if density:
        hist = hist / xp.sum(hist)
        for i, e in enumerate(edges):
            hist = hist / xp.reshape(e[1:] - e[:-1], (-1,) + (1,) * (len(shape) - 1 - i))
    return wrap(hist.astype(a.dtype)), [wrap(xp.array(e)) for e in edges]
