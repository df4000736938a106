"""This side of the workers: the processes, and one epoch of batches from them.

Every task and every batch is in a segment of shared memory; the pipes carry only numbers, so neither side ever waits
for the other to empty one. There are as many segments as tasks that are under way, and two more: for the batch that
the training loop has, and the one that it is given.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.reduction import DupFd
from typing import TYPE_CHECKING, Any, NamedTuple

from .collate import pinned
from .shared import Segment
from .starting import context_for, surroundings
from .state import Taken, begin
from .worker import BATCH, EXHAUSTED, FAILED, MESSAGE, Failure, Setup, handled, run

if TYPE_CHECKING:
    from .dataloader import DataLoader

__all__ = ["Epoch", "Pool", "Turn"]

_NONE = object()
_GRACE = 2.0  # seconds that workers have to finish the sample they are at, when nobody wants it any more


class Reply(NamedTuple):
    """A worker's answer to a task, and where it is."""

    segment: int
    status: int
    begin: int
    length: int


class Pool:
    """Worker processes and their segments.

    Attributes
    ----------
    ended : bool
        Whether the processes were ended, or one of them died.
    """

    def __init__(self, loader: DataLoader) -> None:
        context = context_for(loader.multiprocessing_context)
        forked = context.get_start_method() == "fork"
        self.size = loader.num_workers
        self.ahead = loader.prefetch_factor or 2
        self.timeout = loader.timeout
        self.epoch = 0
        self.ended = False
        self.segments = [Segment() for _ in range(self.size * self.ahead + 2)]
        self.under_way: dict[int, int] = {}  # from tasks to their segments
        self.replies: dict[int, Reply] = {}
        self.tasks = 0
        self.processes: list[Any] = []
        self.connections: list[Any] = []
        self._selector = selectors.DefaultSelector()
        self._deaths: list[int] = []
        self._end = weakref.finalize(
            self, _end, os.getpid(), self.processes, self._deaths, self.connections, self.segments, self._selector
        )
        try:
            with surroundings():
                for number in range(self.size):
                    # A signal to all processes of the program would find a worker that has not parted from its parent yet.
                    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, handled())
                    try:
                        self._start(context, forked, number, loader, frozenset(blocked))
                    finally:
                        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        except BaseException:
            self.end()
            raise

    def _start(self, context: Any, forked: bool, number: int, loader: DataLoader, blocked: frozenset[int]) -> None:
        ours, theirs = context.Pipe()
        descriptors = [s.descriptor for s in self.segments]
        self.connections.append(ours)
        setup = Setup(
            id=number,
            num_workers=self.size,
            parent=os.getpid(),
            forked=forked,
            blocked=blocked,
            connection=theirs,
            inherited=tuple(self.connections) if forked else (),
            segments=tuple(descriptors if forked else [_Inherited(d) for d in descriptors]),
            source=loader._source,
            init=loader.worker_init_fn,
        )
        process = context.Process(target=run, args=(setup,), name=f"DataLoader worker {number}", daemon=True)
        try:
            process.start()
        finally:
            theirs.close()  # so that the worker's death closes the pipe
        self.processes.append(process)
        self._deaths.append(_death_of(process))
        self._selector.register(ours, selectors.EVENT_READ, number)
        self._selector.register(self._deaths[-1], selectors.EVENT_READ, number)

    def end(self) -> None:
        """End the processes."""
        self.ended = True
        self._end()

    def free(self) -> int | None:
        """A segment that carries nothing and that no array is on; None if there is none."""
        taken = set(self.under_way.values())
        return next((i for i, s in enumerate(self.segments) if i not in taken and not s.held), None)

    def give(self, worker: int, base_seed: int, indices: Any, note: dict[str, Any]) -> int:
        """Give a worker a task, and return its number."""
        segment = self.free()
        if segment is None:
            raise RuntimeError("DataLoader: every segment is in use; this is a mistake in disttorch")
        task, self.tasks = self.tasks, self.tasks + 1
        place = self.segments[segment].write_plain((self.epoch, base_seed, indices, note))
        try:
            self.connections[worker].send_bytes(MESSAGE.pack(task, segment, BATCH, *place))
        except ConnectionError:
            self._dead(worker)
        self.under_way[task] = segment
        return task

    def first(self, tasks: Sequence[tuple[int, int, int]]) -> int:
        """Wait until one of some tasks, given as (task, worker, ...), is done; which of them."""
        limit = time.monotonic() + self.timeout if self.timeout else None
        while True:
            for i, (task, *_) in enumerate(tasks):
                if task in self.replies:
                    return i
            if not self._wait(None if limit is None else max(0.0, limit - time.monotonic())):
                worker = tasks[0][1]
                raise RuntimeError(
                    f"DataLoader timed out after {self.timeout} seconds: worker {worker} "
                    f"(pid {self.processes[worker].pid}) has not fetched its batch"
                )

    def drain(self) -> None:
        """Wait for what is under way from an epoch that was left, and forget it."""
        while len(self.replies) < len(self.under_way):
            if not self._wait(self.timeout or None):
                raise RuntimeError(
                    f"DataLoader timed out after {self.timeout} seconds: its persistent workers are still busy with "
                    "batches of the last epoch, which was left"
                )
        self.replies.clear()
        self.under_way.clear()

    def _wait(self, seconds: float | None) -> bool:
        """Take what comes next; False if nothing does in so many seconds."""
        events = self._selector.select(seconds)
        gone = None
        for key, _ in events:
            if not hasattr(key.fileobj, "recv_bytes"):
                gone = key.data
                continue
            try:
                task, *reply = MESSAGE.unpack(key.fileobj.recv_bytes())
            except (EOFError, ConnectionError):
                gone = key.data
            else:
                self.replies[task] = Reply(*reply)
        if gone is not None:
            self._dead(gone)
        return bool(events)

    def _dead(self, worker: int) -> None:
        process = self.processes[worker]
        wait([self._deaths[worker]], _GRACE)
        code, pid = process.exitcode, process.pid
        self.end()
        if code is None:
            how = "closed its pipe, and was ended"
        elif code < 0:
            how = f"was killed by signal {-code} ({signal.Signals(-code).name})"
            if -code == signal.SIGKILL:
                how += ", as the kernel does when memory runs out"
        else:
            how = f"ended with exit code {code} before its work was done"
        raise RuntimeError(f"DataLoader worker {worker} (pid {pid}) {how}")


class Turn:
    """The batches of an epoch that workers have or had, as (task, worker, number of the batch), the next one first.

    Attributes
    ----------
    fetched : deque
        Those that are here, and that the training loop was not given yet.
    pending : deque
        Those that workers are to fetch.
    lock : Lock
        Held where both change, as batches may be fetched by another thread than the loop's.
    """

    def __init__(self) -> None:
        self.fetched: deque[tuple[int, int, int]] = deque()
        self.pending: deque[tuple[int, int, int]] = deque()
        self.lock = threading.Lock()

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        with self.lock:
            return iter([*self.fetched, *self.pending])

    def __getstate__(self) -> list[tuple[int, int, int]]:
        return list(self)

    def __setstate__(self, batches: list[tuple[int, int, int]]) -> None:
        self.__init__()  # type: ignore[misc]
        self.pending.extend(batches)


class Epoch:
    """One epoch of batches from a pool, in the order of the sampler.

    The batches go round the workers: whichever gave one gets the next task. So which worker fetches which batch does
    not depend on how fast they are, unless batches are given as they come (``in_order=False``).
    """

    def __init__(self, loader: DataLoader, pool: Pool) -> None:
        self._loader = loader
        self._pool = pool
        self._turn = Turn()
        pool.epoch += 1
        self._number = pool.epoch
        self._position, self._seed, self._batches, turn = begin(loader)
        loader._position = self._position
        self._position.turn = self._turn
        self._informed: set[int] = set()  # workers that know from where they go on
        self._news: list[tuple[None, int, Any]] = []  # of workers that have no more batches
        try:
            pool.drain()
            for _ in range(pool.ahead):
                for worker in turn:
                    self._give(worker)
        except BaseException:
            self._leave()
            raise

    def __iter__(self) -> Iterator[Any]:
        return self

    def __len__(self) -> int:
        return len(self._loader)

    def __next__(self) -> Any:
        try:
            taken = self.fetch()
        except StopIteration:
            self.end()
            raise
        return self.hand_over(taken)

    def fetch(self) -> Taken:
        """The next batch, as soon as it is there; `StopIteration` if there is none. Until it is handed over it does not count."""
        pool, pending = self._pool, self._turn.pending
        if self._number != pool.epoch:
            raise RuntimeError(
                "a new iteration over this DataLoader has begun, and its persistent workers serve one at a time"
            )
        if pool.ended and pending:
            raise RuntimeError("the workers of this DataLoader have ended; begin a new iteration")
        while pending:
            place = pool.first([pending[0]] if self._loader.in_order else pending)
            task, worker, number = pending[place]
            reply = pool.replies.pop(task)
            segment = pool.segments[reply.segment]
            if reply.status == EXHAUSTED:
                self._news.append((None, worker, segment.receive(reply.begin, reply.length)[1]))
                with self._turn.lock:
                    del pending[place]
                del pool.under_way[task]
                continue
            try:
                result, note = segment.read(reply.begin, reply.length, copy=pool.free() is None)
            finally:
                del pool.under_way[task]
                with self._turn.lock:
                    del pending[place]
                    self._turn.fetched.append((task, worker, number))
                    self._give(worker)
            news, self._news = [*self._news, (number, worker, note)], []
            if reply.status == FAILED:
                return Taken(None, self._error(worker, result), news)
            return Taken(pinned(result) if self._loader._pin else result, None, news)
        self._leave()
        raise StopIteration

    def hand_over(self, taken: Taken) -> Any:
        """Give the training loop a batch that was fetched: the one that was fetched first of those that it was not given."""
        with self._turn.lock:
            self._turn.fetched.popleft()
        self._position.note(taken.news)
        if taken.error is not None:
            raise taken.error
        return taken.batch

    def end(self) -> None:
        """The training loop is told that there are no more batches."""
        self._position.note(self._news)
        self._news = []
        self._position.ended = True

    def _give(self, worker: int) -> None:
        number, indices = next(self._batches, (_NONE, None))
        if isinstance(number, int):
            note = {} if worker in self._informed else self._position.notes[worker]
            self._informed.add(worker)
            self._turn.pending.append((self._pool.give(worker, self._seed, indices, note), worker, number))

    def _leave(self) -> None:
        if not self._loader.persistent_workers:
            self._pool.end()

    def _error(self, worker: int, failure: Failure) -> BaseException:
        process = self._pool.processes[worker]
        error = failure.error or RuntimeError(failure.description)
        error.add_note(f"in DataLoader worker {worker} (pid {process.pid}):\n\n{failure.traceback.rstrip()}")
        return error


class _Inherited:
    """A descriptor on its way to a process that is not forked."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple:
        return _same, (DupFd(self.descriptor),)


def _same(value: Any) -> Any:
    return value


def _death_of(process: Any) -> int:
    """A descriptor that is readable when a process is gone, and, unlike that of multiprocessing, not before."""
    try:
        return os.pidfd_open(process.pid)
    except OSError:  # a kernel before 5.3
        return os.dup(process.sentinel)


def _hang_up(connection: Any) -> None:
    """Close a pipe, also where workers of another loader, or whoever else was forked meanwhile, hold this end of it, too."""
    with socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as pipe, suppress(OSError):
        pipe.shutdown(socket.SHUT_RDWR)  # fails where the worker has gone before
    connection.close()


def _end(owner: int, processes: list, deaths: list[int], connections: list, segments: list, selector: Any) -> None:
    """End workers by closing their pipes, and those that do not listen by signals."""
    if os.getpid() != owner:
        return  # a fork of the process that they belong to
    selector.close()
    for connection in connections:
        _hang_up(connection)
    limit = time.monotonic() + _GRACE
    for death in deaths:
        wait([death], max(0.0, limit - time.monotonic()))
    for stop in ("terminate", "kill"):
        for process, death in zip(processes, deaths):
            if process.is_alive():
                getattr(process, stop)()
                wait([death], _GRACE)
    for death in deaths:
        os.close(death)
    for segment in segments:
        segment.close()
