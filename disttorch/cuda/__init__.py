"""CUDA devices, by PyTorch's names. Without a device, what only tidies up does nothing, and what needs one says what is missing."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import Any

from ..backend import cuda_is_available as is_available
from ..tensor.types import TENSOR_TYPES
from . import amp, graphs, memory, nvtx, random, streams
from ._room import room
from .amp import GradScaler, autocast
from .graphed import make_graphed_callables
from .graphs import CUDAGraph, graph, graph_pool_handle, is_current_stream_capturing
from .memory import (
    OutOfMemoryError,
    empty_cache,
    get_allocator_backend,
    get_per_process_memory_fraction,
    max_memory_allocated,
    max_memory_cached,
    max_memory_reserved,
    mem_get_info,
    memory_allocated,
    memory_cached,
    memory_reserved,
    memory_stats,
    memory_stats_as_nested_dict,
    memory_summary,
    reset_accumulated_memory_stats,
    reset_max_memory_allocated,
    reset_max_memory_cached,
    reset_peak_memory_stats,
    set_per_process_memory_fraction,
)
from .random import (
    get_rng_state,
    get_rng_state_all,
    initial_seed,
    manual_seed,
    manual_seed_all,
    seed,
    seed_all,
    set_rng_state,
    set_rng_state_all,
)
from .streams import Event, ExternalStream, Stream, StreamContext, current_stream, default_stream, set_stream, stream

__all__ = [
    "CUDAGraph", "Event", "ExternalStream", "GradScaler", "OutOfMemoryError", "Stream", "StreamContext", "amp", "autocast",
    "can_device_access_peer", "current_device", "current_stream", "default_stream", "device", "device_count", "device_of", "empty_cache",
    "get_allocator_backend", "get_arch_list", "get_device_capability", "get_device_name", "get_device_properties",
    "get_per_process_memory_fraction", "get_rng_state", "get_rng_state_all", "graph", "graph_pool_handle", "graphs", "init",
    "initial_seed", "ipc_collect", "is_available", "is_bf16_supported", "is_current_stream_capturing", "is_initialized",
    "is_tf32_supported", "make_graphed_callables", "manual_seed", "manual_seed_all", "max_memory_allocated", "max_memory_cached",
    "max_memory_reserved", "mem_get_info", "memory", "memory_allocated", "memory_cached", "memory_reserved", "memory_stats",
    "memory_stats_as_nested_dict", "memory_summary", "nvtx", "random", "reset_accumulated_memory_stats", "reset_max_memory_allocated",
    "reset_max_memory_cached", "reset_peak_memory_stats", "seed", "seed_all", "set_device", "set_per_process_memory_fraction",
    "set_rng_state", "set_rng_state_all", "set_stream", "stream", "streams", "synchronize",
]  # fmt: skip

globals().update({_name.removeprefix("cuda."): _type for _name, _type in TENSOR_TYPES.items() if _name.startswith("cuda.")})


def __getattr__(name: str) -> Any:
    raise AttributeError(f"disttorch.cuda has no {name!r}: see docs/api-coverage.md for what is there")


def device_count() -> int:
    """CUDA devices that this process may use; 0 without CuPy or a driver."""
    if not is_available():
        return 0
    from ..backend import cuda

    return cuda.device_count()


def current_device() -> int:
    """The number of the current device."""
    return room("devices").number()


def set_device(device: Any) -> None:
    """Make a device the current one; as ``torch.cuda.set_device``."""
    room("devices").set_device(device)


@contextmanager
def device(device: Any) -> Any:
    """A device as the current one in a with-block; None and -1 leave it."""
    with nullcontext() if device is None or device == -1 else room("devices").enter(device):
        yield


@contextmanager
def device_of(obj: Any) -> Any:
    """The device of a tensor as the current one in a with-block; the CPU's tensors leave it."""
    with device(obj.device if obj.is_cuda else None):
        yield


def get_device_properties(device: Any = None) -> Any:
    """Name, memory and computing capability of a device."""
    return room("devices").properties(device)


def get_device_name(device: Any = None) -> str:
    """A device's name."""
    return room("devices").properties(device).name


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """A device's computing capability, such as (9, 0)."""
    found = room("devices").properties(device)
    return found.major, found.minor


def get_arch_list() -> list[str]:
    """Architectures that code was built for in advance: none, CuPy compiles for the device that is there."""
    return []


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether there is a device that computes with bfloat16."""
    return is_available() and (including_emulation or get_device_capability()[0] >= 8)


def is_tf32_supported() -> bool:
    """Whether there is a device that multiplies float32 matrices with 10 bits of the mantissa."""
    return is_available() and get_device_capability()[0] >= 8


def is_initialized() -> bool:
    """Whether CUDA can be used."""
    return is_available()


def init() -> None:
    """Devices are found when they are first used; here it is checked that there is one."""
    room("devices")


def synchronize(device: Any = None) -> None:
    """Wait until a device has finished.

    Raises
    ------
    RuntimeError
        If there is none.
    """
    room("devices").synchronize(device)


def can_device_access_peer(device: Any, peer_device: Any) -> bool:
    """Whether one device can read and write another's memory directly; copies between them work in any case.

    Raises
    ------
    AssertionError
        If there is no such device.
    """
    devices = room("devices")
    first, second = devices.number(device), devices.number(peer_device)
    for index in (first, second):
        if not 0 <= index < device_count():
            raise AssertionError(f"Invalid device id {index}: there are {device_count()} devices")
    return devices.can_access_peer(first, second)


def ipc_collect() -> None:
    """Nothing is shared between processes by CUDA that could be collected."""
