"""The CUDA world: CuPy's functions, with those replaced that our own kernels or NVIDIA's libraries do better."""

from __future__ import annotations

from typing import Any

import cupy
import cupyx
import numpy

from ..device import device
from ..namespace import NAMESPACES, Namespace, move
from .kernels import CUDA_KERNELS

__all__ = ["CUDA", "cuda", "device_count"]


def _with_our_arguments(reduction: Any) -> Any:
    """A reduction with the arguments in the CPU world's order, whose frequent ones come first."""

    def reduce(a: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        return reduction(a, axis=axis, keepdims=keepdims, **options)

    return reduce


class CUDA(Namespace):
    """CuPy and the kernels."""

    def __init__(self) -> None:
        super().__init__("cuda", cupy)
        for name in ("sum", "mean", "max", "min", "prod"):
            setattr(self, name, _with_our_arguments(getattr(cupy, name)))
        self.__dict__.update(CUDA_KERNELS)

    def array(self, data: Any, dtype: Any = None) -> Any:
        """A new array with a copy of the data."""
        return cupy.array(data, dtype=dtype)

    def scalar(self, value: Any, dtype: Any) -> Any:
        """A NumPy scalar, which CuPy passes to its kernels by value."""
        return numpy.asarray(value).astype(dtype)[()]

    def on(self, where: device) -> Any:
        """Make arrays on a device, in a with-block."""
        return cupy.cuda.Device(where.index)

    def eye_of(self, shape: tuple[int, int], dtype: Any) -> Any:
        return cupy.eye(*shape, dtype=dtype)

    def astype(self, a: Any, dtype: Any) -> Any:
        return a.astype(dtype)

    def from_host(self, array: Any, index: int | None = None) -> Any:
        """A copy of a NumPy or CuPy array on a device."""
        with cupy.cuda.Device(index):
            return cupy.array(array)

    def pinned(self, array: Any) -> Any:
        """A copy of a NumPy array in page-locked memory, from which `from_host` copies faster."""
        copy = cupyx.empty_pinned(array.shape, array.dtype)
        copy[...] = array
        return copy

    def to_host(self, array: Any) -> Any:
        return cupy.asnumpy(array)

    def move(self, a: Any, target: device) -> Any:
        """A copy of an array of this world on another device."""
        return move(self, a, target)

    def device_of(self, array: Any) -> device:
        return device("cuda", array.device.id)

    def check_device(self, requested: device) -> device:
        count = device_count()
        if not count:
            raise RuntimeError(f"device '{requested}': CuPy {cupy.__version__} is here, but it finds no CUDA device, or no driver for one")
        index = cupy.cuda.runtime.getDevice() if requested.index is None else requested.index
        if index >= count:
            raise RuntimeError(f"there are {count} CUDA devices here; '{requested}' is not one of them")
        return device("cuda", index)

    def shares_memory(self, a: Any, b: Any) -> bool:
        return bool(cupy.may_share_memory(a, b))

    def as_strided(self, a: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> Any:
        """A view with any shape and strides (bytes, offset too) on the array's memory."""
        base = a
        while base.base is not None:
            base = base.base
        return cupy.ndarray(shape, a.dtype, memptr=base.data + offset, strides=strides)

    def restride(self, a: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, dtype: Any = None) -> Any:
        """A view of the memory around an array: any shape, strides and offset from its first element (in bytes), any dtype."""
        return cupy.ndarray(shape, a.dtype if dtype is None else dtype, memptr=a.data + offset, strides=strides)

    def storage_of(self, a: Any) -> tuple[int, int]:
        """Address and bytes of the whole block of memory that an array is a view of."""
        base = a
        while base.base is not None:
            base = base.base
        return base.data.ptr, base.nbytes

    def address_of(self, a: Any) -> int:
        """The address of the first element."""
        return a.data.ptr

    def random(self, seed: int) -> Any:
        """A counter-based bit stream (Salmon et al., SC 2011)."""
        return cupy.random.Generator(cupy.random.Philox4x3210(seed))

    def add_at(self, a: Any, index: Any, values: Any, how: str = "add") -> None:
        """``a[index] += values`` with repeated indices added up; or multiply, maximum, minimum."""
        if how != "multiply" and a.dtype.kind != "V":
            getattr(cupy, how).at(a, index, values)
            return
        # CuPy has no other: the n-th values of all places are put together, for n = 0, 1, ...
        places = cupy.arange(a.size).reshape(a.shape)[index]
        values = cupy.broadcast_to(cupy.asarray(values, a.dtype), places.shape).ravel()
        order = cupy.argsort(places.ravel(), kind="stable")
        ordered = places.ravel()[order]
        first = cupy.concatenate([cupy.ones(1, bool), ordered[1:] != ordered[:-1]])[: ordered.size]
        turn = cupy.arange(ordered.size) - cupy.nonzero(first)[0][cupy.cumsum(first) - 1]
        result = cupy.ascontiguousarray(a).ravel()
        for n in range(int(turn.max()) + 1 if ordered.size else 0):
            now = turn == n
            result[ordered[now]] = getattr(cupy, how)(result[ordered[now]], values[order[now]])
        a[...] = result.reshape(a.shape)

    def synchronize(self) -> None:
        cupy.cuda.get_current_stream().synchronize()


def device_count() -> int:
    """CUDA devices that this process may use; 0 without a driver."""
    try:
        return cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        return 0


cuda = CUDA()
NAMESPACES[cupy.ndarray] = cuda
