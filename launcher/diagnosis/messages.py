"""Sends and receives: which ones have no partner, by sender, receiver and tag.

A send may be complete though nobody has received it, since small messages are buffered. So completed ones are counted
against each other where both records reach back to the start; where they do not, only what is unfinished is judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from launcher.diagnosis.flight import Entry
from launcher.diagnosis.groups import Calls
from launcher.diagnosis.waiting import Wait


class Message(NamedTuple):
    """One end of a message: a send, or a receive."""

    calls: Calls
    rank: int  # whose call it is
    peer: int | None  # the rank at the other end; None where a receive takes from any
    entry: Entry

    @property
    def sends(self) -> bool:
        """Whether it is the sender's end."""
        return "send" in self.entry.operation

    def takes(self, send: Message) -> bool:
        """Whether this receive takes what that send gives."""
        return (
            self.calls.members == send.calls.members
            and self.calls.name == send.calls.name
            and send.peer == self.rank
            and self.peer in (None, send.rank)
            and (self.entry.tag is None or self.entry.tag == send.entry.tag)
        )


class Unmatched(NamedTuple):
    """What the ends of the messages say when they are held against each other."""

    receives: tuple[Message, ...]  # wait, and what they wait for has not been sent
    sends: tuple[Message, ...]  # wait, and nobody receives them
    lost: tuple[Message, ...]  # complete, but never received
    stuck: tuple[tuple[Message, Message], ...]  # both ends are there and neither finishes

    def tag_of(self, receive: Message) -> Message | None:
        """A send from the awaited rank to the waiting one that nobody takes, because its tag is another."""
        return next(
            (
                send for send in (*self.sends, *self.lost)
                if send.calls is receive.calls and send.peer == receive.rank and receive.peer in (None, send.rank)
            ),
            None,
        )  # fmt: skip


def match(groups: Sequence[Calls]) -> Unmatched:
    """Holds all sends of the groups against all receives."""
    messages = [message for calls in groups for message in _messages(calls)]
    open_sends = [message for message in _unfinished(messages) if message.sends]
    open_receives = [message for message in _unfinished(messages) if not message.sends]
    buffered = _never_received(messages)
    waiting, stuck = [], []
    # Receives that name their sender first: one from any rank is content with what they leave.
    for receive in sorted(open_receives, key=lambda message: message.peer is None):
        send = next((send for send in (*open_sends, *buffered) if receive.takes(send)), None)
        if send is None:
            waiting.append(receive)
            continue
        (open_sends if send in open_sends else buffered).remove(send)
        stuck.append((send, receive))
    return Unmatched(tuple(waiting), tuple(open_sends), tuple(buffered), tuple(stuck))


def message_waits(unmatched: Unmatched) -> list[Wait]:
    """The waits that sends and receives without a partner are."""
    ends = (*unmatched.receives, *unmatched.sends)
    return [
        Wait(message.rank, message.peer, message.calls, message.entry)
        for message in ends
        if message.peer is not None and message.peer != message.rank
    ]


def _messages(calls: Calls) -> list[Message]:
    found = []
    for rank, record in calls.records.items():
        if not calls.knows(rank):
            continue
        for entry in record.entries:
            if entry.group == calls.name and entry.seq is None and entry.operation.startswith(("send", "recv", "isend", "irecv")):
                peer = None if entry.peer is None else calls.world(entry.peer)
                found.append(Message(calls, rank, peer, entry))
    return found


def _unfinished(messages: Iterable[Message]) -> list[Message]:
    """Those under way, and failures after which nothing of the kind went well."""
    kept: dict[tuple, list[Message]] = {}
    for message in messages:
        entry = message.entry
        kind = kept.setdefault((message.calls.label, message.rank, message.sends, message.peer, entry.tag), [])
        if entry.complete:
            kind[:] = [other for other in kind if other.entry.state == "under way"]
        else:
            kind.append(message)
    return [message for kind in kept.values() for message in kind]


def _never_received(messages: Sequence[Message]) -> list[Message]:
    """Completed sends that outnumber the receives, where both records tell all."""
    whole = {message.rank for message in messages if message.calls.records[message.rank].begins_at_start}
    # A receive from any rank, or with any tag, may have taken whatever came.
    open_minded = {
        (message.calls.label, message.rank) for message in messages
        if not message.sends and (message.peer is None or message.entry.tag is None)
    }  # fmt: skip
    received = Counter(
        (message.calls.label, message.peer, message.rank, message.entry.tag)
        for message in messages
        if not message.sends and message.entry.complete
    )
    lost = []
    for message in messages:
        if not message.sends or not message.entry.complete or message.peer is None:
            continue
        receiver = message.calls.records.get(message.peer)
        if receiver is None or not receiver.begins_at_start or message.rank not in whole:
            continue
        if (message.calls.label, message.peer) in open_minded:
            continue
        key = (message.calls.label, message.rank, message.peer, message.entry.tag)
        if received[key]:
            received[key] -= 1
        else:
            lost.append(message)
    return lost
