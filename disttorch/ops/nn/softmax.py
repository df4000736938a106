"""Softmax and its logarithm."""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation, apply, recorded
from ...autograd.variable import Tensor
from ...backend import NAMESPACES
from ..dims import normal_dim
from .arguments import check_floating, warn

__all__ = ["LOG_SOFTMAX", "SOFTMAX", "along", "log_softmax", "softmax", "softmin"]

SOFTMAX = Operation(
    "softmax",
    lambda xp, x, *, dim: xp.softmax(x, dim),
    x=lambda g, out, dim, xp: xp.softmax_backward(g, out, dim),
)
LOG_SOFTMAX = Operation(
    "log_softmax",
    lambda xp, x, *, dim: xp.log_softmax(x, dim),
    x=lambda g, out, dim, xp: xp.log_softmax_backward(g, out, dim),
)


def along(name: str, operation: Operation, input: Tensor, dim: int | None, dtype: Any) -> Tensor:
    """One of the two operations along a dimension, with the checks and conversions of both."""
    if dtype is not None:
        input = input.to(dtype=dtype)
    check_floating(name, input)
    if dim is None:
        # PyTorch's rule of old: the channels
        dim = 0 if input.ndim in (0, 1, 3) else 1
        warn(
            f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim={dim} as an argument."
        )
    a = input._array
    if not a.ndim:
        normal_dim(dim, 0, name)
        return apply(operation, input.reshape(1), dim=0).reshape(())
    if not 0 <= dim < a.ndim:
        dim = normal_dim(dim, a.ndim, name)
    return recorded(operation, input, getattr(NAMESPACES[a.__class__], operation.name)(a, dim), {"dim": dim})


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """exp(x) / sum(exp(x)) along a dimension; as ``torch.nn.functional.softmax``.

    Parameters
    ----------
    input : Tensor
        Floating point, of any shape.
    dim : int
        Along which the results sum to 1.
    dtype : dtype, optional
        To convert to first.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.nn.functional.softmax(disttorch.tensor([0.0, 0.0]), dim=0)
    tensor([0.5000, 0.5000])
    """
    return along("softmax", SOFTMAX, input, dim, dtype)


def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """x - log(sum(exp(x))) along a dimension; as ``torch.nn.functional.log_softmax``.

    Parameters
    ----------
    input, dim, dtype
        As for `softmax`.
    """
    return along("log_softmax", LOG_SOFTMAX, input, dim, dtype)


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """`softmax` of -x; as ``torch.nn.functional.softmin``."""
    return along("softmin", SOFTMAX, -input, dim, dtype)
