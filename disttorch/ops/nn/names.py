"""Functions of nn under the package's own names and as methods of Tensor, where their arguments differ from nn.functional's."""

from __future__ import annotations

from typing import Any

from ...autograd.variable import Tensor
from .softmax import LOG_SOFTMAX, SOFTMAX, along

__all__ = ["log_softmax", "softmax"]

# What users find of this family, and where: see ops/public.py.
BOTH = "log_softmax softmax"
OUT = "log_softmax softmax"


def softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """exp(x) / sum(exp(x)) along a dimension; as ``torch.softmax``.

    Parameters
    ----------
    input : Tensor
        Floating point, of any shape.
    dim : int
        Along which the results sum to 1.
    dtype : dtype, optional
        To convert to first.
    """
    return along("softmax", SOFTMAX, input, dim, dtype)


def log_softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """x - log(sum(exp(x))) along a dimension; as ``torch.log_softmax``.

    Parameters
    ----------
    input, dim, dtype
        As for `softmax`.
    """
    return along("log_softmax", LOG_SOFTMAX, input, dim, dtype)
