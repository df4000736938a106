"""Samplers: the order in which a dataset's samples are taken.

Random ones draw at the beginning of an epoch and all at once, so what a training loop draws meanwhile changes nothing,
and a loader gives the same batches whether workers fetch ahead or not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

from ...backend import dtypes as dt
from ...ops.creation import as_tensor, multinomial, randint, randperm
from ...ops.random import Generator

__all__ = [
    "BatchSampler",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "SubsetRandomSampler",
    "WeightedRandomSampler",
    "draw_seed",
]

T = TypeVar("T", covariant=True)


class Sampler(Generic[T]):
    """An order of indices (or lists of them): a subclass defines ``__iter__``, and ``__len__`` where it is known."""

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__} is a Sampler without __iter__")


class SequentialSampler(Sampler[int]):
    """The indices of a dataset from first to last.

    Parameters
    ----------
    data_source : Dataset
        Only its length counts.
    """

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """The indices of a dataset in random order.

    Parameters
    ----------
    data_source : Dataset
        Only its length counts.
    replacement : bool
        Draw each index anew from all.
    num_samples : int, optional
        How many; the length of the dataset unless given. Without replacement more than that goes through the dataset
        several times, each time in another order.
    generator : Generator, optional
        Unless given, a seed is drawn from the default generator for each epoch.

    Raises
    ------
    TypeError, ValueError
        If `replacement` is no bool, `num_samples` no positive int, or the dataset empty.

    Examples
    --------
    >>> from disttorch.utils.data import RandomSampler
    >>> sorted(RandomSampler(range(4)))
    [0, 1, 2, 3]
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        if not isinstance(replacement, bool):
            raise TypeError(f"replacement should be a boolean value, but got replacement={replacement!r}")
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        self.generator = generator
        if not isinstance(self.num_samples, int) or self.num_samples <= 0:
            why = "" if num_samples is not None else ", for the dataset is empty"
            raise ValueError(f"num_samples should be a positive integer value, but got num_samples={self.num_samples!r}{why}")

    @property
    def num_samples(self) -> int:
        """How many indices there are in an epoch."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        n, count = len(self.data_source), self.num_samples
        source = self.generator
        if source is None:
            source = Generator().manual_seed(draw_seed(None))
        if not n:
            return iter(())
        if self.replacement:
            return _ints(randint(n, (count,), generator=source)._array)
        rounds = [randperm(n, generator=source)._array for _ in range(-(-count // n))]
        return itertools.islice(itertools.chain.from_iterable(map(_ints, rounds)), count)

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """Given indices in random order.

    Parameters
    ----------
    indices : sequence of int
    generator : Generator, optional
        The default generator unless given.
    """

    def __init__(self, indices: Sequence[int], generator: Generator | None = None) -> None:
        self.indices = indices
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        order = randperm(len(self.indices), generator=self.generator)._array
        return (self.indices[i] for i in _ints(order))

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """Indices drawn with given probabilities.

    Parameters
    ----------
    weights : sequence of float
        (n,), not negative; they need not sum to 1.
    num_samples : int
        How many to draw.
    replacement : bool
        Whether an index may be drawn again.
    generator : Generator, optional
        The default generator unless given.

    Raises
    ------
    ValueError
        If `num_samples` is no positive int, `replacement` no bool, or the weights are not a one-dimensional sequence.
    """

    def __init__(
        self,
        weights: Sequence[float],
        num_samples: int,
        replacement: bool = True,
        generator: Generator | None = None,
    ) -> None:
        if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples <= 0:
            raise ValueError(f"num_samples should be a positive integer value, but got num_samples={num_samples!r}")
        if not isinstance(replacement, bool):
            raise ValueError(f"replacement should be a boolean value, but got replacement={replacement!r}")
        self.weights = as_tensor(weights, dtype=dt.float64)
        if self.weights.ndim != 1:
            raise ValueError(f"weights should be a 1d sequence but given weights have shape {list(self.weights.shape)}")
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        return _ints(multinomial(self.weights, self.num_samples, self.replacement, generator=self.generator)._array)

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Lists of `batch_size` indices of another sampler.

    Parameters
    ----------
    sampler : Sampler or iterable
    batch_size : int
    drop_last : bool
        Leave out the last list if it is shorter.

    Raises
    ------
    ValueError
        If `batch_size` is no positive int or `drop_last` no bool.

    Examples
    --------
    >>> from disttorch.utils.data import BatchSampler
    >>> list(BatchSampler(range(5), batch_size=2, drop_last=False))
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Sampler[Any] | Iterable[Any], batch_size: int, drop_last: bool) -> None:
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size!r}")
        if not isinstance(drop_last, bool):
            raise ValueError(f"drop_last should be a boolean value, but got drop_last={drop_last!r}")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        # not a generator itself: the sampler must be asked now, for it draws its order when asked
        return self._batches(iter(self.sampler))

    def _batches(self, indices: Iterator[int]) -> Iterator[list[int]]:
        while batch := list(itertools.islice(indices, self.batch_size)):
            if self.drop_last and len(batch) < self.batch_size:
                return
            yield batch

    def __len__(self) -> int:
        n = len(self.sampler)  # type: ignore[arg-type]  # an iterable without a length says so itself
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)


def draw_seed(generator: Generator | None) -> int:
    """A seed of 63 bits from a generator, or the default one."""
    return randint(0, 2**63 - 1, (), generator=generator).item()


def _ints(array: Any) -> Iterator[int]:
    """The elements as Python's ints, converted piece by piece: a list of all would take 36 bytes an index."""
    for start in range(0, array.shape[0], 4096):
        yield from array[start : start + 4096].tolist()
