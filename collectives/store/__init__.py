"""Stores: a few keys and bytes that all ranks of a job see, by which they find each other before they can communicate.

Names and meanings are those of torch.distributed's stores. `TCPStore` is one rank's memory that the others ask, `FileStore` a
file that all can open, `HashStore` a table between the threads of one process, and `PrefixStore` a store within another.
"""

from .file import FileStore
from .interface import QueueEmptyError, Store, StoreError, StoreTimeoutError
from .memory import HashStore
from .prefix import PrefixStore
from .tcp import TCPStore

__all__ = ["FileStore", "HashStore", "PrefixStore", "QueueEmptyError", "Store", "StoreError", "StoreTimeoutError", "TCPStore"]
