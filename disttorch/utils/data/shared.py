"""Anonymous shared memory that carries one object at a time between a loader and its workers.

The memory is a memfd: it has no name, so nothing is left behind when processes are killed, and it is not limited by
the size of /dev/shm, which containers keep small. Arrays are written to it as they are and used where they lie; only
the pickle of what is around them is read.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
from collections.abc import Iterable
from typing import Any
from weakref import ref

from ...autograd.variable import Tensor, wrap
from ...backend import cpu
from ...backend.dtypes import DTYPES, as_dtype, uint8
from ...backend.layout import is_dense, order_in_memory

__all__ = ["Segment"]

_ALIGNMENT = 64  # a cache line, and the widest vector register


class Segment:
    """A piece of shared memory.

    Parameters
    ----------
    descriptor : int, optional
        Of another process's segment, inherited; otherwise the memory is new.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = os.memfd_create("disttorch-batch", os.MFD_CLOEXEC) if descriptor is None else descriptor
        self._memory: mmap.mmap | None = None
        self._root: ref[Any] | None = None

    @property
    def held(self) -> bool:
        """Whether arrays that `read` gave are still there."""
        return self._root is not None and self._root() is not None

    def write(self, obj: Any) -> tuple[int, int]:
        """Write an object; returns where the description for `read` begins, and its length.

        Raises
        ------
        OSError
            If there is no memory left.
        """
        buffers: list[pickle.PickleBuffer] = []
        file = io.BytesIO()
        _Pickler(file, 5, buffer_callback=buffers.append).dump(obj)
        spans, end = [], 0
        for buffer in buffers:
            raw = buffer.raw()
            spans.append((end, raw.nbytes))
            self._put(raw, end)
            end += -(-raw.nbytes // _ALIGNMENT) * _ALIGNMENT
        description = pickle.dumps((spans, file.getvalue()))
        self._put(description, end)
        return end, len(description)

    def write_plain(self, obj: Any) -> tuple[int, int]:
        """Write an object for `receive`, with its arrays in the pickle."""
        description = pickle.dumps(([], pickle.dumps(obj)))
        self._put(description, 0)
        return 0, len(description)

    def read(self, begin: int, length: int, copy: bool = False) -> Any:
        """The object that was written, with its arrays on the shared memory, or on their own."""
        if self._memory is None or len(self._memory) < begin + length:
            # the old mapping stays as long as arrays use it
            size = os.fstat(self.descriptor).st_size
            self._memory = mmap.mmap(self.descriptor, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        spans, data = pickle.loads(self._memory[begin : begin + length])
        if not spans:
            return pickle.loads(data)
        root = cpu.ndarray((begin,), uint8.numpy, buffer=self._memory)
        parts: Iterable[Any] = (root[start : start + size] for start, size in spans)
        if copy:
            parts = [part.copy() for part in parts]
        else:
            # Whoever uses the memory has `root` behind it: NumPy's views, memoryviews and DLPack keep what they are of.
            self._root = ref(root)
        return pickle.loads(data, buffers=parts)

    def receive(self, begin: int, length: int) -> Any:
        """The object that was written, without mapping the memory; it has no arrays, or was written by `write_plain`."""
        return pickle.loads(pickle.loads(os.pread(self.descriptor, length, begin))[1])

    def close(self) -> None:
        """Give the memory back; arrays on it keep their part."""
        os.close(self.descriptor)
        self._memory = None

    def _put(self, data: bytes | memoryview, offset: int) -> None:
        # not through a mapping: with no memory left that would be a bus error, and this is an OSError
        view = memoryview(data)
        while view.nbytes:
            written = os.pwrite(self.descriptor, view, offset)
            view, offset = view[written:], offset + written


class _Pickler(pickle.Pickler):
    """Pickles arrays of our dtypes as buffers beside the pickle; NumPy alone would copy bfloat16 and views into it."""

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is Tensor and obj._node is None and type(obj._array) is cpu.ndarray:
            return wrap, (obj._array,)
        if kind is cpu.ndarray and obj.dtype in DTYPES:
            order = None
            if not obj.flags.c_contiguous and is_dense(obj):
                order = order_in_memory(obj)
                obj = obj.transpose(order)
            flat = cpu.ascontiguousarray(obj).reshape(-1).view(uint8.numpy)
            return _array, (pickle.PickleBuffer(flat), DTYPES[obj.dtype].name, obj.shape, order)
        return NotImplemented


def _array(buffer: Any, dtype: str, shape: tuple[int, ...], order: list[int] | None = None) -> Any:
    array = cpu.ndarray(shape, as_dtype(dtype).numpy, buffer=buffer)
    return array if order is None else array.transpose([order.index(d) for d in range(len(order))])
