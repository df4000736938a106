"""Initial values of parameters; as ``torch.nn.init``. All fill a tensor in place, without recording, and return it."""

from __future__ import annotations

import math
import warnings
from contextvars import ContextVar
from typing import Any

from ..autograd.grad_mode import no_grad
from ..autograd.several_devices import computes_with_arrays
from ..autograd.variable import Tensor, wrap
from ..backend import dtypes as dt
from ..backend import namespace
from ..ops.random import Generator, generator_for

__all__ = [
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

_GAINS = {
    "linear": 1.0,
    "conv1d": 1.0,
    "conv2d": 1.0,
    "conv3d": 1.0,
    "conv_transpose1d": 1.0,
    "conv_transpose2d": 1.0,
    "conv_transpose3d": 1.0,
    "sigmoid": 1.0,
    "tanh": 5.0 / 3,
    "relu": math.sqrt(2.0),
    "selu": 3.0 / 4,
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which weights before a nonlinearity should be larger; as ``torch.nn.init.calculate_gain``.

    Parameters
    ----------
    nonlinearity : str
        The name of its function in ``nn.functional``.
    param : float, optional
        Of ``"leaky_relu"``, its slope; 0.01 unless given.

    Raises
    ------
    ValueError
        If there is no gain known, or the slope is no number.

    Examples
    --------
    >>> from disttorch.nn import init
    >>> round(init.calculate_gain("relu"), 4)
    1.4142
    """
    if nonlinearity == "leaky_relu":
        if param is None:
            param = 0.01
        elif isinstance(param, bool) or not isinstance(param, (int, float)):
            raise ValueError(f"negative_slope {param!r} not a valid number")
        return math.sqrt(2.0 / (1 + param**2))
    if nonlinearity not in _GAINS:
        raise ValueError(f"Unsupported nonlinearity {nonlinearity}; there are leaky_relu, {', '.join(_GAINS)}")
    return _GAINS[nonlinearity]


#: whether parameters are left as memory is; for `nn.utils.skip_init`
SKIPPED: ContextVar[bool] = ContextVar("skipped", default=False)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Numbers uniform in [a, b)."""
    if SKIPPED.get():
        return tensor
    with no_grad():
        return tensor.uniform_(a, b, generator=generator)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normally distributed numbers."""
    if SKIPPED.get():
        return tensor
    with no_grad():
        return tensor.normal_(mean, std, generator=generator)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """One value everywhere."""
    if SKIPPED.get():
        return tensor
    with no_grad():
        return tensor.fill_(val)


def ones_(tensor: Tensor) -> Tensor:
    """1 everywhere."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """0 everywhere."""
    return constant_(tensor, 0.0)


@computes_with_arrays
def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:
    """Normally distributed numbers, of those that lie in [a, b].

    Parameters
    ----------
    tensor : Tensor
    mean, std : float
        Of the distribution before what is outside is left out.
    a, b : float
        Absolute bounds, not multiples of `std`.
    generator : Generator, optional

    Raises
    ------
    ValueError
        If a > b or std is not positive.
    """
    if a > b or std <= 0:
        raise ValueError(f"trunc_normal_: needs a <= b and std > 0, got a={a}, b={b}, std={std}")
    xp = namespace(tensor._array)
    source = generator_for(tensor.device, generator)
    low, high = (a - mean) / std, (b - mean) / std
    if _normal_cdf(high) - _normal_cdf(low) > 0.25:
        values = _draw_until_inside(xp, source, tensor._array.size, low, high)
    else:
        values = _draw_by_quantile(xp, source, tensor._array.size, low, high)
    values = xp.clip(values * std + mean, a, b).reshape(tensor._array.shape)
    with no_grad():
        return tensor.copy_(wrap(values))


def _normal_cdf(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


def _draw_until_inside(xp: Any, source: Generator, size: int, low: float, high: float) -> Any:
    """Normal numbers, drawn again where they are outside: cheap where most are inside."""
    values = source.normal((size,), dt.float64)
    outside = xp.nonzero((values < low) | (values > high))[0]
    while outside.size:
        again = source.normal((int(outside.size),), dt.float64)
        values[outside] = again
        outside = outside[(again < low) | (again > high)]
    return values


def _draw_by_quantile(xp: Any, source: Generator, size: int, low: float, high: float) -> Any:
    """Normal numbers by inverting the distribution function, by Newton's method on its logarithm.

    The logarithm is concave, so from 0 the first step leads to the left of the solution and the others climb up to it.
    """
    if low > 0:  # the lower tail is where probabilities are exact
        return -_draw_by_quantile(xp, source, size, -high, -low)
    first, last = _normal_cdf(low), _normal_cdf(high)
    wanted = source.uniform((size,), dt.float64) * (last - first) + first
    lower = xp.minimum(wanted, 1 - wanted)
    target = xp.log(xp.maximum(lower, 1e-300))
    x = xp.zeros_like(target)
    for _ in range(40):
        cdf = xp.maximum(xp.erfc(x * -math.sqrt(0.5)) * 0.5, 1e-300)
        density = xp.exp(x * x * -0.5) / math.sqrt(2 * math.pi)
        step = (target - xp.log(cdf)) * cdf / xp.maximum(density, 1e-300)
        x = xp.clip(x + step, -37.0, 0.0)
        if not size or float(xp.max(xp.abs(step))) < 1e-13:
            break
    return xp.where(wanted > 0.5, -x, x)


@computes_with_arrays
def eye_(tensor: Tensor) -> Tensor:
    """A matrix with ones on its diagonal.

    Raises
    ------
    ValueError
        If it is no matrix.
    """
    if tensor.ndim != 2:
        raise ValueError(f"Only tensors with 2 dimensions are supported, but got shape {list(tensor.shape)}")
    xp = namespace(tensor._array)
    with no_grad():
        return tensor.copy_(wrap(xp.eye_of(tensor._array.shape, tensor._array.dtype)))


@computes_with_arrays
def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A weight (O, C / groups, *kernel) of a convolution that passes on as many channels as it can, for each group.

    Raises
    ------
    ValueError
        If it is no such weight, or O cannot be divided into the groups.
    """
    shape = tensor._array.shape
    if len(shape) not in (3, 4, 5):
        raise ValueError(f"Only tensors with 3, 4, or 5 dimensions are supported, but got shape {list(shape)}")
    if shape[0] % groups:
        raise ValueError(f"dim 0 must be divisible by groups, but the shape is {list(shape)} and groups={groups}")
    per_group = shape[0] // groups
    centre = tuple(n // 2 for n in shape[2:])
    with no_grad():
        tensor.zero_()
        for group in range(groups):
            for channel in range(min(per_group, shape[1])):
                tensor[(group * per_group + channel, channel, *centre)] = 1
    return tensor


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """How many inputs an output has, and how many outputs an input, of a weight (out, in, *kernel).

    By PyTorch's name, under which layers that users write ask for it.
    """
    shape = tensor._array.shape
    if len(shape) < 2:
        raise ValueError(
            f"Fan in and fan out can not be computed for tensor with fewer than 2 dimensions, but its shape is {list(shape)}"
        )
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform with the variance ``gain**2 * 2 / (fan_in + fan_out)`` (Glorot & Bengio, 2010)."""
    bound = gain * math.sqrt(6.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with the variance ``gain**2 * 2 / (fan_in + fan_out)`` (Glorot & Bengio, 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(_calculate_fan_in_and_fan_out(tensor))), generator)


def _calculate_correct_fan(tensor: Tensor, mode: str) -> int:
    if mode.lower() not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of fan_in, fan_out")
    return _calculate_fan_in_and_fan_out(tensor)[mode.lower() == "fan_out"]


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    return calculate_gain(nonlinearity, a) / math.sqrt(_calculate_correct_fan(tensor, mode))


def _is_empty(tensor: Tensor) -> bool:
    if 0 in tensor._array.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=3)
        return True
    return False


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Uniform with the variance ``gain**2 / fan`` (He et al., 2015).

    Parameters
    ----------
    tensor : Tensor
        (out, in, *kernel)
    a : float
        The slope, for ``"leaky_relu"``.
    mode : {"fan_in", "fan_out"}
        Whether the variance shall stay the same going forward or backward.
    nonlinearity : str
        See `calculate_gain`.
    generator : Generator, optional
    """
    if _is_empty(tensor):
        return tensor
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Normal with the variance ``gain**2 / fan`` (He et al., 2015). Parameters as for `kaiming_uniform_`."""
    if _is_empty(tensor):
        return tensor
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


@computes_with_arrays
def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """A random matrix (out, in * ...) with orthonormal rows or, if there are more of them, columns, times `gain`.

    Notes
    -----
    Saxe et al., 2013. Gram and Schmidt's method on normal numbers, in float64, each vector orthogonalized twice, which
    is enough (Giraud et al., "The loss of orthogonality in the Gram-Schmidt orthogonalization process", 2005).

    Raises
    ------
    ValueError
        If the tensor has fewer than 2 dimensions.
    """
    if tensor.ndim < 2:
        raise ValueError(f"Only tensors with 2 or more dimensions are supported, but got shape {list(tensor.shape)}")
    if not tensor._array.size:
        return tensor
    xp = namespace(tensor._array)
    rows, columns = tensor._array.shape[0], tensor._array.size // tensor._array.shape[0]
    vectors = generator_for(tensor.device, generator).normal((min(rows, columns), max(rows, columns)), dt.float64)
    for i in range(len(vectors)):
        v = vectors[i]
        for _ in range(2):
            v = v - xp.matmul(xp.matmul(vectors[:i], v), vectors[:i])
        vectors[i] = v / xp.sqrt(xp.sum(v * v))
    matrix = vectors if rows <= columns else xp.swapaxes(vectors, 0, 1)
    with no_grad():
        return tensor.copy_(wrap(matrix.reshape(tensor._array.shape) * gain))


@computes_with_arrays
def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """Normal numbers with a share of each column set to 0 (Martens, 2010).

    Parameters
    ----------
    tensor : Tensor
        Of two dimensions.
    sparsity : float
        The share of zeros in each column, rounded up to whole elements.
    std : float
        Of the others.
    generator : Generator, optional
    """
    if tensor.ndim != 2:
        raise ValueError(f"Only tensors with 2 dimensions are supported, but got shape {list(tensor.shape)}")
    rows, columns = tensor._array.shape
    source = generator_for(tensor.device, generator)
    normal_(tensor, 0.0, std, generator)
    with no_grad():
        for column in range(columns):
            chosen = source.permutation(rows, dt.int64)[: math.ceil(sparsity * rows)]
            tensor[wrap(chosen), column] = 0
    return tensor
