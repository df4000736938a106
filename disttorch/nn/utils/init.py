"""Modules without initial values; as ``torch.nn.utils.skip_init``."""

from __future__ import annotations

import inspect
from typing import Any

from ..init import SKIPPED
from ..module import Module

__all__ = ["skip_init"]


def skip_init(module_cls: type[Module], *args: Any, **kwargs: Any) -> Module:
    """A module whose parameters have not been drawn, for those who load or set them anyway; as ``torch.nn.utils.skip_init``.

    Parameters
    ----------
    module_cls : type
        Of a module whose constructor takes ``device``.
    *args, **kwargs
        The constructor's.

    Raises
    ------
    RuntimeError
        If it is no module class, or takes no ``device``.
    """
    if not (isinstance(module_cls, type) and issubclass(module_cls, Module)):
        raise RuntimeError(f"Expected a Module; got {module_cls}")
    if "device" not in inspect.signature(module_cls).parameters:
        raise RuntimeError("Module must support a 'device' arg to skip initialization")
    token = SKIPPED.set(True)
    try:
        return module_cls(*args, **kwargs)
    finally:
        SKIPPED.reset(token)
