"""What reductions share: a reduced array over its former shape, how many elements go into one, and refusing empty ones."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..autograd.operation import Operation, apply
from ..autograd.variable import Tensor, wrap
from ..backend import dtypes as dt
from ..backend import namespace

__all__ = ["Extreme", "axis_of", "count_of", "in_dtype", "pick", "picking", "refuse_empty", "restored", "spread"]


class Extreme(NamedTuple):
    """What max, min, sort, topk and their relatives along a dimension return."""

    values: Tensor
    indices: Tensor


def picking(name: str, repeats: bool = False) -> Operation:
    """The operation that takes values at indices along a dimension, which other functions have found.

    `repeats` says whether they may name one element more than once.
    """
    kernel = "scatter_add" if repeats else "put_chosen"

    def rule(g: Any, indices: Any, x_shape: Any, dim: int, keepdim: bool, xp: Any) -> Any:
        if not x_shape:
            return g
        return getattr(xp, kernel)(g if keepdim else xp.expand_dims(g, dim), indices, x_shape, dim)

    return Operation(name, _pick_forward, x=rule)


def _pick_forward(xp: Any, x: Any, indices: Any, *, dim: int, keepdim: bool) -> Any:
    if not x.shape:
        return xp.array(x)
    found = xp.take_along_axis(x, indices, axis=dim)
    return found if keepdim else xp.squeeze(found, axis=dim)


def pick(operation: Operation, input: Tensor, indices: Any, dim: int, keepdim: bool = True) -> Extreme:
    """Values and indices, where `indices` is an array with the dimension still there; an operation by `picking`."""
    xp = namespace(input._array)
    where = wrap(xp.asarray(indices, dt.int64.numpy))
    values = apply(operation, input, where, dim=dim, keepdim=keepdim)
    return Extreme(values, where if keepdim or not input.ndim else wrap(xp.squeeze(where._array, axis=dim)))


def restored(xp: Any, a: Any, shape: tuple[int, ...], dim: tuple[int, ...] | None, keepdim: bool) -> Any:
    """A reduced array with the reduced dimensions there with size 1."""
    if not keepdim and dim is not None and shape:
        return xp.reshape(a, tuple([1 if i in dim else n for i, n in enumerate(shape)]))
    return a


def spread(xp: Any, a: Any, shape: tuple[int, ...], dim: tuple[int, ...] | None, keepdim: bool) -> Any:
    """A reduced array over the shape it was reduced from."""
    return xp.broadcast_to(restored(xp, a, shape, dim, keepdim), shape)


def axis_of(dim: tuple[int, ...] | None) -> Any:
    """Dimensions as the array library's axis."""
    return dim[0] if dim is not None and len(dim) == 1 else dim


def count_of(shape: tuple[int, ...], dim: tuple[int, ...] | None) -> int:
    """How many elements are reduced to one."""
    n = 1
    for i, d in enumerate(shape):
        if dim is None or i in dim:
            n *= d
    return n


def in_dtype(input: Tensor, dtype: Any) -> Tensor:
    """A tensor converted to a dtype, if one is given."""
    return input if dtype is None else input.to(dtype=dtype)


def refuse_empty(name: str, input: Tensor, dims: tuple[int, ...] | None) -> None:
    """Refuse to look for one of no elements.

    Raises
    ------
    RuntimeError
        If all dimensions are reduced and there is no element.
    IndexError
        If a dimension of size 0 is reduced.
    """
    shape = input._array.shape
    if dims is None:
        if input._array.size == 0:
            raise RuntimeError(
                f"{name}(): Expected reduction dim to be specified for input.numel() == 0. Specify the reduction dim with the 'dim' "
                f"argument; the shape is {list(shape)}"
            )
    elif 0 in [shape[d] for d in dims]:
        raise IndexError(
            f"{name}(): expected reduction dim to have non-zero size, but the shape is {list(shape)} and dim is {list(dims)}"
        )
