"""Ranks that the others wait for again and again, found without comparing clocks.

All ranks leave an all-reduce together, so the one that waits least came last: how much later than the first it came is
the longest wait in that call minus its own, each measured on its own clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from launcher.diagnosis.groups import Calls, common

CALLS = 10  # fewer say nothing of a habit
LEAST = 1e-3  # seconds; below that it is the noise of the operating system
SHARE = 0.1  # of the time between calls


class Straggler(NamedTuple):
    """A rank that is late on the average."""

    rank: int
    calls: Calls
    lag: float  # seconds, median: how much later it calls than the median of the others
    between: float  # seconds, median: from one of these calls to the next
    number: int  # of calls that were compared


def lags(calls: Calls) -> tuple[dict[int, float], int]:
    """Each member's median lag behind the first in the joint calls that all records hold, and the number of those."""
    ranks = [rank for rank in calls.members if calls.by_seq.get(rank)]
    seqs = common(calls, ranks)
    each: dict[int, list[float]] = {rank: [] for rank in ranks}
    for seq in seqs:
        waits = {}
        for rank in ranks:
            entry = calls.by_seq[rank][seq]
            if entry.ended is not None:
                waits[rank] = entry.ended - entry.started
        if len(waits) == len(ranks):
            longest = max(waits.values())
            for rank, wait in waits.items():
                each[rank].append(longest - wait)
    number = len(each[ranks[0]]) if ranks else 0
    return ({rank: median(found) for rank, found in each.items()} if number else {}), number


def stragglers(groups: Sequence[Calls]) -> list[Straggler]:
    """The ranks that keep the others of a group waiting, the slowest first; each in the largest such group."""
    found: dict[int, Straggler] = {}
    for calls in groups:
        lag, number = lags(calls)
        if number < CALLS or len(lag) < 2:
            continue
        between = _between(calls, next(iter(lag)))
        for rank, late in lag.items():
            others = median(value for other, value in lag.items() if other != rank)
            if late - others > max(LEAST, SHARE * between):
                found.setdefault(rank, Straggler(rank, calls, late - others, between, number))
    return sorted(found.values(), key=lambda straggler: -straggler.lag)


def _between(calls: Calls, rank: int) -> float:
    """The median time from the end of one joint call to the next."""
    ends = [calls.by_seq[rank][seq].ended for seq in common(calls, [rank])]
    known = [end for end in ends if end is not None]
    return median(later - earlier for earlier, later in pairwise(known))
