"""The CPU's own fast kernels, under the names of the kernel table; they take the plain ones' arguments without ``xp``.

Only what is measured to be faster than its plain implementation is here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy

from ..kernels import PLAIN
from ..layout import FOLLOWING, along_axes, following
from .layouts import empty_strided

__all__ = ["CPU_KERNELS"]

#: name -> fast implementation
CPU_KERNELS: dict[str, Callable[..., Any]] = {}

for _family in (
    "activation",
    "attention",
    "choosing",
    "clipping",
    "convolution",
    "embedding",
    "folding",
    "indexing",
    "normalization",
    "optimization",
    "pooling",
    "recurrent",
    "resampling",
    "rows",
    "scans",
    "softmax",
    "special",
):
    _module = import_module(f"{__name__}.{_family}")
    CPU_KERNELS.update((_name, getattr(_module, _name)) for _name in _module.__all__)
for _name, _deciding in FOLLOWING.items():
    if not _name.startswith("convolution"):  # which sees to it itself
        CPU_KERNELS[_name] = following(CPU_KERNELS.get(_name) or partial(PLAIN[_name], numpy), _deciding, empty_strided)
CPU_KERNELS["resample"] = along_axes(CPU_KERNELS["resample"])
