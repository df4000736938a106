"""What PyTorch's pickles name, and what is made of it: the table `KNOWN` of all names that a file may have."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

from ..autograd.variable import Tensor, wrap
from ..backend import cpu, device, namespace
from ..backend.dtypes import PUBLIC_DTYPES, as_dtype, uint8
from ..ops.creation import require_grad
from ..ops.dims import Size
from .container import FileError
from .objects import PlainObject
from .unpickle import Name, Unfinished

__all__ = ["KNOWN", "STORAGES", "Storage", "as_parameter", "finished", "is_parameter"]

#: PyTorch's classes of memory by the type of their elements; None for memory without a type
STORAGES: dict[str, str | None] = {
    "torch.DoubleStorage": "float64", "torch.FloatStorage": "float32", "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16", "torch.LongStorage": "int64", "torch.IntStorage": "int32", "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8", "torch.ByteStorage": "uint8", "torch.BoolStorage": "bool",
    "torch.ComplexDoubleStorage": "complex128", "torch.ComplexFloatStorage": "complex64",
    "torch.storage.UntypedStorage": None, "torch.UntypedStorage": None,
}  # fmt: skip


class Storage(NamedTuple):
    """A block of memory where it shall be, flat, and where in it this storage begins."""

    array: Any
    offset: int = 0  # bytes


def _strided(storage: Storage, offset: int, size: Any, stride: Any, dtype: Any) -> Tensor:
    """A view of a storage; elements beyond its end are an error."""
    d = dtype.numpy
    steps = [s * (n - 1) for s, n in zip(stride, size, strict=True)]
    if not all(type(n) is int and n >= 0 for n in (*size, *stride, offset)):
        raise ValueError(f"a tensor of size {size} and stride {stride} at {offset}")
    begin = storage.offset + offset * d.itemsize
    if 0 not in size and begin + (sum(steps) + 1) * d.itemsize > storage.array.nbytes:
        raise FileError(f"is damaged: a tensor of size {list(size)} and stride {list(stride)} does not fit into its storage")
    flat = storage.array
    if flat.dtype != d:  # of a storage without a type, or the view of another
        flat = flat.view(uint8.numpy)
        flat = flat[: flat.size // d.itemsize * d.itemsize].view(d)
    strides = tuple(s * d.itemsize for s in stride)
    if 0 in size:
        xp = namespace(flat)
        with xp.on(xp.device_of(flat)):
            return wrap(xp.restride(flat, tuple(size), strides) if flat.size else xp.zeros(tuple(size), d))
    array = namespace(flat).restride(flat, tuple(size), strides, begin)
    if any(s == 0 and n > 1 for s, n in zip(stride, size)) and hasattr(array.flags, "writeable"):
        array.flags.writeable = False  # an expanded tensor, in which one element is many
    return wrap(array)


def _tensor(
    storage: Storage, offset: int, size: Any, stride: Any, requires_grad: bool = False, hooks: Any = None, metadata: Any = None
) -> Tensor:
    return _typed_tensor(storage, offset, size, stride, requires_grad, hooks, as_dtype(storage.array.dtype), metadata)


def _typed_tensor(
    storage: Storage, offset: int, size: Any, stride: Any, requires_grad: bool, hooks: Any, dtype: Any, metadata: Any = None
) -> Tensor:
    if not isinstance(storage, Storage):
        raise TypeError(f"a tensor on {type(storage).__name__}")
    tensor = _strided(storage, offset, size, stride, as_dtype(dtype))
    for change in ("conj", "neg"):  # marks of PyTorch's for what is still to be computed
        if metadata and metadata.get(change):
            xp = namespace(tensor._array)
            tensor = wrap(xp.conjugate(tensor._array) if change == "conj" else xp.negative(tensor._array))
    return require_grad(tensor, bool(requires_grad))


def is_parameter(tensor: Tensor) -> bool:
    """Whether a tensor is an ``nn.Parameter``; without loading nn, for then it is none."""
    return type(tensor) is not Tensor and any(c.__name__ == "Parameter" for c in type(tensor).__mro__)


def as_parameter(data: Tensor, requires_grad: bool, hooks: Any = None, state: Any = None) -> Tensor:
    """An ``nn.Parameter`` on a tensor's memory."""
    from ..nn.parameter import Parameter

    return Parameter(data.detach(), bool(requires_grad))


def _of_type(function: Name, kind: Any, arguments: tuple, state: Any = None) -> Any:
    if not isinstance(function, Name) or function.make is None:
        raise TypeError(f"{function!r} makes no tensor")
    made = function.make(*arguments)
    if isinstance(state, dict) and state.get("_is_buffer"):
        from ..nn.parameter import Buffer

        return Buffer(made, bool(state.get("persistent", True)))
    return made


def _size(dims: Any = ()) -> Size:
    return Size(dims)


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"bytes as {encoding}")
    return text.encode("latin1")


def _default_dict(factory: Any = None, *items: Any) -> defaultdict:
    return defaultdict(_FACTORIES[factory.name] if isinstance(factory, Name) else None, *items)


_FACTORIES: dict[str, Any] = {"list": list, "dict": dict, "int": int, "float": float, "set": set, "tuple": tuple, "str": str, "bool": bool}

# --- NumPy's arrays and scalars, which checkpoints have beside tensors -------------------------------------------------


class _ArrayType(Unfinished):
    """NumPy's dtype, with its byte order."""

    def __init__(self, code: str, align: Any = False, copy: Any = True):
        self.dtype = as_dtype(code).numpy

    def build(self, state: Any) -> None:
        if state[1] in (">", "<"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array(Unfinished):
    """An array that becomes itself when its shape, type and bytes are known."""

    def __init__(self, kind: Any, shape: Any, code: Any):
        self.value: Any = None

    def build(self, state: Any) -> None:
        _, shape, of, by_columns, data = state
        array = cpu.array(cpu.ndarray(tuple(shape), of.dtype, buffer=data, order="F" if by_columns else "C"))
        self.value = array.astype(of.dtype.newbyteorder("="))


def _scalar(of: _ArrayType, data: bytes) -> Any:
    return cpu.ndarray((), of.dtype, buffer=data).astype(of.dtype.newbyteorder("="))[()]


def finished(value: Any) -> Any:
    """A value with its arrays in the places of what stood for them."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, PlainObject):
        return value.finish(finished)
    if isinstance(value, _ArrayType):
        return value.dtype
    if isinstance(value, Storage):  # a storage by itself
        return wrap(value.array[value.offset // value.array.itemsize :])
    if isinstance(value, dict):
        for k in list(value):
            if isinstance(k, Unfinished):
                raise FileError("is refused: an object with attributes is the key of a dict; nothing was run")
            value[k] = finished(value[k])
        return value
    if type(value) in (list, tuple):
        return type(value)(finished(v) for v in value)
    return value


def _called(functions: dict[str, Callable[..., Any]]) -> dict[str, Name]:
    return {name: Name(name, make) for name, make in functions.items()}


#: From the names in a file to what stands for them.
KNOWN: dict[str, Any] = {
    **_called({
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_tensor_v3": _typed_tensor,
        "torch._utils._rebuild_parameter": as_parameter,
        "torch._utils._rebuild_parameter_with_state": as_parameter,
        "torch._tensor._rebuild_from_type_v2": _of_type,
        "torch.Size": _size,
        "torch.device": device,
        "collections.OrderedDict": OrderedDict,
        "collections.Counter": Counter,
        "collections.defaultdict": _default_dict,
        "_codecs.encode": _encode,
        "numpy.dtype": _ArrayType,
    }),
    **{f"{m}.scalar": Name("numpy scalar", _scalar) for m in ("numpy.core.multiarray", "numpy._core.multiarray")},
    **{f"{m}._reconstruct": Name("numpy array", _Array) for m in ("numpy.core.multiarray", "numpy._core.multiarray")},
    **{f"{m}.{t}": Name(t, make) for m in ("__builtin__", "builtins") for t, make in
       {**_FACTORIES, "set": set, "frozenset": frozenset, "complex": complex, "bytearray": bytearray, "slice": slice}.items()},
    # protocol 2 says what Python 2 called them
    "__builtin__.long": Name("int", int), "__builtin__.unicode": Name("str", str),
    **{name: Name(name) for name in ("numpy.ndarray", "torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter",
                                     "torch.nn.parameter.Buffer")},
    **{f"torch.{name}": d for name, d in PUBLIC_DTYPES.items()},
    **{name: Name(name) for name in STORAGES},
}  # fmt: skip
