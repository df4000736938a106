"""Reads what PyTorch's ``torch.save`` wrote: a zip archive of storages with a pickle, or the one file of before 1.6.

The pickle is carried out by unpickle.py, which makes tensors and plain values only; rebuild.py says what is made of its names.
"""

from __future__ import annotations

import io
import mmap as mapping
import sys
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from ..autograd.variable import Tensor, wrap
from ..backend import cpu
from ..backend.dtypes import as_dtype, uint8
from .container import FileError
from .objects import WithClasses
from .rebuild import KNOWN, STORAGES, Storage, finished
from .unpickle import Name, unpickle

__all__ = ["LEGACY", "ZIP", "read_legacy", "read_zip"]

#: how the two formats begin; a safetensors header of so many bytes would be refused
ZIP = b"PK\x03\x04"
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF"
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_LOCAL_HEADER = 30  # bytes before the name in a zip member

Locate = Callable[[Tensor, str], Tensor]


def read_zip(file: Any, locate: Locate, mapped: bool = False, any_class: bool = False) -> Any:
    """The object in a zip archive of ``torch.save``.

    Parameters
    ----------
    file : file object
        That can seek.
    locate : callable
        From a storage's tensor on the CPU and the device that it was saved from to the tensor where it shall be.
    mapped : bool
        Whether storages are mapped into memory instead of read.
    any_class : bool
        Whether objects of all plain classes that the program has are made.

    Raises
    ------
    FileError
        If the archive is damaged, names what is not made, or is no archive of ``torch.save``.
    """
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise FileError(f"is truncated or damaged: it begins as a zip archive, but its directory is not there ({error})") from error
    members = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise FileError("is a zip archive without one data.pkl, so torch.save did not write it")
    root = pickles[0].removesuffix("data.pkl")
    if root + "constants.pkl" in members:
        raise FileError("is a TorchScript archive (torch.jit.save): a program, not tensors alone; save a state_dict() instead")
    pages = mapping.mmap(file.fileno(), 0, access=mapping.ACCESS_COPY) if mapped else None

    def member(name: str, of: str) -> Any:
        info = members.get(root + name)
        if info is None:
            raise FileError(f"is damaged: there is no member {root + name}, {of}")
        return _read_member(file, info, pages if name.startswith("data/") else None)

    swapped = root + "byteorder" in members and bytes(member("byteorder", "")) != sys.byteorder.encode()
    storages: dict[str, tuple[Any, str, Storage]] = {}

    def stored(identity: Any) -> Storage:
        kind, key, location, count, _ = _identity(identity)
        if key not in storages:
            dtype = (as_dtype(kind) if kind else uint8).numpy
            raw = member(f"data/{key}", f"the storage of {count} elements of {kind or 'a byte'}")
            if raw.nbytes < count * dtype.itemsize:
                raise FileError(f"is damaged: member {root}data/{key} has {raw.nbytes} bytes for {count} elements of {kind or 'a byte'}")
            typed = _typed(raw[: count * dtype.itemsize], dtype, swapped)
            storages[key] = (kind, location, Storage(locate(wrap(typed), location)._array))
        return _same_kind(storages[key], kind, root + "data/" + key)

    raw = member("data.pkl", "the structure")
    return _value(io.BytesIO(raw), f"member {root}data.pkl", stored, any_class)


def _value(file: Any, where: str, stored: Callable[[Any], Storage], any_class: bool) -> Any:
    value = unpickle(file, where, WithClasses(KNOWN, any_class), stored)
    try:
        return finished(value)
    except RecursionError:
        raise FileError(f"is refused: {where} is nested too deep, or contains itself") from None


def _read_member(file: Any, info: Any, pages: Any) -> Any:
    """A member's bytes, as an array."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise FileError(f"has the member {info.filename} compressed or encrypted, which torch.save does not do")
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or header[:4] != ZIP:
        raise FileError(f"is damaged: member {info.filename} is not where the directory says")
    begin = info.header_offset + _LOCAL_HEADER + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    if pages is not None:
        if begin + info.file_size > len(pages):
            raise FileError(f"is truncated: it ends in member {info.filename}")
        return cpu.ndarray((info.file_size,), uint8.numpy, buffer=pages, offset=begin)
    raw = cpu.empty((info.file_size,), uint8.numpy)
    file.seek(begin)
    _fill(file, raw, f"member {info.filename}")
    # PyTorch can be told to write no check sums, and writes 0 then
    if info.CRC and zlib.crc32(raw) != info.CRC:
        raise FileError(f"is damaged: the check sum of member {info.filename} is wrong")
    return raw


def _fill(file: Any, raw: Any, where: str) -> None:
    view = memoryview(raw)
    while view.nbytes:
        count = file.readinto(view) if hasattr(file, "readinto") else 0
        if not hasattr(file, "readinto"):
            piece = file.read(view.nbytes)
            count = len(piece)
            view[:count] = piece
        if not count:
            raise FileError(f"is truncated: it ends in {where}, {view.nbytes} bytes before its {raw.nbytes} are over")
        view = view[count:]


def _identity(identity: Any) -> tuple[str | None, str, str, int, Any]:
    """A storage's element type, key, device and length, and the part of it that is meant."""
    tag, kind, key, location, count, *rest = identity
    if tag != "storage" or not isinstance(kind, Name) or kind.name not in STORAGES or type(count) is not int or count < 0:
        raise ValueError(f"storage {identity!r}")
    return STORAGES[kind.name], str(key), str(location), count, rest[0] if rest else None


def _same_kind(entry: tuple[Any, str, Storage], kind: Any, where: str) -> Storage:
    """The storage; under another type than at first, the same memory with that type."""
    first, _, storage = entry
    if kind == first or kind is None:
        return storage
    d = as_dtype(kind).numpy
    if storage.array.nbytes % d.itemsize:
        raise FileError(f"is damaged: {where} has {storage.array.nbytes} bytes, which are no elements of {kind}")
    return Storage(storage.array.view(d), storage.offset)


def _typed(raw: Any, dtype: Any, swapped: bool) -> Any:
    if dtype.kind == "b":
        raw = raw != 0  # any other byte than 0 and 1 in a bool array is undefined behaviour
    if raw.ctypes.data % dtype.itemsize:
        raw = raw.copy()
    array = raw.view(dtype)
    return array.byteswap() if swapped and dtype.itemsize > 1 else array


# --- before PyTorch 1.6 ------------------------------------------------------------------------------------------------


def read_legacy(file: Any, locate: Locate, any_class: bool = False) -> Any:
    """The object in a file of ``torch.save`` of before 1.6: pickles, then the storages one after the other.

    Raises
    ------
    FileError
        If the file is damaged, or names what is not made.
    """
    for what, wanted in (("the magic number", _MAGIC), ("the version", _PROTOCOL)):
        found = unpickle(file, what, {})
        if found != wanted:
            raise FileError(f"is no file of torch.save: {what} is {found!r}")
    system = unpickle(file, "the note on the system", {})
    swapped = isinstance(system, dict) and not system.get("little_endian", True)
    # The storages stand behind the structure, whose tensors need them: the structure is gone through twice.
    begin = file.tell()
    kinds: dict[str, tuple[str | None, str, int]] = {}

    def noted(identity: Any) -> Storage:
        kind, key, location, count, part = _identity(identity)
        kinds[key] = kind, location, count
        return _part(Storage(cpu.empty((count,), (as_dtype(kind) if kind else uint8).numpy)), part)

    unpickle(file, "the structure", WithClasses(KNOWN, any_class), noted)
    storages: dict[str, Storage] = {}
    for key in unpickle(file, "the list of storages", {}):
        if key not in kinds:
            raise FileError(f"is damaged: no tensor is on storage {key!r}")
        kind, location, count = kinds[key]
        dtype = (as_dtype(kind) if kind else uint8).numpy
        head = file.read(8)
        if int.from_bytes(head, "little") != count or len(head) < 8:
            raise FileError(f"is truncated or damaged: storage {key} should begin with its {count} elements")
        raw = cpu.empty((count * dtype.itemsize,), uint8.numpy)
        _fill(file, raw, f"storage {key}")
        storages[key] = Storage(locate(wrap(_typed(raw, dtype, swapped)), location)._array)

    def stored(identity: Any) -> Storage:
        _, key, _, _, part = _identity(identity)
        return _part(storages[key], part)

    after = file.tell()
    file.seek(begin)
    value = _value(file, "the structure", stored, any_class)
    file.seek(after)
    return value


def _part(storage: Storage, part: Any) -> Storage:
    if part is None:
        return storage
    _, offset, count = part
    return Storage(storage.array[: offset + count], storage.offset + offset * storage.array.itemsize)
