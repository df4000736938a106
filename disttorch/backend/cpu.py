"""The CPU world: NumPy's functions, with those replaced that are slow or imprecise in NumPy."""

from __future__ import annotations

import functools
import math
import mmap
import os
from contextlib import nullcontext
from typing import Any

import numpy

from .cpu_kernels import CPU_KERNELS
from .cpu_kernels.indexing import accumulate_at
from .cpu_kernels.layouts import empty_strided
from .cpu_kernels.selecting import where
from .device import device
from .dtypes import DTYPES, HALF
from .memory import keep_freed_memory
from .namespace import NAMESPACES, Namespace, move
from .shared_memory import for_pickle, is_shared, shared

__all__ = ["cpu"]

# PyTorch computes 1/0, log(0) and overflows silently, and so do we: NumPy's warnings would name our lines, not the
# user's, and looking at the flags for each operation (numpy.errstate) costs three times a small addition.
# To look for NaN and infinity there is autograd.detect_anomaly, which names the operation.
numpy.seterr(all="ignore")
keep_freed_memory()

DEVICE = device("cpu")
FLOAT32, FLOAT64 = numpy.dtype(numpy.float32), numpy.dtype(numpy.float64)


def _half_in_float32(function: Any) -> Any:
    """Half-precision input computed in float32 and rounded once, where NumPy would round after every addition."""

    def wrapped(a: Any, *args: Any, **kwargs: Any) -> Any:
        if a.dtype in HALF and kwargs.get("dtype") is None:
            return function(a.astype(FLOAT32), *args, **kwargs).astype(a.dtype)
        return function(a, *args, **kwargs)

    return wrapped


# The functions of the numpy module that are written in Python take as long as their work on a small array does.
# What they call in the end is called directly.
_add_reduce: Any = numpy.add.reduce
_empty = numpy.empty


#: Elements from which on float32 is summed by products with ones, in a third of the time of numpy.add.reduce; and elements of a row
#: of such a product, which keep its rounding as small: it adds one row in 16 parts side by side, or more.
_MANY, _ROW = 16384, 1024


@functools.lru_cache(maxsize=64)
def _ones(n: int) -> Any:
    return numpy.ones(n, FLOAT32)


def _sum_of_all(a: Any, keepdims: bool) -> Any:
    """In rows, then over the rows and what is left."""
    flat = a.reshape(-1)
    whole = flat.size // _ROW * _ROW
    parts = numpy.concatenate((flat[:whole].reshape(-1, _ROW).dot(_ones(_ROW)), flat[whole:]))
    return _add_reduce(parts, None, None, _empty((), FLOAT32)).reshape((1,) * (a.ndim * keepdims))


def _sum(a: Any, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> Any:
    d = a.dtype
    if a.size >= _MANY and d is FLOAT32 and dtype is None and a.flags.c_contiguous:
        if axis is None:
            return _sum_of_all(a, keepdims)
        places = sorted([i % a.ndim for i in (axis if axis.__class__ is tuple else (axis,))])
        kept = a.shape[: a.ndim - len(places)]
        length = math.prod(a.shape[len(kept) :])
        if 64 <= length <= 4 * _ROW and places == list(range(len(kept), a.ndim)):  # the last dimensions: rows in memory
            return a.reshape(-1, length).dot(_ones(length)).reshape(kept + (1,) * (len(places) * keepdims))
    if axis is None and not keepdims and dtype is None and (d is FLOAT32 or d is FLOAT64):
        return _add_reduce(a, None, None, _empty((), d))  # not a scalar, which would have to be wrapped again
    if dtype is None and d in HALF:
        return _add_reduce(a, axis, FLOAT32, keepdims=keepdims).astype(a.dtype)
    if keepdims or dtype is not None:
        return _add_reduce(a, axis, dtype, keepdims=keepdims)
    return _add_reduce(a, axis)


def _reshape(a: Any, shape: Any) -> Any:
    return a.reshape(shape)


def _transpose(a: Any, axes: Any = None) -> Any:
    return a.transpose(axes)


def _swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    return a.swapaxes(axis1, axis2)


def _broadcast_to(a: Any, shape: tuple[int, ...]) -> Any:
    if a.__class__ is not numpy.ndarray or (a.ndim and not (a.flags.c_contiguous and a.size)):
        return numpy.broadcast_to(a, shape)
    if a.ndim:  # numpy.broadcast_to takes eight times as long
        extra = len(shape) - a.ndim
        old = a.shape
        if extra < 0 or any(n != m and n != 1 for n, m in zip(old, shape[extra:])):
            return numpy.broadcast_to(a, shape)  # which says what is wrong
        steps = [0 if n == 1 != m else s for n, m, s in zip(old, shape[extra:], a.strides)]
        return _strided(a, tuple(shape), (0,) * extra + tuple(steps))
    return _strided(a, shape, (0,) * len(shape))


def _strided(a: Any, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    view = numpy.ndarray(shape, a.dtype, a, 0, strides)
    view.flags.writeable = False
    return view


def _prod(a: Any, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> Any:
    return numpy.multiply.reduce(a, axis, dtype, None, keepdims)  # type: ignore[call-overload]


def _max(a: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return numpy.maximum.reduce(a, axis, None, None, keepdims)  # type: ignore[call-overload]


def _min(a: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return numpy.minimum.reduce(a, axis, None, None, keepdims)  # type: ignore[call-overload]


def _mean(a: Any, axis: Any = None, keepdims: bool = False) -> Any:
    if a.dtype in HALF:
        return _mean(a.astype(FLOAT32), axis, keepdims).astype(a.dtype)
    total = _sum(a, axis, keepdims)
    return total / (a.size // total.size if total.size else 1)


def _matmul(a: Any, b: Any) -> Any:
    if a.ndim == b.ndim == 2 and a.dtype not in HALF:
        return a.dot(b)  # the same product, by a shorter way
    if a.dtype in HALF:
        return numpy.matmul(a.astype(FLOAT32), b.astype(FLOAT32)).astype(a.dtype)
    if a.ndim > 2 and b.ndim == 2 and a.flags.c_contiguous and a.size:
        # one large product instead of a small one for every leading index
        return numpy.matmul(a.reshape(-1, a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[1])
    return numpy.matmul(a, b)


def _linear(x: Any, weight: Any, bias: Any) -> Any:
    if bias is None:
        return _matmul(x, weight.T)
    if x.dtype in HALF:  # rounded once, at the end
        return _linear(x.astype(FLOAT32), weight.astype(FLOAT32), bias).astype(x.dtype)
    product = _matmul(x, weight.T)
    product += bias
    return product


def _power(a: Any, b: Any) -> Any:
    # numpy.power of float32 takes 50 ns an element whatever the exponent; small integers are products
    if getattr(b, "ndim", 0) == 0 and a.dtype.kind == "f":
        exponent = float(b)
        if exponent == 2:
            return numpy.multiply(a, a)
        if exponent == 3:
            return a * a * a
        if exponent == 0.5:
            return numpy.sqrt(a)
        if exponent == -1:
            return numpy.reciprocal(a)
    return numpy.power(a, b)


def _cumsum(a: Any, axis: Any = None, dtype: Any = None) -> Any:
    if axis is None or dtype is not None or a.dtype.kind != "f" or a.dtype in HALF or a.size < _MANY:
        return numpy.cumsum(a, axis, dtype)
    axis = axis % a.ndim
    if a.size < 256 * a.shape[axis] or axis == a.ndim - 1:
        return numpy.cumsum(a, axis, dtype)
    out = _empty(a.shape, a.dtype)  # whole slices added to the last take half the time of one column after the other
    source, sums = numpy.moveaxis(a, axis, 0), numpy.moveaxis(out, axis, 0)
    sums[0] = source[0]
    for before, there, after in zip(sums, source[1:], sums[1:]):
        numpy.add(before, there, out=after)
    return out


def _diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    # NumPy's is read-only, for no need of ours
    view = numpy.diagonal(a, offset, axis1, axis2)
    view.flags.writeable = a.flags.writeable
    return view


_INFINITY = {d: numpy.array(numpy.inf, d) for d in (FLOAT32, FLOAT64)}


def _relu(a: Any) -> Any:
    if a.size > 4096 and a.dtype in _INFINITY:  # numpy.maximum with a number takes three times as long
        return numpy.clip(a, cpu.scalar(0, a.dtype), _INFINITY[a.dtype])
    return numpy.maximum(a, cpu.scalar(0, a.dtype))


class CPU(Namespace):
    """NumPy, our faster functions, and the kernels."""

    def __init__(self) -> None:
        super().__init__("cpu", numpy)
        self.sum, self.prod, self.mean = _sum, _half_in_float32(_prod), _mean
        self.reshape, self.transpose, self.swapaxes, self.broadcast_to = _reshape, _transpose, _swapaxes, _broadcast_to
        self.max, self.min, self.matmul, self.power = _max, _min, _matmul, _power
        self.relu, self.linear, self.diagonal, self.where = _relu, _linear, _diagonal, where
        self.cumsum, self.cumprod = _half_in_float32(_cumsum), _half_in_float32(numpy.cumprod)
        self.clip = _half_in_float32(numpy.clip)  # which has none for bfloat16
        self.__dict__.update(CPU_KERNELS)
        self.scalars: dict[tuple, Any] = {}

    def array(self, data: Any, dtype: Any = None) -> Any:
        """A new array with a copy of the data."""
        return numpy.array(data, dtype=dtype)

    def scalar(self, value: Any, dtype: Any) -> Any:
        """An array without dimensions. Kept for the next time: NumPy takes longer to convert a number than to use it."""
        if value == 0:  # +0.0 and -0.0 would be the same key
            return numpy.asarray(value).astype(dtype)
        try:
            return self.scalars[value, dtype]
        except KeyError:
            if value != value:  # NaN would not be found again
                return numpy.asarray(value).astype(dtype)
            if len(self.scalars) >= 4096:
                self.scalars.clear()
            array = self.scalars[value, dtype] = numpy.asarray(value).astype(dtype)
            array.flags.writeable = False  # a change in place would be one of all who ask for this number
            return array

    def on(self, where: device) -> Any:
        """Make arrays on a device, in a with-block."""
        return nullcontext()

    def eye_of(self, shape: tuple[int, int], dtype: Any) -> Any:
        return numpy.eye(*shape, dtype=dtype)

    def astype(self, a: Any, dtype: Any) -> Any:
        return a.astype(dtype)

    def from_host(self, array: Any, index: int | None = None) -> Any:
        return array

    def to_host(self, array: Any, non_blocking: bool = False) -> Any:
        return array

    def move(self, a: Any, target: device, non_blocking: bool = False) -> Any:
        """A copy of an array of this world on another device."""
        return move(self, a, target, non_blocking)

    def device_of(self, array: Any) -> device:
        return DEVICE

    def check_device(self, requested: device) -> device:
        if requested.index:
            raise RuntimeError(f"there is one CPU device, 'cpu'; got '{requested}'")
        return DEVICE

    def shares_memory(self, a: Any, b: Any) -> bool:
        """Whether the memory ranges of two arrays overlap: cheap, and exact for an array and a view of it."""
        return numpy.may_share_memory(a, b)

    def as_strided(self, a: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> Any:
        """A view with any shape and strides (bytes, offset too) on the array's memory."""
        return numpy.ndarray(shape, a.dtype, buffer=memory_of(a), offset=offset, strides=strides)

    def empty_strided(self, shape: tuple[int, ...], dtype: Any, strides: tuple[int, ...]) -> Any:
        """A new array with the strides, in bytes, of a dense one."""
        return empty_strided(shape, dtype, strides)

    def restride(self, a: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, dtype: Any = None) -> Any:
        """A view of the memory around an array: any shape, strides and offset from its first element (in bytes), any dtype."""
        if offset >= 0 and a.flags.c_contiguous and a.size:
            try:  # most often the view stays within the array
                return numpy.ndarray(shape, dtype or a.dtype, a, offset, strides)
            except (ValueError, TypeError):
                pass
        block = block_of(memory_of(a))
        return numpy.ndarray(shape, dtype or a.dtype, block, address_of(a) - address_of(block) + offset, strides)

    def storage_of(self, a: Any) -> tuple[int, int]:
        """Address and bytes of the whole block of memory that an array is a view of."""
        block = block_of(memory_of(a))
        return address_of(block), block.nbytes

    def address_of(self, a: Any) -> int:
        """The address of the first element."""
        return address_of(a)

    def shared(self, arrays: Any) -> Any:
        """Copies of arrays in memory that processes share."""
        return shared(arrays)

    def is_shared(self, a: Any) -> bool:
        """Whether an array lies in such memory."""
        return is_shared(memory_of(a))

    def mapped_file(self, path: Any, shared: bool, nbytes: int) -> Any:
        """The first bytes of a file as an array; what is written to it reaches the file only if `shared`."""
        with open(path, "r+b" if shared else "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < nbytes and shared:
                os.ftruncate(file.fileno(), nbytes)
            elif size < nbytes:
                raise RuntimeError(f"mmapping file {os.fsdecode(path)!r} failed: it has {size} bytes, and {nbytes} are asked for")
            if not nbytes:
                return numpy.empty(0, numpy.uint8)
            block = mmap.mmap(file.fileno(), nbytes, access=mmap.ACCESS_WRITE if shared else mmap.ACCESS_COPY)
        return numpy.frombuffer(block, numpy.uint8)

    def for_pickle(self, a: Any) -> Any:
        """What stands for an array in a pickle, where one in such memory is not to be copied to another process."""
        return for_pickle(a)

    def random(self, seed: int) -> Any:
        """A counter-based bit stream, the same on every platform (Salmon et al., SC 2011)."""
        return numpy.random.Generator(numpy.random.Philox(seed))

    def seed_library(self, seed: int) -> None:
        """Start NumPy's own global stream, from which users' code may draw, from a seed of 64 bits."""
        numpy.random.seed([seed & 0xFFFFFFFF, seed >> 32])  # noqa: NPY002 - it is that stream that is meant

    def library_state(self) -> tuple[bytes, int, int, float]:
        """Where NumPy's own global stream is."""
        state: Any = numpy.random.get_state()  # noqa: NPY002
        _, key, position, has_gauss, gauss = state
        return key.tobytes(), int(position), int(has_gauss), float(gauss)

    def set_library_state(self, state: tuple[bytes, int, int, float]) -> None:
        """Let it go on from there."""
        key, position, has_gauss, gauss = state
        numpy.random.set_state(("MT19937", numpy.frombuffer(key, numpy.uint32), position, has_gauss, gauss))  # noqa: NPY002

    def add_at(self, a: Any, index: Any, values: Any, how: str = "add") -> None:
        """``a[index] += values`` with repeated indices added up; or multiply, maximum, minimum."""
        accumulate_at(a, index, values, how)

    def is_capturing(self) -> bool:
        """Whether what is done now is recorded, to be done later."""
        return False

    def synchronize(self) -> None:
        """NumPy has finished when it returns."""


def memory_of(a: Any) -> Any:
    """The whole block of memory that an array is a view of."""
    while isinstance(a.base, numpy.ndarray):
        a = a.base
    return a


def address_of(a: Any) -> int:
    """The address of an array's first element."""
    return a.__array_interface__["data"][0]


def block_of(root: Any) -> Any:
    """A block of memory, which belongs to an array, as an array in C order, which can be viewed in any way."""
    if not root.flags.c_contiguous:
        turned = root.transpose(sorted(range(root.ndim), key=lambda i: -root.strides[i]))
        if turned.flags.c_contiguous:
            root = turned
        else:  # another library's, with gaps: its bytes from the first element to the last
            extent = root.itemsize + sum((n - 1) * stride for n, stride in zip(root.shape, root.strides))
            first = root[(slice(0, 1),) * root.ndim].reshape(1).view(numpy.uint8)
            return numpy.lib.stride_tricks.as_strided(first, (extent if root.size else 0,), (1,), writeable=root.flags.writeable)
    # arrays of bfloat16 do not lend their memory to others under their own dtype
    return root.reshape(-1).view(numpy.uint8)


cpu = CPU()
for _type in [numpy.ndarray, *(d.type for d in DTYPES)]:
    # NumPy's operations return scalars where an array without dimensions is meant
    NAMESPACES[_type] = cpu
