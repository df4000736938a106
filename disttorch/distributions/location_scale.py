"""Distributions on the line other than the normal one, each the shift and the stretch of one standard distribution."""

from __future__ import annotations

import math
from typing import Any

import disttorch as torch

from ..autograd.variable import Tensor
from . import constraints
from .distribution import Distribution, broadcast_all, checked, noise_like, tiny
from .gamma import Chi2

__all__ = ["Cauchy", "Gumbel", "HalfCauchy", "Laplace", "StudentT", "Uniform"]

EULER = 0.57721566490153286061


class _LocationScale(Distribution):
    """What those have in common whose quantiles and densities are formulas of ``(value - loc) / scale``."""

    arg_constraints: Any = {"loc": constraints.real, "scale": constraints.positive}
    support: Any = constraints.real
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None):
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def _standard_log_prob(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def _standard_cdf(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def _standard_icdf(self, p: Tensor) -> Tensor:
        raise NotImplementedError

    @property
    def mode(self) -> Tensor:
        return self.loc

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        u = torch.rand(self._extended_shape(sample_shape), **noise_like(self.loc))
        return self.loc + self.scale * self._standard_icdf(u.clamp(min=tiny(u), max=1 - torch.finfo(u.dtype).eps / 2))

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        return self._standard_log_prob((value - self.loc) / self.scale) - self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        checked(self, value)
        return self._standard_cdf((value - self.loc) / self.scale)

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc + self.scale * self._standard_icdf(value)


class Laplace(_LocationScale):
    """The Laplace (two-sided exponential) distribution; as ``torch.distributions.Laplace``."""

    def _standard_log_prob(self, z: Tensor) -> Tensor:
        return -z.abs() - math.log(2)

    def _standard_cdf(self, z: Tensor) -> Tensor:
        return 0.5 - 0.5 * z.sign() * torch.expm1(-z.abs())

    def _standard_icdf(self, p: Tensor) -> Tensor:
        return -(p - 0.5).sign() * torch.log1p(-2 * (p - 0.5).abs())

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return 2 * self.scale.pow(2)

    @property
    def stddev(self) -> Tensor:
        return math.sqrt(2) * self.scale

    def entropy(self) -> Tensor:
        return 1 + torch.log(2 * self.scale)


class Cauchy(_LocationScale):
    """The Cauchy distribution, which has no mean; as ``torch.distributions.Cauchy``."""

    def _standard_log_prob(self, z: Tensor) -> Tensor:
        return -math.log(math.pi) - (1 + z * z).log()

    def _standard_cdf(self, z: Tensor) -> Tensor:
        return torch.atan(z) / math.pi + 0.5

    def _standard_icdf(self, p: Tensor) -> Tensor:
        return torch.tan(math.pi * (p - 0.5))

    @property
    def mean(self) -> Tensor:
        return torch.full_like(self.loc, math.nan)

    @property
    def variance(self) -> Tensor:
        return torch.full_like(self.loc, math.inf)

    def entropy(self) -> Tensor:
        return math.log(4 * math.pi) + self.scale.log()


class Gumbel(_LocationScale):
    """The Gumbel distribution, of extremes; as ``torch.distributions.Gumbel``."""

    def _standard_log_prob(self, z: Tensor) -> Tensor:
        return -z - torch.exp(-z)

    def _standard_cdf(self, z: Tensor) -> Tensor:
        return torch.exp(-torch.exp(-z))

    def _standard_icdf(self, p: Tensor) -> Tensor:
        return -torch.log(-torch.log(p))

    @property
    def mean(self) -> Tensor:
        return self.loc + self.scale * EULER

    @property
    def variance(self) -> Tensor:
        return self.stddev.pow(2)

    @property
    def stddev(self) -> Tensor:
        return self.scale * (math.pi / math.sqrt(6))

    def entropy(self) -> Tensor:
        return self.scale.log() + (1 + EULER)


class HalfCauchy(Distribution):
    """Of the size of a Cauchy-distributed number; as ``torch.distributions.HalfCauchy``."""

    arg_constraints = {"scale": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, scale: Any, validate_args: bool | None = None):
        (self.scale,) = broadcast_all(scale)
        super().__init__(self.scale.shape, validate_args=validate_args)

    @property
    def base_dist(self) -> Cauchy:
        """The number's distribution."""
        return Cauchy(torch.zeros_like(self.scale), self.scale, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return torch.full_like(self.scale, math.inf)

    @property
    def mode(self) -> Tensor:
        return torch.zeros_like(self.scale)

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance

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


class StudentT(Distribution):
    """Student's t distribution, shifted and stretched; as ``torch.distributions.StudentT``."""

    arg_constraints = {"df": constraints.positive, "loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True

    def __init__(self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None):
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        super().__init__(self.df.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return torch.where(self.df > 1, self.loc, torch.full_like(self.loc, math.nan))

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        finite = self.scale.pow(2) * self.df / torch.where(self.df > 2, self.df - 2, torch.ones_like(self.df))
        beyond = torch.where(self.df > 1, torch.full_like(self.df, math.inf), torch.full_like(self.df, math.nan))
        return torch.where(self.df > 2, finite, beyond)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        normal = torch.randn(self._extended_shape(sample_shape), **noise_like(self.df))
        return self.loc + self.scale * normal * torch.rsqrt(Chi2(self.df, validate_args=False).rsample(sample_shape) / self.df)

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        z = (value - self.loc) / self.scale
        norm = self.scale.log() + 0.5 * self.df.log() + 0.5 * math.log(math.pi)
        norm = norm + torch.lgamma(0.5 * self.df) - torch.lgamma(0.5 * (self.df + 1))
        return -0.5 * (self.df + 1) * torch.log1p(z * z / self.df) - norm

    def entropy(self) -> Tensor:
        half = 0.5 * self.df
        log_beta = torch.lgamma(half) + 0.5 * math.log(math.pi) - torch.lgamma(half + 0.5)
        return self.scale.log() + (half + 0.5) * (torch.digamma(half + 0.5) - torch.digamma(half)) + 0.5 * self.df.log() + log_beta


class Uniform(Distribution):
    """Uniform in [low, high); as ``torch.distributions.Uniform``.

    Parameters
    ----------
    low, high : float or Tensor

    Raises
    ------
    ValueError
        Unless low < high everywhere.
    """

    arg_constraints = {"low": constraints.dependent, "high": constraints.dependent}
    has_rsample = True

    def __init__(self, low: Any, high: Any, validate_args: bool | None = None):
        self.low, self.high = broadcast_all(low, high)
        super().__init__(self.low.shape, validate_args=validate_args)
        if self._validate_args and not bool((self.low < self.high).all()):
            raise ValueError(f"Uniform is not defined when low >= high: low is {self.low}, high is {self.high}")

    @constraints.dependent_property
    def support(self) -> Any:
        return constraints.interval(self.low, self.high)

    @property
    def mean(self) -> Tensor:
        return (self.high + self.low) / 2

    @property
    def mode(self) -> Tensor:
        return torch.full_like(self.low, math.nan)

    @property
    def variance(self) -> Tensor:
        return (self.high - self.low).pow(2) / 12

    @property
    def stddev(self) -> Tensor:
        return (self.high - self.low) / math.sqrt(12)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.low + torch.rand(self._extended_shape(sample_shape), **noise_like(self.low)) * (self.high - self.low)

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        inside = (self.low <= value) & (value < self.high)
        return torch.log(inside.to(self.low.dtype)) - torch.log(self.high - self.low)

    def cdf(self, value: Tensor) -> Tensor:
        checked(self, value)
        return ((value - self.low) / (self.high - self.low)).clamp(min=0, max=1)

    def icdf(self, value: Tensor) -> Tensor:
        return value * (self.high - self.low) + self.low

    def entropy(self) -> Tensor:
        return torch.log(self.high - self.low)
