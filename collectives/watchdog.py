"""The watchdog: a thread that sees when what a GPU's streams carry out for all ranks does not end.

Where the host waits for another rank, it looks around while it waits (`Work.watch`). For a GPU's streams nobody looks: the host may be
inside of a synchronisation that Python cannot interrupt, or be far ahead. So this thread asks the events of the oldest operations, asks
NCCL for errors of its own, and applies the same rules as every wait: the group's timeout, and ranks that are gone.

An operation's time counts from when this rank's stream has come to it and those before it are complete: then it waits for other ranks.
Before, the host may wait for them, when NCCL connects the ranks at the first operation of its kind; that counts from when it was called.

When there is no prospect the operation fails with the error that a wait would have raised, which also writes the flight record. If the
program sees it by itself, by waiting for the operation or starting another one, it is the program's, and NCCL's communicators are
aborted so that nothing else hangs. If it does not, it cannot, and the process ends with the error.
"""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import CommunicationError

if TYPE_CHECKING:
    from .nccl_streams import NCCLStreams
    from .stream_work import StreamWork

__all__ = ["Watch", "leave", "watch"]

PAUSE = 0.1
"""Seconds between two looks."""
GRACE = 2.0
"""Seconds that a program gets to see an error by itself, and the board to hear why a connection broke."""
LONG_ENOUGH = 0.2
"""Seconds of waiting after which a wait looks whether other ranks are alive."""
RELAXED = 2
"""CU_STREAM_CAPTURE_MODE_RELAXED, in cuda.h."""


class Watch:
    """Looks after the transports of this process.

    Attributes
    ----------
    transports : WeakSet of NCCLStreams
    """

    def __init__(self) -> None:
        self.transports: weakref.WeakSet[NCCLStreams] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, transport: NCCLStreams) -> None:
        """Look after a transport as long as it lives."""
        with self._lock:
            self.transports.add(transport)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="collectives watchdog", daemon=True)
                self._thread.start()

    def remove(self, transport: NCCLStreams) -> None:
        """Look after it no more."""
        with self._lock:
            self.transports.discard(transport)

    def _run(self) -> None:
        _relax()
        while True:
            time.sleep(PAUSE)
            with self._lock:
                transports = list(self.transports)
                if not transports:
                    self._thread = None
                    return
            for transport in transports:
                self.look(transport)
            # A transport that nobody else holds must not live on in this frame.
            del transports, transport

    def look(self, transport: NCCLStreams, now: float | None = None) -> None:
        """Look at the oldest operations of a transport once.

        Parameters
        ----------
        transport : NCCLStreams
        now : float, optional
            The time of `time.monotonic`.

        Raises
        ------
        CommunicationError
            If an operation has no prospect, and the program does not see it by itself.
        """
        now = time.monotonic() if now is None else now
        for works in transport.under_way:
            work: StreamWork | None = None
            try:
                with transport.errors("watch"):
                    # Used for good: going back to the device before would make a context on that one.
                    transport.use_device()
                    work = self._oldest(works)
                    if work is None:
                        continue
                    since = work.starting
                    if not since:
                        if not work.began and work.called.done:
                            work.began = now
                        since = work.began
                    self._check(work, work.watch or transport.watch, now - since if since else None)
            except CommunicationError as error:
                blamed = next(iter(works.copy()), None) if work is None else work
                if blamed is not None:  # else the program has taken the last one off, and is told by itself
                    self._give_up(transport, blamed, error)
                return

    @staticmethod
    def _oldest(works: Any) -> StreamWork | None:
        """The first operation that is not complete; None if there is none that was given to its stream, or is being given."""
        for work in works.copy():  # the program's thread goes on to change it
            if work.done():
                continue
            if work.finished is None:
                return work if work.starting else None
            if not work.finished.done:
                return work
            work.test()
        return None

    @staticmethod
    def _check(work: StreamWork, look: Callable[[float], None] | None, waited: float | None) -> None:
        """Raise if an operation has no prospect: by what NCCL says, or by what a wait asks that has taken so long."""
        try:
            work.check()
        except CommunicationError as error:
            # NCCL says that a connection broke. Who is behind it, the board knows a little later.
            deadline = time.monotonic() + GRACE
            while look is not None and time.monotonic() < deadline:
                try:
                    look(max(waited or 0.0, LONG_ENOUGH))
                except CommunicationError as cause:
                    raise cause from error
                time.sleep(PAUSE)
            raise
        if look is not None and waited is not None:
            look(waited)

    def _give_up(self, transport: NCCLStreams, work: StreamWork, error: CommunicationError) -> None:
        work.fail(error)
        deadline = time.monotonic() + GRACE
        while not _was_seen(work) and time.monotonic() < deadline:
            time.sleep(PAUSE)
        self.remove(transport)
        if not _was_seen(work):
            # NCCL is not aborted: the program would go on with what the operation has left behind.
            work.exception()  # it is told now
            error.add_note(f"The program of rank {transport.rank} waits for its GPU, and the GPU waits in vain: the process ends.")
            raise error
        transport.abandon(error)


def _was_seen(work: StreamWork) -> bool:
    """Whether the program has been told that a work has failed: by itself, or by a later call of its group."""
    return work.was_seen or bool(getattr(work.owner, "refused", False))


def _relax() -> None:
    """Let this thread ask events also while another one captures a CUDA graph (cuThreadExchangeStreamCaptureMode)."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return  # without a driver there are no graphs
    mode = ctypes.c_int(RELAXED)
    driver.cuThreadExchangeStreamCaptureMode(ctypes.byref(mode))


_watch = Watch()


def watch(transport: NCCLStreams) -> None:
    """Look after a transport as long as it lives, or until `leave`."""
    _watch.add(transport)


def leave(transport: NCCLStreams) -> None:
    """Look after a transport no more."""
    _watch.remove(transport)
