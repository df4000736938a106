"""The way to CuPy's side of `disttorch.cuda`: it is imported when a device is asked for, and says what is missing where there is none."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from ..backend import for_device

__all__ = ["room"]

_BACKEND = for_device.__module__
_seen: dict[str, ModuleType] = {}


def room(name: str) -> Any:
    """A module of the CUDA backend.

    Parameters
    ----------
    name : str
        ``"capturing"``, ``"devices"``, ``"graphs"``, ``"memory"``, ``"streams"`` or ``"world"``.

    Raises
    ------
    RuntimeError
        If there is no CuPy, no driver, or no device.
    """
    path = f"{_BACKEND}.cuda.{name}"
    found = _seen.get(path)
    if found is not None and sys.modules.get(path) is found:  # asked for every copy and every event: no device need be looked for again
        return found
    for_device("cuda")
    found = _seen[path] = import_module(path)  # whole when it is noted: another thread may ask meanwhile
    return found
