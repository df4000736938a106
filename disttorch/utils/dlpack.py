"""Tensors to and from other libraries by DLPack; as ``torch.utils.dlpack``."""

from __future__ import annotations

from typing import Any

from ..autograd.variable import Tensor
from ..ops.creation import from_dlpack

__all__ = ["from_dlpack", "to_dlpack"]


def to_dlpack(tensor: Tensor) -> Any:
    """A capsule with a tensor's memory, which `from_dlpack` of one library can take once."""
    return tensor.__dlpack__()
