"""Python's operators on tensors: a foreign operand is left to Python's other attempts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd.variable import Tensor
from ..backend import dtypes as dt
from ..ops import indexing, linear, pointwise
from ..ops.elementwise import OPERATORS


def _swapped(function: Callable) -> Callable:
    def reflected(self: Tensor, other: Any) -> Any:
        if not isinstance(self, Tensor):
            raise TypeError(f"the reflected operator {function.__name__} is a Tensor's, not a {type(self).__name__}'s")
        return function(other, self)

    return reflected


def _divided(other: Any, self: Tensor) -> Any:
    return pointwise.reflected_division(self, other)


_OPERATORS: dict[str, Callable] = {
    "__add__": pointwise._add,
    "__sub__": pointwise._sub,
    "__mul__": pointwise.mul,
    "__truediv__": pointwise._div,
    "__floordiv__": pointwise.floor_divide,
    "__mod__": pointwise.remainder,
    "__pow__": pointwise.pow,
    "__matmul__": linear.matmul,
    "__and__": pointwise.bitwise_and,
    "__or__": pointwise.bitwise_or,
    "__xor__": pointwise.bitwise_xor,
    "__lshift__": pointwise.bitwise_left_shift,
    "__rshift__": pointwise.bitwise_right_shift,
}
for _name, _function in _OPERATORS.items():
    _operator = OPERATORS.get(_function, _function)
    setattr(Tensor, _name, _operator)
    setattr(Tensor, f"__r{_name[2:]}", _swapped(_operator))
    if _name == "__truediv__":  # PyTorch still has the name of old
        Tensor.__rtruediv__ = _swapped(_divided)  # type: ignore[method-assign]
        Tensor.__rdiv__ = Tensor.__rtruediv__  # type: ignore[method-assign]
    _in_place = {"__matmul__": None, "__floordiv__": "floor_divide_", "__mod__": "remainder_", "__truediv__": "div_"}.get(
        _name, f"{getattr(_function, '__name__', '')}_"
    )
    if _in_place:
        setattr(Tensor, f"__i{_name[2:]}", getattr(Tensor, _in_place))
for _name in "eq ne lt le gt ge".split():
    setattr(Tensor, f"__{_name}__", OPERATORS[getattr(pointwise, _name)])
for _name, _attribute in {
    "__neg__": pointwise.neg,
    "__pos__": pointwise.positive,
    "__abs__": pointwise.abs,
    "__invert__": lambda self: (
        pointwise.logical_not(self) if self._array.dtype == dt.bool_.numpy else pointwise.bitwise_not(self)
    ),
    "__getitem__": indexing.getitem,
    "__setitem__": indexing.setitem,
    "__hash__": object.__hash__,
    "__array_priority__": 1000,  # NumPy leaves mixed expressions to us
}.items():
    setattr(Tensor, _name, _attribute)
