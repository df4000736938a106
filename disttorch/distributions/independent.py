"""Distributions made of others: batch dimensions taken as parts of one event, and mixtures."""

from __future__ import annotations

from typing import Any

import disttorch as torch

from ..autograd.grad_mode import no_grad
from ..autograd.variable import Tensor
from ..ops.dims import Size
from . import constraints
from .categorical import Categorical
from .distribution import Distribution, checked

__all__ = ["Independent", "MixtureSameFamily"]


def sum_rightmost(value: Tensor, dims: int) -> Tensor:
    """The sum over that many last dimensions."""
    return value if not dims else value.flatten(value.dim() - dims).sum(-1) if dims > 1 else value.sum(-1)


class Independent(Distribution):
    """The last batch dimensions of a distribution taken as parts of one event; as ``torch.distributions.Independent``.

    Parameters
    ----------
    base_distribution : Distribution
    reinterpreted_batch_ndims : int
        How many dimensions.

    Raises
    ------
    ValueError
        If the distribution has fewer.

    Examples
    --------
    >>> import disttorch as torch
    >>> from disttorch.distributions import Independent, Normal
    >>> Independent(Normal(torch.zeros(2, 3), 1.0), 1).log_prob(torch.zeros(2, 3))
    tensor([-2.7568, -2.7568])
    """

    arg_constraints = {}
    _carried = ("base_dist",)

    def __init__(self, base_distribution: Distribution, reinterpreted_batch_ndims: int, validate_args: bool | None = None):
        shape = base_distribution.batch_shape
        if not 0 <= reinterpreted_batch_ndims <= len(shape):
            raise ValueError(
                "Expected reinterpreted_batch_ndims <= len(base_distribution.batch_shape), "
                f"actual {reinterpreted_batch_ndims} vs {len(shape)}"
            )
        self.base_dist, self.reinterpreted_batch_ndims = base_distribution, reinterpreted_batch_ndims
        split = len(shape) - reinterpreted_batch_ndims
        super().__init__(shape[:split], shape[split:] + base_distribution.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        batch_shape = Size(batch_shape)
        rank = self.reinterpreted_batch_ndims
        base = self.base_dist.expand(batch_shape + self._event_shape[:rank])
        return type(self)(base, rank, validate_args=self._validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """As the base distribution."""
        return self.base_dist.has_rsample

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        """Only where no dimension is reinterpreted."""
        return self.reinterpreted_batch_ndims == 0 and self.base_dist.has_enumerate_support

    @constraints.dependent_property
    def support(self) -> Any:
        base = self.base_dist.support
        return constraints.independent(base, self.reinterpreted_batch_ndims) if self.reinterpreted_batch_ndims else base

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean

    @property
    def mode(self) -> Tensor:
        return self.base_dist.mode

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.base_dist.sample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.base_dist.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return sum_rightmost(self.base_dist.log_prob(value), self.reinterpreted_batch_ndims)

    def entropy(self) -> Tensor:
        return sum_rightmost(self.base_dist.entropy(), self.reinterpreted_batch_ndims)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        if self.reinterpreted_batch_ndims > 0:
            raise NotImplementedError("Enumeration over cartesian product is not implemented")
        return self.base_dist.enumerate_support(expand=expand)

    def __repr__(self) -> str:
        return f"Independent({self.base_dist}, {self.reinterpreted_batch_ndims})"


class MixtureSameFamily(Distribution):
    """A mixture of distributions of one family, its components along the last batch dimension; as PyTorch's.

    Parameters
    ----------
    mixture_distribution : Categorical
        Of the components, (..., k).
    component_distribution : Distribution
        Of batch shape (..., k).

    Raises
    ------
    ValueError
        If the shapes do not fit, or the first is no `Categorical`.
    """

    arg_constraints = {}

    def __init__(self, mixture_distribution: Categorical, component_distribution: Distribution, validate_args: bool | None = None):
        if not isinstance(mixture_distribution, Categorical):
            raise ValueError("The Mixture distribution needs to be an instance of torch.distributions.Categorical")
        if not isinstance(component_distribution, Distribution):
            raise ValueError("The Component distribution need to be an instance of torch.distributions.Distribution")
        of_mixture, of_components = mixture_distribution.batch_shape, component_distribution.batch_shape
        for a, b in zip(reversed(of_mixture), reversed(of_components[:-1])):
            if a != 1 and b != 1 and a != b:
                raise ValueError(f"`mixture_distribution.batch_shape` ({of_mixture}) is not compatible with {of_components}")
        if mixture_distribution._num_events != of_components[-1]:
            raise ValueError(
                f"`mixture_distribution component` ({mixture_distribution._num_events}) does not equal "
                f"`component_distribution.batch_shape[-1]` ({of_components[-1]})"
            )
        self._mixture_distribution, self._component_distribution = mixture_distribution, component_distribution
        self._event_ndims = len(component_distribution.event_shape)
        super().__init__(of_components[:-1], component_distribution.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        components = self._component_distribution.expand((*batch_shape, self._mixture_distribution._num_events))
        return type(self)(self._mixture_distribution.expand(batch_shape), components, validate_args=self._validate_args)

    @property
    def mixture_distribution(self) -> Categorical:
        """Of the components."""
        return self._mixture_distribution

    @property
    def component_distribution(self) -> Distribution:
        """The components."""
        return self._component_distribution

    @constraints.dependent_property
    def support(self) -> Any:
        return self._component_distribution.support

    def _weights(self) -> Tensor:
        probs = self._mixture_distribution.probs
        return probs.reshape(probs.shape + (1,) * self._event_ndims)

    @property
    def mean(self) -> Tensor:
        return (self._weights() * self._component_distribution.mean).sum(-1 - self._event_ndims)

    @property
    def variance(self) -> Tensor:
        within = (self._weights() * self._component_distribution.variance).sum(-1 - self._event_ndims)
        off = self._component_distribution.mean - self.mean.unsqueeze(-1 - self._event_ndims)
        return within + (self._weights() * off.pow(2)).sum(-1 - self._event_ndims)

    def cdf(self, value: Tensor) -> Tensor:
        checked(self, value)
        return (self._component_distribution.cdf(value.unsqueeze(-1 - self._event_ndims)) * self._mixture_distribution.probs).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        inside = self._component_distribution.log_prob(value.unsqueeze(-1 - self._event_ndims))
        return torch.logsumexp(inside + torch.log_softmax(self._mixture_distribution.logits, dim=-1), dim=-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            chosen = self._mixture_distribution.expand(self._batch_shape).sample(sample_shape)
            drawn = self._component_distribution.sample(sample_shape)
            dim = len(chosen.shape)
            index = chosen.reshape(chosen.shape + (1,) * (self._event_ndims + 1)).expand((*chosen.shape, 1, *self._event_shape))
            return drawn.gather(dim, index).squeeze(dim)

    def __repr__(self) -> str:
        return f"MixtureSameFamily(\n  {self._mixture_distribution},\n  {self._component_distribution})"
