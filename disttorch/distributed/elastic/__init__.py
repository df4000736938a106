"""What scripts written for torchrun import; as ``torch.distributed.elastic``. Jobs are started again by ``dlaunch``."""

from . import multiprocessing

__all__ = ["multiprocessing"]
