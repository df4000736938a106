"""What PyTorch's C++ side calls the options of a collective: an object with fields, given to a method of a `ProcessGroup`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from ..backend.device import device as Device
from .reduce_op import ReduceOp

__all__ = [
    "AllToAllOptions",
    "AllgatherOptions",
    "AllreduceCoalescedOptions",
    "AllreduceOptions",
    "BarrierOptions",
    "BroadcastOptions",
    "GatherOptions",
    "Options",
    "ReduceOptions",
    "ReduceScatterOptions",
    "ScatterOptions",
]

_UNSET = timedelta(milliseconds=-1)
_ARGUMENTS = {"reduceOp": "op", "rootRank": "root"}


class Options:
    """The fields that all options have.

    Attributes
    ----------
    timeout : timedelta
        How long the collective may take; as long as the group's timeout allows unless set.
    asyncOp : bool
        Accepted as in PyTorch: methods return a `Work` always.

    Examples
    --------
    >>> import disttorch, disttorch.distributed as dist
    >>> dist.init_process_group("local")
    >>> opts = dist.AllreduceOptions()
    >>> opts.reduceOp = dist.ReduceOp.MAX
    >>> dist.group.WORLD.allreduce([disttorch.ones(2)], opts).wait()
    True
    >>> dist.destroy_process_group()
    """

    fields: ClassVar[dict[str, tuple[type, Any]]] = {"timeout": (timedelta, _UNSET), "asyncOp": (bool, True)}
    """Of each field the type, and what it is unless set."""

    timeout: timedelta

    def __init__(self) -> None:
        for name, (_, default) in self.fields.items():
            object.__setattr__(self, name, list(default) if isinstance(default, list) else default)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.fields:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}; it has {', '.join(self.fields)}")
        kind = self.fields[name][0]
        if kind is bool:
            value = bool(value)
        elif kind is timedelta and isinstance(value, float):
            value = timedelta(seconds=value)
        if not isinstance(value, kind) and not (kind is Device and value is None):
            raise TypeError(f"{type(self).__name__}.{name} must be of type {kind.__name__}, got {value!r}")
        object.__setattr__(self, name, value)

    def arguments(self) -> dict[str, Any]:
        """What they say, by the names of a method's parameters."""
        told = {argument: getattr(self, name) for name, argument in _ARGUMENTS.items() if name in self.fields}
        return told if self.timeout == _UNSET else told | {"timeout": self.timeout}


_OP = {"reduceOp": (ReduceOp, ReduceOp.SUM)}
_ROOT = {"rootRank": (int, 0)}
_TENSOR = {"rootTensor": (int, 0)}


class AllgatherOptions(Options):
    """Options of `ProcessGroup.allgather` and its like."""


class AllreduceOptions(Options):
    """Options of `ProcessGroup.allreduce`: ``reduceOp``, too."""

    fields: ClassVar = Options.fields | _OP


class AllreduceCoalescedOptions(AllreduceOptions):
    """Options of `ProcessGroup.allreduce_coalesced`: ``reduceOp``, too."""


class AllToAllOptions(Options):
    """Options of `ProcessGroup.alltoall` and `alltoall_base`."""


class BarrierOptions(Options):
    """Options of `ProcessGroup.barrier`; ``device`` and ``device_ids`` are accepted as in PyTorch."""

    fields: ClassVar = Options.fields | {"device": (Device, None), "device_ids": (list, [])}


class BroadcastOptions(Options):
    """Options of `ProcessGroup.broadcast`: ``rootRank``, too, a number in the group."""

    fields: ClassVar = Options.fields | _ROOT | _TENSOR


class GatherOptions(Options):
    """Options of `ProcessGroup.gather`: ``rootRank``, too, a number in the group."""

    fields: ClassVar = Options.fields | _ROOT


class ReduceOptions(Options):
    """Options of `ProcessGroup.reduce`: ``reduceOp`` and ``rootRank``, too, a number in the group."""

    fields: ClassVar = Options.fields | _OP | _ROOT | _TENSOR


class ReduceScatterOptions(Options):
    """Options of `ProcessGroup.reduce_scatter` and its like: ``reduceOp``, too."""

    fields: ClassVar = Options.fields | _OP


class ScatterOptions(Options):
    """Options of `ProcessGroup.scatter`: ``rootRank``, too, a number in the group."""

    fields: ClassVar = Options.fields | _ROOT
