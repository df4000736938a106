"""The error function and the activations, a block at a time: what a formula's steps hand on stays in the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..kernels import PLAIN
from ..namespace import Namespace
from .formulas import BLOCK, REAL, program

#: Functions of one array (gelu_backward: of two) whose formulas take dozens of steps.
BLOCKED = """
    airy_ai bessel_j0 bessel_j1 bessel_y0 bessel_y1 digamma entr erf erfc erfcx erfinv gelu gelu_backward i0 i0e i1 i1e k0 k0e k1
    k1e lgamma log_ndtr ndtr ndtri polygamma sigmoid silu sinc softplus spherical_bessel_j0
""".split()
__all__ = list(BLOCKED)

#: Elements up to which a formula is faster as it is written.
FEW = 8192

_NUMPY = Namespace("cpu", np)


def _flat(a: Any) -> Any:
    """An array as a vector; one that is a single number broadcast, such as the gradient of a mean, as that number."""
    return a[(0,) * a.ndim].reshape(()) if not any(a.strides) else a.reshape(-1)


def elementwise(name: str, arrays: int = 1) -> Callable[..., Any]:
    """The plain kernel of that name, whose first arguments are `arrays` arrays of one shape, applied block by block."""
    plain = PLAIN[name]

    def blocked(*arguments: Any) -> Any:
        inputs, parameters = arguments[:arrays], arguments[arrays:]
        x = inputs[-1]
        if x.size <= FEW:
            return plain(_NUMPY, *arguments)
        out = np.empty(x.shape, x.dtype)
        flat_out, flat = out.reshape(-1), [_flat(a) for a in inputs]
        dtypes = tuple([a.dtype for a in (out, *inputs)])
        traced = program(plain, dtypes, parameters) if REAL.issuperset(dtypes) else None
        if traced is not None:
            traced.run(flat_out, flat)
            return out
        for start in range(0, x.size, BLOCK):
            block = slice(start, start + BLOCK)
            flat_out[block] = plain(_NUMPY, *(a[block] if a.ndim else a for a in flat), *parameters)
        return out

    blocked.__name__ = blocked.__qualname__ = name
    blocked.__doc__ = plain.__doc__
    return blocked


globals().update((_name, elementwise(_name, 2 if _name == "gelu_backward" else 1)) for _name in BLOCKED)
