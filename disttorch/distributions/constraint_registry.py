"""From all numbers to where a constraint is satisfied; as ``torch.distributions.biject_to`` and ``transform_to``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import constraints, transforms
from .constraints import Constraint

__all__ = ["ConstraintRegistry", "biject_to", "transform_to"]


class ConstraintRegistry:
    """Transforms by what they lead to; calling it with a constraint gives one."""

    def __init__(self) -> None:
        self._registry: dict[type, Callable[[Any], transforms.Transform]] = {}

    def register(self, constraint: Any, factory: Any = None) -> Any:
        """Say the transform for a constraint, or a class of constraints; also a decorator."""
        if factory is None:
            return lambda factory: self.register(constraint, factory)
        cls = type(constraint) if isinstance(constraint, Constraint) else constraint
        if not (isinstance(cls, type) and issubclass(cls, Constraint)):
            raise TypeError(f"Expected constraint to be either a Constraint subclass or instance, but got {constraint}")
        self._registry[cls] = factory
        return factory

    def __call__(self, constraint: Constraint) -> transforms.Transform:
        """The transform for a constraint.

        Raises
        ------
        NotImplementedError
            If none is known.
        """
        for cls in type(constraint).__mro__:
            if cls in self._registry:
                return self._registry[cls](constraint)
        raise NotImplementedError(f"Cannot transform {type(constraint).__name__} constraints")


#: one to one, so that densities can be carried over; and the same with more freedom, for optimization
biject_to, transform_to = ConstraintRegistry(), ConstraintRegistry()


def _interval(c: Any) -> transforms.Transform:
    if (c.lower_bound, c.upper_bound) == (0, 1):
        return transforms.SigmoidTransform()
    width = c.upper_bound - c.lower_bound
    return transforms.ComposeTransform([transforms.SigmoidTransform(), transforms.AffineTransform(c.lower_bound, width)])


def _above(c: Any) -> transforms.Transform:
    if isinstance(c.lower_bound, (int, float)) and c.lower_bound == 0:
        return transforms.ExpTransform()
    return transforms.ComposeTransform([transforms.ExpTransform(), transforms.AffineTransform(c.lower_bound, 1)])


for _registry in (biject_to, transform_to):
    _registry.register(constraints.real, lambda c: transforms.identity_transform)
    for _cls in (constraints.greater_than, constraints.greater_than_eq):
        _registry.register(_cls, _above)
    _registry.register(
        constraints.less_than,
        lambda c: transforms.ComposeTransform([transforms.ExpTransform(), transforms.AffineTransform(c.upper_bound, -1)]),
    )
    for _cls in (constraints.interval, constraints.half_open_interval):
        _registry.register(_cls, _interval)
    _registry.register(constraints.corr_cholesky, lambda c: transforms.CorrCholeskyTransform())
    _registry.register(constraints.lower_cholesky, lambda c: transforms.LowerCholeskyTransform())
    for _one in (constraints.positive_definite, constraints.positive_semidefinite):
        _registry.register(_one, lambda c: transforms.PositiveDefiniteTransform())
biject_to.register(constraints.simplex, lambda c: transforms.StickBreakingTransform())
transform_to.register(constraints.simplex, lambda c: transforms.SoftmaxTransform())


def _independently(registry: ConstraintRegistry) -> Callable[[Any], transforms.Transform]:
    def of(c: Any) -> transforms.Transform:
        base = registry(c.base_constraint)
        return transforms.IndependentTransform(base, c.reinterpreted_batch_ndims)

    return of


for _registry in (biject_to, transform_to):
    _registry.register(constraints.independent, _independently(_registry))
