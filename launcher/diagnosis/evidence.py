"""The evidence: what the records hold that the verdict stands on, and what else is odd in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from launcher.diagnosis.case import Case, waited
from launcher.diagnosis.flight import OURS, RECORDER, Record
from launcher.diagnosis.groups import Calls
from launcher.diagnosis.messages import Message
from launcher.diagnosis.mismatch import Mismatch
from launcher.diagnosis.words import call, columns, duration, gathered, named, short

ROWS = 12  # of a table; what is left is counted
FRAMES = 3  # of a stack, the innermost
ONCE, AGAIN = 600, 160  # characters of an error: the first of its kind, and those that say much the same


class Finding(NamedTuple):
    """One piece of evidence."""

    kind: str  # for programs
    ranks: tuple[int, ...]
    title: str
    lines: tuple[str, ...]  # a table or a list below the title


def findings(case: Case) -> list[Finding]:
    """All evidence, what matters most first."""
    return [
        *_missing_records(case), *_errors(case), *_mismatches(case), *_groups(case), *_messages(case), *_transports(case),
        *_stacks(case), *_stragglers(case), *_programs(case), *_old(case),
    ]  # fmt: skip


def _missing_records(case: Case) -> Iterator[Finding]:
    if case.silent:
        yield Finding("no record", case.silent, f"{named(case.silent, True)} wrote no record", ())
    if case.damaged:
        yield Finding("damaged", case.damaged, f"{named(case.damaged, True)}: the record cannot be read", ())


def _errors(case: Case) -> Iterator[Finding]:
    raised = [record for record in case.records.values() if record.error is not None]
    if raised:
        together = gathered({record.rank: (record.reason, " ".join((record.error or "").split())) for record in raised})
        rows, shown = [], set()
        for ranks, (reason, error) in together:
            rows.append([short(ranks), reason, _cut(error, AGAIN if reason in shown else ONCE)])
            shown.add(reason)
        yield Finding("errors", _ranks(raised), "What the ranks raised", _table(["ranks", "record's reason", "error"], rows))


def _mismatches(case: Case) -> Iterator[Finding]:
    for found in case.mismatches:
        title = f"Call {found.seq} of {found.calls.label}: the ranks differ in {' and '.join(found.fields)}"
        if found.more:
            title += f"; so they do in {found.more} later {'call' if found.more == 1 else 'calls'}"
        yield Finding("mismatch", tuple(found.entries), title, _kinds(found))


def _kinds(found: Mismatch) -> tuple[str, ...]:
    cells = []
    for ranks, entry in found.rows:
        shape = "" if entry.shape is None else str(entry.shape)
        root = "" if entry.root is None else str(found.calls.world(entry.root))
        cells.append(
            [short(ranks), entry.operation, entry.reduction or "", entry.dtype or "", shape, root, entry.state, entry.where or ""]
        )
    return _table(["ranks", "operation", "reduction", "dtype", "shape", "root", "state", "where"], cells)


def _groups(case: Case) -> Iterator[Finding]:
    even = []
    for calls in case.groups:
        if len({calls.last(rank) for rank in calls.records}) <= 1 and not any(map(calls.unfinished, calls.records)):
            even.append(calls)
            continue
        yield Finding("group", calls.members, f"{_title(calls)}: the last call of each rank", _positions(case, calls))
    if even:
        lines = [f"{_title(calls)}: {_all_at(calls)}" for calls in even]
        shown = lines if len(lines) <= ROWS else [*lines[:ROWS], f"and {len(lines) - ROWS} more groups"]
        yield Finding("groups", (), "Groups in which all records are at the same call, and nobody waits", tuple(shown))


def _title(calls: Calls) -> str:
    transports = sorted({transport for transport in calls.transports().values() if transport})
    number = f"{len(calls.members)} {'rank' if len(calls.members) == 1 else 'ranks'}"
    return f"{calls.label} ({', '.join([number, *transports])})"


def _all_at(calls: Calls) -> str:
    last = next(iter({calls.last(rank) for rank in calls.records}))
    return "older than the records" if last is None else f"call {last}" if last else "no calls"


def _positions(case: Case, calls: Calls) -> tuple[str, ...]:
    """Where each member stands: the first call that it has not finished, or else its last one."""
    standings = {}
    for rank in calls.members:
        standings[rank] = _standing(case, calls, rank)
    rows = []
    for ranks, cells in gathered(standings):
        lengths = sorted(
            waited(calls.records[rank], entry[0])
            for rank in ranks if rank in calls.records and (entry := calls.unfinished(rank))
        )  # fmt: skip
        length = ""
        if lengths:
            low, high = duration(lengths[0]), duration(lengths[-1])
            length = high if lengths[0] > 0.9 * lengths[-1] else f"{low} to {high}"
        rows.append([short(ranks), *cells[:3], length, cells[3]])
    return _table(["ranks", "call", "", "state", "for", "where"], rows)


def _standing(case: Case, calls: Calls, rank: int) -> tuple[str, str, str, str]:
    if rank in case.damaged:
        return "", "(record damaged)", "", ""
    if rank not in calls.records:
        return "", "(no record)", "", ""
    if not calls.knows(rank):
        return "", "(has not made this group)", "", ""
    last = calls.last(rank)
    if not last:
        return "", "(none)" if last == 0 else "(none in its record)", "", ""
    unfinished = calls.unfinished(rank)
    entry = unfinished[0] if unfinished else calls.by_seq[rank][last]
    more = f", and {len(unfinished) - 1} after it" if len(unfinished) > 1 else ""
    return str(entry.seq), call(entry, calls.members), entry.state + more, entry.where or ""


def _messages(case: Case) -> Iterator[Finding]:
    unmatched = case.unmatched
    for title, messages in (
        ("Receives for which nothing was sent", unmatched.receives),
        ("Sends that wait, and that nobody receives", unmatched.sends),
        ("Sends that were never received", unmatched.lost),
        ("Messages of which both ends are there and that have not arrived", [end for pair in unmatched.stuck for end in pair]),
    ):
        if not messages:
            continue
        keys = {index: _message(case, message) for index, message in enumerate(messages)}
        rows = [[*cells[:5], f"{len(some)} times" if len(some) > 1 else "", cells[5]] for some, cells in gathered(keys)]
        header = ["rank", "group", "call", "rank at the other end", "tag", "", "where"]
        ranks = tuple(sorted({message.rank for message in messages}))
        yield Finding("messages", ranks, title, _table(header, rows))


def _message(case: Case, message: Message) -> tuple[str, ...]:
    entry = message.entry
    tag = "any" if entry.tag is None else str(entry.tag)
    peer = "any" if message.peer is None else str(message.peer)
    return str(message.rank), message.calls.label, entry.operation, peer, tag, entry.where or ""


def _transports(case: Case) -> Iterator[Finding]:
    for calls in case.transports:
        rows = [[short(ranks), name or "(not named)"] for ranks, name in gathered(calls.transports())]
        title = f"The ranks of {calls.label} name different transports"
        yield Finding("transport", calls.members, title, _table(["ranks", "transport"], rows))


def _stacks(case: Case) -> Iterator[Finding]:
    frames = {rank: _frames(record.stack) for rank, record in case.records.items() if record.stack}
    if frames:
        rows = [[short(ranks), stack] for ranks, stack in gathered(frames)]
        title = "Where the ranks were (outermost call first)"
        yield Finding("stacks", tuple(frames), title, _table(["ranks", "main thread"], rows))


def _frames(stack: Sequence[str]) -> str:
    """The innermost frames of the user's program, and below them the innermost of ours that is not the recorder's."""
    while len(stack) > 1 and stack[-1].startswith(RECORDER):
        stack = stack[:-1]
    theirs = [index for index, frame in enumerate(stack) if not frame.startswith(OURS)]
    shown = [stack[index] for index in theirs[-FRAMES:]]
    if not theirs or theirs[-1] < len(stack) - 1:
        shown.append(f"({stack[-1]})")
    return " > ".join(shown)


def _stragglers(case: Case) -> Iterator[Finding]:
    if case.stragglers:
        rows = [
            [str(late.rank), case.records[late.rank].host, late.calls.label, duration(late.lag), duration(late.between), str(late.number)]
            for late in case.stragglers
        ]
        header = ["rank", "host", "group", "later than the others", "from call to call", "calls"]
        ranks = tuple(late.rank for late in case.stragglers)
        yield Finding("stragglers", ranks, "Slow ranks, by medians", _table(header, rows))


def _programs(case: Case) -> Iterator[Finding]:
    kinds = gathered({rank: record.program for rank, record in case.records.items()})
    if len(kinds) > 1:
        rows = [[short(ranks), " ".join(program)] for ranks, program in kinds]
        yield Finding("programs", tuple(case.records), "The ranks run different programs", _table(["ranks", "program"], rows))


def _old(case: Case) -> Iterator[Finding]:
    for rank, seconds in case.old.items():
        title = (
            f"Rank {rank}'s record was written at a signal, {duration(seconds)} before the latest: it shows where the rank was then"
        )
        yield Finding("old", (rank,), title, ())


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _ranks(records: Sequence[Record]) -> tuple[int, ...]:
    return tuple(record.rank for record in records)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """A table without the columns in which nothing stands."""
    used = [column for column in range(len(header)) if any(row[column] for row in rows)]
    lines = columns([[row[column] for column in used] for row in [header, *rows[:ROWS]]])
    return tuple([*lines, f"and {len(rows) - ROWS} rows more"] if len(rows) > ROWS else lines)
