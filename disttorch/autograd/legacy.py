"""`Variable`, the name that tensors with a gradient had before PyTorch 0.4, for scripts of that age."""

from __future__ import annotations

from typing import Any

from ..backend.dtypes import DIFFERENTIABLE
from .graph import AccumulateGrad
from .variable import Tensor, share_version, wrap

__all__ = ["Variable"]


class _AnyTensor(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor)


class Variable(metaclass=_AnyTensor):
    """A tensor on the same memory; as ``torch.autograd.Variable``. Every tensor is an instance.

    Parameters
    ----------
    data : Tensor
    requires_grad : bool
        Whether it is a leaf that asks for its gradient.
    volatile : bool
        Accepted as in PyTorch; see `no_grad`.
    """

    def __new__(cls, data: Any, requires_grad: bool = False, volatile: bool = False) -> Any:
        if not isinstance(data, Tensor):
            raise TypeError(f"Variable data has to be a tensor, but got {type(data).__name__}")
        if requires_grad and data._array.dtype not in DIFFERENTIABLE:
            raise RuntimeError(f"only Tensors of floating point and complex dtype can require gradients, not {data.dtype}")
        result = wrap(data._array)
        share_version(data, result)
        if requires_grad:
            result._node = AccumulateGrad(result)
        return result
