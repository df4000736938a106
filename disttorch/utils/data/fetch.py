"""From indices to a batch: the same function in the training process and in its workers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from .collate import default_collate
from .dataset import IterableDataset, several, whole_batches

__all__ = ["Exhausted", "Fetch", "Source"]


class Source(NamedTuple):
    """What batches are made of, and how.

    Attributes
    ----------
    batched : bool
        Whether what a sampler gives is a list of indices; otherwise it is one index.
    drop_last : bool
        Of an iterable dataset: leave out a last batch that is shorter.
    """

    dataset: Any
    collate_fn: Callable[[Any], Any]
    batched: bool
    drop_last: bool


class Exhausted(Exception):
    """An iterable dataset has no more samples."""


class Fetch:
    """From what the sampler gives to the batch; at the end of an iterable dataset it raises `Exhausted`.

    Parameters
    ----------
    source : Source
    note : dict, optional
        What `note` returned, to go on from there.
    """

    def __init__(self, source: Source, note: dict[str, Any] | None = None) -> None:
        note = note or {}
        self._dataset = source.dataset
        if "dataset" in note:
            source.dataset.load_state_dict(note["dataset"])
        self._samples: _Samples | None = None
        if isinstance(source.dataset, IterableDataset):
            self._samples = _Samples(source.dataset, note)
            self._fetch = _fetch_next(source, self._samples)
        else:
            self._fetch = _fetch_at(source)

    def __call__(self, indices: Any) -> Any:
        try:
            return self._fetch(indices)
        except StopIteration as error:
            # escaping from a dataset or collate_fn it would end the epoch without a word
            raise RuntimeError(f"StopIteration was raised for the samples {indices}") from error

    def note(self) -> dict[str, Any]:
        """Where the dataset is: its own state if it has one, its iterator's, and how many samples it has given."""
        note = {"dataset": self._dataset.state_dict()} if has_state(self._dataset) else {}
        if self._samples is not None:
            note["samples"] = self._samples.taken
            if self._samples.has_state:
                note["iterator"] = self._samples.iterator.state_dict()
        return note


class _Samples:
    """The samples of an iterable dataset, counted."""

    def __init__(self, dataset: Any, note: dict[str, Any]) -> None:
        self.taken = note.get("samples", 0)
        self.iterator = iter(dataset)
        self.has_state = self.iterator is not dataset and has_state(self.iterator)
        if "iterator" in note:
            self.iterator.load_state_dict(note["iterator"])
        elif "dataset" not in note:
            for _ in itertools.islice(self.iterator, self.taken):
                pass

    def take(self, count: int) -> list[Any]:
        batch = list(itertools.islice(self.iterator, count))
        self.taken += len(batch)
        return batch


def has_state(obj: Any) -> bool:
    """Whether an object can say where it is, and be put there again."""
    return callable(getattr(obj, "state_dict", None)) and callable(getattr(obj, "load_state_dict", None))


def _fetch_at(source: Source) -> Callable[[Any], Any]:
    dataset, collate, batched, _ = source
    if not batched:
        return lambda index: collate(dataset[index])
    whole = whole_batches(dataset) if collate is default_collate else None
    return whole or (lambda indices: collate(several(dataset, indices)))


def _fetch_next(source: Source, samples: _Samples) -> Callable[[Any], Any]:
    _, collate, batched, drop_last = source

    def take(places: Any) -> Any:
        count = len(places) if batched else 1
        batch = samples.take(count)
        if not batch or (drop_last and len(batch) < count):
            raise Exhausted
        return collate(batch if batched else batch[0])

    return take
