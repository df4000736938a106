"""Variance and standard deviation over some dimensions or all, alone and together with the mean."""

from __future__ import annotations

from typing import Any

from ..autograd.operation import Operation, apply
from ..autograd.variable import Tensor
from ..backend import dtypes as dt
from ..backend.kernels.precision import narrow, wide
from .dims import normal_dims
from .reducing import axis_of, count_of, spread
from .reduction import mean

# What users find of this family, and where: see ops/public.py.
BOTH = "std var"
FUNCTIONS = "std_mean var_mean"
OUT = "std var"


def _var_forward(xp: Any, x: Any, *, dim: Any, keepdim: bool, correction: float) -> Any:
    values = wide(xp, x)
    centred = values - xp.mean(values, axis=dim, keepdims=True)
    squares = centred.real * centred.real + centred.imag * centred.imag if centred.dtype.kind == "c" else centred * centred
    total = xp.sum(squares, axis=axis_of(dim), keepdims=keepdim)
    variance = total / xp.asarray(_divisor(x.shape, dim, correction), dtype=total.dtype)
    return variance if x.dtype.kind == "c" else narrow(xp, variance, x.dtype)


def _divisor(shape: tuple[int, ...], dim: Any, correction: float) -> float:
    return max(count_of(shape, dim) - correction, 0)


def _var_rule(g: Any, x: Any, dim: Any, keepdim: bool, correction: float, xp: Any) -> Any:
    divisor = _divisor(x.shape, dim, correction)
    centred = x - xp.mean(x, axis=dim, keepdims=True)
    return spread(xp, g, x.shape, dim, keepdim) * (2 / divisor if divisor else float("nan")) * centred


def _std_rule(g: Any, x: Any, out: Any, dim: Any, keepdim: bool, correction: float, xp: Any) -> Any:
    # of equal elements the subgradient 0
    of_var = xp.where(out == 0, xp.zeros_like(g), g / (2 * xp.where(out == 0, xp.ones_like(out), out)))
    return _var_rule(of_var, x, dim, keepdim, correction, xp)


_var = Operation("var", _var_forward, x=_var_rule)
_std = Operation("std", lambda xp, x, **options: xp.sqrt(_var_forward(xp, x, **options)), x=_std_rule)


def _arguments(name: str, input: Tensor, dim: Any, unbiased: bool | None, keepdim: bool, correction: float | None) -> dict[str, Any]:
    if unbiased is not None and correction is not None:
        raise TypeError(f"{name}(): unbiased={unbiased} and correction={correction} say the same, only one of them can be given")
    if isinstance(dim, bool):  # var(x, unbiased)
        dim, unbiased = None, dim
    if input._array.dtype in dt.INTEGRAL:
        raise RuntimeError(f"{name}: input tensor should be either floating point or complex, but got {input.dtype}")
    if correction is None:
        correction = 0 if unbiased is False else 1
    return {"dim": normal_dims(dim, input.ndim, name), "keepdim": keepdim, "correction": correction}


def var(
    input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
) -> Tensor:
    """The variance over some dimensions or all; as ``torch.var``.

    Parameters
    ----------
    input : Tensor
        Floating point; or complex, whose variance is real.
    dim : int or tuple of int, optional
        All dimensions if absent.
    unbiased : bool, optional
        False for ``correction=0``.
    keepdim : bool
        Whether these dimensions stay with size 1.
    correction : float
        What is taken from the number of elements before dividing; 1 (Bessel's correction) unless given.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.var(disttorch.tensor([1.0, 2.0, 3.0]))
    tensor(1.)
    """
    return apply(_var, input, **_arguments("var", input, dim, unbiased, keepdim, correction))


def std(
    input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
) -> Tensor:
    """The standard deviation: the square root of `var`, with the same arguments; as ``torch.std``."""
    return apply(_std, input, **_arguments("std", input, dim, unbiased, keepdim, correction))


def var_mean(
    input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
) -> tuple[Tensor, Tensor]:
    """The variance and the mean, with the arguments of `var`; as ``torch.var_mean``."""
    arguments = _arguments("var_mean", input, dim, unbiased, keepdim, correction)
    return apply(_var, input, **arguments), mean(input, arguments["dim"], keepdim)


def std_mean(
    input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
) -> tuple[Tensor, Tensor]:
    """The standard deviation and the mean, with the arguments of `var`; as ``torch.std_mean``."""
    arguments = _arguments("std_mean", input, dim, unbiased, keepdim, correction)
    return apply(_std, input, **arguments), mean(input, arguments["dim"], keepdim)
