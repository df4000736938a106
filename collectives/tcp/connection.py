"""Connection: one socket to one other rank. It writes what is queued and reads what comes, as far as neither has to wait."""

from __future__ import annotations

import selectors
import socket
from collections import deque
from typing import TYPE_CHECKING

from .frames import HEADER, Kind, pack
from .requests import Arrival, Notice, Place, Receive, Send

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["Connection"]

STAGE = 1 << 16
"""Bytes of the buffer in which headers and short messages arrive."""
PART = 1 << 20
"""The most bytes of a long message in one frame: others may want to pass."""
AT_ONCE = 4 << 20
"""Bytes that are read from one connection before another has its turn."""
FRAMES_AT_ONCE = 8


class Connection:
    """The connection to a rank.

    Parameters
    ----------
    engine : Engine
        Who is told what has come.
    rank : int
        The other's rank in the job.
    host : str
        The name of its machine, for messages.
    connected : socket.socket
        The socket.
    """

    def __init__(self, engine: Engine, rank: int, host: str, connected: socket.socket) -> None:
        self.rank, self.host = rank, host
        self.socket = connected
        self.lost = ""
        """Why nothing more can be sent or received, once that is so."""
        self.left = False
        """Whether the other said good-bye: it did not die."""
        self.sends: dict[int, Send] = {}
        """Messages that were offered, until they are written."""
        self.transfers: dict[int, Receive | Place] = {}
        """Messages that the other may send, until they are here."""
        self._engine = engine
        self._offers = 0
        self._control: deque[tuple[bytes | memoryview, memoryview | None, Send | None]] = deque()
        self._data: deque[Send] = deque()
        self._writing: list[bytes | memoryview] = []
        self._written: list[tuple[Send, int]] = []
        self._waits_to_write = False
        self._broken = False
        """Whether nothing more can be written."""
        self._stage = bytearray(STAGE)
        self._stage_view = memoryview(self._stage)
        self._start = self._end = 0
        self._into: Receive | Arrival | Place | None = None
        self._missing = 0

    def __repr__(self) -> str:
        return f"rank {self.rank} ({self.host})"

    # Writing ---------------------------------------------------------------------------------------------------------

    def tell(self, header: bytes, payload: memoryview | None = None, send: Send | None = None) -> None:
        """Send a frame; `send`, if given, is done when it is written."""
        self._control.append((header, payload, send))
        if not self._waits_to_write:
            self.write()

    def offer(self, send: Send, slot: int) -> None:
        """Ask whether a long message may come."""
        self._offers = send.transfer = (self._offers + 1) & 0xFFFFFFFF
        self.sends[send.transfer] = send
        self.tell(send.call.header(Kind.OFFER, slot, len(send.view), send.transfer))

    def stream(self, send: Send) -> None:
        """Send what there is of a long message that the other is ready for."""
        if not send.queued and send.granted and send.available > send.sent:
            send.queued = True
            self._data.append(send)
            if not self._waits_to_write:
                self.write()

    def withdraw(self, send: Send) -> None:
        """Send no more of a message whose call has failed; the other is told so by the call's FAILED."""
        self.sends.pop(send.transfer, None)
        if send.queued:
            send.queued = False
            self._data.remove(send)

    def write(self) -> None:
        """Write what is queued, as far as the socket takes it."""
        while not (self.lost or self._broken):
            if not self._writing and not self._next():
                break
            try:
                count = self.socket.sendmsg(self._writing)
            except BlockingIOError:
                self._watch(True)
                return
            except OSError:
                # What the other sent before it went is still to be read; then reading says what has happened.
                self._broken = True
                self._writing, self._written = [], []
                break
            self._took(count)
        self._watch(False)

    def unsent(self) -> bool:
        """Whether something is still to be written."""
        return not (self.lost or self._broken) and bool(self._writing or self._control or self._data)

    def _next(self) -> bool:
        """Put together what is written next: frames first, then a part of a long message."""
        if self._control:
            for _ in range(min(len(self._control), FRAMES_AT_ONCE)):
                header, payload, send = self._control.popleft()
                self._writing.append(header)
                if payload:
                    self._writing.append(payload)
                if send is not None:
                    self._written.append((send, len(send.view)))
            return True
        if not self._data:
            return False
        send = self._data.popleft()
        end = min(send.available, send.sent + PART)
        self._writing = [pack(Kind.DATA, transfer=send.transfer, length=end - send.sent), send.view[send.sent : end]]
        self._written.append((send, end))
        send.queued = False
        return True

    def _took(self, count: int) -> None:
        writing = self._writing
        while writing and count >= len(writing[0]):
            count -= len(writing.pop(0))
        if writing:
            writing[0] = memoryview(writing[0])[count:]
            return
        written, self._written = self._written, []
        for send, end in written:
            send.sent = end
            if end == len(send.view):
                self.sends.pop(send.transfer, None)
                self._engine.delivery.finished(send)
            elif not send.call.finished and send.available > send.sent:
                send.queued = True
                self._data.append(send)

    def _watch(self, writable: bool) -> None:
        if writable is not self._waits_to_write and not self.lost:
            self._waits_to_write = writable
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writable else 0)
            self._engine.selector.modify(self.socket, events, self)

    # Reading ---------------------------------------------------------------------------------------------------------

    def discard(self) -> None:
        """Take what has come to nobody, before the socket is closed.

        The system resets a connection that is closed with something unread, and with it throws away what it has not yet
        delivered to the other.
        """
        try:
            while not self.lost and self.socket.recv_into(self._stage):
                pass
        except OSError:  # nothing more has come, or nothing can
            return

    def read(self) -> None:
        """Take in what has come."""
        budget = AT_ONCE
        while budget > 0 and not self.lost:
            place = self._place()
            direct = place is not None and self._start == self._end
            if direct and place is not None:
                target = place.window()[: self._missing]
            elif self._take_staged(place):
                continue
            else:
                target = self._stage_view[self._end :]
            try:
                count = self.socket.recv_into(target)
            except BlockingIOError:
                return
            except OSError as error:
                self._engine.lose(self, _reason(error))
                return
            if count == 0:
                self._engine.lose(self, "closed its connection")
                return
            budget -= count
            if direct and place is not None:
                self._came(place, count)
            else:
                self._end += count
                while not self.lost and self._take_staged(self._place()):
                    pass
            if count < len(target):
                return  # there is no more just now

    def _place(self) -> Place | None:
        into = self._into
        return into if into is None or isinstance(into, Place) else into.place

    def _take_staged(self, place: Place | None) -> bool:
        """Use bytes of the stage: a header, or the payload's beginning; False if there are not enough for anything."""
        staged = self._end - self._start
        if place is not None:
            if not staged:
                return False
            window = place.window()[: min(staged, self._missing)]
            count = len(window)
            window[:] = self._stage_view[self._start : self._start + count]
            self._start += count
            self._came(place, count)
            return True
        if staged >= HEADER.size:
            start = self._start
            self._start += HEADER.size
            self._header(HEADER.unpack_from(self._stage, start))
            return not self.lost
        if self._start:
            self._stage[:staged] = self._stage[self._start : self._end]
            self._start, self._end = 0, staged
        return False

    def _came(self, place: Place, count: int) -> None:
        place.advance(count)
        self._missing -= count
        into = self._into
        if isinstance(into, Receive) and into.followers:
            self._engine.delivery.pass_on(into)
        if self._missing == 0:
            self._into = None
            self._payload_ends(into)

    def _payload_ends(self, into: Receive | Arrival | Place | None) -> None:
        if isinstance(into, Arrival):
            self._engine.delivery.kept(into)
        elif isinstance(into, Receive):
            if into.place.position == into.place.size:
                self._engine.delivery.finished(into)
        elif isinstance(into, Notice):
            self._engine.was_told_of_failure(into.group, into.number, into.text.decode(errors="replace"))

    def _header(self, header: tuple[int, ...]) -> None:
        kind, code, slot, transfer, arguments, group, number, length = header
        engine = self._engine
        if kind == Kind.MESSAGE:
            self._into, self._missing = engine.delivery.message(self, code, arguments, slot, group, number, length), length
            if length == 0:
                into, self._into = self._into, None
                self._payload_ends(into)
        elif kind == Kind.DATA:
            self._data_comes(transfer, length)
        elif kind == Kind.OFFER:
            engine.delivery.offered(self, code, arguments, slot, group, number, length, transfer)
        elif kind == Kind.READY:
            send = self.sends.get(transfer)
            if send is not None:
                send.granted = True
                self.stream(send)
        elif kind == Kind.FAILED:
            self._into, self._missing = Notice(group, number, length), length
        elif kind == Kind.HERE:
            engine.is_here(self, group, number, asks=bool(slot))
        elif kind == Kind.BYE:
            self.left = True
            engine.lose(self, "has closed its transport")
        elif kind == Kind.ABORT:
            engine.aborted(self, number)
        else:
            engine.lose(self, f"sent what is no frame (kind {kind})")

    def _data_comes(self, transfer: int, length: int) -> None:
        receive = self.transfers.get(transfer)
        if receive is None:
            self._engine.lose(self, f"sent data that nobody asked for (transfer {transfer})")
            return
        place = receive if isinstance(receive, Place) else receive.place
        if length > place.size - place.position:
            self._engine.lose(self, f"sent {length} bytes where {place.size - place.position} are left")
            return
        self._into, self._missing = receive, length
        if place.position + length == place.size:
            del self.transfers[transfer]

    def accept(self, transfer: int, receive: Receive | Place) -> None:
        """Let the other send what it has offered."""
        self.transfers[transfer] = receive
        self.tell(pack(Kind.READY, transfer=transfer))


def _reason(error: OSError) -> str:
    if isinstance(error, ConnectionError):
        # A process that ends with messages unread resets its connections.
        return "closed its connection"
    return f"is lost: {error.strerror or error}"
