"""The file: named arrays and metadata in the safetensors format (https://huggingface.co/docs/safetensors).

Eight bytes with the size of a JSON header, the header, the arrays' bytes without gaps. Written and read here, not by
the safetensors package, because arrays then go to the file and come from it one by one: a model on a GPU is never
in the host's memory as a whole, and a truncated file is said to be just that.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import mmap as mapping
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..backend import cpu, namespace
from ..backend.dtypes import PUBLIC_DTYPES, bool_, uint8

__all__ = ["Contents", "FileError", "read", "read_some", "replace", "write", "write_all"]

#: the format's names of element types; complex128 has none
CODES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "C64": "complex64", "BOOL": "bool",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
}  # fmt: skip
_CODE_OF = {PUBLIC_DTYPES[name].numpy: code for code, name in CODES.items()}

#: how files begin that people take for one of ours, and what they are
FOREIGN = {
    b"\x80": "is a Python pickle of another program than torch.save: pickles can run code, so it is not read here",
    b"\x89HDF": "is an HDF5 file",
    b"\x93NUMPY": "is a NumPy array file: numpy.load reads it",
    b"\x1f\x8b": "is compressed with gzip: decompress it, or open it with gzip.open and load from that",
    b"version ": "is a Git LFS pointer to a file that was not downloaded: see `git lfs pull`",
    b"GGUF": "is a GGUF file",
}
_HEADER_LIMIT = 100 << 20  # as in the reference implementation


class FileError(RuntimeError):
    """A file that cannot be what it should be."""


class Contents(NamedTuple):
    """What is in a file: arrays on the CPU by name, and text by key."""

    arrays: dict[str, Any]
    metadata: dict[str, str]


class _Entry(NamedTuple):
    name: str
    dtype: Any
    shape: tuple[int, ...]
    begin: int
    end: int


# --- writing ----------------------------------------------------------------------------------------------------------


def write(file: Any, arrays: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write arrays of any device to a file object. They must have dtypes of `CODES`."""
    # The widest elements first, so that all lie at multiples of their size and can be used where they are mapped.
    order = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)
    begins, end = {}, 0
    for name in order:
        begins[name] = end
        end += arrays[name].nbytes
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    for name, a in arrays.items():
        offsets = [begins[name], begins[name] + a.nbytes]
        header[name] = {"dtype": _CODE_OF[a.dtype], "shape": list(a.shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _HEADER_LIMIT:
        raise ValueError(
            f"save: names and values besides the tensors take {len(text)} bytes, more than the format's 100 MiB"
        )
    write_all(file, len(text).to_bytes(8, "little") + text)
    for name in order:
        a = arrays[name]
        host = namespace(a).to_host(a)
        write_all(file, memoryview(cpu.ascontiguousarray(host).reshape(-1).view(uint8.numpy)))


def replace(path: str, write: Callable[[Any], None]) -> None:
    """Write a file beside `path`, by a function of the file, and when it is whole and on the disk put it in its place."""
    target = os.path.realpath(path)  # where there is a link, its target is replaced, as open() would write it
    try:
        before = os.stat(target)
    except FileNotFoundError:
        before = None
    if before is not None and not stat.S_ISREG(before.st_mode):
        with open(target, "wb") as file:  # a pipe or a device has no place to take
            write(file)
        return
    folder, name = os.path.split(target)
    beside = os.path.join(folder, f".{name[:200]}.{secrets.token_hex(8)}.part")
    try:
        descriptor, is_named = _open_beside(beside)
        try:
            with open(descriptor, "wb") as file:
                if before is not None:
                    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
                write(file)
                file.flush()
                os.fsync(descriptor)
                if not is_named:
                    # With a directory's descriptor Python calls linkat(2), which alone follows this link to the file.
                    os.link(f"/proc/self/fd/{descriptor}", beside, src_dir_fd=descriptor, follow_symlinks=True)
                    is_named = True
            os.replace(beside, target)
        except BaseException:
            if is_named:
                os.unlink(beside)
            raise
        _sync_folder(folder)
    except OSError as error:
        raise type(error)(error.errno, f"save: {os.strerror(error.errno or errno.EIO)}", path) from error


def _open_beside(path: str) -> tuple[int, bool]:
    """A new file for writing, and whether it has its name already.

    Where the filesystem can, it has none until it is whole (O_TMPFILE), so that a process that is killed leaves nothing.
    """
    if hasattr(os, "O_TMPFILE") and os.path.exists("/proc/self/fd"):
        with contextlib.suppress(OSError):  # network filesystems mostly cannot; where nothing can be made, the next line says so
            return os.open(os.path.dirname(path) or ".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o666), False
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), True


def _sync_folder(folder: str) -> None:
    """Bring the new name to the disk too; some network filesystems have no such operation, and need none."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise
    finally:
        os.close(descriptor)


def write_all(file: Any, data: bytes | memoryview) -> None:
    """Write all of the bytes, also to files that take a part at a time."""
    view = memoryview(data)
    while view.nbytes:
        written = file.write(view)  # unbuffered files may take a part; some file objects do not say
        view = view[view.nbytes if written is None else written :]


# --- reading ----------------------------------------------------------------------------------------------------------


def read(file: Any, first: bytes, size: int | None = None, mapped: bool = False) -> Contents:
    """Read from a file object, which need not be able to seek, and leave it at the end of what was saved.

    Parameters
    ----------
    first : bytes
        The first eight, which have been read to see what it is.
    size : int, optional
        Of the whole file, where it is known.
    mapped : bool
        Map the file into memory instead of reading it.
    """
    entries, metadata, begin = _read_header(file, first, size)
    if mapped:
        memory = mapping.mmap(file.fileno(), 0, access=mapping.ACCESS_COPY)
        return Contents({e.name: _mapped(e, memory, begin) for e in entries}, metadata)
    arrays = dict.fromkeys([e.name for e in entries])
    for e in sorted(entries, key=lambda e: e.begin):
        raw = cpu.empty((e.end - e.begin,), uint8.numpy)
        _read_into(file, memoryview(raw), f"in tensor {e.name!r}")
        arrays[e.name] = _typed(raw, e)
    return Contents(arrays, metadata)


def _typed(raw: Any, e: _Entry) -> Any:
    if e.dtype == bool_.numpy:
        raw = raw != 0  # any other byte than 0 and 1 in a bool array is undefined behaviour
    return raw.view(e.dtype).reshape(e.shape)


def _mapped(e: _Entry, memory: Any, begin: int) -> Any:
    raw = cpu.ndarray((e.end - e.begin,), uint8.numpy, buffer=memory, offset=begin + e.begin)
    aligned = (begin + e.begin) % e.dtype.itemsize == 0  # files of others need not be
    return _typed(raw if aligned else raw.copy(), e)


def _read_header(file: Any, first: bytes, size: int | None) -> tuple[list[_Entry], dict[str, str], int]:
    """The entries in the header's order, the metadata, and where the data begins; checked against the file's size."""
    foreign = next((what for magic, what in FOREIGN.items() if first.startswith(magic)), None)
    length = int.from_bytes(first, "little")
    rest = _HEADER_LIMIT if size is None else min(size - 8, _HEADER_LIMIT)
    # Other formats' first bytes may be a header's size by chance, so they are only named when nothing else fits.
    if not first:
        raise FileError("is empty")
    if foreign and (len(first) < 8 or length > rest):
        raise FileError(foreign)
    if len(first) < 8:
        raise FileError(f"is truncated: it ends after {len(first)} bytes")
    if length > _HEADER_LIMIT:
        raise FileError(
            f"is no safetensors file: its first 8 bytes are {first!r}, which would be a header of {length} bytes"
        )
    text = read_some(file, min(length, rest))
    if len(text) < length:
        raise FileError(foreign or f"is truncated: its header has {length} bytes, and only {len(text)} are there")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(foreign or f"is no safetensors file, or damaged: its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise FileError("is no safetensors file, or damaged: its header is no JSON object")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FileError("is damaged: its metadata are not texts by name")
    entries = [_entry(name, fields) for name, fields in header.items()]
    end = 0
    for e in sorted(entries, key=lambda e: (e.begin, e.end)):
        if e.begin != end:
            raise FileError(f"is damaged: tensor {e.name!r} begins at byte {e.begin} of the data, not at {end}")
        end = e.end
    if size is not None and 8 + length + end != size:
        what = "is truncated" if 8 + length + end > size else "is damaged, or something was appended to it"
        raise FileError(f"{what}: its header says {8 + length + end} bytes, and there are {size}")
    return entries, metadata, 8 + length


def _entry(name: str, fields: Any) -> _Entry:
    try:
        code, shape, (begin, end) = fields["dtype"], fields["shape"], fields["data_offsets"]
        numbers = [*shape, begin, end]
    except (TypeError, KeyError, ValueError) as error:
        raise FileError(f"is damaged: tensor {name!r} has the fields {fields!r}") from error
    if not all(type(n) is int and n >= 0 for n in numbers):
        raise FileError(f"is damaged: tensor {name!r} has the fields {fields!r}")
    if code not in CODES:
        raise FileError(f"has a tensor {name!r} of type {code}, for which there is no dtype here")
    dtype = PUBLIC_DTYPES[CODES[code]]
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise FileError(f"is damaged: tensor {name!r} of shape {shape} and {dtype} has {end - begin} bytes")
    return _Entry(name, dtype.numpy, tuple(shape), begin, end)


def read_some(file: Any, length: int) -> bytes:
    """As many bytes as there are, up to a length; a file object may give them in pieces."""
    pieces = []
    while length and (piece := file.read(length)):
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def _read_into(file: Any, view: memoryview, where: str) -> None:
    total = view.nbytes
    while view.nbytes:
        if hasattr(file, "readinto"):
            count = file.readinto(view)
        else:
            piece = file.read(view.nbytes)
            count = len(piece)
            view[:count] = piece
        if not count:
            raise FileError(f"is truncated: it ends {where}, {view.nbytes} bytes before that tensor's {total} are over")
        view = view[count:]
