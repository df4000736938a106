"""How long reductions took, and how much of that backward hid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["CommunicationTimes", "union"]


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
