"""The CUDA world: CuPy's functions, with those replaced that our own kernels or NVIDIA's libraries do better."""

from __future__ import annotations

from typing import Any

import cupy
import numpy

from .. import in_use
from ..device import device
from ..layout import FOLLOWING, along_axes, following
from ..namespace import NAMESPACES, Namespace, move
from . import capturing, memory, transfers
from .cudnn import CUDNN_KERNELS
from .functions import FUNCTIONS
from .fused import FUSED_KERNELS
from .kernels import CUDA_KERNELS
from .kernels.random import Philox
from .kernels.scatter import accumulate_at
from .layouts import Elementwise, in_one_order
from .linalg import LINALG
from .products import CUDA_PRODUCTS

__all__ = ["CUDA", "cuda", "device_count"]


#: Functions of ours that are elementwise, and kernels of the table that are.
ELEMENTWISE = """
    clip floor_divide fmod nan_to_num remainder where
    elu elu_backward frac gelu gelu_backward hardsigmoid hardsigmoid_backward hardswish hardswish_backward leaky_relu leaky_relu_backward
    logsigmoid mish mish_backward relu sigmoid silu silu_backward softplus softplus_backward where_kept
""".split()


class CUDA(Namespace):
    """CuPy and the kernels."""

    def __init__(self) -> None:
        super().__init__("cuda", cupy)
        self.__dict__.update({name: Elementwise(f) for name, f in vars(self).items() if isinstance(f, cupy.ufunc)})
        self.__dict__.update(FUNCTIONS)
        self.__dict__.update(CUDA_KERNELS)
        self.__dict__.update(CUDNN_KERNELS)
        self.__dict__.update(CUDA_PRODUCTS)
        self.__dict__.update(FUSED_KERNELS)
        self.__dict__.update({name: in_one_order(self.__dict__[name]) for name in ELEMENTWISE})
        self.__dict__.update({name: following(self.__dict__[name], deciding, self.empty_strided) for name, deciding in FOLLOWING.items()})
        self.resample = along_axes(self.__dict__["resample"])
        self.linalg = LINALG
        self.from_dlpack = transfers.from_dlpack

    def array(self, data: Any, dtype: Any = None) -> Any:
        """A new array with a copy of the data."""
        return cupy.array(data, dtype=dtype)

    def scalar(self, value: Any, dtype: Any) -> Any:
        """A NumPy scalar, which CuPy passes to its kernels by value."""
        return numpy.asarray(value).astype(dtype)[()]

    def on(self, where: device) -> Any:
        """Make arrays on a device, in a with-block."""
        in_use.arrays_on(where.index)
        return cupy.cuda.Device(where.index)

    def eye_of(self, shape: tuple[int, int], dtype: Any) -> Any:
        return cupy.eye(*shape, dtype=dtype)

    def astype(self, a: Any, dtype: Any) -> Any:
        return a.astype(dtype)

    from_host = staticmethod(transfers.from_host)
    to_host = staticmethod(transfers.to_host)
    into_device = staticmethod(transfers.into_device)
    into_host = staticmethod(transfers.into_host)
    pinned = staticmethod(transfers.pinned)
    is_pinned = staticmethod(transfers.is_pinned)
    record_stream = staticmethod(memory.record_stream)
    is_capturing = staticmethod(capturing.in_this_thread)

    def move(self, a: Any, target: device, non_blocking: bool = False) -> Any:
        """A copy of an array of this world on another device."""
        return move(self, a, target, non_blocking)

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
        return cupy.ndarray(shape, a.dtype, memptr=cupy.cuda.MemoryPointer(a.data.mem, offset), strides=strides)

    def empty_strided(self, shape: tuple[int, ...], dtype: Any, strides: tuple[int, ...]) -> Any:
        """A new array with the strides, in bytes, of a dense one."""
        return cupy.ndarray(shape, dtype, memptr=cupy.empty(shape, dtype).data, strides=strides)

    def restride(self, a: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, dtype: Any = None) -> Any:
        """A view of the memory around an array: any shape, strides and offset from its first element (in bytes), any dtype."""
        return cupy.ndarray(shape, a.dtype if dtype is None else dtype, memptr=a.data + offset, strides=strides)

    def storage_of(self, a: Any) -> tuple[int, int]:
        """Address and bytes of the whole block of memory that an array is a view of."""
        return a.data.mem.ptr, a.data.mem.size

    def memory_id(self, a: Any) -> int:
        """What all views of one memory have in common; an array made on another's memory has no base."""
        return id(a.data.mem)

    def address_of(self, a: Any) -> int:
        """The address of the first element."""
        return a.data.ptr

    def random(self, seed: int) -> Any:
        """A counter-based bit stream (Salmon et al., SC 2011)."""
        return Philox(seed)

    add_at = staticmethod(accumulate_at)

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
