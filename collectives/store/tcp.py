"""TCPStore: one rank's memory that the others ask over TCP."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
import warnings
import weakref
from collections.abc import Sequence

from .interface import DEFAULT_TIMEOUT, Seconds, Store, StoreError, StoreTimeoutError, quoted
from .protocol import HELLO, LENGTH, LONGEST_FRAME, WELCOME, Operation, ProtocolError, Status, frame, parse
from .server import StoreServer

__all__ = ["TCPStore", "listen", "only_here"]

_GRACE = 5.0
"""Seconds that an answer may take beyond the time that the server was asked to wait."""
_LONGEST_ATTEMPT = 10.0
_SILENT = 15.0
"""Seconds after which it is said that the master has not been reached yet."""
_WORKERS = "init/"
"""The key that counts the ranks that have come."""


class TCPStore(Store):
    """A store that lives in one rank and that the others reach by its address.

    Any number of threads may use it: each request that is under way has a connection of its own.

    Parameters
    ----------
    host_name : str
        Name or address (IPv4 or IPv6) of the rank that holds the store.
    port : int
        Its port; 0 on the master takes a free one, which `port` then tells.
    world_size : int, optional
        How many ranks will come, the master included; None if that is not known.
    is_master : bool, default False
        Whether this rank holds the store.
    timeout : datetime.timedelta or float, default 300 seconds
        How long to try to reach the master, which may start later than the others, and how long to wait for keys.
    wait_for_workers : bool, default True
        Whether the master waits until `world_size` ranks have come.
    multi_tenant : bool, default False
        Whether a master takes the store that this process holds at that port already, if there is one.
    master_listen_fd : int, optional
        A socket that listens already, for the master to take over.
    use_libuv : bool, default True
        Accepted for PyTorch's sake; there is one server here.

    Raises
    ------
    ValueError
        If `port` is no port.
    StoreError
        If the port is taken, or what answers there is no store.
    StoreTimeoutError
        If the master cannot be reached, or workers have not come, within the timeout.

    Examples
    --------
    >>> master = TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False)
    >>> worker = TCPStore("127.0.0.1", master.port, 2)
    >>> worker.set("a", "1"); master.get("a")
    b'1'
    >>> worker.close(); master.close()
    """

    def __init__(
        self,
        host_name: str,
        port: int,
        world_size: int | None = None,
        is_master: bool = False,
        timeout: Seconds = DEFAULT_TIMEOUT,
        wait_for_workers: bool = True,
        multi_tenant: bool = False,
        master_listen_fd: int | None = None,
        use_libuv: bool = True,
    ) -> None:
        super().__init__(timeout)
        if not 0 <= port < 65536 or (port == 0 and not is_master):
            raise ValueError(f"TCPStore: {port} is no port" + (" of a master to reach" if port == 0 else ""))
        self.host, self.port = host_name, port
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._server: StoreServer | None = None
        self._finalizer = weakref.finalize(self, _close_all, self._idle, None)
        if is_master:
            self._server = _serve(host_name, port, multi_tenant, master_listen_fd)
            self.port = self._server.port
            self._finalizer.detach()
            self._finalizer = weakref.finalize(self, _close_all, self._idle, self._server)
        # The master's own server answers as soon as its thread runs: a short timeout is for the others.
        self._give_back(self._connect(time.monotonic() + self._timeout + (_GRACE if is_master else 0.0)))
        if world_size is not None and world_size > 0:
            self.add(_WORKERS, 1)
            if is_master and wait_for_workers:
                self._wait_for_workers(world_size)

    @property
    def address(self) -> str:
        """``host:port``, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def local_address(self) -> str:
        """The address of this machine by which it reaches the store."""
        connection = self._take(time.monotonic() + self._timeout)
        address: str = connection.getsockname()[0]
        self._give_back(connection)
        return address

    def close(self) -> None:
        """Close the connections, and on the master the store itself: other ranks' requests fail from here on."""
        with self._lock:  # or a connection that is given back at this moment would stay open
            self._finalizer()

    def _check(self, keys: list[str]) -> bool:
        return not self._ask(Operation.CHECK, _encoded(keys))

    def _add(self, key: str, amount: int) -> int:
        return int(self._ask(Operation.ADD, [key.encode(), b"%d" % amount])[0])

    def _append(self, key: str, value: bytes) -> None:
        self._ask(Operation.APPEND, [key.encode(), value])

    def _compare_set(self, key: str, expected: bytes, desired: bytes) -> bytes:
        return self._ask(Operation.COMPARE_SET, [key.encode(), expected, desired])[0]

    def _delete(self, key: str) -> bool:
        return self._ask(Operation.DELETE, [key.encode()])[0] == b"1"

    def _push(self, key: str, value: bytes) -> None:
        self._ask(Operation.PUSH, [key.encode(), value])

    def _pop(self, key: str, timeout: float) -> bytes:
        return self._ask(Operation.POP, [_text(timeout), key.encode()], timeout)[0]

    def _queue_len(self, key: str) -> int:
        return int(self._ask(Operation.QUEUE_LENGTH, [key.encode()])[0])

    def num_keys(self) -> int:
        return len(self._ask(Operation.LIST, []))

    def list_keys(self) -> list[str]:
        return [key.decode() for key in self._ask(Operation.LIST, [])]

    def clone(self) -> TCPStore:
        return TCPStore(self.host, self.port, timeout=self._timeout)

    def _set(self, keys: list[str], values: list[bytes]) -> None:
        self._ask(Operation.SET, [part for pair in zip(_encoded(keys), values) for part in pair])

    def _get(self, keys: list[str], timeout: float) -> list[bytes]:
        return self._ask(Operation.GET, [_text(timeout), *_encoded(keys)], timeout)

    def _wait(self, keys: list[str], timeout: float) -> None:
        self._ask(Operation.WAIT, [_text(timeout), *_encoded(keys)], timeout)

    def _wait_for_workers(self, world_size: int) -> None:
        deadline = time.monotonic() + self._timeout
        while (come := self.add(_WORKERS, 0)) < world_size:
            if time.monotonic() > deadline:
                raise StoreTimeoutError(
                    f"TCPStore {self.address}: {come} of {world_size} ranks have come in {self._timeout:g} s"
                )
            time.sleep(0.005)

    # Requests --------------------------------------------------------------------------------------------------------

    def _ask(self, operation: Operation, fields: list[bytes], wait: float = 0.0) -> list[bytes]:
        """Send a request and return the answer's fields."""
        request = frame(operation, fields)
        limit = max(wait, self._timeout) + _GRACE
        began = time.monotonic()
        connection = self._take(began + self._timeout)
        try:
            connection.settimeout(limit)
            connection.sendall(request)
            kind, answer = parse(_read_frame(connection, began + limit))
            status = Status(kind)
        except (OSError, EOFError, ValueError) as error:
            connection.close()
            raise self._broken(operation, error, time.monotonic() - began) from error
        except BaseException:
            # Interrupted between request and answer: the connection is of no more use.
            connection.close()
            raise
        self._give_back(connection)
        if status is Status.OK:
            return answer
        if status is Status.TIMEOUT:
            missing = quoted([key.decode() for key in answer])
            raise StoreTimeoutError(f"TCPStore {self.address}: {missing} has not come in {wait:g} s")
        text = answer[0].decode(errors="replace")
        if status is Status.VALUE_ERROR:
            raise ValueError(f"TCPStore {self.address}: {text}")
        raise StoreError(f"TCPStore {self.address}: {operation.name.lower()} is refused: {text}")

    def _broken(self, operation: Operation, error: Exception, waited: float) -> StoreError:
        what = f"TCPStore {self.address}: {operation.name.lower()}"
        if isinstance(error, TimeoutError):
            return StoreTimeoutError(f"{what}: no answer in {waited:.1f} s; is the rank that holds the store still there?")
        if isinstance(error, EOFError | ConnectionError):
            return StoreError(f"{what}: the connection has ended ({error}); the rank that holds the store has left")
        return StoreError(f"{what}: {error}")

    def _take(self, deadline: float) -> socket.socket:
        with self._lock:
            if self._process != os.getpid():
                # After a fork the connections are the parent's.
                self._process = os.getpid()
                while self._idle:
                    self._idle.pop().close()
            if not self._finalizer.alive:
                raise StoreError(f"TCPStore {self.address}: this store is closed")
            if self._idle:
                return self._idle.pop()
        return self._connect(deadline)

    def _give_back(self, connection: socket.socket) -> None:
        with self._lock:
            if self._finalizer.alive:
                self._idle.append(connection)
                return
        connection.close()

    def _connect(self, deadline: float) -> socket.socket:
        """A connection to the server, tried again and again until the deadline."""
        began = time.monotonic()
        pause, warned = 0.01, False
        while True:
            try:
                return self._attempt(min(deadline, time.monotonic() + _LONGEST_ATTEMPT))
            except (OSError, EOFError) as error:
                if time.monotonic() + pause >= deadline:
                    raise StoreTimeoutError(
                        f"TCPStore: no store at {self.address} in {time.monotonic() - began:.1f} s ({_reason(error)}); is rank 0, "
                        "which holds it, running, and can this machine reach it?"
                    ) from error
                waited = time.monotonic() - began
                if waited > _SILENT and not warned:
                    warned = True
                    warnings.warn(
                        f"TCPStore: no store at {self.address} in {waited:.0f} s ({_reason(error)}); this process goes on trying for "
                        f"{deadline - time.monotonic():.0f} s. Rank 0 holds it: is it running, and can this machine reach it?",
                        RuntimeWarning,
                        stacklevel=2,
                    )
            time.sleep(pause)
            pause = min(2 * pause, 0.5)

    def _attempt(self, deadline: float) -> socket.socket:
        last: OSError | None = None
        for family, kind, protocol, _, address in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(max(0.01, deadline - time.monotonic()))
                connection.connect(address)
                if connection.getsockname() == connection.getpeername():
                    # Nobody listens, and TCP has connected this socket to itself.
                    raise ConnectionRefusedError("nobody listens")
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                connection.sendall(HELLO)
                answer = _read(connection, len(WELCOME), deadline)
            except OSError as error:
                connection.close()
                last = error
                continue
            except BaseException:
                connection.close()
                raise
            if answer != WELCOME:
                connection.close()
                raise StoreError(f"TCPStore: what answers at {self.address} is no store: it says {answer!r}")
            return connection
        raise last or OSError("the name has no address")


def only_here(host: str) -> bool:
    """Whether a host's name, as it is written, can mean this machine's loopback only.

    Examples
    --------
    >>> only_here("localhost"), only_here("127.0.0.1"), only_here("::1"), only_here("n1")
    (True, True, True, False)
    """
    return host == "localhost" or host == "::1" or host.startswith("127.")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at `port` (0: a free one), to this machine alone if `host` can mean nothing else.

    A name is not trusted further than that: many systems give their own name an address of the loopback, at which other
    nodes would find nothing.
    """
    if only_here(host):
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=4096)
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("::", port), family=socket.AF_INET6, backlog=4096, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
    return socket.create_server(("", port), backlog=4096)


_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # compiled in, and switched off

# The servers of this process by their ports, for stores that share one.
_servers: dict[int, StoreServer] = {}
# The collector may find a store that nobody closed while this thread is in `_serve`, and let it leave there.
_servers_lock = threading.RLock()


def _serve(host: str, port: int, multi_tenant: bool, master_listen_fd: int | None) -> StoreServer:
    with _servers_lock:
        known = _servers.get(port) if multi_tenant else None
        if known is not None:
            known.users += 1
            if _servers.get(port) is known:  # its last store has not left just before
                return known
        try:
            listener = listen(host, port) if master_listen_fd is None else socket.socket(fileno=master_listen_fd)
        except OSError as error:
            raise StoreError(f"TCPStore: cannot listen at port {port} for {host}: {_reason(error)}") from error
        server = _servers[listener.getsockname()[1]] = StoreServer(listener)
    server.start()  # not under the lock: the new thread may have to take it, when it collects a store that nobody closed
    return server


def _close_all(idle: list[socket.socket], server: StoreServer | None) -> None:
    while idle:
        idle.pop().close()
    if server is None:
        return
    with _servers_lock:
        server.users -= 1
        if server.users:
            return
        if _servers.get(server.port) is server:
            del _servers[server.port]
    server.close()


def _read_frame(connection: socket.socket, deadline: float) -> bytes:
    (length,) = LENGTH.unpack(_read(connection, LENGTH.size, deadline))
    if length > LONGEST_FRAME:
        raise ProtocolError(f"the answer claims to have {length} bytes")
    return _read(connection, length, deadline)


def _read(connection: socket.socket, count: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < count:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        part = connection.recv(min(count - len(data), 1 << 20))
        if not part:
            raise EOFError("closed by the other side")
        data += part
    return bytes(data)


def _encoded(keys: Sequence[str]) -> list[bytes]:
    return [key.encode() for key in keys]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _text(number: float) -> bytes:
    return repr(number).encode()
