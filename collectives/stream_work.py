"""StreamWork: a communication that a stream of a GPU carries out, while the host goes on.

Three things happen at three times: the host calls the operation, the stream carries it out, the host learns that it has. `wait` needs
the second only: it puts what the caller's stream is given from now on behind the operation, and returns at once. `complete`, and
`wait` with a timeout, are for a host that has to know. What follows an operation (`then`) is given to its own stream, so that it is
done when the operation is.

While a CUDA graph is captured no event of the graph may be asked, and nothing is ever known to be complete: operations of a graph
come again with every replay of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from .errors import CommunicationError
from .work import Work

__all__ = ["StreamWork", "current", "happened", "is_capturing"]


_NOT_READY = 600  # cudaErrorNotReady


def is_capturing(stream: Any) -> bool:
    """Whether a graph is captured from a stream. The default stream cannot be captured, and to ask it may be an error meanwhile."""
    return stream.ptr != 0 and bool(stream.is_capturing())


def happened(cupy: Any, event: Any) -> bool:
    """Whether an event has. ``Event.done`` is False for ever where a kernel has failed.

    Raises
    ------
    cupy.cuda.runtime.CUDARuntimeError
        With what the device has failed.
    """
    status = cupy.cuda.runtime.eventQuery(event.ptr)
    if status not in (0, _NOT_READY):
        raise cupy.cuda.runtime.CUDARuntimeError(status)
    return bool(status == 0)


@contextmanager
def current(cupy: Any, stream: Any) -> Generator[None, None, None]:
    """A stream of the current device as the current one in a with-block.

    A with-block of CuPy's own does not go back to a stream that was made current by ``use``, but to the default stream.
    """
    before = cupy.cuda.get_current_stream()
    stream.use()
    try:
        yield
    finally:
        before.use()


class StreamWork(Work):
    """A communication on a stream.

    Parameters
    ----------
    operation : str
        For messages.
    cupy : module
    caller : cupy.cuda.Stream
        The stream whose order the operation is called in: it begins behind what that one holds.
    stream : cupy.cuda.Stream
        The one that carries it out.
    keep : tuple
        Arrays that must stay alive until the stream is done with them.
    check : callable
        Raises what has gone wrong beyond the stream's own errors; called while the operation is not complete.

    Attributes
    ----------
    called, finished : cupy.cuda.Event
        When the caller's stream has come to the operation; when it is complete (None as long as it has not been given to its stream,
        which is at the end of a group).
    captured : bool
        Whether it is part of a CUDA graph that was being captured.
    began : float
        Where somebody watches: since when nothing but other ranks can be what it waits for, by their clock; 0 before.
    starting : float
        While it is being given to its stream: since when, by `time.monotonic`; else 0.
    """

    on_stream = True

    def __init__(
        self, operation: str, cupy: Any, caller: Any, stream: Any, keep: tuple[Any, ...], check: Callable[[], None]
    ) -> None:
        super().__init__(operation, self._ask, keep=keep)
        self._cupy, self.check = cupy, check
        self.stream = stream
        self.captured = is_capturing(caller)
        self.called: Any = cupy.cuda.Event(disable_timing=True)
        self.called.record(caller)
        self.finished: Any = None
        self.began = self.starting = 0.0
        self._device: int = stream.device_id
        self._caller: int = caller.ptr
        self._ordered_on: int | None = None
        self._after: list[Callable[[], None]] = []

    @property
    def settled(self) -> bool:
        """Whether the caller's next operations find the results: the host knows that it is complete, or a stream was put behind it."""
        return self._done or self._ordered_on is not None

    def started(self) -> None:
        """Its stream, which is the current one, has been given all of it."""
        after, self._after = self._after, []
        for finish in after:
            finish()
        self._mark()

    def then(self, finish: Callable[[], None]) -> Work:
        """Do something with arrays on the operation's stream behind it; on the caller's where that is behind it already."""
        if self._exception is not None:
            return self
        assert self._lock is not None
        with self._cupy.cuda.Device(self._device):
            with self._lock:  # another thread that asks must not take it for complete in between
                if not self._done and self._ordered_on != self._cupy.cuda.get_current_stream().ptr:
                    if self.finished is None:
                        self._after.append(finish)
                    else:
                        with current(self._cupy, self.stream):
                            finish()
                            self._mark()
                    return self
            finish()
        return self

    def wait(self, timeout: float | None = None) -> None:
        """Let what the caller's current stream is given from now on come behind the operation; the host does not wait.

        With `timeout`, or where TORCH_NCCL_BLOCKING_WAIT=1 is set, the host does, too. The stream is that of the operation's device, also
        where another device is the current one.
        """
        if self._exception is not None:
            self._seen = True
            raise self._exception
        with self._cupy.cuda.Device(self._device):
            self._order(self._cupy.cuda.get_current_stream(), timeout)

    def _order(self, here: Any, timeout: float | None) -> None:
        """Put a stream of the current device behind it."""
        if self._done and not (self.captured and is_capturing(here)):
            return
        if self.finished is None:
            raise CommunicationError(f"{self.operation}: it is waited for before its group has ended; wait behind the with-block")
        here.wait_event(self.finished)
        self._ordered_on = here.ptr
        if self.captured:
            if not self._done:
                self._end()
        elif timeout is not None or os.environ.get("TORCH_NCCL_BLOCKING_WAIT") == "1":
            super().wait(timeout)
        elif here.ptr == self._caller:
            # Whatever takes their memory next is behind the operation on this stream, where they were made.
            self._keep = ()

    def _mark(self) -> None:
        finished = self._cupy.cuda.Event(disable_timing=True)
        finished.record(self.stream)
        self.finished = finished  # not before: other threads ask it, and an event that was not recorded has happened

    def _ask(self) -> bool:
        """Whether the stream is through with it, as far as that may be asked."""
        if self.finished is None:
            return False
        if is_capturing(self._cupy.cuda.get_current_stream()):
            # Asking for any event would spoil the graph that this thread is recording.
            return False
        if self.captured:
            return True
        if happened(self._cupy, self.finished):
            return True
        self.check()
        return False
