"""The bilinear form of two inputs."""

from __future__ import annotations

from ...autograd.variable import Tensor
from .. import reduction
from ..linear import matmul

__all__ = ["bilinear"]


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``sum over i, j of input1[i] * weight[o, i, j] * input2[j]``, plus bias; as ``torch.nn.functional.bilinear``.

    Parameters
    ----------
    input1 : Tensor
        (*batch, n)
    input2 : Tensor
        (*batch, m)
    weight : Tensor
        (out, n, m)
    bias : Tensor, optional
        (out,)

    Returns
    -------
    Tensor
        (*batch, out)

    Raises
    ------
    RuntimeError
        If the shapes do not fit.
    """
    a, b, w = input1._array.shape, input2._array.shape, weight._array.shape
    if a[:-1] != b[:-1] or len(w) != 3 or (a[-1:] + b[-1:]) != w[1:]:
        raise RuntimeError(f"bilinear(): inputs of shape {list(a)} and {list(b)} do not fit a weight of shape {list(w)}")
    out, n, m = w
    half = matmul(input1, weight.permute(1, 0, 2).reshape(n, out * m)).reshape(*a[:-1], out, m)
    result = reduction.sum(half * input2.unsqueeze(-2), -1).to(dtype=input1.dtype)
    return result if bias is None else result + bias
