"""Engine: everything that one process has under way over TCP, driven by whoever asks for any part of it.

A call (an operation of a group, or one send or receive) is a generator that starts messages and yields those that it has to wait
for. The engine reads and writes the sockets, finds out which message is for whom, and lets calls go on whose messages are
done. It has no thread: everything happens in `progress`, which never waits.
"""

from __future__ import annotations

import inspect
import os
import selectors
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import CollectiveMismatchError, CommunicationError
from .connection import Connection
from .frames import CODES, OPERATIONS, SEND, Kind, pack
from .mailboxes import Letters, Mailbox
from .requests import Arrival, Combine, Combining, Discarding, Filling, Place, Receive, Send, bytes_of

if TYPE_CHECKING:
    import socket

__all__ = ["SHORT", "Call", "Engine", "Group", "Steps"]

SHORT = 1 << 17
"""Bytes up to which a message is sent without asking: keeping it costs the receiver less than an answer."""
AT_ONCE = 0.01
"""Seconds that one `progress` takes at most, however much comes."""

PATIENT = 100
"""Questions in a row, shortly after one another and all in vain, after which whoever asks is taken to wait."""
SHORTLY = 0.001
PAUSE = 0.001
"""Seconds that such a question waits for a socket: the system wakes the process at once, where yielding would not."""

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
        return self.engine.send(self, self.group.members[rank], bytes_of(array), slot, origin)

    def receive(self, rank: int | None, array: np.ndarray, slot: int = 0) -> Receive:
        """Expect a message that overwrites an array."""
        source = None if rank is None else self.group.members[rank]
        return self.engine.receive(Receive(self, source, self.number, slot, Filling(bytes_of(array))))

    def receive_and_combine(self, rank: int, count: int, dtype: np.dtype, combine: Combine, slot: int = 0) -> Receive:
        """Expect a message of so many elements, with which `combine` is called block by block."""
        place = Combining(count, dtype, combine)
        return self.engine.receive(Receive(self, self.group.members[rank], self.number, slot, place))


class Engine:
    """The connections of one process, and what is under way on them.

    Parameters
    ----------
    rank : int
        This process's rank in the job.
    host : str
        The name of its machine.
    connected : dict of int to (str, socket)
        The other ranks' machines and sockets.
    timeout : float
        Seconds that `wait` waits.
    """

    def __init__(self, rank: int, host: str, connected: dict[int, tuple[str, socket.socket]], timeout: float) -> None:
        self.rank, self.host, self.timeout = rank, host, timeout
        self.selector = selectors.DefaultSelector()
        self.lock = threading.RLock()
        self.closed = False
        self.peers: dict[int, Connection] = {}
        for other, (name, open_socket) in connected.items():
            open_socket.setblocking(False)
            self.peers[other] = Connection(self, other, name, open_socket)
            self.selector.register(open_socket, selectors.EVENT_READ, self.peers[other])
        self.calls: dict[tuple[int, int], Call] = {}
        """The collectives under way, by group and number."""
        self.messages: set[Call] = set()
        """The sends and receives under way."""
        self.groups: weakref.WeakValueDictionary[int, Group] = weakref.WeakValueDictionary()
        self.groups_made = 0
        self._mailboxes: dict[tuple[int, int], Mailbox] = {}
        self._letters: dict[tuple[int, int], Letters] = {}
        self._ready: deque[Call] = deque()
        self._in_vain = 0
        self._asked = 0.0
        self._release = weakref.finalize(self, _close_sockets, self.selector, [peer.socket for peer in self.peers.values()])
        _engines.add(self)

    # Calls -----------------------------------------------------------------------------------------------------------

    def start(self, call: Call, steps: Steps) -> None:
        """Begin a call: its first messages are on their way afterwards."""
        with self.lock:
            if self.closed:
                raise CommunicationError(f"{call.operation}: rank {self.rank} has closed its transport")
            call.steps = steps
            if call.collective:
                key = (call.group.id, call.number)
                self.calls[key] = call
                mailbox = self._mailbox(key)
                mailbox.code = call.code
                if mailbox.failure:
                    self.fail(call, CommunicationError(f"{call.operation}: {mailbox.failure}"), tell=False)
                    return
                for arrival in mailbox.arrived():
                    if self._differs(call, arrival.peer, arrival.code, arrival.arguments):
                        return
            else:
                self.messages.add(call)
            self._go_on(call)

    def progress(self, call: Call | None = None) -> None:
        """Read and write what sockets have and take; let calls go on; return at once when `call` is done.

        Who asks again and again in vain waits for a moment, in the system instead of beside it.
        """
        now = time.monotonic()
        until = now + AT_ONCE
        if now - self._asked > SHORTLY + PAUSE:
            self._in_vain = 0
        while not self.closed:
            while self._ready:
                self._go_on(self._ready.popleft())
            if call is not None and call.finished:
                self._in_vain = 0
                return
            events = self.selector.select(0 if self._in_vain < PATIENT else PAUSE)
            if not events:
                self._in_vain += 1
                self._asked = time.monotonic()
                return
            self._in_vain = 0
            for key, event in events:
                connection: Connection = key.data
                if event & selectors.EVENT_WRITE:
                    connection.write()
                if event & selectors.EVENT_READ and not connection.lost:
                    connection.read()
            if time.monotonic() > until:
                while self._ready:
                    self._go_on(self._ready.popleft())
                return

    def poll(self, call: Call) -> bool:
        """Let everything progress; whether `call` is done. Raises what it failed with."""
        if not call.finished and self.lock.acquire(blocking=False):
            try:
                self.progress(call)
            finally:
                self.lock.release()
        if not call.finished:
            if self.closed:
                raise CommunicationError(
                    f"{call.operation}: this process has no transport: it is closed, or a fork left it to the parent"
                )
            return False
        if call.error is not None:
            raise call.error
        return True

    def wait(self, call: Call) -> None:
        """Wait until a call is done, or the timeout has passed."""
        deadline = time.monotonic() + self.timeout
        while not self.poll(call):
            if time.monotonic() > deadline:
                late = ", ".join(repr(self.peers[rank]) for rank in self.late(call) if rank in self.peers)
                error = CommunicationError(
                    f"{call.operation}: rank {self.rank} waited {self.timeout:g} s for {late or 'the other ranks'}"
                )
                self.fail(call, error)
                raise error
            self.selector.select(min(0.01, self.timeout))

    def fail(self, call: Call, error: Exception, *, tell: bool = True) -> None:
        """End a call with an error; the group's other ranks, who cannot complete theirs either, are told why."""
        if call.finished:
            return
        call.error = error
        self._ends(call)
        for request in call.started:
            if not request.done:
                self._abandon(request)
        key = (call.group.id, call.number)
        if not call.collective:
            for request in call.started:
                if isinstance(request, Receive) and key in self._letters:
                    self._letters[key].withdraw(request)
            return
        self._mailbox(key).fail(str(error))
        for arrival in self._mailbox(key).arrived():
            self._discard(arrival)
        if tell:
            text = memoryview(str(error).encode())
            header = pack(Kind.FAILED, group=key[0], number=key[1], length=len(text))
            for member in call.group.members:
                if member != self.rank and not self.peers[member].lost:
                    self.peers[member].tell(header, text)

    def cancel(self, call: Call) -> None:
        """Give up a receive that no message has come for."""
        with self.lock:
            letters = self._letters.get((call.group.id, call.number))
            for request in call.started:
                if isinstance(request, Receive) and letters is not None and letters.withdraw(request):
                    self.fail(
                        call,
                        CommunicationError(
                            f"{call.operation}: rank {self.rank}: cancelled, no message with tag {call.number} had come"
                        ),
                    )

    def _go_on(self, call: Call) -> None:
        """Let a call's algorithm run until it has to wait again."""
        while not call.finished:
            steps = call.steps
            if steps is None:
                return
            try:
                waits_for = next(steps)
            except StopIteration:
                if not call.finished:
                    self._ends(call)
                return
            except Exception as error:
                self.fail(call, error)
                return
            if call.finished:
                return
            call.waits_for = [request for request in waits_for if not request.done]
            call.open = len(call.waits_for)
            if call.open:
                return

    def _ends(self, call: Call) -> None:
        call.finished = True
        call.waits_for = []
        if call.steps is not None and call.error is not None and inspect.getgeneratorstate(call.steps) != inspect.GEN_RUNNING:
            call.steps.close()
        call.steps = None
        if call.collective:
            key = (call.group.id, call.number)
            self.calls.pop(key, None)
            if call.error is None:
                self._mailboxes.pop(key, None)
        else:
            self.messages.discard(call)

    # Messages --------------------------------------------------------------------------------------------------------

    def send(self, call: Call, peer: int, view: memoryview, slot: int, origin: Receive | None) -> Send:
        """Start a message."""
        send = Send(call, peer, view, origin)
        if peer == self.rank:
            self._send_to_self(send)
            return send
        connection = self.peers[peer]
        if connection.lost:
            raise self._lost(connection, call)
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
        receive = letters.match(self.rank)
        if receive is None:
            arrival = Arrival(self.rank, SEND, 0, 0, len(send.view), None)
            arrival.place.write(send.view)
            letters.keep(arrival)
        elif self._fits(receive, self.rank, len(send.view)):
            receive.peer = self.rank
            receive.place.write(send.view)
            self.finished(receive)
        self.finished(send)

    def receive(self, receive: Receive) -> Receive:
        """Expect a message: it may be here already."""
        call = receive.call
        key = (call.group.id, call.number)
        call.started.append(receive)
        if call.collective:
            mailbox = self._mailbox(key)
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
        elif (lost := self._nobody_left(receive)) is not None:
            if not call.collective:
                self._letters[key].withdraw(receive)
            raise self._lost(lost, call)
        return receive

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
                self._ready.append(call)

    def pass_on(self, receive: Receive) -> None:
        """Send on what has come of a message."""
        for send in receive.followers:
            if not send.call.finished:
                self.peers[send.peer].stream(send)

    def _find(
        self, connection: Connection, code: int, arguments: int, slot: int, group: int, number: int
    ) -> tuple[Receive | None, bool]:
        """Who expects a message, and whether its call has failed already."""
        if code == SEND:
            letters = self._letters.get((group, number))
            return (None if letters is None else letters.match(connection.rank)), False
        known = self.groups.get(group)
        if known is not None:
            known.come[connection.rank] = max(known.come.get(connection.rank, 0), number)
        mailbox = self._mailbox((group, number))
        if mailbox.failure:
            return None, True
        call = self.calls.get((group, number))
        if call is not None and self._differs(call, connection.rank, code, arguments):
            return None, True
        return mailbox.match(slot, connection.rank), False

    def _keep(self, arrival: Arrival, group: int, number: int) -> None:
        if arrival.code == SEND:
            self._letters.setdefault((group, number), Letters()).keep(arrival)
        else:
            self._mailbox((group, number)).keep(arrival)

    def _meet(self, receive: Receive, arrival: Arrival) -> None:
        """A message that is expected has come or been offered before."""
        if not self._fits(receive, arrival.peer, arrival.size):
            self._discard(arrival)
            return
        receive.peer = arrival.peer
        if arrival.transfer is not None:
            if self.peers[arrival.peer].lost:
                raise self._lost(self.peers[arrival.peer], receive.call)
            self.peers[arrival.peer].accept(arrival.transfer, receive)
        elif arrival.complete:
            receive.place.write(arrival.kept)
            self.finished(receive)
        else:
            arrival.receive = receive

    def _discard(self, arrival: Arrival) -> None:
        if arrival.transfer is not None and not self.peers[arrival.peer].lost:
            self.peers[arrival.peer].accept(arrival.transfer, Discarding(arrival.size))

    def _abandon(self, request: Request) -> None:
        """A failed call's message: its array is the caller's again, what still comes goes nowhere."""
        if isinstance(request, Send):
            self.peers[request.peer].withdraw(request)
            return
        rest = Discarding(request.place.size)
        rest.position = request.place.position
        request.place = rest
        request.followers = []

    def _mailbox(self, key: tuple[int, int]) -> Mailbox:
        mailbox = self._mailboxes.get(key)
        if mailbox is None:
            mailbox = self._mailboxes[key] = Mailbox()
        return mailbox

    # What goes wrong -------------------------------------------------------------------------------------------------

    def _fits(self, receive: Receive, peer: int, size: int) -> bool:
        if size == receive.place.size:
            return True
        call = receive.call
        place = call.group.place_of[peer]
        if call.collective:
            self.fail(
                call,
                CollectiveMismatchError(
                    f"{call.operation}: rank {call.rank} expects {receive.place.size} bytes from rank {place}, which sends {size}: "
                    "the ranks' arrays differ"
                ),
            )
        else:
            self.fail(
                call,
                CommunicationError(
                    f"recv: rank {call.rank} of {call.size} expects {receive.place.size} bytes with tag {call.number}, "
                    f"got {size} from rank {place}"
                ),
            )
        return False

    def _differs(self, call: Call, peer: int, code: int, arguments: int) -> bool:
        """Whether another rank has called something else; then the call fails."""
        if code == call.code and arguments == call.arguments:
            return False
        place = call.group.place_of[peer]
        other = OPERATIONS[code] if code < len(OPERATIONS) else f"operation {code}"
        if code == call.code:
            other = "it with another size, reduction, root or counts"
        self.fail(
            call,
            CollectiveMismatchError(
                f"{call.operation}: rank {call.rank} calls {call.operation} where rank {place} calls {other} "
                f"(collective {call.number} of their group)"
            ),
        )
        return True

    def _lost(self, connection: Connection, call: Call) -> CommunicationError:
        return CommunicationError(f"{connection!r} {connection.lost} while rank {self.rank} waits in {call.operation}")

    def _nobody_left(self, receive: Receive) -> Connection | None:
        """The connection without which a message cannot come."""
        if receive.source is not None:
            connection = self.peers.get(receive.source)
            return connection if connection is not None and connection.lost else None
        others = [self.peers[member] for member in receive.call.group.members if member != self.rank]
        died = [connection for connection in others if connection.lost and not connection.left]
        if died:
            return died[0]
        return others[0] if others and all(connection.lost for connection in others) else None

    def lose(self, connection: Connection, reason: str) -> None:
        """A connection is of no more use: calls that need it fail."""
        if connection.lost:
            return
        connection.lost = reason
        self.selector.unregister(connection.socket)
        connection.socket.close()
        for call in [*self.calls.values(), *self.messages]:
            if any(not request.done and self._needs(request, connection) for request in call.started):
                self.fail(call, self._lost(connection, call))

    def _needs(self, request: Request, connection: Connection) -> bool:
        if isinstance(request, Send):
            return request.peer == connection.rank
        if request.peer is not None:
            return request.peer == connection.rank
        return self._nobody_left(request) is connection

    def was_told_of_failure(self, group: int, number: int, text: str) -> None:
        """Another rank's call has failed: ours of the same number cannot succeed."""
        call = self.calls.get((group, number))
        if call is not None:
            self.fail(call, CommunicationError(text), tell=False)
            return
        known = self.groups.get(group)
        if known is None or known.calls < number:
            self._mailbox((group, number)).fail(text)

    def aborted(self, connection: Connection, code: int) -> None:
        """Another rank ends the job: this process ends with it."""
        _end_process(code, f"{connection!r} ends the job with exit code {code}")

    # Who is late -----------------------------------------------------------------------------------------------------

    def is_here(self, connection: Connection, group: int, number: int, asks: bool) -> None:
        """Another rank says how far it has come in a group."""
        known = self.groups.get(group)
        if known is None:
            return
        known.come[connection.rank] = max(known.come.get(connection.rank, 0), number)
        if asks:
            connection.tell(pack(Kind.HERE, group=group, number=known.calls))

    def late(self, call: Call, patience: float = 0.25) -> list[int]:
        """The ranks of the job that have not come to a call, asked; those that do not answer are not in any call."""
        with self.lock:
            group = call.group
            others = [member for member in group.members if member != self.rank]
            if not call.collective:
                peers = {_peer(request) for request in call.waits_for}
                return others if None in peers else sorted(peer for peer in peers if peer is not None)
            for member in others:
                if not self.peers[member].lost:
                    self.peers[member].tell(pack(Kind.HERE, slot=1, group=group.id, number=call.number))
            until = time.monotonic() + patience
            while True:
                self.progress(call)
                late = [member for member in others if group.come.get(member, 0) < call.number]
                if not late or call.finished or time.monotonic() > until:
                    return late
                self.selector.select(0.01)

    # The end ---------------------------------------------------------------------------------------------------------

    def abort(self, code: int) -> None:
        """End this process, and all others as soon as they look."""
        for connection in self.peers.values():
            if not connection.lost:
                connection.tell(pack(Kind.ABORT, number=code))
        self._write_out(0.5)
        _end_process(code)

    def close(self) -> None:
        """Say good-bye to everybody and close the connections."""
        with self.lock:
            if self.closed:
                return
            for connection in self.peers.values():
                if not connection.lost:
                    connection.tell(pack(Kind.BYE))
            self._write_out(5.0)
            self.closed = True
            for call in [*self.calls.values(), *self.messages]:
                self.fail(call, CommunicationError(f"{call.operation}: rank {self.rank} has closed its transport"), tell=False)
            self.release()

    def release(self) -> None:
        """Close the sockets without a word to anybody."""
        self.closed = True
        self._release()

    def _write_out(self, patience: float) -> None:
        until = time.monotonic() + patience
        while any(connection.unsent() for connection in self.peers.values()) and time.monotonic() < until:
            for key, event in self.selector.select(0.05):
                if event & selectors.EVENT_WRITE:
                    key.data.write()
                elif not key.data.lost:
                    key.data.read()


def _peer(request: Request) -> int | None:
    return request.peer if isinstance(request, Send) or request.peer is not None else request.source


def _end_process(code: int, reason: str = "") -> None:
    if reason:
        print(f"collectives: {reason}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _close_sockets(selector: selectors.BaseSelector, sockets: Iterable[socket.socket]) -> None:
    # The selector first: after a fork it is the parent's too, and must not be told that sockets go.
    selector.close()
    for connected in sockets:
        connected.close()


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _after_fork() -> None:
    """A forked process has no part in the job; if it kept the sockets open, nobody would see its parent die."""
    for engine in tuple(_engines):
        engine.release()


os.register_at_fork(after_in_child=_after_fork)
