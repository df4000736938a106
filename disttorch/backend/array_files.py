"""Files of arrays mapped into memory: .npy, .npz and .safetensors. What is read of them is in memory, and the rest is not."""

from __future__ import annotations

import json
import mmap
import os
import zipfile
from typing import Any

import numpy

from .dtypes import DTYPES, PUBLIC_DTYPES

__all__ = ["SUFFIXES", "MappedArrays"]

SUFFIXES = (".npy", ".npz", ".safetensors")

_CODES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "C64": "complex64", "BOOL": "bool",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
}  # fmt: skip
_AROUND = 1 << 21  # the kernel may map so many bytes around a page that is asked for, if they are in its cache


class MappedArrays:
    """The arrays of a file, read-only.

    Parameters
    ----------
    path : str or path-like
    resident : int
        Bytes of the file that may be in this process's memory, before all are let go; the kernel keeps them in its cache as
        long as nothing else needs the memory.

    Attributes
    ----------
    arrays : dict of str to array
        A .npy file has one, named "".

    Raises
    ------
    ValueError
        If the file is of another kind, damaged, or has elements for which there is no dtype.
    """

    def __init__(self, path: Any, resident: int = 1 << 28) -> None:
        self.path = os.fspath(path)
        self.resident = resident
        self._touched = 0
        self._map: Any = None
        suffix = os.path.splitext(self.path)[1]
        if suffix not in SUFFIXES:
            raise ValueError(f"{self.path}: a file of arrays ends in {', '.join(SUFFIXES)}")
        read = {".npy": self._npy, ".npz": self._npz, ".safetensors": self._safetensors}[suffix]
        try:
            self.arrays: dict[str, Any] = read()
        except (EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise ValueError(f"{self.path} is damaged: {error}") from error
        for name, a in self.arrays.items():
            if a.dtype not in DTYPES:
                raise ValueError(f"{self.path}: there is no dtype for the elements of {name or 'the array'}, {a.dtype}")

    def touched(self, rows: int, nbytes: int) -> None:
        """Say that some rows, of so many bytes together, were read."""
        self._touched += nbytes + rows * _AROUND
        if self._touched > self.resident:
            self._touched = 0
            if self._map is not None:
                self._map.madvise(mmap.MADV_DONTNEED)

    def _bytes(self) -> Any:
        if not os.path.getsize(self.path):
            raise ValueError(f"{self.path} is empty")
        with open(self.path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return numpy.frombuffer(self._map, numpy.uint8)

    def _npy(self) -> dict[str, Any]:
        raw = self._bytes()
        with open(self.path, "rb") as file:
            return {"": _array_at(file, raw, self.path)}

    def _npz(self) -> dict[str, Any]:
        raw, arrays = self._bytes(), {}
        with zipfile.ZipFile(self.path) as archive, open(self.path, "rb") as file:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if info.compress_type != zipfile.ZIP_STORED:
                    with archive.open(info) as member:
                        arrays[name] = numpy.lib.format.read_array(member, allow_pickle=False)
                    continue
                # the local header: 26 bytes, the lengths of the name and of what follows it, both, and then the member
                lengths = raw[info.header_offset + 26 : info.header_offset + 30].view(numpy.uint16)
                file.seek(info.header_offset + 30 + int(lengths.sum()))
                arrays[name] = _array_at(file, raw, f"{name} in {self.path}")
        return arrays

    def _safetensors(self) -> dict[str, Any]:
        raw = self._bytes()
        length = int.from_bytes(raw[:8].tobytes(), "little")
        if raw.size < 8 or length > raw.size - 8:
            raise ValueError(f"{self.path} is truncated, or no safetensors file: it has {raw.size} bytes")
        header = json.loads(raw[8 : 8 + length].tobytes())
        header.pop("__metadata__", None)
        data, arrays = raw[8 + length :], {}
        for name, entry in header.items():
            (begin, end), dtype = entry["data_offsets"], PUBLIC_DTYPES[_CODES[entry["dtype"]]].numpy
            if not 0 <= begin <= end <= data.size or end - begin != int(numpy.prod(entry["shape"])) * dtype.itemsize:
                raise ValueError(f"{self.path} is damaged: tensor {name!r} is said to be {entry}, and there are {data.size} bytes")
            arrays[name] = data[begin:end].view(dtype).reshape(entry["shape"])
        return arrays


def _array_at(file: Any, raw: Any, what: str) -> Any:
    """The array whose .npy header begins where a file is, on the file's bytes."""
    version = numpy.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{what}: version {version} of the .npy format is for names of fields, which are not supported")
    read = numpy.lib.format.read_array_header_1_0 if version == (1, 0) else numpy.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(f"{what}: it has Python objects, which are pickles and could run code")
    begin, count = file.tell(), int(numpy.prod(shape))
    if begin + count * dtype.itemsize > raw.size:
        raise ValueError(f"{what} is truncated: {count} elements of {dtype} do not fit into {raw.size - begin} bytes")
    flat = raw[begin : begin + count * dtype.itemsize].view(dtype)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
