"""Data parallelism under PyTorch's name; it lives in `disttorch.distributed`, which stands above this package."""

from ...distributed.data_parallel import DistributedDataParallel

__all__ = ["DistributedDataParallel"]
