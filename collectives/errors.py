"""The exceptions of this package: what went wrong between ranks, and what went wrong in starting them.

A caller's own mistake (a wrong shape, an unknown reduction) is a plain ValueError or TypeError.
"""

from __future__ import annotations

__all__ = ["CollectiveMismatchError", "CollectiveTimeoutError", "CommunicationError", "LaunchError"]


class CommunicationError(RuntimeError):
    """An operation between ranks failed: the message names the rank, the operation and the transport's own words."""


class CollectiveTimeoutError(CommunicationError, TimeoutError):
    """An operation waited longer than the communicator's timeout: the message names the ranks that have not come to it."""


class CollectiveMismatchError(CommunicationError):
    """The ranks of a group called different things at the same place in their order: the message has the table."""


class LaunchError(RuntimeError):
    """The environment and the transport disagree about how many ranks were started, or which one this is."""
