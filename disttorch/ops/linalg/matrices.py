"""What rules and compositions say about matrices, on arrays and on tensors alike."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ...autograd.variable import Tensor

__all__ = [
    "adjoint",
    "adjoint_of",
    "diagonal",
    "diagonal_matrix",
    "identity",
    "in_own_convention",
    "is_complex",
    "mul_adjoint",
    "skew",
]


def is_complex(a: Any) -> bool:
    """Whether an array's or a tensor's elements are complex."""
    found = getattr(a.dtype, "is_complex", None)
    return a.dtype.kind == "c" if found is None else found


def adjoint(xp: Any, a: Any) -> Any:
    """A^H: transposed, and conjugated where complex."""
    turned = xp.swapaxes(a, -1, -2)
    return xp.conjugate(turned) if is_complex(a) else turned


def adjoint_of(A: Tensor) -> Tensor:
    """A^H as a tensor; a view where A is real."""
    turned = A.transpose(-2, -1)
    return turned.conj() if A.dtype.is_complex else turned


def mul_adjoint(xp: Any, a: Any, b: Any) -> Any:
    """A^H B."""
    return xp.matmul(adjoint(xp, a), b)


def skew(xp: Any, a: Any) -> Any:
    """A - A^H."""
    return a - adjoint(xp, a)


def diagonal(xp: Any, a: Any) -> Any:
    """The diagonal (..., k) of matrices."""
    return xp.diagonal(a, 0, -2, -1)


def diagonal_matrix(xp: Any, d: Any) -> Any:
    """Square matrices with the diagonals d (..., n)."""
    return xp.diagonal_backward(d, (*d.shape, d.shape[-1]), 0, -2, -1)


def identity(xp: Any, like: Any) -> Any:
    """The identity in the shape (..., n, n), dtype and place of another array."""
    return diagonal_matrix(xp, xp.ones_like(diagonal(xp, like)))


def in_own_convention(rule: Callable[..., Any]) -> Callable[..., Any]:
    """A rule for one complex result that takes and returns gradients as PyTorch defines them: what the graph conjugates
    around rules is conjugated back. For functions that are not holomorphic; `rule` takes g first and xp last.
    """

    @functools.wraps(rule)
    def wrapped(g: Any, *rest: Any) -> Any:
        xp = rest[-1]
        if not is_complex(g):
            return rule(g, *rest)
        result = rule(xp.conjugate(g), *rest)
        if isinstance(result, tuple):
            return tuple(None if r is None else xp.conjugate(r) for r in result)
        return xp.conjugate(result)

    return wrapped
