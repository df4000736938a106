"""Engine: everything that one process has under way over TCP, driven by whoever asks for any part of it.

A call (an operation of a group, or one send or receive) is a generator that starts messages and yields those that it has to wait
for. The engine reads and writes the sockets and lets calls go on whose messages are done. It has no thread: everything happens in
`progress`, which whoever waits for anything calls again and again.
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
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import CommunicationError
from .calls import Call, Group, Request, Steps
from .connection import Connection
from .delivery import Delivery
from .frames import Kind, pack
from .requests import Receive, Send

if TYPE_CHECKING:
    import socket

__all__ = ["Engine"]

AT_ONCE = 0.01
"""Seconds that one `progress` takes at most, however much comes."""
PATIENCE = 100
"""Questions in a row, shortly after one another and all in vain, after which whoever asks is taken to wait."""
SHORTLY = 0.001
PAUSE = 0.001
"""Seconds that such a question waits for a socket: the system wakes the process at once, where yielding would not."""


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
        self.delivery = Delivery(self)
        self.ready: deque[Call] = deque()
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
                mailbox = self.delivery.mailbox(key)
                mailbox.code = call.code
                if mailbox.failure:
                    self.fail(call, CommunicationError(f"{call.operation}: {mailbox.failure}"), tell=False)
                    return
                for arrival in mailbox.arrived():
                    if self.delivery.differs(call, arrival.peer, arrival.code, arrival.arguments):
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
            while self.ready:
                self._go_on(self.ready.popleft())
            if call is not None and call.finished:
                self._in_vain = 0
                return
            events = self.selector.select(0 if self._in_vain < PATIENCE else PAUSE)
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
                while self.ready:
                    self._go_on(self.ready.popleft())
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
                self.delivery.abandon(request)
        key = (call.group.id, call.number)
        if not call.collective:
            for request in call.started:
                if isinstance(request, Receive):
                    self.delivery.withdraw(request)
            return
        self.delivery.mailbox(key).fail(str(error))
        for arrival in self.delivery.mailbox(key).arrived():
            self.delivery.discard(arrival)
        if tell:
            text = memoryview(str(error).encode())
            header = pack(Kind.FAILED, group=key[0], number=key[1], length=len(text))
            for member in call.group.members:
                if member != self.rank and not self.peers[member].lost:
                    self.peers[member].tell(header, text)

    def cancel(self, call: Call) -> None:
        """Give up a receive that no message has come for."""
        with self.lock:
            for request in call.started:
                if isinstance(request, Receive) and self.delivery.withdraw(request):
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
                self.delivery.forget(call)
        else:
            self.messages.discard(call)

    # What goes wrong -------------------------------------------------------------------------------------------------

    def lost(self, connection: Connection, call: Call) -> CommunicationError:
        return CommunicationError(f"{connection!r} {connection.lost} while rank {self.rank} waits in {call.operation}")

    def nobody_left(self, receive: Receive) -> Connection | None:
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
                self.fail(call, self.lost(connection, call))

    def _needs(self, request: Request, connection: Connection) -> bool:
        if isinstance(request, Send):
            return request.peer == connection.rank
        if request.peer is not None:
            return request.peer == connection.rank
        return self.nobody_left(request) is connection

    def was_told_of_failure(self, group: int, number: int, text: str) -> None:
        """Another rank's call has failed: ours of the same number cannot succeed."""
        call = self.calls.get((group, number))
        if call is not None:
            self.fail(call, CommunicationError(text), tell=False)
            return
        known = self.groups.get(group)
        if known is None or known.calls < number:
            self.delivery.mailbox((group, number)).fail(text)

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
            for connection in self.peers.values():
                connection.discard()
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
