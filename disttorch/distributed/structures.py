"""Tensors in what modules take and return: tuples, lists, dicts, dataclasses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any

from ..autograd.variable import Tensor

__all__ = ["mapped", "moved", "tensors_in"]


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in a module's result: in tuples, lists, dicts and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for v in value.values():
            yield from tensors_in(v)
    elif isinstance(value, (tuple, list)):
        for v in value:
            yield from tensors_in(v)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors_in(getattr(value, field.name))


def mapped(value: Any, function: Callable[[Tensor], Any], *, dataclasses: bool = False) -> Any:
    """A structure of the same form with a function's results in place of its tensors.

    Parameters
    ----------
    value : object
        A tensor, or tuples, lists and dicts of such structures; anything else stays as it is.
    function : callable
    dataclasses : bool
        Whether fields of dataclasses belong to the structure.
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        parts = [mapped(v, function, dataclasses=dataclasses) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, list):
        return [mapped(v, function, dataclasses=dataclasses) for v in value]
    if isinstance(value, dict):
        return {k: mapped(v, function, dataclasses=dataclasses) for k, v in value.items()}
    if dataclasses and is_dataclass(value) and not isinstance(value, type):
        changed = copy(value)
        for field in fields(value):  # frozen ones, too
            object.__setattr__(changed, field.name, mapped(getattr(value, field.name), function, dataclasses=True))
        return changed
    return value


def moved(value: Any, device: Any) -> Any:
    """Inputs with their tensors on a device."""
    return mapped(value, lambda t: t.to(device))
