"""Collectives that collect tensors from all ranks and hand them out, of one shape or of several; in place, outside of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd.variable import Tensor, bump_version
from ..futures import Future
from .collective import root_of
from .groups import check_tensor, check_tensors, communicator_for, member
from .parts import Parts, check_own, check_whole, same_shape, written
from .work import Work, begin, together

__all__ = [
    "all_gather",
    "all_gather_coalesced",
    "all_gather_into_tensor",
    "all_gather_single",
    "gather",
    "scatter",
]


def all_gather(tensor_list: Sequence[Tensor], tensor: Tensor, group: Any = None, async_op: bool = False) -> Work | None:
    """Collect the ranks' tensors in a list on every rank. As ``torch.distributed.all_gather``.

    Parameters
    ----------
    tensor_list : list of Tensor
        One for each rank, overwritten; rank r's has the shape of the tensor that rank r gives, which may differ.
    tensor : Tensor
        What this rank contributes.
    group : ProcessGroup, optional
        The world unless given.
    async_op : bool
        Return a `Work` to wait for.

    Raises
    ------
    TypeError
        If something is no tensor.
    ValueError
        If the list has another length, this rank's tensor in it another shape, or the dtypes differ.
    """
    outputs = check_tensors("all_gather", "tensor_list", tensor_list)
    check_tensor("all_gather", "tensor", tensor)
    joint = member("all_gather", group)
    if joint is None:
        return None
    communicator = communicator_for("all_gather", joint, tensor, *outputs)
    check_own("all_gather", "tensor_list", outputs, joint, tensor, "tensor is")
    parts = Parts("all_gather", "tensor_list", outputs, joint)
    work = communicator.all_gather(parts.array, parts.own(tensor), counts=parts.counts, async_op=True)
    return begin(joint, work, async_op, outputs, parts.received())


def all_gather_coalesced(
    output_tensor_lists: Sequence[Sequence[Tensor]],
    input_tensor_list: Sequence[Tensor],
    group: Any = None,
    async_op: bool = False,
) -> Future | None:
    """`all_gather` of several tensors at once; as ``torch.distributed.all_gather_coalesced``.

    Parameters
    ----------
    output_tensor_lists : list of list of Tensor
        For each rank a list like `input_tensor_list`, overwritten.
    input_tensor_list : list of Tensor
        What this rank contributes.
    group, async_op
        As for `all_gather`.

    Returns
    -------
    Future of all tensors that were overwritten, where ``async_op`` is true

    Raises
    ------
    TypeError
        If something is no tensor, or no list.
    ValueError
        If there is not one list for each rank, lists have other lengths, or tensors do not fit together.
    """
    name = "all_gather_coalesced"
    joint = member(name, group)
    if joint is None:
        return None
    inputs = check_tensors(name, "input_tensor_list", input_tensor_list)
    if not isinstance(output_tensor_lists, (list, tuple)):
        raise TypeError(f"{name}: Invalid function argument: output_tensor_lists should be a list")
    outputs = [check_tensors(name, "output_tensor_lists", ones) for ones in output_tensor_lists]
    if len(outputs) != joint.size() or any(len(ones) != len(inputs) for ones in outputs):
        raise ValueError(
            f"{name}: output_tensor_lists must have {joint.size()} lists of {len(inputs)} tensors, got {[len(ones) for ones in outputs]}"
        )
    if not inputs:
        return Work([]).get_future() if async_op else None
    for i, tensor in enumerate(inputs):
        check_own(name, "output_tensor_lists", [ones[i] for ones in outputs], joint, tensor, f"tensor {i} is")
    communicator = communicator_for(name, joint, *inputs, *(t for ones in outputs for t in ones))
    works = []
    with together(joint):
        for i, tensor in enumerate(inputs):
            parts = Parts(name, "output_tensor_lists", [ones[i] for ones in outputs], joint)
            one = communicator.all_gather(parts.array, parts.own(tensor), counts=parts.counts, async_op=True)
            works.append(one.then(parts.received()))
    work = begin(joint, works, async_op, [t for ones in outputs for t in ones])
    return None if work is None else work.get_future()


def all_gather_single(output_tensor: Tensor, input_tensor: Tensor, group: Any = None, async_op: bool = False) -> Work | None:
    """Collect the ranks' tensors in one, joined along the first dimension or a new one before it.

    As ``torch.distributed.all_gather_single``, and as `all_gather_into_tensor`, its older name.

    Raises
    ------
    ValueError
        If the output has another number of elements than all inputs together.
    """
    return _all_gather_single("all_gather_single", output_tensor, input_tensor, group, async_op)


def all_gather_into_tensor(output_tensor: Tensor, input_tensor: Tensor, group: Any = None, async_op: bool = False) -> Work | None:
    """As `all_gather_single`."""
    return _all_gather_single("all_gather_into_tensor", output_tensor, input_tensor, group, async_op)


def _all_gather_single(name: str, output: Tensor, input: Tensor, group: Any, async_op: bool) -> Work | None:
    check_tensor(name, "input_tensor", input)
    check_tensor(name, "output_tensor", output)
    joint = member(name, group)
    if joint is None:
        return None
    check_whole(name, "output_tensor", output, input, joint.size())
    communicator = communicator_for(name, joint, input, output)
    rows, finish = written(output, (joint.size(), *input._array.shape))
    return begin(joint, communicator.all_gather(rows, input._array, async_op=True), async_op, [output], finish)


def gather(
    tensor: Tensor,
    gather_list: Sequence[Tensor] | None = None,
    dst: int | None = None,
    group: Any = None,
    async_op: bool = False,
    group_dst: int | None = None,
) -> Work | None:
    """Collect the ranks' tensors of one shape in a list on one rank. As ``torch.distributed.gather``.

    Parameters
    ----------
    tensor : Tensor
        What this rank contributes.
    gather_list : list of Tensor, optional
        On the rank that receives, one for each rank; overwritten.
    dst, group_dst : int, optional
        The rank that receives, as a rank of the world (0 unless given) or as a number in the group.
    group, async_op
        As for `all_reduce`.

    Raises
    ------
    ValueError
        If that rank gives no list, or another rank one; or the tensors do not fit together.
    """
    check_tensor("gather", "tensor", tensor)
    joint = member("gather", group)
    if joint is None:
        return None
    root = root_of(joint, dst, group_dst, 0)
    if joint.rank() != root:
        if gather_list:
            raise ValueError(f"Argument ``gather_list`` must NOT be specified on non-destination ranks: {joint.rank()} gathers to {root}")
        work = communicator_for("gather", joint, tensor).gather(None, tensor._array, root, async_op=True)
        return begin(joint, work, async_op)
    if not gather_list:
        raise ValueError(f"Argument ``gather_list`` must be specified on destination rank ({root})")
    outputs = check_tensors("gather", "gather_list", gather_list)
    communicator = communicator_for("gather", joint, tensor, *outputs)
    parts = same_shape("gather", "gather_list", outputs, tensor, joint)
    work = communicator.gather(parts.array, tensor._array, root, async_op=True)
    return begin(joint, work, async_op, outputs, parts.received())


def scatter(
    tensor: Tensor,
    scatter_list: Sequence[Tensor] | None = None,
    src: int | None = None,
    group: Any = None,
    async_op: bool = False,
    group_src: int | None = None,
) -> Work | None:
    """Hand out a list of tensors of one shape from one rank. As ``torch.distributed.scatter``.

    Parameters
    ----------
    tensor : Tensor
        Overwritten.
    scatter_list : list of Tensor, optional
        On the rank that gives, one for each rank.
    src, group_src : int, optional
        The rank that gives, as a rank of the world (0 unless given) or as a number in the group.
    group, async_op
        As for `all_reduce`.

    Raises
    ------
    ValueError
        If that rank gives no list, or another rank one; or the tensors do not fit together.
    """
    check_tensor("scatter", "tensor", tensor)
    joint = member("scatter", group)
    if joint is None:
        return None
    root = root_of(joint, src, group_src, 0)
    rows = None
    if joint.rank() == root:
        if not scatter_list:
            raise ValueError(f"Argument ``scatter_list`` must be specified on source rank ({root})")
        inputs = check_tensors("scatter", "scatter_list", scatter_list)
        communicator_for("scatter", joint, tensor, *inputs)
        rows = same_shape("scatter", "scatter_list", inputs, tensor, joint).filled().array
    elif scatter_list:
        raise ValueError(f"Argument ``scatter_list`` must NOT be specified on non-source ranks: {root} gives, this is {joint.rank()}")
    work = communicator_for("scatter", joint, tensor).scatter(tensor._array, rows, root, async_op=True)
    bump_version(tensor)
    return begin(joint, work, async_op, [tensor])
