"""Tensors joined: cat and stack in all their forms, blocks on a diagonal, grids and products."""

from __future__ import annotations

import builtins
import itertools
from collections.abc import Sequence
from typing import Any

from ...autograd.operation import Operation, apply, refuse_devices
from ...autograd.variable import Tensor, wrap
from ...backend import dtypes as dt
from ...backend import namespace
from ...backend.dtypes import DTYPES, result_of
from ..dims import normal_dim
from ..outputs import put_out
from .views import atleast_1d, atleast_2d, atleast_3d, expand, reshape

# What users find of this family, and where: see ops/public.py.
FUNCTIONS = "block_diag cartesian_prod cat column_stack combinations dstack hstack meshgrid stack vstack"
ALIASES = {"concat": "cat", "concatenate": "cat", "row_stack": "vstack"}
OUT = "column_stack dstack hstack vstack"


def _cat_rule(g: Any, dim: int, sizes: tuple[int, ...], xp: Any) -> tuple:
    parts, start = [], 0
    before = (slice(None),) * dim
    for n in sizes:
        parts.append(g[(*before, slice(start, start + n))])
        start += n
    return tuple(parts)


_cat = Operation("cat", lambda xp, *arrays, dim, sizes: xp.concatenate(arrays, axis=dim), gradients=_cat_rule)
_stack = Operation(
    "stack",
    lambda xp, *arrays, dim: _stacked(xp, arrays, dim),
    gradients=lambda g, dim, xp: tuple(g[(slice(None),) * dim + (i,)] for i in range(g.shape[dim])),
)


def _stacked(xp: Any, arrays: Sequence[Any], dim: int) -> Any:
    shape = tuple(arrays[0].shape)
    if dim == 0 and shape:  # one behind the other, without a view of each
        return xp.reshape(xp.concatenate(arrays, axis=0), (len(arrays), *shape))
    wanted = (*shape[:dim], 1, *shape[dim:])
    return xp.concatenate([xp.reshape(a, wanted) for a in arrays], axis=dim)


def _as_tensors(name: str, tensors: Any) -> tuple[Tensor, ...]:
    if isinstance(tensors, Tensor):
        raise TypeError(f"{name}(): argument 'tensors' must be tuple of Tensors, not Tensor")
    tensors = tuple(tensors)
    if not all(isinstance(x, Tensor) for x in tensors):
        i, x = next((i, x) for i, x in enumerate(tensors) if not isinstance(x, Tensor))
        raise TypeError(f"expected Tensor as element {i} in argument 0 of {name}(), but got {type(x).__name__}")
    return tensors


def _in_one_dtype(tensors: Sequence[Tensor], out: Tensor | None) -> list[Tensor]:
    first = tensors[0]._array.dtype
    if all(x._array.dtype is first for x in tensors):
        return list(tensors)
    dtype = result_of([(DTYPES[x._array.dtype], 2 if x._array.ndim else 1) for x in tensors]).numpy
    return [x if x._array.dtype == dtype else x.to(dtype=dtype) for x in tensors]


def cat(tensors: Sequence[Tensor], dim: int = 0, *, out: Tensor | None = None, axis: int | None = None) -> Tensor:
    """Tensors joined along a dimension that they have; as ``torch.cat``.

    Parameters
    ----------
    tensors : sequence of Tensor
        Of one shape but for `dim`; of different dtypes, the result has their promoted one.
    dim : int

    Raises
    ------
    RuntimeError
        If their shapes differ elsewhere.
    ValueError
        If there are none.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.cat([disttorch.zeros(2), disttorch.ones(1)])
    tensor([0., 0., 1.])
    """
    tensors = _as_tensors("cat", tensors)
    if not tensors:
        raise ValueError("cat(): expected a non-empty list of Tensors")
    shapes = {x._array.shape for x in tensors}
    if len(shapes) == 1 and (shape := tensors[0]._array.shape) and shape != (0,):  # the common case
        dim = normal_dim(dim if axis is None else axis, len(shape), "cat")
        result = _joined(_cat, _in_one_dtype(tensors, out), dim=dim, sizes=(shape[dim],) * len(tensors))
        return put_out("cat", result, out, tensors, exact=False)
    # PyTorch lets a one-dimensional empty tensor join anything
    some = [x for x in tensors if x._array.shape != (0,)] or list(tensors[:1])
    b = some[0]._array.shape
    dim = normal_dim(dim if axis is None else axis, len(b), "cat")
    for i, x in enumerate(some):
        a = x._array.shape
        if not a or len(a) != len(b):
            if not a:
                raise RuntimeError(f"zero-dimensional tensor (at position {i}) cannot be concatenated")
            raise RuntimeError(f"cat: tensors must have the same number of dimensions, at least one: got {list(b)} and {list(a)}")
        if a is not b and (a[:dim] != b[:dim] or a[dim + 1 :] != b[dim + 1 :]):
            raise RuntimeError(
                f"cat: sizes of tensors must match except in dimension {dim}: tensor number {i} has {list(a)}, the first {list(b)}"
            )
    if len(some) != len(tensors):
        kinds = _in_one_dtype(tensors, out)
        some = [k for k, x in zip(kinds, tensors) if x._array.shape != (0,)] or kinds[:1]
    else:
        some = _in_one_dtype(some, out)
    result = _joined(_cat, some, dim=dim, sizes=tuple([x._array.shape[dim] for x in some]))
    return put_out("cat", result, out, tensors, exact=False)


def _joined(operation: Operation, tensors: list[Tensor], **params: Any) -> Tensor:
    try:
        return apply(operation, *tensors, **params)
    except TypeError:
        if len({x._array.__class__ for x in tensors}) > 1:
            refuse_devices(operation.name, [x.device for x in tensors])
        raise


def stack(tensors: Sequence[Tensor], dim: int = 0, *, out: Tensor | None = None, axis: int | None = None) -> Tensor:
    """Tensors of one shape joined along a new dimension; as ``torch.stack``.

    Raises
    ------
    RuntimeError
        If there are none, or their shapes differ.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.stack([disttorch.zeros(2), disttorch.ones(2)], dim=1)
    tensor([[0., 1.],
            [0., 1.]])
    """
    tensors = _as_tensors("stack", tensors)
    if not tensors:
        raise RuntimeError("stack expects a non-empty TensorList")
    first = tensors[0]._array.shape
    for i, x in enumerate(tensors) if len({x._array.shape for x in tensors}) > 1 else ():
        if x._array.shape != first:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(first)} at entry 0 and {list(x.shape)} at entry {i}"
            )
    dim = normal_dim(dim if axis is None else axis, len(first) + 1, "stack")
    result = _joined(_stack, _in_one_dtype(tensors, out), dim=dim)
    return put_out("stack", result, out, tensors, exact=False)


def _stacking(name: str, at_least: Any, along: Any, what: str) -> Any:
    def function(tensors: Sequence[Tensor]) -> Tensor:
        parts = _as_tensors(name, tensors)
        if not parts:
            raise RuntimeError(f"{name} expects a non-empty TensorList")
        parts = tuple(at_least(x) for x in parts)
        return cat(parts, along(parts[0]))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Tensors joined {what}; as ``torch.{name}``."
    return function


hstack = _stacking("hstack", atleast_1d, lambda x: 0 if x.ndim == 1 else 1, "side by side, along dimension 1 (0 for vectors)")
vstack = _stacking("vstack", atleast_2d, lambda x: 0, "one below the other, vectors as rows")
dstack = _stacking("dstack", atleast_3d, lambda x: 2, "along dimension 2")
column_stack = _stacking(
    "column_stack", lambda x: reshape(x, -1, 1) if x.ndim < 2 else x, lambda x: 1, "side by side, vectors as columns"
)

_block_diag = Operation(
    "block_diag",
    lambda xp, *blocks, places: _blocks(xp, blocks, places),
    gradients=lambda g, places: tuple(g[r : r + n, c : c + m] for r, c, n, m in places),
)


def _blocks(xp: Any, blocks: Sequence[Any], places: Sequence[tuple[int, int, int, int]]) -> Any:
    r, c, n, m = places[-1]
    result = xp.zeros((r + n, c + m), blocks[0].dtype)
    for block, (r, c, n, m) in zip(blocks, places):
        result[r : r + n, c : c + m] = block
    return result


def block_diag(*tensors: Tensor) -> Tensor:
    """A matrix with tensors of up to two dimensions as blocks on its diagonal; as ``torch.block_diag``.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.block_diag(disttorch.tensor([[1, 2]]), disttorch.tensor(3))
    tensor([[1, 2, 0],
            [0, 0, 3]])
    """
    for i, x in enumerate(tensors):
        if x.ndim > 2:
            raise RuntimeError(f"torch.block_diag: Input tensors must have 2 or fewer dimensions. Input {i} has {x.ndim} dimensions")
    if not tensors:
        return wrap(namespace_of_default().zeros((1, 0), dt.get_default_dtype().numpy))
    blocks = _in_one_dtype([atleast_2d(x) for x in tensors], None)
    places, r, c = [], 0, 0
    for x in blocks:
        n, m = x._array.shape
        places.append((r, c, n, m))
        r, c = r + n, c + m
    return apply(_block_diag, *blocks, places=tuple(places))


def namespace_of_default() -> Any:
    """The namespace of the device on which tensors are made unless said otherwise."""
    from ...backend import for_device

    return for_device(None)[0]


# --- grids and products ---------------------------------------------------------------------------------------------


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinate tensors of a grid from one-dimensional tensors, as views; as ``torch.meshgrid``."""
    parts = tuple(tensors[0]) if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    if indexing not in ("ij", "xy"):
        raise RuntimeError(f"meshgrid: indexing must be 'ij' or 'xy', not {indexing!r}")
    if not parts:
        raise RuntimeError("meshgrid expects a non-empty TensorList")
    for p in parts:
        if p.ndim > 1:
            raise RuntimeError(f"torch.meshgrid: Expected 0D or 1D tensor in the tensor list but got a tensor of shape {list(p.shape)}")
        if p.dtype is not parts[0].dtype:
            raise RuntimeError("torch.meshgrid expects all tensors to have the same dtype")
    n = len(parts)
    shape = [p.numel() for p in parts]
    grids = [expand(reshape(p, [-1 if j == i else 1 for j in range(n)]), shape) for i, p in enumerate(parts)]
    return tuple(g.transpose(0, 1) for g in grids) if indexing == "xy" and n > 1 else tuple(grids)


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All combinations of one element of each vector, (product of the sizes, number of vectors); as ``torch.cartesian_prod``."""
    for x in tensors:
        if x.ndim != 1:
            raise RuntimeError(f"Expect a 1D vector, but got shape {list(x.shape)}")
    if len(tensors) == 1:
        return tensors[0]
    return stack([reshape(g, -1) for g in meshgrid(*tensors)], 1)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All combinations of `r` elements of a vector, each a row; as ``torch.combinations``."""
    if input.ndim != 1:
        raise RuntimeError(f"Expect a 1D vector, but got shape {list(input.shape)}")
    if r < 0:
        raise RuntimeError(f"Expect a non-negative number, but got {r}")
    if not r:
        return input.new_empty(0)
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = list(itertools.chain.from_iterable(choose(builtins.range(input.shape[0]), r)))
    xp = namespace(input._array)
    index = xp.asarray(rows, dt.int64.numpy) if rows else xp.zeros((0,), dt.int64.numpy)
    return reshape(input[wrap(index)], -1, r)
