"""The DataLoader: which batches it gives, whoever fetches them, and which parameters contradict each other."""

import os
import random
import threading
from collections import namedtuple

import numpy as np
import pytest

import disttorch as torch
from disttorch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    SequentialSampler,
    Subset,
    TensorDataset,
    get_worker_info,
)

WORKERS = [0, 1, 3]
Sample = namedtuple("Sample", "image label")


class Mixed(Dataset):
    """Samples with everything that a batch may carry."""

    def __init__(self, n=11):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return {
            "tensor": torch.full((2, 3), i),
            "half": torch.full((2,), i, dtype=torch.bfloat16),
            "array": np.full(3, i, np.float32),
            "pair": Sample(torch.zeros(0, 3), i),
            "text": str(i),
            "number": i / 2,
        }


class Part(IterableDataset):
    """The numbers below n, each worker its share."""

    def __init__(self, n):
        self.n = n

    def __iter__(self):
        info = get_worker_info()
        return iter(range(self.n) if info is None else range(info.id, self.n, info.num_workers))


class Whole(IterableDataset):
    """The numbers below n, from every worker."""

    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(range(self.n))

    def __len__(self):
        return self.n


def plain(batch):
    if isinstance(batch, torch.Tensor):
        return str(batch.dtype), batch.tolist()
    if isinstance(batch, dict):
        return {key: plain(value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(plain, batch))
    return [plain(value) for value in batch] if isinstance(batch, (list, tuple)) else batch


def batches(dataset, workers, seed=3, **options):
    torch.manual_seed(seed)
    return [plain(b) for b in DataLoader(dataset, num_workers=workers, **options)]


X = torch.arange(22).view(11, 2)
CASES = {
    "in order": (Mixed(), {"batch_size": 4}, 3),
    "shuffled": (Mixed(), {"batch_size": 4, "shuffle": True}, 3),
    "one by one": (Mixed(), {"shuffle": True}, 11),
    "without the last": (Mixed(), {"batch_size": 4, "drop_last": True}, 2),
    "no batches": (Mixed(), {"batch_size": None}, 11),
    "a sampler": (Mixed(), {"batch_size": 2, "sampler": [5, 1, 9]}, 2),
    "batches of a sampler": (Mixed(), {"batch_sampler": [[5], [1, 9, 2], [0, 0]]}, 3),
    "own collation": (Mixed(), {"batch_size": 4, "collate_fn": lambda s: [d["text"] for d in s]}, 3),
    "tensors": (TensorDataset(X, X[:, 0]), {"batch_size": 4, "shuffle": True}, 3),
    "part of tensors": (Subset(TensorDataset(X), [9, 3, 4, 0]), {"batch_size": 3, "shuffle": True}, 2),
    "a list": (list(range(7)), {"batch_size": 3}, 3),
    "nothing": ([], {"batch_size": 3}, 0),
    "far ahead": (Mixed(), {"batch_size": 1, "prefetch_factor": 7}, 11),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("nothing_left")
def test_the_same_batches_with_any_number_of_workers(name):
    dataset, options, count = CASES[name]
    here = {key: value for key, value in options.items() if key != "prefetch_factor"}
    expected = batches(dataset, 0, **here)
    assert len(expected) == count == len(DataLoader(dataset, **here))
    for workers in WORKERS[1:]:
        assert batches(dataset, workers, **options) == expected


def test_what_the_batches_are():
    first, second = batches(Mixed(3), 0, batch_size=2)
    assert first["tensor"] == ("disttorch.int64", [[[0] * 3] * 2, [[1] * 3] * 2])
    assert first["half"] == ("disttorch.bfloat16", [[0.0, 0.0], [1.0, 1.0]])
    assert first["pair"] == Sample(("disttorch.float32", [[], []]), ("disttorch.int64", [0, 1]))
    assert (second["text"], second["number"]) == (["2"], ("disttorch.float64", [1.0]))


@pytest.mark.parametrize("workers", WORKERS)
def test_every_epoch_has_another_order(workers):
    torch.manual_seed(0)
    loader = DataLoader(range(40), 8, shuffle=True, num_workers=workers)
    first, second = ([x for b in loader for x in b.tolist()] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(40))
    assert first != second


@pytest.mark.parametrize("workers", WORKERS)
def test_a_generator_decides_the_order(workers):
    def order(seed):
        generator = torch.Generator().manual_seed(seed)
        torch.seed()
        return [b.item() for b in DataLoader(range(30), shuffle=True, num_workers=workers, generator=generator)]

    assert order(1) == order(1) != order(2)


ITERABLE = [
    # dataset, options, batches here, from one worker, from three
    (Part(7), {"batch_size": 2}, [[0, 1], [2, 3], [4, 5], [6]], None, [[0, 3], [1, 4], [2, 5], [6]]),
    (Part(7), {"batch_size": 2, "drop_last": True}, [[0, 1], [2, 3], [4, 5]], None, [[0, 3], [1, 4], [2, 5]]),
    (Part(5), {"batch_size": None}, [0, 1, 2, 3, 4], None, [0, 1, 2, 3, 4]),
    (Part(2), {"batch_size": 4}, [[0, 1]], None, [[0], [1]]),
    (Part(0), {"batch_size": 4}, [], None, []),
    (Whole(3), {"batch_size": 2}, [[0, 1], [2]], None, [[0, 1]] * 3 + [[2]] * 3),
]


@pytest.mark.parametrize(("dataset", "options", "here", "one", "three"), ITERABLE)
@pytest.mark.usefixtures("nothing_left")
def test_iterable_datasets(dataset, options, here, one, three):
    for workers, expected in zip(WORKERS, (here, one or here, three), strict=True):
        loader = DataLoader(dataset, num_workers=workers, **options)
        for _ in range(2):
            assert [b.tolist() if hasattr(b, "tolist") else b for b in loader] == expected


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
@pytest.mark.parametrize(("dataset", "options", "here", "one", "three"), ITERABLE)
def test_iterable_datasets_as_pytorch(dataset, options, here, one, three):
    theirs = pytest.importorskip("torch.utils.data")

    class Theirs(theirs.IterableDataset):
        def __iter__(self):
            info = theirs.get_worker_info()
            whole = isinstance(dataset, Whole) or info is None
            return iter(range(dataset.n) if whole else range(info.id, dataset.n, info.num_workers))

    loader = theirs.DataLoader(Theirs(), num_workers=3, **options)
    assert [b.tolist() if hasattr(b, "tolist") else b for b in loader] == three


@pytest.mark.parametrize(
    ("options", "length"), [({"batch_size": 3}, 4), ({"batch_size": 3, "drop_last": True}, 3), ({"batch_size": None}, 10)]
)
def test_length_of_an_iterable_dataset(options, length):
    loader = DataLoader(Whole(10), **options)
    assert len(loader) == len(iter(loader)) == len(list(loader)) == length
    with pytest.raises(TypeError):
        len(DataLoader(Part(10), **options))


class Drawn(Dataset):
    """What the three random streams give in whoever fetches."""

    def __len__(self):
        return 12

    def __getitem__(self, i):
        return torch.rand(()).item(), random.random(), np.random.rand()  # noqa: NPY002


def test_workers_draw_their_own_numbers():
    torch.manual_seed(1)
    numbers = np.array([[column.item() for column in batch] for batch in DataLoader(Drawn(), num_workers=3)])
    for stream in numbers.T:
        assert len(set(stream)) == 12


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_draw_the_same_numbers_from_the_same_seed(persistent):
    """In every epoch, and whether the workers are kept or not."""

    def draw(keep):
        torch.manual_seed(1)
        loader = DataLoader(Drawn(), 3, num_workers=2, persistent_workers=keep)
        return [plain(b) for _ in range(2) for b in loader]

    assert draw(persistent) == draw(False)


def test_the_seed_is_the_base_seed_and_the_workers_number():
    class Seeds(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            info = get_worker_info()
            assert info.dataset is self
            return info.id, info.num_workers, info.seed, torch.initial_seed()

    rows = [b.tolist() for b in DataLoader(Seeds(), num_workers=2, collate_fn=lambda s: torch.tensor(s[0]))]
    assert [row[:2] for row in rows] == [[0, 2], [1, 2]] * 2
    assert rows[1][2] - rows[0][2] == 1
    assert all(row[2] == row[3] for row in rows)
    assert get_worker_info() is None


def test_worker_init_fn():
    class Told(Dataset):
        number = None

        def __len__(self):
            return 4

        def __getitem__(self, i):
            return self.number, random.random()

    dataset = Told()

    def init(number):
        dataset.number = number
        random.seed(number)

    loader = DataLoader(dataset, num_workers=2, worker_init_fn=init)
    drawn = [[value.item() for value in batch] for batch in loader]
    streams = [random.Random(0), random.Random(1)]
    assert drawn == [[i % 2, streams[i % 2].random()] for i in range(4)]
    assert dataset.number is None


def test_persistent_workers_stay():
    class Pids(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return os.getpid()

    def pids(loader):
        return {b.item() for b in loader}

    kept = DataLoader(Pids(), num_workers=2, persistent_workers=True)
    assert pids(kept) == pids(kept)
    left = iter(kept)
    next(left)
    assert pids(kept) == pids(kept)
    with pytest.raises(RuntimeError, match="a new iteration"):
        next(left)
    fresh = DataLoader(Pids(), num_workers=2)
    assert not pids(fresh) & pids(fresh)


@pytest.mark.usefixtures("nothing_left")
def test_batches_that_are_kept_stay_as_they_are():
    """More of them than there are segments of shared memory, and views of them alone."""
    class Big(Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, i):
            return torch.full((1000,), float(i))

    kept = list(DataLoader(Big(), 2, num_workers=2))
    rows = [b[1][990:] for b in DataLoader(Big(), 2, num_workers=2)]
    for i in range(20):
        assert kept[i].tolist() == [[2.0 * i] * 1000, [2.0 * i + 1] * 1000]
        assert rows[i].tolist() == [2.0 * i + 1] * 10


@pytest.mark.usefixtures("nothing_left")
def test_batches_can_be_changed():
    total = torch.zeros(3)
    for batch in DataLoader(TensorDataset(torch.ones(20, 3)), 2, num_workers=2):
        batch[0].mul_(2)
        total += batch[0].sum(0)
    assert total.tolist() == [40.0] * 3


@pytest.mark.usefixtures("nothing_left")
def test_batches_of_growing_size():
    sizes = [1, 10, 100_000, 5, 300_000, 2]
    loader = DataLoader([np.full(n, n) for n in sizes], num_workers=1)
    for n, batch in zip(sizes, loader, strict=True):
        assert batch.shape == (1, n)
        assert bool((batch == n).all())


def test_requires_grad_and_sharing_inside_a_batch():
    def collate(samples):
        x = torch.ones(2, requires_grad=True)
        return {"x": x, "same": x, "n": np.arange(6).reshape(2, 3).T, "big": np.arange(4, dtype=">i4")}

    (batch,) = DataLoader([1], num_workers=1, collate_fn=collate)
    assert batch["x"].requires_grad
    assert batch["x"] is batch["same"]
    np.testing.assert_array_equal(batch["n"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(batch["big"], [0, 1, 2, 3])


def test_iterating_in_a_thread():
    result = []
    thread = threading.Thread(target=lambda: result.extend(DataLoader(range(6), 2, num_workers=2)))
    thread.start()
    thread.join()
    assert [b.tolist() for b in result] == [[0, 1], [2, 3], [4, 5]]


def test_two_loaders_at_once():
    train = DataLoader(range(6), 2, num_workers=2, persistent_workers=True)
    test = DataLoader(range(10, 14), 2, num_workers=2)
    seen = [(a.tolist(), [b.tolist() for b in test]) for a in train]
    assert seen == [([i, i + 1], [[10, 11], [12, 13]]) for i in (0, 2, 4)]


def test_with_a_distributed_sampler():
    parts = [
        [b.tolist() for b in DataLoader(range(7), 2, sampler=DistributedSampler(range(7), 2, rank, shuffle=False))]
        for rank in (0, 1)
    ]
    assert parts == [[[0, 2], [4, 6]], [[1, 3], [5, 0]]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_workers": -1}, "num_workers must be 0 or more, got -1"),
        ({"timeout": -1}, "timeout must be 0 or more seconds, got -1"),
        ({"prefetch_factor": 2}, "prefetch_factor is for worker processes"),
        ({"persistent_workers": True}, "persistent_workers is for worker processes"),
        ({"multiprocessing_context": "fork"}, "multiprocessing_context is for worker processes"),
        ({"num_workers": 1, "prefetch_factor": 0}, "prefetch_factor must be 1 or more, got 0"),
        ({"num_workers": 1, "multiprocessing_context": "thread"}, "no start method 'thread'.* fork"),
        ({"num_workers": 1, "multiprocessing_context": 3}, "start method or a multiprocessing context, got 3"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": None, "drop_last": True}, "batch_size=None disables batching"),
        ({"shuffle": True, "sampler": SequentialSampler("ab")}, "exclusive with shuffle"),
        ({"batch_sampler": [[0]], "batch_size": 2}, "batch_sampler option is mutually exclusive"),
        ({"batch_sampler": [[0]], "shuffle": True}, "batch_sampler option is mutually exclusive"),
        ({"batch_sampler": [[0]], "drop_last": True}, "batch_sampler option is mutually exclusive"),
        ({"batch_sampler": [[0]], "sampler": [0]}, "batch_sampler option is mutually exclusive"),
    ],
)
def test_parameters_that_contradict_each_other(options, message):
    with pytest.raises(ValueError, match=message):
        DataLoader("ab", **options)


@pytest.mark.parametrize("option", ["shuffle", "sampler", "batch_sampler"])
def test_an_iterable_dataset_has_its_own_order(option):
    with pytest.raises(ValueError, match=f"IterableDataset: its order is its own, but {option}="):
        DataLoader(Whole(3), **{option: True if option == "shuffle" else [[0]]})


@pytest.mark.parametrize("name", ["batch_size", "dataset", "sampler", "batch_sampler", "drop_last", "num_workers"])
def test_a_loader_is_not_changed_afterwards(name):
    with pytest.raises(ValueError, match=f"{name} attribute should not be set"):
        setattr(DataLoader("ab"), name, 2)


def test_attributes():
    loader = DataLoader("abc", 2)
    assert isinstance(loader.sampler, SequentialSampler)
    assert isinstance(loader.batch_sampler, BatchSampler)
    assert (loader.batch_size, loader.num_workers, loader.prefetch_factor) == (2, 0, None)
    assert DataLoader("abc", num_workers=1).prefetch_factor == 2
    assert DataLoader("abc", batch_sampler=[[0]]).batch_size is None


def test_pin_memory_without_a_gpu_is_worth_a_warning():
    if torch.backend.cuda_is_available():
        pytest.skip("there is a GPU")
    with pytest.warns(UserWarning, match="no CUDA device"):
        loader = DataLoader(range(4), 2, pin_memory=True)
    assert [b.tolist() for b in loader] == [[0, 1], [2, 3]]


@pytest.mark.parametrize("workers", [0, 2])
def test_stop_iteration_is_no_end(workers):
    class Stops(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return next(iter(()))

    with pytest.raises(RuntimeError, match=r"StopIteration was raised for the samples \[0, 1\]"):
        list(DataLoader(Stops(), 2, num_workers=workers))
