"""Who used which memory when, and whether anything orders one use behind another.

Every stream counts its operations, and knows how far it lies behind others (a vector clock; Fidge 1988, Mattern 1989): an event carries
the clock of the stream that recorded it, who waits for the event takes the larger of both. The host has a clock too: what it has seen
to be done is done for all it launches later. Two uses of the same bytes, at least one of them a write, must be ordered.
"""

from __future__ import annotations

import bisect
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Clock", "OrderError", "Region", "Use", "behind", "host", "join", "lock", "region_at", "regions", "state"]

Clock = dict[int, int]
"""From the number of a stream to the last of its operations that is known to come before."""

lock = threading.RLock()
"""Held by whoever looks at or changes the state of the device."""


class OrderError(RuntimeError):
    """Memory is used before it is ready, or again before its last use is over."""


class Use(NamedTuple):
    """An operation's use of bytes of a region."""

    low: int
    high: int
    stream: int
    tick: int
    writes: bool
    name: str


class State:
    """What there is of one kind only."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        """Mistakes that were found where no exception can be raised, in finalizers; `tests.stand_in.check` raises them."""
        self.forbid_synchronisation = ""
        """Why the host must not wait now; empty where it may."""
        self.calls: list[str] | None = None
        """Names of the operations launched, where somebody counts them."""
        self.turned: list[tuple[str, tuple[int, ...]]] | None = None
        """Names and shapes of what was laid out in another order of dimensions than it was read in, where somebody looks for that."""


state = State()
host: Clock = {}
"""What the host has seen to be done."""


def join(clock: Clock, other: Clock) -> None:
    """Let a clock come behind another."""
    for stream, tick in other.items():
        if clock.get(stream, 0) < tick:
            clock[stream] = tick


def behind(clock: Clock, use: Use) -> bool:
    """Whether what comes next on a clock comes after a use."""
    return clock.get(use.stream, 0) >= use.tick


MANY = 32
"""Uses of a region after which it is looked which of them still matter."""


class Region:
    """Memory that the driver handed out: its bytes, and their last uses.

    Attributes
    ----------
    pointer, size, device : int
    bytes : numpy.ndarray
        The memory itself.
    owner : int
        The number of the allocation that has it now; 0 while a pool keeps it for later.
    """

    __slots__ = ("__weakref__", "alive", "bytes", "device", "keep", "many", "owner", "pointer", "size", "stream", "uses")

    def __init__(self, memory: Any, device: int, keep: Any = None):
        self.bytes, self.device, self.keep = memory, device, keep
        self.pointer: int = memory.ctypes.data
        self.size: int = memory.nbytes
        self.uses: list[Use] = []
        self.stream = 0
        """The only stream in `uses`; -1 where there are several."""
        self.many = MANY
        self.owner = 0
        self.alive = True

    def use(self, use: Use, clock: Clock, names: Callable[[int], str]) -> None:
        """Note a use, which must come behind those that it collides with.

        Raises
        ------
        OrderError
        """
        low, high, stream, _, writes, name = use
        if not self.alive:
            raise OrderError(f"{name}: the memory was given back to the driver")
        if self.stream == stream or not self.uses:  # in order by themselves: what later uses cover is dropped now and then
            self.stream = stream
            self.uses.append(use)
            if len(self.uses) > self.many:
                self._drop_covered()
            return
        if self.stream != -1:
            self.stream = -1
            self._drop_covered()
        kept = []
        for other in self.uses:
            if other.low < high and low < other.high:
                if (writes or other.writes) and other.stream != stream and not behind(clock, other):
                    raise OrderError(
                        f"{name} on {names(stream)} {'writes' if writes else 'reads'} memory that {other.name} on "
                        f"{names(other.stream)} {'writes' if other.writes else 'reads'}, and nothing orders one behind the other: "
                        "no event that it waits for, no synchronisation"
                    )
                if other.stream == stream and low <= other.low and other.high <= high and (writes or not other.writes):
                    continue
                if writes and low <= other.low and other.high <= high:
                    continue
            kept.append(other)
        if len(kept) > 64:  # what the host has seen to be done collides with nothing any more
            kept = [other for other in kept if not behind(host, other)]
        kept.append(use)
        self.uses = kept

    def _drop_covered(self) -> None:
        """Leave out uses that the host has seen done, or that a later one of the same stream lies over."""
        kept: list[Use] = []
        for use in reversed([use for use in self.uses if not behind(host, use)]):
            if not any(
                later.stream == use.stream and later.low <= use.low and use.high <= later.high and (later.writes or not use.writes)
                for later in kept
            ):
                kept.append(use)
        self.uses = kept[::-1]
        self.many = max(MANY, 2 * len(kept))


class Regions:
    """The regions by their addresses."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.by_start: dict[int, weakref.ref[Region]] = {}

    def add(self, region: Region) -> None:
        bisect.insort(self.starts, region.pointer)
        self.by_start[region.pointer] = weakref.ref(region)

    def remove(self, region: Region) -> None:
        place = bisect.bisect_left(self.starts, region.pointer)
        if place < len(self.starts) and self.starts[place] == region.pointer:
            del self.starts[place]
            del self.by_start[region.pointer]

    def at(self, pointer: int) -> Region | None:
        place = bisect.bisect_right(self.starts, pointer) - 1
        if place < 0:
            return None
        region = self.by_start[self.starts[place]]()
        return region if region is not None and pointer < region.pointer + max(region.size, 1) else None


regions = Regions()


def region_at(pointer: int, what: str) -> Region:
    """The region that an address lies in.

    Raises
    ------
    OrderError
        If there is none: the address is the host's, or of memory that was freed.
    """
    region = regions.at(pointer)
    if region is None:
        raise OrderError(f"{what}: {pointer:#x} is no address of the device (an illegal memory access)")
    return region
