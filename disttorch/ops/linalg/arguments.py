"""What functions of matrices accept, and what they say of others: shapes, dtypes, singular matrices."""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from ...backend import NAMESPACES
from ...backend.dtypes import DIFFERENTIABLE, DTYPES, HALF

__all__ = [
    "LinAlgError",
    "broadcast_matrices",
    "check_matrix",
    "check_same_dtype",
    "check_square",
    "converging",
    "raise_for",
]


class LinAlgError(RuntimeError):
    """A matrix for which the result does not exist or was not found: singular, not positive definite, no convergence."""


def check_tensor(name: str, *operands: Any) -> None:
    """Raise TypeError for what is not a tensor."""
    for operand in operands:
        if not isinstance(operand, Tensor):
            raise TypeError(f"{name}(): argument must be Tensor, not {type(operand).__name__}")


def check_matrix(name: str, *operands: Any, floating: bool = True) -> None:
    """Raise RuntimeError for tensors with fewer than two dimensions or without a float32, float64 or complex dtype."""
    check_tensor(name, *operands)
    for operand in operands:
        a = operand._array
        if floating:
            check_floating(name, operand)
        if a.ndim < 2:
            raise RuntimeError(
                f"{name}: The input tensor A must have at least 2 dimensions, but its shape is {list(a.shape)}."
            )


def check_floating(name: str, operand: Tensor) -> None:
    """Raise RuntimeError for integers and half precision."""
    dtype = operand._array.dtype
    if dtype in HALF:
        raise RuntimeError(f"{name}: Low precision dtypes not supported. Got {DTYPES[dtype]}")
    if dtype not in DIFFERENTIABLE:
        raise RuntimeError(f"{name}: Expected a floating point or complex tensor as input. Got {DTYPES[dtype]}")


def check_square(name: str, *operands: Any, floating: bool = True) -> None:
    """`check_matrix`, and that rows and columns are as many."""
    check_matrix(name, *operands, floating=floating)
    for operand in operands:
        *_, m, n = operand._array.shape
        if m != n:
            raise RuntimeError(f"{name}: A must be batches of square matrices, but they are {m} by {n} matrices")


def check_same_dtype(name: str, a: Tensor, b: Tensor) -> None:
    """Raise RuntimeError unless both operands have one dtype."""
    if a._array.dtype != b._array.dtype:
        raise RuntimeError(
            f"{name}: Expected A and B to have the same dtype, but found A of type {a.dtype} and B of type {b.dtype} instead"
        )


def broadcast_matrices(name: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both operands with leading dimensions broadcast, without copies."""
    one, other = a._array.shape[:-2], b._array.shape[:-2]
    if one == other:
        return a, b
    width = max(len(one), len(other))
    batch = []
    for m, n in zip((1,) * (width - len(one)) + one, (1,) * (width - len(other)) + other):
        if m != n and 1 not in (m, n):
            raise RuntimeError(
                f"{name}: the batch dimensions of A {list(a.shape)} and B {list(b.shape)} cannot be broadcast"
            )
        batch.append(n if m == 1 else m)
    return a.expand(*batch, -1, -1), b.expand(*batch, -1, -1)


def check_fit(name: str, A: Tensor, B: Tensor, left: bool) -> None:
    """Raise RuntimeError unless B has as many rows, or without `left` columns, as the square A."""
    n, m = A.shape[-1], B.shape[-2 if left else -1]
    if n != m:
        raise RuntimeError(
            f"{name}: Incompatible shapes of A and B for the equation {'AX = B' if left else 'XA = B'} "
            f"({A.shape[-2]}x{A.shape[-1]} and {B.shape[-2]}x{B.shape[-1]})"
        )


def raise_for(name: str, info: Tensor, message: str) -> None:
    """Raise LinAlgError if an entry of `info` is not 0, naming the matrix of the batch; {info} in the message is the entry."""
    codes = info._array
    if not codes.any():
        return
    flat = codes.reshape(-1)
    at = int((flat != 0).argmax())
    where = f"(Batch element {at}): " if codes.ndim else ""
    raise LinAlgError(f"{name}: {where}{message.format(info=int(flat[at]))}")


SINGULAR = (
    "The diagonal element {info} is zero, the {what} could not be completed because the input matrix is singular."
)


def converging(name: str, operation: Operation, A: Tensor, **params: Any) -> Any:
    """Apply a factorization that iterates; LinAlgError if it does not converge or is given NaN or infinity."""
    a = A._array
    xp = NAMESPACES[a.__class__]
    if not bool(xp.all(xp.isfinite(a))):
        raise LinAlgError(
            f"{name}: The algorithm failed to converge because the input matrix contained non-finite values."
        )
    try:
        return apply(operation, A, **params)
    except xp.linalg.LinAlgError as error:
        raise LinAlgError(
            f"{name}: The algorithm failed to converge for an input of shape {list(a.shape)}: {error}."
        ) from None
