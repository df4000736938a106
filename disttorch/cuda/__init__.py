"""CUDA devices, by PyTorch's names. Without a device, what only tidies up does nothing, and what needs one says what is missing."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import Any

from ..backend import cuda_is_available as is_available
from ..backend import for_device
from ..backend.device import as_device
from ..ops import random
from . import amp, nvtx
from .amp import GradScaler, autocast

__all__ = ["GradScaler", "amp", "autocast", "device_count", "is_available", "nvtx"]


def __getattr__(name: str) -> Any:
    if name in ("Event", "Stream"):
        return getattr(_streams(), name)
    raise AttributeError(f"disttorch.cuda has no {name!r}: see docs/api-coverage.md for what is there")


def _devices() -> Any:
    """CuPy's side; where there is no device the error says what is missing."""
    for_device("cuda")
    from ..backend.cuda import devices

    return devices


def _streams() -> Any:
    """CuPy's streams, likewise."""
    for_device("cuda")
    from ..backend.cuda import streams

    return streams


class OutOfMemoryError(RuntimeError):
    """The name that scripts catch; CuPy's own error is raised where a device's memory is full."""


# --- devices -----------------------------------------------------------------------------------------------------------


def device_count() -> int:
    """CUDA devices that this process may use; 0 without CuPy or a driver."""
    if not is_available():
        return 0
    from ..backend import cuda

    return cuda.device_count()


def current_device() -> int:
    """The number of the current device."""
    return _devices().number()


def set_device(device: Any) -> None:
    """Make a device the current one; as ``torch.cuda.set_device``."""
    _devices().set_device(device)


@contextmanager
def device(device: Any) -> Any:
    """A device as the current one in a with-block; None and -1 leave it."""
    with nullcontext() if device is None or device == -1 else _devices().using(device):
        yield


@contextmanager
def device_of(obj: Any) -> Any:
    """The device of a tensor as the current one in a with-block; the CPU's tensors leave it."""
    with device(obj.device if obj.is_cuda else None):
        yield


def get_device_properties(device: Any = None) -> Any:
    """Name, memory and computing capability of a device."""
    return _devices().properties(device)


def get_device_name(device: Any = None) -> str:
    """A device's name."""
    return _devices().properties(device).name


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """A device's computing capability, such as (9, 0)."""
    found = _devices().properties(device)
    return found.major, found.minor


def get_arch_list() -> list[str]:
    """Architectures that code was built for in advance: none, CuPy compiles for the device that is there."""
    return []


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether there is a device that computes with bfloat16."""
    return is_available() and (including_emulation or get_device_capability()[0] >= 8)


def is_initialized() -> bool:
    """Whether CUDA can be used."""
    return is_available()


def init() -> None:
    """Devices are found when they are first used; here it is checked that there is one."""
    _devices()


def synchronize(device: Any = None) -> None:
    """Wait until a device has finished.

    Raises
    ------
    RuntimeError
        If there is none.
    """
    _devices().synchronize(device)


def can_device_access_peer(device: Any, peer_device: Any) -> bool:
    """Whether one device can read another's memory: asked by scripts that copy between them; copies work in any case."""
    return is_available() and as_device(device) != as_device(peer_device)


def ipc_collect() -> None:
    """Nothing is shared between processes by CUDA that could be collected."""


# --- memory ------------------------------------------------------------------------------------------------------------


def empty_cache() -> None:
    """Give memory that no tensor uses back to the driver."""
    if is_available():
        _devices().empty_cache()


def memory_allocated(device: Any = None) -> int:
    """Bytes that tensors use on a device; 0 without one."""
    return _devices().allocated(device) if is_available() else 0


def memory_reserved(device: Any = None) -> int:
    """Bytes that tensors use or that are kept for tensors to come; 0 without a device."""
    return _devices().reserved(device) if is_available() else 0


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes that were reserved since the last `empty_cache`: what is reserved only grows. 0 without a device."""
    return memory_reserved(device)


max_memory_reserved = max_memory_allocated


def reset_peak_memory_stats(device: Any = None) -> None:
    """Give back what is not used, so that `max_memory_allocated` counts from what is used now."""
    empty_cache()


reset_max_memory_allocated = reset_max_memory_cached = reset_accumulated_memory_stats = reset_peak_memory_stats


def memory_stats(device: Any = None) -> dict[str, int]:
    """Bytes in use and reserved, by PyTorch's keys."""
    if not is_available():
        return {}
    used, kept = memory_allocated(device), memory_reserved(device)
    return {
        "allocated_bytes.all.current": used,
        "allocated_bytes.all.peak": kept,
        "reserved_bytes.all.current": kept,
        "reserved_bytes.all.peak": kept,
    }


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """Bytes in use and reserved, as text."""
    return f"memory in use: {memory_allocated(device)} bytes; reserved: {memory_reserved(device)} bytes"


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Bytes that the driver has free, and all."""
    return _devices().free_and_total(device)


def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
    """Set how much of a device's memory tensors may use."""
    _devices().limit(fraction, device)


# --- streams -----------------------------------------------------------------------------------------------------------


def current_stream(device: Any = None) -> Any:
    """The stream that work goes to."""
    return _streams().current_stream()


def default_stream(device: Any = None) -> Any:
    """The driver's own stream."""
    return _streams().default_stream()


def stream(stream: Any) -> Any:
    """A stream as the current one in a with-block; None leaves it."""
    return nullcontext() if stream is None else stream


# --- random numbers ----------------------------------------------------------------------------------------------------


def manual_seed(seed: int) -> None:
    """Start the devices' random numbers from a seed; without a device there is nothing to do."""
    if is_available():
        random.manual_seed(seed)


manual_seed_all = manual_seed


def seed() -> None:
    """Start the devices' random numbers from a seed of the system's."""
    if is_available():
        random.seed()


seed_all = seed


def initial_seed() -> int:
    """The seed that the devices' random numbers started from."""
    _devices()
    return random.initial_seed()
