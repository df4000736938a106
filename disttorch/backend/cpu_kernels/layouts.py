"""New arrays with channels last, for kernels that compute in that order or in C order."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import layout
from ..layout import last_axes, strides_along

__all__ = ["empty_last", "empty_strided", "with_channels_last"]


def empty_strided(shape: tuple[int, ...], dtype: Any, strides: tuple[int, ...]) -> Any:
    """A new array with the strides, in bytes, of a dense one."""
    return np.ndarray(shape, dtype, None, 0, strides)


def empty_last(shape: tuple[int, ...], dtype: Any) -> Any:
    """A new array (N, C, *spatial) with channels last, which is no view of another one."""
    return empty_strided(shape, dtype, strides_along(last_axes(len(shape))[0], shape, dtype.itemsize))


def with_channels_last(a: Any) -> Any:
    """The array, or a copy, lying so."""
    return layout.with_channels_last(a, empty_strided)
