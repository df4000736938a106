"""DistributedDataParallel as a module: how it is made, refused, copied, stored, and what it does with buffers."""

import copy
import io
import pickle
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest

import disttorch
import disttorch.distributed as dist
from disttorch import nn
from disttorch.distributed.structures import moved, tensors_in
from disttorch.nn.modules.utils import consume_prefix_in_state_dict_if_present
from disttorch.nn.parallel import DistributedDataParallel
from disttorch.nn.parallel.distributed import _MixedPrecision

pytestmark = pytest.mark.mpi(min_size=1)


def mean(function):
    return np.mean([function(r) for r in range(dist.get_world_size())])


class Mesh:
    """As much of a DeviceMesh as is asked for."""

    def __init__(self, ndim=1):
        self.ndim = ndim

    def get_group(self, mesh_dim):
        assert mesh_dim == 0
        return dist.group.WORLD


def ddp_of_ddp():
    return DistributedDataParallel(DistributedDataParallel(nn.Linear(1, 1)))


def ddp_inside():
    return DistributedDataParallel(nn.Sequential(nn.Linear(1, 1), DistributedDataParallel(nn.Linear(1, 1))))


def delayed(names, awaited=None):
    layer = nn.Linear(1, 1)
    given = layer.bias if awaited is None else awaited
    return DistributedDataParallel(
        layer, delay_all_reduce_named_params=[(name, layer.weight) for name in names], param_to_hook_all_reduce=given
    )


def expanded(name):
    module, tensor = nn.Module(), disttorch.ones(1).expand(2)
    module.parameter = nn.Parameter(disttorch.ones(1))
    if name == "weight":
        module.weight = nn.Parameter(tensor)
    else:
        module.register_buffer(name, tensor)
    return DistributedDataParallel(module)


REFUSED = [
    (lambda: DistributedDataParallel(nn.ReLU()), RuntimeError, "doesn't have any parameter that requires a gradient"),
    (lambda: DistributedDataParallel(nn.Linear(1, 1).requires_grad_(False)), RuntimeError, "doesn't have any parameter"),
    (lambda: DistributedDataParallel(nn.Linear(1, 1), device_ids=[0]), ValueError, r"for models on a single GPU; got device_ids \[0\]"),
    (lambda: DistributedDataParallel(nn.Linear(1, 1), output_device=1), ValueError, "output_device 1"),
    (lambda: DistributedDataParallel(nn.Linear(1, 1), device_ids=[0, 1]), ValueError, "None or contain a single element"),
    (lambda: DistributedDataParallel(nn.LazyLinear(2)), RuntimeError, r"uninitialized parameters .*weight is one"),
    (lambda: expanded("weight"), RuntimeError, r"weight of shape \[2\] is an expanded tensor"),
    (lambda: expanded("mask"), RuntimeError, r"mask of shape \[2\] is an expanded tensor"),
    (lambda: DistributedDataParallel(nn.Linear(1, 1), bucket_cap_mb=0), ValueError, "sizes greater than 0"),
    (lambda: DistributedDataParallel(nn.Linear(1, 1), bucket_cap_mb_list=[]), ValueError, "sizes greater than 0"),
    (lambda: DistributedDataParallel(nn.Linear(1, 1), bucket_cap_mb=1, bucket_cap_mb_list=[1]), ValueError, "not both"),
    (lambda: DistributedDataParallel(nn.Linear(1, 1), mixed_precision=object()), TypeError, "must be a _MixedPrecision, not object"),
    (lambda: _MixedPrecision(disttorch.int64), TypeError, "param_dtype must be a floating-point dtype or None, not disttorch.int64"),
    (lambda: _MixedPrecision(buffer_dtype="float16"), TypeError, "buffer_dtype must be a floating-point dtype or None, not 'float16'"),
    (lambda: DistributedDataParallel(nn.Linear(1, 1), param_to_hook_all_reduce=1), ValueError, "need to be set at the same time"),
    (lambda: delayed(["weight"], 1), ValueError, "param_to_hook_all_reduce must be a parameter .*, not int"),
    (lambda: delayed(["weight"], disttorch.ones(1)), ValueError, "not one that requires none"),
    (lambda: delayed(["wait"]), ValueError, "the model has no parameter 'wait'"),
    (lambda: delayed(["bias"]), ValueError, "'bias' is another parameter; the one given with it is 'weight'"),
    (lambda: DistributedDataParallel(nn.Linear(1, 1), device_mesh=Mesh(2)), RuntimeError, "Only 1D device mesh"),
    (
        lambda: DistributedDataParallel(nn.Linear(1, 1), device_mesh=Mesh(), process_group=dist.group.WORLD), RuntimeError,
        "Cannot specify both process_group and device_mesh",
    ),
    (
        lambda: DistributedDataParallel(nn.Linear(1, 1), process_group=dist.GroupMember.NON_GROUP_MEMBER), ValueError,
        "not a member of the process group",
    ),
    (ddp_of_ddp, ValueError, "averaged already: it is a DistributedDataParallel"),
    (ddp_inside, ValueError, "averaged already: its part '1' is a DistributedDataParallel"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "error", "message"), REFUSED, ids=[r[2][:40] for r in REFUSED])
def test_what_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_device_mesh_in_place_of_a_group():
    model = DistributedDataParallel(nn.Linear(1, 1), device_mesh=Mesh())
    assert model.process_group is dist.group.WORLD


@pytest.mark.mpi(min_size=2)
def test_over_some_ranks():
    rank, ranks = dist.get_rank(), dist.get_world_size()
    members = list(range(0, ranks, 2))
    group = dist.new_group(members)
    if rank in members:
        model = DistributedDataParallel(nn.Linear(1, 1, bias=False), process_group=group)
        for _ in range(2):
            model.zero_grad()
            model(disttorch.full((1, 1), float(rank))).sum().backward()
            assert model.module.weight.grad.item() == pytest.approx(np.mean(members))
        with pytest.raises(RuntimeError, match="only supported when using DDP with the default process group"):
            pickle.dumps(model)
        dist.destroy_process_group(group)
    dist.barrier()


def test_names_in_the_state():
    model = DistributedDataParallel(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    state = model.state_dict()
    assert list(state)[:2] == ["module.0.weight", "module.0.bias"]
    assert all(name.startswith("module.") for name in state)
    consume_prefix_in_state_dict_if_present(state, "module.")
    other = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    other.load_state_dict(state)
    assert other[0].weight.tolist() == model.module[0].weight.tolist()


def test_loading_a_state_keeps_it_working():
    model = DistributedDataParallel(nn.Linear(2, 1, bias=False))
    model(disttorch.ones(1, 2)).sum().backward()
    model.load_state_dict({"module.weight": disttorch.full((1, 2), 5.0)})
    model.zero_grad()
    y = model(disttorch.ones(1, 2) * (1 + dist.get_rank()))
    assert y.item() == 10 * (1 + dist.get_rank())
    y.sum().backward()
    assert model.module.weight.grad.tolist() == [[pytest.approx(mean(lambda r: r + 1.0))] * 2]


def test_modes_and_names_are_the_models():
    model = DistributedDataParallel(nn.Sequential(nn.Dropout(), nn.Linear(1, 1)))
    assert model.eval() is model
    assert not model.module[0].training
    assert model.train().module[0].training
    assert [n for n, _ in model.named_parameters()] == ["module.1.weight", "module.1.bias"]
    assert len(list(model.children())) == 1
    with disttorch.no_grad():
        assert not model(disttorch.ones(1, 1)).requires_grad


def by_pickle(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("again", [copy.deepcopy, by_pickle])
@pytest.mark.parametrize("trained", [False, True])
def test_copies_work_on_their_own(again, trained):
    model = DistributedDataParallel(nn.Linear(1, 1, bias=False), find_unused_parameters=True)
    x = disttorch.full((1, 1), 1.0 + dist.get_rank())
    if trained:
        model(x).sum().backward()
    other = again(model)
    assert other.module.weight is not model.module.weight
    assert other.find_unused_parameters
    assert other.process_group is model.process_group
    for m, times in ((other, 1), (model, 2), (other, 3)):
        m.zero_grad()
        for _ in range(2):
            m(times * x).sum().backward()
        assert m.module.weight.grad.item() == pytest.approx(2 * times * mean(lambda r: r + 1.0))


def test_saving_a_checkpoint():
    model = DistributedDataParallel(nn.Linear(2, 2))
    file = io.BytesIO()
    disttorch.save(model.state_dict(), file)
    file.seek(0)
    assert disttorch.load(file)["module.weight"].tolist() == model.module.weight.tolist()


# Buffers -----------------------------------------------------------------------------------------------------------------


class Numbered(nn.Module):
    """Has buffers of several dtypes, and saves one for backward."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False).double()
        self.layer.weight.data.fill_(1.0)
        self.register_buffer("scale", disttorch.full((1,), 1.0 + dist.get_rank(), dtype=disttorch.float64))
        self.register_buffer("count", disttorch.tensor(10 + dist.get_rank()))

    def forward(self, x):
        return self.layer(x) * self.scale


@pytest.mark.parametrize(
    ("options", "at_start", "in_forward"),
    [
        ({}, True, True),
        ({"broadcast_buffers": False}, False, False),
        ({"forward_sync_buffers": False}, True, False),
        ({"broadcast_buffers": False, "forward_sync_buffers": True}, True, True),
        ({"init_sync": False}, False, True),
    ],
    ids=str,
)
def test_when_buffers_are_copied(options, at_start, in_forward):
    rank = dist.get_rank()
    model = DistributedDataParallel(Numbered(), **options)
    assert model.module.count.item() == (10 if at_start else 10 + rank)
    assert model.broadcast_buffers == in_forward
    model.module.count.fill_(20 + rank)
    with model.no_sync():
        model(disttorch.ones(1, 1, dtype=disttorch.float64))
    with disttorch.no_grad():
        model(disttorch.ones(1, 1, dtype=disttorch.float64))
    model.eval()(disttorch.ones(1, 1, dtype=disttorch.float64))
    assert model.module.count.item() == 20 + rank
    model.train()(disttorch.ones(1, 1, dtype=disttorch.float64))
    assert model.module.count.item() == (20 if in_forward else 20 + rank)


def test_another_forward_pass_does_not_spoil_the_first():
    """The copy of a buffer that the first pass saved is no change that its backward would refuse."""
    model = DistributedDataParallel(Numbered())
    x = disttorch.ones(1, 1, dtype=disttorch.float64)
    (model(x) + model(2 * x)).sum().backward()
    assert model.module.layer.weight.grad.item() == pytest.approx(3)


def test_parameters_and_buffers_that_are_left_alone():
    rank = dist.get_rank()
    inner = Numbered()
    inner.own = nn.Linear(1, 1, bias=False)
    inner.own.weight.data.fill_(float(rank))
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(inner, ["own.weight", "count"])
    model = DistributedDataParallel(inner)
    assert inner.own.weight.item() == rank
    assert inner.count.item() == 10 + rank
    assert inner.scale.item() == 1
    x = disttorch.full((1, 1), 1.0 + rank, dtype=disttorch.float64)
    (model(x) + inner.own(x.float())).sum().backward()
    assert inner.layer.weight.grad.item() == pytest.approx(mean(lambda r: r + 1.0))
    assert inner.own.weight.grad.item() == 1 + rank


def test_large_and_small_tensors_are_copied_alike():
    rank = dist.get_rank()
    disttorch.manual_seed(rank)
    model = nn.Sequential(nn.Linear(600, 500), nn.Linear(500, 3), nn.Linear(2, 2).double())
    DistributedDataParallel(model)
    disttorch.manual_seed(0)
    expected = nn.Sequential(nn.Linear(600, 500), nn.Linear(500, 3), nn.Linear(2, 2).double())
    for p, q in zip(model.parameters(), expected.parameters()):
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())


def test_inputs_by_name():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1, bias=False)

        def forward(self, x, *, factor):
            return self.layer(x) * factor

    model = DistributedDataParallel(Named())
    model(disttorch.ones(1, 1), factor=3.0).sum().backward()
    assert model.module.layer.weight.grad.item() == 3


class Pair(NamedTuple):
    first: object
    second: object


@dataclass
class Result:
    logits: object
    more: object = None


def test_tensors_in_structures():
    a, b, c = disttorch.ones(1), disttorch.ones(2), disttorch.ones(3)
    value = {"x": [a, (b, 3)], "y": Result(c), "z": "text"}
    assert [id(t) for t in tensors_in(value)] == [id(t) for t in (a, b, c)]
    again = moved({"x": [a, Pair(b, 3)], "y": (c,)}, "cpu")
    assert isinstance(again["x"][1], Pair)
    assert [t.tolist() for t in tensors_in(again)] == [t.tolist() for t in (a, b, c)]
    assert again["x"][1].second == 3


def test_by_pytorchs_path():
    from disttorch.nn.parallel.distributed import DistributedDataParallel as found

    assert found is DistributedDataParallel


def test_functional_call_with_other_parameters():
    """Nothing of the model's own is there to average, so gradients stay those of this rank; as in PyTorch."""
    rank, size = dist.get_rank(), dist.get_world_size()
    model = DistributedDataParallel(nn.Linear(1, 1, bias=False))
    own, x = model.module.weight, disttorch.full((1, 1), rank + 1.0)
    others = {name: disttorch.full_like(p, 3.0).requires_grad_() for name, p in model.named_parameters()}
    y = disttorch.func.functional_call(model, others, (x,))
    y.sum().backward()
    assert y.item() == 3 * (rank + 1)
    assert others["module.weight"].grad.item() == rank + 1
    assert own.grad is None
    values = {name: p.detach() for name, p in others.items()}
    gradients = disttorch.func.grad(lambda p: disttorch.func.functional_call(model, p, (x,)).sum())(values)
    assert gradients["module.weight"].item() == rank + 1
    disttorch.func.functional_call(model, dict(model.named_parameters()), (x,)).sum().backward()
    assert own.grad.item() == pytest.approx((size + 1) / 2)
    own.grad = None
    model(x).sum().backward()
    assert own.grad.item() == pytest.approx((size + 1) / 2)
