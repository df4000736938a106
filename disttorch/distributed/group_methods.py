"""The collectives as methods of `ProcessGroup`, with the names and forms that PyTorch has there.

They take a tensor, or what the C++ side of PyTorch takes: a list of one tensor, a list of lists. They return a `Work`, and
roots and peers are numbers in the group.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ..autograd.variable import Tensor
from . import collective, exchange, movement, point_to_point
from .groups import ProcessGroup
from .reduce_op import ReduceOp

__all__ = ["attach"]


def _one(value: Any) -> Any:
    """A tensor, also where it stands alone in a list."""
    return value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value


def _list(value: Any) -> Any:
    """A list of tensors, also where it stands alone in a list."""
    return value if not value or isinstance(value[0], Tensor) else _one(value)


def _allreduce(self: ProcessGroup, tensors: Any, op: Any = ReduceOp.SUM, timeout: timedelta | None = None) -> Any:
    return collective.all_reduce(_one(tensors), op, self, True)


def _reduce(self: ProcessGroup, tensors: Any, root: int = 0, op: Any = ReduceOp.SUM, timeout: timedelta | None = None) -> Any:
    return collective.reduce(_one(tensors), None, op, self, True, root)


def _broadcast(self: ProcessGroup, tensors: Any, root: int = 0, timeout: timedelta | None = None) -> Any:
    return collective.broadcast(_one(tensors), None, self, True, root)


def _allgather(self: ProcessGroup, output_tensors: Any, input_tensor: Any, timeout: timedelta | None = None) -> Any:
    return movement.all_gather(_list(output_tensors), _one(input_tensor), self, True)


def _gather(self: ProcessGroup, output_tensors: Any, input_tensor: Any, root: int = 0, timeout: timedelta | None = None) -> Any:
    return movement.gather(_one(input_tensor), _list(output_tensors) or None, None, self, True, root)


def _scatter(self: ProcessGroup, output_tensor: Any, input_tensors: Any, root: int = 0, timeout: timedelta | None = None) -> Any:
    return movement.scatter(_one(output_tensor), _list(input_tensors) or None, None, self, True, root)


def _reduce_scatter(self: ProcessGroup, output: Any, input: Any, op: Any = ReduceOp.SUM, timeout: timedelta | None = None) -> Any:
    return exchange.reduce_scatter(_one(output), _list(input), op, self, True)


def _all_gather_single(self: ProcessGroup, output: Tensor, input: Tensor) -> Any:
    return movement.all_gather_single(output, input, self, True)


def _reduce_scatter_single(self: ProcessGroup, outputTensor: Tensor, inputTensor: Tensor, op: Any = ReduceOp.SUM) -> Any:
    return exchange.reduce_scatter_single(outputTensor, inputTensor, op, self, True)


def _alltoall(self: ProcessGroup, output_tensors: Any, input_tensors: Any) -> Any:
    return exchange.all_to_all(output_tensors, input_tensors, self, True)


def _all_to_all_single(
    self: ProcessGroup,
    output: Tensor,
    input: Tensor,
    output_split_sizes: Any = None,
    input_split_sizes: Any = None,
    timeout: timedelta | None = None,
) -> Any:
    return exchange.all_to_all_single(output, input, output_split_sizes, input_split_sizes, self, True)


def _send(self: ProcessGroup, tensors: Any, dstRank: int, tag: int = 0) -> Any:
    return point_to_point.isend(_one(tensors), None, self, tag, dstRank)


def _recv(self: ProcessGroup, tensors: Any, srcRank: int, tag: int = 0) -> Any:
    return point_to_point.irecv(_one(tensors), None, self, tag, srcRank)


def _recv_anysource(self: ProcessGroup, tensors: Any, tag: int = 0) -> Any:
    return point_to_point.irecv(_one(tensors), group=self, tag=tag)


def _barrier(self: ProcessGroup, timeout: timedelta | None = None) -> Any:
    return collective.barrier(self, True)


def _monitored_barrier(self: ProcessGroup, timeout: timedelta | None = None, wait_all_ranks: bool = False) -> None:
    point_to_point.monitored_barrier(self, timeout, wait_all_ranks)


_METHODS = {
    "allreduce": (_allreduce, "all_reduce"),
    "reduce": (_reduce, "reduce"),
    "broadcast": (_broadcast, "broadcast"),
    "allgather": (_allgather, "all_gather"),
    "gather": (_gather, "gather"),
    "scatter": (_scatter, "scatter"),
    "reduce_scatter": (_reduce_scatter, "reduce_scatter"),
    "all_gather_single": (_all_gather_single, "all_gather_single"),
    "reduce_scatter_single": (_reduce_scatter_single, "reduce_scatter_single"),
    "alltoall": (_alltoall, "all_to_all"),
    "alltoall_base": (_all_to_all_single, "all_to_all_single"),
    "all_to_all_single": (_all_to_all_single, "all_to_all_single"),
    "send": (_send, "isend"),
    "recv": (_recv, "irecv"),
    "recv_anysource": (_recv_anysource, "irecv"),
    "barrier": (_barrier, "barrier"),
    "monitored_barrier": (_monitored_barrier, "monitored_barrier"),
}


def attach() -> None:
    """Give `ProcessGroup` its methods."""
    for name, (method, function) in _METHODS.items():
        method.__doc__ = f"`{function}` in this group, without waiting."
        setattr(ProcessGroup, name, method)
