"""Nested tuples, named tuples, lists and dicts of values: taken apart and put together again; as ``torch.utils._pytree``.

PyTorch's users have it from there though its name says that it is not for them. Types of their own cannot be registered.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

__all__ = [
    "PyTree", "Structure", "TreeSpec", "flatten", "flatten_prefix", "tree_all", "tree_any", "tree_flatten", "tree_iter", "tree_leaves",
    "tree_map", "tree_map_", "tree_map_only", "tree_structure", "tree_unflatten",
]  # fmt: skip

PyTree = Any

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

    num_leaves = count

    def is_leaf(self) -> bool:
        """Whether it is a value and no nesting."""
        return self.kind is _LEAF

    def __call__(self, leaves: Any) -> Any:
        return self._build(iter(leaves))

    def _build(self, leaves: Iterator[Any]) -> Any:
        if self.kind is _LEAF:
            return next(leaves)
        parts = [p._build(leaves) for p in self.parts]
        if self.keys is None:
            return self.kind(*parts) if hasattr(self.kind, "_fields") else self.kind(parts)
        if self.kind is deque:
            return deque(parts, self.keys)
        if self.kind is defaultdict:
            factory, keys = self.keys
            return defaultdict(factory, zip(keys, parts))
        return self.kind(zip(self.keys, parts))

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
    if kind in (dict, OrderedDict):
        return kind, tuple(tree), list(tree.values())
    if kind is defaultdict:
        return kind, (tree.default_factory, tuple(tree)), list(tree.values())
    if kind is deque:
        return kind, tree.maxlen, list(tree)
    return None


def flatten(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[Any], Structure]:
    """The leaves in order, and how they were nested; None is a leaf, and what `is_leaf` says is one."""
    found = None if is_leaf is not None and is_leaf(tree) else _children(tree)
    if found is None:
        return [tree], _ONE_LEAF
    kind, keys, children = found
    leaves: list[Any] = []
    parts = []
    for child in children:
        inner, structure = flatten(child, is_leaf)
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


def tree_map(func: Callable[..., Any], tree: Any, *rests: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """The same nesting with the function of each leaf, and of what is at its place in the other trees.

    Raises
    ------
    ValueError
        If another tree is not nested like the first.

    Examples
    --------
    >>> from disttorch.utils._pytree import tree_map
    >>> tree_map(lambda x, y: x + y, {"a": [1, 2]}, {"a": [10, 20]})
    {'a': [11, 22]}
    """
    leaves, structure = flatten(tree, is_leaf)
    others = []
    for rest in rests:
        other = _like(rest, structure)
        if other is None:
            raise ValueError(f"tree_map: trees are nested differently: {structure} and {flatten(rest, is_leaf)[1]}")
        others.append(other)
    return structure([func(*values) for values in zip(leaves, *others)])


def _like(tree: Any, structure: Structure) -> list[Any] | None:
    """What a tree has in the places of a structure's leaves; None if it is not nested like the structure."""
    if structure.kind is _LEAF:
        return [tree]
    found = _children(tree)
    if found is None:
        return None
    kind, _, children = found
    if kind is not structure.kind or len(children) != len(structure.parts):
        return None
    if kind in (dict, OrderedDict, defaultdict):
        wanted = structure.keys[1] if kind is defaultdict else structure.keys
        if set(tree) != set(wanted):
            return None
        children = [tree[key] for key in wanted]
    leaves: list[Any] = []
    for child, part in zip(children, structure.parts):
        inner = _like(child, part)
        if inner is None:
            return None
        leaves += inner
    return leaves


# --- PyTorch's names --------------------------------------------------------------------------------------------------

TreeSpec = Structure
tree_flatten = flatten


def tree_unflatten(leaves: Any, treespec: Structure) -> Any:
    """Leaves nested again.

    Raises
    ------
    ValueError
        If there are more or fewer of them than the structure has.
    """
    leaves = list(leaves)
    if len(leaves) != treespec.count:
        raise ValueError(f"tree_unflatten: got {len(leaves)} leaves for a structure of {treespec.count}: {treespec}")
    return treespec(leaves)


def tree_leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[Any]:
    """The leaves in order."""
    return flatten(tree, is_leaf)[0]


def tree_iter(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> Iterator[Any]:
    """The leaves in order, one by one."""
    return iter(tree_leaves(tree, is_leaf))


def tree_structure(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> Structure:
    """How the leaves are nested."""
    return flatten(tree, is_leaf)[1]


def tree_map_(func: Callable[..., Any], tree: Any, *rests: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """Call a function, for what it does, with each leaf; returns the tree."""
    tree_map(func, tree, *rests, is_leaf=is_leaf)
    return tree


def tree_map_only(type_or_types_or_pred: Any, func: Any, tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """`tree_map` of the leaves of a type, or of some types, or for which a function says so; the others stay."""
    kind = type_or_types_or_pred
    is_meant = (lambda leaf: isinstance(leaf, kind)) if isinstance(kind, (type, tuple)) else kind
    return tree_map(lambda leaf: func(leaf) if is_meant(leaf) else leaf, tree, is_leaf=is_leaf)


def tree_all(pred: Callable[[Any], bool], tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> bool:
    """Whether something is true of all leaves."""
    return all(map(pred, tree_iter(tree, is_leaf)))


def tree_any(pred: Callable[[Any], bool], tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> bool:
    """Whether something is true of one of the leaves."""
    return any(map(pred, tree_iter(tree, is_leaf)))
