"""What has no rule of its own: the function of each sample in turn. And what the rules share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .array import BatchedArray

__all__ = ["Family", "Module", "as_axes", "dims", "is_array", "padded_to", "sample_by_sample", "spread", "table"]

#: of the world and a function's name it makes the function for batched arrays
Family = Callable[[Any, str], Callable[..., Any]]


def sample_by_sample(world: Any, name: str, find: Callable[[Any], Any] | None = None) -> Callable[..., Any]:
    """The function of each sample in turn, and the results side by side."""
    find = find or (lambda inner: getattr(inner, name))

    def function(*args: Any, **kwargs: Any) -> Any:
        flat, rebuild = _flatten((args, kwargs))
        level, size, values, hides = world.split(flat)
        if not level:
            plain_args, plain_kwargs = rebuild(values)
            return world.make(find(world.world_of(*values))(*plain_args, **plain_kwargs), 0)
        results = []
        for i in range(size):
            some_args, some_kwargs = rebuild([v[i] if h else v for v, h in zip(values, hides)])
            one = [v[i] if h else v for v, h in zip(values, hides)]
            results.append(find(world.world_of(*one))(*some_args, **some_kwargs))
        return _side_by_side(world, results, level)

    return function


def _flatten(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """What stands in nested tuples, lists and dicts, and a function that puts others in their places."""
    leaves: list[Any] = []

    def walk(node: Any) -> Callable[[list[Any]], Any]:
        if isinstance(node, (tuple, list)):
            parts = [walk(n) for n in node]
            kind = type(node) if type(node) in (tuple, list) else tuple
            return lambda values: kind([p(values) for p in parts])
        if isinstance(node, dict):
            named = {k: walk(n) for k, n in node.items()}
            return lambda values: {k: p(values) for k, p in named.items()}
        number = len(leaves)
        leaves.append(node)
        return lambda values: values[number]

    return leaves, walk(tree)


def _side_by_side(world: Any, results: list[Any], level: int) -> Any:
    first = results[0]
    if isinstance(first, tuple):
        parts = [_side_by_side(world, [r[i] for r in results], level) for i in range(len(first))]
        return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
    if not hasattr(first, "dtype"):
        if any(r != first for r in results):
            raise RuntimeError("vmap: a result that is no tensor differs between samples")
        return first
    inner = world.world_of(*results)
    arrays = [r if isinstance(r, BatchedArray) else world.base.asarray(r) for r in results]
    if len({tuple(a.shape) for a in arrays}) > 1:
        raise RuntimeError(
            f"vmap: the result's shape differs between samples: {sorted({tuple(a.shape) for a in arrays})}; no tensor can hold that"
        )
    return world.make(inner.stack(arrays, axis=0), level)


class Module:
    """The functions of ``xp.linalg`` and ``xp.fft``."""

    def __init__(self, world: Any, name: str):
        self._world, self._name = world, name

    def __getattr__(self, name: str) -> Any:
        inner = getattr(getattr(self._world.base, self._name), name)
        if isinstance(inner, type) or not callable(inner):
            return inner
        module = self._name
        found = sample_by_sample(self._world, name, lambda xp: getattr(getattr(xp, module), name))
        setattr(self, name, found)
        return found


def dims(axis: Any) -> Any:
    """Dimensions that the program names, behind the hidden one."""
    if axis is None:
        return None
    if isinstance(axis, (tuple, list)):
        return tuple(dims(a) for a in axis)
    return axis + 1 if axis >= 0 else axis


def padded_to(value: Any, ndim: int) -> Any:
    """(samples, *shape) with dimensions of size 1 behind the samples, until the program sees `ndim`."""
    missing = ndim - (value.ndim - 1)
    return value.reshape((value.shape[0],) + (1,) * missing + value.shape[1:]) if missing > 0 else value


def spread(world: Any, value: Any, hidden: bool, size: int) -> Any:
    """A value with a dimension of samples, also where it is the same for all."""
    return value if hidden else world.world_of(value).broadcast_to(value, (size, *value.shape))


def is_array(value: Any) -> bool:
    """Whether a value is an array of some kind."""
    return hasattr(value, "dtype") and hasattr(value, "ndim")


def table(family: Family, names: str) -> dict[str, Family]:
    """The same family for several names."""
    return dict.fromkeys(names.split(), family)


def as_axes(axis: Any) -> tuple[int, ...]:
    """One dimension or several, as several."""
    return tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
