"""Automatic mixed precision, by PyTorch's names: `autocast`, `GradScaler`, `custom_fwd`, `custom_bwd`."""

from .autocast_mode import autocast, custom_bwd, custom_fwd, is_autocast_available
from .grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]
