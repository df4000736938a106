"""Nested tuples, named tuples, lists and dicts of values: taken apart and put together again."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Structure", "flatten", "flatten_prefix", "tree_map"]

_LEAF: Any = object()


class Structure:
    """How leaves were nested; calling it with as many values nests them in the same way.

    Two structures are equal if they nest alike.
    """

    __slots__ = ("keys", "kind", "parts")

    def __init__(self, kind: Any, keys: Any, parts: tuple[Structure, ...]):
        self.kind, self.keys, self.parts = kind, keys, parts

    @property
    def count(self) -> int:
        """How many leaves there are."""
        return 1 if self.kind is _LEAF else sum(p.count for p in self.parts)

    def __call__(self, leaves: Any) -> Any:
        return self._build(iter(leaves))

    def _build(self, leaves: Iterator[Any]) -> Any:
        if self.kind is _LEAF:
            return next(leaves)
        parts = [p._build(leaves) for p in self.parts]
        if self.keys is None:
            return self.kind(*parts) if hasattr(self.kind, "_fields") else self.kind(parts)
        items = zip(self.keys, parts)
        return defaultdict(None, items) if self.kind is defaultdict else self.kind(items)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Structure) and (self.kind, self.keys, self.parts) == (other.kind, other.keys, other.parts)

    def __hash__(self) -> int:
        return hash((self.kind, self.keys, self.parts))

    def __repr__(self) -> str:
        return "*" if self.kind is _LEAF else f"{self.kind.__name__}({', '.join(map(repr, self.parts))})"


_ONE_LEAF = Structure(_LEAF, None, ())


def _children(tree: Any) -> tuple[Any, Any, list[Any]] | None:
    """What kind of nesting it is, its keys and its parts; None for a leaf."""
    kind = type(tree)
    if kind in (tuple, list) or (isinstance(tree, tuple) and hasattr(tree, "_fields")):
        return kind, None, list(tree)
    if kind in (dict, OrderedDict, defaultdict):
        return kind, tuple(tree), list(tree.values())
    return None


def flatten(tree: Any) -> tuple[list[Any], Structure]:
    """The leaves in order, and how they were nested; None is a leaf."""
    found = _children(tree)
    if found is None:
        return [tree], _ONE_LEAF
    kind, keys, children = found
    leaves: list[Any] = []
    parts = []
    for child in children:
        inner, structure = flatten(child)
        leaves += inner
        parts.append(structure)
    return leaves, Structure(kind, keys, tuple(parts))


def flatten_prefix(prefix: Any, structure: Structure) -> list[Any] | None:
    """A leaf of `prefix` for each leaf of the structure: one stands for all that is nested below it. None if they do not fit."""
    found = _children(prefix)
    if found is None or structure.kind is _LEAF:
        return [prefix] * structure.count if found is None else None
    kind, keys, children = found
    same = kind is structure.kind or (kind in (tuple, list) and structure.kind in (tuple, list))
    if not same or keys != structure.keys or len(children) != len(structure.parts):
        return None
    leaves: list[Any] = []
    for child, part in zip(children, structure.parts):
        inner = flatten_prefix(child, part)
        if inner is None:
            return None
        leaves += inner
    return leaves


def tree_map(function: Callable[[Any], Any], tree: Any) -> Any:
    """The same nesting with the function of each leaf."""
    leaves, structure = flatten(tree)
    return structure([function(leaf) for leaf in leaves])
