"""DistributedDataParallel in mixed precision, against the same computation in one process with all casts written out."""

import copy
import pickle
from dataclasses import dataclass

import numpy as np
import pytest

import disttorch
import disttorch.distributed as dist
from disttorch import nn
from disttorch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from disttorch.nn.parallel import DistributedDataParallel
from disttorch.nn.parallel.distributed import _MixedPrecision
from disttorch.utils.checkpoint import checkpoint

pytestmark = pytest.mark.mpi(min_size=1)

bf16, f16, f32, f64 = disttorch.bfloat16, disttorch.float16, disttorch.float32, disttorch.float64
SMALL = 100 / 2**20  # MiB: every bucket holds one or two parameters
EPS = {bf16: 2**-8, f16: 2**-11, f32: 2**-23, f64: 2**-52}


class Net(nn.Module):
    def __init__(self, with_second=True):
        super().__init__()
        disttorch.manual_seed(3)
        self.first, self.second, self.last = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.frozen = nn.Parameter(disttorch.randn(8), requires_grad=False)

    def forward(self, x, uses_second=True):
        h = disttorch.tanh(self.first(x)) * self.frozen
        return self.last(disttorch.tanh(self.second(h)) if uses_second else h)


def x_of(rank, step=0):
    return disttorch.tensor(np.random.default_rng([step, rank]).standard_normal((4, 5)), dtype=f32)


def loss_of(y):
    return (y.float() ** 2).mean()


def rounded(values, dtype):
    return disttorch.tensor(values).to(dtype).double().numpy()


def own_gradient(full, config, x, **kwargs):
    """A rank's gradients, by name, of a model of its own that has the parameters in the dtype they are computed in."""
    low = Net()
    low.load_state_dict({name.removeprefix("module."): t for name, t in full.state_dict().items()})
    if config.param_dtype is not None:
        low, x = low.to(config.param_dtype), x.to(config.param_dtype)
    loss_of(low(x, **kwargs)).backward()
    return {n: p.grad.double().numpy() for n, p in low.named_parameters() if p.grad is not None}


def reduction(config):
    return config.reduce_dtype or config.param_dtype or f32


def mean_of(gradients, config):
    """What the ranks reduce: each part rounded before, the mean after."""
    to = reduction(config)
    return {n: rounded(np.mean([rounded(g[n], to) for g in gradients], axis=0), to) for n in gradients[0]}


def assert_gradients(model, expected, config, dtype=f32, ulps=2):
    for name, p in model.module.named_parameters():
        assert p.dtype is f32
        if name not in expected:
            assert p.grad is None, name
            continue
        assert p.grad.dtype is dtype, name
        close = ulps * max(EPS[reduction(config)], EPS[dtype])
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(p.grad.double().numpy(), expected[name], rtol=close, atol=close * scale, err_msg=name)


CONFIGS = {
    "parameters": _MixedPrecision(bf16),
    "everything": _MixedPrecision(f16, f16, f16),
    "the reduction alone": _MixedPrecision(reduce_dtype=bf16),
    "the reduction in full": _MixedPrecision(bf16, f32),
    "two halves": _MixedPrecision(f16, bf16),
    "more than full": _MixedPrecision(reduce_dtype=f64),
    "nothing": _MixedPrecision(),
}
OPTIONS = {
    "defaults": {},
    "ordinary gradients": {"gradient_as_bucket_view": False, "bucket_cap_mb": SMALL},
    "unused are looked for": {"find_unused_parameters": True, "bucket_cap_mb": SMALL},
    "a static graph": {"static_graph": True, "bucket_cap_mb": SMALL},
    "a hook": {"hook": allreduce_hook, "bucket_cap_mb": SMALL},
}


def wrapped(config, hook=None, model=None, **options):
    model = DistributedDataParallel(Net() if model is None else model, mixed_precision=config, **options)
    if hook is not None:
        model.register_comm_hook(None, hook)
    return model


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_are_those_of_casts_written_out(name, options, set_to_none):
    config, ranks = CONFIGS[name], dist.get_world_size()
    model = wrapped(config, **OPTIONS[options])
    optimizer = disttorch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(4):
        optimizer.zero_grad(set_to_none=set_to_none)
        expected = mean_of([own_gradient(model.module, config, x_of(r, step)) for r in range(ranks)], config)
        loss_of(model(x_of(dist.get_rank(), step))).backward()
        assert_gradients(model, expected, config)
        optimizer.step()
        everyone = [None] * ranks
        dist.all_gather_object(everyone, b"".join(p.detach().numpy().tobytes() for p in model.parameters()))
        assert all(other == everyone[0] for other in everyone)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ["parameters", "two halves"])
def test_accumulation_adds_up_in_full_precision(name, options):
    config, ranks, rank = CONFIGS[name], dist.get_world_size(), dist.get_rank()
    model = wrapped(config, **OPTIONS[options])
    for _ in range(2):
        model.zero_grad()
        sums = []
        for r in range(ranks):
            parts = [own_gradient(model.module, config, x_of(r, step)) for step in range(3)]
            sums.append({n: sum(part[n] for part in parts) for n in parts[0]})
        for step in range(3):
            if step < 2:
                with model.no_sync():
                    loss_of(model(x_of(rank, step))).backward()
                assert all(p.grad.dtype is f32 for p in model.parameters() if p.requires_grad)
            else:
                loss_of(model(x_of(rank, step))).backward()
        assert_gradients(model, mean_of(sums, config), config)


def test_parameters_that_no_rank_uses_keep_their_gradient():
    config, ranks = _MixedPrecision(bf16), dist.get_world_size()
    model = wrapped(config, find_unused_parameters=True, bucket_cap_mb=SMALL)
    kept = disttorch.randn(8, 8)
    for step in range(3):
        model.zero_grad()
        model.module.second.weight.grad = kept.clone()
        expected = mean_of([own_gradient(model.module, config, x_of(r, step), uses_second=False) for r in range(ranks)], config)
        loss_of(model(x_of(dist.get_rank(), step), uses_second=False)).backward()
        assert (model.module.second.weight.grad == kept).all()  # to the bit: it was not rounded
        model.module.second.weight.grad = None
        assert_gradients(model, expected, config)


@pytest.mark.mpi(min_size=2)
def test_parameters_that_one_rank_uses():
    config, ranks, rank = _MixedPrecision(bf16, f16), dist.get_world_size(), dist.get_rank()
    model = wrapped(config, find_unused_parameters=True, bucket_cap_mb=SMALL)
    for step in range(3):
        model.zero_grad()
        own = [own_gradient(model.module, config, x_of(r, step), uses_second=r == 1) for r in range(ranks)]
        for g in own:
            for n in own[1]:
                g.setdefault(n, np.zeros_like(own[1][n]))
        loss_of(model(x_of(rank, step), uses_second=rank == 1)).backward()
        assert_gradients(model, mean_of(own, config), config)


@pytest.mark.parametrize("by_initial", [True, False])
def test_uneven_inputs(by_initial):
    """Rank r has r + 1 inputs; the last rank's last pass is its own."""
    config, ranks, rank = _MixedPrecision(bf16), dist.get_world_size(), dist.get_rank()
    model = wrapped(config, bucket_cap_mb=SMALL)
    with model.join(divide_by_initial_world_size=by_initial):
        for step in range(rank + 1):
            model.zero_grad()
            active = range(step, ranks)
            own = [own_gradient(model.module, config, x_of(r, step)) for r in active]
            divisor = ranks if by_initial else len(active)
            expected = {n: sum(rounded(g[n], bf16) for g in own) / divisor for n in own[0]}
            loss_of(model(x_of(rank, step))).backward()
            assert_gradients(model, expected, config, ulps=4)
    assert all(p.dtype is f32 for p in model.parameters())


# What gradients keep -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_view", [True, False])
@pytest.mark.parametrize("reset", ["none", "zero", "never"])
def test_gradients_may_keep_the_low_precision(as_view, reset):
    config, ranks, rank = _MixedPrecision(bf16, f16, keep_low_precision_grads=True), dist.get_world_size(), dist.get_rank()
    model = wrapped(config, gradient_as_bucket_view=as_view, bucket_cap_mb=SMALL)
    known = None
    for step in range(4):
        if reset != "never":
            model.zero_grad(set_to_none=reset == "none")
        before = {n: p.grad.double().numpy() for n, p in model.module.named_parameters() if p.grad is not None}
        own = [own_gradient(model.module, config, x_of(r, step)) for r in range(ranks)]
        total = [{n: g[n] + before.get(n, 0) for n in g} for g in own]
        loss_of(model(x_of(rank, step))).backward()
        assert_gradients(model, mean_of(total, config), config, dtype=f16)
        if reset == "never":  # the tensor stays, whatever its dtype is
            assert known is None or known is model.module.last.weight.grad
            known = model.module.last.weight.grad
    with model.no_sync():
        loss_of(model(x_of(rank))).backward()
    assert model.module.last.weight.grad.dtype is f32
    with model.no_sync():
        loss = loss_of(model(x_of(rank)))
        loss.backward(retain_graph=True)
        loss.backward()
    loss_of(model(x_of(rank))).backward()
    assert model.module.last.weight.grad.dtype is f16


def test_what_is_unused_keeps_a_low_gradient():
    config = _MixedPrecision(f16, keep_low_precision_grads=True)
    model = wrapped(config, find_unused_parameters=True)
    loss_of(model(x_of(dist.get_rank()))).backward()
    before = model.module.second.weight.grad.clone()
    for _ in range(2):
        loss_of(model(x_of(dist.get_rank()), uses_second=False)).backward()
        assert model.module.second.weight.grad.dtype is f16
        assert (model.module.second.weight.grad == before).all()


# What the model sees -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    x: object
    labels: object
    name: str = "batch"


class Observer(nn.Module):
    """Notes the dtypes of its parameters, buffers and inputs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.own = nn.Linear(2, 2)
        self.wide = nn.Parameter(disttorch.ones(2, dtype=f64))
        self.turn = nn.Parameter(disttorch.ones(2, dtype=disttorch.complex64))
        self.register_buffer("scale", disttorch.full((2,), 1.001))
        self.register_buffer("precise", disttorch.full((2,), 1.001, dtype=f64))
        self.register_buffer("count", disttorch.tensor(10 + dist.get_rank()))
        self.register_buffer("alone", disttorch.ones(2))

    def forward(self, x, batch=None, *, more=()):
        self.seen = {n: t.dtype for n, t in (*self.named_parameters(), *self.named_buffers())}
        self.seen |= {"x": x.dtype, "batch": batch and batch.x.dtype, "labels": batch and batch.labels.dtype}
        self.seen["more"] = [t.dtype for t in more]
        return self.layer(x) * self.scale + self.own(x.float()).to(x.dtype) + (self.wide.to(x.dtype) + self.turn.real.to(x.dtype))


@pytest.mark.parametrize(
    ("fields", "x", "layer", "scale", "result"),
    [
        ((bf16, None, f16), bf16, bf16, f16, f32),  # what bfloat16 and float16 make together
        ((bf16, None, bf16), bf16, bf16, bf16, bf16),
        ((None, bf16, None), f32, f32, f32, f32),
        ((None, None, f64), f32, f32, f64, f64),
    ],
    ids=str,
)
def test_what_the_model_sees(fields, x, layer, scale, result):
    inner = Observer()
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(inner, ["own.weight", "own.bias", "alone"])
    model = wrapped(_MixedPrecision(*fields), model=inner)
    before = {n: (p.dtype, p.data_ptr()) for n, p in model.named_parameters()}
    labels = disttorch.zeros(3, dtype=disttorch.int64)
    for context in (disttorch.enable_grad(), disttorch.no_grad(), model.no_sync()):
        with context:
            y = model(disttorch.ones(3, 2), Batch(disttorch.ones(1), labels), more=[disttorch.ones(1), labels])
        assert y.dtype is result
        assert inner.seen == {
            "layer.weight": layer, "layer.bias": layer, "wide": layer if fields[0] else f64, "turn": disttorch.complex64,
            "own.weight": f32, "own.bias": f32, "alone": f32, "count": disttorch.int64,
            "scale": scale, "precise": fields[2] or f64,
            "x": x, "batch": x, "labels": disttorch.int64, "more": [x, disttorch.int64],
        }  # fmt: skip
        assert {n: (p.dtype, p.data_ptr()) for n, p in model.named_parameters()} == before
    model(disttorch.ones(3, 2)).float().sum().backward()
    assert {n: p.grad.dtype for n, p in inner.named_parameters()} == {n: p.dtype for n, p in inner.named_parameters()}


@pytest.mark.parametrize(
    ("cast", "cast_root", "seen"), [(False, True, bf16), (True, False, bf16), (True, True, bf16), (False, False, f32)]
)
def test_inputs_are_cast_if_that_is_asked_for(cast, cast_root, seen):
    class Input(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(disttorch.ones(1))

        def forward(self, x):
            self.seen = x.dtype
            return x * self.weight

    model = wrapped(_MixedPrecision(bf16, cast_forward_inputs=cast, cast_root_forward_inputs=cast_root), model=Input())
    model(disttorch.ones(2)).sum().backward()
    assert model.module.seen is seen
    assert model.module.weight.grad.tolist() == [2.0]


def test_inputs_get_gradients_in_their_own_dtype():
    model = wrapped(_MixedPrecision(bf16, f32))
    x = x_of(0).requires_grad_()
    loss_of(model(x)).backward()
    low = Net().to(bf16)
    other = x_of(0).to(bf16).requires_grad_()
    loss_of(low(other)).backward()
    assert x.grad.dtype is f32
    assert (x.grad == other.grad.float()).all()


def test_an_error_in_forward_leaves_parameters_in_full_precision():
    class Failing(Net):
        def forward(self, x):
            raise ZeroDivisionError

    model = wrapped(_MixedPrecision(bf16), model=Failing())
    with pytest.raises(ZeroDivisionError):
        model(x_of(0))
    assert all(p.dtype is f32 for p in model.parameters())


class Checkpointed(Net):
    """Computes two layers again in backward, by a module and by a function on parameters."""

    reentrant = False

    def forward(self, x):
        def tail(h):
            return nn.functional.linear(checkpoint(self.second, h, use_reentrant=False), self.last.weight, self.last.bias)

        return checkpoint(tail, disttorch.tanh(self.first(x)) * self.frozen, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_compute_again_in_the_same_precision(reentrant):
    class Plain(Net):
        def forward(self, x):
            return self.last(self.second(disttorch.tanh(self.first(x)) * self.frozen))

    models = [wrapped(_MixedPrecision(bf16, f32), model=kind()) for kind in (Plain, Checkpointed)]
    models[1].module.reentrant = reentrant
    for model in models:
        loss_of(model(x_of(dist.get_rank()))).backward()
    for p, q in zip(*(m.parameters() for m in models)):
        assert not p.requires_grad or (p.grad == q.grad).all()


def test_two_forward_passes_before_backward():
    config, ranks, rank = _MixedPrecision(bf16, f32), dist.get_world_size(), dist.get_rank()
    model = wrapped(config)
    own = [[own_gradient(model.module, config, x_of(r, step)) for step in range(2)] for r in range(ranks)]
    (loss_of(model(x_of(rank, 0))) + loss_of(model(x_of(rank, 1)))).backward()
    expected = mean_of([{n: a[n] + b[n] for n in a} for a, b in own], config)
    assert_gradients(model, expected, _MixedPrecision(bf16))  # bfloat16's rounding of the sum


def test_a_hook_sees_the_dtype_of_the_reduction():
    seen = []

    def hook(state, bucket):
        seen.append((bucket.buffer().dtype, [g.dtype for g in bucket.gradients()], [p.dtype for p in bucket.parameters()]))
        return allreduce_hook(None, bucket)

    model = wrapped(_MixedPrecision(bf16, f16), hook=hook)
    loss_of(model(x_of(0))).backward()
    assert seen[0] == (f16, [f16] * 6, [f32] * 6)


# Buffers, states, copies ---------------------------------------------------------------------------------------------------


def batch_norm():
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))


def test_buffers_are_cast_once_and_their_state_is_in_full_precision():
    rank = dist.get_rank()
    inner = batch_norm()
    inner[1].running_mean.fill_(1.001 + rank)  # those of rank 0 are copied before they are cast
    model = wrapped(_MixedPrecision(bf16, None, f16), model=inner)
    assert inner[1].running_mean.dtype is inner[1].running_var.dtype is f16
    assert inner[1].num_batches_tracked.dtype is disttorch.int64
    assert inner[1].running_mean.tolist() == disttorch.full((4,), 1.001).to(f16).tolist()
    for step in range(2):
        loss_of(model(x_of(rank, step))).backward()
    assert inner[1].running_mean.dtype is f16
    for state, prefix in ((model.state_dict(), "module."), (inner.state_dict(), "")):
        assert {n: t.dtype for n, t in state.items()} == {
            f"{prefix}0.weight": f32, f"{prefix}0.bias": f32, f"{prefix}1.weight": f32, f"{prefix}1.bias": f32,
            f"{prefix}1.running_mean": f32, f"{prefix}1.running_var": f32, f"{prefix}1.num_batches_tracked": disttorch.int64,
        }  # fmt: skip
        assert (state[f"{prefix}1.running_mean"] == inner[1].running_mean.float()).all()
    model.load_state_dict({n: disttorch.full_like(t, 3) for n, t in model.state_dict().items()})
    assert inner[1].running_mean.dtype is f16
    assert inner[1].running_mean.tolist() == [3.0] * 4


def by_pickle(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("again", [copy.deepcopy, by_pickle])
def test_copies_compute_in_mixed_precision_too(again):
    config, ranks, rank = _MixedPrecision(bf16, f16, f16), dist.get_world_size(), dist.get_rank()
    model = again(wrapped(config))
    expected = mean_of([own_gradient(model.module, config, x_of(r)) for r in range(ranks)], config)
    loss_of(model(x_of(rank))).backward()
    assert_gradients(model, expected, config)
    other = again(wrapped(config, model=batch_norm()))
    assert other(x_of(rank)).shape == (4, 4)
    assert other.state_dict()["module.1.running_mean"].dtype is f32
