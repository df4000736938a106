"""Results in the order of dimensions in memory that the operands have, of kernels that compute in C order."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from ..kernels import PLAIN
from ..layout import CHANNELS_LAST, is_channels_last, strides_in

__all__ = ["empty_last", "following", "plain", "with_channels_last"]

NAMES = {ndim: name for name, (ndim, _) in CHANNELS_LAST.items()}


def following(kernel: Callable[..., Any], deciding: tuple[int, ...]) -> Callable[..., Any]:
    """A kernel whose results of 4 or 5 dimensions lie with channels last if one of certain arguments does."""

    @wraps(kernel)
    def function(*args: Any) -> Any:
        result = kernel(*args)
        for i in deciding:
            if is_channels_last(args[i]):
                return tuple([with_channels_last(r) for r in result]) if result.__class__ is tuple else with_channels_last(result)
        return result

    return function


def with_channels_last(a: Any) -> Any:
    """The array, or a copy, lying so."""
    if a.ndim not in NAMES or a.strides == strides_in(a.shape, a.itemsize, NAMES[a.ndim]):
        return a
    made = empty_last(a.shape, a.dtype)
    made[...] = a
    return made


def empty_last(shape: tuple[int, ...], dtype: Any) -> Any:
    """A new array (N, C, *spatial) with channels last, which is no view of another one."""
    steps, step = [dtype.itemsize * shape[1]], dtype.itemsize
    for n in reversed(shape[2:]):
        steps.append(steps[-1] * n)
    return np.ndarray(shape, dtype, None, 0, (steps[-1], step, *reversed(steps[:-1])))


def plain(name: str) -> Callable[..., Any]:
    """The plain kernel of a name, on NumPy's functions."""
    return lambda *args: PLAIN[name](np, *args)
