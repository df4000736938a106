"""Arrays to and from other libraries by DLPack (https://dmlc.github.io/dlpack/latest/), bfloat16 too, which NumPy does not pass on.

A bfloat16 array goes out as the same memory with another element type, whose code is then set in the capsule; and in the other way.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy

from . import for_device
from .cpu import cpu
from .dtypes import bfloat16
from .namespace import namespace

__all__ = ["export", "imported"]

#: DLDeviceType: memory of the CPU, and that of the CPU from which a GPU can copy fast; memory of a GPU, and that which both can read
CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13
#: DLDataTypeCode of unsigned integers and of bfloat16
UINT, BFLOAT = 1, 4
#: Bytes from the begin of the structure to the tensor in it, by the capsule's name.
TENSOR_AT = {b"dltensor": 0, b"dltensor_versioned": 32}
#: Bytes from there to the device, and to the element type: code, bits, lanes.
DEVICE_AT, TYPE_AT = 8, 20
NEWEST = (1, 1)

_get_name = ctypes.pythonapi.PyCapsule_GetName
_get_name.restype, _get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype, _get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def export(array: Any, **options: Any) -> Any:
    """A capsule with an array's memory.

    Parameters
    ----------
    **options
        ``stream``, ``max_version``, ``dl_device`` and ``copy`` of the protocol.

    Raises
    ------
    BufferError
        If the array cannot be passed on so.
    """
    xp = namespace(array)
    if xp is cpu:
        if options.get("stream") is not None:
            raise BufferError(f"__dlpack__: there are no streams on the CPU, got stream={options['stream']!r}")
        options.pop("stream", None)
        if array.dtype == bfloat16.numpy:
            capsule = array.view(numpy.uint16).__dlpack__(**options)
            _type_of(capsule)[0] = BFLOAT
            return capsule
    return array.__dlpack__(**options)


def imported(source: Any, device: Any = None, copy: bool | None = None) -> Any:
    """An array on the memory of another library's.

    Parameters
    ----------
    source : object with ``__dlpack__`` and ``__dlpack_device__``, or a capsule
    device : device, optional
        Where it shall be; copied there if it is not.
    copy : bool, optional
        Whether it must be copied, or must not be.

    Raises
    ------
    RuntimeError
        If it is on a kind of device that no backend has.
    ValueError
        If it must not be copied and has to be.
    """
    kind, index = source.__dlpack_device__() if hasattr(source, "__dlpack_device__") else _device_of(source)
    name = {CPU: "cpu", CUDA_HOST: "cpu", CUDA: f"cuda:{index}", CUDA_MANAGED: f"cuda:{index}"}.get(int(kind))
    if name is None:
        raise RuntimeError(f"from_dlpack: no backend has arrays on DLPack device type {int(kind)}")
    xp, here = for_device(name)
    there = here if device is None else for_device(device)[1]
    if there != here and copy is False:
        raise ValueError(f"from_dlpack: an array on {here} cannot be on {there} without a copy")
    if xp is cpu:
        array = _on_cpu(source)
    else:
        with xp.on(here):  # who exports asks for the current stream
            array = xp.from_dlpack(source)
    if there != here:
        return xp.move(array, there)
    return xp.array(array) if copy else array


def _on_cpu(source: Any) -> Any:
    capsule = source
    if hasattr(source, "__dlpack__"):
        try:
            capsule = source.__dlpack__(max_version=NEWEST)
        except TypeError:  # a library that knows the protocol of before version 1 only
            capsule = source.__dlpack__()
    element = _type_of(capsule)
    is_bfloat = (element[0], element[1]) == (BFLOAT, 16)
    if is_bfloat:
        element[0] = UINT
    array = numpy.from_dlpack(_Holder(capsule))
    return array.view(bfloat16.numpy) if is_bfloat else array


class _Holder:
    """What NumPy asks for a capsule that is there already."""

    def __init__(self, capsule: Any):
        self.capsule = capsule

    def __dlpack__(self, **options: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU, 0


def _type_of(capsule: Any) -> Any:
    """Code and bits of a capsule's elements, in place."""
    return (ctypes.c_uint8 * 2).from_address(_tensor_at(capsule) + TYPE_AT)


def _device_of(capsule: Any) -> tuple[int, int]:
    kind, index = (ctypes.c_int32 * 2).from_address(_tensor_at(capsule) + DEVICE_AT)
    return kind, index


def _tensor_at(capsule: Any) -> int:
    if type(capsule).__name__ != "PyCapsule":
        raise TypeError(f"from_dlpack: expected an object with __dlpack__, or a capsule, got {type(capsule).__name__}")
    name = _get_name(capsule)
    if name not in TENSOR_AT:
        raise RuntimeError(f"from_dlpack: a capsule can be used once, and this one was; its name is {name!r}")
    return _get_pointer(capsule, name) + TENSOR_AT[name]
