"""The error function and the activations, a block at a time: what a formula's steps hand on stays in the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..kernels import PLAIN
from ..namespace import Namespace

__all__ = ["erf", "erfc", "gelu", "gelu_backward", "sigmoid", "silu", "softplus"]

#: Elements at a time: 128 KiB of float32, so that a handful of intermediate results stays in the second-level cache.
BLOCK = 32768

_NUMPY = Namespace("cpu", np)


def elementwise(name: str, arrays: int = 1) -> Callable[..., Any]:
    """The plain kernel of that name, whose first arguments are `arrays` arrays of one shape, applied block by block."""
    plain = PLAIN[name]

    def blocked(*arguments: Any) -> Any:
        x, parameters = arguments[arrays - 1], arguments[arrays:]
        if x.size <= BLOCK:
            return plain(_NUMPY, *arguments)
        out = np.empty(x.shape, x.dtype)
        flat_out, flat = out.reshape(-1), [a.reshape(-1) for a in arguments[:arrays]]
        for start in range(0, x.size, BLOCK):
            block = slice(start, start + BLOCK)
            flat_out[block] = plain(_NUMPY, *(a[block] for a in flat), *parameters)
        return out

    blocked.__name__ = blocked.__qualname__ = name
    blocked.__doc__ = plain.__doc__
    return blocked


erf = elementwise("erf")
erfc = elementwise("erfc")
sigmoid = elementwise("sigmoid")
silu = elementwise("silu")
softplus = elementwise("softplus")
gelu = elementwise("gelu")
gelu_backward = elementwise("gelu_backward", arrays=2)
