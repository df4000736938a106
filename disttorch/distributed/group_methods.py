"""The collectives as methods of `ProcessGroup`, with the names and forms that PyTorch has there.

They take a tensor, or what the C++ side of PyTorch takes: a list of one tensor, a list of lists, and options. They return a `Work`, and
roots and peers are numbers in the group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import wraps
from typing import Any

from ..autograd.variable import Tensor
from . import collective, exchange, movement, options, point_to_point
from .groups import ProcessGroup, check_tensors, within
from .reduce_op import ReduceOp
from .work import Work, together

__all__ = ["attach"]


def _one(value: Any) -> Any:
    """A tensor, also where it stands alone in a list."""
    return value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value


def _list(value: Any) -> Any:
    """A list of tensors, also where it stands alone in a list."""
    return value if not value or isinstance(value[0], Tensor) else _one(value)


def _allreduce(self: ProcessGroup, tensors: Any, op: Any = ReduceOp.SUM, timeout: timedelta | float | None = None) -> Any:
    with within("allreduce", self, timeout):
        return collective.all_reduce(_one(tensors), op, self, True)


def _reduce(self: ProcessGroup, tensors: Any, root: int = 0, op: Any = ReduceOp.SUM, timeout: timedelta | float | None = None) -> Any:
    with within("reduce", self, timeout):
        return collective.reduce(_one(tensors), None, op, self, True, root)


def _broadcast(self: ProcessGroup, tensors: Any, root: int = 0, timeout: timedelta | float | None = None) -> Any:
    with within("broadcast", self, timeout):
        return collective.broadcast(_one(tensors), None, self, True, root)


def _allgather(self: ProcessGroup, output_tensors: Any, input_tensor: Any, timeout: timedelta | float | None = None) -> Any:
    with within("allgather", self, timeout):
        return movement.all_gather(_list(output_tensors), _one(input_tensor), self, True)


def _gather(self: ProcessGroup, output_tensors: Any, input_tensor: Any, root: int = 0, timeout: timedelta | float | None = None) -> Any:
    with within("gather", self, timeout):
        return movement.gather(_one(input_tensor), _list(output_tensors) or None, None, self, True, root)


def _scatter(self: ProcessGroup, output_tensor: Any, input_tensors: Any, root: int = 0, timeout: timedelta | float | None = None) -> Any:
    with within("scatter", self, timeout):
        return movement.scatter(_one(output_tensor), _list(input_tensors) or None, None, self, True, root)


def _reduce_scatter(
    self: ProcessGroup, output: Any, input: Any, op: Any = ReduceOp.SUM, timeout: timedelta | float | None = None
) -> Any:
    with within("reduce_scatter", self, timeout):
        return exchange.reduce_scatter(_one(output), _list(input), op, self, True)


def _all_gather_single(self: ProcessGroup, output: Tensor, input: Tensor, timeout: timedelta | float | None = None) -> Any:
    with within("all_gather_single", self, timeout):
        return movement.all_gather_single(output, input, self, True)


def _reduce_scatter_single(
    self: ProcessGroup, outputTensor: Tensor, inputTensor: Tensor, op: Any = ReduceOp.SUM, timeout: timedelta | float | None = None
) -> Any:
    with within("reduce_scatter_single", self, timeout):
        return exchange.reduce_scatter_single(outputTensor, inputTensor, op, self, True)


def _alltoall(self: ProcessGroup, output_tensors: Any, input_tensors: Any, timeout: timedelta | float | None = None) -> Any:
    with within("alltoall", self, timeout):
        return exchange.all_to_all(output_tensors, input_tensors, self, True)


def _all_to_all_single(
    self: ProcessGroup,
    output: Tensor,
    input: Tensor,
    output_split_sizes: Any = None,
    input_split_sizes: Any = None,
    timeout: timedelta | float | None = None,
) -> Any:
    with within("all_to_all_single", self, timeout):
        return exchange.all_to_all_single(output, input, output_split_sizes, input_split_sizes, self, True)


def _together(group: ProcessGroup, call: Callable[..., Work | None], *lists: Sequence[Any], **given: Any) -> Work:
    """One work of a collective for each row of the lists, which go on together."""
    with together(group):
        made = [call(*row, group=group, async_op=True, **given) for row in zip(*lists, strict=True)]
    works = [work for work in made if work is not None]
    return Work([inner for work in works for inner in work._works], [tensor for work in works for tensor in work._results])


def _allreduce_coalesced(self: ProcessGroup, tensors: Any, op: Any = ReduceOp.SUM, timeout: timedelta | float | None = None) -> Work:
    given = check_tensors("allreduce_coalesced", "tensors", tensors)
    with within("allreduce_coalesced", self, timeout):
        return _together(self, collective.all_reduce, given, op=op)


def _allgather_coalesced(self: ProcessGroup, output_lists: Any, input_list: Any, timeout: timedelta | float | None = None) -> Work:
    name = "allgather_coalesced"
    inputs = check_tensors(name, "input_list", input_list)
    outputs = [check_tensors(name, "output_lists", ones) for ones in output_lists]
    if len(outputs) != self.size() or any(len(ones) != len(inputs) for ones in outputs):
        raise ValueError(f"{name}: output_lists must have {self.size()} lists of {len(inputs)} tensors, got {[len(o) for o in outputs]}")
    with within(name, self, timeout):
        return _together(self, movement.all_gather, list(zip(*outputs, strict=True)), inputs)


def _pairs(name: str, outputs: Any, inputs: Any) -> tuple[list[Tensor], list[Tensor]]:
    ours, theirs = check_tensors(name, "outputs", outputs), check_tensors(name, "inputs", inputs)
    if len(ours) != len(theirs):
        raise ValueError(f"{name}: there are {len(ours)} outputs, but {len(theirs)} inputs")
    return ours, theirs


def _all_gather_single_coalesced(self: ProcessGroup, outputs: Any, inputs: Any, timeout: timedelta | float | None = None) -> Work:
    name = "all_gather_single_coalesced"
    with within(name, self, timeout):
        return _together(self, movement.all_gather_single, *_pairs(name, outputs, inputs))


def _reduce_scatter_single_coalesced(
    self: ProcessGroup, outputs: Any, inputs: Any, op: Any = ReduceOp.SUM, timeout: timedelta | float | None = None
) -> Work:
    name = "reduce_scatter_single_coalesced"
    with within(name, self, timeout):
        return _together(self, exchange.reduce_scatter_single, *_pairs(name, outputs, inputs), op=op)


def _send(self: ProcessGroup, tensors: Any, dstRank: int, tag: int = 0) -> Any:
    return point_to_point.isend(_one(tensors), None, self, tag, dstRank)


def _recv(self: ProcessGroup, tensors: Any, srcRank: int, tag: int = 0) -> Any:
    return point_to_point.irecv(_one(tensors), None, self, tag, srcRank)


def _recv_anysource(self: ProcessGroup, tensors: Any, tag: int = 0) -> Any:
    return point_to_point.irecv(_one(tensors), group=self, tag=tag)


def _barrier(self: ProcessGroup, timeout: timedelta | float | None = None) -> Any:
    return collective.barrier(self, True, timeout=timeout)


def _monitored_barrier(self: ProcessGroup, timeout: timedelta | float | None = None, wait_all_ranks: bool = False) -> None:
    point_to_point.monitored_barrier(self, timeout, wait_all_ranks)


#: Each method, the function whose method it is, and the options that it takes in place of its last parameters.
_METHODS: dict[str, tuple[Callable[..., Any], str, type[options.Options] | None]] = {
    "allreduce": (_allreduce, "all_reduce", options.AllreduceOptions),
    "allreduce_coalesced": (_allreduce_coalesced, "all_reduce_coalesced", options.AllreduceOptions),
    "reduce": (_reduce, "reduce", options.ReduceOptions),
    "broadcast": (_broadcast, "broadcast", options.BroadcastOptions),
    "allgather": (_allgather, "all_gather", options.AllgatherOptions),
    "allgather_coalesced": (_allgather_coalesced, "all_gather_coalesced", options.AllgatherOptions),
    "gather": (_gather, "gather", options.GatherOptions),
    "scatter": (_scatter, "scatter", options.ScatterOptions),
    "reduce_scatter": (_reduce_scatter, "reduce_scatter", options.ReduceScatterOptions),
    "all_gather_single": (_all_gather_single, "all_gather_single", options.AllgatherOptions),
    "_allgather_base": (_all_gather_single, "all_gather_single", options.AllgatherOptions),
    "all_gather_single_coalesced": (_all_gather_single_coalesced, "all_gather_single", options.AllgatherOptions),
    "allgather_into_tensor_coalesced": (_all_gather_single_coalesced, "all_gather_into_tensor", options.AllgatherOptions),
    "reduce_scatter_single": (_reduce_scatter_single, "reduce_scatter_single", options.ReduceScatterOptions),
    "_reduce_scatter_base": (_reduce_scatter_single, "reduce_scatter_single", options.ReduceScatterOptions),
    "reduce_scatter_single_coalesced": (_reduce_scatter_single_coalesced, "reduce_scatter_single", options.ReduceScatterOptions),
    "reduce_scatter_tensor_coalesced": (_reduce_scatter_single_coalesced, "reduce_scatter_tensor", options.ReduceScatterOptions),
    "alltoall": (_alltoall, "all_to_all", options.AllToAllOptions),
    "alltoall_base": (_all_to_all_single, "all_to_all_single", options.AllToAllOptions),
    "all_to_all_single": (_all_to_all_single, "all_to_all_single", options.AllToAllOptions),
    "send": (_send, "isend", None),
    "recv": (_recv, "irecv", None),
    "recv_anysource": (_recv_anysource, "irecv", None),
    "barrier": (_barrier, "barrier", options.BarrierOptions),
    "monitored_barrier": (_monitored_barrier, "monitored_barrier", None),
}

_OTHER_NAMES = {"tensor": "tensors", "input_tensors": "input_tensor", "output_tensors": "output_tensor"}


def _taking(kind: type[options.Options] | None, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that takes options, too, and the names that its parameters have in PyTorch's other forms of it."""
    parameters = method.__code__.co_varnames[: method.__code__.co_argcount]
    both = (*_OTHER_NAMES.items(), *((b, a) for a, b in _OTHER_NAMES.items()))
    other_names = {other: own for other, own in both if own in parameters and other not in parameters}

    @wraps(method)
    def taking(self: ProcessGroup, *args: Any, **kwargs: Any) -> Any:
        opts = kwargs.pop("opts", None)
        if args and isinstance(args[-1], options.Options):
            *args, opts = args  # type: ignore[assignment]
        if opts is not None:
            if kind is None or not isinstance(opts, kind):
                raise TypeError(f"{name}: opts must be of type {'None' if kind is None else kind.__name__}, not {type(opts).__name__}")
            kwargs |= opts.arguments()
        for other, own in other_names.items():
            if other in kwargs:
                kwargs[own] = kwargs.pop(other)
        return method(self, *args, **kwargs)

    taking.__name__ = name
    return taking


def attach() -> None:
    """Give `ProcessGroup` its methods."""
    for name, (method, function, kind) in _METHODS.items():
        taking = _taking(kind, name, method)
        taking.__doc__ = f"`{function}` in this group, without waiting."
        setattr(ProcessGroup, name, taking)
