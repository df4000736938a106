"""How elementwise functions are made of a table line: as short a way as there is from a tensor to the array library.

An addition of two small arrays takes NumPy 0.25 us, so everything around it is written for speed: the common case
(tensors of one dtype, or a tensor and a number that does not change its dtype) is one straight line of code, and the
node of the graph is filled in here without a call. `benchmarks/overhead.py` prints what it costs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..autograd.grad_mode import recording
from ..autograd.graph import CONSTANT, OperationNode
from ..autograd.operation import (
    Operation,
    before_overwriting,
    check_in_place,
    finish_in_place,
    write,
)
from ..autograd.variable import Tensor, bump_version, wrap
from ..backend import NAMESPACES, cpu
from ..backend import dtypes as dt
from ..backend.dtypes import DTYPES, INTEGRAL
from .creation import as_tensor
from .operands import agree, explain, is_array, no_number, refuse_operand, with_number, write_out

__all__ = ["IN_PLACE", "OPERATORS", "binary", "unary"]

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
    operation = Operation(name, forward, elementwise=True, **rules)
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
                if mode > 1:
                    node.note(mode)
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
    numbers: str = "both",
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
    numbers : {"both", "second", "none"}
        Which operand PyTorch lets be a number; operators take one on either side.
    doc : str
        The formula, for the docstring.
    """
    kernels = _Kernels(kernel)

    def forward(xp: Any, x: Any, y: Any) -> Any:
        return kernels[xp.ndarray](x, y)

    rules: dict[str, Any] = {k: v for k, v in (("x", x), ("y", y)) if v is not None}
    operation = Operation(name, forward, elementwise=True, **rules)
    for_x, for_y = operation.needed_by
    x_for_x, y_for_x, out_for_x = (n in for_x for n in ("x", "y", "out"))
    x_for_y, y_for_y, out_for_y = (n in for_y for n in ("x", "y", "out"))
    saves = bool(for_x or for_y)
    has_rules = bool(rules)

    def make(refuse: Callable[..., Any], with_first: Any, with_second: Any) -> Callable[..., Any]:
        def function(input: Any, other: Any, *, out: Tensor | None = None) -> Any:
            if isinstance(other, Tensor) and isinstance(input, Tensor):
                a = input._array
                b = other._array
                edge_a = input._node
                edge_b = other._node
                if a.dtype is not b.dtype or a.__class__ is not b.__class__:
                    a, b = agree(operation, input, other)
                world = a.__class__
            elif isinstance(input, Tensor):
                pair = with_second(input._array, other)
                if pair is None:
                    return function(input, as_tensor(other), out=out) if is_array(other) else refuse(name, input, other)
                a, b = pair
                world = a.__class__
                edge_a = input._node
                edge_b = None
            elif isinstance(other, Tensor):
                pair = with_first(other._array, input)
                if pair is None:
                    return function(as_tensor(input), other, out=out) if is_array(input) else refuse(name, input, other)
                b, a = pair
                world = b.__class__  # the number's own class is NumPy's, on a GPU too
                edge_a = None
                edge_b = other._node
            else:
                return refuse(name, input, other)
            if to_float and a.dtype in INTEGRAL:
                default = dt.get_default_dtype().numpy
                a, b = a.astype(default), b.astype(default)
            try:
                array = kernels[world](a, b)
            except (ValueError, TypeError) as error:
                raise explain(name, a, b, error) from None
            if array.__class__ is not world:
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
                    if mode > 1:
                        node.note(mode)
            return result if out is None else write_out(name, result, out)

        function.__name__ = function.__qualname__ = name
        function.__doc__ = f"{doc or name.replace('_', ' ')}, elementwise with broadcasting; as ``torch.{name}``."
        return function

    function = make(
        refuse_operand,
        with_number if numbers == "both" else no_number,
        no_number if numbers == "none" else with_number,
    )
    function.operation = operation  # type: ignore[attr-defined]
    OPERATORS[function] = make(lambda name, input, other: NotImplemented, with_number, with_number)
    if in_place:
        IN_PLACE[name + "_"] = _binary_in_place(name, operation, kernels, to_float)
    return function


def _binary_in_place(name: str, operation: Operation, kernels: _Kernels, to_float: bool) -> Callable[..., Tensor]:
    def function(input: Tensor, other: Any) -> Tensor:
        a = input._array
        second = as_tensor(other) if is_array(other) and other.ndim else other
        if isinstance(second, Tensor):
            b = second._array
            left, b = (a, b) if a.dtype is b.dtype and a.__class__ is b.__class__ else agree(operation, input, second)
        else:
            pair = with_number(a, other)
            if pair is None:
                return refuse_operand(name + "_", input, other)
            left, b = pair
            second = wrap(b)
        check_in_place(name, input, (second,))
        before = before_overwriting(operation, (input, second), (left, b))
        kernel = kernels[left.__class__]
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
