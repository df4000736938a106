"""The third array world: tensors under NumPy's names, in which rules run when gradients are to be differentiated.

The kernels are here twice over: those that are Operations themselves, and plain kernels, which are written in the
namespace and so become differentiable by being given this one.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

from ..autograd.operation import Operation, apply
from ..autograd.variable import Tensor, wrap
from ..backend import NAMESPACES
from ..backend.kernels import PLAIN
from . import conversion, creation, indexing, linear, pointwise, reduction, shape

__all__ = ["tensors"]

_RENAMED = {
    "arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh", "arctan": "atan", "arctan2": "atan2",
    "arctanh": "atanh", "divide": "div", "equal": "eq", "greater": "gt", "greater_equal": "ge", "invert": "bitwise_not",
    "less": "lt", "less_equal": "le", "multiply": "mul", "negative": "neg", "not_equal": "ne", "power": "pow",
    "rint": "round", "conjugate": "conj", "subtract": "sub", "absolute": "abs",
}  # fmt: skip
_SAME = """
    abs add ceil copysign cos cosh deg2rad exp exp2 expm1 floor fmax fmin fmod frac hypot isfinite isinf isnan log log10 log1p log2
    logaddexp logical_and logical_not logical_or logical_xor maximum minimum rad2deg reciprocal relu remainder sign sin sinh sqrt
    square tan tanh trunc sigmoid erf erfc bitwise_and bitwise_or bitwise_xor floor_divide
""".split()


def _reducing(function: Any) -> Any:
    return lambda a, axis=None, keepdims=False: function(a, axis, keepdims)


def _extreme(whole: Any) -> Any:
    return lambda a, axis=None, keepdims=False: whole(a, () if axis is None else axis, keepdims)


def _expand_dims(a: Tensor, axis: Any) -> Tensor:
    for d in sorted(axis if isinstance(axis, tuple) else (axis,)):
        a = shape.unsqueeze(a, d)
    return a


def _like(value: float) -> Any:
    return lambda a, dtype=None: creation.full_like(a, value, dtype=a.dtype if dtype is None else dtype)


def _filled(maker: Any) -> Any:
    return lambda size, dtype: maker(size, dtype=dtype)


def _as_tensor(v: Any, like: Tensor) -> Tensor:
    return v if isinstance(v, Tensor) else wrap(NAMESPACES[like._array.__class__].asarray(v))


def _where(condition: Any, x: Any, y: Any) -> Tensor:
    like = next(v for v in (x, y, condition) if isinstance(v, Tensor))
    return indexing.where(_as_tensor(condition, like), x, y)


def _take_along_axis(a: Tensor, indices: Any, axis: int) -> Tensor:
    return indexing.take_along_dim(a, _as_tensor(indices, a), axis)


_put_slice = Operation(
    "put_slice", lambda xp, x, *, shape, index: xp.put_slice(x, shape, index), x=lambda g, index: g[index]
)
_put_index = Operation(
    "put_index", lambda xp, x, *, shape, index: xp.put_index(x, shape, index), x=lambda g, index: g[index]
)
_gather = Operation(
    "gather", lambda xp, x, index, *, axis: xp.gather(x, index, axis),
    x=lambda g, index, x_shape, axis, xp: xp.scatter_add(g, index, x_shape, axis),
)  # fmt: skip
_scatter_add = Operation(
    "scatter_add", lambda xp, x, index, *, shape, axis: xp.scatter_add(x, index, shape, axis),
    x=lambda g, index, axis, xp: xp.gather(g, index, axis),
)  # fmt: skip
_diagonal_backward = Operation(
    "diagonal_backward",
    lambda xp, x, *, shape, offset, dim1, dim2: xp.diagonal_backward(x, shape, offset, dim1, dim2),
    x=lambda g, offset, dim1, dim2, xp: xp.diagonal(g, offset, dim1, dim2),
)


class Tensors(SimpleNamespace):
    """Tensors under NumPy's names."""

    ndarray = Tensor

    def __repr__(self) -> str:
        return "<array namespace of tensors>"


tensors = Tensors(name="tensors")
for _name, _plain in PLAIN.items():
    setattr(tensors, _name, partial(_plain, tensors))
for _name in _SAME:
    setattr(tensors, _name, getattr(pointwise, _name))
for _name, _ours in _RENAMED.items():
    setattr(tensors, _name, getattr(pointwise, _ours))
tensors.__dict__.update(
    sum=_reducing(reduction.sum),
    mean=_reducing(reduction.mean),
    prod=_reducing(reduction.prod),
    max=_extreme(reduction.amax),
    min=_extreme(reduction.amin),
    amax=_extreme(reduction.amax),
    amin=_extreme(reduction.amin),
    any=lambda a, axis=None, keepdims=False: reduction.any(a, axis, keepdims),
    all=lambda a, axis=None, keepdims=False: reduction.all(a, axis, keepdims),
    cumsum=lambda a, axis: reduction.cumsum(a, axis),
    matmul=linear.matmul,
    linear=linear.linear,
    reshape=lambda a, size: shape.reshape(a, size),
    transpose=lambda a, axes: shape.permute(a, axes),
    swapaxes=shape.transpose,
    moveaxis=shape.movedim,
    expand_dims=_expand_dims,
    squeeze=lambda a, axis=None: shape.squeeze(a, axis),
    broadcast_to=lambda a, size: shape.expand(a, size),
    concatenate=lambda arrays, axis=0: shape.cat(arrays, axis),
    stack=lambda arrays, axis=0: shape.stack(arrays, axis),
    flip=lambda a, axis: shape.flip(a, axis),
    roll=shape.roll,
    tril=shape.tril,
    triu=shape.triu,
    diagonal=shape.diagonal,
    where=_where,
    clip=indexing.clamp,
    take_along_axis=_take_along_axis,
    zeros=_filled(creation.zeros),
    ones=_filled(creation.ones),
    zeros_like=_like(0),
    ones_like=_like(1),
    full_like=lambda a, value: creation.full_like(a, value),
    arange=creation.arange,
    array=conversion.clone,
    asarray=lambda a, dtype=None: conversion.to(a, dtype=dtype),
    ascontiguousarray=conversion.contiguous,
    astype=lambda a, dtype: conversion.to(a, dtype=dtype),
    scalar=lambda value, dtype: value,
    move=lambda a, target: conversion.to(a, device=target),
    put_slice=lambda g, size, index: apply(_put_slice, g, shape=size, index=index),
    put_index=lambda g, size, index: apply(_put_index, g, shape=size, index=index),
    gather=lambda a, index, axis: apply(_gather, a, index, axis=axis),
    scatter_add=lambda a, index, size, axis: apply(_scatter_add, a, index, shape=tuple(size), axis=axis),
    scatter=lambda a, index, source, axis: indexing.scatter(a, axis, index, source),
    diagonal_backward=lambda g, size, offset, dim1, dim2: apply(
        _diagonal_backward, g, shape=tuple(size), offset=offset, dim1=dim1, dim2=dim2
    ),
)
NAMESPACES[Tensor] = tensors
