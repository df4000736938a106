"""Running extremes and log-sum-exp in one pass, by NumPy's accumulate."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels import scans as plain
from ..namespace import NAMESPACES

__all__ = ["cumulative_maximum", "cumulative_minimum", "logcumsumexp"]


def cumulative_maximum(x: Any, axis: int) -> Any:
    return np.maximum.accumulate(x, axis)


def cumulative_minimum(x: Any, axis: int) -> Any:
    return np.minimum.accumulate(x, axis)


def logcumsumexp(x: Any, axis: int) -> Any:
    if x.dtype.kind == "c":
        return plain.logcumsumexp(NAMESPACES[np.ndarray], x, axis)
    if x.dtype.itemsize < 4:
        return np.logaddexp.accumulate(x.astype(np.float32), axis).astype(x.dtype)
    return np.logaddexp.accumulate(x, axis)
