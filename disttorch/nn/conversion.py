"""Moving and converting all of a module at once: methods of Module.

Parameters stay the objects that they are, and get other memory, so optimizers that know them go on working.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..autograd.grad_mode import no_grad
from ..autograd.variable import Tensor
from ..backend import cpu
from ..backend import dtypes as dt
from ..backend.dtypes import DTYPES, as_dtype
from ..backend.layout import memory_format
from ..ops.creation import empty
from .parameter import Buffer, is_lazy

if TYPE_CHECKING:
    from .module import Module


def apply_to_tensors(self: Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Module:
    """Replace the memory of all parameters (the objects stay), their gradients, and all buffers by what `fn` returns."""
    if recurse:
        for module in self.children():
            module._apply(fn)
    with no_grad():
        for parameter in self._parameters.values():
            if parameter is not None:
                parameter.data = fn(parameter.data)
                if parameter._grad is not None:
                    parameter._grad = fn(parameter._grad.detach())
        for name, buffer in self._buffers.items():
            if is_lazy(buffer):
                buffer.data = fn(buffer.data)  # type: ignore[union-attr]
            elif buffer is not None:
                changed = fn(buffer)
                self._buffers[name] = buffer if changed is buffer else _as_buffer(buffer, changed)
    return self


def to(self: Module, *args: Any, **kwargs: Any) -> Module:
    """Move all parameters and buffers to a device, those of floating point also to a dtype; returns the module.

    Parameters
    ----------
    *args
        A dtype; a device; a device and a dtype; or a tensor, for its dtype and device.
    device : device or str, optional
    dtype : dtype, optional
        Floating point or complex.
    non_blocking : bool
    memory_format : memory_format, optional
        The order of dimensions in memory of parameters and buffers of 4 or 5 dimensions.

    Raises
    ------
    TypeError
        If the dtype is neither floating point nor complex.
    RuntimeError
        If one of 4 or 5 dimensions has not the number of them that the memory format is for.
    """
    device, dtype, wanted, non_blocking = _parse_to(*args, **kwargs)
    if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
        raise TypeError(f"nn.Module.to only accepts floating point or complex dtypes, but got desired dtype={dtype}")

    def convert(t: Tensor) -> Tensor:
        own = dtype if DTYPES[t._array.dtype].category >= dt.FLOAT else None
        order = wanted if t._array.ndim in (4, 5) else None
        return t.to(device=device, dtype=own, non_blocking=non_blocking, memory_format=order)

    return self._apply(convert)


def to_empty(self: Module, *, device: Any, recurse: bool = True) -> Module:
    """Give all parameters and buffers new memory on a device, without copying their values; returns the module."""

    def fresh(t: Tensor) -> Tensor:
        return empty(t.shape, dtype=t.dtype, device=device)

    return self._apply(fresh, recurse=recurse)


def share_memory(self: Module) -> Module:
    """Move all parameters and buffers into memory that processes share; returns the module."""
    arrays: dict[int, Any] = {}

    def note(t: Tensor) -> Tensor:
        if not t.is_shared():
            arrays[id(t._array)] = t._array
        return t

    self._apply(note)
    # all in one block: each block takes descriptors, of which a process may not have many
    moved = dict(zip(arrays, cpu.shared(list(arrays.values())) if arrays else []))

    def move(t: Tensor) -> Tensor:
        if (array := moved.get(id(t._array))) is not None:
            t._array, t._version, t._view = array, None, None
        return t

    return self._apply(move)


def to_cpu(self: Module) -> Module:
    """Move all parameters and buffers to the CPU; returns the module."""
    return self._apply(lambda t: t.cpu())


def to_cuda(self: Module, device: Any = None) -> Module:
    """Move all parameters and buffers to a GPU, the current one unless given; returns the module."""
    return self._apply(lambda t: t.cuda(device))


def to_type(self: Module, dst_type: Any) -> Module:
    """Convert all parameters and buffers, whole numbers too, to a dtype; returns the module."""
    return self._apply(lambda t: t.to(dtype=as_dtype(dst_type)))


def _to_floating(self: Module, dtype: Any) -> Module:
    return self._apply(lambda t: t.to(dtype=dtype) if t._array.dtype in dt.FLOATING else t)


def to_float(self: Module) -> Module:
    """Convert all floating-point parameters and buffers to float32; returns the module."""
    return _to_floating(self, dt.float32)


def to_double(self: Module) -> Module:
    """Convert all floating-point parameters and buffers to float64; returns the module."""
    return _to_floating(self, dt.float64)


def to_half(self: Module) -> Module:
    """Convert all floating-point parameters and buffers to float16; returns the module."""
    return _to_floating(self, dt.float16)


def to_bfloat16(self: Module) -> Module:
    """Convert all floating-point parameters and buffers to bfloat16; returns the module."""
    return _to_floating(self, dt.bfloat16)


def _as_buffer(old: Tensor, new: Tensor) -> Tensor:
    return Buffer(new, old.persistent) if isinstance(old, Buffer) else new


def _parse_to(*args: Any, **kwargs: Any) -> tuple[Any, dt.dtype | None, Any, bool]:
    """The device, the dtype and the memory format that the arguments of `Module.to` name, and whether not to wait for copies."""
    options = {"device": None, "dtype": None, "non_blocking": False, "memory_format": None, "tensor": None, **kwargs}
    if len(options) > 5:
        raise TypeError(f"to() got an unexpected keyword argument {list(options)[5]!r}")
    device, dtype, order, at_once = (options[name] for name in ("device", "dtype", "memory_format", "non_blocking"))
    for arg in (*args, options["tensor"]):
        if isinstance(arg, Tensor):
            device, dtype = arg.device, arg.dtype
        elif isinstance(arg, (dt.dtype, type)):
            dtype = arg
        elif isinstance(arg, memory_format):
            order = arg
        elif isinstance(arg, bool):
            at_once = arg
        elif arg is not None:
            device = arg
    return device, None if dtype is None else as_dtype(dtype), order, at_once


