"""Parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from ...autograd.variable import Tensor
from ...ops.shape import cat

__all__ = ["parameters_to_vector", "vector_to_parameters"]


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All elements of all parameters in one dimension, copied; as ``torch.nn.utils.parameters_to_vector``.

    Parameters
    ----------
    parameters : iterable of Tensor
        On one device.
    """
    return cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Let parameters have the elements of a vector, in order; as ``torch.nn.utils.vector_to_parameters``.

    Parameters
    ----------
    vec : Tensor
        One-dimensional; the parameters' memory becomes its.
    parameters : iterable of Tensor

    Raises
    ------
    TypeError
        If `vec` is no Tensor.
    RuntimeError
        If it is too short.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected a Tensor, but got: {type(vec).__name__}")
    start = 0
    for parameter in parameters:
        count = parameter.numel()
        if start + count > vec.numel():
            raise RuntimeError(f"vector_to_parameters: the vector has {vec.numel()} elements, but the parameters need more than {start}")
        parameter.data = vec[start : start + count].reshape(parameter.shape).data
        start += count
