"""How methods come to the Tensor class, which stands bare below the operations (autograd/variable.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd.variable import Tensor

__all__ = ["add_property", "method"]


def method(function: Any) -> Any:
    """Attach a function to Tensor."""
    setattr(Tensor, function.__name__, function)
    return function


def add_property(name: str, get: Callable[[Tensor], Any], doc: str, put: Callable[[Tensor, Any], Any] | None = None) -> None:
    """Attach a property to Tensor."""
    setattr(Tensor, name, property(get, put, doc=doc))
