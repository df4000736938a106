"""MPITransport: arrays between the processes of an MPI job, through mpi4py's buffer interface.

All operations are the non-blocking ones of MPI, so that a Work is really under way while the program computes, a wait can see
how long it takes, and an asynchronous call on one rank matches a synchronous one on another. Data that is only moved is
moved as bytes, so every dtype can be. Importing this module does not load MPI; `collectives.mpi_world` does when it is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import numpy as np

from . import mpi_world
from .errors import CommunicationError
from .reductions import Reduction
from .shared_blocks import complete
from .staging import Array, truth
from .transport import Counts, Transport
from .work import Work

__all__ = ["MPITransport"]

# MPI's names for NumPy's kinds and sizes (MPI-4.1, section 3.2.2). Truth values travel as bytes of 0 and 1, because
# MPI defines no minimum, maximum or bits for its own.
_MPI_TYPES = {
    ("b", 1): "UINT8_T",
    ("i", 1): "INT8_T", ("i", 2): "INT16_T", ("i", 4): "INT32_T", ("i", 8): "INT64_T",
    ("u", 1): "UINT8_T", ("u", 2): "UINT16_T", ("u", 4): "UINT32_T", ("u", 8): "UINT64_T",
    ("f", 4): "FLOAT", ("f", 8): "DOUBLE", ("f", 16): "LONG_DOUBLE",
    ("c", 8): "C_FLOAT_COMPLEX", ("c", 16): "C_DOUBLE_COMPLEX", ("c", 32): "C_LONG_DOUBLE_COMPLEX",
}  # fmt: skip


class MPITransport(Transport):
    """The ranks of an mpi4py communicator.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        Duplicated, so that the program's own messages cannot be mistaken for ours; therefore every rank of it must call.

    timeout : float, optional
        Seconds to wait for them.

    Raises
    ------
    CommunicationError
        If MPI reports an error: here, and in every operation. `CollectiveTimeoutError`, if they do not all call.
    """

    name = "mpi"
    largest_count = 2**31 - 1
    """The largest number of elements in one call of an MPI library older than MPI-4."""

    def __init__(self, comm: Any, timeout: float | None = None) -> None:
        self._mpi = mpi_world.load()
        self._adopt(comm)
        try:
            own, request = comm.Idup()  # MPI_Comm_dup would wait for ever for a rank that never comes
            complete(self, Work("connect", request.Test), timeout)
            own.Set_errhandler(self._mpi.ERRORS_RETURN)
        except self._mpi.Exception as error:
            raise CommunicationError(f"MPI_Comm_dup: {error}") from error
        self._adopt(own)

    def _adopt(self, comm: Any) -> None:
        self.comm = comm
        super().__init__(rank=comm.Get_rank(), size=comm.Get_size())
        self._counts_are_large = self._mpi.Get_version() >= (4, 0)
        # Open MPI attaches its limits to the world only (as MPI-4.1, section 9.1.2, has it).
        self._largest_tag = self._mpi.COMM_WORLD.Get_attr(self._mpi.TAG_UB)
        self._types: dict[int, Any] = {}

    # Operations ------------------------------------------------------------------------------------------------------

    def all_reduce(self, array: Array, op: Reduction) -> Work:
        kind, mpi_op, flat = self._type(array), self._op(op), _numbers(array)

        def start() -> list[Any]:
            return [
                self.comm.Iallreduce(self._mpi.IN_PLACE, [part, part.size, kind], mpi_op) for part in self._parts(flat)
            ]

        return self._reduced(self._work("all_reduce", start, array), array, op)

    def reduce(self, array: Array, root: int, op: Reduction) -> Work:
        kind, mpi_op, flat = self._type(array), self._op(op), _numbers(array)

        def start() -> list[Any]:
            return [
                self.comm.Ireduce(self._mpi.IN_PLACE, [part, part.size, kind], mpi_op, root)
                if self.rank == root
                else self.comm.Ireduce([part, part.size, kind], None, mpi_op, root)
                for part in self._parts(flat)
            ]

        return self._reduced(self._work("reduce", start, array), array, op)

    def reduce_scatter(self, array: Array, source: Array, op: Reduction, counts: Counts = None) -> Work:
        kind, mpi_op = self._type(array), self._op(op)
        out, flat = _numbers(array), _numbers(source)

        def start() -> list[Any]:
            if self._counts_are_large or source.size <= self.largest_count:
                if counts is None:
                    return [self.comm.Ireduce_scatter_block([flat, out.size, kind], [out, out.size, kind], mpi_op)]
                receive = [out, out.size, kind]
                return [self.comm.Ireduce_scatter([flat, flat.size, kind], receive, list(counts), mpi_op)]
            # More than an older MPI counts: rank by rank, in parts.
            requests: list[Any] = []
            begin = 0
            for root, count in enumerate(counts or [out.size] * self.size):
                mine = self._parts(out) if root == self.rank else None
                for i, part in enumerate(self._parts(flat[begin : begin + count])):
                    into = None if mine is None else [mine[i], mine[i].size, kind]
                    requests.append(self.comm.Ireduce([part, part.size, kind], into, mpi_op, root))
                begin += count
            return requests

        return self._reduced(self._work("reduce_scatter", start, array, source), array, op)

    def _reduced(self, work: Work, array: Array, op: Reduction) -> Work:
        return work.then(lambda: truth(array, op)) if self.size == 1 else work

    def broadcast(self, array: Array, root: int) -> Work:
        return self._work("broadcast", lambda: [self.comm.Ibcast(self._bytes(array), root)], array)

    def all_gather(self, out: Array, array: Array, counts: Counts = None) -> Work:
        def start() -> list[Any]:
            if counts is None:
                return [self.comm.Iallgather(self._bytes(array), self._bytes(out, self.size))]
            return [self.comm.Iallgatherv(self._uneven_one(array), self._uneven(out, counts))]

        return self._work("all_gather", start, out, array)

    def gather(self, out: Array | None, array: Array, root: int, counts: Counts = None) -> Work:
        def start() -> list[Any]:
            if counts is None:
                return [self.comm.Igather(self._bytes(array), None if out is None else self._bytes(out, self.size), root)]
            receive = None if out is None else self._uneven(out, counts)
            return [self.comm.Igatherv(self._uneven_one(array), receive, root)]

        return self._work("gather", start, out, array)

    def scatter(self, array: Array, source: Array | None, root: int, counts: Counts = None) -> Work:
        def start() -> list[Any]:
            if counts is None:
                given = None if source is None else self._bytes(source, self.size)
                return [self.comm.Iscatter(given, self._bytes(array), root)]
            given = None if source is None else self._uneven(source, counts)
            return [self.comm.Iscatterv(given, self._uneven_one(array), root)]

        return self._work("scatter", start, source, array)

    def all_to_all(self, out: Array, array: Array, out_counts: Counts = None, counts: Counts = None) -> Work:
        def start() -> list[Any]:
            if counts is None or out_counts is None:
                return [self.comm.Ialltoall(self._bytes(array, self.size), self._bytes(out, self.size))]
            return [self.comm.Ialltoallv(self._uneven(array, counts), self._uneven(out, out_counts))]

        return self._work("all_to_all", start, out, array)

    def send(self, array: Array, destination: int, tag: int) -> Work:
        self._check_tag("send", tag)
        return self._work("send", lambda: [self.comm.Isend(self._bytes(array), destination, tag)], array)

    def recv(self, array: Array, source: int | None, tag: int) -> Work:
        self._check_tag("recv", tag)
        status = self._mpi.Status()
        try:
            request = self.comm.Irecv(self._bytes(array), self._mpi.ANY_SOURCE if source is None else source, tag)
        except self._mpi.Exception as error:
            raise self._error("recv", error) from error

        def check() -> None:
            if status.Is_cancelled():
                raise CommunicationError(f"recv: rank {self.rank} of {self.size}: cancelled, no message had come")
            work.source = status.Get_source()
            # MPI itself reports a message that is too long, but takes one that is too short.
            if (received := status.Get_elements(self._mpi.BYTE)) != array.nbytes:
                raise CommunicationError(
                    f"recv: rank {self.rank} of {self.size} expects {array.nbytes} bytes with tag {tag}, "
                    f"got {received} from rank {work.source}"
                )

        work = self._pending("recv", lambda: request.Test(status), (array,), cancel=request.Cancel)
        return work.then(check)

    def barrier(self) -> Work:
        return self._work("barrier", lambda: [self.comm.Ibarrier()])

    # The group -------------------------------------------------------------------------------------------------------

    def split(self, color: int | None, key: int) -> Transport | None:
        try:
            part = self.comm.Split(self._mpi.UNDEFINED if color is None else color, key)
            if part == self._mpi.COMM_NULL:
                return None
            part.Set_errhandler(self._mpi.ERRORS_RETURN)
        except self._mpi.Exception as error:
            raise self._error("split", error) from error
        group = MPITransport.__new__(MPITransport)
        group._mpi = self._mpi
        group._adopt(part)
        return group

    def abort(self, code: int) -> None:
        mpi_world.abort(self.comm, code)

    def close(self) -> None:
        if self._mpi.Is_finalized():
            return
        try:
            for kind in self._types.values():
                kind.Free()
            self.comm.Free()
        except self._mpi.Exception as error:
            raise self._error("close", error) from error

    # Buffers ---------------------------------------------------------------------------------------------------------

    def _type(self, array: Array) -> Any:
        kind = getattr(self._mpi, _MPI_TYPES.get((array.dtype.kind, array.dtype.itemsize), ""), None)
        if kind is None or kind == self._mpi.DATATYPE_NULL:
            raise TypeError(f"this MPI library has no type for reductions of {array.dtype}")
        return kind

    def _op(self, op: Reduction) -> Any:
        return getattr(self._mpi, op.mpi_name)

    def _parts(self, flat: Array) -> list[Array]:
        """The array, or parts of it that one call of an older MPI can count."""
        if self._counts_are_large or flat.size <= self.largest_count:
            return [flat]
        return [flat[start : start + self.largest_count] for start in range(0, flat.size, self.largest_count)]

    def _bytes(self, array: Array, rows: int = 1) -> list[Any]:
        """What mpi4py takes as a buffer of bytes.

        Where an operation has a row for each rank, `rows` is their number: mpi4py, like MPI, counts within a row.
        """
        flat = array.reshape(-1).view(np.uint8)
        if self._counts_are_large or flat.size // rows <= self.largest_count:
            return [flat, flat.size // rows, self._mpi.BYTE]
        return [flat, 1, self._type_of_bytes(flat.size // rows)]

    def _uneven(self, array: Array, counts: Any) -> list[Any]:
        """A buffer with a part of another length for each rank, counted in elements."""
        flat = array.reshape(-1).view(np.uint8)
        starts = list(accumulate(counts, initial=0))[:-1]
        # Counts are of elements, so that an older MPI can count 2**31 of them and not of bytes.
        return [flat, (list(counts), starts), self._type_of_bytes(array.dtype.itemsize)]

    def _uneven_one(self, array: Array) -> list[Any]:
        """The other side of `_uneven`: both sides of an operation must count alike (MPI-4.1, section 6.5)."""
        return [array.reshape(-1).view(np.uint8), array.size, self._type_of_bytes(array.dtype.itemsize)]

    def _type_of_bytes(self, length: int) -> Any:
        """A type of `length` bytes; for libraries that count no further than `largest_count`, of blocks and a rest."""
        if length in self._types:
            return self._types[length]
        BYTE = self._mpi.BYTE
        blocks, rest = divmod(length, self.largest_count)
        if not blocks:
            kind = BYTE.Create_contiguous(length).Commit()
        else:
            block = BYTE.Create_contiguous(self.largest_count)
            body = block.Create_contiguous(blocks)
            kind = body.Create_struct([1, rest], [0, blocks * self.largest_count], [body, BYTE]).Commit()
            block.Free()
            body.Free()
        self._types[length] = kind
        return kind

    # Requests and errors ---------------------------------------------------------------------------------------------

    def _work(self, operation: str, start: Callable[[], list[Any]], *keep: Array | None) -> Work:
        try:
            requests = start()
        except self._mpi.Exception as error:
            raise self._error(operation, error) from error
        if len(requests) == 1:
            return self._pending(operation, requests[0].Test, keep)
        Request = self._mpi.Request
        return self._pending(operation, lambda: Request.Testall(requests), (*keep, *requests))

    def _pending(
        self,
        operation: str,
        test: Callable[[], bool],
        keep: tuple[Any, ...],
        cancel: Callable[[], Any] | None = None,
    ) -> Work:
        def poll() -> bool:
            try:
                return test()
            except self._mpi.Exception as error:
                raise self._error(operation, error) from error

        return Work(operation, poll, cancel=cancel, keep=keep)

    def _check_tag(self, operation: str, tag: int) -> None:
        if tag > self._largest_tag:
            raise ValueError(f"{operation}: tag is {tag}, but this MPI library allows 0 to {self._largest_tag}")

    def _error(self, operation: str, error: Exception) -> CommunicationError:
        return CommunicationError(f"{operation}: rank {self.rank} of {self.size}: {error}")


def _numbers(array: Array) -> Array:
    """The array in one dimension, of a dtype that exports its buffer and that MPI calculates with."""
    flat = array.reshape(-1)
    return flat.view(np.uint8) if flat.dtype.kind == "b" else flat
