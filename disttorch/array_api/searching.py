"""The standard's functions that search, sort, pick and find what is unique."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..autograd.variable import Tensor
from ..ops import FUNCTIONS as OURS
from .dtypes import promoted

__all__ = [
    "argmax", "argmin", "argsort", "count_nonzero", "isin", "nonzero", "searchsorted", "sort", "take", "take_along_axis", "unique_all",
    "unique_counts", "unique_inverse", "unique_values", "where",
]  # fmt: skip


def argmax(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Where the largest element is; of the flattened array unless an axis is given."""
    return _where_extreme("argmax", x, axis, keepdims)


def argmin(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Where the smallest element is; of the flattened array unless an axis is given."""
    return _where_extreme("argmin", x, axis, keepdims)


def _where_extreme(name: str, x: Tensor, axis: int | None, keepdims: bool) -> Tensor:
    if axis is not None:
        return OURS[name](x, axis, keepdims)
    found = OURS[name](x.reshape(-1), 0)
    return found.reshape((1,) * x.ndim) if keepdims else found


def count_nonzero(x: Tensor, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    """How many elements are not zero."""
    return OURS["sum"](x != 0, axis, keepdims)


def nonzero(x: Tensor, /) -> tuple[Tensor, ...]:
    """The indices of the elements that are not zero, an array for each axis."""
    return tuple(OURS["nonzero"](x, as_tuple=True))


def isin(x1: Any, x2: Any, /, *, invert: bool = False) -> Tensor:
    """Whether each element of the first array is among those of the second; or is not, inverted."""
    return OURS["isin"](*promoted(x1, x2), invert=invert)


def searchsorted(x1: Tensor, x2: Any, /, *, side: str = "left", sorter: Tensor | None = None) -> Tensor:
    """Where in a sorted array elements belong."""
    x1, x2 = promoted(x1, x2)
    return OURS["searchsorted"](x1, x2, side=side, sorter=sorter)


def where(condition: Tensor, x1: Any, x2: Any, /) -> Tensor:
    """The first array's elements where the condition holds, the second's elsewhere."""
    x1, x2 = promoted(x1, x2)
    return OURS["where"](condition, x1, x2)


def sort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The elements in order along an axis."""
    return OURS["sort"](x, dim=axis, descending=descending, stable=stable)[0]


def argsort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The indices that put the elements in order along an axis."""
    return OURS["sort"](x, dim=axis, descending=descending, stable=stable)[1]


def take(x: Tensor, indices: Tensor, /, *, axis: int | None = None) -> Tensor:
    """The parts of an array at indices along an axis, which must be given where there are several."""
    if axis is None:
        if x.ndim != 1:
            raise ValueError(f"take: an axis must be given for an array of {x.ndim} dimensions")
        axis = 0
    return x[(slice(None),) * (axis % x.ndim) + (indices,)]


def take_along_axis(x: Tensor, indices: Tensor, /, *, axis: int = -1) -> Tensor:
    """The elements at indices along an axis, each row with indices of its own."""
    size = x.shape[axis]
    return OURS["take_along_dim"](x, OURS["where"](indices < 0, indices + size, indices).long(), axis)


class UniqueAll(NamedTuple):
    """Values, where each is first, the values' numbers in the place of the elements, and how often each is there."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(NamedTuple):
    """Values, and how often each is there."""

    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    """Values, and their numbers in the place of the elements."""

    values: Tensor
    inverse_indices: Tensor


def unique_all(x: Tensor, /) -> UniqueAll:
    """The different elements, in order; each NaN is different from all others."""
    flat = x.reshape(-1)
    order = _stable_order(flat)
    ordered = flat[order]
    first = OURS["cat"]([OURS["ones"](min(1, flat.numel()), dtype=bool, device=x.device), ordered[1:] != ordered[:-1]])
    begins = OURS["nonzero"](first, as_tuple=True)[0]
    inverse = OURS["empty_like"](order)
    inverse[order] = OURS["cumsum"](first, 0) - 1
    ends = OURS["cat"]([begins[1:], OURS["full"]((min(1, flat.numel()),), flat.numel(), device=x.device)])
    return UniqueAll(ordered[begins], order[begins], inverse.reshape(x.shape), ends - begins)


def _stable_order(flat: Tensor) -> Tensor:
    if not flat.is_complex():
        return argsort(flat)
    order = argsort(flat.imag)
    return order[argsort(flat.real[order])]


def unique_counts(x: Tensor, /) -> UniqueCounts:
    """The different elements, and how often each is there."""
    found = unique_all(x)
    return UniqueCounts(found.values, found.counts)


def unique_inverse(x: Tensor, /) -> UniqueInverse:
    """The different elements, and their numbers in the place of the elements."""
    found = unique_all(x)
    return UniqueInverse(found.values, found.inverse_indices)


def unique_values(x: Tensor, /) -> Tensor:
    """The different elements."""
    return unique_all(x).values
