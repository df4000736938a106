"""Gradients clipped, and parameters as one vector; as ``torch.nn.utils``."""

from __future__ import annotations

from typing import Any

from .clip_grad import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm
from .convert_parameters import parameters_to_vector, vector_to_parameters

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
    "parameters_to_vector",
    "vector_to_parameters",
]


def __getattr__(name: str) -> Any:
    raise AttributeError(f"disttorch.nn.utils has no {name!r}: it is not built (yet) or no name of PyTorch's")
