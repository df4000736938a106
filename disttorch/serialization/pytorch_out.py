"""Writes what PyTorch's ``torch.load`` reads: a zip archive of storages with a pickle of the structure around them.

The pickle's instructions are written here (protocol 2), since the names in it, ``torch.FloatStorage`` and so on, are those of
a package that need not be installed. PyTorch reads it with its ``weights_only=True``.
"""

from __future__ import annotations

import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from ..autograd.variable import Tensor
from ..backend import cpu, device, namespace
from ..backend.dtypes import DTYPES, dtype, uint8
from ..backend.layout import strides_in
from ..ops.dims import Size
from .container import write_all
from .objects import is_plain, name_of
from .rebuild import STORAGES, is_parameter
from .sharing import address, extent, plan, view
from .structure import unsupported

__all__ = ["Archive"]

_STORAGE_OF = {d: name for name, d in reversed(STORAGES.items()) if d is not None}
_UNTYPED = "torch.storage.UntypedStorage"
_ALIGNMENT = 64  # bytes, of storages in the file, so that they can be used where they are mapped
_LOCAL_HEADER = 30


class Archive:
    """An object as ``torch.save`` would store it.

    Raises
    ------
    TypeError
        If something in the object cannot be saved; the message names its place.
    """

    def __init__(self, obj: Any):
        found = _Search()
        found.visit(obj, "obj")
        named = [(str(i), _with_steps_forward(t)) for i, t in enumerate(found.arrays)]
        self.stored, places = plan(named)
        for i, ((name, a), place) in enumerate(zip(named, places)):
            if place.view is not None and (place.view.offset % a.itemsize or any(s % a.itemsize for s in a.strides)):
                self.stored[name] = a  # PyTorch counts in elements
                places[i] = place._replace(name=name, view=None)
            elif place.view is None and _has_strides(a) and (flat := _whole(a)) is not None:
                self.stored[name], places[i] = flat, place._replace(view=view(a, extent(a)[0]))
        types: dict[str, set[str]] = {}
        for (_, a), place in zip(named, places):
            types.setdefault(place.name, set()).add(DTYPES[a.dtype].name)
        keys = {name: str(i) for i, name in enumerate(self.stored)}
        self.keys = keys
        writer = _Writer()
        for i, ((_, a), place) in enumerate(zip(named, places)):
            one = len(types[place.name]) == 1
            writer.tensors[id(found.arrays[i])] = _Placed(
                keys[place.name], _STORAGE_OF.get(DTYPES[a.dtype].name) if one else None, self.stored[place.name].nbytes, a, place.view
            )
        writer.out += b"\x80\x02"
        writer.write(obj)
        writer.out += b"."
        self.pickle = bytes(writer.out)

    def write(self, file: Any) -> None:
        """Write the archive to a file object."""
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            members = {"data.pkl": self.pickle, "byteorder": sys.byteorder.encode(), "version": b"3\n"}
            for name, data in members.items():
                archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data)
            for name, a in self.stored.items():
                info = zipfile.ZipInfo(f"archive/data/{self.keys[name]}")
                info.file_size = a.nbytes
                large = a.nbytes >= 1 << 31
                begin = archive.fp.tell() + _LOCAL_HEADER + len(info.filename) + 4 + (20 if large else 0)  # type: ignore[union-attr]
                gap = -begin % _ALIGNMENT
                info.extra = b"FB" + struct.pack("<H", gap) + b"Z" * gap
                host = namespace(a).to_host(a)
                with archive.open(info, "w", force_zip64=large) as member:
                    write_all(member, memoryview(cpu.ascontiguousarray(host).reshape(-1).view(uint8.numpy)))


def _with_steps_forward(tensor: Any) -> Any:
    a = tensor._array if isinstance(tensor, Tensor) else tensor
    return namespace(a).ascontiguousarray(a) if any(s < 0 for s in a.strides) else a


def _has_strides(a: Any) -> bool:
    """Whether the strides are not those of C order; PyTorch keeps those of dimensions of size 1 as well."""
    return a.strides != strides_in(a.shape, a.itemsize, "contiguous_format")


def _whole(a: Any) -> Any:
    """The memory of an array that is not in C order, flat, unless there are gaps in it: PyTorch keeps the strides."""
    begin, end = extent(a)
    if end - begin > a.nbytes or not a.size:
        return None
    return namespace(a).restride(a, ((end - begin) // a.itemsize,), (a.itemsize,), begin - address(a))


class _Placed(NamedTuple):
    """Where a tensor lies: the storage's key, PyTorch's class of it (None: without a type) and bytes; the array, the view."""

    key: str
    storage: str | None
    nbytes: int
    array: Any
    view: Any


class _Search:
    """The tensors in an object, each once, in its order."""

    def __init__(self) -> None:
        self.arrays: list[Tensor] = []
        self.seen: set[int] = set()
        self.inside: set[int] = set()

    def visit(self, obj: Any, place: str) -> None:
        if isinstance(obj, Tensor):
            if id(obj) not in self.seen:
                self.seen.add(id(obj))
                self.arrays.append(obj)
        elif type(obj) in (dict, OrderedDict) or isinstance(obj, OrderedDict):
            self.each(obj, [(v, f"{place}[{k!r}]") for k, v in obj.items()] + [(k, f"a key of {place}") for k in obj], place)
        elif type(obj) in (list, tuple, set, frozenset):
            self.each(obj, [(v, f"{place}[{i}]") for i, v in enumerate(obj)], place)
        elif type(obj) in _WRITERS:
            return
        elif is_plain(type(obj)):
            self.each(obj, [(v, f"{place}.{k}") for k, v in vars(obj).items()], place)
        else:
            raise TypeError(unsupported(obj, place))

    def each(self, obj: Any, parts: list[tuple[Any, str]], place: str) -> None:
        if id(obj) in self.inside:
            raise TypeError(f"save: {place} contains itself")
        self.inside.add(id(obj))
        for value, inner in parts:
            self.visit(value, inner)
        self.inside.discard(id(obj))


class _Writer:
    """The pickle's instructions, as they come."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.tensors: dict[int, _Placed] = {}
        self.noted: dict[int, int] = {}

    def write(self, obj: Any) -> None:
        kind = Tensor if isinstance(obj, Tensor) else OrderedDict if isinstance(obj, OrderedDict) else type(obj)
        _WRITERS.get(kind, _Writer.plain)(self, obj)

    def call(self, name: str, *arguments: Any) -> None:
        self.name(name)
        self.out += b"("
        for argument in arguments:
            argument(self) if callable(argument) and not isinstance(argument, Tensor) else self.write(argument)
        self.out += b"tR"

    def name(self, full: str) -> None:
        module, _, name = full.rpartition(".")
        self.out += b"c" + module.encode() + b"\n" + name.encode() + b"\n"

    def constant(self, obj: Any) -> None:
        self.out += {None: b"N", True: b"\x88", False: b"\x89"}[obj]

    def integer(self, obj: int) -> None:
        if -(2**31) <= obj < 2**31:
            self.out += b"J" + struct.pack("<i", obj)
        else:
            data = obj.to_bytes(obj.bit_length() // 8 + 1, "little", signed=True)
            short = len(data) < 256  # which PyTorch's own reader of weights knows
            self.out += (b"\x8a" + bytes([len(data)]) if short else b"\x8b" + struct.pack("<I", len(data))) + data

    def real(self, obj: float) -> None:
        self.out += b"G" + struct.pack(">d", obj)

    def text(self, obj: str) -> None:
        data = obj.encode("utf-8", "surrogatepass")
        self.out += b"X" + struct.pack("<I", len(data)) + data

    def raw(self, obj: bytes) -> None:
        self.call("_codecs.encode", obj.decode("latin1"), "latin1")

    def sequence(self, obj: Any) -> None:
        self.out += b"(" if type(obj) is tuple else b"]("
        for value in obj:
            self.write(value)
        self.out += b"t" if type(obj) is tuple else b"e"

    def collection(self, obj: Any) -> None:
        self.call(f"__builtin__.{type(obj).__name__}", list(obj))

    def mapping(self, obj: Any) -> None:
        self.out += b"}("
        self.pairs(obj)

    def ordered(self, obj: Any) -> None:
        self.call("collections.OrderedDict")
        self.out += b"("
        self.pairs(obj)
        if hasattr(obj, "_metadata"):
            self.write({"_metadata": obj._metadata})
            self.out += b"b"

    def pairs(self, obj: Any) -> None:
        for key, value in obj.items():
            self.write(key)
            self.write(value)
        self.out += b"u"

    def array(self, obj: Any) -> None:
        native = cpu.ascontiguousarray(obj).astype(obj.dtype.newbyteorder("="), copy=False)
        self.call("numpy._core.multiarray._reconstruct", lambda w: w.name("numpy.ndarray"), (0,), b"b")
        self.out += b"("
        for part in (1, tuple(obj.shape), lambda w: w.numpy_type(native.dtype), False, native.tobytes()):
            part(self) if callable(part) else self.write(part)
        self.out += b"tb"

    def scalar(self, obj: Any) -> None:
        self.call("numpy._core.multiarray.scalar", lambda w: w.numpy_type(obj.dtype), obj.tobytes())

    def numpy_type(self, of: Any) -> None:
        self.call("numpy.dtype", of.str[1:], False, True)
        self.write((3, of.str[0], None, None, None, -1, -1, 0))
        self.out += b"b"

    def plain(self, obj: Any) -> None:
        if not self.again(obj):
            self.name(name_of(type(obj)))
            self.out += b")\x81"
            self.note(obj)
            self.mapping(vars(obj))
            self.out += b"b"

    def again(self, obj: Any) -> bool:
        """Whether it is the same object again, to be one when loaded."""
        if id(obj) in self.noted:
            self.out += b"j" + struct.pack("<I", self.noted[id(obj)])
        return id(obj) in self.noted

    def note(self, obj: Any) -> None:
        self.noted[id(obj)] = len(self.noted)
        self.out += b"r" + struct.pack("<I", self.noted[id(obj)])

    def tensor(self, obj: Tensor) -> None:
        if self.again(obj):
            return
        if is_parameter(obj):
            self.call("torch._utils._rebuild_parameter", lambda w: w.plain_tensor(obj, False), obj.requires_grad, OrderedDict())
        else:
            self.plain_tensor(obj, obj.requires_grad)
        self.note(obj)

    def plain_tensor(self, obj: Tensor, requires_grad: bool) -> None:
        placed = self.tensors[id(obj)]
        a = placed.array
        if placed.view is None:
            offset, steps = 0, _contiguous_steps(a.shape)
        else:
            offset, steps = placed.view.offset // a.itemsize, tuple(s // a.itemsize for s in placed.view.strides)
        kind = _UNTYPED if placed.storage is None else placed.storage
        count = placed.nbytes // (1 if placed.storage is None else a.itemsize)

        def storage(w: _Writer) -> None:
            w.out += b"("
            w.text("storage")
            w.name(kind)
            for part in (placed.key, str(obj.device), count):
                w.write(part)
            w.out += b"tQ"

        arguments: tuple[Any, ...] = (storage, offset, tuple(a.shape), steps, requires_grad, OrderedDict())
        if placed.storage is None:
            self.call("torch._utils._rebuild_tensor_v3", *arguments, lambda w: w.dtype(obj.dtype))
        else:
            self.call("torch._utils._rebuild_tensor_v2", *arguments)

    def size(self, obj: Size) -> None:
        self.call("torch.Size", tuple(obj))

    def dtype(self, obj: dtype) -> None:
        self.name(f"torch.{obj.name}")

    def device(self, obj: device) -> None:
        self.call("torch.device", str(obj))


def _contiguous_steps(shape: tuple[int, ...]) -> tuple[int, ...]:
    steps: list[int] = []
    step = 1
    for n in reversed(shape):
        steps.append(step)
        step *= max(n, 1)
    return tuple(reversed(steps))


_WRITERS: dict[Any, Callable[[_Writer, Any], None]] = {
    type(None): _Writer.constant,
    bool: _Writer.constant,
    int: _Writer.integer,
    float: _Writer.real,
    str: _Writer.text,
    bytes: _Writer.raw,
    list: _Writer.sequence,
    tuple: _Writer.sequence,
    set: _Writer.collection,
    frozenset: _Writer.collection,
    dict: _Writer.mapping,
    OrderedDict: _Writer.ordered,
    complex: lambda w, obj: w.call("__builtin__.complex", obj.real, obj.imag),
    Tensor: _Writer.tensor,
    Size: _Writer.size,
    dtype: _Writer.dtype,
    device: _Writer.device,
    cpu.ndarray: _Writer.array,
    **{d.type: _Writer.scalar for d in DTYPES},
}
