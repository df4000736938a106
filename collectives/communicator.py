"""Communicator: the vocabulary with which ranks exchange arrays and objects, and form groups.

The collective operations on arrays stand in `collectives.operations`; here is what goes from one rank to another, what is taken
together, objects, groups, and memory that the ranks of a node share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import objects
from .arguments import check_integer, check_rank, check_seconds, check_shape, check_tag
from .devices import divided
from .errors import CommunicationError
from .job import forget
from .operations import CollectiveOperations
from .staging import Array, copy_back, staged
from .work import Together, Work, drain

__all__ = ["Communicator"]


class Communicator(CollectiveOperations):
    """A group of ranks that exchange arrays; `collectives.connect` makes the one of all ranks.

    Every rank of the group calls the same operations in the same order, with arrays of the same shape and dtype. Each
    array method returns a `Work`: complete, unless `async_op` is true; then the arrays belong to the operation until
    the Work is waited for. An operation that is asynchronous on one rank may be synchronous on another.

    For arrays of a GPU over NCCL, to wait is a matter of the GPU's streams (`StreamWork`): what the current stream is given from
    then on comes behind the operation, and the host goes on at once. ``Work.complete()`` waits on the host.

    Arrays of any dtype may be moved (of Python objects: the ``_object`` methods). Which dtypes may be reduced says the
    table in `collectives.reductions`. float16 and bfloat16 are accumulated in float32 and rounded once (NCCL moves
    them as they are, and rounds where it adds). Minimum and
    maximum of values among which some are NaN may or may not be NaN.

    Where ranks have parts of different lengths, `counts` says how many rows of the first dimension each has: a sequence of one
    integer for each rank, the same on all ranks.

    Attributes
    ----------
    rank : int
        This process's number in the group, from 0.
    size : int
        The number of ranks.
    name : str
        ``"world"``; groups made of it have names that begin with it. The same on all ranks of the group.
    timeout : float
        Seconds that an operation may wait for the other ranks. When they are over, every waiting rank raises
        `CollectiveTimeoutError`, which names the ranks that have not come and what they did last.

    Examples
    --------
    >>> from collectives import connect
    >>> world = connect()
    >>> values = np.arange(4, dtype=np.float32)
    >>> world.all_reduce(values, "avg")
    <Work all_reduce: complete>
    >>> values
    array([0., 1., 2., 3.], dtype=float32)
    """

    @property
    def transport(self) -> str:
        """What carries NumPy arrays: ``"local"``, ``"shared"``, ``"hierarchical"``, ``"mpi"``, ``"tcp"``."""
        return self._transport.name

    def describe(self) -> str:
        """What carries the arrays, in a sentence; DISTTORCH_VERBOSE=1 prints it when the ranks have met.

        Examples
        --------
        >>> from collectives import connect
        >>> connect("local").describe()
        'group world: 1 rank on 1 node; NumPy arrays over local; timeout 1800 s'
        """
        nodes = len({self.job.node_of[rank] for rank in self.ranks})
        parts = [
            f"group {self.name}: {self.size} rank{'s' if self.size > 1 else ''} on {nodes} node{'s' if nodes > 1 else ''}",
            f"NumPy arrays over {self._transport.description()}",
            *(f"{kind} arrays over {transport.description()}" for kind, transport in self._device_transports.items()),
            f"timeout {self.timeout:g} s",
        ]
        if self.job.settings.debug:
            parts.append(f"debug {self.job.settings.debug}")
        return "; ".join([*parts, *self.job.notes])

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ", failed" if self._failed else ""
        return f"<Communicator {self.name}: rank {self.rank} of {self.size} over {self.transport}{state}>"

    # From one rank to another ----------------------------------------------------------------------------------------

    def send(self, array: Array, destination: int, tag: int = 0, *, async_op: bool = False) -> Work:
        """Send `array` to the rank `destination`, which receives it with `recv` and the same tag.

        May return before the array is received. To this rank itself only with `async_op`. MPI-4.1, sections 3.2 and
        3.7; PyTorch: ``torch.distributed.send``, ``isend``.

        Raises
        ------
        TypeError
            If `array` is no array, or `destination` or `tag` no integer.
        ValueError
            If there is no such rank, `tag` is negative, or this rank would wait for itself.
        CommunicationError
            If the message cannot be sent: the other rank is gone, or does not receive (`CollectiveTimeoutError`).

        Examples
        --------
        >>> from collectives import connect
        >>> world, there = connect("local"), np.empty(2)
        >>> sent = world.send(np.array([1.0, 2.0]), destination=0, async_op=True)
        >>> world.recv(there, source=0).source, there
        (0, array([1., 2.]))
        """
        check_rank(self, "send", "destination", destination)
        check_tag("send", tag)
        transport = self._transport_for("send", "array", array)
        if destination == self.rank and not async_op and self._coalescing is None:
            raise ValueError(f"send: rank {self.rank} would wait for itself; send to oneself with async_op=True")
        note = self._call("send", array, peer=destination, tag=tag)
        return self._begin(note, transport.send(staged(array), destination, tag), async_op)

    def recv(self, array: Array, source: int | None = None, tag: int = 0, *, async_op: bool = False) -> Work:
        """Receive in `array` what the rank `source` sent with this tag; from None: whoever sends first.

        The message must have exactly the array's number of bytes, otherwise the Work fails with a CommunicationError.
        Afterwards the Work's attribute `source` is the sender. MPI-4.1, sections 3.2 and 3.7; PyTorch:
        ``torch.distributed.recv``, ``irecv``. Errors as in `send`, where an example stands.
        """
        if source is not None:
            check_rank(self, "recv", "source", source)
        check_tag("recv", tag)
        transport = self._transport_for("recv", "array", array, written=True)
        note = self._call("recv", array, peer=-1 if source is None else source, tag=tag)
        buffer = staged(array)
        return self._begin(note, transport.recv(buffer, source, tag), async_op, copy_back(array, buffer), array)

    # Together --------------------------------------------------------------------------------------------------------

    def barrier(self, *, async_op: bool = False) -> Work:
        """Return when every rank has come here. MPI-4.1, section 6.3; PyTorch: ``torch.distributed.barrier``."""
        self._check_open("barrier")
        note = self._call("barrier")
        return self._begin(note, self._transport.barrier(), async_op)

    @contextmanager
    def coalesce(self) -> Iterator[Work]:
        """Take operations together: those called in the block return at once, and are waited for as one.

        Messages of a pair of ranks that send to each other go in a block like this, so that neither waits for the other to
        receive. PyTorch: ``torch.distributed.batch_isend_irecv``; NCCL: ncclGroupStart and ncclGroupEnd.

        Yields
        ------
        Work
            Complete when all operations of the block are. It fails with the first error among them.

        Raises
        ------
        CommunicationError
            If there is such a block open already.

        Examples
        --------
        >>> from collectives import connect
        >>> world, a, b = connect("local"), np.ones(2), np.ones(3)
        >>> with world.coalesce() as group:
        ...     _ = world.all_reduce(a)
        ...     _ = world.all_reduce(b)
        >>> group.wait()
        """
        if self._coalescing is not None:
            raise CommunicationError("coalesce: a block is open already in this group")
        group = Together([])
        self._coalescing = group.works
        for transport in (self._transport, *self._device_transports.values()):
            transport.begin_group()
        try:
            yield group
        finally:
            self._coalescing = None
            for transport in (self._transport, *self._device_transports.values()):
                transport.end_group()
        group.closed = True
        group.test()

    # Objects ---------------------------------------------------------------------------------------------------------

    def all_gather_object(self, obj: Any) -> list[Any]:
        """The objects of all ranks in the order of the ranks, pickled on the way.

        Raises
        ------
        CommunicationError
            On every rank, if the object of one cannot be pickled.

        Notes
        -----
        Unpickling runs code that the sender chose: the ranks of one job trust each other. PyTorch:
        ``torch.distributed.all_gather_object``.

        Examples
        --------
        >>> from collectives import connect
        >>> connect("local").all_gather_object({"loss": 0.5})
        [{'loss': 0.5}]
        """
        return objects.all_gather(self, obj)

    def gather_object(self, obj: Any, root: int = 0) -> list[Any] | None:
        """The objects of all ranks on `root`, None elsewhere; see `all_gather_object`."""
        check_rank(self, "gather_object", "root", root)
        return objects.gather(self, obj, root)

    def broadcast_object(self, obj: Any = None, root: int = 0) -> Any:
        """The object of `root` on every rank (a copy on the others); see `all_gather_object`."""
        check_rank(self, "broadcast_object", "root", root)
        return objects.broadcast(self, obj, root)

    def scatter_object(self, objs: Sequence[Any] | None = None, root: int = 0) -> Any:
        """This rank's object of those that `root` gives, one for each rank; see `all_gather_object`.

        Raises
        ------
        ValueError
            On `root`, if it does not give as many objects as there are ranks.
        """
        check_rank(self, "scatter_object", "root", root)
        return objects.scatter(self, objs, root)

    def send_object(self, obj: Any, destination: int, tag: int = 0) -> None:
        """Send an object to a rank, which receives it with `recv_object`; see `all_gather_object`."""
        objects.send(self, obj, destination, tag)

    def recv_object(self, source: int | None = None, tag: int = 0) -> tuple[Any, int]:
        """An object that a rank sent, and which rank it was; from None: whoever sends first."""
        return objects.receive(self, source, tag)

    # Groups ----------------------------------------------------------------------------------------------------------

    def split(self, color: int | None, key: int = 0, *, timeout: float | None = None) -> Communicator | None:
        """Form new groups: ranks that give the same `color` belong together. Every rank must call.

        Parameters
        ----------
        color : int or None
            The number of the new group, from 0; None to belong to none.
        key : int, default 0
            Ranks of the new group are in the order of their keys, at equal keys in the order of their old ranks.
        timeout : float, optional
            Seconds that operations of the new group may wait; this group's unless given.

        Returns
        -------
        Communicator or None
            The new group, None where `color` is None.

        Raises
        ------
        TypeError
            If `color` or `key` is no integer, or `timeout` no number.
        ValueError
            If `color` is negative, or `timeout` not positive.
        CommunicationError
            As in `all_reduce`.

        Notes
        -----
        MPI-4.1, section 7.4.2 (MPI_Comm_split); PyTorch: ``torch.distributed.new_group``.

        Examples
        --------
        >>> from collectives import connect
        >>> connect("local").split(color=0)
        <Communicator world/1: rank 0 of 1 over local>
        """
        self._check_open("split")
        for name, value in (("color", color), ("key", key)):
            if not (value is None and name == "color"):
                check_integer("split", name, value)
        if color is not None and color < 0:
            raise ValueError(f"split: color must not be negative (None to belong to no group), got {color}")
        seconds = self.timeout if timeout is None else check_seconds("split: timeout", timeout)
        note = self._call("split")
        self._splits += 1
        colors = np.empty((self.size, 2), np.int64)
        mine = np.array([-1 if color is None else color, key], np.int64)
        self._guarded(self._transport.all_gather(colors, mine), note)
        members = sorted((r for r in range(self.size) if colors[r, 0] == mine[0]), key=lambda r: (colors[r, 1], r))
        part = self._transport.split(None if color is None else int(color), int(key))
        divide = divided(self, None if color is None else int(color), int(key))
        if part is None:
            return None
        others = sorted({int(c) for c in colors[:, 0] if c >= 0})
        name = f"{self.name}/{self._splits}" + (f".{color}" if len(others) > 1 else "")
        from .connect import best_transport

        ranks = [self.ranks[r] for r in members]
        chosen = best_transport(part, self.job, ranks)
        made = Communicator(chosen, self.job, name, ranks, seconds)
        divide(made)
        return made

    def subgroup(self, ranks: Sequence[int], *, timeout: float | None = None) -> Communicator | None:
        """The group of some ranks, in this order; None on the others. Every rank of this group calls with the same ranks.

        Raises
        ------
        ValueError
            If a number is no rank of this group, or stands twice.

        Examples
        --------
        >>> from collectives import connect
        >>> connect("local").subgroup([0]).size
        1
        """
        members = list(ranks)
        for rank in members:
            check_rank(self, "subgroup", "each of ranks", rank)
        if len(set(members)) != len(members):
            raise ValueError(f"subgroup: the ranks must be different, got {members}")
        inside = self.rank in members
        return self.split(0 if inside else None, members.index(self.rank) if inside else 0, timeout=timeout)

    def node(self) -> Communicator:
        """The ranks of this group that are on this rank's node. Every rank must call."""
        part = self.split(self.job.node_of[self.ranks[self.rank]], self.rank)
        assert part is not None
        return part

    def across_nodes(self) -> Communicator:
        """The ranks of all nodes that have this rank's number among those of their node. Every rank must call."""
        nodes = [self.job.node_of[rank] for rank in self.ranks]
        number = nodes[: self.rank].count(nodes[self.rank])
        part = self.split(number, self.rank)
        assert part is not None
        return part

    def allocate(self, shape: int | Sequence[int], dtype: Any = np.float32) -> np.ndarray:
        """An array of zeros in memory that `all_reduce` and `reduce_scatter` need not copy. Every rank must call.

        The ranks call in the same order with the same shape and dtype. In shared memory, a reduction is fastest when
        every rank gives an array at the same place of the same allocation: all of it, or the same part. Anything else
        works as with any array. Transports without such memory give an ordinary array.

        Raises
        ------
        TypeError
            If a length is no integer, or the dtype is of Python objects.
        ValueError
            If a length is negative.
        CommunicationError
            As in `all_reduce`, or if the system has no memory for it.

        Examples
        --------
        >>> from collectives import connect
        >>> connect("local").allocate((2, 3)).shape
        (2, 3)
        """
        self._check_open("allocate")
        dtype = np.dtype(dtype)
        if dtype.hasobject:
            raise TypeError(f"allocate: the dtype {dtype} is of Python objects, which cannot be shared")
        dims = check_shape("allocate", shape)
        count = int(np.prod(dims, dtype=np.int64))
        note = self._call("allocate")
        if count and self.size > 1:
            self._guarded(self._transport.barrier(), note)
            memory = self._transport.allocate(count * dtype.itemsize)
            if memory is not None:
                return memory.view(dtype).reshape(dims)
        return np.zeros(dims, dtype)

    def abort(self, code: int = 1) -> None:
        """End the whole job, all ranks, at once, with this exit code."""
        self._transport.abort(code)

    def close(self) -> None:
        """Complete what is under way and give the group's resources back. Every rank must call; may be repeated."""
        if self._closed:
            return
        if self._failed is None:
            drain(self)
            for transport in (*self._device_transports.values(), self._transport):
                transport.close()
        self._closed = True
        self.job.recorder.groups.pop(self.name, None)
        if self._board is not None:
            self._board.give_back(self.name)
        if self.name == "world":
            self.job.leave()
            forget(self.job)
