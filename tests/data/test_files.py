"""Datasets in files: the rows of the files, each once, in whatever number of processes; and not in memory."""

import pickle
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

import disttorch as torch
from disttorch.utils.data import DataLoader, NpyDataset, ShardedFiles, default_collate, files

ROWS = [5, 1, 12, 0, 7, 3]  # of the shards
TOTAL = sum(ROWS)


@pytest.fixture
def arrays(tmp_path):
    x = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    y = np.arange(20)
    np.save(tmp_path / "x.npy", np.asfortranarray(x))
    np.save(tmp_path / "y.npy", y)
    return x, y, NpyDataset(tmp_path / "x.npy", tmp_path / "y.npy")


def test_rows_of_npy_files(arrays):
    x, _y, dataset = arrays
    assert len(dataset) == 20
    a, b = dataset[-2]
    np.testing.assert_array_equal(a.numpy(), x[-2])
    assert b.item() == 18
    part, _ = dataset[3:7]
    np.testing.assert_array_equal(part.numpy(), x[3:7])
    assert part.data_ptr() == dataset.tensors[0].data_ptr() + 3 * dataset.tensors[0].stride(0) * 4  # no copy
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again[5][0].numpy(), x[5])
    with pytest.raises(RuntimeError, match="mul_"):  # the file is not to be changed
        a.mul_(2)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_npy_files(arrays, workers):
    x, _y, dataset = arrays
    torch.manual_seed(0)
    for a, b in DataLoader(dataset, 6, shuffle=True, num_workers=workers):
        np.testing.assert_array_equal(a.numpy(), x[b.numpy()])
        a.mul_(2)  # a batch is a copy
    np.testing.assert_array_equal(dataset[0][0].numpy(), x[0])
    assert [p.tolist() for p in dataset._whole_batch([4, 1])] == [p.tolist() for p in default_collate([dataset[4], dataset[1]])]


MEMORY = """
import sys
from disttorch.utils.data import DataLoader, NpyDataset, ShardedFiles
kind, path, resident = sys.argv[1], sys.argv[2], int(sys.argv[3])
def most():
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith("VmHWM")).split()[1]) * 1024
dataset = NpyDataset(path + "/0.npy", resident=resident) if kind == "npy" else ShardedFiles(path, resident=resident)
loader = DataLoader(dataset, 8, shuffle=True if kind == "npy" else None)
before, seen, total = most(), 0, 0.0
for batch in loader:
    batch = batch[0] if kind == "npy" else batch
    seen += len(batch)
    total += batch.sum().item()
print(most() - before, seen, total)
"""


@pytest.mark.parametrize("kind", ["npy", "shards"])
def test_memory_stays_flat(start, tmp_path, kind):
    """A file of 192 MiB goes through with 16 MiB in memory at a time; without the limit all of it is there."""
    rows = 3072
    file = np.lib.format.open_memmap(tmp_path / "0.npy", "w+", np.float32, (rows, 2**14))
    file[:, 0] = np.arange(rows)
    file.flush()
    del file
    grown = []
    for resident in (16 << 20, 1 << 40):
        process = start(f"import sys\nsys.argv[1:] = [{kind!r}, {str(tmp_path)!r}, '{resident}']\n" + MEMORY)
        out, err = process.communicate(timeout=60)
        assert not err
        more, seen, total = out.split()
        assert (int(seen), float(total)) == (rows, rows * (rows - 1) / 2)
        grown.append(int(more) >> 20)
    assert grown[0] < 48
    assert grown[1] > 150


# --- shards -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["npy", "npz", "npz compressed", "safetensors"])
def shards(request, tmp_path):
    """A folder of shards; their rows are numbered. And how to get a sample's number."""
    starts = np.cumsum([0, *ROWS])
    for i, (a, b) in enumerate(pairwise(starts)):
        x, name = np.arange(a, b), tmp_path / f"part{i}"
        both = {"x": x, "squared": (x * x).astype(np.float32)[:, None]}
        if request.param == "npy":
            np.save(f"{name}.npy", x)
        elif request.param == "safetensors":
            pytest.importorskip("safetensors.numpy").save_file(both, f"{name}.safetensors")
        else:
            (np.savez_compressed if "compressed" in request.param else np.savez)(f"{name}.npz", **both)

    def number(sample):
        if request.param == "npy":
            return sample.item()
        assert sample["squared"].tolist() == [sample["x"].item() ** 2]
        return sample["x"].item()

    return tmp_path, number


def walks(monkeypatch, folder, number, ranks, workers, **options):
    """What each worker of each rank gets."""
    found = []
    for rank in range(ranks):
        dataset = ShardedFiles(folder, num_replicas=ranks, rank=rank, **options)
        dataset.set_epoch(2)
        for worker in range(workers):
            info = type("Info", (), {"id": worker, "num_workers": workers})
            monkeypatch.setattr(files, "get_worker_info", lambda info=info: info)
            found.append([number(s) for s in dataset])
        assert sum(len(w) for w in found[-workers:]) == len(dataset)
    return found


@pytest.mark.parametrize(("ranks", "workers"), [(1, 1), (2, 1), (3, 2), (5, 3)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_row_once(monkeypatch, shards, ranks, workers, shuffle):
    folder, number = shards
    parts = walks(monkeypatch, folder, number, ranks, workers, shuffle=shuffle, window=4)
    counts = Counter(x for part in parts for x in part)
    each = -(-TOTAL // ranks)
    assert set(counts) == set(range(TOTAL))
    assert counts.total() == each * ranks  # those that are taken twice fill up the last rank
    sizes = [[len(p) for p in parts[r * workers : (r + 1) * workers]] for r in range(ranks)]
    assert all(s == sizes[0] for s in sizes)
    dropped = walks(monkeypatch, folder, number, ranks, workers, shuffle=shuffle, window=4, tail="drop")
    counts = Counter(x for part in dropped for x in part)
    assert max(counts.values()) == 1 and counts.total() == TOTAL // ranks * ranks
    # files that two processes read are cut at the ends of pieces, of which there are so many
    ends = np.cumsum(ROWS)
    readers = Counter(i for part in dropped for i in {int(np.searchsorted(ends, x, "right")) for x in part})
    assert sum(n - 1 for n in readers.values()) <= ranks * workers - 1


def test_the_order_of_shards(shards):
    folder, number = shards
    plain = [number(s) for s in ShardedFiles(folder)]
    assert plain == list(range(TOTAL))
    dataset = ShardedFiles(folder, shuffle=True, window=4, seed=3)
    orders = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        orders.append([number(s) for s in dataset])
    assert orders[0] == orders[2] != orders[1] and sorted(orders[1]) == plain
    again = ShardedFiles(folder, shuffle=True, window=TOTAL, seed=3)
    assert sorted(number(s) for s in again) == plain
    moved = pickle.loads(pickle.dumps(dataset))
    moved.set_epoch(1)
    assert [number(s) for s in moved] == orders[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_going_on_in_the_middle(tmp_path, workers):
    for i in range(4):
        np.save(tmp_path / f"{i}.npy", np.arange(10 * i, 10 * i + 10))

    def loader():
        dataset = ShardedFiles(tmp_path, shuffle=True, window=6)
        dataset.set_epoch(5)
        return DataLoader(dataset, 4, num_workers=workers)

    first = loader()
    iterator = iter(first)
    for _ in range(3):
        next(iterator)
    second = loader()
    second.dataset.set_epoch(0)  # the state knows better
    second.load_state_dict(first.state_dict())
    assert [b.tolist() for b in second] == [b.tolist() for b in iterator]


def test_persistent_workers_hear_of_the_epoch(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(50))
    dataset = ShardedFiles(tmp_path, shuffle=True)
    loader = DataLoader(dataset, 50, num_workers=1, persistent_workers=True)
    orders = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        orders += [b.tolist() for b in loader]
    assert orders[0] == orders[2] != orders[1]


def broken(tmp_path):
    np.save(tmp_path / "whole.npy", np.arange(100))
    whole = (tmp_path / "whole.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-8])
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "text.npy").write_bytes(b"hello, this is no array at all")
    (tmp_path / "other.txt").write_bytes(whole)
    (tmp_path / "bad.npz").write_bytes(whole)
    (tmp_path / "bad.safetensors").write_bytes(whole)
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "words.npy", np.array(["a"]))
    np.save(tmp_path / "scalar.npy", np.array(1.0))
    np.savez(tmp_path / "unequal.npz", x=np.zeros(2), y=np.zeros(3))
    (tmp_path / "folder").mkdir()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut.npy", "is truncated: 100 elements of int64 do not fit into 792 bytes"),
        ("empty.npy", "is empty"),
        ("text.npy", "magic"),
        ("other.txt", r"ends in \.npy"),
        ("bad.npz", "damaged"),
        ("bad.safetensors", "truncated, or no safetensors"),
        ("objects.npy", "could run code"),
        ("words.npy", "no dtype for the elements"),
        ("scalar.npy", "same size of the first dimension"),
        ("unequal.npz", "same size of the first dimension"),
    ],
)
def test_files_that_are_refused(tmp_path, name, message):
    broken(tmp_path)
    with pytest.raises(ValueError, match=message):
        ShardedFiles([tmp_path / name])


def test_arguments_that_are_refused(tmp_path):
    broken(tmp_path)
    for call, message in [
        (lambda: ShardedFiles(tmp_path / "folder"), "has no .npy"),
        (lambda: ShardedFiles([]), "at least one file"),
        (lambda: ShardedFiles([tmp_path / "whole.npy"], tail="even"), "tail must be"),
        (lambda: ShardedFiles([tmp_path / "whole.npy"], window=0), "window must be"),
        (lambda: ShardedFiles([tmp_path / "whole.npy"], num_replicas=2, rank=2), "Invalid rank 2"),
        (lambda: NpyDataset(tmp_path / "unequal.npz"), "is not a .npy file"),
        (lambda: NpyDataset(tmp_path / "whole.npy", tmp_path / "scalar.npy"), "same size"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
