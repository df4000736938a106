"""Tensors from one rank to another, and the barrier that says which rank has not come to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import collectives

from ..autograd.variable import Tensor, bump_version
from ..backend import cpu
from .collective import root_of
from .groups import (
    ProcessGroup,
    _get_default_group,
    check_tensor,
    communicator_for,
    get_global_rank,
    joined,
    member,
    seconds_of,
)
from .work import Work, _coalescing_manager, begin

__all__ = ["P2POp", "batch_isend_irecv", "irecv", "isend", "monitored_barrier", "recv", "send"]


def send(tensor: Tensor, dst: int | None = None, group: Any = None, tag: int = 0, group_dst: int | None = None) -> None:
    """Send a tensor to a rank, which receives it. As ``torch.distributed.send``.

    Parameters
    ----------
    tensor : Tensor
    dst, group_dst : int
        The rank that receives, another one, as a rank of the world or as a number in the group; one of the two.
    group : ProcessGroup, optional
        The world unless given.
    tag : int
        From 0; the receiver gives the same.

    Raises
    ------
    ValueError
        If the rank is this one.
    """
    check_tensor("send", "tensor", tensor)
    joint = member("send", group)
    if joint is not None:
        root = _other(joint, root_of(joint, dst, group_dst), "destination")
        isend(tensor, group=group, tag=tag, group_dst=root).wait()  # type: ignore[union-attr]


def _other(group: ProcessGroup, rank: int, role: str) -> int:
    if rank == group.rank():
        raise ValueError(
            f"Invalid {role} rank: {role} rank should not be the same as the rank of the current process, {rank} in the group"
        )
    return rank


def isend(
    tensor: Tensor, dst: int | None = None, group: Any = None, tag: int = 0, group_dst: int | None = None
) -> Work | None:
    """`send` without waiting, also to oneself; the tensor must not change until the `Work` is complete."""
    check_tensor("isend", "tensor", tensor)
    joint = member("isend", group)
    if joint is None:
        return None
    root = root_of(joint, dst, group_dst)
    work = communicator_for("isend", joint, tensor).send(tensor._array, root, tag, async_op=True)
    return begin(joint, work, True, [tensor])


def recv(tensor: Tensor, src: int | None = None, group: Any = None, tag: int = 0, group_src: int | None = None) -> int:
    """Receive a tensor from a rank, any one unless given. As ``torch.distributed.recv``.

    Parameters
    ----------
    tensor : Tensor
        Overwritten; as many bytes as are sent.
    src, group_src : int, optional
        The rank that sends, as a rank of the world or as a number in the group.
    group, tag
        As for `send`.

    Returns
    -------
    int
        The rank of the world that sent; -1 where this rank is no member.
    """
    joint = member("recv", group)
    if joint is None:
        return -1
    work = irecv(tensor, src, group, tag, group_src)
    assert work is not None
    work.wait()
    return get_global_rank(joint, work.source_rank())


def irecv(
    tensor: Tensor, src: int | None = None, group: Any = None, tag: int = 0, group_src: int | None = None
) -> Work | None:
    """`recv` without waiting; ``source_rank()`` of the completed `Work` is the sender's number in the group."""
    check_tensor("irecv", "tensor", tensor)
    joint = member("irecv", group)
    if joint is None:
        return None
    source = None if src is None and group_src is None else root_of(joint, src, group_src)
    work = communicator_for("irecv", joint, tensor).recv(tensor._array, source, tag, async_op=True)
    bump_version(tensor)
    return begin(joint, work, True, [tensor])


class P2POp:
    """One `isend` or `irecv` of a batch; as ``torch.distributed.P2POp``.

    Parameters
    ----------
    op : callable
        `isend` or `irecv`.
    tensor : Tensor
    peer, group_peer : int
        The other rank, as a rank of the world or as a number in the group; one of the two.
    group, tag
        As for `send`.

    Raises
    ------
    ValueError
        If `op` is another function.
    """

    def __init__(
        self,
        op: Callable,
        tensor: Tensor,
        peer: int | None = None,
        group: Any = None,
        tag: int = 0,
        group_peer: int | None = None,
    ):
        if op not in (isend, irecv):
            raise ValueError(f"Invalid ``op``. Expected torch.distributed.isend or torch.distributed.irecv, got {op!r}")
        self.op = op
        self.tensor = check_tensor("P2POp", "tensor", tensor)
        found = joined(group)
        if found is None:
            raise ValueError("P2POp: this rank is no member of the group")
        self.group = found
        self.group_peer = root_of(found, peer, group_peer)
        self.peer = get_global_rank(found, self.group_peer)
        self.tag = tag

    def __repr__(self) -> str:
        ends = (self.group.rank(), self.group_peer) if self.op is isend else (self.group_peer, self.group.rank())
        return (
            f"P2POp({self.op.__name__} pg={self.group.group_name}, group_src={ends[0]}, group_dst={ends[1]}, {self.tensor.shape}, "
            f"{self.tensor.dtype})"
        )


def batch_isend_irecv(p2p_op_list: Sequence[P2POp]) -> list[Work]:
    """Start many sends and receives at once, in any order. As ``torch.distributed.batch_isend_irecv``.

    Parameters
    ----------
    p2p_op_list : list of P2POp
        Of one group. Those between the same two ranks in the same direction match in their order.

    Returns
    -------
    list of Work
        To wait for all of.

    Raises
    ------
    ValueError
        If the list is empty, something in it is no `P2POp`, or the groups differ.
    """
    if not isinstance(p2p_op_list, (list, tuple)) or not all(isinstance(one, P2POp) for one in p2p_op_list):
        raise ValueError("Invalid ``p2p_op_list``. Each op is expected to be of type ``torch.distributed.P2POp``.")
    if not p2p_op_list:
        raise ValueError("batch_isend_irecv: the list of operations is empty")
    group = p2p_op_list[0].group
    if any(one.group is not group for one in p2p_op_list):
        raise ValueError("All ops need to use the same group.")
    with _coalescing_manager(group, async_ops=True) as together:
        for one in p2p_op_list:
            end = "group_dst" if one.op is isend else "group_src"
            one.op(one.tensor, group=group, tag=one.tag, **{end: one.group_peer})
    return together.works


#: The tag of the messages of `monitored_barrier`: the largest that every MPI has (MPI-4.1, section 9.1.2).
_TAG = 32767
_HERE, _VERDICT = 1, 2
_GRACE = 60.0
"""Seconds, besides the timeout, that a rank waits for what rank 0 found, once it knows that rank 0 has come."""


def monitored_barrier(group: Any = None, timeout: timedelta | float | None = None, wait_all_ranks: bool = False) -> None:
    """A barrier that says which ranks have not come in time. As ``torch.distributed.monitored_barrier``.

    Every rank tells rank 0 of the group that it is here, and rank 0 tells all ranks who is.

    Parameters
    ----------
    group : ProcessGroup, optional
        The world unless given.
    timeout : timedelta or float, optional
        How long to wait, a float in seconds; as long as the group's timeout unless given.
    wait_all_ranks
        Accepted as in PyTorch: all ranks that are missing are named always.

    Raises
    ------
    collectives.CollectiveTimeoutError
        On all ranks, if one has not come in time, and on that one, if it comes later.
    """
    joint = member("monitored_barrier", group)
    if joint is None:
        return
    seconds = timeout if isinstance(timeout, float) else seconds_of("monitored_barrier", timeout)
    if seconds is None:
        seconds = joint.communicator.timeout
    joint.barriers += 1
    own = joint.communicator.timeout
    joint.communicator.timeout = max(own, seconds + 2 * _GRACE)  # this barrier says itself who is missing
    try:
        missing = _collect(joint, seconds) if joint.rank() == 0 else _report(joint, seconds)
    finally:
        joint.communicator.timeout = own
    if missing:
        names = ", ".join(str(joint.ranks[rank]) for rank in missing)
        raise collectives.CollectiveTimeoutError(
            f"monitored_barrier: rank {_get_default_group().rank()}: rank{'s' if len(missing) > 1 else ''} {names} did not come within "
            f"{seconds:g} s"
        )


def _collect(group: ProcessGroup, seconds: float) -> list[int]:
    """Rank 0: say that it is here, wait for a message of every other rank, and tell all which are missing."""
    deadline = time.monotonic() + seconds
    others = range(1, group.size())
    for rank in others:
        _tell(group, rank, _HERE)
    missing = [rank for rank in others if not _hear(group, rank, _HERE, deadline - time.monotonic())]
    for rank in others:
        _tell(group, rank, _VERDICT, missing)
    return missing


def _report(group: ProcessGroup, seconds: float) -> list[int]:
    """The other ranks: tell rank 0 that this one is here, and wait for what it says; which ranks are missing."""
    _tell(group, 0, _HERE)
    if not _hear(group, 0, _HERE, seconds):
        return [0]
    verdict = _hear(group, 0, _VERDICT, seconds + _GRACE)
    return [rank for rank in range(group.size()) if verdict[2 + rank]] if verdict else [0]


def _tell(group: ProcessGroup, rank: int, kind: int, missing: Sequence[int] = ()) -> None:
    message = cpu.zeros((2 + group.size(),), "int64")
    message[:2] = kind, group.barriers
    for other in missing:
        message[2 + other] = 1
    group.communicator.send(message, rank, _TAG, async_op=True)


def _hear(group: ProcessGroup, source: int, kind: int, seconds: float) -> list[int]:
    """A rank's message of this barrier, letting go of those of barriers that failed; empty if none comes in time."""
    deadline = time.monotonic() + seconds
    while True:
        message = cpu.zeros((2 + group.size(),), "int64")
        work = group.communicator.recv(message, source, _TAG, async_op=True)
        try:
            work.wait(max(deadline - time.monotonic(), 0.001))
        except TimeoutError:
            work.cancel()
            return []
        if tuple(message[:2].tolist()) == (kind, group.barriers):
            return message.tolist()
