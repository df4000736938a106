"""What surrounds the training itself: data loading, recomputation of activations, exchange of memory with other libraries."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """Subpackages are imported when they are first used."""
    if name in ("_pytree", "checkpoint", "data", "dlpack", "hooks", "tensorboard"):
        return import_module(f"disttorch.utils.{name}")
    raise AttributeError(f"disttorch.utils has no {name!r}: it is not built (yet) or no name of PyTorch's")
