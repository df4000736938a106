"""The CPU's own fast kernels, under the names of the kernel table; they take the plain ones' arguments without ``xp``.

Only what is measured to be faster than its plain implementation is here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .convolution import convolution, convolution_input, convolution_weight

__all__ = ["CPU_KERNELS"]

_FAST: tuple[Callable[..., Any], ...] = (convolution, convolution_input, convolution_weight)

#: name -> fast implementation
CPU_KERNELS: dict[str, Callable[..., Any]] = {function.__name__: function for function in _FAST}
