"""Arrays made from nothing, from numbers, or from what the host or another library has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from . import memory
from .arrays import empty, ndarray
from .names import NAMES, Arguments
from .operations import compute, launch, put
from .streams import CUDARuntimeError, current

__all__ = [
    "arange",
    "array",
    "asarray",
    "ascontiguousarray",
    "asfortranarray",
    "asnumpy",
    "copyto",
    "from_host",
    "from_the_host",
    "full",
    "full_like",
    "is_in",
    "is_in_order",
    "like",
    "ones",
    "zeros",
]  # fmt: skip

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def from_the_host(what: str) -> None:
    """Said where CuPy copies what is on the host by page-locked memory of its own and asks an event when that is free again.

    Raises
    ------
    CUDARuntimeError
        While the current stream is captured, where such an event must not be asked; a replay would read memory that others have by then.
    """
    if current().capture is not None:
        raise CUDARuntimeError(907, f"cudaErrorCapturedEvent: {what} copies from the host, and asks an event of a captured stream")


def _on_device(values: Any, order: str = "C") -> ndarray:
    result = empty(values.shape, values.dtype, "F" if order in ("F",) or (order in "AK" and values.flags.fnc) else "C")
    values = values.copy()
    put("copy_from_host", result, lambda: values, [])
    return result


def array(
    obj: Any, dtype: Any = None, copy: Any = True, order: str = "K", subok: bool = False, ndmin: int = 0, *, blocking: bool = False
) -> ndarray:
    """``cupy.array``."""
    if subok:
        raise NotImplementedError
    if type(obj) is not ndarray and hasattr(obj, "__cuda_array_interface__"):
        obj = from_interface(obj)
    if type(obj) is ndarray:
        if not copy and (dtype is None or np.dtype(dtype) == obj.dtype) and obj.ndim >= ndmin and (order in "KA" or is_in(obj, order)):
            return obj
        result = obj.astype(obj.dtype if dtype is None else dtype, order=order)
        return result.reshape((1,) * (ndmin - result.ndim) + result.shape) if result.ndim < ndmin else result
    found: list[ndarray] = []
    if isinstance(obj, (list, tuple)):
        obj = _host_list(obj, found)
    if found:
        return _joined(obj, found, dtype)
    values = np.array(obj, dtype=dtype, ndmin=ndmin)
    if values.dtype.kind in "OSUMm":
        raise ValueError(f"Unsupported dtype {values.dtype}")
    if values.ndim:  # a number goes to a kernel by value
        from_the_host("array")
        if type(obj) is np.ndarray and obj.dtype == values.dtype and memory.is_pinned(obj.ctypes.data):
            return _from_pinned(obj, order) if is_in_order(obj, order) else _on_device(values, order)
    return _on_device(values, order)


def is_in_order(values: Any, order: str) -> bool:
    return bool(values.flags.f_contiguous if order == "F" else values.flags.c_contiguous or (order in "KA" and values.flags.fnc))


def _from_pinned(values: Any, order: str) -> ndarray:
    """From pinned memory as it is, after the function has returned."""
    result = empty(values.shape, values.dtype, "F" if order == "F" or (order in "AK" and values.flags.fnc) else "C")
    memory.copy_async(result.data.ptr, values.ctypes.data, values.nbytes, None, "array of pinned memory", keep=values)
    return result


def is_in(obj: ndarray, order: str) -> bool:
    return bool(obj._a.flags.c_contiguous if order == "C" else obj._a.flags.f_contiguous)


def _host_list(value: Any, found: list[ndarray]) -> Any:
    if type(value) is ndarray:
        found.append(value)
        return value
    if isinstance(value, (list, tuple)):
        return [_host_list(each, found) for each in value]
    return value


def _joined(nested: Any, found: list[ndarray], dtype: Any) -> ndarray:
    def values(each: Any) -> Any:
        if type(each) is ndarray:
            return each._a
        if isinstance(each, list):
            return np.stack([np.asarray(values(part)) for part in each]) if each else np.empty(0)
        return each

    return compute("array", lambda: np.asarray(values(nested), dtype).copy(), found)


def from_interface(obj: Any) -> ndarray:
    """An array on what another library shows by ``__cuda_array_interface__``."""
    told = obj.__cuda_array_interface__
    pointer = told["data"][0]
    dtype = np.dtype(told["typestr"])
    if dtype.kind == "V" and dtype.itemsize == 2:
        dtype = BFLOAT16
    strides = told.get("strides")
    nbytes = int(np.prod(told["shape"], dtype=np.int64)) * dtype.itemsize
    memptr = memory.MemoryPointer(memory.UnownedMemory(pointer, nbytes, obj), 0)
    return ndarray(told["shape"], dtype, memptr, strides)


def asarray(a: Any, dtype: Any = None, order: Any = None, *, blocking: bool = False, copy: Any = None) -> ndarray:
    return array(a, dtype, copy=bool(copy), order=order or "K", blocking=blocking)


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    made = array(a, dtype, copy=False, order="C")
    return made if made.ndim else made.reshape(1)


def asfortranarray(a: Any, dtype: Any = None) -> ndarray:
    return array(a, dtype, copy=False, order="F")


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> Any:
    if type(a) is ndarray:
        return a.get(stream=stream, order=order, out=out, blocking=blocking)
    if hasattr(a, "__cuda_array_interface__"):
        return from_interface(a).get(stream=stream, order=order, out=out, blocking=blocking)
    values = np.asarray(a, order=order)
    if out is not None:
        out[...] = values
        return out
    return values


def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> ndarray:
    if dtype is None:
        dtype = fill_value.dtype if hasattr(fill_value, "dtype") else np.array(fill_value).dtype
    result = empty(shape, dtype, order)
    result.fill(fill_value)
    return result


def zeros(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return full(shape, 0, dtype, order)


def ones(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return full(shape, 1, dtype, order)


def like(filled: Any) -> Callable[..., ndarray]:
    def make(prototype: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None, *more: Any) -> ndarray:
        if type(prototype) is not ndarray:
            raise TypeError(f"Unsupported type {type(prototype)}")
        if subok:
            raise TypeError("subok is not supported yet")
        layout = np.empty_like(prototype._a, dtype, order, shape=shape)
        result = ndarray(layout.shape, layout.dtype, strides=layout.strides)
        if filled is not None:
            result.fill(filled)
        return result

    return make


def full_like(a: Any, fill_value: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None) -> ndarray:
    result = like(None)(a, dtype, order, subok, shape)
    result.fill(fill_value)
    return result


def copyto(dst: Any, src: Any, casting: str = "same_kind", where: Any = None) -> None:
    if type(dst) is not ndarray:
        raise TypeError(f"Unsupported type {type(dst)}")
    if isinstance(src, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'> [copyto]")
    kind = src.dtype if hasattr(src, "dtype") else np.asarray(src).dtype
    if hasattr(src, "dtype") and not np.can_cast(kind, dst.dtype, casting):
        raise TypeError(f"Cannot cast from {kind} to {dst.dtype} in {casting} casting mode")
    reads = [each for each in (src, where) if type(each) is ndarray]

    def action() -> None:
        values = src._a if type(src) is ndarray else src
        np.copyto(dst._a, values, "unsafe", where=True if where is None else where._a if type(where) is ndarray else where)

    launch("copyto", action, [*reads, dst] if where is not None else reads, [dst])


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> ndarray:
    first, last = (0, start) if stop is None else (start, stop)
    return _on_device(np.arange(first, last, step, dtype))


def from_host(name: str) -> Callable[..., Any]:
    """A function of numbers whose result NumPy makes."""
    arguments = Arguments(name, NAMES["functions"][f"cupy.{name}"])

    def call(*args: Any, **kwargs: Any) -> Any:
        arguments.check(args, kwargs)
        if kwargs.get("order") is None:
            kwargs.pop("order", None)
        result = getattr(np, name)(*args, **kwargs)
        return _on_device(result) if isinstance(result, np.ndarray) else [_on_device(each) for each in result]

    return call
