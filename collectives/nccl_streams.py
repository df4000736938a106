"""NCCL's communicators and streams: how an operation of NCCL's is given to a stream, and what goes with it.

An operation runs on a stream of the transport's own. It waits for what the caller's current stream holds when it is called, and who waits
for it lets the stream that is current then wait for it, so a program sees the order that it wrote. The host waits for nothing
(`stream_work`); that an operation does not end, or another rank fails, a thread sees (`watchdog`).

Importing this module does not import CuPy.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any

from . import watchdog
from .errors import CollectiveTimeoutError, CommunicationError
from .staging import Array
from .stream_work import StreamWork, current, is_capturing
from .transport import Transport
from .work import Work

__all__ = ["Launch", "NCCLStreams"]

LOOKED_AFTER = 64
"""Operations that may be under way before each new one makes the transport look whether the oldest is complete."""
PATIENCE = 5.0
"""Seconds that NCCL gets to give communicators back before the program goes on without."""

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
    timeout : float, optional
        Seconds to wait for the other ranks.

    Attributes
    ----------
    watch : callable or None
        Called with the seconds that giving an operation to its stream has taken so far; raises when it has been too long.

    Raises
    ------
    CommunicationError
        If NCCL cannot be used; with what NCCL says. If a CUDA graph is being captured, of which the introduction cannot be a part.
        If not all ranks come (`CollectiveTimeoutError`).
    """

    watch: Callable[[float], None] | None = None

    def __init__(
        self, base: Transport, device: int | None = None, made: tuple[Any, Any] | None = None, timeout: float | None = None
    ) -> None:
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
                identity = self._introduce(timeout)

                def make() -> tuple[Any, Any]:
                    comm = nccl.NcclCommunicator(self.size, identity, self.rank)
                    # Messages have a communicator of their own: they do not wait for collectives, nor those for them.
                    return comm, comm.commSplit(0, self.rank)

                made = self._with_all_ranks("init", make, timeout)
            self._comm, self._messages = made
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self._message_stream = cupy.cuda.Stream(non_blocking=True)
        self._grouped: list[_Call] | None = None
        self.under_way: tuple[deque[StreamWork], deque[StreamWork]] = deque(), deque()
        """What has been called and is not known to be complete, oldest first: collectives, and messages."""
        self._in_graphs: set[str] = set()
        """Operations that are parts of CUDA graphs."""
        self._finalizer = weakref.finalize(self, _end, made, self.under_way, self._in_graphs, cupy.cuda.Device(self.device), os.getpid())
        watchdog.watch(self)

    def _introduce(self, timeout: float | None) -> Any:
        """Rank 0's unique id on all ranks, of the type that this CuPy has for it."""
        from .job import exchange

        mine: tuple[Any, str] = None, ""
        if self.rank == 0:
            try:
                mine = self._nccl.get_unique_id(), ""
            except self._nccl.NcclError as error:
                mine = None, str(error)
        identity, failure = exchange(self._base, mine, timeout)[0]
        if failure:
            raise CommunicationError(f"init: rank {self.rank} of {self.size}: NCCL cannot start on rank 0: {failure}")
        return identity

    def _with_all_ranks(self, operation: str, make: Callable[[], tuple[Any, ...]], timeout: float | None) -> tuple[Any, ...]:
        """What NCCL makes where all ranks come together. It waits for them inside of a call, so a thread calls it, and this one looks."""
        ended: list[tuple[Any, ...] | Exception] = []

        def run() -> None:
            try:
                self.use_device()
                ended.append(make())
            except Exception as error:  # the poll raises it
                ended.append(error)

        def poll() -> bool:
            if ended and isinstance(ended[0], Exception):
                raise ended[0]
            return bool(ended)

        threading.Thread(target=run, name=f"collectives {operation}", daemon=True).start()
        with self.errors(operation):
            try:
                Work(operation, poll).wait(timeout)
            except TimeoutError as error:
                raise CollectiveTimeoutError(
                    f"{operation}: rank {self.rank} of {self.size} has waited {timeout:g} s for NCCL to connect the ranks: one of them has "
                    "ended or is stopped, or they do not reach each other over the network that NCCL has chosen. NCCL_DEBUG=INFO shows "
                    "what it does, NCCL_SOCKET_IFNAME names another network"
                ) from error
        made = ended[0]
        assert not isinstance(made, Exception)
        return made

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
            self._note(work, self.under_way[messages])  # before it starts, which may take long
            if self._grouped is not None:
                self._grouped.append(call)
            else:
                self._start([call])
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
        """Give operations to their streams. They fail where NCCL refuses them.

        Ranks that have not communicated before in the way that an operation needs connect first, so the host may wait for them here.
        """
        for each in calls:
            each.work.starting = time.monotonic()
        try:
            self._give(calls)
        except Exception as error:
            for each in calls:
                each.work.fail(error)
            if not isinstance(error, CommunicationError):
                for each in calls:
                    each.work.exception()  # it is told here
                raise
        finally:
            for each in calls:
                each.work.starting = 0.0

    def _give(self, calls: Sequence[_Call]) -> None:
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

    def divide(self, color: int | None, key: int, timeout: float | None = None) -> tuple[Any, Any] | None:
        """NCCL's communicators of the ranks with the same color, in the order of their keys: for collectives and for messages.

        Every rank calls, and waits for the others. Made from those that there are, which takes less time and memory than an introduction.
        """
        self._refuse_capture("split")
        with self._cupy.cuda.Device(self.device), self.errors("split"):
            # NCCL wants nothing under way when it splits.
            self._stream.synchronize()
            self._message_stream.synchronize()
            mine, comms = -1 if color is None else color, (self._comm, self._messages)
            made = self._with_all_ranks("split", lambda: tuple(comm.commSplit(mine, key) for comm in comms), timeout)
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

    def abandon(self, cause: Exception | None = None) -> None:
        """End NCCL's communicators, and with them what is under way: kernels that wait for another rank return.

        What is under way fails before, because to its stream it would look complete.
        """
        watchdog.leave(self)
        if self._finalizer.detach() is None:
            return
        why = "" if cause is None else f": {cause}"
        for works in self.under_way:
            for work in works.copy():
                if not work.test():
                    work.fail(CommunicationError(f"{work.operation}: rank {self.rank} of {self.size}: NCCL was aborted{why}"))
                    work.exception()  # who aborts, knows
        _give_back([self._messages.abort, self._comm.abort], self._cupy.cuda.Device(self.device), self._in_graphs)

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


def _end(
    comms: Sequence[Any], under_way: Sequence[deque[StreamWork]], in_graphs: Collection[str], device: Any, process: int
) -> None:
    """Give NCCL's communicators back; where something never ended they are aborted, for destroying would wait for it.

    Both wait until no CUDA graph has a part of theirs any more, and nobody can tell when a program lets go of its graphs, at its end
    perhaps not before this. So a communicator in graphs stays as it is until the process ends. So does one in a process that was forked
    from the rank's, where NCCL's threads, for which it would wait, are not.
    """
    if os.getpid() != process:
        _keep(comms)
        return
    ended = all(work.test() and work.exception() is None for works in under_way for work in works)
    if not ended:
        _give_back([comm.abort for comm in reversed(comms)], device, in_graphs)
    elif in_graphs:
        _keep(comms)
    else:
        _give_back([lambda: [comm.destroy() for comm in reversed(comms)]], device, in_graphs)


def _give_back(ways: Sequence[Callable[[], Any]], device: Any, in_graphs: Collection[str]) -> None:
    """Give communicators back, in as many ways as may be gone at once.

    Destroying and aborting wait until the other ranks of the node do it, too, and for graphs; what an abort frees waits for all kernels of
    the device, also those of a communicator whose abort is yet to come. So threads do it, and hold nobody up for long.
    """

    def run(way: Callable[[], Any]) -> None:
        with contextlib.suppress(Exception):  # where the device has failed
            device.use()
        way()

    threads = [threading.Thread(target=run, args=(way,), name="collectives end", daemon=True) for way in ways]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:  # the interpreter is about to end, and with the process its kernels do
        _keep(ways)
        return
    deadline = time.monotonic() + (0.0 if in_graphs else PATIENCE)
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _keep(what: Any) -> None:
    """Keep communicators for good, or what knows them: they would be destroyed with their last reference."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(what))
