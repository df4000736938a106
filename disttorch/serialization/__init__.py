"""Saving and loading: any nesting of tensors and plain values in one safetensors file.

Nothing that is loaded can run code, and any program that reads safetensors reads the tensors. See structure.py for
what can be saved, container.py for the file, sharing.py for tensors on common memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, Any

from ..autograd.variable import Tensor
from . import container
from .container import FileError
from .structure import Located, decode, encode

__all__ = ["load", "save"]

_KEY = "disttorch"  # of the structure among the file's metadata


def save(obj: Any, f: str | os.PathLike | IO[bytes]) -> None:
    """Save an object to a file; as ``torch.save``, in the safetensors format.

    A path is written whole or not at all: to a file beside it, that takes its place when all is on the disk.

    Parameters
    ----------
    obj : object
        Tensors of any device, NumPy arrays and scalars, None, bool, int, float, complex, str, bytes, dtypes, devices
        and sizes, in dicts (with keys of these types), OrderedDicts, lists, tuples and sets. So: ``state_dict()``s.
        Tensors that share memory are saved once, and share it again when loaded.
    f : path or file object
        A file object is written from where it is.

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
    the structure around them is JSON among the file's metadata. A `Parameter` is loaded as a tensor that requires grad.

    Examples
    --------
    >>> import disttorch, io
    >>> file = io.BytesIO()
    >>> disttorch.save({"step": 3, "w": disttorch.ones(2)}, file)
    >>> _ = file.seek(0)
    >>> disttorch.load(file)
    {'step': 3, 'w': tensor([1., 1.])}
    """
    structure, stored = encode(obj)
    metadata = {"format": "pt"} if structure is None else {"format": "pt", _KEY: structure}
    if hasattr(f, "write"):
        container.write(f, stored, metadata)
    else:
        container.replace(os.fsdecode(f), stored, metadata)


def load(
    f: str | os.PathLike | IO[bytes],
    map_location: Any = None,
    *,
    weights_only: bool = True,
    mmap: bool | None = None,
) -> Any:
    """Load what `save` saved, or the tensors of any safetensors file as a dict; as ``torch.load``.

    Parameters
    ----------
    f : path or file object
        A file object is read from where it is, to the end of what was saved.
    map_location : device, str, dict or callable, optional
        Where the tensors shall be: a device; a dict from the device saved from to another; or a function of the
        tensor on the CPU and the name of the device saved from, which returns the tensor to take, or None. Unless
        given, each tensor goes where it was when saved.
    weights_only : bool
        Accepted as in PyTorch. No file makes `load` run code, whatever this says.
    mmap : bool, optional
        Map the file into memory and read tensors when they are used. The file must not be changed in place meanwhile
        (`save` never does that); changes to the tensors do not reach it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    RuntimeError
        If it is truncated, damaged or of another format, which the message names; or if a device is not there.

    Examples
    --------
    See `save`.
    """
    if hasattr(f, "read"):
        if mmap:
            raise ValueError(f"load: mmap=True needs a path, got a file object: {f!r}")
        contents, where = container.read(f), repr(f)
    else:
        where = os.fsdecode(f)
        contents = container.read_path(where, bool(mmap))
    located = Located(contents.arrays, _locator(map_location))
    structure = contents.metadata.get(_KEY)
    try:
        if structure is None:
            return {name: located.tensor(name) for name in contents.arrays}
        return decode(structure, located)
    except FileError as error:
        raise FileError(f"load: {where} {error}") from error.__cause__


def _locator(map_location: Any) -> Callable[[Tensor, str], Tensor]:
    """A function that brings a tensor, saved from a device, where it shall be."""
    if map_location is None:
        return _restore
    if callable(map_location):

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
