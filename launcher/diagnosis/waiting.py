"""Who waits for whom: from the calls that are under way to the ranks that everything waits for.

A rank that has made a call which another member of the group has not made waits for that member, and a receive for its
sender. Followed to their ends these lead to ranks that wait for nobody, the cause, or in a circle, a deadlock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from launcher.diagnosis.flight import Entry, Record
from launcher.diagnosis.groups import Calls


class Wait(NamedTuple):
    """One rank waits for another."""

    waiter: int
    target: int
    calls: Calls
    entry: Entry  # the waiter's call


class Waits(NamedTuple):
    """What the waits of a job lead to."""

    all: tuple[Wait, ...]
    causes: tuple[int, ...]  # ranks that others wait for, directly or not, and that wait for nobody
    circle: tuple[Wait, ...]  # waits that lead from a rank back to itself, where no cause can be reached; else empty

    def direct(self, ranks: Iterable[int]) -> list[Wait]:
        """The waits for any of these ranks, each waiter's earliest."""
        wanted = set(ranks)
        first: dict[int, Wait] = {}
        for wait in self.all:
            if wait.target in wanted and wait.waiter not in wanted:
                first.setdefault(wait.waiter, wait)
        return [first[rank] for rank in sorted(first)]

    def indirect(self, ranks: Iterable[int]) -> list[int]:
        """Ranks that wait for ranks that wait for these."""
        wanted = set(ranks)
        direct = {wait.waiter for wait in self.direct(wanted)}
        seen = wanted | direct
        while more := {wait.waiter for wait in self.all if wait.target in seen} - seen:
            seen |= more
        return sorted(seen - wanted - direct)


def collective_waits(groups: Sequence[Calls], records: Mapping[int, Record]) -> list[Wait]:
    """The waits in collectives, for members that have not made the call or whose record is missing."""
    found = []
    for calls in groups:
        absent = [member for member in calls.members if member not in records]
        missing: dict[int, list[int]] = {}
        for rank in calls.members:
            for entry in calls.unfinished(rank):
                seq = entry.seq or 0
                if seq not in missing:
                    missing[seq] = [*calls.missing(seq), *absent]
                found += [Wait(rank, target, calls, entry) for target in missing[seq]]
    return found


def follow(waits: Sequence[Wait], ended: Iterable[int]) -> Waits:
    """Finds the causes of waits.

    Parameters
    ----------
    waits : sequence of Wait
        From `collective_waits` and `messages.message_waits`.
    ended : iterable of int
        Ranks that failed by themselves: they wait for nobody, whatever is still under way there.
    """
    ended = set(ended)
    kept = tuple(wait for wait in waits if wait.waiter not in ended)
    targets: dict[int, set[int]] = {}
    for wait in kept:
        targets.setdefault(wait.waiter, set()).add(wait.target)
    causes = sorted({target for found in targets.values() for target in found} - set(targets))
    explained = set(causes)
    while more := {waiter for waiter, found in targets.items() if found & explained} - explained:
        explained |= more
    return Waits(kept, tuple(causes), _circle(kept, set(targets) - explained))


def _circle(waits: Sequence[Wait], unexplained: set[int]) -> tuple[Wait, ...]:
    """The shortest circle among ranks that reach no cause."""
    edges: dict[int, dict[int, Wait]] = {}
    for wait in waits:
        if wait.waiter in unexplained:
            edges.setdefault(wait.waiter, {}).setdefault(wait.target, wait)
    best: tuple[Wait, ...] = ()
    for start in sorted(edges):
        came: dict[int, Wait] = {}
        queue = deque([start])
        while queue and start not in came:
            here = queue.popleft()
            for target, wait in edges.get(here, {}).items():
                if target not in came:
                    came[target] = wait
                    queue.append(target)
        if start not in came:
            continue
        path = [came[start]]
        while path[-1].waiter != start:
            path.append(came[path[-1].waiter])
        if not best or len(path) < len(best):
            best = tuple(reversed(path))
        if len(best) == 2:
            break
    return best
