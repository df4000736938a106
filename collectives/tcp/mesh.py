"""How the ranks come to be connected, each with each.

Every rank listens, says in the store where, and connects to all lower ranks. Both sides prove with half of a random token, which
rank 0 leaves in the store, that they belong to the job; other connections are closed. When all are there nobody listens any more. All
connections are made at the beginning, not when they are first needed, so that a rank's death is seen at once by all.
"""

from __future__ import annotations

import contextlib
import errno
import resource
import secrets
import selectors
import socket
import struct
import time

from ..errors import CommunicationError
from ..store import PrefixStore, Store, StoreTimeoutError, TCPStore
from ..store.tcp import listen, only_here

__all__ = ["meet"]

_GREETING = struct.Struct("<8s16sI")
"""What one rank says to another first: a word, its half of the token, its rank."""
_HELLO, _WELCOME = b"dttcp-01", b"dttcp-OK"
_PATIENCE = 10.0
"""Seconds in which a connection has to say who it is."""
_IDLE, _INTERVAL, _PROBES = 60, 15, 8
"""Seconds of silence after which TCP asks whether the other machine is still there, between questions, and how many."""


def meet(
    store: Store, rank: int, size: int, timeout: float, address: str | None = None
) -> tuple[str, dict[int, tuple[str, socket.socket]]]:
    """Connect with every other rank.

    Returns
    -------
    host : str
        This machine's name.
    connected : dict
        For each other rank its machine's name and a socket.

    Raises
    ------
    CommunicationError
        If ranks do not come or cannot be reached within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    host = socket.gethostname()
    # A store may see several worlds one after the other.
    place = PrefixStore(f"tcp/{store.add(f'tcp/worlds of rank {rank}', 1)}", store)
    listener, published = _listen(store, address)
    connected: dict[int, tuple[str, socket.socket]] = {}
    with listener:
        try:
            place.set(f"rank {rank}", f"{host}\n{published}\n{listener.getsockname()[1]}")
            if rank == 0:
                place.set("token", secrets.token_bytes(32))
            if size == 1:
                return host, connected
            token, *told = _everybody(place, size, timeout)
            peers = {other: _Peer(text, store) for other, text in enumerate(told) if other != rank}
            for other in range(rank):
                connected[other] = (peers[other].host, _reach(other, peers[other], rank, token, deadline, timeout))
            _admit(listener, connected, peers, rank, size, token, deadline, timeout)
            for other in range(rank):
                _expect_welcome(other, *connected[other], token, deadline)
        except BaseException:
            for _, connection in connected.values():
                connection.close()
            raise
    for _, connection in connected.values():
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _INTERVAL)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
        # The sizes of the buffers are left alone: Linux lets them grow with the traffic, and no longer does once they are set.
    return host, connected


class _Peer:
    """Where a rank listens, as it said itself."""

    def __init__(self, text: bytes, store: Store) -> None:
        self.host, address, port = text.decode().split("\n")
        # A rank beside the store that knows itself by a loopback address only is where the store is.
        self.address = address or _tcp_store(store).host
        self.port = int(port)


def _listen(store: Store, address: str | None) -> tuple[socket.socket, str]:
    """A socket that listens, and the address to publish; empty: that of the store, as each rank knows it."""
    if address is not None:
        return listen(address, 0) if only_here(address) else _listen_at(address), address
    base = _base(store)
    if isinstance(base, TCPStore):
        here = base.local_address()
        if not only_here(here):
            return _listen_at(here), here
        if only_here(base.host):
            return listen(here, 0), here
        return listen(base.host, 0), ""
    name = socket.gethostname()
    with contextlib.suppress(socket.gaierror):  # a machine whose name nobody knows: all ranks are on it
        for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM):
            if not only_here(str(found[4][0])):
                return listen(name, 0), str(found[4][0])
    return listen("127.0.0.1", 0), "127.0.0.1"


def _listen_at(address: str) -> socket.socket:
    family, _, _, _, where = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
    try:
        return socket.create_server(where, family=family, backlog=4096)
    except OSError as error:
        raise CommunicationError(f"cannot listen at {address}: {error.strerror or error}") from error


def _base(store: Store) -> Store:
    while isinstance(store, PrefixStore):
        store = store.underlying_store
    return store


def _tcp_store(store: Store) -> TCPStore:
    base = _base(store)
    if not isinstance(base, TCPStore):
        raise CommunicationError("a rank gave no address, and the store has none")
    return base


def _everybody(place: PrefixStore, size: int, timeout: float) -> list[bytes]:
    """The token, and what each rank has said about itself."""
    keys = ["token", *(f"rank {other}" for other in range(size))]
    try:
        place.wait(keys, timeout)
    except StoreTimeoutError as error:
        missing = [str(other) for other in range(size) if not place.check([f"rank {other}"])]
        if not missing:
            raise
        raise CommunicationError(
            f"rank{'s' if len(missing) > 1 else ''} {', '.join(missing)} of {size} did not come within {timeout:g} s"
        ) from error
    return place.multi_get(keys)


def _reach(other: int, peer: _Peer, rank: int, token: bytes, deadline: float, timeout: float) -> socket.socket:
    try:
        connection = socket.create_connection((peer.address, peer.port), max(0.01, deadline - time.monotonic()))
    except OSError as error:
        raise CommunicationError(
            f"rank {rank} cannot reach rank {other} ({peer.host}) at {peer.address} port {peer.port} within {timeout:g} s: "
            f"{error.strerror or error}"
        ) from error
    try:
        connection.sendall(_GREETING.pack(_HELLO, token[:16], rank))
    except OSError as error:
        connection.close()
        raise CommunicationError(f"rank {other} ({peer.host}) has gone while rank {rank} connected: {error}") from error
    return connection


def _admit(
    listener: socket.socket, connected: dict[int, tuple[str, socket.socket]], peers: dict[int, _Peer], rank: int, size: int,
    token: bytes, deadline: float, timeout: float,
) -> None:  # fmt: skip
    """Accept the connections of all higher ranks, and send everybody else away."""
    listener.setblocking(False)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        newcomers: dict[socket.socket, tuple[bytearray, float]] = {}

        def dismiss(newcomer: socket.socket) -> None:
            selector.unregister(newcomer)
            del newcomers[newcomer]
            newcomer.close()

        try:
            while missing := [other for other in range(rank + 1, size) if other not in connected]:
                now = time.monotonic()
                if now > deadline:
                    late = ", ".join(f"rank {other} ({peers[other].host})" for other in missing)
                    raise CommunicationError(f"rank {rank} waited {timeout:g} s for the connection of {late}")
                for newcomer in [one for one, (_, until) in newcomers.items() if until < now]:
                    dismiss(newcomer)
                for key, _ in selector.select(0.1):
                    if key.fileobj is listener:
                        try:
                            newcomer, _ = listener.accept()
                        except OSError as error:
                            if error.errno in (errno.EMFILE, errno.ENFILE):
                                limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
                                raise CommunicationError(
                                    f"rank {rank} cannot take the connections of all {size} ranks: {error.strerror} (ulimit -n is {limit})"
                                ) from error
                            continue  # it has gone again
                        newcomer.setblocking(False)
                        newcomers[newcomer] = (bytearray(), now + _PATIENCE)
                        selector.register(newcomer, selectors.EVENT_READ)
                        continue
                    newcomer = key.fileobj  # type: ignore[assignment]
                    said = newcomers[newcomer][0]
                    who = _who(newcomer, said, token)
                    if who is None and len(said) < _GREETING.size:
                        continue
                    if who is None or who not in missing:
                        dismiss(newcomer)
                        continue
                    selector.unregister(newcomer)
                    del newcomers[newcomer]
                    newcomer.setblocking(True)
                    connected[who] = (peers[who].host, newcomer)
                    try:
                        newcomer.sendall(_GREETING.pack(_WELCOME, token[16:], rank))
                    except OSError as error:
                        raise CommunicationError(
                            f"rank {who} ({peers[who].host}) has gone while rank {rank} let it in: {error}"
                        ) from error
                    missing.remove(who)
        finally:
            for newcomer in tuple(newcomers):
                dismiss(newcomer)


def _who(newcomer: socket.socket, said: bytearray, token: bytes) -> int | None:
    """The rank that a connection proves to be; -1 for a stranger, None as long as it has not said enough."""
    try:
        more = newcomer.recv(_GREETING.size - len(said))
    except BlockingIOError:
        return None
    except OSError:
        return -1
    said += more
    if not more:
        return -1
    if len(said) < _GREETING.size:
        return None if _HELLO.startswith(said[: len(_HELLO)]) else -1
    word, half, other = _GREETING.unpack(said)
    return other if word == _HELLO and secrets.compare_digest(half, token[:16]) else -1


def _expect_welcome(other: int, host: str, connection: socket.socket, token: bytes, deadline: float) -> None:
    answer = b""
    try:
        while len(answer) < _GREETING.size:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            part = connection.recv(_GREETING.size - len(answer))
            if not part:
                raise CommunicationError(f"rank {other} ({host}) closed its connection while the ranks connected")
            answer += part
    except OSError as error:
        raise CommunicationError(f"rank {other} ({host}) does not answer: {error}") from error
    word, half, rank = _GREETING.unpack(answer)
    if word != _WELCOME or not secrets.compare_digest(half, token[16:]) or rank != other:
        raise CommunicationError(f"what answers in the place of rank {other} ({host}) is not of this job")
