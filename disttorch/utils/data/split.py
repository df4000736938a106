"""Splitting data in a part to learn from and a part to be tested on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...autograd.variable import Tensor
from ...backend import NAMESPACES, cpu, namespace
from ...backend import dtypes as dt
from ...ops.creation import as_tensor, randperm
from ...ops.random import Generator
from .dataset import Dataset, Subset

__all__ = ["train_test_split"]


def train_test_split(
    *data: Any, fraction: float | int = 0.25, stratify: Any = None, shuffle: bool = True, generator: Generator | None = None
) -> list[Any]:
    """Split datasets, tensors or arrays into a part for training and one for testing, all at the same places.

    Parameters
    ----------
    *data : Dataset, Tensor, array or sequence
        Of one length.
    fraction : float or int
        How much is for testing: a part between 0 and 1, rounded up, or a number of samples.
    stratify : sequence, Tensor or array, optional
        Each sample's class: both parts have the classes as often as the whole has, to within one sample.
    shuffle : bool
        Whether to choose at random; otherwise the last samples are for testing.
    generator : Generator, optional
        The default generator unless given; with the same seed every rank gets the same parts.

    Returns
    -------
    list
        The parts of the first, of the second, ...: ``train_x, test_x, train_y, test_y``. Of a dataset they are `Subset`, of
        tensors and arrays copies of rows, of other sequences lists.

    Raises
    ------
    ValueError
        If the lengths differ, a part would be empty, or `stratify` is given without shuffling.

    Examples
    --------
    >>> import disttorch
    >>> from disttorch.utils.data import train_test_split
    >>> train, test = train_test_split(disttorch.arange(8), fraction=0.25, shuffle=False)
    >>> test
    tensor([6, 7])
    """
    lengths = [len(d) for d in data]
    if not data or len(set(lengths)) > 1 or (stratify is not None and len(stratify) != lengths[0]):
        what = "" if stratify is None else f", and stratify {len(stratify)}"
        raise ValueError(f"train_test_split needs data of one length, got lengths {lengths}{what}")
    if stratify is not None and not shuffle:
        raise ValueError("train_test_split: stratify chooses at random, so shuffle cannot be False")
    n = lengths[0]
    count = fraction if isinstance(fraction, int) else math.ceil(n * fraction - 1e-9)
    if not 0 < count < n:
        raise ValueError(f"train_test_split: {count} of {n} samples for testing (fraction={fraction}) leave one part empty")
    if not shuffle:
        train, test = list(range(n - count)), list(range(n - count, n))
    else:
        order = randperm(n, generator=generator).tolist()
        chosen = order[:count] if stratify is None else _of_each_class(order, stratify, count)
        testing = set(chosen)
        train, test = [i for i in order if i not in testing], chosen
    return [part for d in data for part in (_rows(d, train), _rows(d, test))]


def _of_each_class(order: list[int], classes: Any, count: int) -> list[int]:
    """The first of each class in the order: so many of each as is its part, the rest where most is missing."""
    names = classes.tolist() if hasattr(classes, "tolist") else list(classes)
    members: dict[Any, list[int]] = {}
    for i in order:
        members.setdefault(names[i], []).append(i)
    exact = {name: len(m) * count / len(order) for name, m in members.items()}
    quota = {name: math.floor(e) for name, e in exact.items()}
    for name in sorted(exact, key=lambda c: quota[c] - exact[c])[: count - sum(quota.values())]:
        quota[name] += 1
    chosen = {i for name, m in members.items() for i in m[: quota[name]]}
    return [i for i in order if i in chosen]


def _rows(data: Any, indices: Sequence[int]) -> Any:
    if isinstance(data, Dataset):
        return Subset(data, indices)
    if isinstance(data, Tensor):
        return data[as_tensor(indices, dtype=dt.int64).to(device=data.device)]
    if type(data) in NAMESPACES:
        return namespace(data).take(data, cpu.array(indices) if isinstance(data, cpu.ndarray) else indices, 0)
    return [data[i] for i in indices]
