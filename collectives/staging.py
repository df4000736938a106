"""Staging: the copy that a transport works on where it cannot work on the caller's array, and the way back.

Transports want contiguous arrays, outputs that do not overlap inputs, and half precision accumulated in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import numpy as np

from .reductions import Reduction

__all__ = ["Array", "average", "copy_back", "staged", "there", "truth"]

Array: TypeAlias = Any
"""An array of a type that the transport carries: `numpy.ndarray` unless it says otherwise."""


def there(array: Array) -> AbstractContextManager[Any]:
    """A with-block in which computing with an array is right: for a GPU's array, with its device as the current one."""
    return nullcontext() if isinstance(array, np.ndarray) else array.device


def staged(array: Array, *, wide: bool = False, apart_from: Array | None = None) -> Array:
    """The array itself where a transport can work on it, otherwise a contiguous copy (in float32 where `wide`)."""
    if wide:
        with there(array):
            return array.astype(np.float32, order="C")
    if not array.flags.c_contiguous or (apart_from is not None and _may_share_memory(array, apart_from)):
        with there(array):
            return array.copy(order="C")
    return array


def _may_share_memory(a: Array, b: Array) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.may_share_memory(a, b)
    import cupy

    return bool(cupy.may_share_memory(a, b))


def average(buffer: Array, size: int, then: Callable[[], None] | None) -> None:
    """Divide the sum in `buffer` by the number of ranks, then go on with what follows."""
    mean = buffer
    with there(mean):
        mean /= size
    if then is not None:
        then()


def truth(array: Array, op: Reduction) -> None:
    """Make every element 0 or 1 where the reduction is logical: with one rank there is nothing to combine, and a 5 stays a 5."""
    if op.logical:
        array[...] = array != 0


def copy_back(array: Array, buffer: Array, wanted: bool = True) -> Callable[[], None] | None:
    """What writes the result in `buffer` to the caller's `array`; None where the transport works on that itself."""
    if buffer is array or not wanted:
        return None

    def finish() -> None:
        # A sum beyond float16's range is an infinity, as it is in any float16 arithmetic.
        with there(array), np.errstate(over="ignore", invalid="ignore"):
            array[...] = buffer

    return finish
