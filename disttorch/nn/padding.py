"""Padding layers over 1 to 3 spatial dimensions: with zeros, a constant, or the input's own elements."""

from __future__ import annotations

from typing import Any

from ..autograd.variable import Tensor
from ..ops.nn.arguments import spatial
from ..ops.nn.padding import pad
from .module import Module

__all__ = [
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]


class _Pad(Module):
    """Elements added around the spatial dimensions.

    Parameters
    ----------
    padding : int or tuple of int
        The same everywhere, or (before, after) of the last dimension, then of the one before it, and so on.
    """

    ndim: int
    mode = "constant"
    value: float | None = None

    def __init__(self, padding: Any):
        super().__init__()
        # negative widths take elements away
        self.padding = spatial(padding, 2 * self.ndim, type(self).__name__, "padding", least=-(2**62))

    def forward(self, input: Tensor) -> Tensor:
        """Pad (N, C, *spatial), or one sample without N."""
        if input.ndim not in (self.ndim + 1, self.ndim + 2) and self.mode != "constant":
            raise ValueError(
                f"expected {self.ndim + 1}D or {self.ndim + 2}D input (got {input.ndim}D input of size {list(input.shape)})"
            )
        return pad(input, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    """A constant added around the spatial dimensions.

    Parameters
    ----------
    padding : int or tuple of int
        The same everywhere, or (before, after) of the last dimension, then of the one before it, and so on.
    value : float
    """

    def __init__(self, padding: Any, value: float):
        super().__init__(padding)
        self.value = value

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


def _over(ndim: int, name: str, base: type[_Pad], **attributes: Any) -> Any:
    members = {"__doc__": f"{base.__doc__}\n    As ``torch.nn.{name}{ndim}d``.\n    ", "__module__": __name__, "ndim": ndim, **attributes}
    return type(f"{name}{ndim}d", (base,), members)


ZeroPad1d, ZeroPad2d, ZeroPad3d = (_over(n, "ZeroPad", _Pad, value=0.0) for n in (1, 2, 3))
ConstantPad1d, ConstantPad2d, ConstantPad3d = (_over(n, "ConstantPad", _ConstantPad) for n in (1, 2, 3))
ReflectionPad1d, ReflectionPad2d, ReflectionPad3d = (_over(n, "ReflectionPad", _Pad, mode="reflect") for n in (1, 2, 3))
ReplicationPad1d, ReplicationPad2d, ReplicationPad3d = (
    _over(n, "ReplicationPad", _Pad, mode="replicate") for n in (1, 2, 3)
)
CircularPad1d, CircularPad2d, CircularPad3d = (_over(n, "CircularPad", _Pad, mode="circular") for n in (1, 2, 3))
