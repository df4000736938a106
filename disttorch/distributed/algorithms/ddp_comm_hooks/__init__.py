"""Communication hooks of DistributedDataParallel, by name; as ``torch.distributed.algorithms.ddp_comm_hooks``."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from . import debugging_hooks, default_hooks, post_localSGD_hook, powerSGD_hook

__all__ = [
    "DDPCommHookType",
    "debugging_hooks",
    "default_hooks",
    "post_localSGD_hook",
    "powerSGD_hook",
    "register_ddp_comm_hook",
]


class _Registration:
    """How a hook is registered: ``value(model=model, state=state)``.

    Parameters
    ----------
    hook : callable
    rank : int, optional
        Of PowerSGD's matrices; then the state is the process group, from which that hook's state is made.
    """

    def __init__(self, hook: Callable, rank: int | None = None):
        self.hook, self.rank = hook, rank

    def __call__(self, model: Any, state: Any = None, **options: Any) -> None:
        if self.rank is not None:
            state = powerSGD_hook.PowerSGDState(process_group=state, matrix_approximation_rank=self.rank, **options)
        model.register_comm_hook(state, self.hook)


class DDPCommHookType(Enum):
    """The hooks that `register_ddp_comm_hook` knows; as PyTorch's, without those for quantization."""

    ALLREDUCE = _Registration(default_hooks.allreduce_hook)
    FP16_COMPRESS = _Registration(default_hooks.fp16_compress_hook)
    BF16_COMPRESS = _Registration(default_hooks.bf16_compress_hook)
    POWER_SGD = _Registration(powerSGD_hook.powerSGD_hook, 1)
    POWER_SGD_RANK2 = _Registration(powerSGD_hook.powerSGD_hook, 2)
    BATCHED_POWER_SGD = _Registration(powerSGD_hook.batched_powerSGD_hook, 1)
    BATCHED_POWER_SGD_RANK2 = _Registration(powerSGD_hook.batched_powerSGD_hook, 2)
    NOOP = _Registration(debugging_hooks.noop_hook)


def register_ddp_comm_hook(comm_hook_type: DDPCommHookType, model: Any, state: Any = None) -> None:
    """Register a hook by its name.

    Parameters
    ----------
    comm_hook_type : DDPCommHookType
    model : DistributedDataParallel
    state : object
        The hook's; a process group, or None, for all that are listed.

    Examples
    --------
    >>> import disttorch, disttorch.distributed as dist
    >>> dist.init_process_group("local")
    >>> model = disttorch.nn.parallel.DistributedDataParallel(disttorch.nn.Linear(2, 1))
    >>> register_ddp_comm_hook(DDPCommHookType.FP16_COMPRESS, model)
    >>> dist.destroy_process_group()
    """
    comm_hook_type.value(model=model, state=state)
