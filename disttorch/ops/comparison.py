"""Comparisons of whole tensors and with tolerances, membership, and tests for special numbers."""

from __future__ import annotations

import builtins
from typing import Any

from ..autograd.variable import Tensor, wrap
from ..backend import dtypes as dt
from ..backend import namespace
from ..backend.dtypes import COMPLEX_DTYPES
from .elementwise import unary
from .operands import as_operands, expect_tensors, promoted

# What users find of this family, and where: see ops/public.py.
BOTH = "allclose equal isclose isneginf isposinf"
FUNCTIONS = "isin"
OUT = "isin"


def _infinite(name: str, is_wanted: Any) -> Any:
    def kernel(xp: Any, x: Any) -> Any:
        if x.dtype in COMPLEX_DTYPES:
            raise RuntimeError(f"{name} does not support complex inputs.")
        return xp.isinf(x) & is_wanted(x)

    return unary(name, kernel, to_float=False, in_place=False, doc="whether x is infinite and of that sign")


isposinf = _infinite("isposinf", lambda x: x > 0)
isneginf = _infinite("isneginf", lambda x: x < 0)


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """Whether ``abs(input - other) <= atol + rtol * abs(other)``, elementwise with broadcasting; as ``torch.isclose``.

    Parameters
    ----------
    input, other : Tensor
        Of one dtype.
    rtol, atol : float
        Relative and absolute tolerance, not negative.
    equal_nan : bool
        Whether two NaN are close.

    Raises
    ------
    RuntimeError
        For two dtypes or a negative tolerance.
    """
    expect_tensors("isclose", input, other)
    if input._array.dtype != other._array.dtype:
        raise RuntimeError(f"isclose: {input.dtype} did not match {other.dtype}")
    if rtol < 0 or atol < 0:
        raise RuntimeError(f"isclose: rtol and atol must be greater than or equal to zero, but got {rtol} and {atol}")
    a, b = (t._array for t in promoted("isclose", input, other))
    xp = namespace(a)
    close = a == b
    if equal_nan and a.dtype not in dt.INTEGRAL:
        close = close | (xp.isnan(a) & xp.isnan(b))
    if rtol == 0 and atol == 0:
        return wrap(xp.asarray(close))
    if a.dtype in dt.INTEGRAL:
        a, b = (v.astype(dt.float64.numpy) for v in (a, b))
    allowed = xp.abs(b) * rtol + atol
    distance = xp.abs(a - b)
    return wrap(xp.asarray(close | (xp.isfinite(distance) & (distance <= allowed))))


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether all elements are close, as `isclose` says; as ``torch.allclose``."""
    return builtins.bool(isclose(input, other, rtol, atol, equal_nan)._array.all())


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape and the same elements; as ``torch.equal``."""
    expect_tensors("equal", input, other)
    a, b = input._array, other._array
    if a.shape != b.shape:
        return False
    if a.dtype != b.dtype:
        a, b = as_operands(a, b)
    return builtins.bool((a == b).all())


def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Whether each element is one of `test_elements`; as ``torch.isin``.

    Parameters
    ----------
    elements, test_elements : Tensor or number
        Not both numbers.
    assume_unique : bool
        Accepted as in PyTorch.
    invert : bool
        Whether it is not one of them.
    """
    x, among = promoted("isin", elements, test_elements, broadcast=False)
    xp = namespace(x._array)
    if x.dtype.itemsize <= 2:
        wide = dt.float32 if x.is_floating_point() else dt.int32
        x, among = x.to(dtype=wide), among.to(dtype=wide)
    a, b = x._array, among._array
    found = xp.isin(a, b)
    return wrap(xp.asarray(~found if invert else found))
