"""Batches on their way to a GPU: a thread that puts them in page-locked memory, and a stream that copies them.

Worker processes hand batches over in shared memory. A thread takes them out and pins them, so that the training loop does not; then the
loop's thread launches the copy of the next batch before it is given the present one. The copy runs on a stream of its own beside what
the GPU computes. The stream of the loop waits for it when the batch is given; what the batch was copied from is kept until then, and
the batch's memory until that stream is done with it.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ... import cuda
from ...autograd.variable import Tensor, wrap
from ...backend import cpu, for_device
from ...cuda._room import room
from .collate import map_leaves
from .state import Taken

if TYPE_CHECKING:
    from .pool import Epoch

__all__ = ["Copies", "OnDevice", "Pinned"]

AHEAD = 2
"""Pinned batches that wait for the training loop at most."""
PATIENCE = 2.0
"""Seconds to wait for the thread when an iteration is given up."""


class Pinned:
    """An epoch of batches from workers that a thread fetches and pins.

    Parameters
    ----------
    epoch : Epoch
    """

    def __init__(self, epoch: Epoch) -> None:
        self._epoch = epoch
        self._queue: queue.Queue[Taken | None] = queue.Queue(AHEAD)
        self._over = False
        self._stop = stop = threading.Event()
        # The thread must not know this object: it ends when nobody has it any more.
        self._thread = threading.Thread(
            target=_fetch_all, args=(epoch, self._queue, stop, cuda.current_device()), name="DataLoader pinning", daemon=True
        )
        self._end = weakref.finalize(self, _end, self._thread, self._queue, stop)
        self._thread.start()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __len__(self) -> int:
        return len(self._epoch)

    def __next__(self) -> Any:
        taken = self.fetch()
        if taken is None:
            self._epoch.end()
            raise StopIteration
        return self.hand_over(taken)

    def fetch(self, wait: bool = True) -> Taken | None:
        """The next batch, None behind the last one. Without `wait`, `queue.Empty` is raised if it is not there yet."""
        if not self._end.alive:
            return self._epoch.fetch()  # says why there are no more
        if self._over:
            return None
        taken = self._queue.get(wait)
        self._over = taken is None or not taken.news
        return taken

    def hand_over(self, taken: Taken) -> Any:
        """Give the training loop the oldest of the batches that were fetched."""
        if not taken.news and taken.error is not None:  # it belongs to no batch: a worker has died, for instance
            raise taken.error
        return self._epoch.hand_over(taken)

    def end(self) -> None:
        """The training loop is told that there are no more batches."""
        self._epoch.end()

    def close(self) -> None:
        """End the thread, when it has fetched what it is at."""
        self._end.detach()
        _end(self._thread, self._queue, self._stop, None)


def _fetch_all(epoch: Epoch, ready: queue.Queue[Taken | None], stop: threading.Event, device: int) -> None:
    # Page-locked memory asked for by a new thread would come with a context on the first GPU.
    cuda.set_device(device)
    room("capturing").relax_this_thread()  # the loop may capture a CUDA graph while it pins
    while not stop.is_set():
        try:
            taken: Taken | None = epoch.fetch()
        except StopIteration:
            taken = None
        except BaseException as error:
            taken = Taken(None, error)
        ready.put(taken)
        if taken is None or not taken.news:
            return


def _end(
    thread: threading.Thread, ready: queue.Queue[Taken | None], stop: threading.Event, patience: float | None = PATIENCE
) -> None:
    """Have the thread end, and wait for that; it waits for a worker, perhaps, which may take for ever."""
    stop.set()
    deadline = None if patience is None else time.monotonic() + patience
    while thread.is_alive() and thread is not threading.current_thread() and (deadline is None or time.monotonic() < deadline):
        try:
            ready.get(timeout=0.05)  # so that it can put its last one, and see
        except queue.Empty:
            continue


class Copies:
    """A stream on which batches are copied to a GPU.

    Parameters
    ----------
    device : device
        With its number.
    """

    def __init__(self, device: Any) -> None:
        self.device = device
        self._stream = cuda.Stream(device)

    def launch(self, batch: Any) -> tuple[Any, Any]:
        """Begin to copy a batch: what it will be on the GPU, and the event after which it is that."""
        with cuda.stream(self._stream):
            there = map_leaves(self._copy, batch, "to")
            return there, self._stream.record_event()

    def give(self, batch: Any, copied: Any) -> Any:
        """Let the current stream use a batch, as soon as it is copied."""
        current = cuda.current_stream(self.device)
        current.wait_event(copied)

        def used(value: Any) -> Any:
            if not isinstance(value, Tensor):
                # What moves itself does so here, since nobody knows which memory it is then.
                return value.to(self.device) if callable(getattr(value, "to", None)) else value
            if value.device == self.device:
                value.record_stream(current)
            return value

        return map_leaves(used, batch, "to")

    def _copy(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if isinstance(value._array, cpu.ndarray) and value._array.size and not value.is_pinned():
            value = wrap(for_device(self.device)[0].pinned(value._array))
        return value.to(self.device, non_blocking=True)


class OnDevice:
    """An epoch of batches on a GPU, one copied ahead where a thread fetches ahead.

    Parameters
    ----------
    epoch : iterator
        Has ``fetch``, ``hand_over`` and ``end``; `Pinned`, or the batches of this process, which are fetched when they are asked for.
    copies : Copies
    """

    def __init__(self, epoch: Any, copies: Copies) -> None:
        self._epoch, self._copies = epoch, copies
        self._next: Callable[[], Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __len__(self) -> int:
        return len(self._epoch)

    def __next__(self) -> Any:
        give, self._next = self._next or self._launched(self._epoch.fetch()), None
        if isinstance(self._epoch, Pinned):
            try:
                self._next = self._launched(self._epoch.fetch(wait=False))
            except queue.Empty:
                self._next = None  # the loop must not wait for a batch that it does not need yet
        return give()

    def _launched(self, taken: Taken | None) -> Callable[[], Any]:
        """What gives the loop a batch, whose copy is launched now; or raises what came instead."""
        if taken is None:
            return self._stop
        if taken.error is not None:
            return lambda: self._epoch.hand_over(taken)
        there, copied = self._copies.launch(taken.batch)

        def give() -> Any:
            self._epoch.hand_over(taken)
            return self._copies.give(there, copied)

        return give

    def _stop(self) -> Any:
        self._next = self._stop
        self._epoch.end()
        raise StopIteration
