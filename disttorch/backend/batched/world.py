"""The namespace of batched arrays: by families of functions, what each does with the hidden dimension."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import partial
from typing import Any

from ..kernels import PLAIN
from ..namespace import NAMESPACES
from . import indexing
from .array import BatchedArray
from .one_by_one import Module, sample_by_sample
from .rules import RULES

__all__ = ["Batched"]


class Batched:
    """The namespace of samples of one library's arrays.

    Parameters
    ----------
    base : Namespace
        NumPy's or CuPy's.
    """

    name = "batched"

    def __init__(self, base: Any):
        self.base = base
        self.ndarray: type[BatchedArray] = type("BatchedArray", (BatchedArray,), {"world": self, "__slots__": ()})
        NAMESPACES[self.ndarray] = self
        self.get_item, self.set_item, self.add_at = indexing.get_item, indexing.set_item, indexing.add_at

    def __getattr__(self, name: str) -> Any:
        """A function is made when it is first asked for, by the rule of its family."""
        function: Any
        rule = RULES.get(name)
        if rule is not None:
            function = rule(self, name)
        elif name in PLAIN:
            function = partial(PLAIN[name], self)
        elif name in ("linalg", "fft"):
            function = Module(self, name)
        else:
            inner = getattr(self.base, name)  # raises what is to be said of names that no namespace has
            if not callable(inner) or isinstance(inner, type) or inspect.ismodule(inner):
                return inner
            function = sample_by_sample(self, name)
        self.__dict__[name] = function
        return function

    def __repr__(self) -> str:
        return f"<array namespace of batches of {self.base.name}>"

    def make(self, value: Any, level: int) -> Any:
        """A result: arrays become samples of a level; what is no array stays what it is."""
        if value.__class__ is tuple or value.__class__ is list:
            return tuple([self.make(v, level) for v in value])
        if isinstance(value, tuple):  # a named tuple of the library's
            return type(value)(*[self.make(v, level) for v in value])
        if not hasattr(value, "dtype"):
            return value
        if not level and isinstance(value, BatchedArray):
            return value
        if not isinstance(value, BatchedArray) and value.__class__ is not self.base.ndarray:
            value = self.base.asarray(value)
        return self.ndarray(value, level)

    def world_of(self, *values: Any) -> Any:
        """The namespace for values that are inside of batched arrays: this one again, where batches are nested."""
        return self if any(isinstance(v, BatchedArray) for v in _flat(values)) else self.base

    def split(self, args: Iterable[Any]) -> tuple[int, int, list[Any], list[bool]]:
        """The innermost level of the arguments, its size, what is inside of them, and which hide that level's samples."""
        level = size = 0
        args = list(args)
        for a in args:
            if isinstance(a, BatchedArray) and a.level > level:
                level, size = a.level, a.value.shape[0]
        hides = [isinstance(a, BatchedArray) and a.level == level > 0 for a in args]
        values = [a.value if isinstance(a, BatchedArray) and a.level in (level, 0) else a for a in args]
        return level, size, values, hides

    # --- what belongs to the device -------------------------------------------------------------------------------------

    def device_of(self, array: Any) -> Any:
        while isinstance(array, BatchedArray):
            array = array.value
        return self.base.device_of(array)

    def shares_memory(self, a: Any, b: Any) -> bool:
        while isinstance(a, BatchedArray):
            a = a.value
        while isinstance(b, BatchedArray):
            b = b.value
        return self.base.shares_memory(a, b)

    def to_host(self, array: Any, non_blocking: bool = False) -> Any:
        if array.level:
            array._only("a NumPy array")
        return self.base.to_host(array.value, non_blocking)

    def move(self, array: Any, target: Any, non_blocking: bool = False) -> Any:
        moved = self.world_of(array.value).move(array.value, target, non_blocking)
        if isinstance(moved, BatchedArray):
            return type(moved)(moved, array.level)
        from . import world_for

        return world_for(moved).ndarray(moved, array.level)


def _flat(values: Iterable[Any]) -> Iterable[Any]:
    for v in values:
        if v.__class__ is tuple or v.__class__ is list:
            yield from _flat(v)
        else:
            yield v
