"""Values put, added, multiplied ... at places: scatter, index_add, index_put and their family; and gather.

All are one of two operations (places.py), on an index as the array library takes it: `put_at` and `reduce_at`.
"""

from __future__ import annotations

from typing import Any

from ...autograd.operation import apply
from ...autograd.variable import Tensor, wrap
from ...backend import dtypes as dt
from ...backend import namespace
from ..dims import normal_dim
from ..outputs import put_out
from .getitem import _index_array, advanced_index
from .masks import masked_fill
from .places import BY_NAME, INDEX_DTYPES, add_at_op, gather_op, multiply_at_op, put_at_op

# What users find of this family, and where: see ops/public.py.
BOTH = """
    gather index_add index_copy index_fill index_put index_reduce put scatter scatter_add scatter_reduce
"""
TWINS = "index_add index_copy index_fill index_put index_reduce put scatter scatter_add scatter_reduce"
OUT = "index_add index_copy index_reduce scatter scatter_add scatter_reduce"


def _reduced(name: str, reduce: str, x: Tensor, index: Any, source: Tensor, include_self: bool) -> Tensor:
    operation = BY_NAME.get(reduce)
    if operation is None:
        raise RuntimeError(f"{name}: reduce argument must be either {', '.join(BY_NAME)}, got {reduce!r}")
    result = apply(operation, x, source, index=index, include_self=include_self)
    if reduce != "mean":
        return result
    xp = namespace(x._array)
    counts = xp.reduce_at(xp.ones(x._array.shape, INDEX_DTYPES[0]), index, xp.ones((), INDEX_DTYPES[0]), "add", include_self)
    counts = wrap(xp.maximum(counts, xp.ones((), INDEX_DTYPES[0])))
    if x._array.dtype in dt.INTEGRAL:
        return (result // counts).to(dtype=x.dtype)
    return result / counts.to(dtype=x.dtype)


# --- along a dimension, each element with its index ------------------------------------------------------------------


def _check_index(name: str, input: Tensor, dim: int, index: Tensor, source: Tensor | None = None) -> int:
    """The dimension, if index (and source) fit the input."""
    dim = normal_dim(dim, input.ndim, name)
    if not isinstance(index, Tensor):
        raise TypeError(f"{name}(): argument 'index' must be Tensor, not {type(index).__name__}")
    a, shape = index._array, input._array.shape or (1,)
    if not a.size:
        return dim
    if a.dtype not in INDEX_DTYPES:
        raise RuntimeError(f"{name}(): expected dtype int32/int64 for index, got {index.dtype}")
    if (a.ndim or 1) != len(shape) or (source is not None and (source._array.ndim or 1) != len(shape)):
        raise RuntimeError(
            f"{name}(): index" + ("" if source is None else " and src") + " must have as many dimensions as input: got "
            f"{list(a.shape)}" + ("" if source is None else f", {list(source.shape)}") + f" and {list(input.shape)}"
        )
    for i, n in enumerate(a.shape):
        if (i != dim and n > shape[i]) or (source is not None and n > (source._array.shape or (1,))[i]):
            raise RuntimeError(
                f"{name}(): index of shape {list(a.shape)} must not be larger than input of shape {list(input.shape)} apart from "
                f"dimension {dim}" + ("" if source is None else f", nor than src of shape {list(source.shape)}")
            )
    if source is not None and source._array.dtype != input._array.dtype:
        raise RuntimeError(f"{name}(): Expected self.dtype to be equal to src.dtype, got {input.dtype} and {source.dtype}")
    xp = namespace(a)
    low, high = int(xp.min(a)), int(xp.max(a))
    if low < 0 or high >= shape[dim]:
        bad = low if low < 0 else high
        raise RuntimeError(f"{name}(): index {bad} is out of bounds for dimension {dim} with size {shape[dim]}")
    return dim


def _grid_of(index: Tensor, dim: int) -> tuple:
    a = index._array
    xp = namespace(a)
    return xp.grid(a if a.ndim else xp.reshape(a, (1,)), dim)


def _corner(source: Tensor, index: Tensor) -> Tensor:
    """The part of a source that an index, which may be smaller, uses."""
    if source.shape == index.shape:
        return source if source.ndim else source.reshape(1)
    if not source.ndim or not index.ndim:
        return source.reshape(1)
    return source[tuple(slice(0, n) for n in index.shape)]


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False, out: Tensor | None = None) -> Tensor:
    """``out[i][j][k] = input[index[i][j][k]][j][k]`` for dim 0, and so on; as ``torch.gather``.

    Parameters
    ----------
    input : Tensor
    dim : int
    index : Tensor
        int64, of as many dimensions; no larger than `input` except along `dim`.
    sparse_grad : bool
        Accepted as in PyTorch; gradients are dense.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.gather(disttorch.tensor([[1, 2], [3, 4]]), 1, disttorch.tensor([[1], [0]]))
    tensor([[2],
            [3]])
    """
    dim = _check_index("gather", input, dim, index)
    if not index.numel():
        result = input.reshape(-1)[:0].reshape(index.shape)  # of nothing, but still in the graph
    else:
        x, at = (v if v.ndim else v.reshape(1) for v in (input, index))
        result = apply(gather_op, x, at, dim=dim)
        result = result if index.ndim else result.reshape(())
    return put_out("gather", result, out, (input, index))


def _scattered(name: str, operate: Any, input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    dim = _check_index(name, input, dim, index, source)
    if not index.numel():
        return input.clone()
    if not input.ndim:
        return operate(input.reshape(1), _grid_of(index, 0), _corner(source, index)).reshape(())
    return operate(input, _grid_of(index, dim), _corner(source, index))


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """`input` with the values of `src` added where `index` says along `dim`; as ``torch.scatter_add``."""
    return _scattered(
        "scatter_add", lambda x, at, s: apply(add_at_op, x, s, index=at, include_self=True), input, dim, index, src
    )


def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, value: Any = None, *, reduce: str | None = None) -> Tensor:
    """`input` with the values of `src`, or one value, put where `index` says along `dim`; as ``torch.scatter``.

    Parameters
    ----------
    input : Tensor
    dim : int
    index : Tensor
        int64, of as many dimensions.
    src : Tensor or number
    reduce : {"add", "multiply"}, optional
        Combine with what is there.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.zeros(2, 3).scatter(1, disttorch.tensor([[2], [0]]), 1.0)
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """
    given = src if src is not None else value
    if reduce not in (None, "add", "multiply"):
        raise RuntimeError(f"reduce argument must be either add or multiply, got {reduce!r}")
    if isinstance(given, Tensor) and (given.ndim or not input.ndim or src is None):
        source = given if given.ndim or not input.ndim else _filled_like(index, input, given)
    else:
        source = _filled_like(index, input, given)

    def operate(x: Tensor, at: tuple, s: Tensor) -> Tensor:
        if reduce is None:
            return apply(put_at_op, x, s, index=at)
        return apply(add_at_op if reduce == "add" else multiply_at_op, x, s, index=at, include_self=True)

    return _scattered("scatter", operate, input, dim, index, source)


def _filled_like(index: Tensor, input: Tensor, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(dtype=input.dtype).expand(index.shape)
    if not isinstance(value, (bool, int, float, complex)) and not hasattr(value, "__index__") and not hasattr(value, "__float__"):
        raise TypeError(f"scatter(): argument 'value' must be Number, not {type(value).__name__}")
    return wrap(namespace(input._array).full(index._array.shape, value, input._array.dtype))


def scatter_reduce(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True) -> Tensor:
    """`input` with the values of `src` reduced into where `index` says along `dim`; as ``torch.scatter_reduce``.

    Parameters
    ----------
    input : Tensor
    dim : int
    index : Tensor
        int64, of as many dimensions.
    src : Tensor
    reduce : {"sum", "prod", "mean", "amax", "amin"}
    include_self : bool
        Whether what is there takes part.
    """
    if reduce not in BY_NAME:
        raise RuntimeError(f"scatter_reduce(): reduce argument must be either {', '.join(BY_NAME)}, got {reduce!r}")
    return _scattered(
        "scatter_reduce", lambda x, at, s: _reduced("scatter_reduce", reduce, x, at, s, include_self), input, dim, index, src
    )


# --- whole slices with one index each -------------------------------------------------------------------------------


def _check_vector(name: str, input: Tensor, dim: int, index: Tensor, source: Tensor | None = None) -> tuple[int, tuple]:
    """The dimension and the index, if they (and the source) fit the input."""
    dim = normal_dim(dim, input.ndim, name)
    if not isinstance(index, Tensor):
        raise TypeError(f"{name}(): argument 'index' must be Tensor, not {type(index).__name__}")
    if index.ndim > 1:
        raise IndexError(f"{name}(): Index is supposed to be a vector, but got dim: {index.ndim} with shape {list(index.shape)}")
    if index._array.dtype not in INDEX_DTYPES:
        kind = IndexError if name == "index_fill" else RuntimeError
        raise kind(f"{name}(): Expected dtype int32/int64 for index, got {index.dtype}")
    if source is not None:
        if source._array.dtype != input._array.dtype:
            raise RuntimeError(f"{name}(): self and source expected to have the same dtype, but got {input.dtype} and {source.dtype}")
        wanted = list(input.shape)
        if input.ndim:
            wanted[dim] = index.numel()
        if (source.ndim or 1) != (input.ndim or 1) or (source.ndim and input.ndim and list(source.shape) != wanted):
            kind = IndexError if name in ("index_copy",) else RuntimeError
            raise kind(
                f"{name}(): source of shape {list(source.shape)} does not fit input of shape {list(input.shape)} and index of "
                f"{index.numel()} in dimension {dim}"
            )
    array = index._array.reshape(-1)
    size = input.shape[dim] if input.ndim else 1
    if array.size:
        low, high = int(array.min()), int(array.max())
        if low < (-size if name == "index_fill" else 0) or high >= size:
            raise IndexError(f"{name}(): index {low if low < 0 else high} is out of range for dimension {dim} with size {size}")
    return dim, ((slice(None),) * dim + (array,))


def _by_vector(name: str, operate: Any, input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    _, at = _check_vector(name, input, dim, index, source)
    if not input.ndim:
        return operate(input.reshape(1), at, source.reshape(1)).reshape(())
    return operate(input, at, source if source.ndim else source.reshape(1))


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """`input` with slices of `source`, times `alpha`, added at the indices of a dimension; as ``torch.index_add``."""
    _check_vector("index_add", input, dim, index, source)
    if alpha != 1:
        source = (source * alpha).to(dtype=source.dtype)
    return _by_vector(
        "index_add", lambda x, at, s: apply(add_at_op, x, s, index=at, include_self=True), input, dim, index, source
    )


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """`input` with slices of `source` at the indices of a dimension; as ``torch.index_copy``."""
    return _by_vector("index_copy", lambda x, at, s: apply(put_at_op, x, s, index=at), input, dim, index, source)


def index_reduce(input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True) -> Tensor:
    """`input` with slices of `source` reduced (prod, mean, amax, amin) into the indices of a dimension; as ``torch.index_reduce``."""
    if reduce not in ("prod", "mean", "amax", "amin"):
        raise RuntimeError(f"index_reduce(): Expected reduce to be one of prod, mean, amax or amin but got {reduce}.")
    return _by_vector(
        "index_reduce", lambda x, at, s: _reduced("index_reduce", reduce, x, at, s, include_self), input, dim, index, source
    )


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """`input` with a value at the indices of a dimension; as ``torch.index_fill``."""
    if isinstance(value, Tensor):
        if value.ndim:
            raise RuntimeError(f"Only supports 0-dimension value tensor, but got tensor with {value.ndim} dimension(s).")
    elif isinstance(value, complex) and not input.dtype.is_complex:
        raise RuntimeError(f"index_fill_(): Converting complex Scalar to non-complex type {input.dtype} is not supported")
    dim, at = _check_vector("index_fill", input, dim, index)
    xp = namespace(input._array)
    mask = xp.zeros((input.shape[dim] if input.ndim else 1,), dt.bool_.numpy)
    mask[at[-1]] = True
    return masked_fill(input, wrap(xp.reshape(mask, (-1,) + (1,) * (input.ndim - 1 - dim) if input.ndim else ())), value)


# --- any index ------------------------------------------------------------------------------------------------------


def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """``result = input; result[indices] = values``, or ``+=`` with repeated places added up; as ``torch.index_put``.

    Parameters
    ----------
    input : Tensor
    indices : sequence of Tensor
        One for each of the first dimensions; integers or bool; None for all of a dimension.
    values : Tensor
        Broadcast to what is indexed.
    accumulate : bool
    """
    xp = namespace(input._array)
    special, place = [], 0
    for part in indices:
        if part is None:
            place += 1
            continue
        array = _index_array(part, xp, input)
        special.append((place, array))
        place += array.ndim if array.dtype == dt.bool_.numpy else 1
    if place > input.ndim:
        raise IndexError(f"too many indices for tensor of dimension {input.ndim} (got {place})")
    if values._array.dtype != input._array.dtype:
        raise RuntimeError(
            f"Index put requires the source and destination dtypes match, got {input.dtype} for the destination and {values.dtype} "
            "for the source."
        )
    at = advanced_index(input, special)
    try:
        place_of = _shape_at(xp, input._array, at)
        if accumulate:
            return apply(add_at_op, input, values.expand(place_of), index=at, include_self=True)
        return apply(put_at_op, input, values.expand(place_of), index=at)
    except IndexError as error:
        raise IndexError(f"index_put: {error}; the tensor's shape is {list(input.shape)}") from None


def _shape_at(xp: Any, a: Any, at: Any) -> tuple[int, ...]:
    """The shape of what an index takes, found without taking it."""
    return xp.broadcast_to(xp.zeros((), dt.bool_.numpy), a.shape)[at].shape


def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """`input`, counted as if flat, with the values of `source` put, or added, at the indices; as ``torch.put``."""
    if index._array.dtype != dt.int64.numpy:
        raise RuntimeError(f"put_(): Expected a long tensor for index, but got {index.dtype}")
    if source._array.dtype != input._array.dtype:
        raise RuntimeError(f"put_(): self and source expected to have the same dtype, but got {input.dtype} and {source.dtype}")
    if index.numel() != source.numel():
        raise RuntimeError(
            f"put_(): Expected source and index to have the same number of elements, but got source.numel() = {source.numel()}, "
            f"index.numel() = {index.numel()}"
        )
    array = index._array.reshape(-1)
    if array.size:
        low, high, n = int(array.min()), int(array.max()), input.numel()
        if not n:
            raise IndexError("put_(): Tried to put elements into an empty tensor")
        if low < -n or high >= n:
            raise IndexError(f"out of range: tried to access index {low if low < -n else high} on a tensor of {n} elements.")
    flat, values = input.reshape(-1), source.reshape(-1)
    if accumulate:
        result = apply(add_at_op, flat, values, index=array, include_self=True)
    else:
        result = apply(put_at_op, flat, values, index=array)
    return result.reshape(input.shape)
