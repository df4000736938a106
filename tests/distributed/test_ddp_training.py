"""DistributedDataParallel under all its options against the same training in one process, in float64 and float32."""

import numpy as np
import pytest

import disttorch
import disttorch.distributed as dist
from disttorch import nn
from disttorch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from disttorch.nn.parallel import DistributedDataParallel

pytestmark = pytest.mark.mpi(min_size=1)

SMALL = 200 / 2**20  # MiB: every bucket holds one or two parameters
CLOSE = {"float64": {"rtol": 1e-9, "atol": 1e-12}, "float32": {"rtol": 1e-3, "atol": 1e-5}}
STEPS = 6


class Net(nn.Module):
    """Layers that are used in another order than they are registered in, one of them twice."""

    def __init__(self, dtype):
        super().__init__()
        disttorch.manual_seed(3)
        self.last = nn.Linear(8, 3)
        self.shared = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.first = nn.Linear(5, 8)
        self.to(dtype)

    def forward(self, x):
        h = disttorch.tanh(self.first(x))
        h = self.norm(disttorch.tanh(self.shared(h)))
        return self.last(disttorch.tanh(self.shared(h)))


def batches(dtype, ranks, per_rank=2, steps=STEPS):
    """Inputs and targets of all ranks, step by step."""
    rng = np.random.default_rng(11)
    for _ in range(steps):
        yield (
            disttorch.tensor(rng.standard_normal((ranks * per_rank, 5)), dtype=dtype),
            disttorch.tensor(rng.standard_normal((ranks * per_rank, 3)), dtype=dtype),
        )


def loss_of(model, x, y):
    return ((model(x) - y) ** 2).mean()


def bits(model):
    return b"".join(p.detach().numpy().tobytes() for p in model.parameters())


OPTIONS = {
    "defaults": {},
    "small buckets": {"bucket_cap_mb": SMALL},
    "a list of sizes": {"bucket_cap_mb_list": [SMALL, 2 * SMALL]},
    "ordinary gradients": {"bucket_cap_mb": SMALL, "gradient_as_bucket_view": False},
    "unused are looked for": {"bucket_cap_mb": SMALL, "find_unused_parameters": True},
    "a static graph": {"bucket_cap_mb": SMALL, "static_graph": True},
    "a static graph, ordinary gradients": {"bucket_cap_mb": SMALL, "static_graph": True, "gradient_as_bucket_view": False},
    "a hook": {"bucket_cap_mb": SMALL, "hook": allreduce_hook},
    "a hook, ordinary gradients": {"gradient_as_bucket_view": False, "hook": allreduce_hook},
}


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("set_to_none", [True, False])
def test_trains_as_one_process_does(name, dtype, set_to_none):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    kind = getattr(disttorch, dtype)
    options = dict(OPTIONS[name])
    hook = options.pop("hook", None)
    alone = Net(kind)
    model = DistributedDataParallel(Net(kind), **options)
    if hook is not None:
        model.register_comm_hook(None, hook)
    optimizers = [disttorch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (alone, model)]
    for x, y in batches(kind, ranks):
        for m, optimizer, a, b in (
            (alone, optimizers[0], x, y),
            (model, optimizers[1], x[2 * rank : 2 * rank + 2], y[2 * rank : 2 * rank + 2]),
        ):
            optimizer.zero_grad(set_to_none=set_to_none)
            loss_of(m, a, b).backward()
            optimizer.step()
        for expected, found in zip(alone.parameters(), model.parameters()):
            np.testing.assert_allclose(found.grad.numpy(), expected.grad.numpy(), **CLOSE[dtype])
            np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), **CLOSE[dtype])
        everyone = [None] * ranks
        dist.all_gather_object(everyone, bits(model))
        assert all(other == everyone[0] for other in everyone)


@pytest.mark.parametrize("as_view", [True, False])
@pytest.mark.parametrize("static", [True, False])
def test_gradients_are_accumulated_over_steps(as_view, static):
    rank, ranks = dist.get_rank(), dist.get_world_size()
    kind = disttorch.float64
    alone = Net(kind)
    model = DistributedDataParallel(Net(kind), bucket_cap_mb=SMALL, gradient_as_bucket_view=as_view, static_graph=static)
    for _ in range(2):
        alone.zero_grad()
        model.zero_grad()
        for i, (x, y) in enumerate(batches(kind, ranks, steps=3)):
            loss_of(alone, x, y).backward()
            part = slice(2 * rank, 2 * rank + 2)
            if i < 2:
                with model.no_sync():
                    loss_of(model, x[part], y[part]).backward()
            else:
                loss_of(model, x[part], y[part]).backward()
        for expected, found in zip(alone.parameters(), model.parameters()):
            np.testing.assert_allclose(found.grad.numpy(), expected.grad.numpy(), **CLOSE["float64"])


@pytest.mark.parametrize("as_view", [True, False])
def test_optimizer_and_clipping_see_ordinary_gradients(as_view):
    model = DistributedDataParallel(Net(disttorch.float64), gradient_as_bucket_view=as_view)
    optimizer = disttorch.optim.AdamW(model.parameters(), lr=0.01)
    for x, y in batches(disttorch.float64, dist.get_world_size()):
        optimizer.zero_grad()
        loss_of(model, x, y).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        clipped = sum((p.grad.numpy() ** 2).sum() for p in model.parameters()) ** 0.5
        assert norm > 1e-3
        assert clipped == pytest.approx(1e-3, rel=1e-2)
        optimizer.step()


def test_sync_batch_norm_inside_with_uneven_batches():
    """The sum of losses over the joined batch, in one process, has the gradients that the ranks find together."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    counts = [1 + 2 * r for r in range(ranks)] if ranks > 1 else [4]

    def net():
        disttorch.manual_seed(5)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double()

    rng = np.random.default_rng(0)
    x = disttorch.tensor(rng.standard_normal((sum(counts), 3)))
    start = sum(counts[:rank])
    alone, model = net(), DistributedDataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(net()), bucket_cap_mb=SMALL)
    for _ in range(3):
        alone.zero_grad()
        model.zero_grad()
        (alone(x) ** 2).sum().backward()
        (model(x[start : start + counts[rank]]) ** 2).sum().backward()
        for expected, found in zip(alone.parameters(), model.parameters()):
            np.testing.assert_allclose(found.grad.numpy() * ranks, expected.grad.numpy(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(model.module[1].running_var.numpy(), alone[1].running_var.numpy(), rtol=1e-12)
