"""Copies between host and device, and page-locked memory, from and to which they need not wait.

Everything is launched on the current stream. A copy from page-locked ("pinned") memory that the caller says not to wait for reads that
memory later, so it is kept until then (`memory.hold`); other memory of the host is copied to page-locked memory first, by CuPy.
"""

from __future__ import annotations

from typing import Any

import cupy
import cupyx
import numpy

from .. import in_use
from . import capturing
from .memory import hold

__all__ = ["between_devices", "from_host", "into_device", "into_host", "is_pinned", "pinned", "to_host"]


def pinned(array: Any) -> Any:
    """A copy of a NumPy array in page-locked memory."""
    copy = cupyx.empty_pinned(array.shape, array.dtype)
    copy[...] = array
    return copy


def is_pinned(array: Any) -> bool:
    """Whether a NumPy array, or what it is a view of, lies in page-locked memory; the driver knows."""
    if not array.size:
        return False
    address = array.__array_interface__["data"][0]
    return cupy.cuda.runtime.pointerGetAttributes(address).type == cupy.cuda.runtime.memoryTypeHost


def from_host(array: Any, index: int | None = None, non_blocking: bool = False) -> Any:
    """A copy of a NumPy array, or of another device's array, on a device.

    Parameters
    ----------
    array : numpy.ndarray or cupy.ndarray
    index : int, optional
        The device; the current one unless given.
    non_blocking : bool
        Whether page-locked memory may be read after the function has returned. Without that nothing waits, either, but the host makes a
        copy first.
    """
    if index is not None:
        in_use.arrays_on(index)
    with cupy.cuda.Device(index):
        if isinstance(array, cupy.ndarray):
            return between_devices(array)
        array = numpy.asarray(array)
        capture = capturing.here()
        if not array.ndim or not array.size or (capture is None and not (non_blocking and is_pinned(array))):
            return cupy.array(array)  # a single number is passed to a kernel by value
        copy = cupy.empty(array.shape, array.dtype)
        if capture is not None and not is_pinned(array):
            with capturing.may_call_the_driver():
                array = pinned(array)  # a replay reads it again
        _send(copy, array)
        return copy


def _send(target: Any, source: Any) -> None:
    """Launch a copy from page-locked memory to an array in C order of the same bytes."""
    if not source.flags.c_contiguous:
        source = pinned(source)
    stream = cupy.cuda.get_current_stream()
    target.data.copy_from_host_async(source.ctypes.data, source.nbytes, stream)
    hold(source, stream)


def to_host(array: Any, non_blocking: bool = False) -> Any:
    """A copy of a device's array as a NumPy array.

    Parameters
    ----------
    array : cupy.ndarray
    non_blocking : bool
        Whether to return before the elements are there; they are when the current stream has come so far.

    Raises
    ------
    RuntimeError
        If it would have to wait while a CUDA graph is captured.
    """
    if non_blocking and array.size:
        with capturing.may_call_the_driver():
            copy = cupyx.empty_pinned(array.shape, array.dtype)
        _fetch(copy, array)
        return copy
    capturing.refuse_waiting("a copy to the host")
    with cupy.cuda.Device(array.data.device_id):
        return cupy.asnumpy(array)


def _fetch(target: Any, source: Any) -> None:
    """Launch a copy to page-locked memory in C order."""
    with cupy.cuda.Device(source.data.device_id):
        source = cupy.ascontiguousarray(source)
        stream = cupy.cuda.get_current_stream()
        source.data.copy_to_host_async(target.ctypes.data, source.nbytes, stream)
        hold((source, target), stream)


def into_device(target: Any, source: Any, non_blocking: bool) -> bool:
    """Overwrite a device's array with a NumPy array of the same shape and dtype where that needs no detour.

    Returns
    -------
    bool
        Whether it has been launched.
    """
    if not _alike(target, source) or not (non_blocking and is_pinned(source)):
        return False
    with cupy.cuda.Device(target.data.device_id):
        _send(target, source)
    return True


def into_host(target: Any, source: Any, non_blocking: bool) -> bool:
    """Overwrite a NumPy array with a device's array of the same shape and dtype where that needs no detour.

    Returns
    -------
    bool
        Whether it has been launched; unless `non_blocking`, it is done then.
    """
    if not _alike(target, source) or not is_pinned(target):
        return False
    if not non_blocking:
        capturing.refuse_waiting("a copy to the host")
    _fetch(target, source)
    if not non_blocking:
        with cupy.cuda.Device(source.data.device_id):
            cupy.cuda.get_current_stream().synchronize()
    return True


def _alike(target: Any, source: Any) -> bool:
    return (target.shape, target.dtype) == (source.shape, source.dtype) and target.flags.c_contiguous and bool(target.size)


def between_devices(array: Any) -> Any:
    """A copy of an array on the current device, in order with the work of both devices' streams."""
    origin = array.data.device_id
    if origin == cupy.cuda.runtime.getDevice() or not array.size:
        return cupy.array(array)
    with cupy.cuda.Device(origin):
        array = cupy.ascontiguousarray(array)
        there = cupy.cuda.get_current_stream()
        written = there.record(cupy.cuda.Event(disable_timing=True))
    here = cupy.cuda.get_current_stream()
    here.wait_event(written)
    copy = cupy.empty(array.shape, array.dtype)
    copy.data.copy_from_device_async(array.data, array.nbytes, here)
    read = here.record(cupy.cuda.Event(disable_timing=True))
    there_waits(there, origin, read)
    return copy


def there_waits(stream: Any, index: int, event: Any) -> None:
    """Let a stream of another device wait for an event, so that what was read is not overwritten before."""
    with cupy.cuda.Device(index):
        stream.wait_event(event)
