"""Training over NCCL on the stand-in: gradients' reductions on their own stream, without the host, in the right order, and captured."""

import contextlib
import gc
import threading
import time

import numpy as np
import pytest

import collectives
import disttorch
import disttorch.distributed as dist
from collectives.errors import CommunicationError
from collectives.nccl import NCCLTransport
from collectives.stream_work import StreamWork
from disttorch import cuda, nn
from disttorch.distributed import groups
from disttorch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from disttorch.distributed.gpus import choose_gpu
from disttorch.distributed.process_group import _split
from disttorch.nn.parallel import DistributedDataParallel
from disttorch.nn.parallel.distributed import _MixedPrecision
from tests import stand_in
from tests.cuda.ranks import begun, on_ranks
from tests.stand_in import host_cuda
from tests.stand_in.nccl import hub

pytestmark = [pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available())), pytest.mark.usefixtures("cupy")]

SMALL = 1e-4  # MiB: several buckets in a small model


def numbers(*values):
    return disttorch.tensor(values, device="cuda")


ONE_AT_A_TIME = threading.Lock()


def network(device):
    with ONE_AT_A_TIME:  # the ranks are threads here, and draw from one generator
        disttorch.default_generator.manual_seed(7)  # the CPU's alone: manual_seed is for all devices, also those of the other ranks
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    return model.double().to(device)


def inputs(rank, step, device):
    rng = np.random.default_rng([rank, step])
    return disttorch.from_numpy(rng.standard_normal((3, 4))).to(device)


def trained(model, batches, optimizer=None):
    optimizer = optimizer or disttorch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for x in batches:
        model(x).pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def values(model):
    return [p.detach().cpu().numpy() for p in model.parameters()]


@pytest.fixture(scope="module")
def expected():
    """The model after five steps on the joined batches of two ranks, on the CPU."""
    model = network("cpu")
    trained(model, [disttorch.cat([inputs(rank, step, "cpu") for rank in range(2)]) for step in range(5)])
    return values(model)


# Waiting -------------------------------------------------------------------------------------------------------------


def test_waiting_is_a_matter_of_streams(cupy, tmp_path):
    """The host goes on while the GPU's stream still has to come to the collective."""

    def program(group, meet):
        communicator, x = group.communicator, numbers(1.0, group.rank() + 2.0)
        communicator.all_reduce(x._array)  # makes what NCCL needs
        meet()
        with stand_in.held(cupy.cuda.get_current_stream()):
            work = group.communicator.all_reduce(x._array, async_op=True)
            work.wait()
            assert not work.done() and work.settled and not work.test()
            twice = x * 2
            sync = communicator.all_reduce(x._array)
            assert sync.done() and sync.result() is x._array, "to the caller it is over"
            with pytest.raises(TimeoutError, match=r"all_reduce: not complete after 0.05 s"):
                work.wait(0.05)
            meet()
        work.complete()
        meet()
        return twice.tolist(), x.tolist()

    assert on_ranks(2, program, tmp_path) == [([8.0, 20.0], [8.0, 20.0])] * 2


def test_blocking_wait_waits_on_the_host(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_NCCL_BLOCKING_WAIT", "1")

    def program(group, meet):
        work = dist.all_reduce(x := numbers(1.0), group=group, async_op=True)
        work.wait()
        return work.is_completed() and work._works[0].done(), x.tolist()

    assert on_ranks(2, program, tmp_path) == [(True, [2.0])] * 2


def test_futures_are_there_when_streams_are_in_order(cupy, tmp_path):
    def program(group, meet):
        dist.all_reduce(numbers(1.0), group=group)
        meet()
        with stand_in.held(cupy.cuda.get_current_stream()):
            work = dist.all_reduce(x := numbers(group.rank() + 1.0), group=group, async_op=True)
            future = work.get_future().then(lambda done: done.value()[0] / 2)
            assert not future.done()
            half = future.wait()
            together = group.allreduce([x])
            together.wait()
            meet()
        return half.tolist()

    assert on_ranks(2, program, tmp_path) == [[1.5]] * 2


def test_a_forgotten_wait_is_found(monkeypatch, tmp_path):
    def program(group, meet):
        x = numbers(1.0)
        group.communicator.all_reduce(x._array)
        return (x + 1).tolist()

    assert on_ranks(2, program, tmp_path) == [[3.0]] * 2
    monkeypatch.setattr(StreamWork, "wait", lambda self, timeout=None: None)
    with pytest.raises(stand_in.OrderError, match=r"add .* reads memory that nccl allReduce .* writes"):
        on_ranks(2, program, tmp_path)


def test_a_collective_that_does_not_wait_for_the_caller_is_found(cupy, monkeypatch, tmp_path):
    def program(group, meet):
        x = numbers(1.0) + 1
        group.communicator.all_reduce(x._array)
        return x.tolist()

    assert on_ranks(2, program, tmp_path) == [[4.0]] * 2
    monkeypatch.setattr(NCCLTransport, "_start", without_called(NCCLTransport._start, cupy))
    with pytest.raises(stand_in.OrderError, match=r"nccl allReduce .* memory that add"):
        on_ranks(2, program, tmp_path)


def without_called(start, cupy):
    def changed(self, calls):
        for each in calls:
            each.work.called = cupy.cuda.Event(disable_timing=True)
        start(self, calls)

    return changed


def test_arrays_live_until_the_collective_is_over(cupy, monkeypatch, tmp_path):
    """The caller lets go of an array that a stream still works on, and asks for another one."""

    def program(group, meet):
        communicator = group.communicator
        communicator.all_reduce(numbers(1.0)._array)
        x = cupy.ones(1000)
        communicator.all_reduce(x, async_op=True)
        del x
        y = cupy.zeros(1000)  # would take the same memory
        meet()
        return float(y.sum())

    assert on_ranks(2, program, tmp_path) == [0.0, 0.0]
    make = StreamWork.__init__
    monkeypatch.setattr(StreamWork, "__init__", lambda self, *arguments: make(self, *arguments[:4], (), arguments[5]))
    monkeypatch.setattr("collectives.group.retain", lambda work: None)
    monkeypatch.setattr(collectives.Work, "_output", property(lambda self: None, lambda self, value: None))
    with pytest.raises(stand_in.OrderError, match=r"writes memory that nccl allReduce"):
        on_ranks(2, program, tmp_path)


def test_what_follows_is_done_on_the_collectives_stream(cupy, tmp_path):
    """A result that is brought back into an array with gaps is there when the collective is."""

    def program(group, meet):
        whole = cupy.ones((4, 2))
        work = group.communicator.all_reduce(whole[:, 0], async_op=True)
        while not work.test():
            cupy.cuda.get_current_stream().synchronize()
        return cupy.asnumpy(whole).tolist()

    assert on_ranks(2, program, tmp_path) == [[[2.0, 1.0]] * 4] * 2


def test_together_with_arrays_of_the_host(cupy, tmp_path):
    def program(group, meet):
        communicator, on_gpu, on_host = group.communicator, cupy.ones(2), np.ones(3)
        communicator.all_reduce(cupy.ones(1))
        with communicator.coalesce() as both:
            communicator.all_reduce(on_gpu)
            communicator.all_reduce(on_host)
        both.wait()
        assert both.settled
        with communicator.coalesce() as inside:
            work = communicator.all_reduce(on_gpu)
            with pytest.raises(CommunicationError, match="before its group has ended"):
                work.wait()
        inside.wait(10)
        return cupy.asnumpy(on_gpu).tolist(), on_host.tolist()

    assert on_ranks(2, program, tmp_path) == [([4.0, 4.0], [2.0, 2.0, 2.0])] * 2


def test_collectives_happen_where_their_tensors_are(cupy, monkeypatch, tmp_path):
    """Whatever device is the current one: in other threads it is the first."""
    monkeypatch.setattr(groups, "groups", [])

    def program(group, meet):
        groups.groups.append(group)
        rank, place = group.rank(), f"cuda:{group.rank()}"
        x = disttorch.full((3,), rank + 1.0, device=place)
        received, mine, rows = (disttorch.zeros(shape, device=place) for shape in (3, 3, (2, 3)))
        strided = disttorch.arange(6.0, device=place).view(2, 3).t()
        communicator = begun(cupy, group, meet)
        cuda.set_device(0)
        work = dist.all_reduce(total := x * 1, group=group, async_op=True)
        work.wait()
        twice = total * 2
        dist.all_reduce(strided, dist.ReduceOp.AVG, group=group)
        parts = [disttorch.zeros(3, device=place) for _ in range(2)]
        dist.all_gather(parts, x, group=group)
        dist.all_gather_into_tensor(rows, x, group=group)
        dist.reduce_scatter(mine, [x, x + 1], group=group)
        ops = [dist.P2POp(dist.isend, x, 1 - rank, group), dist.P2POp(dist.irecv, received, 1 - rank, group)]
        for work in dist.batch_isend_irecv(ops):
            work.wait()
        communicator.send(x._array, rank, async_op=True)
        communicator.recv((itself := x * 0)._array, rank)
        found = [t.tolist() for t in (twice, strided + 0, *parts, rows + 0, mine + 0, received + 0, itself + 0)]
        cuda.set_device(rank)
        return found

    whole = [[1.0] * 3, [2.0] * 3]
    same = [[6.0] * 3, [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]], *whole, whole]
    assert on_ranks(2, program, tmp_path) == [[*same, [3.0] * 3, whole[1], whole[0]], [*same, [5.0] * 3, whole[0], whole[1]]]


# DistributedDataParallel ---------------------------------------------------------------------------------------------

DDP = {
    "plain": {},
    "own gradients": {"gradient_as_bucket_view": False},
    "unused": {"find_unused_parameters": True},
    "static": {"static_graph": True},
}


@pytest.mark.parametrize("options", DDP.values(), ids=DDP)
def test_training_is_that_on_the_joined_batch(options, expected, tmp_path):
    def program(group, meet):
        model = DistributedDataParallel(network("cuda"), [group.rank()], process_group=group, bucket_cap_mb=SMALL, **options)
        trained(model, [inputs(group.rank(), step, "cuda") for step in range(5)])
        times = model.communication_times
        assert times.total > 0 and times.exposed >= 0
        return values(model)

    first, second = on_ranks(2, program, tmp_path)
    for a, b, c in zip(first, second, expected):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("options", DDP.values(), ids=DDP)
def test_training_needs_no_current_device(options, expected, tmp_path):
    """Scripts that put a model on the rank's GPU need not say `set_device`."""

    def program(group, meet):
        rank = group.rank()
        net = network(f"cuda:{rank}")
        cuda.set_device(0)
        model = DistributedDataParallel(net, [rank], process_group=group, bucket_cap_mb=SMALL, **options)
        trained(model, [inputs(rank, step, f"cuda:{rank}") for step in range(5)])
        assert model.communication_times.total > 0 and cuda.current_device() == 0
        return values(model)

    first, second = on_ranks(2, program, tmp_path)
    for a, b, c in zip(first, second, expected):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=1e-12, atol=1e-13)


MIXED = {
    # the configuration, and how close training comes to that in float64
    "in float32": (_MixedPrecision(disttorch.float32), 1e-5),
    "in bfloat16": (_MixedPrecision(disttorch.bfloat16), 5e-2),
    "reduced in float16": (_MixedPrecision(disttorch.float32, disttorch.float16, keep_low_precision_grads=True), 1e-2),
}


@pytest.mark.parametrize("name", MIXED)
def test_mixed_precision(name, expected, tmp_path):
    config, tolerance = MIXED[name]

    def program(group, meet):
        model = DistributedDataParallel(network("cuda"), process_group=group, bucket_cap_mb=SMALL, mixed_precision=config)
        model(inputs(group.rank(), 0, "cuda")).pow(2).mean().backward()
        dtypes = {p.grad.dtype for p in model.parameters()}
        for p in model.parameters():
            p.grad = None
        trained(model, [inputs(group.rank(), step, "cuda") for step in range(5)])
        return dtypes, values(model)

    (first_dtypes, first), (_, second) = on_ranks(2, program, tmp_path)
    assert first_dtypes == {config.reduce_dtype if config.keep_low_precision_grads else disttorch.float64}
    for a, b, c in zip(first, second, expected):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("hook", [None, default_hooks.allreduce_hook])
def test_delayed_reduction(hook, expected, tmp_path):
    def program(group, meet):
        net = network("cuda")
        late = [("4.weight", net[4].weight), ("4.bias", net[4].bias)]
        model = DistributedDataParallel(
            net, process_group=group, bucket_cap_mb=SMALL, delay_all_reduce_named_params=late, param_to_hook_all_reduce=net[2].bias
        )
        if hook is not None:
            model.register_comm_hook(group, hook)
        trained(model, [inputs(group.rank(), step, "cuda") for step in range(5)])
        return values(model)

    first, second = on_ranks(2, program, tmp_path)
    for a, b, c in zip(first, second, expected):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=1e-12, atol=1e-13)


HOOKS = {
    "all_reduce": (default_hooks.allreduce_hook, None, 1e-12),
    "fp16": (default_hooks.fp16_compress_hook, None, 1e-2),
    "bf16": (default_hooks.bf16_compress_hook, None, 5e-2),
    "PowerSGD": (powerSGD_hook.powerSGD_hook, 2, None),
    "a program's own": ("own", None, 1e-12),
}


@pytest.mark.parametrize("name", HOOKS)
def test_hooks(name, expected, tmp_path):
    hook, rank, tolerance = HOOKS[name]

    def program(group, meet):
        model = DistributedDataParallel(network("cuda"), process_group=group, bucket_cap_mb=SMALL)
        state = group if rank is None else powerSGD_hook.PowerSGDState(group, rank, start_powerSGD_iter=2)

        def own(state, bucket):
            work = dist.all_reduce(bucket.buffer().div_(state.size()), group=state, async_op=True)
            return work.get_future().then(lambda done: done.value()[0])

        own.synchronizes = False  # it does its own reduction, among the program's collectives
        model.register_comm_hook(state, own if hook == "own" else hook)
        trained(model, [inputs(group.rank(), step, "cuda") for step in range(5)])
        return values(model)

    first, second = on_ranks(2, program, tmp_path)
    for a, b, c in zip(first, second, expected):
        np.testing.assert_array_equal(a, b)
        if tolerance is not None:
            np.testing.assert_allclose(a, c, rtol=tolerance, atol=tolerance)


def test_a_step_waits_for_nothing_on_the_host(tmp_path):
    """Forward, backward with its reductions, clipping and the optimizer's step; buffers are copied, too."""

    def program(group, meet):
        model = DistributedDataParallel(nn.Sequential(network("cuda"), nn.BatchNorm1d(2).double().to("cuda")), process_group=group)
        optimizer = disttorch.optim.SGD(model.parameters(), lr=0.1)

        def step(i):
            model(inputs(group.rank(), i, "cuda")).pow(2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        for i in range(3):
            step(i)
        batches = [inputs(group.rank(), i, "cuda") for i in range(3, 6)]
        meet()
        with stand_in.no_synchronisation() if group.rank() == 0 else contextlib.nullcontext():
            meet()
            model(batches[0]).pow(2).mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            meet()
        meet()

    on_ranks(2, program, tmp_path)


def test_a_missing_gradient_is_said_by_all_ranks_in_the_pass_after_the_next(tmp_path):
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(1, 1), nn.Linear(1, 1)

        def forward(self, x, both):
            return self.left(x) + (self.right(x) if both else 0)

    def program(group, meet):
        model = DistributedDataParallel(Fork().to("cuda"), process_group=group)
        x = disttorch.ones(2, 1, device="cuda")
        for both in (True, True, group.rank() == 0, True):
            model(x, both).sum().backward()
        with pytest.raises(RuntimeError, match=r"2 parameter\(s\) got no gradient in this backward pass on rank 1: right.weight, right"):
            model(x, True)
        return True

    assert on_ranks(2, program, tmp_path) == [True, True]


@pytest.mark.parametrize("current", ["its own", "the first"])
def test_uneven_inputs_and_synchronized_statistics(current, monkeypatch, tmp_path):
    def program(group, meet):
        rank, place = group.rank(), f"cuda:{group.rank()}"
        net = nn.Linear(2, 1).double().to(place)
        if current == "the first":
            cuda.set_device(0)
        model = DistributedDataParallel(net, process_group=group)
        with model.join():
            for step in range(2 + 2 * rank):
                model(disttorch.ones(1, 2, dtype=disttorch.float64, device=place) * step).sum().backward()
        norm = nn.SyncBatchNorm(2, process_group=group, dtype=disttorch.float64).to(place)
        x = disttorch.from_numpy(np.arange(6.0).reshape(3, 2) * (rank + 1)).to(place).requires_grad_()
        (norm(x) ** 3).sum().backward()
        return values(model), norm.running_var.cpu().numpy(), x.grad.cpu().numpy()

    monkeypatch.setattr(groups, "groups", [None])  # what is_initialized asks
    first, second = on_ranks(2, program, tmp_path)
    for a, b in zip(first[0], second[0]):
        np.testing.assert_array_equal(a, b)
    norm = nn.BatchNorm1d(2).double()
    x = disttorch.from_numpy(np.concatenate([np.arange(6.0).reshape(3, 2) * (rank + 1) for rank in range(2)])).requires_grad_()
    (norm(x) ** 3).sum().backward()
    np.testing.assert_allclose(first[1], norm.running_var.numpy(), rtol=1e-12)
    np.testing.assert_allclose(np.concatenate([first[2], second[2]]), x.grad.numpy(), rtol=1e-9, atol=1e-12)


def capture(graph, stream=None):
    """The other rank, which is a thread here, may do what it wants meanwhile, and has streams of its own device."""
    return cuda.graph(graph, capture_error_mode="relaxed", stream=stream or cuda.Stream())


# Capture -------------------------------------------------------------------------------------------------------------


def test_a_captured_step_is_the_eager_one(expected, tmp_path):
    def program(group, meet):
        rank = group.rank()
        model = DistributedDataParallel(network("cuda"), process_group=group, bucket_cap_mb=SMALL)
        optimizer = disttorch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        side = cuda.Stream()
        x = inputs(rank, 0, "cuda")
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):
            trained(model, [inputs(rank, step, "cuda") for step in range(2)], optimizer)
            too_early = pytest.raises(RuntimeError, match="run two whole training steps before the capture")
            with too_early, capture(cuda.CUDAGraph(), stream=side):
                DistributedDataParallel(network("cuda"), process_group=group, init_sync=False)(x)
        cuda.current_stream().wait_stream(side)
        graph = cuda.CUDAGraph()
        with capture(graph):
            model(x).pow(2).mean().backward()
            optimizer.step()
        captured = [call for call in group.lane.job.recorder.calls if call[-1]]
        for step in range(2, 5):
            x.copy_(inputs(rank, step, "cuda"))
            graph.replay()
        assert model.communication_times == (0.0, 0.0)
        return values(model), len(captured)

    (first, calls), (second, _) = on_ranks(2, program, tmp_path)
    assert calls > 1
    for a, b, c in zip(first, second, expected):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=1e-12, atol=1e-13)


def test_an_operation_of_a_graph_is_waited_for_whoever_asked_before(cupy, tmp_path):
    """What looks after works meanwhile takes none of a graph's for complete."""

    def program(group, meet):
        communicator, graph = group.communicator, cuda.CUDAGraph()
        x, y = numbers(1.0), numbers(0.0)
        communicator.all_reduce(x._array)
        with capture(graph):
            work = communicator.all_reduce(x._array, async_op=True)
            assert not work.test() and work.captured
            collectives.work.progress()
            work.wait()
            assert work.done()
            y.copy_(x * 2)
        for _ in range(2):
            graph.replay()
        return x.tolist(), y.tolist()

    assert on_ranks(2, program, tmp_path) == [([8.0], [16.0])] * 2


@pytest.mark.parametrize("end", ["shut down", "abandoned"])
def test_a_group_ends_although_a_graph_of_its_operations_is_there(end, cupy, tmp_path):
    """NCCL would wait until it is gone, at the end of a program for ever."""
    graphs, threads = [], threading.active_count()

    def program(group, meet):
        communicator, graph, x = group.communicator, cuda.CUDAGraph(), numbers(1.0)
        communicator.all_reduce(x._array)
        with capture(graph):
            communicator.all_reduce(x._array)
        graphs.append(graph)
        meet()
        if end == "abandoned":
            communicator._device_transports["cuda"].abandon()

    on_ranks(2, program, tmp_path)
    expected = ["abort"] * 4 if end == "abandoned" else []
    deadline = time.monotonic() + 60
    while len(hub.ended) < len(expected) and time.monotonic() < deadline:
        time.sleep(0.01)  # threads do it, so that nobody has to wait for graphs
    assert [how for how, _ in hub.ended] == expected
    graphs.clear()
    gc.collect()
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)


def test_the_current_stream_stays_whoever_communicates(cupy, tmp_path):
    def program(group, meet):
        communicator, mine = group.communicator, cuda.Stream()
        before = cuda.current_stream()
        cuda.set_stream(mine)
        work = communicator.all_reduce(cupy.ones(1), async_op=True)
        work.then(lambda: None)
        work.wait()
        assert cuda.current_stream() == mine
        with cuda.stream(cuda.Stream()), cuda.stream(mine):
            communicator.all_reduce(cupy.ones(1), "avg")
            assert cuda.current_stream() == mine
        assert cuda.current_stream() == mine
        cuda.set_stream(before)

    on_ranks(2, program, tmp_path)


def test_no_operation_is_complete_before_it_is_marked(cupy, monkeypatch, tmp_path):
    """Other threads ask at any time, and an event that was not recorded yet has happened."""
    record = cupy.cuda.Event.record

    def asked(event, stream=None):
        collectives.work.progress()
        record(event, stream)

    monkeypatch.setattr(cupy.cuda.Event, "record", asked)

    def program(group, meet):
        communicator = group.communicator
        communicator.all_reduce(cupy.ones(1))
        if group.rank() == 1:
            meet()
        work = communicator.all_reduce(cupy.ones(1), async_op=True)
        if group.rank() == 0:
            work.then(lambda: None)
            assert not work.done()
            meet()
        work.complete()

    on_ranks(2, program, tmp_path)


def test_what_a_capture_cannot_have_says_so(cupy, tmp_path):
    def program(group, meet):
        refused = pytest.raises(CommunicationError, match="cannot be made while a CUDA graph is captured; run one step")
        with refused, capture(cuda.CUDAGraph()):
            group.communicator.all_reduce(cupy.ones(1))

    on_ranks(2, program, tmp_path)


# Groups --------------------------------------------------------------------------------------------------------------


def test_groups_are_divided_and_not_introduced_again(cupy, monkeypatch, tmp_path):
    introduced = []
    make = NCCLTransport._introduce
    monkeypatch.setattr(NCCLTransport, "_introduce", lambda self, timeout: introduced.append(self.rank) or make(self, timeout))

    def program(group, meet):
        groups.groups.append(group)
        communicator = group.communicator
        communicator.all_reduce(cupy.ones(1))
        lane = group.lane
        lane.all_reduce(x := cupy.ones(1))
        part = communicator.split(group.rank() % 2)
        part.all_reduce(y := cupy.ones(1))
        alone = communicator.split(0 if group.rank() == 1 else None)
        assert (alone is None) == (group.rank() != 1)
        if alone is not None:
            alone.broadcast(y)
            alone.close()
        counts = [1, 3, 0]
        gathered = cupy.zeros(4)
        communicator.all_gather(gathered, cupy.full(counts[group.rank()], float(group.rank())), counts=counts)
        mine = cupy.zeros(counts[group.rank()])
        communicator.reduce_scatter(mine, gathered, "avg", counts=counts)
        part.close()
        return float(x[0]), float(y[0]), part.size, cupy.asnumpy(gathered).tolist(), cupy.asnumpy(mine).tolist()

    monkeypatch.setattr(groups, "groups", [])
    whole = [0.0, 1.0, 1.0, 1.0]
    assert on_ranks(3, program, tmp_path) == [
        (3.0, 2.0, 2, whole, [0.0]), (3.0, 1.0, 1, whole, [1.0, 1.0, 1.0]), (3.0, 2.0, 2, whole, [])
    ]  # fmt: skip
    assert sorted(introduced) == [0, 1, 2]
    assert _split  # new_group and split_group divide the same way


def test_two_ranks_on_one_gpu(cupy, monkeypatch, tmp_path):
    def program(group, meet):
        cuda.set_device(0)
        with cuda.stream(cuda.Stream()):  # threads share the default stream, processes do not
            dist.all_reduce(x := numbers(1.0), group=group)
            return x.tolist()

    said = r"NCCL was asked for, but ranks 0 and 1 .* use the same GPU .*LOCAL_RANK.*NCCL_MULTI_RANK_GPU_ENABLE=1"
    with pytest.raises(CommunicationError, match=said):
        on_ranks(2, program, tmp_path)
    monkeypatch.setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1")
    monkeypatch.setattr(cupy.cuda.nccl, "get_version", lambda: 23000)
    monkeypatch.setattr("tests.stand_in.nccl.SHARES_GPUS", 0)
    assert on_ranks(2, program, tmp_path) == [[2.0], [2.0]]


@pytest.mark.parametrize(("environment", "before", "device_id", "expected"), [
    ({"LOCAL_RANK": "3", "RANK": "3", "WORLD_SIZE": "8"}, 0, None, 1),
    ({"LOCAL_RANK": "3", "RANK": "3", "WORLD_SIZE": "8"}, 0, "cuda:0", 0),
    ({"LOCAL_RANK": "0", "RANK": "4", "WORLD_SIZE": "8"}, 1, None, 1),
    ({"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2"}, 0, "cuda", 1),
    ({}, 0, None, 0),
])  # fmt: skip
def test_a_rank_uses_the_gpu_of_its_local_rank(environment, before, device_id, expected, monkeypatch, tmp_path):
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)

    def program(group, meet):
        cuda.set_device(before)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        choose_gpu(group, "nccl", device_id)
        assert ("cuda" in group.communicator._device_transports) is (device_id is not None)
        return cuda.current_device()

    hub.reset()
    stand_in.set_count(2)
    from tests.cuda import ranks

    monkeypatch.setattr(ranks.stand_in, "set_count", lambda count: None)
    assert on_ranks(1, program, tmp_path) == [expected]
