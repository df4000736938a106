"""Norms of vectors and matrices.

Where a norm has no derivative (at 0, and between equal greatest elements) the gradient is PyTorch's subgradient.
"""

from __future__ import annotations

from math import inf
from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from ...backend import dtypes as dt
from ...backend.dtypes import HALF
from ..dims import normal_dim, normal_dims
from ..public import with_out
from .arguments import check_tensor
from .matrices import is_complex
from .spectral import svdvals

__all__ = ["dist", "matrix_norm", "norm", "nuclear_norm", "renorm", "torch_norm", "vector_norm"]


# --- vectors -------------------------------------------------------------------------------------------------------


def norm_of_array(xp: Any, x: Any, *, ord: float, dim: Any, keepdim: bool) -> Any:
    """The p-norm over dimensions, or all for None."""
    if x.dtype in HALF:
        return norm_of_array(xp, x.astype("float32"), ord=ord, dim=dim, keepdim=keepdim).astype(x.dtype)
    axis = dim[0] if dim is not None and len(dim) == 1 else dim
    if ord == 2:
        squares = x.real * x.real + x.imag * x.imag if x.dtype.kind == "c" else x * x
        return xp.sqrt(xp.sum(squares, axis, keepdim))
    if ord == 0:
        return xp.asarray(xp.sum(x != 0, axis, keepdim), dtype=x.real.dtype)
    size = xp.abs(x)
    if ord == 1:
        return xp.sum(size, axis, keepdim)
    if ord in (inf, -inf):
        return (xp.max if ord > 0 else xp.min)(size, axis, keepdim)
    return xp.power(xp.sum(xp.power(size, xp.scalar(ord, size.dtype)), axis, keepdim), xp.scalar(1 / ord, size.dtype))


def _spread(xp: Any, a: Any, x: Any, dim: Any, keepdim: bool) -> Any:
    """A reduced array beside what it was reduced from."""
    if keepdim or dim is None or not x.ndim:
        return xp.reshape(a, (1,) * x.ndim) if dim is None and not keepdim else a
    return xp.reshape(a, tuple(1 if i in dim else n for i, n in enumerate(x.shape)))


def _where_not(xp: Any, zero: Any, value: Any) -> Any:
    return xp.where(zero, xp.zeros_like(value), value)


def _direction(xp: Any, x: Any) -> Any:
    """sgn(x) = x / |x|, and 0 at 0."""
    if not is_complex(x):
        return xp.sign(x)
    zero = x == 0
    return _where_not(xp, zero, x / xp.where(zero, xp.ones_like(x.real), xp.abs(x)))


def norm_rule(g: Any, x: Any, out: Any, ord: float, dim: Any, keepdim: bool, xp: Any) -> Any:
    """Its gradient."""
    g, out = _spread(xp, g, x, dim, keepdim), _spread(xp, out, x, dim, keepdim)
    if ord == 0:
        return xp.zeros_like(x)
    if ord == 1:
        return g * _direction(xp, x)
    at_zero = out == 0
    if ord == 2:
        return x * _where_not(xp, at_zero, g / xp.where(at_zero, xp.ones_like(out), out))
    size = xp.abs(x)
    if ord in (inf, -inf):
        chosen = xp.astype(size == out, out.dtype)
        axis = tuple(range(x.ndim)) if dim is None else dim
        return _direction(xp, x) * (g * (chosen / xp.sum(chosen, axis=axis, keepdims=True)))
    zero = size == 0
    safe = xp.where(zero, xp.ones_like(size), size)
    safe_out = xp.where(at_zero, xp.ones_like(out), out)
    if ord < 2:
        along = _direction(xp, x) * _where_not(xp, zero, xp.power(safe, ord - 1))
    else:
        along = x * (_where_not(xp, zero, xp.power(safe, ord - 2)) if ord < 3 else xp.power(size, ord - 2))
    return along * _where_not(xp, at_zero, g / xp.power(safe_out, ord - 1))


_vector_norm = Operation("linalg_vector_norm", norm_of_array, x=norm_rule)


def _checked_dtype(name: str, x: Tensor, dtype: Any) -> Tensor:
    if x._array.dtype in dt.INTEGRAL:
        raise RuntimeError(f"{name}: Expected a floating point or complex tensor as input. Got {x.dtype}")
    if dtype is None:
        return x
    dtype = dt.as_dtype(dtype)
    if dtype.category < dt.FLOAT:
        raise RuntimeError(f"{name}: dtype should be floating point or complex, but got {dtype}")
    if dtype.is_complex != x.dtype.is_complex:
        raise RuntimeError(
            f"{name}: dtype should be {'complex' if x.dtype.is_complex else 'real'} for {x.dtype} inputs, but got {dtype}"
        )
    if dt.promote_types(x.dtype, dtype) is not dtype:
        raise RuntimeError(
            f"{name}: the dtype of the input {x.dtype} should be convertible without narrowing to the specified dtype {dtype}"
        )
    return x.to(dtype=dtype)


@with_out
def vector_norm(x: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The p-norm of all elements, or of vectors along dimensions; as ``torch.linalg.vector_norm``.

    Parameters
    ----------
    x : Tensor
        Floating point or complex.
    ord : float
        p. Infinities give the greatest and the least absolute value; 0 counts what is not 0.
    dim : int or tuple of int, optional
        What counts as one vector; everything if absent.
    keepdim : bool
        Whether these dimensions stay with size 1.
    dtype : dtype, optional
        To compute in.

    Returns
    -------
    Tensor
        Real.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.linalg.vector_norm(disttorch.tensor([3.0, 4.0]))
    tensor(5.)
    """
    name = "linalg.vector_norm"
    check_tensor(name, x)
    x = _checked_dtype(name, x, dtype)
    if isinstance(ord, bool) or not isinstance(ord, (int, float)):
        raise RuntimeError(f"{name}: Expected a non-complex scalar as the order of norm, got {ord!r}.")
    dims = normal_dims(dim, x.ndim, name)
    reduced = [n for i, n in enumerate(x.shape) if dims is None or i in dims]
    if (ord < 0 or ord == inf) and 0 in reduced:
        raise RuntimeError(
            f"{name} cannot compute the {ord} norm on the dimensions {'all' if dims is None else list(dims)} of shape "
            f"{list(x.shape)} because one of them is empty and the operation does not have an identity"
        )
    return apply(_vector_norm, x, ord=float(ord), dim=dims, keepdim=keepdim)


# --- matrices ------------------------------------------------------------------------------------------------------


def _two_dims(name: str, A: Tensor, dim: Any) -> tuple[int, int]:
    if not isinstance(dim, (tuple, list)) or len(dim) != 2:
        raise RuntimeError(f"{name}: dim must be a 2-tuple, got {dim}")
    first, second = (normal_dim(d, A.ndim, name) for d in dim)
    if first == second:
        raise RuntimeError(f"{name}: dims must be different, got ({dim[0]}, {dim[1]})")
    return first, second


@with_out
def matrix_norm(
    A: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """A norm of matrices; as ``torch.linalg.matrix_norm``.

    Parameters
    ----------
    A : Tensor
        (..., m, n), floating point or complex.
    ord : {"fro", "nuc", 1, -1, 2, -2, inf, -inf}
        Frobenius (all elements' 2-norm), nuclear (sum of singular values); 1 greatest sum of a column, inf of a row, 2
        greatest singular value; the negatives the least.
    dim : tuple of two int
        Rows and columns.
    keepdim : bool
    dtype : dtype, optional
        To compute in.

    Returns
    -------
    Tensor
        Real.
    """
    name = "linalg.matrix_norm"
    check_tensor(name, A)
    if A.ndim < 2:
        raise RuntimeError(f"{name}: The input tensor A must have at least 2 dimensions.")
    rows, columns = _two_dims(name, A, dim)
    A = _checked_dtype(name, A, dtype)
    if isinstance(ord, str):
        if ord not in ("fro", "nuc"):
            raise RuntimeError(f"{name}: Order {ord!r} not supported.")
        if ord == "fro":
            return vector_norm(A, 2, (rows, columns), keepdim)
    elif isinstance(ord, bool) or not isinstance(ord, (int, float)) or abs(ord) not in (1, 2, inf):
        raise RuntimeError(f"{name}: Order {ord} not supported.")
    if ord in ("nuc", 2, -2):
        turned = A.movedim((rows, columns), (-2, -1))
        values = svdvals(turned)
        result = values.sum(-1) if ord == "nuc" else _extreme(values, ord, -1, False)
        if not keepdim:
            return result
        for d in sorted((rows, columns)):
            result = result.unsqueeze(d)
        return result
    if abs(ord) == inf:
        rows, columns = columns, rows
    sums = vector_norm(A, 1, rows, True)
    result = _extreme(sums, ord, columns, True)
    if keepdim:
        return result
    return result.reshape([n for i, n in enumerate(A.shape) if i not in (rows, columns)])


def _extreme(sums: Tensor, ord: float, dim: int, keepdim: bool) -> Tensor:
    """The greatest, of nothing 0, or for negative `ord` the least."""
    if ord < 0:
        return sums.amin(dim, keepdim)
    return sums.amax(dim, keepdim) if sums.shape[dim] else sums.sum(dim, keepdim)


@with_out
def norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """A norm of vectors or matrices; as ``torch.linalg.norm``.

    Parameters
    ----------
    A : Tensor
        Floating point or complex.
    ord : float or str, optional
        As for `vector_norm` where `dim` is one dimension, else as for `matrix_norm`. Without it, and in any case without `ord` and
        `dim`, the 2-norm of all elements.
    dim : int or tuple of int, optional
    keepdim : bool
    dtype : dtype, optional
    """
    name = "linalg.norm"
    check_tensor(name, A)
    dims = (dim,) if isinstance(dim, int) else None if dim is None else tuple(dim)
    if ord is not None:
        if dims is not None and len(dims) not in (1, 2):
            raise RuntimeError(f"{name}: If dim is specified, it must be of length 1 or 2. Got {list(dims)}")
        if dims is None and A.ndim not in (1, 2):
            raise RuntimeError(
                f"{name}: If dim is not specified but ord is, the input must be 1D or 2D. Got {A.ndim}D."
            )
        if (dims is None and A.ndim == 2) or (dims is not None and len(dims) == 2):
            return matrix_norm(A, ord, (0, 1) if dims is None else dims, keepdim, dtype=dtype)
        if isinstance(ord, str):
            raise RuntimeError(f"{name}: Order {ord!r} not supported for vectors; the input must be a matrix")
    return vector_norm(A, 2 if ord is None else ord, dims, keepdim, dtype=dtype)


# --- names of the package -----------------------------------------------------------------------------------------


def torch_norm(
    input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, out: Tensor | None = None, dtype: Any = None
) -> Tensor:
    """The p-norm of the elements over some dimensions or all, or the nuclear norm; as ``torch.norm``.

    Parameters
    ----------
    input : Tensor
        Floating point or complex.
    p : float, "fro" or "nuc"
        ``"fro"`` is 2; ``"nuc"`` is for two dimensions.
    dim : int or tuple of int, optional
    keepdim : bool
    out : Tensor, optional
    dtype : dtype, optional
        To compute in.
    """
    if p == "nuc":
        return nuclear_norm(input, dim, keepdim) if out is None else out.copy_(nuclear_norm(input, dim, keepdim))
    if isinstance(p, str) and p != "fro":
        raise RuntimeError(f"norm: p must be a number, 'fro' or 'nuc', not {p!r}")
    return vector_norm(input, 2.0 if p in ("fro", None) else p, dim, keepdim, dtype=dtype, out=out)


torch_norm.__name__ = torch_norm.__qualname__ = "norm"


def nuclear_norm(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The sum of singular values; as ``torch.nuclear_norm``, also ``nuclear_norm(input, keepdim)``."""
    if isinstance(dim, bool):
        dim, keepdim = None, dim
    if dim is None:
        if input.ndim != 2:
            raise RuntimeError(
                f"Expected a tensor with 2 dimensions, but got a tensor with {input.ndim} dimensions instead."
            )
        dim = (0, 1)
    return matrix_norm(input, "nuc", tuple(dim), keepdim)


def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of input - other, which broadcast; as ``torch.dist``."""
    return vector_norm(input - other, p)


def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """The tensor with slices along a dimension scaled down to a p-norm of at most `maxnorm`; as ``torch.renorm``."""
    if p <= 0:
        raise RuntimeError(f"renorm: non-positive-norm not supported, got p={p}")
    if maxnorm < 0:
        raise RuntimeError(f"renorm: expected maxnorm to be >= 0 but got {maxnorm}")
    if input.ndim < 2:
        raise RuntimeError(f"renorm: input needs at least 2 dimensions, got {input.ndim} dimensions")
    kept = normal_dim(dim, input.ndim, "renorm")
    x = input.to(dtype=dt.float32) if input._array.dtype in HALF else input
    sizes = vector_norm(x, p, tuple(d for d in range(input.ndim) if d != kept), True)
    factor = (maxnorm / (sizes + 1e-7)).masked_fill(sizes <= maxnorm, 1.0)
    return (x * factor).to(dtype=input.dtype)
