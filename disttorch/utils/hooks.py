"""As ``torch.utils.hooks``: what registering a hook gives back."""

from __future__ import annotations

from ..autograd.graph import RemovableHandle

__all__ = ["RemovableHandle"]
