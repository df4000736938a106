"""Uneven data on several ranks: equally many steps on all, every sample once, and gradients as of one process."""

from collections import Counter

import numpy as np
import pytest

import disttorch as torch
import disttorch.distributed as dist
from disttorch import nn
from disttorch.nn.parallel import DistributedDataParallel
from disttorch.utils.data import (
    DataLoader,
    DistributedBatchSampler,
    IterableDataset,
    ShardedIterable,
    TensorDataset,
    sharing,
    train_test_split,
)

SIZES = [0, 1, 4, 5, 7, 11, 12, 13, 24, 25]


def parts(n, batch, ranks, **options):
    samplers = [DistributedBatchSampler(range(n), batch, ranks, rank, **options) for rank in range(ranks)]
    return samplers, [list(s) for s in samplers]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("batch", "ranks"), [(1, 1), (3, 1), (1, 4), (3, 4), (4, 3)])
@pytest.mark.parametrize("n", SIZES)
def test_every_sample_once(n, batch, ranks, shuffle):
    if 0 < n < ranks:
        with pytest.raises(ValueError, match=f"{n} samples are not one for each of {ranks} ranks"):
            parts(n, batch, ranks)
        return
    samplers, found = parts(n, batch, ranks, shuffle=shuffle)
    assert sorted(i for rank in found for b in rank for i in b) == list(range(n))
    for step in range(len(samplers[0])):
        sizes = [len(rank[step]) for rank in found]
        assert sizes == samplers[0].sizes(step)
        assert max(sizes) - min(sizes) <= 1 and 1 <= min(sizes) <= max(sizes) <= batch + 1
        assert [s.weight(step) for s in samplers] == [m * ranks / sum(sizes) for m in sizes]
    assert {len(rank) for rank in found} == {len(samplers[0])}


@pytest.mark.parametrize(("batch", "ranks"), [(1, 1), (1, 4), (3, 4)])
@pytest.mark.parametrize("n", SIZES)
def test_padded_and_dropped(n, batch, ranks):
    _, padded = parts(n, batch, ranks, tail="pad")
    counts = Counter(i for rank in padded for b in rank for i in b)
    assert set(counts) == set(range(n)) and counts.total() == -(-n // ranks) * ranks
    assert len({tuple(map(len, rank)) for rank in padded}) == 1
    _, dropped = parts(n, batch, ranks, tail="drop")
    counts = Counter(i for rank in dropped for b in rank for i in b)
    assert counts.total() == n // (batch * ranks) * batch * ranks == len(counts)
    assert all(len(b) == batch for rank in dropped for b in rank)


def test_epochs():
    sampler = DistributedBatchSampler(range(40), 4, 2, 0)
    first, again = list(sampler), list(sampler)
    sampler.set_epoch(1)
    assert first == again != list(sampler)
    with pytest.raises(IndexError, match="there is no step 5, there are 5"):
        sampler.weight(5)


@pytest.mark.mpi(min_size=1)
def test_training_is_that_of_one_process():
    """With weighted losses the gradients of each step are those of the global batch, also of the last, uneven one."""
    dist.init_process_group()
    ranks = dist.get_world_size()
    rng = np.random.default_rng(0)
    n = 4 * ranks * 2 + max(ranks - 1, 1)
    x, y = (torch.tensor(rng.standard_normal((n, k))) for k in (3, 1))
    sampler = DistributedBatchSampler(range(n), 4, seed=1)
    torch.manual_seed(0)
    alone = nn.Linear(3, 1, dtype=torch.float64)
    model = DistributedDataParallel(nn.Linear(3, 1, dtype=torch.float64))
    model.module.load_state_dict(alone.state_dict())
    whole = DistributedBatchSampler(range(n), 4 * ranks, 1, 0, seed=1)
    if ranks > 1:
        assert len(sampler) == len(whole) - 1  # fewer are left than ranks, so they join the last batch
    batches = list(whole)
    if ranks > 1:
        batches[-2:] = [batches[-2] + batches[-1]]
    for step, (a, b) in enumerate(DataLoader(TensorDataset(x, y), batch_sampler=sampler)):
        model.zero_grad()
        alone.zero_grad()
        (nn.functional.mse_loss(model(a), b) * sampler.weight(step)).backward()
        rows = torch.tensor(batches[step])
        nn.functional.mse_loss(alone(x[rows]), y[rows]).backward()
        np.testing.assert_allclose(model.module.weight.grad.numpy(), alone.weight.grad.numpy(), rtol=1e-12)
    dist.destroy_process_group()


class Numbers(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(range(self.n))


@pytest.mark.parametrize("tail", ["pad", "drop"])
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("n", [0, 1, 5, 12, 13, 26])
def test_shares_of_a_stream(monkeypatch, n, workers, tail):
    ranks, found = 4, {}
    for rank in range(ranks):
        for worker in range(workers):
            info = type("Info", (), {"id": worker, "num_workers": workers})
            monkeypatch.setattr(sharing, "get_worker_info", lambda info=info: info)
            found[rank, worker] = list(ShardedIterable(Numbers(n), ranks, rank, tail))
    counts = Counter(i for part in found.values() for i in part)
    if tail == "pad":
        assert set(counts) == set(range(n)) and counts.total() == -(-n // ranks) * ranks
    else:
        assert counts.total() == len(counts) == n // ranks * ranks
    for worker in range(workers):  # so all ranks have equally many batches
        assert len({len(found[rank, worker]) for rank in range(ranks)}) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_shares_in_a_loader(workers):
    batches = [list(DataLoader(ShardedIterable(Numbers(21), 2, r), 3, num_workers=workers)) for r in range(2)]
    assert len(batches[0]) == len(batches[1])
    assert {i for rank in batches for b in rank for i in b.tolist()} == set(range(21))


# --- train and test ---------------------------------------------------------------------------------------------------


def test_split():
    x, y = np.arange(40).reshape(20, 2), torch.arange(20)
    generator = torch.Generator().manual_seed(1)
    parts = train_test_split(x, y, list(range(20)), TensorDataset(y), fraction=0.3, generator=generator)
    train_x, test_x, train_y, test_y, train_l, test_l, train_d, test_d = parts
    assert sorted(train_y.tolist() + test_y.tolist()) == list(range(20)) and len(test_y) == 6
    assert test_y.tolist() == test_l == (test_x[:, 0] // 2).tolist() == [s[0].item() for s in test_d]
    assert train_y.tolist() == train_l == (train_x[:, 0] // 2).tolist() == [s[0].item() for s in train_d]
    again = train_test_split(y, fraction=6, generator=torch.Generator().manual_seed(1))[1]
    assert again.tolist() == test_y.tolist() != sorted(test_y.tolist())


@pytest.mark.parametrize("count", [5, 10, 33])
def test_split_by_class(count):
    classes = np.array([0] * 50 + [1] * 30 + [2] * 17 + [3] * 3)
    train, test = train_test_split(classes, fraction=count, stratify=classes)
    assert len(test) == count and len(train) == 100 - count
    for c in range(4):
        assert abs(np.sum(test == c) - np.sum(classes == c) * count / 100) < 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: train_test_split([1], [1, 2]), r"got lengths \[1, 2\]"),
        (lambda: train_test_split([1, 2], stratify=[1]), "and stratify 1"),
        (lambda: train_test_split([1, 2], fraction=0.0), "leave one part empty"),
        (lambda: train_test_split([1, 2], fraction=2), "leave one part empty"),
        (lambda: train_test_split([1, 2], shuffle=False, stratify=[0, 1]), "shuffle cannot be False"),
        (lambda: DistributedBatchSampler(range(3), 0), "batch_size should be a positive"),
        (lambda: DistributedBatchSampler(range(3), 1, tail="cut"), "tail must be"),
        (lambda: ShardedIterable([], tail="even"), "tail must be"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
