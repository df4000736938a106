"""Store: what every store can do, and the errors by which one says that it could not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import timedelta

from ..errors import CommunicationError

__all__ = ["DEFAULT_TIMEOUT", "Seconds", "Store", "StoreError", "StoreTimeoutError", "as_bytes", "quoted", "seconds"]

DEFAULT_TIMEOUT = timedelta(seconds=300)
Seconds = timedelta | float
"""A time: as `datetime.timedelta`, or in seconds."""


class StoreError(CommunicationError):
    """A store cannot be reached, or answers what no store answers; the message says where it is."""


class StoreTimeoutError(StoreError, TimeoutError):
    """Keys that were waited for have not come; the message names them, and the seconds waited."""


class Store(ABC):
    """Keys with values of bytes, shared by the ranks of a job.

    Every operation is atomic: two ranks that add to one number at the same time both count.

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
        self.multi_set([key], [value])

    def get(self, key: str) -> bytes:
        """The value of `key`, waiting for it if it is not there yet.

        Raises
        ------
        StoreTimeoutError
            If it does not come within the store's timeout.
        """
        return self._get([key], self._timeout)[0]

    def multi_set(self, keys: Sequence[str], values: Sequence[str | bytes]) -> None:
        """Set several keys at once.

        Raises
        ------
        ValueError
            If there are not as many values as keys.
        """
        if len(keys) != len(values):
            raise ValueError(f"multi_set: {len(keys)} keys, but {len(values)} values")
        self._set(list(keys), [as_bytes(value) for value in values])

    def multi_get(self, keys: Sequence[str]) -> list[bytes]:
        """The values of several keys, waiting for all of them.

        Raises
        ------
        StoreTimeoutError
            If not all come within the store's timeout.
        """
        return self._get(list(keys), self._timeout) if keys else []

    def wait(self, keys: Sequence[str], timeout: Seconds | None = None) -> None:
        """Return when all `keys` are there.

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
        if isinstance(keys, str):
            raise TypeError(f"wait: keys is a list of keys, not the text {keys!r}")
        if keys:
            self._wait(list(keys), self._timeout if timeout is None else seconds(timeout))

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

    @abstractmethod
    def check(self, keys: Sequence[str]) -> bool:
        """Whether all `keys` are there; does not wait."""

    @abstractmethod
    def add(self, key: str, amount: int) -> int:
        """Add to the number that `key` holds, 0 if it is not there, and return the new one.

        Raises
        ------
        ValueError
            If the key's value is no integer.
        """

    @abstractmethod
    def append(self, key: str, value: str | bytes) -> None:
        """Put `value` behind the one that `key` holds, if there is one."""

    @abstractmethod
    def compare_set(self, key: str, expected_value: str | bytes, desired_value: str | bytes) -> bytes:
        """Set `key` only if it holds `expected_value`, or if it is not there and `expected_value` is empty.

        Returns
        -------
        bytes
            What the key holds now; `expected_value` if it is not there.
        """

    @abstractmethod
    def delete_key(self, key: str) -> bool:
        """Take a key away; whether it was there."""

    @abstractmethod
    def num_keys(self) -> int:
        """How many keys there are, with those by which the store itself works (a `TCPStore` counts its workers in one)."""

    @abstractmethod
    def list_keys(self) -> list[str]:
        """All keys, in no certain order."""

    @abstractmethod
    def clone(self) -> Store:
        """Another store with the same keys, that can be used independently of this one."""

    def has_extended_api(self) -> bool:
        """Whether `append`, `multi_get` and `multi_set` are there: they are, in every store."""
        return True

    @abstractmethod
    def _set(self, keys: list[str], values: list[bytes]) -> None:
        """Set all of them at once."""

    @abstractmethod
    def _get(self, keys: list[str], timeout: float) -> list[bytes]:
        """The values when all are there."""

    @abstractmethod
    def _wait(self, keys: list[str], timeout: float) -> None:
        """Return when all are there."""


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
