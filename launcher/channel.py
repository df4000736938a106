"""Frames between the hosts of a plain job: over the pipes of an rsh, or over the sockets of ``--node-rank``.

A frame is one byte that says what it is, four bytes of length, and so many bytes.
"""

import errno
import json
import os
import socket
import struct
from typing import Any

PLAN = b"P"  # to an agent: JSON, what it is to start
SIGNAL = b"S"  # both ways: JSON, the number of a signal: to the ranks, or to dlaunch
FILE = b"F"  # from an agent: JSON, a file of its run directory
OUT, ERR = b"1", b"2"  # from an agent: what its ranks wrote
END = b"E"  # to an agent: JSON, the attempt that it is to end by force
DONE = b"D"  # from an agent: JSON, attempt and exit code; it has nothing left of this attempt
HELLO = b"H"  # from a node: JSON, which one it is
OVER = b"O"  # to a node: JSON, how the whole job ended

# What a pipe or a connection answers when nobody is at its other end any more.
_GONE = {errno.EPIPE, errno.ECONNRESET, errno.ECONNABORTED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}
_HEAD = struct.Struct("!cI")
_LONGEST = 1 << 12  # bytes of a frame from somebody who has not said yet who he is


def send(fd: int, kind: bytes, payload: bytes | Any) -> bool:
    """Sends bytes, or a value as JSON; says whether somebody is there to read it."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    view = memoryview(_HEAD.pack(kind, len(data)) + data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return False
    return True


def receive(link: socket.socket) -> tuple[bytes, bytes]:
    """One short frame, and nothing of what follows it.

    Raises
    ------
    OSError, ValueError
        It does not come, or is none.
    """
    kind, length = _HEAD.unpack(_exactly(link, _HEAD.size))
    if length > _LONGEST:
        raise ValueError(f"a frame of {length} bytes")
    return kind, _exactly(link, length)


def _exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = link.recv(size - len(data))
        if not piece:
            raise ConnectionError(f"the connection ended {size - len(data)} bytes too early")
        data += piece
    return data


class Frames:
    """Takes bytes as they arrive and gives whole frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """The frames that are complete now.

        Examples
        --------
        >>> frames = Frames()
        >>> frames.feed(b"S" + bytes([0, 0, 0, 2, 49]))
        []
        >>> frames.feed(b"5")
        [(b'S', b'15')]
        """
        self._rest += data
        found = []
        while len(self._rest) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._rest)
            if len(self._rest) < _HEAD.size + length:
                break
            found.append((kind, self._rest[_HEAD.size : _HEAD.size + length]))
            self._rest = self._rest[_HEAD.size + length :]
        return found


def read(fd: int) -> bytes:
    """What has arrived; empty at the end, also where that came by force."""
    try:
        return os.read(fd, 1 << 16)
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return b""
