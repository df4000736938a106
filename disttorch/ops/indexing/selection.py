"""Elements and slices taken by their indices, and the indices of elements: index_select, take, nonzero and their family."""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation, apply, refuse_devices
from ...autograd.variable import Tensor, wrap
from ...backend import dtypes as dt
from ...backend import namespace
from ..dims import as_shape, normal_dim
from ..operands import write_out
from ..outputs import put_out
from ..shape.views import broadcast_tensors
from ..taking import index_op
from .getitem import getitem
from .places import INDEX_DTYPES
from .scattering import gather

# What users find of this family, and where: see ops/public.py.
BOTH = "argwhere index_select masked_select nonzero nonzero_static take take_along_dim"
FUNCTIONS = "unravel_index"
OUT = "nonzero_static"

_index_select = Operation(
    "index_select",
    lambda xp, x, *, index, dim: xp.take(x, index, axis=dim),
    x=lambda g, x_shape, index, dim, xp: xp.put_index(g, tuple(x_shape), (slice(None),) * dim + (index,)),
)


def index_select(input: Tensor, dim: int, index: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The given indices of a dimension, copied; as ``torch.index_select``.

    Raises
    ------
    IndexError
        If the index is no vector, or out of range.
    RuntimeError
        If it is not of int32 or int64.
    """
    dim = normal_dim(dim, input.ndim, "index_select")
    if index.ndim > 1:
        raise IndexError(f"index_select(): Index is supposed to be a vector, got shape {list(index.shape)}")
    if index._array.dtype not in INDEX_DTYPES:
        raise RuntimeError(f"index_select(): Expected dtype int32 or int64 for index, got {index.dtype}")
    array = index._array.reshape(-1)
    size = input.shape[dim] if input.ndim else 1
    if array.size:
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= size:
            kind = IndexError if input.ndim else RuntimeError
            raise kind(f"index_select(): index {low if low < 0 else high} out of range for dimension {dim} with size {size}")
    if array.__class__ is not input._array.__class__:
        refuse_devices("index_select", [input.device, index.device])
    if not input.ndim:
        if array.size != 1:
            raise RuntimeError(f"index_select(): Index to scalar can have only 1 value, got {array.size} value(s)")
        return put_out("index_select", input.clone(), out, (input, index))
    return put_out("index_select", apply(_index_select, input, index=array, dim=dim), out, (input, index))


def take(input: Tensor, index: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Elements of the tensor, counted as if flat, in the index's shape; as ``torch.take``."""
    if index._array.dtype != dt.int64.numpy:
        raise RuntimeError(f"take(): Expected a long tensor for index, but got {index.dtype}")
    array, n = index._array, input.numel()
    if array.size:
        if not n:
            raise IndexError("take(): tried to take from an empty tensor")
        low, high = int(array.min()), int(array.max())
        if low < -n or high >= n:
            raise IndexError(f"out of range: tried to access index {low if low < -n else high} on a tensor of {n} elements.")
    flat = input.reshape(-1)
    if array.__class__ is not flat._array.__class__:
        refuse_devices("take", [input.device, index.device])
    return put_out("take", apply(index_op, flat, index=array), out, (input, index))


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None, *, out: Tensor | None = None) -> Tensor:
    """Values at indices along a dimension, with broadcasting elsewhere; as ``torch.take_along_dim``."""
    if indices._array.dtype != dt.int64.numpy:
        raise RuntimeError(f"torch.take_along_dim(): dtype of indices should be Long but got {indices.dtype}")
    if dim is None:
        input, indices, dim = input.reshape(-1), indices.reshape(-1), 0
    if input.ndim != indices.ndim:
        raise RuntimeError(
            f"torch.take_along_dim(): input and indices should have the same number of dimensions, but got {input.ndim} dimensions "
            f"for input, and {indices.ndim} dimensions for indices"
        )
    dim = normal_dim(dim, input.ndim, "take_along_dim")
    size = input.shape[dim] if input.ndim else 1
    array = indices._array
    if array.size and int(array.min()) < 0:  # counted from the end
        indices = wrap(namespace(array).where(array < 0, array + size, array))
    if not input.ndim:
        return put_out("take_along_dim", gather(input, 0, indices), out, (input, indices))
    x, at = list(input.shape), list(indices.shape)
    both = [a if b == 1 else b for a, b in zip(x, at)]
    wide_x = [n if i != dim else x[dim] for i, n in enumerate(both)]
    wide_at = [n if i != dim else at[dim] for i, n in enumerate(both)]
    return put_out("take_along_dim", gather(input.expand(wide_x), dim, indices.expand(wide_at)), out, (input, indices))


def masked_select(input: Tensor, mask: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The elements where the mask is true, in one dimension; as ``torch.masked_select``."""
    if mask._array.dtype != dt.bool_.numpy:
        raise RuntimeError(f"masked_select: expected BoolTensor for mask, but got {mask.dtype}")
    x, m = broadcast_tensors(input, mask)
    chosen = getitem(x, m) if x.ndim else getitem(x.reshape(1), m.reshape(1))
    return put_out("masked_select", chosen, out, (input, mask))


# --- where elements are ---------------------------------------------------------------------------------------------


def nonzero(input: Tensor, *, as_tuple: bool = False, out: Tensor | None = None) -> Any:
    """The indices of elements that are not zero: (n, ndim), or a tuple of one vector a dimension; as ``torch.nonzero``.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.nonzero(disttorch.tensor([[0, 5], [7, 0]]))
    tensor([[0, 1],
            [1, 0]])
    """
    a = input._array
    xp = namespace(a)
    if not a.ndim:
        found = (xp.nonzero(xp.reshape(a, (1,)))[0].astype(dt.int64.numpy),)
        if as_tuple:
            return (wrap(found[0]),)
        result = wrap(xp.zeros((len(found[0]), 0), dt.int64.numpy))
        return result if out is None else _resized(result, out)
    found = tuple(i.astype(dt.int64.numpy, copy=False) for i in xp.nonzero(a))
    if as_tuple:
        return tuple(wrap(i) for i in found)
    result = wrap(xp.stack(found, axis=1))
    return result if out is None else _resized(result, out)


def _resized(result: Tensor, out: Tensor) -> Tensor:
    if out._array.dtype != result._array.dtype:
        raise RuntimeError(f"nonzero: Expected out to have scalar type {result.dtype} but got {out.dtype}")
    return write_out("nonzero", result, out)


def argwhere(input: Tensor) -> Tensor:
    """The indices of elements that are not zero, (n, ndim); as ``torch.argwhere``."""
    return nonzero(input)


def nonzero_static(input: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """The first `size` rows of `nonzero`, or as many as there are and rows of `fill_value`; as ``torch.nonzero_static``."""
    if size < 0:
        raise RuntimeError(f"nonzero_static: 'size' must be an non-negative integer, got {size}")
    found = nonzero(input)._array
    xp = namespace(found)
    result = xp.full((size, input.ndim), fill_value, dt.int64.numpy)
    result[: len(found)] = found[:size]
    return wrap(result)


def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Indices into a flat tensor as indices into one of a shape, one tensor a dimension; as ``torch.unravel_index``.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.unravel_index(disttorch.tensor([4, 5]), (3, 2))
    (tensor([2, 2]), tensor([0, 1]))
    """
    if not isinstance(indices, Tensor):
        raise TypeError(f"unravel_index(): argument 'indices' must be Tensor, not {type(indices).__name__}")
    if indices._array.dtype not in dt.INTEGRAL or indices._array.dtype == dt.bool_.numpy:
        raise ValueError(f"expected 'indices' to be integer dtype, but got {indices.dtype}")
    if not isinstance(shape, (int, tuple, list)) and not isinstance(shape, Tensor):
        raise TypeError(f"expected 'shape' to be int or sequence of ints, but got {type(shape).__name__}")
    given = shape.tolist() if isinstance(shape, Tensor) else shape
    sizes = as_shape((given,) if isinstance(given, int) else (tuple(given),), "unravel_index")
    if any(n < 0 for n in sizes):
        raise ValueError(f"'shape' cannot have negative values, but got {sizes}")
    rest, found = indices.to(dtype=dt.int64), []
    for n in reversed(sizes):
        found.append(rest % n)
        rest = rest // n
    return tuple(reversed(found))
