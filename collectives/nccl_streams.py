"""NCCL's communicators and streams: how an operation of NCCL's is given to a stream, and what goes with it.

An operation runs on a stream of the transport's own. It waits for what the caller's current stream holds when it is called, and who waits
for it lets the stream that is current then wait for it, so a program sees the order that it wrote. The host waits for nothing
(`stream_work`); that an operation does not end, or another rank fails, a thread sees (`watchdog`).

Importing this module does not import CuPy.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any

from . import watchdog
from .errors import CommunicationError
from .staging import Array
from .stream_work import StreamWork, current, is_capturing
from .transport import Transport
from .work import Work

__all__ = ["Launch", "NCCLStreams"]

LOOKED_AFTER = 64
"""Operations that may be under way before each new one makes the transport look whether the oldest is complete."""

Launch = Callable[[], None]


class NCCLStreams(Transport):
    """The ranks of another transport, each with a GPU, and what NCCL has for them.

    Parameters
    ----------
    base : Transport
        Between the same ranks, for NumPy arrays: it carries NCCL's introduction, and `late` and `abort`.
        Every rank of it must call, and waits for the others.
    device : int, optional
        The number of this rank's GPU; the current one's unless given.
    made : tuple of two NcclCommunicator, optional
        Communicators of the same ranks that there are already, for collectives and for messages (`divide`).

    Raises
    ------
    CommunicationError
        If NCCL cannot be used; with what NCCL says. If a CUDA graph is being captured, of which the introduction cannot be a part.
    """

    def __init__(self, base: Transport, device: int | None = None, made: tuple[Any, Any] | None = None) -> None:
        super().__init__(base.rank, base.size)
        import cupy
        from cupy.cuda import nccl

        self._cupy, self._nccl, self._base = cupy, nccl, base
        self.array_types = (cupy.ndarray,)
        self.device: int = cupy.cuda.runtime.getDevice() if device is None else device
        """The number of this rank's GPU."""
        with cupy.cuda.Device(self.device):
            self._refuse_capture("init")
            if made is None:
                identity = self._introduce()
                with self.errors("init"):
                    comm = nccl.NcclCommunicator(self.size, identity, self.rank)
                    # Messages have a communicator of their own: they do not wait for collectives, nor those for them.
                    made = comm, comm.commSplit(0, self.rank)
            self._comm, self._messages = made
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self._message_stream = cupy.cuda.Stream(non_blocking=True)
        self._grouped: list[_Call] | None = None
        self.under_way: tuple[deque[StreamWork], deque[StreamWork]] = deque(), deque()
        """What has been called and is not known to be complete, oldest first: collectives, and messages."""
        self._in_graphs: set[str] = set()
        """Operations that are parts of CUDA graphs."""
        self._finalizer = weakref.finalize(self, _end, made, self.under_way, self._in_graphs)
        watchdog.watch(self)

    def _introduce(self) -> Any:
        """Rank 0's unique id on all ranks, of the type that this CuPy has for it."""
        from .job import exchange

        mine: tuple[Any, str] = None, ""
        if self.rank == 0:
            try:
                mine = self._nccl.get_unique_id(), ""
            except self._nccl.NcclError as error:
                mine = None, str(error)
        identity, failure = exchange(self._base, mine)[0]
        if failure:
            raise CommunicationError(f"init: rank {self.rank} of {self.size}: NCCL cannot start on rank 0: {failure}")
        return identity

    def use_device(self) -> None:
        """Make this rank's GPU the current one of the calling thread."""
        self._cupy.cuda.Device(self.device).use()

    # Streams and events ----------------------------------------------------------------------------------------------

    def begin_group(self) -> None:
        self._grouped = []

    def end_group(self) -> None:
        grouped, self._grouped = self._grouped or [], None
        with self._cupy.cuda.Device(self.device):
            self._start([each for each in grouped if not each.alone])
            for each in grouped:
                if each.alone:
                    self._start([each])

    def _run(
        self, operation: str, launch: Launch, *keep: Array | None, before: Launch | None = None, after: Launch | None = None,
        alone: bool = False, messages: bool = False,
    ) -> Work:  # fmt: skip
        """Start an operation behind what the current stream holds, now or at the end of the group."""
        comm = self._messages if messages else self._comm
        stream = self._message_stream if messages else self._stream
        with self._cupy.cuda.Device(self.device):
            caller = self._cupy.cuda.get_current_stream()
            work = StreamWork(operation, self._cupy, caller, stream, keep, self._checking(operation, comm))
            call = _Call(work, before, launch, after, alone)
            if self._grouped is not None:
                self._grouped.append(call)
            else:
                self._start([call])
        self._note(work, self.under_way[messages])
        return work

    def _checking(self, operation: str, comm: Any) -> Callable[[], None]:
        """What raises NCCL's own error of a communicator, without holding the transport."""
        error, where = self._nccl.NcclError, f"{operation}: rank {self.rank} of {self.size}, GPU {self.device}"

        def check() -> None:
            try:
                comm.check_async_error()
            except error as found:
                raise CommunicationError(f"{where}: {found}") from found

        return check

    def _note(self, work: StreamWork, under_way: deque[StreamWork]) -> None:
        """Keep a work, with what it keeps, until it is known to be complete."""
        if work.captured:
            self._in_graphs.add(work.operation)
            return  # the graph's own memory lives as long as the graph
        while under_way and under_way[0].done():
            under_way.popleft()
        while len(under_way) > LOOKED_AFTER and under_way[0].test():
            under_way.popleft()
        under_way.append(work)

    def _start(self, calls: Sequence[_Call]) -> None:
        """Give operations to their streams, as one group of NCCL's."""
        if not calls:
            return
        for each in calls:
            each.work.stream.wait_event(each.work.called)
        for each in calls:
            if each.before is not None:
                with current(self._cupy, each.work.stream):
                    each.before()
        with self.errors(calls[0].work.operation), contextlib.ExitStack() as stack:
            if len(calls) > 1:
                stack.enter_context(self._group())
            for each in calls:
                # What is computed between NCCL's calls belongs to the same stream.
                with current(self._cupy, each.work.stream):
                    each.launch()
        for each in calls:
            with current(self._cupy, each.work.stream):
                if each.after is not None:
                    each.after()
                each.work.started()

    @contextlib.contextmanager
    def _group(self) -> Generator[None, None, None]:
        self._nccl.groupStart()
        try:
            yield
        finally:
            self._nccl.groupEnd()

    @contextlib.contextmanager
    def errors(self, operation: str) -> Generator[None, None, None]:
        """NCCL's and CUDA's errors as ours."""
        try:
            yield
        except (self._nccl.NcclError, self._cupy.cuda.runtime.CUDARuntimeError) as error:
            raise CommunicationError(f"{operation}: rank {self.rank} of {self.size}, GPU {self.device}: {error}") from error

    def _check(self, operation: str, *arrays: Array) -> None:
        for array in arrays:
            if array.device.id != self.device:
                raise ValueError(
                    f"{operation}: the array is on GPU {array.device.id}, but rank {self.rank} communicates from GPU {self.device}, "
                    "which was current at its first operation on a GPU's array"
                )

    # Groups and the end ----------------------------------------------------------------------------------------------

    def divide(self, color: int | None, key: int) -> tuple[Any, Any] | None:
        """NCCL's communicators of the ranks with the same color, in the order of their keys: for collectives and for messages.

        Every rank calls. Made from those that there are, which takes less time and memory than an introduction.
        """
        self._refuse_capture("split")
        with self._cupy.cuda.Device(self.device), self.errors("split"):
            # NCCL wants nothing under way when it splits.
            self._stream.synchronize()
            self._message_stream.synchronize()
            made = tuple(comm.commSplit(-1 if color is None else color, key) for comm in (self._comm, self._messages))
        return None if color is None else (made[0], made[1])

    def split(self, color: int | None, key: int) -> NCCLStreams | None:
        part = self._base.split(color, key)
        made = self.divide(color, key)
        return None if part is None else type(self)(part, self.device, made)

    def _refuse_capture(self, operation: str) -> None:
        if is_capturing(self._cupy.cuda.get_current_stream()):
            raise CommunicationError(
                f"{operation}: rank {self.rank}: NCCL's communicators cannot be made while a CUDA graph is captured; run one step, with "
                "the same collectives, before the capture"
            )

    def late(self) -> Sequence[int] | None:
        return self._base.late()

    def abort(self, code: int) -> None:
        self.abandon()
        self._base.abort(code)

    def abandon(self) -> None:
        """End NCCL's communicators, and with them what is under way: kernels that wait for another rank return."""
        watchdog.leave(self)
        if self._finalizer.detach() is not None:
            for comm in (self._messages, self._comm):
                _abort(comm, self._in_graphs)

    def close(self) -> None:
        watchdog.leave(self)
        if self._finalizer.alive:
            self._stream.synchronize()
            self._message_stream.synchronize()
            for under_way in self.under_way:
                under_way.clear()
            self._finalizer()


class _Call:
    """An operation that was called, and what is to be done for it."""

    __slots__ = ("after", "alone", "before", "launch", "work")

    def __init__(self, work: StreamWork, before: Launch | None, launch: Launch, after: Launch | None, alone: bool) -> None:
        self.work, self.before, self.launch, self.after, self.alone = work, before, launch, after, alone


def _end(comms: Sequence[Any], under_way: Sequence[deque[StreamWork]], in_graphs: Collection[str]) -> None:
    """Give NCCL's communicators back; where something never ended they are aborted, for destroying would wait for it.

    Both wait until no CUDA graph has a part of theirs any more, and nobody can tell when a program lets go of its graphs, at its end
    perhaps not before this. So a communicator in graphs stays as it is until the process ends.
    """
    ended = all(work.test() and work.exception() is None for works in under_way for work in works)
    for comm in reversed(comms):
        if not ended:
            _abort(comm, in_graphs)
        elif in_graphs:
            _keep(comm)
        else:
            comm.destroy()


def _abort(comm: Any, in_graphs: Collection[str]) -> None:
    """Let the kernels of a communicator return. What else is done to it then waits for graphs, which must not hold up the caller."""
    if not in_graphs:
        comm.abort()
        return
    try:
        threading.Thread(target=comm.abort, name="collectives abort", daemon=True).start()
    except RuntimeError:  # the interpreter is about to end, and with the process its kernels do
        _keep(comm)


def _keep(comm: Any) -> None:
    """Keep a communicator for good: it would be destroyed with its last reference."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(comm))
