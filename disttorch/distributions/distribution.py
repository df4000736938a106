"""The base class of all distributions: shapes, checks, and what follows from a few methods."""

from __future__ import annotations

import functools
from collections.abc import Callable
from numbers import Number
from typing import Any

import disttorch as torch

from ..autograd.grad_mode import enable_grad, no_grad
from ..autograd.variable import Tensor
from ..ops.dims import Size
from .constraints import is_dependent

__all__ = ["Distribution", "ExponentialFamily", "broadcast_all", "lazy_property"]


class Distribution:
    """A probability distribution, or a batch of them; as ``torch.distributions.Distribution``.

    A subclass sets its parameters as attributes and then calls this constructor. ``arg_constraints`` names the parameters and says
    what each must satisfy; `expand`, ``repr`` and the checks go by it.

    Parameters
    ----------
    batch_shape : Size
        Of how many independent distributions these are.
    event_shape : Size
        Of one draw from one of them.
    validate_args : bool, optional
        Whether parameters and values are checked; `set_default_validate_args` says what holds where it is not given.

    Raises
    ------
    ValueError
        If a parameter does not satisfy its constraint.
    """

    has_rsample = False
    has_enumerate_support = False
    _validate_args = __debug__
    #: parameter: its constraint
    arg_constraints: Any = {}
    #: where draws lie
    support: Any = None

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether distributions check parameters and values unless they are told.

        Raises
        ------
        ValueError
            If it is neither True nor False.
        """
        if value not in (True, False):
            raise ValueError(f"set_default_validate_args: expected True or False, got {value!r}")
        Distribution._validate_args = value

    def __init__(self, batch_shape: Any = (), event_shape: Any = (), validate_args: bool | None = None):
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if not self._validate_args:
            return
        for name, constraint in self.arg_constraints.items():
            if is_dependent(constraint) or name not in self.__dict__:  # computed from another when asked for
                continue
            value = self.__dict__[name]
            if isinstance(value, Tensor) and not bool(constraint.check(value).all()):
                raise ValueError(
                    f"Expected parameter {name} ({type(value).__name__} of shape {tuple(value.shape)}) of distribution {self!r} to "
                    f"satisfy the constraint {constraint!r}, but found invalid values:\n{value}"
                )

    @property
    def batch_shape(self) -> Size:
        """Of how many independent distributions these are."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """Of one draw from one of them."""
        return self._event_shape

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distributions, repeated to a larger batch without copies."""
        batch_shape = Size(batch_shape)
        new = self._get_checked_instance(Distribution, _instance)
        rank = len(self.batch_shape)
        for name, value in self.__dict__.items():
            if name in self.arg_constraints or name in self._carried:
                value = value.expand(batch_shape + tuple(value.shape[rank:])) if isinstance(value, Tensor) else value.expand(batch_shape)
            elif isinstance(getattr(type(self), name, None), functools.cached_property):
                continue
            new.__dict__[name] = value
        new._batch_shape = batch_shape
        return new

    #: other tensors and distributions that have the batch's shape in front
    _carried: tuple[str, ...] = ()

    def _get_checked_instance(self, cls: type, _instance: Any = None) -> Any:
        """An empty object of the same class, for `expand`."""
        return type(self).__new__(type(self)) if _instance is None else _instance

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of shape ``sample_shape + batch_shape + event_shape``, without gradients."""
        with no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws through which gradients reach the parameters, where ``has_rsample``."""
        raise NotImplementedError(f"{type(self).__name__} has no rsample: its draws do not follow its parameters smoothly")

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density, or of the probability of a discrete value."""
        raise NotImplementedError(f"{type(self).__name__} has no log_prob")

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of at most that value."""
        raise NotImplementedError(f"{type(self).__name__} has no cdf")

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile of a probability."""
        raise NotImplementedError(f"{type(self).__name__} has no icdf")

    def entropy(self) -> Tensor:
        """In nats, of shape ``batch_shape``."""
        raise NotImplementedError(f"{type(self).__name__} has no entropy")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values along a new first dimension, where ``has_enumerate_support``; the batch's dimensions have size 1 unless expanded."""
        raise NotImplementedError(f"{type(self).__name__} has no enumerate_support")

    @property
    def mean(self) -> Tensor:
        """The expectation."""
        raise NotImplementedError(f"{type(self).__name__} has no mean")

    @property
    def mode(self) -> Tensor:
        """The most probable value."""
        raise NotImplementedError(f"{type(self).__name__} has no mode")

    @property
    def variance(self) -> Tensor:
        """Of each element of a draw."""
        raise NotImplementedError(f"{type(self).__name__} has no variance")

    @property
    def stddev(self) -> Tensor:
        """The root of the variance."""
        return self.variance.sqrt()

    def perplexity(self) -> Tensor:
        """The exponential of the entropy."""
        return torch.exp(self.entropy())

    def _extended_shape(self, sample_shape: Any = ()) -> Size:
        """The shape of what `sample` returns."""
        return Size(sample_shape) + self._batch_shape + self._event_shape

    def _validate_sample(self, value: Any) -> None:
        """Refuse a value that is no draw of this distribution.

        Raises
        ------
        ValueError
            If it is no tensor, or its shape or its elements do not fit.
        """
        if not isinstance(value, Tensor):
            raise ValueError("The value argument to log_prob must be a Tensor")
        rank = len(self._event_shape)
        if tuple(value.shape[value.ndim - rank :]) != tuple(self._event_shape):
            raise ValueError(
                f"The right-most size of value must match event_shape: {tuple(value.shape)} vs {tuple(self._event_shape)}."
            )
        expected = tuple(self._batch_shape + self._event_shape)
        for i, j in zip(reversed(value.shape), reversed(expected)):
            if i != 1 and j != 1 and i != j:
                raise ValueError(f"Value is not broadcastable with batch_shape+event_shape: {tuple(value.shape)} vs {expected}.")
        support = self.support
        if support is None or is_dependent(support):
            return
        if not bool(support.check(value).all()):
            raise ValueError(
                f"Expected value argument ({type(value).__name__} of shape {tuple(value.shape)}) to be within the support ({support!r}) "
                f"of the distribution {self!r}, but found invalid values:\n{value}"
            )

    def __repr__(self) -> str:
        names = [name for name in self.arg_constraints if name in self.__dict__]
        parts = [f"{n}: {v if not isinstance(v, Tensor) or v.numel() == 1 else v.size()}" for n in names for v in [self.__dict__[n]]]
        return f"{type(self).__name__}({', '.join(parts)})"


class ExponentialFamily(Distribution):
    """Distributions of an exponential family; as ``torch.distributions.ExponentialFamily``."""


def broadcast_all(*values: Any) -> tuple[Tensor, ...]:
    """Numbers and tensors as tensors of one shape; numbers take the dtype and device of the tensors beside them.

    Raises
    ------
    ValueError
        If a value is neither.
    """
    if not all(isinstance(v, (Tensor, Number)) for v in values):
        raise ValueError(f"Input arguments must all be numbers or tensors, got {', '.join(type(v).__name__ for v in values)}")
    like = next((v for v in values if isinstance(v, Tensor)), None)
    if like is None:
        options: dict[str, Any] = {"dtype": torch.get_default_dtype()}
    else:
        options = {"dtype": like.dtype if like.is_floating_point() else torch.get_default_dtype(), "device": like.device}
    tensors = [v if isinstance(v, Tensor) else torch.as_tensor(v, **options) for v in values]
    return tuple(torch.broadcast_tensors(*tensors))


def lazy_property(function: Callable[[Any], Any]) -> Any:
    """A property that is computed when first asked for and kept; its gradient is recorded even if that is under ``no_grad``."""

    @functools.wraps(function)
    def compute(self: Any) -> Any:
        with enable_grad():
            return function(self)

    return functools.cached_property(compute)


def checked(distribution: Distribution, value: Any) -> None:
    """Check a value if the distribution is one that checks."""
    if distribution._validate_args:
        distribution._validate_sample(value)


def noise_like(parameter: Tensor) -> dict[str, Any]:
    """The dtype and device in which to draw."""
    return {"dtype": parameter.dtype, "device": parameter.device}


def tiny(t: Tensor) -> float:
    """The least normal number of a tensor's dtype."""
    return torch.finfo(t.dtype).tiny


def clamp_probs(probs: Tensor) -> Tensor:
    """Probabilities whose logarithms, and those of their complements, are finite."""
    eps = torch.finfo(probs.dtype).eps
    return probs.clamp(min=eps, max=1 - eps)
