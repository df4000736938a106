"""Products of matrices and vectors beyond `matmul`: sums with products, chains, Kronecker's and the cross product."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from ...backend import dtypes as dt
from ..dims import normal_dim, normal_dims
from ..linear import bmm, dot, matmul, mm, mv
from ..linear import outer as _outer
from ..public import with_out
from ..shape import broadcast_tensors, cat
from .arguments import check_tensor

__all__ = [
    "addbmm", "addmv", "addr", "baddbmm", "chain_matmul", "cross", "diagonal", "inner", "kron", "linalg_cross", "multi_dot",
    "tensordot", "trace", "vander", "vecdot",
]  # fmt: skip


# --- sums with products --------------------------------------------------------------------------------------------


def scaled_sum(name: str, input: Tensor, product: Tensor, beta: Any, alpha: Any) -> Tensor:
    """beta * input + alpha * product; what is in `input`, NaN too, does not count if beta is 0."""
    a, b = input._array, product._array
    if a.dtype != b.dtype:
        raise RuntimeError(
            f"{name}: expected input and the product to have the same dtype, but got {input.dtype} and {product.dtype}"
        )
    if a.ndim > b.ndim or any(m not in (1, n) for m, n in zip(reversed(a.shape), reversed(b.shape))):
        raise RuntimeError(
            f"{name}: input of shape {list(a.shape)} cannot be expanded to the product's shape {list(b.shape)}"
        )
    if a.dtype in dt.INTEGRAL:  # as PyTorch does
        beta, alpha = int(beta), int(alpha)
    if alpha != 1:
        product = product * alpha
    if beta == 0:
        return product
    return product + (input if beta == 1 else input * beta)


def _rounding_once(
    name: str, multiply: Any, input: Tensor, one: Tensor, other: Tensor, beta: Any, alpha: Any
) -> Tensor:
    """The sum with a product, of half types computed in float32 throughout."""
    check_tensor(name, input, one, other)
    dtype = one.dtype
    if dtype.numpy in dt.HALF and input.dtype is dtype and other.dtype is dtype:
        input, one, other = (x.to(dtype=dt.float32) for x in (input, one, other))
        return scaled_sum(name, input, multiply(one, other), beta, alpha).to(dtype=dtype)
    return scaled_sum(name, input, multiply(one, other), beta, alpha)


def _check_dims(name: str, *expected: tuple[Tensor, int]) -> None:
    check_tensor(name, *(operand for operand, _ in expected))
    if any(operand.ndim != n for operand, n in expected):
        raise RuntimeError(
            f"{name}: expected tensors of {' and '.join(str(n) for _, n in expected)} dimensions, "
            f"got {' and '.join(str(list(operand.shape)) for operand, _ in expected)}"
        )


@with_out
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * (mat1 @ mat2); as ``torch.addmm``. `input` broadcasts; if beta is 0, nothing in it counts."""
    return _rounding_once("addmm", mm, input, mat1, mat2, beta, alpha)


@with_out
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * (mat @ vec); as ``torch.addmv``."""
    return _rounding_once("addmv", mv, input, mat, vec, beta, alpha)


@with_out
def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * bmm(batch1, batch2); as ``torch.baddbmm``."""
    return _rounding_once("baddbmm", bmm, input, batch1, batch2, beta, alpha)


@with_out
def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * the sum of the products in a batch; as ``torch.addbmm``."""
    return _rounding_once("addbmm", _summed_bmm, input, batch1, batch2, beta, alpha)


def _summed_bmm(batch1: Tensor, batch2: Tensor) -> Tensor:
    """One product in which the batch is one more dimension to sum over."""
    _check_dims("addbmm", (batch1, 3), (batch2, 3))
    b, n, k = batch1.shape
    if batch2.shape[:2] != (b, k):
        raise RuntimeError(f"addbmm: {list(batch1.shape)} and {list(batch2.shape)} cannot be multiplied")
    return matmul(batch1.permute(1, 0, 2).reshape(n, b * k), batch2.reshape(b * k, batch2.shape[2]))


@with_out
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * outer(vec1, vec2); as ``torch.addr``."""
    _check_dims("addr", (vec1, 1), (vec2, 1))
    product = _outer(vec1, vec2)
    wanted = dt.promote_types(input.dtype, product.dtype)
    if wanted is dt.bool_:
        if isinstance(beta, float) or isinstance(alpha, float):
            raise RuntimeError(f"addr: Boolean beta only supported for Boolean results, got {beta} and {alpha}")
        product = product if alpha else product.new_zeros(product.shape)
        return product.logical_or(input) if beta else product
    if wanted.category < dt.FLOAT and (isinstance(beta, float) or isinstance(alpha, float)):
        raise RuntimeError(
            f"addr: For integral input tensors, argument beta and alpha must not be floating point numbers, got {beta} and {alpha}"
        )
    return scaled_sum("addr", input.to(dtype=wanted), product.to(dtype=wanted), beta, alpha)


# --- chains --------------------------------------------------------------------------------------------------------


@with_out
def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of two or more matrices, in the order that takes the fewest multiplications; as ``torch.linalg.multi_dot``.

    Parameters
    ----------
    tensors : sequence of Tensor
        Matrices; the first and the last may be vectors, a row and a column.
    """
    name = "multi_dot"
    tensors = list(tensors)
    if len(tensors) < 2:
        raise RuntimeError(f"{name}(): expected at least 2 tensors but got {len(tensors)}")
    check_tensor(name, *tensors)
    for i, t in enumerate(tensors):
        ends = i in (0, len(tensors) - 1)
        if t.ndim != 2 and not (ends and t.ndim == 1):
            raise RuntimeError(f"{name}(): tensor {i} must be {'1D or ' if ends else ''}2D but got {t.ndim}D")
        if t.dtype != tensors[0].dtype:
            raise RuntimeError(
                f"{name}(): all tensors must have be the same dtype but got {tensors[0].dtype} and {t.dtype}"
            )
    first, last = tensors[0].ndim, tensors[-1].ndim
    tensors[0] = tensors[0].unsqueeze(0) if first == 1 else tensors[0]
    tensors[-1] = tensors[-1].unsqueeze(1) if last == 1 else tensors[-1]
    for i, (a, b) in enumerate(pairwise(tensors)):
        if a.shape[1] != b.shape[0]:
            raise RuntimeError(
                f"{name}(): tensors {i} and {i + 1} with shapes {list(a.shape)} and {list(b.shape)} cannot be multiplied"
            )
    split = _cheapest_order([t.shape[0] for t in tensors] + [tensors[-1].shape[1]])

    def product(i: int, j: int) -> Tensor:
        return tensors[i] if i == j else matmul(product(i, split[i, j]), product(split[i, j] + 1, j))

    result = product(0, len(tensors) - 1)
    return result.reshape([n for n, given in zip(result.shape, (first, last)) if given == 2])


def _cheapest_order(sizes: list[int]) -> dict[tuple[int, int], int]:
    """Where to split each product i ... j (T. Cormen et al., Introduction to Algorithms, section on matrix chains)."""
    n = len(sizes) - 1
    cost = {(i, i): 0 for i in range(n)}
    split = {}
    for length in range(1, n):
        for i in range(n - length):
            j = i + length
            cost[i, j], split[i, j] = min(
                (cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in range(i, j)
            )
    return split


def chain_matmul(*matrices: Tensor, out: Tensor | None = None) -> Tensor:
    """The product of matrices in the order that takes the fewest multiplications; as ``torch.chain_matmul``."""
    if not matrices:
        raise ValueError("chain_matmul(): Expected one or more matrices")
    result = matrices[0] if len(matrices) == 1 else multi_dot(matrices)
    return result if out is None else out.copy_(result)


# --- sums over pairs of dimensions ---------------------------------------------------------------------------------


@with_out
def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Products summed over dimensions of both tensors; as ``torch.tensordot``.

    Parameters
    ----------
    a, b : Tensor
    dims : int or pair of sequences of int
        How many: the last of `a` and the first of `b`; or which of `a` and which of `b`, in pairs.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.tensordot(disttorch.ones(2, 3, 4), disttorch.ones(3, 4, 5), 2).shape
    disttorch.Size([2, 5])
    """
    check_tensor("tensordot", a, b)
    if isinstance(dims, Tensor):
        dims = dims.tolist() if dims.numel() > 1 else int(dims.item())
    if isinstance(dims, (tuple, list)):
        of_a, of_b = ([d] if isinstance(d, int) else list(d) for d in dims)
    else:
        if dims < 0:
            raise RuntimeError(f"tensordot expects dims >= 0, but got dims={dims}")
        if dims > min(a.ndim, b.ndim):
            raise RuntimeError(f"tensordot expects dims < ndim_a or ndim_b, but got dims={dims}")
        of_a, of_b = list(range(a.ndim - dims, a.ndim)), list(range(dims))
    if len(of_a) != len(of_b):
        raise RuntimeError(f"both dimension lists should have same length, got {of_a} and {of_b}")
    if a.dtype != b.dtype:
        raise RuntimeError(f"tensordot: both inputs should have same dtype, got {a.dtype} and {b.dtype}")
    sum_a, sum_b = (list(normal_dims(d, t.ndim, "tensordot") or ()) if d else [] for d, t in ((of_a, a), (of_b, b)))
    for d, e in zip(sum_a, sum_b):  # a dimension of size 1 stands for as many equal ones
        if a.shape[d] != b.shape[e]:
            if 1 not in (a.shape[d], b.shape[e]):
                raise RuntimeError(
                    f"contracted dimensions need to match, but first has size {a.shape[d]} in dim {d} "
                    f"and second has size {b.shape[e]} in dim {e}"
                )
            if b.shape[e] == 1:
                a = a.sum(d, keepdim=True, dtype=a.dtype)
            else:
                b = b.sum(e, keepdim=True, dtype=b.dtype)
    kept_a = [d for d in range(a.ndim) if d not in sum_a]
    kept_b = [d for d in range(b.ndim) if d not in sum_b]
    shape = [a.shape[d] for d in kept_a] + [b.shape[d] for d in kept_b]
    if not shape:  # PyTorch takes the dot product, too; autocast leaves it alone
        return dot(a.permute(*sum_a).reshape(-1), b.permute(*sum_b).reshape(-1))
    length = prod(a.shape[d] for d in sum_a)
    left = a.permute(*kept_a, *sum_a).reshape(prod(a.shape[d] for d in kept_a), length)
    right = b.permute(*sum_b, *kept_b).reshape(length, prod(b.shape[d] for d in kept_b))
    return matmul(left, right).reshape(shape)


@with_out
def inner(input: Tensor, other: Tensor) -> Tensor:
    """Products summed over the last dimension of both; as ``torch.inner``."""
    check_tensor("inner", input, other)
    if not input.ndim or not other.ndim:
        return input * other
    if input.shape[-1] != other.shape[-1]:
        raise RuntimeError(
            f"inner() the last dimension must match on both input tensors but got shapes {list(input.shape)} and {list(other.shape)}"
        )
    return tensordot(input, other, ([-1], [-1]))


@with_out
def kron(input: Tensor, other: Tensor) -> Tensor:
    """Kronecker's product: each element of `input` times `other`; as ``torch.kron``."""
    check_tensor("kron", input, other)
    n = max(input.ndim, other.ndim)
    one = input.reshape((1,) * (n - input.ndim) + tuple(input.shape))
    two = other.reshape((1,) * (n - other.ndim) + tuple(other.shape))
    spread = one.reshape([m for size in one.shape for m in (size, 1)]) * two.reshape(
        [m for size in two.shape for m in (1, size)]
    )
    return spread.reshape([m * k for m, k in zip(one.shape, two.shape)])


@with_out
def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """sum(conj(x) y) along a dimension, with broadcasting; as ``torch.linalg.vecdot``."""
    check_tensor("linalg.vecdot", x, y)
    if x.dtype != y.dtype:
        raise RuntimeError(
            f"linalg.vecdot: Expected x and y to have the same dtype, but found x of type {x.dtype} and y of type {y.dtype} instead"
        )
    if x.dtype.is_complex:
        x = x.conj()
    if dim != -1 or not x.ndim or not y.ndim:
        return (x * y).sum(dim, dtype=x.dtype) if x.ndim or y.ndim else x * y
    return matmul(x.unsqueeze(-2), y.unsqueeze(-1)).squeeze(-1).squeeze(-1)


# --- the cross product and others ----------------------------------------------------------------------------------


def _cross(xp: Any, a: Any, b: Any, dim: int) -> Any:
    def part(x: Any, i: int) -> Any:
        return x[(slice(None),) * dim + (slice(i, i + 1),)]

    (a1, a2, a3), (b1, b2, b3) = ([part(x, i) for i in range(3)] for x in (a, b))
    return xp.concatenate((a2 * b3 - a3 * b2, a3 * b1 - a1 * b3, a1 * b2 - a2 * b1), axis=dim)


_linalg_cross = Operation(
    "linalg_cross",
    lambda xp, x, y, *, dim: _cross(xp, x, y, dim),
    x=lambda g, y, dim, xp: _cross(xp, y, g, dim),
    y=lambda g, x, dim, xp: _cross(xp, g, x, dim),
)


@with_out
def linalg_cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The cross product of vectors of 3 elements along a dimension, with broadcasting; as ``torch.linalg.cross``."""
    check_tensor("linalg.cross", input, other)
    if input.ndim != other.ndim:
        raise RuntimeError(
            f"linalg.cross: inputs must have the same number of dimensions, got {list(input.shape)} and {list(other.shape)}"
        )
    at = normal_dim(dim, input.ndim, "linalg.cross")
    for operand in (input, other):
        if not operand.ndim or operand.shape[at] != 3:
            raise RuntimeError(
                f"linalg.cross: inputs dimension {dim} must have length 3. Got {list(input.shape)} and {list(other.shape)}"
            )
    if input.dtype != other.dtype:
        wanted = dt.promote_types(input.dtype, other.dtype)
        input, other = input.to(dtype=wanted), other.to(dtype=wanted)
    if input.shape != other.shape:
        input, other = broadcast_tensors(input, other)
    return apply(_linalg_cross, input, other, dim=at)


linalg_cross.__name__ = linalg_cross.__qualname__ = "cross"


@with_out
def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """`linalg.cross` along the first dimension of size 3, or a given one; as ``torch.cross``."""
    if dim is None:
        dim = next((d for d, n in enumerate(input.shape) if n == 3), None)
        if dim is None:
            raise RuntimeError(f"no dimension of size 3 in input of shape {list(input.shape)}")
    return linalg_cross(input, other, dim=dim)


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """A view of the diagonals of matrices; as ``torch.linalg.diagonal``."""
    return A.diagonal(offset, dim1, dim2)


def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix; as ``torch.trace``. Integers are added in int64."""
    check_tensor("trace", input)
    if input.ndim != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {input.ndim}")
    return input.diagonal().sum()


def vander(x: Tensor, *, N: int | None = None) -> Tensor:
    """Powers 0 to N - 1 of the elements, in columns (..., n, N); as ``torch.linalg.vander``."""
    check_tensor("linalg.vander", x)
    x = x if x.ndim else x.unsqueeze(0)
    n = x.shape[-1] if N is None else N
    if n <= 1:
        raise RuntimeError(f"N must be greater than 1, got {n}")
    if x.dtype is dt.bool_:
        x = x.to(dtype=dt.int64)
    powers = x.unsqueeze(-1).expand(*x.shape, n - 1).cumprod(-1)
    return cat((x.new_ones(()).to(dtype=powers.dtype).expand(*x.shape, 1), powers), -1)
