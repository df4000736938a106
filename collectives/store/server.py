"""The server of a TCPStore: one thread that answers all clients, and that no client can hold up.

Every socket is non-blocking. A client that dies in the middle of a message, or sends what is not of the protocol, loses its
connection and nothing else happens.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import os
import selectors
import socket
import threading
import time

from .protocol import HELLO, LENGTH, LONGEST_FRAME, WELCOME, Operation, ProtocolError, Status, frame, parse
from .table import Table

__all__ = ["StoreServer"]

_STRANGERS_PATIENCE = 10.0
"""Seconds in which a connection has to say `HELLO`."""
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_WHEN_FULL = 0.1


class StoreServer:
    """Answers the clients of a store.

    Parameters
    ----------
    listener : socket.socket
        A socket that listens; the server owns it from here on.

    Attributes
    ----------
    users : int
        How many stores of this process it serves; the last of them closes it.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.port: int = listener.getsockname()[1]
        self.users = 1
        self._listener = listener
        self._listener.setblocking(False)
        self._table = Table()
        self._waiting: dict[str, list[_Wait]] = {}
        self._deadlines: list[tuple[float, int, _Client | _Wait]] = []
        self._order = itertools.count()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._listening_again: float | None = None
        self._stopping = False
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name=f"store server, port {self.port}", daemon=True)

    def start(self) -> None:
        """Begin to answer; who connects before waits for it."""
        self._thread.start()

    def close(self) -> None:
        """End the thread and close every connection."""
        # After a fork the thread and the sockets' connections are the parent's.
        if self._process != os.getpid() or self._stopping:
            return
        self._stopping = True
        self._wake.send(b"x")
        if threading.current_thread() is not self._thread:
            self._thread.join()
        # Not by the thread, which may notice before it is woken.
        self._wake.close()
        self._woken.close()

    def _run(self) -> None:
        try:
            while not self._stopping:
                for key, _ in self._selector.select(self._patience()):
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.data is not None:
                        self._serve(key.data)
                self._look_at_the_clock()
        finally:
            for key in list(self._selector.get_map().values()):
                if key.data is not None:
                    key.data.connection.close()
            self._listener.close()
            self._selector.close()

    # Time ------------------------------------------------------------------------------------------------------------

    def _patience(self) -> float | None:
        times = [self._deadlines[0][0]] if self._deadlines else []
        if self._listening_again is not None:
            times.append(self._listening_again)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        while self._deadlines and self._deadlines[0][0] <= now:
            whose = heapq.heappop(self._deadlines)[2]
            if isinstance(whose, _Wait):
                if whose.client.wait is whose:
                    self._answer_wait(whose, Status.TIMEOUT)
            elif not whose.known:
                self._drop(whose)
        if self._listening_again is not None and self._listening_again <= now:
            self._listening_again = None
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _at(self, deadline: float, whose: _Client | _Wait) -> None:
        heapq.heappush(self._deadlines, (deadline, next(self._order), whose))

    # Connections -----------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno in _FULL:
                # No more connections for the moment; those that wait in the queue keep the listener readable.
                self._selector.unregister(self._listener)
                self._listening_again = time.monotonic() + _PAUSE_WHEN_FULL
            return  # or the client has gone again
        connection.setblocking(False)
        client = _Client(connection)
        self._selector.register(connection, selectors.EVENT_READ, client)
        self._at(time.monotonic() + _STRANGERS_PATIENCE, client)

    def _drop(self, client: _Client) -> None:
        if client.wait is not None:
            self._forget(client.wait)
        if not client.gone:
            client.gone = True
            self._selector.unregister(client.connection)
            client.connection.close()

    def _serve(self, client: _Client) -> None:
        try:
            if client.outgoing:
                self._flush(client)
            if not client.gone and not client.receive():
                self._drop(client)
            while not client.gone and client.wait is None and not client.outgoing:
                body = client.next_frame()
                if body is None:
                    break
                self._handle(client, body)
        except ProtocolError as error:
            if client.known:
                # The last word may be lost if the client does not read it; it is not waited for.
                client.outgoing += frame(Status.BAD_REQUEST, [str(error).encode()])
                self._flush(client)
            self._drop(client)
        except OSError:
            self._drop(client)

    def _send(self, client: _Client, data: bytes) -> None:
        client.outgoing += data
        self._flush(client)

    def _flush(self, client: _Client) -> None:
        while client.outgoing:
            try:
                sent = client.connection.send(client.outgoing)
            except BlockingIOError:
                break
            except OSError:
                self._drop(client)
                return
            del client.outgoing[:sent]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.outgoing else 0)
        if client.events != events:
            client.events = events
            self._selector.modify(client.connection, events, client)

    # Requests --------------------------------------------------------------------------------------------------------

    def _handle(self, client: _Client, body: bytes) -> None:
        if not client.known:
            client.known = True
            self._send(client, WELCOME)
            return
        kind, fields = parse(body)
        try:
            operation = Operation(kind)
            keys = [field.decode() for field in fields[_FIRST_KEY[operation] :: _KEY_STEP[operation]]]
        except ValueError as error:
            raise ProtocolError(f"a request that cannot be read: {error}") from None
        if (needed := _FIELDS.get(operation)) is not None and len(fields) != needed:
            raise ProtocolError(f"{operation.name} has {needed} fields, not {len(fields)}")
        status, answer = Status.OK, []
        table = self._table
        if operation is Operation.SET:
            if len(fields) % 2:
                raise ProtocolError("SET has a value for each key")
            table.values.update(zip(keys, fields[1::2]))
        elif operation in (Operation.GET, Operation.WAIT, Operation.POP):
            self._start_wait(client, operation, fields, keys)
            return
        elif operation is Operation.CHECK:
            answer = [key.encode() for key in table.absent(keys)]
        elif operation is Operation.ADD:
            try:
                answer = [b"%d" % table.add(keys[0], int(fields[1]))]
            except ValueError as error:
                status, answer = Status.VALUE_ERROR, [str(error).encode()]
        elif operation is Operation.APPEND:
            table.append(keys[0], fields[1])
        elif operation is Operation.COMPARE_SET:
            answer = [table.compare_set(keys[0], fields[1], fields[2])]
        elif operation is Operation.DELETE:
            answer = [b"1" if table.delete(keys[0]) else b"0"]
        elif operation is Operation.PUSH:
            table.push(keys[0], fields[1])
        elif operation is Operation.QUEUE_LENGTH:
            answer = [b"%d" % len(table.queues.get(keys[0], ()))]
        else:
            answer = [key.encode() for key in table.values]
        self._send(client, frame(status, answer))
        for key in keys:
            self._has_come(key)

    def _start_wait(self, client: _Client, operation: Operation, fields: list[bytes], keys: list[str]) -> None:
        try:
            timeout = float(fields[0])
        except (IndexError, ValueError):
            raise ProtocolError(f"{operation.name} begins with the seconds to wait") from None
        wait = _Wait(client, operation, keys)
        client.wait = wait
        missing = self._missing(wait)
        if not missing:
            self._answer_wait(wait, Status.OK)
            return
        for key in set(missing):
            self._waiting.setdefault(key, []).append(wait)
        self._at(time.monotonic() + timeout, wait)

    def _missing(self, wait: _Wait) -> list[str]:
        """What has not come of what is waited for."""
        if wait.operation is Operation.GET:
            return self._table.missing(wait.keys)
        if wait.operation is Operation.WAIT:
            return self._table.absent(wait.keys)
        return [key for key in wait.keys if key not in self._table.queues]

    def _has_come(self, key: str) -> None:
        """Answer those who waited for `key`, unless it was deleted again before the others that they wait for came."""
        for wait in list(self._waiting.get(key, ())):
            # An answer may end a connection, and with it another wait; and the first who waits takes what a queue has.
            if wait.client.wait is wait and not self._missing(wait):
                self._answer_wait(wait, Status.OK)

    def _answer_wait(self, wait: _Wait, status: Status) -> None:
        self._forget(wait)
        if status is Status.TIMEOUT:
            answer = [key.encode() for key in self._missing(wait)]
        elif wait.operation is Operation.POP:
            answer = [self._table.pop(wait.keys[0])]
        else:
            answer = [self._table.values[key] for key in wait.keys] if wait.operation is Operation.GET else []
        self._send(wait.client, frame(status, answer))

    def _forget(self, wait: _Wait) -> None:
        wait.client.wait = None
        for key in set(wait.keys):
            waiting = self._waiting.get(key)
            if waiting is not None and wait in waiting:
                waiting.remove(wait)
                if not waiting:
                    del self._waiting[key]


_FIELDS = {Operation.ADD: 2, Operation.APPEND: 2, Operation.COMPARE_SET: 3, Operation.DELETE: 1, Operation.LIST: 0}
_FIELDS |= {Operation.PUSH: 2, Operation.POP: 2, Operation.QUEUE_LENGTH: 1}
# Which fields are keys: where they begin, and how far apart they are.
_FIRST_KEY = dict.fromkeys(Operation, 0) | {Operation.GET: 1, Operation.WAIT: 1, Operation.POP: 1}
_KEY_STEP = dict.fromkeys(Operation, 4) | {
    Operation.SET: 2, Operation.GET: 1, Operation.WAIT: 1, Operation.CHECK: 1,
}  # fmt: skip


class _Wait:
    """A client's request that is answered when its keys have come."""

    __slots__ = ("client", "keys", "operation")

    def __init__(self, client: _Client, operation: Operation, keys: list[str]) -> None:
        self.client, self.operation, self.keys = client, operation, keys


class _Client:
    """One connection, and what has arrived of its next frame."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.incoming = bytearray()
        self.outgoing = bytearray()
        self.events = selectors.EVENT_READ
        self.known = self.gone = False
        self.wait: _Wait | None = None

    def receive(self) -> bool:
        """Take in what has arrived; False at the end of the connection."""
        try:
            data = self.connection.recv(1 << 20 if self.known else len(HELLO))
        except BlockingIOError:
            return True
        self.incoming += data
        return bool(data)

    def next_frame(self) -> bytes | None:
        """The next whole frame without its length, if it has arrived; at first the client's hello."""
        if not self.known:
            if not HELLO.startswith(self.incoming[: len(HELLO)]):
                raise ProtocolError("this is a store of a job")
            return self._take(len(HELLO)) if len(self.incoming) >= len(HELLO) else None
        if len(self.incoming) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self.incoming)
        if length > LONGEST_FRAME:
            raise ProtocolError(f"a frame of {length} bytes; at most {LONGEST_FRAME} are allowed")
        if len(self.incoming) < LENGTH.size + length:
            return None
        return self._take(LENGTH.size + length)[LENGTH.size :]

    def _take(self, count: int) -> bytes:
        data = bytes(self.incoming[:count])
        del self.incoming[:count]
        return data
