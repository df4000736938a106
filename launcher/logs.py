"""``--log-dir DIR``: what each rank writes also goes to a file of its own.

    DIR/rank-3.out, DIR/rank-3.err              the first start of the job
    DIR/attempt-1/rank-3.out, ...               its first restart, and so on

Flight records of the ranks lie beside them, unless the user wants them elsewhere (DISTTORCH_FLIGHT_DIR). What an earlier
job left in DIR is put aside in DIR/earlier-1, so that nothing is overwritten and nothing of it is taken for this job's.
A log that cannot be written, as on a full disk, is given up; the job goes on, and its output still goes to the terminal.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

_OURS = re.compile(r"rank-\d+\.(out|err|flight\.json)|attempt-\d+")


class Writer(Protocol):
    """Where a stream of a rank goes."""

    def write(self, data: bytes) -> None:
        """Takes the next bytes."""

    def close(self) -> None:
        """Takes notice that there are no more."""


class Logged:
    """Writes a stream of a rank to a file, and passes it on to another writer.

    Parameters
    ----------
    path : Path
        The file; it and its directory are made.
    onward : Writer
        Where the bytes go as well.
    failed : callable
        Called once, with a message, if the file cannot be written.
    """

    def __init__(self, path: Path, onward: Writer, failed: Callable[[str], None]):
        self._path = path
        self._onward = onward
        self._failed = failed
        self._fd = -1
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError as error:
            self._give_up(error)

    def write(self, data: bytes) -> None:
        """To the terminal first: a file may be slow."""
        self._onward.write(data)
        view = memoryview(data)
        try:
            while view and self._fd >= 0:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Ends both."""
        self._onward.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                os.close(fd)
            except OSError as error:  # a network file system tells of a full disk only now
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        fd, self._fd = self._fd, -1
        self._failed(f"{self._path}: {error.strerror}")
        if fd >= 0:
            try:
                os.close(fd)
            except OSError:
                return  # the failure has been said


def directory_of(log_dir: str, attempt: int) -> str:
    """Where an attempt's files lie.

    Examples
    --------
    >>> directory_of("logs", 0), directory_of("logs", 2)
    ('logs', 'logs/attempt-2')
    """
    return os.path.join(log_dir, f"attempt-{attempt}") if attempt else log_dir


def prepare(log_dir: str) -> str | None:
    """Makes the directory and puts aside what an earlier job left in it.

    Returns
    -------
    str or None
        The directory into which that was put; None if there was nothing.

    Raises
    ------
    OSError
        The directory cannot be made or changed.
    """
    os.makedirs(log_dir, exist_ok=True)
    if not os.access(log_dir, os.W_OK | os.X_OK):
        raise PermissionError(13, "no permission to write there", log_dir)
    earlier = [name for name in os.listdir(log_dir) if _OURS.fullmatch(name)]
    if not earlier:
        return None
    number = 1
    while os.path.exists(aside := os.path.join(log_dir, f"earlier-{number}")):
        number += 1
    os.mkdir(aside)
    for name in earlier:
        os.rename(os.path.join(log_dir, name), os.path.join(aside, name))
    return aside
