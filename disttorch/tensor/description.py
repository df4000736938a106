"""What a tensor is: its shape, dtype, device and text."""

from __future__ import annotations

from typing import Any

from ..autograd.graph import AccumulateGrad
from ..autograd.variable import Tensor
from ..autograd.views import base_of
from ..backend import namespace
from ..backend.dtypes import DTYPES
from ..ops import complex_numbers, shape
from ..ops.dims import Size, normal_dim
from ..printing import tensor_repr
from .attach import add_property, method

add_property("shape", lambda self: Size(self._array.shape), "The size of each dimension.")
add_property("ndim", lambda self: self._array.ndim, "How many dimensions there are.")
add_property("dtype", lambda self: DTYPES[self._array.dtype], "The type of the elements.")
add_property("device", lambda self: namespace(self._array).device_of(self._array), "Where the elements are.")
add_property("is_cuda", lambda self: self.device.type == "cuda", "Whether they are on a GPU.")
add_property("is_leaf", lambda self: self._node is None or self._node.__class__ is AccumulateGrad, "Whether no recorded operation made it.")
add_property("real", complex_numbers.real, "The real part, a view.", lambda self, value: complex_numbers.real(self).copy_(value))
add_property("imag", complex_numbers.imag, "The imaginary part, a view.", lambda self, value: complex_numbers.imag(self).copy_(value))
add_property("itemsize", lambda self: self._array.itemsize, "Bytes an element.")
add_property("nbytes", lambda self: self._array.nbytes, "Bytes of all elements.")
add_property(
    "T",
    lambda self: shape.transpose(self, 0, 1) if self._array.ndim == 2 else shape.permute(self, tuple(reversed(range(self.ndim)))),
    "Dimensions in reverse order.",
)
add_property("mT", lambda self: _matrices(self, "mT").transpose(-2, -1), "The last two dimensions exchanged.")
add_property("mH", lambda self: shape.views.adjoint(_matrices(self, "mH")), "The last two dimensions exchanged, and conjugated.")
add_property("H", lambda self: _hermitian(self), "The conjugate of a matrix, transposed.")
add_property("_base", lambda self: None if self._view is None else base_of(self), "Of a view, the tensor it is a view of.")


def _matrices(x: Tensor, name: str) -> Tensor:
    if x._array.ndim < 2:
        raise RuntimeError(f"tensor.{name} is only supported on matrices or batches of matrices. Got {x._array.ndim}-D tensor.")
    return x


def _hermitian(x: Tensor) -> Tensor:
    if x._array.ndim not in (0, 2):
        raise RuntimeError(f"tensor.H is only supported on matrices (2-D tensors). Got {x._array.ndim}-D tensor.")
    return shape.views.adjoint(x) if x._array.ndim else x.conj()


@method
def size(self: Tensor, dim: int | None = None) -> Any:
    """The shape, or the size of one dimension."""
    if dim is None:
        return Size(self._array.shape)
    return self._array.shape[normal_dim(dim, self._array.ndim, "size")]


@method
def dim(self: Tensor) -> int:
    """How many dimensions there are."""
    return self._array.ndim


@method
def numel(self: Tensor) -> int:
    """How many elements there are."""
    return self._array.size


setattr(Tensor, "nelement", numel)  # noqa: B010
setattr(Tensor, "ndimension", dim)  # noqa: B010


@method
def is_same_size(self: Tensor, other: Tensor) -> bool:
    """Whether another tensor has the same shape."""
    return self._array.shape == other._array.shape


@method
def get_device(self: Tensor) -> int:
    """The number of the tensor's GPU; -1 on the CPU."""
    where = namespace(self._array).device_of(self._array)
    return -1 if where.index is None else where.index


@method
def element_size(self: Tensor) -> int:
    """Bytes an element."""
    return self._array.itemsize


@method
def is_floating_point(self: Tensor) -> bool:
    """Whether the elements are floating point."""
    return self.dtype.is_floating_point


@method
def is_complex(self: Tensor) -> bool:
    """Whether the elements are complex."""
    return self.dtype.is_complex


@method
def __len__(self: Tensor) -> int:
    if not self._array.ndim:
        raise TypeError("len() of a 0-d tensor")
    return self._array.shape[0]


@method
def __iter__(self: Tensor) -> Any:
    if not self._array.ndim:
        raise TypeError("iteration over a 0-d tensor")
    return iter([self[i] for i in range(self._array.shape[0])])


@method
def __reversed__(self: Tensor) -> Tensor:
    return shape.flip(self, 0) if self._array.ndim else self


@method
def __contains__(self: Tensor, element: Any) -> bool:
    if not isinstance(element, (Tensor, int, float, complex)):
        raise RuntimeError(f"Tensor.__contains__ only supports Tensor or scalar, but you passed in a {type(element)}.")
    found: Any = self == element
    return bool(found.any())


@method
def __repr__(self: Tensor) -> str:
    return tensor_repr(self)


@method
def __format__(self: Tensor, spec: str) -> str:
    return format(self.item(), spec) if self._array.ndim == 0 else object.__format__(self, spec)
