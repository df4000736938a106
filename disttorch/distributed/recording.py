"""Names for collectives in a profile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..autograd.profiler import record_function

__all__ = ["record_comm"]


@contextmanager
def record_comm(name: str) -> Iterator[None]:
    """In the with-block what the profiler sees of collectives stands under a name; as ``torch.distributed.record_comm``."""
    with record_function(name):
        yield
