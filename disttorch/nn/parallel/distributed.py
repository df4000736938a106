"""PyTorch's module of this name; see `disttorch.distributed.data_parallel`."""

from ...distributed.data_parallel import DistributedDataParallel

__all__ = ["DistributedDataParallel"]
