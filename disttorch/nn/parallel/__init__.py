"""Data parallelism under PyTorch's names; what uses several GPUs lives in `disttorch.distributed`, which stands above this package."""

from ...distributed.data_parallel import DistributedDataParallel
from .data_parallel import DataParallel, data_parallel

__all__ = ["DataParallel", "DistributedDataParallel", "data_parallel"]
