"""A distribution seen through transforms, and those that are one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import disttorch as torch

from ..autograd.grad_mode import no_grad
from ..autograd.variable import Tensor
from ..ops.dims import Size
from . import constraints
from .discrete import one_of
from .distribution import Distribution, broadcast_all, checked, noise_like
from .independent import Independent, sum_rightmost
from .location_scale import Gumbel
from .normal import Normal
from .transforms import ComposeTransform, SigmoidTransform, StickBreakingTransform, Transform, _Inverse

__all__ = ["LogisticNormal", "RelaxedBernoulli", "RelaxedOneHotCategorical", "TransformedDistribution"]


class TransformedDistribution(Distribution):
    """Of what transforms make of another distribution's draws; as ``torch.distributions.TransformedDistribution``.

    Parameters
    ----------
    base_distribution : Distribution
    transforms : Transform or sequence of Transform
        Applied one after the other.

    Examples
    --------
    >>> import disttorch as torch
    >>> from disttorch.distributions import Normal, TransformedDistribution
    >>> from disttorch.distributions.transforms import TanhTransform
    >>> squashed = TransformedDistribution(Normal(torch.zeros(2), 1.0), [TanhTransform(cache_size=1)])
    >>> action = squashed.rsample()
    >>> squashed.log_prob(action).shape
    disttorch.Size([2])
    """

    arg_constraints: Any = {}

    def __init__(
        self, base_distribution: Distribution, transforms: Transform | Sequence[Transform], validate_args: bool | None = None
    ):
        if isinstance(transforms, Transform):
            self.transforms = [transforms]
        elif all(isinstance(t, Transform) for t in transforms):
            self.transforms = list(transforms)
        else:
            raise ValueError(f"transforms must be a Transform or list, but was {transforms}")
        whole = ComposeTransform(self.transforms)
        shape = base_distribution.batch_shape + base_distribution.event_shape
        if len(shape) < whole.domain.event_dim:
            raise ValueError(f"base_distribution needs to have shape with size at least {whole.domain.event_dim}, but got {tuple(shape)}.")
        forward = Size(whole.forward_shape(shape))
        wanted = Size(whole.inverse_shape(forward))
        if wanted != shape:
            base_distribution = base_distribution.expand(wanted[: len(wanted) - len(base_distribution.event_shape)])
        missing = whole.domain.event_dim - len(base_distribution.event_shape)
        self.base_dist = Independent(base_distribution, missing) if missing > 0 else base_distribution
        event_dim = whole.codomain.event_dim + max(-missing, 0)
        cut = len(forward) - event_dim
        super().__init__(forward[:cut], forward[cut:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(TransformedDistribution, _instance)
        new.__dict__.update(self.__dict__)
        shape = ComposeTransform(self.transforms).inverse_shape(Size(batch_shape) + self._event_shape)
        new.base_dist = self.base_dist.expand(shape[: len(shape) - len(self.base_dist.event_shape)])
        new._batch_shape = Size(batch_shape)
        return new

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """As the base distribution."""
        return self.base_dist.has_rsample

    @constraints.dependent_property
    def support(self) -> Any:
        if not self.transforms:
            return self.base_dist.support
        codomain = self.transforms[-1].codomain
        missing = len(self._event_shape) - codomain.event_dim
        return constraints.independent(codomain, missing) if missing > 0 else codomain

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            return self._through(self.base_dist.sample(sample_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self._through(self.base_dist.rsample(sample_shape))

    def _through(self, x: Tensor) -> Tensor:
        for transform in self.transforms:
            x = transform(x)
        return x

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        event_dim = len(self._event_shape)
        total: Any = 0.0
        for transform in reversed(self.transforms):
            x = transform.inv(value) if isinstance(transform, _Inverse) else transform._inv_call(value)
            event_dim += transform.domain.event_dim - transform.codomain.event_dim
            total = total - sum_rightmost(transform.log_abs_det_jacobian(x, value), event_dim - transform.domain.event_dim)
            value = x
        return total + sum_rightmost(self.base_dist.log_prob(value), event_dim - len(self.base_dist.event_shape))

    def _falls(self) -> Any:
        sign: Any = 1
        for transform in self.transforms:
            if transform.sign is None:
                raise NotImplementedError(f"{transform!r} neither rises nor falls, so {type(self).__name__} has no cdf and icdf")
            sign = sign * transform.sign
        return sign

    def cdf(self, value: Tensor) -> Tensor:
        for transform in reversed(self.transforms):
            value = transform.inv(value)
        probability, sign = self.base_dist.cdf(value), self._falls()
        return probability if isinstance(sign, int) and sign == 1 else sign * (probability - 0.5) + 0.5

    def icdf(self, value: Tensor) -> Tensor:
        sign = self._falls()
        return self._through(self.base_dist.icdf(value if isinstance(sign, int) and sign == 1 else sign * (value - 0.5) + 0.5))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, (self.base_dist, *self.transforms)))})"


class LogisticNormal(TransformedDistribution):
    """Of the shares that stick breaking makes of normally distributed numbers; as PyTorch's."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support: Any = constraints.simplex

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None):
        base = Normal(loc, scale, validate_args=validate_args)
        super().__init__(base if base.batch_shape else base.expand([1]), StickBreakingTransform(), validate_args=validate_args)

    @property
    def loc(self) -> Tensor:
        """The numbers' means."""
        return self.base_dist.base_dist.loc  # type: ignore[attr-defined]

    @property
    def scale(self) -> Tensor:
        """The numbers' standard deviations."""
        return self.base_dist.base_dist.scale  # type: ignore[attr-defined]


class _Logistic(Distribution):
    """Of the log-odds of a relaxed Bernoulli number: a logistic variable, moved to `logits`, over the temperature."""

    arg_constraints = {"logits": constraints.real}
    support = constraints.real
    has_rsample = True
    _carried = ("temperature",)

    def __init__(self, temperature: Any, logits: Tensor, validate_args: bool | None = None):
        self.logits, self.temperature = broadcast_all(logits, temperature)
        super().__init__(self.logits.shape, validate_args=validate_args)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        u = torch.rand(self._extended_shape(sample_shape), **noise_like(self.logits))
        eps = torch.finfo(u.dtype).eps
        return (torch.logit(u.clamp(min=eps, max=1 - eps)) + self.logits) / self.temperature

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        off = self.logits - value * self.temperature
        return self.temperature.log() + off - 2 * torch.logaddexp(off, torch.zeros_like(off))


class RelaxedBernoulli(TransformedDistribution):
    """A number in (0, 1) near 0 or 1, with gradients (Maddison et al. 2017; Jang et al. 2017); as PyTorch's.

    Parameters
    ----------
    temperature : float or Tensor
        The lower, the nearer.
    probs, logits : float or Tensor
        One of them, as for `Bernoulli`.
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support: Any = constraints.unit_interval

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        one_of("RelaxedBernoulli", probs, logits)
        (given,) = broadcast_all(probs if logits is None else logits)
        self.temperature = temperature
        if logits is None and (validate_args or (validate_args is None and self._validate_args)):
            inside = constraints.unit_interval.check(given)
            if not bool(inside.all()):
                raise ValueError(f"Expected parameter probs of RelaxedBernoulli to be in [0, 1], but found invalid values:\n{given}")
        odds = torch.logit(given, torch.finfo(given.dtype).eps) if logits is None else given
        super().__init__(_Logistic(temperature, odds, validate_args), SigmoidTransform(), validate_args=validate_args)

    @property
    def logits(self) -> Tensor:
        """The log-odds."""
        return self.base_dist.logits  # type: ignore[attr-defined]

    @property
    def probs(self) -> Tensor:
        """The probability of being near 1."""
        return torch.sigmoid(self.logits)


class RelaxedOneHotCategorical(Distribution):
    """Shares near a one-hot vector, with gradients (Maddison et al. 2017; Jang et al. 2017); as PyTorch's.

    Parameters
    ----------
    temperature : float or Tensor
        The lower, the nearer.
    probs, logits : Tensor
        One of them, as for `Categorical`.
    """

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.simplex
    has_rsample = True

    def __init__(self, temperature: Any, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None):
        one_of("RelaxedOneHotCategorical", probs, logits)
        given = torch.log(probs.clamp(min=torch.finfo(probs.dtype).tiny)) if probs is not None else logits
        assert given is not None
        self.temperature = temperature
        self.logits = torch.log_softmax(given, dim=-1)
        super().__init__(given.shape[:-1], given.shape[-1:], validate_args=validate_args)

    @property
    def probs(self) -> Tensor:
        """The classes' probabilities."""
        return self.logits.exp()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        noise = Gumbel(torch.zeros_like(self.logits), 1.0, validate_args=False).sample(sample_shape)
        return torch.softmax((self.logits + noise) / self.temperature, dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        n = value.shape[-1]
        t = torch.as_tensor(self.temperature, dtype=value.dtype, device=value.device)
        log = value.log()
        score = self.logits - t * log
        return (score - score.logsumexp(-1, keepdim=True) - log).sum(-1) + math.lgamma(n) + (n - 1) * t.log()
