"""Arrays of GPUs over transports of NumPy arrays, and the choice between that and NCCL.

`StagedTransport` copies to pinned host memory, lets a CPU transport work there, and copies back; where MPI takes device memory it gives
it that. Copies are ordered on the stream that is current when an operation is called, and nothing waits for them but `Work.poll`.

Importing this module does not import CuPy.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .cuda_aware import cuda_aware
from .errors import CollectiveTimeoutError, CommunicationError
from .memory import machine_identity
from .reductions import Reduction
from .staging import Array
from .stream_work import happened, is_capturing
from .transport import Counts, Transport
from .work import Work

__all__ = ["StagedTransport", "transport_for_device"]

SHARES_GPUS = 23000
"""The first version of NCCL (2.30) in which ranks can share a GPU, with NCCL_MULTI_RANK_GPU_ENABLE=1."""


def transport_for_device(
    base: Transport, job: Any = None, forced: str = "auto", device: int | None = None, timeout: float | None = None
) -> Transport:
    """What carries the arrays of GPUs between the ranks of a CPU transport. Every rank calls, and waits for the others.

    Parameters
    ----------
    base : Transport
        Between the same ranks, for NumPy arrays.
    job : Job, optional
        Notes why NCCL was not chosen.
    forced : str, default "auto"
        ``"nccl"``: that or an error. ``"auto"``: NCCL where every rank has a GPU of its own. Any other: copies through host memory.
    device : int, optional
        The number of this rank's GPU; the current one's unless given.
    timeout : float, optional
        Seconds to wait for the other ranks.

    Raises
    ------
    CommunicationError
        If NCCL was asked for and cannot be used; the message says why, and what to do. If not all ranks come
        (`CollectiveTimeoutError`).
    """
    if forced not in ("auto", "nccl"):
        return _staged(base)
    reason = _why_not_nccl(base, device, timeout)
    if not reason:
        from .nccl import NCCLTransport

        return NCCLTransport(base, device, timeout=timeout)
    if forced == "nccl":
        raise CommunicationError(f"NCCL was asked for, but {reason}")
    note = f"arrays of GPUs go through host memory: {reason}"
    if job is not None and note not in job.notes:  # the first group has said it
        job.notes.append(note)
    return _staged(base)


def _staged(base: Transport) -> StagedTransport:
    # A group of its own: its operations begin when copies are done, in an order of their own.
    own = base.split(0, base.rank)
    assert own is not None
    return StagedTransport(own)


def _why_not_nccl(base: Transport, device: int | None, timeout: float | None) -> str:
    """Why these ranks cannot use NCCL, the same text on all of them; empty if they can."""
    from .job import exchange

    try:
        told: list[tuple[str, str, str, int, bool, str]] = exchange(base, _this_gpu(device), timeout)
    except CollectiveTimeoutError as error:
        raise CollectiveTimeoutError(
            f"rank {base.rank} of {base.size} has waited {timeout:g} s for the others at the first operation of this group on an array of "
            "a GPU, which all its ranks must come to; where it is a message between some of them, let all call a collective, such as a "
            "reduction of a small array, before"
        ) from error
    for rank, (host, *_, problem) in enumerate(told):
        if problem:
            return f"rank {rank} ({host}) has none: {problem}"
    users: dict[tuple[str, str], int] = {}
    for rank, (host, machine, gpu, version, allowed, _) in enumerate(told):
        if (machine, gpu) not in users:
            users[machine, gpu] = rank
        elif version < SHARES_GPUS or not allowed:
            return (
                f"ranks {users[machine, gpu]} and {rank} ({host}) use the same GPU ({host} {gpu}): give each its own, that with the number "
                "LOCAL_RANK, by cuda.set_device or cupy.cuda.Device(LOCAL_RANK).use() before the first array, or start one rank for each "
                f"GPU; NCCL from 2.30 on lets ranks share one with NCCL_MULTI_RANK_GPU_ENABLE=1 (this is NCCL {_version_text(version)})"
            )
    versions = {version for _, _, _, version, _, _ in told}
    if len(versions) > 1:
        return f"the ranks have different versions of NCCL: {', '.join(map(_version_text, sorted(versions)))}"
    return ""


def _this_gpu(device: int | None) -> tuple[str, str, str, int, bool, str]:
    """This host, its machine, this rank's GPU, NCCL's version, whether ranks may share a GPU, and what is in the way."""
    host, machine = socket.gethostname(), machine_identity()
    import cupy
    from cupy.cuda import nccl

    if not nccl.available:
        return host, machine, "", 0, False, "CuPy finds no NCCL; install nvidia-nccl-cu12 or nvidia-nccl-cu13"
    if os.environ.get("NCCL_COMM_BLOCKING") == "0":  # then NCCL answers with "in progress", for which CuPy has no name
        return host, machine, "", 0, False, "NCCL_COMM_BLOCKING=0 is set, and CuPy's calls of NCCL are blocking; unset it"
    allowed = os.environ.get("NCCL_MULTI_RANK_GPU_ENABLE") == "1"
    try:
        device = cupy.cuda.runtime.getDevice() if device is None else device
        gpu = cupy.cuda.runtime.deviceGetPCIBusId(device)
        return host, machine, gpu, int(nccl.get_version()), allowed, ""
    except (cupy.cuda.runtime.CUDARuntimeError, nccl.NcclError) as error:
        return host, machine, "", 0, allowed, str(error)


def _version_text(version: int) -> str:
    # Since 2.9 two digits each for minor and patch version, before that one and two.
    major, rest = divmod(version, 10000 if version >= 20000 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


class StagedTransport(Transport):
    """Arrays of GPUs over a transport of NumPy arrays.

    Parameters
    ----------
    base : Transport
        Nobody else may use it: its operations begin in the order in which they are called here.
    direct : bool, optional
        Whether `base` takes device memory as it is; found out if not given (`cuda_aware`).
    """

    name = "staged"

    def __init__(self, base: Transport, direct: bool | None = None) -> None:
        super().__init__(base.rank, base.size)
        import cupy

        self._cupy, self._base = cupy, base
        self.array_types = (cupy.ndarray,)
        self.direct: bool = base.name == "mpi" and cuda_aware() if direct is None else direct
        """Whether device memory is given to MPI as it is."""
        self.accumulates_half, self.averages = base.accumulates_half, base.averages
        self._waiting: deque[_Operation] = deque()
        self._beginning = threading.Lock()
        self._memory: dict[int, list[np.ndarray]] = {}

    def all_reduce(self, array: Array, op: Reduction) -> Work:
        return self._run("all_reduce", lambda both: self._base.all_reduce(both, op), (array, True, True))

    def reduce(self, array: Array, root: int, op: Reduction) -> Work:
        mine = self.rank == root
        return self._run("reduce", lambda both: self._base.reduce(both, root, op), (array, True, mine))

    def reduce_scatter(self, array: Array, source: Array, op: Reduction, counts: Counts = None) -> Work:
        return self._run(
            "reduce_scatter", lambda out, given: self._base.reduce_scatter(out, given, op, counts),
            (array, False, True), (source, True, False),
        )  # fmt: skip

    def broadcast(self, array: Array, root: int) -> Work:
        mine = self.rank == root
        return self._run("broadcast", lambda both: self._base.broadcast(both, root), (array, mine, not mine))

    def all_gather(self, out: Array, array: Array, counts: Counts = None) -> Work:
        return self._run(
            "all_gather", lambda all_, mine: self._base.all_gather(all_, mine, counts), (out, False, True), (array, True, False)
        )

    def gather(self, out: Array | None, array: Array, root: int, counts: Counts = None) -> Work:
        return self._run(
            "gather", lambda all_, mine: self._base.gather(all_, mine, root, counts), (out, False, True), (array, True, False)
        )

    def scatter(self, array: Array, source: Array | None, root: int, counts: Counts = None) -> Work:
        return self._run(
            "scatter", lambda mine, all_: self._base.scatter(mine, all_, root, counts), (array, False, True), (source, True, False)
        )

    def all_to_all(self, out: Array, array: Array, out_counts: Counts = None, counts: Counts = None) -> Work:
        return self._run(
            "all_to_all", lambda incoming, outgoing: self._base.all_to_all(incoming, outgoing, out_counts, counts),
            (out, False, True), (array, True, False),
        )  # fmt: skip

    def send(self, array: Array, destination: int, tag: int) -> Work:
        return self._run("send", lambda given: self._base.send(given, destination, tag), (array, True, False))

    def recv(self, array: Array, source: int | None, tag: int) -> Work:
        return self._run("recv", lambda out: self._base.recv(out, source, tag), (array, False, True))

    def barrier(self) -> Work:
        return self._run("barrier", self._base.barrier)

    def split(self, color: int | None, key: int) -> StagedTransport | None:
        part = self._base.split(color, key)
        return None if part is None else StagedTransport(part, self.direct)

    def description(self) -> str:
        way = "device memory" if self.direct else "pinned host memory"
        return f"{self._base.description()}, {way}"

    def late(self) -> Sequence[int] | None:
        return self._base.late()

    def abort(self, code: int) -> None:
        self._base.abort(code)

    def close(self) -> None:
        self._base.close()

    # One operation ---------------------------------------------------------------------------------------------------

    def _run(self, name: str, start: Callable[..., Work], *arrays: tuple[Array | None, bool, bool]) -> Work:
        """Start an operation on (array, whether it is read, whether it is written)."""
        device = next((array.device.id for array, _, _ in arrays if array is not None), None)
        with self._cupy.cuda.Device(device):
            return self._run_there(name, start, *arrays)

    def _run_there(self, name: str, start: Callable[..., Work], *arrays: tuple[Array | None, bool, bool]) -> Work:
        """The same, on the current device."""
        stream = self._cupy.cuda.get_current_stream()
        if is_capturing(stream):
            raise CommunicationError(
                f"{name}: rank {self.rank}: arrays of GPUs go through host memory here, which cannot be a part of a CUDA graph that is "
                "captured; leave the collective out of it, or use NCCL"
            )
        operation = _Operation(start, stream, self._cupy.cuda.runtime.getDevice())
        for array, read, written in arrays:
            if array is None or self.direct:
                operation.hosts.append(array)
                continue
            host = self._pinned(array)
            operation.hosts.append(host)
            if read:
                self._copy(host.ctypes.data, array.data.ptr, array.nbytes, "memcpyDeviceToHost", stream)
            if written:
                operation.results.append((array, host))
        operation.copied = self._cupy.cuda.Event(disable_timing=True)
        operation.copied.record(stream)
        self._waiting.append(operation)

        def poll() -> bool:
            if not self._is_done(operation):
                return False
            work.source = None if operation.work is None else operation.work.source
            return True

        def cancel() -> None:
            with self._beginning:
                if operation in self._waiting:
                    self._waiting.remove(operation)
                    operation.failure = CommunicationError(f"{name}: rank {self.rank}: cancelled before it began")
            if operation.work is not None:
                operation.work.cancel()

        work = Work(name, poll, cancel=cancel if name == "recv" else None, keep=tuple(array for array, _, _ in arrays))
        self._begin_waiting()
        return work

    def _begin_waiting(self) -> None:
        """Begin those operations whose copies are done, in the order in which they were called: that of all ranks."""
        if not self._beginning.acquire(False):
            return  # another thread does, or this one further out: to begin may be to wait, and that lets all works progress
        try:
            while self._waiting:
                operation = self._waiting[0]
                try:
                    if not happened(self._cupy, operation.copied):
                        return
                    self._waiting.popleft()
                    operation.work = operation.start(*operation.hosts)
                except Exception as error:  # the poll of that operation raises it
                    operation.failure = error
                    if self._waiting and self._waiting[0] is operation:  # its copy has failed
                        self._waiting.popleft()
        finally:
            self._beginning.release()

    def _is_done(self, operation: _Operation) -> bool:
        self._begin_waiting()
        if operation.failure is not None:
            raise operation.failure
        if operation.work is None:
            return False
        if operation.written is None:
            if not operation.work.test():
                return False
            operation.work.wait()
            with self._cupy.cuda.Device(operation.device):
                for array, host in operation.results:
                    self._copy(array.data.ptr, host.ctypes.data, array.nbytes, "memcpyHostToDevice", operation.stream)
                written = self._cupy.cuda.Event(disable_timing=True)
                written.record(operation.stream)
            operation.written = written
        if not happened(self._cupy, operation.written):
            return False
        self._cupy.cuda.get_current_stream().wait_event(operation.written)
        for host in operation.hosts:
            if host is not None and not self.direct:
                self._give_back(host)
        operation.hosts = []
        return True

    def _copy(self, target: int, source: int, nbytes: int, kind: str, stream: Any) -> None:
        if nbytes:
            runtime = self._cupy.cuda.runtime
            runtime.memcpyAsync(target, source, nbytes, getattr(runtime, kind), stream.ptr)

    # Pinned memory ---------------------------------------------------------------------------------------------------

    def _pinned(self, array: Array) -> np.ndarray:
        """Host memory for an array: taking it from the system costs more than the copy, so it is kept."""
        size = 1 << max(9, (array.nbytes - 1).bit_length())
        kept = self._memory.get(size)
        if kept:
            memory = kept.pop()
        else:
            import cupyx

            memory = cupyx.empty_pinned(size, np.uint8)
        return memory[: array.nbytes].view(array.dtype).reshape(array.shape)

    def _give_back(self, host: np.ndarray) -> None:
        memory: Any = host
        while not (memory.dtype == np.uint8 and memory.ndim == 1 and memory.nbytes.bit_count() == 1 and memory.nbytes >= 512):
            memory = memory.base
        self._memory.setdefault(memory.nbytes, []).append(memory)


class _Operation:
    """One operation: copies to the host, the base's work, copies back."""

    __slots__ = ("copied", "device", "failure", "hosts", "results", "start", "stream", "work", "written")

    def __init__(self, start: Callable[..., Work], stream: Any, device: int) -> None:
        self.start, self.stream, self.device = start, stream, device
        self.hosts: list[Any] = []
        self.results: list[tuple[Any, np.ndarray]] = []
        self.copied: Any = None
        self.written: Any = None
        self.work: Work | None = None
        self.failure: Exception | None = None
