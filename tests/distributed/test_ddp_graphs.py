"""Which backward passes DistributedDataParallel reduces, and what it makes of unusual graphs."""

import gc
import re
from types import SimpleNamespace

import numpy as np
import pytest

import disttorch
import disttorch.distributed as dist
from disttorch import nn
from disttorch.autograd.variable import wrap
from disttorch.distributed.beside import LateFlags
from disttorch.nn.parallel import DistributedDataParallel
from disttorch.utils.checkpoint import checkpoint

pytestmark = pytest.mark.mpi(min_size=1)

f64 = disttorch.float64
TINY = 1 / 2**20  # MiB: a bucket for each parameter


def mean_of_ranks(function=lambda r: r + 1.0):
    return np.mean([function(r) for r in range(dist.get_world_size())])


def mine(value=None):
    """One number, another one on each rank: (1, 1)."""
    return disttorch.full((1, 1), 1.0 + dist.get_rank() if value is None else value, dtype=f64)


def ones(*modules):
    for m in modules:
        for p in m.parameters():
            p.data.fill_(1.0)
    return modules[0] if len(modules) == 1 else modules


def linear():
    return ones(nn.Linear(1, 1, bias=False).double())


# Which passes are reduced ----------------------------------------------------------------------------------------------


def test_forward_decides_not_backward():
    model = DistributedDataParallel(linear())
    with model.no_sync():
        inside = model(mine())
    inside.sum().backward()
    assert model.module.weight.grad.item() == 1 + dist.get_rank()
    model.zero_grad()
    outside = model(mine())
    with model.no_sync():
        outside.sum().backward()
    assert model.module.weight.grad.item() == pytest.approx(mean_of_ranks())


def test_every_backward_through_one_forward_is_reduced():
    model = DistributedDataParallel(linear())
    loss = model(mine()).sum()
    for times in (1, 2, 3):
        loss.backward(retain_graph=True)
        assert model.module.weight.grad.item() == pytest.approx(times * mean_of_ranks())


def test_the_bare_module_on_one_rank_is_its_own_matter():
    model = DistributedDataParallel(linear())
    model(mine()).sum().backward()
    if dist.get_rank() == 0:
        model.module.weight.grad = None
        model.module(mine()).sum().backward()
        assert model.module.weight.grad.item() == 1
    dist.barrier()
    model.zero_grad()
    model(mine()).sum().backward()
    assert model.module.weight.grad.item() == pytest.approx(mean_of_ranks())


def test_several_forward_passes_before_backward():
    model = DistributedDataParallel(linear())
    for _ in range(2):
        model.zero_grad()
        (model(mine()) + model(2 * mine())).sum().backward()
        assert model.module.weight.grad.item() == pytest.approx(3 * mean_of_ranks())


def test_a_forward_pass_without_backward_changes_nothing():
    model = DistributedDataParallel(linear())
    with disttorch.no_grad():
        model(mine())
    model(mine())
    model(mine()).sum().backward()
    assert model.module.weight.grad.item() == pytest.approx(mean_of_ranks())


OUTPUTS = {
    "dict": lambda out, model: out["y"],
    "tuple": lambda out, model: out[1],
    "nested": lambda out, model: out[0]["a"][0],
    "object": lambda out, model: out.value,
    "attribute": lambda out, model: model.module.result,
}


@pytest.mark.parametrize("how", OUTPUTS)
def test_outputs_in_any_place(how):
    class Box:
        def __init__(self, value):
            self.value = value

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = linear()

        def forward(self, x):
            y = self.layer(x)
            if how == "attribute":
                self.result = y
                return None
            return {"dict": {"y": y}, "tuple": (1, y), "nested": [{"a": (y,)}], "object": Box(y)}[how]

    model = DistributedDataParallel(Model())
    for _ in range(2):
        model.zero_grad()
        out = model(mine())
        y = OUTPUTS[how](out, model)
        y.sum().backward()
        assert model.module.layer.weight.grad.item() == pytest.approx(mean_of_ranks())


def test_gradient_penalty():
    """A derivative with respect to the input inside of the loss: only the pass that ends at the parameters is reduced."""
    model = DistributedDataParallel(nn.Sequential(linear(), nn.Tanh(), linear()))
    x = mine().requires_grad_()
    (slope,) = disttorch.autograd.grad(model(x).sum(), x, create_graph=True)
    assert model.reducer.passes == 0
    (slope**2).sum().backward()

    def by_hand(w0, w1, x):
        return (w1 * w0 / np.cosh(w0 * x) ** 2) ** 2

    h = 1e-6
    expected = mean_of_ranks(lambda r: (by_hand(1 + h, 1, r + 1) - by_hand(1 - h, 1, r + 1)) / (2 * h))
    assert model.module[0].weight.grad.item() == pytest.approx(expected, rel=1e-6)


def test_gradients_with_a_graph_are_refused():
    model = DistributedDataParallel(linear())
    with pytest.raises(RuntimeError, match=r"gradient of weight has a graph of its own \(create_graph=True\)"):
        (model(mine()) ** 2).sum().backward(create_graph=True)


def test_a_backward_inside_of_a_backward_of_the_same_model():
    def begin(inner_step):
        """A model in whose backward pass, when the last layer's gradient is there, another step is done."""
        model = DistributedDataParallel(nn.Sequential(linear(), linear()))
        hidden = []
        model.module[0].register_forward_hook(lambda module, args, result: hidden.append(result))
        loss = model(mine()).sum()

        def hook(gradient):
            with disttorch.enable_grad():
                inner_step(model)

        hidden[0].register_hook(hook)
        return model, loss

    _, loss = begin(lambda model: model(mine()).sum().backward())
    with pytest.raises(RuntimeError, match="inside of another one of its backward passes"):
        loss.backward()

    def unsynchronized(model):
        with model.no_sync():
            model(mine()).sum().backward()

    model, loss = begin(unsynchronized)
    loss.backward()
    assert model.module[0].weight.grad.item() == pytest.approx(2 * mean_of_ranks())


def test_two_models_in_one_backward():
    a, b = DistributedDataParallel(linear()), DistributedDataParallel(linear(), find_unused_parameters=True)
    b(a(mine())).sum().backward()
    assert a.module.weight.grad.item() == b.module.weight.grad.item() == pytest.approx(mean_of_ranks())


def test_a_frozen_model_passes_gradients_on():
    """As a discriminator that is frozen while the generator learns, and thawed again."""
    generator, critic = DistributedDataParallel(linear()), DistributedDataParallel(linear())
    for step in range(3):
        critic.requires_grad_(False)
        generator.zero_grad()
        critic(generator(mine())).sum().backward()
        assert generator.module.weight.grad.item() == pytest.approx(mean_of_ranks())
        critic.requires_grad_(True)
        critic.zero_grad()
        critic(generator(mine()).detach()).sum().backward()
        assert critic.module.weight.grad.item() == pytest.approx(mean_of_ranks())
        assert critic.reducer.passes == step + 1


# Parameters that get no gradient -----------------------------------------------------------------------------------------


class Fork(nn.Module):
    """Goes left or right; `never` is not used."""

    def __init__(self, never=True):
        super().__init__()
        self.left, self.right = linear(), linear()
        if never:
            self.never = linear()

    def forward(self, x, way):
        return {"left": self.left, "right": self.right, "both": lambda x: self.left(x) + self.right(x), "none": lambda x: x}[way](x)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("cap", [TINY, 1.0])
@pytest.mark.parametrize("culprit", [0, -1])
def test_every_rank_says_where_a_gradient_is_missing(cap, culprit):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    culprit %= ranks
    model = DistributedDataParallel(Fork(never=False), bucket_cap_mb=cap)
    model(mine(), "both").sum().backward()
    with pytest.raises(RuntimeError, match=rf"1 parameter\(s\) got no gradient in this backward pass on rank {culprit}: right.weight\."):
        model(mine(), "left" if rank == culprit else "both").sum().backward()
    # and they go on together
    model.zero_grad()
    model(mine(), "both").sum().backward()
    assert model.module.left.weight.grad.item() == pytest.approx(mean_of_ranks())


class FlagsOfADevice(LateFlags):
    """Flags that are copied to the host while a GPU goes on."""

    def note(self, flag, missing):
        self._waiting.append((SimpleNamespace(query=lambda: True), wrap(flag.copy()), missing))


@pytest.mark.mpi(min_size=2)
def test_on_a_device_it_is_said_in_the_pass_after_the_next():
    """Where reading the flags would stop a GPU, every rank raises at the same place later."""
    model = DistributedDataParallel(Fork(never=False))
    model.reducer.on_device, model.reducer._late_flags = True, FlagsOfADevice()
    for _ in range(2):
        model(mine(), "both").sum().backward()
    model(mine(), "left" if dist.get_rank() == 1 else "both").sum().backward()
    model(mine(), "both").sum().backward()
    with pytest.raises(RuntimeError, match=r"1 parameter\(s\) got no gradient in this backward pass on rank 1: right.weight\."):
        model(mine(), "both")


@pytest.mark.mpi(min_size=2)
def test_ranks_with_different_mistakes_are_told_apart():
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model = DistributedDataParallel(Fork(never=False))
    with pytest.raises(RuntimeError) as error:
        model(mine(), "left" if rank else "right").sum().backward()
    assert "on rank 0: left.weight" in str(error.value)
    others = "rank 1" if ranks == 2 else f"ranks {', '.join(str(r) for r in range(1, ranks))}"
    assert f"on {others}: right.weight" in str(error.value)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("find_unused", [False, True])
def test_a_rank_that_uses_no_parameter_at_all(find_unused):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model = DistributedDataParallel(Fork(never=False), find_unused_parameters=find_unused, bucket_cap_mb=TINY)
    x = mine(6.0).requires_grad_()
    loss = model(x, "none" if rank == 0 else "both").sum()
    if find_unused:
        loss.backward()
        assert model.module.left.weight.grad.item() == pytest.approx(6 * (ranks - 1) / ranks)
    else:
        with pytest.raises(RuntimeError, match=r"2 parameter\(s\) got no gradient .* on rank 0: left.weight, right.weight"):
            loss.backward()


@pytest.mark.mpi(min_size=2)
def test_a_hook_does_not_hide_it():
    from disttorch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    model = DistributedDataParallel(Fork(never=False))
    model.register_comm_hook(None, allreduce_hook)
    with pytest.raises(RuntimeError, match=r"on rank 1: right.weight"):
        model(mine(), "left" if dist.get_rank() == 1 else "both").sum().backward()


@pytest.mark.parametrize("as_view", [True, False])
@pytest.mark.parametrize("cap", [TINY, 1.0])
def test_unused_parameters_keep_the_gradient_they_have(as_view, cap):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model = DistributedDataParallel(Fork(), find_unused_parameters=True, bucket_cap_mb=cap, gradient_as_bucket_view=as_view)
    left, right, never = (m.weight for m in (model.module.left, model.module.right, model.module.never))
    model(mine(6.0), "left" if rank == 0 else "both").sum().backward()
    before = right.grad.item() if ranks > 1 else None
    if ranks > 1:
        assert before == pytest.approx(6 * (ranks - 1) / ranks)
    for times in (2, 3):
        model(mine(6.0), "left").sum().backward()
        assert left.grad.item() == pytest.approx(6 * times)
        assert (right.grad.item() if ranks > 1 else right.grad) == before  # to the bit
        assert never.grad is None


def test_use_in_no_sync_counts():
    """A parameter used only in an accumulating pass, on one rank: its gradient is shared all the same."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model = DistributedDataParallel(Fork(), find_unused_parameters=True)
    with model.no_sync():
        model(mine(3.0), "right" if rank == 0 else "left").sum().backward()
    model(mine(3.0), "left").sum().backward()
    assert model.module.right.weight.grad.item() == pytest.approx(3 / ranks)
    assert model.module.left.weight.grad.item() == pytest.approx((3 + 6 * (ranks - 1)) / ranks)


@pytest.mark.parametrize("as_view", [True, False])
def test_skipped_parameters_are_not_reduced(as_view):
    model = DistributedDataParallel(
        Fork(), find_unused_parameters=True, skip_all_reduce_unused_params=True, bucket_cap_mb=TINY, gradient_as_bucket_view=as_view
    )
    for _ in range(3):
        model.zero_grad()
        model(mine(), "both").sum().backward()
        assert model.module.left.weight.grad.item() == pytest.approx(mean_of_ranks())
    assert sorted(e.name for b in model.reducer.buckets for e in b.entries) == ["left.weight", "right.weight"]


# Static graphs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_view", [True, False])
def test_a_static_graph_leaves_parameters_out(as_view):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model = DistributedDataParallel(Fork(), static_graph=True, bucket_cap_mb=TINY, gradient_as_bucket_view=as_view)
    for _ in range(4):
        model.zero_grad()
        model(mine(6.0), "left" if rank == 0 else "both").sum().backward()
        assert model.module.left.weight.grad.item() == pytest.approx(6)
        if ranks > 1:
            assert model.module.right.weight.grad.item() == pytest.approx(6 * (ranks - 1) / ranks)
        else:
            assert model.module.right.weight.grad is None
        assert model.module.never.weight.grad is None
    assert len(model.reducer.buckets) == (2 if ranks > 1 else 1)


def test_a_static_graph_that_changes_is_refused():
    model = DistributedDataParallel(Fork(never=False), static_graph=True)
    for _ in range(2):
        model(mine(), "both").sum().backward()
    with pytest.raises(RuntimeError, match=r"got no gradient .*: right.weight. With static_graph=True all passes must be alike"):
        model(mine(), "left").sum().backward()


class Checkpointed(nn.Module):
    """One layer, checkpointed twice; with `reentrant` its gradient arrives twice in a pass."""

    def __init__(self, reentrant):
        super().__init__()
        self.layer, self.head = nn.Linear(1, 1, bias=False).double(), linear()
        self.layer.weight.data.fill_(0.5)
        self.reentrant = reentrant

    def forward(self, x):
        for _ in range(2):
            x = checkpoint(self.layer, x, use_reentrant=self.reentrant)
        return self.head(x)


@pytest.mark.parametrize("as_view", [True, False])
@pytest.mark.parametrize(("reentrant", "options"), [(False, {}), (False, {"find_unused_parameters": True}), (True, {"static_graph": True})])
def test_checkpoints_of_a_layer_that_is_used_twice(reentrant, options, as_view):
    model = DistributedDataParallel(Checkpointed(reentrant), bucket_cap_mb=TINY, gradient_as_bucket_view=as_view, **options)
    for _ in range(3):
        model.zero_grad()
        model(mine().requires_grad_()).sum().backward()
        # y = w w x, and the head is 1
        assert model.module.layer.weight.grad.item() == pytest.approx(2 * 0.5 * mean_of_ranks())
        assert model.module.head.weight.grad.item() == pytest.approx(0.25 * mean_of_ranks())


def test_reentrant_checkpoints_of_layers_used_once_need_nothing():
    class Once(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = linear(), linear()

        def forward(self, x):
            return checkpoint(self.b, checkpoint(self.a, x, use_reentrant=True), use_reentrant=True)

    model = DistributedDataParallel(Once(), bucket_cap_mb=TINY)
    for _ in range(3):
        model.zero_grad()
        model(mine().requires_grad_()).sum().backward()
        assert [p.grad.item() for p in model.parameters()] == pytest.approx([mean_of_ranks()] * 2)


def test_gradients_that_arrive_twice_are_refused():
    model = DistributedDataParallel(Checkpointed(True))
    with pytest.raises(RuntimeError, match=r"gradient of layer.weight arrived a second time in one backward pass.*static_graph=True"):
        model(mine().requires_grad_()).sum().backward()
    model = DistributedDataParallel(Checkpointed(True), find_unused_parameters=True)
    with pytest.raises(RuntimeError, match=r"layer.weight, which the graph of this backward pass does not reach.*use_reentrant=False"):
        model(mine().requires_grad_()).sum().backward()


def test_more_gradients_than_in_the_first_pass_are_refused():
    class Grows(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = linear()

        def forward(self, x, times):
            for _ in range(times):
                x = checkpoint(self.layer, x, use_reentrant=True)
            return x

    model = DistributedDataParallel(Grows(), static_graph=True)
    for _ in range(2):
        model(mine().requires_grad_(), 1).sum().backward()
    with pytest.raises(RuntimeError, match=r"layer.weight arrived 2 time\(s\) in one backward pass, but 1 time\(s\) in the first"):
        model(mine().requires_grad_(), 2).sum().backward()


def test_a_parameter_that_was_taken_for_useless():
    model = DistributedDataParallel(Fork(), find_unused_parameters=True, skip_all_reduce_unused_params=True)
    for _ in range(2):
        model(mine(), "left").sum().backward()
    with pytest.raises(RuntimeError, match=r"a gradient arrived for right.weight, which no rank used in the first pass"):
        model(mine(), "right").sum().backward()


def test_tied_weights():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Linear(2, 3, bias=False).double()
            self.decoder = nn.Linear(2, 3, bias=False).double()
            self.decoder.weight = self.encoder.weight

        def forward(self, x):
            return self.encoder(x) + self.decoder(2 * x)

    model = DistributedDataParallel(Tied())
    for _ in range(2):
        model.zero_grad()
        model(disttorch.full((1, 2), 1.0 + dist.get_rank(), dtype=f64)).sum().backward()
        np.testing.assert_allclose(model.module.decoder.weight.grad.numpy(), np.full((3, 2), 3 * mean_of_ranks()))
    assert len(model.reducer.entries) == 1


def test_parameters_of_no_elements_and_no_dimensions():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.scalar = nn.Parameter(disttorch.tensor(2.0, dtype=f64))
            self.empty = nn.Parameter(disttorch.ones(0, 3, dtype=f64))

        def forward(self, x):
            return self.scalar * x + self.empty.sum()

    model = DistributedDataParallel(Odd(), bucket_cap_mb=TINY)
    for _ in range(2):
        model.zero_grad()
        model(mine()).sum().backward()
        assert model.module.scalar.grad.item() == pytest.approx(mean_of_ranks())
        assert model.module.empty.grad.shape == (0, 3)


def test_complex_and_half_parameters():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ParameterList(
                nn.Parameter(disttorch.ones(3, dtype=d)) for d in (disttorch.complex64, disttorch.bfloat16, disttorch.float16, f64)
            )

        def forward(self, x):
            return sum((p.real if p.is_complex() else p).double().sum() * x for p in self.parts)

    model = DistributedDataParallel(Mixed(), bucket_cap_mb=TINY, find_unused_parameters=True)
    for _ in range(2):
        model.zero_grad()
        model(1.0 + dist.get_rank()).backward()
        for p in model.module.parts:
            assert p.grad.dtype == p.dtype
            np.testing.assert_allclose(np.asarray(p.grad.tolist()), mean_of_ranks(), rtol=1e-2)


# What must not change ----------------------------------------------------------------------------------------------------


def replace_parameter(m):
    m.left.weight = nn.Parameter(disttorch.ones(1, 1, dtype=f64))


def add_layer(m):
    m.extra = linear()


def add_parameter(m):
    m.left.bias2 = nn.Parameter(disttorch.ones(1, dtype=f64))


def remove(m):
    del m.right


def reshape(m):
    m.left.weight.data = disttorch.ones(2, 1, dtype=f64)


def change_dtype(m):
    m.left.weight.data = m.left.weight.data.float()


CHANGES = [
    (replace_parameter, r"new: left.weight; replaced or removed: left.weight"),
    (add_layer, r"new: extra.weight"),
    (add_parameter, r"new: left.bias2"),
    (remove, r"replaced or removed: right.weight"),
    (reshape, r"left.weight \(was float64 of shape \[1, 1\], is float64 of shape \[2, 1\]\)"),
    (change_dtype, r"left.weight \(was float64 .*, is float32"),
    (lambda m: m.left.requires_grad_(False), r"requires_grad of 1 parameter\(s\) was switched off .*: left.weight"),
    (lambda m: m.frozen.requires_grad_(True), r"requires_grad was switched on: frozen.weight"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[c[1][:30] for c in CHANGES])
def test_a_model_that_is_not_the_one_that_was_wrapped(change, message):
    inner = Fork(never=False)
    inner.frozen = linear().requires_grad_(False)
    model = DistributedDataParallel(inner)
    model(mine(), "both").sum().backward()
    change(inner)
    with pytest.raises(RuntimeError, match=rf"(?s)on rank {dist.get_rank()}.*{message}"):
        model(mine(), "both")


def test_freezing_is_leaving_out_where_that_is_allowed():
    model = DistributedDataParallel(Fork(never=False), find_unused_parameters=True)
    for _ in range(2):
        model.zero_grad()
        model(mine(), "both").sum().backward()
        model.zero_grad()
        model.module.left.requires_grad_(False)
        model(mine(), "both").sum().backward()
        assert model.module.left.weight.grad is None
        assert model.module.right.weight.grad.item() == pytest.approx(mean_of_ranks())
        model.module.left.requires_grad_(True)


def test_a_backward_that_fails_half_way():
    model = DistributedDataParallel(nn.Sequential(*(linear() for _ in range(4))), bucket_cap_mb=TINY)

    def fail(gradient):
        raise ValueError("half way")

    handle = model.module[1].weight.register_hook(fail)
    with pytest.raises(ValueError, match="half way"):
        model(mine()).sum().backward()
    handle.remove()
    if dist.get_world_size() > 1:
        with pytest.raises(RuntimeError, match=r"ended by an error when rank \d had begun to reduce 2 of 4 buckets"):
            model(mine())
    else:
        model.zero_grad()
        model(mine()).sum().backward()
        assert model.module[0].weight.grad.item() == 1
    dist.barrier()


def test_graphs_are_not_kept_alive():
    model = DistributedDataParallel(linear())
    out = model(mine())
    node = disttorch.autograd.graph.get_gradient_edge(out).node
    import weakref

    alive = weakref.ref(node)
    out.sum().backward()
    del out, node
    gc.collect()
    assert alive() is None
    assert re.match(r"DistributedDataParallel\(", repr(model))
