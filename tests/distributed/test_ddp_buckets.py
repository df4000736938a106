"""Buckets of DistributedDataParallel: how they are filled, where gradients lie, and what is measured."""

import numpy as np
import pytest

import disttorch
import disttorch.distributed as dist
from disttorch import nn
from disttorch.distributed.buckets import Entry, divide
from disttorch.distributed.communication_times import CommunicationTimes, union
from disttorch.nn.parallel import DistributedDataParallel

pytestmark = pytest.mark.mpi(min_size=1)


def entries(sizes, dtypes=None):
    dtypes = dtypes or [disttorch.float32] * len(sizes)
    return [Entry(str(i), disttorch.zeros(n, dtype=d), i) for i, (n, d) in enumerate(zip(sizes, dtypes))]


f32, f64 = disttorch.float32, disttorch.float64
DIVISIONS = [
    # elements of each parameter, bytes of the first bucket, ..., bytes of the last; which parameters are together
    ("one bucket", [1, 2, 3], [100], 100, [[0, 1, 2]]),
    ("a bucket is closed when it is full", [10, 10, 10, 10], [40, 80], 80, [[0], [1, 2], [3]]),
    ("the first is small", [10, 10, 10, 10, 10], [40, 1000], 1000, [[0], [1, 2, 3, 4]]),
    ("so is the last", [10, 10, 10, 10, 10], [40, 1000], 80, [[0], [1, 2], [3, 4]]),
    ("a large parameter is alone at the end", [10, 10, 500], [40, 4000], 80, [[0], [1], [2]]),
    ("every size of a list counts", [10] * 6, [40, 80, 120], 120, [[0], [1, 2], [3, 4, 5]]),
]


@pytest.mark.parametrize(("sizes", "limits", "last", "expected"), [d[1:] for d in DIVISIONS], ids=[d[0] for d in DIVISIONS])
def test_parameters_are_divided(sizes, limits, last, expected):
    groups = divide(entries(sizes), limits, last)
    assert [[e.number for e in g] for g in groups] == expected


def test_kinds_are_apart_and_in_the_order_in_which_they_are_complete():
    groups = divide(entries([1, 1, 1, 1], [f32, f64, f64, f32]), [1000], 1000)
    assert [[e.number for e in g] for g in groups] == [[1, 2], [0, 3]]


class Reversed(nn.Module):
    """Registers its layers in the order in which backward reaches them; rank 0 takes another way than the others."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(4))

    def forward(self, x):
        for layer in reversed(self.layers):
            x = layer(x)
        return x


def names(model):
    return [[e.name for e in b.entries] for b in model.reducer.buckets]


@pytest.mark.parametrize("as_view", [True, False])
def test_buckets_are_filled_anew_in_the_order_of_arrival(as_view):
    model = DistributedDataParallel(Reversed().double(), bucket_cap_mb=16 * 8 / 2**20, gradient_as_bucket_view=as_view)
    x = disttorch.ones(1, 4, dtype=f64) * (1 + dist.get_rank())
    found = []
    for _ in range(3):
        model.zero_grad()
        model(x).sum().backward()
        found.append((names(model), [p.grad.tolist() for p in model.parameters()]))
    registered = [[f"layers.{i}.weight"] for i in range(4)]
    assert [f[0] for f in found] == [registered[::-1], registered, registered]
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-14)
    assert found[2][1] == found[1][1]


def test_gradients_move_with_their_buckets():
    model = DistributedDataParallel(Reversed().double(), bucket_cap_mb=1)
    x = disttorch.ones(1, 4, dtype=f64)
    model(x).sum().backward()
    first = [p.grad for p in model.parameters()]
    values = [g.tolist() for g in first]
    model(x)  # fills them anew
    assert model.reducer.rebuilt
    assert names(model) == [[f"layers.{i}.weight" for i in range(4)]]
    assert [p.grad.tolist() for p in model.parameters()] == values
    assert all(p.grad is g for p, g in zip(model.parameters(), first))
    model(x).sum().backward()
    np.testing.assert_allclose([p.grad.tolist() for p in model.parameters()], 2 * np.array(values))


@pytest.mark.mpi(min_size=2)
def test_all_ranks_take_the_order_of_rank_0():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)

        def forward(self, x, a_first):
            return self.b(self.a(x)) if a_first else self.a(self.b(x))

    model = DistributedDataParallel(Fork(), bucket_cap_mb=1 / 2**20)
    for _ in range(2):
        model(disttorch.ones(1, 4), dist.get_rank() > 0).sum().backward()
    assert names(model) == [["a.weight"], ["b.weight"]]


@pytest.mark.parametrize("as_view", [True, False])
def test_where_gradients_lie(as_view):
    model = DistributedDataParallel(nn.Linear(8, 8), gradient_as_bucket_view=as_view)
    for _ in range(3):
        model.zero_grad()
        model(disttorch.ones(1, 8)).sum().backward()
        for e in model.reducer.entries:
            assert np.shares_memory(e.parameter.grad.numpy(), e.bucket.flat) == as_view
            np.testing.assert_array_equal(e.parameter.grad.numpy(), e.slice)


def test_a_gradient_of_the_users_own_is_kept_as_an_object():
    model = DistributedDataParallel(nn.Linear(2, 1, bias=False), gradient_as_bucket_view=False)
    own = model.module.weight.grad = disttorch.ones(1, 2)
    model(disttorch.ones(1, 2) * dist.get_world_size()).sum().backward()
    assert model.module.weight.grad is own
    assert own.tolist() == [[1 + dist.get_world_size()] * 2]


def test_changes_by_the_reduction_are_noticed():
    model = DistributedDataParallel(nn.Linear(2, 1, bias=False))
    model(disttorch.ones(1, 2)).sum().backward()
    w = disttorch.ones(1, 2, requires_grad=True)
    product = (w * model.module.weight.grad).sum()
    model(disttorch.ones(1, 2)).sum().backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_union_of_intervals():
    assert union([]) == 0
    assert union([(1, 3), (0, 2), (2.5, 2.75), (5, 6)]) == pytest.approx(4)


def test_times_say_what_is_hidden():
    assert CommunicationTimes(0.0, 0.0).hidden == 1
    assert CommunicationTimes(4.0, 1.0).hidden == 0.75
    assert CommunicationTimes(4.0, 5.0).hidden == 0
    model = DistributedDataParallel(nn.Sequential(*(nn.Linear(64, 64) for _ in range(6))), bucket_cap_mb=64 * 64 * 4 / 2**20)
    assert model.communication_times == (0, 0)
    for _ in range(2):
        model(disttorch.ones(4, 64)).sum().backward()
    times = model.communication_times
    assert 0 < times.exposed < 10
    assert 0 < times.total < 10
    assert 0 <= times.hidden <= 1


def test_logging_data():
    model = DistributedDataParallel(nn.Linear(4, 4), bucket_cap_mb=1 / 2**20)
    data = model._get_ddp_logging_data()
    assert (data["iteration"], data["bucket_sizes"], data["has_rebuilt_buckets"]) == (0, "", False)
    for _ in range(2):
        model(disttorch.ones(1, 4)).sum().backward()
    data = model._get_ddp_logging_data()
    expected = {
        "world_size": dist.get_world_size(), "rank": dist.get_rank(), "module_name": "Linear", "num_parameter_tensors": 2,
        "total_parameter_size_bytes": 80, "iteration": 2, "bucket_sizes": "16, 64", "has_rebuilt_buckets": True, "comm_hook": "",
        "find_unused_parameters": False, "can_set_static_graph": True, "bucket_cap_bytes": 1,
    }  # fmt: skip
    assert {name: data[name] for name in expected} == expected
    assert sorted(data["rebuilt_bucket_sizes"].split(", ")) == ["16", "64"]
    assert data["backward_comm_time"] > 0
