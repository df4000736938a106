"""Diagonals and triangles: taken, made and masked."""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor, wrap
from ...backend import dtypes as dt
from ...backend import for_device
from ...backend.dtypes import as_dtype
from ..dims import normal_dim
from .views import diagonal, reshape

# What users find of this family, and where: see ops/public.py.
BOTH = "diag diag_embed diagflat tril triu"
FUNCTIONS = "tril_indices triu_indices"
METHODS = "fill_diagonal_"
TWINS = "tril triu"
OUT = "diag tril triu"


def _triangle(name: str) -> Any:
    operation = Operation(
        name,
        lambda xp, x, *, k: getattr(xp, name)(x, k),
        x=lambda g, k, xp: getattr(xp, name)(g, k),
    )

    def function(input: Tensor, diagonal: int = 0) -> Tensor:
        if input.ndim < 2:
            raise RuntimeError(f"{name}: input tensor must have at least 2 dimensions, got {list(input.shape)}")
        return apply(operation, input, k=diagonal)

    function.__name__ = function.__qualname__ = name
    side = "lower" if name == "tril" else "upper"
    function.__doc__ = f"The {side} triangle of matrices, from a diagonal on, and zeros elsewhere; as ``torch.{name}``."
    return function


tril, triu = _triangle("tril"), _triangle("triu")

_diag_embed = Operation(
    "diag_embed",
    lambda xp, x, *, shape, offset, dim1, dim2: xp.diagonal_backward(x, shape, offset, dim1, dim2),
    x=lambda g, offset, dim1, dim2, xp: xp.diagonal(g, offset, dim1, dim2),
)


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with the last dimension on a diagonal and zeros elsewhere; as ``torch.diag_embed``."""
    n = input.ndim + 1
    dim1, dim2 = normal_dim(dim1, n, "diag_embed"), normal_dim(dim2, n, "diag_embed")
    if dim1 == dim2:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    if not input.ndim:
        raise IndexError("diag_embed: dimension specified as -1 but tensor has no dimensions")
    shape = list(input.shape[:-1])
    size = input.shape[-1] + abs(offset)
    for d in sorted((dim1, dim2)):
        shape.insert(d, size)
    return apply(_diag_embed, input, shape=tuple(shape), offset=offset, dim1=dim1, dim2=dim2)


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The matrix with a vector on its diagonal, or a copy of the diagonal of a matrix; as ``torch.diag``.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.diag(disttorch.tensor([1, 2]))
    tensor([[1, 0],
            [0, 2]])
    """
    if input.ndim == 1:
        return diag_embed(input, diagonal)
    if input.ndim == 2:
        return _take_diagonal(input, diagonal).clone()
    raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {input.ndim}D")


_take_diagonal = diagonal  # diag's argument has the same name


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """The matrix with all elements on its diagonal; as ``torch.diagflat``."""
    return diag_embed(reshape(input, -1), offset)


def fill_diagonal_(input: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """Overwrite the main diagonal with a number; of tall matrices again after each square if `wrap`. As PyTorch's."""
    if input.ndim < 2:
        raise RuntimeError(f"dimensions must larger than 1, got {input.ndim}")
    if input.ndim > 2 and len(set(input.shape)) > 1:
        raise RuntimeError(f"all dimensions of input must be of equal length, got {list(input.shape)}")
    strides = input.stride()
    across = sum(strides)
    length = min(input.shape)
    input.as_strided((length,), (across,)).fill_(fill_value)
    rows, columns = input.shape[0], input.shape[1]
    if wrap and input.ndim == 2 and rows > columns + 1:
        for start in range(columns + 1, rows, columns + 1):
            part = input[start:]
            part.as_strided((min(part.shape),), (across,)).fill_(fill_value)
    return input


def _indices(name: str, inside: Any) -> Any:
    def function(
        row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None, layout: Any = None, pin_memory: bool = False
    ) -> Tensor:
        if row < 0 or col < 0:
            raise RuntimeError(f"{name}: row and col must be non-negative, got {row} and {col}")
        d = as_dtype(dt.int64 if dtype is None else dtype)
        if d not in (dt.int32, dt.int64):
            raise RuntimeError(f'"{name}" not implemented for {d}')
        xp, where = for_device(device)
        with xp.on(where):
            found = xp.nonzero(inside(xp.arange(row)[:, None], xp.arange(col), offset))
            return wrap(xp.stack(found, axis=0).astype(d.numpy))

    function.__name__ = function.__qualname__ = name
    side = "lower" if name == "tril_indices" else "upper"
    function.__doc__ = f"Rows and columns, (2, n), of the {side} triangle of a matrix from a diagonal on; as ``torch.{name}``."
    return function


tril_indices = _indices("tril_indices", lambda r, c, offset: c - r <= offset)
triu_indices = _indices("triu_indices", lambda r, c, offset: c - r >= offset)
