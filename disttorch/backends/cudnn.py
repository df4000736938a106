"""As ``torch.backends.cudnn``: kept, but CuPy's convolutions are written without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

enabled = True
benchmark = False
benchmark_limit: int | None = 10
deterministic = False
allow_tf32 = True


def is_available() -> bool:
    """Whether cuDNN is used: it is not."""
    return False


def version() -> int | None:
    """The version of cuDNN: None without it."""
    return None


@contextmanager
def flags(**switches: Any) -> Iterator[None]:
    """Set switches for a with-block."""
    before = {name: globals()[name] for name in switches}
    globals().update(switches)
    try:
        yield
    finally:
        globals().update(before)
