"""Activation functions and elementwise losses, a block at a time: what a formula's steps hand on stays in the cache."""

from __future__ import annotations

import inspect

from ..kernels import PLAIN, activation
from .special import elementwise

__all__ = list(activation.__all__)

globals().update(
    # the arrays come first; parameters behind them are numbers
    (name, elementwise(name, sum(p in ("g", "x", "target") for p in inspect.signature(PLAIN[name]).parameters)))
    for name in __all__
)
