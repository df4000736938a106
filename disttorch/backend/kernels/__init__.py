"""The kernel table: fused operations on arrays, each with a plain implementation written in the array namespace.

A plain kernel is a function whose first argument is the namespace ``xp`` and which only calls what every namespace
has, without changing an array in place. So it runs on NumPy arrays, on CuPy arrays and on tensors (which makes it
differentiable), and it is the specification that a backend's own fast version is tested against. The few that write into
arrays (optimizer steps, factorizations) say so, and tensors do not go through them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["PLAIN", "kernel"]

#: name -> plain implementation, called as ``plain(xp, *arrays, **parameters)``
PLAIN: dict[str, Callable[..., Any]] = {}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Put a plain implementation into the table under its own name."""
    PLAIN[function.__name__] = function
    return function


for _family in (
    "activation",
    "airy",
    "attention",
    "bessel",
    "biased",
    "choosing",
    "clipping",
    "convolution",
    "ctc",
    "dropout",
    "elementary",
    "embedding",
    "factorization",
    "folding",
    "fourier",
    "gamma",
    "gamma_draws",
    "indefinite",
    "indexing",
    "irregular_pooling",
    "modified_bessel",
    "normal",
    "normalization",
    "optimization",
    "polynomials",
    "pooling",
    "recurrent",
    "resampling",
    "rows",
    "scaling",
    "scans",
    "softmax",
    "special",
):
    import_module(f"{__name__}.{_family}")
