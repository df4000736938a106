"""CUDA devices, by PyTorch's names."""

from __future__ import annotations

from .backend import cuda_is_available as is_available

__all__ = ["device_count", "is_available"]


def device_count() -> int:
    """CUDA devices that this process may use; 0 without CuPy or a driver."""
    if not is_available():
        return 0
    from .backend import cuda

    return cuda.device_count()
