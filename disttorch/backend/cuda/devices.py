"""CUDA devices through CuPy: which one is current, what they are, and marks for profilers."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import cupy

from .. import in_use
from ..device import as_device
from . import capturing

__all__ = [
    "HandedOn", "can_access_peer", "enter", "free_and_total", "mark", "number", "pop_range", "properties", "push_range", "set_device",
    "synchronize", "using",
]  # fmt: skip


def number(where: Any = None) -> int:
    """A device's number; the current one's for None.

    Raises
    ------
    ValueError
        If it is a device of another kind.
    """
    if where is None:
        return cupy.cuda.runtime.getDevice()
    if isinstance(where, int):
        return where
    found = as_device(where)
    if found.type != "cuda":
        raise ValueError(f"expected a CUDA device, but got '{found}'")
    return cupy.cuda.runtime.getDevice() if found.index is None else found.index


def enter(where: Any) -> Any:
    """A device as the current one in a with-block in which the user computes."""
    in_use.others_than(number(where))
    return using(where)


def set_device(where: Any) -> None:
    """Make a device the current one."""
    index = number(where)
    if index >= 0:  # a negative number means nothing to do, as in PyTorch
        cupy.cuda.Device(index).use()
        in_use.choose(index)


@contextmanager
def using(where: Any) -> Iterator[None]:
    """A device as the current one in a with-block."""
    with cupy.cuda.Device(number(where)):
        yield


class Properties(SimpleNamespace):
    """What the driver says of a device, under PyTorch's names."""

    def __repr__(self) -> str:
        return (
            f"_CudaDeviceProperties(name='{self.name}', major={self.major}, minor={self.minor}, "
            f"total_memory={self.total_memory // 2**20}MB, multi_processor_count={self.multi_processor_count}, "
            f"L2_cache_size={self.L2_cache_size // 2**20}MB)"
        )


def properties(where: Any = None) -> Properties:
    """What the driver says of a device.

    Raises
    ------
    AssertionError
        If there is no such device.
    """
    index = number(where)
    count = cupy.cuda.runtime.getDeviceCount()
    if not 0 <= index < count:
        raise AssertionError(f"Invalid device id {index}: there are {count} devices")
    return _properties(index)


@functools.cache
def _properties(index: int) -> Properties:
    p = cupy.cuda.runtime.getDeviceProperties(index)
    return Properties(
        name=p["name"].decode(),
        major=p["major"],
        minor=p["minor"],
        total_memory=p["totalGlobalMem"],
        multi_processor_count=p["multiProcessorCount"],
        max_threads_per_multi_processor=p["maxThreadsPerMultiProcessor"],
        max_threads_per_block=p["maxThreadsPerBlock"],
        warp_size=p["warpSize"],
        regs_per_multiprocessor=p.get("regsPerMultiprocessor", 0),
        shared_memory_per_block=p["sharedMemPerBlock"],
        shared_memory_per_block_optin=p.get("sharedMemPerBlockOptin", p["sharedMemPerBlock"]),
        shared_memory_per_multiprocessor=p.get("sharedMemPerMultiprocessor", 0),
        is_integrated=p["integrated"],
        is_multi_gpu_board=p["isMultiGpuBoard"],
        L2_cache_size=p["l2CacheSize"],
        memory_bus_width=p["memoryBusWidth"],
        pci_bus_id=p["pciBusID"],
        pci_device_id=p["pciDeviceID"],
        pci_domain_id=p["pciDomainID"],
    )


def synchronize(where: Any = None) -> None:
    """Wait until a device has finished."""
    capturing.refuse_waiting("synchronize()")
    cupy.cuda.Device(number(where)).synchronize()


def can_access_peer(device: int, peer: int) -> bool:
    """Whether one device can read and write another's memory."""
    return bool(cupy.cuda.runtime.deviceCanAccessPeer(device, peer))


def free_and_total(where: Any = None) -> tuple[int, int]:
    """Bytes that the driver has free on a device, and all."""
    with using(where):
        return cupy.cuda.runtime.memGetInfo()


class HandedOn(threading.local):
    """What one thread at a time may use, and is dear to make: when a thread ends, the next that begins has it.

    Parameters
    ----------
    make : callable
        Makes it for a thread for which there is none.
    left : list
        Empty at first: what threads that have ended have left.

    Attributes
    ----------
    mine : object
        The calling thread's.
    """

    def __init__(self, make: Callable[[], Any], left: list[Any]):
        try:
            self.mine = left.pop()
        except IndexError:
            self.mine = make()
        self._end = _End(self.mine, left)


class _End:
    """Goes with its thread."""

    def __init__(self, kept: Any, left: list[Any]):
        self.kept, self.left = kept, left

    def __del__(self) -> None:
        self.left.append(self.kept)


def push_range(message: str) -> None:
    """Begin a range that profilers show."""
    cupy.cuda.nvtx.RangePush(message)


def pop_range() -> None:
    """End it."""
    cupy.cuda.nvtx.RangePop()


def mark(message: str) -> None:
    """A moment that profilers show."""
    cupy.cuda.nvtx.Mark(message)
