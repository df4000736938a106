"""The verdict: what stopped the job, in one to three sentences, and what to look at next.

Stories are tried in the order in which one explains another: ranks that called different things or raised an exception
make others wait; a rank that is missing makes others wait; only where nobody is missing can the data be what is late.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from launcher.diagnosis.case import Case, waited
from launcher.diagnosis.mismatch import Mismatch
from launcher.diagnosis.phrases import (
    KINDS,
    across,
    capital,
    how_long,
    last_call,
    numbered,
    shortened,
    subject,
    where_they_were,
    who_waits,
)
from launcher.diagnosis.words import at, call, duration, gathered, have, named, of


class Verdict(NamedTuple):
    """What happened."""

    kind: str  # the story's name, for programs
    ranks: tuple[int, ...]  # whom it is about
    sentences: tuple[str, ...]
    advice: tuple[str, ...]


def verdict(case: Case) -> Verdict:
    """The first story that fits."""
    return next(found for story in _STORIES if (found := story(case)))


def _mismatch(case: Case) -> Verdict | None:
    return _disagreement(case.serious[0]) if case.serious else None


def _any_mismatch(case: Case) -> Verdict | None:
    return _disagreement(case.mismatches[0]) if case.mismatches else None


def _disagreement(found: Mismatch) -> Verdict:
    rows = found.rows
    kinds = "; ".join(f"{named(ranks)} called {call(entry, found.calls.members)}{at(entry.where)}" for ranks, entry in rows[:KINDS])
    more = f"; and {len(rows) - KINDS} more kinds, listed below" if len(rows) > KINDS else ""
    fields = " and ".join(found.fields)
    sentences = [f"The ranks of {found.calls.label} did not agree on call {found.seq} ({fields}): {kinds}{more}."]
    if found.shift:
        sentences.append(_shifted(found))
    if found.earlier:
        sentences.append("The records do not reach further back, so the ranks may have parted before.")
    where = next((entry.where for rank, entry in found.entries.items() if rank in found.odd and entry.where), None)
    advice = [
        f"In the script{at(where)}: what made {named(found.odd) if found.odd else 'the ranks'} go another way? Every rank of a "
        "group must make the same calls in the same order, so none may stand in a branch that only some ranks take.",
    ]
    if not any(record.reason == "mismatch" for record in found.calls.records.values()):
        advice.append(
            "dlaunch --debug mismatch (DISTTORCH_DEBUG=mismatch) compares the calls before any data moves, and raises on every "
            "rank at the first difference."
        )
    return Verdict("mismatch", found.odd or tuple(found.entries), tuple(sentences), tuple(advice))


def _shifted(found: Mismatch) -> str:
    others = "the other ranks'" if len(found.entries) > 2 else f"rank {found.reference}'s"
    if found.earlier:  # which call it was, none of the records holds any more
        late, one = ("next ones", "left out one") if found.shift == "left out" else ("one call late", "made one more")
        return f"From there on rank {found.other}'s calls are {others} {late}, as if it had {one}."
    if found.shift == "left out":
        left = found.entries[found.reference]
        return (
            f"From there on rank {found.other}'s calls are {others} next ones, as if it had left out "
            f"{call(left, found.calls.members)}{at(left.where)}."
        )
    extra = found.entries[found.other]
    return (
        f"From there on rank {found.other}'s calls are {others} one call late, as if it had made one more: "
        f"{call(extra, found.calls.members)}{at(extra.where)}."
    )


def _failure(case: Case) -> Verdict | None:
    if not case.failures:
        return None
    ranks = [record.rank for record in case.failures]
    kinds = gathered({record.rank: record.error for record in case.failures})
    first = case.failures[0]
    if len(kinds) == 1 and len(ranks) > 1:
        sentences = [f"{subject(case, ranks)} raised {shortened(first.error)}, at {first.place}."]
    else:
        only = "The only rank" if case.world_size == 1 else f"Rank {first.rank}"
        who = f"{only} (pid {first.pid} on {first.host})"
        if len(ranks) == 1 or case.ordered:
            word = " first" if len(ranks) > 1 else ""
            sentences = [f"{who} raised {shortened(first.error)}{word}, at {first.place}."]
        else:
            sentences = [
                f"{named(ranks, True)} raised exceptions of their own on hosts whose clocks have nothing in common, so which "
                f"was first is not known; rank {first.rank}'s is {shortened(first.error)}, at {first.place}."
            ]
        others = [rank for rank in ranks if rank != first.rank]
        if others and case.ordered:
            sentences.append(f"{named(others, True)} raised later, and not because of it.")
    if waiting := case.waits.direct(ranks):
        sentences.append(capital(who_waits(case, waiting, of(ranks, "it", "them"))) + ".")
    advice = [f"The whole traceback is in the output of {named(ranks)} (dlaunch shows that of the first; --tag tells ranks apart)."]
    return Verdict("error", tuple(ranks), tuple(sentences[:3]), tuple(advice))


def _tags(case: Case) -> Verdict | None:
    if not case.other_tags:
        return None
    receive, send = case.other_tags[0]
    sentences = [
        f"Rank {receive.rank} waits for a message from rank {send.rank} with tag {receive.entry.tag}{at(receive.entry.where)}, and "
        f"what rank {send.rank} has sent it has tag {send.entry.tag}{at(send.entry.where)}."
    ]
    if len(case.other_tags) > 1:
        sentences.append(f"{len(case.other_tags) - 1} more receives wait for a tag that was not sent, listed below.")
    advice = ["A receive takes only a message with its own tag: which of the two is the right one?"]
    return Verdict("messages", (send.rank, receive.rank), tuple(sentences), tuple(advice))


def _missing(case: Case) -> Verdict | None:
    causes = case.waits.causes
    if not causes:
        return None
    here = [rank for rank in causes if rank in case.records]
    gone = [rank for rank in causes if rank in case.silent]
    unread = [rank for rank in causes if rank in case.damaged]
    sentences: list[str] = []
    advice: list[str] = []
    if here:
        sentences += _behind(case, here)
        first = case.records[here[0]]
        advice.append(
            f"In the script of rank {first.rank}: it was at {first.place}. Does a branch, a shorter loop or slow work of its own "
            "(loading data, saving, evaluating) keep it from the call?"
        )
    if gone:
        sentences += _lost(case, gone, bool(sentences))
        advice.append(
            f"How {named(gone)} ended: dlaunch's last lines, or mpiexec's, name a rank that was killed; out of memory shows in "
            "`dmesg`, or in `sacct -j JOBID --format=JobID,State,ExitCode,MaxRSS` under Slurm."
        )
        advice.append(
            "A rank that has fewer batches than the others ends its loop first and writes nothing: has every rank equally many?"
        )
    if unread:
        waits = who_waits(case, case.waits.direct(unread), of(unread, "it", "them"))
        sentences.append(f"The {of(unread, 'record', 'records')} of {named(unread)} cannot be read, and {waits}.")
        advice.append("Why a record is damaged, such as a full disk: the files are named below.")
    if here and (receive := next((one for one in case.unmatched.receives if one.peer is None and one.rank in here), None)):
        what = f"{call(receive.entry)}{at(receive.entry.where)}"
        sentences.append(f"Rank {receive.rank} waits for a message that nobody has sent ({what}).")
    if here and (indirect := case.waits.indirect(causes)):
        sentences.append(f"{named(indirect, True)} {of(indirect, 'waits', 'wait')} for ranks that wait for {of(here, 'it', 'them')}.")
    if any(record.reason == "timeout" for record in case.records.values()):
        advice.append("If that rank only needs longer, wait longer: dlaunch --timeout SECONDS, or DISTTORCH_TIMEOUT.")
    kind = "behind" if here else "no record" if gone else "damaged"
    return Verdict(kind, tuple(here or gone or unread), tuple(sentences[:3]), tuple(advice))


def _behind(case: Case, ranks: Sequence[int]) -> list[str]:
    """What ranks do that others wait for and that have a record."""
    waiting = case.waits.direct(ranks)
    wait = waiting[0]
    waiters = [one.waiter for one in waiting]
    was = f"{capital(of(ranks, 'it was', 'they were'))} at {where_they_were(case, ranks)}."
    if wait.entry.seq is None:
        message = "sent the message" if "recv" in wait.entry.operation else "received the message"
        text = f"{named(ranks, True)} {have(ranks)} not {message} for which {named(waiters)} {have(waiters)} waited "
        return [f"{text}{how_long(case, waiting)} ({call(wait.entry, wait.calls.members)}{at(wait.entry.where)}).", was]
    if all(not case.records[rank].entries and case.records[rank].begins_at_start for rank in ranks):
        text = f"{named(ranks, True)} {have(ranks)} called nothing at all"
        return [f"{text}; {who_waits(case, waiting, of(ranks, 'it', 'them'))}.", was]
    text = f"{named(ranks, True)} {have(ranks)} not made {numbered(wait.calls, wait.entry)}, in which "
    text += f"{named(waiters)} {have(waiters)} waited {how_long(case, waiting)}."
    some, last = gathered({rank: last_call(wait.calls, rank) for rank in ranks})[0]
    whose = "Its" if len(ranks) == 1 else f"Rank {some[0]}'s"
    has_not = f"{'It' if len(ranks) == 1 else f'Rank {some[0]}'} has called nothing there"
    second = f"{f'{whose} last call there is {last}' if last else has_not}; it was at {case.records[some[0]].place}"
    if some[0] in case.old:
        second += f", {duration(case.old[some[0]])} before the latest record was written"
    return [text, second + "."]


def _lost(case: Case, ranks: Sequence[int], also: bool) -> list[str]:
    """Ranks that others wait for and that wrote nothing."""
    waiting = case.waits.direct(ranks)
    it, they = of(ranks, "it", "them"), of(ranks, "it", "they")
    too = ", too" if also else ""
    text = f"{named(ranks, True)} wrote no record, and {who_waits(case, waiting, it)}{too}."
    calls = waiting[0].calls
    joint = calls.last_joint()
    reasons = f"killed, at the end of {of(ranks, 'its', 'their')} script already, or busy without waiting for anybody"
    were = of(ranks, "was", "were")
    if joint is not None:
        seq, entry = joint
        made = f"{capital(they)} took part in call {seq} of {calls.label} ({entry.operation}{at(entry.where)})"
        second = f"{made}; since then {they} {were} {reasons}."
    else:
        none = f"No call that needs all ranks of {calls.label} was ever finished"
        second = f"{none}, so {they} may never have started; or {they} {were} {reasons}."
    # An error, unlike a timeout, comes from a rank that has seen something.
    seen = next((record for record in case.consequences if record.reason == "error"), None)
    return [text, second] if seen is None else [text, second, f"Rank {seen.rank} saw: {shortened(seen.error).removesuffix('.')}."]


def _circle(case: Case) -> Verdict | None:
    circle = case.waits.circle
    if not circle:
        return None
    steps = [
        f"rank {wait.waiter} waits for rank {wait.target} in {numbered(wait.calls, wait.entry)}" for wait in circle[:4]
    ]
    more = f", and so on over {len(circle)} ranks" if len(circle) > 4 else ""
    ranks = sorted(wait.waiter for wait in circle)
    sentences = [f"{named(ranks, True)} wait for each other, for ever: {'; '.join(steps)}{more}."]
    if rest := case.waits.indirect(ranks) + [wait.waiter for wait in case.waits.direct(ranks)]:
        sentences.append(f"{named(rest, True)} {of(rest, 'waits', 'wait')} for them.")
    collective = all(wait.entry.seq is not None for wait in circle)
    advice = (
        "Ranks that are members of several groups must call them in one order: say, world first, then the smaller group."
        if collective
        else "Two ranks that both send first, or both receive first, wait for each other: let one of them receive first, or "
        "start the sends with async_op=True (isend) before the receives."
    )
    return Verdict("deadlock", tuple(ranks), tuple(sentences), (advice,))


def _transport(case: Case) -> Verdict | None:
    if not case.transports or not _anything_wrong(case):
        return None
    calls = case.transports[0]
    kinds = "; ".join(
        f"{named(ranks)} {of(ranks, 'uses', 'use')} {name}" for ranks, name in gathered(calls.transports())
    )
    text = f"The ranks of {calls.label} use different transports and cannot hear each other: {kinds}."
    advice = (
        "DISTTORCH_TRANSPORT must be the same on all ranks, and what a transport needs (shared memory, NCCL, a GPU) must be on "
        "every host: compare `dlaunch info` there."
    )
    return Verdict("transport", calls.members, (text,), (advice,))


def _under_way(case: Case) -> Verdict | None:
    if case.together:
        calls, seq = case.together[0]
        entries = calls.callers(seq)
        waiting = sorted(rank for rank, entry in entries.items() if not entry.complete)
        done = sorted(set(calls.members) - set(waiting))
        ranks = tuple(waiting)
        entry = entries[waiting[0]]
        length = duration(max(waited(case.records[rank], entries[rank]) for rank in waiting))
        all_of = f"All {len(calls.members)} ranks" if len(calls.members) > 1 else "The only rank"
        what = f"nobody has finished it after {length}"
        if done:
            what = f"{named(waiting)} {have(waiting)} not finished it after {length}, {named(done)} {have(done)}"
        hosts = sorted({record.host for record in calls.records.values()})
        by = next(iter(set(calls.transports().values()) - {None}), "a transport that is not named")
        sentences = [
            f"{all_of} of {calls.label} {have(calls.members)} made call {seq} ({call(entry, calls.members)}{at(entry.where)}), and {what}.",
            f"So no rank is missing, but the data does not get through: by {by}, {across(hosts)}.",
        ]
    elif case.unmatched.stuck:
        send, receive = case.unmatched.stuck[0]
        ranks = (send.rank, receive.rank)
        hosts = sorted({case.records[rank].host for rank in ranks})
        length = duration(waited(case.records[receive.rank], receive.entry))
        sentences = [
            f"Rank {send.rank} has sent a message ({call(send.entry, send.calls.members)}{at(send.entry.where)}), and it has not "
            f"reached rank {receive.rank}, which has waited {length} for it; {across(hosts)}."
        ]
    else:
        return None
    advice = []
    if len(hosts) > 1:
        advice.append(
            f"Whether {hosts[0]} and {hosts[1]} reach each other on the network that the transport uses (a firewall, several "
            "interfaces, a host name that means 127.0.0.1 on its own host)."
        )
    advice.append(
        "The same job with another transport: DISTTORCH_TRANSPORT=mpi, tcp or shared. If it runs, the first one is what to look at."
    )
    advice.append("`dlaunch info` on the hosts: versions of MPI and NCCL that differ, a full /dev/shm, limits.")
    return Verdict("under way", ranks, tuple(sentences), tuple(advice))


def _any_source(case: Case) -> Verdict | None:
    receives = [message for message in case.unmatched.receives if message.peer is None]
    if not receives:
        return None
    ranks = sorted({message.rank for message in receives})
    entry = receives[0].entry  # from any rank, so there is none to translate
    text = f"{named(ranks, True)} {of(ranks, 'waits', 'wait')} for a message that nobody has sent ({call(entry)}{at(entry.where)})."
    return Verdict("messages", tuple(ranks), (text,), ("Which rank was to send it, and with which tag?",))


def _consequence(case: Case) -> Verdict | None:
    if not case.consequences:
        return None
    together = gathered({record.rank: shortened(record.error) for record in case.consequences})
    ranks, error = together[0]
    first = case.records[ranks[0]]
    sentences = [f"{subject(case, ranks)} raised {error}, at {first.place}."]
    if case.silent:
        sentences.append(f"{named(case.silent, True)} wrote no record.")
    else:
        sentences.append("The calls in the records do not show the reason.")
    advice = ("The whole text of the errors, in the ranks' output: it was raised by the transport and names what it met.",)
    return Verdict("communication", tuple(ranks), tuple(sentences), advice)


def _fine(case: Case) -> Verdict:
    slow = case.stragglers[:1]
    longest = case.longest_wait
    sentences = ["No rank was stuck when the records were written."]
    if longest is not None:
        seconds, rank, entry = longest
        sentences = [
            f"No rank was stuck when the records were written: the longest wait was that of rank {rank}, {duration(seconds)} in "
            f"{call(entry)}{at(entry.where)}."
        ]
    advice = []
    if case.silent:
        sentences.append(
            f"{named(case.silent, True)} wrote no record: only a rank that waits too long, fails or gets SIGUSR1 writes one."
        )
        advice.append("All ranks' records: send SIGUSR1 to dlaunch, which passes it on to every rank.")
    if slow:
        late = slow[0]
        sentences.append(
            f"Rank {late.rank} is slow: it makes its calls in {late.calls.label} {duration(late.lag)} later than the others, of "
            f"{duration(late.between)} from call to call (medians of {late.number} calls)."
        )
        advice.append(
            f"What is different on rank {late.rank} (host {case.records[late.rank].host}): more data, more work, fewer cores, "
            "another program on its host? `dlaunch info` there."
        )
    kind = "straggler" if slow else "nothing"
    return Verdict(kind, tuple(late.rank for late in slow), tuple(sentences), tuple(advice))


def _healthy(case: Case) -> Verdict | None:
    return _fine(case) if case.running else None


_STORIES: tuple[Callable[[Case], Verdict | None], ...] = (
    _healthy, _mismatch, _failure, _transport, _tags, _missing, _circle, _under_way, _any_mismatch, _any_source, _consequence, _fine,
)


def _anything_wrong(case: Case) -> bool:
    return bool(case.waits.all or case.together or case.consequences)
