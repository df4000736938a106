"""How elementwise functions are made of a table line: as short a way as there is from a tensor to the array library.

An addition of two small arrays takes NumPy 0.25 us, so everything around it is written for speed: the common case
(tensors of one dtype, or a tensor and a number that does not change its dtype) is one straight line of code, and the
node of the graph is filled in here without a call. `benchmarks/overhead.py` prints what it costs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..autograd.grad_mode import ANOMALY, recording
from ..autograd.graph import CONSTANT, OperationNode
from ..autograd.operation import (
    Operation,
    before_overwriting,
    check_in_place,
    finish_in_place,
    refuse_devices,
    write,
)
from ..autograd.variable import Tensor, bump_version, wrap
from ..backend import NAMESPACES, cpu
from ..backend import dtypes as dt
from ..backend.dtypes import DIFFERENTIABLE, DTYPES, INTEGRAL, result_of
from .creation import as_tensor

__all__ = ["IN_PLACE", "OPERATORS", "as_operands", "binary", "unary", "write_out"]

_new = object.__new__

#: in-place twins by their name (``add_``), for the Tensor class
IN_PLACE: dict[str, Callable[..., Tensor]] = {}

#: functions of two operands and what serves as their operator: it leaves a foreign operand to Python's other attempts
OPERATORS: dict[Callable[..., Any], Callable[..., Any]] = {}


class _Kernels(dict):
    """From the type of an array to its library's function, found when a backend's array is first seen."""

    def __init__(self, kernel: str | Callable[..., Any]):
        super().__init__()
        self.kernel = kernel

    def __missing__(self, array_type: type) -> Any:
        xp = NAMESPACES[array_type]
        self[array_type] = function = (
            getattr(xp, self.kernel) if isinstance(self.kernel, str) else partial(self.kernel, xp)
        )
        return function


def unary(
    name: str,
    kernel: str | Callable[..., Any],
    rule: Callable[..., Any] | None = None,
    *,
    to_float: bool = True,
    in_place: bool = True,
    doc: str = "",
) -> Callable[..., Tensor]:
    """An elementwise function of one tensor.

    Parameters
    ----------
    name : str
        PyTorch's name.
    kernel : str or callable
        The namespace's function; or a function of the namespace and the array.
    rule : callable, optional
        The gradient; without one the function has none (comparisons) or it is zero (rounding).
    to_float : bool
        Whether integers are turned into the default floating-point dtype.
    in_place : bool
        Whether there is a twin ``name_``.
    doc : str
        The formula, for the docstring.
    """
    kernels = _Kernels(kernel)

    def forward(xp: Any, x: Any) -> Any:
        return kernels[xp.ndarray](x)

    rules: dict[str, Any] = {"x": rule} if rule else {}
    operation = Operation(name, forward, **rules)
    saves_x, saves_out = "x" in operation.needed_by[0], "out" in operation.needed_by[0]

    def function(input: Tensor, *, out: Tensor | None = None) -> Tensor:
        try:
            a = input._array
        except AttributeError:
            raise TypeError(f"{name}(): argument 'input' must be Tensor, not {type(input).__name__}") from None
        if to_float and a.dtype in INTEGRAL:
            a = a.astype(dt.get_default_dtype().numpy)
        try:
            array = kernels[a.__class__](a)
        except TypeError:
            raise NotImplementedError(f"{name} is not implemented for {DTYPES[a.dtype]}") from None
        if array.__class__ is not a.__class__:
            array = cpu.asarray(array)
        result = _new(Tensor)
        result._array = array
        result._grad = result._version = result._view = result._node = None
        edge = input._node
        if edge is not None and rule is not None:
            mode = recording.get()
            if mode:
                node = _new(OperationNode)
                node.operation = operation
                node.edges = (edge,)
                node.shape = array.shape
                node.dtype = array.dtype
                node.params = NO_PARAMS
                if saves_x:
                    version = input._version
                    if version is None:
                        input._version = version = [0]
                    node.saved = (a, array if saves_out else None)
                    node.versions = (version,)
                    node.stamp = version[0]
                elif saves_out:
                    result._version = version = [0]
                    node.saved = (None, array)
                    node.versions = (version,)
                    node.stamp = 0
                else:
                    node.versions = ()
                result._node = node
                if mode == ANOMALY:
                    node.note_place()
        return result if out is None else write_out(name, result, out)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{doc or name.replace('_', ' ')}, elementwise; as ``torch.{name}``."
    function.operation = operation  # type: ignore[attr-defined]
    if in_place:
        IN_PLACE[name + "_"] = _unary_in_place(name, operation, kernels, to_float)
    return function


NO_PARAMS: dict = {}


def _unary_in_place(name: str, operation: Operation, kernels: _Kernels, to_float: bool) -> Callable[..., Tensor]:
    def function(input: Tensor) -> Tensor:
        a = input._array
        check_in_place(name, input)
        if to_float and a.dtype in INTEGRAL:
            raise RuntimeError(f"{name}_: result type Float can't be cast to the desired output type {DTYPES[a.dtype]}")
        before = before_overwriting(operation, (input,), (a,))
        kernel = kernels[a.__class__]
        try:
            if hasattr(kernel, "nin"):
                kernel(a, out=a)
                bump_version(input)
            else:
                write(name, input, kernel(a))
        except TypeError:
            raise NotImplementedError(f"{name}_ is not implemented for {DTYPES[a.dtype]}") from None
        finish_in_place(operation, (input,), before, (), NO_PARAMS)
        return input

    function.__name__ = function.__qualname__ = name + "_"
    function.__doc__ = f"`{name}` in place."
    return function


def binary(
    name: str,
    kernel: str | Callable[..., Any],
    *,
    x: Callable[..., Any] | None = None,
    y: Callable[..., Any] | None = None,
    to_float: bool = False,
    in_place: bool = True,
    doc: str = "",
) -> Callable[..., Tensor]:
    """An elementwise function of two tensors, or of a tensor and a number, with broadcasting.

    Parameters
    ----------
    name : str
        PyTorch's name.
    kernel : str or callable
        The namespace's function; or a function of the namespace and both arrays.
    x, y : callable, optional
        The gradients of the first and the second operand.
    to_float : bool
        Whether two integers are turned into the default floating-point dtype.
    in_place : bool
        Whether there is a twin ``name_``.
    doc : str
        The formula, for the docstring.
    """
    kernels = _Kernels(kernel)

    def forward(xp: Any, x: Any, y: Any) -> Any:
        return kernels[xp.ndarray](x, y)

    rules: dict[str, Any] = {k: v for k, v in (("x", x), ("y", y)) if v is not None}
    operation = Operation(name, forward, **rules)
    for_x, for_y = operation.needed_by
    x_for_x, y_for_x, out_for_x = (n in for_x for n in ("x", "y", "out"))
    x_for_y, y_for_y, out_for_y = (n in for_y for n in ("x", "y", "out"))
    saves = bool(for_x or for_y)
    has_rules = bool(rules)

    def make(refuse: Callable[..., Any]) -> Callable[..., Any]:
        def function(input: Any, other: Any, *, out: Tensor | None = None) -> Any:
            if isinstance(other, Tensor) and isinstance(input, Tensor):
                a = input._array
                b = other._array
                edge_a = input._node
                edge_b = other._node
                if a.dtype is not b.dtype or a.__class__ is not b.__class__:
                    a, b = _agree(operation, input, other)
            elif isinstance(input, Tensor):
                pair = _with_number(input._array, other)
                if pair is None:
                    return function(input, as_tensor(other), out=out) if _is_array(other) else refuse(name, input, other)
                a, b = pair
                edge_a = input._node
                edge_b = None
            elif isinstance(other, Tensor):
                pair = _with_number(other._array, input)
                if pair is None:
                    return function(as_tensor(input), other, out=out) if _is_array(input) else refuse(name, input, other)
                b, a = pair
                edge_a = None
                edge_b = other._node
            else:
                return refuse(name, input, other)
            if to_float and a.dtype in INTEGRAL:
                default = dt.get_default_dtype().numpy
                a, b = a.astype(default), b.astype(default)
            try:
                array = kernels[a.__class__](a, b)
            except (ValueError, TypeError) as error:
                raise explain(name, a, b, error) from None
            if array.__class__ is not a.__class__:
                array = cpu.asarray(array)
            result = _new(Tensor)
            result._array = array
            result._grad = result._version = result._view = result._node = None
            if has_rules and (edge_a is not None or edge_b is not None):
                mode = recording.get()
                if mode:
                    node = _new(OperationNode)
                    node.operation = operation
                    node.edges = (edge_a, edge_b)
                    node.shape = array.shape
                    node.dtype = array.dtype
                    node.params = NO_PARAMS
                    if saves:
                        node.stamp = 0
                        saved_a = saved_b = saved_out = None
                        versions = []
                        if (x_for_x and edge_a is not None) or (x_for_y and edge_b is not None):
                            saved_a = a
                            if isinstance(input, Tensor):
                                version = input._version
                                if version is None:
                                    input._version = version = [0]
                                node.stamp += version[0]
                                versions.append(version)
                        if (y_for_x and edge_a is not None) or (y_for_y and edge_b is not None):
                            saved_b = b
                            if isinstance(other, Tensor):
                                version = other._version
                                if version is None:
                                    other._version = version = [0]
                                node.stamp += version[0]
                                versions.append(version)
                        if (out_for_x and edge_a is not None) or (out_for_y and edge_b is not None):
                            saved_out = array
                            result._version = version = [0]
                            versions.append(version)
                        node.saved = (saved_a, saved_b, saved_out)
                        node.versions = versions or CONSTANT
                    else:
                        node.versions = ()
                    result._node = node
                    if mode == ANOMALY:
                        node.note_place()
            return result if out is None else write_out(name, result, out)

        function.__name__ = function.__qualname__ = name
        function.__doc__ = f"{doc or name.replace('_', ' ')}, elementwise with broadcasting; as ``torch.{name}``."
        return function

    function = make(_refuse_operand)
    function.operation = operation  # type: ignore[attr-defined]
    OPERATORS[function] = make(lambda name, input, other: NotImplemented)
    if in_place:
        IN_PLACE[name + "_"] = _binary_in_place(name, operation, kernels, to_float)
    return function


def _binary_in_place(name: str, operation: Operation, kernels: _Kernels, to_float: bool) -> Callable[..., Tensor]:
    def function(input: Tensor, other: Any) -> Tensor:
        a = input._array
        second = as_tensor(other) if _is_array(other) and other.ndim else other
        if isinstance(second, Tensor):
            b = second._array
            left, b = (a, b) if a.dtype is b.dtype and a.__class__ is b.__class__ else _agree(operation, input, second)
        else:
            pair = _with_number(a, other)
            if pair is None:
                return _refuse_operand(name + "_", input, other)
            left, b = pair
            second = wrap(b)
        check_in_place(name, input, (second,))
        before = before_overwriting(operation, (input, second), (left, b))
        kernel = kernels[a.__class__]
        if left is a and hasattr(kernel, "nin") and not (to_float and a.dtype in INTEGRAL):
            try:
                kernel(a, b, out=a)
            except (ValueError, TypeError) as error:
                raise explain(name, a, b, error, in_place=True) from None
            bump_version(input)
        else:
            try:
                array = kernel(left, b)
            except (ValueError, TypeError) as error:
                raise explain(name, a, b, error) from None
            write(name, input, array)
        finish_in_place(operation, (input, second), before, (), NO_PARAMS)
        return input

    function.__name__ = function.__qualname__ = name + "_"
    function.__doc__ = f"`{name}` in place."
    return function


def _is_array(value: Any) -> bool:
    return type(value) in NAMESPACES and not isinstance(value, Tensor)


def _refuse_operand(name: str, input: Any, other: Any) -> Any:
    wrong = other if isinstance(input, Tensor) else input
    raise TypeError(f"{name}(): operands must be Tensors, arrays or numbers, at least one a Tensor, not {type(wrong).__name__}")


def _with_number(a: Any, value: Any) -> tuple[Any, Any] | None:
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


def _agree(operation: Operation, x: Tensor, y: Tensor) -> tuple[Any, Any]:
    """Two tensors' arrays in one dtype; a tensor without dimensions may come from the CPU to any device."""
    a, b = x._array, y._array
    if a.__class__ is not b.__class__:
        if b.ndim == 0 and NAMESPACES[b.__class__] is cpu:
            b = NAMESPACES[a.__class__].array(b)
        elif a.ndim == 0 and NAMESPACES[a.__class__] is cpu:
            a = NAMESPACES[b.__class__].array(a)
        else:
            refuse_devices(operation, (x, y))
    if a.dtype == b.dtype:
        return a, b
    a, b = as_operands(a, b)
    return a, b


def as_operands(*arrays: Any) -> list[Any]:
    """Arrays in the one dtype that an operation on them has."""
    result = result_of([(DTYPES[a.dtype], 2 if a.ndim else 1) for a in arrays]).numpy
    return [a if a.dtype == result else a.astype(result) for a in arrays]


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
    """
    if recording.get() and (result._node is not None or out._node is not None):
        raise RuntimeError(f"{name}(): functions with out=... arguments don't support automatic differentiation")
    write(name, out, result._array)
    return out
