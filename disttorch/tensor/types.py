"""Tensor types by PyTorch's old names (``FloatTensor``, ``LongTensor``, ...), and the constructor ``Tensor(...)``."""

from __future__ import annotations

from typing import Any

from ..autograd.variable import Tensor, share_version, wrap
from ..backend import dtypes as dt
from ..backend import for_device, namespace
from ..backend.dtypes import DTYPES, as_dtype
from ..ops import conversion, creation
from ..ops.dims import Size
from .attach import method

__all__ = ["TENSOR_TYPES", "TensorType", "construct"]

_NAMES = {
    "float32": "FloatTensor", "float64": "DoubleTensor", "float16": "HalfTensor", "bfloat16": "BFloat16Tensor", "uint8": "ByteTensor",
    "int8": "CharTensor", "int16": "ShortTensor", "int32": "IntTensor", "int64": "LongTensor", "bool": "BoolTensor",
    "complex64": "ComplexFloatTensor", "complex128": "ComplexDoubleTensor", "uint16": "UInt16Tensor", "uint32": "UInt32Tensor",
    "uint64": "UInt64Tensor",
}  # fmt: skip


def construct(dtype: Any, device: Any, args: tuple) -> Tensor:
    """What ``FloatTensor(...)`` makes: of sizes uninitialised memory, of a list or an array a tensor with its elements, of a
    tensor one on the same memory.

    Raises
    ------
    TypeError
        If a single argument is none of these, or a tensor of another type.
    """
    if len(args) == 1 and not isinstance(args[0], int):
        (data,) = args
        if isinstance(data, Size):
            return creation.empty(data, dtype=dtype, device=device)
        if isinstance(data, Tensor):
            if dtype is not None and data.dtype is not as_dtype(dtype):
                raise TypeError(f"expected a tensor of {as_dtype(dtype)}, got one of {data.dtype}; convert it with .to()")
            alias = wrap(data._array)
            share_version(data, alias)
            return alias
        if not hasattr(data, "__len__"):
            raise TypeError(f"new(): data must be a sequence (got {data.__class__.__name__})")
        return creation.tensor(data, dtype=dt.get_default_dtype() if dtype is None else dtype, device=device)
    return creation.empty(args or (0,), dtype=dtype, device=device)


class TensorType:
    """A dtype on a kind of device, such as ``disttorch.FloatTensor``: makes tensors, and knows them by isinstance."""

    def __init__(self, name: str, dtype: dt.dtype, device: str):
        self.name, self.dtype, self.device_type = name, dtype, device

    def __call__(self, *args: Any, device: Any = None) -> Tensor:
        return construct(self.dtype, self.device_type if device is None else device, args)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, Tensor) and type_name(instance) == self.name

    def __repr__(self) -> str:
        return f"<tensor type {self.name}>"


#: by name: "FloatTensor" for the CPU, "cuda.FloatTensor" for GPUs
TENSOR_TYPES = {
    prefix + name: TensorType(f"torch.{prefix}{name}", as_dtype(d), device)
    for prefix, device in (("", "cpu"), ("cuda.", "cuda"))
    for d, name in _NAMES.items()
}


def type_name(tensor: Tensor) -> str:
    """PyTorch's name of a tensor's type, as programs compare it."""
    prefix = "cuda." if namespace(tensor._array).name == "cuda" else ""
    return f"torch.{prefix}{_NAMES[DTYPES[tensor._array.dtype].name]}"


@method
def type(self: Tensor, dtype: Any = None, non_blocking: bool = False, **options: Any) -> Any:
    """The tensor in another dtype; without one, the name of its type, such as ``"torch.FloatTensor"``.

    Parameters
    ----------
    dtype : dtype, str or tensor type, optional
        Also by name: ``"torch.LongTensor"`` or ``"disttorch.LongTensor"``.

    Raises
    ------
    ValueError
        For a name that no type has.
    """
    if dtype is None:
        return type_name(self)
    if isinstance(dtype, str):
        short = dtype.removeprefix("disttorch.").removeprefix("torch.")
        if short == "Tensor":
            return conversion.to(self, dtype=dt.get_default_dtype())
        if short not in TENSOR_TYPES:
            raise ValueError(f"invalid type: {dtype!r}")
        dtype = TENSOR_TYPES[short]
    if dtype is Tensor:
        return conversion.to(self, dtype=dt.get_default_dtype())
    if isinstance(dtype, TensorType):
        return conversion.to(self, device=for_device(dtype.device_type)[1], dtype=dtype.dtype)
    return conversion.to(self, dtype=dtype)


@method
def new(self: Tensor, *args: Any, device: Any = None) -> Tensor:
    """A tensor of this one's type: of sizes, or of data, as ``Tensor(...)`` makes it."""
    return construct(self.dtype, self.device if device is None else device, args)
