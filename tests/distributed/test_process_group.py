"""PyTorch's functions on tensors against NumPy, on whatever number of ranks the job has."""

import numpy as np
import pytest

import disttorch
import disttorch.distributed as dist

pytestmark = pytest.mark.mpi(min_size=1)
DTYPES = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "complex64", "bool"]
SHAPES = [(), (3,), (2, 5), (0, 3), (1000,)]


def values(rank, shape, dtype):
    """Small whole numbers, exact in every dtype, different on each rank."""
    return (
        (np.arange(np.prod(shape, dtype=int)).reshape(shape) + rank) % 2
        if dtype == "bool"
        else (np.arange(np.prod(shape, dtype=int)).reshape(shape) % 7 + rank)
    )


def tensor(rank, shape, dtype):
    return disttorch.tensor(values(rank, shape, dtype), dtype=getattr(disttorch, dtype))


def everyone(shape, dtype):
    return np.stack([values(r, shape, dtype) for r in range(dist.get_world_size())])


REDUCTIONS = [
    (dist.ReduceOp.SUM, lambda a: a.sum(0)),
    (dist.ReduceOp.MAX, lambda a: a.max(0)),
    (dist.ReduceOp.MIN, lambda a: a.min(0)),
    (dist.ReduceOp.PRODUCT, lambda a: a.prod(0)),
    (dist.ReduceOp.AVG, lambda a: a.mean(0)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("op", "expected"), REDUCTIONS, ids=[r[0] for r in REDUCTIONS])
@pytest.mark.parametrize("async_op", [False, True])
def test_all_reduce(dtype, op, expected, async_op):
    d = getattr(disttorch, dtype)
    for shape in SHAPES:
        x = tensor(dist.get_rank(), shape, dtype)
        allowed = {
            "bool": op not in ("sum", "product", "avg"),
            "complex64": op in ("sum", "product", "avg"),
        }.get(dtype, d.is_floating_point or op != "avg")
        if not allowed:
            with pytest.raises(TypeError, match=op):
                dist.all_reduce(x, op)
            continue
        work = dist.all_reduce(x, op, async_op=async_op)
        assert (work is not None) == async_op
        if work is not None:
            work.wait()
            assert work.is_completed()
            assert work.is_success()
        tolerance = {"float16": 2e-3, "bfloat16": 1e-2}.get(dtype, 1e-6)
        correct = expected(everyone(shape, dtype))
        if dtype == "uint8":
            correct = correct % 256
        np.testing.assert_allclose(np.array(x.tolist()).reshape(shape), correct, rtol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_movement(dtype):
    rank, size = dist.get_rank(), dist.get_world_size()
    for shape in SHAPES:
        mine = tensor(rank, shape, dtype)
        whole = everyone(shape, dtype)

        found = [disttorch.empty(shape, dtype=mine.dtype) for _ in range(size)]
        dist.all_gather(found, mine)
        assert [f.tolist() for f in found] == [tensor(r, shape, dtype).tolist() for r in range(size)]

        joined = disttorch.empty((size, *shape), dtype=mine.dtype)
        dist.all_gather_into_tensor(joined, mine)
        np.testing.assert_array_equal(np.array(joined.tolist()).reshape(whole.shape), whole)

        for root in range(size):
            copy = tensor(rank, shape, dtype)
            dist.broadcast(copy, root)
            assert copy.tolist() == tensor(root, shape, dtype).tolist()

            at_root = [disttorch.empty(shape, dtype=mine.dtype) for _ in range(size)] if rank == root else None
            dist.gather(mine, at_root, dst=root)
            if at_root:
                assert [f.tolist() for f in at_root] == [tensor(r, shape, dtype).tolist() for r in range(size)]

            part = disttorch.empty(shape, dtype=mine.dtype)
            dist.scatter(part, [tensor(10 + r, shape, dtype) for r in range(size)] if rank == root else None, src=root)
            assert part.tolist() == tensor(10 + rank, shape, dtype).tolist()


def test_reduce_scatter_and_all_to_all():
    rank, size = dist.get_rank(), dist.get_world_size()
    part = disttorch.empty(3)
    dist.reduce_scatter_tensor(part, disttorch.arange(3 * size).float() + rank)
    np.testing.assert_allclose(part.numpy(), (np.arange(3) + 3 * rank) * size + sum(range(size)))
    out = disttorch.empty(2 * size)
    dist.all_to_all_single(out, disttorch.arange(2 * size).float() + 100 * rank)
    np.testing.assert_array_equal(
        out.numpy().reshape(size, 2), np.arange(2) + 2 * rank + 100 * np.arange(size)[:, None]
    )


def test_reduce_leaves_other_ranks_alone():
    rank, size = dist.get_rank(), dist.get_world_size()
    x = disttorch.full((2,), float(rank))
    dist.reduce(x, dst=size - 1)
    assert x.tolist() == ([sum(range(size))] * 2 if rank == size - 1 else [rank] * 2)


def test_objects():
    rank, size = dist.get_rank(), dist.get_world_size()
    found = [None] * size
    dist.all_gather_object(found, {"rank": rank})
    assert found == [{"rank": r} for r in range(size)]
    given = ["from", rank]
    dist.broadcast_object_list(given, src=size - 1)
    assert given == ["from", size - 1]
    at_root = [None] * size if rank == 0 else None
    dist.gather_object(rank, at_root, dst=0)
    assert at_root == (list(range(size)) if rank == 0 else None)


@pytest.mark.mpi(min_size=2)
def test_point_to_point():
    rank = dist.get_rank()
    if rank == 0:
        dist.send(disttorch.tensor([1.0, 2.0]), dst=1, tag=5)
        x = disttorch.empty(2)
        assert dist.recv(x) == 1
        assert x.tolist() == [3, 4]
    elif rank == 1:
        x = disttorch.empty(2)
        work = dist.irecv(x, src=0, tag=5)
        work.wait()
        assert x.tolist() == [1, 2]
        dist.isend(disttorch.tensor([3.0, 4.0]), dst=0).wait()


def test_groups():
    rank, size = dist.get_rank(), dist.get_world_size()
    even = dist.new_group(list(range(0, size, 2)))
    x = disttorch.full((1,), float(rank))
    dist.all_reduce(x, group=even)
    if rank % 2:
        assert even is dist.GroupMember.NON_GROUP_MEMBER
        assert dist.get_rank(even) == dist.get_world_size(even) == -1
        assert x.item() == rank
    else:
        assert dist.get_rank(even) == rank // 2
        assert dist.get_process_group_ranks(even) == list(range(0, size, 2))
        assert x.item() == sum(range(0, size, 2))
        last = dist.get_global_rank(even, dist.get_world_size(even) - 1)
        dist.broadcast(x.fill_(rank), src=last, group=even)  # src is a rank of the world
        assert x.item() == last
        dist.destroy_process_group(even)


def test_collectives_count_as_changes_in_place():
    w = disttorch.ones(2, requires_grad=True)
    x = disttorch.ones(2)
    y = (w * x).sum()
    dist.all_reduce(x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


BAD = [
    (dist.init_process_group, RuntimeError, "twice"),
    (lambda: dist.all_reduce([1.0]), TypeError, "of type Tensor, not list"),
    (lambda: dist.all_reduce(disttorch.ones(1), "median"), ValueError, "median"),
    (lambda: dist.all_gather([], disttorch.ones(1)), ValueError, "has 0 tensors, but the group has"),
    (lambda: dist.broadcast(disttorch.ones(1), src=99), ValueError, "global rank 99 is not part of group"),
    (lambda: dist.broadcast(disttorch.ones(1), src=0, group_src=0), ValueError, "given twice"),
    (lambda: dist.new_group([0, 0]), ValueError, "different numbers"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[b[2] for b in BAD])
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_gathered_shapes_must_agree():
    size = dist.get_world_size()
    with pytest.raises(
        ValueError, match=r"tensor_list\[0\] is disttorch.float32 of shape \[2\], but this rank's tensor .* \[3\]"
    ):
        dist.all_gather([disttorch.empty(2)] * size, disttorch.ones(3))
