"""Ranks that called different things where they should have called the same: found by number, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from launcher.diagnosis.flight import Entry
from launcher.diagnosis.groups import Calls
from launcher.diagnosis.words import gathered

# Collectives to which each rank may bring an array of its own length in the first dimension.
_UNEVEN = frozenset({"all_gather", "gather", "scatter", "reduce_scatter", "all_to_all"})


class Mismatch(NamedTuple):
    """The first call of a group in which its members differ."""

    calls: Calls
    seq: int
    entries: dict[int, Entry]  # member: what it called there
    fields: tuple[str, ...]  # in what they differ: operation, reduction, dtype, shape, root
    odd: tuple[int, ...]  # those that differ from more than half of them; empty where there is no such half
    reference: int  # a rank that did what most did
    other: int  # one that did not
    earlier: bool  # the records begin with it, so that calls before may have differed as well
    more: int  # how many later calls differ, too
    shift: str | None  # "left out" or "added" where the odd ranks' later calls are the others', by one call shifted
    done: bool  # all of them finished it all the same

    @property
    def rows(self) -> list[tuple[list[int], Entry]]:
        """Ranks that called the same from the same line, together."""
        kinds = {rank: (_signature(entry), entry.where) for rank, entry in self.entries.items()}
        return [(ranks, self.entries[ranks[0]]) for ranks, _ in gathered(kinds)]


def first_mismatch(calls: Calls) -> Mismatch | None:
    """The first call in which members of a group differ, among those that two of their records hold; or None."""
    seqs = sorted({seq for by_seq in calls.by_seq.values() for seq in by_seq})
    found: list[tuple[int, dict[int, Entry], tuple[str, ...]]] = []
    for seq in seqs:
        entries = calls.callers(seq)
        if fields := differing(entries):
            found.append((seq, entries, fields))
    if not found:
        return None
    seq, entries, fields = found[0]
    signatures = {rank: _signature(entry) for rank, entry in entries.items()}
    together = gathered(signatures)
    most = together[0][0] if len(together[0][0]) * 2 > len(entries) else []
    odd = tuple(rank for rank in entries if rank not in most) if most else ()
    reference = most[0] if most else min(entries)
    other = next(rank for rank in entries if signatures[rank] != signatures[reference])
    return Mismatch(
        calls, seq, entries, fields, odd, reference, other,
        earlier=seq > 1 and seq == next(number for number in seqs if len(calls.callers(number)) > 1),
        more=len(found) - 1,
        shift=_shift(calls.by_seq[reference], calls.by_seq[other], seq),
        done=all(entry.complete for entry in entries.values()),
    )  # fmt: skip


def differing(entries: Mapping[int, Entry]) -> tuple[str, ...]:
    """In which fields calls of one number differ, though all ranks must agree in them.

    A field that a record leaves empty agrees with everything. Lengths of the first dimension may differ where counts
    allow it, as long as nobody failed or waits there. Objects have neither a dtype nor a shape that must agree.
    """
    if len(entries) < 2:
        return ()
    operations = {entry.operation for entry in entries.values()}
    if len(operations) > 1:
        return ("operation",)
    [operation] = operations
    fields = [_disagree("reduction", {entry.reduction for entry in entries.values()})]
    if not operation.endswith("_object") and operation != "barrier":
        fields.append(_disagree("dtype", {entry.dtype for entry in entries.values()}))
        shapes = {entry.shape for entry in entries.values()}
        if operation in _UNEVEN and all(entry.complete for entry in entries.values()):
            shapes = {None if shape is None else (0, *shape[1:]) for shape in shapes}
        fields.append(_disagree("shape", shapes))
    fields.append(_disagree("root", {entry.root for entry in entries.values()}))
    return tuple(field for field in fields if field)


def _disagree(name: str, values: set) -> str | None:
    return name if len(values - {None}) > 1 else None


def _signature(entry: Entry) -> tuple:
    return entry.operation, entry.reduction, entry.dtype, entry.shape, entry.root


def _shift(reference: Mapping[int, Entry], other: Mapping[int, Entry], seq: int) -> str | None:
    """Whether from `seq` on another rank's calls are the reference's next ones ("left out") or the ones before ("added").

    Two calls that agree are asked for, or one from the same line of the script, and none that does not.
    """
    for name, step_reference, step_other in (("left out", 1, 0), ("added", 0, 1)):
        pairs = [
            (reference[number + step_reference], other[number + step_other])
            for number in sorted(set(reference) | set(other))
            if number >= seq and number + step_reference in reference and number + step_other in other
        ]
        agree = [_signature(one) == _signature(two) for one, two in pairs]
        same_line = any(one.where is not None and one.where == two.where for one, two in pairs)
        if agree and all(agree) and (len(agree) > 1 or same_line):
            return name
    return None
