"""Work: a communication that was started and may still be under way.

It keeps the arrays alive that the transport reads and writes, runs what is to be done at completion (rounding,
copying back) exactly once, and remembers the error if there was one. A Work that nobody waits for is kept here until
it is complete, so that no buffer is freed under the transport's hands.

Whoever waits, waits by asking: first without pause, then giving the processor away, then sleeping a little. So a wait
can be interrupted, can see how long it takes, and keeps all other works of the process going meanwhile.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Together", "Work", "completed", "cores_are_scarce", "drain", "pending", "progress", "retain", "set_scarce", "sweep"]

SPINS = 60
"""Questions in a row before the processor is given away for the first time, where every rank of the node has a core."""
YIELDS = 2000
"""Times that the processor is given away before sleeping begins."""
LONGEST_PAUSE = 5e-4
"""Seconds of sleep between two questions at most."""
LOOK_AROUND = 0.05
"""Seconds between two looks at the clock and at the other ranks."""


_spins = SPINS


def set_scarce(scarce: bool) -> None:
    """Say whether this process's ranks have fewer cores than they are: then a rank gives its core away at once."""
    global _spins
    _spins = 1 if scarce else SPINS


def cores_are_scarce() -> bool:
    """What was said last."""
    return _spins == 1


class Work:
    """A communication under way.

    Parameters
    ----------
    operation : str
        What was called, for messages: ``"all_reduce"``.
    poll : callable, optional
        Lets the transport progress and says whether it is done; never blocks; raises what went wrong. None: done.
    cancel : callable, optional
        Gives up an operation that no other rank has joined (a receive); afterwards `poll` comes to an end.
    keep : tuple
        What must stay alive until completion.

    Attributes
    ----------
    source : int or None
        After a completed receive: the rank that sent.
    watch : callable or None
        Called with the seconds that a wait has taken so far, some times a second; raises when it has been too long.
    ended : callable or None
        Called once with the work when it is complete or has failed.

    Examples
    --------
    >>> import numpy as np
    >>> import collectives
    >>> values = np.ones(3)
    >>> work = collectives.connect("local").all_reduce(values, async_op=True)
    >>> work.wait()
    >>> work.done(), work.exception(), work.result()
    (True, None, array([1., 1., 1.]))
    """

    # What most works never need stands here once, so that making one is cheap.
    on_stream = False
    """Whether a GPU's stream carries it out, so that waiting for it is a matter of streams (`StreamWork`)."""
    captured = False
    """Whether it was recorded into a CUDA graph."""
    owner: object = None
    source: int | None = None
    watch: Callable[[float], None] | None = None
    ended: Callable[[Work], None] | None = None
    _done = True
    _poll: Callable[[], bool] | None = None
    _cancel: Callable[[], Any] | None = None
    _finish: list[Callable[[], None]] | None = None
    _lock: threading.Lock | None = None
    _exception: Exception | None = None
    _output: Any = None
    _keep: tuple[Any, ...] = ()
    _seen = False

    def __init__(
        self,
        operation: str,
        poll: Callable[[], bool] | None = None,
        *,
        cancel: Callable[[], Any] | None = None,
        keep: tuple[Any, ...] = (),
    ) -> None:
        self.operation = operation
        if poll is not None:
            self._done = False
            self._poll = poll
            self._cancel = cancel
            self._keep = keep
            # A request may be tested by one thread at a time only (MPI-4.1, section 11.6).
            self._lock = threading.Lock()

    def wait(self, timeout: float | None = None) -> None:
        """Return when the operation is complete: the arrays may be read and written again.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most. The operation goes on after it, and may be waited for again. Apart from it the
            communicator's own timeout ends every wait.

        Raises
        ------
        TimeoutError
            If it is not complete after `timeout` seconds.
        CollectiveTimeoutError
            If the communicator's timeout has passed; the message names the ranks that are missing.
        CommunicationError
            If the operation failed, or another rank of the job has ended.
        """
        if not self._done:
            self._wait(timeout)
        if self._exception is not None:
            self._seen = True
            raise self._exception

    def complete(self, timeout: float | None = None) -> None:
        """Return when the host knows that the operation is complete; otherwise as `wait`."""
        Work.wait(self, timeout)

    @property
    def settled(self) -> bool:
        """Whether what the caller does next finds the results."""
        return self._done

    def test(self) -> bool:
        """Let the transport progress, and say whether the operation is complete. Never blocks, never raises."""
        if self._done:
            return True
        lock = self._lock
        if lock is not None and lock.acquire(False):  # by position, which takes half as long
            try:
                if not self._done:
                    self._advance()
            finally:
                lock.release()
        return self._done

    def done(self) -> bool:
        """Whether the operation was complete when it was last waited for or tested; does not touch the transport."""
        return self._done

    @property
    def was_seen(self) -> bool:
        """Whether somebody has been told what went wrong."""
        return self._seen

    def exception(self) -> Exception | None:
        """What went wrong, once the operation is complete; None while it is under way or if it went well."""
        self._seen = True
        return self._exception

    def result(self) -> Any:
        """Wait, then return the array that received the result; None where this rank receives nothing."""
        self.wait()
        return self._output

    def cancel(self) -> bool:
        """Give up a receive that nobody has sent to; False for other operations, which ranks have to go through with.

        If the message comes first after all the receive is completed, otherwise it fails with a CommunicationError.
        """
        if self._lock is None:
            return False
        with self._lock:
            if self._done or self._cancel is None:
                return False
            self._cancel()
            self._seen = True
        return True

    def then(self, finish: Callable[[], None]) -> Work:
        """Run `finish` at completion, after those given before; at once if the operation is complete already."""
        if not self._done and self._lock is not None:
            with self._lock:
                if not self._done:
                    if self._finish is None:
                        self._finish = []
                    self._finish.append(finish)
                    return self
        if self._exception is None:
            finish()
        return self

    def fail(self, error: Exception) -> None:
        """Give the operation up for good with an error, which is also what later waits raise."""
        if not self._done:
            _abandoned.append(self._keep)
            self._exception = error
            self._end()

    def __repr__(self) -> str:
        state = "failed" if self._exception else "complete" if self._done else "under way"
        return f"<Work {self.operation}: {state}>"

    def __del__(self) -> None:
        if self._exception is not None and not self._seen:
            warnings.warn(f"nobody waited for a failed {self.operation}: {self._exception}", RuntimeWarning, 2)

    def _advance(self) -> None:
        """Take one step under the lock; at completion run what was asked for and let the arrays go."""
        poll = self._poll
        if poll is None:  # another thread has given it up since the caller looked
            return
        try:
            if not poll():
                return
            for finish in self._finish or ():
                finish()
        except Exception as error:
            if self._done:  # given up meanwhile: why, was said then
                return
            self._exception = error
        self._end()

    def _end(self) -> None:
        self._done = True
        self._keep = ()
        self._poll = self._finish = self._cancel = self.watch = None
        ended = self.ended
        if ended is not None:
            self.ended = None
            ended(self)

    def _wait(self, timeout: float | None) -> None:
        test = self.test
        for _ in range(_spins):
            if test():
                return
        began = time.monotonic()
        deadline = None if timeout is None else began + timeout
        look = began + LOOK_AROUND
        turns = 0
        while not test():
            progress(self)
            if turns < YIELDS:
                turns += 1
                os.sched_yield()
            else:
                # Other ranks may share our core, and 0.5 ms are nothing in a wait that is this long already.
                turns += 1
                time.sleep(min((turns - YIELDS) * 1e-6, LONGEST_PAUSE))
            if turns & 15:
                continue
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                raise TimeoutError(f"{self.operation}: not complete after {timeout:g} s")
            if now >= look:
                look = now + LOOK_AROUND
                if self.watch is not None:
                    try:
                        self.watch(now - began)
                    except Exception as error:
                        self.fail(error)
                        return


class Together(Work):
    """Several communications of a block, waited for as one; each as it wants to be waited for.

    Parameters
    ----------
    works : list of Work
        Filled as long as the block is open.

    Attributes
    ----------
    closed : bool
        Whether the block is over.
    """

    def __init__(self, works: list[Work]) -> None:
        super().__init__("coalesced operations", self._ask)
        self.works = works
        self.closed = False
        self.watch = self._look

    @property
    def settled(self) -> bool:
        """Whether what the caller does next finds the results of all."""
        return self.closed and all(work.settled for work in self.works)

    def wait(self, timeout: float | None = None) -> None:
        """Return when all are complete; those of a GPU's streams are only put before what comes next."""
        if self.closed and not self._done:
            for work in self.works:
                if work.on_stream:
                    work.wait(timeout)
        if not self.settled or self._exception is not None:
            super().wait(timeout)

    def _ask(self) -> bool:
        if not self.closed:
            return False
        done = [work.test() or work.settled for work in self.works]
        for work in self.works:
            if work.done():
                work.wait()  # raises what went wrong
        return all(done)

    def _look(self, waited: float) -> None:
        for work in self.works:
            if not work.done() and work.watch is not None:
                work.watch(waited)


_new = Work.__new__


def completed(operation: str, owner: object = None, output: Any = None) -> Work:
    """A Work that is complete, made without what only one under way needs: small operations make one each."""
    work = _new(Work)
    work.operation = operation
    work.owner = owner
    work._output = output
    return work


pending: deque[Work] = deque()
"""Works under way that nobody waits for at this moment."""
_abandoned: list[tuple[Any, ...]] = []
"""Arrays of operations that were given up: the transport may write to them as long as the process lives."""


def retain(work: Work) -> None:
    """Keep `work` alive until a later `sweep` finds it complete."""
    pending.append(work)


def sweep() -> None:
    """Let go of retained works that are complete.

    Looks at two of them in turn: calls that each retain one and sweep two never collect a heap, and a receive that
    stays open for long does not hide the others.
    """
    for _ in range(2):
        try:
            work = pending.popleft()
        except IndexError:
            return
        if not work.test():
            pending.append(work)


def progress(besides: Work | None = None) -> None:
    """Let all works that are under way progress: whoever waits for one must not hold up another rank's."""
    for _ in range(len(pending)):
        try:
            work = pending.popleft()
        except IndexError:
            return
        if work is besides or not work.test():
            pending.append(work)


def drain(owner: object = None) -> None:
    """Complete the retained works of one communicator, or of all: receives nobody sent to are given up, and what a group that has
    failed had under way, whose ranks are out of step, is left.

    Raises
    ------
    CommunicationError
        If one of them fails.
    """
    for work in tuple(pending):
        if (work.done() and work._seen) or getattr(work.owner, "_failed", None) is not None:
            continue
        if owner is None or work.owner is owner:
            if work.cancel():
                while not work.test():
                    time.sleep(0)
            else:
                work.complete()
