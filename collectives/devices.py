"""Which transport carries the arrays of a GPU: NCCL where each rank has a GPU of its own, else the ranks' CPU transport, by
way of pinned host memory or directly where MPI takes device memory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .transport import Transport

if TYPE_CHECKING:
    from .group import Group

__all__ = ["device_transport"]


def device_transport(group: Group, array: Any) -> Transport:
    """The transport of a group for arrays like this one; made by the first operation on such an array, on all ranks.

    DISTTORCH_TRANSPORT forces it: ``nccl``, or a CPU transport's name for staging.

    Raises
    ------
    CommunicationError
        If NCCL was asked for and cannot be used.
    """
    found = group._device_transports.get("cuda")
    if found is None:
        from .device import transport_for_device

        forced = os.environ.get("DISTTORCH_TRANSPORT") or "auto"
        found = group._device_transports["cuda"] = transport_for_device(group._transport, group.job, forced)
    return found
