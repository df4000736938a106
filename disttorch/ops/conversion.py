"""Copies and conversions: clone, to, detach, contiguous, and writing in place: copy_, fill_, zero_."""

from __future__ import annotations

from typing import Any

from ..autograd.grad_mode import recording
from ..autograd.operation import Operation, apply, check_in_place, finish_in_place, write
from ..autograd.variable import Tensor, bump_version, share_version, wrap
from ..backend import dtypes as dt
from ..backend import for_device, namespace
from ..backend.dtypes import DTYPES, as_dtype
from .random import generator_for

# What users find of this family, and where: see ops/public.py.
BOTH = "clone detach"
METHODS = "bernoulli_ contiguous copy_ detach_ fill_ normal_ random_ to uniform_ zero_"

# the engine converts a gradient to the dtype of the input
_cast = Operation("to_copy", lambda xp, x, *, dtype: x.astype(dtype), x=lambda g: g)
_move = Operation(
    "to_copy", lambda xp, x, *, target, source: xp.move(x, target), x=lambda g, source, xp: xp.move(g, source)
)
_clone = Operation("clone", lambda xp, x: xp.array(x), x=lambda g: g)
_contiguous = Operation("clone", lambda xp, x: xp.ascontiguousarray(x), x=lambda g: g)
# what was there before has no part in the result
_assign = Operation(
    "copy", lambda xp, x, source: xp.broadcast_to(source, x.shape), x=lambda g, xp: xp.zeros_like(g), source=lambda g: g
)


def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy that the gradient goes through; as ``torch.clone``."""
    return apply(_clone, input)


def to(
    input: Tensor,
    *args: Any,
    device: Any = None,
    dtype: Any = None,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """The tensor in another dtype or on another device; itself if nothing changes. As ``torch.Tensor.to``.

    Parameters
    ----------
    input : Tensor
    *args
        A dtype; a device; a device and a dtype; or another tensor, for its dtype and device.
    device : device or str, optional
    dtype : dtype, optional
    non_blocking : bool
        Accepted as in PyTorch.
    copy : bool
        Whether to copy in any case.
    """
    for arg in args:
        if isinstance(arg, Tensor):
            dtype, device = arg.dtype, arg.device
        elif isinstance(arg, dt.dtype) or (isinstance(arg, type) and not isinstance(arg, bool)):
            dtype = arg
        elif arg is not None and not isinstance(arg, bool):  # which would be non_blocking
            device = arg
    result = input
    if device is not None:
        here = input.device
        target = for_device(device)[1]
        if target != here:
            result = apply(_move, result, target=target, source=here)
    if dtype is not None:
        wanted = as_dtype(dtype).numpy
        if wanted != result._array.dtype:
            result = apply(_cast, result, dtype=wanted)
    return clone(input) if copy and result is input else result


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


def contiguous(input: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor with its elements in C order: itself if they are, else a copy; as ``torch.Tensor.contiguous``."""
    return input if input._array.flags.c_contiguous else apply(_contiguous, input)


def copy_(input: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Overwrite the elements with those of another tensor, broadcast and converted; as ``torch.Tensor.copy_``.

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
    source = src._array if namespace(src._array) is xp else namespace(src._array).move(src._array, input.device)
    try:
        if source.dtype.kind == "c" and a.dtype.kind != "c":
            source = source.real
        xp.copyto(a, source, casting="unsafe")
    except ValueError:
        raise RuntimeError(
            f"copy_: source of shape {list(src.shape)} cannot be broadcast to shape {list(a.shape)}"
        ) from None
    bump_version(input)
    finish_in_place(_assign, (input, src), (a, source), (), {})
    return input


def fill_(input: Tensor, value: Any) -> Tensor:
    """Overwrite all elements with a value; as ``torch.Tensor.fill_``."""
    if isinstance(value, Tensor):
        if value.ndim:
            raise RuntimeError(f"fill_ only supports 0-dimension value tensor but got tensor with {value.ndim} dimensions.")
        return copy_(input, value)
    check_in_place("fill", input)
    a = input._array
    xp = namespace(a)
    a[...] = xp.scalar(value, a.dtype)
    bump_version(input)
    finish_in_place(_assign, (input, wrap(xp.asarray(xp.scalar(value, a.dtype)))), (a, a), (), {})
    return input


def zero_(input: Tensor) -> Tensor:
    """Overwrite all elements with 0; as ``torch.Tensor.zero_``."""
    return fill_(input, 0)


def _random_in_place(name: str, draw: Any, doc: str) -> Any:
    def function(input: Tensor, *args: Any, generator: Any = None, **options: Any) -> Tensor:
        check_in_place(name, input)
        xp = namespace(input._array)
        source = generator_for(input.device, generator)
        drawn = draw(source, input._array.shape, DTYPES[input._array.dtype], *args, **options)
        xp.copyto(input._array, drawn, casting="unsafe")
        bump_version(input)
        finish_in_place(_assign, (input, wrap(input._array)), (input._array, input._array), (), {})
        return input

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Fill with {doc}; as ``torch.Tensor.{name}``."
    return function


def _floating(d: Any) -> Any:
    return d if d.category >= dt.FLOAT else dt.float32


def _uniform(source: Any, shape: Any, d: Any, from_: float = 0.0, to: float = 1.0, **options: Any) -> Any:
    low = options.pop("from", from_)
    if low > to:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={low} > to={to}")
    return source.uniform(shape, _floating(d)) * (to - low) + low


def _normal(source: Any, shape: Any, d: Any, mean: float = 0.0, std: float = 1.0) -> Any:
    if std < 0:
        raise RuntimeError(f"normal_ expects std >= 0.0, but found std {std}")
    return source.normal(shape, _floating(d)) * std + mean


def _bernoulli(source: Any, shape: Any, d: Any, p: Any = 0.5) -> Any:
    return source.uniform(shape, dt.float32) < (p._array if isinstance(p, Tensor) else p)


def _random(source: Any, shape: Any, d: Any, from_: int = 0, to: int | None = None, **options: Any) -> Any:
    low = options.pop("from", from_)
    if to is None and low:
        low, to = 0, low
    if to is None:
        # floating point: integers up to which all can be represented
        to = 2 ** {"float16": 11, "bfloat16": 8, "float32": 24}.get(d.name, 53) if d.category >= dt.FLOAT else dt.iinfo(d).max
    return source.integers(low, to, shape, d)


uniform_ = _random_in_place("uniform_", _uniform, "numbers uniform in [from, to)")
normal_ = _random_in_place("normal_", _normal, "normally distributed numbers of a mean and standard deviation")
bernoulli_ = _random_in_place("bernoulli_", _bernoulli, "1 with probability p, else 0")
random_ = _random_in_place("random_", _random, "integers uniform in [from, to)")


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
    finish_in_place(_assign, (input, result), (input._array, result._array), (), {})
    return input
