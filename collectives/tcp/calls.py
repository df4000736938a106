"""What is called: groups of ranks, and the operations that they have under way."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .frames import CODES, SEND, Kind, pack
from .requests import Combine, Combining, Filling, Receive, Send, bytes_of

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["SHORT", "Call", "Group", "Request", "Steps"]

SHORT = 1 << 17
"""Bytes up to which a message is sent without asking: keeping it costs the receiver less than an answer."""

Request = Send | Receive
Steps = Generator[Iterable[Request], None, None]
"""An algorithm: yields the messages that have to be done before it goes on."""


class Group:
    """Ranks that call together.

    Attributes
    ----------
    id : int
        The same on all of them, and of no other group of theirs.
    members : sequence of int
        Their ranks in the job.
    rank : int
        This one's place among them.
    calls : int
        How many collectives have been called.
    """

    def __init__(self, id: int, members: Sequence[int], rank: int) -> None:
        self.id, self.members, self.rank = id, tuple(members), rank
        self.size = len(self.members)
        self.place_of = {member: place for place, member in enumerate(self.members)}
        self.calls = 0
        self.come: dict[int, int] = {}
        """How many collectives each other rank of the job is known to have called."""


class Call:
    """An operation under way, seen by its algorithm: ranks are the group's, messages are arrays.

    Attributes
    ----------
    operation : str
        Its name.
    number : int
        Which of the group's collectives it is; the tag of a send or a receive.
    finished : bool
        Whether it is done or has failed.
    error : Exception or None
        Why it has failed.
    """

    def __init__(self, engine: Engine, group: Group, operation: str, number: int, arguments: int = 0) -> None:
        self.engine, self.group, self.operation, self.number = engine, group, operation, number
        self.rank, self.size = group.rank, group.size
        self.code, self.arguments = CODES[operation], arguments
        self.finished = False
        self.error: Exception | None = None
        self.waits_for: list[Request] = []
        self.open = 0
        """How many of those are not done."""
        self.started: list[Request] = []
        """Everything that was begun and was not done when it began."""
        self.steps: Steps | None = None

    @property
    def collective(self) -> bool:
        """Whether all ranks of the group call it."""
        return self.code < SEND

    def header(self, kind: Kind, slot: int, length: int, transfer: int = 0) -> bytes:
        """The header of one of its messages."""
        return pack(
            kind, code=self.code, slot=slot, transfer=transfer, arguments=self.arguments, group=self.group.id, number=self.number,
            length=length,
        )  # fmt: skip

    def send(self, rank: int, array: np.ndarray, slot: int = 0, origin: Receive | None = None) -> Send:
        """Start to send an array; with `origin`, what is received into it as it comes."""
        return self.engine.delivery.send(self, self.group.members[rank], bytes_of(array), slot, origin)

    def receive(self, rank: int | None, array: np.ndarray, slot: int = 0) -> Receive:
        """Expect a message that overwrites an array."""
        source = None if rank is None else self.group.members[rank]
        return self.engine.delivery.receive(Receive(self, source, self.number, slot, Filling(bytes_of(array))))

    def receive_and_combine(self, rank: int, count: int, dtype: np.dtype, combine: Combine, slot: int = 0) -> Receive:
        """Expect a message of so many elements, with which `combine` is called block by block."""
        place = Combining(count, dtype, combine)
        return self.engine.delivery.receive(Receive(self, self.group.members[rank], self.number, slot, place))
