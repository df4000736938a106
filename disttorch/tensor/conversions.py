"""A tensor in another dtype, on another device, and new tensors like it."""

from __future__ import annotations

from typing import Any

from ..autograd.variable import Tensor
from ..backend import as_device
from ..backend import dtypes as dt
from ..ops import conversion, creation, indexing
from ..ops.linalg import norms
from .attach import method


@method
def cpu(self: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor on the CPU."""
    return conversion.to(self, device="cpu", memory_format=memory_format)


@method
def cuda(self: Tensor, device: Any = None, non_blocking: bool = False, memory_format: Any = None) -> Tensor:
    """The tensor on a GPU, the current one unless given.

    Raises
    ------
    RuntimeError
        If the device is no GPU.
    """
    if device is not None and as_device(device).type != "cuda":
        raise RuntimeError(f"Invalid device, must be cuda device, but got {device!r}")
    return conversion.to(self, device="cuda" if device is None else device, non_blocking=non_blocking, memory_format=memory_format)


@method
def type_as(self: Tensor, other: Tensor) -> Tensor:
    """The tensor in another's dtype and on its device."""
    return conversion.to(self, other)


for _name, _dtype in {
    "half": "float16", "bfloat16": "bfloat16", "float": "float32", "double": "float64", "byte": "uint8", "char": "int8",
    "short": "int16", "int": "int32", "long": "int64", "bool": "bool", "cfloat": "complex64", "cdouble": "complex128",
}.items():  # fmt: skip

    def _converter(self: Tensor, memory_format: Any = None, _dtype: str = _dtype) -> Tensor:
        return conversion.to(self, dtype=dt.PUBLIC_DTYPES[_dtype], memory_format=memory_format)

    _converter.__name__, _converter.__doc__ = _name, f"The tensor in {_dtype}."
    setattr(Tensor, _name, _converter)


@method
def new_tensor(self: Tensor, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor with a copy of data, in this tensor's dtype and on its device unless given."""
    return creation.tensor(
        data,
        dtype=self.dtype if dtype is None else dtype,
        device=self.device if device is None else device,
        requires_grad=requires_grad,
    )


@method
def norm(self: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
    """The p-norm of the elements over some dimensions or all; as ``torch.Tensor.norm``."""
    return norms.torch_norm(self, p, dim, keepdim, dtype=dtype)


@method
def where(self: Tensor, condition: Tensor, other: Any) -> Tensor:
    """This tensor's elements where the condition is true, else the other's."""
    return indexing.where(condition, self, other)
