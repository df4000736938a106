"""``out=`` of functions that move elements: no conversion, and no memory in common with what is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd.operation import check_in_place
from ..autograd.variable import Tensor
from ..backend import namespace
from .operands import write_out

__all__ = ["put_out"]


def put_out(name: str, result: Tensor, out: Tensor | None, inputs: Sequence[Any] = (), exact: bool = True) -> Tensor:
    """The result, in the tensor given as ``out=`` if there is one.

    Raises
    ------
    RuntimeError
        If `out` shares memory with an input, or has another dtype than the result where it must be the same one.
    """
    if out is None:
        return result
    if exact and out._array.dtype != result._array.dtype:
        raise RuntimeError(f"{name}(): Expected out tensor to have dtype {result.dtype}, but got {out.dtype} instead")
    check_in_place(name, out)
    xp = namespace(out._array)
    for x in inputs:
        if isinstance(x, Tensor) and x._array.__class__ is out._array.__class__ and xp.shares_memory(x._array, out._array):
            raise RuntimeError(
                f"{name}(): unsupported operation: some elements of the input tensor and the written-to tensor refer to a single "
                "memory location. Please clone() the tensor before performing the operation."
            )
    return write_out(name, result, out)
