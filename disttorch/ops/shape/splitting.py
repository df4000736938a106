"""Parts of a tensor along a dimension, as views: narrow, select, unbind, and splitting in all its forms."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ...autograd.variable import Tensor
from ...autograd.views import view_of
from ...backend import dtypes as dt
from ..dims import normal_dim
from ..taking import select_op, slice_op

# What users find of this family, and where: see ops/public.py.
BOTH = """
    chunk dsplit hsplit narrow select split split_with_sizes tensor_split unbind unsafe_chunk unsafe_split
    unsafe_split_with_sizes vsplit
"""
ARGUMENTS = {
    "split": {"split_size": "split_size_or_sections"},
    "tensor_split": dict.fromkeys(("sections", "indices", "tensor_indices_or_sections"), "indices_or_sections"),
    "unsafe_split": {"split_size": "split_size_or_sections"},
}


def _part(input: Tensor, dim: int, start: int, stop: int) -> Tensor:
    index = (slice(None),) * dim + (slice(start, stop),)
    return view_of(slice_op, input, input._array[index], {"index": index})


def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """`length` elements along a dimension from `start`; as ``torch.narrow``.

    Raises
    ------
    RuntimeError
        If the dimension is not that long.
    """
    if not input.ndim:
        raise RuntimeError("narrow() cannot be applied to a 0-dim tensor.")
    if isinstance(start, Tensor) and (start.ndim or start.dtype.category != dt.INTEGER):
        raise RuntimeError(f"narrow: start must be a 0-dim integral Tensor, not {start.dtype} of shape {list(start.shape)}")
    dim = normal_dim(dim, input.ndim, "narrow")
    size, start = input._array.shape[dim], int(start)
    if length < 0:
        raise RuntimeError(f"narrow(): length must be non-negative, got {length}")
    if not -size <= start <= size:
        raise IndexError(f"narrow: start {start} is out of range for dimension {dim} of size {size}")
    start = start + size if start < 0 else start
    if start + length > size:
        raise RuntimeError(f"narrow: start ({start}) + length ({length}) exceeds dimension size ({size})")
    return _part(input, dim, start, start + length)


def select(input: Tensor, dim: int, index: Any) -> Tensor:
    """One index of a dimension, which goes; as ``torch.select``."""
    if not input.ndim:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    return input[(slice(None),) * normal_dim(dim, input.ndim, "select") + (int(index),)]


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """All indices of a dimension, as a tuple; as ``torch.unbind``."""
    dim = normal_dim(dim, input.ndim, "unbind")
    if not input.ndim:
        raise IndexError("unbind: dimension specified as 0 but tensor has no dimensions")
    before, a = (slice(None),) * dim, input._array
    indices = [(*before, i, ...) for i in builtins.range(a.shape[dim])]  # a view also where only one element is left
    return tuple([view_of(select_op, input, a[i], {"index": i}) for i in indices])


def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces along a dimension, of one size (the last may be smaller) or of the sizes given; as ``torch.split``.

    Raises
    ------
    RuntimeError
        If sizes are negative or do not add up.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.split(disttorch.arange(5), 2)
    (tensor([0, 1]), tensor([2, 3]), tensor([4]))
    """
    if not tensor.ndim:
        raise RuntimeError("split expects at least a 1-dimensional tensor")
    dim = normal_dim(dim, tensor.ndim, "split")
    size = tensor.shape[dim]
    if hasattr(split_size_or_sections, "__index__"):
        n = split_size_or_sections.__index__()
        if n < 0 or (n == 0 and size):
            raise RuntimeError(f"split expects split_size be positive, but got split_size={n} for dimension of size {size}")
        sizes = [builtins.min(n, size - start) for start in builtins.range(0, size, n)] if size else [0]
        return _pieces(tensor, sizes, dim)
    return split_with_sizes(tensor, split_size_or_sections, dim)


def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of the sizes given along a dimension; as ``torch.split_with_sizes``."""
    if not input.ndim:
        raise RuntimeError("split_with_sizes expects at least a 1-dimensional tensor")
    dim = normal_dim(dim, input.ndim, "split_with_sizes")
    size = input.shape[dim]
    sizes = [n.__index__() for n in split_sizes]
    if builtins.sum(sizes) != size or builtins.any(n < 0 for n in sizes):
        raise RuntimeError(f"split_with_sizes expects sizes to sum exactly to {size} (dimension {dim}), but got {sizes}")
    return _pieces(input, sizes, dim)


def _pieces(tensor: Tensor, sizes: Sequence[int], dim: int) -> tuple[Tensor, ...]:
    pieces, start = [], 0
    for n in sizes:
        pieces.append(_part(tensor, dim, start, start + n))
        start += n
    return tuple(pieces)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most that many pieces of equal size; as ``torch.chunk``."""
    if chunks < 1:
        raise RuntimeError(f"chunk expects chunks to be greater than 0, got: {chunks}")
    if not input.ndim:
        raise RuntimeError("chunk expects at least a 1-dimensional tensor")
    dim = normal_dim(dim, input.ndim, "chunk")
    size = input.shape[dim]
    if not size:  # PyTorch keeps the number of pieces here
        return _pieces(input, [0] * chunks, dim)
    return split(input, builtins.max(1, -(-size // chunks)), dim)


def tensor_split(
    input: Tensor, indices_or_sections: Any = None, dim: int = 0, *, indices: Any = None, sections: Any = None
) -> tuple[Tensor, ...]:
    """That many pieces of as equal sizes as can be, or pieces that end at the indices given; as ``torch.tensor_split``.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.tensor_split(disttorch.arange(5), 3)
    (tensor([0, 1]), tensor([2, 3]), tensor([4]))
    """
    where = next((w for w in (indices_or_sections, indices, sections) if w is not None), None)
    if not input.ndim:
        raise RuntimeError("tensor_split expected at least a 1-dimensional tensor, but got a tensor with 0 dims")
    dim = normal_dim(dim, input.ndim, "tensor_split")
    size = input.shape[dim]
    if isinstance(where, Tensor):
        if where.dtype is not dt.int64 or where.ndim > 1:
            raise RuntimeError(
                "tensor_split expected tensor_indices_or_sections to be a zero-dimensional or one-dimensional tensor of int64, "
                f"but got {where.dtype} of shape {list(where.shape)}"
            )
        where = where.tolist()
    if hasattr(where, "__index__"):
        n = where.__index__()  # type: ignore[union-attr]
        if n <= 0:
            raise RuntimeError(f"number of sections must be larger than 0, got {n}")
        sizes = [size // n + (i < size % n) for i in builtins.range(n)]
        return _pieces(input, sizes, dim)
    if not isinstance(where, (tuple, list)):
        raise TypeError(f"tensor_split(): indices_or_sections must be an int, a Tensor or a sequence of int, not {where!r}")
    bounds = [0, *(i.__index__() for i in where), None]
    return tuple(input[(slice(None),) * dim + (slice(a, b),)] for a, b in pairwise(bounds))


def _along(name: str, least: int, place: Any) -> Any:
    def function(input: Tensor, indices_or_sections: Any = None, *, indices: Any = None, sections: Any = None) -> tuple[Tensor, ...]:
        where = next((w for w in (indices_or_sections, indices, sections) if w is not None), None)
        if input.ndim < least:
            raise RuntimeError(
                f"torch.{name} requires a tensor with at least {least} dimension{'s' * (least > 1)}, but got a tensor with "
                f"{input.ndim} dimensions!"
            )
        dim = place(input)
        if not isinstance(where, (int, tuple, list, Tensor)):
            raise TypeError(f"{name}(): received an invalid combination of arguments: indices_or_sections={where!r}")
        if isinstance(where, int) and (where <= 0 or input.shape[dim] % where):
            raise RuntimeError(
                f"torch.{name} attempted to split along dimension {dim}, but the size of the dimension {input.shape[dim]} is not "
                f"divisible by the split_size {where}!"
            )
        return tensor_split(input, where, dim)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Equal pieces, or pieces that end at the indices given, along one dimension; as ``torch.{name}``."
    return function


hsplit = _along("hsplit", 1, lambda x: 0 if x.ndim == 1 else 1)
vsplit = _along("vsplit", 2, lambda x: 0)
dsplit = _along("dsplit", 3, lambda x: 2)

# PyTorch's unsafe ones skip a check that costs nothing here
unsafe_split, unsafe_split_with_sizes, unsafe_chunk = split, split_with_sizes, chunk
