"""Views by strides: view, as_strided, windows, other dtypes on the same bytes, complex numbers as pairs of real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor, share_version, wrap
from ...autograd.views import view_of
from ...backend import dtypes as dt
from ...backend import namespace
from ...backend.dtypes import DTYPES, as_dtype
from ..dims import as_shape, infer_shape, normal_dim
from .views import _reshape

# What users find of this family, and where: see ops/public.py.
BOTH = "as_strided"
METHODS = "unfold view"
FUNCTIONS = "view_as_complex view_as_real"


def view(input: Tensor, *sizes: Any, size: Any = None, dtype: Any = None) -> Tensor:
    """The same memory in another shape, or read as another dtype; as ``torch.Tensor.view``.

    Parameters
    ----------
    input : Tensor
    *sizes : int, or one tuple of int, or a dtype
        One size may be -1. With a dtype of another size the last dimension shrinks or grows.

    Raises
    ------
    RuntimeError
        If the number of elements differs, or the memory cannot be read that way without a copy (see ``reshape``).

    Examples
    --------
    >>> import disttorch
    >>> disttorch.ones(2).view(disttorch.int32)
    tensor([1065353216, 1065353216], dtype=disttorch.int32)
    """
    if size is not None:
        sizes = (tuple(size),)
    elif dtype is not None:
        sizes = (dtype,)
    if len(sizes) == 1 and not isinstance(sizes[0], (tuple, list)) and not hasattr(sizes[0], "__index__"):
        return _view_as_dtype(input, as_dtype(sizes[0]))
    a = input._array
    if sizes and (a.flags.c_contiguous or sizes[0].__class__ is int):
        try:
            given = sizes[0] if len(sizes) == 1 else sizes
            out = a.reshape(given)
            if out.base is a and (given.__class__ is int or min(given, default=0) >= -1):
                return view_of(_reshape, input, out, {"shape": out.shape})
        except (TypeError, ValueError):
            pass  # said in PyTorch's words below
    wanted = infer_shape(as_shape(sizes, "view"), a.size, "view")
    result = apply(_reshape, input, shape=wanted)
    if result._view is None and input._array.size:
        raise RuntimeError(
            f"view size {list(wanted)} is not compatible with input tensor's size {list(input.shape)} and stride "
            f"{list(input.stride())} (at least one dimension spans across two contiguous subspaces). Use .reshape(...) instead."
        )
    return result


def _same_bytes(xp: Any, x: Any, dtype: Any) -> Any:
    """An array's memory read as another dtype; the last dimension takes up the difference in size."""
    old, new = x.dtype.itemsize, dtype.itemsize
    shape, strides = tuple(x.shape), tuple(x.strides)
    if old > new:
        shape, strides = (*shape[:-1], shape[-1] * (old // new)), (*strides[:-1], new)
    elif old < new:
        shape, strides = (*shape[:-1], shape[-1] // (new // old)), (*strides[:-1], new)
    return xp.restride(x, shape, strides, dtype=dtype)


_view_dtype = Operation("view", lambda xp, x, *, dtype: _same_bytes(xp, x, dtype), is_view=True)


def _view_as_dtype(input: Tensor, d: dt.dtype) -> Tensor:
    a = input._array
    old, new = a.itemsize, d.itemsize
    if old != new:
        change = f"to view {input.dtype} as {d} (different element sizes)"
        if not a.ndim:
            raise RuntimeError(f"self.dim() cannot be 0 {change}")
        if a.shape[-1] != 1 and a.strides[-1] != old:
            raise RuntimeError(f"self.stride(-1) must be 1 {change}, but got {a.strides[-1] // old}")
        if new > old:
            ratio = new // old
            if a.shape[-1] % ratio:
                raise RuntimeError(f"self.size(-1) must be divisible by {ratio} {change}, but got {a.shape[-1]}")
            wrong = [s // old for s in a.strides[:-1] if s % new]
            if wrong:
                raise RuntimeError(f"self.stride() must be divisible by {ratio} {change}, but got {wrong[0]}")
            offset = _bytes_before(a)
            if offset % new:
                raise RuntimeError(f"self.storage_offset() must be divisible by {ratio} {change}, but got {offset // old}")
    if a.dtype == d.numpy:
        return view_of(_reshape, input, a[...], {"shape": a.shape})
    # bits have no gradient
    return view_of(_view_dtype, _without_node(input), _same_bytes(namespace(a), a, d.numpy), {"dtype": d.numpy})


def _bytes_before(a: Any) -> int:
    """Of the memory that an array is a view of; wider elements must begin at a multiple of their size, where a GPU reads no others."""
    xp = namespace(a)
    # the samples of a batch begin at places of their own
    return xp.address_of(a) - xp.storage_of(a)[0] if a.size and xp.name != "batched" else 0


def _without_node(input: Tensor) -> Tensor:
    if input._node is None:
        return input
    plain = wrap(input._array)
    share_version(input, plain)
    return plain


# --- any strides ----------------------------------------------------------------------------------------------------


def _strided(xp: Any, x: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Any:
    """A view with strides and an offset from the first element, in elements."""
    size = x.dtype.itemsize
    view = xp.restride(x, shape, tuple(s * size for s in strides), offset * size)
    if any(s == 0 and n > 1 for s, n in zip(strides, shape)) and hasattr(view.flags, "writeable"):
        view.flags.writeable = False
    return view


def _places(xp: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> Any:
    """Where each element lies in memory, counted in elements."""
    result = xp.full((), offset, dt.int64.numpy)
    for n, stride in zip(shape, strides):
        result = result[..., None] + xp.arange(n) * stride
    return result


def _as_strided_rule(
    g: Any, x_shape: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, x_strides: tuple[int, ...], xp: Any
) -> Any:
    """The gradient goes through the memory: each place adds up what was read from it, and its readers in x share it."""
    raw = namespace(g._array) if isinstance(g, Tensor) else xp
    read, held = _places(raw, shape, strides, offset), _places(raw, x_shape, x_strides)
    if not g.size if not isinstance(g, Tensor) else not g.numel():
        return xp.zeros(x_shape, g.dtype)
    if not held.size:
        return xp.zeros(x_shape, g.dtype)
    low = min(int(read.min()), int(held.min()))
    extent = max(int(read.max()), int(held.max())) - low + 1
    memory = xp.put_index(xp.reshape(g, (-1,)), (extent,), raw.reshape(read - low, (-1,)))
    readers = raw.bincount(raw.reshape(held - low, (-1,)), minlength=extent)
    gradient = memory[held - low]
    shared = readers[held - low]
    return gradient if int(shared.max()) == 1 else gradient / raw.astype(shared, g.dtype.numpy if isinstance(g, Tensor) else g.dtype)


_as_strided = Operation(
    "as_strided",
    lambda xp, x, *, shape, strides, offset, x_strides: _strided(xp, x, shape, strides, offset),
    is_view=True,
    x=_as_strided_rule,
)


def as_strided(input: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Tensor:
    """A view of the tensor's whole memory with any shape, strides and offset, in elements; as ``torch.as_strided``.

    Several elements may lie on one place; gradients are added up there.

    Raises
    ------
    RuntimeError
        If a stride is negative, or the view would reach beyond the memory.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.as_strided(disttorch.arange(5), (3, 3), (1, 1))
    tensor([[0, 1, 2],
            [1, 2, 3],
            [2, 3, 4]])
    """
    a = input._array
    xp = namespace(a)
    shape, strides = as_shape((tuple(size),), "as_strided"), as_shape((tuple(stride),), "as_strided")
    if len(shape) != len(strides):
        raise RuntimeError(f"mismatch in length of strides and shape: {list(strides)} and {list(shape)}")
    if any(s < 0 for s in strides):
        raise RuntimeError(f"as_strided: Negative strides are not supported at the moment, got strides: {list(strides)}")
    if any(n < 0 for n in shape):
        raise RuntimeError(f"as_strided: sizes must be non-negative, got {list(shape)}")
    start, available = xp.storage_of(a)
    here = (xp.address_of(a) - start) // a.itemsize
    offset = here if storage_offset is None else storage_offset
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides)) + 1
    if offset < 0 or (0 not in shape and last * a.itemsize > available):
        raise RuntimeError(
            f"setStorage: sizes {list(shape)}, strides {list(strides)}, storage offset {offset}, and itemsize {a.itemsize} "
            f"requiring a storage size of {last * a.itemsize} are out of bounds for storage of size {available}"
        )
    if 0 in shape:
        offset = here  # nothing is read there
    return _strided_view(input, shape, strides, offset - here)


def _strided_view(input: Tensor, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Tensor:
    a = input._array
    params = {"shape": shape, "strides": strides, "offset": offset, "x_strides": tuple(s // a.itemsize for s in a.strides)}
    return view_of(_as_strided, input, _strided(namespace(a), a, shape, strides, offset), params)


_unfold = Operation(
    "unfold",
    lambda xp, x, *, dimension, size, step: _windows(xp, x, dimension, size, step),
    is_view=True,
    x=lambda g, x_shape, dimension, size, step, xp: _unfold_rule(g, x_shape, dimension, size, step, xp),
)


def _windows(xp: Any, x: Any, dimension: int, size: int, step: int) -> Any:
    count = (x.shape[dimension] - size) // step + 1
    shape = (*x.shape[:dimension], count, *x.shape[dimension + 1 :], size)
    strides = (*x.strides[:dimension], x.strides[dimension] * step, *x.strides[dimension + 1 :], x.strides[dimension])
    return xp.restride(x, shape, strides)


def _unfold_rule(g: Any, x_shape: Any, dimension: int, size: int, step: int, xp: Any) -> Any:
    raw = namespace(g._array) if isinstance(g, Tensor) else xp
    places = raw.arange(g.shape[dimension])[:, None] * step + raw.arange(size)
    # the windows and the places in them side by side, where the dimension was
    together = xp.moveaxis(g, -1, dimension + 1)
    return xp.put_index(together, tuple(x_shape), (slice(None),) * dimension + (places,))


def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """A view of all windows of a size, `step` apart, along a dimension; they are the last one. As ``torch.Tensor.unfold``.

    Raises
    ------
    RuntimeError
        If the window is larger than the dimension, or the step not positive.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.arange(5).unfold(0, 3, 2)
    tensor([[0, 1, 2],
            [2, 3, 4]])
    """
    a = input._array
    dimension = normal_dim(dimension, a.ndim, "unfold")
    length = a.shape[dimension] if a.ndim else 1
    if size > length:
        raise RuntimeError(f"maximum size for tensor at dimension {dimension} is {length} but size is {size}")
    if size < 0 or step <= 0:
        raise RuntimeError(f"unfold: size must be non-negative and step positive, got size {size} and step {step}")
    if not a.ndim:
        return _strided_view(input, (size,), (1,), 0)
    return view_of(
        _unfold, input, _windows(namespace(a), a, dimension, size, step), {"dimension": dimension, "size": size, "step": step}
    )


# --- complex numbers ------------------------------------------------------------------------------------------------


def _as_pairs(xp: Any, x: Any) -> Any:
    real = DTYPES[x.dtype].to_real().numpy
    return xp.restride(x, (*x.shape, 2), (*x.strides, real.itemsize), dtype=real)


def _from_pairs(xp: Any, x: Any) -> Any:
    return xp.restride(x, x.shape[:-1], x.strides[:-1], dtype=DTYPES[x.dtype].to_complex().numpy)


def _complex_of(g: Any, xp: Any) -> Any:
    """Pairs as complex numbers; a gradient may lie in memory as it likes."""
    return view_as_complex(g.contiguous()) if isinstance(g, Tensor) else _from_pairs(xp, xp.ascontiguousarray(g))


def _pairs_of(g: Any, xp: Any) -> Any:
    return view_as_real(g) if isinstance(g, Tensor) else _as_pairs(xp, xp.asarray(g))  # which may be a library's scalar


_view_as_real = Operation("view_as_real", _as_pairs, is_view=True, x=_complex_of)
# the node hands over, and takes back, conjugated gradients; these here are real
_view_as_complex = Operation(
    "view_as_complex", _from_pairs, is_view=True, x=lambda g, xp: _pairs_of(xp.conjugate(g), xp)
)


def view_as_real(input: Tensor) -> Tensor:
    """A view of complex numbers as pairs of real ones, in a last dimension of size 2; as ``torch.view_as_real``."""
    if not input.dtype.is_complex:
        raise RuntimeError(f"view_as_real is only supported for complex tensors, not for {input.dtype}")
    return apply(_view_as_real, input) if input._array.size else _empty_view(_view_as_real, input)


def view_as_complex(input: Tensor) -> Tensor:
    """A view of pairs of real numbers, in a last dimension of size 2, as complex ones; as ``torch.view_as_complex``.

    Raises
    ------
    RuntimeError
        If the last dimension is not of size 2, its elements are not side by side, or an odd number of elements lies before the first.
    """
    a = input._array
    if input.dtype not in (dt.float16, dt.float32, dt.float64):
        raise RuntimeError(f"view_as_complex is only supported for half, float and double tensors, but got a tensor of {input.dtype}")
    if input.dtype is dt.float16:
        raise RuntimeError("view_as_complex: there is no complex dtype of two float16")
    if not a.ndim or a.shape[-1] != 2:
        raise RuntimeError(f"Tensor must have a last dimension of size 2, got shape {list(a.shape)}")
    if a.strides[-1] != a.itemsize:
        raise RuntimeError("Tensor must have a last dimension with stride 1")
    if any(s % (2 * a.itemsize) for s in a.strides[:-1]):
        raise RuntimeError(f"Tensor must have a stride divisible by 2 for all but last dimension, got {list(input.stride())}")
    if _bytes_before(a) % (2 * a.itemsize):
        raise RuntimeError(f"Tensor must have a storage_offset divisible by 2, got {input.storage_offset()}")
    return apply(_view_as_complex, input) if input._array.size else _empty_view(_view_as_complex, input)


def _empty_view(operation: Operation, input: Tensor) -> Tensor:
    """Of no elements, which share no memory."""
    return view_of(operation, input, operation.forward(namespace(input._array), input._array), {})
