"""CUDA's fast versions of kernels of the table, under the same names and with the same arguments, without the namespace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["CUDA_KERNELS"]

#: name -> fast implementation
CUDA_KERNELS: dict[str, Callable[..., Any]] = {}
