"""Work: a communication that was started and may still be under way.

It keeps the arrays alive that the transport reads and writes, runs what is to be done at completion (rounding,
copying back) exactly once, and remembers the error if there was one. A Work that nobody waits for is kept here
until it is complete, so that no buffer is freed under the transport's hands.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Work", "drain", "retain", "sweep"]


class Work:
    """A communication under way.

    Parameters
    ----------
    operation : str
        What was called, for messages: ``"all_reduce"``.
    poll : callable, optional
        Lets the transport progress and says whether it is done; raises what went wrong. None: done already.
    block : callable, optional
        The same, but returns (True) only when the transport is done. Without it `poll` is called until it says so.
    cancel : callable, optional
        Gives up an operation that no other rank has joined (a receive); afterwards `poll` comes to an end.
    keep : tuple
        What must stay alive until completion.

    Examples
    --------
    >>> import numpy as np
    >>> from collectives import LocalCommunicator
    >>> values = np.ones(3)
    >>> work = LocalCommunicator().all_reduce(values, async_op=True)
    >>> work.wait()
    >>> work.done(), work.exception()
    (True, None)
    """

    __slots__ = (
        "__weakref__", "_block", "_cancel", "_done", "_exception", "_finish", "_keep", "_lock", "_poll", "_seen",
        "operation", "owner", "source",
    )  # fmt: skip

    def __init__(
        self,
        operation: str,
        poll: Callable[[], bool] | None = None,
        block: Callable[[], bool] | None = None,
        *,
        cancel: Callable[[], Any] | None = None,
        keep: tuple[Any, ...] = (),
    ) -> None:
        self.operation = operation
        self.owner: object = None
        self.source: int | None = None
        """After a completed receive: the rank that sent."""
        self._poll = poll or _nothing_to_do
        self._block = block or self._poll
        self._cancel = cancel
        self._keep = keep
        self._finish: list[Callable[[], None]] = []
        self._done = poll is None
        self._exception: Exception | None = None
        self._seen = False
        # A request may be tested by one thread at a time only (MPI-4.1, section 11.6).
        self._lock = threading.Lock()

    def wait(self, timeout: float | None = None) -> None:
        """Return when the operation is complete: the arrays may be read and written again.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most. The operation goes on after a timeout, and may be waited for again.

        Raises
        ------
        TimeoutError
            If it is not complete after `timeout` seconds.
        CommunicationError
            If the operation failed.
        """
        if not self._done:
            if timeout is None and self._block is not self._poll:
                with self._lock:
                    if not self._done:
                        self._advance(self._block)
            else:
                self._poll_until_done(timeout)
        self._seen = True
        if self._exception is not None:
            raise self._exception

    def test(self) -> bool:
        """Let the transport progress, and say whether the operation is complete. Never blocks, never raises."""
        if self._done:
            return True
        if self._lock.acquire(blocking=False):
            try:
                if not self._done:
                    self._advance(self._poll)
            finally:
                self._lock.release()
        return self._done

    def done(self) -> bool:
        """Whether the operation was complete when it was last waited for or tested; does not touch the transport."""
        return self._done

    def exception(self) -> Exception | None:
        """What went wrong, once the operation is complete; None while it is under way or if it went well."""
        self._seen = True
        return self._exception

    def cancel(self) -> bool:
        """Give up a receive that nobody has sent to; False for other operations, which ranks have to go through with.

        If the message comes first after all the receive is completed, otherwise it fails with a CommunicationError.
        """
        with self._lock:
            if self._done or self._cancel is None:
                return False
            self._cancel()
            self._seen = True
        return True

    def then(self, finish: Callable[[], None]) -> Work:
        """Run `finish` at completion, after those given before; at once if the operation is complete already."""
        with self._lock:
            if not self._done:
                self._finish.append(finish)
                return self
        if self._exception is None:
            finish()
        return self

    def __repr__(self) -> str:
        state = "failed" if self._exception else "complete" if self._done else "under way"
        return f"<Work {self.operation}: {state}>"

    def __del__(self) -> None:
        if getattr(self, "_exception", None) is not None and not self._seen:
            warnings.warn(f"nobody waited for a failed {self.operation}: {self._exception}", RuntimeWarning, 2)

    def _advance(self, step: Callable[[], bool]) -> None:
        """Take one step under the lock; at completion run what was asked for and let the arrays go."""
        try:
            if not step():
                return
            for finish in self._finish:
                finish()
        except Exception as error:
            self._exception = error
        self._done = True
        self._keep = ()
        self._finish = []
        self._poll = self._block = _nothing_to_do
        self._cancel = None

    def _poll_until_done(self, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.0
        while not self.test():
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{self.operation}: not complete after {timeout:g} s")
            time.sleep(pause)
            # Start by giving the processor away only, end at half a millisecond: other ranks may share our core.
            pause = min(pause + 1e-6, 5e-4)


def _nothing_to_do() -> bool:
    return True


_under_way: deque[Work] = deque()


def retain(work: Work) -> None:
    """Keep `work` alive until a later `sweep` finds it complete."""
    _under_way.append(work)


def sweep() -> None:
    """Let go of retained works that are complete.

    Looks at two of them in turn: calls that each retain one and sweep two never collect a heap, and a receive that
    stays open for long does not hide the others.
    """
    for _ in range(2):
        try:
            work = _under_way.popleft()
        except IndexError:
            return
        if not work.test():
            _under_way.append(work)


def drain(owner: object = None) -> None:
    """Complete the retained works of one communicator, or of all: receives nobody sent to are given up.

    Raises
    ------
    CommunicationError
        If one of them fails.
    """
    for work in tuple(_under_way):
        if owner is None or work.owner is owner:
            if work.cancel():
                while not work.test():
                    time.sleep(0)
            else:
                work.wait()
