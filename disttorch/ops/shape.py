"""Shapes: views (which share memory with their input), and joining and repeating (which copy)."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

from ..autograd.operation import Operation, apply, recorded
from ..autograd.variable import Tensor, wrap
from ..autograd.views import view_of
from ..backend import namespace
from ..backend.dtypes import as_numpy_dtype
from .dims import Size, as_shape, infer_shape, normal_dim, normal_dims
from .elementwise import as_operands

# What users find of this family, and where: see ops/public.py.
BOTH = """
    broadcast_to chunk diagonal flatten flip moveaxis movedim narrow permute ravel reshape roll select split split_with_sizes
    squeeze swapaxes swapdims t tile transpose tril triu unbind unflatten unsqueeze
"""
METHODS = "expand expand_as repeat view"
FUNCTIONS = "broadcast_shapes broadcast_tensors cat concat concatenate stack"
TWINS = "tril triu"

# --- views ---------------------------------------------------------------------------------------------------------

_reshape = Operation(
    "view", lambda xp, x, *, shape: xp.reshape(x, shape), is_view=True, x=lambda g, x_shape, xp: xp.reshape(g, x_shape)
)
_permute = Operation(
    "permute",
    lambda xp, x, *, dims: xp.transpose(x, dims),
    is_view=True,
    x=lambda g, dims, xp: xp.transpose(g, tuple(dims.index(i) for i in builtins.range(len(dims)))),
)
_transpose = Operation(
    "transpose",
    lambda xp, x, *, dim0, dim1: xp.swapaxes(x, dim0, dim1),
    is_view=True,
    x=lambda g, dim0, dim1, xp: xp.swapaxes(g, dim0, dim1),
)
_expand = Operation("expand", lambda xp, x, *, shape: xp.broadcast_to(x, shape), is_view=True, x=lambda g: g)
_diagonal = Operation(
    "diagonal",
    lambda xp, x, *, offset, dim1, dim2: xp.diagonal(x, offset, dim1, dim2),
    is_view=True,
    x=lambda g, x_shape, offset, dim1, dim2, xp: xp.diagonal_backward(g, x_shape, offset, dim1, dim2),
)


def view(input: Tensor, *shape: Any) -> Tensor:
    """The same memory in another shape; as ``torch.Tensor.view``.

    Parameters
    ----------
    input : Tensor
    *shape : int, or one tuple of int, or a dtype
        One size may be -1. A dtype reads the same bytes as another type of the same size.

    Raises
    ------
    RuntimeError
        If the number of elements differs, or the memory cannot be read that way without a copy (see `reshape`).
    """
    if len(shape) == 1 and not isinstance(shape[0], (int, tuple, list)):
        return wrap(input._array.view(as_numpy_dtype(shape[0])))
    wanted = infer_shape(as_shape(shape, "view"), input._array.size, "view")
    result = apply(_reshape, input, shape=wanted)
    if result._view is None and input._array.size:
        raise RuntimeError(
            f"view size {list(wanted)} is not compatible with input tensor's size {list(input.shape)} and stride "
            f"{list(input.stride())} (at least one dimension spans across two contiguous subspaces). Use .reshape(...) instead."
        )
    return result


def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The elements in another shape, as a view where possible, else a copy; as ``torch.reshape``.

    Parameters
    ----------
    input : Tensor
    *shape : int, or one tuple of int
        One size may be -1.

    Raises
    ------
    RuntimeError
        If the number of elements differs.
    """
    a = input._array
    wanted = shape[0] if len(shape) == 1 else shape
    try:
        if wanted.__class__ is not int and builtins.min(wanted, default=0) < -1:
            raise ValueError  # which the array library may take for a -1
        out = a.reshape(wanted)
    except (TypeError, ValueError):
        # the array library's message does not say what the caller wanted
        out = a.reshape(infer_shape(as_shape(shape, "reshape"), a.size))
    if out.base is a:
        return view_of(_reshape, input, out, {"shape": wanted if wanted.__class__ is int else out.shape})
    return _reshaped(input, out)


def _reshaped(input: Tensor, out: Any) -> Tensor:
    """A reshaped array as a tensor: a view where the library did not have to copy."""
    a, base = input._array, out.base
    if base is a or (base is not None and (base is a.base or namespace(a).shares_memory(out, a))):
        return view_of(_reshape, input, out, {"shape": out.shape})
    return recorded(_reshape, input, out, {"shape": out.shape})


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions from `start_dim` to `end_dim` as one; as ``torch.flatten``."""
    shape = input._array.shape
    if not shape:
        return reshape(input, 1)
    start, end = normal_dim(start_dim, len(shape), "flatten"), normal_dim(end_dim, len(shape), "flatten")
    if start > end:
        raise RuntimeError(f"flatten() has invalid args: start_dim {start_dim} cannot come after end_dim {end_dim}")
    size = 1
    for n in shape[start : end + 1]:
        size *= n
    return _reshaped(input, input._array.reshape(*shape[:start], size, *shape[end + 1 :]))


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """One dimension as several; as ``torch.unflatten``."""
    shape = input._array.shape
    dim = normal_dim(dim, len(shape), "unflatten")
    return apply(_reshape, input, shape=(*shape[:dim], *infer_shape(tuple(sizes), shape[dim], "unflatten"), *shape[dim + 1 :]))


def ravel(input: Tensor) -> Tensor:
    """All elements in one dimension; as ``torch.ravel``."""
    return reshape(input, -1)


def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """Without the dimensions of size 1, or those of them that are named; as ``torch.squeeze``."""
    shape = input._array.shape
    dims = normal_dims(dim, len(shape), "squeeze")
    kept = tuple([n for i, n in enumerate(shape) if n != 1 or (dims is not None and i not in dims)])
    return _reshaped(input, input._array.reshape(kept))


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a dimension of size 1 inserted; as ``torch.unsqueeze``."""
    shape = input._array.shape
    dim = normal_dim(dim, len(shape) + 1, "unsqueeze")
    return _reshaped(input, input._array.reshape(*shape[:dim], 1, *shape[dim:]))


def permute(input: Tensor, *dims: Any) -> Tensor:
    """Dimensions in another order; as ``torch.permute``.

    Raises
    ------
    RuntimeError
        If `dims` does not name each dimension once.
    """
    order = as_shape(dims, "permute")
    if len(order) != input.ndim:
        raise RuntimeError(f"permute: {len(order)} dims given, {list(order)}, for a tensor with {input.ndim} dimensions")
    return apply(_permute, input, dims=normal_dims(order, input.ndim, "permute") or ())


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged; as ``torch.transpose``."""
    a = input._array
    try:
        out = a.swapaxes(dim0, dim1)
    except (IndexError, ValueError):
        for dim in (dim0, dim1):
            normal_dim(dim, a.ndim, "transpose")
        out = a[...]  # a tensor without dimensions has none to exchange
        return view_of(_permute, input, out, {"dims": ()})
    return view_of(_transpose, input, out, {"dim0": dim0, "dim1": dim1})


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; vectors stay as they are. As ``torch.t``."""
    if input.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D")
    return transpose(input, 0, -1)


def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Dimensions moved to other places; as ``torch.movedim``."""
    n = input.ndim
    sources = normal_dims(source, n, "movedim") or ()
    destinations = normal_dims(destination, n, "movedim") or ()
    if len(sources) != len(destinations):
        raise RuntimeError(f"movedim: source {source} and destination {destination} differ in length")
    order = [d for d in builtins.range(n) if d not in sources]
    for d, s in sorted(zip(destinations, sources)):
        order.insert(d, s)
    return apply(_permute, input, dims=tuple(order))


moveaxis = movedim
swapaxes = swapdims = transpose


def expand(input: Tensor, *sizes: Any) -> Tensor:
    """Dimensions of size 1 repeated without a copy; -1 keeps a size. As ``torch.Tensor.expand``.

    Raises
    ------
    RuntimeError
        If a dimension of another size would have to change.
    """
    wanted = as_shape(sizes, "expand")
    shape = input._array.shape
    extra = len(wanted) - len(shape)
    if extra < 0:
        raise RuntimeError(f"expand: the number of sizes {list(wanted)} must not be smaller than that of {list(shape)}")
    full = []
    for i, n in enumerate(wanted):
        old = shape[i - extra] if i >= extra else 1
        if n == -1:
            if i < extra:
                raise RuntimeError(f"expand: -1 is not allowed in a leading, non-existing dimension {i} of {list(wanted)}")
            n = old
        elif n != old and old != 1:
            raise RuntimeError(
                f"the expanded size of the tensor ({n}) must match the existing size ({old}) at non-singleton dimension {i}. "
                f"Target sizes: {list(wanted)}. Tensor sizes: {list(shape)}"
            )
        full.append(n)
    return apply(_expand, input, shape=tuple(full))


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """`expand` to another tensor's shape."""
    return expand(input, other._array.shape)


def broadcast_to(input: Tensor, size: Sequence[int]) -> Tensor:
    """`expand`, by its other name."""
    return expand(input, tuple(size))


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A view of the diagonal of two dimensions, which becomes the last one; as ``torch.diagonal``."""
    n = input.ndim
    dim1, dim2 = normal_dim(dim1, n, "diagonal"), normal_dim(dim2, n, "diagonal")
    if dim1 == dim2:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    return apply(_diagonal, input, offset=offset, dim1=dim1, dim2=dim2)


def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """`length` elements along a dimension from `start`; as ``torch.narrow``.

    Raises
    ------
    RuntimeError
        If the dimension is not that long.
    """
    dim = normal_dim(dim, input.ndim, "narrow")
    size, start = input._array.shape[dim], int(start)
    if not -size <= start <= size:
        raise IndexError(f"narrow: start {start} is out of range for dimension {dim} of size {size}")
    start = start + size if start < 0 else start
    if length < 0 or start + length > size:
        raise RuntimeError(f"narrow: start ({start}) + length ({length}) exceeds dimension size ({size})")
    return input[(slice(None),) * dim + (slice(start, start + length),)]


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """One index of a dimension, which goes; as ``torch.select``."""
    return input[(slice(None),) * normal_dim(dim, input.ndim, "select") + (int(index),)]


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """All indices of a dimension, as a tuple; as ``torch.unbind``."""
    dim = normal_dim(dim, input.ndim, "unbind")
    return tuple(select(input, dim, i) for i in builtins.range(input.shape[dim]))


def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces along a dimension, of one size (the last may be smaller) or of the sizes given; as ``torch.split``.

    Raises
    ------
    RuntimeError
        If sizes are negative or do not add up.
    """
    dim = normal_dim(dim, tensor.ndim, "split")
    size = tensor.shape[dim]
    if isinstance(split_size_or_sections, int):
        n = split_size_or_sections
        if n < 0 or (n == 0 and size):
            raise RuntimeError(f"split expects split_size be positive, but got split_size={n} for dimension of size {size}")
        sizes = [builtins.min(n, size - start) for start in builtins.range(0, size, n)] if size else [0]
    else:
        sizes = [int(n) for n in split_size_or_sections]
        if builtins.sum(sizes) != size or builtins.any(n < 0 for n in sizes):
            raise RuntimeError(f"split_with_sizes expects sizes to sum exactly to {size} (dimension {dim}), but got {sizes}")
    pieces, start = [], 0
    for n in sizes:
        pieces.append(narrow(tensor, dim, start, n))
        start += n
    return tuple(pieces)


split_with_sizes = split


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most that many pieces of equal size; as ``torch.chunk``."""
    if chunks < 1:
        raise RuntimeError(f"chunk expects chunks to be greater than 0, got: {chunks}")
    size = input.shape[normal_dim(dim, input.ndim, "chunk")]
    return split(input, builtins.max(1, -(-size // chunks)), dim)


# --- joining and repeating -----------------------------------------------------------------------------------------


def _cat_rule(g: Any, dim: int, sizes: tuple[int, ...], xp: Any) -> tuple:
    parts, start = [], 0
    for n in sizes:
        parts.append(g[(slice(None),) * dim + (slice(start, start + n),)])
        start += n
    return tuple(parts)


_cat = Operation("cat", lambda xp, *arrays, dim, sizes: xp.concatenate(arrays, axis=dim), gradients=_cat_rule)


def cat(tensors: Sequence[Tensor], dim: int = 0, *, out: Tensor | None = None) -> Tensor:
    """Tensors joined along a dimension that they have; as ``torch.cat``.

    Parameters
    ----------
    tensors : sequence of Tensor
        Of one shape but for `dim`; of different dtypes, the result has their promoted one.
    dim : int

    Raises
    ------
    RuntimeError
        If there are none, or their shapes differ elsewhere.
    """
    tensors = tuple(tensors)
    if not tensors:
        raise ValueError("cat(): expected a non-empty list of Tensors")
    # PyTorch lets a one-dimensional empty tensor join anything
    some = [x for x in tensors if x._array.shape != (0,)] or list(tensors[:1])
    first = some[0]
    dim = normal_dim(dim, first.ndim, "cat")
    for i, x in enumerate(some):
        a, b = x._array.shape, first._array.shape
        if not a or len(a) != len(b):
            raise RuntimeError(f"cat: tensors must have the same number of dimensions, at least one: got {list(b)} and {list(a)}")
        if a[:dim] + a[dim + 1 :] != b[:dim] + b[dim + 1 :]:
            raise RuntimeError(
                f"cat: sizes of tensors must match except in dimension {dim}: tensor number {i} has {list(a)}, the first {list(b)}"
            )
    dtype = as_operands(*(x._array for x in tensors))[0].dtype
    some = [x if x._array.dtype == dtype else x.to(dtype=dtype) for x in some]
    result = apply(_cat, *some, dim=dim, sizes=tuple(x._array.shape[dim] for x in some))
    if out is not None:
        return out.copy_(result)
    return result


concat = concatenate = cat


def stack(tensors: Sequence[Tensor], dim: int = 0, *, out: Tensor | None = None) -> Tensor:
    """Tensors of one shape joined along a new dimension; as ``torch.stack``.

    Raises
    ------
    RuntimeError
        If there are none, or their shapes differ.
    """
    tensors = tuple(tensors)
    if not tensors:
        raise RuntimeError("stack expects a non-empty TensorList")
    for i, x in enumerate(tensors):
        if x._array.shape != tensors[0]._array.shape:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(tensors[0].shape)} at entry 0 and {list(x.shape)} at entry {i}"
            )
    dim = normal_dim(dim, tensors[0].ndim + 1, "stack")
    return cat([unsqueeze(x, dim) for x in tensors], dim, out=out)


def repeat(input: Tensor, *sizes: Any) -> Tensor:
    """The tensor several times along each dimension, copied; as ``torch.Tensor.repeat``."""
    counts = as_shape(sizes, "repeat")
    if len(counts) < input.ndim:
        raise RuntimeError(
            f"number of dimensions of repeat dims {list(counts)} can not be smaller than number of dimensions of tensor {list(input.shape)}"
        )
    shape = (1,) * (len(counts) - input.ndim) + tuple(input.shape)
    spaced = reshape(input, tuple(n for size in shape for n in (1, size)))
    full = expand(spaced, tuple(n for c, size in zip(counts, shape) for n in (c, size)))
    return reshape(full, tuple(c * size for c, size in zip(counts, shape)))


def tile(input: Tensor, dims: Any) -> Tensor:
    """`repeat`, with missing leading counts taken as 1; as ``torch.tile``."""
    counts = (dims,) if isinstance(dims, int) else tuple(dims)
    return repeat(input, (1,) * (input.ndim - len(counts)) + counts)


_flip = Operation("flip", lambda xp, x, *, dims: xp.flip(x, dims).copy(), x=lambda g, dims, xp: xp.flip(g, dims))


def flip(input: Tensor, *dims: Any) -> Tensor:
    """Dimensions in reverse order, copied; as ``torch.flip``."""
    return apply(_flip, input, dims=normal_dims(as_shape(dims, "flip"), input.ndim, "flip"))


_roll = Operation(
    "roll",
    lambda xp, x, *, shifts, dims: xp.roll(x, shifts, dims),
    x=lambda g, shifts, dims, xp: xp.roll(g, tuple(-s for s in shifts) if isinstance(shifts, tuple) else -shifts, dims),
)


def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """Elements shifted along dimensions, those that fall off coming back at the other end; as ``torch.roll``."""
    shifts = tuple(shifts) if isinstance(shifts, (tuple, list)) else shifts
    if dims is None:
        return apply(_roll, input, shifts=shifts, dims=None)
    dims = normal_dims(dims, input.ndim, "roll") or ()
    shifts = shifts if isinstance(shifts, tuple) else (shifts,)
    if len(shifts) != len(dims):
        raise RuntimeError(f"roll: shifts {shifts} and dims {dims} must align")
    return apply(_roll, input, shifts=shifts, dims=dims)


def _triangle(name: str) -> Any:
    operation = Operation(
        name,
        lambda xp, x, *, k: getattr(xp, name)(x, k),
        x=lambda g, k, xp: getattr(xp, name)(g, k),
    )

    def function(input: Tensor, diagonal: int = 0) -> Tensor:
        if input.ndim < 2:
            raise RuntimeError(f"{name}: input tensor must have at least 2 dimensions, got {list(input.shape)}")
        return apply(operation, input, k=diagonal)

    function.__name__ = function.__qualname__ = name
    side = "lower" if name == "tril" else "upper"
    function.__doc__ = f"The {side} triangle of matrices, from a diagonal on, and zeros elsewhere; as ``torch.{name}``."
    return function


tril, triu = _triangle("tril"), _triangle("triu")


def broadcast_shapes(*shapes: Any) -> Any:
    """The shape that tensors of these shapes broadcast to; as ``torch.broadcast_shapes``.

    Raises
    ------
    RuntimeError
        If they do not.
    """
    full = [as_shape((s,)) if isinstance(s, int) else tuple(s) for s in shapes]
    ndim = builtins.max((len(s) for s in full), default=0)
    result = []
    for i in builtins.range(-ndim, 0):
        sizes = {s[i] for s in full if len(s) >= -i} - {1}
        if len(sizes) > 1:
            raise RuntimeError(f"shape mismatch: objects cannot be broadcast to a single shape: {full}")
        result.append(sizes.pop() if sizes else 1)
    return Size(result)


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Views of one common shape; as ``torch.broadcast_tensors``."""
    shape = broadcast_shapes(*(x.shape for x in tensors))
    return tuple(expand(x, shape) for x in tensors)
