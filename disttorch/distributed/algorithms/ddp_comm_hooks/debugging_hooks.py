"""A communication hook to measure with; as PyTorch's module of the same name."""

from __future__ import annotations

from typing import Any

from ....futures import Future
from ...buckets import GradBucket

__all__ = ["noop_hook"]


def noop_hook(_: Any, bucket: GradBucket) -> Future:
    """No communication: every rank keeps its own gradients. Shows how long a step takes without; training is wrong."""
    future = Future()
    future.set_result(bucket.buffer())
    return future


noop_hook.synchronizes = False  # type: ignore[attr-defined]
