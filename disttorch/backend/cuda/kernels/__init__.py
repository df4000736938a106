"""CUDA's fast versions of kernels of the table, under the same names and with the same arguments, without the namespace.

A kernel that does not know how to do with some dtype or shape calls the plain one. Each family is a file here and a source in
`sources/`; `compilation` makes functions of them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["CUDA_KERNELS"]

#: name -> fast implementation
CUDA_KERNELS: dict[str, Callable[..., Any]] = {}

for _family in (
    "activation", "batch_norm", "dropout", "embedding", "gather", "multi_tensor", "normalization", "pooling", "recurrent", "softmax",
):  # fmt: skip
    _module = import_module(f"{__name__}.{_family}")
    CUDA_KERNELS.update((_name, getattr(_module, _name)) for _name in _module.__all__)
