"""cuDNN through its graph interface: convolutions, and attention in one kernel.

An operation is a small graph of cuDNN's, built once for shapes, strides and types and kept as a *plan*; see
https://docs.nvidia.com/deeplearning/cudnn/frontend/latest/. What cuDNN has no plan for, or may not do as users have chosen, the plain
kernels do. cuDNN's graph interface in Python has no pooling, and its batch normalization computes the statistics in the same call,
which ours has apart; those have kernels of our own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .attention import attention, attention_backward
from .convolution import convolution, convolution_input, convolution_weight

__all__ = ["CUDNN_KERNELS"]

#: name -> function with the arguments of the plain kernel without ``xp``
CUDNN_KERNELS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (attention, attention_backward, convolution, convolution_input, convolution_weight)
}
