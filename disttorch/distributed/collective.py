"""Collectives on tensors, with PyTorch's signatures. In place, outside of the graph.

A function returns a `Work` where ``async_op`` is true and nothing otherwise; on a rank that is no member of the group it
does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import collectives

from ..autograd.variable import Tensor, bump_version
from ..backend import namespace
from .process_group import ReduceOp, _group, check_tensor, communicator_of, get_group_rank

__all__ = [
    "Work",
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_reduce",
    "all_to_all_single",
    "barrier",
    "broadcast",
    "broadcast_object_list",
    "gather",
    "gather_object",
    "irecv",
    "isend",
    "recv",
    "reduce",
    "reduce_scatter_tensor",
    "scatter",
    "send",
]


class Work:
    """A collective under way.

    Parameters
    ----------
    work : collectives.Work
    finish : callable, optional
        What is to be done, once, when it is complete.
    """

    def __init__(self, work: collectives.Work, finish: Callable[[], None] | None = None):
        self._work = work
        self._finish = finish

    def wait(self, timeout: Any = None) -> bool:
        """Return when it is complete.

        Parameters
        ----------
        timeout : timedelta or float, optional
            Seconds.

        Raises
        ------
        TimeoutError
            If it is not complete by then.
        collectives.CommunicationError
            If it failed.
        """
        seconds = timeout.total_seconds() if hasattr(timeout, "total_seconds") else timeout
        self._work.wait(seconds)
        self._end()
        return True

    def is_completed(self) -> bool:
        """Whether it is complete; lets it progress."""
        if self._work.test():
            self._end()
            return True
        return False

    def is_success(self) -> bool:
        """Whether it is complete and went well."""
        return self.is_completed() and self._work.exception() is None

    def exception(self) -> Exception | None:
        """What went wrong, once it is complete."""
        return self._work.exception()

    def result(self) -> None:
        """Wait; the results are in the tensors that were given."""
        self.wait()

    def _end(self) -> None:
        if self._finish is not None and self._work.exception() is None:
            finish, self._finish = self._finish, None
            finish()

    def __repr__(self) -> str:
        return repr(self._work)


def _start(work: collectives.Work, async_op: bool, finish: Callable[[], None] | None = None) -> Work | None:
    result = Work(work, finish)
    if async_op:
        return result
    result.wait()
    return None


def _root(name: str, given: Any, src: int | None, group_src: int | None) -> int:
    """A root as a number in the group; PyTorch's `src` is one in the world."""
    if (src is None) == (group_src is None):
        if src is None:
            return 0
        raise ValueError(f"{name}: the root is given twice, as {src} of the world and {group_src} of the group")
    return group_src if group_src is not None else get_group_rank(_group(given), src)  # type: ignore[arg-type]


def all_reduce(tensor: Tensor, op: str = ReduceOp.SUM, group: Any = None, async_op: bool = False) -> Work | None:
    """Combine the ranks' tensors; every rank gets the result in place. As ``torch.distributed.all_reduce``.

    Parameters
    ----------
    tensor : Tensor
        Of the same shape and dtype on every rank.
    op : str
        A name of `ReduceOp`.
    group : ProcessGroup, optional
        The world unless given.
    async_op : bool
        Return a `Work` to wait for.

    Raises
    ------
    TypeError, ValueError
        If the dtype does not allow the reduction, or there is no such reduction.

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
    communicator = communicator_of(group)
    if communicator is None:
        return None
    array = check_tensor("all_reduce", "tensor", tensor)._array
    bump_version(tensor)
    return _start(communicator.all_reduce(array, op, async_op=True), async_op)


def reduce(
    tensor: Tensor,
    dst: int | None = None,
    op: str = ReduceOp.SUM,
    group: Any = None,
    async_op: bool = False,
    group_dst: int | None = None,
) -> Work | None:
    """Combine the ranks' tensors on one rank, in place there; others keep theirs. As ``torch.distributed.reduce``."""
    communicator = communicator_of(group)
    if communicator is None:
        return None
    root = _root("reduce", group, dst, group_dst)
    array = check_tensor("reduce", "tensor", tensor)._array
    bump_version(tensor)
    return _start(communicator.reduce(array, root, op, async_op=True), async_op)


def broadcast(
    tensor: Tensor, src: int | None = None, group: Any = None, async_op: bool = False, group_src: int | None = None
) -> Work | None:
    """Overwrite every rank's tensor with that of one rank. As ``torch.distributed.broadcast``."""
    communicator = communicator_of(group)
    if communicator is None:
        return None
    root = _root("broadcast", group, src, group_src)
    array = check_tensor("broadcast", "tensor", tensor)._array
    bump_version(tensor)
    return _start(communicator.broadcast(array, root, async_op=True), async_op)


def all_gather(tensor_list: Sequence[Tensor], tensor: Tensor, group: Any = None, async_op: bool = False) -> Work | None:
    """Collect the ranks' tensors of one shape in a list on every rank. As ``torch.distributed.all_gather``.

    Parameters
    ----------
    tensor_list : list of Tensor
        One for each rank, overwritten.
    tensor : Tensor
        What this rank contributes.

    Raises
    ------
    ValueError
        If the list has another length, or a tensor in it another shape or dtype.
    """
    communicator = communicator_of(group)
    if communicator is None:
        return None
    rows, finish = _rows("all_gather", "tensor_list", tensor_list, tensor, communicator)
    return _start(communicator.all_gather(rows, tensor._array, async_op=True), async_op, finish)


def _rows(
    name: str, argument: str, tensors: Sequence[Tensor], like: Tensor, communicator: collectives.Communicator
) -> tuple[Any, Callable[[], None]]:
    """One array with a row for each tensor of a list, and what copies the rows back."""
    array = check_tensor(name, "tensor", like)._array
    if len(tensors) != communicator.size:
        raise ValueError(f"{name}: {argument} has {len(tensors)} tensors, but the group has {communicator.size} ranks")
    for i, t in enumerate(tensors):
        other = check_tensor(name, argument, t)._array
        if other.shape != array.shape or other.dtype != array.dtype:
            raise ValueError(
                f"{name}: {argument}[{i}] is {t.dtype} of shape {list(t.shape)}, but this rank's tensor is {like.dtype} of shape "
                f"{list(like.shape)}"
            )
    rows = namespace(array).empty((communicator.size, *array.shape), array.dtype)

    def finish() -> None:
        for t, row in zip(tensors, rows):
            t._array[...] = row
            bump_version(t)

    return rows, finish


def all_gather_into_tensor(
    output_tensor: Tensor, input_tensor: Tensor, group: Any = None, async_op: bool = False
) -> Work | None:
    """Collect the ranks' tensors in one, joined along the first dimension or a new one before it.

    As ``torch.distributed.all_gather_into_tensor``.

    Raises
    ------
    ValueError
        If the output has another number of elements than all inputs together, or is not contiguous.
    """
    communicator = communicator_of(group)
    if communicator is None:
        return None
    rows = _as_rows("all_gather_into_tensor", "output_tensor", output_tensor, input_tensor, communicator.size)
    bump_version(output_tensor)
    return _start(communicator.all_gather(rows, input_tensor._array, async_op=True), async_op)


def _as_rows(name: str, argument: str, whole: Tensor, part: Tensor, size: int) -> Any:
    """The array of `whole` as a row for each rank, without a copy."""
    check_tensor(name, argument, whole)
    array = check_tensor(name, "the other tensor", part)._array
    if whole._array.size != array.size * size or not whole._array.flags.c_contiguous:
        raise ValueError(
            f"{name}: {argument} of shape {list(whole.shape)} must be contiguous and have {size} times the elements of {list(part.shape)}"
        )
    return whole._array.reshape((size, *array.shape))


def reduce_scatter_tensor(
    output: Tensor, input: Tensor, op: str = ReduceOp.SUM, group: Any = None, async_op: bool = False
) -> Work | None:
    """Combine the ranks' inputs; each rank gets its own part of the result. As ``torch.distributed.reduce_scatter_tensor``.

    Raises
    ------
    ValueError
        If the input has not as many elements as all outputs together, or is not contiguous.
    """
    communicator = communicator_of(group)
    if communicator is None:
        return None
    rows = _as_rows("reduce_scatter_tensor", "input", input, output, communicator.size)
    bump_version(output)
    return _start(communicator.reduce_scatter(output._array, rows, op, async_op=True), async_op)


def gather(
    tensor: Tensor,
    gather_list: Sequence[Tensor] | None = None,
    dst: int | None = None,
    group: Any = None,
    async_op: bool = False,
    group_dst: int | None = None,
) -> Work | None:
    """Collect the ranks' tensors in a list on one rank. As ``torch.distributed.gather``.

    Raises
    ------
    ValueError
        If that rank gives no list, or another rank one.
    """
    communicator = communicator_of(group)
    if communicator is None:
        return None
    root = _root("gather", group, dst, group_dst)
    if (communicator.rank == root) != bool(gather_list):
        raise ValueError(
            f"gather: argument `gather_list` must be given on the destination rank {root} and there only (this is {communicator.rank})"
        )
    if not gather_list:
        return _start(
            communicator.gather(None, check_tensor("gather", "tensor", tensor)._array, root, async_op=True), async_op
        )
    rows, finish = _rows("gather", "gather_list", gather_list, tensor, communicator)
    return _start(communicator.gather(rows, tensor._array, root, async_op=True), async_op, finish)


def scatter(
    tensor: Tensor,
    scatter_list: Sequence[Tensor] | None = None,
    src: int | None = None,
    group: Any = None,
    async_op: bool = False,
    group_src: int | None = None,
) -> Work | None:
    """Hand out a list of tensors from one rank. As ``torch.distributed.scatter``.

    Raises
    ------
    ValueError
        If that rank gives no list, or another rank one.
    """
    communicator = communicator_of(group)
    if communicator is None:
        return None
    root = _root("scatter", group, src, group_src)
    if (communicator.rank == root) != bool(scatter_list):
        raise ValueError(
            f"scatter: argument `scatter_list` must be given on the source rank {root} and there only (this is {communicator.rank})"
        )
    array = check_tensor("scatter", "tensor", tensor)._array
    rows = None
    if scatter_list:
        rows, _ = _rows("scatter", "scatter_list", scatter_list, tensor, communicator)
        for i, t in enumerate(scatter_list):
            rows[i] = t._array
    bump_version(tensor)
    return _start(communicator.scatter(array, rows, root, async_op=True), async_op)


def all_to_all_single(output: Tensor, input: Tensor, *, group: Any = None, async_op: bool = False) -> Work | None:
    """Send each rank its part of the first dimension. As ``torch.distributed.all_to_all_single`` with equal parts.

    Raises
    ------
    ValueError
        If the first dimension cannot be split evenly, or a tensor is not contiguous.
    """
    communicator = communicator_of(group)
    if communicator is None:
        return None
    rows = []
    for argument, t in (("output", output), ("input", input)):
        array = check_tensor("all_to_all_single", argument, t)._array
        if not array.ndim or array.shape[0] % communicator.size or not array.flags.c_contiguous:
            raise ValueError(
                f"all_to_all_single: {argument} of shape {list(array.shape)} must be contiguous, its first dimension a multiple of the "
                f"{communicator.size} ranks"
            )
        rows.append(array.reshape((communicator.size, array.shape[0] // communicator.size, *array.shape[1:])))
    bump_version(output)
    return _start(communicator.all_to_all(*rows, async_op=True), async_op)


def send(tensor: Tensor, dst: int | None = None, group: Any = None, tag: int = 0, group_dst: int | None = None) -> None:
    """Send a tensor to a rank, which receives it. As ``torch.distributed.send``."""
    work = isend(tensor, dst, group, tag, group_dst)
    if work is not None:
        work.wait()


def isend(
    tensor: Tensor, dst: int | None = None, group: Any = None, tag: int = 0, group_dst: int | None = None
) -> Work | None:
    """`send` without waiting; the tensor must not change until the `Work` is complete."""
    communicator = communicator_of(group)
    if communicator is None:
        return None
    array = check_tensor("isend", "tensor", tensor)._array
    return Work(communicator.send(array, _root("isend", group, dst, group_dst), tag, async_op=True))


def recv(tensor: Tensor, src: int | None = None, group: Any = None, tag: int = 0, group_src: int | None = None) -> int:
    """Receive a tensor from a rank, any one unless given; returns the sender. As ``torch.distributed.recv``."""
    communicator = communicator_of(group)
    if communicator is None:
        return -1
    source = None if src is None and group_src is None else _root("recv", group, src, group_src)
    array = check_tensor("recv", "tensor", tensor)._array
    bump_version(tensor)
    work = communicator.recv(array, source, tag)
    sender = work.source if source is None else source
    return _group(group).ranks[sender if sender is not None else 0]


def irecv(
    tensor: Tensor, src: int | None = None, group: Any = None, tag: int = 0, group_src: int | None = None
) -> Work | None:
    """`recv` without waiting."""
    communicator = communicator_of(group)
    if communicator is None:
        return None
    source = None if src is None and group_src is None else _root("irecv", group, src, group_src)
    array = check_tensor("irecv", "tensor", tensor)._array
    bump_version(tensor)
    return Work(communicator.recv(array, source, tag, async_op=True))


def barrier(group: Any = None, async_op: bool = False, device_ids: Any = None) -> Work | None:
    """Return when every rank has come here. As ``torch.distributed.barrier``."""
    communicator = communicator_of(group)
    return None if communicator is None else _start(communicator.barrier(async_op=True), async_op)


def all_gather_object(object_list: list[Any], obj: Any, group: Any = None) -> None:
    """Collect any picklable objects in a list on every rank. As ``torch.distributed.all_gather_object``."""
    communicator = communicator_of(group)
    if communicator is not None:
        object_list[:] = communicator.all_gather_object(obj)


def gather_object(
    obj: Any,
    object_gather_list: list[Any] | None = None,
    dst: int | None = None,
    group: Any = None,
    group_dst: int | None = None,
) -> None:
    """Collect any picklable objects in a list on one rank. As ``torch.distributed.gather_object``."""
    communicator = communicator_of(group)
    if communicator is None:
        return
    found = communicator.gather_object(obj, _root("gather_object", group, dst, group_dst))
    if found is not None:
        if object_gather_list is None:
            raise ValueError("gather_object: argument `object_gather_list` must be specified on the destination rank")
        object_gather_list[:] = found


def broadcast_object_list(
    object_list: list[Any], src: int | None = None, group: Any = None, device: Any = None, group_src: int | None = None
) -> None:
    """Overwrite every rank's list with the objects of one rank. As ``torch.distributed.broadcast_object_list``."""
    communicator = communicator_of(group)
    if communicator is None:
        return
    root = _root("broadcast_object_list", group, src, group_src)
    object_list[:] = communicator.broadcast_object(list(object_list) if communicator.rank == root else None, root)
