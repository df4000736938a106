"""Datasets: what a sample is, how long they are, and what they refuse."""

import numpy as np
import pytest

import disttorch as torch
from disttorch.utils.data import (
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)
from disttorch.utils.data.dataset import whole_batches

X = torch.arange(12).view(6, 2)
Y = torch.arange(6) * 10


class Numbers(IterableDataset):
    def __init__(self, *values):
        self.values = values

    def __iter__(self):
        return iter(self.values)

    def __len__(self):
        return len(self.values)


class Letters(Dataset):
    """Counts how it is asked."""

    def __init__(self, text):
        self.text, self.at_once = text, []

    def __len__(self):
        return len(self.text)

    def __getitem__(self, index):
        return self.text[index]

    def __getitems__(self, indices):
        self.at_once.append(list(indices))
        return [self.text[i] for i in indices]


def plain(sample):
    if isinstance(sample, dict):
        return {key: plain(value) for key, value in sample.items()}
    if isinstance(sample, (tuple, list)):
        return type(sample)(plain(value) for value in sample)
    return sample.tolist() if isinstance(sample, torch.Tensor) else sample


@pytest.mark.parametrize(
    ("dataset", "samples"),
    [
        (TensorDataset(X, Y), [([0, 1], 0), ([2, 3], 10), ([4, 5], 20), ([6, 7], 30), ([8, 9], 40), ([10, 11], 50)]),
        (TensorDataset(Y), [(0,), (10,), (20,), (30,), (40,), (50,)]),
        (Subset(TensorDataset(Y), [4, 1, 1]), [(40,), (10,), (10,)]),
        (Subset(Subset(Letters("abcdef"), [5, 3, 1]), [2, 0]), ["b", "f"]),
        (ConcatDataset(["ab", "", "cde"]), list("abcde")),
        (Letters("ab") + Letters("c"), list("abc")),
        (StackDataset("abc", range(3)), [("a", 0), ("b", 1), ("c", 2)]),
        (StackDataset(x="ab", y=TensorDataset(Y[:2])), [{"x": "a", "y": (0,)}, {"x": "b", "y": (10,)}]),
    ],
)
def test_samples_and_length(dataset, samples):
    assert len(dataset) == len(samples)
    assert [plain(dataset[i]) for i in range(len(dataset))] == samples


@pytest.mark.parametrize("index", [-1, -5, 4, 0])
def test_concat_counts_from_the_end_too(index):
    assert ConcatDataset(["ab", "cde"])[index] == "abcde"[index]


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [(5, IndexError, "index 5 is out of range"), (-6, ValueError, "index -6 is out of range")],
)
def test_concat_has_an_end(index, error, message):
    with pytest.raises(error, match=message):
        ConcatDataset(["ab", "cde"])[index]


def test_iterable_datasets_are_chained():
    chain = Numbers(1, 2) + Numbers() + Numbers(3)
    assert isinstance(chain, ChainDataset)
    assert (list(chain), len(chain)) == ([1, 2, 3], 3)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: TensorDataset(X, Y[:5]), AssertionError, r"Size mismatch between tensors: their shapes are \[\[6, 2\], \[5\]\]"),
        (lambda: TensorDataset(torch.tensor(1.0)), IndexError, r"shapes are \[\[\]\]"),
        (lambda: StackDataset("ab", "abc"), ValueError, r"lengths are \[2, 3\]"),
        (lambda: StackDataset("ab", x="ab"), ValueError, "either as arguments or by name"),
        (StackDataset, ValueError, "got 0 and 0"),
        (lambda: ConcatDataset([]), AssertionError, "empty iterable"),
        (lambda: ConcatDataset(["ab", Numbers(1)]), AssertionError, r"datasets\[1\] is a Numbers"),
        (lambda: Numbers(1) + "ab", TypeError, "chained with another one, not with str"),
        (lambda: list(ChainDataset([Letters("a")])), AssertionError, "got Letters"),
        (lambda: Dataset()[0], NotImplementedError, "Dataset without __getitem__"),
        (lambda: iter(IterableDataset()), NotImplementedError, "IterableDataset without __iter__"),
        (lambda: random_split(range(10), [3, 3]), ValueError, r"lengths \[3, 3\] sum to 6.* 10 samples"),
        (lambda: random_split(range(10), [0.3, 0.3]), ValueError, "fractions that sum to 1"),
        (lambda: random_split(range(10), [1.5, -0.5]), ValueError, "fraction at index 0 is 1.5, not between 0 and 1"),
    ],
)
def test_what_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("total", "lengths", "expected"),
    [
        (10, [3, 7], [3, 7]),
        (10, [1, 0, 9], [1, 0, 9]),
        (1, [1], [1]),
        (10, [0.5, 0.5], [5, 5]),
        (10, [0.3, 0.3, 0.4], [3, 3, 4]),
        (11, [0.3, 0.3, 0.4], [4, 3, 4]),  # 3.3, 3.3, 4.4: one is left over, for the first
        (5, [1 / 3, 1 / 3, 1 / 3], [2, 2, 1]),
    ],
)
def test_random_split(total, lengths, expected):
    parts = random_split(range(total), lengths, torch.Generator().manual_seed(1))
    assert [len(p) for p in parts] == expected
    assert sorted(i for p in parts for i in p.indices) == list(range(total))
    again = random_split(range(total), lengths, torch.Generator().manual_seed(1))
    assert [p.indices for p in parts] == [p.indices for p in again]


def test_an_empty_part_of_a_split_is_worth_a_warning():
    with pytest.warns(UserWarning, match="index 1 is empty"):
        random_split(range(2), [0.9, 0.1])


def test_several_samples_at_once_reach_the_innermost_dataset():
    inner = Letters("abcdefgh")
    dataset = StackDataset(Subset(ConcatDataset([inner, "xyz"]), [8, 1, 3, 0]), range(4))
    assert dataset.__getitems__([3, 0, 1]) == [("a", 3), ("x", 0), ("b", 1)]
    assert inner.at_once == [[0, 1]]


def test_a_loader_asks_for_several_samples_at_once():
    inner = Letters("abcde")
    assert list(DataLoader(inner, 2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert inner.at_once == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("dataset", [TensorDataset(X, Y), Subset(TensorDataset(X, Y), [5, 3, 3, 0, -1])])
def test_whole_batches_are_what_default_collate_makes(dataset):
    rows = [0, 3, 2]
    quick = whole_batches(dataset)(rows)
    slow = [np.stack([dataset[i][column].numpy() for i in rows]) for column in range(2)]
    for q, s in zip(quick, slow, strict=True):
        np.testing.assert_array_equal(q.numpy(), s)


def test_a_changed_sample_is_not_taken_the_quick_way():
    class Doubled(TensorDataset):
        def __getitem__(self, index):
            return tuple(2 * t for t in super().__getitem__(index))

    assert whole_batches(Doubled(Y)) is None
    ((batch,),) = DataLoader(Doubled(Y), 6)
    assert batch.tolist() == [0, 20, 40, 60, 80, 100]
