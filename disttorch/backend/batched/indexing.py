"""Indexing samples: where the hidden dimension has to stand while an index is applied to the others."""

from __future__ import annotations

from typing import Any

from .array import BatchedArray

__all__ = ["add_at", "get_item", "set_item"]

_ALL = slice(None)


def _is_array(part: Any) -> bool:
    return (hasattr(part, "shape") and hasattr(part, "dtype")) or isinstance(part, (list, bool))


def _parts(index: Any) -> tuple:
    return index if isinstance(index, tuple) else (index,)


def _is_basic(parts: tuple) -> bool:
    return not any(_is_array(p) for p in parts)


class _Place:
    """An index with arrays in it, applied: ``turned[arrays]`` is what it picks, with the picked dimensions in front.

    Parameters
    ----------
    x : BatchedArray
    index
        As the program wrote it, for the shape that the program sees.
    """

    def __init__(self, x: BatchedArray, index: Any):
        world = x.world
        parts = list(_parts(index))
        level = max([x.level, *(p.level for p in parts if isinstance(p, BatchedArray))])
        values = [(p.value if isinstance(p, BatchedArray) and p.level in (level, 0) else p) for p in parts]
        hides = [isinstance(p, BatchedArray) and p.level == level > 0 for p in parts]
        value, self.batched = (x.value, x.level == level > 0) if x.level in (level, 0) else (x, False)
        self.level = level
        self.indices_hide = any(hides)
        # bool masks as the positions they pick
        positions: list[Any] = []
        for part, hidden in zip(values, hides):
            if isinstance(part, (list, bool)):
                part = world.base.asarray(part)
            if _is_array(part) and part.dtype.kind == "b":
                if hidden or isinstance(part, BatchedArray):
                    raise RuntimeError(
                        "vmap: indexing with a bool mask that differs between samples gives each sample another shape; use where()"
                    )
                if part.ndim:
                    positions += [(p, False) for p in world.base.nonzero(part)]
                else:  # x[True]: a new dimension of size 1, or 0
                    positions += [(None, False), (world.base.nonzero(part.reshape(1))[0], False)]
                continue
            positions.append((part, hidden))
        if any(part is Ellipsis for part, _ in positions):
            where = next(i for i, (part, _) in enumerate(positions) if part is Ellipsis)
            count = x.ndim - sum(part is not None and part is not Ellipsis for part, _ in positions)
            positions[where : where + 1] = [(_ALL, False)] * count
        # slices and None first; each array, and each integer beside arrays, then stands for one dimension
        basic = tuple(part if isinstance(part, slice) or part is None else _ALL for part, _ in positions)
        value = value[(_ALL, *basic) if self.batched else basic]
        at = [i for i, (part, _) in enumerate(positions) if not isinstance(part, slice) and part is not None]
        arrays = [positions[i] for i in at]
        together = at == list(range(at[0], at[0] + len(at)))
        self.first = at[0] if together else 0
        lead = int(self.batched)
        if self.batched and not self.indices_hide:
            order = [i + 1 for i in at] + [0] + [i for i in range(1, value.ndim) if i - 1 not in at]
        else:
            order = [*range(lead), *(i + lead for i in at), *(i for i in range(lead, value.ndim) if i - lead not in at)]
        self.turned = value.transpose(order)
        self.width = max(_ndim(part) - hidden for part, hidden in arrays)  # how many dimensions the arrays become
        picks: list[Any] = []
        for part, hidden in arrays:
            if hidden:  # (samples, *dims) against the others' dims
                part = part.reshape((part.shape[0],) + (1,) * (self.width - part.ndim + 1) + part.shape[1:])
            picks.append(part)
        if self.batched and self.indices_hide:
            picks.insert(0, world.base.arange(value.shape[0]).reshape((-1,) + (1,) * self.width))
        self.picks = tuple(picks)
        if any(isinstance(p, BatchedArray) for p in picks) and not isinstance(self.turned, BatchedArray):
            self.turned = world.ndarray(self.turned, 0)

    def to_program(self, result: Any) -> Any:
        """What ``turned[picks]`` gave, with the hidden dimension first and the picked ones where the program expects them."""
        if not (self.batched or self.indices_hide):
            return _move_block(result, 0, self.width, self.first)
        if self.batched and not self.indices_hide:
            result = _move_block(result, self.width, 1, 0)
        return _move_block(result, 1, self.width, self.first + 1)

    def from_program(self, value: Any) -> Any:
        """The opposite, for what is assigned."""
        if not (self.batched or self.indices_hide):
            return _move_block(value, self.first, self.width, 0)
        value = _move_block(value, self.first + 1, self.width, 1)
        if self.batched and not self.indices_hide:
            value = _move_block(value, 0, 1, self.width)
        return value


def _ndim(part: Any) -> int:
    return getattr(part, "ndim", 0)


def _move_block(a: Any, start: int, width: int, to: int) -> Any:
    """The dimensions [start, start + width) moved so that they begin at `to`; the others keep their order."""
    if start == to or not width:
        return a
    rest = [i for i in range(a.ndim) if not start <= i < start + width]
    return a.transpose(rest[:to] + list(range(start, start + width)) + rest[to:])


def get_item(x: BatchedArray, index: Any) -> Any:
    """``x[index]``: a view for integers, slices, None and ``...``, else a copy."""
    parts = _parts(index)
    if _is_basic(parts):
        value = x.value[(_ALL, *parts) if x.level else parts]
        return x.world.make(value, x.level)
    place = _Place(x, index)
    return x.world.make(place.to_program(place.turned[place.picks]), place.level if place.batched or place.indices_hide else 0)


def set_item(x: BatchedArray, index: Any, value: Any) -> None:
    """``x[index] = value``. What was the same for all samples is no more, if the value or the index differs between them."""
    parts = _parts(index)
    _promote(x, (value, *parts))
    if _is_basic(parts):
        target = x.value[(_ALL, *parts) if x.level else parts]
        target[...] = _against(x, value, target.ndim - bool(x.level))
        return
    place = _Place(x, index)
    place.turned[place.picks] = _arranged(x, place, value)


def add_at(x: BatchedArray, index: Any, value: Any, how: str = "add") -> None:
    """``x[index] += value`` with repeated indices added up; or multiply, maximum, minimum."""
    parts = _parts(index)
    _promote(x, (value, *parts))
    if _is_basic(parts):  # every place occurs once
        x[index] = getattr(x.world, how)(x[index], value)
        return
    place = _Place(x, index)
    x.world.world_of(place.turned).add_at(place.turned, place.picks, _arranged(x, place, value), how)


def _promote(x: BatchedArray, others: tuple) -> None:
    """Give `x` memory for each sample of every level that is in what will be written into it."""
    sizes: dict[int, int] = {}
    for part in others:
        while isinstance(part, BatchedArray):
            if part.level:
                sizes[part.level] = part.value.shape[0]
            part = part.value
    for level, size in sorted(sizes.items()):
        _give_level(x, level, size)


def _give_level(x: BatchedArray, level: int, size: int) -> None:
    if x.level == level:
        return
    if x.level > level:
        inner = x.value if isinstance(x.value, BatchedArray) else type(x)(x.value, 0)
        _give_level(inner, level, size)
        x.value = inner
        return
    inner = x.value if x.level == 0 else type(x)(x.value, x.level)
    world = x.world.world_of(inner)
    x.value, x.level = world.array(world.broadcast_to(inner, (size, *inner.shape))), level


def _against(x: BatchedArray, value: Any, ndim: int) -> Any:
    """A value in the shape that broadcasts against (samples, *dims) of `ndim` dims, where `x` hides samples."""
    if not isinstance(value, BatchedArray):
        return value
    if value.level != x.level:
        return value.value if value.level == 0 else value
    inner = value.value
    if x.level and inner.ndim - 1 != ndim:
        inner = inner.reshape((inner.shape[0],) + (1,) * (ndim - inner.ndim + 1) + inner.shape[1:])
    return inner


def _arranged(x: BatchedArray, place: _Place, value: Any) -> Any:
    """A value with its dimensions in the order of ``turned[picks]``."""
    value = _against(x, value, -1) if not isinstance(value, BatchedArray) or value.level != x.level or not x.level else value
    hidden = isinstance(value, BatchedArray) and value.level == x.level and x.level > 0
    if not hidden and _ndim(value) == 0:
        return value
    picked = place.turned[place.picks].shape
    ordered = list(range(len(picked)))
    # the shape that the program sees, found by turning the numbers of the dimensions
    probe = place.to_program(_Numbered(ordered))
    shape = tuple(picked[i] for i in probe.order)
    if hidden:
        inner = value.value
        inner = inner.reshape((inner.shape[0],) + (1,) * (len(shape) - inner.ndim) + inner.shape[1:])
    else:
        inner = value if hasattr(value, "shape") else x.world.base.asarray(value)
    world = x.world.world_of(inner)
    return place.from_program(world.broadcast_to(inner, shape))


class _Numbered:
    """Stands for an array whose dimensions are to be followed through transpositions."""

    def __init__(self, order: list[int]):
        self.order = order

    @property
    def ndim(self) -> int:
        return len(self.order)

    def transpose(self, order: list[int]) -> _Numbered:
        return _Numbered([self.order[i] for i in order])
