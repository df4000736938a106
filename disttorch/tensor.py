"""The Tensor class's methods: a thin face over ops/, made from tables.

A method with the name of a function is that function; an in-place twin is the function's with an underscore.
"""

from __future__ import annotations

import builtins
import copy as copying
from collections.abc import Callable
from typing import Any

from .autograd.differentiate import backward
from .autograd.graph import AccumulateGrad, Node, Pick, RemovableHandle, retain_gradient
from .autograd.variable import Tensor, wrap
from .autograd.views import base_of
from .backend import dtypes as dt
from .backend import namespace
from .backend.dtypes import DTYPES
from .ops import METHODS, conversion, creation, indexing, linear, pointwise, shape
from .ops.dims import Size, normal_dim
from .ops.elementwise import OPERATORS
from .printing import tensor_repr

__all__ = ["Tensor"]

# --- methods that are functions ------------------------------------------------------------------------------------

for _name, _function in METHODS.items():
    setattr(Tensor, _name, _function)


# --- operators ------------------------------------------------------------------------------------------------------


def _swapped(function: Callable) -> Callable:
    return lambda self, other: function(other, self)


_OPERATORS: dict[str, Callable] = {
    "__add__": pointwise._add,
    "__sub__": pointwise._sub,
    "__mul__": pointwise.mul,
    "__truediv__": pointwise._div,
    "__floordiv__": pointwise.floor_divide,
    "__mod__": pointwise.remainder,
    "__pow__": pointwise.pow,
    "__matmul__": linear.matmul,
    "__and__": pointwise.bitwise_and,
    "__or__": pointwise.bitwise_or,
    "__xor__": pointwise.bitwise_xor,
    "__lshift__": pointwise.bitwise_left_shift,
    "__rshift__": pointwise.bitwise_right_shift,
}
for _name, _function in _OPERATORS.items():
    _operator = OPERATORS.get(_function, _function)
    setattr(Tensor, _name, _operator)
    setattr(Tensor, f"__r{_name[2:]}", _swapped(_operator))
    _in_place = {"__matmul__": None, "__floordiv__": "floor_divide_", "__mod__": "remainder_", "__truediv__": "div_"}.get(
        _name, f"{getattr(_function, '__name__', '')}_"
    )
    if _in_place:
        setattr(Tensor, f"__i{_name[2:]}", getattr(Tensor, _in_place))
for _name in "eq ne lt le gt ge".split():
    setattr(Tensor, f"__{_name}__", OPERATORS[getattr(pointwise, _name)])
for _name, _attribute in {
    "__neg__": pointwise.neg,
    "__pos__": pointwise.positive,
    "__abs__": pointwise.abs,
    "__invert__": lambda self: (
        pointwise.logical_not(self) if self._array.dtype == dt.bool_.numpy else pointwise.bitwise_not(self)
    ),
    "__getitem__": indexing.getitem,
    "__setitem__": indexing.setitem,
    "__hash__": object.__hash__,
    "__array_priority__": 1000,  # NumPy leaves mixed expressions to us
}.items():
    setattr(Tensor, _name, _attribute)


# --- what a tensor is ------------------------------------------------------------------------------------------------


def method(function: Any) -> Any:
    """Attach a function to Tensor."""
    setattr(Tensor, function.__name__, function)
    return function


def _property(name: str, get: Callable[[Tensor], Any], doc: str, put: Callable[[Tensor, Any], None] | None = None) -> None:
    setattr(Tensor, name, property(get, put, doc=doc))


_property("shape", lambda self: Size(self._array.shape), "The size of each dimension.")
_property("ndim", lambda self: self._array.ndim, "How many dimensions there are.")
_property("dtype", lambda self: DTYPES[self._array.dtype], "The type of the elements.")
_property("device", lambda self: namespace(self._array).device_of(self._array), "Where the elements are.")
_property("is_cuda", lambda self: namespace(self._array).name == "cuda", "Whether they are on a GPU.")
_property("is_leaf", lambda self: self._node is None or self._node.__class__ is AccumulateGrad, "Whether no recorded operation made it.")
_property("real", lambda self: pointwise.real(self) if self.dtype.is_complex else self, "The real part.")
_property("imag", lambda self: pointwise.imag(self), "The imaginary part.")
_property("itemsize", lambda self: self._array.itemsize, "Bytes an element.")
_property("nbytes", lambda self: self._array.nbytes, "Bytes of all elements.")
_property(
    "T",
    lambda self: shape.transpose(self, 0, 1) if self._array.ndim == 2 else shape.permute(self, tuple(reversed(range(self.ndim)))),
    "Dimensions in reverse order.",
)
_property("mT", lambda self: shape.transpose(self, -2, -1), "The last two dimensions exchanged.")
_property("_base", lambda self: None if self._view is None else base_of(self), "Of a view, the tensor it is a view of.")


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


@method
def element_size(self: Tensor) -> int:
    """Bytes an element."""
    return self._array.itemsize


@method
def stride(self: Tensor, dim: int | None = None) -> Any:
    """Elements from one index to the next in memory, for each dimension or one."""
    strides = tuple(s // self._array.itemsize for s in self._array.strides)
    return strides if dim is None else strides[dim]


@method
def is_contiguous(self: Tensor, memory_format: Any = None) -> bool:
    """Whether the elements lie in C order without gaps."""
    return self._array.flags.c_contiguous


@method
def data_ptr(self: Tensor) -> int:
    """The address of the first element."""
    a = self._array
    return a.data.ptr if namespace(a).name == "cuda" else a.__array_interface__["data"][0]


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
def __contains__(self: Tensor, element: Any) -> bool:
    return bool((self == element).any())


@method
def __repr__(self: Tensor) -> str:
    return tensor_repr(self)


@method
def __format__(self: Tensor, spec: str) -> str:
    return format(self.item(), spec) if spec and self._array.ndim == 0 else format(repr(self), spec)


# --- elements as Python's and NumPy's ---------------------------------------------------------------------------------


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
    value = self._array.item()
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
        if xp.name != "cpu":
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
def __dlpack__(self: Tensor, **options: Any) -> Any:
    if self._node is not None:
        raise BufferError("can't export tensors that require gradient, use tensor.detach()")
    return self._array.__dlpack__(**options)


@method
def __dlpack_device__(self: Tensor) -> tuple[int, int]:
    return self._array.__dlpack_device__()


def _cuda_interface(self: Tensor) -> Any:
    if namespace(self._array).name != "cuda":
        raise AttributeError("__cuda_array_interface__ is for tensors on a GPU")
    return self._array.__cuda_array_interface__


_property("__cuda_array_interface__", _cuda_interface, "For CuPy, Numba and others, without a copy.")


@method
def cpu(self: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor on the CPU."""
    return conversion.to(self, device="cpu")


@method
def cuda(self: Tensor, device: Any = None, non_blocking: bool = False) -> Tensor:
    """The tensor on a GPU, the current one unless given."""
    return conversion.to(self, device="cuda" if device is None else device)


@method
def type(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """The tensor in another dtype; without one, the name of its type."""
    return str(self.dtype) if dtype is None else conversion.to(self, dtype=dtype)


@method
def type_as(self: Tensor, other: Tensor) -> Tensor:
    """The tensor in another's dtype."""
    return conversion.to(self, dtype=other.dtype)


for _name, _dtype in {
    "half": "float16", "bfloat16": "bfloat16", "float": "float32", "double": "float64", "byte": "uint8", "char": "int8",
    "short": "int16", "int": "int32", "long": "int64", "bool": "bool", "cfloat": "complex64", "cdouble": "complex128",
}.items():  # fmt: skip

    def _converter(self: Tensor, memory_format: Any = None, _dtype: str = _dtype) -> Tensor:
        return conversion.to(self, dtype=dt.PUBLIC_DTYPES[_dtype])

    _converter.__name__, _converter.__doc__ = _name, f"The tensor in {_dtype}."
    setattr(Tensor, _name, _converter)


def _new_filled(name: str, maker: Callable) -> Callable:
    def function(self: Tensor, *size: Any, **options: Any) -> Tensor:
        options.setdefault("dtype", self.dtype)
        options.setdefault("device", self.device)
        return maker(*size, **options)

    function.__name__, function.__doc__ = f"new_{name}", f"`{name}` in this tensor's dtype and on its device."
    return function


for _name in "zeros ones empty full".split():
    setattr(Tensor, f"new_{_name}", _new_filled(_name, getattr(creation, _name)))


@method
def new_tensor(self: Tensor, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor with a copy of data, in this tensor's dtype and on its device unless given."""
    return creation.tensor(data, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad)


@method
def view_as(self: Tensor, other: Tensor) -> Tensor:
    """`view` in another tensor's shape."""
    return shape.view(self, other._array.shape)


@method
def reshape_as(self: Tensor, other: Tensor) -> Tensor:
    """`reshape` to another tensor's shape."""
    return shape.reshape(self, other._array.shape)


@method
def where(self: Tensor, condition: Tensor, other: Any) -> Tensor:
    """This tensor's elements where the condition is true, else the other's."""
    return indexing.where(condition, self, other)


@method
def share_memory_(self: Tensor) -> Tensor:
    """Accepted as in PyTorch: arrays are shared with worker processes when they are sent to them."""
    return self


# --- gradients ------------------------------------------------------------------------------------------------------

_property(
    "grad_fn",
    lambda self: (
        None
        if self._node is None or self._node.__class__ is AccumulateGrad
        else (self._node.edges[0] if isinstance(self._node, Pick) else self._node)
    ),
    "The node that computed this tensor; None for leaves.",
)
_property("retains_grad", lambda self: self._retains_grad, "Whether `retain_grad` was called on a tensor that is no leaf.")
_property("_version_count", lambda self: 0 if self._version is None else self._version[0], "How often it was changed in place.")


def _set_requires_grad(self: Tensor, value: bool) -> None:
    creation.require_grad(self, value)


def _set_grad(self: Tensor, value: Tensor | None) -> None:
    if value is not None:
        if not isinstance(value, Tensor):
            raise TypeError(f"assigned grad expected to be a Tensor or None but got {builtins.type(value).__name__}")
        if value._array.shape != self._array.shape:
            raise RuntimeError(f"assigned grad has data of a different size: {list(value.shape)} for a tensor of {list(self.shape)}")
        if value._array.dtype != self._array.dtype:
            raise RuntimeError(f"assigned grad has data of a different type: {value.dtype} for a tensor of {self.dtype}")
        if namespace(value._array) is not namespace(self._array):
            raise RuntimeError(f"assigned grad has data located on a different device: {value.device} for a tensor on {self.device}")
    self._grad = value


def _set_data(self: Tensor, value: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"Variable data has to be a tensor, but got {builtins.type(value).__name__}")
    self._array = value._array
    if self._node.__class__ is AccumulateGrad:
        self._node.shape, self._node.dtype = self._array.shape, self._array.dtype


_property("requires_grad", lambda self: self._node is not None, "Whether its gradient is computed.", _set_requires_grad)
_property("grad", lambda self: self._grad, "The gradient that backward has added up for this leaf, or None.", _set_grad)
_property("data", lambda self: wrap(self._array), "The same memory without the graph; changes go unnoticed.", _set_data)


@method
def requires_grad_(self: Tensor, requires_grad: bool = True) -> Tensor:
    """Let this leaf ask for its gradient, or stop asking."""
    return creation.require_grad(self, requires_grad)


def _backward(
    self: Tensor, gradient: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False, inputs: Any = None
) -> None:
    """Add the gradients of this tensor to the leaves' ``.grad``; see `disttorch.autograd.backward`."""
    backward(self, gradient, retain_graph, create_graph, inputs)


setattr(Tensor, "backward", _backward)  # noqa: B010 - the name is taken by the function


@method
def retain_grad(self: Tensor) -> None:
    """Keep the gradient of this tensor, which is no leaf, in its ``.grad``.

    Raises
    ------
    RuntimeError
        If it requires no gradient.
    """
    if self._node is None:
        raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
    if self._node.__class__ is not AccumulateGrad and not self._retains_grad:
        retain_gradient(self)
        self._retains_grad = True


@method
def register_hook(self: Tensor, hook: Callable) -> RemovableHandle:
    """Call ``hook(grad)`` whenever this tensor's gradient is computed; what it returns, if not None, replaces it.

    Raises
    ------
    RuntimeError
        If the tensor requires no gradient.
    """
    if self._node is None:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    return self._node.add_hook("hooks", hook)


@method
def register_post_accumulate_grad_hook(self: Tensor, hook: Callable) -> RemovableHandle:
    """Call ``hook(tensor)`` after the gradient of this leaf has been added to its ``.grad``.

    Raises
    ------
    RuntimeError
        If it is no leaf that requires a gradient.
    """
    node: Node | None = self._node
    if not isinstance(node, AccumulateGrad):
        raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
    return node.add_hook("post_hooks", hook)


@method
def __deepcopy__(self: Tensor, memo: dict) -> Tensor:
    if self._node is not None and self._node.__class__ is not AccumulateGrad:
        raise RuntimeError("Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the moment.")
    if id(self) in memo:
        return memo[id(self)]
    result = Tensor.__new__(self.__class__)
    result._array = namespace(self._array).array(self._array)
    result._node = result._grad = result._version = result._view = None
    memo[id(self)] = result
    result.__dict__.update(copying.deepcopy(self.__dict__, memo))
    if self._node is not None:
        creation.require_grad(result, True)
    if self._grad is not None:
        result._grad = copying.deepcopy(self._grad, memo)
    return result


@method
def __reduce__(self: Tensor) -> tuple:
    if self._node is not None and self._node.__class__ is not AccumulateGrad:
        raise RuntimeError("only leaf tensors can be pickled; use detach()")
    host = namespace(self._array).to_host(self._array)
    return _rebuild, (self.__class__, host, str(self.device), self._node is not None)


def _rebuild(cls: Any, host: Any, where: str, requires_grad: bool) -> Tensor:
    moved = creation.as_tensor(host, device=where)
    result = Tensor.__new__(cls)
    result._array = moved._array
    result._node = result._grad = result._version = result._view = None
    return creation.require_grad(result, requires_grad)


def is_tensor(obj: Any) -> bool:
    """Whether an object is a Tensor."""
    return isinstance(obj, Tensor)

