"""The package's own names: dtypes and their rules, sizes, devices, settings, what scripts ask a GPU for, and what is absent."""

import inspect
import itertools
import math
import operator
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest

import disttorch as torch
from disttorch.backend.dtypes import DTYPES
from disttorch.settings import is_warn_always_enabled

NAMES = [d.name for d in DTYPES.values()]
UNSIGNED = {"uint16", "uint32", "uint64"}  # PyTorch promotes them with nothing; the array API standard wants it


# --- dtypes ------------------------------------------------------------------------------------------------------------


def test_dtypes_are_pytorchs():
    theirs = pytest.importorskip("torch")

    def name_of(call, *args):
        try:
            return str(call(*args)).rpartition(".")[2]
        except RuntimeError:
            return "RuntimeError"

    for a, b in itertools.product(NAMES, NAMES):
        x, y, u, v = getattr(torch, a), getattr(torch, b), getattr(theirs, a), getattr(theirs, b)
        if not {a, b} & UNSIGNED:
            assert name_of(torch.promote_types, x, y) == name_of(theirs.promote_types, u, v), (a, b)
        assert torch.can_cast(x, y) == theirs.can_cast(u, v), (a, b)
    for a in NAMES:
        x, u = getattr(torch, a), getattr(theirs, a)
        for attribute in ("is_floating_point", "is_complex", "is_signed", "itemsize"):
            assert getattr(x, attribute) == getattr(u, attribute), (a, attribute)
        assert name_of(x.to_real) == name_of(u.to_real)
        if a not in ("float16",):  # there is no complex32
            assert name_of(x.to_complex) == name_of(u.to_complex)


def test_limits():
    theirs = pytest.importorskip("torch")
    for a in NAMES:
        for kind in ("finfo", "iinfo"):
            try:
                want = getattr(theirs, kind)(getattr(theirs, a))
            except TypeError:
                with pytest.raises(TypeError):
                    getattr(torch, kind)(getattr(torch, a))
                continue
            got = getattr(torch, kind)(getattr(torch, a))
            for field in ("bits", "min", "max", "dtype", "eps", "tiny", "smallest_normal", "resolution"):
                assert getattr(got, field, None) == getattr(want, field, None), (a, field)
            assert repr(got) == repr(want)
    assert torch.finfo().dtype == "float32"


def test_default_dtype():
    try:
        for name in ("torch.DoubleTensor", "torch.HalfTensor", "torch.FloatTensor"):
            torch.set_default_tensor_type(getattr(torch, name[6:]))
            torch.set_default_tensor_type(name)
            assert torch.tensor(1.5).type() == torch.typename(torch.tensor(1.5))
            assert torch.tensor(1.5).dtype is torch.get_default_dtype()
            assert torch.get_default_dtype() is {"D": torch.float64, "H": torch.float16, "F": torch.float32}[name[6]]
        for wrong in ("torch.LongTensor", "torch.Nothing", "float", torch.LongTensor):
            with pytest.raises(TypeError, match="only floating-point types"):
                torch.set_default_tensor_type(wrong)
    finally:
        torch.set_default_dtype(torch.float32)


def test_result_types():
    assert torch.result_type(torch.ones(2, dtype=torch.int64), 1.5) is torch.float32
    assert torch.result_type(torch.ones(2, dtype=torch.float16), torch.tensor(1.0, dtype=torch.float64)) is torch.float16
    assert torch.result_type(torch.tensor(1), torch.ones(1, dtype=torch.int8)) is torch.int8
    assert torch.result_type(torch.ones(1, dtype=torch.float64), 1j) is torch.complex128


def test_sizes():
    theirs = pytest.importorskip("torch")
    for call in (
        lambda s: s + (1,), lambda s: (1,) + s, lambda s: s * 2, lambda s: 2 * s, lambda s: s[:1], lambda s: s[1:][0], lambda s: s.numel(),
        lambda s: hash(s), lambda s: s == (1, 2), lambda s: s.count(1), lambda s: s.index(2), lambda s: repr(s), lambda s: s[0],
    ):  # fmt: skip
        got, want = call(torch.Size([1, 2])), call(theirs.Size([1, 2]))
        assert (type(got).__name__, str(got)) == (type(want).__name__, str(want).replace("torch.", "disttorch."))


def test_constants_and_questions():
    assert (torch.inf, torch.pi, torch.e, torch.newaxis) == (math.inf, math.pi, math.e, None)
    assert math.isnan(torch.nan)
    x = torch.ones(2, 3)
    questions = (torch.numel, torch.is_floating_point, torch.is_complex, torch.is_signed, torch.is_tensor)
    assert [question(x) for question in questions] == [6, True, False, True, True]
    assert torch.is_nonzero(torch.tensor([2]))
    assert not torch.is_nonzero(torch.tensor(0.0))
    assert torch.is_same_size(x, x + 1)
    assert not torch.is_same_size(x, x.mT)
    assert not torch.is_storage(x)
    with pytest.raises(RuntimeError, match="ambiguous"):
        torch.is_nonzero(x)
    with pytest.raises(TypeError, match="must be Tensor, not int"):
        torch.numel(3)
    assert (torch.typename(3), torch.typename(torch.nn.Linear(1, 1)), torch.typename("x")) == ("int", "disttorch.nn.linear.Linear", "str")


# --- devices -----------------------------------------------------------------------------------------------------------


def test_devices_as_blocks():
    cpu = torch.device("cpu")
    with cpu as inside, cpu:
        assert inside is cpu
        assert torch.ones(1).device == torch.get_default_device() == cpu

    @torch.device("cpu")
    def make():
        return torch.ones(1).device

    assert make() == cpu
    assert pickle.loads(pickle.dumps(torch.device("cuda", 1))) == torch.device("cuda:1")
    torch.set_default_device("cpu")
    torch.set_default_device(None)
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_default_device()))
    thread.start()
    thread.join()
    assert found == [cpu]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu():
    with pytest.raises(RuntimeError, match="'cuda'"), torch.device("cuda"):
        pass
    assert torch.get_default_device() == torch.device("cpu")
    cuda = torch.cuda
    for answer in (cuda.is_available(), cuda.is_initialized(), cuda.is_bf16_supported(), cuda.device_count(), cuda.memory_allocated(),
                   cuda.max_memory_allocated(), cuda.memory_reserved(), cuda.get_arch_list(), cuda.memory_stats()):  # fmt: skip
        assert not answer
    for tidy in (cuda.empty_cache, cuda.ipc_collect, cuda.reset_peak_memory_stats):
        assert tidy() is None
    for seed in (cuda.manual_seed_all, cuda.manual_seed):
        assert seed(0) is None
    with cuda.nvtx.range("step {}", 1), cuda.stream(None), cuda.device(None), cuda.device_of(torch.ones(1)):
        pass
    for needs in (cuda.synchronize, cuda.current_device, cuda.get_device_name, lambda: cuda.set_device(0), cuda.current_stream, cuda.init,
                  cuda.mem_get_info, cuda.Event, cuda.Stream, cuda.CUDAGraph, lambda: torch.ones(1).cuda()):  # fmt: skip
        with pytest.raises(RuntimeError, match="device 'cuda"):
            needs()
    with pytest.raises(AttributeError, match=r"disttorch\.cuda has no 'graph_pool'"):
        cuda.graph_pool  # noqa: B018
    accelerator = torch.accelerator
    assert (accelerator.is_available(), accelerator.current_accelerator(), accelerator.device_count()) == (False, None, 0)
    with accelerator.device_index(None):
        pass
    for needs in (accelerator.synchronize, accelerator.current_device_index, accelerator.memory_allocated, accelerator.empty_cache):
        with pytest.raises(RuntimeError, match="device 'cuda"):
            needs()
    assert torch.get_device_module() is torch.cpu
    with pytest.raises(TypeError, match="there is no CUDA device"):
        torch.set_default_tensor_type(cuda.FloatTensor)
    layer = torch.nn.Linear(2, 1)
    model = torch.nn.DataParallel(layer, device_ids=[0, 1])
    assert (model.device_ids, model.module is layer, model(torch.ones(3, 2)).shape) == ([], True, (3, 1))


def test_streams_and_events_of_the_cpu():
    theirs = pytest.importorskip("torch")
    for library in (torch, theirs):
        stream, event = library.cpu.Stream(), library.cpu.Event()
        with library.cpu.stream(stream):
            event.record(library.cpu.current_stream())
            stream.wait_stream(library.cpu.current_stream())
        assert event.query()
        assert (library.cpu.is_initialized(), library.cpu.set_device("cpu")) == (True, None)
        generic = library.Stream("cpu"), library.Event("cpu", enable_timing=True)
        assert [str(each.device) for each in (*generic, library.Stream(), library.Event())] == ["cpu"] * 4  # there is no accelerator
        assert [isinstance(each, library.Stream) for each in generic] == [True, False]
        assert [isinstance(each, library.Event) for each in generic] == [False, True]
        with pytest.raises((RuntimeError, ValueError)):
            generic[1].elapsed_time(generic[1])
    for each in generic_streams():
        assert each.query()
        each.synchronize()
    names = {n for n in dir(theirs.cpu) if not n.startswith("_") and inspect.getmodule(getattr(theirs.cpu, n)) is theirs.cpu}
    assert names - {"get_capabilities"} <= set(torch.cpu.__all__)


def generic_streams():
    stream, event = torch.Stream(), torch.Event(enable_timing=True)
    with stream as entered:
        assert entered is stream
        event.record(stream)
        event.wait()
    stream.wait_event(stream.record_event(event))
    return stream, event


@pytest.mark.parametrize(
    "name", ["accelerator", "nn.DataParallel", "nn.parallel.data_parallel", "get_device_module", "backends.cuda.sdp_kernel"]
)
def test_pytorchs_arguments(name):
    theirs = pytest.importorskip("torch")
    mine, other = (operator.attrgetter(name)(package) for package in (torch, theirs))
    pairs = [(mine, other)] if callable(mine) else [(getattr(mine, n), getattr(other, n)) for n in mine.__all__]
    for one, two in pairs:
        if two is not theirs.accelerator.device_index:  # a class that takes its argument in C++
            assert [*inspect.signature(one).parameters] == [*inspect.signature(two).parameters], one


def test_cuda_is_no_way_to_the_cpu():
    with pytest.raises(RuntimeError, match="must be cuda device"):
        torch.ones(1).cuda(device="cpu")


def test_cupy_has_the_names_that_are_asked_for():
    cupy = pytest.importorskip("cupy")
    for name in ("Device", "Event", "Stream", "get_current_stream", "get_elapsed_time", "nvtx.RangePush", "nvtx.RangePop",
                 "runtime.getDeviceProperties", "runtime.memGetInfo", "runtime.getDevice", "runtime.runtimeGetVersion"):  # fmt: skip
        target = cupy.cuda
        for part in name.split("."):
            target = getattr(target, part)
    for name in ("used_bytes", "total_bytes", "free_all_blocks", "set_limit"):
        assert hasattr(cupy.get_default_memory_pool(), name)


# --- settings ----------------------------------------------------------------------------------------------------------


def test_threads():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.get_num_threads() == 1
        assert os.environ["OMP_NUM_THREADS"] == "1"
        torch.set_num_threads(2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    for wrong, error in ((0, RuntimeError), (-1, RuntimeError), (1.5, TypeError), ("2", TypeError)):
        with pytest.raises(error, match="expects a"):
            torch.set_num_threads(wrong)
    torch.set_num_interop_threads(3)
    assert torch.get_num_interop_threads() == 3


def test_threads_are_the_librarys():
    """Another process asks the library by other means, and sees what was set."""
    code = """
import disttorch, os, threading, time
disttorch.set_num_threads(1)
x = disttorch.ones(1500, 1500)
begin, used = time.perf_counter(), time.process_time()
for _ in range(3):
    x @ x
print((time.process_time() - used) / (time.perf_counter() - begin) < 1.2)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "True\n"


def test_switches():
    assert not torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()) == (True, True)
    assert torch.get_deterministic_debug_mode() == 1
    torch.set_deterministic_debug_mode("error")
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_deterministic_debug_mode(0)
    assert not torch.are_deterministic_algorithms_enabled()
    for wrong in ("loud", 3):
        with pytest.raises(RuntimeError, match="debug_mode"):
            torch.set_deterministic_debug_mode(wrong)
    assert torch.get_float32_matmul_precision() == "highest"
    torch.set_float32_matmul_precision("high")
    assert torch.get_float32_matmul_precision() == "high"
    torch.set_float32_matmul_precision("highest")
    with pytest.raises(ValueError, match="'low'"):
        torch.set_float32_matmul_precision("low")
    assert torch.set_flush_denormal(True) is False
    torch.set_warn_always(False)
    assert not is_warn_always_enabled()


def test_backends(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    with torch.backends.cudnn.flags(enabled=False, benchmark=False):
        assert not torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark
    assert not torch.backends.mps.is_available()
    assert not torch.backends.cudnn.is_available()
    assert torch.backends.cpu.get_cpu_capability() in ("AVX512", "AVX2", "DEFAULT")
    torch.backends.cuda.enable_flash_sdp(False)
    assert not torch.backends.cuda.flash_sdp_enabled()
    with torch.backends.cuda.sdp_kernel(enable_flash=True, enable_math=False):
        assert torch.backends.cuda.flash_sdp_enabled()
        assert not torch.backends.cuda.math_sdp_enabled()
    assert not torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.math_sdp_enabled()
    assert str(np.__version__) in torch.__config__.show()
    assert "get_num_threads" in torch.__config__.parallel_info()


def test_compilers_give_back_what_they_are_given():
    def f(x):
        return x * 2

    assert torch.compile(f) is torch.compile(mode="max-autotune")(f) is torch.compiler.disable(f) is torch.compiler.disable()(f) is f
    for same in (torch.jit.script, torch.jit.export, torch.jit.unused, torch.jit.ignore, torch.jit.ignore(drop=True), torch.jit.freeze):
        assert same(f) is f
    assert torch.jit.trace(f, (torch.ones(1),)) is f
    assert not (torch.jit.is_scripting() or torch.jit.is_tracing() or torch.compiler.is_compiling())
    with torch.jit.optimized_execution(True):
        pass
    with pytest.raises(RuntimeError, match="Model can't be int"):
        torch.compile(3)


# --- processes, and what is absent -------------------------------------------------------------------------------------


def _write(rank, folder, fail):
    with open(f"{folder}/{rank}", "w") as file:
        file.write(str(torch.ones(2).sum().item()))
    if fail == "raise" and rank == 1:
        raise ValueError("of rank 1")
    if fail == "exit" and rank == 1:
        sys.exit(7)
    if fail and rank == 0:
        import time

        time.sleep(60)


def test_spawn(tmp_path):
    mp = torch.multiprocessing
    assert mp.spawn(_write, (str(tmp_path), ""), nprocs=2, start_method="fork") is None
    assert sorted(os.listdir(tmp_path)) == ["0", "1"]
    context = mp.spawn(_write, (str(tmp_path), ""), nprocs=1, join=False, start_method="fork")
    assert len(context.pids()) == 1
    while not context.join(5):
        pass
    with pytest.raises(mp.ProcessRaisedException, match=r"Process 1 terminated with the following error(.|\n)*ValueError: of rank 1"):
        mp.spawn(_write, (str(tmp_path), "raise"), nprocs=2, start_method="fork")
    with pytest.raises(mp.ProcessExitedException, match="process 1 terminated with exit code 7") as error:
        mp.spawn(_write, (str(tmp_path), "exit"), nprocs=2, start_method="fork")
    assert (error.value.exit_code, error.value.error_index) == (7, 1)
    assert mp.Queue is not None
    assert mp.get_sharing_strategy() in mp.get_all_sharing_strategies()
    with pytest.raises(ValueError, match="no sharing strategy"):
        mp.set_sharing_strategy("telepathy")


def test_absent_names_say_where_to_look():
    for call in (lambda: torch.no_such_name, lambda: torch.cuda.no_such_name):
        with pytest.raises(AttributeError, match=r"has no 'no_such_name'.*docs/api-coverage\.md"):
            call()
    assert not hasattr(torch, "no_such_name")
    assert torch.version.cuda is None
    assert torch.version.__version__ == torch.__version__


def test_variable():
    x = torch.ones(2)
    v = torch.autograd.Variable(x, requires_grad=True)
    assert v.data_ptr() == x.data_ptr()
    (v * 2).sum().backward()
    assert v.grad.tolist() == [2, 2]
    assert x.grad is None
    assert isinstance(x, torch.autograd.Variable)
    assert not isinstance(3, torch.autograd.Variable)
    with pytest.raises(TypeError, match="has to be a tensor"):
        torch.autograd.Variable([1.0])
