"""Copies and conversions: clone, to, detach, contiguous, and writing in place: copy_, fill_, zero_."""

from __future__ import annotations

from typing import Any

from ..autograd.grad_mode import recording
from ..autograd.operation import Operation, apply, check_in_place, finish_in_place, write
from ..autograd.variable import Tensor, bump_version, share_version, wrap
from ..backend import dtypes as dt
from ..backend import for_device, namespace
from ..backend.dtypes import DTYPES, as_dtype
from ..backend.layout import in_format, is_channels_last, is_in_format, kept, kept_format, strides_in, turned
from ..backend.layout import memory_format as memory_format_type

# What users find of this family, and where: see ops/public.py.
BOTH = "clone detach detach_ resolve_conj resolve_neg zero_"
METHODS = "contiguous copy_ fill_ to"
FUNCTIONS = "fill_"
ARGUMENTS = {"copy_": {"other": "src"}}

# the engine converts a gradient to the dtype of the input
_cast = Operation("to_copy", lambda xp, x, *, dtype: kept(xp, x.astype(dtype), x), x=lambda g: g)
_real_cast = Operation("to_copy", lambda xp, x, *, dtype: x.real.astype(dtype), x=lambda g: g)
_move = Operation(
    "to_copy",
    lambda xp, x, *, target, source, non_blocking: xp.move(x, target, non_blocking),
    x=lambda g, source, non_blocking, xp: xp.move(g, source, non_blocking),
)
_clone = Operation("clone", lambda xp, x: kept(xp, xp.array(x), x), x=lambda g: g)
_formatted = Operation("clone", lambda xp, x, *, name: in_format(xp, x, name), x=lambda g: g)
_contiguous = Operation("clone", lambda xp, x: xp.ascontiguousarray(x), x=lambda g: g)
# what was there before has no part in the result
assign = Operation(
    "copy", lambda xp, x, source: xp.broadcast_to(source, x.shape), x=lambda g, xp: xp.zeros_like(g), source=lambda g: g
)


def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy that the gradient goes through; as ``torch.clone``.

    Parameters
    ----------
    input : Tensor
    memory_format : memory_format, optional
        The order of dimensions in memory; as in the input unless given.

    Raises
    ------
    RuntimeError
        If the format is for another number of dimensions.
    """
    name = kept_format(memory_format)
    return apply(_clone, input) if name == "preserve_format" else apply(_formatted, input, name=name)


def _lies_in(a: Any, name: str) -> bool:
    """Whether `to` leaves an array in its order of dimensions: PyTorch asks which format it suggests to operations."""
    if name == "preserve_format":
        return True
    suggested = is_channels_last(a)
    return suggested == (name != "contiguous_format")


def to(
    input: Tensor,
    *args: Any,
    device: Any = None,
    dtype: Any = None,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: Any = None,
    tensor: Tensor | None = None,
    other: Tensor | None = None,
) -> Tensor:
    """The tensor in another dtype or on another device; itself if nothing changes. As ``torch.Tensor.to``.

    Parameters
    ----------
    input : Tensor
    *args
        A dtype; a device; a device and a dtype; or another tensor, for its dtype and device. Then perhaps `non_blocking` and
        `copy`.
    device : device or str, optional
    dtype : dtype, optional
    non_blocking : bool
        Between a GPU and page-locked memory (`pin_memory`): return before the elements have been copied. They have been when the
        current stream has come so far; ``torch.cuda.synchronize()`` waits for that.
    copy : bool
        Whether to copy in any case.
    memory_format : memory_format, optional
        The order of dimensions in memory. A tensor that needs no other conversion is itself if operations on it see it in that order.

    Raises
    ------
    RuntimeError
        If the memory format is for another number of dimensions.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.ones(2).to("cpu", disttorch.int64)
    tensor([1, 1])
    """
    flags = []
    if tensor is None:
        tensor = other
    for arg in (*args, tensor) if tensor is not None else args:
        if isinstance(arg, Tensor):
            dtype, device = arg.dtype, arg.device
        elif isinstance(arg, dt.dtype) or (isinstance(arg, type) and not isinstance(arg, bool)):
            dtype = arg
        elif isinstance(arg, bool):
            flags.append(arg)
        elif isinstance(arg, memory_format_type):
            memory_format = arg
        elif arg is not None:
            device = arg
    non_blocking = non_blocking or bool(flags and flags[0])
    copy = copy or (len(flags) > 1 and flags[1])
    name = kept_format(memory_format)
    if name != "preserve_format":
        strides_in(input._array.shape, 1, name)  # refuses another number of dimensions
    result = input
    if device is not None:
        here = input.device
        target = for_device(device)[1]
        if target != here:
            result = apply(_move, result, target=target, source=here, non_blocking=non_blocking)
    if dtype is not None:
        if isinstance(dtype, str):
            raise TypeError(f"to(): dtype must be a disttorch.dtype, not the text {dtype!r}")
        wanted = as_dtype(dtype).numpy
        have = result._array.dtype
        if wanted != have:
            # of a complex number the real part stays
            result = apply(_real_cast if have.kind == "c" and wanted.kind not in "cb" else _cast, result, dtype=wanted)
    if result is not input:
        a = result._array
        lies_so = name == "preserve_format" or a.strides == strides_in(a.shape, a.itemsize, name)
        return result if lies_so else apply(_formatted, result, name=name)
    return input if not copy and _lies_in(input._array, name) else clone(input, memory_format=memory_format)


def detach(input: Tensor) -> Tensor:
    """The same memory without the graph; as ``torch.Tensor.detach``."""
    result = wrap(input._array)
    share_version(input, result)
    return result


def detach_(input: Tensor) -> Tensor:
    """Cut the tensor off from the graph that computed it.

    Raises
    ------
    RuntimeError
        For a view, whose graph is its base's.
    """
    if input._view is not None:
        raise RuntimeError("can't detach views in-place; use detach() instead")
    input._node = None
    return input


def resolve_conj(input: Tensor) -> Tensor:
    """The tensor itself: conjugates are computed at once. As ``torch.resolve_conj``."""
    return input


def resolve_neg(input: Tensor) -> Tensor:
    """The tensor itself: negatives are computed at once. As ``torch.resolve_neg``."""
    return input


def contiguous(input: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor with its elements in C order, or in a memory format: itself if they are, else a copy; as ``torch.Tensor.contiguous``.

    Raises
    ------
    RuntimeError
        If the format is for another number of dimensions, or none that says an order.
    """
    a = input._array
    if memory_format is None:
        return input if a.flags.c_contiguous else apply(_contiguous, input)
    name = kept_format(memory_format)
    if is_in_format(a, name):
        return input
    if name == "preserve_format":
        raise RuntimeError("preserve memory format is unsupported by the contiguous operator")
    return apply(_formatted, input, name=name)


# --- written in place -----------------------------------------------------------------------------------------------


def copy_(input: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Overwrite the elements with those of another tensor, broadcast and converted; as ``torch.Tensor.copy_``.

    Parameters
    ----------
    input, src : Tensor
    non_blocking : bool
        Between a GPU and page-locked memory: return before the elements have been copied, as in `to`.

    Raises
    ------
    RuntimeError
        If the source does not broadcast to the tensor's shape.
    """
    a = input._array
    xp = namespace(a)
    if not isinstance(src, Tensor):
        src = wrap(xp.asarray(src))
    check_in_place("copy", input, (src,))
    source = src._array
    try:
        if not _transferred(xp, a, source, non_blocking):
            if namespace(source) is not xp or xp.device_of(source) != input.device:
                if src.device != input.device:
                    src = to(src, device=input.device, non_blocking=non_blocking)  # recorded: the gradient goes back there
                    source = src._array
                else:
                    source = namespace(source).move(source, input.device, non_blocking)
            if source.dtype.kind == "c" and a.dtype.kind not in "cb":
                source = source.real
            xp.copyto(a, source, casting="unsafe")
    except ValueError:
        raise RuntimeError(
            f"copy_: source of shape {list(src.shape)} cannot be broadcast to shape {list(a.shape)}"
        ) from None
    bump_version(input)
    finish_in_place(assign, (input, src), (a, source), (), {})
    return input


def _transferred(xp: Any, a: Any, source: Any, non_blocking: bool) -> bool:
    """Copy between a GPU and page-locked memory without a detour, where that can be; whether it was."""
    there = namespace(source)
    if there is xp or there.name == xp.name:
        return False
    a, source = turned((a, source))
    return there.into_host(a, source, non_blocking) if xp.name == "cpu" else xp.into_device(a, source, non_blocking)


def fill_(input: Tensor, value: Any) -> Tensor:
    """Overwrite all elements with a value; as ``torch.Tensor.fill_``."""
    if isinstance(value, Tensor):
        if value.ndim:
            raise RuntimeError(f"fill_ only supports 0-dimension value tensor but got tensor with {value.ndim} dimensions.")
        return copy_(input, value)
    d = DTYPES[input._array.dtype]
    if isinstance(value, complex) and not d.is_complex:
        raise RuntimeError(f"fill_: value {value} cannot be converted to type {d} without overflow")
    check_in_place("fill", input)
    a = input._array
    xp = namespace(a)
    a[...] = xp.scalar(value, a.dtype)
    bump_version(input)
    finish_in_place(assign, (input, wrap(xp.asarray(xp.scalar(value, a.dtype)))), (a, a), (), {})
    return input


def zero_(input: Tensor) -> Tensor:
    """Overwrite all elements with 0; as ``torch.Tensor.zero_``."""
    return fill_(input, 0)


def before_overwriting(input: Tensor) -> Tensor:
    """What an in-place twin computes from: a copy where the graph may keep it, for the tensor's memory will change."""
    if input._node is None or not recording.get():
        return input
    return wrap(namespace(input._array).array(input._array), input._node)


def overwrite(name: str, input: Tensor, result: Tensor) -> Tensor:
    """Put a computed result, with its history, into a tensor's memory: what in-place twins without a shorter way do."""
    check_in_place(name, input, (result,))
    if result._array.shape != input._array.shape:
        raise RuntimeError(
            f"{name}_: output with shape {list(input.shape)} doesn't match the broadcast shape {list(result.shape)}"
        )
    write(name, input, result._array)
    finish_in_place(assign, (input, result), (input._array, result._array), (), {})
    return input
