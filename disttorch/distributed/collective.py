"""Collectives that combine or copy tensors of one shape on all ranks, in place, outside of the graph.

The functions have PyTorch's signatures. They return a `Work` where ``async_op`` is true and nothing otherwise. On a rank
that is no member of the group they warn and do nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from ..autograd.variable import Tensor, bump_version
from ..futures import Future
from .groups import ProcessGroup, check_tensor, check_tensors, communicator_for, get_group_rank, member, within
from .reduce_op import ReduceOp, reduction_for
from .work import Work, begin, together

__all__ = ["all_reduce", "all_reduce_coalesced", "barrier", "broadcast", "reduce", "root_of"]


def root_of(group: ProcessGroup, rank: int | None, group_rank: int | None, default: int | None = None) -> int:
    """One rank as a number in the group, given as a rank of the world or as such a number.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it is given in both ways, in none and there is no default (a rank of the world), or is no member.
    """
    for given in (rank, group_rank):
        if given is not None and not hasattr(given, "__index__"):
            raise TypeError(f"a rank must be an integer, got {given!r}")
    if rank is not None and group_rank is not None:
        raise ValueError(f"Can't specify both group_rank and global_rank: it is given twice, as {group_rank} and {rank}")
    if group_rank is not None:
        if not 0 <= group_rank < group.size():
            raise ValueError(f"Group rank {group_rank} is not part of group {group}, which has {group.size()} members")
        return group_rank
    if rank is None:
        rank = default
    if rank is None:
        raise ValueError("Must specify global_rank or group_rank")
    return get_group_rank(group, rank)


def all_reduce(tensor: Tensor, op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False) -> Work | None:
    """Combine the ranks' tensors; every rank gets the result in place. As ``torch.distributed.all_reduce``.

    Parameters
    ----------
    tensor : Tensor
        Of the same shape and dtype on every rank.
    op : ReduceOp
        How they are combined.
    group : ProcessGroup, optional
        The world unless given.
    async_op : bool
        Return a `Work` to wait for.

    Raises
    ------
    TypeError, ValueError
        If it is no tensor, the dtype does not allow the reduction, or there is no such reduction.
    RuntimeError
        If the group carries no tensors on its device.

    Examples
    --------
    >>> import disttorch, disttorch.distributed as dist
    >>> dist.init_process_group("local")
    >>> x = disttorch.ones(2)
    >>> dist.all_reduce(x)
    >>> x
    tensor([1., 1.])
    >>> dist.destroy_process_group()
    """
    check_tensor("all_reduce", "tensor", tensor)
    joint = member("all_reduce", group)
    if joint is None:
        return None
    how = reduction_for("all_reduce", op, tensor)
    work = communicator_for("all_reduce", joint, tensor).all_reduce(tensor._array, how, async_op=True)
    bump_version(tensor)
    return begin(joint, work, async_op, [tensor])


def all_reduce_coalesced(
    tensors: Sequence[Tensor] | Tensor, op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False
) -> Future | None:
    """`all_reduce` of several tensors at once; as ``torch.distributed.all_reduce_coalesced``.

    Returns
    -------
    Future of the list of tensors where ``async_op`` is true
    """
    given = check_tensors("all_reduce_coalesced", "tensors", [tensors] if isinstance(tensors, Tensor) else tensors)
    joint = member("all_reduce_coalesced", group)
    if joint is None:
        return None
    if not given:
        return Work([]).get_future() if async_op else None
    how = reduction_for("all_reduce_coalesced", op, *given)
    communicator = communicator_for("all_reduce_coalesced", joint, *given)
    with together(joint):
        works = [communicator.all_reduce(tensor._array, how, async_op=True) for tensor in given]
    for tensor in given:
        bump_version(tensor)
    work = begin(joint, works, async_op, given)
    return None if work is None else work.get_future()


def reduce(
    tensor: Tensor,
    dst: int | None = None,
    op: Any = ReduceOp.SUM,
    group: Any = None,
    async_op: bool = False,
    group_dst: int | None = None,
) -> Work | None:
    """Combine the ranks' tensors on one rank, in place there; others keep theirs. As ``torch.distributed.reduce``.

    Parameters
    ----------
    tensor, op, group, async_op
        As for `all_reduce`.
    dst, group_dst : int
        The rank that receives, as a rank of the world or as a number in the group; one of the two.
    """
    check_tensor("reduce", "tensor", tensor)
    joint = member("reduce", group)
    if joint is None:
        return None
    root = root_of(joint, dst, group_dst)
    how = reduction_for("reduce", op, tensor)
    work = communicator_for("reduce", joint, tensor).reduce(tensor._array, root, how, async_op=True)
    bump_version(tensor)
    return begin(joint, work, async_op, [tensor])


def broadcast(
    tensor: Tensor, src: int | None = None, group: Any = None, async_op: bool = False, group_src: int | None = None
) -> Work | None:
    """Overwrite every rank's tensor with that of one rank. As ``torch.distributed.broadcast``.

    Parameters
    ----------
    tensor : Tensor
        Of the same shape and dtype on every rank.
    src, group_src : int
        The rank that gives, as a rank of the world or as a number in the group; one of the two.
    group, async_op
        As for `all_reduce`.
    """
    check_tensor("broadcast", "tensor", tensor)
    joint = member("broadcast", group)
    if joint is None:
        return None
    root = root_of(joint, src, group_src)
    work = communicator_for("broadcast", joint, tensor).broadcast(tensor._array, root, async_op=True)
    bump_version(tensor)
    return begin(joint, work, async_op, [tensor])


def barrier(
    group: Any = None, async_op: bool = False, device_ids: Any = None, timeout: timedelta | float | None = None
) -> Work | None:
    """Return when every rank has come here. As ``torch.distributed.barrier``.

    Parameters
    ----------
    group, async_op
        As for `all_reduce`.
    device_ids
        Accepted as in PyTorch.
    timeout : timedelta or float, optional
        How long it may be waited for, a float in seconds, in place of the group's timeout.

    Raises
    ------
    collectives.CollectiveTimeoutError
        If not all ranks have come by then; the message names them.
    """
    joint = member("barrier", group)
    if joint is None:
        return None
    with within("barrier", joint, timeout):
        return begin(joint, joint.communicator.barrier(async_op=True), async_op)
