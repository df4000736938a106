"""What optimizers start with: options that are checked, and the state of a parameter before its first step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..autograd.variable import Tensor, wrap
from ..backend import cpu, namespace
from ..backend.dtypes import float32
from ..backend.layout import is_dense, strides_in

__all__ = ["Params", "betas_in_range", "computed", "non_negative", "number", "zeros_like"]

Params = Iterable[Any]


def zeros_like(param: Tensor) -> Tensor:
    """State of a parameter's shape and dtype that lies in memory as the parameter does, if that is dense."""
    a = param._array
    xp = namespace(a)
    with xp.on(xp.device_of(a)):
        if a.strides == strides_in(a.shape, a.itemsize, "contiguous_format") or not is_dense(a):
            return wrap(xp.zeros(a.shape, a.dtype))
        made = xp.empty_strided(a.shape, a.dtype, a.strides)
        made.fill(0)
        return wrap(made)


def number(value: float, param: Tensor, group: dict[str, Any]) -> Tensor:
    """State that is one number, in float32: on the CPU, or beside the parameter where steps are counted there."""
    if not (group.get("capturable") or group.get("fused")):
        return wrap(cpu.full((), value, float32.numpy))
    a = param._array
    xp = namespace(a)
    with xp.on(xp.device_of(a)):
        return wrap(xp.full((), value, float32.numpy))


def computed(
    defaults: dict[str, Any],
    foreach: bool | None = None,
    differentiable: bool | None = None,
    fused: bool | None = None,
    capturable: bool | None = None,
) -> dict[str, Any]:
    """The defaults with the options that say how PyTorch computes a step, in so far as an optimizer has them.

    Raises
    ------
    RuntimeError
        If they exclude each other.
    ValueError
        If the learning rate is a tensor where PyTorch cannot read it.
    """
    if fused and differentiable:
        raise RuntimeError("`fused` does not support `differentiable`")
    if fused and foreach:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
    if foreach and not capturable:
        for name, value in {"lr": defaults.get("lr"), "betas[0]": (defaults.get("betas") or (None,))[0]}.items():
            if isinstance(value, Tensor):
                raise ValueError(f"{name} as a Tensor is not supported for capturable=False and foreach=True")
    return defaults


def non_negative(name: str, value: Any) -> None:
    """Refuse a negative option, in PyTorch's words."""
    if isinstance(value, Tensor) and value._array.size != 1:
        raise ValueError(f"Invalid {name}: it must be 1-element, but its shape is {list(value.shape)}")
    if not float(value) >= 0.0:
        raise ValueError(f"Invalid {name}: {value}")


def betas_in_range(betas: Any) -> None:
    """Refuse shares of a running average outside [0, 1)."""
    if len({isinstance(beta, Tensor) for beta in betas}) > 1:
        raise ValueError(f"betas must be either both floats or both Tensors, not {tuple(betas)}")
    for i, beta in enumerate(betas):
        if not 0.0 <= float(beta) < 1.0:
            raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
