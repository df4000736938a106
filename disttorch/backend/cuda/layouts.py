"""Elementwise functions whose result lies in memory as their operands do, which CuPy's always lay out in C order.

Images with channels last are in C order if their channels are the last dimension. So all operands are given with their dimensions in that
order, and the result's dimensions are put back: no element is moved. As in PyTorch the first of the operands that have the result's shape
decides. (Of other orders of dimensions the result is in C order, as CuPy has it.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cupy

from ..dtypes import HALF
from ..layout import is_channels_last, is_expanded, last_axes
from ..namespace import IN_ONE_ORDER

__all__ = ["Elementwise", "in_one_order"]


def leader(values: Sequence[Any]) -> Any:
    """The operand by which the result is laid out, if it has channels last and is not in C order as well; else None."""
    for a in values:
        if a.__class__ is cupy.ndarray and a.ndim > 3 and not a.flags.c_contiguous:
            break
    else:
        return None
    found: Any = None
    for a in values:
        if a.__class__ is cupy.ndarray and (found is None or a.size > found.size) and not is_expanded(a):
            found = a
    return found if found is not None and not found.flags.c_contiguous and is_channels_last(found) else None


def in_one_order(function: Callable[..., Any]) -> Callable[..., Any]:
    """An elementwise function, of arrays and other things, that returns an array or several of them."""

    def laid_out(*values: Any, **options: Any) -> Any:
        lead = leader(values)
        if lead is None:
            return function(*values, **options)
        order, back = last_axes(lead.ndim)
        result = function(*[turned(v, order) for v in values], **options)
        return tuple([owned(r, back) for r in result]) if isinstance(result, (tuple, list)) else owned(result, back)

    laid_out.__name__ = laid_out.__qualname__ = getattr(function, "__name__", "elementwise")
    laid_out.__doc__ = function.__doc__
    return laid_out


def turned(value: Any, order: Sequence[int]) -> Any:
    """An operand with its dimensions in another order; one that has fewer, as it is broadcast. Of half types one that is expanded, such
    as a mean's gradient, is copied: it will be converted, and CuPy would put the dimensions that are expanded innermost.
    """
    if value.__class__ is not cupy.ndarray or not value.ndim:
        return value
    if value.ndim < len(order):
        value = value.reshape((1,) * (len(order) - value.ndim) + value.shape)
    value = value.transpose(order)
    return cupy.ascontiguousarray(value) if value.dtype in HALF and is_expanded(value) else value


def owned(result: Any, back: Sequence[int]) -> Any:
    """A result with its dimensions put back, which is no view of another array: who is given it may change it."""
    if result.__class__ is not cupy.ndarray or result.ndim != len(back):
        return result
    moved = result.transpose(back)
    if result.base is not None:
        return moved
    return cupy.ndarray(moved.shape, moved.dtype, memptr=result.data, strides=moved.strides)


class Elementwise:
    """One of CuPy's elementwise functions. With ``out=`` it writes where it is told to.

    Parameters
    ----------
    function : cupy.ufunc
    """

    def __init__(self, function: Any):
        self._function, self._laid_out = function, in_one_order(function)
        self.__name__ = function.__name__
        self.nin, self.nout = function.nin, function.nout

    def __call__(self, *args: Any, **options: Any) -> Any:
        if options or len(args) > self.nin:
            return self._function(*args, **options)
        return self._laid_out(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)

    def __repr__(self) -> str:
        return f"<{self._function!r} in the order of its operands>"


def rules_in_one_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """The rules of an elementwise operation, of a gradient and what was saved."""

    def laid_out(gradient: Any, saved: Sequence[Any] | None, *rest: Any) -> Any:
        lead = leader((gradient, *(saved or ())))
        if lead is None:
            return backward(gradient, saved, *rest)
        order, back = last_axes(lead.ndim)
        kept = None if saved is None else [turned(a, order) for a in saved]
        results = backward(turned(gradient, order), kept, *rest)
        return [r if r is None else owned(r, back) for r in results]

    return laid_out


IN_ONE_ORDER[cupy.ndarray] = rules_in_one_order
