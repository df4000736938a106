"""The same memory in another shape: reshape, transpose, expand and their family."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

from ...autograd.operation import Operation, apply, recorded
from ...autograd.variable import Tensor
from ...autograd.views import view_of
from ...backend import namespace
from ..dims import Size, as_shape, infer_shape, normal_dim, normal_dims

# What users find of this family, and where: see ops/public.py.
BOTH = """
    adjoint broadcast_to diagonal flatten movedim permute ravel reshape squeeze swapaxes swapdims t transpose unflatten unsqueeze
"""
METHODS = "expand expand_as reshape_as sum_to_size view_as"
FUNCTIONS = "atleast_1d atleast_2d atleast_3d broadcast_shapes broadcast_tensors"
ALIASES = {"moveaxis": "movedim"}


def _reshaping(name: str) -> Operation:
    return Operation(
        name, lambda xp, x, *, shape: xp.reshape(x, shape), is_view=True, x=lambda g, x_shape, xp: xp.reshape(g, x_shape)
    )


_reshape, _squeeze, _unsqueeze = _reshaping("view"), _reshaping("squeeze"), _reshaping("unsqueeze")
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


# --- other shapes ---------------------------------------------------------------------------------------------------


def reshape(input: Tensor, *sizes: Any, shape: Any = None) -> Tensor:
    """The elements in another shape, as a view where possible, else a copy; as ``torch.reshape``.

    Parameters
    ----------
    input : Tensor
    *sizes : int, or one tuple of int
        One size may be -1. Also as ``shape=``.

    Raises
    ------
    RuntimeError
        If the number of elements differs.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.arange(6).reshape(2, -1)
    tensor([[0, 1, 2],
            [3, 4, 5]])
    """
    if shape is not None:
        sizes = (shape,)
    a = input._array
    wanted = sizes[0] if len(sizes) == 1 else sizes
    try:
        if wanted.__class__ is not int and builtins.min(wanted, default=0) < -1:
            raise ValueError  # which the array library may take for a -1
        out = a.reshape(wanted)
    except (TypeError, ValueError):
        # the array library's message does not say what the caller wanted
        out = a.reshape(infer_shape(as_shape(sizes, "reshape"), a.size))
    if out.base is a:
        return view_of(_reshape, input, out, {"shape": wanted if wanted.__class__ is int else out.shape})
    return _reshaped(input, out)


def _reshaped(input: Tensor, out: Any, operation: Operation = _reshape) -> Tensor:
    """A reshaped array as a tensor: a view where the library did not have to copy."""
    a, base = input._array, out.base
    if base is a or (base is not None and (base is a.base or namespace(a).shares_memory(out, a))):
        return view_of(operation, input, out, {"shape": out.shape})
    return recorded(operation, input, out, {"shape": out.shape})


def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """`reshape` to another tensor's shape."""
    return reshape(input, other._array.shape)


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """``view`` in another tensor's shape."""
    from .strided import view

    return view(input, other._array.shape)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions from `start_dim` to `end_dim` as one; as ``torch.flatten``."""
    shape = input._array.shape
    if not shape:
        normal_dim(start_dim, 0, "flatten"), normal_dim(end_dim, 0, "flatten")
        return reshape(input, 1)
    start, end = normal_dim(start_dim, len(shape), "flatten"), normal_dim(end_dim, len(shape), "flatten")
    if start > end:
        raise RuntimeError(f"flatten() has invalid args: start_dim {start_dim} cannot come after end_dim {end_dim}")
    if start == end:
        return input
    size = math.prod(shape[start : end + 1])
    return _reshaped(input, input._array.reshape(*shape[:start], size, *shape[end + 1 :]))


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """One dimension as several, of which one may be -1; as ``torch.unflatten``."""
    shape = input._array.shape
    dim = normal_dim(dim, len(shape), "unflatten")
    wanted = as_shape((sizes,) if isinstance(sizes, int) else tuple(sizes), "unflatten")
    if not wanted:
        raise RuntimeError("unflatten: sizes must be non-empty")
    size = shape[dim] if shape else 1
    return apply(_reshape, input, shape=(*shape[:dim], *infer_shape(wanted, size, "unflatten"), *shape[dim + 1 :]))


def ravel(input: Tensor) -> Tensor:
    """All elements in one dimension; as ``torch.ravel``."""
    return reshape(input, -1)


def squeeze(input: Tensor, dim: Any = None, *dims: int, axis: Any = None) -> Tensor:
    """Without the dimensions of size 1, or those of them that are named; as ``torch.squeeze``.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.zeros(1, 3, 1).squeeze(-1).shape
    disttorch.Size([1, 3])
    """
    shape = input._array.shape
    dim = axis if dim is None else (dim, *dims) if dims else dim
    named: tuple[int, ...] | None = () if dim == () else normal_dims(dim, len(shape), "squeeze")
    kept = tuple([n for i, n in enumerate(shape) if n != 1 or (named is not None and i not in named)])
    return _reshaped(input, input._array.reshape(kept), _squeeze)


def unsqueeze(input: Tensor, dim: Any = None, *, axis: Any = None) -> Tensor:
    """With a dimension of size 1 inserted; as ``torch.unsqueeze``."""
    shape = input._array.shape
    dim = normal_dim(axis if dim is None else dim, len(shape) + 1, "unsqueeze")
    return _reshaped(input, input._array.reshape(*shape[:dim], 1, *shape[dim:]), _unsqueeze)


def _atleast(name: str, count: int, place: Any) -> Any:
    def function(*tensors: Any) -> Any:
        if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
            return tuple(function(x) for x in tensors[0])
        if len(tensors) != 1:
            return tuple(function(x) for x in tensors)
        (x,) = tensors
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}(): expected Tensors, got {type(x).__name__}")
        return reshape(x, place(tuple(x._array.shape))) if x._array.ndim < count else x

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"A tensor, or each of several, with at least {count} dimension{'s' * (count > 1)}; as ``torch.{name}``."
    return function


atleast_1d = _atleast("atleast_1d", 1, lambda s: (1,))
atleast_2d = _atleast("atleast_2d", 2, lambda s: (1, *s) if s else (1, 1))
atleast_3d = _atleast("atleast_3d", 3, lambda s: (*s, 1) if len(s) == 2 else (1, *(s or (1,)), 1))


# --- dimensions in another order ------------------------------------------------------------------------------------


def permute(input: Tensor, *order: Any, dims: Any = None) -> Tensor:
    """Dimensions in another order; as ``torch.permute``.

    Parameters
    ----------
    input : Tensor
    *order : int, or one tuple of int
        Each dimension once. Also as ``dims=``.

    Raises
    ------
    RuntimeError
        If a dimension is missing, or there twice.
    """
    a = input._array
    given = order if dims is None else (dims,)
    try:
        out = a.transpose(*given)
        return view_of(_permute, input, out, {"dims": tuple([d % a.ndim for d in (given[0] if len(given) == 1 < a.ndim else given)])})
    except (TypeError, ValueError, IndexError):
        pass  # said in PyTorch's words below
    wanted = as_shape(given, "permute")
    if len(wanted) != input.ndim:
        raise RuntimeError(f"permute: {len(wanted)} dims given, {list(wanted)}, for a tensor with {input.ndim} dimensions")
    return apply(_permute, input, dims=normal_dims(wanted, input.ndim, "permute") or ())


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


swapdims = transpose


def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """`transpose`, by NumPy's name."""
    return transpose(input, axis0, axis1)


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; vectors stay as they are. As ``torch.t``."""
    if input.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D")
    return transpose(input, 0, -1)


def adjoint(input: Tensor) -> Tensor:
    """Matrices transposed and conjugated; as ``torch.adjoint``."""
    if input.ndim < 2:
        raise RuntimeError(f"tensor.adjoint() is only supported on matrices or batches of matrices, got a {input.ndim}-D tensor")
    turned = transpose(input, -2, -1)
    return turned.conj() if input.dtype.is_complex else turned


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


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A view of the diagonal of two dimensions, which becomes the last one; as ``torch.diagonal``."""
    n = input.ndim
    dim1, dim2 = normal_dim(dim1, n, "diagonal"), normal_dim(dim2, n, "diagonal")
    if dim1 == dim2:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    return apply(_diagonal, input, offset=offset, dim1=dim1, dim2=dim2)


# --- broadcasting ---------------------------------------------------------------------------------------------------


def expand(input: Tensor, *sizes: Any, size: Any = None, implicit: bool = False) -> Tensor:
    """Dimensions of size 1 repeated without a copy; -1 keeps a size. As ``torch.Tensor.expand``.

    Raises
    ------
    RuntimeError
        If a dimension of another size would have to change.
    """
    wanted = as_shape(sizes if size is None else (tuple(size),), "expand")
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
        elif n < 0 or (n != old and old != 1):
            raise RuntimeError(
                f"the expanded size of the tensor ({n}) must match the existing size ({old}) at non-singleton dimension {i}. "
                f"Target sizes: {list(wanted)}. Tensor sizes: {list(shape)}"
            )
        full.append(n)
    a = input._array
    return view_of(_expand, input, namespace(a).broadcast_to(a, tuple(full)), {"shape": tuple(full)})


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """`expand` to another tensor's shape."""
    return expand(input, other._array.shape)


def sum_to_size(input: Tensor, *sizes: Any, size: Any = None) -> Tensor:
    """The sum over the dimensions that `expand` would stretch from a shape to this tensor's; as ``torch.Tensor.sum_to_size``."""
    wanted, shape = as_shape(sizes if size is None else (tuple(size),), "sum_to_size"), tuple(input._array.shape)
    extra = len(shape) - len(wanted)
    if extra < 0 or any(n not in (1, m) for n, m in zip(wanted, shape[extra:])):
        raise RuntimeError(f"size {list(wanted)} is not expandable to size {list(shape)}.")
    stretched = tuple(i for i, n in enumerate(shape) if i < extra or (wanted[i - extra] == 1 and n != 1))
    if not wanted:
        return input.sum()
    return reshape(input.sum(stretched, keepdim=True), wanted) if stretched else input


def broadcast_to(input: Tensor, *sizes: Any, size: Any = None) -> Tensor:
    """`expand`, by its other name."""
    return expand(input, as_shape(sizes) if size is None else tuple(size))


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
        if len(sizes) > 1 or (sizes and builtins.min(sizes) < 0):
            raise RuntimeError(f"shape mismatch: objects cannot be broadcast to a single shape: {full}")
        result.append(sizes.pop() if sizes else 1)
    return Size(result)


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """Views of one common shape; as ``torch.broadcast_tensors``."""
    if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
        tensors = tuple(tensors[0])
    shape = broadcast_shapes(*(x.shape for x in tensors))
    return tuple(expand(x, shape) for x in tensors)
