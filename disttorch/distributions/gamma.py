"""Distributions made of gamma-distributed numbers: their sums, waiting times and shares."""

from __future__ import annotations

import math
from typing import Any

import disttorch as torch

from ..autograd.variable import Tensor
from ..ops.arithmetic import xlogy
from ..ops.creation.drawn_gamma import log_gamma_draws
from ..ops.nn.embedding import one_hot
from . import constraints
from .distribution import ExponentialFamily, broadcast_all, checked, noise_like, tiny

__all__ = ["Beta", "Chi2", "Dirichlet", "Exponential", "FisherSnedecor", "Gamma", "InverseGamma"]


class Exponential(ExponentialFamily):
    """Of waiting times for what happens at a rate; as ``torch.distributions.Exponential``."""

    arg_constraints = {"rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, rate: Any, validate_args: bool | None = None):
        (self.rate,) = broadcast_all(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.rate.reciprocal()

    @property
    def mode(self) -> Tensor:
        return torch.zeros_like(self.rate)

    @property
    def stddev(self) -> Tensor:
        return self.rate.reciprocal()

    @property
    def variance(self) -> Tensor:
        return self.rate.pow(-2)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return -torch.log1p(-torch.rand(self._extended_shape(sample_shape), **noise_like(self.rate))) / self.rate

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        return self.rate.log() - self.rate * value

    def cdf(self, value: Tensor) -> Tensor:
        checked(self, value)
        return -torch.expm1(-self.rate * value)

    def icdf(self, value: Tensor) -> Tensor:
        return -torch.log1p(-value) / self.rate

    def entropy(self) -> Tensor:
        return 1.0 - torch.log(self.rate)


class Gamma(ExponentialFamily):
    """The gamma distribution; as ``torch.distributions.Gamma``.

    Parameters
    ----------
    concentration : float or Tensor
        The shape parameter.
    rate : float or Tensor
        The reciprocal of the scale.
    """

    arg_constraints: Any = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None):
        self.concentration, self.rate = broadcast_all(concentration, rate)
        super().__init__(self.concentration.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.rate

    @property
    def mode(self) -> Tensor:
        return ((self.concentration - 1) / self.rate).clamp(min=0)

    @property
    def variance(self) -> Tensor:
        return self.concentration / self.rate.pow(2)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        drawn = log_gamma_draws(self.concentration.expand(self._extended_shape(sample_shape))).exp()
        return (drawn / self.rate).clamp(min=tiny(self.rate))  # no density need be taken at 0

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        value = torch.as_tensor(value, dtype=self.rate.dtype, device=self.rate.device)
        a, rate = self.concentration, self.rate
        return xlogy(a, rate) + xlogy(a - 1, value) - rate * value - torch.lgamma(a)

    def cdf(self, value: Tensor) -> Tensor:
        checked(self, value)
        return torch.igamma(*torch.broadcast_tensors(self.concentration, self.rate * value))

    def entropy(self) -> Tensor:
        a = self.concentration
        return a - self.rate.log() + torch.lgamma(a) + (1 - a) * torch.digamma(a)


class Chi2(Gamma):
    """Of the sum of so many squared standard normal numbers; as ``torch.distributions.Chi2``."""

    arg_constraints = {"df": constraints.positive}

    def __init__(self, df: Any, validate_args: bool | None = None):
        (df,) = broadcast_all(df)
        super().__init__(0.5 * df, 0.5, validate_args=validate_args)

    _carried = ("concentration", "rate")

    @property
    def df(self) -> Tensor:
        """Degrees of freedom."""
        return self.concentration * 2


class InverseGamma(ExponentialFamily):
    """Of the reciprocal of a gamma-distributed number; as ``torch.distributions.InverseGamma``."""

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.positive
    has_rsample = True

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None):
        self.concentration, self.rate = broadcast_all(concentration, rate)
        super().__init__(self.concentration.shape, validate_args=validate_args)

    @property
    def base_dist(self) -> Gamma:
        """The reciprocal's distribution."""
        return Gamma(self.concentration, self.rate, validate_args=False)

    @property
    def mean(self) -> Tensor:
        a = self.concentration
        return torch.where(a > 1, self.rate / torch.where(a > 1, a - 1, torch.ones_like(a)), torch.full_like(a, math.inf))

    @property
    def mode(self) -> Tensor:
        return self.rate / (self.concentration + 1)

    @property
    def variance(self) -> Tensor:
        a = torch.where(self.concentration > 2, self.concentration, torch.full_like(self.concentration, 3.0))
        finite = self.rate.square() / ((a - 1).square() * (a - 2))
        return torch.where(self.concentration > 2, finite, torch.full_like(a, math.inf))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.base_dist.rsample(sample_shape).reciprocal()

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        return self.base_dist.log_prob(value.reciprocal()) - 2 * value.log()

    def cdf(self, value: Tensor) -> Tensor:
        checked(self, value)
        return torch.igammac(*torch.broadcast_tensors(self.concentration, self.rate / value))

    def entropy(self) -> Tensor:
        a = self.concentration
        return a + self.rate.log() + torch.lgamma(a) - (1 + a) * torch.digamma(a)


class Dirichlet(ExponentialFamily):
    """The Dirichlet distribution, of shares that sum to 1; as ``torch.distributions.Dirichlet``.

    Parameters
    ----------
    concentration : Tensor
        (..., classes), positive.
    """

    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex
    has_rsample = True

    def __init__(self, concentration: Tensor, validate_args: bool | None = None):
        if concentration.dim() < 1:
            raise ValueError("`concentration` parameter must be at least one-dimensional.")
        self.concentration = concentration
        super().__init__(concentration.shape[:-1], concentration.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.concentration.sum(-1, True)

    @property
    def mode(self) -> Tensor:
        above = (self.concentration - 1).clamp(min=0.0)
        total = above.sum(-1, True)
        mode = above / torch.where(total > 0, total, torch.ones_like(total))
        # where no density has a peak inside, all of it is at the most probable corner
        corner = one_hot(self.concentration.argmax(-1), self.concentration.shape[-1]).to(mode.dtype)
        return torch.where((self.concentration < 1).all(-1, keepdim=True), corner, mode)

    @property
    def variance(self) -> Tensor:
        total = self.concentration.sum(-1, True)
        return self.concentration * (total - self.concentration) / (total.pow(2) * (total + 1))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        # of logarithms, since shares of small parameters are too small for floating-point numbers
        drawn = log_gamma_draws(self.concentration.expand(self._extended_shape(sample_shape)))
        return torch.softmax(drawn, -1)

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        a = self.concentration
        return xlogy(a - 1.0, value).sum(-1) + torch.lgamma(a.sum(-1)) - torch.lgamma(a).sum(-1)

    def entropy(self) -> Tensor:
        a, total, k = self.concentration, self.concentration.sum(-1), self.concentration.size(-1)
        log_norm = torch.lgamma(a).sum(-1) - torch.lgamma(total)
        return log_norm - (k - total) * torch.digamma(total) - ((a - 1.0) * torch.digamma(a)).sum(-1)


class Beta(ExponentialFamily):
    """The beta distribution, of a share between 0 and 1; as ``torch.distributions.Beta``.

    Parameters
    ----------
    concentration1, concentration0 : float or Tensor
        Alpha and beta.
    """

    arg_constraints = {"concentration1": constraints.positive, "concentration0": constraints.positive}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None):
        self.concentration1, self.concentration0 = broadcast_all(concentration1, concentration0)
        super().__init__(self.concentration1.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def mode(self) -> Tensor:
        return Dirichlet(torch.stack([self.concentration1, self.concentration0], -1), validate_args=False).mode[..., 0]

    @property
    def variance(self) -> Tensor:
        total = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (total.pow(2) * (total + 1))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        odds = log_gamma_draws(self.concentration1.expand(shape)) - log_gamma_draws(self.concentration0.expand(shape))
        eps = torch.finfo(odds.dtype).eps
        return torch.sigmoid(odds).clamp(min=tiny(odds), max=1 - eps / 2)  # the density may be infinite at the ends

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        a, b = self.concentration1, self.concentration0
        log_norm = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
        return xlogy(a - 1.0, value) + torch.special.xlog1py(b - 1.0, -value) - log_norm

    def entropy(self) -> Tensor:
        a, b = self.concentration1, self.concentration0
        log_norm = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
        return log_norm - (a - 1) * torch.digamma(a) - (b - 1) * torch.digamma(b) + (a + b - 2) * torch.digamma(a + b)


class FisherSnedecor(ExponentialFamily):
    """The F distribution, of a quotient of two scaled Chi2 numbers; as ``torch.distributions.FisherSnedecor``."""

    arg_constraints = {"df1": constraints.positive, "df2": constraints.positive}
    support = constraints.positive
    has_rsample = True

    def __init__(self, df1: Any, df2: Any, validate_args: bool | None = None):
        self.df1, self.df2 = broadcast_all(df1, df2)
        super().__init__(self.df1.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        df2 = torch.where(self.df2 > 2, self.df2, torch.full_like(self.df2, math.nan))
        return df2 / (df2 - 2)

    @property
    def mode(self) -> Tensor:
        mode = (self.df1 - 2) / self.df1 * self.df2 / (self.df2 + 2)
        return torch.where(self.df1 > 2, mode, torch.full_like(mode, math.nan))

    @property
    def variance(self) -> Tensor:
        df2 = torch.where(self.df2 > 4, self.df2, torch.full_like(self.df2, math.nan))
        return 2 * df2.pow(2) * (self.df1 + df2 - 2) / (self.df1 * (df2 - 2).pow(2) * (df2 - 4))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        odds = log_gamma_draws((self.df1 * 0.5).expand(shape)) - log_gamma_draws((self.df2 * 0.5).expand(shape))
        return (odds.exp() * self.df2 / self.df1).clamp(min=tiny(odds))

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        a, b, ratio = self.df1 * 0.5, self.df2 * 0.5, self.df1 / self.df2
        log_norm = torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)
        return log_norm + a * ratio.log() + (a - 1) * torch.log(value) - (a + b) * torch.log1p(ratio * value)
