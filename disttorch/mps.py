"""As ``torch.mps``: Apple's GPUs, which are not used. Scripts that take what there is ask for them."""

from __future__ import annotations

__all__ = ["device_count", "is_available"]


def is_available() -> bool:
    """Whether there is one that is used: there is not."""
    return False


def device_count() -> int:
    """How many are used: none."""
    return 0
