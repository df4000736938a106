"""Functions that look at values, or mix what is the same for all samples with what differs, under `func.vmap`.

Most operations take the hidden dimension of samples along without knowing of it (backend/batched). These do not, where a value
decides what they do: there, all tensors are first put among those that hide samples, and if that does not do, the samples are
taken one by one and the results stacked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from types import FunctionType, ModuleType
from typing import Any

from ..autograd.batching import batch_tensor, lift_tensor, unbatch_tensor
from ..autograd.variable import Tensor, wrap
from ..backend.batched import BatchedArray, RandomnessError, levels
from .shape.joining import stack

__all__ = ["install", "over_samples"]

NAMES = frozenset(
    """
    as_strided as_strided_copy as_strided_scatter bincount bucketize corrcoef cov diagonal_scatter embedding_bag gather
    gaussian_nll_loss grid_sample grid_sampler_2d grid_sampler_3d histc histogram histogramdd index_add index_copy index_fill
    index_put index_reduce index_select isclose isin linspace logspace lstsq masked_scatter multi_margin_loss
    multilabel_margin_loss nanquantile narrow pinv put quantile repeat_interleave scaled_dot_product_attention scatter
    scatter_add scatter_reduce searchsorted select_scatter slice_scatter take take_along_dim unfold unfold_copy
    """.split()
)


def install(modules: Iterable[ModuleType]) -> None:
    """Let these functions know of samples, wherever one of the modules holds them."""
    made: dict[int, tuple[Any, Any]] = {}
    for module in modules:
        for name, value in list(vars(module).items()):
            if name in NAMES and isinstance(value, FunctionType) and not hasattr(value, "over_samples"):
                if id(value) not in made:
                    made[id(value)] = value, over_samples(value)
                setattr(module, name, made[id(value)][1])


def over_samples(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which under vmap does what it does sample by sample, one way or the other."""

    @functools.wraps(function)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        if not levels.get() or (not _hides(args) and not _hides(kwargs.values())):
            return function(*args, **kwargs)
        try:
            return function(*_each(lift_tensor, args), **_each(lift_tensor, kwargs))
        except RandomnessError:
            raise
        except Exception:
            # it looked at a value that every sample has its own of; a mistake of the caller's is raised again by the first sample
            return _one_by_one(mapped, args, kwargs)

    mapped.over_samples = True  # type: ignore[attr-defined]
    return mapped


def _hides(values: Iterable[Any]) -> bool:
    """Whether a tensor among values, or in sequences of them, hides samples."""
    for v in values:
        if isinstance(v, Tensor):
            if isinstance(v._array, BatchedArray):
                return True
        elif isinstance(v, (tuple, list)) and _hides(v):
            return True
    return False


def _each(function: Callable[[Tensor], Any], values: Any) -> Any:
    """The same nesting with the function of each tensor."""
    if isinstance(values, Tensor):
        return function(values)
    if isinstance(values, (tuple, list)):
        return type(values)(_each(function, v) for v in values) if type(values) in (tuple, list) else values
    if isinstance(values, dict):
        return {name: _each(function, v) for name, v in values.items()}
    return values


def _one_by_one(function: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    found: list[tuple[int, int]] = []

    def note(t: Tensor) -> Tensor:
        if isinstance(t._array, BatchedArray) and t._array.level:
            found.append((t._array.level, t._array.value.shape[0]))
        return t

    _each(note, (args, kwargs))
    if not found:
        return function(*_each(_plain, args), **_each(_plain, kwargs))
    level, size = max(found)

    def apart(t: Tensor) -> Any:
        hides = isinstance(t._array, BatchedArray) and t._array.level == level
        # what asks for a gradient gets one of each sample
        return list(unbatch_tensor(t, 0, level, size)) if hides or t._node is not None else [t] * size

    samples: dict[int, Any] = {}

    def sample(k: int) -> Callable[[Tensor], Tensor]:
        def take(t: Tensor) -> Tensor:
            if id(t) not in samples:
                samples[id(t)] = apart(t)
            return samples[id(t)][k]

        return take

    outer = levels.set(tuple(n for n in levels.get() if n.number != level))
    try:
        results = [function(*_each(sample(k), args), **_each(sample(k), kwargs)) for k in range(size)]
    finally:
        levels.reset(outer)
    return _together(results, level)


def _plain(t: Tensor) -> Tensor:
    if isinstance(t._array, BatchedArray):  # the same for all samples
        return wrap(t._array.value, t._node)
    return t


def _together(results: list[Any], level: int) -> Any:
    first = results[0]
    if isinstance(first, Tensor):
        return batch_tensor(stack(results), 0, level)
    if isinstance(first, (tuple, list)):
        parts = [_together([r[i] for r in results], level) for i in range(len(first))]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    return first
