"""HashStore: a table between the threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .interface import DEFAULT_TIMEOUT, Seconds, Store, StoreTimeoutError, quoted
from .table import Table

__all__ = ["HashStore"]


class HashStore(Store):
    """A store for the threads of one process.

    Parameters
    ----------
    timeout : datetime.timedelta or float, default 300 seconds
        How long to wait for keys.

    Examples
    --------
    >>> store = HashStore(timeout=0.01)
    >>> store.multi_set(["a", "b"], ["1", "2"])
    >>> store.multi_get(["a", "b"]), store.num_keys()
    ([b'1', b'2'], 2)
    >>> store.get("c")
    Traceback (most recent call last):
    ...
    collectives.store.interface.StoreTimeoutError: HashStore: key 'c' has not come in 0.01 s
    """

    def __init__(self, timeout: Seconds = DEFAULT_TIMEOUT) -> None:
        super().__init__(timeout)
        self._table = Table()
        self._changed = threading.Condition()

    def _check(self, keys: list[str]) -> bool:
        with self._changed:
            return not self._table.absent(keys)

    def _add(self, key: str, amount: int) -> int:
        with self._changed:
            total = self._table.add(key, amount)
            self._changed.notify_all()
            return total

    def _append(self, key: str, value: bytes) -> None:
        with self._changed:
            self._table.append(key, value)
            self._changed.notify_all()

    def _compare_set(self, key: str, expected: bytes, desired: bytes) -> bytes:
        with self._changed:
            value = self._table.compare_set(key, expected, desired)
            self._changed.notify_all()
            return value

    def _delete(self, key: str) -> bool:
        with self._changed:
            return self._table.delete(key)

    def _push(self, key: str, value: bytes) -> None:
        with self._changed:
            self._table.push(key, value)
            self._changed.notify_all()

    def _pop(self, key: str, timeout: float) -> bytes:
        with self._changed:
            self._wait_locked(lambda: [] if key in self._table.queues else [key], timeout)
            return self._table.pop(key)

    def _queue_len(self, key: str) -> int:
        with self._changed:
            return len(self._table.queues.get(key, ()))

    def num_keys(self) -> int:
        with self._changed:
            return len(self._table.values)

    def list_keys(self) -> list[str]:
        with self._changed:
            return list(self._table.values)

    def clone(self) -> HashStore:
        other = HashStore(self._timeout)
        other._table, other._changed = self._table, self._changed
        return other

    def _set(self, keys: list[str], values: list[bytes]) -> None:
        with self._changed:
            self._table.values.update(zip(keys, values))
            self._changed.notify_all()

    def _get(self, keys: list[str], timeout: float) -> list[bytes]:
        with self._changed:
            self._wait_locked(lambda: self._table.missing(keys), timeout)
            return [self._table.values[key] for key in keys]

    def _wait(self, keys: list[str], timeout: float) -> None:
        with self._changed:
            self._wait_locked(lambda: self._table.absent(keys), timeout)

    def _wait_locked(self, missing: Callable[[], list[str]], timeout: float) -> None:
        if not self._changed.wait_for(lambda: not missing(), timeout):
            raise StoreTimeoutError(f"HashStore: {quoted(missing())} has not come in {timeout:g} s")
