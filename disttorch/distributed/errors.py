"""PyTorch's names of what goes wrong between ranks; the exceptions are those of `collectives`.

A failed collective is a ``DistBackendError``, a store that cannot be reached or a key that does not come a
``DistStoreError`` and a ``DistNetworkError``; all are ``DistError`` and ``RuntimeError``. Timeouts are ``TimeoutError``, too.
"""

from collectives import CommunicationError
from collectives.store import QueueEmptyError, StoreError

__all__ = ["DistBackendError", "DistError", "DistNetworkError", "DistStoreError", "QueueEmptyError"]

DistError = DistBackendError = CommunicationError
DistStoreError = DistNetworkError = StoreError
