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
from ..backend.dtypes import as_dtype
from ..backend.kernels import PLAIN
from . import (
    arithmetic,
    complex_numbers,
    conversion,
    creation,
    cumulative,
    extremes,
    fft,
    indexing,
    linear,
    pointwise,
    reduction,
    shape,
    special,
)
from .elementwise import OPERATORS
from .linalg import determinants, factorizations, functions, least_squares, solves, spectral, triangular

__all__ = ["tensors"]

_RENAMED = {
    "arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh", "arctan": "atan", "arctan2": "atan2",
    "arctanh": "atanh", "divide": "div", "equal": "eq", "greater": "gt", "greater_equal": "ge", "invert": "bitwise_not",
    "less": "lt", "less_equal": "le", "multiply": "mul", "negative": "neg", "not_equal": "ne", "power": "pow",
    "k0": "modified_bessel_k0", "k0e": "scaled_modified_bessel_k0", "k1": "modified_bessel_k1",
    "k1e": "scaled_modified_bessel_k1", "rint": "round", "subtract": "sub", "absolute": "abs",
}  # fmt: skip
_SAME = """
    abs add ceil copysign cos cosh deg2rad exp exp2 expm1 floor fmax fmin fmod frac hypot isfinite isinf isnan log log10 log1p log2
    heaviside logaddexp logaddexp2 nextafter sinc xlogy
    bessel_j0 bessel_j1 bessel_y0 bessel_y1 digamma entr erfcx erfinv i0 i0e i1 i1e lgamma log_ndtr ndtr ndtri spherical_bessel_j0
    xlog1py zeta
    logical_and logical_not logical_or logical_xor maximum minimum rad2deg reciprocal relu remainder sign sin sinh sqrt
    square tan tanh trunc sigmoid erf erfc bitwise_and bitwise_or bitwise_xor floor_divide
""".split()


def _reducing(function: Any) -> Any:
    # no axes are none here, and all in PyTorch
    return lambda a, axis=None, keepdims=False: a if axis == () else function(a, axis, keepdims)


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
_add_rows = Operation("add_rows", lambda xp, x, *, at, rows: xp.add_rows(x, at, rows), x=lambda g, at: g[at])
_diagonal_backward = Operation(
    "diagonal_backward",
    lambda xp, x, *, shape, offset, dim1, dim2: xp.diagonal_backward(x, shape, offset, dim1, dim2),
    x=lambda g, offset, dim1, dim2, xp: xp.diagonal(g, offset, dim1, dim2),
)

_in_layout = Operation("clone", lambda xp, x, *, strides: xp.in_layout(x, strides), x=lambda g: g)


class Tensors(SimpleNamespace):
    """Tensors under NumPy's names."""

    ndarray = Tensor

    def __repr__(self) -> str:
        return "<array namespace of tensors>"


tensors = Tensors(name="tensors")
for _name, _plain in PLAIN.items():
    setattr(tensors, _name, partial(_plain, tensors))
for _name, _ours in [(n, n) for n in _SAME] + list(_RENAMED.items()):
    _function = next(getattr(family, _ours) for family in (pointwise, arithmetic, special) if hasattr(family, _ours))
    setattr(tensors, _name, OPERATORS.get(_function, _function))  # an operator takes numbers on both sides
tensors.__dict__.update(
    sum=_reducing(reduction.sum),
    mean=_reducing(reduction.mean),
    prod=_reducing(reduction.prod),
    max=_extreme(extremes.amax),
    min=_extreme(extremes.amin),
    amax=_extreme(extremes.amax),
    amin=_extreme(extremes.amin),
    any=lambda a, axis=None, keepdims=False: reduction.any(a, axis, keepdims),
    all=lambda a, axis=None, keepdims=False: reduction.all(a, axis, keepdims),
    cumsum=lambda a, axis: cumulative.cumsum(a, axis),
    cumprod=lambda a, axis: cumulative.cumprod(a, axis),
    conjugate=complex_numbers.conj,
    to_complex=complex_numbers.complex,
    angle=complex_numbers.angle,
    sgn=complex_numbers.sgn,
    log_add_exp=OPERATORS[pointwise.logaddexp],
    polygamma=lambda a, n: special.polygamma(n, a),
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
    clip=arithmetic.clamp,
    take_along_axis=_take_along_axis,
    zeros=_filled(creation.zeros),
    ones=_filled(creation.ones),
    zeros_like=_like(0),
    ones_like=_like(1),
    full_like=lambda a, value: creation.full_like(a, value),
    arange=creation.arange,
    array=conversion.clone,
    asarray=lambda a, dtype=None: a if dtype is None else conversion.to(a, dtype=as_dtype(dtype)),
    ascontiguousarray=conversion.contiguous,
    astype=lambda a, dtype: conversion.to(a, dtype=as_dtype(dtype)),
    scalar=lambda value, dtype: value,
    move=lambda a, target, non_blocking=False: conversion.to(a, device=target, non_blocking=non_blocking),
    put_slice=lambda g, size, index: apply(_put_slice, g, shape=size, index=index),
    put_index=lambda g, size, index: apply(_put_index, g, shape=size, index=index),
    gather=lambda a, index, axis: apply(_gather, a, index, axis=axis),
    scatter_add=lambda a, index, size, axis: apply(_scatter_add, a, index, shape=tuple(size), axis=axis),
    add_rows=lambda g, index, rows: apply(_add_rows, g, at=index, rows=rows),
    scatter=lambda a, index, source, axis: indexing.scatter(a, axis, index, source),
    put_at=lambda a, index, source: apply(indexing.places.put_at_op, a, _as_tensor(source, a), index=index),
    reduce_at=lambda a, index, source, how, include_self=True: apply(
        indexing.places.BY_KERNEL[how], a, _as_tensor(source, a), index=index, include_self=include_self
    ),
    log_gamma_slope=partial(apply, creation.drawn_gamma._slope),
    take=lambda a, index, axis: a[(slice(None),) * axis + (index,)],
    in_layout=lambda a, strides: apply(_in_layout, a, strides=strides),
    diagonal_backward=lambda g, size, offset, dim1, dim2: apply(
        _diagonal_backward, g, shape=tuple(size), offset=offset, dim1=dim1, dim2=dim2
    ),
    attention_keep=lambda like, *block: wrap(NAMESPACES[like._array.__class__].attention_keep(like._array, *block)),
)
tensors.__dict__.update(  # factorizations have rules of their own, and return what the kernels of those names do
    cholesky=partial(apply, factorizations._cholesky),
    lu_factor=partial(apply, factorizations._lu_factor),
    solve_triangular=lambda a, b, upper, unitriangular: triangular.solve_triangular(
        a, b, upper=upper, unitriangular=unitriangular
    ),
    permutation=lambda pivots, m, inverse: wrap(NAMESPACES[pivots._array.__class__].permutation(pivots._array, m, inverse)),
    solve=partial(apply, solves._solve),
    inv=partial(apply, solves._inv),
    pinv=lambda a, rcond: least_squares.pinv(a, rcond),
    det=determinants.det,
    eig=partial(apply, spectral._eig),
    eigh=lambda a, uplo: apply(spectral._eigh, a, uplo=uplo),
    svd=lambda a, full: apply(spectral._svd, a, full=full),
    matrix_exp=functions.matrix_exp,
    fft_c2c=lambda a, dims, inverse, scale: apply(fft._c2c, a, dims=dims, inverse=inverse, scale=scale),
    fft_r2c=lambda a, dim, scale: apply(fft._r2c, a, dim=dim, scale=scale),
    fft_c2r=lambda a, dim, n, scale: apply(fft._c2r, a, dim=dim, n=n, scale=scale),
)
NAMESPACES[Tensor] = tensors
