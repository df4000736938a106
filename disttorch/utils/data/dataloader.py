"""The DataLoader: batches of a dataset, fetched here or by worker processes.

Batches fetched here are in this file; the worker processes are in pool.py (this side) and worker.py (their side), the way to a GPU
in ahead.py.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import Any

from ...backend import cuda_is_available, for_device
from ...ops.random import Generator
from .collate import default_collate, default_convert, pinned
from .dataset import IterableDataset
from .fetch import Exhausted, Fetch, Source
from .sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler
from .starting import context_for
from .state import Position, Taken, begin, load_state, state_of

__all__ = ["DataLoader"]

_FIXED = ("dataset", "batch_size", "batch_sampler", "sampler", "drop_last", "num_workers", "persistent_workers")


class DataLoader:
    """Batches of a dataset, in the order of a sampler; as ``torch.utils.data.DataLoader``.

    Parameters
    ----------
    dataset : Dataset
        Anything with ``__getitem__`` and ``__len__``, or an `IterableDataset`.
    batch_size : int or None
        Samples a batch; None for samples as they come, without batches.
    shuffle : bool, optional
        Take the samples in another random order each epoch.
    sampler : Sampler or iterable of int, optional
        The order of the samples, instead of `shuffle`.
    batch_sampler : Sampler or iterable of list of int, optional
        The order of whole batches, instead of `batch_size`, `shuffle`, `sampler` and `drop_last`.
    num_workers : int
        Worker processes that fetch batches ahead; with 0 they are fetched when asked for.
    collate_fn : callable, optional
        From a list of samples to a batch; `default_collate` unless given.
    pin_memory : bool
        Put batches in page-locked memory, from which copies to a GPU are faster, and need not be waited for
        (``non_blocking=True``). Where there are workers a thread does it. Without a GPU there is a warning.
    drop_last : bool
        Leave out the last batch if it is shorter.
    timeout : float
        Seconds to wait for a batch of a worker; 0 for as long as it takes.
    worker_init_fn : callable, optional
        Called in each worker with its number after the random seeds are set and before it fetches anything.
    multiprocessing_context : str or multiprocessing context, optional
        How workers are started: "fork", "spawn" or "forkserver". Unless given, as the environment variable
        DISTTORCH_WORKER_START_METHOD says, else as `multiprocessing.set_start_method` was told, else "fork".
    generator : Generator, optional
        Draws the order of samples and the base seed of the workers; the default generator unless given.
    prefetch_factor : int, optional
        How many batches each worker fetches ahead; 2 unless given.
    persistent_workers : bool
        Keep the workers from one epoch to the next.
    pin_memory_device : str
        Accepted as in PyTorch: page-locked memory is good for every GPU.
    in_order : bool
        Give the batches in the order of the sampler; otherwise as workers have them ready, so that a slow one holds up nobody.
    device : device or str, optional
        Where the tensors of the batches shall be. Copies to a GPU go from page-locked memory on a stream of their own, beside what
        the GPU computes, and where there are workers one batch ahead. (PyTorch has no such parameter.)

    Raises
    ------
    ValueError
        If parameters contradict each other; the message says which.

    Notes
    -----
    The order of batches does not depend on `num_workers`. A worker seeds disttorch's default generator, `random` and
    `numpy.random` with the base seed, drawn anew each epoch, plus its number. See `get_worker_info`. In a process group every
    rank has another base seed, also where all ranks have called ``manual_seed`` with the same number.

    `state_dict` and `load_state_dict` let a new process go on in the middle of an epoch. With a dataset whose samples are all
    that is random in an epoch the batches are those of the run that was not interrupted, to the bit: order, samples, and with
    as many workers also what the samples draw.

    Workers take one thread each for matrix products (OpenMP, OpenBLAS, MKL): there are usually as many as cores.
    They are no part of an MPI job that this process is in, and end without touching MPI. The MPI libraries allow a
    process to fork as long as the child does not call MPI; only on InfiniBand the job must be started with
    RDMAV_FORK_SAFE=1, or the workers with "forkserver". A forked worker cannot use CUDA.

    Batches come in anonymous shared memory (memfd_create), which needs no space in /dev/shm. A batch that is kept
    while the loop goes on is copied out of it when the memory is needed again.

    Examples
    --------
    >>> import disttorch
    >>> from disttorch.utils.data import DataLoader, TensorDataset
    >>> x = disttorch.arange(5)
    >>> for batch in DataLoader(TensorDataset(x, x * x), batch_size=2):
    ...     print(batch)
    [tensor([0, 1]), tensor([0, 1])]
    [tensor([2, 3]), tensor([4, 9])]
    [tensor([4]), tensor([16])]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Sampler[Any] | Iterable[Any] | None = None,
        batch_sampler: Sampler[Any] | Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
        device: Any = None,
    ) -> None:
        self._check_workers(num_workers, timeout, prefetch_factor, persistent_workers, multiprocessing_context)
        if multiprocessing_context is not None:
            context_for(multiprocessing_context)
        self._check_order(dataset, batch_size, shuffle, sampler, batch_sampler, drop_last)
        self.dataset = dataset
        self.num_workers = num_workers
        self.prefetch_factor = prefetch_factor if prefetch_factor is not None or not num_workers else 2
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.in_order = in_order
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.generator = generator
        self.persistent_workers = persistent_workers
        self.drop_last = drop_last
        if batch_sampler is not None:
            batch_size = None
        if sampler is None:
            if isinstance(dataset, IterableDataset):
                sampler = _Endless()
            elif shuffle:
                sampler = RandomSampler(dataset, generator=generator)
            else:
                sampler = SequentialSampler(dataset)
        if batch_sampler is None and batch_size is not None:
            # the end of an iterable dataset, and with it a shorter batch, is only seen when it is there
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size = batch_size
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        batched = batch_sampler is not None
        self.collate_fn = collate_fn or (default_collate if batched else default_convert)
        if pin_memory and not cuda_is_available():
            warnings.warn("DataLoader: pin_memory=True has no effect, for there is no CUDA device here", stacklevel=2)
        self.device = None if device is None else for_device(device)[1]
        on_gpu = self.device is not None and self.device.type == "cuda"
        self._pin = (pin_memory or on_gpu) and cuda_is_available()
        self._copies: Any = None
        self._ahead: Any = None
        self._pool: Any = None
        self._position: Position | None = None
        self._resumed: dict[str, Any] | None = None
        self._complete = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and getattr(self, "_complete", False):
            raise ValueError(f"{name} attribute should not be set after DataLoader is initialized")
        super().__setattr__(name, value)

    @property
    def _batched(self) -> bool:
        return self.batch_sampler is not None

    @property
    def _order(self) -> Any:
        """What gives the indices of one batch after the other."""
        return self.batch_sampler if self._batched else self.sampler

    @property
    def _source(self) -> Source:
        return Source(self.dataset, self.collate_fn, self._batched, self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        if self.persistent_workers and self._ahead is not None and (before := self._ahead()) is not None:
            before.close()  # two threads must not ask the same workers
        epoch = self._epoch()
        if not self._pin:
            return epoch
        from .ahead import Copies, OnDevice, Pinned

        if self.num_workers:
            epoch = Pinned(epoch)
            self._ahead = weakref.ref(epoch)
        if self.device is None or self.device.type == "cpu":
            return epoch
        self._copies = self._copies or Copies(self.device)
        return OnDevice(epoch, self._copies)

    def _epoch(self) -> Any:
        """The batches of an epoch, on the CPU."""
        if not self.num_workers:
            return _Here(self)
        from .pool import Epoch, Pool

        if not self.persistent_workers:
            return Epoch(self, Pool(self))
        if self._pool is None or self._pool.ended:
            self._pool = Pool(self)
        return Epoch(self, self._pool)

    def __len__(self) -> int:
        """How many batches there are in an epoch.

        Raises
        ------
        TypeError
            If the dataset is iterable and has no length.
        """
        if not isinstance(self.dataset, IterableDataset):
            return len(self._order)
        length = len(self.dataset)  # type: ignore[arg-type]  # one without a length says so itself
        if self.batch_size is None:
            return length
        return length // self.batch_size if self.drop_last else -(-length // self.batch_size)

    @property
    def batches_given(self) -> int:
        """How many batches of the present epoch have been given, those before a resumption included."""
        if self._position is not None:
            return self._position.count
        return 0 if self._resumed is None else self._resumed["given"] + len(self._resumed["beyond"])

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iteration is, for `load_state_dict` in this or another process.

        Batches that workers have fetched ahead, and that the loop was not given, are still to come. After the last batch
        it is the beginning of the next epoch. The state has tensors, numbers and lists, and the states of a dataset, of its
        iterator and of a sampler where they have ``state_dict`` and ``load_state_dict`` themselves; of other iterable
        datasets the samples that were given are taken once more and dropped. With several ranks each has its own state.

        Examples
        --------
        >>> from disttorch.utils.data import DataLoader
        >>> loader = DataLoader(range(10), batch_size=4, shuffle=True)
        >>> first = next(iter(loader))
        >>> other = DataLoader(range(10), batch_size=4, shuffle=True)
        >>> other.load_state_dict(loader.state_dict())
        >>> sorted(sum([batch.tolist() for batch in [first, *other]], []))
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        """
        return state_of(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next iteration go on where a state was taken; those after it are whole epochs again.

        The default generator is left alone: a program that restores it itself (`set_rng_state`) continues with the same
        orders in later epochs, too.

        Raises
        ------
        ValueError
            If the loader is not made like the one of the state. The number of workers may differ for datasets with
            indices and no state of their own.
        """
        load_state(self, state_dict)

    @staticmethod
    def _check_workers(number: int, timeout: float, prefetch: int | None, persistent: bool, context: Any) -> None:
        if number < 0:
            raise ValueError(f"num_workers must be 0 or more, got {number}; 0 fetches batches in this process")
        if timeout < 0:
            raise ValueError(f"timeout must be 0 or more seconds, got {timeout}")
        if number == 0:
            for name, given in (
                ("prefetch_factor", prefetch is not None),
                ("persistent_workers", persistent),
                ("multiprocessing_context", context is not None),
            ):
                if given:
                    raise ValueError(f"{name} is for worker processes, and num_workers is 0; set num_workers > 0")
        elif prefetch is not None and prefetch < 1:
            raise ValueError(f"prefetch_factor must be 1 or more, got {prefetch}")

    @staticmethod
    def _check_order(dataset: Any, batch_size: Any, shuffle: Any, sampler: Any, batch_sampler: Any, drop: bool) -> None:
        if isinstance(dataset, IterableDataset):
            for name, given in (("shuffle", shuffle), ("sampler", sampler), ("batch_sampler", batch_sampler)):
                if given not in (None, False):
                    raise ValueError(
                        f"DataLoader with IterableDataset: its order is its own, but {name}={given!r} was given"
                    )
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop):
            raise ValueError(
                "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
            )
        if batch_size is None and drop:
            raise ValueError("batch_size=None disables batching, of which drop_last=True would leave out the last one")


class _Endless(Sampler[None]):
    """Places for samples of an iterable dataset, which has no indices."""

    def __iter__(self) -> Iterator[None]:
        return repeat(None)


class _Here:
    """One epoch of batches fetched in this process, when asked for."""

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader
        # The workers' base seed is drawn here too: so the samples have the same order with workers and without.
        self._position, _, self._batches, _ = begin(loader)
        self._fetch = Fetch(loader._source, self._position.notes[0])
        self._position.here = self._fetch.note
        loader._position = self._position

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        taken = self.fetch()
        if taken is None:
            self.end()
            raise StopIteration
        return self.hand_over(taken)

    def fetch(self) -> Taken | None:
        """The next batch, None behind the last one."""
        try:
            number, indices = next(self._batches)
            batch = self._fetch(indices)
        except (Exhausted, StopIteration):
            self._batches = iter(())
            return None
        return Taken(pinned(batch) if self._loader._pin else batch, None, [(number, None, None)])

    def hand_over(self, taken: Taken) -> Any:
        """Give the training loop a batch that was fetched."""
        self._position.note(taken.news)
        return taken.batch

    def end(self) -> None:
        """The training loop is told that there are no more batches."""
        self._position.ended = True

    def __len__(self) -> int:
        return len(self._loader)
