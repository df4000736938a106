"""Tensors made from data: numbers, nested lists, arrays of any library, memory."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from ...autograd.graph import AccumulateGrad
from ...autograd.variable import Tensor, wrap
from ...backend import cpu, dlpack, for_device
from ...backend import dtypes as dt
from ...backend.dtypes import DIFFERENTIABLE, as_dtype

# What users find of this family, and where: see ops/public.py.
FUNCTIONS = "as_tensor asarray from_dlpack from_numpy frombuffer tensor"


def require_grad(tensor: Tensor, requires_grad: bool) -> Tensor:
    """Let a leaf ask for its gradient, or stop asking.

    Raises
    ------
    RuntimeError
        If its dtype has no gradient, or it is no leaf.
    """
    if requires_grad:
        if tensor._array.dtype not in DIFFERENTIABLE:
            raise RuntimeError(f"only Tensors of floating point and complex dtype can require gradients, not {tensor.dtype}")
        if tensor._node is None:
            tensor._node = AccumulateGrad(tensor)
    elif tensor._node is not None:
        if tensor._node.__class__ is not AccumulateGrad:
            raise RuntimeError(
                "you can only change requires_grad flags of leaf variables. If you want to use a computed variable in a subgraph "
                "that doesn't require differentiation use var_no_grad = var.detach()."
            )
        tensor._node = None
    return tensor


def _is_plain(data: Any) -> bool:
    """Whether data is nested lists of Python's numbers only."""
    while isinstance(data, (list, tuple)):
        if not data:
            return True
        data = data[0]
    return type(data) in (bool, int, float, complex)  # NumPy's float64 is a float too, but has a dtype to keep


def _host_array(data: Any, dtype: Any, copy: bool) -> Any:
    """Data of any kind that NumPy takes as a NumPy array of one of our dtypes."""
    plain, promoted = _is_plain(data), None
    if isinstance(data, (list, tuple)) and _has_tensors(data):
        promoted, data = _promoted(data), _without_tensors(data)
    if isinstance(data, bytearray):
        data = list(data)
    if isinstance(data, (str, bytes)):
        raise TypeError(f"new(): invalid data type '{type(data).__name__}'")
    if data is None or isinstance(data, (Set, Mapping)):
        raise RuntimeError(f"Could not infer dtype of {type(data).__name__}")
    wanted = as_dtype(dtype) if dtype is not None else promoted
    try:
        array = cpu.array(data) if copy else cpu.asarray(data)
    except ValueError as error:
        raise ValueError(f"tensor(): the data is not a rectangular block of numbers: {error}") from None
    if plain and (array.dtype.kind == "O" or (array.dtype.kind == "u" and wanted is not dt.PUBLIC_DTYPES["uint64"])):
        raise ValueError(f"tensor(): a number in {str(data)[:80]} does not fit into 64 bits")
    if wanted is None and plain:
        if array.dtype.kind == "f" or not array.size:
            wanted = dt.get_default_dtype()
        elif array.dtype.kind == "c":
            wanted = dt.get_default_dtype().to_complex()
    target = (as_dtype(array.dtype) if wanted is None else wanted).numpy
    if array.dtype == target:
        return array
    if plain and array.dtype.kind == "i" and target.kind in "iu" and array.size:
        limits = dt.iinfo(wanted)
        # -1 wraps round as in PyTorch, what is too large does not
        if int(array.max()) > limits.max or int(array.min()) < min(limits.min, -limits.max - 1):
            raise RuntimeError(f"value cannot be converted to type {wanted} without overflow")
    return array.astype(target)


def _has_tensors(data: Any) -> bool:
    return any(isinstance(d, Tensor) or (isinstance(d, (list, tuple)) and _has_tensors(d)) for d in data)


def _without_tensors(data: Any) -> Any:
    if isinstance(data, (list, tuple)):
        return [_without_tensors(d) for d in data]
    return data.tolist() if isinstance(data, Tensor) else data


def _promoted(data: Any) -> Any:
    """The dtype that holds all tensors and numbers of nested lists."""
    if isinstance(data, Tensor):
        return data.dtype
    if isinstance(data, (list, tuple)):
        found: Any = None
        for d in data:
            inner = _promoted(d)
            found = inner if found is None or inner is None else dt.promote_types(found, inner)
        return found
    if hasattr(data, "dtype"):
        return as_dtype(data.dtype)
    kind = as_dtype(type(data))
    return dt.get_default_dtype() if kind is dt.float64 else dt.get_default_dtype().to_complex() if kind.is_complex else kind


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """A tensor with a copy of data; as ``torch.tensor``.

    Parameters
    ----------
    data : number, nested lists of numbers, array or Tensor
    dtype : dtype, optional
        Otherwise that of the data; of Python floats the default dtype.
    device : device or str, optional
        Otherwise that of the data.
    requires_grad : bool
    pin_memory : bool
        Accepted as in PyTorch.

    Raises
    ------
    TypeError
        If the data has a type that no tensor can have.
    ValueError
        If nested lists differ in length.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.tensor([[1, 2], [3, 4]])
    tensor([[1, 2],
            [3, 4]])
    """
    if isinstance(data, Tensor):
        result = data.detach().clone().to(device=device, dtype=dtype)
    elif hasattr(data, "__cuda_array_interface__") or hasattr(data, "__cupy_get_ndarray__"):
        xp = for_device("cuda")[0]
        array = xp.asarray(data)
        array = xp.move(array, xp.device_of(array) if device is None else for_device(device)[1])
        result = wrap(array).to(dtype=dtype)
    else:
        xp, where = for_device(device)
        result = wrap(xp.from_host(_host_array(data, dtype, copy=True), where.index))
    return require_grad(result, requires_grad)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor on data, without a copy where that is possible; as ``torch.as_tensor``."""
    if isinstance(data, Tensor):
        return data.to(device=device, dtype=dtype)
    if hasattr(data, "__cuda_array_interface__"):
        return tensor(data, dtype=dtype, device=device)
    xp, where = for_device(device)
    return wrap(xp.from_host(_host_array(data, dtype, copy=False), where.index))


def asarray(obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor of any object: on its memory if it has some; as ``torch.asarray``.

    Parameters
    ----------
    obj : Tensor, array, object with DLPack or the buffer protocol, number, or nested lists of numbers
    dtype : dtype, optional
    device : device or str, optional
    copy : bool, optional
        Always, never, or (unless given) only where it must be.
    requires_grad : bool

    Raises
    ------
    ValueError
        If it takes a copy that must not be made.
    """
    if isinstance(obj, Tensor):
        result = obj.to(device=device, dtype=dtype)
        if copy is False and result is not obj:
            raise ValueError(f"can't alias tensor of {obj.dtype} on {obj.device} as {result.dtype} on {result.device}")
        if copy and result is obj:
            result = obj.clone()
        return result if result._node is not None and requires_grad else require_grad(result.detach(), requires_grad)
    shares = hasattr(obj, "__array_interface__") or hasattr(obj, "__cuda_array_interface__") or hasattr(obj, "__dlpack__")
    if not shares:
        try:
            view = memoryview(obj)
        except TypeError:
            if copy is False:
                raise ValueError("can't alias arbitrary sequence into a tensor.") from None
        else:
            obj = cpu.asarray(view)
            shares = True
    result = tensor(obj, dtype=dtype, device=device) if copy or not shares else as_tensor(obj, dtype, device)
    if copy is False and not (result._array is obj or namespace_shares(result, obj)):
        raise ValueError(f"can't alias a {type(obj).__name__} as {result.dtype} on {result.device}")
    return require_grad(result, requires_grad)


def namespace_shares(result: Tensor, obj: Any) -> bool:
    """Whether a tensor stands on the memory of an array."""
    interface = getattr(obj, "__array_interface__", None) or getattr(obj, "__cuda_array_interface__", None)
    return interface is None or interface["data"][0] == result.data_ptr()


def from_numpy(ndarray: Any) -> Tensor:
    """A tensor on the memory of a NumPy array; as ``torch.from_numpy``.

    Raises
    ------
    TypeError
        If it is no NumPy array, or its dtype is not one of ours.
    """
    if not isinstance(ndarray, cpu.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    as_dtype(ndarray.dtype)
    if not ndarray.dtype.isnative:
        raise ValueError(f"from_numpy: the array has the other byte order ({ndarray.dtype}); use disttorch.tensor to copy it")
    return wrap(cpu.asarray(ndarray))


def frombuffer(buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0, requires_grad: bool = False) -> Tensor:
    """A vector on the memory of an object with Python's buffer protocol; as ``torch.frombuffer``.

    Parameters
    ----------
    buffer : bytearray, memoryview, mmap, ...
    dtype : dtype
        What its bytes mean.
    count : int
        How many elements; -1 for all.
    offset : int
        Bytes to leave out at the beginning.

    Raises
    ------
    ValueError
        If the buffer is too small, or not a whole number of elements.
    """
    d = as_dtype(dtype)
    raw = cpu.asarray(memoryview(buffer).cast("B"))
    if not 0 <= offset < len(raw):
        raise ValueError(f"offset ({offset} bytes) must be non-negative and no greater than buffer length ({len(raw)} bytes) minus 1")
    if count == 0 or count < -1:
        raise ValueError(f"both buffer length ({len(raw)}) and count ({count}) must not be 0")
    available = len(raw) - offset
    if count == -1 and available % d.itemsize:
        raise ValueError(
            f"buffer length ({available} bytes) after offset ({offset} bytes) must be a multiple of element size ({d.itemsize})"
        )
    count = available // d.itemsize if count == -1 else count
    if count * d.itemsize > available:
        raise ValueError(
            f"requested buffer length ({count} * {d.itemsize} bytes) after offset ({offset} bytes) must not be greater than actual "
            f"buffer length ({len(raw)} bytes)"
        )
    return require_grad(wrap(raw[offset : offset + count * d.itemsize].view(d.numpy)), requires_grad)


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor on the memory of an array of another library, by the DLPack protocol; as ``torch.from_dlpack``.

    Parameters
    ----------
    ext_tensor : object with ``__dlpack__`` and ``__dlpack_device__``, or a capsule
    device : device or str, optional
        Where it shall be; copied there if it is not.
    copy : bool, optional
        True for a copy in any case, False for an error where one is needed.

    Raises
    ------
    RuntimeError
        If the array is on a kind of device that no backend has.
    ValueError
        If it must not be copied and has to be.

    Examples
    --------
    >>> import disttorch, numpy
    >>> disttorch.from_dlpack(numpy.arange(3))
    tensor([0, 1, 2])
    """
    return wrap(dlpack.imported(ext_tensor, device, copy))
