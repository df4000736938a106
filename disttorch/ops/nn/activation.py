"""Activation functions: the formula on one array, its derivative, and what users call.

What is more than a call or two is a kernel; see backend/kernels/activation.py. Where pieces of a function meet, the derivative is
the one that PyTorch takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ...autograd.grad_mode import is_grad_enabled
from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from ...backend import dtypes as dt
from .. import pointwise
from ..conversion import overwrite
from ..dims import normal_dim
from ..elementwise import IN_PLACE
from .arguments import check_floating

__all__ = [
    "SOFTPLUS_IS_LINEAR", "biased", "celu", "celu_", "elu", "elu_", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh",
    "hardtanh_", "in_place", "leaky_relu", "leaky_relu_", "logsigmoid", "mish", "prelu", "relu", "relu6", "relu_", "selu", "selu_",
    "sigmoid", "silu", "softplus", "softshrink", "softsign", "tanh", "tanhshrink", "threshold", "threshold_", "write_over",
]  # fmt: skip

# What users find of this family, and where: see ops/public.py.
FUNCTIONS = "celu celu_ relu_ selu selu_ threshold threshold_"
BOTH = "hardshrink prelu"
OUT = "gelu hardshrink logsigmoid softplus softshrink"

#: Klambauer et al., "Self-normalizing neural networks", 2017
SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
#: Where softplus(x) and x are the same number in float64, and exp(x) is still finite in float32.
SOFTPLUS_IS_LINEAR = 40.0


# --- formulas and derivatives -----------------------------------------------------------------------------------------


_gelu = Operation(
    "gelu",
    lambda xp, x, *, approximate: xp.gelu(x, approximate),
    x=lambda g, x, approximate, xp: xp.gelu_backward(g, x, approximate),
    elementwise=True,
)
_silu = Operation("silu", lambda xp, x: xp.silu(x), x=lambda g, x, xp: xp.silu_backward(g, x), elementwise=True)
_biased = Operation(
    "biased_activation",
    lambda xp, x, bias, *, kind: xp.biased(x, bias, kind),
    gradients=lambda g, x, bias, kind, xp: xp.biased_backward(g, x, bias, kind),
)
_mish = Operation("mish", lambda xp, x: xp.mish(x), x=lambda g, x, xp: xp.mish_backward(g, x), elementwise=True)
_logsigmoid = Operation("log_sigmoid", lambda xp, x: xp.logsigmoid(x), x=lambda g, x, xp: g * xp.sigmoid(-x), elementwise=True)
_softplus = Operation(
    "softplus",
    lambda xp, x, *, beta, threshold: xp.softplus(x, beta, threshold),
    x=lambda g, x, beta, threshold, xp: xp.softplus_backward(g, x, beta, threshold),
    elementwise=True,
)
_elu = Operation(
    "elu",
    lambda xp, x, *, alpha, scale, rate: xp.elu(x, alpha, scale, rate),
    x=lambda g, x, alpha, scale, rate, xp: xp.elu_backward(g, x, alpha, scale, rate),
    elementwise=True,
)
_leaky_relu = Operation(
    "leaky_relu",
    lambda xp, x, *, slope: xp.leaky_relu(x, slope),
    x=lambda g, x, slope, xp: xp.leaky_relu_backward(g, x, slope),
    elementwise=True,
)
_prelu = Operation(
    "prelu",
    lambda xp, x, weight: xp.add(xp.maximum(x, xp.zeros_like(x)), xp.multiply(weight, xp.minimum(x, xp.zeros_like(x)))),
    x=lambda g, x, weight, xp: g * (xp.astype(x > 0, g.dtype) * (1 - weight) + weight),
    weight=lambda g, x, xp: g * (x * xp.astype(x <= 0, g.dtype)),
    elementwise=True,
)
_hardsigmoid = Operation("hardsigmoid", lambda xp, x: xp.hardsigmoid(x), x=lambda g, x, xp: xp.hardsigmoid_backward(g, x), elementwise=True)
_hardswish = Operation("hardswish", lambda xp, x: xp.hardswish(x), x=lambda g, x, xp: xp.hardswish_backward(g, x), elementwise=True)
_hardtanh = Operation(
    "hardtanh",
    lambda xp, x, *, low, high: xp.minimum(xp.maximum(x, xp.scalar(low, x.dtype)), xp.scalar(high, x.dtype)),
    # unlike clamp's, the gradient at the ends is 0
    x=lambda g, x, low, high, xp: g * xp.astype(xp.logical_and(x > low, x < high), g.dtype),
    elementwise=True,
)
_hardshrink = Operation(
    "hardshrink",
    lambda xp, x, *, lambd: xp.where(_is_small(xp, x, lambd), xp.scalar(0, x.dtype), x),
    x=lambda g, x, lambd, xp: g * xp.astype(xp.logical_not(_is_small(xp, x, lambd)), g.dtype),
    elementwise=True,
)
_softshrink = Operation(
    "softshrink",
    lambda xp, x, *, lambd: xp.subtract(x, xp.clip(x, xp.scalar(-lambd, x.dtype), xp.scalar(lambd, x.dtype))),
    x=lambda g, x, lambd, xp: g * xp.astype(xp.logical_not(_is_small(xp, x, lambd)), g.dtype),
    elementwise=True,
)
_threshold = Operation(
    "threshold",
    lambda xp, x, *, threshold, value: xp.where(x <= threshold, xp.scalar(value, x.dtype), x),
    x=lambda g, x, threshold, xp: g * xp.astype(xp.logical_not(x <= threshold), g.dtype),
    elementwise=True,
)


def _is_small(xp: Any, x: Any, lambd: float) -> Any:
    return xp.logical_and(x >= -lambd, x <= lambd)


# --- what users call --------------------------------------------------------------------------------------------------


def write_over(input: Tensor, inplace: bool, name: str, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """A function of the input, written over it if asked for; rules that need the input then have a copy."""
    if not inplace:
        return compute(input)
    needed = input._node is not None and is_grad_enabled()
    return overwrite(name, input, compute(input.clone() if needed else input))


def _elementwise(function: str, operation: Operation, input: Tensor, inplace: bool, **parameters: Any) -> Tensor:
    check_floating(function, input)
    if not inplace:
        return apply(operation, input, **parameters)
    return write_over(input, True, function, lambda x: apply(operation, x, **parameters))


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0), elementwise; as ``torch.nn.functional.relu``."""
    if input._array.dtype == dt.bool_.numpy:
        raise RuntimeError("Boolean inputs not supported for relu")
    return IN_PLACE["relu_"](input) if inplace else pointwise.relu(input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where it is positive, else `negative_slope` * x; as ``torch.nn.functional.leaky_relu``."""
    return _elementwise("leaky_relu", _leaky_relu, input, inplace, slope=negative_slope)


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
    if not isinstance(weight, Tensor):
        raise TypeError(f"prelu(): argument 'weight' must be Tensor, not {type(weight).__name__}")
    if input._array.dtype != weight._array.dtype:
        raise RuntimeError(f"prelu: Type promoting not supported. Got {input.dtype} and {weight.dtype}")
    if weight.ndim > 1:
        raise RuntimeError(f"prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = {weight.ndim}")
    if weight.numel() > 1:
        if not input.ndim:
            raise RuntimeError("prelu: Not allow zero-dim input tensor where there are several weights.")
        channels = input.shape[1] if input.ndim > 1 else 1
        if weight.numel() != channels:
            raise RuntimeError(
                f"Mismatch of parameter numbers and input channel size. Found parameter numbers = {weight.numel()} and channel size = "
                f"{channels}; the shapes are {list(weight.shape)} and {list(input.shape)}."
            )
    return apply(_prelu, input, weight.reshape(-1, *(1,) * (input.ndim - 2)) if input.ndim > 1 else weight.reshape(input.ndim * (1,)))


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where it is positive, else `alpha` * (exp(x) - 1); as ``torch.nn.functional.elu``."""
    return _elementwise("elu", _elu, input, inplace, alpha=alpha, scale=1.0, rate=1.0)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """`elu` with the alpha and the scale that keep mean 0 and variance 1; as ``torch.nn.functional.selu``."""
    return _elementwise("selu", _elu, input, inplace, alpha=SELU_ALPHA, scale=SELU_SCALE, rate=1.0)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where it is positive, else `alpha` * (exp(x / alpha) - 1); as ``torch.nn.functional.celu``.

    Raises
    ------
    RuntimeError
        If alpha is 0.
    """
    if alpha == 0:
        raise RuntimeError("ZeroDivisionError: alpha cannot be 0 for CELU")
    return _elementwise("celu", _elu, input, inplace, alpha=alpha, scale=1.0, rate=1 / alpha)


def gelu(input: Tensor, *, approximate: str = "none") -> Tensor:
    """x * Phi(x) with the normal distribution function Phi; as ``torch.nn.functional.gelu``.

    Parameters
    ----------
    input : Tensor
    approximate : {"none", "tanh"}
        ``"tanh"`` computes ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))``.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.nn.functional.gelu(disttorch.tensor([-1.0, 0.0, 1.0]))
    tensor([-0.1587,  0.0000,  0.8413])
    """
    check_floating("gelu", input)
    return apply(_gelu, input, approximate=approximate)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x), of complex numbers too; as ``torch.nn.functional.silu``."""
    check_floating("silu", input, or_complex=True)
    return write_over(input, inplace, "silu", lambda x: apply(_silu, x))


def biased(input: Tensor, bias: Tensor, kind: str) -> Tensor:
    """`gelu` (of the kind ``"none"`` or ``"tanh"``) or `silu` (``"silu"``) of an input (..., n) plus a bias (n,), as one operation."""
    return apply(_biased, input, bias, kind=kind)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x > threshold; as ``torch.nn.functional.softplus``."""
    check_floating("softplus", input)
    return apply(_softplus, input, beta=beta, threshold=threshold)


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)) without overflow; as ``torch.nn.functional.logsigmoid``."""
    check_floating("logsigmoid", input)
    return apply(_logsigmoid, input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x)); as ``torch.nn.functional.mish``."""
    return _elementwise("mish", _mish, input, inplace)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x, but not below `min_val` and not above `max_val`; as ``torch.nn.functional.hardtanh``.

    Raises
    ------
    ValueError
        If `min_val` is greater than `max_val`.
    RuntimeError
        For bool; and for an unsigned input with a negative end.
    """
    if min_val > max_val:
        raise ValueError(f"min_val cannot be greater than max_val, but they are {min_val} and {max_val}")
    dtype = input._array.dtype
    if dtype == dt.bool_.numpy:
        raise RuntimeError("Bool inputs not supported for hardtanh")
    if dtype in dt.INTEGRAL:
        min_val, max_val = math.trunc(min_val), math.trunc(max_val)
        if dtype == dt.uint8.numpy and (min_val < 0 or max_val < 0):
            raise RuntimeError(f"hardtanh: cannot do hardtanh on an unsigned type with negative limits, {min_val} and {max_val}")
    return write_over(input, inplace, "hardtanh", lambda x: apply(_hardtanh, x, low=min_val, high=max_val))


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6); as ``torch.nn.functional.relu6``."""
    return hardtanh(input, 0.0, 6.0, inplace)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """relu6(x + 3) / 6; as ``torch.nn.functional.hardsigmoid``."""
    return _elementwise("hardsigmoid", _hardsigmoid, input, inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * relu6(x + 3) / 6; as ``torch.nn.functional.hardswish``."""
    return _elementwise("hardswish", _hardswish, input, inplace)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where abs(x) > lambd, else 0; as ``torch.nn.functional.hardshrink``."""
    check_floating("hardshrink", input)
    return apply(_hardshrink, input, lambd=lambd)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by lambd, as far as 0; as ``torch.nn.functional.softshrink``.

    Raises
    ------
    RuntimeError
        If lambd is negative.
    """
    if lambd < 0:
        raise RuntimeError(f"lambda must be greater or equal to 0, but found to be {lambd}.")
    check_floating("softshrink", input)
    return apply(_softshrink, input, lambd=lambd)


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x); as ``torch.nn.functional.tanhshrink``."""
    return input - pointwise.tanh(input)


def softsign(input: Tensor) -> Tensor:
    """x / (1 + abs(x)); as ``torch.nn.functional.softsign``."""
    return input / (pointwise.abs(input) + 1)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where it is greater than the threshold, else the value; as ``torch.nn.functional.threshold``."""
    if input._array.dtype == dt.bool_.numpy:
        raise NotImplementedError("threshold is not implemented for bool")
    return write_over(input, inplace, "threshold", lambda x: apply(_threshold, x, threshold=threshold, value=value))


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half of a dimension times the sigmoid of the second; as ``torch.nn.functional.glu``.

    Raises
    ------
    RuntimeError
        If the dimension has an odd size.
    """
    check_floating("glu", input)
    if not input.ndim:
        raise RuntimeError("glu does not support 0-dimensional tensors")
    dim = normal_dim(dim, input.ndim, "glu")
    if input.shape[dim] % 2:
        raise RuntimeError(f"Halving dimension must be even, but dimension {dim} is size {input.shape[dim]}")
    first, second = input.chunk(2, dim)
    return first * pointwise.sigmoid(second)


sigmoid: Callable[..., Tensor] = pointwise.sigmoid
tanh: Callable[..., Tensor] = pointwise.tanh


def in_place(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The twin of a function with an ``inplace`` argument that writes its result over its input."""

    def twin(input: Tensor, *args: Any, **options: Any) -> Tensor:
        return function(input, *args, inplace=True, **options)

    twin.__name__ = twin.__qualname__ = function.__name__ + "_"
    twin.__doc__ = f"`{function.__name__}` in place; as ``torch.nn.functional.{function.__name__}_``."
    return twin


relu_, leaky_relu_, elu_, selu_, celu_ = in_place(relu), in_place(leaky_relu), in_place(elu), in_place(selu), in_place(celu)
hardtanh_, threshold_ = in_place(hardtanh), in_place(threshold)
