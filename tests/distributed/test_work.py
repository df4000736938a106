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
