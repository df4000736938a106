"""Activation layers: a table of functions and their arguments, and PReLU, which has a parameter."""

from __future__ import annotations

from typing import Any

from ..autograd.variable import Tensor
from ..ops.creation import full
from ..ops.nn import activation, noise, softmax
from ..ops.nn.arguments import warn
from .module import Module
from .parameter import Parameter
from .table import REQUIRED, layer

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "RReLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmax2d",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Threshold",
]


def _nothing(module: Any) -> str:
    return ""


def _ends(given: dict[str, Any]) -> dict[str, Any]:
    """Hardtanh's arguments, those of old under their names of today."""
    for old, new in (("min_value", "min_val"), ("max_value", "max_val")):
        value = given.pop(old)
        if value is not None:
            warn(f"keyword argument `{old}` is deprecated and renamed to `{new}`", FutureWarning)
            given[new] = value
    if None not in (given["min_val"], given["max_val"]) and given["max_val"] <= given["min_val"]:
        raise AssertionError(f"max_val ({given['max_val']}) must be greater than min_val ({given['min_val']})")
    return given


def _softmax_over_channels(input: Tensor) -> Tensor:
    """Softmax over C of (N, C, H, W) or (C, H, W)."""
    if input.ndim not in (3, 4):
        raise ValueError(f"Softmax2d: expected input to be 3D or 4D, got {input.ndim}D instead")
    return softmax.softmax(input, -3)


CELU = layer("CELU", activation.celu, alpha=1.0, inplace=False)
ELU = layer("ELU", activation.elu, alpha=1.0, inplace=False)
GELU = layer("GELU", activation.gelu, approximate="none")
GLU = layer("GLU", activation.glu, dim=-1)
Hardshrink = layer("Hardshrink", activation.hardshrink, show=lambda m: f"{m.lambd}", lambd=0.5)
Hardsigmoid = layer("Hardsigmoid", activation.hardsigmoid, show=_nothing, inplace=False)
Hardswish = layer("Hardswish", activation.hardswish, show=_nothing, inplace=False)
Hardtanh = layer(
    "Hardtanh", activation.hardtanh, prepare=_ends, min_val=-1.0, max_val=1.0, inplace=False, min_value=None, max_value=None
)
LeakyReLU = layer("LeakyReLU", activation.leaky_relu, negative_slope=0.01, inplace=False)
LogSigmoid = layer("LogSigmoid", activation.logsigmoid)
LogSoftmax = layer("LogSoftmax", softmax.log_softmax, dim=None)
Mish = layer("Mish", activation.mish, inplace=False)
ReLU = layer("ReLU", activation.relu, inplace=False)
ReLU6 = layer("ReLU6", activation.relu6, inplace=False)
SELU = layer("SELU", activation.selu, inplace=False)
SiLU = layer("SiLU", activation.silu, inplace=False)
Sigmoid = layer("Sigmoid", activation.sigmoid)
Softmax = layer("Softmax", softmax.softmax, dim=None)
Softmax2d = layer("Softmax2d", _softmax_over_channels)
Softmin = layer("Softmin", softmax.softmin, dim=None)
Softplus = layer("Softplus", activation.softplus, beta=1.0, threshold=20.0)
Softshrink = layer("Softshrink", activation.softshrink, show=lambda m: f"{m.lambd}", lambd=0.5)
Softsign = layer("Softsign", activation.softsign)
Tanh = layer("Tanh", activation.tanh)
Tanhshrink = layer("Tanhshrink", activation.tanhshrink)
Threshold = layer("Threshold", activation.threshold, threshold=REQUIRED, value=REQUIRED, inplace=False)


class RReLU(Module):
    """LeakyReLU with random slopes in training, and their mean else; as ``torch.nn.RReLU``.

    Parameters
    ----------
    lower, upper : float
        Between which the slopes are drawn.
    inplace : bool
    """

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False):
        super().__init__()
        self.lower = lower
        self.upper = upper
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Apply the slopes to what is negative."""
        return noise.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}" + (", inplace=True" if self.inplace else "")


class PReLU(Module):
    """LeakyReLU with a learned slope; as ``torch.nn.PReLU``.

    Parameters
    ----------
    num_parameters : int
        1, or as many as the input (N, C, ...) has channels.
    init : float
        What the slopes are at first.
    device, dtype : optional
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None):
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(full((num_parameters,), float(init), device=device, dtype=dtype))

    def forward(self, input: Tensor) -> Tensor:
        """Apply the slope to what is negative."""
        return activation.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"
