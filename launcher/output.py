"""``--tag``: every line of output begins with its rank, and lines of different ranks never mix.

MPI's process managers pass on whatever a read gave them, so two long lines can end up inside each other. The ranks on
the host of `dlaunch` therefore write whole lines into two named pipes of the run directory, one rank at a time. Ranks on
other hosts write whole lines to their process manager, which writes them into two pipes of its own. `Merged` copies
all of these to its own stdout and stderr, line by line.
"""

import errno
import fcntl
import os
import re
import select
import stat
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path

STREAMS = ("stdout", "stderr")

# There is nowhere to say it, either: the stream that cannot be written is the one for saying things.
_NO_AUDIENCE = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class TaggedWriter:
    """Writes the bytes of one stream of one rank as whole lines with a prefix.

    Parameters
    ----------
    rank : int
        Its rank; the prefix is "[rank] ".
    fd : int
        Where the lines go.
    lock : int or None
        The descriptor of a file that is locked during each write, where several ranks share the pipe.
    """

    def __init__(self, rank: int, fd: int, lock: int | None):
        self._prefix = b"[%d] " % rank
        self._fd = fd
        self._lock = lock
        self._lines = Lines(may_go_on=True)

    def write(self, data: bytes) -> None:
        """Takes the next bytes; whole lines go out, the rest waits for its end."""
        lines = self._lines.feed(data)
        self._send(b"".join(self._prefix + line for line in lines.splitlines(keepends=True)))

    def close(self) -> None:
        """Sends what is left as a line of its own."""
        if rest := self._lines.rest():
            self._send(self._prefix + rest.rstrip(b"\r") + b"\n")

    def _send(self, data: bytes) -> None:
        if not data:
            return
        if self._lock is None:
            write_all(self._fd, data)
        else:
            _write_alone(self._fd, data, self._lock)


class PlainWriter:
    """Passes bytes on as they come."""

    def __init__(self, fd: int):
        self._fd = fd

    def write(self, data: bytes) -> None:
        """Sends the bytes now."""
        write_all(self._fd, data)

    def close(self) -> None:
        """Nothing is held back."""


def tagged_writers(rank: int, directory: Path, here: bool) -> tuple[TaggedWriter, TaggedWriter]:
    """The writers for a rank's stdout and stderr; `here` says that `dlaunch` runs on this host."""
    if not here:
        return TaggedWriter(rank, 1, None), TaggedWriter(rank, 2, None)
    pipes, lock = _open(directory)
    return TaggedWriter(rank, pipes[0], lock), TaggedWriter(rank, pipes[1], lock)


class LinesOfOthers:
    """Writes what other hosts sent: with `tag` whole lines, between those that the ranks of this host write.

    Parameters
    ----------
    directory : Path
        The run directory, with the named pipes of `Merged` where there is `tag`.
    tag : bool
        Whether lines are to stay whole.
    """

    def __init__(self, directory: Path, tag: bool):
        self._pipes: list[int] = [1, 2]
        self._lock: int | None = None
        if tag:
            self._pipes, self._lock = _open(directory)

    def write(self, number: int, data: bytes) -> None:
        """Writes to stdout, 1, or to stderr, 2."""
        if self._lock is None:
            write_all(self._pipes[number - 1], data)
        else:
            _write_alone(self._pipes[number - 1], data, self._lock)


def _open(directory: Path) -> tuple[list[int], int]:
    """The two named pipes, for writing, and the file that is locked meanwhile."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    return [os.open(directory / name, os.O_WRONLY) for name in STREAMS], lock


def _write_alone(fd: int, data: bytes, lock: int) -> None:
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        write_all(fd, data)
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)


class Merged:
    """Copies the ranks' two named pipes, and what their process manager writes, to this process's stdout and stderr.

    Attributes
    ----------
    stdout, stderr : int
        The descriptors for the process manager, which `start` closes.
    """

    def __init__(self, directory: Path):
        self._keepers = []
        self._threads = []
        managers = []
        for target, name in enumerate(STREAMS, start=1):
            pipe = directory / name
            os.mkfifo(pipe, 0o600)
            reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
            # Without a writer of our own the reader would see the end before the first rank has opened the pipe.
            self._keepers.append(os.open(pipe, os.O_WRONLY))
            os.set_blocking(reader, True)
            manager, write = os.pipe()
            managers.append(write)
            one_writer = threading.Lock()  # a write to a pipe that is nearly full takes a part of the line
            for source in (reader, manager):
                self._threads.append(threading.Thread(target=_copy, args=(source, target, one_writer), daemon=True))
        self.stdout, self.stderr = managers

    def start(self) -> None:
        """Begins to copy. Apart from the making of the pipes, because a process with threads should not fork."""
        os.close(self.stdout)
        os.close(self.stderr)
        for thread in self._threads:
            thread.start()

    def close(self, timeout: float, given_up: Callable[[], bool] = lambda: False) -> None:
        """Waits until all that was written has gone out; the ranks must have ended.

        Parameters
        ----------
        timeout : float
            Seconds after which what does not end is given up. While somebody reads slowly they do not count.
        given_up : callable
            Asked again and again whether a slow reader is not to be waited for.
        """
        for keeper in self._keepers:
            os.close(keeper)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(timeout)
                while thread.is_alive() and held_up() and not given_up():
                    thread.join(min(timeout, 0.5))


def whole_lines(data: bytes, may_go_on: bool) -> tuple[bytes, bytes]:
    """The lines that are complete, and the rest.

    A progress bar returns to the beginning of its line with ``\\r``: that ends a piece that is worth showing, too. Where
    lines `may_go_on`, a ``\\r`` at the very end may be the first half of ``\\r\\n``, and waits; what a `TaggedWriter` has sent
    has waited already.

    Examples
    --------
    >>> whole_lines(b"one\\ntwo\\rthree\\r", may_go_on=True)
    (b'one\\ntwo\\r', b'three\\r')
    """
    end = 1 + max(data.rfind(b"\n"), data.rfind(b"\r", 0, len(data) - may_go_on))
    return data[:end], data[end:]


class Lines:
    """Takes bytes as they come and gives whole lines, as `whole_lines` finds them."""

    def __init__(self, may_go_on: bool):
        self._may_go_on = may_go_on
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """The lines that are complete now."""
        self._pieces.append(data)
        # The pieces of a line of many megabytes are not joined and looked through at each of them.
        if not re.search(rb"[\r\n]", data) and not (len(self._pieces) > 1 and self._pieces[-2].endswith(b"\r")):
            return b""
        lines, rest = whole_lines(self.rest(), self._may_go_on)
        self._pieces = [rest] if rest else []
        return lines

    def rest(self) -> bytes:
        """What has not come to its end, which is given once."""
        rest = b"".join(self._pieces)
        self._pieces = []
        return rest


def write_all(fd: int, data: bytes) -> None:
    """Writes all bytes; where nobody reads any more, or the disk is full, they are dropped, and the ranks go on.

    A descriptor that does not block is waited for: MPICH's mpiexec makes its stdout and stderr such, and with them those of
    every process that it shares them with.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
        except OSError as error:
            if error.errno not in _NO_AUDIENCE:
                raise
            return


def held_up() -> bool:
    """Whether stdout or stderr takes nothing more for now, because its reader is slow, such as a pager."""
    for fd in (1, 2):
        try:
            if not select.select([], [fd], [], 0.0)[1]:
                return True
        except (OSError, ValueError):  # closed
            continue
    return False


def unread(fd: int) -> int:
    """How many bytes of a pipe, by its end for writing, its reader has not taken yet; 0 where it is no pipe."""
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
    except OSError:  # closed
        return 0
    return 0


def _copy(source: int, target: int, one_writer: threading.Lock) -> None:
    lines = Lines(may_go_on=False)
    while data := os.read(source, 1 << 16):
        with one_writer:
            write_all(target, lines.feed(data))
    if rest := lines.rest():
        with one_writer:
            write_all(target, rest + b"\n")
    os.close(source)
