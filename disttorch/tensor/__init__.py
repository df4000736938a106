"""The Tensor class's methods: a thin face over ops/, made from tables.

A method with the name of a function is that function; an in-place twin is the function's with an underscore.
"""

from __future__ import annotations

from typing import Any

from ..autograd.variable import Tensor
from ..ops import METHODS

for _name, _function in METHODS.items():
    setattr(Tensor, _name, _function)

# a method of the same name in one of these files is the one that counts
from . import conversions, copying, description, elements, gradients, memory, operators, subclassing, types  # noqa: E402

__all__ = [
    "Tensor", "conversions", "copying", "description", "elements", "gradients", "is_tensor", "memory", "operators", "subclassing", "types",
]  # fmt: skip


def is_tensor(obj: Any) -> bool:
    """Whether an object is a Tensor."""
    return isinstance(obj, Tensor)
