"""The DataLoader's way to a GPU on the stand-in: order of copies and uses, what counts as given, errors, threads that end."""

import gc
import threading
from typing import NamedTuple

import numpy as np
import pytest

import disttorch
from disttorch import cuda
from disttorch.nn.utils.rnn import PackedSequence, pack_sequence
from disttorch.utils.data import DataLoader, IterableDataset, TensorDataset, ahead
from tests import stand_in
from tests.stand_in.session import tensors

WORKERS = {
    "here": {},
    "workers": {"num_workers": 2},
    "persistent": {"num_workers": 2, "persistent_workers": True},
    "as they come": {"num_workers": 2, "in_order": False},
}


@pytest.fixture(autouse=True)
def device():
    with tensors():
        yield


class Pair(NamedTuple):
    x: object
    name: str


class Squares:
    """Samples of several structures."""

    def __len__(self):
        return 10

    def __getitem__(self, i):
        return {"pair": Pair(disttorch.tensor([i, i * i]), f"number {i}"), "half": np.float16(i / 2), "empty": disttorch.zeros(0)}


class Counting(IterableDataset):
    """An iterable dataset that knows where it is; each worker has its part."""

    def __init__(self, length):
        self.length, self.at = length, 0

    def __iter__(self):
        info = disttorch.utils.data.get_worker_info()
        number, workers = (0, 1) if info is None else (info.id, info.num_workers)
        while self.at * workers + number < self.length:
            self.at += 1
            yield (self.at - 1) * workers + number

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class Failing:
    def __len__(self):
        return 8

    def __getitem__(self, i):
        if i == 4:
            raise KeyError("sample 4 is broken")
        return i


def on_host(batches):
    return [batch.tolist() for batch in batches]


@pytest.mark.parametrize("options", WORKERS.values(), ids=WORKERS)
@pytest.mark.parametrize("pin", [False, True], ids=["", "pinned"])
def test_batches_are_those_of_the_cpu(options, pin):
    there = DataLoader(Squares(), batch_size=4, device="cuda", pin_memory=pin, **options)
    here = list(DataLoader(Squares(), batch_size=4))
    for _ in range(2):
        batches = sorted(there, key=lambda batch: batch["pair"].name[0])
        assert len(batches) == len(here) == len(there)
        for a, b in zip(batches, here):
            assert type(a["pair"]) is Pair and list(a["pair"].name) == list(b["pair"].name)
            assert a["pair"].x.device == disttorch.device("cuda:0") == a["empty"].device
            assert a["pair"].x.tolist() == b["pair"].x.tolist()
            assert a["half"].dtype == b["half"].dtype and a["empty"].shape == b["empty"].shape


def test_objects_that_move_themselves():
    sequences = [disttorch.arange(n).float() for n in (3, 1)]
    (batch,) = DataLoader(sequences, batch_size=2, device="cuda", collate_fn=lambda batch: pack_sequence(batch, enforce_sorted=False))
    assert isinstance(batch, PackedSequence) and batch.data.device.type == "cuda"


def test_pin_memory_alone_leaves_batches_on_the_host():
    for options in WORKERS.values():
        batches = [batch for (batch,) in DataLoader(TensorDataset(disttorch.arange(6)), batch_size=4, pin_memory=True, **options)]
        assert all(batch.is_pinned() and batch.device.type == "cpu" for batch in batches)
        assert sorted(number for batch in batches for number in batch.tolist()) == [0, 1, 2, 3, 4, 5]


def test_a_device_that_is_the_cpu_changes_nothing():
    loader = DataLoader(range(4), batch_size=2, device="cpu")
    assert not loader._pin and [batch.tolist() for batch in loader] == [[0, 1], [2, 3]]


# Order ---------------------------------------------------------------------------------------------------------------


def total(loader):
    """A sum over batches, each let go of as soon as it was used."""
    result = disttorch.zeros((), dtype=disttorch.int64, device="cuda")
    for (batch,) in loader:
        result += batch.sum()
    return result


@pytest.mark.parametrize("options", WORKERS.values(), ids=WORKERS)
def test_copies_go_on_beside_the_loop(options):
    loader = DataLoader(TensorDataset(disttorch.arange(4000)), batch_size=1000, device="cuda", **options)
    total(loader)
    with stand_in.no_synchronisation():
        result = total(loader)
    assert result.item() == 3999 * 2000


def test_a_busy_copy_stream_holds_up_only_the_gpu():
    loader = DataLoader(TensorDataset(disttorch.arange(8)), batch_size=4, device="cuda")
    next(iter(loader))
    with stand_in.held(loader._copies._stream._stream):
        (batch,) = next(iter(loader))
        doubled = batch * 2
    assert doubled.tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}], ids=["here", "workers"])
def test_a_batch_that_is_used_before_its_copy_is_found(options, monkeypatch):
    loader = DataLoader(TensorDataset(disttorch.arange(8)), batch_size=4, device="cuda", **options)
    next(iter(loader))
    monkeypatch.setattr(ahead.Copies, "give", lambda self, batch, copied: batch)
    forgotten = pytest.raises(stand_in.OrderError, match=r"reads memory that .* writes, and nothing orders one behind the other")
    with stand_in.held(loader._copies._stream._stream), forgotten:
        next(iter(loader))[0].sum()


def test_memory_that_is_used_again_too_early_is_found(monkeypatch):
    loader = DataLoader(TensorDataset(disttorch.arange(4000)), batch_size=1000, device="cuda")
    assert total(loader).item() == 3999 * 2000
    monkeypatch.setattr(disttorch.Tensor, "record_stream", lambda self, stream: None)
    with pytest.raises(stand_in.OrderError, match=r"writes memory that .* reads"):
        total(loader)


def test_another_stream_may_take_over():
    side = cuda.Stream()
    loader = DataLoader(TensorDataset(disttorch.arange(8)), batch_size=4, device="cuda", num_workers=1)
    with cuda.stream(side):
        result = total(loader)
    cuda.current_stream().wait_stream(side)
    assert result.item() == 28


# What counts ---------------------------------------------------------------------------------------------------------

DATASETS = {
    "shuffled": lambda **options: DataLoader(range(20), batch_size=3, shuffle=True, **options),
    "iterable": lambda **options: DataLoader(Counting(20), batch_size=3, **options),
}


@pytest.mark.parametrize("given", [0, 1, 3, 7])
@pytest.mark.parametrize("options", [{}, {"num_workers": 2}], ids=["here", "workers"])
@pytest.mark.parametrize("make", DATASETS.values(), ids=DATASETS)
def test_what_was_fetched_ahead_does_not_count(make, options, given):
    disttorch.manual_seed(3)
    whole = on_host(make(**options))
    disttorch.manual_seed(3)
    loader = make(device="cuda", **options)
    batches = iter(loader)
    first = on_host(next(batches) for _ in range(given))
    if isinstance(batches._epoch, ahead.Pinned):
        while batches._epoch._queue.qsize() < min(ahead.AHEAD, len(whole) - given) and batches._epoch._thread.is_alive():
            threading.Event().wait(0.01)
    state = loader.state_dict()
    other = make(device="cuda", **options)
    other.load_state_dict(state)
    assert loader.batches_given == given
    assert first + on_host(other) == whole
    assert first + on_host(batches) == whole, "taking a state disturbs nothing"
    assert loader.state_dict()["ended"]


# Errors and ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}], ids=["here", "workers"])
def test_errors_come_where_their_batch_would(options):
    batches = iter(DataLoader(Failing(), batch_size=2, device="cuda", **options))
    assert next(batches).tolist() == [0, 1] and next(batches).tolist() == [2, 3]
    with pytest.raises(KeyError, match="sample 4 is broken"):
        next(batches)
    if options:
        assert next(batches).tolist() == [6, 7]
        with pytest.raises(StopIteration):
            next(batches)
        with pytest.raises(StopIteration):
            next(batches)


def test_the_thread_ends_with_the_loop():
    def pinning():
        return [thread for thread in threading.enumerate() if thread.name == "DataLoader pinning"]

    loader = DataLoader(range(100), batch_size=1, num_workers=1, device="cuda", persistent_workers=True)
    for _ in range(3):  # each is left in the middle, and the next has the same workers
        for number, batch in enumerate(loader):
            assert batch.item() == number
            if number == 3:
                break
    old = iter(loader)
    assert next(old).item() == 0
    assert next(iter(loader)).item() == 0
    with pytest.raises(RuntimeError, match="a new iteration over this DataLoader has begun"):
        for _ in range(5):
            next(old)
    del old, loader, batch
    gc.collect()
    assert not pinning()


def test_without_a_gpu_it_says_what_is_missing():
    stand_in.set_count(0)
    with pytest.raises(RuntimeError, match="device 'cuda'"):
        DataLoader(range(3), device="cuda")
    stand_in.set_count(1)
