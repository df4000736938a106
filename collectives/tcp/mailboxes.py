"""Which message is for whom: what is expected and what has come, of one collective call or of one tag."""

from __future__ import annotations

from collections.abc import Iterable

from .requests import Arrival, Receive

__all__ = ["Letters", "Mailbox"]


class Mailbox:
    """The messages of one collective call: each has a slot and a sender, and there is one of each.

    Attributes
    ----------
    code : int or None
        Which operation this rank has called there.
    failure : str
        Why the call has failed, if it has: its messages are discarded.
    """

    __slots__ = ("_arrived", "_expected", "code", "failure")

    def __init__(self) -> None:
        self.code: int | None = None
        self.failure = ""
        self._expected: dict[tuple[int, int | None], Receive] = {}
        self._arrived: dict[tuple[int, int | None], Arrival] = {}

    def expect(self, receive: Receive) -> None:
        """Wait for a message."""
        self._expected[receive.slot, receive.source] = receive

    def match(self, slot: int, peer: int) -> Receive | None:
        """Who expects this message."""
        return self._expected.pop((slot, peer), None)

    def keep(self, arrival: Arrival) -> None:
        """A message that nobody expects yet."""
        self._arrived[arrival.slot, arrival.peer] = arrival

    def take(self, slot: int, source: int | None) -> Arrival | None:
        """The message, if it has come."""
        return self._arrived.pop((slot, source), None)

    def arrived(self) -> Iterable[Arrival]:
        """What has come and was not expected."""
        return list(self._arrived.values())

    def fail(self, reason: str) -> None:
        """Expect nothing more."""
        self.failure = reason or "failed"
        self._expected.clear()


class Letters:
    """The messages of one tag: those of one sender in the order in which they were sent."""

    __slots__ = ("_arrived", "_expected")

    def __init__(self) -> None:
        self._expected: list[Receive] = []
        self._arrived: list[Arrival] = []

    def expect(self, receive: Receive) -> None:
        """Wait for a message."""
        self._expected.append(receive)

    def match(self, peer: int) -> Receive | None:
        """Who has expected a message of this sender for the longest time."""
        for place, receive in enumerate(self._expected):
            if receive.source is None or receive.source == peer:
                return self._expected.pop(place)
        return None

    def keep(self, arrival: Arrival) -> None:
        """A message that nobody expects yet."""
        self._arrived.append(arrival)

    def take(self, source: int | None) -> Arrival | None:
        """The first message of this sender, or of anybody, if one has come."""
        for place, arrival in enumerate(self._arrived):
            if source is None or arrival.peer == source:
                return self._arrived.pop(place)
        return None

    def withdraw(self, receive: Receive) -> bool:
        """Expect a message no longer; False if it has come."""
        if receive in self._expected:
            self._expected.remove(receive)
            return True
        return False
