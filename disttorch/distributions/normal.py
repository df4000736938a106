"""The normal distribution, and those of its exponential and its size."""

from __future__ import annotations

import math
from typing import Any

import disttorch as torch

from ..autograd.variable import Tensor
from . import constraints
from .distribution import Distribution, ExponentialFamily, broadcast_all, checked, noise_like

__all__ = ["HalfNormal", "LogNormal", "Normal"]

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Normal(ExponentialFamily):
    """The normal distribution of a mean and a standard deviation; as ``torch.distributions.Normal``.

    Parameters
    ----------
    loc, scale : float or Tensor
        Broadcast against each other.

    Examples
    --------
    >>> import disttorch as torch
    >>> from disttorch.distributions import Normal
    >>> policy = Normal(torch.zeros(3), 2.0)
    >>> policy.sample((5,)).shape
    disttorch.Size([5, 3])
    >>> policy.log_prob(torch.tensor([0.0, 1.0, 2.0]))
    tensor([-1.6121, -1.7371, -2.1121])
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None):
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def stddev(self) -> Tensor:
        return self.scale

    @property
    def variance(self) -> Tensor:
        return self.scale * self.scale

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.loc + torch.randn(self._extended_shape(sample_shape), **noise_like(self.loc)) * self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        z = (value - self.loc) / self.scale
        return z * z * -0.5 - self.scale.log() - HALF_LOG_2PI

    def cdf(self, value: Tensor) -> Tensor:
        checked(self, value)
        return 0.5 * (1 + torch.erf((value - self.loc) / self.scale * math.sqrt(0.5)))

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc + self.scale * torch.erfinv(2 * value - 1) * math.sqrt(2)

    def entropy(self) -> Tensor:
        return 0.5 + HALF_LOG_2PI + torch.log(self.scale)


class LogNormal(Distribution):
    """Of a number whose logarithm is normally distributed; as ``torch.distributions.LogNormal``.

    Parameters
    ----------
    loc, scale : float or Tensor
        Mean and standard deviation of the logarithm.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.positive
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None):
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def base_dist(self) -> Normal:
        """The logarithm's distribution."""
        return Normal(self.loc, self.scale, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return (self.loc + self.scale.pow(2) / 2).exp()

    @property
    def mode(self) -> Tensor:
        return (self.loc - self.scale.square()).exp()

    @property
    def variance(self) -> Tensor:
        return torch.expm1(self.scale.pow(2)) * (2 * self.loc + self.scale.pow(2)).exp()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.base_dist.rsample(sample_shape).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        log = value.log()
        return self.base_dist.log_prob(log) - log

    def cdf(self, value: Tensor) -> Tensor:
        checked(self, value)
        return self.base_dist.cdf(value.log())

    def icdf(self, value: Tensor) -> Tensor:
        return self.base_dist.icdf(value).exp()

    def entropy(self) -> Tensor:
        return self.base_dist.entropy() + self.loc


class HalfNormal(Distribution):
    """Of the size of a normally distributed number of mean 0; as ``torch.distributions.HalfNormal``.

    Parameters
    ----------
    scale : float or Tensor
        The standard deviation of the number.
    """

    arg_constraints = {"scale": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, scale: Any, validate_args: bool | None = None):
        (self.scale,) = broadcast_all(scale)
        super().__init__(self.scale.shape, validate_args=validate_args)

    @property
    def base_dist(self) -> Normal:
        """The number's distribution."""
        return Normal(torch.zeros_like(self.scale), self.scale, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def mode(self) -> Tensor:
        return torch.zeros_like(self.scale)

    @property
    def variance(self) -> Tensor:
        return self.scale.pow(2) * (1 - 2 / math.pi)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.base_dist.rsample(sample_shape).abs()

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        inside = self.base_dist.log_prob(value) + math.log(2)
        return torch.where(value >= 0, inside, torch.full_like(inside, -math.inf))

    def cdf(self, value: Tensor) -> Tensor:
        checked(self, value)
        return 2 * self.base_dist.cdf(value) - 1

    def icdf(self, value: Tensor) -> Tensor:
        return self.base_dist.icdf((value + 1) / 2)

    def entropy(self) -> Tensor:
        return self.base_dist.entropy() - math.log(2)
