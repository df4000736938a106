"""How long reductions took, and how much of that backward hid.

On the CPU the clock is the host's. What a GPU does, the host does not see: there the clock is the GPU's events, which are read only
when somebody asks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import cuda

__all__ = ["CommunicationTimes", "DeviceClock", "HostClock", "union"]


class CommunicationTimes(NamedTuple):
    """How long the reductions of one backward pass took on this rank, in seconds of its clock.

    Attributes
    ----------
    total : float
        While at least one bucket was being reduced, from its start until this rank saw that it was complete.
    exposed : float
        Spent waiting when backward had computed all gradients.

    Examples
    --------
    >>> times = CommunicationTimes(total=0.008, exposed=0.002)
    >>> times.hidden
    0.75
    """

    total: float
    exposed: float

    @property
    def hidden(self) -> float:
        """The part of the time, from 0 to 1, in which backward went on computing; 1 where nothing was reduced."""
        return 1 - min(1.0, self.exposed / self.total) if self.total else 1.0


def union(intervals: Sequence[tuple[float, float]]) -> float:
    """The length of what intervals cover together.

    Examples
    --------
    >>> union([(0, 2), (1, 3), (5, 6)])
    4.0
    """
    covered, until = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        if end > until:
            covered += end - max(begin, until)
            until = end
    return covered


class HostClock:
    """Notes when the buckets of a backward pass are reduced, by the host's clock."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A backward pass begins."""
        self._started: dict[int, Any] = {}
        self._ended: dict[int, Any] = {}
        self._computed: Any = None
        self._over: Any = None

    def started(self, bucket: int) -> None:
        """The reduction of a bucket begins."""
        self._started[bucket] = self._now()
        self._ended.pop(bucket, None)

    def ended(self, bucket: int) -> None:
        """It is complete."""
        self._ended[bucket] = self._now()

    def has_ended(self, bucket: int) -> bool:
        """Whether it is known to be complete."""
        return bucket in self._ended

    def computed(self) -> None:
        """All gradients of this rank are computed."""
        self._computed = self._now()

    def over(self) -> None:
        """All reductions are complete."""
        self._over = self._now()

    def times(self) -> CommunicationTimes:
        """Those of the last pass; zeros before the first."""
        if self._over is None:
            return CommunicationTimes(0.0, 0.0)
        intervals = [(self._seconds(begin), self._seconds(self._ended[i])) for i, begin in self._started.items() if i in self._ended]
        return CommunicationTimes(union(intervals), self._seconds(self._over) - self._seconds(self._computed))

    def _now(self) -> Any:
        return time.perf_counter()

    def _seconds(self, moment: Any) -> float:
        """A moment as a number of seconds since some other one."""
        return moment


class DeviceClock(HostClock):
    """Notes it by a GPU's events, each in the stream that is current then. A pass that is captured as a graph has no times."""

    def times(self) -> CommunicationTimes:
        """Those of the last pass; waits until the GPU is through with it. Zeros before the first, and where it was captured."""
        if isinstance(self._over, cuda.Event) and self._started:
            self._over.synchronize()
            return super().times()
        return CommunicationTimes(0.0, 0.0)

    def _now(self) -> Any:
        if cuda.is_current_stream_capturing():
            return ()
        event = cuda.Event(enable_timing=True)
        event.record()
        return event

    def _seconds(self, moment: Any) -> float:
        first = next(iter(self._started.values()))
        return first.elapsed_time(moment) / 1e3
