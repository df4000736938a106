"""One operation on each tensor of a list, ``torch._foreach_add_`` and its family, which optimizers that users write call.

PyTorch has them to launch one kernel for many tensors; here they are loops, and our own optimizers have kernels for that.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import Any

from ..autograd.variable import Tensor

#: with a twin in place each; names of methods
_UNARY = (
    "abs acos asin atan ceil cos cosh erf erfc exp expm1 floor frac lgamma log log10 log1p log2 neg reciprocal round rsqrt sigmoid sign "
    "sin sinh sqrt tan tanh trunc"
)
_BINARY = "add clamp_max clamp_min div mul sub pow lerp"
#: the others: how each is computed of a tensor and its arguments
_OTHERS: dict[str, Callable[..., Any]] = {
    "clone": lambda t: t.clone(),
    "copy_": lambda t, src, non_blocking=False: t.copy_(src, non_blocking),
    "zero_": lambda t: t.zero_(),
    "max": lambda t: t.max(),
    "mm": lambda t, other: t.mm(other),
    "norm": lambda t, ord=2, dtype=None: t.norm(ord, dtype=dtype),
    # these take numbers, too
    "maximum": lambda t, other: t.clamp_min(other),
    "maximum_": lambda t, other: t.clamp_min_(other),
    "minimum": lambda t, other: t.clamp_max(other),
    "minimum_": lambda t, other: t.clamp_max_(other),
}


def _method(name: str) -> Callable[..., Any]:
    return lambda t, *args, **kwargs: getattr(t, name)(*args, **kwargs)


def _scaled(name: str) -> Callable[..., Any]:
    return lambda t, tensor1, tensor2, value=1: getattr(t, name)(tensor1, tensor2, value=value)


for _name in f"{_UNARY} {_BINARY}".split():
    _OTHERS |= {name: _method(name) for name in (_name, f"{_name}_")}
for _name in ("addcmul", "addcdiv"):
    _OTHERS |= {name: _scaled(name) for name in (_name, f"{_name}_")}


def _foreach(name: str, compute: Callable[..., Any]) -> Callable[..., Any]:
    full = f"_foreach_{name}"

    def function(self: Any, *args: Any, **kwargs: Any) -> Any:
        if name == "pow" and isinstance(self, (int, float)):  # a number to the power of each
            return function_of(args[0], lambda exponent: self**exponent)
        return function_of(self, compute, *args, **kwargs)

    def function_of(tensors: Any, each: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not isinstance(tensors, (list, tuple)):
            raise TypeError(f"{full}: it takes a list of tensors, not {type(tensors).__name__}")
        if not tensors:
            raise RuntimeError(f"{full}: the list of tensors is empty")
        for i, t in enumerate(tensors):
            if not isinstance(t, Tensor):
                raise TypeError(f"{full}: element {i} of the list must be a tensor, got {type(t).__name__}")
        if "scalars" in kwargs:
            kwargs["value"] = kwargs.pop("scalars")
        columns = [_column(full, a, len(tensors), place > 1) for place, a in enumerate(args)]
        named = {key: _column(full, a, len(tensors), key == "value") for key, a in kwargs.items()}
        keys, rows = list(named), zip(tensors, *columns, *named.values())
        results = [each(*row[: 1 + len(args)], **dict(zip(keys, row[1 + len(args) :]))) for row in rows]
        return tensors if name.endswith("_") else tuple(results)

    function.__name__ = function.__qualname__ = full
    function.__doc__ = f"``{name}`` of each tensor of a list; other arguments are lists as long, or one for all."
    return function


def _column(full: str, argument: Any, count: int, numbers: bool) -> Any:
    """An argument for each tensor of the list; where `numbers` are meant a tensor is a list of them."""
    if numbers and isinstance(argument, Tensor):
        argument = argument.tolist()
    if not isinstance(argument, (list, tuple)):
        return repeat(argument, count)
    if len(argument) != count:
        raise RuntimeError(f"{full}: there are {count} tensors, but a list of {len(argument)} beside them")
    return argument


#: _foreach_add and so on, under these names in the package
FOREACH = {f"_foreach_{name}": _foreach(name, compute) for name, compute in _OTHERS.items()}
