"""Datasets larger than memory: arrays in files that are mapped, one or as many shards as there are."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from ...autograd.variable import Tensor, wrap
from ...backend import cpu
from ...backend.array_files import SUFFIXES, MappedArrays
from ...backend.dtypes import int64
from ...ops.creation import randperm
from ...ops.random import Generator
from .dataset import IterableDataset, TensorDataset
from .distributed import replicas_or_group
from .worker import get_worker_info

__all__ = ["NpyDataset", "ShardedFiles"]


class NpyDataset(TensorDataset):
    """Samples are the rows of .npy files, ``(x[i], y[i], ...)``, as in `TensorDataset`; the files are mapped, not read.

    Parameters
    ----------
    *paths : str or path-like
        Files whose arrays have the same size in their first dimension.
    resident : int
        Bytes of each file that may be in this process's memory at a time, about; what is let go is read again where needed.

    Raises
    ------
    ValueError
        If a file is no .npy file, is truncated, has Python objects in it, or the sizes differ.

    Notes
    -----
    Samples and slices are views of the file and cannot be changed in place: ``clone()`` them. Batches are copies. Rows
    that are near to each other in the file are read fastest; where the file is on a disk and much larger than memory,
    shards (`ShardedFiles`) shuffle more cheaply.

    Examples
    --------
    >>> import os, tempfile, numpy
    >>> from disttorch.utils.data import NpyDataset
    >>> path = os.path.join(tempfile.mkdtemp(), "x.npy")
    >>> numpy.save(path, numpy.arange(6.0).reshape(3, 2))
    >>> NpyDataset(path)[1]
    (tensor([2., 3.], dtype=disttorch.float64),)
    """

    def __init__(self, *paths: Any, resident: int = 1 << 28) -> None:
        self.paths = tuple(os.path.abspath(p) for p in paths)
        self._files = [MappedArrays(p, resident) for p in self.paths]
        for f in self._files:
            if "" not in f.arrays:
                raise ValueError(f"NpyDataset: {f.path} is not a .npy file")
        self._resident = resident
        shapes = [list(f.arrays[""].shape) for f in self._files]
        if any(not shape or shape[0] != shapes[0][0] for shape in shapes):
            raise ValueError(f"NpyDataset: the files need the same size of the first dimension, and have shapes {shapes}")
        super().__init__(*(wrap(f.arrays[""]) for f in self._files))
        self._row_bytes = [t.numel() // max(len(t), 1) * t.element_size() for t in self.tensors]

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        sample = tuple(t[index] for t in self.tensors)
        for file, part in zip(self._files, sample):
            file.touched(1, part.numel() * part.element_size())
        return sample

    def _whole_batch(self, indices: Sequence[int]) -> list[Tensor]:
        batch = [wrap(cpu.take(f.arrays[""], indices, 0)) for f in self._files]
        for file, nbytes in zip(self._files, self._row_bytes):
            file.touched(len(indices), len(indices) * nbytes)
        return batch

    def __reduce__(self) -> tuple:
        return _opened, (self.paths, self._resident)


def _opened(paths: tuple[str, ...], resident: int) -> NpyDataset:
    return NpyDataset(*paths, resident=resident)


class ShardedFiles(IterableDataset[Any]):
    """Samples are the rows of many files, shared out to all ranks and workers; for data larger than memory.

    Parameters
    ----------
    files : str, path-like or sequence of them
        A folder, of which the .npy, .npz and .safetensors files are taken in the order of their names, or files. The arrays
        of a file have the same size in their first dimension.
    shuffle : bool
        Take the files in random order, and their rows in random order within windows. Call `set_epoch` before each epoch.
    window : int
        How many consecutive rows are mixed: more is more random, fewer stay in the cache.
    seed : int
        The same on all ranks.
    num_replicas, rank : int, optional
        Those of the default process group, or 1 and 0 where there is none.
    tail : "pad" or "drop"
        Where the ranks cannot have equally many samples: the last takes the first ones again, or the last ones are left out.
    resident : int
        Bytes of each open file that may be in this process's memory at a time, about.

    Raises
    ------
    ValueError
        If there are no files, or one does not fit; the message says which.

    Notes
    -----
    A sample is a tensor where the files are .npy, else a dict of tensors by the names in the file. All files stand in one
    line, and each rank takes one piece of it, of equal length on all ranks, and each worker a piece of that: a file is
    read by two processes only where a piece ends in it. All ranks have equally many batches, with any number of workers,
    that is the same on all ranks. The order depends on seed, epoch, and the numbers of ranks and workers alone.

    A `DataLoader` goes on in the middle of an epoch without reading what was given. Workers that are persistent hear of
    `set_epoch` if they are forked.

    Examples
    --------
    >>> import os, tempfile, numpy
    >>> from disttorch.utils.data import ShardedFiles
    >>> folder = tempfile.mkdtemp()
    >>> for i in range(3):
    ...     numpy.save(os.path.join(folder, f"{i}.npy"), numpy.arange(2 * i, 2 * i + 2))
    >>> [[x.item() for x in ShardedFiles(folder, num_replicas=2, rank=rank)] for rank in (0, 1)]
    [[0, 1, 2], [3, 4, 5]]
    """

    def __init__(
        self,
        files: Any,
        *,
        shuffle: bool = False,
        window: int = 4096,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
        tail: str = "pad",
        resident: int = 1 << 28,
    ) -> None:
        if tail not in ("pad", "drop"):
            raise ValueError(f"ShardedFiles: tail must be 'pad' or 'drop', got {tail!r}")
        if window < 1:
            raise ValueError(f"ShardedFiles: window must be 1 or more rows, got {window}")
        self.files = _listed(files)
        self.rows = [_rows(MappedArrays(f)) for f in self.files]
        self.num_replicas, self.rank = replicas_or_group(num_replicas, rank)
        self.shuffle, self.window, self.seed, self.tail, self.resident = shuffle, window, seed, tail, resident
        (self._epoch,) = cpu.shared([cpu.zeros((1,), int64.numpy)])

    @property
    def epoch(self) -> int:
        """The epoch whose order the next iteration has."""
        return int(self._epoch[0])

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration have the order of an epoch: call it with the same number on all ranks."""
        self._epoch[0] = epoch

    def __len__(self) -> int:
        """How many samples this rank gets."""
        total = sum(self.rows)
        return total // self.num_replicas if self.tail == "drop" else -(-total // self.num_replicas)

    def __iter__(self) -> Iterator[Any]:
        return _Walk(self)

    def __reduce__(self) -> tuple:
        kept = {k: v for k, v in self.__dict__.items() if k != "_epoch"}
        return _arrived, (type(self), kept, self.epoch)


def _arrived(kind: Any, kept: dict[str, Any], epoch: int) -> Any:
    dataset = kind.__new__(kind)
    dataset.__dict__.update(kept, _epoch=cpu.shared([cpu.full((1,), epoch, int64.numpy)])[0])
    return dataset


class _Walk:
    """One pass through a worker's piece of the line of files."""

    def __init__(self, dataset: ShardedFiles) -> None:
        self._dataset = dataset
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        each = len(dataset)
        self._begin = dataset.rank * each + each * worker // workers
        self._count = each * (worker + 1) // workers - each * worker // workers
        self._open: dict[int, MappedArrays] = {}
        self._start(dataset.epoch, 0)

    def _start(self, epoch: int, given: int) -> None:
        self._given, self._epoch = given, epoch
        self._order = list(range(len(self._dataset.files)))
        if self._dataset.shuffle:
            generator = Generator().manual_seed(self._dataset.seed + epoch)
            self._order = randperm(len(self._order), generator=generator).tolist()
        self._ends = list(accumulate(self._dataset.rows[i] for i in self._order))
        self._places: Iterator[tuple[int, int]] = iter(())

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        place = next(self._places, None)
        if place is None:
            if self._given >= self._count:
                raise StopIteration
            self._places = iter(self._window())
            place = next(self._places)
        self._given += 1
        return self._sample(*place)

    def _window(self) -> list[tuple[int, int]]:
        """The (file, row) pairs of the window that the next sample is in, from that on."""
        dataset, total = self._dataset, self._ends[-1]
        number, done = divmod(self._given, dataset.window)
        first = number * dataset.window
        rows = list(range(first, min(first + dataset.window, self._count)))
        if dataset.shuffle:
            seed = (dataset.seed + self._epoch) * 0x9E3779B97F4A7C15 + self._begin + first
            order = randperm(len(rows), generator=Generator().manual_seed(seed % 2**63)).tolist()
            rows = [rows[i] for i in order]
        places = []
        for row in rows[done:]:
            at = (self._begin + row) % total
            shard = bisect_right(self._ends, at)
            places.append((self._order[shard], at - self._ends[shard] + dataset.rows[self._order[shard]]))
        needed = {shard for shard, _ in places}
        self._open = {i: f for i, f in self._open.items() if i in needed}
        return places

    def _sample(self, shard: int, row: int) -> Any:
        file = self._open.get(shard)
        if file is None:
            file = self._open[shard] = MappedArrays(self._dataset.files[shard], self._dataset.resident)
        sample = {name: wrap(a[row : row + 1].reshape(a.shape[1:])) for name, a in file.arrays.items()}
        file.touched(1, sum(t.numel() * t.element_size() for t in sample.values()))
        return sample.get("", sample)

    def state_dict(self) -> dict[str, int]:
        """How far it is, in which epoch."""
        return {"epoch": self._epoch, "given": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there, without reading what came before."""
        self._start(state["epoch"], state["given"])


def _listed(files: Any) -> list[str]:
    if isinstance(files, (str, os.PathLike)):
        folder = os.path.abspath(files)
        files = [os.path.join(folder, f) for f in sorted(os.listdir(folder)) if f.endswith(SUFFIXES)]
        if not files:
            raise ValueError(f"ShardedFiles: {folder} has no {', '.join(SUFFIXES)} file")
    found = [os.path.abspath(f) for f in files]
    if not found:
        raise ValueError("ShardedFiles needs at least one file")
    return found


def _rows(file: MappedArrays) -> int:
    shapes = {name: a.shape for name, a in file.arrays.items()}
    if not shapes or any(not shape for shape in shapes.values()) or len({shape[0] for shape in shapes.values()}) > 1:
        raise ValueError(f"ShardedFiles: the arrays of {file.path} must have the same size of the first dimension, got {shapes}")
    return next(iter(shapes.values()))[0]
