"""Buckets: parameters' gradients as slices of flat arrays, so that reducing many of them is one collective.

All buckets of one dtype and device are slices of one array, which lies in memory that the transport reduces without
copying where it has such memory. So the buckets can be filled anew, in a better order, without another array.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import collectives

from ..autograd.graph import AccumulateGrad, RemovableHandle
from ..autograd.variable import Tensor, wrap
from ..backend import namespace
from ..backend.dtypes import as_dtype
from ..backend.layout import shaped_like
from ..futures import Future

__all__ = ["Bucket", "BuiltinCommHookType", "Entry", "GradBucket", "Memory", "MiB", "divide"]

MiB = 2**20
LINE = 64
"""Bytes at whose multiples buckets begin: a line of the processor's cache, and what its vector instructions like."""


class Entry:
    """A parameter as the reducer sees it.

    Attributes
    ----------
    parameter : Tensor
    name : str
        In the model.
    number : int
        Its place among the parameters, in the order in which the model registered them.
    reduced_as : dtype
        Of its gradient in the bucket.
    lives_there : bool
        Whether the bucket is also where the gradient stays.
    is_delayed : bool
        Whether its gradient is reduced in a bucket of its own that waits for another parameter's gradient.
    bucket : Bucket or None
        Where its gradient is reduced; None if it is not.
    slice : ndarray
        The part of the bucket that is its gradient's, in the parameter's shape and order of dimensions in memory.
    firings : int
        How often its gradient arrives in a backward pass.
    left : int
        How often it will yet arrive in the pass that is under way.
    used : bool
        Whether a gradient has arrived since the last reduction.
    is_left_out : bool
        Whether the pass that is under way is taken not to use it on this rank.
    before : ndarray or None
        Of a parameter that is left out: the gradient that it had.

    Parameters
    ----------
    name, parameter, number, is_delayed
        As above.
    reduced_as : dtype, optional
        The parameter's unless given.
    in_bucket : bool
        Whether the gradient shall stay in the bucket, which takes one of the same dtype.
    """

    __slots__ = (
        "before", "bucket", "dtype", "firings", "handle", "in_bucket", "is_delayed", "is_left_out", "left", "lives_there", "name", "node",
        "number", "parameter", "reduced_as", "shape", "slice", "used",
    )  # fmt: skip

    def __init__(
        self, name: str, parameter: Tensor, number: int, *, reduced_as: Any = None, in_bucket: bool = True, is_delayed: bool = False
    ):
        self.name, self.parameter, self.number, self.is_delayed = name, parameter, number, is_delayed
        self.shape, self.dtype = parameter._array.shape, parameter._array.dtype
        self.reduced_as = self.dtype if reduced_as is None else reduced_as
        self.in_bucket = in_bucket
        self.lives_there = in_bucket and self.reduced_as == self.dtype
        self.node: AccumulateGrad | None = None
        self.handle: RemovableHandle | None = None
        self.bucket: Bucket | None = None
        self.slice: Any = None
        self.firings = self.left = 1
        self.used = self.is_left_out = False
        self.before: Any = None

    @property
    def kind(self) -> tuple[Any, str]:
        """What gradients of one bucket have in common."""
        return self.reduced_as, str(self.parameter.device)

    @property
    def nbytes(self) -> int:
        """Bytes of its gradient in a bucket."""
        return self.parameter._array.size * self.reduced_as.itemsize

    def attach(self, arrived: Callable[[Entry], None]) -> None:
        """Have a function called whenever the parameter's gradient has been added to."""
        self.detach()
        node = self.parameter._node
        if isinstance(node, AccumulateGrad):
            self.node = node
            self.handle = node.add_hook("post_hooks", lambda _: arrived(self))

    def detach(self) -> None:
        """Undo `attach`, and let gradients have memory of their own."""
        if self.node is not None and self.handle is not None:
            self.node.home = None
            self.handle.remove()
        self.node = self.handle = None

    def set_home(self) -> None:
        """Let gradients be written into the bucket by the engine itself, where they stay there."""
        if self.node is not None:
            self.node.home = self.slice if self.lives_there else None

    def gradient_is_here(self) -> bool:
        """Whether the parameter's gradient lies in the bucket."""
        return self.slice is not None and self.parameter._grad is not None and self.parameter._grad._array is self.slice

    def settle(self) -> None:
        """Put the parameter's gradient into the bucket, nothing if there is none."""
        gradient = self.parameter._grad
        if gradient is None:
            self.slice[...] = 0
        elif gradient._array is not self.slice:
            self.slice[...] = gradient._array
            if self.lives_there:
                self.parameter._grad = wrap(self.slice)

    def lower_precision(self, reduced: bool) -> None:
        """Let the parameter's gradient have the dtype of the bucket, from which it is taken if it was reduced."""
        gradient = self.parameter._grad
        if gradient is None or gradient._array.dtype == self.reduced_as:
            return
        if not reduced:
            gradient._array = gradient.to(as_dtype(self.reduced_as))._array
        else:
            gradient._array = self.slice if self.in_bucket else namespace(self.slice).array(self.slice)

    def raise_precision(self) -> None:
        """Let it have the parameter's."""
        gradient = self.parameter._grad
        if gradient is not None and gradient._array.dtype != self.dtype:
            gradient._array = gradient.to(as_dtype(self.dtype))._array


class Bucket:
    """Gradients of one dtype and device that are reduced together.

    Parameters
    ----------
    index : int
        Its place among the buckets, which is the order in which they are reduced.
    entries : sequence of Entry
        In the order in which their gradients are expected.
    memory : Memory
        That the bucket takes its part of.
    flags : int
        Elements behind the gradients that are reduced with them.

    Attributes
    ----------
    flat : ndarray, 1-dimensional
        The gradients.
    array : ndarray, 1-dimensional
        The gradients and the flags.
    is_delayed : bool
        Whether it waits for the gradient of a parameter that is not among its own.
    missing : int
        How many gradients have not arrived in the pass that is under way.
    work, future : collectives.Work, Future or None
        The reduction, once it has been started.
    """

    def __init__(self, index: int, entries: Sequence[Entry], memory: Memory, flags: int = 0):
        self.index = index
        self.entries = list(entries)
        count = sum(e.parameter._array.size for e in entries)
        self.array = memory.take(count + flags)
        self.flat = self.array[:count]
        self.flags = self.array[count:]
        self.is_delayed = entries[0].is_delayed
        start = 0
        for e in entries:
            stop = start + e.parameter._array.size
            e.bucket = self
            e.slice = shaped_like(self.flat[start:stop], e.parameter._array)
            start = stop
        self.missing = 0
        self.work: collectives.Work | None = None
        self.future: Future | None = None

    def begin(self) -> None:
        """Wait for all gradients again."""
        self.missing = sum(e.left > 0 for e in self.entries)
        self.work = self.future = None


class Memory:
    """One array from which the buckets of a dtype and device take their parts.

    Parameters
    ----------
    communicator : collectives.Communicator
        That reduces them.
    entries : sequence of Entry
    flags : int
        Elements that buckets will ask for beyond the gradients.
    """

    def __init__(self, communicator: collectives.Communicator, entries: Sequence[Entry], flags: int):
        like, dtype = entries[0].parameter._array, entries[0].reduced_as
        self._line = max(1, LINE // dtype.itemsize)
        # every bucket may leave a part of a line unused
        count = sum(e.parameter._array.size for e in entries) + flags + len(entries) * self._line
        xp = namespace(like)
        if xp.name == "cpu":
            self._array = communicator.allocate((count,), dtype)
        else:
            with xp.on(xp.device_of(like)):
                self._array = xp.zeros(count, dtype)
        self._taken = 0

    def take(self, count: int) -> Any:
        """The next elements."""
        start = self._taken
        self._taken += -(-count // self._line) * self._line
        return self._array[start : start + count]

    def forget(self) -> None:
        """Begin at the start again."""
        self._taken = 0


def divide(entries: Sequence[Entry], limits: Sequence[int], last_limit: int) -> list[list[Entry]]:
    """Parameters, in the order in which their gradients are expected, in groups of one dtype and device.

    Groups are in the order in which they will be complete.

    Parameters
    ----------
    entries : sequence of Entry
    limits : sequence of int
        Bytes after which the first group, the second, ... is full; the last number is also for those that follow. The
        first is best small, so that communication starts early.
    last_limit : int
        Bytes that the very last group shall not exceed, as nothing is computed any more while it is reduced.

    Examples
    --------
    >>> import disttorch
    >>> layers = [Entry(str(i), disttorch.zeros(256), i) for i in range(6)]
    >>> [[e.name for e in group] for group in divide(layers, [1024, 3072], 1024)]
    [['0'], ['1', '2', '3'], ['4'], ['5']]
    """
    open_groups: dict[Any, list[Entry]] = {}
    filled: list[list[Entry]] = []
    place = {id(e): i for i, e in enumerate(entries)}
    for e in entries:
        members = open_groups.setdefault(e.kind, [])
        members.append(e)
        if _bytes(members) >= limits[min(len(filled), len(limits) - 1)]:
            filled.append(open_groups.pop(e.kind))
    filled.extend(open_groups.values())
    filled.sort(key=lambda members: place[id(members[-1])])
    last = filled[-1]
    cut = len(last) - 1
    while cut > 0 and _bytes(last[cut - 1 :]) <= last_limit:
        cut -= 1
    if cut > 0 and _bytes(last) > last_limit:
        filled[-1:] = [last[:cut], last[cut:]]
    return filled


def _bytes(entries: Sequence[Entry]) -> int:
    return sum(e.nbytes for e in entries)


class GradBucket:
    """A bucket as communication hooks see it; as ``torch.distributed.GradBucket``.

    Parameters
    ----------
    bucket : Bucket
    last : bool
        Whether no other is reduced after it in this pass.
    """

    def __init__(self, bucket: Bucket, last: bool):
        self._bucket = bucket
        self._last = last
        self._buffer = wrap(bucket.flat)

    def index(self) -> int:
        """The bucket's number, from 0, in the order of reduction; buckets are filled anew after the first pass."""
        return self._bucket.index

    def is_last(self) -> bool:
        """Whether no other bucket is reduced after it in this pass."""
        return self._last

    def buffer(self) -> Tensor:
        """All gradients of the bucket in one dimension; they have not been divided by the number of ranks."""
        return self._buffer

    def set_buffer(self, buffer: Tensor) -> None:
        """Let `buffer` and `gradients` give another tensor from now on, of as many elements.

        Raises
        ------
        TypeError, ValueError
            If it is no tensor, or of another shape.
        """
        if not isinstance(buffer, Tensor):
            raise TypeError(f"GradBucket.set_buffer: a Tensor is wanted, not {type(buffer).__name__}")
        if buffer._array.shape != self._bucket.flat.shape:
            raise ValueError(
                f"GradBucket.set_buffer: the bucket has shape {list(self._bucket.flat.shape)}, the tensor {list(buffer.shape)}"
            )
        self._buffer = buffer

    def gradients(self) -> list[Tensor]:
        """The parameters' gradients as views of the buffer, in their shapes."""
        return [wrap(part) for part in self.parts_of(self._buffer._array)]

    def parameters(self) -> list[Tensor]:
        """The parameters, in the order of `gradients`."""
        return [e.parameter for e in self._bucket.entries]

    def parts_of(self, flat: Any) -> list[Any]:
        """The parts of an array of the bucket's size that belong to its parameters, in their shapes and orders of dimensions."""
        parts, start = [], 0
        for e in self._bucket.entries:
            stop = start + e.parameter._array.size
            parts.append(shaped_like(flat[start:stop], e.parameter._array))
            start = stop
        return parts

    def __repr__(self) -> str:
        return f"<GradBucket {self.index()}: {len(self._bucket.entries)} gradients, {self._buffer._array.size} elements>"


class BuiltinCommHookType(Enum):
    """Communication hooks that have a number of their own; as ``torch.distributed.BuiltinCommHookType``."""

    ALLREDUCE = 1
    FP16_COMPRESS = 2
