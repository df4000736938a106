"""``cupy.ndarray``: a wrapper around NumPy's array on a block of the device's memory, which is no NumPy array itself.

It refuses NumPy arrays as operands and to become one unasked, results without dimensions stay arrays, and indices wrap around, as in CuPy.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import ml_dtypes
import numpy as np

from . import devices, memory
from .order import lock, region_at
from .streams import get_current_stream, launching

__all__ = ["empty", "empty_like_result", "ndarray", "unwrapped"]


def contiguous_strides(shape: tuple[int, ...], itemsize: int, order: str = "C") -> tuple[int, ...]:
    strides, step = [], itemsize
    for n in reversed(shape) if order == "C" else shape:
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides)) if order == "C" else tuple(strides)


class ndarray:
    """An array on the device; `cupy.ndarray` says what everything means."""

    __slots__ = ("__weakref__", "_a", "_region", "base", "data")
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]
    _a: np.ndarray
    _region: Any
    base: Any
    data: memory.MemoryPointer

    def __init__(self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None, order: str = "C") -> None:
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(map(operator.index, shape))
        dtype = np.dtype(dtype)
        if dtype.kind in "OSUMm":
            raise ValueError(f"Unsupported dtype {dtype}")
        if order not in ("C", "F"):
            raise ValueError(f"order not understood. order={order}")
        nbytes = math.prod(shape) * dtype.itemsize
        fresh = memptr is None
        if fresh:
            memptr = memory.alloc(nbytes)
        self.data, self.base = memptr, None
        region = memptr.mem.region
        if fresh and strides is None and nbytes and region is not None:
            self._region = region
            self._a = np.ndarray(shape, dtype, region.bytes, memptr.ptr - region.pointer, order=order)  # type: ignore[call-overload]
            return
        if strides is None:
            strides = contiguous_strides(shape, dtype.itemsize, order)
        if region is None and nbytes:
            region = region_at(memptr.ptr, "ndarray")
        self._region = region
        if region is None or not nbytes:
            self._a = np.empty(shape, dtype)
            return
        low = sum((n - 1) * step for n, step in zip(shape, strides) if step < 0)
        high = sum((n - 1) * step for n, step in zip(shape, strides) if step > 0) + dtype.itemsize
        offset = memptr.ptr - region.pointer
        if offset + low < 0 or offset + high > region.size:
            raise memory.CUDARuntimeError(700, f"an array of shape {shape} and strides {strides} leaves its block of memory")
        self._a = np.ndarray(shape, dtype, region.bytes, offset, strides)

    @classmethod
    def on(cls, values: np.ndarray, of: ndarray, pointer: int) -> ndarray:
        """A view of another array, from NumPy's view of its memory."""
        view = cls.__new__(cls)
        if not values.flags.writeable and of._region is not None and values.size:  # NumPy gives some views to read only
            values = np.ndarray(values.shape, values.dtype, of._region.bytes, pointer - of._region.pointer, values.strides)
        view._a, view._region = values, of._region
        view.base = of if of.base is None else of.base
        view.data = of.data + (pointer - of.data.ptr)
        return view

    # What it is ------------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self._a.shape

    @shape.setter
    def shape(self, shape: Any) -> None:
        self._a.shape = shape

    @property
    def dtype(self) -> Any:
        return self._a.dtype

    @property
    def ndim(self) -> int:
        return self._a.ndim

    @property
    def size(self) -> int:
        return self._a.size

    @property
    def strides(self) -> tuple[int, ...]:
        return self._a.strides

    @property
    def itemsize(self) -> int:
        return self._a.itemsize

    @property
    def nbytes(self) -> int:
        return self._a.nbytes

    @property
    def flags(self) -> Any:
        return Flags(self._a.flags.c_contiguous, self._a.flags.f_contiguous, self.base is None)

    @property
    def device(self) -> devices.Device:
        return self.data.device

    @property
    def T(self) -> ndarray:
        return self.transpose()

    @property
    def mT(self) -> ndarray:
        return self.swapaxes(-1, -2)

    @property
    def flat(self) -> Any:
        raise NotImplementedError("flat: not in the stand-in")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        stream = get_current_stream().ptr
        return {
            "shape": self.shape, "typestr": self.dtype.str, "descr": self.dtype.descr, "version": 3, "stream": stream or 1,
            "strides": None if self._a.flags.c_contiguous else self.strides, "data": (self.data.ptr, False),
        }  # fmt: skip

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __iter__(self) -> Any:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(self.shape[0]))

    def __repr__(self) -> str:
        return repr(self.get())

    def __str__(self) -> str:
        return str(self.get())

    def __format__(self, how: str) -> str:
        return format(self.get(), how)

    # To the host -----------------------------------------------------------------------------------------------------

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> Any:
        from . import operations

        where = get_current_stream() if stream is None else stream
        if out is not None and not isinstance(out, np.ndarray):
            raise TypeError(f"Only numpy.ndarray can be obtained from cupy.ndarray, not {type(out)}")
        if out is not None and (out.dtype != self.dtype or out.shape != self.shape):
            raise ValueError(f"Shape mismatch. Expected shape: {self.shape}, actual shape: {out.shape}")
        with lock, devices.Device(self.device.id):
            layout: Any = "F" if order == "F" or (order == "A" and self._fortran) else "C"
            result = np.empty(self.shape, self.dtype, layout) if out is None else out
            if blocking:
                operations.synchronising("get")

            def action() -> None:
                result[...] = self._a

            if not (self._a.flags.c_contiguous if layout == "C" else self._a.flags.f_contiguous):
                with where:  # a copy is made first, in such a block of CuPy's
                    operations.launch("get", action, [self], [])
            else:
                with launching(where):
                    operations.launch("get", action, [self], [])
            if blocking:
                where.synchronize()
            return result

    @property
    def _fortran(self) -> bool:
        return self._a.flags.f_contiguous and not self._a.flags.c_contiguous

    def set(self, arr: Any, stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if self.shape != arr.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not (self._a.flags.c_contiguous or self._a.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        from . import operations

        values = arr.copy()
        with launching(get_current_stream() if stream is None else stream):
            operations.put("set", self, lambda: values, [])

    def item(self, *index: Any) -> Any:
        return self.get().item(*index)

    def tolist(self) -> Any:
        return self.get().tolist()

    def tobytes(self, order: str = "C") -> bytes:
        return self.get().tobytes()

    def __bool__(self) -> bool:
        return bool(self._single("bool"))

    def __int__(self) -> int:
        return int(self._single("int"))

    def __float__(self) -> float:
        return float(self._single("float"))

    def __complex__(self) -> complex:
        return complex(self._single("complex"))

    def __index__(self) -> int:
        return self.get().__index__()

    def _single(self, kind: str) -> Any:
        if kind == "bool" and not self.size:
            return False
        return self.get()

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
        )

    def __reduce__(self) -> Any:
        return _rebuilt, (self.get(),)

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None) -> Any:
        from . import interchange

        return interchange.exported(self, stream, dl_device, copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device.id

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        from . import functions

        if method != "__call__" or any(isinstance(each, np.ndarray) for each in inputs):
            return NotImplemented
        if "out" in options:
            options["out"] = options["out"][0]
        try:
            return functions.named(ufunc.__name__)(*inputs, **options)
        except AttributeError:
            return NotImplemented

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        from . import functions

        try:
            ours = functions.named(function.__name__)
        except AttributeError:
            return NotImplemented
        return ours(*args, **kwargs)

    # Elements --------------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> ndarray:
        from . import indexing

        return indexing.get(self, index)

    def __setitem__(self, index: Any, values: Any) -> None:
        from . import indexing

        indexing.set(self, index, values)


    def __copy__(self) -> ndarray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> ndarray:
        with self.device:
            return self.copy()



class Flags:
    """``flags`` of an array."""

    def __init__(self, c: bool, f: bool, own: bool):
        self.c_contiguous, self.f_contiguous, self.owndata = c, f, own
        self.forc = c or f
        self.fnc = f and not c

    def __getitem__(self, name: str) -> bool:
        try:
            return {"C_CONTIGUOUS": self.c_contiguous, "F_CONTIGUOUS": self.f_contiguous, "OWNDATA": self.owndata}[name]
        except KeyError:
            raise KeyError(f"{name} is not defined for cupy.ndarray.flags") from None


def _rebuilt(values: Any) -> ndarray:
    from .creation import array

    return array(values)


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return ndarray(shape, dtype, order="C" if order in ("C", "K", "A") else order)


def empty_like_result(values: np.ndarray, keeps_order: bool = False) -> ndarray:
    """New memory for what NumPy has computed, in C or in Fortran order; laid out alike where CuPy keeps the order of dimensions."""
    if keeps_order and values.ndim and min(values.strides) > 0:
        return ndarray(values.shape, values.dtype, strides=values.strides)
    order = "F" if values.flags.f_contiguous and not values.flags.c_contiguous else "C"
    return ndarray(values.shape, values.dtype, order=order)


def unwrapped(value: Any, found: list[ndarray], name: str) -> Any:
    """NumPy's arrays in place of ours, which are collected.

    Raises
    ------
    TypeError
        For NumPy's arrays, as CuPy does.
    """
    kind = type(value)
    if kind is ndarray:
        found.append(value)
        return value._a
    if kind is tuple:
        return tuple([unwrapped(each, found, name) for each in value])
    if kind is list:
        return [unwrapped(each, found, name) for each in value]
    if kind is np.ndarray:
        raise TypeError(f"Unsupported type <class 'numpy.ndarray'> [{name}]")
    return value


@functools.cache
def is_bfloat16(dtype: Any) -> bool:
    return dtype == np.dtype(ml_dtypes.bfloat16)
