"""A loader goes on in the middle of an epoch: what comes is what would have come without the interruption."""

import os
import random

import numpy as np
import pytest

import disttorch as torch
from disttorch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    get_worker_info,
)


class Drawn(Dataset):
    """Samples with random numbers of the three streams."""

    def __len__(self):
        return 23

    def __getitem__(self, i):
        return i, torch.rand(()), random.random(), np.random.rand()  # noqa: NPY002


class Stream(IterableDataset):
    """Each worker its share, with random numbers; without a state of its own."""

    def __iter__(self):
        info = get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        for i in range(first, 23, step):
            yield i, random.random() if info else 0.0


class Counting(IterableDataset):
    """A stream with a state, which must not be read again from the beginning."""

    def __init__(self, n=23, tells=False):
        self.n = n
        self.at = 0
        self.read = 0
        self.tells = tells  # how many it has read

    def __iter__(self):
        info = get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        while first + step * self.at < self.n:
            self.at += 1
            self.read += 1
            yield first + step * (self.at - 1), self.read * self.tells
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class Places:
    """An iterator with a state."""

    def __init__(self, n):
        self.n, self.at = n, 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.at == self.n:
            raise StopIteration
        self.at += 1
        return self.at - 1

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class OfPlaces(IterableDataset):
    def __iter__(self):
        return Places(12)


class Remembering(Dataset):
    """A dataset with indices and a state: how many samples were asked for."""

    def __init__(self):
        self.asked = 0

    def __len__(self):
        return 23

    def __getitem__(self, i):
        self.asked += 1
        return i, self.asked

    def state_dict(self):
        return {"asked": self.asked}

    def load_state_dict(self, state):
        self.asked = state["asked"]


def plain(batch):
    if isinstance(batch, (list, tuple)):
        return [plain(column) for column in batch]
    return batch.tolist() if isinstance(batch, torch.Tensor) else batch


def generator():
    return torch.Generator().manual_seed(5)


def own_generator(make):
    """A dataset and options whose sampler has a generator of its own."""
    return lambda: (Drawn(), {"batch_size": 3, "sampler": make(generator())})


CASES = {
    "in order": lambda: (Drawn(), {"batch_size": 3}),
    "shuffled": lambda: (Drawn(), {"batch_size": 3, "shuffle": True}),
    "from a generator": lambda: (Drawn(), {"batch_size": 3, "shuffle": True, "generator": generator()}),
    "without batches": lambda: (Drawn(), {"batch_size": None, "shuffle": True}),
    "random sampler": own_generator(lambda g: RandomSampler(range(23), replacement=True, generator=g)),
    "subset": own_generator(lambda g: SubsetRandomSampler(range(4, 23), generator=g)),
    "weighted": own_generator(lambda g: WeightedRandomSampler(np.arange(1.0, 24), 20, generator=g)),
    "distributed": lambda: (Drawn(), {"batch_size": 3, "sampler": DistributedSampler(range(23), 2, 1)}),
    "batch sampler": lambda: (Drawn(), {"batch_sampler": [[1, 2], [3], [4, 5, 6], [7], [8], [9], [10]]}),
    "a stream": lambda: (Stream(), {"batch_size": 3}),
    "a stream, drop_last": lambda: (Stream(), {"batch_size": 3, "drop_last": True}),
    "a stream with a state": lambda: (Counting(), {"batch_size": 3}),
    "a stream without batches": lambda: (Counting(), {"batch_size": None, "collate_fn": torch.tensor}),
    "an iterator with a state": lambda: (OfPlaces(), {"batch_size": 2}),
    "a dataset with a state": lambda: (Remembering(), {"batch_size": 3, "shuffle": True}),
}


@pytest.mark.parametrize(("workers", "at"), [(0, 0), (0, 1), (0, 4), (2, 0), (2, 3), (3, 1)])
@pytest.mark.parametrize("name", CASES)
def test_what_comes_after_an_interruption(name, workers, at, tmp_path):
    """The rest of the epoch and the whole of the next one, to the bit, also what samples draw."""

    def loader():
        dataset, options = CASES[name]()
        return DataLoader(dataset, num_workers=workers, **options)

    torch.manual_seed(11)
    random.seed(11)
    np.random.seed(11)  # noqa: NPY002
    first = loader()
    if isinstance(first.sampler, DistributedSampler):
        first.sampler.set_epoch(3)
    iterator = iter(first)
    given = [plain(next(iterator)) for _ in range(at)]
    torch.save({"data": first.state_dict()}, tmp_path / "state")
    streams = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    expected = [plain(b) for b in iterator], [plain(b) for b in first]

    second = loader()
    second.load_state_dict(torch.load(tmp_path / "state")["data"])
    assert second.batches_given == at
    torch.set_rng_state(streams[0])
    random.setstate(streams[1])
    np.random.set_state(streams[2])  # noqa: NPY002
    assert ([plain(b) for b in second], [plain(b) for b in second]) == expected
    assert len(given) + len(expected[0]) == len(expected[1])


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (3, 2), (1, 4)])
def test_another_number_of_workers(before, after):
    torch.manual_seed(1)
    loader = DataLoader(range(50), 4, shuffle=True, num_workers=before)
    iterator = iter(loader)
    given = [next(iterator).tolist() for _ in range(5)]
    other = DataLoader(range(50), 4, shuffle=True, num_workers=after)
    other.load_state_dict(loader.state_dict())
    rest = [b.tolist() for b in other]
    assert rest == [b.tolist() for b in iterator]
    assert sorted(x for b in given + rest for x in b) == list(range(50))


@pytest.mark.parametrize("workers", [0, 2])
def test_interrupted_twice(workers):
    torch.manual_seed(2)
    loaders = [DataLoader(Drawn(), 2, shuffle=True, num_workers=workers) for _ in range(3)]
    seen = []
    for i, loader in enumerate(loaders):
        iterator = iter(loader)
        seen += [plain(next(iterator))[0] for _ in range(3)]
        state = loader.state_dict()
        if i == 2:
            seen += [plain(b)[0] for b in iterator]
        else:
            loaders[i + 1].load_state_dict(state)
            assert loaders[i + 1].state_dict()["given"] == state["given"] == 3 * (i + 1)
    assert sorted(x for b in seen for x in b) == list(range(23))


def test_at_the_end_the_next_epoch_begins():
    def loader():
        return DataLoader(range(20), 3, shuffle=True, generator=generator())

    first, second = loader(), loader()
    epochs = [[b.tolist() for b in first] for _ in range(2)]
    list(second)
    third = loader()
    third.load_state_dict(second.state_dict())
    assert [b.tolist() for b in third] == epochs[1] != epochs[0]


def test_the_epoch_after_one_that_is_over_may_be_set():
    sampler = DistributedSampler(range(20), 2, 0)
    loader = DataLoader(range(20), 3, sampler=sampler)
    sampler.set_epoch(1)
    list(loader)
    state = loader.state_dict()
    sampler.set_epoch(2)
    expected = [b.tolist() for b in loader]
    sampler.set_epoch(0)
    loader.load_state_dict(state)
    sampler.set_epoch(2)
    assert [b.tolist() for b in loader] == expected


def test_persistent_workers_and_their_datasets():
    """Their datasets live on from one epoch to the next, and so does the state."""
    def loader():
        return DataLoader(Remembering(), 3, num_workers=2, persistent_workers=True)

    first, second = loader(), loader()
    list(first)
    second.load_state_dict(first.state_dict())
    assert [plain(b) for b in second] == [plain(b) for b in first]


class Slow(Dataset):
    """Numbers; the first is there only when there is a byte in a pipe."""

    def __init__(self, reading):
        self.reading = reading

    def __len__(self):
        return 8

    def __getitem__(self, i):
        if i == 0:
            os.read(self.reading, 1)
        return i


def test_batches_as_they_come():
    """The slow batch holds up nobody, and those that overtook it do not come again."""
    reading, writing = os.pipe()
    loader = DataLoader(Slow(reading), 1, num_workers=2, in_order=False)
    iterator = iter(loader)
    given = [next(iterator).item() for _ in range(3)]
    assert 0 not in given
    os.write(writing, b"12")  # for either loader
    other = DataLoader(Slow(reading), 1, num_workers=2)
    other.load_state_dict(loader.state_dict())
    assert sorted(given + [b.item() for b in other]) == list(range(8))
    assert sorted(given + [b.item() for b in iterator]) == list(range(8))
    os.close(reading)
    os.close(writing)


def test_a_stream_with_a_state_is_not_read_again():
    loader = DataLoader(Counting(100, tells=True), 10)
    iterator = iter(loader)
    for _ in range(5):
        next(iterator)
    other = DataLoader(Counting(100, tells=True), 10)
    other.load_state_dict(loader.state_dict())
    assert [plain(b)[1][-1] for b in other] == [10, 20, 30, 40, 50]


def test_the_sampler_has_a_state():
    class Countdown:
        def __init__(self):
            self.seed = 0

        def __len__(self):
            return 10

        def __iter__(self):
            self.seed += 1
            return iter(range(10 * self.seed, 10 * self.seed + 10))

        def state_dict(self):
            return {"seed": self.seed}

        def load_state_dict(self, state):
            self.seed = state["seed"]

    loader, other = (DataLoader(range(100), 3, sampler=Countdown()) for _ in range(2))
    list(loader)
    iterator = iter(loader)
    next(iterator)
    other.load_state_dict(loader.state_dict())
    assert [b.tolist() for b in other] == [[23, 24, 25], [26, 27, 28], [29]]


def test_ranks_have_different_workers_seeds(monkeypatch):
    from disttorch.utils.data import state

    class Seeds(IterableDataset):
        def __iter__(self):
            yield get_worker_info().seed

    seeds = set()
    for rank in range(3):
        monkeypatch.setattr(state, "own_rank", lambda rank=rank: rank)
        torch.manual_seed(0)
        seeds |= {b.item() for b in DataLoader(Seeds(), num_workers=2, batch_size=None, collate_fn=torch.tensor)}
    assert len(seeds) == 6


REFUSED = [
    (DataLoader(range(9), 3), "is no state of a DataLoader", {}),
    (DataLoader(range(9), 4), "batch_size is 4, and was 2", None),
    (DataLoader(OfPlaces(), 2), "the dataset is iterable, that of the state was one with indices", None),
]


@pytest.mark.parametrize(("loader", "message", "state"), REFUSED)
def test_what_is_refused(loader, message, state):
    with pytest.raises(ValueError, match=message):
        loader.load_state_dict(DataLoader(range(9), 2).state_dict() if state is None else state)


@pytest.mark.parametrize("dataset", [OfPlaces(), Remembering()])
def test_parts_of_workers_cannot_be_shared_anew(dataset):
    loader = DataLoader(dataset, 2)
    next(iter(loader))
    with pytest.raises(ValueError, match=r"num_workers is 2, and was 0 .* each worker has its own part"):
        DataLoader(dataset, 2, num_workers=2).load_state_dict(loader.state_dict())
