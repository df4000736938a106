"""Buckets: parameters' gradients as slices of flat arrays, so that reducing many of them is one collective.

A gradient is written into its bucket by the engine itself (the accumulator's `home`), so nothing is copied before or
after the reduction: ``parameter.grad`` is a view of the bucket.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import collectives

from ..autograd.graph import AccumulateGrad, RemovableHandle
from ..autograd.variable import Tensor, wrap
from ..backend import namespace

__all__ = ["Bucket", "fill_buckets"]


class Bucket:
    """Gradients of one dtype that are reduced together.

    Parameters
    ----------
    parameters : sequence of Tensor
        In the order in which their gradients are expected.
    """

    def __init__(self, parameters: Sequence[Tensor]):
        self.parameters = list(parameters)
        first = self.parameters[0]._array
        xp = namespace(first)
        self.flat = xp.zeros(sum(p._array.size for p in self.parameters), first.dtype)
        self.slices: list[Any] = []
        start = 0
        for p in self.parameters:
            stop = start + p._array.size
            self.slices.append(self.flat[start:stop].reshape(p._array.shape))
            _accumulator(p).home = self.slices[-1]
            start = stop
        self.missing: set[int] = set()
        self.work: collectives.Work | None = None
        self.begin()

    def begin(self) -> None:
        """Wait for all gradients again."""
        self.missing = set(range(len(self.parameters)))
        self.work = None

    def arrived(self, number: int) -> bool:
        """Note that a gradient is there; whether it was the last one."""
        gradient = self.parameters[number]._grad
        assert gradient is not None
        if gradient._array is not self.slices[number]:
            # the user has put another tensor there
            self.slices[number][...] = gradient._array
            self.parameters[number]._grad = wrap(self.slices[number])
        self.missing.discard(number)
        return not self.missing

    def reduce(self, communicator: collectives.Communicator) -> None:
        """Start the reduction to the mean over all ranks."""
        self.work = communicator.all_reduce(self.flat, "avg", async_op=True)

    def release(self) -> None:
        """Give the parameters' gradients homes of their own again."""
        for p in self.parameters:
            if isinstance(p._node, AccumulateGrad):
                p._node.home = None


def _accumulator(parameter: Tensor) -> AccumulateGrad:
    node = parameter._node
    assert isinstance(node, AccumulateGrad)
    return node


def when_ready(parameter: Tensor, call: Callable[[Tensor], None]) -> RemovableHandle:
    """Call a function whenever backward has added to a parameter's gradient."""
    return _accumulator(parameter).add_hook("post_hooks", call)


def fill_buckets(parameters: Sequence[Tensor], first_limit: int, limit: int) -> list[Bucket]:
    """Parameters, in the order in which their gradients are expected, in buckets of one dtype and device.

    Parameters
    ----------
    parameters : sequence of Tensor
    first_limit, limit : int
        Bytes after which the first bucket, and others, are full. The first is small so that communication starts early.
    """
    open_buckets: dict[Any, list[Tensor]] = {}
    filled: list[list[Tensor]] = []
    for p in parameters:
        kind = (p._array.dtype, str(p.device))
        members = open_buckets.setdefault(kind, [])
        members.append(p)
        if sum(m._array.nbytes for m in members) >= (limit if filled else first_limit):
            filled.append(open_buckets.pop(kind))
    filled.extend(open_buckets.values())
    return [Bucket(members) for members in filled]
