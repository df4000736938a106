"""Tensors in what modules take and return: tuples, lists, dicts, dataclasses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from ..autograd.variable import Tensor

__all__ = ["moved", "tensors_in"]


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


def moved(value: Any, device: Any) -> Any:
    """Inputs with their tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        parts = [moved(v, device) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, list):
        return [moved(v, device) for v in value]
    if isinstance(value, dict):
        return {k: moved(v, device) for k, v in value.items()}
    return value
