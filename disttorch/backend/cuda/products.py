"""Matrix products through cuBLAS, without copies of transposed, batched or broadcast operands where cuBLAS can read them.

cuBLAS has column-major matrices, so it is asked for the transpose, C^T = B^T A^T, which lies in memory as our C. A matrix whose
rows or whose columns are contiguous is a matrix of cuBLAS, transposed or not; batches are one call where they lie at equal
distances. CuPy's own products copy every transposed operand of a batch and cannot be captured into a CUDA graph.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import cupy
import numpy

from ..choices import CHOICES
from ..dtypes import bfloat16
from . import cublas
from .cublas_lt import product_with_bias

__all__ = ["CUDA_PRODUCTS", "linear", "matmul"]

FLOAT32, BFLOAT16 = numpy.dtype(numpy.float32), bfloat16.numpy
#: dtype -> its cudaDataType and the type of the sums
KINDS = {
    numpy.dtype(numpy.float16): (cublas.R_16F, cublas.COMPUTE_32F),
    BFLOAT16: (cublas.R_16BF, cublas.COMPUTE_32F),
    FLOAT32: (0, cublas.COMPUTE_32F),
    numpy.dtype(numpy.float64): (1, cublas.COMPUTE_64F),
    numpy.dtype(numpy.complex64): (4, cublas.COMPUTE_32F),
    numpy.dtype(numpy.complex128): (5, cublas.COMPUTE_64F),
}
#: Calls of cuBLAS for one product of batches; where it would take more, what does not lie at equal distances is copied.
MOST_CALLS = 16


def matmul(a: Any, b: Any) -> Any:
    """As ``numpy.matmul``: float16 and bfloat16 are added up in float32, float32 in float32 or TF32 as is chosen."""
    if a.dtype != b.dtype:
        dtype = cupy.result_type(a, b)
        a, b = a.astype(dtype, copy=False), b.astype(dtype, copy=False)
    if a.dtype not in KINDS:  # integers and truth values
        return cupy.matmul(a, b)
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError("matmul: operands must have at least one dimension")
    if a.ndim == 1 or b.ndim == 1:
        product = matmul(a[None] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b)
        product = product[..., 0] if b.ndim == 1 else product
        if a.ndim == 1:
            product = product[..., 0] if b.ndim == 1 else product[..., 0, :]
        return product
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: the shapes {a.shape} and {b.shape} do not fit: {a.shape[-1]} columns and {b.shape[-2]} rows")
    batch = numpy.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*batch, a.shape[-2], b.shape[-1])
    if not prod(shape) or not a.shape[-1]:
        return cupy.zeros(shape, a.dtype)
    if a.dtype == BFLOAT16 and not cublas.handle().has_bfloat16:
        return matmul(a.astype(FLOAT32), b.astype(FLOAT32)).astype(BFLOAT16)
    out = cupy.empty(shape, a.dtype)
    multiply_into(out, a, b)
    return out


def linear(x: Any, weight: Any, bias: Any) -> Any:
    """``x @ weight.T + bias``, rounded once: the bias is added before the product is written, or the product to the bias."""
    if bias is None or x.dtype != weight.dtype or x.dtype not in KINDS or x.ndim == 0 or not x.size or not weight.size:
        product = matmul(x, weight.T)
        return product if bias is None else product + bias
    if x.dtype == BFLOAT16 and not cublas.handle().has_bfloat16:
        return linear(x.astype(FLOAT32), weight.astype(FLOAT32), bias.astype(FLOAT32)).astype(BFLOAT16)
    out = cupy.empty((*x.shape[:-1], weight.shape[0]), x.dtype)
    matrix, rows = out.reshape(-1, weight.shape[0]), x.reshape(-1, x.shape[-1])
    if bias.dtype == x.dtype and bias.ndim == 1 and bias.flags.c_contiguous and x.dtype.kind != "c":
        left, right = as_matrix(rows), as_matrix(weight.T)
        kind, compute = compute_type(x.dtype)
        if product_with_bias(
            cublas.handle(), (weight.shape[0], *rows.shape), right.argument, left.argument, (matrix.data.ptr, weight.shape[0]),
            bias.data.ptr, kind, compute, cublas.is_exact(kind),
        ):  # fmt: skip
            return out
    out[...] = bias
    multiply(matrix, rows, weight.T, add=True)
    return out


#: what the CUDA world has in place of CuPy's functions
CUDA_PRODUCTS = {"matmul": matmul, "linear": linear}


# --- one product of matrices, and of batches of them ------------------------------------------------------------------------


class Matrix(NamedTuple):
    """How cuBLAS reads a matrix of ours: as its transpose (0), or transposed once more (1), from rows or columns so far apart."""

    array: Any
    transposed: int
    leading: int

    @property
    def argument(self) -> tuple[int, int, int]:
        """As `cublas.product` takes it."""
        return self.transposed, self.array.data.ptr, self.leading


def as_matrix(a: Any) -> Matrix:
    """The last two dimensions as a matrix of cuBLAS; of a copy if neither rows nor columns are contiguous."""
    rows, columns = a.shape[-2:]
    item = a.dtype.itemsize
    down, across = a.strides[-2:]
    if (across == item or columns == 1) and (down >= columns * item or rows == 1) and not down % item:
        return Matrix(a, 0, max(down // item, columns, 1))
    if (down == item or rows == 1) and (across >= rows * item or columns == 1) and not across % item:
        return Matrix(a, 1, max(across // item, rows, 1))
    return Matrix(cupy.ascontiguousarray(a), 0, max(columns, 1))


def compute_type(dtype: Any, tf32: bool = False) -> tuple[int, int]:
    """A dtype's cudaDataType and the type of its sums. With `tf32` float32 may be rounded to TF32 whatever is chosen."""
    kind, compute = KINDS[dtype]
    if kind in (0, 4) and (tf32 or CHOICES.float32_products != "highest"):
        compute = cublas.COMPUTE_TF32
    return kind, compute


def multiply(out: Any, a: Any, b: Any, add: bool = False, tf32: bool = False) -> None:
    """Write the product of two matrices into a contiguous one, or with `add` add it to what is there; `tf32` as for `compute_type`."""
    left, right = as_matrix(a), as_matrix(b)
    sizes = (b.shape[1], a.shape[0], a.shape[1])
    kind, compute = compute_type(out.dtype, tf32)
    cublas.product(
        sizes,
        right.argument,
        left.argument,
        (out.data.ptr, out.shape[1]),
        kind,
        compute,
        add,
    )


def multiply_into(out: Any, a: Any, b: Any) -> None:
    """Write the products of batches, broadcast to the batch of a contiguous result, into it."""
    batch = out.shape[:-2]
    if a.ndim > 2 and prod(b.shape[:-2]) == 1 and prod(batch) > 1:
        rows = as_rows(a, batch)
        if rows is not None:  # one matrix for all: one large product
            multiply(out.reshape(-1, out.shape[-1]), rows, b.reshape(b.shape[-2:]))
            return
    left, right = as_matrix(a), as_matrix(b)
    a, b = left.array, right.array
    distances = (batch_strides(a, batch), batch_strides(b, batch))
    dims = merged(batch, *distances)
    if prod(n for n, *_ in dims) // max((n for n, *_ in dims), default=1) > MOST_CALLS:
        if len(merged(batch, distances[0])) > 1:
            left = as_matrix(cupy.ascontiguousarray(cupy.broadcast_to(a, (*batch, *a.shape[-2:]))))
        if len(merged(batch, distances[1])) > 1:
            right = as_matrix(cupy.ascontiguousarray(cupy.broadcast_to(b, (*batch, *b.shape[-2:]))))
        dims = merged(batch, batch_strides(left.array, batch), batch_strides(right.array, batch))
    run(out, left, right, dims)


def run(out: Any, left: Matrix, right: Matrix, dims: list[tuple[int, ...]]) -> None:
    """One call for the largest dimension of the batch, for each place in the others."""
    rows, columns = out.shape[-2:]
    kind, compute = compute_type(out.dtype)
    item, size = out.dtype.itemsize, rows * columns
    places = []  # the distance in the result of neighbours in each dimension, in matrices
    step = 1
    for n, *_ in reversed(dims):
        places.append(step)
        step *= n
    places.reverse()
    largest = max(range(len(dims)), key=lambda i: dims[i][0], default=None)
    count, ours, theirs = dims[largest] if largest is not None else (1, 0, 0)
    between = places[largest] if largest is not None else 1
    others = [(n, x, y, at) for i, ((n, x, y), at) in enumerate(zip(dims, places)) if i != largest]
    for where in numpy.ndindex(*(n for n, *_ in others)):
        a, b, c = left.array.data.ptr, right.array.data.ptr, out.data.ptr
        for i, (_, x, y, at) in zip(where, others):
            a, b, c = a + i * x, b + i * y, c + i * at * size * item
        cublas.products(
            (columns, rows, left.array.shape[-1]),
            (right.transposed, b, right.leading),
            (left.transposed, a, left.leading),
            (c, columns),
            (theirs // item, ours // item, between * size),
            count,
            kind,
            compute,
        )


def as_rows(a: Any, batch: tuple[int, ...]) -> Any:
    """All matrices of a batch below each other as a view; None if they do not lie so, or the batch repeats them."""
    if a.shape[:-2] != batch or (a.strides[-1] != a.dtype.itemsize and a.shape[-1] > 1):
        return None
    dims = merged(a.shape[:-1], a.strides[:-1])
    if len(dims) > 1 or (dims and dims[0][1] < a.shape[-1] * a.dtype.itemsize):
        return None
    rows = prod(a.shape[:-1])
    strides = (dims[0][1] if dims else a.shape[-1] * a.dtype.itemsize, a.dtype.itemsize)
    return cupy.ndarray((rows, a.shape[-1]), a.dtype, memptr=a.data, strides=strides)


def batch_strides(a: Any, batch: tuple[int, ...]) -> tuple[int, ...]:
    """Bytes between neighbours in each dimension of the batch; 0 where the batch repeats a matrix."""
    own = a.ndim - 2
    strides = [0] * (len(batch) - own)
    return (*strides, *(0 if n == 1 else s for n, s in zip(a.shape[:own], a.strides[:own])))


def merged(sizes: tuple[int, ...], *strides: tuple[int, ...]) -> list[tuple[int, ...]]:
    """(size, stride of each array) of as few dimensions as give the same elements in the same order."""
    found: list[tuple[int, ...]] = []
    for n, *steps in zip(sizes, *strides):
        if n == 1:
            continue
        if found and all(before == step * n for before, step in zip(found[-1][1:], steps)):
            found[-1] = (found[-1][0] * n, *steps)
        else:
            found.append((n, *steps))
    return found
