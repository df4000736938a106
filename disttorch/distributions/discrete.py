"""Distributions of events and counts: Bernoulli, binomial, geometric, negative binomial, Poisson."""

from __future__ import annotations

from typing import Any

import disttorch as torch

from ..autograd.grad_mode import no_grad
from ..autograd.variable import Tensor
from ..ops.arithmetic import xlogy
from ..ops.nn.activation import logsigmoid
from . import constraints
from .distribution import (
    Distribution,
    ExponentialFamily,
    broadcast_all,
    checked,
    clamp_probs,
    lazy_property,
    noise_like,
    tiny,
)
from .gamma import Gamma

__all__ = ["Bernoulli", "Binomial", "Geometric", "NegativeBinomial", "Poisson"]


def one_of(name: str, probs: Any, logits: Any) -> None:
    """Refuse both and neither.

    Raises
    ------
    ValueError
    """
    if (probs is None) == (logits is None):
        raise ValueError(f"{name}: Either `probs` or `logits` must be specified, but not both.")


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), exact also where x is large."""
    return -logsigmoid(-x)


class _Odds(Distribution):
    """What those have in common that are told by a probability or its log-odds, whichever is given."""

    def _set(self, probs: Any, logits: Any, *others: Any) -> tuple[Tensor, ...]:
        one_of(type(self).__name__, probs, logits)
        *broadcast, given = broadcast_all(*others, probs if logits is None else logits)
        self.__dict__["probs" if logits is None else "logits"] = given
        return tuple(broadcast)

    @property
    def _given(self) -> Tensor:
        return self.__dict__["probs"] if "probs" in self.__dict__ else self.__dict__["logits"]

    @property
    def param_shape(self) -> Any:
        """The shape of the parameter."""
        return self._given.shape

    @lazy_property
    def probs(self) -> Tensor:
        """Of success."""
        return torch.sigmoid(self.logits)

    @lazy_property
    def logits(self) -> Tensor:
        """log(probs / (1 - probs))."""
        p = clamp_probs(self.probs)
        return torch.log(p) - torch.log1p(-p)


class Bernoulli(_Odds, ExponentialFamily):
    """1 with a probability, else 0; as ``torch.distributions.Bernoulli``.

    Parameters
    ----------
    probs : float or Tensor, optional
        The probability of 1; or instead
    logits : float or Tensor, optional
        its log-odds.

    Raises
    ------
    ValueError
        If both are given, or neither.
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.boolean
    has_enumerate_support = True

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        self._set(probs, logits)
        super().__init__(self._given.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        mode = (self.probs >= 0.5).to(self.probs.dtype)
        return mode.masked_fill(self.probs == 0.5, float("nan"))

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            return torch.bernoulli(self.probs.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        return value * self.logits - softplus(self.logits)

    def entropy(self) -> Tensor:
        return softplus(self.logits) - self.probs * self.logits

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = torch.arange(2, **noise_like(self._given)).view((-1,) + (1,) * len(self._batch_shape))
        return values.expand((-1, *self._batch_shape)) if expand else values


class Binomial(_Odds):
    """How many of some trials succeed; as ``torch.distributions.Binomial``.

    Parameters
    ----------
    total_count : int or Tensor
    probs, logits : float or Tensor
        One of them.
    """

    arg_constraints = {"total_count": constraints.nonnegative_integer, "probs": constraints.unit_interval, "logits": constraints.real}
    has_enumerate_support = True

    def __init__(self, total_count: Any = 1, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        (count,) = self._set(probs, logits, total_count)
        self.total_count = count.type_as(self._given)
        super().__init__(self._given.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> Any:
        return constraints.integer_interval(0, self.total_count)

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.probs

    @property
    def mode(self) -> Tensor:
        return ((self.total_count + 1) * self.probs).floor().clamp(max=self.total_count)

    @property
    def variance(self) -> Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        with no_grad():
            return torch.binomial(self.total_count.expand(shape), self.probs.expand(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        n = self.total_count
        ways = torch.lgamma(n + 1) - torch.lgamma(value + 1) - torch.lgamma(n - value + 1)
        return ways + value * self.logits - n * softplus(self.logits)

    def entropy(self) -> Tensor:
        n = int(self.total_count.max())
        if bool((self.total_count != n).any()):
            raise NotImplementedError("Inhomogeneous total count not supported by `entropy`.")
        log_prob = self.log_prob(self.enumerate_support(False))
        return -(log_prob.exp() * log_prob).sum(0)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        n = int(self.total_count.max())
        if bool((self.total_count != n).any()):
            raise NotImplementedError("Inhomogeneous total count not supported by `enumerate_support`.")
        values = torch.arange(n + 1, **noise_like(self._given)).view((-1,) + (1,) * len(self._batch_shape))
        return values.expand((-1, *self._batch_shape)) if expand else values


class Geometric(_Odds):
    """How many trials fail before the first that succeeds; as ``torch.distributions.Geometric``."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        self._set(probs, logits)
        super().__init__(self._given.shape, validate_args=validate_args)
        if self._validate_args and probs is not None and not bool((self.probs > 0).all()):
            raise ValueError(
                f"Expected parameter probs (Tensor of shape {tuple(self.probs.shape)}) of distribution {self!r} to be positive but "
                f"found invalid values:\n{self.probs}"
            )

    @property
    def mean(self) -> Tensor:
        return 1.0 / self.probs - 1.0

    @property
    def mode(self) -> Tensor:
        return torch.zeros_like(self.probs)

    @property
    def variance(self) -> Tensor:
        return (1.0 / self.probs - 1.0) / self.probs

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            u = torch.rand(self._extended_shape(sample_shape), **noise_like(self._given)).clamp(min=tiny(self._given))
            return (u.log() / torch.log1p(-self.probs)).floor()

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        if "probs" not in self.__dict__:
            return self.logits - (value + 1) * softplus(self.logits)
        return torch.special.xlog1py(value, -self.probs) + self.probs.log()

    def entropy(self) -> Tensor:
        return (softplus(self.logits) - self.probs * self.logits) / self.probs


class NegativeBinomial(_Odds):
    """How many trials succeed before some have failed; as ``torch.distributions.NegativeBinomial``.

    Parameters
    ----------
    total_count : float or Tensor
        How many must fail; need not be whole.
    probs, logits : float or Tensor
        One of them; of success, in [0, 1).
    """

    arg_constraints = {
        "total_count": constraints.greater_than_eq(0),
        "probs": constraints.half_open_interval(0.0, 1.0),
        "logits": constraints.real,
    }
    support = constraints.nonnegative_integer

    def __init__(self, total_count: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        (count,) = self._set(probs, logits, total_count)
        self.total_count = count.type_as(self._given)
        super().__init__(self._given.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.total_count * torch.exp(self.logits)

    @property
    def mode(self) -> Tensor:
        return ((self.total_count - 1) * self.logits.exp()).floor().clamp(min=0.0)

    @property
    def variance(self) -> Tensor:
        return self.mean / torch.sigmoid(-self.logits)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            return torch.poisson(Gamma(self.total_count, torch.exp(-self.logits), validate_args=False).sample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        n = self.total_count
        ways = torch.lgamma(n + value) - torch.lgamma(1.0 + value) - torch.lgamma(n)
        ways = torch.where(n + value == 0.0, torch.zeros_like(ways), ways)
        return ways - n * softplus(self.logits) - value * softplus(-self.logits)


class Poisson(ExponentialFamily):
    """How often what happens at a rate happens; as ``torch.distributions.Poisson``."""

    arg_constraints = {"rate": constraints.nonnegative}
    support = constraints.nonnegative_integer

    def __init__(self, rate: Any, validate_args: bool | None = None):
        (self.rate,) = broadcast_all(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.rate

    @property
    def mode(self) -> Tensor:
        return self.rate.floor()

    @property
    def variance(self) -> Tensor:
        return self.rate

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            return torch.poisson(self.rate.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        return xlogy(value, self.rate) - self.rate - torch.lgamma(value + 1)
