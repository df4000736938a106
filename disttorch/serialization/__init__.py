"""Saving and loading: any nesting of tensors and plain values in one safetensors file; and the files of PyTorch.

Nothing that is loaded can run code, and any program that reads safetensors reads the tensors. See structure.py for
what can be saved, container.py for the file, sharing.py for tensors on common memory; pytorch.py and pytorch_out.py for the
archives of ``torch.save``, unpickle.py, rebuild.py and objects.py for what may stand in them.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from functools import partial
from typing import IO, Any

from ..autograd.variable import Tensor
from ..backend import device
from . import container, pytorch
from .container import FileError
from .objects import add_safe_globals, clear_safe_globals, get_safe_globals, safe_globals
from .pytorch_out import Archive
from .structure import Located, decode, encode

__all__ = ["add_safe_globals", "clear_safe_globals", "get_safe_globals", "load", "safe_globals", "save", "set_default_format"]

_KEY = "disttorch"  # of the structure among the file's metadata


_FORMATS = ("safetensors", "torch")
_default_format = "safetensors"


def set_default_format(format: str) -> None:
    """Set the format that `save` writes where it is not told: "safetensors", or "torch", which PyTorch reads.

    Raises
    ------
    ValueError
        For another.
    """
    global _default_format
    if format not in _FORMATS:
        raise ValueError(f"there is no format {format!r} to save in; there are {' and '.join(_FORMATS)}")
    _default_format = format


def save(
    obj: Any,
    f: str | os.PathLike | IO[bytes],
    pickle_module: Any = None,
    pickle_protocol: Any = None,
    _use_new_zipfile_serialization: bool = True,
    *,
    format: str | None = None,
) -> None:
    """Save an object to a file; as ``torch.save``, in the safetensors format or in PyTorch's own.

    A path is written whole or not at all: to a file beside it, that takes its place when all is on the disk.

    Parameters
    ----------
    obj : object
        Tensors of any device, NumPy arrays and scalars, None, bool, int, float, complex, str, bytes, dtypes, devices
        and sizes, in dicts (with keys of these types), OrderedDicts, lists, tuples and sets. So: ``state_dict()``s. PyTorch's
        format also takes objects that have attributes of these types and nothing else, of classes that can be imported.
        Tensors that share memory are saved once, and share it again when loaded.
    f : path or file object
        A file object is written from where it is.
    pickle_module, pickle_protocol, _use_new_zipfile_serialization
        Accepted as in PyTorch; nothing is pickled.
    format : {"safetensors", "torch"}, optional
        "torch" writes the archive that ``torch.load`` of PyTorch reads, with its ``weights_only=True`` too; `load` here reads
        both. Safetensors unless `set_default_format` has said otherwise.

    Raises
    ------
    TypeError
        If there is something else; the message names its place, such as ``obj['optimizer']['hook']``.
    OSError
        If the file cannot be written; what was there before is there still.

    Notes
    -----
    A dict of tensors with names becomes a plain safetensors file with these names
    (https://huggingface.co/docs/safetensors). For anything else the tensors have names such as ``model.weight`` and
    the structure around them is JSON among the file's metadata.

    Examples
    --------
    >>> import disttorch, io
    >>> file = io.BytesIO()
    >>> disttorch.save({"step": 3, "w": disttorch.ones(2)}, file)
    >>> _ = file.seek(0)
    >>> disttorch.load(file)
    {'step': 3, 'w': tensor([1., 1.])}
    """
    format = _default_format if format is None else format
    if format not in _FORMATS:
        raise ValueError(f"save: there is no format {format!r}; there are {' and '.join(_FORMATS)}")
    write: Callable[[Any], None]
    if format == "torch":
        write = Archive(obj).write
    else:
        structure, stored = encode(obj)
        metadata = {"format": "pt"} if structure is None else {"format": "pt", _KEY: structure}
        write = partial(container.write, arrays=stored, metadata=metadata)
    if hasattr(f, "write"):
        write(f)
    else:
        container.replace(os.fsdecode(f), write)


def load(
    f: str | os.PathLike | IO[bytes],
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    **pickle_load_args: Any,
) -> Any:
    """Load what `save` or PyTorch's ``torch.save`` saved, or the tensors of any safetensors file; as ``torch.load``.

    Parameters
    ----------
    f : path or file object
        A file object is read from where it is, to the end of what was saved.
    map_location : device, str, dict or callable, optional
        Where the tensors shall be: a device; a dict from the device saved from to another; or a function of the
        tensor on the CPU and the name of the device saved from, which returns the tensor to take, or None. Unless
        given, each tensor goes where it was when saved.
    pickle_module, pickle_load_args
        Accepted as in PyTorch; Python's pickle module is never used.
    weights_only : bool, optional
        False: of PyTorch's files also objects of plain classes, such as an ``argparse.Namespace`` or a dataclass of the program;
        else only of those that `add_safe_globals` was given. No file makes `load` run code, whatever this says: a file in which
        something else is than these, tensors, parameters, numbers, texts and plain containers of them (and NumPy's arrays) is refused.
    mmap : bool, optional
        Map the file into memory and read tensors when they are used. The file must not be changed in place meanwhile
        (`save` never does that); changes to the tensors do not reach it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    RuntimeError
        If it is truncated, damaged, of another format, or names code, which the message says; or if a device is not there.

    Examples
    --------
    See `save`.
    """
    locate = _locator(map_location)
    if hasattr(f, "read"):
        if mmap:
            raise ValueError(f"load: mmap=True needs a path, got a file object: {f!r}")
        return _load(f, repr(f), None, False, locate, weights_only is False)
    where = os.fsdecode(f)
    with open(where, "rb") as file:
        info = os.fstat(file.fileno())
        size = info.st_size if stat.S_ISREG(info.st_mode) else None
        return _load(file, where, size, bool(mmap), locate, weights_only is False)


def _load(file: Any, where: str, size: int | None, mapped: bool, locate: Callable[[Tensor, str], Tensor], any_class: bool) -> Any:
    try:
        first = container.read_some(file, 8)
        for begin, read in ((pytorch.ZIP, pytorch.read_zip), (pytorch.LEGACY, pytorch.read_legacy)):
            if first.startswith(begin[: len(first)] if len(first) > 3 else begin) and first[4:8] != bytes(4):
                if mapped and begin == pytorch.LEGACY:
                    raise ValueError(f"load: mmap=True needs a file of PyTorch 1.6 or later; {where} is of an older one")
                return read(_seekable(file, first), locate, any_class=any_class, **({"mapped": True} if mapped else {}))
        contents = container.read(file, first, size, mapped)
        located = Located(contents.arrays, locate)
        structure = contents.metadata.get(_KEY)
        if structure is None:
            return {name: located.tensor(name) for name in contents.arrays}
        return decode(structure, located)
    except FileError as error:
        raise FileError(f"load: {where} {error}") from error.__cause__


def _seekable(file: Any, first: bytes) -> Any:
    """The file, of which the first bytes have been read, where it can go back; else all of it in memory."""
    if hasattr(file, "seekable") and file.seekable():
        file.seek(-len(first), os.SEEK_CUR)
        return file
    return io.BytesIO(first + file.read())


def _locator(map_location: Any) -> Callable[[Tensor, str], Tensor]:
    """A function that brings a tensor, saved from a device, where it shall be."""
    if map_location is None:
        return _restore
    if callable(map_location) and not isinstance(map_location, device):

        def ask(tensor: Tensor, saved_from: str) -> Tensor:
            answer = map_location(tensor, saved_from)
            return _restore(tensor, saved_from) if answer is None else answer

        return ask
    if isinstance(map_location, dict):
        devices = {str(source): target for source, target in map_location.items()}
        return lambda tensor, saved_from: _restore(tensor, str(devices.get(saved_from, saved_from)))
    return lambda tensor, _: tensor.to(device=map_location)


def _restore(tensor: Tensor, saved_from: str) -> Tensor:
    try:
        return tensor.to(device=saved_from)
    except RuntimeError as error:
        raise RuntimeError(
            f"load: a tensor was saved from {saved_from!r}, which is not here ({error}); "
            "say where it shall go, for example load(f, map_location='cpu')"
        ) from error
