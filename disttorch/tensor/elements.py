"""The elements of a tensor as Python's numbers, NumPy's arrays and other libraries' arrays."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from importlib import import_module
from typing import Any

from ..autograd.operation import check_in_place
from ..autograd.variable import Tensor, bump_version, wrap
from ..backend import cpu, dlpack, namespace
from ..backend import dtypes as dt
from .attach import add_property, method


@method
def item(self: Tensor) -> Any:
    """The one element as a Python number.

    Raises
    ------
    RuntimeError
        If there are more, or none.
    """
    if self._array.size != 1:
        raise RuntimeError(f"a Tensor with {self._array.size} elements cannot be converted to Scalar")
    xp = namespace(self._array)
    value = (xp.to_host(self._array) if xp.name == "cuda" else self._array).item()
    return float(value) if self.dtype is dt.bfloat16 else value


@method
def tolist(self: Tensor) -> Any:
    """The elements as nested lists of Python numbers."""
    a = namespace(self._array).to_host(self._array)
    return (a.astype(dt.float32.numpy) if self.dtype is dt.bfloat16 else a).tolist()


def _number(convert: Callable) -> Callable:
    return lambda self: convert(self.item())


@method
def __bool__(self: Tensor) -> bool:
    if self._array.size != 1:
        which = "more than one value" if self._array.size else "no values"
        raise RuntimeError(f"Boolean value of Tensor with {which} is ambiguous; its shape is {list(self._array.shape)}")
    return builtins.bool(self._array.item())


@method
def is_nonzero(self: Tensor) -> bool:
    """Whether the one element is not zero."""
    return __bool__(self)


for _name, _convert in {"__float__": float, "__int__": int, "__complex__": complex}.items():
    setattr(Tensor, _name, _number(_convert))


@method
def __index__(self: Tensor) -> int:
    if self._array.dtype not in dt.INTEGRAL:
        raise TypeError(f"only integer tensors of a single element can be converted to an index, not {self.dtype}")
    return int(self.item())


@method
def numpy(self: Tensor, *, force: bool = False) -> Any:
    """The elements as a NumPy array on the same memory; as ``torch.Tensor.numpy``.

    Parameters
    ----------
    force : bool
        Also where it takes a copy from a GPU, or the graph is left behind.

    Raises
    ------
    TypeError
        On a GPU, unless forced.
    RuntimeError
        If the tensor requires grad, unless forced.
    """
    xp = namespace(self._array)
    if not force:
        if xp.name not in ("cpu", "batched"):
            raise TypeError(
                f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
            )
        if self._node is not None:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
    return xp.to_host(self._array)


@method
def __array__(self: Tensor, dtype: Any = None, copy: bool | None = None) -> Any:
    array = numpy(self)
    if dtype is not None and array.dtype != dtype:
        if copy is False:
            raise ValueError(f"a tensor of {self.dtype} cannot be an array of {dtype} without a copy")
        return array.astype(dtype)
    return array.copy() if copy else array


@method
def __array_wrap__(self: Tensor, array: Any, context: Any = None, return_scalar: bool = False) -> Tensor:
    return wrap(cpu.asarray(array))


@method
def apply_(self: Tensor, callable: Callable[[Any], Any]) -> Tensor:
    """Replace each element, on the CPU, by what a Python function makes of it; as ``torch.Tensor.apply_``.

    Raises
    ------
    RuntimeError
        If the tensor requires grad.
    """
    return _elementwise(self, "apply_", callable, self)


@method
def map_(self: Tensor, tensor: Tensor, callable: Callable[[Any, Any], Any]) -> Tensor:
    """Replace each element by what a Python function makes of it and another tensor's; as ``torch.Tensor.map_``."""
    return _elementwise(self, "map_", callable, self, tensor)


@method
def map2_(self: Tensor, x: Tensor, y: Tensor, callable: Callable[[Any, Any, Any], Any]) -> Tensor:
    """Replace each element by what a Python function makes of it and two other tensors'; as ``torch.Tensor.map2_``."""
    return _elementwise(self, "map2_", callable, self, x, y)


def _elementwise(target: Tensor, name: str, function: Callable[..., Any], *tensors: Tensor) -> Tensor:
    for x in tensors:
        if x._node is not None:
            raise RuntimeError(f"Can't call {name}() on Variable that requires grad. Use var.detach().{name}() instead.")
        if namespace(x._array).name != "cpu":
            raise TypeError(f"{name} is only implemented on CPU tensors, not on {x.device}")
    check_in_place(name.removesuffix("_"), target)
    rows = [x.expand(target.shape).reshape(-1).tolist() for x in tensors]
    values = [function(*row) for row in zip(*rows)]
    cpu.copyto(target._array, cpu.asarray(values).reshape(target._array.shape), casting="unsafe")
    bump_version(target)
    return target


@method
def __array_namespace__(self: Tensor, *, api_version: str | None = None) -> Any:
    """The functions by the Python array API standard's names: `disttorch.array_api`."""
    if api_version not in (None, "2021.12", "2022.12", "2023.12", "2024.12"):
        raise ValueError(f"the array API standard of version {api_version!r} is not known; 2024.12 is")
    return import_module("disttorch.array_api")


@method
def to_device(self: Tensor, device: Any, /, *, stream: Any = None) -> Tensor:
    """The tensor on another device; the array API standard's name of `to`."""
    return self.to(device=device)


@method
def __dlpack__(self: Tensor, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None) -> Any:
    if self._node is not None:
        raise BufferError("can't export tensors that require gradient, use tensor.detach()")
    given = {"stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy}
    return dlpack.export(self._array, **{name: value for name, value in given.items() if value is not None})


@method
def __dlpack_device__(self: Tensor) -> tuple[int, int]:
    return self._array.__dlpack_device__()


def _cuda_interface(self: Tensor) -> Any:
    if namespace(self._array).name != "cuda":
        raise AttributeError("__cuda_array_interface__ is for tensors on a GPU")
    return self._array.__cuda_array_interface__


add_property("__cuda_array_interface__", _cuda_interface, "For CuPy, Numba and others, without a copy.")
