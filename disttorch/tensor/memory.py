"""Where a tensor's elements lie: strides, offset, storage, layout; and memory that is shared or pinned."""

from __future__ import annotations

from typing import Any

from ..autograd.variable import Tensor, share_version, wrap
from ..backend import cpu, cuda_is_available, for_device, namespace
from ..backend import dtypes as dt
from ..backend.layout import LAYOUTS, is_in_format, kept_format
from ..ops.dims import normal_dim
from ..ops.shape import as_strided
from .attach import add_property, method

__all__ = ["UntypedStorage"]


@method
def stride(self: Tensor, dim: int | None = None) -> Any:
    """Elements from one index to the next in memory, for each dimension or one."""
    a = self._array
    size = a.itemsize
    if dim is None:
        return tuple([s // size for s in a.strides])
    return a.strides[normal_dim(dim, a.ndim, "stride")] // size


@method
def is_contiguous(self: Tensor, memory_format: Any = None) -> bool:
    """Whether the elements lie without gaps in C order, or in the order of a memory format."""
    return is_in_format(self._array, kept_format(memory_format))


@method
def dim_order(self: Tensor) -> tuple[int, ...]:
    """The dimensions in the order in which they lie in memory, the one with the largest steps first."""
    return tuple(sorted(range(self._array.ndim), key=lambda d: -self._array.strides[d]))


@method
def data_ptr(self: Tensor) -> int:
    """The address of the first element."""
    return namespace(self._array).address_of(self._array) if self._array.size else 0


@method
def storage_offset(self: Tensor) -> int:
    """How many elements of the tensor's memory lie before its first one."""
    xp = namespace(self._array)
    return (xp.address_of(self._array) - xp.storage_of(self._array)[0]) // self._array.itemsize


@method
def is_set_to(self: Tensor, tensor: Tensor) -> bool:
    """Whether both are the same elements of the same memory, in shape and strides too."""
    a, b = self._array, tensor._array
    return (a.shape, a.strides, a.dtype) == (b.shape, b.strides, b.dtype) and data_ptr(self) == data_ptr(tensor)


@method
def set_(self: Tensor, source: Tensor | None = None, storage_offset: int = 0, size: Any = None, stride: Any = None) -> Tensor:
    """Become a tensor on another's memory: as it is, or with an offset, a size and strides in elements; without one, empty.

    Raises
    ------
    RuntimeError
        If the dtypes differ, or the tensor has been computed with a graph.
    """
    if self._node is not None and self._node.edges:
        raise RuntimeError("set_: the tensor was computed by recorded operations; detach() it first")
    xp = namespace(self._array)
    if source is None:
        self._array, self._version, self._view = xp.empty((0,), self._array.dtype), None, None
        return self
    if isinstance(source, UntypedStorage):
        source = wrap(source.bytes()._array.view(self._array.dtype))
        size = source._array.shape if size is None else size
    if source._array.dtype != self._array.dtype:
        raise RuntimeError(f"set_: expected a tensor of {self.dtype}, got one of {source.dtype}")
    if size is not None:
        steps = stride
        if steps is None:
            steps, step = [], 1
            for n in reversed(size):
                steps.insert(0, step)
                step *= max(n, 1)
        source = as_strided(source.detach(), size, steps, storage_offset)
    share_version(source, self)
    self._array, self._view = source._array, None
    return self


class UntypedStorage:
    """The block of memory that a tensor is a view of, as bytes. Two tensors on one block have equal storages.

    Parameters
    ----------
    tensor : Tensor
    """

    def __init__(self, tensor: Tensor):
        self._tensor = tensor
        self.device = tensor.device
        self._start, self._bytes = namespace(tensor._array).storage_of(tensor._array)

    @classmethod
    def from_file(cls, filename: Any, shared: bool = False, nbytes: int = 0) -> UntypedStorage:
        """The bytes of a file, mapped into memory; as ``torch.UntypedStorage.from_file``.

        Parameters
        ----------
        filename : path
        shared : bool
            Whether what is written to the memory is written to the file, which is made as long as is asked for.
        nbytes : int
            How many, from the file's begin.

        Raises
        ------
        RuntimeError
            If the file is shorter.
        """
        return cls(wrap(cpu.mapped_file(filename, shared, nbytes)))

    def __getitem__(self, index: Any) -> Any:
        """A byte as a number, or some of them as a tensor on the same memory."""
        part = self.bytes()[index]
        return part if isinstance(index, slice) else part.item()

    def data_ptr(self) -> int:
        """The address of the first byte."""
        return self._start if self._bytes else 0

    def nbytes(self) -> int:
        """How many bytes there are."""
        return self._bytes

    size = __len__ = nbytes

    def element_size(self) -> int:
        """Of a byte: 1."""
        return 1

    def untyped(self) -> UntypedStorage:
        """Itself, as PyTorch's storages of one type have it."""
        return self

    def is_shared(self) -> bool:
        """Whether other processes see what is written here."""
        return is_shared(self._tensor)

    def is_pinned(self, device: Any = None) -> bool:
        """Whether the memory is page-locked."""
        return is_pinned(self._tensor)

    def bytes(self) -> Tensor:
        """A view of all bytes, as a uint8 tensor."""
        a = self._tensor._array
        xp = namespace(a)
        return wrap(xp.restride(a, (self._bytes,), (1,), self._start - xp.address_of(a), dt.uint8.numpy))

    def tolist(self) -> list[int]:
        """All bytes as numbers."""
        return self.bytes().tolist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UntypedStorage) and (self._start, self._bytes) == (other._start, other._bytes)

    def __hash__(self) -> int:
        return hash((self._start, self._bytes))

    def __repr__(self) -> str:
        return f"UntypedStorage(size={self._bytes}, device={self.device}, data_ptr={self._start:#x})"


@method
def untyped_storage(self: Tensor) -> UntypedStorage:
    """The block of memory that this tensor is a view of."""
    return UntypedStorage(self)


@method
def pin_memory(self: Tensor, device: Any = None) -> Tensor:
    """A copy in page-locked memory, from which a GPU copies faster; without a GPU the tensor itself."""
    if namespace(self._array).name != "cpu" or not cuda_is_available() or is_pinned(self):
        return self
    return wrap(for_device("cuda")[0].pinned(self._array))


@method
def is_pinned(self: Tensor, device: Any = None) -> bool:
    """Whether the tensor lies in page-locked memory, where `pin_memory` puts it."""
    return namespace(self._array).name == "cpu" and cuda_is_available() and for_device("cuda")[0].is_pinned(self._array)


@method
def record_stream(self: Tensor, s: Any) -> None:
    """Keep the memory until work that a stream has been given by the time the tensor goes is done; as ``torch.Tensor.record_stream``.

    For a tensor that another stream than the one it was made on reads or writes: its memory is used again in the order of the
    stream it was made on.

    Parameters
    ----------
    s : cuda.Stream

    Raises
    ------
    RuntimeError
        If the tensor is not on a GPU.
    """
    xp = namespace(self._array)
    if xp.name != "cuda":
        raise RuntimeError("record_stream: only tensors on a GPU have streams")
    xp.record_stream(self._array, s._stream, s.device_index)


@method
def share_memory_(self: Tensor) -> Tensor:
    """Move the elements to memory that other processes see, and write, too: those forked from this one, and those that get the
    tensor by multiprocessing.

    Tensors on the old memory do not follow. (Data loaders share what they send by themselves.)
    """
    xp = namespace(self._array)
    if xp.name == "cpu" and not xp.is_shared(self._array):
        (self._array,), self._version, self._view = xp.shared([self._array]), None, None
    return self


@method
def is_shared(self: Tensor) -> bool:
    """Whether other processes that have the tensor see what is written here."""
    xp = namespace(self._array)
    return xp.name == "cuda" or xp.is_shared(self._array)


add_property("layout", lambda self: LAYOUTS["strided"], "How the elements are kept: always ``disttorch.strided``.")
for _name in "is_sparse is_sparse_csr is_quantized is_meta is_nested is_mkldnn is_mps is_xpu".split():
    add_property(_name, lambda self: False, "False: there is no such kind of tensor here.")
add_property("is_cpu", lambda self: self.device.type == "cpu", "Whether the elements are in the host's memory.")
