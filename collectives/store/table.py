"""The table of keys itself, on which the stores stand: what each operation means, without locks and waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

__all__ = ["Table"]


class Table:
    """Keys and values of bytes.

    Attributes
    ----------
    values : dict of str to bytes
        What is there.
    queues : dict of str to deque of bytes
        Queues in which there is something.
    """

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.queues: dict[str, deque[bytes]] = {}

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that have no value."""
        return [key for key in keys if key not in self.values]

    def absent(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that have neither a value nor something in a queue."""
        return [key for key in keys if key not in self.values and key not in self.queues]

    def push(self, key: str, value: bytes) -> None:
        """Put `value` at the end of a queue."""
        self.queues.setdefault(key, deque()).append(value)

    def pop(self, key: str) -> bytes:
        """The first value of a queue in which there is something."""
        queue = self.queues[key]
        value = queue.popleft()
        if not queue:
            del self.queues[key]
        return value

    def add(self, key: str, amount: int) -> int:
        """The number of `key` with `amount` added; it is kept as decimal text, as set("n", "5") would write it."""
        value = self.values.get(key, b"0")
        try:
            total = int(value) + amount
        except ValueError:
            raise ValueError(f"add: key {key!r} holds {value[:40]!r}, which is no integer") from None
        self.values[key] = b"%d" % total
        return total

    def append(self, key: str, value: bytes) -> None:
        """Put `value` behind what `key` holds."""
        self.values[key] = self.values.get(key, b"") + value

    def compare_set(self, key: str, expected: bytes, desired: bytes) -> bytes:
        """Set `key` if it holds what is expected; what it holds now.

        Examples
        --------
        >>> table = Table()
        >>> table.compare_set("a", b"x", b"y"), table.compare_set("a", b"", b"y"), table.compare_set("a", b"x", b"z")
        (b'x', b'y', b'y')
        """
        value = self.values.get(key)
        if value == expected or (value is None and not expected):
            self.values[key] = desired
            return desired
        return expected if value is None else value

    def delete(self, key: str) -> bool:
        """Take a key away; whether it was there."""
        return self.values.pop(key, None) is not None
