"""PrefixStore: a store within another, so that two users of one store do not meet."""

from __future__ import annotations

from datetime import timedelta

from .interface import Seconds, Store, seconds

__all__ = ["PrefixStore"]


class PrefixStore(Store):
    """A store whose key ``k`` is the key ``prefix/k`` of another.

    Timeouts are the other's, and `num_keys` and `list_keys` see all its keys.

    Parameters
    ----------
    prefix : str
        What comes before each key.
    store : Store
        The store that holds them.

    Examples
    --------
    >>> from collectives.store import HashStore
    >>> store = HashStore()
    >>> PrefixStore("first", store).set("a", "1")
    >>> store.list_keys()
    ['first/a']
    """

    def __init__(self, prefix: str, store: Store) -> None:
        self.prefix = prefix
        self.underlying_store = store

    @property
    def timeout(self) -> timedelta:
        return self.underlying_store.timeout

    def set_timeout(self, timeout: Seconds) -> None:
        self.underlying_store.set_timeout(timeout)

    @property
    def _timeout(self) -> float:  # type: ignore[override]
        return seconds(self.underlying_store.timeout)

    def _check(self, keys: list[str]) -> bool:
        return self.underlying_store._check(self._keys(keys))

    def _add(self, key: str, amount: int) -> int:
        return self.underlying_store._add(self._key(key), amount)

    def _append(self, key: str, value: bytes) -> None:
        self.underlying_store._append(self._key(key), value)

    def _compare_set(self, key: str, expected: bytes, desired: bytes) -> bytes:
        return self.underlying_store._compare_set(self._key(key), expected, desired)

    def _delete(self, key: str) -> bool:
        return self.underlying_store._delete(self._key(key))

    def _push(self, key: str, value: bytes) -> None:
        self.underlying_store._push(self._key(key), value)

    def _pop(self, key: str, timeout: float) -> bytes:
        return self.underlying_store._pop(self._key(key), timeout)

    def _queue_len(self, key: str) -> int:
        return self.underlying_store._queue_len(self._key(key))

    def num_keys(self) -> int:
        return self.underlying_store.num_keys()

    def list_keys(self) -> list[str]:
        return self.underlying_store.list_keys()

    def clone(self) -> PrefixStore:
        return PrefixStore(self.prefix, self.underlying_store.clone())

    def _set(self, keys: list[str], values: list[bytes]) -> None:
        self.underlying_store._set(self._keys(keys), values)

    def _get(self, keys: list[str], timeout: float) -> list[bytes]:
        return self.underlying_store._get(self._keys(keys), timeout)

    def _wait(self, keys: list[str], timeout: float) -> None:
        self.underlying_store._wait(self._keys(keys), timeout)

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}"

    def _keys(self, keys: list[str]) -> list[str]:
        return [self._key(key) for key in keys]
