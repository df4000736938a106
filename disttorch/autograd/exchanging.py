"""Functions in the place of others, wherever a module, the Tensor class or a table holds them, and back again.

So what is asked of every operation only now and then (by a profiler, or where there are several GPUs) costs nothing at other times.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

from .variable import Tensor

__all__ = ["Exchange"]


class Exchange:
    """What was put in other functions' places."""

    def __init__(self) -> None:
        self._replaced: list[tuple[Any, str, Any]] = []

    def put(self, replacements: dict[int, tuple[Callable[..., Any], Callable[..., Any]]], tables: Iterable[dict[Any, Any]] = ()) -> None:
        """Exchange functions everywhere.

        Parameters
        ----------
        replacements : dict of int to (function, function)
            By the identity of a function: itself, and what comes in its place.
        tables : iterable of dict
            Which hold functions, too.
        """
        modules = [getattr(module, "__dict__", None) for module in tuple(sys.modules.values())]
        holders: list[Any] = [*(names for names in modules if isinstance(names, dict)), *tables, Tensor]
        seen: set[int] = set()
        for holder in holders:
            for name, value in list(holder.items() if isinstance(holder, dict) else vars(holder).items()):
                kind = type(value)
                if kind is FunctionType:  # what others only say they are (lazy modules) is left alone
                    pair = replacements.get(id(value))
                    if pair is not None and pair[0] is value:
                        self.attribute(holder, name, pair[1])
                elif kind is type and str(value.__module__).startswith("disttorch.") and id(value) not in seen:
                    seen.add(id(value))
                    self._put_into_class(value, replacements)

    def _put_into_class(self, holder: type, replacements: dict[int, tuple[Callable[..., Any], Callable[..., Any]]]) -> None:
        """Exchange the functions that a class was given as its own, such as that of a module which calls just one."""
        for name, value in list(vars(holder).items()):
            if type(value) is staticmethod:
                pair = replacements.get(id(value.__func__))
                if pair is not None and pair[0] is value.__func__:
                    self.attribute(holder, name, staticmethod(pair[1]))

    def attribute(self, holder: Any, name: Any, value: Any) -> None:
        """Exchange what a class, a module or a table holds under a name."""
        before = holder[name] if isinstance(holder, dict) else vars(holder)[name]
        self._replaced.append((holder, name, before))
        _set(holder, name, value)

    def undo(self) -> None:
        """Put everything back."""
        while self._replaced:
            _set(*self._replaced.pop())


def _set(holder: Any, name: Any, value: Any) -> None:
    if isinstance(holder, dict):
        holder[name] = value
    else:
        setattr(holder, name, value)
