"""NCCL's transport: operations, order between streams, errors; on a stand-in for CuPy."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import collectives.nccl
from collectives import watchdog
from collectives.device import _why_not_nccl, transport_for_device
from collectives.errors import CollectiveTimeoutError, CommunicationError
from collectives.nccl import NCCLTransport
from collectives.nccl_reductions import plan_for
from collectives.nccl_streams import _end
from collectives.reductions import REDUCTIONS, Reduction
from collectives.store import HashStore
from collectives.tcp import TCPTransport
from tests import stand_in
from tests.stand_in import devices
from tests.stand_in.nccl import NcclError, hub

sys.path.insert(0, str(Path(__file__).parent))
from tcp_job import ALLOWED, counts_of, given, reduced, same

pytestmark = pytest.mark.mpi_skip
SUM = REDUCTIONS["sum"]
GPU_DTYPES = [np.bool_, *[np.dtype(f"{kind}{n}").type for kind in "iu" for n in (1, 2, 4, 8)], np.float16, ml_dtypes.bfloat16,
              np.float32, np.float64, np.complex64, np.complex128]  # fmt: skip


@pytest.fixture(autouse=True)
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(watchdog, "watch", lambda transport: None)  # who waits, looks
    hub.reset()
    with stand_in.installed(6) as module:
        yield module


@pytest.fixture
def waits(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Any]]:
    """Which events streams wait for: the stream's pointer, and the event."""
    found: list[tuple[int, Any]] = []
    wait_event = cupy.cuda.Stream.wait_event

    def noting(stream: Any, event: Any) -> None:
        found.append((threading.get_ident() if not stream.ptr else stream.ptr, event))
        wait_event(stream, event)

    monkeypatch.setattr(cupy.cuda.Stream, "wait_event", noting)
    return found


def on_ranks(size: int, program: Callable[[NCCLTransport], Any], make: Callable[[TCPTransport], Any] = NCCLTransport) -> list[Any]:
    """Run a program on some ranks, which are threads of this process, each with a device of its own."""
    store = HashStore(60)

    def rank(number: int) -> Any:
        devices.Device(number).use()
        base = TCPTransport.world(store, number, size, 60, address="127.0.0.1")
        try:
            world = make(base)
            result = program(world)
            base.barrier().wait(30)
            world.close()
            return result
        finally:
            # A rank that fails must not keep the others waiting.
            base.close()

    with ThreadPoolExecutor(size) as pool:
        ended = [pool.submit(rank, number) for number in range(size)]
    errors = [error for future in ended if (error := future.exception()) is not None]
    if errors:
        raise min(errors, key=lambda error: "has closed its transport" in str(error))
    return [future.result() for future in ended]


def device(values: Any) -> Any:
    return sys.modules["cupy"].array(np.array(values))


def plain(array: Any) -> np.ndarray:
    found: np.ndarray = array.get()
    return found


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("op", REDUCTIONS)
def test_reductions(size: int, op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectives.nccl, "GATHERED_BYTES", 64)  # several rounds of gathering
    reduction, shape = REDUCTIONS[op], (3, 5)
    # The caller gives half types in float32 (`accumulates_half`).
    dtypes = [dtype for dtype in GPU_DTYPES if dtype in ALLOWED[op] and dtype not in (np.float16, ml_dtypes.bfloat16)]

    def program(world: NCCLTransport) -> None:
        for dtype in dtypes:
            mine = given(world.rank, shape, dtype)
            expected = reduced(op, [given(rank, shape, dtype) for rank in range(size)])
            array = device(mine)
            world.all_reduce(array, reduction).wait(30)
            same(plain(array), expected, op)
            array = device(mine)
            world.reduce(array, size - 1, reduction).wait(30)
            same(plain(array), expected if world.rank == size - 1 else mine, op)
            rows = (size, *shape)
            array = device(np.zeros(shape, dtype))
            source = device(given(world.rank, rows, dtype))
            world.reduce_scatter(array, source, reduction).wait(30)
            same(plain(array), reduced(op, [np.asarray(given(rank, rows, dtype)[world.rank]) for rank in range(size)]), op)
            counts = counts_of(size, 10)
            array = device(np.zeros(counts[world.rank], dtype))
            whole = [given(rank, (sum(counts),), dtype) for rank in range(size)]
            world.reduce_scatter(array, device(whole[world.rank]), reduction, counts).wait(30)
            begin = sum(counts[: world.rank])
            same(plain(array), reduced(op, whole)[begin : begin + counts[world.rank]], op)

    on_ranks(size, program)


@pytest.mark.parametrize("dtype", [np.longdouble, np.clongdouble, ml_dtypes.float8_e4m3fn])
def test_dtypes_that_gpus_have_not(cupy: Any, dtype: Any) -> None:
    op = Reduction("sum", np.add, frozenset(), "SUM")
    with pytest.raises(TypeError, match=r"all_reduce: GPUs reduce no .*; they do bool, int8 to int64"):
        plan_for(cupy.cuda.nccl, "all_reduce", op, np.dtype(dtype), 2)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_movements(size: int) -> None:
    def program(world: NCCLTransport) -> None:
        rank = world.rank
        for dtype in (np.float32, ml_dtypes.bfloat16, np.complex128, np.bool_):
            mine, everybody = given(rank, (7,), dtype), np.array([given(other, (7,), dtype) for other in range(size)])
            array = device(mine)
            world.broadcast(array, size - 1).wait(30)
            same(plain(array), everybody[-1])
            out = device(np.zeros((size, 7), dtype))
            world.all_gather(out, device(mine)).wait(30)
            same(plain(out), everybody)
            gathered = device(np.zeros((size, 7), dtype)) if rank == 0 else None
            world.gather(gathered, device(mine), 0).wait(30)
            if gathered is not None:
                same(plain(gathered), everybody)
            array = device(np.zeros(7, dtype))
            world.scatter(array, device(everybody) if rank == 0 else None, 0).wait(30)
            same(plain(array), mine)
            out, source = device(np.zeros((size, 7), dtype)), np.roll(everybody, rank, 0)
            world.all_to_all(out, device(source)).wait(30)
            same(plain(out), np.array([np.roll(everybody, other, 0)[rank] for other in range(size)]))

        counts = counts_of(size, 10)
        mine = np.full(counts[rank], float(rank))
        whole = np.concatenate([np.full(count, float(other)) for other, count in enumerate(counts)])
        out = device(np.zeros(sum(counts)))
        world.all_gather(out, device(mine), counts).wait(30)
        same(plain(out), whole)
        gathered = device(np.zeros(sum(counts))) if rank == size - 1 else None
        world.gather(gathered, device(mine), size - 1, counts).wait(30)
        if gathered is not None:
            same(plain(gathered), whole)
        array = device(np.zeros(counts[rank]))
        world.scatter(array, device(whole) if rank == 0 else None, 0, counts).wait(30)
        same(plain(array), mine)
        sent = [(rank + other) % 3 for other in range(size)]
        out = device(np.zeros(sum(sent)))
        world.all_to_all(out, device(np.full(sum(sent), float(rank))), sent, sent).wait(30)
        same(plain(out), np.concatenate([np.full((rank + other) % 3, float(other)) for other in range(size)]))
        world.barrier().wait(30)

    on_ranks(size, program)


def test_messages_and_groups() -> None:
    def program(world: NCCLTransport) -> None:
        rank, other = world.rank, 1 - world.rank
        if rank == 0:
            world.send(device([1.0, 2.0]), 1, 0).wait(30)
        else:
            array = device(np.zeros(2))
            work = world.recv(array, 0, 0)
            work.wait(30)
            assert work.source == 0 and array.tolist() == [1, 2]
        # Both send first: in a group that is no deadlock. Reductions of both kinds join in.
        received, total, bits = device(np.zeros(3)), device([rank + 1.0]), device(np.array([1 << rank], np.int32))
        world.begin_group()
        works = [
            world.send(device(np.full(3, float(rank))), other, 0), world.recv(received, other, 0),
            world.all_reduce(total, SUM), world.all_reduce(bits, REDUCTIONS["bor"]),
        ]  # fmt: skip
        assert not any(work.test() for work in works)
        world.end_group()
        for work in reversed(works):
            work.wait(30)
        assert received.tolist() == [other] * 3 and total.tolist() == [3] and bits.tolist() == [3]
        # To oneself, either end first.
        array = device(np.zeros(2))
        work = world.recv(array, rank, 0)
        assert not work.test()
        world.send(device([5.0, 6.0]), rank, 0).wait(30)
        work.wait(30)
        assert array.tolist() == [5, 6] and work.source == rank
        for message, call in (
            ("NCCL has no tags", lambda: world.send(array, other, 3)),
            ("cannot receive from any rank", lambda: world.recv(array, None, 0)),
        ):
            with pytest.raises(ValueError, match=message):
                call()

    on_ranks(2, program)


def test_order_between_streams(cupy: Any, waits: list[tuple[int, Any]]) -> None:
    """What the caller's stream still has to do is done before, and what it does after completion comes after."""

    def program(world: NCCLTransport) -> None:
        array = device(np.zeros(4))
        memory, stream = array._a, cupy.cuda.get_current_stream()

        def slowly(stream: Any) -> threading.Event:
            opened = stand_in.gate(stream)
            stand_in.delayed(stream, 0.1 * world.rank, lambda: memory.fill(world.rank + 1))
            return opened

        def waits_of(stream: Any) -> list[Any]:
            return [event for number, event in waits if number == (stream.ptr or threading.get_ident())]

        opened = slowly(stream)
        work = world.all_reduce(array, SUM)  # if the host waited, it would wait in vain
        assert not work.test()
        opened.set()
        before = len(waits_of(stream))
        work.wait(30)
        assert array.tolist() == [3] * 4
        assert [event.done for event in waits_of(stream)[before:]] == [True]
        # Another stream than the one that the transport was made on.
        side = cupy.cuda.Stream(non_blocking=True)
        with side:
            opened = slowly(side)
            work = world.all_reduce(array, SUM)
            opened.set()
            work.wait(30)
            assert waits_of(side) and array.tolist() == [3] * 4

    on_ranks(2, program)


def test_no_thread_meets_an_event_that_was_not_recorded(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would say that the operation is complete: an event that was never recorded has happened, for CUDA."""
    record = cupy.cuda.Event.record
    early: list[bool] = []

    def program(world: NCCLTransport) -> None:
        array = device(np.ones(3))
        work = world.all_reduce(array, SUM)

        def recording(event: Any, stream: Any = None) -> None:
            early.append(work.finished is event)  # type: ignore[attr-defined]
            record(event, stream)

        monkeypatch.setattr(cupy.cuda.Event, "record", recording)
        work.then(lambda: array.__imul__(2)).wait(30)
        monkeypatch.undo()
        assert plain(array).tolist() == [2, 2, 2]

    on_ranks(1, program)
    assert early == [False]


def test_arrays_of_another_gpu_are_refused() -> None:
    def program(world: NCCLTransport) -> None:
        here = devices.Device().id
        with devices.Device(5):
            array = device([1.0])
        with pytest.raises(ValueError, match=f"all_reduce: the array is on GPU 5, but rank {world.rank} communicates from GPU {here}"):
            world.all_reduce(array, SUM)

    on_ranks(2, program)


def test_errors_of_nccl_are_ours() -> None:
    def program(world: NCCLTransport) -> None:
        array = device([1.0])
        gate = stand_in.gate(sys.modules["cupy"].cuda.get_current_stream())
        work = world.all_reduce(array, SUM)
        hub.error = NcclError(6, "remote process exited or there was a network error")
        with pytest.raises(CommunicationError, match=r"all_reduce: rank \d of 2, GPU \d: NCCL_ERROR_REMOTE_ERROR"):
            work.wait(30)
        gate.set()

    on_ranks(2, program)


def test_split() -> None:
    def program(world: NCCLTransport) -> Any:
        group = world.split(world.rank % 2 if world.rank < 3 else None, -world.rank)
        if group is None:
            return None
        array = device([float(world.rank)])
        group.all_reduce(array, SUM).wait(30)
        group.close()
        return group.rank, group.size, float(array[0])

    assert on_ranks(4, program) == [(1, 2, 2.0), (0, 1, 1.0), (0, 2, 2.0), None]


def test_communicators_are_destroyed_or_aborted() -> None:
    gc.collect()  # what earlier tests have left ends before
    hub.ended.clear()
    on_ranks(2, lambda world: None)
    assert sorted(hub.ended) == [("destroy", 0), ("destroy", 0), ("destroy", 1), ("destroy", 1)]
    hub.ended.clear()
    gates = []

    def program(world: NCCLTransport) -> None:
        array = device([1.0])
        gates.append(stand_in.gate(sys.modules["cupy"].cuda.get_current_stream()))
        world.all_reduce(array, SUM)

    class Left(NCCLTransport):
        def close(self) -> None:
            """What a program that gives up does not call."""

    on_ranks(2, program, Left)
    deadline = time.monotonic() + 60
    while len(hub.ended) < 4 and time.monotonic() < deadline:
        gc.collect()  # the threads of the ranks may still be about to end
        time.sleep(0.01)
    assert sorted(hub.ended) == [("abort", 0), ("abort", 0), ("abort", 1), ("abort", 1)]
    for gate in gates:
        gate.set()


def test_rank_0_cannot_start(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> tuple[int, ...]:
        raise NcclError(2, "no interface")

    monkeypatch.setattr(cupy.cuda.nccl, "get_unique_id", broken)
    with pytest.raises(CommunicationError, match=r"rank [01] of 2: NCCL cannot start on rank 0"):
        on_ranks(2, lambda world: None)


def test_ranks_that_nccl_does_not_connect(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(cupy.cuda.nccl, "NcclCommunicator", lambda *_: over.wait(30))
    said = r"init: rank 0 of 1 has waited 0.2 s for NCCL to connect the ranks: .*NCCL_DEBUG=INFO"
    with pytest.raises(CollectiveTimeoutError, match=said):
        on_ranks(1, lambda world: None, lambda base: NCCLTransport(base, timeout=0.2))
    over.set()


def test_a_forked_process_leaves_communicators_alone() -> None:
    """NCCL's threads, for which their end would wait, are not there."""
    ended: list[str] = []
    comm = SimpleNamespace(destroy=lambda: ended.append("destroy"), abort=lambda: ended.append("abort"))
    comms = (comm,)
    before = sys.getrefcount(comms)
    _end(comms, (), set(), devices.Device(0), os.getpid() + 1)
    assert not ended and sys.getrefcount(comms) == before + 1
    _end(comms, (), set(), devices.Device(0), os.getpid())
    assert ended == ["destroy"]


# The choice ----------------------------------------------------------------------------------------------------------


def choose(forced: str, size: int = 2) -> list[str]:
    def make(base: TCPTransport) -> Any:
        return transport_for_device(base, None, forced)

    return on_ranks(size, lambda world: type(world).__name__, make)


def test_each_rank_with_a_gpu_uses_nccl() -> None:
    assert choose("auto") == choose("nccl") == ["NCCLTransport"] * 2
    assert choose("tcp") == ["StagedTransport"] * 2


def test_why_not_nccl_is_noted_once_for_all_groups() -> None:
    stand_in.BUS.update({0: "0000:07:00.0", 1: "0000:07:00.0"})
    jobs = [SimpleNamespace(notes=[]), SimpleNamespace(notes=[])]

    def make(base: TCPTransport) -> Any:
        for _ in range(2):
            found = transport_for_device(base, jobs[base.rank])  # type: ignore[arg-type]
        return found

    on_ranks(2, lambda world: None, make)
    assert [len(job.notes) for job in jobs] == [1, 1]


def test_hosts_may_have_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.BUS.update({0: "0000:07:00.0", 1: "0000:07:00.0"})
    reasons: list[str] = []

    def make(base: TCPTransport) -> Any:
        reasons.append(_why_not_nccl(base, None, 30))
        return transport_for_device(base, None, "tcp")

    on_ranks(2, lambda world: None, make)
    assert all("use the same GPU" in reason for reason in reasons)
    reasons.clear()
    monkeypatch.setattr("collectives.device.machine_identity", lambda: f"machine {devices.Device().id}")
    on_ranks(2, lambda world: None, make)
    assert reasons == ["", ""]


@pytest.mark.parametrize("case", ["shared", "no NCCL", "no driver", "versions", "not blocking"])
def test_without_nccl(cupy: Any, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> Any:
        raise stand_in.CUDARuntimeError(100, "cudaErrorNoDevice: no CUDA-capable device is detected")

    expected = {
        "shared": r"ranks 0 and 1 \(.*\) use the same GPU \(.* 0000:07:00.0\): .*LOCAL_RANK.*NCCL_MULTI_RANK_GPU_ENABLE=1 "
        r"\(this is NCCL 2\.27\.3\)",
        "no NCCL": "rank 0 .* has none: CuPy finds no NCCL; install nvidia-nccl",
        "no driver": "rank 0 .* has none: cudaErrorNoDevice",
        "versions": r"different versions of NCCL: 2\.27\.3, 2\.32\.3",
        "not blocking": "rank 0 .* has none: NCCL_COMM_BLOCKING=0 is set, .*; unset it",
    }[case]
    if case == "shared":
        stand_in.BUS.update({0: "0000:07:00.0", 1: "0000:07:00.0"})
    elif case == "no NCCL":
        monkeypatch.setattr(cupy.cuda.nccl, "available", False)
    elif case == "no driver":
        monkeypatch.setattr(cupy.cuda.runtime, "getDevice", failing)
    elif case == "not blocking":
        monkeypatch.setenv("NCCL_COMM_BLOCKING", "0")
    else:
        monkeypatch.setattr(cupy.cuda.nccl, "get_version", lambda: 23203 if devices.Device().id else 22703)
    assert choose("auto") == ["StagedTransport"] * 2
    with pytest.raises(CommunicationError, match=f"NCCL was asked for, but .*{expected}"):
        choose("nccl")
    if case == "shared":
        monkeypatch.setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1")
        assert choose("auto") == ["StagedTransport"] * 2
        hub.version = 23203
        assert choose("auto") == ["NCCLTransport"] * 2
