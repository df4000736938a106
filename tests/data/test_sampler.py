"""Samplers against formulas and, where PyTorch is installed, against its samplers."""

import itertools

import numpy as np
import pytest

import disttorch as torch
from disttorch.utils.data import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

SIZES = [(0, 1), (1, 1), (1, 3), (5, 1), (5, 2), (6, 2), (6, 4), (7, 3), (3, 7), (10, 4), (8193, 2)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_sequential():
    assert list(SequentialSampler("abcd")) == [0, 1, 2, 3]
    assert len(SequentialSampler("abcd")) == 4


@pytest.mark.parametrize("n", [1, 2, 100, 5000])
def test_random_is_a_permutation(n):
    sampler = RandomSampler(range(n), generator=seeded())
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(n))
    assert len(sampler) == n
    assert n < 100 or first != second
    assert list(RandomSampler(range(n), generator=seeded())) == first


def test_random_follows_the_default_generator():
    torch.manual_seed(5)
    sampler = RandomSampler(range(50))
    first = list(sampler)
    torch.manual_seed(5)
    assert list(sampler) == first
    assert list(sampler) != first


def test_random_draws_when_it_is_asked_and_no_more():
    """What the training loop draws between batches changes nothing."""
    torch.manual_seed(5)
    expected = list(BatchSampler(RandomSampler(range(50)), 7, False))
    torch.manual_seed(5)
    batches = iter(BatchSampler(RandomSampler(range(50)), 7, False))
    disturbed = []
    for _ in range(8):
        torch.rand(3)
        disturbed.append(next(batches))
    assert disturbed == expected


@pytest.mark.parametrize(("n", "count"), [(5, 3), (5, 5), (5, 12), (1, 4)])
def test_more_samples_than_there_are_go_round(n, count):
    drawn = list(RandomSampler(range(n), num_samples=count, generator=seeded()))
    assert len(drawn) == count
    for i in range(0, count, n):
        part = drawn[i : i + n]
        assert len(set(part)) == len(part)
    assert set(drawn) <= set(range(n))


def test_with_replacement():
    drawn = list(RandomSampler(range(4), replacement=True, num_samples=4000, generator=seeded()))
    counts = np.bincount(drawn, minlength=4)
    assert counts.sum() == 4000
    assert np.abs(counts - 1000).max() < 5 * (4000 * 0.25 * 0.75) ** 0.5  # five standard deviations


def test_subset_random():
    sampler = SubsetRandomSampler([7, 3, 9], seeded())
    assert (sorted(sampler), len(sampler)) == ([3, 7, 9], 3)


def test_weighted():
    weights = [0.0, 1.0, 3.0]
    drawn = list(WeightedRandomSampler(weights, 4000, generator=seeded()))
    counts = np.bincount(drawn, minlength=3)
    assert counts[0] == 0
    assert abs(counts[2] - 3000) < 5 * (4000 * 0.75 * 0.25) ** 0.5
    assert sorted(WeightedRandomSampler([1.0, 2, 3], 3, replacement=False, generator=seeded())) == [0, 1, 2]


@pytest.mark.parametrize(
    ("n", "size", "drop", "expected"),
    [
        (5, 2, False, [[0, 1], [2, 3], [4]]),
        (5, 2, True, [[0, 1], [2, 3]]),
        (4, 2, False, [[0, 1], [2, 3]]),
        (3, 5, False, [[0, 1, 2]]),
        (3, 5, True, []),
        (0, 2, False, []),
    ],
)
def test_batches(n, size, drop, expected):
    sampler = BatchSampler(range(n), size, drop)
    assert (list(sampler), len(sampler)) == (expected, len(expected))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RandomSampler("ab", replacement=1), TypeError, "replacement=1"),
        (lambda: RandomSampler("ab", num_samples=0), ValueError, "num_samples=0"),
        (lambda: RandomSampler([]), ValueError, "num_samples=0, for the dataset is empty"),
        (lambda: RandomSampler("ab", num_samples=2.0), ValueError, "num_samples=2.0"),
        (lambda: WeightedRandomSampler([1.0], 0), ValueError, "num_samples=0"),
        (lambda: WeightedRandomSampler([1.0], True), ValueError, "num_samples=True"),
        (lambda: WeightedRandomSampler([1.0], 1, "yes"), ValueError, "replacement='yes'"),
        (lambda: WeightedRandomSampler([[1.0]], 1), ValueError, r"shape \[1, 1\]"),
        (lambda: list(WeightedRandomSampler([1.0], 2, replacement=False)), RuntimeError, "without replacement"),
        (lambda: BatchSampler("ab", 0, False), ValueError, "batch_size=0"),
        (lambda: BatchSampler("ab", 2.0, False), ValueError, "batch_size=2.0"),
        (lambda: BatchSampler("ab", True, False), ValueError, "batch_size=True"),
        (lambda: BatchSampler("ab", 2, None), ValueError, "drop_last=None"),
        (lambda: iter(Sampler()), NotImplementedError, "without __iter__"),
        (lambda: DistributedSampler("ab", 2, 2), ValueError, r"Invalid rank 2, rank should be in the interval \[0, 1\]"),
        (lambda: DistributedSampler("ab", 2, -1), ValueError, "Invalid rank -1"),
        (lambda: DistributedSampler("ab", 0, 0), ValueError, "num_replicas=0"),
        (lambda: DistributedSampler("ab"), ValueError, "Default process group has not been initialized"),
        (lambda: DistributedSampler("ab", num_replicas=2), ValueError, "Default process group has not been initialized"),
    ],
)
def test_what_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize(("n", "ranks"), SIZES)
def test_distributed_parts(n, ranks, drop):
    """The rule itself: the order, padded from its beginning or cut, dealt out like cards."""
    each = n // ranks if drop else -(-n // ranks)
    order = list(itertools.islice(itertools.cycle(range(n)), each * ranks)) if n else []
    for rank in range(ranks):
        sampler = DistributedSampler(range(n), ranks, rank, shuffle=False, drop_last=drop)
        assert list(sampler) == order[rank : each * ranks : ranks]
        assert len(sampler) == sampler.num_samples == each
        assert sampler.total_size == each * ranks


@pytest.mark.parametrize(("n", "ranks"), [(5, 2), (100, 3), (3, 7)])
def test_distributed_shuffle(n, ranks):
    """All ranks deal out one permutation, another one for another epoch or seed."""

    def dealt(epoch, seed):
        parts = []
        for rank in range(ranks):
            sampler = DistributedSampler(range(n), ranks, rank, seed=seed)
            sampler.set_epoch(epoch)
            parts.append(list(sampler))
        return [part[i] for i in range(len(parts[0])) for part in parts]

    orders = {(epoch, seed): dealt(epoch, seed) for epoch in (0, 1) for seed in (0, 7)}
    for order in orders.values():
        assert sorted(order[:n]) == list(range(n))
        assert order == list(itertools.islice(itertools.cycle(order[:n]), len(order)))
    assert orders[0, 0] == dealt(0, 0)
    if n >= 100:
        assert len({tuple(order) for order in orders.values()}) == 4


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize(("n", "ranks"), [s for s in SIZES if s[0]])
def test_distributed_as_pytorch(n, ranks, drop):
    theirs = pytest.importorskip("torch.utils.data.distributed")
    for rank in range(ranks):
        expected = theirs.DistributedSampler(range(n), ranks, rank, shuffle=False, drop_last=drop)
        ours = DistributedSampler(range(n), ranks, rank, shuffle=False, drop_last=drop)
        assert list(ours) == list(expected)
        assert (len(ours), ours.num_samples, ours.total_size) == (
            len(expected), expected.num_samples, expected.total_size
        )  # fmt: skip


def test_derived_samplers_set_their_numbers():
    """As those do that take no sample twice, or that draw an epoch of another length."""

    class Unrepeated(DistributedSampler):
        def __init__(self, *args):
            super().__init__(*args)
            self.total_size = len(self.dataset)
            self.num_samples = len(range(self.rank, self.total_size, self.num_replicas))

        def __iter__(self):
            return iter(range(self.rank, self.total_size, self.num_replicas))

    parts = [Unrepeated(range(5), 2, rank) for rank in (0, 1)]
    assert [list(p) for p in parts] == [[0, 2, 4], [1, 3]]
    assert [len(p) for p in parts] == [3, 2]

    longer = DistributedSampler(range(3), 2, 1, shuffle=False)
    longer.num_samples, longer.total_size = 4, 8
    assert list(longer) == [1, 0, 2, 1]


@pytest.mark.parametrize(("drop", "now"), [(False, 7), (True, 3)])
def test_a_dataset_of_another_length_is_not_dealt_out_in_part(drop, now):
    """Samples would be left out, or be none."""
    sampler = DistributedSampler(list(range(5)), 2, 0, shuffle=False, drop_last=drop)
    sampler.dataset = list(range(now))
    with pytest.raises(AssertionError, match=f"{now} samples now.*new sampler"):
        list(sampler)
