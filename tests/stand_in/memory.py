"""Memory of the device and pinned memory of the host, and CuPy's pools over them.

Memory is NumPy's, filled with 0xFF before it is handed out first, which is NaN for floats. A freed block goes to the free blocks of the
stream that was current when it was allocated, as in CuPy, with the uses that it has seen: whoever gets it next must come behind them.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import devices
from .driver import open_captures, unsafe
from .order import Region, lock, region_at, regions, state
from .streams import CUDARuntimeError, current, later, line_of, lines, submit

__all__ = [
    "BaseMemory", "Memory", "MemoryHook", "MemoryPointer", "MemoryPool", "OutOfMemoryError", "PinnedMemory", "PinnedMemoryPointer",
    "PinnedMemoryPool", "PooledMemory", "UnownedMemory", "alloc", "alloc_pinned_memory", "empty_pinned", "free_and_total",
    "get_allocator", "lose_abandoned", "refuse_capture", "set_allocator", "set_pinned_memory_allocator", "using_allocator", "zeros_pinned",
]  # fmt: skip

UNIT = 512
"""All blocks begin at multiples of it, and are multiples of it long."""
_local = threading.local()
_owners = itertools.count(1)
taken_in_captures: set[int] = set()
"""Owners that got their memory while a graph was captured: it is a graph's, and those that share a pool use it one after the other."""
held_bytes: dict[int, int] = defaultdict(int)
"""What each device has handed out."""


class OutOfMemoryError(MemoryError):
    def __init__(self, size: int, total: int, limit: int = 0):
        self._size, self._total, self._limit = size, total, limit
        limited = f" (limit set to: {limit:,} bytes)" if limit else ""
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes{limited}).")

    def __reduce__(self) -> Any:
        return type(self), (self._size, self._total, self._limit)


def free_and_total(device: int) -> tuple[int, int]:
    total = devices.total_memory.get(device, devices.DEFAULT_MEMORY)
    return total - held_bytes[device], total


class BaseMemory:
    """``cupy.cuda.BaseMemory``: what an address points into."""

    __slots__ = ("device_id", "ptr", "region", "size")

    ptr: int
    size: int
    device_id: int
    region: Region | None

    @property
    def device(self) -> devices.Device:
        return devices.Device(self.device_id)

    def __int__(self) -> int:
        return self.ptr


def _aligned(size: int) -> Any:
    block = np.full(size + UNIT, 0xFF, np.uint8)
    return block[-block.ctypes.data % UNIT :][:size]


class Memory(BaseMemory):
    """Memory that the driver hands out, and gets back when the object goes."""

    __slots__ = ()

    def __init__(self, size: int):
        self.size, self.device_id, self.region, self.ptr = size, devices.current(), None, 0
        if not size:
            return
        unsafe("cudaMalloc")
        with lock:
            if size > free_and_total(self.device_id)[0]:
                raise OutOfMemoryError(size, 0)
            held_bytes[self.device_id] += size
            self.region = Region(_aligned(size), self.device_id)
            self.region.owner = next(_owners)
            self.ptr = self.region.pointer
            regions.add(self.region)

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        region = getattr(self, "region", None)
        if region is not None and not ending():
            with lock:
                try:
                    unsafe("cudaFree")
                except CUDARuntimeError as error:
                    state.failures.append(str(error))
                held_bytes[self.device_id] -= self.size
                region.alive = False
                regions.remove(region)


class UnownedMemory(BaseMemory):
    """Memory that somebody else keeps."""

    __slots__ = ("_owner",)

    def __init__(self, ptr: int, size: int, owner: Any, device_id: int = -1):
        self.ptr, self.size, self._owner = ptr, size, owner
        self.region = region_at(ptr, "UnownedMemory") if size and ptr else None
        self.device_id = device_id if device_id >= 0 else self.region.device if self.region else devices.current()


class MemoryPointer:
    """``cupy.cuda.MemoryPointer``: a place in a memory."""

    __slots__ = ("mem", "ptr")

    def __init__(self, mem: BaseMemory, offset: int):
        self.mem = mem
        self.ptr = mem.ptr + offset

    @property
    def device_id(self) -> int:
        return self.mem.device_id

    @property
    def device(self) -> devices.Device:
        return self.mem.device

    def __int__(self) -> int:
        return self.ptr

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self.ptr - self.mem.ptr + offset)

    __radd__ = __add__

    def __sub__(self, offset: int) -> MemoryPointer:
        return self + -offset

    def copy_from_device(self, src: MemoryPointer, size: int) -> None:
        refuse_capture(None, "synchronous API calls")
        copy_async(self.ptr, src.ptr, size, None, "copy_from_device")

    def copy_from_device_async(self, src: MemoryPointer, size: int, stream: Any = None) -> None:
        copy_async(self.ptr, src.ptr, size, stream, "copy_from_device_async")

    def copy_from_host_async(self, mem: Any, size: int, stream: Any = None) -> None:
        refuse_capture(stream, "H2D transfers")
        copy_async(self.ptr, _address(mem), size, stream, "copy_from_host_async")

    def copy_from_host(self, mem: Any, size: int) -> None:
        refuse_capture(None, "synchronous API calls")
        copy_async(self.ptr, _address(mem), size, None, "copy_from_host")
        current_stream_of(None).synchronize()

    def copy_to_host_async(self, mem: Any, size: int, stream: Any = None) -> None:
        refuse_capture(stream, "D2H transfers")
        copy_async(_address(mem), self.ptr, size, stream, "copy_to_host_async")

    def copy_to_host(self, mem: Any, size: int) -> None:
        refuse_capture(None, "synchronous API calls")
        copy_async(_address(mem), self.ptr, size, None, "copy_to_host")
        current_stream_of(None).synchronize()

    def copy_from(self, mem: Any, size: int) -> None:
        if isinstance(mem, MemoryPointer):
            self.copy_from_device(mem, size)
        else:
            self.copy_from_host(mem, size)

    def copy_from_async(self, mem: Any, size: int, stream: Any = None) -> None:
        if isinstance(mem, MemoryPointer):
            self.copy_from_device_async(mem, size, stream)
        else:
            self.copy_from_host_async(mem, size, stream)

    def memset_async(self, value: int, size: int, stream: Any = None) -> None:
        fill_async(self.ptr, value, size, stream)

    def memset(self, value: int, size: int) -> None:
        refuse_capture(None, "synchronous API calls")
        fill_async(self.ptr, value, size, None)


def _address(mem: Any) -> int:
    return int(mem if isinstance(mem, int) else mem.value if isinstance(mem, ctypes.c_void_p) else mem.ptr)


def refuse_capture(stream: Any, what: str) -> None:
    """CuPy's own functions refuse while a graph is captured, also what the driver would take (its memcpyAsync of pinned memory)."""
    if current_stream_of(stream).line.capture is not None:
        raise RuntimeError(f"the current stream is capturing, so {what} are disallowed")


def current_stream_of(stream: Any) -> Any:
    from .streams import get_current_stream

    return get_current_stream() if stream is None else stream


# Pools ---------------------------------------------------------------------------------------------------------------


class MemoryHook:
    """``cupy.cuda.MemoryHook``: told of what pools do within its with-block."""

    name = "MemoryHook"

    def __enter__(self) -> MemoryHook:
        if self.name in hooks():
            raise KeyError(f"memory hook {self.name} already exists")
        hooks()[self.name] = self
        return self

    def __exit__(self, *_: object) -> None:
        del hooks()[self.name]

    def alloc_preprocess(self, **kwargs: Any) -> None:
        """Before memory is got from the driver."""

    def alloc_postprocess(self, **kwargs: Any) -> None:
        """After."""

    def malloc_preprocess(self, **kwargs: Any) -> None:
        """Before a pool hands out a block."""

    def malloc_postprocess(self, **kwargs: Any) -> None:
        """After."""

    def free_preprocess(self, **kwargs: Any) -> None:
        """Before a block goes back to its pool."""

    def free_postprocess(self, **kwargs: Any) -> None:
        """After."""


def hooks() -> dict[str, MemoryHook]:
    if not hasattr(_local, "hooks"):
        _local.hooks = {}
    found: dict[str, MemoryHook] = _local.hooks
    return found


_lent: dict[int, MemoryPointer] = {}


class PooledMemory(BaseMemory):
    """A block of a pool, which goes back when the object goes."""

    __slots__ = ("chunk", "pool", "stream")

    def __init__(self, chunk: MemoryPointer, pool: Any, size: int = 0, stream: int = 0):
        # What is handed out is kept outside: the garbage collector, which finalizes all of a cycle, must not find it through this object
        self.chunk, self.pool, self.stream = next(_owners), pool, stream
        _lent[self.chunk] = chunk
        self.ptr, self.size, self.device_id = chunk.ptr, size, chunk.device_id
        self.region = chunk.mem.region

    def free(self) -> None:
        pool = self.pool()
        number, self.chunk = self.chunk, 0
        chunk = _lent.pop(number, None)
        if chunk is None or not self.size:
            return
        with lock:
            told = {"device_id": self.device_id, "mem_size": self.size, "mem_ptr": self.ptr, "pmem_id": id(self)}
            for hook in list(hooks().values()):
                hook.free_preprocess(**told)
            if self.region is not None:
                self.region.owner = 0
            if pool is not None:
                pool.take_back(self, chunk)
            for hook in list(hooks().values()):
                hook.free_postprocess(**told)

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if getattr(self, "chunk", 0) and not ending():
            try:
                self.free()
            except Exception as error:
                state.failures.append(f"{type(error).__name__}: {error}")


_abandoned: list[Any] = []
"""Free blocks of pools that are gone."""


class MemoryPool:
    """``cupy.cuda.MemoryPool``. A freed block is handed out again for sizes from half of it up.

    A pool that goes with free blocks loses them, as CuPy's does: its free blocks and the arena that lists them hold each other, outside
    of what Python's garbage collector sees. Only `free_all_blocks` gives them back.
    """

    def __init__(self, allocator: Callable[[int], MemoryPointer] | None = None):
        self._allocator = _malloc if allocator is None else allocator
        self._free: dict[tuple[int, int], dict[int, list[MemoryPointer]]] = defaultdict(lambda: defaultdict(list))
        self._used: dict[int, int] = defaultdict(int)
        self._kept: dict[int, int] = defaultdict(int)
        self._limit: dict[int, int] = defaultdict(int)
        weakref.finalize(self, _abandon, self._free)

    def malloc(self, size: int) -> MemoryPointer:
        with lock:
            device, line = devices.current(), current()
            rounded = -(-size // UNIT) * UNIT
            told = list(hooks().values())
            for hook in told:
                hook.malloc_preprocess(device_id=device, size=size, mem_size=rounded)
            chunk, stream = self._chunk(rounded, device, line.pointer), line.pointer
            memory = PooledMemory(chunk, weakref.ref(self), chunk.mem.size if rounded else 0, stream)
            if memory.region is not None:
                memory.region.owner = next(_owners)
                if open_captures:
                    taken_in_captures.add(memory.region.owner)
            self._used[device] += memory.size
            for hook in told:
                hook.malloc_postprocess(device_id=device, size=size, mem_size=rounded, mem_ptr=memory.ptr, pmem_id=id(memory))
            return MemoryPointer(memory, 0)

    def _chunk(self, size: int, device: int, stream: int) -> MemoryPointer:
        if not size:
            return MemoryPointer(Memory(0), 0)
        bins = self._free[device, stream]
        largest = max(size, min(2 * size, size + (1 << 20)))
        fitting = [size] if bins.get(size) else [each for each, chunks in bins.items() if chunks and size <= each <= largest]
        if fitting:
            chunk = bins[min(fitting)].pop()
            self._kept[device] -= chunk.mem.size
            if chunk.mem.region is not None and current().capture is None and not any(line.queue for line in lines(device)):
                chunk.mem.region.bytes[...] = 0xFF  # what was there is nobody's business
            return chunk
        for attempt in ("", "with free blocks given back"):
            limit = self._limit[device]
            if not limit or self.total_bytes() + size <= limit:
                try:
                    return self._fresh(size, device)
                except OutOfMemoryError:
                    pass
            if not attempt:
                self.free_all_blocks()
        raise OutOfMemoryError(size, self.total_bytes(), self._limit[device])

    def _fresh(self, size: int, device: int) -> MemoryPointer:
        for hook in list(hooks().values()):
            hook.alloc_preprocess(device_id=device, mem_size=size)
        chunk = self._allocator(size)
        for hook in list(hooks().values()):
            hook.alloc_postprocess(device_id=device, mem_size=size, mem_ptr=chunk.ptr)
        return chunk

    def take_back(self, memory: PooledMemory, chunk: MemoryPointer) -> None:
        device = memory.device_id
        self._used[device] -= memory.size
        self._kept[device] += memory.size
        self._free[device, memory.stream][memory.size].append(chunk)

    def free_all_blocks(self, stream: Any = None) -> None:
        with lock:
            device = devices.current()
            for key in [key for key in self._free if key[0] == device and (stream is None or key[1] == stream.ptr)]:
                for chunks in self._free.pop(key).values():
                    self._kept[device] -= sum(chunk.mem.size for chunk in chunks)

    free_all_free = free_all_blocks

    def n_free_blocks(self) -> int:
        device = devices.current()
        return sum(len(chunks) for key, bins in self._free.items() if key[0] == device for chunks in bins.values())

    def used_bytes(self) -> int:
        return self._used[devices.current()]

    def free_bytes(self) -> int:
        return self._kept[devices.current()]

    def total_bytes(self) -> int:
        return self.used_bytes() + self.free_bytes()

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        if (size is None) is not (fraction is not None):
            if size is None and fraction is None:
                size = 0
            else:
                raise ValueError("size and fraction cannot be specified at one time")
        if fraction is not None:
            if not 0 <= fraction <= 1:
                raise ValueError(f"memory limit fraction out of range: {fraction:f}")
            size = int(free_and_total(devices.current())[1] * fraction)
        if size is not None and size < 0:
            raise ValueError(f"memory limit size out of range: {size}")
        self._limit[devices.current()] = size or 0

    def get_limit(self) -> int:
        return self._limit[devices.current()]


def _abandon(free: dict[Any, dict[int, list[MemoryPointer]]]) -> None:
    _abandoned.extend(chunk for bins in free.values() for chunks in bins.values() for chunk in chunks)


def lose_abandoned() -> None:
    """Give back what no program can any more."""
    _abandoned.clear()


def _malloc(size: int) -> MemoryPointer:
    return MemoryPointer(Memory(size), 0)


default_pool = MemoryPool()
_allocator: list[Callable[[int], MemoryPointer]] = [default_pool.malloc]


def get_allocator() -> Callable[[int], MemoryPointer]:
    return getattr(_local, "allocator", None) or _allocator[0]


def set_allocator(allocator: Callable[[int], MemoryPointer] | None = None) -> None:
    if getattr(_local, "allocator", None) is not None:
        raise ValueError("Can't change the global allocator inside `using_allocator` context manager.")
    _allocator[0] = _malloc if allocator is None else allocator


@contextmanager
def using_allocator(allocator: Callable[[int], MemoryPointer] | None = None) -> Iterator[None]:
    before = getattr(_local, "allocator", None)
    _local.allocator = _malloc if allocator is None else allocator
    try:
        yield
    finally:
        _local.allocator = before


def alloc(size: int) -> MemoryPointer:
    return get_allocator()(size)


# Pinned memory -------------------------------------------------------------------------------------------------------


pinned: dict[int, int] = {}
"""Addresses and sizes."""


class PinnedMemory:
    """Page-locked memory of the host."""

    def __init__(self, size: int, flags: int = 0):
        unsafe("cudaHostAlloc")
        self.block = np.full(size, 0xFF, np.uint8)
        self.ptr, self.size = self.block.ctypes.data, size
        pinned[self.ptr] = size

    def __int__(self) -> int:
        return self.ptr

    def __del__(self, known: dict[int, int] = pinned) -> None:  # also when the interpreter ends
        if hasattr(self, "ptr"):
            known.pop(self.ptr, None)


def is_pinned(pointer: int) -> bool:
    return any(start <= pointer < start + max(size, 1) for start, size in pinned.items())


class PinnedMemoryPointer:
    """A place in pinned memory; lends its bytes (the buffer protocol), as CuPy's does."""

    def __init__(self, mem: Any, offset: int):
        self.mem, self.ptr = mem, mem.ptr + offset

    def size(self) -> int:
        return self.mem.size - (self.ptr - self.mem.ptr)

    def __int__(self) -> int:
        return self.ptr

    def __add__(self, offset: int) -> PinnedMemoryPointer:
        return PinnedMemoryPointer(self.mem, self.ptr - self.mem.ptr + offset)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"shape": (self.size(),), "typestr": "|u1", "data": (self.ptr, False), "version": 3}


class PinnedMemoryPool:
    """``cupy.cuda.PinnedMemoryPool``: sizes are powers of two, freed blocks are used again at once."""

    def __init__(self, allocator: Callable[[int], PinnedMemoryPointer] | None = None):
        self._allocator = (lambda size: PinnedMemoryPointer(PinnedMemory(size), 0)) if allocator is None else allocator
        self._free: dict[int, list[PinnedMemory]] = defaultdict(list)

    def malloc(self, size: int) -> PinnedMemoryPointer:
        with lock:
            size = 1 << max(size - 1, UNIT - 1).bit_length()
            memory = self._free[size].pop() if self._free[size] else self._allocator(size).mem
            lent = Lent(memory)
            weakref.finalize(lent, self._free[size].append, memory)
            return PinnedMemoryPointer(lent, 0)

    def free_all_blocks(self) -> None:
        self._free.clear()

    def n_free_blocks(self) -> int:
        return sum(map(len, self._free.values()))


class Lent:
    """A block of a pool of pinned memory, while somebody has it."""

    def __init__(self, memory: PinnedMemory):
        self.memory, self.ptr, self.size = memory, memory.ptr, memory.size


default_pinned_pool = PinnedMemoryPool()
_pinned_allocator: list[Callable[[int], PinnedMemoryPointer]] = [default_pinned_pool.malloc]


def set_pinned_memory_allocator(allocator: Callable[[int], PinnedMemoryPointer] | None = None) -> None:
    _pinned_allocator[0] = PinnedMemoryPool().malloc if allocator is None else allocator


def alloc_pinned_memory(size: int) -> PinnedMemoryPointer:
    unsafe("cudaEventQuery")  # of events behind copies that CuPy has made from pinned memory
    return _pinned_allocator[0](size)


def empty_pinned(shape: Any, dtype: Any = float, order: str = "C") -> Any:
    """``cupyx.empty_pinned``: a NumPy array in pinned memory."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    raw = np.asarray(alloc_pinned_memory(nbytes))
    return np.ndarray(shape, dtype, raw, order=order)  # type: ignore[call-overload]


def zeros_pinned(shape: Any, dtype: Any = float, order: str = "C") -> Any:
    array = empty_pinned(shape, dtype, order)
    array[...] = np.zeros((), dtype)
    return array


# Copies --------------------------------------------------------------------------------------------------------------


def copy_async(target: int, source: int, size: int, stream: Any, name: str, keep: Any = None) -> None:
    """Copy bytes, on a stream: between places of the device, or between it and the host. What is to be kept until then may be told.

    What comes to pinned memory is there only when the host has seen the copy done. Pinned memory that a copy is taken from must not
    change before that.
    """
    if not size:
        return
    with lock:
        line = current() if stream is None else stream.line
        to, of = regions.at(target), regions.at(source)
        uses = [(each, at, at + size, writes) for each, at, writes in ((of, source, False), (to, target, True)) if each is not None]
        for region, low, high, _ in uses:
            if high > region.pointer + region.size:
                raise CUDARuntimeError(1, f"cudaErrorInvalidValue: {name} of {size} bytes at {low:#x} leaves its block of memory")
        for host_side, region in ((target, to), (source, of)):
            if region is None and line.capture is not None and not is_pinned(host_side):
                raise CUDARuntimeError(900, f"cudaErrorStreamCaptureUnsupported: {name} with memory of the host that is not pinned")
        line.advance()
        if to is None and of is not None and is_pinned(target):

            def act() -> bool:
                values = ctypes.string_at(source, size)
                ctypes.memset(target, 0xFF, size)
                later(lambda: ctypes.memmove(target, values, size) and None)
                return True

        elif of is None and to is not None and is_pinned(source):

            def act() -> bool:
                before = ctypes.string_at(source, size)
                ctypes.memmove(target, before, size)

                def compare(keep: Any = keep) -> None:
                    if ctypes.string_at(source, size) != before:
                        state.failures.append(f"{name}: the pinned memory has changed before the copy from it was done")

                later(compare)
                return True

        else:

            def act() -> bool:
                ctypes.memmove(target, source, size)
                return True

        submit(line, name, act, uses)
        if (to is None or of is None) and not is_pinned(target if to is None else source) and line.capture is None:
            from .streams import synchronising, wait_until

            if to is None:
                synchronising(f"{name} to memory that is not pinned")
            wait_until(lambda: not line.busy, name)


def fill_async(target: int, value: int, size: int, stream: Any) -> None:
    """Set bytes."""
    with lock:
        line = current() if stream is None else stream.line

        def act() -> bool:
            ctypes.memset(target, value, size)
            return True

        line.advance()
        submit(line, "memset", act, [(region_at(target, "memset"), target, target + size, True)] if size else [])


def stream_at(pointer: int) -> Any:
    """Something with a stream's line, by its pointer."""

    class Found:
        line = line_of(pointer)

    return Found
