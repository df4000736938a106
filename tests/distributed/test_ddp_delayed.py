"""DistributedDataParallel with parameters whose reduction waits for another one's gradient, against training without that."""

import copy

import numpy as np
import pytest

import disttorch
import disttorch.distributed as dist
from disttorch import nn
from disttorch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from disttorch.nn.parallel import DistributedDataParallel
from disttorch.nn.parallel.distributed import _MixedPrecision

pytestmark = pytest.mark.mpi(min_size=1)

f64 = disttorch.float64
TINY = 1 / 2**20  # MiB: a bucket for each parameter
STEPS = 4


class Net(nn.Module):
    """Four layers; backward reaches the last one first. `side` is a fifth that a pass may use, `alone` one that is not reduced."""

    def __init__(self):
        super().__init__()
        disttorch.manual_seed(3)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
        self.side = nn.Linear(4, 4)
        self.alone = nn.Parameter(disttorch.ones(4))
        self.double()

    def forward(self, x, with_side=True):
        x = x * self.alone.detach() + (self.alone - self.alone.detach())
        for layer in self.layers:
            x = disttorch.tanh(layer(x))
        return x + self.side(x) if with_side else x


LAST = ("layers.3.weight", "layers.3.bias")
FIRST = ("layers.0.weight", "layers.0.bias")


def wrapped(names, awaited, hook=None, **options):
    net = Net()
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(net, ["alone"])
    model = DistributedDataParallel(
        net, delay_all_reduce_named_params=[(n, net.get_parameter(n)) for n in names],
        param_to_hook_all_reduce=net.get_parameter(awaited), bucket_cap_mb=TINY, **options,
    )  # fmt: skip
    if hook is not None:
        model.register_comm_hook(None, hook)
    return model


def x_of(rank, step):
    return disttorch.tensor(np.random.default_rng([step, rank]).standard_normal((3, 4)), dtype=f64)


def means(net, step, ranks, with_side=lambda r: True):
    """The means of all ranks' gradients, by a plain model; nothing for a parameter that a rank does not use."""
    plain = copy.deepcopy(net)
    plain.zero_grad()
    for rank in range(ranks):
        (plain(x_of(rank, step), with_side(rank)) ** 2).mean().backward()
    return {n: 0 * p.detach().numpy() if p.grad is None else p.grad.numpy() / ranks for n, p in plain.named_parameters()}


def assert_gradients(net, expected):
    for name, p in net.named_parameters():
        if name != "alone":
            np.testing.assert_allclose(p.grad.numpy(), expected[name], rtol=1e-9, atol=1e-12, err_msg=name)


EVERYTHING = tuple(n for n, _ in Net().named_parameters() if n != "alone")

WHICH = {
    # the delayed parameters, and the one whose gradient they wait for
    "the last layer, until the middle": (LAST, "layers.1.weight"),
    "the last layer, until the end": (LAST, "layers.0.weight"),
    "the first layer, which comes later": (FIRST, "layers.2.weight"),
    "until one of their own": (LAST, "layers.3.weight"),
    "until one that is left alone": (LAST, "alone"),
    "everything": (EVERYTHING, "layers.0.weight"),
    "everything, until one that is left alone": (EVERYTHING, "alone"),
    "nothing": ((), "layers.0.weight"),
}
OPTIONS = {
    "defaults": {},
    "unused are looked for": {"find_unused_parameters": True},
    "a static graph": {"static_graph": True},
    "ordinary gradients": {"gradient_as_bucket_view": False},
    "a hook": {"hook": allreduce_hook},
    "a hook, unused are looked for": {"hook": allreduce_hook, "find_unused_parameters": True},
}


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("which", WHICH)
def test_trains_as_without(which, options, set_to_none):
    model = wrapped(*WHICH[which], **OPTIONS[options])
    assert model.parameters_to_ignore == {"alone", *WHICH[which][0]}
    assert list(model.state_dict()) == [f"module.{n}" for n in Net().state_dict()]
    optimizer = disttorch.optim.SGD([p for n, p in model.named_parameters() if "alone" not in n], lr=0.1, momentum=0.9)
    for step in range(STEPS):
        optimizer.zero_grad(set_to_none=set_to_none)
        expected = means(model.module, step, dist.get_world_size())
        (model(x_of(dist.get_rank(), step)) ** 2).mean().backward()
        assert_gradients(model.module, expected)
        optimizer.step()


@pytest.mark.parametrize("which", WHICH)
def test_accumulation(which):
    ranks, rank = dist.get_world_size(), dist.get_rank()
    model = wrapped(*WHICH[which])
    for _ in range(2):
        model.zero_grad()
        parts = [means(model.module, step, ranks) for step in range(3)]
        with model.no_sync():
            for step in range(2):
                (model(x_of(rank, step)) ** 2).mean().backward()
        (model(x_of(rank, 2)) ** 2).mean().backward()
        assert_gradients(model.module, {n: sum(part[n] for part in parts) for n in parts[0]})


@pytest.mark.parametrize("options", [{}, {"find_unused_parameters": True}, {"static_graph": True}], ids=str)
@pytest.mark.parametrize("users", ["nobody", "rank 0"])
def test_a_pass_may_leave_them_out(options, users):
    """What no rank uses has a gradient of zeros, as in PyTorch; no other option is needed."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    model = wrapped(("side.weight", "side.bias"), "layers.1.weight", **options)
    for step in range(3):
        model.zero_grad()

        def with_side(r):
            return users == "rank 0" and r == 0

        expected = means(model.module, step, ranks, with_side)
        (model(x_of(rank, step), with_side(rank)) ** 2).mean().backward()
        assert_gradients(model.module, expected)


@pytest.mark.mpi(min_size=2)
def test_a_rank_may_not_reach_what_they_wait_for():
    ranks, rank = dist.get_world_size(), dist.get_rank()
    model = wrapped(LAST, "side.weight", find_unused_parameters=True)
    for step in range(3):
        model.zero_grad()
        expected = means(model.module, step, ranks, lambda r: r == 1)
        (model(x_of(rank, step), rank == 1) ** 2).mean().backward()
        assert_gradients(model.module, expected)


def names(bucket):
    return [e.name for e in bucket.entries]


def test_their_bucket_stands_behind_that_of_what_they_wait_for():
    model = wrapped(LAST, "layers.1.weight")
    for _ in range(2):
        (model(x_of(0, 0)) ** 2).mean().backward()
        buckets = model.reducer.buckets
        (place,) = (b.index for b in buckets if b.is_delayed)
        assert names(buckets[place]) == list(LAST)
        assert names(buckets[place - 1]) == ["layers.1.weight"]
        assert place < len(buckets) - 1
        assert all(not set(LAST) & set(names(b)) for b in buckets if not b.is_delayed)


@pytest.mark.parametrize("awaited", ["layers.1.weight", "alone"])
def test_they_are_reduced_when_it_has_arrived(awaited):
    model = wrapped(LAST, awaited)
    started = {}

    def note(name):
        started[name] = next(b.work is not None for b in model.reducer.buckets if b.is_delayed)

    (model(x_of(0, 0)) ** 2).mean().backward()
    for name in ("layers.2.weight", "layers.0.weight", "alone"):
        model.module.get_parameter(name).register_post_accumulate_grad_hook(lambda p, name=name: note(name))
    (model(x_of(0, 0)) ** 2).mean().backward()
    assert started == {"layers.2.weight": False, "layers.0.weight": awaited == "layers.1.weight", "alone": True}


def test_uneven_inputs():
    ranks, rank = dist.get_world_size(), dist.get_rank()
    model = wrapped(LAST, "layers.1.weight")
    with model.join():
        for step in range(rank + 1):
            model.zero_grad()
            plain = copy.deepcopy(model.module)
            plain.zero_grad()
            for r in range(step, ranks):
                (plain(x_of(r, step)) ** 2).mean().backward()
            (model(x_of(rank, step)) ** 2).mean().backward()
            assert_gradients(model.module, {n: p.grad.numpy() / ranks for n, p in plain.named_parameters()})
    digest = [None] * ranks
    dist.all_gather_object(digest, model.module.layers[3].weight.tolist())
    assert all(other == digest[0] for other in digest)


@pytest.mark.parametrize("init_sync", [True, False])
def test_they_are_copied_at_the_start(init_sync):
    layer = nn.Linear(1, 2)
    for p in layer.parameters():
        p.data.fill_(float(dist.get_rank()))
    model = DistributedDataParallel(
        layer, init_sync=init_sync, delay_all_reduce_named_params=[("weight", layer.weight)], param_to_hook_all_reduce=layer.bias
    )
    assert model.module.weight.tolist() == [[0.0], [0.0]]
    assert model.module.bias.tolist() == [0.0 if init_sync else float(dist.get_rank())] * 2


def test_a_hook_does_not_see_them():
    seen = []

    def hook(state, bucket):
        seen.append((bucket.is_last(), [id(p) for p in bucket.parameters()]))
        return allreduce_hook(None, bucket)

    model = wrapped(FIRST, "side.weight", hook=hook)
    (model(x_of(0, 0)) ** 2).mean().backward()
    assert [last for last, _ in seen] == [False] * (len(seen) - 1) + [True]
    assert sum(len(ids) for _, ids in seen) == len(EVERYTHING) - 2
    assert not {id(model.module.get_parameter(n)) for n in FIRST} & {i for _, ids in seen for i in ids}


def test_a_shared_parameter_by_its_other_name():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 2, bias=False)
            self.b = nn.Linear(2, 2, bias=False)
            self.b.weight = self.a.weight
            self.c = nn.Linear(2, 1, bias=False)

        def forward(self, x):
            return self.c(self.b(self.a(x)))

    tied = Tied()
    model = DistributedDataParallel(
        tied, delay_all_reduce_named_params=[("b.weight", tied.b.weight)], param_to_hook_all_reduce=tied.c.weight
    )
    plain = copy.deepcopy(tied)
    plain(disttorch.ones(1, 2)).sum().backward()
    model(disttorch.ones(1, 2)).sum().backward()
    assert [names(b) for b in model.reducer.buckets] == [["c.weight"], ["a.weight"]]
    for p, q in zip(tied.parameters(), plain.parameters()):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-6)


def test_copies_wait_for_their_own():
    ranks, rank = dist.get_world_size(), dist.get_rank()
    model = copy.deepcopy(wrapped(LAST, "alone"))
    for step in range(2):
        model.zero_grad()
        expected = means(model.module, step, ranks)
        (model(x_of(rank, step)) ** 2).mean().backward()
        assert_gradients(model.module, expected)


def test_in_mixed_precision():
    """Powers of two: every rounding is exact."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    for p in net.parameters():
        p.data.fill_(2.0)
    model = DistributedDataParallel(
        net, delay_all_reduce_named_params=[("1.weight", net[1].weight)], param_to_hook_all_reduce=net[0].weight,
        mixed_precision=_MixedPrecision(disttorch.bfloat16),
    )  # fmt: skip
    y = model(disttorch.full((1, 1), 2.0 ** dist.get_rank()))
    assert y.dtype is disttorch.bfloat16
    y.sum().backward()
    mean = np.mean([2.0 ** (r + 1) for r in range(dist.get_world_size())])
    for p in net.parameters():
        assert p.dtype is p.grad.dtype is disttorch.float32
        assert p.grad.item() == pytest.approx(mean, rel=2**-8)
    assert all(b.flat.dtype == disttorch.bfloat16.numpy for b in model.reducer.buckets)


@pytest.mark.parametrize("which", ["the last layer, until the middle", "the last layer, until the end", "until one of their own"])
def test_frozen_for_a_while(which):
    model = wrapped(*WHICH[which], find_unused_parameters=True)
    for step, frozen in enumerate([False, True, False]):
        for name in LAST:
            model.module.get_parameter(name).requires_grad_(not frozen)
        model.zero_grad()
        expected = means(model.module, step, dist.get_world_size())
        (model(x_of(dist.get_rank(), step)) ** 2).mean().backward()
        assert_gradients(model.module, expected)
