"""CuPy's linear algebra as NumPy's is: an error where a factorization fails, and batches that are broadcast.

By itself CuPy does not look at what cuSOLVER says, to save waiting for the device. What stands in a matrix whose factorization has
failed is not known then: it need not be NaN.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import cupy
import cupyx
import numpy

__all__ = ["LINALG"]


def _raising(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same that raises LinAlgError where cuSOLVER reports a failure."""

    @functools.wraps(function)
    def checked(*args: Any, **options: Any) -> Any:
        with cupyx.errstate(linalg="raise"):
            return function(*args, **options)

    return checked


def _solve(a: Any, b: Any) -> Any:
    """Of matrices on both sides."""
    batch = numpy.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return cupy.linalg.solve(*(cupy.broadcast_to(each, (*batch, *each.shape[-2:])) for each in (a, b)))


LINALG = SimpleNamespace(
    LinAlgError=cupy.linalg.LinAlgError,
    solve=_raising(_solve),
    **{
        name: _raising(getattr(cupy.linalg, name))
        for name in ("cholesky", "det", "eig", "eigh", "eigvalsh", "inv", "qr", "slogdet", "svd")
    },
)
"""What stands in the namespace under ``linalg``."""
