"""Indexing in NumPy's forms, gather and scatter, and masks."""

from __future__ import annotations

import operator
from typing import Any

from ..autograd.grad_mode import recording
from ..autograd.operation import Operation, apply, check_in_place
from ..autograd.variable import Tensor, bump_version, wrap
from ..autograd.views import AssignedView, set_history, view_of
from ..backend import dtypes as dt
from ..backend import namespace
from ..backend.dtypes import DIFFERENTIABLE, DTYPES
from .dims import normal_dim
from .elementwise import as_operands

# What users find of this family, and where: see ops/public.py.
BOTH = """
    clamp clamp_max clamp_min clip gather index_select masked_fill masked_select nonzero scatter scatter_add take_along_dim
"""
FUNCTIONS = "where"
TWINS = "clamp clamp_max clamp_min clip masked_fill scatter scatter_add"

# --- x[...] and x[...] = y ------------------------------------------------------------------------------------------


def _is_basic(index: Any) -> bool:
    """Whether an index makes a view: integers, slices, None and ..., and tuples of them."""
    if index.__class__ is tuple:
        for part in index:
            if part.__class__ is not int and part.__class__ is not slice and part is not None and part is not Ellipsis:
                return False
        return True
    return index.__class__ is int or index.__class__ is slice or index is None or index is Ellipsis


def _is_plain(part: slice) -> bool:
    """Whether a slice goes from integer to integer by steps of 1."""
    start, stop = part.start, part.stop
    return (
        part.step is None
        and (start is None or start.__class__ is int)
        and (stop is None or stop.__class__ is int)
    )


def _part(part: Any, xp: Any) -> Any:
    if part.__class__ is slice:
        if _is_plain(part):
            return part
        bounds = [None if v is None else operator.index(v) for v in (part.start, part.stop, part.step)]
        if bounds[2] is not None and bounds[2] <= 0:
            raise ValueError(f"step must be greater than zero, got {bounds[2]}; see flip()")
        return slice(*bounds)
    if isinstance(part, Tensor):
        array = part._array
        if array.dtype not in dt.INTEGRAL:
            raise IndexError(f"tensors used as indices must be integers or bool, not {DTYPES[array.dtype]}")
        return int(array) if array.ndim == 0 and array.dtype != dt.bool_.numpy else array
    if isinstance(part, (list, range)):
        return _part(_as_index_tensor(list(part), xp), xp)
    if part is None or part is Ellipsis or isinstance(part, bool):
        return part
    if hasattr(part, "__index__") and getattr(part, "ndim", 0) == 0:
        return part.__index__()
    if hasattr(part, "__array__"):
        return xp.asarray(part)
    raise IndexError(
        "only integers, slices (`:`), ellipsis (`...`), None and long or bool tensors are valid indices "
        f"(got {type(part).__name__})"
    )


def _as_index_tensor(values: list, xp: Any) -> Tensor:
    plain = [v.item() if isinstance(v, Tensor) and v.ndim == 0 else v for v in values]
    array = xp.array(plain) if plain else xp.zeros((0,), dt.int64.numpy)
    return wrap(array)


def _normal_index(index: Any, x: Tensor) -> Any:
    """An index in the array library's terms, with PyTorch's errors for wrong ones."""
    xp = namespace(x._array)
    if isinstance(index, tuple):
        return tuple([i if i.__class__ is int else _part(i, xp) for i in index])
    return _part(index, xp)


def _index_error(x: Tensor, index: Any, error: Exception) -> IndexError:
    return IndexError(f"cannot index a tensor of shape {list(x.shape)}: {error}")


_basic = Operation(
    "slice",
    lambda xp, x, *, index: x[index],
    is_view=True,
    x=lambda g, x_shape, index, xp: xp.put_slice(g, x_shape, index),
)
_advanced = Operation(
    "index", lambda xp, x, *, index: x[index], x=lambda g, x_shape, index, xp: xp.put_index(g, x_shape, index)
)


def getitem(input: Tensor, index: Any) -> Tensor:
    """``input[index]`` with integers, slices, ``...``, None (views), integer and bool tensors, lists (copies).

    Raises
    ------
    IndexError
        If the index does not fit the shape.
    """
    kind = index.__class__
    if kind is not int and not (kind is slice and _is_plain(index)):
        index = _normal_index(index, input)
        kind = index.__class__
    try:
        if kind is int:
            index = (index, ...)  # a view also where only one element is left
        elif kind is not slice:
            if not _is_basic(index):
                return apply(_advanced, input, index=index)
            if kind is tuple and Ellipsis not in index:
                index = (*index, ...)
        return view_of(_basic, input, input._array[index], {"index": index})
    except IndexError as error:
        raise _index_error(input, index, error) from None


def setitem(input: Tensor, index: Any, value: Any) -> None:
    """``input[index] = value``, recorded: the gradient of what was overwritten is zero.

    Raises
    ------
    IndexError
        If the index does not fit the shape.
    RuntimeError
        If the value does not broadcast to what is indexed.
    """
    index = _normal_index(index, input)
    a = input._array
    xp = namespace(a)
    source = value if isinstance(value, Tensor) else wrap(xp.asarray(value))
    check_in_place("setitem", input, (source,))
    try:
        a[index] = source._array if source._array.__class__ is a.__class__ else xp.array(source._array)
    except IndexError as error:
        raise _index_error(input, index, error) from None
    except ValueError:
        raise RuntimeError(
            f"shape mismatch: value of shape {list(source.shape)} cannot be broadcast to the indexed part of a tensor of shape "
            f"{list(a.shape)}"
        ) from None
    bump_version(input)
    if recording.get() and (source._node is not None or input._node is not None) and a.dtype in DIFFERENTIABLE:
        _record_assignment(input, index, source)


def _record_assignment(input: Tensor, index: Any, source: Tensor) -> None:
    operation = _basic if _is_basic(index) else _advanced
    part = wrap(input._array[index])
    value = source.to(dtype=DTYPES[input._array.dtype]).expand(part._array.shape)
    node = AssignedView(input, ((operation, {"index": index}),), value._node)
    set_history(input, node)


# --- gather, scatter, index_select --------------------------------------------------------------------------------

_gather = Operation(
    "gather",
    lambda xp, x, index, *, dim: xp.gather(x, index, dim),
    x=lambda g, index, x_shape, dim, xp: xp.scatter_add(g, index, x_shape, dim),
)
_scatter_add = Operation(
    "scatter_add",
    lambda xp, x, index, source, *, dim: x + xp.scatter_add(source, index, x.shape, dim),
    x=lambda g: g,
    source=lambda g, index, dim, xp: xp.gather(g, index, dim),
)
_scatter = Operation(
    "scatter",
    lambda xp, x, index, source, *, dim: xp.scatter(x, index, source, dim),
    x=lambda g, index, dim, xp: xp.scatter(g, index, xp.zeros(index.shape, g.dtype), dim),
    source=lambda g, index, dim, xp: xp.gather(g, index, dim),
)


def _check_index(name: str, input: Tensor, dim: int, index: Tensor, source: Tensor | None = None) -> int:
    """The dimension, if index (and source) fit the input."""
    dim = normal_dim(dim, input.ndim, name)
    if index._array.dtype not in (dt.int64.numpy, dt.int32.numpy):
        raise RuntimeError(f"{name}(): expected dtype int32/int64 for index, got {index.dtype}")
    if index.ndim != input.ndim:
        raise RuntimeError(
            f"{name}(): index must have as many dimensions as input: got {list(index.shape)} and {list(input.shape)}"
        )
    a = index._array
    for i, n in enumerate(a.shape):
        if (i != dim and n > input._array.shape[i]) or (source is not None and n > source._array.shape[i]):
            raise RuntimeError(
                f"{name}(): index of shape {list(a.shape)} must not be larger than input of shape {list(input.shape)} apart from "
                f"dimension {dim}" + ("" if source is None else f", nor than src of shape {list(source.shape)}")
            )
    if source is not None and source._array.dtype != input._array.dtype:
        raise RuntimeError(f"{name}(): expected input and src to have the same dtype, got {input.dtype} and {source.dtype}")
    if a.size:
        xp = namespace(a)
        low, high = int(xp.min(a)), int(xp.max(a))
        if low < 0 or high >= input.shape[dim]:
            bad = low if low < 0 else high
            raise RuntimeError(f"{name}(): index {bad} is out of bounds for dimension {dim} with size {input.shape[dim]}")
    return dim


def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """``out[i][j][k] = input[index[i][j][k]][j][k]`` for dim 0, and so on; as ``torch.gather``.

    Parameters
    ----------
    input : Tensor
    dim : int
    index : Tensor
        int64, of as many dimensions; no larger than `input` except along `dim`.
    """
    if not input.ndim:
        return input.clone()
    return apply(_gather, input, index, dim=_check_index("gather", input, dim, index))


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """`input` with the values of `src` added where `index` says along `dim`; as ``torch.scatter_add``."""
    dim = _check_index("scatter_add", input, dim, index, src)
    part = src[tuple(slice(0, n) for n in index.shape)]
    return apply(_scatter_add, input, index, part, dim=dim)


def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None) -> Tensor:
    """`input` with the values of `src` put where `index` says along `dim`; as ``torch.scatter``."""
    given = src if src is not None else value
    if isinstance(given, Tensor) and given.ndim:
        dim = _check_index("scatter", input, dim, index, given)
        part = given[tuple(slice(0, n) for n in index.shape)]
    else:
        dim = _check_index("scatter", input, dim, index)
        number = given.item() if isinstance(given, Tensor) else given
        part = wrap(namespace(input._array).full(index._array.shape, number, input._array.dtype))
    return apply(_scatter, input, index, part, dim=dim)


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The given indices of a dimension, copied; as ``torch.index_select``."""
    dim = normal_dim(dim, input.ndim, "index_select")
    if index.ndim > 1:
        raise IndexError(f"index_select(): Index is supposed to be a vector, got shape {list(index.shape)}")
    return input[(slice(None),) * dim + (index.reshape(-1),)]


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """Values at indices along a dimension, with broadcasting; as ``torch.take_along_dim``."""
    if dim is None:
        return gather(input.reshape(-1), 0, indices.reshape(-1))
    dim = normal_dim(dim, input.ndim, "take_along_dim")
    shape = list(input.shape)
    shape[dim] = indices.shape[dim]
    return gather(input, dim, indices.expand(shape))


# --- masks ----------------------------------------------------------------------------------------------------------

_where = Operation(
    "where",
    lambda xp, condition, x, y: xp.where(condition, x, y),
    x=lambda g, condition, xp: xp.where(condition, g, xp.zeros_like(g)),
    y=lambda g, condition, xp: xp.where(condition, xp.zeros_like(g), g),
)


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """Elements of `input` where the condition is true, else of `other`; as ``torch.where``.

    Parameters
    ----------
    condition : Tensor
        bool.
    input, other : Tensor or number
        Broadcast with the condition. Without them, ``nonzero(condition, as_tuple=True)``.

    Raises
    ------
    RuntimeError
        If the condition is not bool.
    """
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    if condition._array.dtype != dt.bool_.numpy:
        raise RuntimeError(f"where expected condition to be a boolean tensor, but got a tensor with dtype {condition.dtype}")
    xp = namespace(condition._array)
    result = dt.result_type(input, other).numpy

    def operand(v: Any) -> Tensor:
        if isinstance(v, Tensor):
            return v if v._array.dtype == result else v.to(dtype=result)
        return wrap(xp.asarray(xp.scalar(v, result)))

    x, y = operand(input), operand(other)
    try:
        return apply(_where, condition, x, y)
    except ValueError:
        raise RuntimeError(
            f"where: condition of shape {list(condition.shape)}, input of {list(x.shape)} and other of {list(y.shape)} cannot be broadcast"
        ) from None


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The indices of elements that are not zero: (n, ndim), or a tuple of one vector a dimension; as ``torch.nonzero``."""
    a = input._array
    xp = namespace(a)
    if not a.ndim:
        found = (xp.nonzero(xp.reshape(a, (1,)))[0],)
        return tuple(wrap(i) for i in found) if as_tuple else wrap(xp.zeros((len(found[0]), 0), dt.int64.numpy))
    found = tuple(i.astype(dt.int64.numpy) for i in xp.nonzero(a))
    return tuple(wrap(i) for i in found) if as_tuple else wrap(xp.stack(found, axis=1))


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """`input` with a value where the mask is true; as ``torch.masked_fill``."""
    if mask._array.dtype != dt.bool_.numpy:
        raise RuntimeError(f"masked_fill only supports boolean masks, but got mask with dtype {mask.dtype}")
    if isinstance(value, Tensor) and value.ndim:
        raise RuntimeError(f"masked_fill only supports a 0-dimensional value tensor, but got one of shape {list(value.shape)}")
    xp = namespace(input._array)
    filler = value.to(dtype=input.dtype) if isinstance(value, Tensor) else wrap(xp.asarray(xp.scalar(value, input._array.dtype)))
    return apply(_where, mask, filler, input)


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where the mask is true, in one dimension; as ``torch.masked_select``."""
    from .shape import broadcast_tensors

    x, m = broadcast_tensors(input, mask)
    return x[m]


# --- clamp ----------------------------------------------------------------------------------------------------------

_clamp_numbers = Operation(
    "clamp",
    lambda xp, x, *, low, high: xp.clip(x, low, high),
    x=lambda g, x, low, high, xp: g * _within(x, low, high),
)


def _within(x: Any, low: Any, high: Any) -> Any:
    if low is None:
        return x <= high
    return x >= low if high is None else (x >= low) & (x <= high)


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Each element, but not less than `min` and not more than `max`; as ``torch.clamp``.

    Raises
    ------
    RuntimeError
        If both are absent.
    """
    if min is None and max is None:
        raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        from .pointwise import maximum, minimum

        if min is not None:
            input = maximum(input, min if isinstance(min, Tensor) else wrap(as_operands_number(input, min)))
        if max is not None:
            input = minimum(input, max if isinstance(max, Tensor) else wrap(as_operands_number(input, max)))
        return input
    result = dt.result_type(*(v for v in (input, min, max) if v is not None))
    if result.numpy != input._array.dtype:
        input = input.to(dtype=result)
    xp = namespace(input._array)
    low, high = (None if v is None else xp.scalar(v, result.numpy) for v in (min, max))
    return apply(_clamp_numbers, input, low=low, high=high)


def as_operands_number(input: Tensor, value: Any) -> Any:
    """A number as an array without dimensions, of the tensor's dtype."""
    xp = namespace(input._array)
    return as_operands(input._array, xp.asarray(xp.scalar(value, input._array.dtype)))[1]


def clamp_min(input: Tensor, min: Any) -> Tensor:
    """`clamp` from below."""
    return clamp(input, min=min)


def clamp_max(input: Tensor, max: Any) -> Tensor:
    """`clamp` from above."""
    return clamp(input, max=max)


clip = clamp
