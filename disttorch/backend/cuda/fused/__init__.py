"""Formulas traced into CUDA kernels that go over many arrays at once: optimizer steps, clipping, averages.

`sources` writes the kernels, `plans` keeps and launches them, `steps` are the functions that stand in the kernel table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import steps

__all__ = ["FUSED_KERNELS"]

#: name -> implementation
FUSED_KERNELS: dict[str, Callable[..., Any]] = {name: getattr(steps, name) for name in steps.__all__}
