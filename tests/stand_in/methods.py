"""The methods and operators of `ndarray`."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from . import indexing
from .arrays import ndarray
from .creation import is_in, zeros
from .functions import inner, named
from .names import NAMES, Arguments
from .operations import compute, put

__all__ = ["attach_methods"]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def _method(name: str) -> Callable[..., Any]:
    recorded = NAMES["methods"].get(name)
    arguments = Arguments(name, recorded) if recorded else None

    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        if arguments is not None:
            arguments.check(args, kwargs)
        return named(name)(self, *args, **kwargs)

    method.__name__ = name
    return method


def _reshape(self: ndarray, *shape: Any, order: str = "C") -> ndarray:
    target = shape[0] if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)) else shape
    target = (target,) if isinstance(target, (int, np.integer)) else tuple(map(operator.index, target))
    return compute("reshape", lambda: self._a.reshape(target, order=order), [self])


def _transpose(self: ndarray, *axes: Any) -> ndarray:
    return compute("transpose", lambda: self._a.transpose(*axes), [self])


def _astype(self: ndarray, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True) -> ndarray:
    if subok is not None:
        raise TypeError("subok is not supported yet")
    dtype = np.dtype(dtype)
    if casting is not None and not np.can_cast(self.dtype, dtype, casting):
        raise TypeError(f"Cannot cast array data from {self.dtype!r} to {dtype!r} according to the rule '{casting}'")
    if not copy and dtype == self.dtype and (order in "KA" or is_in(self, order)):
        return self
    if self.dtype.kind == "c" and dtype.kind not in "cb":
        warnings.warn("Casting complex values to real discards the imaginary part", np.exceptions.ComplexWarning, stacklevel=2)

    def run() -> Any:
        values = self._a.real if self.dtype.kind == "c" and dtype.kind not in "cb" else self._a
        return values.astype(dtype, order=order)

    return compute("astype", run, [self])


def _copy(self: ndarray, order: str = "C") -> ndarray:
    return compute("copy", lambda: self._a.copy(order), [self])


def _fill(self: ndarray, value: Any) -> None:
    if isinstance(value, np.ndarray):
        if value.ndim:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        value = value.item()
    reads = [value] if type(value) is ndarray else []
    put("fill", self, lambda: np.asarray(value._a if reads else value).astype(self.dtype), reads)


def _view(self: ndarray, dtype: Any = None, type: Any = None) -> ndarray:
    return compute("view", lambda: self._a.view() if dtype is None else self._a.view(dtype), [self])


def _flatten(self: ndarray, order: str = "C") -> ndarray:
    return compute("flatten", lambda: self._a.flatten(order), [self])


def _ravel(self: ndarray, order: str = "C") -> ndarray:
    return compute("ravel", lambda: self._a.ravel(order), [self])


def _squeeze(self: ndarray, axis: Any = None) -> ndarray:
    if axis is None and 1 not in self.shape:
        return self
    return compute("squeeze", lambda: self._a.squeeze(axis), [self])


def _sort(self: ndarray, axis: int = -1, kind: Any = None) -> None:
    if kind not in (None, "stable"):
        raise ValueError("kind can only be None or 'stable'")
    if self.dtype == BFLOAT16:
        raise TypeError("sort does not support bfloat16")
    if not self.ndim:
        raise np.exceptions.AxisError("Sorting arrays with the rank of zero is not supported")
    if not self._a.flags.c_contiguous:
        raise NotImplementedError("Sorting non-contiguous array is not supported.")
    put("sort", self, lambda: np.sort(self._a, axis, kind="stable"), [self])


def _dot(self: ndarray, b: Any, out: Any = None) -> Any:
    return named("dot")(self, b, **({} if out is None else {"out": out}))


def _partition(self: ndarray, kth: Any, axis: int = -1) -> None:
    put("partition", self, lambda: np.partition(self._a, kth, axis), [self])


def _real(self: ndarray) -> ndarray:
    if self.dtype.kind != "c":
        return self
    return compute("real", lambda: self._a.real, [self])


def _imag(self: ndarray) -> ndarray:
    if self.dtype.kind != "c":
        return zeros(self.shape, self.dtype)
    return compute("imag", lambda: self._a.imag, [self])


def _conjugated(self: ndarray) -> ndarray:
    return inner("conjugate", np.conjugate)(self) if self.dtype.kind == "c" else self


def _assign_real(self: ndarray, value: Any) -> None:
    self.real[...] = value


def _assign_imag(self: ndarray, value: Any) -> None:
    if self.dtype.kind != "c":
        raise TypeError("cupy.ndarray does not have imaginary part to set")
    self.imag[...] = value


def _binary(name: str, reflected: bool = False) -> Callable[..., Any]:
    def operate(self: ndarray, other: Any) -> Any:
        if not isinstance(other, (ndarray, bool, int, float, complex, np.generic)) and not hasattr(other, "__cuda_array_interface__"):
            if isinstance(other, np.ndarray):
                raise TypeError("Unsupported type <class 'numpy.ndarray'>")
            return NotImplemented
        if getattr(other, "__array_priority__", 0) > ndarray.__array_priority__ and type(other) is not ndarray:
            return NotImplemented
        function = named(name)
        return function(other, self) if reflected else function(self, other)

    return operate


def _in_place(name: str) -> Callable[..., Any]:
    def operate(self: ndarray, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        return named(name)(self, other, self)

    return operate


OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide", "mod": "remainder",
    "pow": "power", "lshift": "left_shift", "rshift": "right_shift", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
}  # fmt: skip
COMPARISONS = {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal"}


def attach_methods() -> None:
    """Give `ndarray` the rest of its methods."""
    own = {
        "reshape": _reshape, "transpose": _transpose, "astype": _astype, "copy": _copy, "fill": _fill, "view": _view, "flatten": _flatten,
        "ravel": _ravel, "squeeze": _squeeze, "sort": _sort, "dot": _dot, "partition": _partition, "take": indexing.take,
    }  # fmt: skip
    for name, recorded in NAMES["methods"].items():
        if name in own:
            setattr(ndarray, name, own[name])
        elif recorded is not None and name not in ndarray.__dict__ and hasattr(np, name):
            setattr(ndarray, name, _method(name))
    ndarray.conj = ndarray.conjugate = lambda self: _conjugated(self)  # type: ignore[attr-defined]
    ndarray.real = property(_real, _assign_real)  # type: ignore[attr-defined]
    ndarray.imag = property(_imag, _assign_imag)  # type: ignore[attr-defined]
    for sign, name in OPERATORS.items():
        setattr(ndarray, f"__{sign}__", _binary(name))
        setattr(ndarray, f"__r{sign}__", _binary(name, reflected=True))
        setattr(ndarray, f"__i{sign}__", _in_place(name))
    for sign, name in COMPARISONS.items():
        setattr(ndarray, f"__{sign}__", _binary(name))
    ndarray.__matmul__ = _binary("matmul")  # type: ignore[attr-defined]
    ndarray.__rmatmul__ = _binary("matmul", reflected=True)  # type: ignore[attr-defined]
    ndarray.__neg__ = lambda self: named("negative")(self)  # type: ignore[attr-defined]
    ndarray.__pos__ = lambda self: named("positive")(self)  # type: ignore[attr-defined]
    ndarray.__abs__ = lambda self: named("absolute")(self)  # type: ignore[attr-defined]
    ndarray.__invert__ = lambda self: named("invert")(self)  # type: ignore[attr-defined]
    ndarray.__divmod__ = lambda self, other: named("divmod")(self, other)  # type: ignore[attr-defined]
