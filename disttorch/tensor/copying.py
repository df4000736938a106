"""Copies of tensors by Python's own ways: copy.deepcopy and pickle."""

from __future__ import annotations

import copy as copying
from typing import Any

from ..autograd.graph import AccumulateGrad
from ..autograd.variable import Tensor
from ..backend import cpu, namespace
from ..backend.layout import is_dense, kept, order_in_memory, strides_in
from ..backend.shared_memory import OnBlock
from ..ops import creation
from .attach import method


@method
def __deepcopy__(self: Tensor, memo: dict) -> Tensor:
    if self._node is not None and self._node.__class__ is not AccumulateGrad:
        raise RuntimeError("Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the moment.")
    if id(self) in memo:
        return memo[id(self)]
    result = object.__new__(self.__class__)
    xp = namespace(self._array)
    result._array = kept(xp, xp.array(self._array), self._array)
    result._node = result._grad = result._version = result._view = None
    memo[id(self)] = result
    result.__dict__.update(copying.deepcopy(self.__dict__, memo))
    if self._node is not None:
        creation.require_grad(result, True)
    if self._grad is not None:
        result._grad = copying.deepcopy(self._grad, memo)
    return result


@method
def __reduce__(self: Tensor) -> tuple:
    if self._node is not None and self._node.__class__ is not AccumulateGrad:
        raise RuntimeError("only leaf tensors can be pickled; use detach()")
    host = namespace(self._array).to_host(self._array)
    order = None
    if host.strides != strides_in(host.shape, host.itemsize, "contiguous_format") and is_dense(host):  # NumPy would pickle it in C order
        order = order_in_memory(host)
        host = host.transpose(order)
    return _rebuild, (self.__class__, cpu.for_pickle(host), str(self.device), self._node is not None, order)


def _rebuild(cls: Any, host: Any, where: str, requires_grad: bool, order: list[int] | None = None) -> Tensor:
    moved = creation.as_tensor(host.array if isinstance(host, OnBlock) else host, device=where)._array
    result = object.__new__(cls)
    result._array = moved if order is None else moved.transpose([order.index(d) for d in range(len(order))])
    result._node = result._grad = result._version = result._view = None
    return creation.require_grad(result, requires_grad)
