"""Losses of numbers: squared, absolute and Huber's differences, divergences; and how losses are reduced."""

from __future__ import annotations

import math
from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from .. import pointwise, reduction
from ..indexing import where
from ..shape import broadcast_tensors
from .arguments import warn

__all__ = [
    "gaussian_nll_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "poisson_nll_loss",
    "reduce_loss",
    "reduction_of",
    "smooth_l1_loss",
]

_smooth_l1 = Operation(
    "smooth_l1_loss",
    lambda xp, x, *, beta: xp.smooth_l1(x, beta),
    x=lambda g, x, beta, xp: xp.smooth_l1_backward(g, x, beta),
)


def reduction_of(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction that is meant, where PyTorch's arguments of old may be given.

    Raises
    ------
    ValueError
        If there is no such reduction.
    """
    if size_average is not None or reduce is not None:
        average, reduced = size_average in (None, True), reduce in (None, True)
        reduction = ("mean" if average else "sum") if reduced else "none"
        warn(f"size_average and reduce args will be deprecated, please use reduction='{reduction}' instead.")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction!r} is not a valid value for reduction; it must be 'none', 'mean' or 'sum'")
    return reduction


def reduce_loss(losses: Tensor, how: str) -> Tensor:
    """The losses themselves, their mean or their sum."""
    if how == "mean":
        return reduction.mean(losses)
    return reduction.sum(losses) if how == "sum" else losses


def _pair(name: str, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Input and target of one shape; with a warning, as a silently broadcast target is a common mistake."""
    for what, t in (("input", input), ("target", target)):
        if not isinstance(t, Tensor):
            raise TypeError(f"{name}(): argument '{what}' must be Tensor, not {type(t).__name__}")
    if input._array.shape != target._array.shape:
        warn(
            f"Using a target size ({list(target.shape)}) that is different to the input size ({list(input.shape)}). This will likely lead "
            "to incorrect results due to broadcasting. Please ensure they have the same size."
        )
        input, target = broadcast_tensors(input, target)
    return input, target


def _weighted(losses: Tensor, weight: Tensor | None, how: str) -> Tensor:
    if weight is None:
        return reduce_loss(losses, how)
    losses = losses * weight
    return reduction.sum(losses) / reduction.sum(weight.expand(losses.shape)) if how == "mean" else reduce_loss(losses, how)


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """(input - target) ** 2; as ``torch.nn.functional.mse_loss``.

    Parameters
    ----------
    input, target : Tensor
        Of one shape.
    reduction : {"mean", "sum", "none"}
    weight : Tensor, optional
        What each loss is multiplied by; a mean is then divided by the sum of the weights.
    """
    input, target = _pair("mse_loss", input, target)
    return _weighted(pointwise.square(pointwise.sub(input, target)), weight, reduction_of(size_average, reduce, reduction))


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """abs(input - target); as ``torch.nn.functional.l1_loss``. Parameters as for `mse_loss`."""
    input, target = _pair("l1_loss", input, target)
    return _weighted(pointwise.abs(pointwise.sub(input, target)), weight, reduction_of(size_average, reduce, reduction))


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """Squared below `beta`, absolute above; as ``torch.nn.functional.smooth_l1_loss``.

    With d the absolute difference: ``d**2 / (2 * beta)`` where ``d < beta``, else ``d - beta / 2``.

    Parameters
    ----------
    input, target : Tensor
        Of one shape.
    reduction : {"mean", "sum", "none"}
    beta : float
        Not negative; 0 stands for `l1_loss`.
    """
    how = reduction_of(size_average, reduce, reduction)
    if beta < 0:
        raise RuntimeError(f"smooth_l1_loss does not support negative values for beta, got {beta}")
    input, target = _pair("smooth_l1_loss", input, target)
    difference = pointwise.sub(input, target)
    return reduce_loss(apply(_smooth_l1, difference, beta=beta) if beta else pointwise.abs(difference), how)


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """`delta` times `smooth_l1_loss` with that beta; as ``torch.nn.functional.huber_loss``.

    Parameters
    ----------
    input, target : Tensor
        Of one shape.
    reduction : {"mean", "sum", "none"}
    delta : float
        Positive.
    weight : Tensor, optional
        As for `mse_loss`.
    """
    how = reduction_of(None, None, reduction)
    if delta <= 0:
        raise RuntimeError(f"huber_loss does not support non-positive values for delta, got {delta}")
    input, target = _pair("huber_loss", input, target)
    return _weighted(apply(_smooth_l1, pointwise.sub(input, target), beta=delta) * delta, weight, how)


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """target * (log(target) - input), the Kullback-Leibler divergence; as ``torch.nn.functional.kl_div``.

    Parameters
    ----------
    input : Tensor
        Logarithms of probabilities.
    target : Tensor
        Probabilities, or their logarithms where `log_target`.
    reduction : {"mean", "batchmean", "sum", "none"}
        ``"batchmean"``, the mathematical divergence, divides the sum by the size of the first dimension.
    log_target : bool
    """
    whole_batch = reduction == "batchmean"
    how = reduction_of(size_average, reduce, "sum" if whole_batch else reduction)
    if log_target:
        losses = pointwise.exp(target) * (target - input)
    else:
        # 0 * log(0) is 0
        some = where(pointwise.eq(target, 0), 1.0, target)
        losses = target * (pointwise.log(some) - input)
    total = reduce_loss(losses, how)
    return total / input.shape[0] if whole_batch and input.ndim else total


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """exp(input) - target * input, the likelihood of Poisson's distribution; as ``torch.nn.functional.poisson_nll_loss``.

    Parameters
    ----------
    input : Tensor
        The logarithm of the expected number, or the number itself where not `log_input`.
    target : Tensor
        The number observed.
    full : bool
        Whether to add Stirling's approximation of log(target!).
    eps : float
        Added to the number before its logarithm is taken.
    reduction : {"mean", "sum", "none"}
    """
    how = reduction_of(size_average, reduce, reduction)
    losses = pointwise.exp(input) - target * input if log_input else input - target * pointwise.log(input + eps)
    if full:
        some = where(target > 1, target, 1.0)
        stirling = some * pointwise.log(some) - some + pointwise.log(some * (2 * math.pi)) * 0.5
        losses = losses + where(target > 1, stirling, 0.0)
    return reduce_loss(losses, how)


def gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Tensor:
    """(log(var) + (input - target) ** 2 / var) / 2; as ``torch.nn.functional.gaussian_nll_loss``.

    Parameters
    ----------
    input, target : Tensor
        The expected and the observed value.
    var : Tensor or float
        The variance, of the input's shape, or with 1 in place of one dimension, or without the last.
    full : bool
        Whether to add log(2 * pi) / 2.
    eps : float
        The least variance; it is a constant for the gradient.
    reduction : {"mean", "sum", "none"}

    Raises
    ------
    ValueError
        If the variance has another shape or is negative.
    """
    how = reduction_of(None, None, reduction)
    if not isinstance(var, Tensor):
        var = (input * 0.0 + var).detach()
    if var.shape != input.shape:
        if input.shape[:-1] == var.shape:
            var = var.unsqueeze(-1)
        elif var.ndim != input.ndim or [v for v, n in zip(var.shape, input.shape) if v != n] != [1]:
            raise ValueError(f"var is of incorrect size: {list(var.shape)} for an input of size {list(input.shape)}")
    if bool((var < 0).any()):
        raise ValueError("var has negative entry/entries")
    # the least variance bounds the value, but the gradient goes on as if it were not there
    var = var + (where(var < eps, eps, var) - var).detach()
    losses = (pointwise.log(var) + pointwise.square(pointwise.sub(input, target)) / var) * 0.5
    if full:
        losses = losses + 0.5 * math.log(2 * math.pi)
    return reduce_loss(losses, how)
