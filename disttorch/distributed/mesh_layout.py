"""Layout: the ranks of a mesh as an array, and which of them lie on a line along some of its dimensions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Layout"]

Dims = tuple[int, ...]
"""Dimensions of the array that are taken together, the last of them varying fastest."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Ranks as an array.

    Attributes
    ----------
    sizes : tuple of int
        Its shape.
    ranks : tuple of int
        Its elements, the last dimension varying fastest.

    Examples
    --------
    >>> layout = Layout((2, 3), (0, 1, 2, 3, 4, 5))
    >>> layout.place(4), layout.line((0,), (1, 1)), list(layout.lines((1,))), layout.stride((0, 1))
    ((1, 1), [1, 4], [[0, 1, 2], [3, 4, 5]], 1)
    """

    sizes: tuple[int, ...]
    ranks: tuple[int, ...]

    def size(self, dims: Dims) -> int:
        """How many ranks are on a line."""
        return math.prod(self.sizes[d] for d in dims)

    def strides(self) -> list[int]:
        """How far apart neighbours along each dimension are in `ranks`."""
        return [math.prod(self.sizes[d + 1 :]) for d in range(len(self.sizes))]

    def stride(self, dims: Dims) -> int | Dims:
        """The same for a line; several numbers where no single one says it."""
        strides = self.strides()
        kept = [a for a, b in itertools.pairwise(dims) if strides[a] != strides[b] * self.sizes[b]] + [dims[-1]]
        return strides[kept[0]] if len(kept) == 1 else tuple(strides[d] for d in kept)

    def place(self, rank: int) -> tuple[int, ...] | None:
        """A rank's index in each dimension; None if it is not in the array."""
        if rank not in self.ranks:
            return None
        number = self.ranks.index(rank)
        return tuple(number // stride % size for stride, size in zip(self.strides(), self.sizes))

    def index(self, dims: Dims, place: Sequence[int]) -> int:
        """Where on its line along some dimensions a place is."""
        number = 0
        for d in dims:
            number = number * self.sizes[d] + place[d]
        return number

    def line(self, dims: Dims, place: Sequence[int]) -> list[int]:
        """The ranks along some dimensions through a place."""
        found = []
        for along in itertools.product(*(range(self.sizes[d]) for d in dims)):
            here = list(place)
            for d, number in zip(dims, along):
                here[d] = number
            found.append(self.ranks[sum(number * stride for number, stride in zip(here, self.strides()))])
        return found

    def lines(self, dims: Dims) -> Iterator[list[int]]:
        """All lines along some dimensions; every rank is on one."""
        others = (range(1) if d in dims else range(size) for d, size in enumerate(self.sizes))
        for place in itertools.product(*others):
            yield self.line(dims, place)
