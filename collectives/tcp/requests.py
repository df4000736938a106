"""One message's way: `Send` out of an array, `Receive` into one, or through a block of memory into a sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .calls import Call

__all__ = ["Arrival", "Combine", "Combining", "Discarding", "Filling", "Notice", "Place", "Receive", "Send", "bytes_of"]

Combine = Callable[[int, int, np.ndarray], None]

BLOCK = 1 << 18
"""Bytes that are received before they are added: few enough to be in the cache still when they are."""


def bytes_of(array: np.ndarray) -> memoryview:
    """The bytes of a contiguous array of any dtype."""
    return array.reshape(-1).view(np.uint8).data


class Place:
    """Where a message's bytes go.

    Attributes
    ----------
    size : int
        How many it takes.
    position : int
        How many have come.
    """

    __slots__ = ("position", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.position = 0

    def window(self) -> memoryview:
        """Where the next bytes go; not empty as long as some are missing."""
        raise NotImplementedError

    def advance(self, count: int) -> None:
        """So many bytes have been put into the window."""
        self.position += count

    def write(self, data: memoryview) -> None:
        """Put bytes that have been kept elsewhere."""
        while data:
            window = self.window()[: len(data)]
            window[:] = data[: len(window)]
            self.advance(len(window))
            data = data[len(window) :]


class Filling(Place):
    """The message becomes the content of an array."""

    __slots__ = ("_view",)

    def __init__(self, view: memoryview) -> None:
        super().__init__(len(view))
        self._view = view

    def window(self) -> memoryview:
        return self._view[self.position :]


class Combining(Place):
    """The message is combined with an array, block by block.

    Parameters
    ----------
    count : int
        The message's elements.
    dtype : numpy.dtype
        Their dtype.
    combine : callable
        Of (begin, end, block): does with elements begin to end what has to be done; `block` may be overwritten.
    """

    __slots__ = ("_block", "_combine", "_done", "_dtype", "_memory", "_view")

    def __init__(self, count: int, dtype: np.dtype, combine: Combine) -> None:
        super().__init__(count * dtype.itemsize)
        self._dtype, self._combine = dtype, combine
        self._memory: np.ndarray | None = None
        self._done = 0
        """Elements that are combined already."""

    def window(self) -> memoryview:
        if self._memory is None:
            try:
                self._memory = _spare.pop()
            except IndexError:  # also where ranks are threads, and another one has taken the last
                self._memory = np.empty(BLOCK, np.uint8)
            self._block = self._memory[: BLOCK - BLOCK % self._dtype.itemsize].view(self._dtype)
            self._view = bytes_of(self._block)
        start = self.position - self._done * self._dtype.itemsize
        return self._view[start : start + self.size - self.position]

    def advance(self, count: int) -> None:
        self.position += count
        waiting = self.position // self._dtype.itemsize - self._done
        if waiting == len(self._block) or self.position == self.size:
            with np.errstate(all="ignore"):
                self._combine(self._done, self._done + waiting, self._block[:waiting])
            self._done += waiting
            if self.position == self.size and self._memory is not None:
                _spare.append(self._memory)
                del self._block, self._view
                self._memory = None


_spare: list[np.ndarray] = []
"""Blocks to receive into, which are used again and again: new memory would cost more than the addition."""


class Discarding(Place):
    """The message is for a call that has failed: it must be read, but nobody wants it."""

    __slots__ = ("_view",)

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._view = memoryview(bytearray(min(size, BLOCK)))

    def window(self) -> memoryview:
        return self._view[: self.size - self.position]


class Notice(Filling):
    """The text with which a rank says that its call of a group has failed."""

    __slots__ = ("group", "number", "text")

    def __init__(self, group: int, number: int, size: int) -> None:
        self.group, self.number = group, number
        self.text = bytearray(size)
        super().__init__(memoryview(self.text))


class Receive:
    """A message that is expected.

    Attributes
    ----------
    source : int or None
        The rank of the job that it is expected from; None: any of the group's.
    place : Place
        Where its bytes go.
    peer : int or None
        The rank of the job that it came from, once that is known.
    done : bool
        Whether it has come.
    followers : list of Send
        Messages that pass on what comes as it comes.
    """

    __slots__ = ("call", "done", "followers", "number", "peer", "place", "slot", "source")

    def __init__(self, call: Call, source: int | None, number: int, slot: int, place: Place) -> None:
        self.call, self.source, self.number, self.slot, self.place = call, source, number, slot, place
        self.peer: int | None = None
        self.done = False
        self.followers: list[Send] = []


class Arrival:
    """A message that has come, or is offered, before it was expected.

    Attributes
    ----------
    transfer : int or None
        The offer's name; None for a short message, which is kept in `place`.
    receive : Receive or None
        Who has come to expect it while it was still arriving.
    """

    __slots__ = ("arguments", "code", "kept", "peer", "place", "receive", "size", "slot", "transfer")

    def __init__(self, peer: int, code: int, arguments: int, slot: int, size: int, transfer: int | None) -> None:
        self.peer, self.code, self.arguments, self.slot = peer, code, arguments, slot
        self.size, self.transfer = size, transfer
        self.receive: Receive | None = None
        if transfer is None:
            self.kept = memoryview(bytearray(size))
            self.place: Place = Filling(self.kept)

    @property
    def complete(self) -> bool:
        """Whether all of a short message is here."""
        return self.transfer is None and self.place.position == self.size


class Send:
    """A message on its way out.

    Attributes
    ----------
    peer : int
        The rank of the job that it goes to.
    view : memoryview
        Its bytes.
    sent : int
        How many have been written.
    origin : Receive or None
        The message that it passes on as it comes.
    queued : bool
        Whether it is in its connection's queue of data to be written.
    granted : bool
        Whether the receiver has a place for it; a short message needs none.
    """

    __slots__ = ("call", "done", "granted", "origin", "peer", "queued", "sent", "transfer", "view")

    def __init__(self, call: Call, peer: int, view: memoryview, origin: Receive | None = None) -> None:
        self.call, self.peer, self.view, self.origin = call, peer, view, origin
        self.sent = 0
        self.transfer = 0
        self.queued = self.granted = self.done = False

    @property
    def available(self) -> int:
        """How many of the bytes are there to be sent."""
        return len(self.view) if self.origin is None else self.origin.place.position
