"""Parallel training of parameters with channels last: buckets, hooks and copies give what they give in C order."""

import numpy as np
import pytest

import disttorch
import disttorch.distributed as dist
from disttorch import nn, optim
from disttorch.distributed.algorithms.ddp_comm_hooks import default_hooks
from disttorch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import (
    PowerSGDState,
    batched_powerSGD_hook,
    powerSGD_hook,
)
from disttorch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from disttorch.nn import functional as F
from disttorch.nn.parallel import DistributedDataParallel

pytestmark = pytest.mark.mpi(min_size=1)

f64 = disttorch.float64


def model(last, seed=0):
    disttorch.manual_seed(seed)
    made = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).to(f64)  # fmt: skip
    return made.to(memory_format=disttorch.channels_last) if last else made


def batch(step, last):
    rng = np.random.default_rng([dist.get_rank(), step])
    x = disttorch.tensor(rng.standard_normal((4, 3, 7, 7)))
    return x.to(memory_format=disttorch.channels_last) if last else x, disttorch.tensor(rng.integers(0, 4, 4))


def trained(last, hook=None, sync=False, **options):
    made = model(last, seed=dist.get_rank())  # of which rank 0's is everyone's
    made = nn.SyncBatchNorm.convert_sync_batchnorm(made) if sync else made
    parallel = DistributedDataParallel(made, **options)
    if hook is not None:
        parallel.register_comm_hook(*hook())
    optimizer = optim.SGD(parallel.parameters(), lr=0.1, momentum=0.9)
    for step in range(4):
        optimizer.zero_grad(set_to_none=step == 2)
        x, y = batch(step, last)
        F.cross_entropy(parallel(x), y).backward()
        nn.utils.clip_grad_norm_(parallel.parameters(), 0.5)
        optimizer.step()
    weight = made[3].weight
    assert weight.is_contiguous(memory_format=disttorch.channels_last) == last
    assert weight.grad.stride() == weight.stride()
    return [np.array(t.detach().numpy()) for t in made.parameters()]


def everyones(parameters):
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, parameters)
    return found


def power_sgd(hook, **options):
    return lambda: (PowerSGDState(None, matrix_approximation_rank=2, start_powerSGD_iter=2, min_compression_rate=1, **options), hook)


WAYS = {
    "plain": {},
    "views of buckets": {"gradient_as_bucket_view": True},
    "small buckets": {"bucket_cap_mb": 0.0005},
    "static graph": {"static_graph": True},
    "synchronized batch norm": {"sync": True},
    "a hook": {"hook": lambda: (None, default_hooks.allreduce_hook)},
    "half precision on the way": {"hook": lambda: (None, default_hooks.bf16_compress_hook)},
    "PowerSGD": {"hook": power_sgd(powerSGD_hook)},
    "PowerSGD without error feedback": {"hook": power_sgd(powerSGD_hook, use_error_feedback=False)},
}


@pytest.mark.parametrize("way", WAYS)
def test_training(way):
    want, have = (trained(last, **WAYS[way]) for last in (False, True))
    for a, b in zip(have, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3 if "half" in way else 1e-9, atol=1e-3 if "half" in way else 1e-9)
    for other in everyones(have):
        for a, b in zip(have, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_buckets_as_one_square_matrix_are_alike_on_all_ranks():
    have = trained(True, hook=power_sgd(batched_powerSGD_hook))  # which depends on the order of elements
    for other in everyones(have):
        for a, b in zip(have, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_hooks_see_gradients_as_parameters_lie():
    made = model(True)
    parallel = DistributedDataParallel(made)
    seen = []

    def hook(state, bucket):
        seen.extend(zip(bucket.parameters(), bucket.gradients()))
        return default_hooks.allreduce_hook(None, bucket)

    parallel.register_comm_hook(None, hook)
    x, y = batch(0, True)
    F.cross_entropy(parallel(x), y).backward()
    assert len(seen) == 5
    for p, g in seen:
        assert g.stride() == p.stride() and g.shape == p.shape


def test_averaged_models():
    results = []
    for last in (False, True):
        made = model(last, seed=dist.get_rank())
        x, y = batch(0, last)
        F.cross_entropy(made(x), y).backward()
        PeriodicModelAverager(period=1).average_parameters(made.parameters())
        results.append([p.detach().numpy().copy() for p in made.parameters()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.mpi(min_size=2)
def test_ranks_whose_parameters_lie_differently_are_refused():
    with pytest.raises(RuntimeError, match=r"rank 0 has parameter '0.weight' .* not in C order but with strides \[27, 1, 9, 3\]"):
        DistributedDataParallel(model(dist.get_rank() == 0))


def test_collectives_of_tensors_with_channels_last():
    x = disttorch.arange(24, dtype=f64).reshape(1, 2, 3, 4).to(memory_format=disttorch.channels_last)
    want = x.contiguous() * dist.get_world_size()
    dist.all_reduce(x)
    assert x.is_contiguous(memory_format=disttorch.channels_last)
    assert (x == want).all()
    parts = [disttorch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x)
    assert all((part == want).all() for part in parts)
    dist.broadcast(x, 0)
    assert (x == want).all()
