"""Phrases that several stories of the verdict share: who waits for whom, in which call, how long, and where."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.diagnosis.case import Case, waited
from launcher.diagnosis.flight import Entry
from launcher.diagnosis.groups import Calls
from launcher.diagnosis.waiting import Wait
from launcher.diagnosis.words import at, call, duration, gathered, have, named

KINDS = 3  # different calls or places that still fit into a sentence
ERROR = 300  # characters of an error in a sentence


def who_waits(case: Case, waiting: Sequence[Wait], whom: str) -> str:
    """Who waits for them, in which call; the call in which most of them wait."""
    if not waiting:
        return f"nobody waits for {whom}"
    key = {wait.waiter: (wait.calls.label, wait.entry.seq, wait.entry.operation) for wait in waiting}
    ranks = gathered(key)[0][0]
    some = [wait for wait in waiting if wait.waiter in ranks]
    more = "" if len(some) == len(waiting) else f" (and {named([wait.waiter for wait in waiting if wait not in some])} in other calls)"
    length = how_long(case, some)
    return f"{named(ranks)} {have(ranks)} waited {length} for {whom} in {numbered(some[0].calls, some[0].entry)}{more}"


def how_long(case: Case, waiting: Sequence[Wait]) -> str:
    """How long ranks have waited, each on its own clock."""
    seconds = [waited(case.records[wait.waiter], wait.entry) for wait in waiting]
    if min(seconds) > 0.9 * max(seconds):
        return duration(max(seconds))
    return f"{duration(min(seconds))} to {duration(max(seconds))}"


def across(hosts: Sequence[str]) -> str:
    """On which hosts."""
    if len(hosts) == 1:
        return f"all on {hosts[0]}"
    return f"between {len(hosts)} hosts ({', '.join(hosts[:4])}{', ...' if len(hosts) > 4 else ''})"


def numbered(calls: Calls, entry: Entry) -> str:
    """A call with its number and its group."""
    if entry.seq is None:
        return f"{call(entry, calls.members)} of {calls.label}{f' ({entry.where})' if entry.where else ''}"
    return f"call {entry.seq} of {calls.label} ({call(entry, calls.members)}{at(entry.where)})"


def last_call(calls: Calls, rank: int) -> str:
    """A rank's last call in a group in a few words; empty where it made none."""
    number = calls.last(rank)
    if number is None:
        return "older than its record"
    if number == 0:
        return ""
    entry = calls.by_seq[rank][number]
    return f"{number} ({call(entry, calls.members)}{at(entry.where)}, {entry.state})"


def where_they_were(case: Case, ranks: Sequence[int]) -> str:
    """What the main threads of ranks were doing."""
    kinds = gathered({rank: case.records[rank].place for rank in ranks})
    if len(kinds) == 1:
        return kinds[0][1]
    return "; ".join(f"{where} ({named(some)})" for some, where in kinds[:KINDS])


def subject(case: Case, ranks: Sequence[int]) -> str:
    """Ranks as the beginning of a sentence."""
    if len(ranks) == case.world_size:
        return "The only rank" if case.world_size == 1 else f"All {case.world_size} ranks"
    return named(ranks, capital=True)


def shortened(error: str | None) -> str:
    """An error on one line."""
    text = " ".join((error or "").split())
    return text if len(text) <= ERROR else text[: ERROR - 3] + "..."


def capital(text: str) -> str:
    """A text with a capital in front."""
    return text[:1].upper() + text[1:]
