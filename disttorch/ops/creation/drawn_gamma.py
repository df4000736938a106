"""Gamma-distributed numbers, as logarithms, with the derivative by their shape parameter."""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from ...backend import dtypes as dt
from ...backend import namespace
from ..random import Generator, generator_for

__all__ = ["log_gamma_draws"]


def _no_second_derivative(g: Any, x: Any, y: Any) -> Any:
    raise NotImplementedError("the second derivative of a gamma-distributed draw by its shape parameter is not known")


# the slope as an operation of its own, for gradients with a graph, which other parameters' second derivatives may need
_slope = Operation("log_gamma_slope", lambda xp, x, y: xp.log_gamma_slope(x, y), x=_no_second_derivative, y=_no_second_derivative)

_draws = Operation("log_gamma_draws", lambda xp, x, *, drawn: drawn, x=lambda g, x, out, xp: g * xp.log_gamma_slope(x, out))


def log_gamma_draws(concentration: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Logarithms of gamma-distributed numbers of scale 1, one for each shape parameter.

    For a small parameter the number itself is too small for its dtype, and its logarithm is not: a number of parameter a is one
    of parameter a + 1 times u ** (1 / a), with u uniform.
    """
    a = concentration._array
    xp = namespace(a)
    wide = xp.asarray(a, dt.float64.numpy)
    source = generator_for(concentration.device, generator)
    low = wide < 1
    drawn = xp.log(source.gamma(xp.where(low, wide + 1, wide)))
    uniform = 1 - source.uniform(a.shape, dt.float64)
    drawn = xp.where(low, drawn + xp.log(uniform) / wide, drawn)
    return apply(_draws, concentration, drawn=xp.asarray(drawn).astype(a.dtype))
