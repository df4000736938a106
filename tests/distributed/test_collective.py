"""Reductions, broadcasts and barriers on tensors against NumPy, on whatever number of ranks the job has."""

import bdb
import io
from datetime import timedelta

import numpy as np
import pytest

import disttorch
import disttorch.distributed as dist

pytestmark = pytest.mark.mpi(min_size=1)
DTYPES = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "complex64", "bool"]
SHAPES = [(), (3,), (2, 5), (0, 3), (1000,)]
TOLERANCES = {"float16": 2e-3, "bfloat16": 1e-2}


def values(rank, shape, dtype):
    """Small whole numbers, exact in every dtype, different on each rank."""
    numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    return (numbers + rank) % 2 == 1 if dtype == "bool" else numbers % 7 + rank


def tensor(rank, shape, dtype):
    return disttorch.tensor(values(rank, shape, dtype), dtype=getattr(disttorch, dtype))


def everyone(shape, dtype):
    return np.stack([values(r, shape, dtype) for r in range(dist.get_world_size())])


REDUCTIONS = {
    # what it is, and the kinds of numbers that it is defined for
    "SUM": (lambda a: a.any(0) if a.dtype == bool else a.sum(0), "bifc"),
    "PRODUCT": (lambda a: a.all(0) if a.dtype == bool else a.prod(0), "bifc"),
    "MAX": (lambda a: a.max(0), "bif"),
    "MIN": (lambda a: a.min(0), "bif"),
    "AVG": (lambda a: a.mean(0), "fc"),
    "BAND": (lambda a: np.bitwise_and.reduce(a, 0), "bi"),
    "BOR": (lambda a: np.bitwise_or.reduce(a, 0), "bi"),
    "BXOR": (lambda a: np.bitwise_xor.reduce(a, 0), "bi"),
}


def kind(dtype):
    d = getattr(disttorch, dtype)
    return "b" if dtype == "bool" else "c" if d.is_complex else "f" if d.is_floating_point else "i"


@pytest.mark.parametrize("async_op", [False, True])
@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_reduce(dtype, op, async_op):
    expected, kinds = REDUCTIONS[op]
    how = getattr(dist.ReduceOp, op)
    for shape in SHAPES:
        x = tensor(dist.get_rank(), shape, dtype)
        if kind(dtype) not in kinds:
            with pytest.raises((TypeError, ValueError), match=f"(?i){op}"):
                dist.all_reduce(x, how)
            continue
        work = dist.all_reduce(x, how, async_op=async_op)
        assert (work is not None) == async_op
        if work is not None:
            assert work.wait() is True
            assert work.is_completed()
            assert work.is_success()
        correct = expected(everyone(shape, dtype))
        if dtype == "uint8":
            correct = correct % 256
        np.testing.assert_allclose(np.array(x.tolist()).reshape(shape), correct, rtol=TOLERANCES.get(dtype, 1e-6))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_sums_of_multiples(dtype):
    """PREMUL_SUM, with another factor on each rank."""
    rank, size = dist.get_rank(), dist.get_world_size()
    x = tensor(rank, (2, 5), dtype)
    dist.all_reduce(x, dist.ReduceOp.PREMUL_SUM(0.5 * (rank + 1)))
    correct = sum(0.5 * (r + 1) * values(r, (2, 5), dtype) for r in range(size))
    np.testing.assert_allclose(x.double().numpy(), correct, rtol=TOLERANCES.get(dtype, 1e-6))


@pytest.mark.parametrize("op", ["SUM", "MAX", "AVG", "PRODUCT"])
@pytest.mark.parametrize("async_op", [False, True])
def test_reduce_leaves_other_ranks_alone(op, async_op):
    rank, size = dist.get_rank(), dist.get_world_size()
    for root in range(size):
        x = tensor(rank, (2, 5), "float64")
        work = dist.reduce(x, root, getattr(dist.ReduceOp, op), async_op=async_op)
        if work is not None:
            work.wait()
        correct = REDUCTIONS[op][0](everyone((2, 5), "float64").astype(float)) if rank == root else values(rank, (2, 5), "float64")
        np.testing.assert_allclose(x.numpy(), correct, rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_broadcast(dtype):
    for root in range(dist.get_world_size()):
        for shape in SHAPES:
            x = tensor(dist.get_rank(), shape, dtype)
            dist.broadcast(x, root)
            assert x.tolist() == tensor(root, shape, dtype).tolist()


def test_tensors_that_are_not_contiguous():
    rank, size = dist.get_rank(), dist.get_world_size()
    whole = disttorch.zeros(4, 6)
    view = whole[1:3, ::2].T
    view += disttorch.arange(6.0).reshape(3, 2) + rank
    dist.all_reduce(view)
    correct = np.arange(6.0).reshape(3, 2) * size + sum(range(size))
    np.testing.assert_array_equal(view.numpy(), correct)
    np.testing.assert_array_equal(whole.numpy()[1:3, ::2], correct.T)
    assert whole.numpy()[[0, 3]].sum() == 0
    dist.broadcast(view, size - 1)
    np.testing.assert_array_equal(view.numpy(), correct)


@pytest.mark.parametrize("async_op", [False, True])
def test_many_at_once(async_op):
    rank, size = dist.get_rank(), dist.get_world_size()
    parts = [disttorch.full((n,), float(rank + n)) for n in (1, 3, 0, 2)]
    future = dist.all_reduce_coalesced(parts, async_op=async_op)
    if async_op:
        assert all(a is b for a, b in zip(future.wait(), parts, strict=True))
    for part, n in zip(parts, (1, 3, 0, 2)):
        assert part.tolist() == [sum(r + n for r in range(size))] * n
    assert dist.all_reduce_coalesced(parts[0], dist.ReduceOp.MAX) is None


def test_barrier():
    assert dist.barrier() is None
    assert dist.barrier(timeout=timedelta(seconds=30)) is None
    assert dist.barrier(async_op=True).wait()
    dist.monitored_barrier()
    dist.monitored_barrier(timeout=timedelta(seconds=30), wait_all_ranks=True)
    dist.monitored_barrier(dist.group.WORLD, 30.0)


def test_collectives_count_as_changes_in_place():
    size = dist.get_world_size()
    calls = {
        "all_reduce": lambda x: dist.all_reduce(x),
        "broadcast": lambda x: dist.broadcast(x, 0),
        "reduce": lambda x: dist.reduce(x, 0),
        "all_gather": lambda x: dist.all_gather([x] * size, disttorch.ones(2)),
        "all_gather_single": lambda x: dist.all_gather_single(x, disttorch.ones(2)[: 2 // size]) if size in (1, 2) else x.add_(0),
        "reduce_scatter_single": lambda x: dist.reduce_scatter_single(x, disttorch.ones(2 * size)),
        "scatter": lambda x: dist.scatter(x, [disttorch.ones(2)] * size if dist.get_rank() == 0 else None),
        "all_to_all": lambda x: dist.all_to_all([x] * size, [disttorch.ones(2)] * size),
    }
    for name, call in calls.items():
        w = disttorch.ones(2, requires_grad=True)
        x = disttorch.ones(2)
        y = (w * x).sum()
        call(x)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()
        assert x.sum().item() > 0, name


ONE = disttorch.ones(1)
BAD = [
    (lambda: dist.all_reduce([1.0]), TypeError, "`tensor` of all_reduce to be of type Tensor, not list"),
    (lambda: dist.all_reduce(disttorch.ones(1), "median"), ValueError, "median"),
    (lambda: dist.all_reduce(disttorch.ones(1), 3), TypeError, "op must be a ReduceOp"),
    (lambda: dist.all_reduce(disttorch.ones(1), dist.ReduceOp.PREMUL_SUM), ValueError, "wants its factor"),
    (lambda: dist.all_reduce(disttorch.ones(1) * 1j, dist.ReduceOp.MAX), ValueError, "does not support RedOpType.MAX on complex"),
    (lambda: dist.all_reduce(disttorch.ones(1), group=7), ValueError, "Invalid process group specified"),
    (lambda: dist.all_reduce_coalesced([1.0]), TypeError, "element 0 is of type float"),
    (lambda: dist.all_reduce_coalesced([ONE, ONE.long()]), ValueError, "different dtypes"),
    (lambda: dist.broadcast(disttorch.ones(1)), ValueError, "Must specify global_rank or group_rank"),
    (lambda: dist.broadcast(disttorch.ones(1), src=99), ValueError, "Global rank 99 is not part of group"),
    (lambda: dist.broadcast(disttorch.ones(1), group_src=99), ValueError, "Group rank 99 is not part of group"),
    (lambda: dist.broadcast(disttorch.ones(1), src=0, group_src=0), ValueError, "given twice"),
    (lambda: dist.broadcast(disttorch.ones(1), src=0.0), TypeError, "a rank must be an integer, got 0.0"),
    (lambda: dist.reduce(disttorch.ones(1), "0"), TypeError, "a rank must be an integer, got '0'"),
    (lambda: dist.isend(disttorch.ones(1), group_dst="0"), TypeError, "a rank must be an integer, got '0'"),
    (lambda: dist.breakpoint(99), ValueError, "there is no rank 99"),
    (lambda: dist.reduce(disttorch.ones(1)), ValueError, "Must specify global_rank or group_rank"),
    (lambda: dist.barrier(timeout=3), TypeError, "of type datetime.timedelta"),
    (lambda: dist.monitored_barrier(timeout=3), TypeError, "of type datetime.timedelta"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[b[2] for b in BAD])
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_breakpoint_of_one_rank(monkeypatch, capsys):
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    for _ in range(3):
        value = f"here on {rank}"
        monkeypatch.setattr("sys.stdin", io.StringIO("p value\nc\n"))
        assert dist.breakpoint(last, skip=2) is None
    said = capsys.readouterr().out
    assert said.count(f"rank {last} is at a breakpoint") == said.count(repr(value)) == (rank == last)
    monkeypatch.setattr("sys.stdin", io.StringIO("q\n"))
    if rank == last:
        with pytest.raises(bdb.BdbQuit):
            dist.breakpoint(last)
    dist.barrier()
