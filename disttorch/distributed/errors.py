"""PyTorch's names of what goes wrong between ranks; the exceptions are those of `collectives`.

A failed collective is a ``DistBackendError``, a store that cannot be reached or a key that does not come a
``DistStoreError`` and a ``DistNetworkError``; all are ``DistError`` and ``RuntimeError``. Timeouts are ``TimeoutError``, too.
"""

from collectives import CommunicationError
from collectives.store import StoreError

__all__ = ["DistBackendError", "DistError", "DistNetworkError", "DistStoreError"]

DistError = DistBackendError = CommunicationError
DistStoreError = DistNetworkError = StoreError
