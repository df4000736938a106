"""Tensors that change their own shape: ``squeeze_``, ``transpose_``, ``as_strided_``, ... on the same memory, and ``resize_``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from weakref import ref

from ...autograd.graph import AccumulateGrad
from ...autograd.variable import Tensor, wrap
from ...backend import namespace
from ...backend.layout import MEMORY_FORMATS, is_channels_last, kept_format, strides_in
from ..dims import as_shape
from . import strided, views

# What users find of this family, and where: see ops/public.py.
METHODS = "as_strided_ resize_ resize_as_ squeeze_ swapaxes_ swapdims_ t_ transpose_ unsqueeze_"


def _become(name: str, view: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The tensor becomes the view. What it was stays in the graph as a tensor of its own, of which it is a view now."""

    def function(input: Tensor, *args: Any, **options: Any) -> Tensor:
        if input._node.__class__ is AccumulateGrad:
            raise RuntimeError(f"{name}: a leaf Variable that requires grad is being used in an in-place operation.")
        before = wrap(input._array, input._node)
        before._version, before._view = input._version, input._view
        if before._view is not None and before._version is not None:
            before._version.append(ref(before))  # as every view
        result = view(before, *args, **options)
        if result is before or result._view is None:
            return input  # nothing to do, or nothing in it
        for weak in (before._version or ())[1:]:
            other = weak()
            if other is not None and other is not result and other._view is not None and other._view[0] is input:
                other._view = (before, *other._view[1:])
        input._array, input._node, input._version, input._view = result._array, result._node, result._version, result._view
        assert input._version is not None
        input._version.append(ref(input))
        return input

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"`{name[:-1]}` in place: the tensor becomes the view. As ``torch.Tensor.{name}``."
    return function


as_strided_ = _become("as_strided_", strided.as_strided)
squeeze_ = _become("squeeze_", views.squeeze)
unsqueeze_ = _become("unsqueeze_", views.unsqueeze)
t_ = _become("t_", views.t)
transpose_ = swapdims_ = _become("transpose_", views.transpose)
swapaxes_ = _become("swapaxes_", views.swapaxes)


def resize_(input: Tensor, *sizes: Any, size: Any = None, memory_format: Any = None) -> Tensor:
    """Change the shape, keeping the elements that are there in their order in memory; as ``torch.Tensor.resize_``.

    Where the tensor's memory is too small it gets another one, and tensors on the old one do not follow. With a memory format the
    elements that are there are then taken to lie in that order.

    Raises
    ------
    RuntimeError
        If the tensor requires grad, or the format is for another number of dimensions.
    """
    if input._node is not None:
        raise RuntimeError("cannot resize variables that require grad")
    shape = as_shape(sizes if size is None else (tuple(size),), "resize_")
    if any(n < 0 for n in shape):
        raise RuntimeError(f"resize_: negative size in {list(shape)}")
    a = input._array
    name = kept_format(memory_format, "contiguous_format")
    if name == "preserve_format":
        raise RuntimeError("Unsupported memory format Preserve")
    if shape == a.shape and name == "contiguous_format":
        return input
    xp = namespace(a)
    count = math.prod(shape)
    start, available = xp.storage_of(a)
    here = xp.address_of(a) - start
    strides = strides_in(shape, a.itemsize, name)
    if here + count * a.itemsize <= available:
        input._array = xp.restride(a, shape, strides)
        return input
    held = (available - here) // a.itemsize
    grown = xp.empty((count,), a.dtype)
    grown[:held] = xp.restride(a, (held,), (a.itemsize,))
    input._array, input._version, input._view = xp.restride(grown, shape, strides), None, None
    return input


def resize_as_(input: Tensor, the_template: Tensor, *, memory_format: Any = None) -> Tensor:
    """`resize_` to another tensor's shape, with `preserve_format` also to its memory format, where it has one."""
    name = kept_format(memory_format, "contiguous_format")
    if name == "preserve_format":
        a = the_template._array
        last = "channels_last" if a.ndim == 4 else "channels_last_3d"
        memory_format = MEMORY_FORMATS[last if is_channels_last(a) else "contiguous_format"]
    return resize_(input, tuple(the_template._array.shape), memory_format=memory_format)
