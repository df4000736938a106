"""A dataset shared out to the ranks where it does not come out even: with weights instead of padding, or as a stream.

All ranks must take equally many steps, or those that go on wait for the others' gradients. What is done with the samples
that are left over is `tail`:

"even"
    every sample is taken once; the last batches are smaller, by at most one sample more on one rank than on another. The
    mean of the ranks' mean losses is not the mean over the samples then; with `DistributedBatchSampler.weight` it is.
"pad"
    some samples are taken twice, as `DistributedSampler` does.
"drop"
    some are left out: others in each epoch, if the order is shuffled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

from ...ops.creation import randperm
from ...ops.random import Generator
from .dataset import IterableDataset
from .distributed import replicas_or_group
from .sampler import Sampler
from .worker import get_worker_info

__all__ = ["DistributedBatchSampler", "ShardedIterable"]


class DistributedBatchSampler(Sampler[list[int]]):
    """Each rank's part of every global batch, equally many batches on all ranks; give it to a `DataLoader` as batch_sampler.

    Parameters
    ----------
    dataset : Dataset
        Only its length counts, which must be the same on all ranks.
    batch_size : int
        Samples a rank. A global batch has so many from every rank.
    num_replicas, rank : int, optional
        Those of the default process group, or 1 and 0 where there is none.
    shuffle : bool
        Whether to permute the samples. Call `set_epoch` before each epoch.
    seed : int
        The same on all ranks.
    tail : "even", "pad" or "drop"
        What is done with the samples that fill no global batch. "even": they are one more, smaller batch, or, if there are
        fewer than ranks, join the last batch, which is then one sample larger on some ranks. "pad": the smaller batch
        is filled up until it is equal on all ranks. "drop": they are left out.

    Raises
    ------
    ValueError
        If an argument is out of range, or with "even" if there are fewer samples than ranks.

    Notes
    -----
    The global batches are those of one process with ``num_replicas * batch_size``, so training on more ranks with "even"
    and weighted losses is the same training:

        for step, (x, y) in enumerate(loader):
            loss = F.cross_entropy(model(x), y) * sampler.weight(step)

    where `model` is a DistributedDataParallel. In an epoch that `DataLoader.load_state_dict` resumed, steps are counted
    from ``loader.batches_given``.

    Examples
    --------
    >>> from disttorch.utils.data import DistributedBatchSampler
    >>> [list(DistributedBatchSampler(range(7), 2, 2, rank, shuffle=False)) for rank in (0, 1)]
    [[[0, 1], [4, 5]], [[2, 3], [6]]]
    """

    def __init__(
        self,
        dataset: Sized,
        batch_size: int,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        tail: str = "even",
    ) -> None:
        if tail not in ("even", "pad", "drop"):
            raise ValueError(f"DistributedBatchSampler: tail must be 'even', 'pad' or 'drop', got {tail!r}")
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size!r}")
        self.num_replicas, self.rank = replicas_or_group(num_replicas, rank)
        if tail == "even" and 0 < len(dataset) < self.num_replicas:
            raise ValueError(f"DistributedBatchSampler: {len(dataset)} samples are not one for each of {self.num_replicas} ranks")
        self.dataset, self.batch_size, self.tail = dataset, batch_size, tail
        self.shuffle, self.seed, self.epoch = shuffle, seed, 0

    def sizes(self, step: int) -> list[int]:
        """How many samples each rank has in a step."""
        begin, end = self._span(step)
        each, more = divmod(end - begin, self.num_replicas)
        return [each + (rank < more) for rank in range(self.num_replicas)]

    def weight(self, step: int) -> float:
        """This rank's samples in a step over the mean of all ranks'; 1 but for the tail.

        The mean over the ranks of ``weight * mean of the rank's losses`` is the mean over the global batch.
        """
        sizes = self.sizes(step)
        return sizes[self.rank] * self.num_replicas / sum(sizes)

    def __len__(self) -> int:
        """Steps: the same on all ranks."""
        whole, rest = divmod(len(self.dataset), self._global)
        if self.tail == "drop" or not rest or (self.tail == "even" and rest < self.num_replicas and whole):
            return whole
        return whole + 1

    def __iter__(self) -> Iterator[list[int]]:
        n = len(self.dataset)
        order: Any = range(n)
        if self.shuffle:
            order = randperm(n, generator=Generator().manual_seed(self.seed + self.epoch)).tolist()
        return (self._part(order, step) for step in range(len(self)))

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration have the order of an epoch: call it with the same number on all ranks."""
        self.epoch = epoch

    @property
    def _global(self) -> int:
        return self.batch_size * self.num_replicas

    def _span(self, step: int) -> tuple[int, int]:
        """Where a global batch begins and ends in the order; with "pad" it may end behind the last sample."""
        count, n = len(self), len(self.dataset)
        if not 0 <= step < count:
            raise IndexError(f"DistributedBatchSampler: there is no step {step}, there are {count}")
        begin = step * self._global
        if step < count - 1 or self.tail == "drop":
            return begin, begin + self._global
        if self.tail == "pad":
            return begin, begin + -(-(n - begin) // self.num_replicas) * self.num_replicas
        return begin, n

    def _part(self, order: Any, step: int) -> list[int]:
        begin, _ = self._span(step)
        sizes = self.sizes(step)
        first = begin + sum(sizes[: self.rank])
        return [order[i % len(order)] for i in range(first, first + sizes[self.rank])]


class ShardedIterable(IterableDataset[Any]):
    """Each rank and worker takes its share of an iterable dataset that knows nothing of ranks.

    Parameters
    ----------
    dataset : IterableDataset or iterable
        The same samples in the same order in every process. Each process goes through all of them and keeps its share: for
        files there is `ShardedFiles`, which reads only its part.
    num_replicas, rank : int, optional
        Those of the default process group, or 1 and 0 where there is none.
    tail : "pad" or "drop"
        Of the samples at the end that are fewer than ranks: the other ranks take some of them, too, or no rank does. So
        all ranks have equally many samples and batches, though nobody knows beforehand how many there are.

    Raises
    ------
    ValueError
        For another `tail`.

    Examples
    --------
    >>> from disttorch.utils.data import ShardedIterable
    >>> [list(ShardedIterable(range(5), 2, rank)) for rank in (0, 1)]
    [[0, 2, 4], [1, 3, 4]]
    """

    def __init__(self, dataset: Any, num_replicas: int | None = None, rank: int | None = None, tail: str = "pad") -> None:
        if tail not in ("pad", "drop"):
            raise ValueError(f"ShardedIterable: tail must be 'pad' or 'drop', got {tail!r}")
        self.dataset, self.tail = dataset, tail
        self.num_replicas, self.rank = replicas_or_group(num_replicas, rank)

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        group: list[Any] = []  # one sample for each rank; a worker has every so-many-th group
        for number, sample in enumerate(self.dataset):
            if number // self.num_replicas % workers != worker:
                continue
            group.append(sample)
            if len(group) == self.num_replicas:
                yield group[self.rank]
                group = []
        if group and self.tail == "pad":
            yield group[self.rank % len(group)]

    def set_epoch(self, epoch: int) -> None:
        """Tell the dataset of the epoch, if it has a ``set_epoch``."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
