"""How elements lie in memory, by PyTorch's names. Every tensor here is strided.

A memory format is an order of dimensions in memory: ``channels_last`` says that of (N, C, H, W) the channels of one position lie side by
side. It is not noted anywhere, but seen in the strides (`is_channels_last`, PyTorch's rule), which operations on images hand on:
convolutions compute in the order in which their tensors lie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .choices import CHOICES

__all__ = [
    "CHANNELS_LAST", "FOLLOWING", "LAYOUTS", "MEMORY_FORMATS", "along_axes", "check_layout", "following", "hides_samples", "in_format",
    "is_channels_last", "is_dense", "is_expanded", "is_in_format", "is_writeable", "kept", "kept_format", "laid_out_like",
    "last_axes", "layout", "memory_format", "order_in_memory", "shaped_like", "strides_along", "strides_in", "strides_like", "turned",
    "with_channels_last",
]  # fmt: skip


class _Named:
    """A constant known by its name."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"{CHOICES.package}.{self.name}"

    def __reduce__(self) -> str | tuple:
        return _constant, (self.name,)


class memory_format(_Named):
    """The order of dimensions in memory, such as ``disttorch.contiguous_format``."""

    __slots__ = ()


class layout(_Named):
    """How a tensor keeps its elements: ``disttorch.strided``."""

    __slots__ = ()


MEMORY_FORMATS = {
    name: memory_format(name) for name in ("contiguous_format", "channels_last", "channels_last_3d", "preserve_format")
}
LAYOUTS = {"strided": layout("strided")}


def _constant(name: str) -> _Named:
    return MEMORY_FORMATS.get(name) or LAYOUTS[name]


#: of a format that needs a certain number of dimensions: the number, and the dimensions from the outermost in memory to the innermost
CHANNELS_LAST = {"channels_last": (4, (0, 2, 3, 1)), "channels_last_3d": (5, (0, 2, 3, 4, 1))}


#: number of dimensions -> the format with channels last, and its dimensions from the innermost to the outermost
FORMAT_OF = {ndim: name for name, (ndim, _) in CHANNELS_LAST.items()}
INNERMOST_FIRST: dict[int, tuple[int, ...]] = {ndim: order[::-1] for ndim, order in CHANNELS_LAST.values()}


def kept_format(given: Any, unless: str = "preserve_format") -> str:
    """The name of a memory format that is given, or None for the one that a function has by itself.

    Raises
    ------
    TypeError
        If it is no memory format.
    """
    if given is None:
        return unless
    if not isinstance(given, memory_format):
        raise TypeError(f"argument 'memory_format' must be a memory_format, not {type(given).__name__}")
    return given.name


def strides_in(shape: tuple[int, ...], itemsize: int, name: str) -> tuple[int, ...]:
    """The strides in bytes of an array that lies in a format, as PyTorch sets them, also for dimensions of size 1.

    Raises
    ------
    RuntimeError
        If the format is for another number of dimensions.
    """
    if name not in CHANNELS_LAST:
        return strides_along(range(len(shape)), [max(n, 1) for n in shape], itemsize)
    rank, order = CHANNELS_LAST[name]
    if len(shape) != rank:
        raise RuntimeError(f"required rank {rank} tensor to use {name} format, but got a tensor of size {list(shape)}")
    return strides_along(order, shape, itemsize)


def strides_along(order: Sequence[int], shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """The strides of a dense array whose dimensions lie in this order, the outermost first."""
    strides, step = [0] * len(shape), itemsize
    for d in reversed(order):
        strides[d] = step
        step *= shape[d]
    return tuple(strides)


def is_in_format(a: Any, name: str) -> bool:
    """Whether an array lies in a format without gaps; dimensions of size 1 may have any stride."""
    if name not in CHANNELS_LAST:
        return a.flags.c_contiguous
    if a.ndim != CHANNELS_LAST[name][0]:
        return False
    step = a.itemsize
    for d in reversed(CHANNELS_LAST[name][1]):
        if a.shape[d] != 1 and a.strides[d] != step:
            return False
        step *= a.shape[d]
    return True


def is_channels_last(a: Any) -> bool:
    """Whether operations take an array of images or volumes for one with channels last: by its strides, which may have gaps, and which
    are asked for dimensions of size 1 as well.

    The rule is PyTorch's (``is_channels_last_strides`` in c10/core/MemoryFormat.h): strides that tell the formats apart by nothing mean
    the usual order.
    """
    order = INNERMOST_FIRST.get(a.ndim)
    if order is None:
        return False
    strides, shape = a.strides, a.shape
    if not strides[1]:
        return False
    least = 0
    for d in order:
        n, step = shape[d], strides[d]
        if not n or step < least or (d == 0 and least == strides[1]):
            return False
        least = step * n if n > 1 else step
    return True


def is_dense(a: Any) -> bool:
    """Whether the elements fill their memory without gaps, in any order of dimensions."""
    if a.flags.c_contiguous or a.flags.f_contiguous:
        return True
    step = a.itemsize
    for stride, n in sorted((stride, n) for stride, n in zip(a.strides, a.shape) if n != 1):
        if stride != step:
            return False
        step *= n
    return True


def order_in_memory(a: Any) -> list[int]:
    """The dimensions from the outermost in memory to the innermost; of equal strides, that of a dimension of size 1 is the inner one."""
    return sorted(range(a.ndim), key=lambda d: (-a.strides[d], a.shape[d] == 1))


def hides_samples(a: Any) -> bool:
    """Whether it is an array of `vmap`, which only looks like one sample's and has no strides of its own."""
    return hasattr(a, "level")


def in_format(xp: Any, a: Any, name: str) -> Any:
    """A copy of an array that lies in a format. Arrays that hide a dimension, inside of `vmap`, have no formats."""
    strides = strides_in(a.shape, a.itemsize, name)
    if hides_samples(a):
        return xp.array(a)
    made = xp.empty_strided(a.shape, a.dtype, strides)
    xp.copyto(made, a)
    return made


def with_channels_last(a: Any, empty_strided: Callable[..., Any]) -> Any:
    """An array of 4 or 5 dimensions, or a copy made by ``empty_strided(shape, dtype, strides)``, with channels last; others as they are."""
    name = FORMAT_OF.get(a.ndim)
    if name is None or a.strides == (strides := strides_in(a.shape, a.itemsize, name)):
        return a
    made = empty_strided(a.shape, a.dtype, strides)
    made[...] = a
    return made


def following(kernel: Callable[..., Any], deciding: Sequence[int], empty_strided: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel whose results of 4 or 5 dimensions lie with channels last, by a copy if need be, if one of certain arguments does."""

    def laid_out(*args: Any) -> Any:
        result = kernel(*args)
        if not any(is_channels_last(args[i]) for i in deciding):
            return result
        if isinstance(result, tuple):
            return tuple([with_channels_last(r, empty_strided) for r in result])
        return with_channels_last(result, empty_strided)

    laid_out.__name__ = laid_out.__qualname__ = getattr(kernel, "__name__", "kernel")
    laid_out.__doc__ = kernel.__doc__
    return laid_out


#: kernel of the table -> which arguments, if one lies with channels last, say that the results do; of a maximum the indices tell how its
#: input lies
FOLLOWING = {
    "convolution": (0, 1),
    "convolution_input": (0, 1),
    "convolution_weight": (0, 1),
    "max_pool": (0,),
    "max_pool_backward": (0, 1),
    "max_pool_gather": (0,),
    "avg_pool": (0,),
    "avg_pool_backward": (0,),
    "adaptive_max_pool": (0,),
}


def strides_like(a: Any, itemsize: int) -> tuple[int, ...]:
    """The strides, in bytes, of an array with other elements that lies as this one does."""
    return a.strides if itemsize == a.itemsize else tuple([s // a.itemsize * itemsize for s in a.strides])


def kept(xp: Any, copy: Any, a: Any) -> Any:
    """A new copy of an array, with its strides if they are dense. The libraries keep the order of dimensions, but not the strides of
    those of size 1, by which `is_channels_last` tells how the others of a layer lie; and they put dimensions that are expanded innermost.
    """
    if copy.flags.c_contiguous and (copy.ndim < 4 or (1 not in copy.shape and a.flags.c_contiguous)):
        return copy
    if hides_samples(a):
        return copy
    strides = strides_like(a, copy.itemsize)
    if copy.strides != strides and not is_dense(a):
        strides = strides_in(a.shape, copy.itemsize, "contiguous_format") if is_expanded(a) else copy.strides
    if copy.strides == strides:
        return copy
    made = xp.empty_strided(a.shape, copy.dtype, strides)
    xp.copyto(made, copy)
    return made


def laid_out_like(xp: Any, made: Any, a: Any) -> Any:
    """A new array, or a copy of it, with the strides of another one of its shape where these are dense, else as it is."""
    if hides_samples(made) or hides_samples(a) or made.strides == (strides := strides_like(a, made.itemsize)) or not is_dense(a):
        return made
    turned = xp.empty_strided(a.shape, made.dtype, strides)
    xp.copyto(turned, made)
    return turned


def shaped_like(flat: Any, a: Any) -> Any:
    """A view of an array of one dimension in the shape of another, in its order of dimensions in memory if it is dense."""
    if (a.flags.c_contiguous and a.ndim < 4) or not is_dense(a):
        return flat.reshape(a.shape)
    order = order_in_memory(a)
    return flat.reshape([a.shape[d] for d in order]).transpose([order.index(d) for d in range(a.ndim)])


def turned(arrays: Sequence[Any]) -> list[Any]:
    """Arrays of one shape, or None, with their dimensions in the order in which those of the first lie in memory: where all are dense and
    lie alike, they are in C order afterwards.
    """
    first = arrays[0]
    if first.ndim < 2 or first.flags.c_contiguous or not is_dense(first):
        return list(arrays)
    order = order_in_memory(first)
    return [None if a is None else a.transpose(order) if a.shape == first.shape else a for a in arrays]


def last_axes(ndim: int) -> tuple[list[int], list[int]]:
    """The dimensions of an array with channels last in the order in which they lie in memory, and the way back."""
    order = [0, *range(2, ndim), 1]
    return order, [order.index(d) for d in range(ndim)]


def along_axes(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel ``f(x, along)`` of an array and pairs of an axis and something, so that it computes, and its result lies, with channels
    last where the array does.
    """

    def function(x: Any, along: Any) -> Any:
        if not is_channels_last(x):
            return kernel(x, along)
        order, back = last_axes(x.ndim)
        return kernel(x.transpose(order), tuple([(order.index(axis), what) for axis, what in along])).transpose(back)

    return function


def check_layout(given: object) -> None:
    """Refuse a layout that no tensor has.

    Raises
    ------
    RuntimeError
        If it is not ``strided``, or None for it.
    """
    if given is not None and given is not LAYOUTS["strided"]:
        raise RuntimeError(f"tensors here are strided; there is no layout {given!r}")


def is_expanded(array: Any) -> bool:
    """Whether some places in memory stand for several elements."""
    return any(step == 0 and n > 1 for step, n in zip(array.strides, array.shape))


def is_writeable(array: Any) -> bool:
    """Whether an array's elements can be changed one by one. CuPy's arrays have no flag that says so."""
    try:
        return array.flags.writeable
    except AttributeError:
        return not is_expanded(array)
