"""Collectives as functions of the graph: the gradient of each is a collective again, so derivatives of any order work.

All ranks' results belong to one function, whose gradient is that of the sum of all that the ranks differentiate. So if
x[s] is what rank s gives, y[r] what rank r receives and g[r] the gradient that comes to y[r]:

    all_reduce       y[r] = sum_s x[s]         x[s] gets sum_r g[r]           all_reduce
    all_gather       y[r] = (x[0], x[1], ...)  x[s] gets sum_r g[r][s]        reduce_scatter
    reduce_scatter   y[r] = sum_s x[s][r]      x[s] gets (g[0], g[1], ...)    all_gather
    broadcast        y[r] = x[root]            x[root] gets sum_r g[r]        reduce
    reduce           y[root] = sum_s x[s]      x[s] gets g[root]              broadcast
    gather, scatter  y[root] = (x[0], ...)     x[s] gets g[root][s]           scatter, gather
    all_to_all       y[r][s] = x[s][r]         x[s][r] gets g[r][s]           all_to_all

Every rank takes part in the backward pass, as it did in the forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd.function import Function
from ..autograd.variable import Tensor
from ..ops import creation
from ..ops.shape import joining
from . import collective, exchange, movement
from .groups import get_world_size, joined
from .reduce_op import ReduceOp

__all__ = ["all_gather", "all_reduce", "all_to_all", "all_to_all_list", "broadcast", "gather", "reduce", "reduce_scatter", "scatter"]


def _needs_all(op: Any, tensor: Tensor) -> bool:
    """Whether a reduction's derivative needs all ranks' values: it is then computed from them on each rank.

    It must not depend on whether this rank asks for a gradient, since all ranks must call the same collectives.
    """
    return op in ("product", "min", "max") and (tensor.dtype.is_floating_point or tensor.dtype.is_complex)


def all_reduce(tensor: Tensor, op: Any, group: Any) -> Tensor:
    """The ranks' tensors combined, on every rank."""
    if _needs_all(op, tensor):
        return _locally(all_gather(tensor, group), op)
    return _AllReduce.apply(tensor, op, group)


def all_gather(tensor: Tensor, group: Any) -> Tensor:
    """The ranks' tensors as rows, on every rank."""
    return _AllGather.apply(tensor, group)


def reduce_scatter(rows: Tensor, op: Any, group: Any) -> Tensor:
    """The ranks' rows combined; rank r gets the r-th."""
    if _needs_all(op, rows):
        return _locally(all_to_all(rows, None, None, group), op)
    return _ReduceScatter.apply(rows, op, group)


def broadcast(tensor: Tensor, root: int, group: Any) -> Tensor:
    """The root's tensor, on every rank; `root` is a number in the group, here and below."""
    return _Broadcast.apply(tensor, root, group)


def reduce(tensor: Tensor, root: int, op: Any, group: Any) -> Tensor:
    """The ranks' tensors combined on the root; on the others zeros, on which they depend all the same."""
    if _needs_all(op, tensor):
        rows = gather(tensor, root, group)
        return _locally(rows, op) if _is(root, group) else rows.sum(0)
    return _Reduce.apply(tensor, root, op, group)


def gather(tensor: Tensor, root: int, group: Any) -> Tensor:
    """The ranks' tensors as rows on the root; on the others zeros."""
    return _Gather.apply(tensor, root, group)


def scatter(rows: Tensor, root: int, group: Any) -> Tensor:
    """Row r of the root's tensor on rank r; the others' rows say the shape only."""
    return _Scatter.apply(rows, root, group)


def all_to_all(tensor: Tensor, out_sizes: Sequence[int] | None, sizes: Sequence[int] | None, group: Any) -> Tensor:
    """What the ranks send each other of the first dimension; None: equally much."""
    return _AllToAll.apply(tensor, out_sizes, sizes, group)


def all_to_all_list(outputs: Sequence[Tensor], inputs: Sequence[Tensor], group: Any) -> tuple[Tensor, ...]:
    """`all_to_all` of a tensor for each rank, of any shapes; `outputs` say those that are received."""
    flat = joining.cat([t.reshape(-1) for t in inputs])
    sizes = [t.numel() for t in outputs]
    found = all_to_all(flat, sizes, [t.numel() for t in inputs], group)
    return tuple(part.reshape(t.shape) for part, t in zip(found.split(sizes), outputs))


def _locally(rows: Tensor, op: Any) -> Tensor:
    """The ranks' values, which are rows, combined by an operation that has a derivative."""
    if op == "product":
        return rows.prod(0)
    return rows.amax(0) if op == "max" else rows.amin(0)


def _is(root: int, group: Any) -> bool:
    found = joined(group)
    return found is not None and found.rank() == root


def _empty_like(tensor: Tensor, shape: Sequence[int], zero: bool = False) -> Tensor:
    make = creation.zeros if zero else creation.empty
    return make(tuple(shape), dtype=tensor.dtype, device=tensor.device)


class _AllReduce(Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, op: Any, group: Any) -> Tensor:
        ctx.how = op, group
        result = tensor.clone()
        collective.all_reduce(result, op, group)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        op, group = ctx.how
        if op == "premul_sum":
            return _AllReduce.apply(gradient, ReduceOp.SUM, group) * op.factor, None, None
        return _AllReduce.apply(gradient, op, group), None, None


class _AllGather(Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Any) -> Tensor:
        ctx.group = group
        rows = _empty_like(tensor, (get_world_size(group), *tensor.shape))
        movement.all_gather_single(rows, tensor, group)
        return rows

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        return _ReduceScatter.apply(gradient, ReduceOp.SUM, ctx.group), None


class _ReduceScatter(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, op: Any, group: Any) -> Tensor:
        ctx.how = op, group, len(rows)
        result = _empty_like(rows, rows.shape[1:])
        exchange.reduce_scatter_single(result, rows, op, group)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        op, group, ranks = ctx.how
        everyone = _AllGather.apply(gradient, group)
        if op == "sum":
            return everyone, None, None
        return everyone / ranks if op == "avg" else everyone * op.factor, None, None


class _Broadcast(Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, root: int, group: Any) -> Tensor:
        ctx.how = root, group
        result = tensor.clone()
        collective.broadcast(result, group=group, group_src=root)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        root, group = ctx.how
        return _Reduce.apply(gradient, root, ReduceOp.SUM, group), None, None


class _Reduce(Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, root: int, op: Any, group: Any) -> Tensor:
        ctx.how = root, op, group
        result = tensor.clone()
        collective.reduce(result, op=op, group=group, group_dst=root)
        return result if _is(root, group) else result.zero_()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        root, op, group = ctx.how
        result = _Broadcast.apply(gradient, root, group)
        if op == "avg":
            result = result / get_world_size(group)
        elif op == "premul_sum":
            result = result * op.factor
        return result, None, None, None


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, root: int, group: Any) -> Tensor:
        ctx.how = root, group
        rows = _empty_like(tensor, (get_world_size(group), *tensor.shape), zero=True)
        movement.gather(tensor, list(rows.unbind(0)) if _is(root, group) else None, group=group, group_dst=root)
        return rows

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        root, group = ctx.how
        return _Scatter.apply(gradient, root, group), None, None


class _Scatter(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, root: int, group: Any) -> Tensor:
        ctx.how = root, group
        result = _empty_like(rows, rows.shape[1:])
        movement.scatter(result, list(rows.unbind(0)) if _is(root, group) else None, group=group, group_src=root)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        root, group = ctx.how
        return _Gather.apply(gradient, root, group), None, None


class _AllToAll(Function):
    @staticmethod
    def forward(
        ctx: Any, tensor: Tensor, out_sizes: Sequence[int] | None, sizes: Sequence[int] | None, group: Any
    ) -> Tensor:
        ctx.how = sizes, out_sizes, group
        rows = tensor.shape[0] if out_sizes is None else sum(out_sizes)
        result = _empty_like(tensor, (rows, *tensor.shape[1:]))
        exchange.all_to_all_single(result, tensor, out_sizes, sizes, group)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        return _AllToAll.apply(gradient, *ctx.how), None, None, None
