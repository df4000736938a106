"""Store: what every store can do, and the errors by which one says that it could not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from operator import index
from typing import Any

from ..errors import CommunicationError

__all__ = [
    "DEFAULT_TIMEOUT", "QueueEmptyError", "Seconds", "Store", "StoreError", "StoreTimeoutError", "as_bytes", "quoted", "seconds",
]  # fmt: skip

DEFAULT_TIMEOUT = timedelta(seconds=300)
Seconds = timedelta | float
"""A time: as `datetime.timedelta`, or in seconds."""


class StoreError(CommunicationError):
    """A store cannot be reached, or answers what no store answers; the message says where it is."""


class StoreTimeoutError(StoreError, TimeoutError):
    """Keys that were waited for have not come; the message names them, and the seconds waited."""


class QueueEmptyError(StoreError):
    """There is nothing in a queue, and it is not waited for."""


class Store(ABC):
    """Keys with values of bytes, and queues of such values, shared by the ranks of a job.

    Every operation is atomic: two ranks that add to one number at the same time both count. Keys are text, or bytes of UTF-8. A queue
    and a value of one name have nothing to do with each other, but that `check` and `wait` find either.

    Parameters
    ----------
    timeout : datetime.timedelta or float, default 300 seconds
        How long `get`, `multi_get` and `wait` wait for keys that are not there yet.

    Examples
    --------
    >>> from collectives.store import HashStore
    >>> store = HashStore()
    >>> store.set("colour", "blue")
    >>> store.get("colour"), store.add("visitors", 2), store.check(["visitors", "name"])
    (b'blue', 2, False)
    """

    def __init__(self, timeout: Seconds = DEFAULT_TIMEOUT) -> None:
        self._timeout = seconds(timeout)

    @property
    def timeout(self) -> timedelta:
        """How long this store waits for a key."""
        return timedelta(seconds=self._timeout)

    def set_timeout(self, timeout: Seconds) -> None:
        """Change how long this store waits for a key."""
        self._timeout = seconds(timeout)

    def set(self, key: str, value: str | bytes) -> None:
        """Give `key` a value, in place of what it had. Text is kept as UTF-8."""
        self._set([_text("set", key)], [as_bytes(value)])

    def get(self, key: str) -> bytes:
        """The value of `key`, waiting for it if it is not there yet.

        Raises
        ------
        StoreTimeoutError
            If it does not come within the store's timeout.
        """
        return self._get([_text("get", key)], self._timeout)[0]

    def multi_set(self, keys: Sequence[str], values: Sequence[str | bytes]) -> None:
        """Set several keys at once.

        Raises
        ------
        ValueError
            If there are not as many values as keys.
        """
        names = _texts("multi_set", keys)
        if len(names) != len(values):
            raise ValueError(f"multi_set: {len(names)} keys, but {len(values)} values")
        self._set(names, [as_bytes(value) for value in values])

    def multi_get(self, keys: Sequence[str]) -> list[bytes]:
        """The values of several keys, waiting for all of them.

        Raises
        ------
        StoreTimeoutError
            If not all come within the store's timeout.
        """
        names = _texts("multi_get", keys)
        return self._get(names, self._timeout) if names else []

    def wait(self, keys: Sequence[str], timeout: Seconds | None = None) -> None:
        """Return when all `keys` are there, each with a value or something in its queue.

        Parameters
        ----------
        keys : sequence of str
            What is waited for.
        timeout : datetime.timedelta or float, optional
            How long at most; the store's timeout if not given.

        Raises
        ------
        TypeError
            If `keys` is one text.
        StoreTimeoutError
            If they do not come in that time; the message names those that are missing.
        """
        names = _texts("wait", keys)
        if names:
            self._wait(names, self._timeout if timeout is None else seconds(timeout))

    def barrier(self, key: str, world_size: int, timeout: Seconds | None = None) -> None:
        """Return when `world_size` callers have come to the barrier of this name, which serves once.

        Raises
        ------
        StoreTimeoutError
            If they do not come within `timeout`, or the store's if it is not given.
        """
        if self.add(f"{key}/come", 1) >= world_size:
            self.set(f"{key}/all", b"")
        self.wait([f"{key}/all"], timeout)

    def check(self, keys: Sequence[str]) -> bool:
        """Whether all `keys` are there, each with a value or something in its queue; does not wait."""
        return self._check(_texts("check", keys))

    def add(self, key: str, amount: int) -> int:
        """Add to the number that `key` holds, 0 if it is not there, and return the new one.

        Raises
        ------
        ValueError
            If the key's value is no integer.
        """
        return self._add(_text("add", key), index(amount))

    def append(self, key: str, value: str | bytes) -> None:
        """Put `value` behind the one that `key` holds, if there is one."""
        self._append(_text("append", key), as_bytes(value))

    def compare_set(self, key: str, expected_value: str | bytes, desired_value: str | bytes) -> bytes:
        """Set `key` only if it holds `expected_value`, or if it is not there and `expected_value` is empty.

        Returns
        -------
        bytes
            What the key holds now; `expected_value` if it is not there.
        """
        return self._compare_set(_text("compare_set", key), as_bytes(expected_value), as_bytes(desired_value))

    def delete_key(self, key: str) -> bool:
        """Take a key's value away; whether it was there."""
        return self._delete(_text("delete_key", key))

    def queue_push(self, key: str, value: str | bytes) -> None:
        """Put `value` at the end of the queue of the name `key`."""
        self._push(_text("queue_push", key), as_bytes(value))

    def queue_pop(self, key: str, block: bool = True) -> bytes:
        """Take the first value out of a queue; each value goes to one caller.

        Parameters
        ----------
        key : str
            The queue.
        block : bool, default True
            Whether to wait for a value.

        Raises
        ------
        StoreTimeoutError
            If none comes within the store's timeout.
        QueueEmptyError
            If there is none, and it is not waited for.

        Examples
        --------
        >>> from collectives.store import HashStore
        >>> store = HashStore()
        >>> store.queue_push("jobs", "first"); store.queue_push("jobs", "second")
        >>> store.queue_pop("jobs"), store.queue_len("jobs")
        (b'first', 1)
        """
        name = _text("queue_pop", key)
        try:
            return self._pop(name, self._timeout if block else 0.0)
        except StoreTimeoutError as error:
            if block:
                raise
            raise QueueEmptyError(f"queue_pop: the queue {name!r} is empty") from error

    def queue_len(self, key: str) -> int:
        """How many values are in a queue; 0 if there is none of this name."""
        return self._queue_len(_text("queue_len", key))

    @abstractmethod
    def num_keys(self) -> int:
        """How many keys have a value, with those by which the store itself works (a `TCPStore` counts its workers in one)."""

    @abstractmethod
    def list_keys(self) -> list[str]:
        """All keys that have a value, in no certain order."""

    @abstractmethod
    def clone(self) -> Store:
        """Another store with the same keys, that can be used independently of this one."""

    def has_extended_api(self) -> bool:
        """Whether `append`, `multi_get` and `multi_set` are there: they are, in every store."""
        return True

    @abstractmethod
    def _check(self, keys: list[str]) -> bool:
        """Whether all are there."""

    @abstractmethod
    def _add(self, key: str, amount: int) -> int:
        """Add, and return the new number."""

    @abstractmethod
    def _append(self, key: str, value: bytes) -> None:
        """Put a value behind what is there."""

    @abstractmethod
    def _compare_set(self, key: str, expected: bytes, desired: bytes) -> bytes:
        """Set what holds what is expected; what it holds now."""

    @abstractmethod
    def _delete(self, key: str) -> bool:
        """Take a value away."""

    @abstractmethod
    def _push(self, key: str, value: bytes) -> None:
        """Put a value at a queue's end."""

    @abstractmethod
    def _pop(self, key: str, timeout: float) -> bytes:
        """The first value of a queue when there is one."""

    @abstractmethod
    def _queue_len(self, key: str) -> int:
        """How many values a queue has."""

    @abstractmethod
    def _set(self, keys: list[str], values: list[bytes]) -> None:
        """Set all of them at once."""

    @abstractmethod
    def _get(self, keys: list[str], timeout: float) -> list[bytes]:
        """The values when all are there."""

    @abstractmethod
    def _wait(self, keys: list[str], timeout: float) -> None:
        """Return when all are there."""


def _text(name: str, key: Any) -> str:
    """A key as text."""
    if isinstance(key, str):
        return key
    if isinstance(key, bytes):
        return key.decode()
    raise TypeError(f"{name}: a key is text, not {type(key).__name__} ({key!r})")


def _texts(name: str, keys: Any) -> list[str]:
    """Keys as text."""
    if isinstance(keys, str | bytes):
        raise TypeError(f"{name}: keys is a list of keys, not the text {keys!r}")
    return [_text(name, key) for key in keys]


def as_bytes(value: str | bytes) -> bytes:
    """Text as UTF-8, bytes as they are."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"a store's values are text or bytes, not {type(value).__name__}")


def seconds(timeout: Seconds) -> float:
    """A time in seconds, which is not negative."""
    value = timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)
    if not value >= 0:
        raise ValueError(f"a timeout is 0 or more seconds, not {value:g}")
    return value


def quoted(keys: Sequence[str]) -> str:
    """Keys for a message: a few of them, and how many more.

    Examples
    --------
    >>> quoted(["a"]), quoted([str(n) for n in range(10)])
    ("key 'a'", "keys '0', '1', '2', '3', '4' and 5 more")
    """
    shown = ", ".join(repr(key) for key in keys[:5])
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return f"key{'s' if len(keys) > 1 else ''} {shown}{more}"
