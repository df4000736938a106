"""The accelerator of this machine, which is CUDA or none, without naming it; as ``torch.accelerator``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from . import cpu, cuda
from .backend import as_device
from .backend.device import device as device_type

__all__ = [
    "current_accelerator", "current_device_idx", "current_device_index", "current_stream", "device_count",
    "device_index", "empty_cache", "get_memory_info", "is_available", "max_memory_allocated", "max_memory_reserved", "memory_allocated",
    "memory_reserved", "memory_stats", "reset_accumulated_memory_stats", "reset_peak_memory_stats", "set_device_idx", "set_device_index",
    "set_stream", "synchronize",
]  # fmt: skip


def _kind(device: Any) -> str:
    return as_device(device).type if device is not None else "cuda" if cuda.is_available() else "cpu"


class _OfAnyDevice(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, tuple(getattr(world, cls.__name__) for world in (cpu, cuda)))


class Stream(metaclass=_OfAnyDevice):
    """A stream of a device, made as one of its own kind: a `cuda.Stream` or a `cpu.Stream`; as ``torch.Stream``.

    Parameters
    ----------
    device : device, str or int, optional
        The accelerator's current one unless given; the CPU where there is none.
    priority : int
        Streams with lower numbers go first.

    Examples
    --------
    >>> import disttorch
    >>> stream = disttorch.Stream("cpu")
    >>> stream.query(), isinstance(stream, disttorch.Stream)
    (True, True)
    """

    def __new__(cls, device: Any = None, *, priority: int = 0) -> Any:
        return cpu.Stream(priority) if _kind(device) == "cpu" else cuda.Stream(device, priority)


class Event(metaclass=_OfAnyDevice):
    """An event of a device, made as one of its own kind: a `cuda.Event` or a `cpu.Event`; as ``torch.Event``.

    Parameters
    ----------
    device : device, str or int, optional
        As for `Stream`.
    enable_timing, blocking, interprocess : bool
        As for `cuda.Event`.
    """

    def __new__(cls, device: Any = None, *, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> Any:
        return (cpu if _kind(device) == "cpu" else cuda).Event(enable_timing, blocking, interprocess)


def is_available() -> bool:
    """Whether there is one."""
    return cuda.is_available()


def current_accelerator(check_available: bool = False) -> device_type | None:
    """Its kind of device; None where there is none.

    Parameters
    ----------
    check_available : bool
        Accepted as in PyTorch, which may have been built for a device that is not there.

    Examples
    --------
    >>> import disttorch
    >>> found = disttorch.accelerator.current_accelerator()
    >>> device = found.type if found else "cpu"
    """
    return device_type("cuda") if is_available() else None


def device_count() -> int:
    """How many devices there are."""
    return cuda.device_count()


def _there() -> ModuleType:
    """`disttorch.cuda`, or the error that says what is missing."""
    cuda.init()
    return cuda


def current_device_index() -> int:
    """The number of the current device."""
    return _there().current_device()


def set_device_index(device: Any, /) -> None:
    """Make a device the current one."""
    _there().set_device(device)


#: older names
current_device_idx, set_device_idx = current_device_index, set_device_index


@contextmanager
def device_index(device: int | None, /) -> Iterator[None]:
    """A device, by its number, as the current one in a with-block; None leaves it."""
    with cuda.device(device):
        yield


def current_stream(device: Any = None, /) -> cuda.Stream:
    """The stream that a device's work goes to in this thread."""
    return _there().current_stream(device)


def set_stream(stream: cuda.Stream) -> None:
    """Let this thread's work go to a stream, and its device, from now on."""
    _there().set_stream(stream)


def synchronize(device: Any = None, /) -> None:
    """Wait until a device has finished."""
    _there().synchronize(device)


def empty_cache() -> None:
    """Give freed memory back to the driver."""
    _there().empty_cache()


def memory_stats(device_index: Any = None, /) -> dict[str, Any]:
    """`cuda.memory_stats`."""
    return _there().memory_stats(device_index)


def memory_allocated(device_index: Any = None, /) -> int:
    """Bytes that tensors hold."""
    return _there().memory_allocated(device_index)


def max_memory_allocated(device_index: Any = None, /) -> int:
    """The most that tensors held."""
    return _there().max_memory_allocated(device_index)


def memory_reserved(device_index: Any = None, /) -> int:
    """Bytes taken from the driver."""
    return _there().memory_reserved(device_index)


def max_memory_reserved(device_index: Any = None, /) -> int:
    """The most that was taken from the driver."""
    return _there().max_memory_reserved(device_index)


def reset_accumulated_memory_stats(device_index: Any = None, /) -> None:
    """Count anew what was ever taken and freed."""
    _there().reset_accumulated_memory_stats(device_index)


def reset_peak_memory_stats(device_index: Any = None, /) -> None:
    """Look for the most anew."""
    _there().reset_peak_memory_stats(device_index)


def get_memory_info(device_index: Any = None, /) -> tuple[int, int]:
    """Bytes that the driver has free, and all."""
    return _there().mem_get_info(device_index)


def get_device_module(device: Any = None) -> ModuleType:
    """`disttorch.cuda` or `disttorch.cpu`, of a device or its name, the accelerator's unless given; as ``torch.get_device_module``."""
    if device is None:
        return cuda if is_available() else cpu
    if not isinstance(device, (str, device_type)):
        raise RuntimeError(f"get_device_module expects a device, its name or None, not {device!r}")
    return {"cpu": cpu, "cuda": cuda}[as_device(device).type]
