"""Classes that inherit from Tensor: how they are made, and that their methods give tensors of the same class.

Methods and operators of a user's subclass return instances of it. Functions of the package return plain tensors, as do
parameters: results are made without looking at classes, for that costs as much as a small addition.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..autograd.variable import Tensor, share_version
from ..ops import creation
from .attach import method
from .types import construct

#: methods whose result is, or may be, something else than a new tensor of the same kind
_AS_THEY_ARE = """
    __class__ __new__ __init__ __init_subclass__ __setattr__ __delattr__ __getattribute__ __repr__ __str__ __format__ __hash__ __reduce__
    __reduce_ex__ __deepcopy__ __setitem__ __len__ __bool__ __float__ __int__ __complex__ __index__ __array__ __dlpack__
    __dlpack_device__ __sizeof__ __dir__ __subclasshook__ __contains__ __array_wrap__ __setstate__ __getstate__ as_subclass
    _make_subclass backward numpy tolist item size stride dim
""".split()


def _as_class(tensor: Tensor, cls: Any) -> Any:
    """A tensor of a subclass that is the same tensor: memory, history and all."""
    result = object.__new__(cls)
    share_version(tensor, result)
    result._array, result._node, result._grad, result._view = tensor._array, tensor._node, tensor._grad, tensor._view
    return result


def _preserving(function: Callable[..., Any], cls: type) -> Callable[..., Any]:
    def convert(value: Any) -> Any:
        if value.__class__ is Tensor:
            return _as_class(value, cls)
        if isinstance(value, tuple) and any(v.__class__ is Tensor for v in value):
            converted = [convert(v) for v in value]
            return value._make(converted) if hasattr(value, "_make") else tuple(converted)
        return value

    @functools.wraps(function)
    def preserving(*args: Any, **options: Any) -> Any:
        return convert(function(*args, **options))

    return preserving


def _new(cls: Any, *args: Any, device: Any = None, **options: Any) -> Any:
    """``Tensor(2, 3)``: of sizes; ``Tensor([1, 2])``: of data, in the default dtype."""
    made = construct(None, device, args)
    return made if cls is Tensor else _as_class(made, cls)


def _init_subclass(cls: Any, **options: Any) -> None:
    super(Tensor, cls).__init_subclass__(**options)
    # our own subclasses, such as Parameter, give plain tensors
    if any(c is not Tensor and c.__module__.partition(".")[0] == "disttorch" for c in cls.__mro__):
        return
    inherited: dict[str, Any] = {name: value for c in reversed(cls.__mro__[1:]) for name, value in vars(c).items()}
    for name, value in inherited.items():
        if name in _AS_THEY_ARE or name in vars(cls) or not callable(value) or isinstance(value, (staticmethod, type)):
            continue
        if getattr(Tensor, name, None) is value and value is not None:
            setattr(cls, name, _preserving(value, cls))


setattr(Tensor, "__new__", staticmethod(_new))  # noqa: B010 - mypy knows no other way to replace it
setattr(Tensor, "__init_subclass__", classmethod(_init_subclass))  # noqa: B010


@method
def as_subclass(self: Tensor, cls: Any) -> Any:
    """This tensor as an instance of a subclass, on the same memory and in the same graph; as ``torch.Tensor.as_subclass``."""
    if not issubclass(cls, Tensor):
        raise TypeError(f"as_subclass: {cls!r} is no subclass of Tensor")
    return _as_class(self, cls)


def _make_subclass(cls: Any, data: Tensor, require_grad: bool = False) -> Any:
    """An instance of a subclass on a tensor's memory, outside its graph."""
    return creation.require_grad(_as_class(data.detach(), cls), require_grad)


setattr(Tensor, "_make_subclass", staticmethod(_make_subclass))  # noqa: B010
