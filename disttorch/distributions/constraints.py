"""Where parameters and values may lie; as ``torch.distributions.constraints``.

Each constraint checks tensors: ``constraint.check(value)`` is a bool tensor, without the last ``event_dim`` dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import disttorch as torch

from ..autograd.variable import Tensor

__all__ = [
    "Constraint", "boolean", "cat", "corr_cholesky", "dependent", "dependent_property", "greater_than", "greater_than_eq",
    "half_open_interval", "independent", "integer_interval", "interval", "is_dependent", "less_than", "lower_cholesky",
    "lower_triangular", "multinomial", "nonnegative", "nonnegative_integer", "one_hot", "positive", "positive_definite",
    "positive_integer", "positive_semidefinite", "real", "real_vector", "simplex", "square", "stack", "symmetric", "unit_interval",
]  # fmt: skip


class Constraint:
    """A region in which a variable lies."""

    is_discrete = False
    #: how many of the last dimensions make one value
    event_dim = 0

    def check(self, value: Tensor) -> Tensor:
        """Whether each value satisfies it."""
        raise NotImplementedError(f"{type(self).__name__} has no check")

    def __repr__(self) -> str:
        return type(self).__name__.lstrip("_") + "()"


# --- that depend on the distribution ----------------------------------------------------------------------------------


class _Dependent(Constraint):
    """A region that is known only when the variables it depends on are."""

    def __init__(self, *, is_discrete: bool = False, event_dim: int = 0):
        self.is_discrete, self.event_dim = is_discrete, event_dim

    def __call__(self, *, is_discrete: bool | None = None, event_dim: int | None = None) -> _Dependent:
        return _Dependent(
            is_discrete=self.is_discrete if is_discrete is None else is_discrete,
            event_dim=self.event_dim if event_dim is None else event_dim,
        )

    def check(self, value: Tensor) -> Tensor:
        """Cannot be told."""
        raise ValueError("Cannot determine validity of dependent constraint")


class dependent_property(property, _Dependent):
    """A property that is a constraint of the object, and a dependent one of the class; as PyTorch's."""

    def __init__(self, fn: Callable[[Any], Any] | None = None, *, is_discrete: bool = False, event_dim: int = 0):
        property.__init__(self, fn)
        _Dependent.__init__(self, is_discrete=is_discrete, event_dim=event_dim)

    def __call__(self, fn: Any = None, **_: Any) -> Any:
        """As a decorator with arguments."""
        return dependent_property(fn, is_discrete=self.is_discrete, event_dim=self.event_dim)


def is_dependent(constraint: Any) -> bool:
    """Whether a constraint is only known of an object."""
    if isinstance(constraint, _Independent):
        return is_dependent(constraint.base_constraint)
    return isinstance(constraint, _Dependent)


# --- of single elements -----------------------------------------------------------------------------------------------


class _Bounded(Constraint):
    """Constraints with bounds, which their repr shows."""

    names: tuple[str, ...] = ()

    def __init__(self, *bounds: Any):
        if len(bounds) != len(self.names):
            raise TypeError(f"{type(self).__name__.lstrip('_')}: expected {', '.join(self.names)}, got {bounds}")
        self.__dict__.update(zip(self.names, bounds))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={self.__dict__[name]}" for name in self.names)
        return f"{type(self).__name__.lstrip('_')}({shown})"


def _bounded(name: str, names: str, check: Callable[..., Any], doc: str, discrete: bool = False) -> Any:
    def checks(self: Any, value: Tensor) -> Tensor:
        return check(value, *(self.__dict__[n] for n in self.names))

    body = {"names": tuple(names.split()), "check": checks, "is_discrete": discrete, "__doc__": doc, "__module__": __name__}
    return type(name, (_Bounded,), body)


greater_than = _bounded("GreaterThan", "lower_bound", lambda v, low: low < v, "Above a bound.")
greater_than_eq = _bounded("GreaterThanEq", "lower_bound", lambda v, low: low <= v, "At or above a bound.")
less_than = _bounded("LessThan", "upper_bound", lambda v, high: v < high, "Below a bound.")
interval = _bounded("Interval", "lower_bound upper_bound", lambda v, low, high: (low <= v) & (v <= high), "Between two bounds.")
half_open_interval = _bounded(
    "HalfOpenInterval", "lower_bound upper_bound", lambda v, low, high: (low <= v) & (v < high), "Between bounds, the upper excluded."
)
integer_interval = _bounded(
    "IntegerInterval",
    "lower_bound upper_bound",
    lambda v, low, high: (v % 1 == 0) & (low <= v) & (v <= high),
    "Integers between two bounds, both included.",
    discrete=True,
)
_integer_from = _bounded(
    "IntegerGreaterThan", "lower_bound", lambda v, low: (v % 1 == 0) & (v >= low), "Integers from a bound on.", discrete=True
)


class _Real(Constraint):
    def check(self, value: Tensor) -> Tensor:
        return value == value  # not NaN


class _Boolean(Constraint):
    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        return (value == 0) | (value == 1)


# --- of vectors -------------------------------------------------------------------------------------------------------


class _OneHot(Constraint):
    is_discrete, event_dim = True, 1

    def check(self, value: Tensor) -> Tensor:
        return ((value == 0) | (value == 1)).all(-1) & value.sum(-1).eq(1)


class _Simplex(Constraint):
    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return torch.all(value >= 0, dim=-1) & ((value.sum(-1) - 1).abs() < 1e-6)


class _Multinomial(Constraint):
    is_discrete, event_dim = True, 1

    def __init__(self, upper_bound: Any):
        self.upper_bound = upper_bound

    def check(self, value: Tensor) -> Tensor:
        return (value >= 0).all(dim=-1) & (value.sum(dim=-1) <= self.upper_bound)


# --- of matrices ------------------------------------------------------------------------------------------------------


class _LowerTriangular(Constraint):
    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        return (value.tril() == value).flatten(-2).all(-1)


class _LowerCholesky(_LowerTriangular):
    def check(self, value: Tensor) -> Tensor:
        return super().check(value) & (value.diagonal(dim1=-2, dim2=-1) > 0).all(-1)


class _CorrCholesky(_LowerCholesky):
    def check(self, value: Tensor) -> Tensor:
        tolerance = torch.finfo(value.dtype).eps * value.size(-1) * 10
        unit = ((torch.linalg.norm(value, dim=-1) - 1).abs() <= tolerance).all(-1)
        return super().check(value) & unit


class _Square(Constraint):
    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        return torch.full(value.shape[:-2], value.shape[-2] == value.shape[-1], dtype=torch.bool, device=value.device)


class _Symmetric(_Square):
    def check(self, value: Tensor) -> Tensor:
        square = super().check(value)
        return square if value.shape[-2] != value.shape[-1] else torch.isclose(value, value.mT, atol=1e-6).all(-2).all(-1)


class _PositiveSemidefinite(_Symmetric):
    def check(self, value: Tensor) -> Tensor:
        symmetric = super().check(value)
        return torch.linalg.eigvalsh(value).ge(0).all(-1) if bool(symmetric.all()) else symmetric


class _PositiveDefinite(_Symmetric):
    def check(self, value: Tensor) -> Tensor:
        symmetric = super().check(value)
        return torch.linalg.cholesky_ex(value).info.eq(0) if bool(symmetric.all()) else symmetric


# --- of other constraints ---------------------------------------------------------------------------------------------


class _Independent(Constraint):
    """A constraint on each of the last dimensions' values, all of which must satisfy it."""

    def __init__(self, base_constraint: Constraint, reinterpreted_batch_ndims: int):
        self.base_constraint, self.reinterpreted_batch_ndims = base_constraint, reinterpreted_batch_ndims

    @property
    def is_discrete(self) -> bool:  # type: ignore[override]
        return self.base_constraint.is_discrete

    @property
    def event_dim(self) -> int:  # type: ignore[override]
        return self.base_constraint.event_dim + self.reinterpreted_batch_ndims

    def check(self, value: Tensor) -> Tensor:
        result = self.base_constraint.check(value)
        if result.dim() < self.reinterpreted_batch_ndims:
            raise ValueError(f"Expected value.dim() >= {self.event_dim} but got {value.dim()}")
        return result.flatten(result.dim() - self.reinterpreted_batch_ndims).all(-1) if self.reinterpreted_batch_ndims else result

    def __repr__(self) -> str:
        return f"Independent({self.base_constraint!r}, {self.reinterpreted_batch_ndims})"


class _Joined(Constraint):
    """Several constraints on parts of one tensor."""

    def __init__(self, cseq: Sequence[Constraint], dim: int, lengths: Sequence[int], stacked: bool):
        self.cseq, self.dim, self.lengths, self.stacked = list(cseq), dim, list(lengths), stacked
        self.is_discrete = any(c.is_discrete for c in self.cseq)
        self.event_dim = max(c.event_dim for c in self.cseq) + (1 if stacked and dim < 0 else 0)

    def check(self, value: Tensor) -> Tensor:
        if self.stacked:
            return torch.stack([c.check(v) for c, v in zip(self.cseq, value.unbind(self.dim))], self.dim)
        return torch.cat([c.check(v) for c, v in zip(self.cseq, value.split(self.lengths, self.dim))], self.dim)


def cat(cseq: Sequence[Constraint], dim: int = 0, lengths: Sequence[int] | None = None) -> Constraint:
    """Constraints on parts of given lengths along a dimension; as PyTorch's."""
    return _Joined(cseq, dim, [1] * len(cseq) if lengths is None else lengths, stacked=False)


def stack(cseq: Sequence[Constraint], dim: int = 0) -> Constraint:
    """One constraint on each element along a dimension; as PyTorch's."""
    return _Joined(cseq, dim, [1] * len(cseq), stacked=True)


dependent = _Dependent()
independent, multinomial = _Independent, _Multinomial
real, boolean, one_hot, simplex = _Real(), _Boolean(), _OneHot(), _Simplex()
real_vector = independent(real, 1)
positive, nonnegative = greater_than(0.0), greater_than_eq(0.0)
positive_integer, nonnegative_integer = _integer_from(1), _integer_from(0)
unit_interval = interval(0.0, 1.0)
lower_triangular, lower_cholesky, corr_cholesky = _LowerTriangular(), _LowerCholesky(), _CorrCholesky()
square, symmetric = _Square(), _Symmetric()
positive_semidefinite, positive_definite = _PositiveSemidefinite(), _PositiveDefinite()
