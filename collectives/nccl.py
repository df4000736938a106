"""NCCLTransport: arrays of GPUs, by NVIDIA's NCCL through CuPy, each rank with a GPU of its own.

Here is which of NCCL's calls each operation consists of; how they come to the GPU's streams stands in `nccl_streams`.

Importing this module does not import CuPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import CommunicationError
from .nccl_reductions import Plan, plan_for
from .nccl_streams import NCCLStreams
from .reductions import Reduction
from .staging import Array
from .transport import Counts, Transport
from .work import Work

__all__ = ["NCCLTransport"]

GATHERED_BYTES = 1 << 26
"""Memory for reductions that NCCL does not have: so much is gathered at a time."""


class NCCLTransport(NCCLStreams):
    """The ranks of another transport, each with a GPU.

    Parameters
    ----------
    base, device, made, timeout
        As for `NCCLStreams`.
    """

    name = "nccl"
    averages = True
    accumulates_half = True  # as far as NCCL does: half the bytes are what half types are for

    def __init__(
        self, base: Transport, device: int | None = None, made: tuple[Any, Any] | None = None, timeout: float | None = None
    ) -> None:
        super().__init__(base, device, made, timeout)
        self._to_myself: dict[str, list[_Slot]] = {"sent": [], "awaited": []}

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
        with self._cupy.cuda.Device(self.device):
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
        with self._cupy.cuda.Device(self.device):
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


class _Slot:
    """One end of a message to oneself, and when it was left there and copied."""

    def __init__(self, array: Array, left: Any) -> None:
        self.array, self.left = array, left
        self.copied: Any = None

    def came(self) -> bool:
        """Whether the copy is complete."""
        return self.copied is not None and bool(self.copied.done)


def _parts(array: Array, counts: Counts, size: int) -> list[Any]:
    """Each rank's part of an array, flat."""
    flat = array.reshape(-1)
    counts = [flat.size // size] * size if counts is None else counts
    parts, begin = [], 0
    for count in counts:
        parts.append(flat[begin : begin + count])
        begin += count
    return parts
