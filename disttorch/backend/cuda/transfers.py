"""Copies between host and device, page-locked memory, from and to which they need not wait, and other libraries' memory.

Everything is launched on the current stream. A copy from page-locked ("pinned") memory that the caller says not to wait for reads that
memory later, so it is kept until then (`memory.hold`); other memory of the host is copied to page-locked memory first, by CuPy.
A copy lies in memory as its source does, if that has no gaps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import cupy
import cupyx
import numpy

from .. import in_use
from ..layout import is_dense, order_in_memory, strides_in
from . import capturing
from .memory import hold

__all__ = ["between_devices", "from_dlpack", "from_host", "into_device", "into_host", "is_pinned", "pinned", "to_host"]


def _in_order_of_memory(copy: Callable[..., Any]) -> Callable[..., Any]:
    """A function that copies arrays in C order, also for others without gaps: they are, with their dimensions in another order."""

    @functools.wraps(copy)
    def function(array: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(array, (cupy.ndarray, numpy.ndarray)) or array.ndim < 2:
            return copy(array, *args, **options)
        if array.strides == strides_in(array.shape, array.itemsize, "contiguous_format") or not is_dense(array):
            return copy(array, *args, **options)
        order = order_in_memory(array)
        return copy(array.transpose(order), *args, **options).transpose([order.index(d) for d in range(array.ndim)])

    return function


@_in_order_of_memory
def pinned(array: Any) -> Any:
    """A copy of a NumPy array in page-locked memory."""
    copy = _empty_pinned(array)
    copy[...] = array
    return copy


def _empty_pinned(like: Any) -> Any:
    """A NumPy array in page-locked memory, of the shape and dtype of another. CuPy asks its events for it, and the driver for memory."""
    with capturing.may_call_the_driver():
        return cupyx.empty_pinned(like.shape, like.dtype)


def is_pinned(array: Any) -> bool:
    """Whether a NumPy array, or what it is a view of, lies in page-locked memory; the driver knows."""
    if not array.size:
        return False
    address = array.__array_interface__["data"][0]
    return cupy.cuda.runtime.pointerGetAttributes(address).type == cupy.cuda.runtime.memoryTypeHost


@_in_order_of_memory
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
        if not array.ndim or not array.size:
            return cupy.array(array)  # a single number is passed to a kernel by value
        captured, lies_pinned = capturing.here() is not None, is_pinned(array)
        if not captured and not lies_pinned:
            return cupy.array(array)
        copy = cupy.empty(array.shape, array.dtype)
        # A replay reads it again. Else CuPy would read page-locked memory after this has returned, although nobody allowed that.
        _send(copy, array if lies_pinned and (captured or non_blocking) else pinned(array))
        return copy


def _send(target: Any, source: Any) -> None:
    """Launch a copy from page-locked memory to an array in C order of the same bytes."""
    if not source.flags.c_contiguous:
        source = pinned(source)
    stream, runtime = cupy.cuda.get_current_stream(), cupy.cuda.runtime
    # CuPy's own functions for it refuse while a graph is captured; the driver does not.
    runtime.memcpyAsync(target.data.ptr, source.ctypes.data, source.nbytes, runtime.memcpyHostToDevice, stream.ptr)
    hold(source, stream)


@_in_order_of_memory
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
        copy = _empty_pinned(array)
        _fetch(copy, array)
        return copy
    capturing.refuse_waiting("a copy to the host")
    with cupy.cuda.Device(array.data.device_id):
        # In C order already: for that CuPy would make a stream current, and not go back to one that `set_stream` has set.
        return cupy.asnumpy(array if array.flags.c_contiguous else cupy.ascontiguousarray(array))


def _fetch(target: Any, source: Any) -> None:
    """Launch a copy to page-locked memory in C order."""
    with cupy.cuda.Device(source.data.device_id):
        source = cupy.ascontiguousarray(source)
        stream, runtime = cupy.cuda.get_current_stream(), cupy.cuda.runtime
        runtime.memcpyAsync(target.ctypes.data, source.data.ptr, source.nbytes, runtime.memcpyDeviceToHost, stream.ptr)
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


def from_dlpack(source: Any) -> Any:
    """An array on another library's memory, which is as large as its elements reach: CuPy takes the sum of the dimensions for it."""
    a = cupy.from_dlpack(source)
    if not a.size:
        return a
    reach = [(n - 1) * s for n, s in zip(a.shape, a.strides)]
    below, above = -sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)
    memory = cupy.cuda.UnownedMemory(a.data.ptr - below, below + above + a.itemsize, a, a.data.device_id)
    return cupy.ndarray(a.shape, a.dtype, memptr=cupy.cuda.MemoryPointer(memory, below), strides=a.strides)


@_in_order_of_memory
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
