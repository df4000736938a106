"""Distributed training: process groups, collectives on tensors, DistributedDataParallel.

Process groups and collectives have PyTorch's signatures (https://docs.pytorch.org/docs/stable/distributed.html); the
arrays are carried by the package `collectives`. Most names are those of `distributed_c10d`.
"""

from collectives.store import FileStore, HashStore, TCPStore

from . import _functional_collectives as _functional_collectives
from . import algorithms, device_mesh, distributed_c10d, elastic, nn
from . import group_methods as _group_methods
from .breakpoints import breakpoint
from .buckets import GradBucket
from .data_parallel import BuiltinCommHookType
from .device_mesh import DeviceMesh, init_device_mesh
from .distributed_c10d import *  # noqa: F403 - its names are this package's
from .distributed_c10d import _coalescing_manager as _coalescing_manager
from .distributed_c10d import _CoalescingManager as _CoalescingManager
from .distributed_c10d import _get_default_group as _get_default_group
from .distributed_c10d import _make_nccl_premul_sum as _make_nccl_premul_sum
from .distributed_c10d import _set_pg_timeout as _set_pg_timeout

_group_methods.attach()

# These have other names in PyTorch, too.
_all_gather_base, _reduce_scatter_base = distributed_c10d.all_gather_into_tensor, distributed_c10d.reduce_scatter_tensor

__all__ = [*distributed_c10d.__all__]  # noqa: PLE0604 - they are strings
__all__ += [
    "BuiltinCommHookType", "DeviceMesh", "FileStore", "GradBucket", "HashStore", "TCPStore", "algorithms", "breakpoint", "device_mesh",
    "distributed_c10d", "elastic", "init_device_mesh", "nn",
]  # fmt: skip
