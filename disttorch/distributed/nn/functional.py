"""Collectives through which gradients flow; as ``torch.distributed.nn.functional``.

They return new tensors. All ranks call them, and all ranks call backward, since the gradient of a collective is a
collective. The gradient that a rank gets is that of the sum of what all ranks differentiate, for every reduction and of
any order. (PyTorch's gradients are these for SUM; it takes those of AVG, MAX, MIN and PRODUCT as if they were sums in some functions.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...autograd.variable import Tensor
from ...ops.shape import joining
from .. import differentiable
from ..collective import root_of
from ..groups import ProcessGroup, check_tensor, check_tensors, get_world_size, joined
from ..reduce_op import ReduceOp

__all__ = [
    "all_gather",
    "all_reduce",
    "all_to_all",
    "all_to_all_single",
    "broadcast",
    "gather",
    "reduce",
    "reduce_scatter",
    "scatter",
]


def all_reduce(tensor: Tensor, op: Any = ReduceOp.SUM, group: Any = None) -> Tensor:
    """The ranks' tensors combined.

    Parameters
    ----------
    tensor : Tensor
        Of one shape on all ranks.
    op : ReduceOp
    group : ProcessGroup, optional
        The world unless given.

    Examples
    --------
    >>> import disttorch, disttorch.distributed as dist
    >>> from disttorch.distributed.nn.functional import all_reduce
    >>> dist.init_process_group("local")
    >>> x = disttorch.tensor([2.0], requires_grad=True)
    >>> (all_reduce(x) ** 2).backward()
    >>> x.grad
    tensor([4.])
    >>> dist.destroy_process_group()
    """
    check_tensor("all_reduce", "tensor", tensor)
    _member("all_reduce", group)
    return differentiable.all_reduce(tensor, op, group)


def _member(name: str, group: Any) -> ProcessGroup:
    found = joined(group)
    if found is None:
        raise ValueError(f"{name}: this rank is no member of the group")
    return found


def broadcast(tensor: Tensor, src: int, group: Any = None) -> Tensor:
    """The tensor of rank `src` of the world; the others' say the shape only."""
    check_tensor("broadcast", "tensor", tensor)
    return differentiable.broadcast(tensor, root_of(_member("broadcast", group), src, None), group)


def reduce(tensor: Tensor, dst: int, op: Any = ReduceOp.SUM, group: Any = None) -> Tensor:
    """The ranks' tensors combined on rank `dst` of the world; on the others the tensor as it was, without a gradient."""
    check_tensor("reduce", "tensor", tensor)
    joint = _member("reduce", group)
    root = root_of(joint, dst, None)
    result = differentiable.reduce(tensor, root, op, group)
    return result if joint.rank() == root else result + tensor.detach()


def all_gather(tensor: Tensor, group: Any = None) -> tuple[Tensor, ...]:
    """The tensors of all ranks, which are of one shape."""
    check_tensor("all_gather", "tensor", tensor)
    _member("all_gather", group)
    return differentiable.all_gather(tensor, group).unbind(0)


def gather(tensor: Tensor, dst: int = 0, group: Any = None) -> tuple[Tensor, ...]:
    """The tensors of all ranks on rank `dst` of the world; on the others zeros."""
    check_tensor("gather", "tensor", tensor)
    return differentiable.gather(tensor, root_of(_member("gather", group), dst, None), group).unbind(0)


def scatter(tensors: Sequence[Tensor], src: int = 0, group: Any = None) -> Tensor:
    """Tensor r of rank `src` of the world on rank r; the others' tensors say the shape only.

    Raises
    ------
    ValueError
        If there is not one tensor for each rank.
    """
    given = _one_for_each("scatter", "tensors", tensors, group)
    return differentiable.scatter(joining.stack(given), root_of(_member("scatter", group), src, None), group)


def _one_for_each(name: str, argument: str, tensors: Any, group: Any) -> list[Tensor]:
    given = check_tensors(name, argument, tensors)
    ranks = _member(name, group).size()
    if len(given) != ranks:
        raise ValueError(f"{name}: {argument} has {len(given)} tensors, but the group has {ranks} ranks")
    return given


def reduce_scatter(output: Tensor, input_list: Sequence[Tensor], op: Any = ReduceOp.SUM, group: Any = None) -> Tensor:
    """The r-th tensors of all ranks combined, on rank r.

    Parameters
    ----------
    output : Tensor
        Says the shape only; the result is returned.
    input_list : list of Tensor
        One for each rank, all of the shape of `output`.
    op, group
        As for `all_reduce`.

    Raises
    ------
    ValueError
        If there is not one tensor for each rank, or one is not of the shape of `output`.
    """
    check_tensor("reduce_scatter", "output", output)
    given = _one_for_each("reduce_scatter", "input_list", input_list, group)
    for r, tensor in enumerate(given):
        if tensor.shape != output.shape:
            raise ValueError(
                f"reduce_scatter: input_list[{r}] of shape {list(tensor.shape)} must have the shape of output, {list(output.shape)}"
            )
    return differentiable.reduce_scatter(joining.stack(given), op, group)


def all_to_all(output_tensor_list: Sequence[Tensor], input_tensor_list: Sequence[Tensor], group: Any = None) -> tuple[Tensor, ...]:
    """What each rank sends here, where tensor r is sent to rank r.

    Parameters
    ----------
    output_tensor_list : list of Tensor
        Say the shapes only, of what is received; the results are returned.
    input_tensor_list : list of Tensor
        One for each rank, of any shapes.
    group : ProcessGroup, optional
        The world unless given.

    Raises
    ------
    ValueError
        If one of the lists has not one tensor for each rank.
    """
    outputs = _one_for_each("all_to_all", "output_tensor_list", output_tensor_list, group)
    inputs = _one_for_each("all_to_all", "input_tensor_list", input_tensor_list, group)
    return differentiable.all_to_all_list(outputs, inputs, group)


def all_to_all_single(
    output: Tensor,
    input: Tensor,
    output_split_sizes: Sequence[int] | None = None,
    input_split_sizes: Sequence[int] | None = None,
    group: Any = None,
) -> Tensor:
    """What each rank sends here of the first dimension.

    Parameters
    ----------
    output : Tensor
        Says the shape only; the result is returned.
    input : Tensor
    output_split_sizes, input_split_sizes : list of int, optional
        How many rows come from and go to each rank; equally many unless given. Given on all ranks or on none.
    group : ProcessGroup, optional
        The world unless given.

    Raises
    ------
    ValueError
        If, without sizes, `output` has not as many elements as `input`, or sizes do not add up to the first dimension.
    """
    check_tensor("all_to_all_single", "output", output)
    check_tensor("all_to_all_single", "input", input)
    _member("all_to_all_single", group)
    if not (output_split_sizes or input_split_sizes):
        if output.numel() != input.numel():
            raise ValueError(
                f"all_to_all_single: without sizes output of shape {list(output.shape)} must have as many elements as input of shape "
                f"{list(input.shape)}"
            )
        return differentiable.all_to_all(input, None, None, group).reshape(output.shape)
    ranks = get_world_size(group)
    sizes = [
        list(given) if given else [t.shape[0] // ranks] * ranks
        for t, given in ((output, output_split_sizes), (input, input_split_sizes))
    ]
    return differentiable.all_to_all(input, sizes[0], sizes[1], group)
