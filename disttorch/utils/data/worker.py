"""The worker's side: a process that fetches batches until its pipe is closed.

A worker is no part of what its parent does besides: it ignores the parent's signal handlers and hooks, ends at once
when the parent dies, and ends by os._exit, so that no exit handler of the parent, such as MPI's, runs in it.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import random
import select
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from ...backend import cpu
from ...ops.random import manual_seed
from .fetch import Exhausted, Fetch, Source
from .shared import Segment
from .state import Streams

__all__ = ["MESSAGE", "Failure", "Setup", "WorkerInfo", "get_worker_info", "handled", "run"]

#: what goes through the pipes both ways: task, segment, status, and where the object lies in the segment
MESSAGE = struct.Struct("<qqqqq")
BATCH, FAILED, EXHAUSTED = range(3)


class WorkerInfo(NamedTuple):
    """What a worker process knows of itself; see `get_worker_info`.

    Attributes
    ----------
    id : int
        Its number, from 0 to `num_workers` - 1.
    num_workers : int
    seed : int
        Of this epoch: the base seed plus `id`.
    dataset : Dataset
        The worker's own copy.
    """

    id: int
    num_workers: int
    seed: int
    dataset: Any


class Setup(NamedTuple):
    """What a worker is started with."""

    id: int
    num_workers: int
    parent: int
    forked: bool
    blocked: frozenset[int]  # signals that the parent does not take
    connection: Connection
    inherited: tuple[Connection, ...]
    segments: tuple[Any, ...]  # descriptors: ints if forked, else on their way through multiprocessing
    source: Source
    init: Callable[[int], None] | None


class Failure(NamedTuple):
    """An exception in a worker: itself if it can be sent, what it says, and its traceback."""

    error: Exception | None
    description: str
    traceback: str


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """In a worker process of a `DataLoader` what it knows of itself, elsewhere None.

    Examples
    --------
    >>> from disttorch.utils.data import IterableDataset, get_worker_info
    >>> class Count(IterableDataset):
    ...     def __iter__(self):
    ...         info = get_worker_info()
    ...         return iter(range(10) if info is None else range(info.id, 10, info.num_workers))
    >>> sum(Count())
    45
    """
    return _info


def run(setup: Setup) -> None:
    """Work until there is no more to do, and end the process."""
    code = 1
    try:
        _part_from_parent(setup)
        segments = [Segment(s if isinstance(s, int) else s.detach()) for s in setup.segments]
        _work(setup, segments)
        code = 0
    except (EOFError, ConnectionError):
        code = 0  # the parent closed the pipe: the epoch is over, or was given up
    except BaseException:
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def _work(setup: Setup, segments: list[Segment]) -> None:
    state = _State(setup)
    while True:
        task, segment, _, begin, length = MESSAGE.unpack(setup.connection.recv_bytes())
        epoch, base_seed, indices, note = segments[segment].receive(begin, length)
        try:
            result, status = state.fetch(epoch, base_seed, indices, note), BATCH
            place = segments[segment].write((result, state.note()))
        except Exhausted:
            place, status = segments[segment].write((None, state.note())), EXHAUSTED
        except BaseException as error:
            place, status = segments[segment].write((_failure(error), None)), FAILED
        result = None
        _flush()  # now: a worker that is slow to end is ended by a signal
        setup.connection.send_bytes(MESSAGE.pack(task, segment, status, *place))


class _State:
    """What a worker keeps from one batch to the next: the dataset's iterator or the error that its start met."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.started = False
        self.epoch = -1
        self.next: Fetch | None = None
        self.streams = Streams()

    def fetch(self, epoch: int, base_seed: int, indices: Any, note: dict[str, Any]) -> Any:
        if epoch != self.epoch:
            self.epoch, self.next = epoch, None
            self._begin(base_seed)
            self.next = Fetch(self.setup.source, note)
            self.streams = Streams()
            if "streams" in note:
                self.streams.restore(note["streams"])
        if self.next is None:
            raise RuntimeError("this worker could not begin the epoch; its first error says why")
        return self.next(indices)

    def note(self) -> dict[str, bytes]:
        """Where the dataset and the random streams are now, as far as they have changed."""
        note = {} if self.next is None else {name: pickle.dumps(value) for name, value in self.next.note().items()}
        streams = self.streams.changed()
        return note if streams is None else note | {"streams": streams}

    def _begin(self, base_seed: int) -> None:
        global _info
        seed = base_seed + self.setup.id
        manual_seed(seed)
        random.seed(seed)
        cpu.seed_library(seed)
        _info = WorkerInfo(self.setup.id, self.setup.num_workers, seed, self.setup.source.dataset)
        if not self.started and self.setup.init is not None:
            self.setup.init(self.setup.id)
        self.started = True


def _failure(error: BaseException) -> Failure:
    text = "".join(traceback.format_exception(error))
    description = "".join(traceback.format_exception_only(error)).strip()
    sent: Exception | None = None
    if isinstance(error, Exception):
        try:
            pickle.loads(pickle.dumps(error))
            sent = error
        except Exception:
            sent = None  # an exception may not survive pickling in any way it likes; its text does
    return Failure(sent, description, text)


# --- apart from the parent --------------------------------------------------------------------------------------------


def _part_from_parent(setup: Setup) -> None:
    for connection in setup.inherited:
        connection.close()  # or a worker would not see its pipe closed, because another one has the parent's end
    # Ctrl-C goes to the parent's whole group; the parent decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if setup.forked:
        # The training program's handlers and hooks (checkpoints on SIGUSR1, MPI_Abort on an error) are not for us.
        signal.set_wakeup_fd(-1)
        for number in handled() - {signal.SIGINT}:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
        sys.excepthook, threading.excepthook = sys.__excepthook__, threading.__excepthook__
        # What the parent made is not collected here: it may be bound to MPI or CUDA, and stays shared if not touched.
        gc.freeze()
    signal.pthread_sigmask(signal.SIG_SETMASK, setup.blocked)  # those that came while this process began are dealt with now
    threading.Thread(target=_end_with, args=(setup.parent,), name="end with parent", daemon=True).start()


def handled() -> set[int]:
    """The signals for which this process has handlers, and that of Ctrl-C."""
    return {signal.SIGINT} | {number for number in signal.valid_signals() if callable(signal.getsignal(number))}


def _end_with(parent: int) -> None:
    """Wait until the parent is gone, and end. It may be killed while the dataset is busy, or waits for something."""
    try:
        descriptor = os.pidfd_open(parent)
    except ProcessLookupError:
        os._exit(1)
    except OSError:  # a kernel before 5.3: then by the pipe of multiprocessing
        process = multiprocessing.parent_process()
        if process is None:
            return
        descriptor = process.sentinel
    gone = select.poll()
    gone.register(descriptor, select.POLLIN)
    gone.poll()
    os._exit(1)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue  # closed or absent: nobody is there to be told
