"""The array worlds. Nothing above this room names NumPy or CuPy: it asks for the namespace of an array or a device."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from .cpu import cpu
from .device import as_device, device
from .namespace import IN_ONE_ORDER, NAMESPACES, Namespace, namespace

__all__ = [
    "IN_ONE_ORDER",
    "NAMESPACES",
    "Namespace",
    "as_device",
    "cpu",
    "cuda_is_available",
    "device",
    "for_device",
    "get_default_device",
    "namespace",
    "set_default_device",
]

_CPU = device("cpu")
#: for this thread, where set_default_device or a with-block of a device has set one
_default_device: ContextVar[device] = ContextVar("disttorch.default_device", default=_CPU)


def for_device(where: Any = None) -> tuple[Namespace, device]:
    """The namespace of a device, and the device with its index filled in.

    Parameters
    ----------
    where : device, str, int or None
        None stands for the default device.

    Raises
    ------
    RuntimeError
        If the device is not there; the message says what is missing.
    """
    where = _default_device.get() if where is None else as_device(where)
    if where.type == "cpu":
        return cpu, cpu.check_device(where)
    if where.type != "cuda":
        raise RuntimeError(f"device '{where}': no tensor can be there; there are cpu and cuda")
    try:
        from .cuda import cuda
    except ImportError as error:
        raise RuntimeError(
            f"device '{where}' needs CuPy, which cannot be imported here ({error}): "
            "pip install 'disttorch[cuda12]' (or cuda13)"
        ) from error
    return cuda, cuda.check_device(where)


def cuda_is_available() -> bool:
    """Whether there are CuPy, a driver and at least one CUDA device."""
    try:
        from .cuda import device_count
    except ImportError:
        return False
    return device_count() > 0


def get_default_device() -> device:
    """The device of tensors made without ``device=`` in this thread; the CPU unless set."""
    return _default_device.get()


def set_default_device(device: Any) -> None:
    """Set the device of tensors made without ``device=`` in this thread; None stands for the CPU. For a block of lines there is
    ``with disttorch.device(...)``.

    Raises
    ------
    RuntimeError
        If the device is not there.
    """
    _default_device.set(_CPU if device is None else for_device(device)[1])
