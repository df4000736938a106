"""The memory of CUDA devices: one pool for all arrays, counted exactly, and kept while another stream still uses it.

CuPy asks `allocate` for every array's memory. It takes a block from a pool of CuPy's, which recycles blocks by the stream that they
were asked for in, and hands out a `Block` that owns it. When the last array on a block is gone, Python tells the block, in whatever
thread that is: there freed bytes are counted, and a block that another stream was recorded for (`record_stream`) waits for that
stream before the pool may have it again. While a CUDA graph is captured, memory comes from the graph's pool.
"""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import cupy

from ..memory import OutOfMemoryError
from . import capturing
from .origin import asking

__all__ = [
    "Block", "GraphPool", "Statistics", "allocate", "empty_cache", "hold", "limit_fraction", "record_stream", "set_limit", "statistics",
    "wait_for_waiting",
]  # fmt: skip

_NO_MEMORY = 2  # cudaErrorMemoryAllocation


class Statistics:
    """What has been asked for on one device, in bytes and in blocks: now, at most, and altogether.

    Changes are statements without calls between reading and writing, which the interpreter does not interrupt; so they need no lock,
    which a finalizer could not take safely. The pools round sizes up to 512 bytes, ``(size + 511) & -512``, as cudaMalloc aligns.
    """

    def __init__(self) -> None:
        self.allocated = self.allocated_peak = self.allocated_ever = 0
        self.requested = self.requested_peak = self.requested_ever = 0
        self.blocks = self.blocks_peak = self.blocks_ever = 0
        self.reserved = self.reserved_peak = self.reserved_ever = 0
        self.segments = self.segments_peak = self.segments_ever = 0
        self.waiting = self.waiting_blocks = 0
        self.active_peak = self.active_blocks_peak = 0
        self.retries = self.out_of_memory = 0
        self.limit: int | None = None
        self.fraction = 1.0

    def took(self, size: int) -> None:
        """A block was handed out."""
        rounded = (size + 511) & -512
        self.requested += size
        self.requested_ever += size
        self.allocated += rounded
        self.allocated_ever += rounded
        self.blocks += 1
        self.blocks_ever += 1
        if self.requested > self.requested_peak:
            self.requested_peak = self.requested
        if self.allocated > self.allocated_peak:
            self.allocated_peak = self.allocated
        if self.blocks > self.blocks_peak:
            self.blocks_peak = self.blocks
        if self.allocated + self.waiting > self.active_peak:
            self.active_peak = self.allocated + self.waiting
        if self.blocks + self.waiting_blocks > self.active_blocks_peak:
            self.active_blocks_peak = self.blocks + self.waiting_blocks

    def gave(self, size: int) -> None:
        """The last array on a block is gone."""
        self.requested -= size
        self.allocated -= (size + 511) & -512
        self.blocks -= 1

    def grew(self, size: int) -> None:
        """The driver gave a segment."""
        self.reserved += size
        self.reserved_ever += size
        self.segments += 1
        self.segments_ever += 1
        if self.reserved > self.reserved_peak:
            self.reserved_peak = self.reserved
        if self.segments > self.segments_peak:
            self.segments_peak = self.segments

    def shrank(self, size: int) -> None:
        """A segment went back to the driver."""
        self.reserved -= size
        self.segments -= 1

    def reset_peaks(self) -> None:
        """Let the peaks count from what there is now."""
        self.allocated_peak, self.requested_peak, self.blocks_peak = self.allocated, self.requested, self.blocks
        self.reserved_peak, self.segments_peak = self.reserved, self.segments
        self.active_peak, self.active_blocks_peak = self.allocated + self.waiting, self.blocks + self.waiting_blocks

    def reset_sums(self) -> None:
        """Let what is counted altogether count from what there is now, and failures from zero."""
        self.allocated_ever, self.requested_ever, self.blocks_ever = self.allocated, self.requested, self.blocks
        self.reserved_ever, self.segments_ever = self.reserved, self.segments
        self.retries = self.out_of_memory = 0


_statistics: dict[int, Statistics] = {}


def statistics(index: int) -> Statistics:
    """A device's."""
    found = _statistics.get(index)
    return _statistics.setdefault(index, Statistics()) if found is None else found


class Segment(cupy.cuda.Memory):
    """Memory from the driver, of which a pool cuts blocks: of a class that can be referred to weakly."""


def _from_driver(size: int) -> Any:
    """What the pools call when they have no block that is large enough.

    A full device is CuPy's `OutOfMemoryError`, not a `CUDARuntimeError`, upon which a pool would give its free blocks back to the
    driver and try again: blocks that a captured graph still writes to must stay.
    """
    index = cupy.cuda.runtime.getDevice()
    counts = statistics(index)
    if counts.limit is not None and counts.reserved + size > counts.limit:
        raise cupy.cuda.memory.OutOfMemoryError(size, counts.reserved, counts.limit)
    try:
        with capturing.may_call_the_driver():
            segment = Segment(size)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if error.status != _NO_MEMORY:
            raise
        raise cupy.cuda.memory.OutOfMemoryError(size, counts.reserved, counts.limit or 0) from error
    counts.grew(size)
    weakref.finalize(segment, counts.shrank, size).atexit = False
    return cupy.cuda.MemoryPointer(segment, 0)


class _AllocatorOfTheUser:
    """The allocator that a script had set before: it is asked in the pool's place, and what it keeps is its own affair."""

    def __init__(self, malloc: Callable[[int], Any]):
        self.malloc = malloc

    def free_all_blocks(self) -> None:
        """It decides itself when to give memory back."""

    def free_bytes(self) -> int:
        """Not known."""
        return 0


_found = cupy.cuda.get_allocator()
_pool: Any = (
    cupy.cuda.MemoryPool(_from_driver) if _found == cupy.get_default_memory_pool().malloc else _AllocatorOfTheUser(_found)
)


class Block(cupy.cuda.UnownedMemory):
    """A block that arrays lie on. It owns a pool's pointer, and outlives the last array for as long as streams use it."""

    #: streams other than the one it was asked for in, that were given work on it
    streams: Any = None

    @property
    def pool(self) -> Any:
        """That it came from."""
        return self._owner[1]

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        counts, *owned = self._owner
        counts.gave(self.size)
        if self.streams is not None and not ending():
            _wait_for(tuple(self.streams.values()), owned, self.size, self.device_id)


def allocate(size: int) -> Any:
    """What CuPy calls for every array.

    Parameters
    ----------
    size : int
        In bytes.

    Returns
    -------
    cupy.cuda.MemoryPointer

    Raises
    ------
    OutOfMemoryError
        If there is not so much, even after what arrays have freed has been given back to the driver.
    """
    if _queues and not capturing.underway():
        release_done()
    capture = capturing.here()
    pool = _pool if capture is None else capture.pool
    try:
        found = pool.malloc(size)
    except cupy.cuda.memory.OutOfMemoryError:
        found = None  # the second try is made when nothing holds this error, whose traceback could hold memory
    if found is None:
        found = _again(pool, size)
    if not size:
        return found
    index = found.device_id
    counts = _statistics.get(index) or statistics(index)
    # CuPy's pointers do not keep their pool; the last in a tuple goes first, so the pool has the block again before it may go itself
    block = Block(found.ptr, size, (counts, pool, found), index)
    counts.took(size)
    return cupy.cuda.MemoryPointer(block, 0)


def _again(pool: Any, size: int) -> Any:
    """The second try, after everything that can be given back was."""
    counts = statistics(cupy.cuda.runtime.getDevice())
    counts.retries += 1
    if not capturing.underway():
        wait_for_waiting()
    gc.collect()
    with capturing.may_call_the_driver():
        _pool.free_all_blocks()
    try:
        return pool.malloc(size)
    except cupy.cuda.memory.OutOfMemoryError:
        counts.out_of_memory += 1
        raise OutOfMemoryError(_message(size)) from None


def _message(size: int) -> str:
    index = cupy.cuda.runtime.getDevice()
    counts = statistics(index)
    with capturing.may_call_the_driver():
        free, total = cupy.cuda.runtime.memGetInfo()
    kept = max(counts.reserved - counts.allocated - counts.waiting, 0)
    parts = [
        f"CUDA out of memory: {readable(size)} were asked for by {asking(sys._getframe(1))}.",
        f"GPU {index} has {readable(total)}, of which {readable(free)} are free.",
        f"Tensors hold {readable(counts.allocated)} (at most {readable(counts.allocated_peak)} so far); {readable(kept)} are kept for "
        "tensors to come, in blocks that are too small or belong to other streams or to CUDA graphs.",
    ]
    if counts.waiting:
        parts.append(f"{readable(counts.waiting)} wait for streams that still use them (record_stream).")
    if counts.limit is not None:
        parts.append(f"This process may use {readable(counts.limit)} of them (set_per_process_memory_fraction).")
    return " ".join(parts)


def readable(size: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.2f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")


# --- blocks that other streams still use ------------------------------------------------------------------------------------


class _Waiting:
    """Something that must not be freed before some streams have come so far."""

    def __init__(self, count: int, thing: Any, size: int, index: int):
        self.count, self.thing, self.size, self.index = count, thing, size, index


Place = tuple[Any, int]  # a stream and its device's number, which CuPy's default stream does not know
_queues: dict[tuple[int, int], deque[tuple[Any, _Waiting]]] = {}  # by stream: events in the order in which they happen
_after_captures: list[tuple[tuple[Place, ...], Any, int, int]] = []
_lock = threading.RLock()  # a finalizer may come in between in the same thread


def record_stream(array: Any, stream: Any, index: int | None = None) -> None:
    """Keep an array's memory from being used again before work that a stream has been given by then is done.

    Parameters
    ----------
    array : cupy.ndarray
        Memory that is not from here (another library's) is its owner's affair.
    stream : cupy.cuda.Stream
    index : int, optional
        The number of the stream's device; the array's unless given.
    """
    block = array.data.mem
    if isinstance(block, Block):
        if block.streams is None:
            block.streams = {}
        index = block.device_id if index is None else index
        block.streams[index, stream.ptr] = stream, index


def hold(thing: Any, stream: Any) -> None:
    """Keep an object until what a stream has been given by now is done; during a capture, as long as the graph."""
    capture = capturing.here()
    if capture is not None:
        capture.kept.append(thing)
        return
    index = cupy.cuda.runtime.getDevice()
    _wait_for(((stream, index),), thing, 0, index)
    release_done()


def _wait_for(places: tuple[Place, ...], thing: Any, size: int, index: int) -> None:
    if capturing.underway():  # an event would become a part of the graph
        _after_captures.append((places, thing, size, index))
        return
    waiting = _Waiting(len(places), thing, size, index)
    with _lock:
        if size:
            counts = statistics(index)
            counts.waiting += (size + 511) & -512
            counts.waiting_blocks += 1
        for stream, where in places:
            with cupy.cuda.Device(where):
                event = cupy.cuda.Event(disable_timing=True)
                event.record(stream)
            _queues.setdefault((where, stream.ptr), deque()).append((event, waiting))


def after_captures() -> None:
    """Let what was freed during captures wait for its streams, now that they may be given events again."""
    while _after_captures and not capturing.underway():
        _wait_for(*_after_captures.pop())


def release_done() -> None:
    """Let go of what all its streams are done with."""
    if not _lock.acquire(blocking=False):
        return  # another thread is at it
    try:
        for place, queue in list(_queues.items()):
            while queue and queue[0][0].done:
                _one_less(queue.popleft()[1])
            if not queue:
                _queues.pop(place, None)
    finally:
        _lock.release()


def wait_for_waiting() -> None:
    """Wait for the streams that freed blocks wait for, and let go of these."""
    while True:
        with _lock:
            queue = next(iter(_queues.values()), None)
            if queue is None:
                return
            event, waiting = queue.popleft()
            if not queue:
                _queues.pop(next(iter(_queues)))
        event.synchronize()  # without the lock: other threads may have to launch what it waits for
        with _lock:
            _one_less(waiting)


def _one_less(waiting: _Waiting) -> None:
    waiting.count -= 1
    if not waiting.count:
        if waiting.size:
            counts = statistics(waiting.index)
            counts.waiting -= (waiting.size + 511) & -512
            counts.waiting_blocks -= 1
        waiting.thing = None


# --- pools ---------------------------------------------------------------------------------------------------------------------


class GraphPool:
    """Memory of captured graphs: what was taken in a capture stays where it is for as long as a graph may write to it."""

    def __init__(self) -> None:
        self._pool = cupy.cuda.MemoryPool(_from_driver)
        self._devices: set[int] = set()

    def malloc(self, size: int) -> Any:
        """A block of the current device's."""
        self._devices.add(cupy.cuda.runtime.getDevice())
        return self._pool.malloc(size)

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        """Give all of it back to the driver: a pool of CuPy's that just goes loses its free blocks."""
        if ending():
            return
        for index in self._devices:
            # the error would be that of a device that has failed
            with suppress(cupy.cuda.runtime.CUDARuntimeError), cupy.cuda.Device(index), capturing.may_call_the_driver():
                self._pool.free_all_blocks()


def empty_cache() -> None:
    """Give memory of all devices that no array uses back to the driver."""
    release_done()
    for index in list(_statistics):
        with cupy.cuda.Device(index):
            _pool.free_all_blocks()
    cupy.get_default_pinned_memory_pool().free_all_blocks()


def set_limit(fraction: float, index: int) -> None:
    """The most of a device's memory that the pools may take, in parts of all."""
    with cupy.cuda.Device(index):
        _, total = cupy.cuda.runtime.memGetInfo()
    counts = statistics(index)
    counts.fraction = fraction
    counts.limit = None if fraction == 1.0 else int(fraction * total)


def limit_fraction(index: int) -> float:
    """What `set_limit` has set; 1 if nothing."""
    return statistics(index).fraction


cupy.cuda.set_allocator(allocate)
