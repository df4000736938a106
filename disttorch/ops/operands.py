"""The operands of an operation: in one dtype, on one device, and errors in the words of their shapes; and where ``out=`` goes."""

from __future__ import annotations

import warnings
from typing import Any

from ..autograd.grad_mode import recording
from ..autograd.operation import Operation, in_one_world, write
from ..autograd.variable import Tensor, wrap
from ..backend import NAMESPACES, cpu
from ..backend import dtypes as dt
from ..backend.dtypes import DIFFERENTIABLE, DTYPES, result_of

__all__ = [
    "agree",
    "as_operands",
    "expect_tensors",
    "explain",
    "is_array",
    "no_number",
    "promoted",
    "refuse_operand",
    "with_number",
    "write_out",
]


def is_array(value: Any) -> bool:
    """Whether a value is an array or a scalar of one of the libraries."""
    return type(value) in NAMESPACES and not isinstance(value, Tensor)


def refuse_operand(name: str, input: Any, other: Any) -> Any:
    """Say that an operand is neither a tensor nor a number.

    Raises
    ------
    TypeError
    """
    wrong = other if isinstance(input, Tensor) else input
    raise TypeError(f"{name}(): operands must be Tensors, arrays or numbers, at least one a Tensor, not {type(wrong).__name__}")


def with_number(a: Any, value: Any) -> tuple[Any, Any] | None:
    """An array and a Python number as two arrays of the dtype that PyTorch computes with; None if it is no number."""
    kind = value.__class__
    dtype = a.dtype
    if not (kind is float and dtype in DIFFERENTIABLE) and not (kind is int and dtype is not dt.bool_.numpy):
        if hasattr(value, "dtype") and getattr(value, "shape", None) == ():
            value = value.item()  # a NumPy scalar counts as a Python number
        if not isinstance(value, (bool, int, float, complex)):
            return None
        number = dt.as_dtype(type(value))
        result = result_of([(DTYPES[dtype], 2 if a.ndim else 1), (number, 0)]).numpy
        if result is not dtype:
            a = a.astype(result)
            dtype = result
    return a, NAMESPACES[a.__class__].scalar(value, dtype)


def no_number(a: Any, value: Any) -> None:
    """For functions that take tensors only."""


def agree(operation: Operation, x: Tensor, y: Tensor) -> tuple[Any, Any]:
    """Two tensors' arrays in one dtype; a tensor without dimensions may come from the CPU to any device."""
    a, b = x._array, y._array
    if a.__class__ is not b.__class__:
        if b.ndim == 0 and NAMESPACES[b.__class__] is cpu:
            b = NAMESPACES[a.__class__].array(b)
        elif a.ndim == 0 and NAMESPACES[a.__class__] is cpu:
            a = NAMESPACES[b.__class__].array(a)
        else:
            a, b = in_one_world(operation, (x, y), (a, b))
    if a.dtype == b.dtype:
        return a, b
    a, b = as_operands(a, b)
    return a, b


def as_operands(*arrays: Any) -> list[Any]:
    """Arrays in the one dtype that an operation on them has."""
    result = result_of([(DTYPES[a.dtype], 2 if a.ndim else 1) for a in arrays]).numpy
    return [a if a.dtype == result else a.astype(result) for a in arrays]


def expect_tensors(name: str, *operands: Any) -> None:
    """Refuse what is no tensor.

    Raises
    ------
    TypeError
    """
    for i, v in enumerate(operands):
        if not isinstance(v, Tensor):
            raise TypeError(f"{name}(): argument {i + 1} must be Tensor, not {type(v).__name__}")


def promoted(name: str, *operands: Any, to_float: bool = False, broadcast: bool = True) -> list[Tensor]:
    """Tensors and numbers, the operands of a function of several, as tensors of the dtype that PyTorch computes it in.

    Parameters
    ----------
    name : str
        Of the function, for the error.
    *operands : Tensor or number
    to_float : bool
        Whether integers become the default floating-point dtype.
    broadcast : bool
        Whether their shapes shall fit.

    Raises
    ------
    RuntimeError
        If their shapes cannot be broadcast.
    """
    kinds = []
    for v in operands:
        if isinstance(v, Tensor):
            kinds.append((DTYPES[v._array.dtype], 2 if v._array.ndim else 1))
        else:
            kinds.append((dt.as_dtype(type(v.item() if hasattr(v, "item") else v)), 0))
    result = result_of(kinds)
    if to_float and result.category < dt.FLOAT:
        result = dt.get_default_dtype()
    first = next((v for v in operands if isinstance(v, Tensor)), None)
    if first is None:
        raise TypeError(f"{name}(): at least one operand must be a Tensor, not {', '.join(type(v).__name__ for v in operands)}")
    xp = NAMESPACES[first._array.__class__]
    tensors = []
    for v in operands:
        if not isinstance(v, Tensor):
            v = wrap(xp.asarray(xp.scalar(v, result.numpy)))
        elif v._array.dtype is not result.numpy:
            v = v.to(dtype=result)
        tensors.append(v)
    for t in tensors[1:] if broadcast else ():
        _check_broadcast(name, first._array, t._array)
    return tensors


def _check_broadcast(name: str, a: Any, b: Any) -> None:
    for m, n in zip(reversed(a.shape), reversed(b.shape)):
        if m != n and 1 not in (m, n):
            raise explain(name, a, b, ValueError())


def explain(name: str, a: Any, b: Any, error: Exception, in_place: bool = False) -> Exception:
    """The library's error in the words of the caller's shapes and dtypes."""
    for back in range(1, min(a.ndim, b.ndim) + 1):
        if a.shape[-back] != b.shape[-back] and 1 not in (a.shape[-back], b.shape[-back]):
            return RuntimeError(
                f"{name}: the size of tensor a ({a.shape[-back]}) must match the size of tensor b ({b.shape[-back]}) at "
                f"non-singleton dimension {max(a.ndim, b.ndim) - back}; the shapes are {list(a.shape)} and {list(b.shape)}"
            )
    if in_place and isinstance(error, ValueError):
        return RuntimeError(
            f"{name}_: output with shape {list(a.shape)} doesn't match the broadcast shape of {list(a.shape)} and {list(b.shape)}"
        )
    if isinstance(error, ValueError):
        return RuntimeError(f"{name}: {error}; the operands are {DTYPES[a.dtype]} and {DTYPES[b.dtype]}")
    return NotImplementedError(f"{name} is not implemented for {DTYPES[a.dtype]} and {DTYPES[b.dtype]}: {error}")


def write_out(name: str, result: Tensor, out: Tensor) -> Tensor:
    """Put a result into the tensor that the caller gave as ``out=``.

    Raises
    ------
    RuntimeError
        If it does not fit, or a gradient is asked for: PyTorch, too, only differentiates functions without out=.
    TypeError
        If it is no tensor.
    """
    if not isinstance(out, Tensor):
        raise TypeError(f"{name}(): argument 'out' must be Tensor, not {type(out).__name__}")
    if recording.get() and (result._node is not None or out._node is not None):
        raise RuntimeError(f"{name}(): functions with out=... arguments don't support automatic differentiation")
    if out._array.shape != result._array.shape:
        _resize(name, out, result._array)
    write(name, out, result._array)
    return out


def _resize(name: str, out: Tensor, array: Any) -> None:
    """Give ``out=`` the result's shape; only an empty tensor is resized without a word."""
    if out._array.size:
        warnings.warn(
            f"{name}(): an output with one or more elements was resized since it had shape {list(out._array.shape)}, which does not "
            f"match the required output shape {list(array.shape)}",
            UserWarning,
            stacklevel=4,
        )
    xp = NAMESPACES[array.__class__]
    with xp.on(xp.device_of(array)):
        out._array = xp.empty(array.shape, out._array.dtype)
