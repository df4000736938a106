"""The Kullback-Leibler divergence of pairs of distributions, a formula for each pair."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import disttorch as torch

from ..autograd.variable import Tensor
from ..ops.arithmetic import xlogy
from .categorical import Categorical, OneHotCategorical
from .discrete import Bernoulli, Binomial, Geometric, Poisson, softplus
from .distribution import Distribution
from .gamma import Beta, Dirichlet, Exponential, Gamma, InverseGamma
from .independent import Independent, sum_rightmost
from .location_scale import Cauchy, Gumbel, HalfCauchy, Laplace, Uniform
from .multivariate_normal import MultivariateNormal, half_log_det, squared_distance
from .normal import HalfNormal, LogNormal, Normal
from .transformed import TransformedDistribution

__all__ = ["kl_divergence", "register_kl"]

_FORMULAS: dict[tuple[type, type], Callable[[Any, Any], Tensor]] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[Callable[[Any, Any], Tensor]], Callable[[Any, Any], Tensor]]:
    """Decorates the formula for a pair of classes and their subclasses; as ``torch.distributions.register_kl``.

    Raises
    ------
    TypeError
        If one is no `Distribution`.
    """
    for t in (type_p, type_q):
        if not (isinstance(t, type) and issubclass(t, Distribution)):
            raise TypeError(f"Expected a Distribution subclass but got {t}")

    def register(function: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
        _FORMULAS[type_p, type_q] = function
        return function

    return register


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """KL(p || q), of the shape of the batch; as ``torch.distributions.kl_divergence``.

    Raises
    ------
    NotImplementedError
        If no formula is known for the pair; `register_kl` makes one known.

    Examples
    --------
    >>> import disttorch as torch
    >>> from disttorch.distributions import Normal, kl_divergence
    >>> kl_divergence(Normal(torch.tensor([0.0, 1.0]), 1.0), Normal(0.0, 1.0))
    tensor([0.0000, 0.5000])
    """
    for cls_p in type(p).__mro__:
        for cls_q in type(q).__mro__:
            if (cls_p, cls_q) in _FORMULAS:
                return _FORMULAS[cls_p, cls_q](p, q)
    raise NotImplementedError(f"No KL(p || q) is implemented for p type {type(p).__name__} and q type {type(q).__name__}")


def _log_beta(*parts: Tensor) -> Tensor:
    return torch.lgamma(torch.stack(parts, 0)).sum(0) - torch.lgamma(torch.stack(parts, 0).sum(0))


def _infinite(like: Tensor) -> Tensor:
    return torch.full_like(like, math.inf)


@register_kl(Normal, Normal)
def _normal(p: Any, q: Any) -> Tensor:
    ratio = (p.scale / q.scale).pow(2)
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale).pow(2) - 1 - ratio.log())


@register_kl(LogNormal, LogNormal)
@register_kl(HalfNormal, HalfNormal)
@register_kl(HalfCauchy, HalfCauchy)
@register_kl(InverseGamma, InverseGamma)
def _of_bases(p: Any, q: Any) -> Tensor:
    return kl_divergence(p.base_dist, q.base_dist)


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate_normal(p: Any, q: Any) -> Tensor:
    if p.event_shape != q.event_shape:
        raise ValueError(
            f"KL-divergence between two Multivariate Normals with different event shapes cannot be computed: {tuple(p.event_shape)}, "
            f"{tuple(q.event_shape)}"
        )
    a, b = p._unbroadcasted_scale_tril, q._unbroadcasted_scale_tril
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    solved = torch.linalg.solve_triangular(b.expand(batch + b.shape[-2:]), a.expand(batch + a.shape[-2:]), upper=False)
    trace, distance = solved.pow(2).sum((-2, -1)), squared_distance(b, q.loc - p.loc)
    return half_log_det(b) - half_log_det(a) + 0.5 * (trace + distance - p.event_shape[0])


@register_kl(Categorical, Categorical)
def _categorical(p: Any, q: Any) -> Tensor:
    terms = p.probs * (p.logits - q.logits)
    terms = torch.where((q.probs == 0).expand_as(terms), _infinite(terms), terms)
    return torch.where((p.probs == 0).expand_as(terms), torch.zeros_like(terms), terms).sum(-1)


register_kl(OneHotCategorical, OneHotCategorical)(_categorical)


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Any, q: Any) -> Tensor:
    return p.probs * (p.logits - q.logits) + softplus(q.logits) - softplus(p.logits)


@register_kl(Binomial, Binomial)
def _binomial(p: Any, q: Any) -> Tensor:
    if bool((p.total_count < q.total_count).any()):
        raise NotImplementedError("KL between Binomials where q.total_count > p.total_count is not implemented")
    terms = p.total_count * _bernoulli(p, q)
    return torch.where(p.total_count > q.total_count, _infinite(terms), terms)


@register_kl(Geometric, Geometric)
def _geometric(p: Any, q: Any) -> Tensor:
    return -p.entropy() - torch.log1p(-q.probs) / p.probs - q.logits


@register_kl(Poisson, Poisson)
def _poisson(p: Any, q: Any) -> Tensor:
    return xlogy(p.rate, p.rate) - xlogy(p.rate, q.rate) - p.rate + q.rate


@register_kl(Exponential, Exponential)
def _exponential(p: Any, q: Any) -> Tensor:
    ratio = q.rate / p.rate
    return ratio - 1 - ratio.log()


@register_kl(Gamma, Gamma)
def _gamma(p: Any, q: Any) -> Tensor:
    a, b = p.concentration, q.concentration
    return (
        b * (p.rate / q.rate).log() + torch.lgamma(b) - torch.lgamma(a) + (a - b) * torch.digamma(a) + (q.rate - p.rate) * (a / p.rate)
    )


@register_kl(Exponential, Gamma)
def _exponential_gamma(p: Any, q: Any) -> Tensor:
    return _gamma(Gamma(torch.ones_like(p.rate), p.rate, validate_args=False), q)


@register_kl(Gamma, Exponential)
def _gamma_exponential(p: Any, q: Any) -> Tensor:
    return _gamma(p, Gamma(torch.ones_like(q.rate), q.rate, validate_args=False))


@register_kl(Beta, Beta)
def _beta(p: Any, q: Any) -> Tensor:
    a1, a0, b1, b0 = p.concentration1, p.concentration0, q.concentration1, q.concentration0
    moved = (a1 - b1) * torch.digamma(a1) + (a0 - b0) * torch.digamma(a0) + (b1 + b0 - a1 - a0) * torch.digamma(a1 + a0)
    return _log_beta(b1, b0) - _log_beta(a1, a0) + moved


@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p: Any, q: Any) -> Tensor:
    a, b = p.concentration, q.concentration
    total = a.sum(-1)
    norm = torch.lgamma(total) - torch.lgamma(b.sum(-1)) - (torch.lgamma(a) - torch.lgamma(b)).sum(-1)
    return norm + ((a - b) * (torch.digamma(a) - torch.digamma(total).unsqueeze(-1))).sum(-1)


@register_kl(Laplace, Laplace)
def _laplace(p: Any, q: Any) -> Tensor:
    off, ratio = (p.loc - q.loc).abs(), p.scale / q.scale
    return -ratio.log() + off / q.scale + ratio * torch.exp(-off / p.scale) - 1


@register_kl(Cauchy, Cauchy)
def _cauchy(p: Any, q: Any) -> Tensor:
    return ((p.scale + q.scale).pow(2) + (p.loc - q.loc).pow(2)).log() - (4 * p.scale * q.scale).log()


@register_kl(Gumbel, Gumbel)
def _gumbel(p: Any, q: Any) -> Tensor:
    ratio, off = p.scale / q.scale, (p.loc - q.loc) / q.scale
    return -ratio.log() + off + torch.exp(-off + torch.lgamma(1 + ratio)) + (ratio - 1) * 0.57721566490153286061 - 1


@register_kl(Uniform, Uniform)
def _uniform(p: Any, q: Any) -> Tensor:
    inside = torch.log((q.high - q.low) / (p.high - p.low))
    return torch.where((q.low > p.low) | (q.high < p.high), _infinite(inside), inside)


@register_kl(Uniform, Normal)
def _uniform_normal(p: Any, q: Any) -> Tensor:
    width = p.high - p.low
    middle = (p.high + p.low) / 2
    spread = (width.pow(2) / 12 + (middle - q.loc).pow(2)) / (2 * q.scale.pow(2))
    return spread + torch.log(q.scale * math.sqrt(2 * math.pi) / width)


@register_kl(Laplace, Normal)
def _laplace_normal(p: Any, q: Any) -> Tensor:
    spread = (p.scale / q.scale).pow(2) + 0.5 * ((p.loc - q.loc) / q.scale).pow(2)
    return spread + 0.5 * math.log(2 * math.pi) + q.scale.log() - 1 - torch.log(2 * p.scale)


@register_kl(Independent, Independent)
def _independent(p: Any, q: Any) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError(
            f"KL of Independent with {p.reinterpreted_batch_ndims} and {q.reinterpreted_batch_ndims} reinterpreted dimensions"
        )
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p: Any, q: Any) -> Tensor:
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise NotImplementedError("KL of distributions with different transforms")
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), len(p.event_shape) - len(p.base_dist.event_shape))
