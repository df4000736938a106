"""Functions that name dimensions: reductions, reshaping, joining, copies. What the program calls 0 stands behind the samples.

Each family is a function of the world and a name that makes the batched function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .one_by_one import Family, as_axes, dims, padded_to, sample_by_sample, spread, table

__all__ = ["DIMENSIONS"]

# --- along dimensions -------------------------------------------------------------------------------------------------


def _reduction(world: Any, name: str) -> Callable[..., Any]:
    """``f(a, axis=None, ...)``: over some dimensions or all."""

    def function(a: Any, axis: Any = None, *rest: Any, **options: Any) -> Any:
        level, _, (value,), _ = world.split((a,))
        if level:
            ndim = value.ndim - 1
            axis = () if not ndim else tuple(range(1, ndim + 1)) if axis is None else dims(axis)
        result = world.make(getattr(world.world_of(value), name)(value, axis, *rest, **options), level)
        if level and not result.ndim and name in _ACROSS:
            result.across = name
        return result

    return function


_ACROSS = ("any", "all", "min", "max", "amin", "amax")


def _arg_extreme(world: Any, name: str) -> Callable[..., Any]:
    """``f(a, axis=None, keepdims=False)``, one dimension or the flattened array."""

    def function(a: Any, axis: int | None = None, out: Any = None, keepdims: bool = False) -> Any:
        level, size, (value,), _ = world.split((a,))
        found = getattr(world.world_of(value), name)
        if not level:
            return world.make(found(value, axis, keepdims=keepdims), 0)
        ndim = value.ndim - 1
        if axis is None or not ndim:
            result = found(value.reshape((size, -1)), 1)
            return world.make(result.reshape((size,) + (1,) * ndim) if keepdims else result, level)
        return world.make(found(value, dims(axis), keepdims=keepdims), level)

    return function


def _with_axis(arrays: int, at: int, default: Any = -1, axis_name: str = "axis") -> Callable[[Any, str], Callable[..., Any]]:
    """Functions of some arrays of one shape, then other arguments, of which number `at` is the dimension."""

    def family(world: Any, name: str) -> Callable[..., Any]:
        def function(*args: Any, **options: Any) -> Any:
            level, size, values, hides = world.split((*args, *options.values()))
            found = getattr(world.world_of(*values), name)
            if not level:
                return world.make(found(*values[: len(args)], **dict(zip(options, values[len(args) :]))), 0)
            values = list(values[: len(args)])
            named = axis_name in options
            axis = options[axis_name] if named else args[at] if len(args) > at else default
            for i in range(arrays):
                values[i] = spread(world, values[i], hides[i], size)
            ndim = values[0].ndim - 1
            flat = axis is None or not ndim
            if flat:
                values[:arrays] = [v.reshape((size, -1)) for v in values[:arrays]]
            shifted = 1 if flat else dims(axis)
            if named or len(args) <= at:
                result = found(*values, **{**options, axis_name: shifted})
            else:
                values[at] = shifted
                result = found(*values, **options)
            if flat and not ndim:
                result = result.reshape((size,)) if result.size == size else result
            return world.make(result, level)

        return function

    return family


def _reshape(world: Any, name: str) -> Callable[..., Any]:
    def function(a: Any, shape: Any) -> Any:
        level, size, (value,), _ = world.split((a,))
        shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        if level:
            if -1 in shape and not value.size:  # what is left of nothing cannot be inferred through the samples
                known = 1
                for n in shape:
                    known *= n if n != -1 else 1
                shape = tuple((a.size // known if known else 0) if n == -1 else n for n in shape)
            shape = (size, *shape)
        return world.make(world.world_of(value).reshape(value, shape), level)

    return function


def _broadcast_to(world: Any, name: str) -> Callable[..., Any]:
    def function(a: Any, shape: Any) -> Any:
        level, size, (value,), _ = world.split((a,))
        shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        if level:
            value, shape = padded_to(value, len(shape)), (size, *shape)
        return world.make(world.world_of(value).broadcast_to(value, shape), level)

    return function


def _broadcast_arrays(world: Any, name: str) -> Callable[..., Any]:
    def function(*arrays: Any) -> Any:
        ndim = max(a.ndim for a in arrays)
        shape = [1] * ndim
        for a in arrays:
            for i, n in enumerate(a.shape, ndim - a.ndim):
                shape[i] = n if shape[i] == 1 else shape[i]
        return tuple(world.broadcast_to(a, tuple(shape)) for a in arrays)

    return function


def _rearranged(arguments: Callable[..., tuple]) -> Callable[[Any, str], Callable[..., Any]]:
    """Functions of one array whose other arguments say dimensions: `arguments` says them for the array with its samples."""

    def family(world: Any, name: str) -> Callable[..., Any]:
        def function(a: Any, *args: Any, **options: Any) -> Any:
            level, _, (value,), _ = world.split((a,))
            if level:
                args, options = arguments(value.ndim - 1, *args, **options), {}
            return world.make(getattr(world.world_of(value), name)(value, *args, **options), level)

        return function

    return family


def _new_dims(ndim: int, axis: Any) -> tuple:
    total = ndim + len(as_axes(axis))
    return (tuple((a % total) + 1 for a in as_axes(axis)),)


def _flat_or_dims(ndim: int, axis: Any = None) -> tuple:
    return (tuple(range(1, ndim + 1)) if axis is None else dims(axis),)


def _pad(world: Any, name: str) -> Callable[..., Any]:
    def function(a: Any, width: Any, mode: str = "constant", **options: Any) -> Any:
        level, _, (value,), _ = world.split((a,))
        if level:
            if isinstance(width, int):
                width = ((width, width),) * (value.ndim - 1)
            elif not isinstance(width[0], (tuple, list)):
                width = (tuple(width),) * (value.ndim - 1)
            width = ((0, 0), *width)
        return world.make(world.world_of(value).pad(value, width, mode, **options), level)

    return function


def _joined(world: Any, name: str) -> Callable[..., Any]:
    """concatenate and stack."""

    def function(arrays: Any, axis: int = 0) -> Any:
        level, size, values, hides = world.split(arrays)
        if level:
            values = [spread(world, v, h, size) for v, h in zip(values, hides)]
        return world.make(getattr(world.world_of(*values), name)(tuple(values), axis=dims(axis) if level else axis), level)

    return function


def _roll(world: Any, name: str) -> Callable[..., Any]:
    def function(a: Any, shift: Any, axis: Any = None) -> Any:
        if axis is None:
            return world.reshape(world.roll(world.reshape(a, (-1,)), shift, 0), a.shape)
        level, _, (value,), _ = world.split((a,))
        return world.make(world.world_of(value).roll(value, shift, dims(axis) if level else axis), level)

    return function


# --- copies, and arrays made anew -----------------------------------------------------------------------------------


def _copied(world: Any, name: str) -> Callable[..., Any]:
    """array, asarray, ascontiguousarray: ``f(a, dtype=None)``; of what is no array, an array for all samples."""

    def function(a: Any, dtype: Any = None, **options: Any) -> Any:
        level, _, (value,), _ = world.split((a,))
        if dtype is not None:
            options["dtype"] = dtype
        return world.make(getattr(world.world_of(value), name)(value, **options), level)

    return function


def _made(world: Any, name: str) -> Callable[..., Any]:
    """zeros, arange and so on: the same for all samples."""

    def function(*args: Any, **options: Any) -> Any:
        level, _, values, _ = world.split((*args, *options.values()))
        if level:
            return sample_by_sample(world, name)(*args, **options)
        return world.make(getattr(world.base, name)(*values[: len(args)], **dict(zip(options, values[len(args) :]))), 0)

    return function


def _made_like(world: Any, name: str) -> Callable[..., Any]:
    def function(a: Any, *args: Any, **options: Any) -> Any:
        level, _, (value, *values), _ = world.split((a, *args))
        return world.make(getattr(world.world_of(value), name)(value, *values, **options), level)

    return function


def _astype(world: Any, name: str) -> Callable[..., Any]:
    return lambda a, dtype: a.astype(dtype)


def _copyto(world: Any, name: str) -> Callable[..., Any]:
    def copyto(target: Any, source: Any, casting: str = "same_kind") -> None:
        level, _, values, hides = world.split((target, source))
        if level and not hides[0]:
            raise RuntimeError(
                "vmap: a tensor that is the same for all samples cannot be changed in place to values that differ between them; use "
                "the operation that returns a new tensor"
            )
        to, value = values
        if hides[1]:
            value = padded_to(value, to.ndim - 1)
        world.world_of(to, value).copyto(to, value, casting=casting)

    return copyto


DIMENSIONS: dict[str, Family] = {
    **table(_reduction, "sum mean prod max min amax amin any all std var logsumexp"),
    **table(_arg_extreme, "argmax argmin"),
    **table(_with_axis(1, 1, None), "cumsum cumprod"),
    **table(_with_axis(1, 1), "sort argsort softmax log_softmax"),
    **table(_with_axis(1, 1, axis_name="dims"), "fft_c2c"),
    **table(_with_axis(1, 1, axis_name="dim"), "fft_r2c fft_c2r"),
    **table(_with_axis(2, 2), "take_along_axis gather softmax_backward log_softmax_backward"),
    **table(_with_axis(3, 3), "scatter"),
    **table(_with_axis(1, 2), "argpartition diff"),
    **table(_with_axis(1, 2, None), "repeat"),
    "reshape": _reshape,
    "broadcast_to": _broadcast_to,
    "broadcast_arrays": _broadcast_arrays,
    "ravel": lambda world, name: lambda a: world.reshape(a, (-1,)),
    "transpose": _rearranged(lambda n, axes=None: ((0, *(d % n + 1 for d in (axes or reversed(range(n))))),)),
    "swapaxes": _rearranged(lambda n, axis1, axis2: (dims(axis1), dims(axis2))),
    "moveaxis": _rearranged(lambda n, source, destination: (dims(source), dims(destination))),
    "expand_dims": _rearranged(_new_dims),
    "squeeze": lambda world, name: lambda a, axis=None: world.reshape(
        a, tuple(n for i, n in enumerate(a.shape) if n != 1 or (axis is not None and i not in [d % a.ndim for d in as_axes(axis)]))
    ),
    "flip": _rearranged(_flat_or_dims),
    "tril": _rearranged(lambda n, k=0: (k,)),
    "triu": _rearranged(lambda n, k=0: (k,)),
    "diagonal": _rearranged(lambda n, offset=0, axis1=0, axis2=1: (offset, axis1 % n + 1, axis2 % n + 1)),
    "trace": lambda world, name: lambda a, offset=0, axis1=0, axis2=1: world.sum(world.diagonal(a, offset, axis1, axis2), -1),
    "roll": _roll,
    "pad": _pad,
    "concatenate": _joined,
    "stack": _joined,
    **table(_copied, "array asarray ascontiguousarray"),
    **table(_made, "zeros ones empty full arange eye eye_of linspace logspace tri scalar from_host"),
    **table(_made_like, "zeros_like ones_like empty_like full_like"),
    "astype": _astype,
    "copyto": _copyto,
}
