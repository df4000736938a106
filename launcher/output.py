"""``--tag``: every line of output begins with its rank, and lines of different ranks never mix.

MPI's process managers pass on whatever a read gave them, so two long lines can end up inside each other. The ranks on
the host of `dlaunch` therefore write whole lines into two named pipes of the run directory, one rank at a time, and
`Merged` copies these to its own stdout and stderr. Ranks on other hosts write whole lines to their process manager.
"""

import errno
import fcntl
import os
import threading
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
        self._rest = b""

    def write(self, data: bytes) -> None:
        """Takes the next bytes; whole lines go out, the rest waits for its end."""
        data = self._rest + data
        # A progress bar returns to the beginning of its line with \r: that ends a piece that is worth showing, too. But
        # a \r at the very end may be the first half of \r\n.
        end = 1 + max(data.rfind(b"\n"), data.rfind(b"\r", 0, len(data) - 1))
        self._rest = data[end:]
        self._send(b"".join(self._prefix + line for line in data[:end].splitlines(keepends=True)))

    def close(self) -> None:
        """Sends what is left as a line of its own."""
        if self._rest:
            self._send(self._prefix + self._rest.rstrip(b"\r") + b"\n")
        self._rest = b""

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
    """Copies the ranks' two named pipes to this process's stdout and stderr until it is closed."""

    def __init__(self, directory: Path):
        self._keepers = []
        self._threads = []
        for target, name in enumerate(STREAMS, start=1):
            pipe = directory / name
            os.mkfifo(pipe, 0o600)
            reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
            # Without a writer of our own the reader would see the end before the first rank has opened the pipe.
            self._keepers.append(os.open(pipe, os.O_WRONLY))
            os.set_blocking(reader, True)
            self._threads.append(threading.Thread(target=_copy, args=(reader, target), daemon=True))

    def start(self) -> None:
        """Begins to copy. Apart from the making of the pipes, because a process with threads should not fork."""
        for thread in self._threads:
            thread.start()

    def close(self, timeout: float) -> None:
        """Waits until all that the ranks wrote has gone out; the ranks must have ended. `timeout` in seconds."""
        for keeper in self._keepers:
            os.close(keeper)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(timeout)


def write_all(fd: int, data: bytes) -> None:
    """Writes all bytes; where nobody reads any more, or the disk is full, they are dropped, and the ranks go on."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        if error.errno not in _NO_AUDIENCE:
            raise


def _copy(source: int, target: int) -> None:
    while data := os.read(source, 1 << 16):
        write_all(target, data)
    os.close(source)
