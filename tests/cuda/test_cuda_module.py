"""`disttorch.cuda` on the stand-in: devices, streams, events, random numbers, ranges, by PyTorch's names."""

import inspect

import numpy as np
import pytest

from tests import stand_in
from tests.stand_in import host_cuda
from tests.stand_in.session import tensors

needs_compiler = pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available()))

#: PyTorch's names that are not here, and why
ABSENT = {
    "its own kinds of storages": "*Storage",
    "what its own C++ library is made of": "CudaError DeferredCudaCallError check_error cudaStatus cudart caching_allocator_alloc "
    "caching_allocator_delete caching_allocator_disabled caching_allocator_enable CUDAPluggableAllocator change_current_allocator "
    "current_blas_handle current_solver_handle default_generators get_gencode_flags get_stream_from_external has_half has_magma "
    "jiterator memory_snapshot nccl profiler sparse tunable GreenContext MemPool use_mem_pool get_sync_debug_mode set_sync_debug_mode",
    "statistics of memory of the host": "host_memory_stats host_memory_stats_as_nested_dict reset_accumulated_host_memory_stats "
    "reset_peak_host_memory_stats",
    "what the driver's tool nvidia-smi says": "device_memory_used list_gpu_processes memory_usage power_draw clock_rate temperature "
    "utilization",
}


@pytest.fixture
def torch():
    with tensors() as module:
        yield module


@pytest.fixture
def two():
    with tensors(devices=2) as module:
        yield module


def test_pytorchs_names():
    theirs = pytest.importorskip("torch").cuda
    import disttorch

    absent = " ".join(ABSENT.values()).split()
    missing = [
        name for name in theirs.__all__
        if not hasattr(disttorch.cuda, name) and name not in absent and not name.endswith("Storage")
    ]  # fmt: skip
    assert missing == []
    assert not [name for name in absent if name[0] != "*" and hasattr(disttorch.cuda, name)]
    for name in disttorch.cuda.__all__:
        getattr(disttorch.cuda, name)


@pytest.mark.parametrize("name", ["graph", "make_graphed_callables", "Event", "set_stream", "memory_summary", "get_rng_state"])
def test_pytorchs_arguments(name):
    theirs = pytest.importorskip("torch").cuda
    import disttorch

    ours = inspect.signature(getattr(disttorch.cuda, name)).parameters
    others = ("enable_annotations", "check_input_liveness")
    others = ("enable_annotations", "check_input_liveness")
    wanted = [p for p in inspect.signature(getattr(theirs, name)).parameters if p not in others]
    if name != "Event":  # PyTorch's is written in C++
        assert list(ours)[: len(wanted)] == wanted


# --- devices -----------------------------------------------------------------------------------------------------------


def test_the_current_device(two):
    cuda = two.cuda
    assert (cuda.device_count(), cuda.current_device(), cuda.is_available(), cuda.is_initialized()) == (2, 0, True, True)
    with cuda.device(1):
        assert cuda.current_device() == 1
        assert two.ones(1, device="cuda").device == two.device("cuda:1")
        with cuda.device_of(two.ones(1, device="cuda:0")):
            assert cuda.current_device() == 0
        with cuda.device_of(two.ones(1)), cuda.device(None), cuda.device(-1):
            assert cuda.current_device() == 1
    assert cuda.current_device() == 0
    cuda.set_device("cuda:1")
    assert cuda.current_device() == 1
    cuda.set_device(-1)
    assert cuda.current_device() == 1
    cuda.set_device(0)
    with pytest.raises(ValueError, match="expected a CUDA device, but got 'cpu'"):
        cuda.set_device("cpu")


def test_what_a_device_is(two):
    cuda = two.cuda
    p = cuda.get_device_properties("cuda:1")
    assert (p.name, p.major, p.minor, p.total_memory, p.multi_processor_count) == ("Stand-in for a GPU", 9, 0, 80 << 30, 132)
    assert "total_memory=81920MB" in repr(p)
    assert (cuda.get_device_name(), cuda.get_device_capability(1)) == ("Stand-in for a GPU", (9, 0))
    assert cuda.is_bf16_supported()
    assert cuda.is_tf32_supported()
    assert cuda.can_device_access_peer(0, "cuda:1")
    with pytest.raises(AssertionError, match="Invalid device id 5"):
        cuda.can_device_access_peer(0, 5)
    for ask in (cuda.get_device_properties, cuda.get_device_name, cuda.get_device_capability):
        with pytest.raises(AssertionError, match="Invalid device id 2: there are 2 devices"):
            ask(2)


def test_types_of_tensors(torch):
    x = torch.cuda.FloatTensor([1, 2])
    assert (x.is_cuda, x.dtype) == (True, torch.float32)
    assert (isinstance(x, torch.cuda.FloatTensor), isinstance(x, torch.FloatTensor)) == (True, False)
    assert torch.ones(2).type(torch.cuda.HalfTensor).type() == "torch.cuda.HalfTensor"
    try:
        for kind, dtype, device in (("cuda.DoubleTensor", torch.float64, "cuda"), ("FloatTensor", torch.float32, "cpu")):
            torch.set_default_tensor_type(f"torch.{kind}")
            made = torch.ones(2)
            assert (made.dtype, made.device.type) == (dtype, device)
        with torch.device("cuda"):
            torch.set_default_tensor_type(torch.DoubleTensor)
            assert torch.ones(1).is_cuda  # a type of the CPU's tensors takes back only what a type of GPUs' has set
    finally:
        torch.set_default_tensor_type(torch.FloatTensor)


def test_streams_and_events_of_any_device(two):
    stream, event = two.Stream("cuda:1", priority=-1), two.Event("cuda", enable_timing=True)
    assert type(stream) is two.cuda.Stream
    assert (str(stream.device), stream.priority) == ("cuda:1", -1)
    assert type(event) is two.cuda.Event
    assert isinstance(stream, two.Stream)
    assert isinstance(event, two.Event)
    event.record(stream)
    assert str(event.device) == "cuda:1"
    assert type(two.Stream()) is two.cuda.Stream
    assert type(two.Event("cpu")) is two.cpu.Event


def test_the_accelerator(two):
    accelerator = two.accelerator
    found = accelerator.current_accelerator()
    assert (accelerator.is_available(), found, accelerator.device_count()) == (True, two.device("cuda"), 2)
    with accelerator.device_index(1):
        assert accelerator.current_device_index() == 1
        x = two.ones(128, device=found)
        assert x.device.index == 1
        assert accelerator.memory_allocated() == two.cuda.memory_allocated(1) >= 512
    with accelerator.device_index(None):
        assert accelerator.current_device_index() == 0
    stream = two.cuda.Stream()
    accelerator.set_stream(stream)
    assert accelerator.current_stream() == stream
    accelerator.set_stream(two.cuda.default_stream())
    accelerator.synchronize()
    accelerator.set_device_index("cuda:1")
    assert accelerator.current_device_index() == 1
    accelerator.set_device_index(0)
    assert accelerator.get_memory_info() == two.cuda.mem_get_info()
    assert two.get_device_module() is two.get_device_module("cuda:1") is two.cuda
    assert two.get_device_module(two.device("cpu")) is two.cpu


def test_data_parallel(two):
    nn = two.nn
    layer = nn.Linear(3, 2)
    want = layer(two.ones(4, 3)).tolist()
    with pytest.warns(UserWarning, match="DataParallel computes on cuda:0 alone"):
        model = nn.DataParallel(layer)
    with pytest.raises(RuntimeError, match=r"on device cuda:0 \(device_ids\[0\]\) but found one of them on device: cpu"):
        model(two.ones(4, 3))
    model.cuda()
    assert (model.device_ids, model.module is layer, list(model.state_dict())) == ([0, 1], True, ["module.weight", "module.bias"])
    for x in (two.ones(4, 3), two.ones(4, 3, device="cuda:1")):
        out = model(x)
        assert out.device == two.device("cuda:0")
        np.testing.assert_allclose(out.tolist(), want, rtol=1e-6)
    out.sum().backward()
    assert layer.weight.grad.tolist() == [[4.0] * 3] * 2
    elsewhere = nn.parallel.data_parallel(layer, two.ones(4, 3), device_ids=[0], output_device=1)
    assert elsewhere.device == two.device("cuda:1")


def test_a_state_of_random_numbers_is_on_the_host(torch):
    with pytest.raises(TypeError, match=r"on cuda:0: give it \.cpu\(\)"):
        torch.cuda.set_rng_state(torch.cuda.get_rng_state().cuda())


# --- streams -----------------------------------------------------------------------------------------------------------


def test_streams_in_blocks(two):
    cuda = two.cuda
    default = cuda.current_stream()
    assert default == cuda.default_stream()
    assert default.cuda_stream == 0
    a, b = cuda.Stream(), cuda.Stream("cuda:1")
    assert (a.device, b.device, b.device_index) == (two.device("cuda:0"), two.device("cuda:1"), 1)
    with cuda.stream(a):
        assert cuda.current_stream() == a
        with cuda.stream(b):  # its device becomes the current one
            assert (cuda.current_device(), cuda.current_stream(), cuda.current_stream(0)) == (1, b, a)
            with cuda.stream(None):
                assert cuda.current_stream() == b
        assert (cuda.current_device(), cuda.current_stream(), cuda.current_stream(1)) == (0, a, cuda.default_stream(1))
        with a, a:
            assert cuda.current_stream() == a
        with pytest.raises(ZeroDivisionError), cuda.StreamContext(b):
            1 / 0  # noqa: B018
        assert cuda.current_stream() == a
    assert cuda.current_stream() == default
    cuda.set_stream(b)
    assert (cuda.current_device(), cuda.current_stream()) == (1, b)
    cuda.set_stream(cuda.default_stream(0))
    cuda.set_stream(None)
    assert cuda.current_device() == 0


def test_the_current_stream_stays_what_it_is(torch):
    """Where a with-block of CuPy's ends, the stream of the block around it becomes the current one, and not one that was set."""
    cuda = torch.cuda
    side, x = cuda.Stream(), torch.ones(2, 3, device="cuda")
    cuda.synchronize()
    with cuda.stream(side):
        x._array.T.get()  # has such a block
        with side._stream:
            pass
        assert cuda.current_stream() == side
    cuda.set_stream(side)
    x.t().cpu()
    x[:, 1].tolist()
    with cuda.stream(cuda.Stream()):
        x.t().cpu()
    assert cuda.current_stream() == side
    cuda.set_stream(cuda.default_stream())


def test_streams_are_of_a_pool(torch):
    streams = [torch.cuda.Stream() for _ in range(33)]
    assert len(set(streams)) == 32
    assert streams[0] == streams[32]
    high = torch.cuda.Stream(priority=-1)
    assert (high.priority, streams[0].priority, torch.cuda.Stream.priority_range()) == (-1, 0, (0, -1))
    assert high not in streams
    assert high.__cuda_stream__() == (0, high.cuda_stream)
    assert f"cuda_stream={high.cuda_stream:#x}" in repr(high)


def test_work_on_streams_is_ordered_by_events(torch):
    cuda = torch.cuda
    side, main = cuda.Stream(), cuda.current_stream()
    x = torch.arange(10.0, device="cuda")
    event = main.record_event()
    side.wait_event(event)
    with cuda.stream(side):
        y = x * 2
        done = cuda.Event()
        done.record()
    done.wait()
    assert y.sum().item() == 90
    assert done.query()
    assert side.query()


def test_work_without_order_is_found(torch):
    side = torch.cuda.Stream()
    x = torch.arange(10.0, device="cuda")
    with pytest.raises(stand_in.OrderError), torch.cuda.stream(side):
        x * 2
    with stand_in.held(side._stream):
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            y = x * 2
        assert not side.query()
    side.synchronize()
    assert y.sum().item() == 90


def test_events(torch):
    cuda = torch.cuda
    never = cuda.Event()
    assert (never.query(), never.device, never.cuda_event) == (True, None, 0)
    never.synchronize()
    never.wait()
    assert "uninitialized" in repr(never)
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    with pytest.raises(ValueError, match="must be recorded"):
        start.elapsed_time(end)
    start.record()
    torch.ones(10, device="cuda").sum()
    end.record()
    end.synchronize()
    assert start.elapsed_time(end) >= 0
    assert start.device == torch.device("cuda:0")
    with pytest.raises(ValueError, match="enable_timing=True"):
        start.elapsed_time(never)
    with pytest.raises(ValueError, match="exclude each other"):
        cuda.Event(enable_timing=True, interprocess=True)


def test_an_event_belongs_to_a_device(two):
    event = two.cuda.Event()
    event.record(two.cuda.Stream(1))
    assert event.device == two.device("cuda:1")
    with pytest.raises(RuntimeError, match="Event device 1 does not match recording stream's device 0"):
        event.record(two.cuda.Stream(0))
    two.cuda.current_stream(0).wait_event(event)


def test_a_stream_of_another_library(torch):
    theirs = torch.cuda.Stream()
    ours = torch.cuda.ExternalStream(theirs.cuda_stream)
    assert isinstance(ours, torch.cuda.Stream)
    assert ours == theirs
    assert hash(ours) == hash(theirs)
    with torch.cuda.stream(ours):
        assert torch.cuda.current_stream() == theirs
        x = torch.ones(3, device="cuda")
    ours.synchronize()
    assert x.tolist() == [1, 1, 1]
    del ours
    with torch.cuda.stream(theirs):  # it still is there
        x = x + 1


# --- random numbers ----------------------------------------------------------------------------------------------------


@needs_compiler
def test_seeds_and_states(two):
    cuda = two.cuda

    def draw(device="cuda:0"):
        with cuda.device(device):
            return two.rand(5, device=device).cpu().numpy()

    cuda.manual_seed_all(5)
    assert cuda.initial_seed() == 5
    first, other = draw(), draw("cuda:1")
    states = cuda.get_rng_state_all()
    state = cuda.get_rng_state()
    second = draw()
    assert not np.array_equal(first, second)
    cuda.set_rng_state(state)
    np.testing.assert_array_equal(draw(), second)
    other_second = draw("cuda:1")
    cuda.set_rng_state_all(states)
    np.testing.assert_array_equal(draw(), second)
    np.testing.assert_array_equal(draw("cuda:1"), other_second)
    cuda.manual_seed(5)
    np.testing.assert_array_equal(draw(), first)
    cuda.manual_seed_all(5)
    np.testing.assert_array_equal(draw("cuda:1"), other)
    cuda.seed()
    cuda.seed_all()
    assert not np.array_equal(draw(), first)
    with pytest.raises(TypeError, match="ByteTensor"):
        cuda.set_rng_state([1])


# --- ranges ------------------------------------------------------------------------------------------------------------


def test_ranges_of_profilers(torch):
    from tests.stand_in import modules

    modules.ranges.clear()
    with torch.cuda.nvtx.range("step {}", 3):
        torch.cuda.nvtx.mark("here")
    torch.cuda.nvtx.range_push("a")
    torch.cuda.nvtx.range_pop()
    assert modules.ranges == ["step 3", "mark here", "", "a", ""]
