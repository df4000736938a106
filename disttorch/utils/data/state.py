"""Where a loader is in an epoch, so that another process can go on there: `DataLoader.state_dict`.

The order of an epoch is drawn when the epoch begins. So what is kept is the state of all that draws, as it was then; to go
on, the order is drawn again, and the batches that were given are left out. Workers are ahead of the training loop: each
sends with a batch where its dataset and its random streams are after it, and what counts is what the last given batch said.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

from ...autograd.variable import Tensor, wrap
from ...backend import cpu
from ...backend import dtypes as dt
from ...ops.creation import tensor
from ...ops.random import Generator, default_generator
from .dataset import IterableDataset
from .distributed import own_rank
from .fetch import has_state
from .sampler import draw_seed

if TYPE_CHECKING:
    from .dataloader import DataLoader

__all__ = ["Begun", "Position", "Streams", "Taken", "begin", "load_state", "state_of"]

VERSION = 1
_STREAMS = "streams"


class Taken(NamedTuple):
    """A batch that was fetched, perhaps before the training loop asks for it.

    Attributes
    ----------
    batch : object
    error : Exception or None
        What was raised instead.
    news : list of (int or None, int or None, dict or None)
        What is to be noted when the loop is given it: the number of the batch (None for news that belong to none), the worker that
        fetched it, and what that said of itself.
    """

    batch: Any
    error: BaseException | None = None
    news: Any = ()


class Position:
    """What of an epoch the training loop has been given. It refers to no process, so a loader may keep it.

    Attributes
    ----------
    given : int
        All batches before this number were given,
    beyond : set of int
        and these after it, where batches are given as they come (``in_order=False``).
    ended : bool
        Whether the epoch is over.
    turn : iterable of (task, worker, number)
        The batches that are under way, of which the next one is first.
    """

    def __init__(self, start: dict[str, Any], given: int, beyond: set[int], notes: list[dict[str, Any]]) -> None:
        self.start = start
        self.given = given
        self.beyond = beyond
        self.ended = False
        self.turn: Any = ()
        self.notes = notes  # of each worker; values are pickles until they are asked for
        self.here: Callable[[], dict[str, Any]] | None = None  # without workers: the dataset's state now

    @property
    def count(self) -> int:
        """How many batches were given."""
        return self.given + len(self.beyond)

    def note(self, news: Any) -> None:
        """The loop is given what these news belong to."""
        for number, worker, said in news:
            if number is None:
                self.heard(worker, said)
            else:
                self.took(number, worker, said)

    def took(self, number: int, worker: int | None = None, note: dict[str, bytes] | None = None) -> None:
        """A batch was given, and its worker said this."""
        self.beyond.add(number)
        while self.given in self.beyond:
            self.beyond.remove(self.given)
            self.given += 1
        self.heard(worker, note)

    def heard(self, worker: int | None, note: dict[str, bytes] | None) -> None:
        """What a worker said of itself."""
        if worker is not None and note:
            self.notes[worker].update(note)


class Begun(NamedTuple):
    """An epoch that begins, or goes on.

    Attributes
    ----------
    seed : int
        The workers' base seed.
    batches : iterator of (int, indices)
        Those to fetch, with their numbers in the epoch.
    turn : list of int
        The workers in the order in which they get tasks.
    """

    position: Position
    seed: int
    batches: Iterator[tuple[int, Any]]
    turn: list[int]


def begin(loader: DataLoader) -> Begun:
    """Begin an epoch, or go on in the one that `load_state` named."""
    state, loader._resumed = loader._resumed, None
    workers = loader.num_workers
    fresh: list[dict[str, Any]] = [{} for _ in range(max(workers, 1))]
    if state is None or state["ended"]:
        notes = fresh if state is None or len(state["workers"]) != len(fresh) else deepcopy(state["workers"])
        position = Position(_start_of(loader), 0, set(), notes)
        seed = _base_seed(loader)
        return Begun(position, seed, enumerate(loader._order), list(range(workers)))
    same = state["num_workers"] == workers
    position = Position(
        state["start"], state["given"], set(state["beyond"]), deepcopy(state["workers"]) if same else fresh
    )
    with _drawing_again(loader, state["start"]):
        seed = _base_seed(loader)
        batches: Iterator[tuple[int, Any]] = enumerate(loader._order)
        if not isinstance(loader.dataset, IterableDataset):
            batches = _left(batches, position)
    return Begun(position, seed, batches, list(state["turn"]) if same else list(range(workers)))


def _left(batches: Iterator[tuple[int, Any]], position: Position) -> Iterator[tuple[int, Any]]:
    """Those batches of an epoch that were not given."""
    done = set(position.beyond)
    for _ in range(position.given):
        next(batches, None)
    first = next(batches, None)  # a sampler that is a generator draws when first asked, which must be now
    rest = batches if first is None else _chained(first, batches)
    return ((number, indices) for number, indices in rest if number not in done)


def _chained(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def state_of(loader: DataLoader) -> dict[str, Any]:
    """What `load_state` of a like loader goes on from."""
    if loader._resumed is not None:
        return deepcopy(loader._resumed)
    position = loader._position
    state: dict[str, Any] = {
        "version": VERSION,
        "iterable": isinstance(loader.dataset, IterableDataset),
        "batch_size": loader.batch_size,
        "num_workers": loader.num_workers,
        "ended": position is None or position.ended,
        "given": 0, "beyond": [], "turn": [],
        "workers": [{} for _ in range(max(loader.num_workers, 1))],
    }  # fmt: skip
    if position is None:
        return state | {"start": _start_of(loader)}
    notes = [position.here()] if position.here is not None else [_opened(note) for note in position.notes]
    if position.ended:
        # the next epoch begins afresh; but a dataset that stays in its process keeps its own state
        stays = loader.persistent_workers or not loader.num_workers
        kept = [{"dataset": n["dataset"]} if stays and "dataset" in n else {} for n in notes]
        return state | {"start": _start_of(loader), "workers": deepcopy(kept)}
    return state | {
        "start": position.start,
        "given": position.given,
        "beyond": sorted(position.beyond),
        "turn": list(dict.fromkeys(worker for _, worker, _ in position.turn)),
        "workers": deepcopy(notes),
    }


def load_state(loader: DataLoader, state: dict[str, Any]) -> None:
    """Let the loader's next iteration go on where a state was taken."""
    if state.get("version") != VERSION:
        raise ValueError(f"DataLoader.load_state_dict: this is no state of a DataLoader, or of another version: {list(state)}")
    iterable = isinstance(loader.dataset, IterableDataset)
    if state["iterable"] != iterable:
        kinds = ["one with indices", "iterable"]
        raise ValueError(
            f"DataLoader.load_state_dict: the dataset is {kinds[iterable]}, that of the state was {kinds[state['iterable']]}"
        )
    if state["batch_size"] != loader.batch_size:
        raise ValueError(
            f"DataLoader.load_state_dict: batch_size is {loader.batch_size}, and was {state['batch_size']} when the state was taken"
        )
    bound = iterable or any("dataset" in note for note in state["workers"])
    if state["num_workers"] != loader.num_workers and bound and not state["ended"]:
        what = "an iterable dataset" if iterable else "a dataset with a state_dict"
        raise ValueError(
            f"DataLoader.load_state_dict: num_workers is {loader.num_workers}, and was {state['num_workers']} when the state was "
            f"taken; in the middle of an epoch of {what} each worker has its own part, so there must be as many"
        )
    loader._resumed = deepcopy(state)
    loader._position = None
    _restore(loader, state["start"])


# --- what draws the order ---------------------------------------------------------------------------------------------------


def _base_seed(loader: DataLoader) -> int:
    """The workers' base seed; another one on every rank, though all ranks draw the same from the same seed."""
    return (draw_seed(loader.generator) + own_rank() * 0x9E3779B97F4A7C15) % 2**63


def _samplers(loader: DataLoader) -> list[Any]:
    """The loader's order, and what it is made of: a batch sampler's sampler, and so on."""
    found: list[Any] = []
    part = loader._order
    while part is not None and not any(part is other for other in found):
        found.append(part)
        part = getattr(part, "sampler", None)
    return found


def _start_of(loader: DataLoader) -> dict[str, Any]:
    """The state of everything that draws an epoch's order."""
    parts: list[dict[str, Any]] = []
    for part in _samplers(loader):
        if has_state(part):
            parts.append({"state": deepcopy(part.state_dict())})
            continue
        generator, epoch = getattr(part, "generator", None), getattr(part, "epoch", None)
        parts.append({"generator": generator.get_state()} if isinstance(generator, Generator) else {})
        if isinstance(epoch, int):
            parts[-1]["epoch"] = epoch
    own = loader.generator.get_state() if loader.generator is not None else None
    return {"default": default_generator().get_state(), "generator": own, "samplers": parts}


def _restore(loader: DataLoader, start: dict[str, Any]) -> None:
    samplers = _samplers(loader)
    if len(samplers) != len(start["samplers"]):
        raise ValueError(
            f"DataLoader.load_state_dict: the order is made by {[type(s).__name__ for s in samplers]}, and in the state by "
            f"{len(start['samplers'])} samplers"
        )
    for part, kept in zip(samplers, start["samplers"]):
        if "state" in kept:
            part.load_state_dict(deepcopy(kept["state"]))
        if "generator" in kept and isinstance(getattr(part, "generator", None), Generator):
            part.generator.set_state(kept["generator"])
        if "epoch" in kept:
            part.epoch = kept["epoch"]
    if start["generator"] is not None and loader.generator is not None:
        loader.generator.set_state(start["generator"])


@contextmanager
def _drawing_again(loader: DataLoader, start: dict[str, Any]) -> Iterator[None]:
    """While an order is drawn again. The default generator is then where it was: it is the training program's to restore."""
    _restore(loader, start)
    default = default_generator()
    now = default.get_state()
    default.set_state(start["default"])
    try:
        yield
    finally:
        default.set_state(now)


# --- what workers say of themselves -------------------------------------------------------------------------------------------


class Streams:
    """The random streams of a worker: disttorch's, Python's and NumPy's."""

    def __init__(self) -> None:
        self._last: Any = None

    def changed(self) -> bytes | None:
        """Where they are, or None if they are where they were when last asked."""
        now = default_generator().get_state()._array.tobytes(), random.getstate(), cpu.library_state()
        if now == self._last:
            return None
        self._last = now
        return pickle.dumps(now)

    @staticmethod
    def restore(kept: dict[str, Any]) -> None:
        """Go to where they were, from the form that is saved."""
        default_generator().set_state(kept["disttorch"])
        *words, = kept["python"].tolist()
        random.setstate((3, tuple(words), kept["python_gauss"]))
        key, position, has_gauss, gauss = kept["numpy"], kept["numpy_position"], kept["numpy_has_gauss"], kept["numpy_gauss"]
        cpu.set_library_state((key._array.tobytes(), position, has_gauss, gauss))


def _opened(note: dict[str, Any]) -> dict[str, Any]:
    """A worker's note in the form that is saved: tensors and numbers, no pickles, so that any file format carries it."""
    opened = {name: pickle.loads(value) if isinstance(value, bytes) else value for name, value in note.items()}
    if isinstance(opened.get(_STREAMS), tuple):
        ours, (_, words, gauss), (key, *rest) = opened[_STREAMS]
        opened[_STREAMS] = {
            "disttorch": _bytes(ours),
            "python": tensor(list(words), dtype=dt.int64), "python_gauss": gauss,
            "numpy": _bytes(key), "numpy_position": rest[0], "numpy_has_gauss": rest[1], "numpy_gauss": rest[2],
        }  # fmt: skip
    return opened


def _bytes(data: bytes) -> Tensor:
    return wrap(cpu.ndarray((len(data),), dt.uint8.numpy, buffer=data).copy())
