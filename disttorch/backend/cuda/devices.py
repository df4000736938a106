"""CUDA devices and their memory through CuPy. Imported when a script asks for them and there is a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import cupy

from ..device import as_device

__all__ = [
    "allocated",
    "empty_cache",
    "free_and_total",
    "limit",
    "number",
    "pop_range",
    "properties",
    "push_range",
    "reserved",
    "set_device",
    "synchronize",
    "using",
]


def number(where: Any = None) -> int:
    """A device's number; the current one's for None."""
    if where is None:
        return cupy.cuda.runtime.getDevice()
    if isinstance(where, int):
        return where
    index = as_device(where).index
    return cupy.cuda.runtime.getDevice() if index is None else index


def set_device(where: Any) -> None:
    """Make a device the current one."""
    if number(where) >= 0:  # a negative number means nothing to do, as in PyTorch
        cupy.cuda.Device(number(where)).use()


@contextmanager
def using(where: Any) -> Iterator[None]:
    """A device as the current one in a with-block."""
    with cupy.cuda.Device(number(where)):
        yield


def properties(where: Any = None) -> Any:
    """What the driver says of a device, under PyTorch's names."""
    p = cupy.cuda.runtime.getDeviceProperties(number(where))
    return SimpleNamespace(
        name=p["name"].decode(),
        major=p["major"],
        minor=p["minor"],
        total_memory=p["totalGlobalMem"],
        multi_processor_count=p["multiProcessorCount"],
        max_threads_per_multi_processor=p["maxThreadsPerMultiProcessor"],
        warp_size=p["warpSize"],
        is_integrated=p["integrated"],
        is_multi_gpu_board=p["isMultiGpuBoard"],
        L2_cache_size=p["l2CacheSize"],
    )


def synchronize(where: Any = None) -> None:
    """Wait until a device has finished."""
    cupy.cuda.Device(number(where)).synchronize()


def empty_cache() -> None:
    """Give memory that no array uses back to the driver."""
    cupy.get_default_memory_pool().free_all_blocks()
    cupy.get_default_pinned_memory_pool().free_all_blocks()


def allocated(where: Any = None) -> int:
    """Bytes that arrays use on a device."""
    with using(where):
        return cupy.get_default_memory_pool().used_bytes()


def reserved(where: Any = None) -> int:
    """Bytes that are used or kept for arrays to come."""
    with using(where):
        return cupy.get_default_memory_pool().total_bytes()


def limit(fraction: float, where: Any = None) -> None:
    """The most of a device's memory that arrays may use."""
    with using(where):
        cupy.get_default_memory_pool().set_limit(fraction=fraction)


def free_and_total(where: Any = None) -> tuple[int, int]:
    """Bytes that the driver has free on a device, and all."""
    with using(where):
        return cupy.cuda.runtime.memGetInfo()


def push_range(message: str) -> None:
    """Begin a range that profilers show."""
    cupy.cuda.nvtx.RangePush(message)


def pop_range() -> None:
    """End it."""
    cupy.cuda.nvtx.RangePop()
