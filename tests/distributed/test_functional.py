"""Collectives in the graph: values, gradients and second gradients against one process that has all ranks' tensors.

The joined computation does with plain operations what the collective does between the ranks. Each rank's loss is a sum of
cubes of what it receives, and the gradient is that of the sum of all ranks' losses.
"""

import numpy as np
import pytest

import disttorch
import disttorch.distributed as dist
import disttorch.distributed._functional_collectives as funcol
import disttorch.distributed.nn.functional as F
from disttorch.autograd import grad

pytestmark = pytest.mark.mpi(min_size=1)

REDUCTIONS = {
    dist.ReduceOp.SUM: lambda rows: sum(rows),
    dist.ReduceOp.AVG: lambda rows: sum(rows) / len(rows),
    dist.ReduceOp.PREMUL_SUM(0.25): lambda rows: 0.25 * sum(rows),
    dist.ReduceOp.PRODUCT: lambda rows: disttorch.stack(rows).prod(0),
    dist.ReduceOp.MAX: lambda rows: disttorch.stack(rows).amax(0),
    dist.ReduceOp.MIN: lambda rows: disttorch.stack(rows).amin(0),
}
NAMES = [str(op) for op in REDUCTIONS]


def inputs(shape, seed=0):
    """Every rank's tensor, on every rank; among them equal ones, for the extremes."""
    g = np.random.default_rng(seed)
    found = [g.standard_normal(shape) for _ in range(dist.get_world_size())]
    for i, x in enumerate(found):
        x[..., 0] = 0.5 + (i == 1)
    return [disttorch.tensor(x, requires_grad=True) for x in found]


def loss_of(results, rank):
    results = results if isinstance(results, (list, tuple)) else [results]
    return sum((((i + 1) * (rank + 1)) * y**3).sum() for i, y in enumerate(results))


def check(call, joined, shape):
    """Compare one rank's part of a collective with the joined computation."""
    rank, size = dist.get_rank(), dist.get_world_size()
    everyone = inputs(shape)
    x = inputs(shape)[rank]

    y = call(x)
    expected = joined(everyone)
    for a, b in zip(*(v if isinstance(v, (list, tuple)) else [v] for v in (y, expected[rank])), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-12)

    (first,) = grad(loss_of(y, rank), x, create_graph=True)
    firsts = grad(sum(loss_of(expected[r], r) for r in range(size)), everyone, create_graph=True, allow_unused=True, materialize_grads=True)
    np.testing.assert_allclose(first.detach().numpy(), firsts[rank].detach().numpy(), rtol=1e-11, atol=1e-11)

    weights = disttorch.tensor(np.random.default_rng(7).standard_normal((size, *shape)))
    (second,) = grad((first * weights[rank]).sum(), x, allow_unused=True, materialize_grads=True)
    seconds = grad(sum((f * w).sum() for f, w in zip(firsts, weights)), everyone, allow_unused=True, materialize_grads=True)
    np.testing.assert_allclose(second.numpy(), seconds[rank].numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("op", REDUCTIONS, ids=NAMES)
@pytest.mark.parametrize("shape", [(3,), (2, 4)])
def test_all_reduce(op, shape):
    check(lambda x: F.all_reduce(x, op), lambda xs: [REDUCTIONS[op](xs)] * len(xs), shape)


@pytest.mark.parametrize("op", REDUCTIONS, ids=NAMES)
def test_reduce(op):
    for root in range(dist.get_world_size()):

        def joined(xs, root=root):
            return [REDUCTIONS[op](xs) if r == root else xs[r].detach() for r in range(len(xs))]

        check(lambda x, root=root: F.reduce(x, root, op), joined, (2, 3))


@pytest.mark.parametrize("op", REDUCTIONS, ids=NAMES)
def test_reduce_scatter(op):
    size = dist.get_world_size()

    def call(x):
        return F.reduce_scatter(disttorch.empty(4), [x * (r + 1) for r in range(size)], op)

    check(call, lambda xs: [REDUCTIONS[op]([x * (r + 1) for x in xs]) for r in range(size)], (4,))


def test_broadcast():
    for root in range(dist.get_world_size()):
        check(lambda x, root=root: F.broadcast(x, root), lambda xs, root=root: [xs[root] * 1] * len(xs), (2, 3))


def test_all_gather():
    check(F.all_gather, lambda xs: [xs] * len(xs), (2, 3))


def test_gather():
    for root in range(dist.get_world_size()):

        def joined(xs, root=root):
            return [xs if r == root else [disttorch.zeros_like(x) for x in xs] for r in range(len(xs))]

        check(lambda x, root=root: F.gather(x, root), joined, (2, 3))


def test_scatter():
    size = dist.get_world_size()
    for root in range(size):
        check(
            lambda x, root=root: F.scatter([x * (r + 2) for r in range(size)], root),
            lambda xs, root=root: [xs[root] * (r + 2) for r in range(size)],
            (2, 3),
        )


def test_all_to_all_of_several_shapes():
    rank, size = dist.get_rank(), dist.get_world_size()

    def part(x, s, r):
        return x[: (s + r) % 3] * (r + 1)

    def call(x):
        outputs = [part(x, s, rank) for s in range(size)]
        return F.all_to_all(outputs, [part(x, rank, r) for r in range(size)])

    check(call, lambda xs: [[part(xs[s], s, r) for s in range(size)] for r in range(size)], (3, 2))


@pytest.mark.parametrize("given", [False, True])
def test_all_to_all_single(given):
    rank, size = dist.get_rank(), dist.get_world_size()
    counts = [[(s + r) % 3 + 1 if given else 2 for r in range(size)] for s in range(size)]
    rows = max(sum(c) for c in counts)

    def call(x):
        mine, theirs = counts[rank], [counts[s][rank] for s in range(size)]
        out = disttorch.empty(sum(theirs), 2)
        return F.all_to_all_single(out, x[: sum(mine)], theirs if given else None, mine if given else None)

    def joined(xs):
        parts = [xs[s][: sum(counts[s])].split(counts[s]) for s in range(size)]
        return [disttorch.cat([parts[s][r] for s in range(size)]) for r in range(size)]

    check(call, joined, (rows, 2))


def test_all_to_all_single_of_another_form():
    rank, size = dist.get_rank(), dist.get_world_size()
    parts = [disttorch.arange(4.0).reshape(2, 2) + 10 * r for r in range(size)]
    x = disttorch.cat([part + 100 * rank for part in parts]).requires_grad_()
    found = F.all_to_all_single(disttorch.empty(size, 4), x)
    assert found.tolist() == [(disttorch.arange(4.0) + 10 * rank + 100 * s).tolist() for s in range(size)]
    (found * (rank + 1)).sum().backward()
    assert x.grad.tolist() == [[r + 1.0] * 2 for r in range(size) for _ in range(2)]


# --- _functional_collectives --------------------------------------------------------------------------------------------

FUNCTIONAL = {
    "all_reduce": (lambda x: funcol.all_reduce(x, "sum", dist.group.WORLD), lambda xs: [sum(xs)] * len(xs)),
    "all_reduce by name": (lambda x: funcol.all_reduce(x, "AVG", dist.group.WORLD.group_name), lambda xs: [sum(xs) / len(xs)] * len(xs)),
    "all_reduce of ranks": (
        lambda x: funcol.all_reduce(x, "max", list(range(dist.get_world_size()))), lambda xs: [REDUCTIONS["max"](xs)] * len(xs),
    ),
    "broadcast": (lambda x: funcol.broadcast(x, 0, dist.group.WORLD), lambda xs: [xs[0] * 1] * len(xs)),
    "all_gather_single": (lambda x: funcol.all_gather_single(x, 0, dist.group.WORLD), lambda xs: [disttorch.cat(xs)] * len(xs)),
    "all_gather_tensor": (lambda x: funcol.all_gather_tensor(x, 1, dist.group.WORLD), lambda xs: [disttorch.cat(xs, 1)] * len(xs)),
    "reduce_scatter_single": (
        lambda x: funcol.reduce_scatter_single(x, "sum", 0, dist.group.WORLD), lambda xs: sum(xs).chunk(len(xs), 0),
    ),
    "reduce_scatter_tensor": (
        lambda x: funcol.reduce_scatter_tensor(x, "avg", 1, dist.group.WORLD), lambda xs: (sum(xs) / len(xs)).chunk(len(xs), 1),
    ),
    "all_to_all_single": (
        lambda x: funcol.all_to_all_single(x, None, None, dist.group.WORLD),
        lambda xs: [disttorch.cat([x.chunk(len(xs))[r] for x in xs]) for r in range(len(xs))],
    ),
    "permute_tensor": (
        lambda x: funcol.permute_tensor(x, [(r + 1) % dist.get_world_size() for r in range(dist.get_world_size())], dist.group.WORLD),
        lambda xs: [xs[(r - 1) % len(xs)] * 1 for r in range(len(xs))],
    ),
    "all_reduce_coalesced": (
        lambda x: funcol.all_reduce_coalesced([x, x * x], "sum", dist.group.WORLD),
        lambda xs: [[sum(xs), sum(x * x for x in xs)]] * len(xs),
    ),
    "all_gather_single_coalesced": (
        lambda x: funcol.all_gather_single_coalesced([x, x[:1]], dist.group.WORLD),
        lambda xs: [[disttorch.cat(xs), disttorch.cat([x[:1] for x in xs])]] * len(xs),
    ),
    "reduce_scatter_single_coalesced": (
        lambda x: funcol.reduce_scatter_single_coalesced([x, x.T], "sum", [0, 1], dist.group.WORLD),
        lambda xs: [[sum(xs).chunk(len(xs), 0)[r], sum(xs).T.chunk(len(xs), 1)[r]] for r in range(len(xs))],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONAL)
def test_functional_collectives(name):
    size = dist.get_world_size()
    check(*FUNCTIONAL[name], (2 * size, 2 * size))


def test_inputs_stay_as_they_are():
    x = disttorch.tensor([dist.get_rank() + 1.0])
    for call in (lambda: F.all_reduce(x), lambda: F.broadcast(x, 0), lambda: funcol.all_reduce(x, "sum", None)):
        call()
        assert x.tolist() == [dist.get_rank() + 1]
    assert funcol.wait_tensor(x) is x


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex128", "int64"])
def test_other_dtypes(dtype):
    rank, size = dist.get_rank(), dist.get_world_size()
    d = getattr(disttorch, dtype)
    x = (disttorch.ones(3) * (rank + 1)).to(d)
    if d.is_floating_point or d.is_complex:
        x.requires_grad_()
    y = F.all_reduce(x)
    assert y.tolist() == [size * (size + 1) / 2] * 3
    assert y.dtype == d
    if x.requires_grad:
        (y * (1j if d.is_complex else 2)).abs().sum().backward()
        assert x.grad.dtype == d
        np.testing.assert_allclose(np.abs(np.array(x.grad.tolist())), size * (1 if d.is_complex else 2), rtol=1e-6)


@pytest.mark.mpi(min_size=2)
def test_groups_of_lists():
    rank, size = dist.get_rank(), dist.get_world_size()
    lists = [list(range(0, size, 2)), list(range(1, size, 2))]
    x = disttorch.tensor([float(rank)])
    assert funcol.all_reduce(x, "sum", lists).item() == sum(lists[rank % 2])
    before = dist.get_pg_count()
    assert funcol.all_reduce(x, "max", lists).item() == lists[rank % 2][-1]
    assert dist.get_pg_count() == before


BAD = [
    (lambda: F.all_reduce([1.0]), TypeError, "of type Tensor"),
    (lambda: F.scatter([disttorch.ones(1)] * 99), ValueError, "tensors has 99 tensors, but the group has"),
    (lambda: F.all_reduce(disttorch.ones(1), group=dist.GroupMember.NON_GROUP_MEMBER), ValueError, "no member of the group"),
    (lambda: F.all_to_all_single(disttorch.ones(4), disttorch.ones(4, 2)), ValueError, "must have as many elements as input"),
    (
        lambda: F.reduce_scatter(disttorch.ones(3), [disttorch.ones(2)] * dist.get_world_size()), ValueError,
        r"input_list\[0\] of shape \[2\] must have the shape of output, \[3\]",
    ),
    (lambda: funcol.all_reduce(disttorch.ones(1), "sum", "nobody"), ValueError, "no process group of the name 'nobody'"),
    (lambda: funcol.all_to_all_single(disttorch.ones(1), [1], None, None), AssertionError, "specified together"),
    (lambda: funcol.permute_tensor(disttorch.ones(1), [5], None), ValueError, "no permutation"),
    (lambda: funcol.reduce_scatter_single_coalesced([disttorch.ones(1)], "sum", [], None), AssertionError, "Length of scatter_dim"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[b[2] for b in BAD])
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
