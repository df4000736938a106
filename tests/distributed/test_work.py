"""Works: waiting, asking, futures; collectives that go on together."""

import time
from datetime import timedelta

import pytest

import collectives
import disttorch
import disttorch.distributed as dist
from disttorch.futures import collect_all

pytestmark = pytest.mark.mpi(min_size=1)


def total(value=0):
    return sum(r + value for r in range(dist.get_world_size()))


@pytest.mark.parametrize("timeout", [None, timedelta(0), timedelta(seconds=60), 60.0])
def test_waiting(timeout):
    x = disttorch.tensor([float(dist.get_rank())])
    work = dist.all_reduce(x, async_op=True)
    assert work.wait(timeout) is True
    assert x.item() == total()
    assert work.is_completed()
    assert work.is_success()
    assert work.exception() is None
    assert work.result() == [x]
    work.synchronize()
    assert repr(work) == "<Work all_reduce: complete>"
    with pytest.raises(RuntimeError, match="may only be called on completed work objects that correspond to a recv"):
        work.source_rank()


def test_asking_is_enough():
    x = [disttorch.empty(1) for _ in range(dist.get_world_size())]
    work = dist.all_gather(x, disttorch.tensor([float(dist.get_rank())]), async_op=True)
    deadline = time.monotonic() + 60
    while not work.is_completed():
        assert time.monotonic() < deadline
    assert [t.item() for t in x] == list(range(dist.get_world_size()))


@pytest.mark.parametrize("end", ["the future is waited for", "the work is waited for", "the work is asked"])
def test_futures(end):
    x = disttorch.tensor([float(dist.get_rank())])
    work = dist.all_reduce(x, async_op=True)
    seen = []
    mean = work.get_future().then(lambda done: done.value()[0] / dist.get_world_size())
    work.get_future().add_done_callback(lambda done: seen.append(done.value()[0].item()))
    if end == "the work is waited for":
        work.wait()
    elif end == "the work is asked":
        deadline = time.monotonic() + 60
        while not work.is_completed():
            assert time.monotonic() < deadline
    assert mean.wait().item() == total() / dist.get_world_size()
    assert seen == [total()]
    assert work.get_future() is work.get_future()
    assert work.get_future().done()


def test_a_collective_in_a_callback():
    """As hooks of DistributedDataParallel do: the second collective starts when the first is complete."""
    x = disttorch.tensor([float(dist.get_rank())])
    future = dist.all_reduce(x, async_op=True).get_future()
    second = future.then(lambda done: dist.all_reduce(done.value()[0], async_op=True).get_future().wait()[0])
    assert second.wait().item() == total() * dist.get_world_size()


def test_many_futures():
    parts = [disttorch.tensor([float(dist.get_rank() + i)]) for i in range(4)]
    together = collect_all([dist.all_reduce(part, async_op=True).get_future() for part in parts])
    assert [future.value()[0].item() for future in together.wait()] == [total(i) for i in range(4)]


def test_a_barrier_has_no_results():
    work = dist.barrier(async_op=True)
    assert work.get_future().wait() == []
    assert work.result() == []


@pytest.mark.mpi(min_size=2)
def test_errors_come_with_the_future():
    """A message that is longer than what waits for it."""
    rank = dist.get_rank()
    if rank == 0:
        dist.send(disttorch.ones(5), 1, tag=3)
    elif rank == 1:
        work = dist.irecv(disttorch.ones(2), 0, tag=3)
        told = work.get_future().then(lambda done: "told" if done.done() else "not told")
        with pytest.raises(dist.DistBackendError, match="recv"):
            work.get_future().wait()
        with pytest.raises(collectives.CommunicationError):
            work.wait()
        assert told.wait() == "told"
        assert not work.is_success()
        assert isinstance(work.exception(), dist.DistError)


@pytest.mark.parametrize("async_ops", [False, True])
def test_together(async_ops):
    rank, size = dist.get_rank(), dist.get_world_size()
    a, b = disttorch.tensor([float(rank)]), disttorch.tensor([rank + 1.0, 2.0])
    rows = disttorch.zeros(size)
    part = disttorch.zeros(1)
    many = [disttorch.tensor([float(rank)]) for _ in range(3)]
    with dist._coalescing_manager(async_ops=async_ops) as together:
        assert dist.all_reduce(a) is None
        work = dist.all_reduce(b, dist.ReduceOp.MAX, async_op=True)
        dist.all_gather_into_tensor(rows, disttorch.tensor([float(rank)]))
        dist.reduce_scatter_tensor(part, disttorch.arange(size).float())
        dist.all_reduce_coalesced(many)
    if async_ops:
        together.wait()
    assert a.item() == total()
    assert b.tolist() == [size, 2]
    assert rows.tolist() == list(range(size))
    assert part.item() == rank * size
    assert [m.item() for m in many] == [total()] * 3
    assert work.is_completed()
    assert len(together.works) == 1
    assert len(together.works[0].result()) == 7


def test_blocks_do_not_nest_and_end_with_errors():
    x = disttorch.ones(1)
    with dist._coalescing_manager(), pytest.raises(ValueError, match="open already"):  # noqa: SIM117
        with dist._coalescing_manager():
            pass
    with pytest.raises(KeyError), dist._coalescing_manager():
        raise KeyError("in the block")
    dist.all_reduce(x)
    assert x.item() == dist.get_world_size()


def test_methods_of_groups_return_works():
    rank, size = dist.get_rank(), dist.get_world_size()
    world = dist.group.WORLD
    x = disttorch.tensor([float(rank)])
    world.allreduce([x], dist.ReduceOp.MAX).wait()
    assert x.item() == size - 1
    world.allreduce(x).wait()
    assert x.item() == size * (size - 1)
    world.broadcast([x.fill_(rank)], root=size - 1).wait()
    assert x.item() == size - 1
    world.reduce(x, root=0, op=dist.ReduceOp.SUM).wait()
    assert x.item() == (size * (size - 1) if rank == 0 else size - 1)
    rows = disttorch.zeros(size)
    world.all_gather_single(rows, disttorch.tensor([float(rank)])).wait()
    assert rows.tolist() == list(range(size))
    world.reduce_scatter_single(x, rows).wait()
    assert x.item() == rank * size
    out = disttorch.zeros(size)
    world.alltoall_base(out, disttorch.full((size,), float(rank)), [], []).wait()
    assert out.tolist() == list(range(size))
    world.barrier().wait()
    world.monitored_barrier(timedelta(seconds=60))


def _options(kind, **fields):
    made = getattr(dist.distributed_c10d, kind)()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


SOON = timedelta(seconds=0.3)
ONE = disttorch.ones(1)
LIMITED = {
    "dist.barrier": lambda g: dist.barrier(g, timeout=SOON),
    "dist.barrier, async": lambda g: dist.barrier(g, True, timeout=SOON).wait(),
    "barrier": lambda g: g.barrier(SOON).wait(),
    "barrier, opts": lambda g: g.barrier(_options("BarrierOptions", timeout=SOON)).wait(),
    "allreduce": lambda g: g.allreduce(ONE, timeout=SOON).wait(),
    "allreduce, by place": lambda g: g.allreduce([ONE], dist.ReduceOp.SUM, 0.3).wait(),
    "allreduce, opts": lambda g: g.allreduce([ONE], _options("AllreduceOptions", timeout=SOON)).wait(),
    "allreduce, a future": lambda g: g.allreduce(ONE, timeout=SOON).get_future().wait(),
    "allreduce_coalesced": lambda g: g.allreduce_coalesced([ONE, ONE], _options("AllreduceCoalescedOptions", timeout=SOON)).wait(),
    "broadcast": lambda g: g.broadcast(ONE, 1, timeout=SOON).wait(),
    "broadcast, opts": lambda g: g.broadcast([ONE], opts=_options("BroadcastOptions", rootRank=1, timeout=SOON)).wait(),
    "reduce": lambda g: g.reduce(ONE, 0, timeout=SOON).wait(),
    "allgather": lambda g: g.allgather([ONE.clone() for _ in range(g.size())], ONE, timeout=SOON).wait(),
    "gather": lambda g: g.gather([ONE.clone() for _ in range(g.size())], ONE, 0, timeout=SOON).wait(),
    "scatter": lambda g: g.scatter(ONE.clone(), [], 1, timeout=SOON).wait(),
    "reduce_scatter": lambda g: g.reduce_scatter(ONE.clone(), [ONE] * g.size(), timeout=SOON).wait(),
    "all_gather_single": lambda g: g.all_gather_single(disttorch.ones(g.size()), ONE, timeout=SOON).wait(),
    "reduce_scatter_single": lambda g: g.reduce_scatter_single(ONE.clone(), disttorch.ones(g.size()), timeout=SOON).wait(),
    "alltoall": lambda g: g.alltoall([ONE.clone() for _ in range(g.size())], [ONE] * g.size(), timeout=SOON).wait(),
    "alltoall_base": lambda g: g.alltoall_base(disttorch.ones(g.size()), disttorch.ones(g.size()), [], [], timeout=SOON).wait(),
}


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", LIMITED)
def test_each_call_may_have_a_timeout_of_its_own(name):
    group = dist.new_group()
    if dist.get_rank() == 0:
        began = time.monotonic()
        with pytest.raises(collectives.CollectiveTimeoutError, match=r"timeout 0\.3 s"):
            LIMITED[name](group)
        assert 0.3 <= time.monotonic() - began < 60
        assert group.communicator.timeout == dist.group.WORLD.communicator.timeout
    dist.barrier()


def test_methods_of_groups_take_options():
    rank, size = dist.get_rank(), dist.get_world_size()
    world = dist.group.WORLD
    own = disttorch.tensor([float(rank)])
    most, last = _options("AllreduceOptions", reduceOp=dist.ReduceOp.MAX), size - 1
    x = own.clone()
    assert world.allreduce([x], most).wait()
    assert x.item() == last
    parts = [own.clone(), own + 1]
    assert world.allreduce_coalesced(parts, opts=_options("AllreduceCoalescedOptions")).result() == parts
    assert [p.item() for p in parts] == [total(), total(1)]
    world.broadcast([x.copy_(own)], _options("BroadcastOptions", rootRank=last)).wait()
    assert x.item() == last
    world.reduce([x.copy_(own)], _options("ReduceOptions", rootRank=last, reduceOp=dist.ReduceOp.MAX)).wait()
    assert x.item() == rank
    rows = [disttorch.zeros(1) for _ in range(size)]
    world.allgather([rows], [own], opts=_options("AllgatherOptions")).wait()
    assert [r.item() for r in rows] == list(range(size))
    lists = [[disttorch.zeros(1), disttorch.zeros(2)] for _ in range(size)]
    world.allgather_coalesced(lists, [own, own.repeat(2)]).wait()
    assert [[t.tolist() for t in row] for row in lists] == [[[r], [r, r]] for r in range(size)]
    wholes = [disttorch.zeros(size), disttorch.zeros(size)]
    for name in ("allgather_into_tensor_coalesced", "all_gather_single_coalesced"):
        getattr(world, name)(outputs=wholes, inputs=[own, own + 1]).wait()
        assert [w.tolist() for w in wholes] == [list(range(size)), list(range(1, size + 1))]
    for name in ("reduce_scatter_tensor_coalesced", "reduce_scatter_single_coalesced"):
        getattr(world, name)(parts, wholes, _options("ReduceScatterOptions", reduceOp=dist.ReduceOp.MAX)).wait()
        assert [p.item() for p in parts] == [rank, rank + 1]
    world.scatter([x], [rows] if rank == last else [], _options("ScatterOptions", rootRank=last)).wait()
    assert x.item() == rank
    world.gather([rows] if rank == last else [], [own + 1], _options("GatherOptions", rootRank=last)).wait()
    assert [r.item() for r in rows] == [r + (rank == last) for r in range(size)]
    world._allgather_base(wholes[0], own).wait()
    world._reduce_scatter_base(x, wholes[0]).wait()
    assert x.item() == rank * size


KINDS = [
    "AllToAllOptions", "AllgatherOptions", "AllreduceCoalescedOptions", "AllreduceOptions", "BarrierOptions", "BroadcastOptions",
    "GatherOptions", "ReduceOptions", "ReduceScatterOptions", "ScatterOptions",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_options_are_those_of_pytorch(kind):
    theirs = getattr(pytest.importorskip("torch.distributed").distributed_c10d, kind)()
    ours = _options(kind)
    names = {name for name in dir(theirs) if not name.startswith("_")}
    assert set(ours.fields) == names
    for name in names - {"reduceOp"}:
        assert getattr(ours, name) == getattr(theirs, name), name
        for each in () if name == "asyncOp" else (ours, theirs):  # what is true or false, PyTorch takes of anything
            with pytest.raises(TypeError):
                setattr(each, name, 1j)
    for each in (ours, theirs):
        each.timeout = 1.5
        assert each.timeout == timedelta(seconds=1.5)
    for each in (ours, theirs):
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
            each.nonsense = 1


BAD = [
    (lambda w: w.allreduce(ONE, timeout=3), TypeError, "allreduce: Expected timeout argument to be of type datetime.timedelta, got 3"),
    (lambda w: w.allreduce([ONE], dist.BroadcastOptions()), TypeError, "opts must be of type AllreduceOptions, not BroadcastOptions"),
    (lambda w: w.send([ONE], 0, dist.BarrierOptions()), TypeError, "opts must be of type None, not BarrierOptions"),
    (lambda w: w.all_gather_single_coalesced([ONE], [ONE, ONE]), ValueError, "there are 1 outputs, but 2 inputs"),
    (lambda w: w.allgather_coalesced([[ONE]] * 9, [ONE]), ValueError, "output_lists must have . lists of 1 tensors"),
    (lambda w: w.barrier(timedelta(0)), ValueError, "barrier: timeout must be longer than nothing"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[b[2] for b in BAD])
def test_bad_calls_of_methods(call, error, message):
    with pytest.raises(error, match=message):
        call(dist.group.WORLD)
