"""As ``torch.distributed.elastic.multiprocessing``: the decorator `errors.record`."""

from . import errors

__all__ = ["errors"]
