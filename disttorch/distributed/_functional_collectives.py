"""Collectives that return new tensors; as PyTorch's module of this name, which scripts import as ``funcol``.

Gradients flow through them as through `distributed.nn.functional`. PyTorch returns tensors that wait when they are first
used; here a function returns when its collective is complete.

Wherever a group is wanted it may be a `ProcessGroup`, its name, a list of ranks of the world, a list of such lists of which
this rank is in one, a `DeviceMesh` of one dimension, or a mesh and the number of one of its dimensions. Groups that lists
ask for are formed where there is none yet, by all ranks of the world together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..autograd.variable import Tensor
from ..ops.shape import joining
from . import differentiable
from .collective import root_of
from .device_mesh import DeviceMesh
from .groups import ProcessGroup, check_tensor, check_tensors, groups, joined
from .process_group import new_group

__all__ = [
    "all_gather_into_tensor_coalesced",
    "all_gather_single",
    "all_gather_single_autograd",
    "all_gather_single_coalesced",
    "all_gather_tensor",
    "all_gather_tensor_autograd",
    "all_reduce",
    "all_reduce_coalesced",
    "all_to_all_single",
    "all_to_all_single_autograd",
    "broadcast",
    "permute_tensor",
    "reduce_scatter_single",
    "reduce_scatter_single_autograd",
    "reduce_scatter_single_coalesced",
    "reduce_scatter_tensor",
    "reduce_scatter_tensor_autograd",
    "reduce_scatter_tensor_coalesced",
    "wait_tensor",
]


def wait_tensor(tensor: Tensor) -> Tensor:
    """The tensor: its collective is complete."""
    return check_tensor("wait_tensor", "tensor", tensor)


def broadcast(self: Tensor, src: int, group: Any, tag: str = "") -> Tensor:
    """The tensor of rank `src` of the world; the others' say the shape only."""
    joint = _resolve_group(group, tag)
    return differentiable.broadcast(check_tensor("broadcast", "self", self), root_of(joint, src, None), joint)


def all_reduce(self: Tensor, reduceOp: str, group: Any, tag: str = "") -> Tensor:
    """The ranks' tensors combined.

    Parameters
    ----------
    self : Tensor
    reduceOp : str
        ``"sum"``, ``"avg"``, ``"product"``, ``"min"``, ``"max"``, ...
    group
        See the top of this file.
    tag : str
        Accepted as in PyTorch.
    """
    return differentiable.all_reduce(check_tensor("all_reduce", "self", self), _lower(reduceOp), _resolve_group(group, tag))


def _lower(op: Any) -> Any:
    return op.lower() if type(op) is str else op


def all_gather_single(self: Tensor, gather_dim: int, group: Any, tag: str = "") -> Tensor:
    """The ranks' tensors joined along a dimension."""
    joint = _resolve_group(group, tag)
    rows = differentiable.all_gather(check_tensor("all_gather_single", "self", self), joint)
    return rows.flatten(0, 1) if gather_dim == 0 and self.ndim else joining.cat(list(rows.unbind(0)), gather_dim)


def reduce_scatter_single(self: Tensor, reduceOp: str, scatter_dim: int, group: Any, tag: str = "") -> Tensor:
    """The ranks' tensors combined; each rank gets its part of a dimension.

    Raises
    ------
    AssertionError
        If the dimension does not divide evenly among the ranks.
    """
    check_tensor("reduce_scatter_single", "self", self)
    joint = _resolve_group(group, tag)
    if self.shape[scatter_dim] % joint.size():
        raise AssertionError(
            f"input dimension {scatter_dim} ({self.shape[scatter_dim]} must be a multiple of group_size {joint.size()})"
        )
    rows = joining.stack(list(self.chunk(joint.size(), scatter_dim)))
    return differentiable.reduce_scatter(rows, _lower(reduceOp), joint)


def all_to_all_single(
    self: Tensor,
    output_split_sizes: Sequence[int] | None,
    input_split_sizes: Sequence[int] | None,
    group: Any,
    tag: str = "",
) -> Tensor:
    """What each rank sends here of the first dimension; both sizes are given, or none."""
    check_tensor("all_to_all_single", "self", self)
    joint = _resolve_group(group, tag)
    if (output_split_sizes is None) != (input_split_sizes is None):
        raise AssertionError("output_split_sizes and input_split_sizes must either be specified together or both set to None")
    return differentiable.all_to_all(self, output_split_sizes, input_split_sizes, joint)


def all_reduce_coalesced(self: Sequence[Tensor], reduceOp: str, group: Any, tag: str = "") -> list[Tensor]:
    """`all_reduce` of each tensor."""
    return [all_reduce(t, reduceOp, group, tag) for t in check_tensors("all_reduce_coalesced", "self", self)]


def all_gather_single_coalesced(self: Sequence[Tensor], group: Any, tag: str = "") -> list[Tensor]:
    """`all_gather_single` of each tensor, along the first dimension."""
    return [all_gather_single(t, 0, group, tag) for t in check_tensors("all_gather_single_coalesced", "self", self)]


def reduce_scatter_single_coalesced(
    inputs: Sequence[Tensor], reduceOp: str, scatter_dim: Sequence[int], group: Any, tag: str = ""
) -> list[Tensor]:
    """`reduce_scatter_single` of each tensor, along a dimension of each.

    Raises
    ------
    AssertionError
        If there is not one dimension for each tensor.
    """
    given = check_tensors("reduce_scatter_single_coalesced", "inputs", inputs)
    if len(scatter_dim) != len(given):
        raise AssertionError(f"Length of scatter_dim ({len(scatter_dim)}) must equal length of inputs ({len(given)})")
    return [reduce_scatter_single(t, reduceOp, dim, group, tag) for t, dim in zip(given, scatter_dim)]


def permute_tensor(self: Tensor, src_dst: Sequence[int], group: Any, tag: str = "") -> Tensor:
    """The tensor of the rank that sends here.

    Parameters
    ----------
    self : Tensor
        Of one shape on all ranks.
    src_dst : list of int
        To which rank of the group each sends; a permutation.
    group, tag
        As for `all_reduce`.

    Raises
    ------
    ValueError
        If it is no permutation of the group's ranks.
    """
    check_tensor("permute_tensor", "self", self)
    joint = _resolve_group(group, tag)
    if sorted(src_dst) != list(range(joint.size())):
        raise ValueError(f"permute_tensor: src_dst {list(src_dst)} is no permutation of the ranks 0 to {joint.size() - 1}")
    count = math.prod(self.shape)
    here = joint.rank()
    to = [count if rank == src_dst[here] else 0 for rank in range(joint.size())]
    from_ = [count if src_dst[rank] == here else 0 for rank in range(joint.size())]
    return differentiable.all_to_all(self.reshape(-1), from_, to, joint).reshape(self.shape)


def _resolve_group(group: Any, tag: str = "") -> ProcessGroup:
    """The group that is meant.

    Raises
    ------
    ValueError
        If there is none, or this rank is in none of the lists.
    """
    if isinstance(group, DeviceMesh):
        if group.ndim != 1:
            raise AssertionError("Only 1D mesh is supported, pass in (DeviceMesh, int) together if mesh > 1D")
        return group.get_group(0)
    if isinstance(group, tuple) and len(group) == 2 and isinstance(group[0], DeviceMesh):
        return group[0].get_group(group[1])
    if isinstance(group, str):
        for found in groups:
            if found.group_name == group:
                return found
        raise ValueError(f"there is no process group of the name {group!r}; there are {[g.group_name for g in groups]}")
    if isinstance(group, (list, tuple)):
        nested = [list(ranks) for ranks in group] if group and isinstance(group[0], (list, tuple)) else [list(group)]
        return _of_ranks(nested)
    joint = joined(group)
    if joint is None:
        raise ValueError("this rank is no member of the group")
    return joint


def _of_ranks(lists: list[list[int]]) -> ProcessGroup:
    for found in groups:
        if found.ranks in lists:
            return found
    made = [new_group(ranks, sort_ranks=False) for ranks in lists]
    for new in made:
        if isinstance(new, ProcessGroup):
            return new
    raise ValueError(f"this rank is in none of the groups {lists}")


# PyTorch's other names for the same functions; gradients flow through all of them.
all_gather_tensor = all_gather_tensor_autograd = all_gather_single_autograd = all_gather_single
reduce_scatter_tensor = reduce_scatter_tensor_autograd = reduce_scatter_single_autograd = reduce_scatter_single
all_to_all_single_autograd = all_to_all_single
all_gather_into_tensor_coalesced = all_gather_single_coalesced
reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced
