"""NCCLTransport: arrays of GPUs, by NVIDIA's NCCL through CuPy, each rank with a GPU of its own.

Operations run on a stream of the transport's own. It waits for what the caller's current stream holds when an operation is called, and
who waits for the operation lets the stream that is current then wait for it, so a program sees the order that it wrote. The host
waits for nothing (`stream_work`); that an operation does not end, or another rank fails, a thread sees (`watchdog`).

Importing this module does not import CuPy.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np

from . import watchdog
from .errors import CommunicationError
from .nccl_reductions import Plan, plan_for
from .reductions import Reduction
from .staging import Array
from .stream_work import StreamWork, is_capturing
from .transport import Counts, Transport
from .work import Work

__all__ = ["NCCLTransport"]

LOOKED_AFTER = 64
"""Operations that may be under way before each new one makes the transport look whether the oldest is complete."""
GATHERED_BYTES = 1 << 26
"""Memory for reductions that NCCL does not have: so much is gathered at a time."""

Launch = Callable[[], None]


class NCCLTransport(Transport):
    """The ranks of another transport, each with the GPU that is current in it.

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

    name = "nccl"
    averages = True
    accumulates_half = True  # as far as NCCL does: half the bytes are what half types are for

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
                with self._errors("init"):
                    comm = nccl.NcclCommunicator(self.size, identity, self.rank)
                    # Messages have a communicator of their own: they do not wait for collectives, nor those for them.
                    made = comm, comm.commSplit(0, self.rank)
            self._comm, self._messages = made
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self._message_stream = cupy.cuda.Stream(non_blocking=True)
        self._to_myself: dict[str, list[_Slot]] = {"sent": [], "awaited": []}
        self._grouped: list[_Call] | None = None
        self.under_way: tuple[deque[StreamWork], deque[StreamWork]] = deque(), deque()
        """What has been called and is not known to be complete, oldest first: collectives, and messages."""
        self._finalizer = weakref.finalize(self, _end, made, self.under_way)
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

    # Reductions ------------------------------------------------------------------------------------------------------

    def all_reduce(self, array: Array, op: Reduction) -> Work:
        plan = self._plan("all_reduce", op, array)
        if plan.gathered:
            return self._run("all_reduce", lambda: self._gathered(array, array, op), array, alone=True)

        buffer = array

        def before() -> None:
            nonlocal buffer
            buffer = plan.before(self._cupy, array)

        def launch() -> None:
            self._comm.allReduce(buffer.data.ptr, buffer.data.ptr, buffer.size, plan.dtype, plan.op, self._stream.ptr)

        return self._run("all_reduce", launch, array, before=before, after=lambda: plan.after(array, buffer))

    def reduce(self, array: Array, root: int, op: Reduction) -> Work:
        plan = self._plan("reduce", op, array)
        mine = self.rank == root
        if plan.gathered:
            out = array if mine else None
            return self._run("reduce", lambda: self._gathered(out, array, op), array, alone=True)
        buffer = array

        def before() -> None:
            nonlocal buffer
            buffer = plan.before(self._cupy, array)

        def launch() -> None:
            self._comm.reduce(buffer.data.ptr, buffer.data.ptr, buffer.size, plan.dtype, plan.op, root, self._stream.ptr)

        return self._run(
            "reduce", launch, array, before=before, after=(lambda: plan.after(array, buffer)) if mine else None
        )

    def reduce_scatter(self, array: Array, source: Array, op: Reduction, counts: Counts = None) -> Work:
        plan = self._plan("reduce_scatter", op, source, array)
        parts = _parts(source, counts, self.size)
        if plan.gathered:

            def gather_each() -> None:
                for rank, part in enumerate(parts):
                    self._gathered(array.reshape(-1) if rank == self.rank else None, part, op)

            return self._run("reduce_scatter", gather_each, array, source, alone=True)
        buffer, out = source, array

        def before() -> None:
            nonlocal buffer, out
            buffer = plan.before(self._cupy, source)
            if buffer.dtype != array.dtype or plan.per_element != 1:
                out = self._cupy.empty(array.size * plan.per_element, buffer.dtype)

        def launch() -> None:
            if counts is None:
                count = buffer.size // self.size
                self._comm.reduceScatter(buffer.data.ptr, out.data.ptr, count, plan.dtype, plan.op, self._stream.ptr)
                return
            with self._group():
                begin = 0
                for root, elements in enumerate(counts):
                    count = elements * plan.per_element
                    if count:
                        part = buffer.data.ptr + begin * buffer.itemsize
                        into = out.data.ptr if root == self.rank else part
                        self._comm.reduce(part, into, count, plan.dtype, plan.op, root, self._stream.ptr)
                    begin += count

        return self._run("reduce_scatter", launch, array, source, before=before, after=lambda: plan.after(array, out))

    def _gathered(self, out: Array | None, array: Array, op: Reduction) -> None:
        """Reduce by gathering, some elements at a time: for what NCCL has no operation."""
        flat = array.reshape(-1)
        result = None if out is None else out.reshape(-1)
        function = getattr(self._cupy, op.function.__name__)
        step = max(1, GATHERED_BYTES // (self.size * flat.itemsize))
        for begin in range(0, flat.size, step):
            part = flat[begin : begin + step]
            rows = self._cupy.empty((self.size, part.size), part.dtype)
            self._comm.allGather(part.data.ptr, rows.data.ptr, part.nbytes, self._nccl.NCCL_UINT8, self._stream.ptr)
            if result is not None:
                total = rows[0]
                for row in rows[1:]:
                    total = function(total, row)
                result[begin : begin + step] = total

    def _plan(self, operation: str, op: Reduction, *arrays: Array) -> Plan:
        self._check(operation, *arrays)
        return plan_for(self._nccl, operation, op, arrays[0].dtype, self.size)

    # Movements -------------------------------------------------------------------------------------------------------

    def broadcast(self, array: Array, root: int) -> Work:
        self._check("broadcast", array)
        uint8, pointer = self._nccl.NCCL_UINT8, array.data.ptr
        return self._run(
            "broadcast",
            lambda: self._comm.broadcast(pointer, pointer, array.nbytes, uint8, root, self._stream.ptr),
            array,
        )

    def all_gather(self, out: Array, array: Array, counts: Counts = None) -> Work:
        self._check("all_gather", out, array)
        uint8 = self._nccl.NCCL_UINT8

        def launch() -> None:
            if counts is None:
                self._comm.allGather(array.data.ptr, out.data.ptr, array.nbytes, uint8, self._stream.ptr)
                return
            with self._group():
                for root, part in enumerate(_parts(out, counts, self.size)):
                    if part.nbytes:
                        source = array.data.ptr if root == self.rank else part.data.ptr
                        self._comm.broadcast(source, part.data.ptr, part.nbytes, uint8, root, self._stream.ptr)

        return self._run("all_gather", launch, out, array)

    def gather(self, out: Array | None, array: Array, root: int, counts: Counts = None) -> Work:
        self._check("gather", array, *(() if out is None else (out,)))
        incoming = None if out is None else _parts(out, counts, self.size)
        outgoing = [array if rank == root else None for rank in range(self.size)]
        return self._run("gather", lambda: self._exchange(incoming, outgoing), out, array)

    def scatter(self, array: Array, source: Array | None, root: int, counts: Counts = None) -> Work:
        self._check("scatter", array, *(() if source is None else (source,)))
        incoming = [array if rank == root else None for rank in range(self.size)]
        outgoing = None if source is None else _parts(source, counts, self.size)
        return self._run("scatter", lambda: self._exchange(incoming, outgoing), array, source)

    def all_to_all(self, out: Array, array: Array, out_counts: Counts = None, counts: Counts = None) -> Work:
        self._check("all_to_all", out, array)
        incoming, outgoing = _parts(out, out_counts, self.size), _parts(array, counts, self.size)
        return self._run("all_to_all", lambda: self._exchange(incoming, outgoing), out, array)

    def _exchange(self, incoming: Sequence[Any] | None, outgoing: Sequence[Any] | None) -> None:
        """Parts from and to each rank in one group, so that no order can make ranks wait for each other."""
        uint8, stream = self._nccl.NCCL_UINT8, self._stream.ptr
        with self._group():
            for rank in range(self.size):
                sent = None if outgoing is None else outgoing[rank]
                received = None if incoming is None else incoming[rank]
                if sent is not None and sent.nbytes:
                    self._comm.send(sent.data.ptr, sent.nbytes, uint8, rank, stream)
                if received is not None and received.nbytes:
                    self._comm.recv(received.data.ptr, received.nbytes, uint8, rank, stream)

    def barrier(self) -> Work:
        one = self._cupy.ones(1, np.uint8)
        pointer = one.data.ptr
        kind, op = self._nccl.NCCL_UINT8, self._nccl.NCCL_MAX
        return self._run("barrier", lambda: self._comm.allReduce(pointer, pointer, 1, kind, op, self._stream.ptr), one)

    # Messages --------------------------------------------------------------------------------------------------------

    def send(self, array: Array, destination: int, tag: int) -> Work:
        """Send to a rank. NCCL matches messages by their order alone: there are no tags, and the receiver has to call.

        Ranks that send to each other must do so between `begin_group` and `end_group` (``coalesce``), or in turn.
        """
        self._check_message("send", array, tag)
        if destination == self.rank:
            return self._mail_to_myself("sent", "send", array)
        if not array.nbytes:
            return Work("send")
        return self._run(
            "send",
            lambda: self._messages.send(array.data.ptr, array.nbytes, self._nccl.NCCL_UINT8, destination, self._message_stream.ptr),
            array, messages=True,
        )  # fmt: skip

    def recv(self, array: Array, source: int | None, tag: int) -> Work:
        """Receive from a rank, which must be named."""
        self._check_message("recv", array, tag)
        if source is None:
            raise ValueError("recv: NCCL cannot receive from any rank: name the source, or send NumPy arrays")
        if source == self.rank:
            work = self._mail_to_myself("awaited", "recv", array)
        elif not array.nbytes:
            work = Work("recv")
        else:
            work = self._run(
                "recv",
                lambda: self._messages.recv(array.data.ptr, array.nbytes, self._nccl.NCCL_UINT8, source, self._message_stream.ptr),
                array, messages=True,
            )  # fmt: skip
        work.source = source
        return work

    def _mail_to_myself(self, mine: str, operation: str, array: Array) -> Work:
        """A message to oneself is a copy, made when both ends have been called."""
        other = "awaited" if mine == "sent" else "sent"
        if mine == "sent":
            array = array.copy()
        stream = self._cupy.cuda.get_current_stream()
        if not self._to_myself[other]:
            slot = _Slot(array, stream.record())
            self._to_myself[mine].append(slot)
            return Work(operation) if mine == "sent" else Work(operation, slot.came, keep=(array,))
        slot = self._to_myself[other].pop(0)
        source, target = (array, slot.array) if mine == "sent" else (slot.array, array)
        if source.nbytes != target.nbytes:
            raise CommunicationError(f"recv: rank {self.rank} expects {target.nbytes} bytes, got {source.nbytes} from itself")
        stream.wait_event(slot.left)
        target.reshape(-1).view(np.uint8)[...] = source.reshape(-1).view(np.uint8)
        slot.copied = stream.record()
        return Work(operation)

    def _check_message(self, operation: str, array: Array, tag: int) -> None:
        self._check(operation, array)
        if tag:
            raise ValueError(
                f"{operation}: tag is {tag}, but NCCL has no tags: messages between two ranks arrive in the order in which they "
                "are sent; use tag 0"
            )

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
                with each.work.stream:
                    each.before()
        with self._errors(calls[0].work.operation), contextlib.ExitStack() as stack:
            if len(calls) > 1:
                stack.enter_context(self._group())
            for each in calls:
                # What is computed between NCCL's calls belongs to the same stream.
                with each.work.stream:
                    each.launch()
        for each in calls:
            with each.work.stream:
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
    def _errors(self, operation: str) -> Generator[None, None, None]:
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
        with self._cupy.cuda.Device(self.device), self._errors("split"):
            # NCCL wants nothing under way when it splits.
            self._stream.synchronize()
            self._message_stream.synchronize()
            made = tuple(comm.commSplit(-1 if color is None else color, key) for comm in (self._comm, self._messages))
        return None if color is None else (made[0], made[1])

    def split(self, color: int | None, key: int) -> NCCLTransport | None:
        part = self._base.split(color, key)
        made = self.divide(color, key)
        return None if part is None else NCCLTransport(part, self.device, made)

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
        if self._finalizer.detach() is not None:
            for comm in (self._messages, self._comm):
                comm.abort()

    def close(self) -> None:
        if self._finalizer.alive:
            self._stream.synchronize()
            self._message_stream.synchronize()
            for under_way in self.under_way:
                under_way.clear()
            self._finalizer()


class _Slot:
    """One end of a message to oneself, and when it was left there and copied."""

    def __init__(self, array: Array, left: Any) -> None:
        self.array, self.left = array, left
        self.copied: Any = None

    def came(self) -> bool:
        """Whether the copy is complete."""
        return self.copied is not None and bool(self.copied.done)


class _Call:
    """An operation that was called, and what is to be done for it."""

    __slots__ = ("after", "alone", "before", "launch", "work")

    def __init__(self, work: StreamWork, before: Launch | None, launch: Launch, after: Launch | None, alone: bool) -> None:
        self.work, self.before, self.launch, self.after, self.alone = work, before, launch, after, alone


def _end(comms: Sequence[Any], under_way: Sequence[deque[StreamWork]]) -> None:
    """Give NCCL's communicators back; where something never ended they are aborted, for destroying would wait for it."""
    ended = all(work.test() and work.exception() is None for works in under_way for work in works)
    for comm in reversed(comms):
        if ended:
            comm.destroy()
        else:
            comm.abort()


def _parts(array: Array, counts: Counts, size: int) -> list[Any]:
    """Each rank's part of an array, flat."""
    flat = array.reshape(-1)
    counts = [flat.size // size] * size if counts is None else counts
    parts, begin = [], 0
    for count in counts:
        parts.append(flat[begin : begin + count])
        begin += count
    return parts
