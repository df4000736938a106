"""Datasets: samples by index, or one after the other; and datasets made of others.

A dataset may offer ``__getitems__(indices)``, a list of samples at once, as in PyTorch. Those here that can give a
whole batch with one operation a tensor say so through `whole_batches`.
"""

from __future__ import annotations

import bisect
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from ...autograd.variable import Tensor
from ...backend import dtypes as dt
from ...ops.creation import as_tensor, randperm
from ...ops.random import Generator

__all__ = [
    "ChainDataset",
    "ConcatDataset",
    "Dataset",
    "IterableDataset",
    "StackDataset",
    "Subset",
    "TensorDataset",
    "random_split",
    "several",
    "whole_batches",
]

T = TypeVar("T", covariant=True)


class Dataset(Generic[T]):
    """Samples by index: a subclass defines ``__getitem__``, and ``__len__`` for the samplers.

    It may also define ``__getitems__(indices)``, which returns the list of several samples at once.
    See ``torch.utils.data.Dataset``.

    Examples
    --------
    >>> from disttorch.utils.data import Dataset
    >>> class Squares(Dataset):
    ...     def __len__(self):
    ...         return 4
    ...     def __getitem__(self, index):
    ...         return index**2
    >>> (Squares() + Squares())[6]
    4
    """

    def __getitem__(self, index: Any) -> T:
        raise NotImplementedError(f"{type(self).__name__} is a Dataset without __getitem__")

    def __add__(self, other: Dataset) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T]):
    """Samples one after the other: a subclass defines ``__iter__``.

    With several workers each has its own copy; ``__iter__`` asks `get_worker_info` which part is its own.
    See ``torch.utils.data.IterableDataset``.
    """

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__} is an IterableDataset without __iter__")

    def __add__(self, other: Dataset) -> Any:
        if not isinstance(other, IterableDataset):
            raise TypeError(f"an IterableDataset can be chained with another one, not with {type(other).__name__}")
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Samples are the rows of tensors: ``(x[i], y[i], ...)``.

    Parameters
    ----------
    *tensors : Tensor
        Of the same size in their first dimension.

    Raises
    ------
    AssertionError
        If the sizes differ.
    IndexError
        If a tensor has no dimension.

    Examples
    --------
    >>> import disttorch
    >>> from disttorch.utils.data import TensorDataset
    >>> TensorDataset(disttorch.arange(6).view(3, 2), disttorch.arange(3))[1]
    (tensor([2, 3]), tensor(1))
    """

    def __init__(self, *tensors: Tensor) -> None:
        shapes = [list(t.shape) for t in tensors]
        if any(not shape for shape in shapes):
            raise IndexError(f"TensorDataset: a tensor has no dimension that counts samples, their shapes are {shapes}")
        if any(shape[0] != shapes[0][0] for shape in shapes):
            raise AssertionError(f"Size mismatch between tensors: their shapes are {shapes}")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(t[index] for t in self.tensors)

    def __len__(self) -> int:
        return self.tensors[0].shape[0]

    def _whole_batch(self, indices: Sequence[int]) -> list[Tensor]:
        rows = as_tensor(indices, dtype=dt.int64)
        return [t[rows.to(device=t.device)] for t in self.tensors]


class StackDataset(Dataset[Any]):
    """Samples of several datasets side by side: tuples of them, or dicts if the datasets have names.

    Parameters
    ----------
    *args : Dataset
        Each sample is the tuple of the datasets' samples.
    **kwargs : Dataset
        Instead: each sample is a dict with these keys.

    Raises
    ------
    ValueError
        If there are both kinds, none, or datasets of different lengths.
    """

    def __init__(self, *args: Dataset, **kwargs: Dataset) -> None:
        if bool(args) == bool(kwargs):
            raise ValueError(
                f"StackDataset takes datasets either as arguments or by name, got {len(args)} and {len(kwargs)}"
            )
        self.datasets: Any = args or kwargs
        lengths = [_length(d) for d in self._parts()]
        if len(set(lengths)) > 1:
            raise ValueError(f"StackDataset: size mismatch between datasets, their lengths are {lengths}")
        self._length = lengths[0]

    def _parts(self) -> list[Any]:
        return list(self.datasets.values() if isinstance(self.datasets, dict) else self.datasets)

    def _join(self, samples: Iterable[Any]) -> Any:
        return dict(zip(self.datasets, samples)) if isinstance(self.datasets, dict) else tuple(samples)

    def __getitem__(self, index: Any) -> Any:
        return self._join(d[index] for d in self._parts())

    def __getitems__(self, indices: list[int]) -> list[Any]:
        columns = [several(d, indices) for d in self._parts()]
        return [self._join(samples) for samples in zip(*columns, strict=True)]

    def __len__(self) -> int:
        return self._length


class ConcatDataset(Dataset[Any]):
    """Datasets one behind the other.

    Parameters
    ----------
    datasets : iterable of Dataset
        With lengths; not empty.

    Raises
    ------
    AssertionError
        If there are none, or one is an IterableDataset.
    """

    def __init__(self, datasets: Iterable[Dataset]) -> None:
        self.datasets: list[Any] = list(datasets)
        if not self.datasets:
            raise AssertionError("ConcatDataset: datasets should not be an empty iterable")
        for position, d in enumerate(self.datasets):
            if isinstance(d, IterableDataset):
                raise AssertionError(
                    f"ConcatDataset does not support IterableDataset, but datasets[{position}] is a "
                    f"{type(d).__name__}; see ChainDataset"
                )
        self.cumulative_sizes = list(itertools.accumulate(_length(d) for d in self.datasets))

    def _locate(self, index: int) -> tuple[int, int]:
        """The dataset that an index leads to, and the index in it."""
        length = len(self)
        if index < -length:
            raise ValueError(f"index {index} is out of range for a ConcatDataset of {length} samples")
        if index >= length:
            raise IndexError(f"index {index} is out of range for a ConcatDataset of {length} samples")
        index %= length
        part = bisect.bisect_right(self.cumulative_sizes, index)
        return part, index - (self.cumulative_sizes[part - 1] if part else 0)

    def __getitem__(self, index: int) -> Any:
        part, inner = self._locate(index)
        return self.datasets[part][inner]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        places = [self._locate(i) for i in indices]
        samples: dict[tuple[int, int], Any] = {}
        for part in {p for p, _ in places}:
            wanted = [inner for p, inner in places if p == part]
            samples.update(zip([(part, inner) for inner in wanted], several(self.datasets[part], wanted), strict=True))
        return [samples[place] for place in places]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]


class ChainDataset(IterableDataset[Any]):
    """Iterable datasets one after the other.

    Parameters
    ----------
    datasets : iterable of IterableDataset
    """

    def __init__(self, datasets: Iterable[Dataset]) -> None:
        self.datasets = datasets

    def __iter__(self) -> Iterator[Any]:
        for d in self.datasets:
            if not isinstance(d, IterableDataset):
                raise AssertionError(
                    f"ChainDataset only supports IterableDataset, got {type(d).__name__}; see ConcatDataset"
                )
            yield from d

    def __len__(self) -> int:
        return sum(_length(d) for d in self.datasets)


class Subset(Dataset[T]):
    """Some of a dataset's samples.

    Parameters
    ----------
    dataset : Dataset
    indices : sequence of int
        Which, in their order here.
    """

    def __init__(self, dataset: Dataset[T], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: list[int]) -> list[T]:
        return several(self.dataset, [self.indices[i] for i in indices])

    def __len__(self) -> int:
        return len(self.indices)


def random_split(
    dataset: Dataset[T], lengths: Sequence[int | float], generator: Generator | None = None
) -> list[Subset[T]]:
    """Split a dataset at random into subsets that do not overlap; as ``torch.utils.data.random_split``.

    Parameters
    ----------
    dataset : Dataset
    lengths : sequence of int, or of float
        Sample counts that sum to the length of the dataset; or fractions that sum to 1, of which what is left by
        rounding down goes to the first subsets, one sample each.
    generator : Generator, optional
        The default generator unless given.

    Raises
    ------
    ValueError
        If they sum to something else, or a fraction is not between 0 and 1.

    Examples
    --------
    >>> import disttorch
    >>> from disttorch.utils.data import random_split
    >>> [len(s) for s in random_split(range(10), [0.75, 0.25])]
    [8, 2]
    """
    total = _length(dataset)
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1 + 1e-9 and any(not isinstance(n, int) for n in lengths):
        for position, fraction in enumerate(lengths):
            if not 0 <= fraction <= 1:
                raise ValueError(f"random_split: the fraction at index {position} is {fraction}, not between 0 and 1")
        counts = [math.floor(total * fraction) for fraction in lengths]
        for i in range(total - sum(counts)):
            counts[i % len(counts)] += 1
        for position, count in enumerate(counts):
            if not count:
                warnings.warn(f"random_split: the subset at index {position} is empty", stacklevel=2)
    else:
        counts = [int(n) for n in lengths]
        if list(counts) != list(lengths):
            raise ValueError(f"random_split: lengths must be integers, or fractions that sum to 1; got {list(lengths)}")
    if sum(counts) != total:
        raise ValueError(f"random_split: lengths {counts} sum to {sum(counts)}, but the dataset has {total} samples")
    order = randperm(total, generator=generator).tolist()
    ends = list(itertools.accumulate(counts))
    return [Subset(dataset, order[end - count : end]) for count, end in zip(counts, ends)]


def whole_batches(dataset: Any) -> Callable[[Sequence[int]], list[Tensor]] | None:
    """A function from indices to what `default_collate` makes of these samples, if the dataset has a quicker way.

    It has not if a subclass changed what a sample is.
    """
    if isinstance(dataset, TensorDataset):
        kinds = type(dataset).__mro__
        by_index, whole = (next(k for k in kinds if name in k.__dict__) for name in ("__getitem__", "_whole_batch"))
        return dataset._whole_batch if by_index is whole else None
    if isinstance(dataset, Subset) and type(dataset).__getitem__ is Subset.__getitem__:
        inner = whole_batches(dataset.dataset)
        if inner is not None:
            return lambda rows: inner([dataset.indices[i] for i in rows])
    return None


def several(dataset: Any, indices: list[int]) -> list[Any]:
    """The samples at some indices, at once if the dataset can give them so."""
    if callable(getattr(dataset, "__getitems__", None)):
        return dataset.__getitems__(indices)
    return [dataset[i] for i in indices]


def _length(dataset: Any) -> int:
    try:
        return len(dataset)
    except TypeError:
        raise TypeError(f"{type(dataset).__name__} has no __len__, which is needed here") from None
