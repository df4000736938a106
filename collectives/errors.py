"""The exceptions of this package: what went wrong between ranks, and what went wrong in starting them.

A caller's own mistake (a wrong shape, an unknown reduction) is a plain ValueError or TypeError.
"""

from __future__ import annotations

__all__ = ["CommunicationError", "LaunchError"]


class CommunicationError(RuntimeError):
    """An operation between ranks failed: the message names the rank, the operation and the transport's own words."""


class LaunchError(RuntimeError):
    """The environment and the transport disagree about how many ranks were started, or which one this is."""
