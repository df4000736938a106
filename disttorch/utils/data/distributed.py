"""The sampler that gives every rank its own part of a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sized

from ...backend import cpu
from ...ops.creation import randperm
from ...ops.random import Generator
from .sampler import Sampler, _ints

__all__ = ["DistributedSampler"]


class DistributedSampler(Sampler[int]):
    """Rank r of n takes every n-th index, from the r-th on; as ``torch.utils.data.distributed.DistributedSampler``.

    All ranks draw the same permutation from the seed and the epoch. All get equally many samples: the last ones are
    left out, or the first are taken again.

    Parameters
    ----------
    dataset : Dataset
        Only its length counts, which must be the same on all ranks.
    num_replicas, rank : int, optional
        n and r; those of the default process group unless given.
    shuffle : bool
        Whether to permute the indices. Call `set_epoch` before each epoch, or every epoch has the same order.
    seed : int
        The same on all ranks.
    drop_last : bool
        Leave out samples, rather than take some again, where n does not divide the length.

    Attributes
    ----------
    num_samples : int
        How many indices each rank gets.
    total_size : int
        How many indices all ranks get together.

    Raises
    ------
    ValueError
        If n or r is not given and no process group is initialised, or r is not between 0 and n - 1.

    Examples
    --------
    >>> from disttorch.utils.data import DistributedSampler
    >>> [list(DistributedSampler(range(5), 2, rank, shuffle=False)) for rank in (0, 1)]
    [[0, 2, 4], [1, 3, 0]]
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if num_replicas is None or rank is None:
            world_size, own_rank = _default_group()
            num_replicas = world_size if num_replicas is None else num_replicas
            rank = own_rank if rank is None else rank
        if num_replicas < 1:
            raise ValueError(f"num_replicas should be a positive integer value, but got num_replicas={num_replicas}")
        if not 0 <= rank < num_replicas:
            raise ValueError(f"Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]")
        self.dataset = dataset
        self.num_replicas = num_replicas
        self.rank = rank
        self.epoch = 0
        self.drop_last = drop_last
        self.shuffle = shuffle
        self.seed = seed
        n = len(dataset)
        # attributes, as in PyTorch: samplers derived from this one set them
        self.num_samples = n // num_replicas if drop_last else -(-n // num_replicas)
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[int]:
        n, each = len(self.dataset), self.num_samples
        if self.total_size > n if self.drop_last else self.total_size < n:
            raise AssertionError(
                f"DistributedSampler: the dataset has {n} samples now, which are not dealt out as total_size={self.total_size} with "
                f"drop_last={self.drop_last}; make a new sampler when the length of the dataset has changed"
            )
        # rank, rank + num_replicas, ...: counted on beyond n for the padding, which begins again at the first index
        mine = (cpu.arange(each) * self.num_replicas + self.rank) % max(n, 1)
        if self.shuffle:
            generator = Generator().manual_seed(self.seed + self.epoch)
            mine = cpu.take(randperm(n, generator=generator)._array, mine)
        return _ints(mine)

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration have the order of an epoch: call it with the same number on all ranks."""
        self.epoch = epoch


def replicas_or_group(num_replicas: int | None, rank: int | None) -> tuple[int, int]:
    """Number of ranks and own rank as given, or those of the default process group, or 1 and 0 where there is none.

    Raises
    ------
    ValueError
        If the rank is not below the number.
    """
    from ... import distributed

    size, own = (distributed.get_world_size(), distributed.get_rank()) if distributed.is_initialized() else (1, 0)
    num_replicas = size if num_replicas is None else num_replicas
    rank = own if rank is None else rank
    if not 0 <= rank < num_replicas:
        raise ValueError(f"Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]")
    return num_replicas, rank


def own_rank() -> int:
    """This process's rank in the default process group; 0 where there is none."""
    from ... import distributed

    return distributed.get_rank() if distributed.is_initialized() else 0


def _default_group() -> tuple[int, int]:
    from ... import distributed

    if not distributed.is_initialized():
        raise ValueError(
            "Default process group has not been initialized, and DistributedSampler asks it for num_replicas and rank: "
            "call disttorch.distributed.init_process_group() first, or give both"
        )
    return distributed.get_world_size(), distributed.get_rank()
