"""Distributions over classes: an index, a one-hot vector, or counts of several draws."""

from __future__ import annotations

from typing import Any

import disttorch as torch

from ..autograd.grad_mode import no_grad
from ..autograd.variable import Tensor
from ..ops.arithmetic import xlogy
from ..ops.dims import Size
from ..ops.nn.embedding import one_hot
from . import constraints
from .discrete import Binomial, one_of
from .distribution import Distribution, checked, clamp_probs, lazy_property

__all__ = ["Categorical", "Multinomial", "OneHotCategorical", "OneHotCategoricalStraightThrough"]


class Categorical(Distribution):
    """An index with the probability that stands at it; as ``torch.distributions.Categorical``.

    Parameters
    ----------
    probs : Tensor, optional
        (..., classes), not negative, of any sum; or instead
    logits : Tensor, optional
        their logarithms, up to a number.

    Raises
    ------
    ValueError
        If both are given, or neither, or they have no dimension.

    Examples
    --------
    >>> import disttorch as torch
    >>> from disttorch.distributions import Categorical
    >>> policy = Categorical(logits=torch.tensor([[0.0, 1.0], [2.0, 2.0]]))
    >>> action = policy.sample()
    >>> action.shape, policy.log_prob(action).shape
    (disttorch.Size([2]), disttorch.Size([2]))
    >>> policy.entropy()
    tensor([0.5822, 0.6931])
    """

    arg_constraints: Any = {"probs": constraints.simplex, "logits": constraints.real_vector}
    has_enumerate_support = True

    def __init__(self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None):
        one_of(type(self).__name__, probs, logits)
        given = probs if logits is None else logits
        assert given is not None
        if given.dim() < 1:
            raise ValueError(f"`{'probs' if logits is None else 'logits'}` parameter must be at least one-dimensional.")
        if logits is None:
            self.__dict__["probs"] = given / given.sum(-1, keepdim=True)
        else:
            self.__dict__["logits"] = given - given.logsumexp(dim=-1, keepdim=True)
        self._set_shapes(given, validate_args)

    def _set_shapes(self, given: Tensor, validate_args: bool | None) -> None:
        Distribution.__init__(self, given.shape[:-1], validate_args=validate_args)

    @property
    def _given(self) -> Tensor:
        return self.__dict__["probs"] if "probs" in self.__dict__ else self.__dict__["logits"]

    @property
    def param_shape(self) -> Any:
        """The shape of the parameter."""
        return self._given.shape

    @property
    def _num_events(self) -> int:
        return self._given.shape[-1]

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> Any:
        return constraints.integer_interval(0, self._num_events - 1)

    @lazy_property
    def logits(self) -> Tensor:
        """The logarithms of the probabilities."""
        return torch.log(clamp_probs(self.probs))

    @lazy_property
    def probs(self) -> Tensor:
        """The probabilities."""
        return torch.softmax(self.logits, dim=-1)

    @property
    def mean(self) -> Tensor:
        return torch.full(self._batch_shape, float("nan"), dtype=self._given.dtype, device=self._given.device)

    @property
    def mode(self) -> Tensor:
        return self.probs.argmax(dim=-1)

    @property
    def variance(self) -> Tensor:
        return self.mean

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            drawn = draw_indices(self.probs, Size(sample_shape).numel())
            return drawn.reshape(Size(sample_shape) + self._batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        value = value.long().unsqueeze(-1)
        shape = torch.broadcast_shapes(value.shape[:-1], self._batch_shape)
        logits = self.logits.expand(shape + self.logits.shape[-1:])
        return logits.gather(-1, value.expand((*shape, 1))).squeeze(-1)

    def entropy(self) -> Tensor:
        return -(self.logits.clamp(min=torch.finfo(self.logits.dtype).min) * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = torch.arange(self._num_events, device=self._given.device).view((-1,) + (1,) * len(self._batch_shape))
        return values.expand((-1, *self._batch_shape)) if expand else values


def draw_indices(probs: Tensor, count: int) -> Tensor:
    """So many independent indices of each row, of shape (count, rows...)."""
    rows = probs.reshape(-1, probs.shape[-1])
    if not rows.shape[0] or not count:
        return torch.empty((count, *probs.shape[:-1]), dtype=torch.int64, device=probs.device)
    return torch.multinomial(rows, count, True).t().reshape(count, *probs.shape[:-1])


class OneHotCategorical(Categorical):
    """`Categorical` as one-hot vectors; as ``torch.distributions.OneHotCategorical``."""

    support: Any = constraints.one_hot

    def _set_shapes(self, given: Tensor, validate_args: bool | None) -> None:
        Distribution.__init__(self, given.shape[:-1], given.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        return one_hot(self.probs.argmax(-1), self._num_events).to(self._given.dtype)

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return one_hot(super().sample(sample_shape), self._num_events).to(self._given.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        value, logits = torch.broadcast_tensors(value, self.logits)
        return logits.gather(-1, value.argmax(-1, keepdim=True)).squeeze(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        n = self._num_events
        values = torch.eye(n, dtype=self._given.dtype, device=self._given.device).view((n,) + (1,) * len(self._batch_shape) + (n,))
        return values.expand((n, *self._batch_shape, n)) if expand else values


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """`OneHotCategorical` whose gradient is that of its probabilities (Bengio, Léonard and Courville 2013); as PyTorch's."""

    has_rsample = True

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.sample(sample_shape) + (self.probs - self.probs.detach())


class Multinomial(Distribution):
    """How often each class comes up in some draws; as ``torch.distributions.Multinomial``.

    Parameters
    ----------
    total_count : int
    probs, logits : Tensor
        One of them, as for `Categorical`.
    """

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}

    def __init__(
        self, total_count: int = 1, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ):
        if not isinstance(total_count, int):
            raise NotImplementedError("inhomogeneous total_count is not supported")
        self.total_count = total_count
        self._categorical = Categorical(probs=probs, logits=logits, validate_args=False)
        self.__dict__["probs" if logits is None else "logits"] = self._categorical._given
        super().__init__(self._categorical._batch_shape, self._categorical.param_shape[-1:], validate_args=validate_args)

    _carried = ("_categorical",)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> Any:
        return constraints.multinomial(self.total_count)

    @lazy_property
    def probs(self) -> Tensor:
        """The probabilities."""
        return self._categorical.probs

    @lazy_property
    def logits(self) -> Tensor:
        """Their logarithms."""
        return self._categorical.logits

    @property
    def param_shape(self) -> Any:
        """The shape of the parameter."""
        return self._categorical.param_shape

    @property
    def mean(self) -> Tensor:
        return self.probs * self.total_count

    @property
    def variance(self) -> Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        sample_shape = Size(sample_shape)
        with no_grad():
            drawn = draw_indices(self.probs, self.total_count * sample_shape.numel())
            drawn = drawn.reshape((self.total_count, *sample_shape, *self._batch_shape)).movedim(0, -1)
            counts = torch.zeros(self._extended_shape(sample_shape), dtype=self.probs.dtype, device=self.probs.device)
            return counts.scatter_add_(-1, drawn, torch.ones(drawn.shape, dtype=counts.dtype, device=counts.device))

    def log_prob(self, value: Tensor) -> Tensor:
        checked(self, value)
        logits, value = torch.broadcast_tensors(self.logits, value)
        safe = torch.where((value == 0) & torch.isneginf(logits), torch.zeros_like(logits), logits)
        return torch.lgamma(value.sum(-1) + 1) - torch.lgamma(value + 1).sum(-1) + (safe * value).sum(-1)

    def entropy(self) -> Tensor:
        n = torch.as_tensor(self.total_count, dtype=self.probs.dtype, device=self.probs.device)
        count = Binomial(self.total_count, probs=self.probs, validate_args=False)
        values = count.enumerate_support(expand=False)[1:]
        weighted = count.log_prob(values).exp() * torch.lgamma(values + 1)
        return -n * xlogy(self.probs, self.probs).sum(-1) - torch.lgamma(n + 1) + weighted.sum([0, -1])
