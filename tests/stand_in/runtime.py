"""``cupy.cuda.runtime``: the driver's functions that we call ourselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import devices, graphs, memory, streams
from .order import lock
from .streams import CUDARuntimeError, Line, line_of

__all__ = ["contents"]


def _copy(target: int, source: int, nbytes: int, kind: int, stream: Any, name: str) -> None:
    memory.copy_async(target, source, nbytes, stream, name)


def memcpyAsync(dst: int, src: int, size: int, kind: int, stream: int) -> None:
    _copy(dst, src, size, kind, memory.stream_at(stream), "memcpyAsync")


def memcpy(dst: int, src: int, size: int, kind: int) -> None:
    streams.synchronising("memcpy")
    _copy(dst, src, size, kind, None, "memcpy")
    streams.get_current_stream().synchronize()


def memcpyPeerAsync(dst: int, dstDevice: int, src: int, srcDevice: int, size: int, stream: int) -> None:
    memory.copy_async(dst, src, size, memory.stream_at(stream), "memcpyPeerAsync")


def memsetAsync(ptr: int, value: int, size: int, stream: int) -> None:
    memory.fill_async(ptr, value, size, memory.stream_at(stream))


def memset(ptr: int, value: int, size: int) -> None:
    memory.fill_async(ptr, value, size, None)


def getDevice() -> int:
    return devices.current()


def getDeviceCount() -> int:
    if not devices.count():
        raise CUDARuntimeError(100, "cudaErrorNoDevice: no CUDA-capable device is detected")
    return devices.count()


def setDevice(device: int) -> None:
    devices.select(device)


def getDeviceProperties(device: int) -> dict[str, Any]:
    if not 0 <= device < devices.count():
        raise CUDARuntimeError(101, "cudaErrorInvalidDevice: invalid device ordinal")
    return devices.properties(device)


def memGetInfo() -> tuple[int, int]:
    return memory.free_and_total(devices.current())


def deviceSynchronize() -> None:
    devices.Device().synchronize()


def deviceGetPCIBusId(device: int) -> str:
    return devices.bus_of(device)


def deviceCanAccessPeer(device: int, peerDevice: int) -> int:
    return int(device != peerDevice)


def deviceEnablePeerAccess(peerDevice: int) -> None:
    devices.select(devices.current())


def deviceGetAttribute(attrib: int, device: int) -> int:
    return {75: 9, 76: 0, 16: 132, 97: 232448}.get(attrib, 0)


def streamSynchronize(stream: int) -> None:
    _stream(stream).synchronize()


def streamQuery(stream: int) -> int:
    """The status, which is no error here: 0, or 600 (cudaErrorNotReady)."""
    return 0 if _stream(stream).done else 600


def eventQuery(event: int) -> int:
    found = streams.event_at(event)
    if found is None:
        return 400  # cudaErrorInvalidResourceHandle
    return found.failed or (0 if found.done else 600)


def streamIsCapturing(stream: int) -> int:
    return int(line_of(stream).capture is not None)


def streamBeginCapture(stream: int, mode: int = 2) -> None:
    _stream(stream).begin_capture(mode)


def streamWaitEvent(stream: int, event: int, flags: int = 0) -> None:
    streams.wait_external(stream, event, flags)


def graphInstantiate(graph: int) -> int:
    return graphs.instantiate(graph)


def graphLaunch(graphExec: int, stream: int) -> None:
    graphs.executable(graphExec).launch(_stream(stream))


def graphExecDestroy(graphExec: int) -> None:
    graphs.destroy(graphExec)


def _stream(pointer: int) -> streams.Stream:
    return streams.ExternalStream(pointer)


def driverGetVersion() -> int:
    return 12080


def runtimeGetVersion() -> int:
    return 12080


def hostRegister(ptr: int, size: int, flags: int) -> None:
    memory.pinned[ptr] = size


def hostUnregister(ptr: int) -> None:
    del memory.pinned[ptr]


class PointerAttributes:
    def __init__(self, device: int, devicePointer: int, hostPointer: int, kind: int):
        self.device, self.devicePointer, self.hostPointer, self.type = device, devicePointer, hostPointer, kind


def pointerGetAttributes(ptr: int) -> PointerAttributes:
    from .order import regions

    with lock:
        region = regions.at(ptr)
    if region is not None:
        return PointerAttributes(region.device, ptr, 0, 2)
    return PointerAttributes(-1, 0, ptr, 1 if memory.is_pinned(ptr) else 0)


NUMBERS = {
    "memcpyHostToHost": 0, "memcpyHostToDevice": 1, "memcpyDeviceToHost": 2, "memcpyDeviceToDevice": 3, "memcpyDefault": 4,
    "streamDefault": 0, "streamNonBlocking": 1, "streamLegacy": 1, "streamPerThread": 2, "eventDefault": 0, "eventBlockingSync": 1,
    "eventDisableTiming": 2, "eventInterprocess": 4, "streamCaptureModeGlobal": 0, "streamCaptureModeThreadLocal": 1,
    "streamCaptureModeRelaxed": 2, "streamCaptureStatusNone": 0, "streamCaptureStatusActive": 1, "streamCaptureStatusInvalidated": 2,
    "hostAllocDefault": 0, "hostAllocPortable": 1, "memoryTypeHost": 1, "memoryTypeDevice": 2, "CUDA_R_16F": 2, "CUDA_R_32F": 0,
    "CUDA_R_64F": 1, "CUDA_C_32F": 4, "CUDA_C_64F": 5, "CUDA_R_16BF": 14, "CUDA_R_8I": 3, "CUDA_R_8U": 8,
    "cudaDevAttrComputeCapabilityMajor": 75, "cudaDevAttrMultiProcessorCount": 16, "cudaDevAttrMaxSharedMemoryPerBlockOptin": 97,
}  # fmt: skip


def contents() -> dict[str, Any]:
    """The names of the module."""
    functions = {name: value for name, value in globals().items() if callable(value) and name[0] != "_" and name != "contents"}
    for name in ("Line", "Any", "lock", "line_of"):
        functions.pop(name, None)
    return functions | NUMBERS | {"CUDARuntimeError": CUDARuntimeError, "is_hip": False}


_ = (np, Line)
