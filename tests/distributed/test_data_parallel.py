"""Data-parallel training against the same training in one process, and what is said when models differ."""

import numpy as np
import pytest

import disttorch
import disttorch.distributed as dist
from disttorch import nn
from disttorch.nn.parallel import DistributedDataParallel
from disttorch.utils.data import DataLoader, DistributedSampler, TensorDataset

pytestmark = pytest.mark.mpi(min_size=1)
BATCH = 16  # over all ranks


def images(n=400):
    """Ten kinds of noisy pictures that a small network can learn."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, n)
    kinds = rng.standard_normal((10, 1, 8, 8))
    pictures = kinds[labels] + 0.5 * rng.standard_normal((n, 1, 8, 8))
    return TensorDataset(disttorch.tensor(pictures, dtype=disttorch.float32), disttorch.tensor(labels))


def network():
    disttorch.manual_seed(7)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 32),
        nn.GELU(),
        nn.Linear(32, 10),
    )


OPTIMIZERS = {
    "SGD": lambda p: disttorch.optim.SGD(p, lr=0.05, momentum=0.9),
    "AdamW": lambda p: disttorch.optim.AdamW(p, lr=4e-3),
}


def train(model, optimizer, loader, steps, group=None, after_step=lambda: None):
    """Losses of the global batch, the mean over all ranks."""
    losses = []
    epoch = 0
    while len(losses) < steps:
        loader.sampler.set_epoch(epoch)
        epoch += 1
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            after_step()
            shared = loss.detach().clone()
            if group is None:
                dist.all_reduce(shared, dist.ReduceOp.AVG)
            losses.append(shared.item())
            if len(losses) == steps:
                break
    return losses


def loader(ranks, rank):
    data = images()
    sampler = DistributedSampler(data, num_replicas=ranks, rank=rank, seed=3)
    return DataLoader(data, batch_size=BATCH // ranks, sampler=sampler, drop_last=True)


@pytest.mark.mpi(min_size=1)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ranks_train_as_one_process_does(name):
    ranks, rank = dist.get_world_size(), dist.get_rank()
    if BATCH % ranks:
        pytest.skip(f"{BATCH} images cannot be shared by {ranks} ranks")
    alone = network()
    expected = train(alone, OPTIMIZERS[name](alone.parameters()), loader(1, 0), 50, group="none")

    model = DistributedDataParallel(network(), bucket_cap_mb=0.01)

    def same_everywhere():
        mine = disttorch.cat([p.detach().reshape(-1) for p in model.parameters()])
        first = mine.clone()
        dist.broadcast(first, 0)
        assert np.array_equal(mine.numpy().view(np.uint32), first.numpy().view(np.uint32))

    found = train(model, OPTIMIZERS[name](model.parameters()), loader(ranks, rank), 50, after_step=same_everywhere)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert found[-1] < 0.5 * found[0]


def test_models_start_as_that_of_rank_0():
    disttorch.manual_seed(dist.get_rank())
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    model[1].running_mean.fill_(float(dist.get_rank()))
    DistributedDataParallel(model)
    disttorch.manual_seed(0)
    expected = nn.Linear(3, 2)
    assert model[0].weight.tolist() == expected.weight.tolist()
    assert model[1].running_mean.tolist() == [0, 0]


def test_gradients_are_the_mean_and_live_in_buckets():
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model = DistributedDataParallel(nn.Linear(2, 1))
    x = disttorch.full((1, 2), float(rank + 1))
    model(x).sum().backward()
    mean = sum(range(1, ranks + 1)) / ranks
    assert model.module.weight.grad.tolist() == [[pytest.approx(mean)] * 2]
    first = model.module.weight.grad.data_ptr()
    for set_to_none in (True, False):
        model.zero_grad(set_to_none=set_to_none)
        model(x).sum().backward()
        assert model.module.weight.grad.tolist() == [[pytest.approx(mean)] * 2]
        assert model.module.weight.grad.data_ptr() == first
    # weight and bias lie in one flat array
    assert abs(model.module.bias.grad.data_ptr() - first) <= 8
    # a gradient that was put there by hand is added to, and comes home
    model.module.weight.grad = disttorch.ones(1, 2)
    model(x).sum().backward()
    assert model.module.weight.grad.tolist() == [[pytest.approx(mean + 1)] * 2]
    assert model.module.weight.grad.data_ptr() == first


def test_no_sync_accumulates():
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model = DistributedDataParallel(nn.Linear(1, 1, bias=False))
    x = disttorch.full((1, 1), float(rank))
    with model.no_sync():
        for _ in range(2):
            model(x).sum().backward()
            model(x).sum().backward()
    assert model.module.weight.grad.item() == 4 * rank
    model(x).sum().backward()
    assert model.module.weight.grad.item() == pytest.approx(5 * sum(range(ranks)) / ranks)


def test_reduction_starts_before_backward_ends():
    model = DistributedDataParallel(nn.Sequential(*(nn.Linear(4, 4) for _ in range(4))), bucket_cap_mb=16 * 4 / 2**20)
    x = disttorch.ones(1, 4)
    inner = []
    model.module[1].weight.register_hook(lambda g: inner.append(sum(b.work is not None for b in model.reducer.buckets)))
    model(x).sum().backward()
    assert len(model.reducer.buckets) > 2
    assert 0 < inner[0] < len(model.reducer.buckets)


class Fork(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.never = (nn.Linear(1, 1, bias=False) for _ in range(3))

    def forward(self, x, left):
        return (self.left if left else self.right)(x)


def test_a_parameter_without_gradient_is_named():
    model = DistributedDataParallel(Fork())
    with pytest.raises(
        RuntimeError, match=r"2 parameter\(s\) got no gradient .* on (every rank|rank 0): right.weight, never.weight"
    ):
        model(disttorch.ones(1, 1), True).sum().backward()
    dist.barrier()


def test_unused_parameters_are_found():
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model = DistributedDataParallel(Fork(), find_unused_parameters=True)
    model(disttorch.full((1, 1), 6.0), rank == 0).sum().backward()  # the first rank goes left, the others right
    assert model.module.left.weight.grad.item() == pytest.approx(6 / ranks)
    if ranks > 1:
        assert model.module.right.weight.grad.item() == pytest.approx(6 * (ranks - 1) / ranks)
    else:
        assert model.module.right.weight.grad is None
    assert model.module.never.weight.grad is None
    model(disttorch.full((1, 1), 6.0), True).sum().backward()  # now nobody goes right: what is there stays
    if ranks > 1:
        assert model.module.right.weight.grad.item() == pytest.approx(6 * (ranks - 1) / ranks)


def test_unused_parameters_are_found_in_any_bucket():
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model = DistributedDataParallel(Fork(), find_unused_parameters=True, bucket_cap_mb=1 / 2**20)
    for step in range(1, 4):  # even ranks go left, odd ones right: their buckets fill in different orders
        model.zero_grad()
        model(disttorch.full((1, 1), float(step)), rank % 2 == 0).sum().backward()
        evens = (ranks + 1) // 2
        assert model.module.left.weight.grad.item() == pytest.approx(step * evens / ranks)
        if ranks > 1:
            assert model.module.right.weight.grad.item() == pytest.approx(step * (ranks - evens) / ranks)
        assert model.module.never.weight.grad is None
        assert len(model.reducer.buckets) == 3


def test_buffers_follow_rank_0():
    rank = dist.get_rank()
    model = DistributedDataParallel(nn.BatchNorm1d(1, momentum=1.0))
    model(disttorch.tensor([[float(rank)], [float(rank) + 2]])).sum().backward()
    model(disttorch.tensor([[0.0], [2.0]]))  # begins by copying the statistics of rank 0
    assert model.module.running_mean.item() == 1
    model.module.running_mean.fill_(float(rank))
    model.eval()
    model(disttorch.ones(2, 1))
    assert model.module.running_mean.item() == rank


def test_mixed_dtypes_and_shared_parameters():
    rank, ranks = dist.get_rank(), dist.get_world_size()

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(disttorch.ones(2))
            self.b = nn.Parameter(disttorch.ones(2, dtype=disttorch.float64))
            self.c = nn.Parameter(disttorch.ones(2, dtype=disttorch.bfloat16))
            self.again = self.a

        def forward(self, x):
            return (self.a * x + self.b * x + self.c * x + self.again).sum()

    model = DistributedDataParallel(Mixed())
    model(float(rank)).backward()
    mean = sum(range(ranks)) / ranks
    assert model.module.a.grad.tolist() == [pytest.approx(mean + 1)] * 2
    assert model.module.b.grad.tolist() == [pytest.approx(mean)] * 2
    assert model.module.c.grad.tolist() == [pytest.approx(mean, rel=1e-2)] * 2
    assert model.module.c.grad.dtype == disttorch.bfloat16


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda rank: nn.Linear(3, 2 + (rank == 1)),
            r"rank 0 has parameter 'weight' of disttorch.float32 and shape \[2, 3\], rank 1 .*\[3, 3\]",
        ),
        (lambda rank: nn.Linear(3, 2, bias=rank != 1), r"rank 0 has parameter 'bias' .*, rank 1 no such parameter"),
        (
            lambda rank: nn.Linear(3, 2).double() if rank == 1 else nn.Linear(3, 2),
            r"rank 1 parameter 'weight' of disttorch.float64",
        ),
    ],
)
def test_different_models_are_refused(make, message):
    with pytest.raises(RuntimeError, match=message):
        DistributedDataParallel(make(dist.get_rank()))


def test_a_model_without_parameters_is_refused():
    with pytest.raises(RuntimeError, match="doesn't have any parameter"):
        DistributedDataParallel(nn.ReLU())
