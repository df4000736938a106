"""Which transport carries the arrays of a GPU: NCCL where each rank has a GPU of its own, else the ranks' CPU transport, by
way of pinned host memory or directly where MPI takes device memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .transport import Transport

if TYPE_CHECKING:
    from .group import Group

__all__ = ["device_transport", "divided", "use_device"]

_GPU = "cuda"


def device_transport(group: Group, array: Any) -> Transport:
    """The transport of a group for arrays like this one; made by the first operation on such an array, on all ranks.

    What was asked for when the ranks met decides, or DISTTORCH_TRANSPORT: ``nccl``, or a CPU transport's name for staging.

    Raises
    ------
    CommunicationError
        If NCCL was asked for and cannot be used, or not all ranks of the group come to make it.
    """
    found = group._device_transports.get(_GPU)
    return use_device(group, array.device.id) if found is None else found


def use_device(group: Group, device: int) -> Transport:
    """Make the transport of a group for arrays on a GPU, unless there is one. Every rank calls, with the number of its GPU.

    So ranks that begin with a message, to which not all of them come, and graphs that begin with a capture find it there.
    """
    found = group._device_transports.get(_GPU)
    if found is None:
        from .device import transport_for_device

        forced = os.environ.get("DISTTORCH_TRANSPORT") or "auto"
        if "nccl" in (group.job.choice, group.job.for_gpus):
            forced = "nccl"
        found = transport_for_device(group._transport, group.job, forced, device, group.timeout)
        _take(group, found)
    return found


def _take(group: Group, transport: Transport) -> None:
    if hasattr(transport, "watch"):
        transport.watch = group._watcher()
    group._device_transports[_GPU] = transport


def divided(group: Group, color: int | None, key: int) -> Callable[[Group], None]:
    """Divide what a group has for GPUs, as it is divided itself; every rank calls. Returns what gives a new group its part."""
    found = group._device_transports.get(_GPU)
    if found is None or found.name != "nccl":
        return lambda new: None
    from .nccl import NCCLTransport

    assert isinstance(found, NCCLTransport)
    made, device = found.divide(color, key, group.timeout), found.device

    def give(new: Group) -> None:
        _take(new, NCCLTransport(new._transport, device, made))

    return give
