"""Delivery: which message is for whom. It finds the receive for what comes, and keeps what nobody expects yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import CollectiveMismatchError, CommunicationError
from .calls import SHORT, Call, Request
from .frames import OPERATIONS, SEND, Kind
from .mailboxes import Letters, Mailbox
from .requests import Arrival, Discarding, Place, Receive, Send

if TYPE_CHECKING:
    from .connection import Connection
    from .engine import Engine

__all__ = ["Delivery"]


class Delivery:
    """The messages of an engine's calls.

    Parameters
    ----------
    engine : Engine
        Whose calls they are; it is told when one of them is done or fails.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._mailboxes: dict[tuple[int, int], Mailbox] = {}
        self._letters: dict[tuple[int, int], Letters] = {}

    # What calls ask for ----------------------------------------------------------------------------------------------

    def send(self, call: Call, peer: int, view: memoryview, slot: int, origin: Receive | None) -> Send:
        """Start a message."""
        send = Send(call, peer, view, origin)
        if peer == self._engine.rank:
            self._send_to_self(send)
            return send
        connection = self._engine.peers[peer]
        if connection.lost:
            raise self._engine.lost(connection, call)
        call.started.append(send)
        if len(view) <= SHORT and origin is None:
            connection.tell(call.header(Kind.MESSAGE, slot, len(view)), view, send)
        else:
            connection.offer(send, slot)
            if origin is not None:
                origin.followers.append(send)
        return send

    def _send_to_self(self, send: Send) -> None:
        call = send.call
        letters = self._letters.setdefault((call.group.id, call.number), Letters())
        receive = letters.match(self._engine.rank)
        if receive is None:
            arrival = Arrival(self._engine.rank, SEND, 0, 0, len(send.view), None)
            arrival.place.write(send.view)
            letters.keep(arrival)
        elif self._fits(receive, self._engine.rank, len(send.view)):
            receive.peer = self._engine.rank
            receive.place.write(send.view)
            self.finished(receive)
        self.finished(send)

    def receive(self, receive: Receive) -> Receive:
        """Expect a message: it may be here already."""
        call = receive.call
        key = (call.group.id, call.number)
        call.started.append(receive)
        if call.collective:
            mailbox = self.mailbox(key)
            arrival = mailbox.take(receive.slot, receive.source)
            if arrival is None:
                mailbox.expect(receive)
        else:
            letters = self._letters.setdefault(key, Letters())
            arrival = letters.take(receive.source)
            if arrival is None:
                letters.expect(receive)
        if arrival is not None:
            self._meet(receive, arrival)
        elif (lost := self._engine.nobody_left(receive)) is not None:
            if not call.collective:
                self._letters[key].withdraw(receive)
            raise self._engine.lost(lost, call)
        return receive

    def _meet(self, receive: Receive, arrival: Arrival) -> None:
        """A message that is expected has come or been offered before."""
        if not self._fits(receive, arrival.peer, arrival.size):
            self.discard(arrival)
            return
        receive.peer = arrival.peer
        if arrival.transfer is not None:
            if self._engine.peers[arrival.peer].lost:
                raise self._engine.lost(self._engine.peers[arrival.peer], receive.call)
            self._engine.peers[arrival.peer].accept(arrival.transfer, receive)
        elif arrival.complete:
            receive.place.write(arrival.kept)
            self.finished(receive)
        else:
            arrival.receive = receive

    # What connections tell --------------------------------------------------------------------------------------------

    def message(
        self, connection: Connection, code: int, arguments: int, slot: int, group: int, number: int, size: int
    ) -> Receive | Arrival | Place:
        """A short message begins to arrive: where it goes."""
        receive, failed = self._find(connection, code, arguments, slot, group, number)
        if failed:
            return Discarding(size)
        if receive is None:
            arrival = Arrival(connection.rank, code, arguments, slot, size, None)
            self._keep(arrival, group, number)
            return arrival
        if not self._fits(receive, connection.rank, size):
            return Discarding(size)
        receive.peer = connection.rank
        return receive

    def offered(
        self, connection: Connection, code: int, arguments: int, slot: int, group: int, number: int, size: int, transfer: int
    ) -> None:
        """A long message is offered."""
        receive, failed = self._find(connection, code, arguments, slot, group, number)
        if receive is None and not failed:
            self._keep(Arrival(connection.rank, code, arguments, slot, size, transfer), group, number)
        elif failed or receive is None or not self._fits(receive, connection.rank, size):
            connection.accept(transfer, Discarding(size))
        else:
            receive.peer = connection.rank
            connection.accept(transfer, receive)

    def kept(self, arrival: Arrival) -> None:
        """A short message that came before it was expected is here."""
        receive = arrival.receive
        if receive is not None and not receive.call.finished:
            receive.place.write(arrival.kept)
            self.finished(receive)

    def finished(self, request: Request) -> None:
        """A message has been written, or has come."""
        request.done = True
        if isinstance(request, Receive) and request.followers:
            self.pass_on(request)
        call = request.call
        if not call.finished and request in call.waits_for:
            call.open -= 1
            if not call.open:
                self._engine.ready.append(call)

    def pass_on(self, receive: Receive) -> None:
        """Send on what has come of a message."""
        for send in receive.followers:
            if not send.call.finished:
                self._engine.peers[send.peer].stream(send)

    def _find(
        self, connection: Connection, code: int, arguments: int, slot: int, group: int, number: int
    ) -> tuple[Receive | None, bool]:
        """Who expects a message, and whether its call has failed already."""
        if code == SEND:
            letters = self._letters.get((group, number))
            return (None if letters is None else letters.match(connection.rank)), False
        known = self._engine.groups.get(group)
        if known is not None:
            known.come[connection.rank] = max(known.come.get(connection.rank, 0), number)
        mailbox = self.mailbox((group, number))
        if mailbox.failure:
            return None, True
        call = self._engine.calls.get((group, number))
        if call is not None and self.differs(call, connection.rank, code, arguments):
            return None, True
        return mailbox.match(slot, connection.rank), False

    def _keep(self, arrival: Arrival, group: int, number: int) -> None:
        if arrival.code == SEND:
            self._letters.setdefault((group, number), Letters()).keep(arrival)
        else:
            self.mailbox((group, number)).keep(arrival)

    # What goes wrong -------------------------------------------------------------------------------------------------

    def mailbox(self, key: tuple[int, int]) -> Mailbox:
        mailbox = self._mailboxes.get(key)
        if mailbox is None:
            mailbox = self._mailboxes[key] = Mailbox()
        return mailbox

    def withdraw(self, receive: Receive) -> bool:
        """Expect the message of a send no longer; False if it has come."""
        letters = self._letters.get((receive.call.group.id, receive.call.number))
        return letters is not None and letters.withdraw(receive)

    def forget(self, call: Call) -> None:
        """A collective is complete: nothing more comes for it."""
        self._mailboxes.pop((call.group.id, call.number), None)

    def discard(self, arrival: Arrival) -> None:
        if arrival.transfer is not None and not self._engine.peers[arrival.peer].lost:
            self._engine.peers[arrival.peer].accept(arrival.transfer, Discarding(arrival.size))

    def abandon(self, request: Request) -> None:
        """A failed call's message: its array is the caller's again, what still comes goes nowhere."""
        if isinstance(request, Send):
            self._engine.peers[request.peer].withdraw(request)
            return
        rest = Discarding(request.place.size)
        rest.position = request.place.position
        request.place = rest
        request.followers = []

    def differs(self, call: Call, peer: int, code: int, arguments: int) -> bool:
        """Whether another rank has called something else; then the call fails."""
        if code == call.code and arguments == call.arguments:
            return False
        place = call.group.place_of[peer]
        other = OPERATIONS[code] if code < len(OPERATIONS) else f"operation {code}"
        if code == call.code:
            other = "it with another size, reduction, root or counts"
        self._engine.fail(
            call,
            CollectiveMismatchError(
                f"{call.operation}: rank {call.rank} calls {call.operation} where rank {place} calls {other} "
                f"(collective {call.number} of their group)"
            ),
        )
        return True

    def _fits(self, receive: Receive, peer: int, size: int) -> bool:
        if size == receive.place.size:
            return True
        call = receive.call
        place = call.group.place_of[peer]
        if call.collective:
            self._engine.fail(
                call,
                CollectiveMismatchError(
                    f"{call.operation}: rank {call.rank} expects {receive.place.size} bytes from rank {place}, which sends {size}: "
                    "the ranks' arrays differ"
                ),
            )
        else:
            self._engine.fail(
                call,
                CommunicationError(
                    f"recv: rank {call.rank} of {call.size} expects {receive.place.size} bytes with tag {call.number}, "
                    f"got {size} from rank {place}"
                ),
            )
        return False
