"""PyTorch's module of this name; see `disttorch.distributed.data_parallel`."""

from ...distributed.data_parallel import DistributedDataParallel
from ...distributed.mixed_precision import _MixedPrecision as _MixedPrecision

__all__ = ["DistributedDataParallel"]
