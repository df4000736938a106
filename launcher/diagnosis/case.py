"""All that can be derived from a job's flight records, once: what the verdict and the evidence are both told from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from launcher.diagnosis.flight import Entry, Record
from launcher.diagnosis.groups import Calls, common, groups_of
from launcher.diagnosis.messages import Message, Unmatched, match, message_waits
from launcher.diagnosis.mismatch import Mismatch, first_mismatch
from launcher.diagnosis.stragglers import Straggler, stragglers
from launcher.diagnosis.waiting import Waits, collective_waits, follow

PATIENCE = 10.0  # seconds: a shorter wait of a running job is everyday life
OLD = 10.0  # seconds by which a record must be older than another to be called old

# What a rank raises because of others. Everything else is its own doing.
_OF_OTHERS = re.compile(r"(?:\w+\.)*(CommunicationError|CollectiveTimeoutError|CollectiveMismatchError|TimeoutError)\b")


class Case(NamedTuple):
    """A job as its records show it."""

    world_size: int
    records: dict[int, Record]
    silent: tuple[int, ...]  # ranks without a record
    damaged: tuple[int, ...]  # ranks whose record cannot be read
    groups: tuple[Calls, ...]  # the largest first
    mismatches: tuple[Mismatch, ...]  # the first of each group
    transports: tuple[Calls, ...]  # groups whose members use different ones
    unmatched: Unmatched
    waits: Waits
    failures: tuple[Record, ...]  # ranks that raised an exception of their own; in the order of time where `ordered`
    ordered: bool
    consequences: tuple[Record, ...]  # ranks that raised because of others
    stragglers: tuple[Straggler, ...]
    old: dict[int, float]  # rank: by how many seconds the record that a signal asked for is older than the latest

    @property
    def serious(self) -> list[Mismatch]:
        """Mismatches that explain a failure, those that stopped somebody first."""
        found = [
            mismatch for mismatch in self.mismatches
            if not mismatch.done or mismatch.shift is not None or "operation" in mismatch.fields
        ]  # fmt: skip
        return sorted(found, key=lambda mismatch: mismatch.done)

    @property
    def other_tags(self) -> list[tuple[Message, Message]]:
        """Receives that wait while the awaited rank sends with another tag: (receive, send)."""
        return [(receive, send) for receive in self.unmatched.receives if (send := self.unmatched.tag_of(receive))]

    @property
    def together(self) -> list[tuple[Calls, int]]:
        """(group, number) of calls that all members have made and that somebody has not finished."""
        found = []
        for calls in self.groups:
            seqs = sorted({entry.seq for rank in calls.members for entry in calls.unfinished(rank) if entry.seq is not None})
            complete = not set(calls.members) - set(calls.records)
            found += [(calls, seq) for seq in seqs[:1] if complete and not calls.missing(seq)]
        return found

    @property
    def longest_wait(self) -> tuple[float, int, Entry] | None:
        """(seconds, rank, call) of the longest wait that had not ended well."""
        waits = [
            (waited(record, entry), rank, entry)
            for rank, record in self.records.items() for entry in record.entries if entry.state == "under way"
        ]  # fmt: skip
        return max(waits, key=lambda wait: wait[:2], default=None)

    @property
    def running(self) -> bool:
        """Whether it is a job in good health that was asked for its records."""
        asked = all(record.reason == "signal" for record in self.records.values())
        longest = self.longest_wait
        return asked and not self.mismatches and (longest is None or longest[0] < PATIENCE)


def study(records: Sequence[Record], damaged: Iterable[int] = ()) -> Case:
    """Derives a `Case` from records, one for each rank; `damaged` are ranks whose record cannot be read."""
    by_rank = {record.rank: record for record in sorted(records, key=lambda record: record.rank)}
    if not by_rank or len(by_rank) != len(records):
        raise ValueError(f"one record for each rank is wanted, at least one; got ranks {[record.rank for record in records]}")
    world_size = max(record.world_size for record in records)
    damaged = tuple(sorted(set(damaged) - set(by_rank)))
    groups = tuple(groups_of(list(by_rank.values())))
    unmatched = match(groups)
    raised = [record for record in by_rank.values() if record.error is not None]
    own = [record for record in raised if record.reason == "error" and not _OF_OTHERS.match(record.error or "")]
    failures, ordered = _in_order(own, groups)
    waits = [*collective_waits(groups, by_rank), *message_waits(unmatched)]
    return Case(
        world_size=world_size,
        records=by_rank,
        silent=tuple(rank for rank in range(world_size) if rank not in by_rank and rank not in damaged),
        damaged=damaged,
        groups=groups,
        mismatches=tuple(found for calls in groups if (found := first_mismatch(calls))),
        transports=tuple(calls for calls in groups if len(set(calls.transports().values()) - {None}) > 1),
        unmatched=unmatched,
        waits=follow(waits, [record.rank for record in own]),
        failures=tuple(failures),
        ordered=ordered,
        consequences=tuple(record for record in raised if record not in own),
        stragglers=tuple(stragglers(groups)),
        old=_old(list(by_rank.values()), groups),
    )


def waited(record: Record, entry: Entry) -> float:
    """Seconds that a call has lasted until it failed or until the record was written, on the rank's own clock."""
    return max(0.0, (record.written if entry.ended is None else entry.ended) - entry.started)


def _in_order(failures: Sequence[Record], groups: Sequence[Calls]) -> tuple[list[Record], bool]:
    """Ranks that failed by themselves in the order of time, and whether that order is known."""
    since = _written_at(failures, groups)
    if since is None:
        return list(failures), False
    return sorted(failures, key=lambda record: since[record.rank]), True


def _old(records: Sequence[Record], groups: Sequence[Calls]) -> dict[int, float]:
    """Records that a signal asked for, long before others were written."""
    hosts = sorted({record.host for record in records})
    comparable = [list(records)] if _written_at(records, groups) else [
        [record for record in records if record.host == host] for host in hosts
    ]  # fmt: skip
    found = {}
    for some in comparable:
        times = _written_at(some, groups) or {}
        for record in some:
            age = max(times.values()) - times[record.rank]
            if record.reason == "signal" and age > OLD:
                found[record.rank] = age
    return found


def _written_at(records: Sequence[Record], groups: Sequence[Calls]) -> dict[int, float] | None:
    """When records were written, by one clock; None where there is none for all of them.

    On one host that is the host's. Across hosts it is each rank's own clock, set to zero when it left the last collective
    that all of them have left, which they left together.
    """
    if len({record.host for record in records}) <= 1:
        return {record.rank: record.written for record in records}
    ranks = [record.rank for record in records]
    for calls in groups:
        for seq in reversed(common(calls, ranks) if set(ranks) <= set(calls.by_seq) else []):
            ends = {rank: calls.by_seq[rank][seq].ended for rank in ranks}
            if None not in ends.values():
                return {record.rank: record.written - (ends[record.rank] or 0.0) for record in records}
    return None
