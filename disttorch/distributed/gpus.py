"""Each rank's GPU: the one with the number LOCAL_RANK, unless the program says another."""

from __future__ import annotations

from typing import Any

import collectives
from collectives.devices import use_device

from .. import cuda
from ..backend.device import device as Device
from .backend import Backend
from .groups import ProcessGroup

__all__ = ["choose_gpu"]


def choose_gpu(world: ProcessGroup, backend: str | None, device_id: Any) -> None:
    """Make a rank's GPU the current one, where its group carries tensors on GPUs.

    Parameters
    ----------
    world : ProcessGroup
    backend : str, optional
        As `init_process_group` was given it: "nccl" in it means NCCL or an error.
    device_id : device or int, optional
        The GPU that was asked for. Then what the group needs for it is made at once, so that a first message between two ranks, or a
        captured graph, finds it.

    Raises
    ------
    RuntimeError
        If there is no such GPU.
    collectives.CommunicationError
        If NCCL was asked for, and the ranks cannot use it: two of them have the same GPU, for instance.
    """
    if world.config.device_backend_map.get("cuda") == Backend.NCCL and backend is not None:
        world.communicator.job.for_gpus = "nccl"
    asked = None if device_id is None else Device(device_id)
    if asked is not None and asked.type == "cuda":
        if asked.index is not None:
            cuda.set_device(asked.index)
        elif cuda.is_available():
            _use_local_rank()
        use_device(world.communicator, cuda.current_device())
    elif asked is None and "cuda" in world.config.device_backend_map and cuda.is_available():
        _use_local_rank()


def _use_local_rank() -> None:
    local = collectives.environment().local_rank
    count = cuda.device_count()
    # Another than the first is the program's choice. (The first may be, too; then the program says device_id.)
    if local is not None and cuda.current_device() == 0 and local % count:
        cuda.set_device(local % count)
