"""Operations on the device of their tensors, whatever device is the current one: what a process with several GPUs needs.

A library launches its kernels on the current device. So where a second GPU is used (`backend.in_use` tells), the operations that users
call, and what the engine does with arrays, are exchanged for functions that make the device of their tensors the current one meanwhile,
and refuse tensors of two GPUs. Before, and in all processes with one GPU or none, nothing is in the way.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

from ..backend import NAMESPACES, cpu, for_device, in_use
from ..backend.batched import BatchedArray
from . import engine, operation, profiler
from .exchanging import Exchange
from .node import AccumulateGrad, Node
from .operation import refuse_devices
from .variable import Tensor

__all__ = ["computes_with_arrays", "install", "remove"]

#: Methods and functions that go to another device, or need none.
_LEFT_ALONE = set(
    """
    __bool__ __dir__ __format__ __getattr__ __hash__ __init__ __len__ __new__ __setattr__ __torch_function__ as_tensor asarray cpu cuda
    data_ptr dim element_size from_dlpack get_device is_complex is_contiguous is_floating_point is_same_size is_set_to is_signed
    ndimension nelement numel register_hook register_post_accumulate_grad_hook requires_grad_ retain_grad set_ size storage_offset stride
    tensor to to_device type type_as
    """.split()
)
#: Those whose tensors may lie on several devices.
_OF_SEVERAL = set("backward broadcast_tensors copy_ expand_as put_into reshape_as resize_as_ view_as".split())
#: Files of ``ops`` in which no operations stand.
_NO_FAMILIES = set("autocast dims elementwise operands outputs public random sampled spelling world".split())

_elements: Any = Tensor.__dict__["_array"]
_exchange = Exchange()


def computes_with_arrays(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function that stands outside of ``ops`` and computes with its tensors' arrays itself."""
    if in_use.several():
        return _on_device_of_tensors(function.__name__, function)
    function.__dict__["computes_with_arrays"] = True
    return function


def install() -> None:
    """Exchange the operations."""
    with profiler.interrupted():
        replacements = {number: (function, _guard(name, function)) for number, (name, function) in _operations().items()}
        for function in (operation.apply, operation.apply_in_place):
            replacements[id(function)] = function, _on_device_of_inputs(function)
        ops = sys.modules["disttorch.ops"]
        elementwise = sys.modules["disttorch.ops.elementwise"]
        _exchange.put(replacements, (ops.FUNCTIONS, ops.METHODS, elementwise.OPERATORS, elementwise.IN_PLACE))
        for name in ("_collect", "_fill_missing", "_fit", "_look_for_nan", "_run_hooks", "_run_node_hooks"):
            _exchange.attribute(engine, name, _on_device_of_gradient(getattr(engine, name), _GRADIENT_AT[name]))
        _exchange.attribute(engine, "add_there", _on_device_of_gradient(engine.summed, 0))
        kinds: list[type[Node]] = [Node]
        while kinds:
            kind = kinds.pop()
            kinds.extend(kind.__subclasses__())
            if "propagate" in vars(kind) and kind is not Node:
                _exchange.attribute(kind, "propagate", _on_device_of_gradient(vars(kind)["propagate"], 1))
        _exchange.attribute(AccumulateGrad, "accumulate", _accumulating(AccumulateGrad.accumulate))
        _exchange_library(for_device("cuda")[0])


def _exchange_library(xp: Any) -> None:
    """The array library's functions and the kernels, called by what is no operation itself."""
    for name, function in list(vars(xp).items()):
        if callable(function) and not isinstance(function, type):
            _exchange.attribute(vars(xp), name, _on_device_of_arrays(function))
    for name, method in list(vars(type(xp)).items()):
        if name not in _BETWEEN_DEVICES and isinstance(method, FunctionType):
            _exchange.attribute(type(xp), name, _on_device_of_arrays(method))
        elif name not in _BETWEEN_DEVICES and isinstance(method, staticmethod):
            _exchange.attribute(type(xp), name, staticmethod(_on_device_of_arrays(method.__func__)))


#: Methods of a namespace that say on which device they work.
_BETWEEN_DEVICES = set(
    """
    __init__ address_of as_strided check_device device_of from_host into_device into_host is_capturing is_pinned move on pinned random
    record_stream restride scalar shares_memory storage_of synchronize to_host
    """.split()
)
#: Which argument of the engine's functions says where they compute.
_GRADIENT_AT = {"_collect": 2, "_fill_missing": 1, "_fit": 2, "_look_for_nan": 1, "_run_hooks": 1, "_run_node_hooks": 2}


def remove() -> None:
    """Put the operations back, and forget which GPUs were used."""
    with profiler.interrupted():
        _exchange.undo()
    in_use.forget()


in_use.WHEN_SEVERAL.append(install)


# --- which functions -----------------------------------------------------------------------------------------------------


def _operations() -> dict[int, tuple[str, Callable[..., Any]]]:
    """The functions that compute with tensors: their names and themselves, by identity."""
    found: dict[int, tuple[str, Callable[..., Any]]] = {}
    ops = sys.modules["disttorch.ops"]
    tables: list[dict[str, Any]] = [ops.FUNCTIONS, ops.METHODS, dict(vars(Tensor))]
    for path, module in tuple(sys.modules.items()):
        if path.startswith("disttorch.ops.") and path.split(".")[2] not in _NO_FAMILIES:
            names = {n: f for n, f in vars(module).items() if n[0] != "_"}
            tables.append({n: f for n, f in names.items() if str(getattr(f, "__module__", "")).startswith("disttorch.ops.")})
        elif path.startswith("disttorch."):
            tables.append({n: f for n, f in vars(module).items() if type(f) is FunctionType and "computes_with_arrays" in f.__dict__})
    for table in tables:
        for name, function in table.items():
            if type(function) is FunctionType and name not in _LEFT_ALONE:
                found.setdefault(id(function), (name, function))
    return found


# --- what comes in their places ------------------------------------------------------------------------------------------


def _guard(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    return _setting(function) if name in ("__setitem__", "setitem") else _on_device_of_tensors(name, function)


def _on_device_of_tensors(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    several = name in _OF_SEVERAL
    shown = function.__name__.strip("_") if name.startswith("__") else name

    @functools.wraps(function)
    def there(*args: Any, **options: Any) -> Any:
        if not options:
            array = _common(shown, args, several)
        elif options.get("device") is not None:
            array = None  # it goes where it was told
        else:
            array = _common(shown, (*args, *options.values()), several)
        if array is None:
            return function(*args, **options)
        with _device_of(array):
            return function(*args, **options)

    return there


def _on_device_of_inputs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of `apply` and `apply_in_place`, which are told the operation."""

    @functools.wraps(function)
    def there(which: operation.Operation, *inputs: Tensor | None, **params: Any) -> Any:
        array = _common(which.name, inputs, False)
        if array is None:
            return function(which, *inputs, **params)
        with _device_of(array):
            return function(which, *inputs, **params)

    return there


def _setting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of ``x[index] = value``, whose value may come from another device."""

    @functools.wraps(function)
    def there(input: Tensor, index: Any, value: Any) -> None:
        array = _common("setitem", (input, index), False)
        if array is None:
            return function(input, index, value)
        if isinstance(value, Tensor) and value.device != input.device and value.is_cuda:
            value = value.to(input.device)
        with _device_of(array):
            return function(input, index, value)

    return there


def _on_device_of_gradient(function: Callable[..., Any], place: int) -> Callable[..., Any]:
    """Of functions of the engine: the argument in a place is an array, a tensor, or a list of them with None among them."""

    @functools.wraps(function)
    def there(*args: Any) -> Any:
        array = _first(args[place])
        if array is None:
            return function(*args)
        with _device_of(array):
            return function(*args)

    return there


def _on_device_of_arrays(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of functions of arrays, or lists of them, among other things."""

    def there(*args: Any, **options: Any) -> Any:
        array = _first(args)
        if array is None:
            return function(*args, **options)
        with _device_of(array):
            return function(*args, **options)

    if hasattr(function, "nin"):  # by this an elementwise function is known that takes ``out=``
        there.__dict__["nin"] = function.nin
    return there


def _accumulating(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of the end of a gradient, which must lie where its leaf does."""

    @functools.wraps(function)
    def there(self: AccumulateGrad, gradient: Any, is_fresh: bool) -> None:
        array, leaf = _first(gradient), self.leaf()
        here = None if leaf is None else _on_gpu(_elements.__get__(leaf))
        if leaf is not None and _number(array) != _number(here):
            found = "cpu" if array is None else f"cuda:{_number(array)}"
            raise RuntimeError(f"{self.name()}: the gradient of a leaf on {leaf.device} was computed on {found}")
        if array is None:
            return function(self, gradient, is_fresh)
        with _device_of(array):
            return function(self, gradient, is_fresh)

    return there


def _common(name: str, values: Iterable[Any], several: bool) -> Any:
    """Of the tensors among values, or in sequences of them, an array on a GPU; None if there is none.

    Raises
    ------
    RuntimeError
        If they lie on different GPUs, unless there may be `several`.
    """
    found: Any = None
    for value in values:
        if isinstance(value, Tensor):
            array = _on_gpu(_elements.__get__(value))  # that of a lazy module's parameter, too, which cannot be asked for
        elif value.__class__ in (tuple, list):
            array = _common(name, value, several)
        else:
            continue
        if array is None:
            continue
        if found is None:
            found = array
        elif not several and _number(array) != _number(found):
            refuse_devices(name, [f"cuda:{_number(a)}" for a in (found, array)])
    return found


def _first(gradient: Any) -> Any:
    """The array on a GPU, if there is one, of what the engine handles."""
    if isinstance(gradient, (list, tuple)):
        return next((array for g in gradient if g is not None and (array := _first(g)) is not None), None)
    return _on_gpu(gradient._array if isinstance(gradient, Tensor) else gradient)


def _on_gpu(array: Any) -> Any:
    """An array of a GPU itself; None for others."""
    while isinstance(array, BatchedArray):
        array = array.value
    return None if NAMESPACES.get(array.__class__, cpu) is cpu else array


def _number(array: Any) -> int | None:
    return None if array is None else array.data.device_id


def _device_of(array: Any) -> Any:
    """The device of an array as the current one, in a with-block."""
    xp = NAMESPACES[array.__class__]
    return xp.on(xp.device_of(array))
