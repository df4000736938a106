"""Devices: their number, their memory and their properties, and which one each thread works on."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

__all__ = ["BUS", "Device", "count", "current", "properties", "set_count", "total_memory"]

_local = threading.local()
_count = [1]
total_memory: dict[int, int] = {}
"""Bytes that a device has; `DEFAULT_MEMORY` where nothing is said."""
DEFAULT_MEMORY = 80 << 30
BUS: dict[int, str] = {}
"""Bus identifiers, for tests in which two numbers are one device."""
_peers: set[tuple[int, int]] = set()


def count() -> int:
    return _count[0]


def set_count(number: int) -> None:
    """Let there be so many devices."""
    _count[0] = number


def current() -> int:
    return getattr(_local, "number", 0)


def select(number: int) -> None:
    if not 0 <= number < count():
        from .streams import CUDARuntimeError

        raise CUDARuntimeError(101, "cudaErrorInvalidDevice: invalid device ordinal")
    _local.number = number


def properties(number: int) -> dict[str, Any]:
    """What ``cudaGetDeviceProperties`` tells, as CuPy gives it; of an H100."""
    return {
        "name": b"Stand-in for a GPU", "major": 9, "minor": 0, "totalGlobalMem": total_memory.get(number, DEFAULT_MEMORY),
        "multiProcessorCount": 132, "maxThreadsPerMultiProcessor": 2048, "maxThreadsPerBlock": 1024, "warpSize": 32, "integrated": 0,
        "isMultiGpuBoard": 0, "l2CacheSize": 50 << 20, "sharedMemPerBlock": 49152, "sharedMemPerBlockOptin": 232448,
        "sharedMemPerMultiprocessor": 233472, "regsPerBlock": 65536, "clockRate": 1980000, "memoryClockRate": 2619000,
        "memoryBusWidth": 5120, "pciBusID": 7 + number, "pciDeviceID": 0, "pciDomainID": 0, "concurrentKernels": 1,
        "asyncEngineCount": 3, "unifiedAddressing": 1, "managedMemory": 1, "uuid": bytes(range(16)),
        "maxGridSize": (2147483647, 65535, 65535), "maxThreadsDim": (1024, 1024, 64), "cooperativeLaunch": 1,
        "computeMode": 0, "canMapHostMemory": 1, "ECCEnabled": 1,
    }  # fmt: skip


class Device:
    """``cupy.cuda.Device``."""

    def __init__(self, device: Any = None):
        self.id = current() if device is None else int(device)
        self._before: list[int] = []

    def use(self) -> None:
        select(self.id)

    def __enter__(self) -> Device:
        self._before.append(current())
        select(self.id)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None) -> None:
        select(self._before.pop())

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def synchronize(self) -> None:
        from . import streams

        streams.synchronising("Device.synchronize")
        synchronize_device(self.id)

    @property
    def compute_capability(self) -> str:
        found = properties(self.id)
        return f"{found['major']}{found['minor']}"

    @property
    def mem_info(self) -> tuple[int, int]:
        from .memory import free_and_total

        return free_and_total(self.id)

    @property
    def pci_bus_id(self) -> str:
        return bus_of(self.id)

    @property
    def attributes(self) -> dict[str, int]:
        return {"MultiProcessorCount": 132, "MaxThreadsPerBlock": 1024, "WarpSize": 32, "ComputeCapabilityMajor": 9}


def bus_of(number: int) -> str:
    return BUS.get(number, f"0000:{7 + number:02X}:00.0")


def synchronize_device(number: int) -> None:
    """Wait for all streams of a device."""
    from . import streams
    from .order import lock

    with lock:
        lines = streams.lines(number)
        flags = [(line.mark(), dict(line.clock)) for line in lines]
        streams.wait_until(lambda: all(flag.is_set() for flag, _ in flags), "Device.synchronize")
        for _, clock in flags:
            streams.seen(clock)
