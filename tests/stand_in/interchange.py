"""DLPack: the device's arrays handed out and taken in, as NumPy's capsules whose device is exchanged."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from . import memory
from .arrays import ndarray
from .order import region_at
from .streams import get_current_stream, line_of

__all__ = ["exported", "imported"]

KINDS = {(0, 8): "i1", (0, 16): "i2", (0, 32): "i4", (0, 64): "i8", (1, 8): "u1", (1, 16): "u2", (1, 32): "u4", (1, 64): "u8",
         (2, 16): "f2", (2, 32): "f4", (2, 64): "f8", (5, 64): "c8", (5, 128): "c16", (6, 8): "?"}  # fmt: skip


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64),
    ]  # fmt: skip


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_name = ctypes.pythonapi.PyCapsule_GetName
_name.restype, _name.argtypes = ctypes.c_char_p, [ctypes.py_object]


def tensor_of(capsule: Any) -> Tensor:
    name = _name(capsule)
    offset = {b"dltensor": 0, b"dltensor_versioned": 32}[name]
    return Tensor.from_address(_pointer(capsule, name) + offset)


def exported(array: ndarray, stream: Any, dl_device: Any, copy: Any) -> Any:
    """A capsule; the current stream is made to be waited for by the consumer's."""
    if stream not in (None, -1):
        if stream == 0:
            raise ValueError("On CUDA, the valid stream for the DLPack protocol is -1, 1, 2, or any larger value")
        consumer = line_of(0 if stream == 1 else stream)
        event = get_current_stream().record()
        _wait(consumer, event)
    values = array._a
    if array.dtype.char == "E":
        capsule = values.view(np.uint16).__dlpack__()
        tensor_of(capsule).code = 4
    else:
        capsule = values.__dlpack__()
    tensor = tensor_of(capsule)
    tensor.device_type, tensor.device_id = 2, array.device.id
    _kept[tensor.data or 0] = array
    return capsule


_kept: dict[int, ndarray] = {}


def _wait(line: Any, event: Any) -> None:
    from .order import join

    join(line.clock, event.clock)


def imported(source: Any) -> ndarray:
    """An array on the memory of a capsule of the device."""
    if hasattr(source, "__dlpack_device__"):
        kind, _ = source.__dlpack_device__()
        if kind not in (2, 13):
            raise TypeError("from_dlpack of memory of the host is not in the stand-in")
        capsule = source.__dlpack__(stream=get_current_stream().ptr or 1)
    else:
        capsule = source
    tensor = tensor_of(capsule)
    if tensor.device_type not in (2, 13):
        raise TypeError("the capsule is not of a CUDA device")
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    import ml_dtypes

    dtype = np.dtype(ml_dtypes.bfloat16) if (tensor.code, tensor.bits) == (4, 16) else np.dtype(KINDS[tensor.code, tensor.bits])
    strides = tuple(tensor.strides[i] * dtype.itemsize for i in range(tensor.ndim)) if tensor.strides else None
    pointer = (tensor.data or 0) + tensor.byte_offset
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if nbytes:
        region = region_at(pointer, "from_dlpack")
        # the size that CuPy 14 says: of the sum of the dimensions, not of their product
        mem = memory.UnownedMemory(pointer, sum(shape) * dtype.itemsize, (source, capsule), region.device)
        return ndarray(shape, dtype, memory.MemoryPointer(mem, 0), strides)
    return ndarray(shape, dtype)
