"""The way to CuPy's side of `disttorch.cuda`: it is imported when a device is asked for, and says what is missing where there is none."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from ..backend import for_device

__all__ = ["room"]

_BACKEND = for_device.__module__
_seen: set[str] = set()


def room(name: str) -> Any:
    """A module of the CUDA backend.

    Parameters
    ----------
    name : str
        ``"devices"``, ``"graphs"``, ``"memory"``, ``"streams"`` or ``"world"``.

    Raises
    ------
    RuntimeError
        If there is no CuPy, no driver, or no device.
    """
    path = f"{_BACKEND}.cuda.{name}"
    if path in _seen and path in sys.modules:  # asked for every copy and every event: the device need not be looked for again
        return sys.modules[path]
    for_device("cuda")
    found = import_module(path)
    _seen.add(path)  # not before: another thread may ask meanwhile
    return found
