"""Tensors collected, handed out and exchanged, of one shape and of several, against NumPy."""

import numpy as np
import pytest

import disttorch
import disttorch.distributed as dist
from tests.distributed.test_collective import DTYPES, SHAPES, everyone, tensor, values

pytestmark = pytest.mark.mpi(min_size=1)


def done(work, async_op):
    assert (work is not None) == async_op
    if work is not None:
        assert work.wait()
        return work.result()
    return None


@pytest.mark.parametrize("async_op", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_shape(dtype, async_op):
    rank, size = dist.get_rank(), dist.get_world_size()
    for shape in SHAPES:
        mine = tensor(rank, shape, dtype)
        whole = everyone(shape, dtype)

        found = [disttorch.empty(shape, dtype=mine.dtype) for _ in range(size)]
        results = done(dist.all_gather(found, mine, async_op=async_op), async_op)
        assert [f.tolist() for f in found] == [tensor(r, shape, dtype).tolist() for r in range(size)]
        assert results is None or all(a is b for a, b in zip(results, found, strict=True))

        stacked = disttorch.empty((size, *shape), dtype=mine.dtype)
        done(dist.all_gather_into_tensor(stacked, mine, async_op=async_op), async_op)
        np.testing.assert_array_equal(np.array(stacked.tolist()).reshape(whole.shape), whole)
        if shape:
            joined = disttorch.empty((size * shape[0], *shape[1:]), dtype=mine.dtype)
            done(dist.all_gather_single(joined, mine, async_op=async_op), async_op)
            np.testing.assert_array_equal(np.array(joined.tolist()).reshape(whole.shape), whole)

        for root in range(size):
            at_root = [disttorch.empty(shape, dtype=mine.dtype) for _ in range(size)] if rank == root else None
            done(dist.gather(mine, at_root, dst=root, async_op=async_op), async_op)
            if at_root:
                assert [f.tolist() for f in at_root] == [tensor(r, shape, dtype).tolist() for r in range(size)]

            part = disttorch.empty(shape, dtype=mine.dtype)
            given = [tensor(10 + r, shape, dtype) for r in range(size)] if rank == root else None
            done(dist.scatter(part, given, src=root, async_op=async_op), async_op)
            assert part.tolist() == tensor(10 + rank, shape, dtype).tolist()


def test_the_root_is_rank_0_unless_given():
    rank, size = dist.get_rank(), dist.get_world_size()
    found = [disttorch.empty(1) for _ in range(size)] if rank == 0 else None
    dist.gather(disttorch.tensor([float(rank)]), found)
    assert found is None or [f.item() for f in found] == list(range(size))
    part = disttorch.empty(1)
    dist.scatter(part, [disttorch.tensor([r + 0.5]) for r in range(size)] if rank == 0 else None)
    assert part.item() == rank + 0.5


def ragged(rank, other=0):
    """Of a shape of its own on each rank, empty on the third."""
    return np.arange(3.0 * ((rank + other) % 3) + (rank == 5)).reshape(3, -1)[: (3 if rank != 5 else 1)] * (other + 1) + 10 * rank


@pytest.mark.parametrize("async_op", [False, True])
def test_all_gather_of_several_shapes(async_op):
    rank, size = dist.get_rank(), dist.get_world_size()
    found = [disttorch.empty(ragged(r).shape, dtype=disttorch.float64) for r in range(size)]
    done(dist.all_gather(found, disttorch.tensor(ragged(rank)), async_op=async_op), async_op)
    for r, f in enumerate(found):
        np.testing.assert_array_equal(f.numpy(), ragged(r))


@pytest.mark.parametrize("async_op", [False, True])
def test_all_gather_coalesced(async_op):
    rank, size = dist.get_rank(), dist.get_world_size()
    parts = [lambda r: np.arange(4.0).reshape(2, 2) + r, ragged, lambda r: np.full((3,), 2.0 * r)]
    found = [[disttorch.empty(part(r).shape, dtype=disttorch.float64) for part in parts] for r in range(size)]
    future = dist.all_gather_coalesced(found, [disttorch.tensor(part(rank)) for part in parts], async_op=async_op)
    if async_op:
        assert len(future.wait()) == size * 3
    for r in range(size):
        for f, part in zip(found[r], parts):
            np.testing.assert_array_equal(f.numpy(), part(r))


@pytest.mark.parametrize("async_op", [False, True])
@pytest.mark.parametrize("op", ["SUM", "AVG", "MAX"])
@pytest.mark.parametrize("several", [False, True])
def test_reduce_scatter(several, op, async_op):
    """Rank s gives rank r the array part(r) times s + 1."""
    rank, size = dist.get_rank(), dist.get_world_size()
    part = ragged if several else (lambda r: np.arange(6.0).reshape(2, 3) + r)
    out = disttorch.empty(part(rank).shape, dtype=disttorch.float64)
    given = [disttorch.tensor(part(r) * (rank + 1)) for r in range(size)]
    done(dist.reduce_scatter(out, given, getattr(dist.ReduceOp, op), async_op=async_op), async_op)
    factors = np.arange(1, size + 1)
    factor = {"SUM": factors.sum(), "AVG": factors.mean(), "MAX": factors.max()}[op]
    np.testing.assert_allclose(out.numpy(), part(rank) * factor, rtol=1e-12)


@pytest.mark.parametrize("name", ["reduce_scatter_single", "reduce_scatter_tensor"])
@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 5), (0, 4)])
def test_reduce_scatter_single(name, shape):
    rank, size = dist.get_rank(), dist.get_world_size()
    rows = np.arange(size * np.prod(shape), dtype=float).reshape(size, *shape)
    for given in (rows, rows.reshape(size * shape[0], *shape[1:])):
        out = disttorch.empty(shape, dtype=disttorch.float64)
        getattr(dist, name)(out, disttorch.tensor(given) + rank)
        np.testing.assert_allclose(out.numpy(), rows[rank] * size + sum(range(size)))


@pytest.mark.parametrize("async_op", [False, True])
def test_all_to_all(async_op):
    """Rank s sends rank r an array of a shape that both make different."""
    rank, size = dist.get_rank(), dist.get_world_size()
    given = [disttorch.tensor(ragged(rank, r)) for r in range(size)]
    found = [disttorch.empty(ragged(s, rank).shape, dtype=disttorch.float64) for s in range(size)]
    done(dist.all_to_all(found, given, async_op=async_op), async_op)
    for s in range(size):
        np.testing.assert_array_equal(found[s].numpy(), ragged(s, rank))


@pytest.mark.parametrize("dtype", ["float32", "int64", "complex64", "bfloat16"])
def test_all_to_all_single_of_equal_parts(dtype):
    rank, size = dist.get_rank(), dist.get_world_size()
    given = (values(0, (2 * size, 3), dtype) + 10 * rank).astype(float)
    out = disttorch.empty((2 * size, 3), dtype=getattr(disttorch, dtype))
    dist.all_to_all_single(out, disttorch.tensor(given).to(out.dtype))
    first = values(0, (2 * size, 3), dtype).astype(float)
    expected = np.concatenate([first[2 * rank : 2 * rank + 2] + 10 * s for s in range(size)])
    np.testing.assert_array_equal(np.array(out.tolist()).real, expected)


def test_all_to_all_single_of_another_form():
    rank, size = dist.get_rank(), dist.get_world_size()
    out = disttorch.empty(size, 4)
    dist.all_to_all_single(out, disttorch.arange(4.0 * size).reshape(2 * size, 2) + 100 * rank)
    expected = np.arange(4.0) + 4 * rank + 100 * np.arange(size)[:, None]
    np.testing.assert_array_equal(out.numpy(), expected)


@pytest.mark.parametrize("async_op", [False, True])
def test_all_to_all_single_of_given_parts(async_op):
    """Rank s sends rank r (s + 2 r) % 4 rows."""
    rank, size = dist.get_rank(), dist.get_world_size()

    def sent(s):
        return np.arange(2.0 * sum((s + 2 * r) % 4 for r in range(size))).reshape(-1, 2) + 100 * s

    sizes = [(rank + 2 * r) % 4 for r in range(size)]
    from_ = [(s + 2 * rank) % 4 for s in range(size)]
    out = disttorch.empty(sum(from_), 2, dtype=disttorch.float64)
    done(dist.all_to_all_single(out, disttorch.tensor(sent(rank)), from_, sizes, async_op=async_op), async_op)
    starts = [sum((s + 2 * r) % 4 for r in range(rank)) for s in range(size)]
    expected = np.concatenate([sent(s)[starts[s] : starts[s] + from_[s]] for s in range(size)])
    np.testing.assert_array_equal(out.numpy(), expected)


def test_results_in_tensors_that_are_not_contiguous():
    rank, size = dist.get_rank(), dist.get_world_size()
    mine = disttorch.arange(3.0) + rank
    expected = np.arange(3.0) + np.arange(size)[:, None]
    store = disttorch.zeros(3, size)
    dist.all_gather(list(store.unbind(1)), mine)
    np.testing.assert_array_equal(store.numpy().T, expected)
    store = disttorch.zeros(3, size)
    dist.all_gather_single(store.T, mine)
    np.testing.assert_array_equal(store.numpy().T, expected)
    store = disttorch.zeros(3, 2)
    dist.reduce_scatter_single(store[:, 0], disttorch.arange(3.0).repeat(size).reshape(size, 3))
    np.testing.assert_array_equal(store.numpy(), np.stack([np.arange(3.0) * size, np.zeros(3)], 1))
    store = disttorch.zeros(2, size)
    dist.all_to_all_single(store.T, (disttorch.arange(size) + 10 * rank).float()[:, None].expand(size, 2))
    np.testing.assert_array_equal(store.numpy(), np.tile(rank + 10 * np.arange(size), (2, 1)))


@pytest.mark.parametrize("method", ["allgather", "alltoall", "reduce_scatter", "gather", "scatter"])
def test_methods_of_groups(method):
    rank, size = dist.get_rank(), dist.get_world_size()
    group = dist.group.WORLD
    mine = disttorch.tensor([rank + 1.0])
    found = [disttorch.zeros(1) for _ in range(size)]
    own = disttorch.zeros(1)
    all_ = [s + 1.0 for s in range(size)]
    work, results, expected = {
        "allgather": lambda: (group.allgather([found], [mine]), found, all_),
        "alltoall": lambda: (group.alltoall(found, [mine] * size), found, all_),
        "reduce_scatter": lambda: (group.reduce_scatter([own], [[mine] * size]), [own], [sum(all_)]),
        "gather": lambda: (group.gather([found] if rank == 0 else [], [mine], 0), found, all_ if rank == 0 else [0] * size),
        "scatter": lambda: (group.scatter(own, [mine] * size if rank == 0 else [], 0), [own], [1.0]),
    }[method]()
    work.wait()
    assert [r.item() for r in results] == expected


BAD = [
    (lambda: dist.all_gather([], disttorch.ones(1)), ValueError, "has 0 tensors, but the group has"),
    (lambda: dist.all_gather(disttorch.ones(1), disttorch.ones(1)), TypeError, r"list\[Tensor\], not Tensor"),
    (lambda: dist.all_gather([3], disttorch.ones(1)), TypeError, "element 0 is of type int"),
    (lambda: dist.all_gather([disttorch.ones(1).long()], disttorch.ones(1)), ValueError, "different dtypes"),
    (lambda: dist.all_gather_single(disttorch.ones(99), disttorch.ones(2, 2)), ValueError, r"shape \[99\] must have . times"),
    (lambda: dist.all_gather_single(disttorch.ones(1), 3), TypeError, "`input_tensor` of all_gather_single"),
    (lambda: dist.all_gather_coalesced([[]] * 9, [disttorch.ones(1)]), ValueError, "output_tensor_lists must have"),
    (lambda: dist.reduce_scatter(disttorch.ones(1), []), ValueError, "input_list has 0 tensors"),
    (lambda: dist.reduce_scatter_single(disttorch.ones(99), disttorch.ones(3)), ValueError, r"shape \[3\] must have"),
    (lambda: dist.all_to_all([], []), ValueError, "input_tensor_list has 0 tensors"),
    (lambda: dist.all_to_all_single(disttorch.ones(4, 2), disttorch.ones(4, 3)), ValueError, "the same but for the first dimension"),
    (lambda: dist.all_to_all_single(disttorch.ones(8, 1), disttorch.ones(4, 2), [8], [4]), ValueError, "but for the first dimension$"),
    (lambda: dist.all_to_all_single(disttorch.ones(()), disttorch.ones(())), ValueError, "and without sizes have as many elements"),
    (lambda: dist.all_to_all_single(disttorch.ones(4), disttorch.ones(4), [9], [4]), ValueError, r"output_split_sizes \[9\]"),
    (lambda: dist.gather(disttorch.ones(1), 3, group_dst=dist.get_rank()), TypeError, "gather_list"),
    (lambda: dist.gather(disttorch.ones(1), group_dst=dist.get_rank()), ValueError, "must be specified on destination rank"),
    (lambda: dist.scatter(disttorch.ones(1), group_src=dist.get_rank()), ValueError, "must be specified on source rank"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[b[2] for b in BAD])
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_bad_shapes():
    rank, size = dist.get_rank(), dist.get_world_size()
    with pytest.raises(ValueError, match=rf"tensor_list\[{rank}\] is of shape \[2\], but this rank's tensor is of shape \[3\]"):
        dist.all_gather([disttorch.empty(2)] * size, disttorch.ones(3))
    with pytest.raises(ValueError, match=r"gather_list\[0\] is of shape \[2\], but this rank's tensor of shape \[3\]"):
        dist.gather(disttorch.ones(3), [disttorch.empty(2)] * size, group_dst=rank)
    with pytest.raises(ValueError, match=r"input_list\[.\] is of shape \[2\], but this rank's output is of shape \[3\]"):
        dist.reduce_scatter(disttorch.ones(3), [disttorch.ones(2)] * size)
    with pytest.raises(ValueError, match="sends itself a tensor of shape"):
        dist.all_to_all([disttorch.ones(3)] * size, [disttorch.ones(2)] * size)


@pytest.mark.mpi(min_size=2)
def test_lists_only_on_the_root():
    rank, size = dist.get_rank(), dist.get_world_size()
    other = (rank + 1) % size
    with pytest.raises(ValueError, match="must NOT be specified on non-destination ranks"):
        dist.gather(disttorch.ones(1), [disttorch.ones(1)] * size, dst=other)
    with pytest.raises(ValueError, match="must NOT be specified on non-source ranks"):
        dist.scatter(disttorch.ones(1), [disttorch.ones(1)] * size, src=other)
    with pytest.raises(ValueError, match="does not divide evenly"):
        dist.all_to_all_single(disttorch.ones(size + 1), disttorch.ones(size + 1))
