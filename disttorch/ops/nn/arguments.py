"""Arguments that several families share: one number for all spatial dimensions or one each, and inputs without a batch."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from ...autograd.variable import Tensor
from ...backend import dtypes as dt

__all__ = ["batched", "check_floating", "spatial", "warn"]


def spatial(value: Any, ndim: int, function: str, name: str, least: int = 0) -> tuple[int, ...]:
    """A parameter with one entry a spatial dimension, from one number or a sequence of 1 or `ndim` numbers.

    Raises
    ------
    RuntimeError
        If it has another length, or an entry below `least`.
    TypeError
        If it is not made of integers.
    """
    entries: Sequence[Any] = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if len(entries) == 1:
        entries = tuple(entries) * ndim
    if len(entries) != ndim:
        raise RuntimeError(f"{function}(): {name} must be one integer or {ndim} of them, but is {value!r}")
    for entry in entries:
        if isinstance(entry, bool) or not hasattr(entry, "__index__"):
            raise TypeError(f"{function}(): {name} must be integers, not {value!r}")
    result = tuple(entry.__index__() for entry in entries)
    if min(result) < least:
        raise RuntimeError(f"{function}(): {name} must be at least {least}, but is {value!r}")
    return result


def batched(function: str, input: Tensor, ndim: int, compute: Callable[[Tensor], Any]) -> Any:
    """Apply a function of (N, C, *spatial) to such an input, or to one sample (C, *spatial).

    Raises
    ------
    RuntimeError
        If the input has another number of dimensions.
    """
    if input.__class__ is not Tensor and not isinstance(input, Tensor):
        raise TypeError(f"{function}(): argument 'input' must be Tensor, not {type(input).__name__}")
    have = input._array.ndim
    if have == ndim + 2:
        return compute(input)
    if have != ndim + 1:
        raise RuntimeError(
            f"Expected {ndim + 1}D (unbatched) or {ndim + 2}D (batched) input to {function}, but got input of size: "
            f"{list(input._array.shape)}"
        )
    result = compute(input.unsqueeze(0))
    return tuple(r.squeeze(0) for r in result) if isinstance(result, tuple) else result.squeeze(0)


def check_floating(function: str, input: Tensor, or_complex: bool = False) -> None:
    """Raise a NotImplementedError, which is a RuntimeError, unless the tensor is of a floating-point (or complex) dtype."""
    if not isinstance(input, Tensor):
        raise TypeError(f"{function}(): argument 'input' must be Tensor, not {type(input).__name__}")
    if input._array.dtype not in (dt.DIFFERENTIABLE if or_complex else dt.FLOATING):
        raise NotImplementedError(f"{function}() is not implemented for {input.dtype}, it needs a floating-point input")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn where the caller of the package stands, however many of our frames there are between."""
    level, frame = 1, sys._getframe(0)
    # functions that we make while running belong to no module
    ours = ("", __name__.partition(".")[0])
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ours:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
