"""The calls of a group's members next to each other, by their number in the group.

Clocks of different hosts are not compared anywhere: what orders the calls of different ranks is their number (seq), and
lengths of time are differences on one rank's own clock. Numbers do not begin at 1 everywhere, since a record holds only
a rank's last calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from launcher.diagnosis.flight import Entry, Record
from launcher.diagnosis.words import runs

# Collectives that end nowhere before every member has called them. A broadcast's root or a reduce's leaves may go on.
JOINT = frozenset({"all_reduce", "reduce_scatter", "all_gather", "all_to_all", "barrier", "all_gather_object"})


class Calls:
    """A group, with what its members' records hold of it.

    Attributes
    ----------
    name, label : str
        The name, and the name with the ranks where two groups of the job have the same.
    members : tuple of int
        Ranks of the world, in the group's order.
    records : dict
        Rank: record, of members that have one.
    by_seq : dict
        Rank: its collectives in the group, by number.
    """

    def __init__(self, name: str, label: str, members: tuple[int, ...], records: dict[int, Record]):
        self.name = name
        self.label = label
        self.members = members
        self.records = records
        self.by_seq: dict[int, dict[int, Entry]] = {}
        self._last: dict[int, int | None] = {}
        self._unfinished: dict[int, list[Entry]] = {}
        for rank, record in records.items():
            entries = [entry for entry in record.entries if entry.group == name] if self.knows(rank) else []
            calls = {entry.seq: entry for entry in entries if entry.seq is not None}
            self.by_seq[rank] = calls
            self._last[rank] = max(calls, default=0 if record.begins_at_start else None)
            well = max((seq for seq, entry in calls.items() if entry.complete), default=0)
            self._unfinished[rank] = [
                entry for seq, entry in sorted(calls.items())
                if entry.state == "under way" or (not entry.complete and seq > well)
            ]  # fmt: skip

    def last(self, rank: int) -> int | None:
        """The number of a member's last call; 0 where it made none, None where that is not known."""
        return self._last.get(rank)

    def unfinished(self, rank: int) -> list[Entry]:
        """A member's calls that are under way or failed, without failures after which calls went well again."""
        return self._unfinished.get(rank, [])

    def missing(self, seq: int) -> list[int]:
        """Members with a record that have not made call `seq`."""
        return [rank for rank in self.members if rank in self.records and (self.last(rank) or 0) < seq]

    def callers(self, seq: int) -> dict[int, Entry]:
        """Members whose records hold call `seq`."""
        return {rank: calls[seq] for rank, calls in sorted(self.by_seq.items()) if seq in calls}

    def last_joint(self) -> tuple[int, Entry] | None:
        """The last call that some member has finished and that ends nowhere before all have made it."""
        ended = [
            (seq, rank) for rank, calls in self.by_seq.items() for seq, entry in calls.items()
            if entry.complete and entry.operation in JOINT
        ]  # fmt: skip
        if not ended:
            return None
        seq, rank = max(ended, key=lambda pair: (pair[0], -pair[1]))
        return seq, self.by_seq[rank][seq]

    def transports(self) -> dict[int, str | None]:
        """Which transport each member's record names."""
        return {rank: record.groups[self.name].transport for rank, record in self.records.items() if self.knows(rank)}

    def knows(self, rank: int) -> bool:
        """Whether a member's record names the group: it has been made there."""
        record = self.records.get(rank)
        return record is not None and self.name in record.groups and record.groups[self.name].ranks == self.members

    def world(self, place: int) -> int:
        """The rank in the world of a place in the group, such as a root or a peer."""
        return self.members[place] if place < len(self.members) else place


def groups_of(records: Sequence[Record]) -> list[Calls]:
    """All groups that the records name, the largest first.

    Splitting the world gives groups of one name to different members: what makes a group is its name and its members.
    """
    keys: dict[tuple[str, tuple[int, ...]], dict[int, Record]] = {}
    for record in records:
        for name, group in record.groups.items():
            keys.setdefault((name, group.ranks), {})[record.rank] = record
    every = {record.rank: record for record in records}
    names = [name for name, _ in keys]
    found = []
    for name, members in keys:
        label = name if names.count(name) == 1 else f"{name} of ranks {', '.join(runs(members))}"
        # A member that has a record and does not know the group has not made it yet.
        found.append(Calls(name, label, members, {rank: every[rank] for rank in members if rank in every}))
    return sorted(found, key=lambda calls: (-len(calls.members), calls.members, calls.name))


def common(calls: Calls, ranks: Iterable[int]) -> list[int]:
    """Numbers of the joint calls that all of these members have finished, ascending."""
    finished = [
        {seq for seq, entry in calls.by_seq.get(rank, {}).items() if entry.complete and entry.operation in JOINT}
        for rank in ranks
    ]
    return sorted(set.intersection(*finished)) if finished else []

