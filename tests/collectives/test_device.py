"""Arrays of a GPU over a CPU transport, on a stand-in for CuPy: copies in the right order, pinned memory, CUDA-aware MPI."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from collectives.cuda_aware import cuda_aware
from collectives.device import StagedTransport
from collectives.errors import CommunicationError
from collectives.local import LocalTransport
from collectives.reductions import REDUCTIONS, Reduction
from collectives.store import HashStore
from collectives.tcp import TCPTransport
from collectives.work import Work
from tests import stand_in
from tests.stand_in.arrays import ndarray
from tests.stand_in.devices import Device
from tests.stand_in.memory import empty_pinned
from tests.stand_in.streams import get_current_stream

sys.path.insert(0, str(Path(__file__).parent))
from tcp_job import ALLOWED, counts_of, given, reduced, same

pytestmark = pytest.mark.mpi_skip
SUM = REDUCTIONS["sum"]


@pytest.fixture(autouse=True)
def cupy() -> Iterator[Any]:
    with stand_in.installed(3) as module:
        yield module


@pytest.fixture
def waits(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Any]]:
    """Which events streams wait for: the stream's pointer, and the event."""
    found: list[tuple[int, Any]] = []
    wait_event = cupy.cuda.Stream.wait_event

    def noting(stream: Any, event: Any) -> None:
        found.append((stream.ptr, event))
        wait_event(stream, event)

    monkeypatch.setattr(cupy.cuda.Stream, "wait_event", noting)
    return found


def test_an_array_goes_in_the_order_of_its_own_device(cupy: Any) -> None:
    """Whatever device is the current one."""
    staged = StagedTransport(LocalTransport())
    with Device(1):
        array, out = cupy.ones(4), cupy.zeros((1, 4))
        opened = stand_in.gate(get_current_stream())
        array *= 3
    work = staged.all_gather(out, array)
    assert not work.test()
    opened.set()
    work.wait(30)
    assert out.tolist() == [[3.0] * 4]


class TakesDeviceMemory:
    """A transport that is given device memory as it is, as CUDA-aware MPI is."""

    def __init__(self, base: Any) -> None:
        self._base = base

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._base, name)
        if not callable(found) or name in ("late", "description"):
            return found

        def call(*arguments: Any) -> Any:
            assert not any(type(each) is np.ndarray for each in arguments), "an array was staged"
            result = found(*[each._a if isinstance(each, ndarray) else each for each in arguments])
            return TakesDeviceMemory(result) if name == "split" else result

        return call


def on_ranks(size: int, program: Callable[[StagedTransport], Any], direct: bool | None = None) -> list[Any]:
    """Run a program on some ranks, which are threads of this process, each with a device of its own."""
    store = HashStore(60)

    def rank(number: int) -> Any:
        Device(number).use()
        base = TCPTransport.world(store, number, size, 60, address="127.0.0.1")
        try:
            given_base: Any = TakesDeviceMemory(base) if direct else base
            result = program(StagedTransport(given_base, direct))
            base.barrier().wait(30)
            return result
        finally:
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


@pytest.mark.parametrize("direct", [False, True], ids=["pinned", "direct"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_operation(size: int, direct: bool) -> None:
    def program(world: StagedTransport) -> None:
        rank, last = world.rank, size - 1
        assert world.averages and world.accumulates_half and world.direct is direct
        for op, dtype in (("sum", np.float32), ("avg", ml_dtypes.bfloat16), ("max", np.int16), ("lxor", np.bool_)):
            assert dtype in ALLOWED[op]
            for shape in ((3, 5), (), (40_000,)):
                everybody = [given(other, shape, dtype) for other in range(size)]
                array = device(everybody[rank])
                world.all_reduce(array, REDUCTIONS[op]).wait(30)
                same(plain(array), reduced(op, everybody), op)
                array = device(everybody[rank])
                world.reduce(array, last, REDUCTIONS[op]).wait(30)
                same(plain(array), reduced(op, everybody) if rank == last else everybody[rank], op)
                rows = [given(other, (size, *shape), dtype) for other in range(size)]
                array = device(np.zeros(shape, dtype))
                world.reduce_scatter(array, device(rows[rank]), REDUCTIONS[op]).wait(30)
                same(plain(array), reduced(op, [np.asarray(each[rank]) for each in rows]), op)

                array = device(everybody[rank])
                world.broadcast(array, last).wait(30)
                same(plain(array), everybody[last])
                out = device(np.zeros((size, *shape), dtype))
                world.all_gather(out, device(everybody[rank])).wait(30)
                same(plain(out), np.array(everybody))
                gathered = device(np.zeros((size, *shape), dtype)) if rank == 0 else None
                world.gather(gathered, device(everybody[rank]), 0).wait(30)
                if gathered is not None:
                    same(plain(gathered), np.array(everybody))
                array = device(np.zeros(shape, dtype))
                world.scatter(array, device(np.array(everybody)) if rank == last else None, last).wait(30)
                same(plain(array), everybody[rank])
                world.all_to_all(out, device(rows[rank])).wait(30)
                same(plain(out), np.array([each[rank] for each in rows]))
        counts = counts_of(size, 10)
        whole = np.concatenate([np.full(count, float(other)) for other, count in enumerate(counts)])
        out = device(np.zeros(sum(counts)))
        world.all_gather(out, device(np.full(counts[rank], float(rank))), counts).wait(30)
        same(plain(out), whole)
        world.barrier().wait(30)
        # Messages keep tags and any source.
        for tag in (1, 2):
            world.send(device([float(rank), tag]), (rank + 1) % size, tag)
        for tag in (2, 1):
            array = device(np.zeros(2))
            work = world.recv(array, None if tag == 1 else (rank - 1) % size, tag)
            work.wait(30)
            assert work.source == (rank - 1) % size and array.tolist() == [work.source, tag]
        group = world.split(rank % 2, 0)
        assert group is not None
        array = device([float(rank)])
        group.all_reduce(array, SUM).wait(30)
        assert array.tolist() == [sum(range(rank % 2, size, 2))]
        assert group.direct is direct and "memory" in group.description()

    on_ranks(size, program, direct)


@pytest.mark.parametrize("direct", [False, True], ids=["pinned", "direct"])
def test_order_of_copies(cupy: Any, direct: bool, waits: list[tuple[int, Any]]) -> None:
    """What the current stream still has to do is done before; the host does not wait for it; the result is ordered behind."""

    def program(world: StagedTransport) -> None:
        array = device(np.zeros(4))
        stream = cupy.cuda.get_current_stream()
        opened = stand_in.gate(stream)
        stand_in.delayed(stream, 0.1 * world.rank, lambda: array._a.fill(world.rank + 1))
        work = world.all_reduce(array, SUM)  # if the host waited, it would wait in vain
        assert not work.test()
        opened.set()
        side = cupy.cuda.Stream(non_blocking=True)
        with side:
            work.wait(30)
            assert array.tolist() == [3] * 4
        assert [event.done for stream, event in waits if stream == side.ptr] == [True]

    on_ranks(2, program, direct)


def test_operations_begin_in_the_order_of_their_calls(cupy: Any) -> None:
    """Also where a rank waits for the later one first, and copies take different times on different ranks."""

    def program(world: StagedTransport) -> None:
        streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(3)]
        arrays, works = [], []
        for number, stream in enumerate(streams):
            with stream:
                # On rank 0 the first is slow, on rank 1 the last.
                delay = 0.02 * (number if world.rank else 2 - number)
                stand_in.delayed(stream, delay)
                arrays.append(device(np.full(1 + number, float(world.rank))))
                works.append(world.all_reduce(arrays[-1], SUM))
        for number in (2, 0, 1) if world.rank else (1, 2, 0):
            works[number].wait(30)
        assert [array.tolist() for array in arrays] == [[1.0], [1.0] * 2, [1.0] * 3]

    on_ranks(2, program)


def test_an_operation_begins_before_the_next_also_where_it_waits() -> None:
    """What waits lets all works progress, those among them that come after it."""
    begun: list[float] = []
    works: list[Any] = []

    class Waits(LocalTransport):
        def all_reduce(self, array: np.ndarray, op: Reduction) -> Work:
            for work in works:
                work.test()
            begun.append(float(array[0]))
            return super().all_reduce(array, op)

    world = StagedTransport(Waits())
    opened = stand_in.gate(get_current_stream())
    works += [world.all_reduce(device([value]), SUM) for value in (1.0, 2.0, 3.0)]
    assert not any(work.test() for work in works)
    opened.set()
    for work in reversed(works):
        work.wait(30)
    assert begun == [1.0, 2.0, 3.0]


def test_pinned_memory_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(sys.modules["cupyx"], "empty_pinned", lambda size, dtype: taken.append(size) or empty_pinned(size, dtype))

    def program(world: StagedTransport) -> None:
        for turn in range(5):
            for dtype in (np.float32, np.int64, np.uint8):
                array = device(np.full((3, 1000 // np.dtype(dtype).itemsize), turn, dtype))
                world.all_reduce(array, SUM).wait(30)
                assert (plain(array) == turn).all()
        world.barrier().wait(30)

    on_ranks(1, program)
    assert taken == [4096]
    assert all(size & (size - 1) == 0 for size in taken)


def test_a_receive_is_cancelled() -> None:
    def program(world: StagedTransport) -> None:
        array = device(np.zeros(1))
        for begun in (True, False):
            if not begun:
                stand_in.delayed(get_current_stream(), 0.2)
            work = world.recv(array, None, 1)
            if begun:
                while not world._waiting and work.test():
                    pass
                time.sleep(0.05)
                work.test()
            assert work.cancel()
            with pytest.raises(CommunicationError, match="cancelled"):
                work.wait(30)
        get_current_stream().synchronize()
        world.send(device([7.0]), world.rank, 1).wait(30)
        world.recv(array, world.rank, 1).wait(30)
        assert array.tolist() == [7]

    on_ranks(1, program)


def test_errors_of_the_base_are_passed_on() -> None:
    def program(world: StagedTransport) -> None:
        if world.rank == 0:
            world.send(device([1.0, 2.0]), 1, 0).wait(30)
        else:
            with pytest.raises(CommunicationError, match="expects 8 bytes with tag 0, got 16 from rank 0"):
                world.recv(device([0.0]), 0, 0).wait(30)

    on_ranks(2, program)


# CUDA-aware MPI ------------------------------------------------------------------------------------------------------


class Answer:
    """A function of a library, as ctypes shows it."""

    def __init__(self, returned: int, told: int | None = None) -> None:
        self.returned, self.told = returned, told
        self.restype: Any = None
        self.argtypes: Any = None

    def __call__(self, *arguments: Any) -> int:
        if self.told is not None:
            arguments[1]._obj.value = self.told
        return self.returned


LIBRARIES = {
    "neither function": (SimpleNamespace(), False),
    "no library": (None, False),
    "Open MPI with CUDA": (SimpleNamespace(MPIX_Query_cuda_support=Answer(1)), True),
    "Open MPI without": (SimpleNamespace(MPIX_Query_cuda_support=Answer(0)), False),
    "MPICH with CUDA": (SimpleNamespace(MPIX_GPU_query_support=Answer(0, 1)), True),
    "MPICH without": (SimpleNamespace(MPIX_GPU_query_support=Answer(0, 0)), False),
    "MPICH that fails": (SimpleNamespace(MPIX_GPU_query_support=Answer(1, 1)), False),
}


def test_a_kernel_that_failed_is_an_error_and_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy's ``Event.done`` is False then, for ever."""

    def program(world: StagedTransport) -> None:
        array = device(np.ones(3))
        monkeypatch.setattr(sys.modules["cupy"].cuda.Event, "failed", 700)
        with pytest.raises(RuntimeError) as caught:
            world.all_reduce(array, REDUCTIONS["sum"]).wait(10)
        assert getattr(caught.value, "status", 0) == 700
        monkeypatch.setattr(sys.modules["cupy"].cuda.Event, "failed", 0)

    on_ranks(1, program)


@pytest.mark.parametrize(("library", "expected"), LIBRARIES.values(), ids=LIBRARIES)
def test_the_library_is_asked(library: Any, expected: bool) -> None:
    assert cuda_aware({}, lambda: library) is expected
    for value in ("0", "1"):
        assert cuda_aware({"DISTTORCH_CUDA_AWARE": value}, lambda: library) is (value == "1")


@pytest.mark.parametrize("name", ["MPICH_GPU_SUPPORT_ENABLED", "MV2_USE_CUDA", "MVP_USE_CUDA"])
def test_variables_of_mpi_libraries(name: str) -> None:
    assert cuda_aware({name: "1"}, lambda: None)
    assert not cuda_aware({name: "0"}, lambda: None)
    assert not cuda_aware({name: "1", "DISTTORCH_CUDA_AWARE": "0"}, lambda: None)


def test_a_variable_without_sense() -> None:
    with pytest.raises(ValueError, match="DISTTORCH_CUDA_AWARE='yes' is neither 0 nor 1"):
        cuda_aware({"DISTTORCH_CUDA_AWARE": "yes"})


def test_this_library_can_be_asked(clean_environment: dict[str, str]) -> None:
    """The MPI packages of pip know nothing of GPUs; the answer comes from the library, not from a missing function."""
    program = """
from mpi4py import MPI
from collectives.cuda_aware import _loaded_library, cuda_aware
library = _loaded_library()
print(library is not None, hasattr(library, "MPI_Init"), cuda_aware({}))
"""
    done = subprocess.run([sys.executable, "-c", program], env=clean_environment, capture_output=True, text=True, timeout=60, check=False)
    if "cannot load MPI library" in done.stderr:
        pytest.skip("there is no MPI library")
    assert done.stdout.split() == ["True", "True", "False"], done.stderr


def test_imports_load_no_array_library_but_numpy(clean_environment: dict[str, str]) -> None:
    program = """
import sys
import collectives, collectives.device, collectives.nccl, collectives.tcp, collectives.store
print([name for name in ("cupy", "cupyx", "torch", "ml_dtypes", "mpi4py.MPI") if name in sys.modules])
import threading
print(threading.active_count())
"""
    done = subprocess.run([sys.executable, "-c", program], env=clean_environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split("\n")[:2] == ["[]", "1"], done.stderr
