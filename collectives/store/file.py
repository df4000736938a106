"""FileStore: a file that all ranks can open. Every operation locks it, reads what others wrote and appends its own.

The file is a log. A record is ``kind (1 byte) | key's length (4) | value's length (8) | CRC-32 of kind, key and value (4) |
key | value``, numbers with the lowest byte first; kind 1 sets a key, 2 deletes one, 3 says that one of the ranks has left, 4 puts a
value into a queue, 5 takes one out. A writer that dies leaves at most one record that is not whole, at the end; the next writer cuts
it off.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from .interface import DEFAULT_TIMEOUT, Seconds, Store, StoreError, StoreTimeoutError, quoted
from .table import Table

__all__ = ["FileStore"]

_RECORD = struct.Struct("<BIQI")
_SET, _DELETE, _LEFT, _PUSH, _POP = 1, 2, 3, 4, 5
T = TypeVar("T")
_LONGEST_PAUSE = 0.02
_held = threading.local()
"""Of a thread that has the lock of a file: `leaving`, the stores that are to leave when it has not."""


class FileStore(Store):
    """A store in a file of a file system that all ranks share.

    Parameters
    ----------
    file_name : str or path
        The file. Each job needs a new one: keys of an earlier job would be taken for its own.
    world_size : int, default -1
        How many ranks use it: when that many have left, by `close`, by letting go of the store or by the end of the program,
        the file is removed. With -1 it stays.
    timeout : datetime.timedelta or float, default 300 seconds
        How long to wait for keys.

    Raises
    ------
    StoreError
        If the file cannot be opened or locked, or is no store.

    Examples
    --------
    >>> import tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "store")
    >>> first, second = FileStore(path, 2), FileStore(path, 2)
    >>> first.set("a", "1"); second.get("a")
    b'1'
    >>> first.close(); second.close(); os.path.exists(path)
    False
    """

    def __init__(self, file_name: str | os.PathLike[str], world_size: int = -1, timeout: Seconds = DEFAULT_TIMEOUT) -> None:
        super().__init__(timeout)
        self._log = _Log(Path(os.fspath(file_name)))
        self._world_size = world_size
        with self._log.locked():
            pass
        self._leave = weakref.finalize(self, _leave, self._log, world_size, os.getpid())

    @property
    def path(self) -> str:
        """The file."""
        return str(self._log.path)

    def close(self) -> None:
        """Leave the store; the last of `world_size` ranks removes the file."""
        self._leave()

    def _check(self, keys: list[str]) -> bool:
        with self._log.locked() as table:
            return not table.absent(keys)

    def _add(self, key: str, amount: int) -> int:
        with self._log.locked() as table:
            total = table.add(key, amount)
            self._log.write(_SET, key, table.values[key])
            return total

    def _append(self, key: str, value: bytes) -> None:
        with self._log.locked() as table:
            table.append(key, value)
            self._log.write(_SET, key, table.values[key])

    def _compare_set(self, key: str, expected: bytes, desired: bytes) -> bytes:
        with self._log.locked() as table:
            before = table.values.get(key)
            value = table.compare_set(key, expected, desired)
            if table.values.get(key) != before:
                self._log.write(_SET, key, value)
            return value

    def _delete(self, key: str) -> bool:
        with self._log.locked() as table:
            found = table.delete(key)
            if found:
                self._log.write(_DELETE, key, b"")
            return found

    def _push(self, key: str, value: bytes) -> None:
        with self._log.locked() as table:
            table.push(key, value)
            self._log.write(_PUSH, key, value)

    def _pop(self, key: str, timeout: float) -> bytes:
        def take(table: Table) -> bytes:
            value = table.pop(key)
            self._log.write(_POP, key, b"")
            return value

        return self._await(lambda table: [] if key in table.queues else [key], take, timeout)

    def _queue_len(self, key: str) -> int:
        with self._log.locked() as table:
            return len(table.queues.get(key, ()))

    def num_keys(self) -> int:
        with self._log.locked() as table:
            return len(table.values)

    def list_keys(self) -> list[str]:
        with self._log.locked() as table:
            return list(table.values)

    def clone(self) -> FileStore:
        other = FileStore(self._log.path, -1, self._timeout)
        other._leave.detach()  # it is no rank of its own
        return other

    def _set(self, keys: list[str], values: list[bytes]) -> None:
        with self._log.locked() as table:
            for key, value in zip(keys, values):
                table.values[key] = value
                self._log.write(_SET, key, value)

    def _get(self, keys: list[str], timeout: float) -> list[bytes]:
        return self._await(lambda table: table.missing(keys), lambda table: [table.values[key] for key in keys], timeout)

    def _wait(self, keys: list[str], timeout: float) -> None:
        self._await(lambda table: table.absent(keys), lambda table: None, timeout)

    def _await(self, missing: Callable[[Table], list[str]], take: Callable[[Table], T], timeout: float) -> T:
        """What `take` says of the table as soon as nothing is missing."""
        deadline = time.monotonic() + timeout
        pause = 0.0005
        while True:
            with self._log.locked() as table:
                absent = missing(table)
                if not absent:
                    return take(table)
            if time.monotonic() >= deadline:
                raise StoreTimeoutError(f"FileStore {self.path}: {quoted(absent)} has not come in {timeout:g} s")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


class _Log:
    """The file, and the table as far as the file has been read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.table = Table()
        self.left = 0
        self._read_to = 0
        self._file = -1
        self._identity: tuple[int, int] | None = None

    @contextmanager
    def locked(self) -> Iterator[Table]:
        """Hold the lock of the file, having read what others wrote."""
        leaving: list[tuple[_Log, int, int]] = []
        _held.leaving = leaving
        try:
            file, status = self._open()
            try:
                if (status.st_dev, status.st_ino) != self._identity:
                    self.table, self.left, self._read_to = Table(), 0, 0
                    self._identity = (status.st_dev, status.st_ino)
                self._file = file
                self._catch_up(status.st_size)
                yield self.table
            finally:
                os.close(file)
        finally:
            _held.leaving = None
            for each in leaving:
                _leave(*each)

    def _open(self) -> tuple[int, os.stat_result]:
        """The file, locked, and what the system says of it."""
        while True:
            try:
                # Opened anew each time: locks belong to an opening, and threads and forked processes must not share one.
                file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise StoreError(f"FileStore: cannot open {self.path}: {error.strerror}") from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                status = os.fstat(file)
            except OSError as error:
                os.close(file)
                raise StoreError(f"FileStore: cannot lock {self.path}: {error.strerror}") from error
            if status.st_nlink:
                return file, status
            os.close(file)  # the last of its ranks has removed it in between

    def write(self, kind: int, key: str, value: bytes) -> None:
        """Append a record; the lock is held."""
        name = key.encode()
        record = _RECORD.pack(kind, len(name), len(value), _checksum(kind, name, value)) + name + value
        try:
            while record:
                written = os.pwrite(self._file, record, self._read_to)
                record = record[written:]
                self._read_to += written
        except OSError as error:
            raise StoreError(f"FileStore: cannot write to {self.path}: {error.strerror}") from error

    def _catch_up(self, size: int) -> None:
        content = b""
        while len(content) < size - self._read_to:
            part = os.pread(self._file, size - self._read_to - len(content), self._read_to + len(content))
            if not part:
                break
            content += part
        position = 0
        while len(content) - position >= _RECORD.size:
            kind, name_length, length, checksum = _RECORD.unpack_from(content, position)
            start = position + _RECORD.size
            end = start + name_length + length
            if not _SET <= kind <= _POP:
                raise StoreError(f"FileStore: {self.path} is no store: at byte {self._read_to + position} is no record")
            if end > len(content):
                break
            name, value = content[start : start + name_length], content[start + name_length : end]
            if _checksum(kind, name, value) != checksum:
                raise StoreError(f"FileStore: {self.path} is damaged at byte {self._read_to + position}")
            self._apply(kind, name.decode(), value)
            position = end
        if position < len(content):
            os.ftruncate(self._file, self._read_to + position)
        self._read_to += position

    def _apply(self, kind: int, key: str, value: bytes) -> None:
        if kind == _SET:
            self.table.values[key] = value
        elif kind == _DELETE:
            self.table.delete(key)
        elif kind == _PUSH:
            self.table.push(key, value)
        elif kind == _POP:
            self.table.pop(key)
        else:
            self.left += 1


def _checksum(kind: int, name: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(name, kind))


def _leave(log: _Log, world_size: int, process: int) -> None:
    """One of the ranks leaves; the last takes the file with it."""
    if world_size < 1 or os.getpid() != process or not log.path.exists():
        return
    leaving = getattr(_held, "leaving", None)
    if leaving is not None:
        # The collector has found a store that nobody closed while this thread has the lock, perhaps of the same file.
        leaving.append((log, world_size, process))
        return
    with log.locked():
        log.write(_LEFT, "", b"")
        log.left += 1
        if log.left >= world_size:
            log.path.unlink()
