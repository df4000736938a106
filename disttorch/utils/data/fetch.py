"""From indices to a batch: the same function in the training process and in its workers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from .collate import default_collate
from .dataset import IterableDataset, several, whole_batches

__all__ = ["Exhausted", "Source", "fetcher"]


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


def fetcher(source: Source) -> Callable[[Any], Any]:
    """A function from what the sampler gives to the batch; at the end of an iterable dataset it raises `Exhausted`."""
    fetch = _fetch_next(source) if isinstance(source.dataset, IterableDataset) else _fetch_at(source)

    def guarded(indices: Any) -> Any:
        try:
            return fetch(indices)
        except StopIteration as error:
            # escaping from a dataset or collate_fn it would end the epoch without a word
            raise RuntimeError(f"StopIteration was raised for the samples {indices}") from error

    return guarded


def _fetch_at(source: Source) -> Callable[[Any], Any]:
    dataset, collate, batched, _ = source
    if not batched:
        return lambda index: collate(dataset[index])
    whole = whole_batches(dataset) if collate is default_collate else None
    return whole or (lambda indices: collate(several(dataset, indices)))


def _fetch_next(source: Source) -> Callable[[Any], Any]:
    dataset, collate, batched, drop_last = source
    samples = iter(dataset)

    def take(places: Any) -> Any:
        count = len(places) if batched else 1
        batch = list(itertools.islice(samples, count))
        if not batch or (drop_last and len(batch) < count):
            raise Exhausted
        return collate(batch if batched else batch[0])

    return take
