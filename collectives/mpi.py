"""MPICommunicator: arrays between the processes of an MPI job, through mpi4py's buffer interface.

All operations are the non-blocking ones of MPI, so that a Work is really under way while the program computes, and an
asynchronous call on one rank matches a synchronous one on another. Data that is only moved is moved as bytes, so every
dtype can be. Importing this module does not load MPI; `collectives.mpi_world` does when it is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from . import mpi_world
from .communicator import Array, Communicator
from .errors import CommunicationError
from .reductions import REDUCTIONS
from .work import Work, drain

__all__ = ["MPICommunicator"]

# MPI's names for NumPy's kinds and sizes (MPI-4.1, section 3.2.2). Truth values travel as bytes of 0 and 1, because
# MPI defines no minimum, maximum or bits for its own.
_MPI_TYPES = {
    ("b", 1): "UINT8_T",
    ("i", 1): "INT8_T", ("i", 2): "INT16_T", ("i", 4): "INT32_T", ("i", 8): "INT64_T",
    ("u", 1): "UINT8_T", ("u", 2): "UINT16_T", ("u", 4): "UINT32_T", ("u", 8): "UINT64_T",
    ("f", 4): "FLOAT", ("f", 8): "DOUBLE", ("f", 16): "LONG_DOUBLE",
    ("c", 8): "C_FLOAT_COMPLEX", ("c", 16): "C_DOUBLE_COMPLEX", ("c", 32): "C_LONG_DOUBLE_COMPLEX",
}  # fmt: skip


class MPICommunicator(Communicator):
    """The ranks of an mpi4py communicator.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        Duplicated, so that the program's own messages cannot be mistaken for ours; therefore every rank of it must
        call. `MPICommunicator.world` is the usual way to all ranks of the job.

    Raises
    ------
    CommunicationError
        If MPI reports an error: here, and in every operation.

    Examples
    --------
    >>> world = MPICommunicator.world()
    >>> values = np.ones(3)
    >>> world.all_reduce(values, "sum")
    <Work all_reduce: complete>
    >>> bool((values == world.size).all())
    True
    """

    transport = "mpi"
    largest_count = 2**31 - 1
    """The largest number of elements in one call of an MPI library older than MPI-4."""
    _world: ClassVar[MPICommunicator | None] = None

    def __init__(self, comm: Any) -> None:
        self._mpi = mpi_world.load()
        try:
            own = comm.Dup()
            own.Set_errhandler(self._mpi.ERRORS_RETURN)
        except self._mpi.Exception as error:
            raise CommunicationError(f"MPI_Comm_dup: {error}") from error
        self._adopt(own)

    @classmethod
    def world(cls) -> MPICommunicator:
        """All ranks of the job; starts MPI if the program has not. Every call returns the same communicator.

        MPI is asked for MPI_THREAD_MULTIPLE (see `thread_level`). If it was started here, it is ended when the program
        ends; and a rank that ends by an uncaught exception, or by `sys.exit` with a non-zero code, ends the job, instead
        of waiting for the others in MPI_Finalize while they wait for it. (Of a plain ``raise SystemExit(code)`` Python
        tells nobody: such a rank waits in MPI_Finalize.)

        Raises
        ------
        ImportError
            If mpi4py finds no MPI library.
        CommunicationError
            If MPI has been finalised already.
        """
        if cls._world is None or cls._world._closed:
            cls._world = cls(mpi_world.start().COMM_WORLD)
        return cls._world

    @property
    def thread_level(self) -> str:
        """What MPI grants to threads: ``"single"``, ``"funneled"``, ``"serialized"`` or ``"multiple"``."""
        return mpi_world.thread_level()

    def _adopt(self, comm: Any) -> None:
        self._comm = comm
        super().__init__(rank=comm.Get_rank(), size=comm.Get_size())
        self._counts_are_large = self._mpi.Get_version() >= (4, 0)
        # Open MPI attaches its limits to the world only (as MPI-4.1, section 9.1.2, has it).
        self._largest_tag = self._mpi.COMM_WORLD.Get_attr(self._mpi.TAG_UB)
        self._row_types: dict[int, Any] = {}

    # Operations ------------------------------------------------------------------------------------------------------

    def _all_reduce(self, array: Array, op: str) -> Work:
        kind, mpi_op, flat = self._type(array), self._op(op), _numbers(array)

        def start() -> list[Any]:
            return [
                self._comm.Iallreduce(self._mpi.IN_PLACE, [part, part.size, kind], mpi_op)
                for part in self._parts(flat)
            ]

        return self._work("all_reduce", start, array)

    def _reduce(self, array: Array, root: int, op: str) -> Work:
        kind, mpi_op, flat = self._type(array), self._op(op), _numbers(array)

        def start() -> list[Any]:
            return [
                self._comm.Ireduce(self._mpi.IN_PLACE, [part, part.size, kind], mpi_op, root)
                if self.rank == root
                else self._comm.Ireduce([part, part.size, kind], None, mpi_op, root)
                for part in self._parts(flat)
            ]

        return self._work("reduce", start, array)

    def _reduce_scatter(self, array: Array, source: Array, op: str) -> Work:
        kind, mpi_op = self._type(array), self._op(op)
        out, rows = _numbers(array), _numbers(source).reshape(self.size, -1)

        def start() -> list[Any]:
            if self._counts_are_large or array.size <= self.largest_count:
                send, receive = [rows, out.size, kind], [out, out.size, kind]
                return [self._comm.Ireduce_scatter_block(send, receive, mpi_op)]
            # Parts of rows are not contiguous: reduce row by row to the rank that it is for.
            return [
                self._comm.Ireduce(
                    [part, part.size, kind], [mine, mine.size, kind] if root == self.rank else None, mpi_op, root
                )
                for root, row in enumerate(rows)
                for part, mine in zip(self._parts(row), self._parts(out))
            ]

        return self._work("reduce_scatter", start, array, source)

    def _broadcast(self, array: Array, root: int) -> Work:
        return self._work("broadcast", lambda: [self._comm.Ibcast(self._bytes(array), root)], array)

    def _all_gather(self, out: Array, array: Array) -> Work:
        return self._work(
            "all_gather",
            lambda: [self._comm.Iallgather(self._bytes(array), self._bytes(out, self.size))],
            out, array,
        )  # fmt: skip

    def _gather(self, out: Array | None, array: Array, root: int) -> Work:
        return self._work(
            "gather",
            lambda: [
                self._comm.Igather(self._bytes(array), None if out is None else self._bytes(out, self.size), root)
            ],
            out, array,
        )  # fmt: skip

    def _scatter(self, array: Array, source: Array | None, root: int) -> Work:
        return self._work(
            "scatter",
            lambda: [
                self._comm.Iscatter(
                    None if source is None else self._bytes(source, self.size), self._bytes(array), root
                )
            ],
            source, array,
        )  # fmt: skip

    def _all_to_all(self, out: Array, array: Array) -> Work:
        return self._work(
            "all_to_all",
            lambda: [self._comm.Ialltoall(self._bytes(array, self.size), self._bytes(out, self.size))],
            out, array,
        )  # fmt: skip

    def _send(self, array: Array, destination: int, tag: int) -> Work:
        self._check_tag("send", tag)
        return self._work("send", lambda: [self._comm.Isend(self._bytes(array), destination, tag)], array)

    def _recv(self, array: Array, source: int | None, tag: int) -> Work:
        self._check_tag("recv", tag)
        status = self._mpi.Status()
        try:
            request = self._comm.Irecv(
                self._bytes(array), self._mpi.ANY_SOURCE if source is None else source, tag
            )
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

        work = self._pending(
            "recv", lambda: request.Test(status), lambda: request.Wait(status), (array,), cancel=request.Cancel
        )
        return work.then(check)

    def _barrier(self) -> Work:
        return self._work("barrier", lambda: [self._comm.Ibarrier()])

    def _split(self, color: int | None, key: int) -> Communicator | None:
        try:
            part = self._comm.Split(self._mpi.UNDEFINED if color is None else color, key)
            if part == self._mpi.COMM_NULL:
                return None
            part.Set_errhandler(self._mpi.ERRORS_RETURN)
        except self._mpi.Exception as error:
            raise self._error("split", error) from error
        group = MPICommunicator.__new__(MPICommunicator)
        group._mpi = self._mpi
        group._adopt(part)
        return group

    def _abort(self, code: int) -> None:
        mpi_world.abort(self._comm, code)

    def _close(self) -> None:
        drain(self)
        try:
            for row_type in self._row_types.values():
                row_type.Free()
            self._comm.Free()
        except self._mpi.Exception as error:
            raise self._error("close", error) from error

    # Buffers ---------------------------------------------------------------------------------------------------------

    def _type(self, array: Array) -> Any:
        kind = getattr(self._mpi, _MPI_TYPES.get((array.dtype.kind, array.dtype.itemsize), ""), None)
        if kind is None or kind == self._mpi.DATATYPE_NULL:
            raise TypeError(f"this MPI library has no type for reductions of {array.dtype}")
        return kind

    def _op(self, op: str) -> Any:
        return getattr(self._mpi, REDUCTIONS[op].mpi_name)

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
        return [flat, 1, self._row_type(flat.size // rows)]

    def _row_type(self, length: int) -> Any:
        """A type of `length` bytes, for libraries that count no further than `largest_count`: blocks and a rest."""
        if length in self._row_types:
            return self._row_types[length]
        BYTE = self._mpi.BYTE
        blocks, rest = divmod(length, self.largest_count)
        block = BYTE.Create_contiguous(self.largest_count)
        body = block.Create_contiguous(blocks)
        row = body.Create_struct([1, rest], [0, blocks * self.largest_count], [body, BYTE]).Commit()
        block.Free()
        body.Free()
        self._row_types[length] = row
        return row

    # Requests and errors ---------------------------------------------------------------------------------------------

    def _work(self, operation: str, start: Callable[[], list[Any]], *keep: Array | None) -> Work:
        try:
            requests = start()
        except self._mpi.Exception as error:
            raise self._error(operation, error) from error
        if len(requests) == 1:
            return self._pending(operation, requests[0].Test, requests[0].Wait, keep)
        Request = self._mpi.Request
        return self._pending(
            operation, lambda: Request.Testall(requests), lambda: Request.Waitall(requests), (*keep, *requests)
        )

    def _pending(
        self,
        operation: str,
        test: Callable[[], bool],
        wait: Callable[[], Any],
        keep: tuple[Any, ...],
        cancel: Callable[[], Any] | None = None,
    ) -> Work:
        def poll() -> bool:
            try:
                return test()
            except self._mpi.Exception as error:
                raise self._error(operation, error) from error

        def block() -> bool:
            try:
                wait()
            except self._mpi.Exception as error:
                raise self._error(operation, error) from error
            return True

        return Work(operation, poll, block, cancel=cancel, keep=keep)

    def _check_tag(self, operation: str, tag: int) -> None:
        if tag > self._largest_tag:
            raise ValueError(f"{operation}: tag is {tag}, but this MPI library allows 0 to {self._largest_tag}")

    def _error(self, operation: str, error: Exception) -> CommunicationError:
        return CommunicationError(f"{operation}: rank {self.rank} of {self.size}: {error}")


def _numbers(array: Array) -> Array:
    """The array in one dimension, of a dtype that exports its buffer and that MPI calculates with."""
    flat = array.reshape(-1)
    return flat.view(np.uint8) if flat.dtype.kind == "b" else flat
