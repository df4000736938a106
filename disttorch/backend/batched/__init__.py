"""The world of batches: a program on one sample runs on many at once, as `func.vmap` has it.

`world_for` gives an array library's namespace of `BatchedArray`: NumPy's names and the kernels, in which everything that a
program says of dimensions is about those it sees, and the hidden one goes along. Plain kernels, which are written in the
namespace, run in it as they are; so do the derivatives of operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..namespace import NAMESPACES
from .array import BatchedArray, Level, RandomnessError, levels, new_level
from .one_by_one import sample_by_sample
from .world import Batched

__all__ = ["BatchedArray", "Level", "RandomnessError", "batch", "levels", "lifted", "new_level", "samples_of", "unbatch", "world_for"]

_worlds: dict[str, Batched] = {}


def world_for(array: Any) -> Batched:
    """The namespace of samples of such arrays."""
    xp = NAMESPACES[array.__class__]
    if isinstance(xp, Batched):
        return xp
    if xp.name not in _worlds:
        _worlds[xp.name] = Batched(xp)
    return _worlds[xp.name]


def batch(array: Any, axis: int, level: int) -> BatchedArray:
    """The array with one of its dimensions hidden."""
    if isinstance(array, BatchedArray):
        if array.level > level:  # inner levels stay outside
            return type(array)(batch(array.value, axis + 1, level), array.level)
        if not array.level:
            array = array.value
    xp = NAMESPACES[array.__class__]
    return world_for(array).ndarray(xp.moveaxis(array, axis, 0) if axis else array, level)


def unbatch(array: Any, axis: int, level: int, size: int) -> Any:
    """The array with the samples of a level as a dimension again, all equal if there was none."""
    if isinstance(array, BatchedArray) and array.level > level:
        return type(array)(unbatch(array.value, axis + 1, level, size), array.level)
    if isinstance(array, BatchedArray) and array.level == level:
        value = array.value
    else:
        value = array.value if isinstance(array, BatchedArray) and not array.level else array
        xp = NAMESPACES[value.__class__]
        value = xp.broadcast_to(value, (size, *value.shape))
    return NAMESPACES[value.__class__].moveaxis(value, 0, axis) if axis else value


def lifted(array: Any) -> BatchedArray:
    """The array as one that is the same for all samples."""
    return array if isinstance(array, BatchedArray) else world_for(array).ndarray(array, 0)


def samples_of(draw: Callable[..., Any], args: tuple, different: Sequence[Level]) -> Any:
    """What a function draws at random, anew for each sample of some levels.

    Arguments are numbers, a shape, or arrays; results have that shape, or that of the arrays.
    """
    if not different and not any(isinstance(a, BatchedArray) for a in args):
        return draw(*args)
    at = next((i for i, a in enumerate(args) if isinstance(a, tuple)), None)
    if at is not None:
        sizes = tuple(level.size for level in different)
        drawn = draw(*args[:at], sizes + args[at], *args[at + 1 :])
        for level in different:
            drawn = batch(drawn, 0, level.number)
        return drawn
    if not different or (isinstance(args[0], BatchedArray) and any(n.number == args[0].level for n in different)):
        levels_inside = sorted({a.level for a in args if isinstance(a, BatchedArray)})
        if not levels_inside or not levels_inside[-1]:
            return draw(*[a.value if isinstance(a, BatchedArray) else a for a in args])
        world = next(a.world for a in args if isinstance(a, BatchedArray))
        rest = [level for level in different if level.number != levels_inside[-1]]
        return sample_by_sample(world, "", lambda inner: lambda *one: samples_of(draw, one, rest))(*args)
    # the same arguments for each sample of the innermost level
    level = different[-1]
    one_each = [samples_of(draw, args, different[:-1]) for _ in range(level.size)]
    return batch(NAMESPACES[one_each[0].__class__].stack(one_each), 0, level.number)
