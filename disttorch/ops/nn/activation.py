"""Activation functions: the formula, and the derivative where it is not that of a composition.

Where a function has pieces, a rule selects between gradients (``xp.where(condition, g, ...)``), which keeps the dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...autograd.grad_mode import is_grad_enabled
from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from .. import pointwise
from ..conversion import overwrite
from ..elementwise import IN_PLACE
from ..indexing import clamp, where
from .arguments import check_floating

__all__ = [
    "celu",
    "elu",
    "gelu",
    "glu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "logsigmoid",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
]

#: Klambauer et al., "Self-normalizing neural networks", 2017
SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
#: Where softplus(x) and x are the same number in float64, and exp(x) is still finite in float32.
SOFTPLUS_IS_LINEAR = 40.0

_gelu = Operation(
    "gelu",
    lambda xp, x, *, approximate: xp.gelu(x, approximate),
    x=lambda g, x, approximate, xp: xp.gelu_backward(g, x, approximate),
)
_silu = Operation("silu", lambda xp, x: xp.silu(x), x=lambda g, x, xp: g * _silu_slope(x, xp.sigmoid(x)))
_softplus = Operation(
    "softplus",
    lambda xp, x, *, beta, threshold: xp.softplus(x, beta, threshold),
    x=lambda g, x, beta, threshold, xp: xp.where(x * beta > threshold, g, g * xp.sigmoid(x * beta)),
)
_leaky_relu = Operation(
    "leaky_relu",
    lambda xp, x, *, slope: xp.where(x > 0, x, x * xp.scalar(slope, x.dtype)),
    x=lambda g, x, slope, xp: xp.where(x > 0, g, g * slope),
)
_elu = Operation(
    "elu",
    lambda xp, x, *, alpha, scale, rate: _elu_forward(xp, x, alpha, scale, rate),
    x=lambda g, x, alpha, scale, rate, xp: xp.where(
        x > 0, g * scale, g * xp.exp(xp.minimum(x, xp.zeros_like(x)) * rate) * (alpha * scale * rate)
    ),
)


def _silu_slope(x: Any, s: Any) -> Any:
    return s * (x * (1 - s) + 1)


def _elu_forward(xp: Any, x: Any, alpha: float, scale: float, rate: float) -> Any:
    factor = xp.scalar(alpha * scale, x.dtype)
    return xp.where(x > 0, x * xp.scalar(scale, x.dtype), xp.expm1(x * xp.scalar(rate, x.dtype)) * factor)


def _apply_to(input: Tensor, inplace: bool, name: str, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """A function of the input, written over it if asked for; rules that need the input then have a copy."""
    if not inplace:
        return compute(input)
    needed = input._node is not None and is_grad_enabled()
    return overwrite(name, input, compute(input.clone() if needed else input))


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0), elementwise; as ``torch.nn.functional.relu``."""
    return IN_PLACE["relu_"](input) if inplace else pointwise.relu(input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where it is positive, else `negative_slope` * x; as ``torch.nn.functional.leaky_relu``."""
    check_floating("leaky_relu", input)
    return _apply_to(input, inplace, "leaky_relu", lambda x: apply(_leaky_relu, x, slope=negative_slope))


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """`leaky_relu` with a learned slope, one or one a channel; as ``torch.nn.functional.prelu``.

    Parameters
    ----------
    input : Tensor
        (N, C, ...)
    weight : Tensor
        (C,), (1,) or ().

    Raises
    ------
    RuntimeError
        If there are more slopes than one, and not as many as channels.
    """
    if weight.ndim == 1 and weight.numel() > 1:
        channels = input.shape[1] if input.ndim > 1 else 1
        if weight.numel() != channels:
            raise RuntimeError(
                f"Mismatch of parameter numbers and input channel size. Found parameter numbers = {weight.numel()} and channel size = "
                f"{channels}; the shapes are {list(weight.shape)} and {list(input.shape)}."
            )
        weight = weight.reshape(-1, *(1,) * (input.ndim - 2))
    elif weight.ndim > 1:
        raise RuntimeError(f"prelu: expected weight to be a scalar or 1D tensor, but got shape {list(weight.shape)}")
    return where(input > 0, input, input * weight)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where it is positive, else `alpha` * (exp(x) - 1); as ``torch.nn.functional.elu``."""
    check_floating("elu", input)
    return _apply_to(input, inplace, "elu", lambda x: apply(_elu, x, alpha=alpha, scale=1.0, rate=1.0))


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """`elu` with the alpha and the scale that keep mean 0 and variance 1; as ``torch.nn.functional.selu``."""
    check_floating("selu", input)
    return _apply_to(input, inplace, "selu", lambda x: apply(_elu, x, alpha=SELU_ALPHA, scale=SELU_SCALE, rate=1.0))


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where it is positive, else `alpha` * (exp(x / alpha) - 1); as ``torch.nn.functional.celu``."""
    check_floating("celu", input)
    if alpha == 0:
        raise RuntimeError("ZeroDivisionError: alpha cannot be 0 for CELU")
    return _apply_to(input, inplace, "celu", lambda x: apply(_elu, x, alpha=alpha, scale=1.0, rate=1 / alpha))


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x * Phi(x) with the normal distribution function Phi; as ``torch.nn.functional.gelu``.

    Parameters
    ----------
    input : Tensor
    approximate : {"none", "tanh"}
        ``"tanh"`` computes ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))``.
    """
    check_floating("gelu", input)
    return apply(_gelu, input, approximate=approximate)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x); as ``torch.nn.functional.silu``."""
    check_floating("silu", input)
    return _apply_to(input, inplace, "silu", lambda x: apply(_silu, x))


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x > threshold; as ``torch.nn.functional.softplus``."""
    check_floating("softplus", input)
    return apply(_softplus, input, beta=beta, threshold=threshold)


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)) without overflow; as ``torch.nn.functional.logsigmoid``."""
    return -softplus(-input, 1.0, SOFTPLUS_IS_LINEAR)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x)); as ``torch.nn.functional.mish``."""
    return _apply_to(input, inplace, "mish", lambda x: x * pointwise.tanh(softplus(x, 1.0, SOFTPLUS_IS_LINEAR)))


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x, but not below `min_val` and not above `max_val`; as ``torch.nn.functional.hardtanh``."""
    if min_val > max_val:
        raise ValueError(f"min_val cannot be greater than max_val, but they are {min_val} and {max_val}")
    inside = pointwise.logical_and(input > min_val, input < max_val)
    # unlike clamp's, the gradient at the ends is 0
    return _apply_to(input, inplace, "hardtanh", lambda x: where(inside, x, clamp(x.detach(), min_val, max_val)))


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6); as ``torch.nn.functional.relu6``."""
    return hardtanh(input, 0.0, 6.0, inplace)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """relu6(x + 3) / 6; as ``torch.nn.functional.hardsigmoid``."""
    return _apply_to(input, inplace, "hardsigmoid", lambda x: relu6(x + 3.0) / 6.0)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * relu6(x + 3) / 6; as ``torch.nn.functional.hardswish``."""
    return _apply_to(input, inplace, "hardswish", lambda x: x * relu6(x + 3.0) / 6.0)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where abs(x) > lambd, else 0; as ``torch.nn.functional.hardshrink``."""
    return where(pointwise.logical_and(input >= -lambd, input <= lambd), 0.0, input)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by lambd, as far as 0; as ``torch.nn.functional.softshrink``."""
    if lambd < 0:
        raise RuntimeError(f"lambda must be greater or equal to 0, but found to be {lambd}.")
    return where(input > lambd, input - lambd, where(input < -lambd, input + lambd, input * 0.0))


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x); as ``torch.nn.functional.tanhshrink``."""
    return input - pointwise.tanh(input)


def softsign(input: Tensor) -> Tensor:
    """x / (1 + abs(x)); as ``torch.nn.functional.softsign``."""
    return input / (pointwise.abs(input) + 1)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where it is greater than the threshold, else the value; as ``torch.nn.functional.threshold``."""
    return _apply_to(input, inplace, "threshold", lambda x: where(x <= threshold, value, x))


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half of a dimension times the sigmoid of the second; as ``torch.nn.functional.glu``.

    Raises
    ------
    RuntimeError
        If the dimension has an odd size.
    """
    if not input.ndim:
        raise RuntimeError("glu does not support 0-dimensional tensors")
    if input.shape[dim] % 2:
        raise RuntimeError(f"Halving dimension must be even, but dimension {dim} is size {input.shape[dim]}")
    first, second = input.chunk(2, dim)
    return first * pointwise.sigmoid(second)


sigmoid: Callable[..., Tensor] = pointwise.sigmoid
tanh: Callable[..., Tensor] = pointwise.tanh
