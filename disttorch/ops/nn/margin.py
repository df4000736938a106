"""Losses with a margin: pairs, triplets and classes that shall be so far apart, and no further.

Compositions of operations; only the soft margin has a formula of its own, for the sake of large inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...autograd.variable import Tensor, wrap
from ...backend import namespace
from .. import pointwise, reduction
from ..arithmetic import clamp
from ..indexing import take_along_dim, where
from .activation import SOFTPLUS_IS_LINEAR, logsigmoid, softplus
from .distance import pairwise_distance
from .loss import reduce_loss, reduction_of

__all__ = [
    "cosine_embedding_loss", "hinge_embedding_loss", "margin_ranking_loss", "multi_margin_loss", "multilabel_margin_loss",
    "multilabel_soft_margin_loss", "soft_margin_loss", "triplet_margin_loss", "triplet_margin_with_distance_loss",
]  # fmt: skip

#: Added to squared lengths, as PyTorch does, against dividing by zero.
COSINE_EPSILON = 1e-12


def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, -target * (input1 - input2) + margin); as ``torch.nn.functional.margin_ranking_loss``.

    Parameters
    ----------
    input1, input2 : Tensor
        Scores of the same shape.
    target : Tensor
        1 where the first shall be ranked higher, -1 where the second.
    margin : float
    reduction : {"mean", "sum", "none"}

    Raises
    ------
    RuntimeError
        If the numbers of dimensions differ.
    """
    how = reduction_of(size_average, reduce, reduction)
    if input1.ndim != input2.ndim or input1.ndim != target.ndim:
        raise RuntimeError(
            "margin_ranking_loss : All input tensors should have same dimension but got sizes: "
            f"input1: {list(input1.shape)}, input2: {list(input2.shape)}, target: {list(target.shape)} "
        )
    return reduce_loss(clamp(-target * (input1 - input2) + margin, min=0), how)


def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """x where the target is 1, max(0, margin - x) where it is -1; as ``torch.nn.functional.hinge_embedding_loss``.

    Parameters
    ----------
    input : Tensor
        Distances, for example.
    target : Tensor
        1 for pairs that belong together, -1 for those that do not.
    margin : float
    reduction : {"mean", "sum", "none"}
    """
    how = reduction_of(size_average, reduce, reduction)
    apart = where(pointwise.ne(target, 1), clamp(margin - input, min=0), 0.0)
    together = where(pointwise.ne(target, -1), input, 0.0)
    return reduce_loss(together + apart, how)


def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """1 - cos where the target is 1, max(0, cos - margin) where it is -1; as ``torch.nn.functional.cosine_embedding_loss``.

    Parameters
    ----------
    input1, input2 : Tensor
        (N, D) or (D,); cos is the cosine of the angle between their rows.
    target : Tensor
        (N,) or (): 1 for pairs that belong together, -1 for those that do not.
    margin : float
    reduction : {"mean", "sum", "none"}

    Raises
    ------
    RuntimeError
        If the numbers of dimensions do not fit.
    """
    how = reduction_of(size_average, reduce, reduction)
    sizes = f"{list(input1.shape)} and {list(input2.shape)}"
    if target.ndim not in (0, 1):
        raise RuntimeError(f"0D or 1D target tensor expected, multi-target not supported, but got {list(target.shape)}")
    if input1.ndim != target.ndim + 1 or input2.ndim != target.ndim + 1:
        raise RuntimeError(f"{target.ndim}D target tensor expects {target.ndim + 1}D input tensors, but found inputs with sizes {sizes}.")
    products = [_row_products(a, b) for a, b in ((input1, input2), (input1, input1), (input2, input2))]
    cosine = products[0] / pointwise.sqrt((products[1] + COSINE_EPSILON) * (products[2] + COSINE_EPSILON))
    together = where(pointwise.eq(target, 1), 1 - cosine, 0.0)
    apart = where(pointwise.eq(target, -1), clamp(cosine - margin, min=0), 0.0)
    return reduce_loss(together + apart, how)


def _row_products(a: Tensor, b: Tensor) -> Tensor:
    return reduction.sum(a * b, -1)


def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """log(1 + exp(-target * input)); as ``torch.nn.functional.soft_margin_loss``.

    Parameters
    ----------
    input : Tensor
    target : Tensor
        1 or -1 each.
    reduction : {"mean", "sum", "none"}
    """
    how = reduction_of(size_average, reduce, reduction)
    return reduce_loss(softplus(-target * input, 1.0, SOFTPLUS_IS_LINEAR), how)


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Binary cross entropy of each class's logit, averaged over the classes;
    as ``torch.nn.functional.multilabel_soft_margin_loss``.

    Parameters
    ----------
    input : Tensor
        (..., C)
    target : Tensor
        (..., C), 1 for each class that is there, else 0.
    weight : Tensor, optional
        (C,), how much each class counts.
    reduction : {"mean", "sum", "none"}
    """
    how = reduction_of(size_average, reduce, reduction)
    losses = -(target * logsigmoid(input) + (1 - target) * logsigmoid(-input))
    return reduce_loss(_class_mean(losses if weight is None else losses * weight, input.shape[-1]), how)


def _class_mean(losses: Tensor, classes: int) -> Tensor:
    return reduction.sum(losses, -1) / classes


def _as_rows(name: str, input: Tensor, target: Tensor, target_shape: tuple[int, ...]) -> Tensor:
    """(N, C) of an input (N, C) or (C,), once its target's shape is found right."""
    if input.ndim > 2 or (input.ndim and not input.shape[-1]):
        raise RuntimeError(f"{name}: Expected non-empty vector or matrix with optional 0-dim batch size, but got: {list(input.shape)}")
    if tuple(target.shape) != target_shape and not (target_shape == () and tuple(target.shape) == (1,)):
        raise RuntimeError(f"{name}: inconsistent target size: {list(target.shape)} for input of size: {list(input.shape)}")
    return input if input.ndim == 2 else input.reshape(1, -1)


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The hinge loss of several classes; as ``torch.nn.functional.multi_margin_loss``.

    For a sample with class y: ``sum over i != y of max(0, margin - x[y] + x[i])**p / C``, times the weight of class y.

    Parameters
    ----------
    input : Tensor
        (N, C) or (C,)
    target : Tensor
        Integer, (N,) or ().
    p : {1, 2}
    margin : float
    weight : Tensor, optional
        (C,)
    reduction : {"mean", "sum", "none"}

    Raises
    ------
    ValueError
        For another p, or a weight of another shape.
    IndexError
        If a target is no class.
    """
    how = reduction_of(size_average, reduce, reduction)
    if p not in (1, 2):
        raise ValueError(f"only p == 1 and p == 2 supported, got {p}")
    if weight is not None and weight.ndim != 1:
        raise ValueError(f"weight must be one-dimensional, but has shape {list(weight.shape)}")
    rows = _as_rows("multi_margin_loss", input, target, tuple(input.shape[:-1]))
    classes = rows.shape[1]
    if weight is not None and weight.numel() != classes:
        raise RuntimeError(f"multi_margin_loss: inconsistent weight size, expected {classes} but got {list(weight.shape)}")
    at = target.reshape(-1, 1)
    xp = namespace(at._array)
    if xp.name == "cpu" and at.numel() and (int(xp.min(at._array)) < 0 or int(xp.max(at._array)) >= classes):
        raise RuntimeError(f"multi_margin_loss: target out of range: it must be from 0 to {classes - 1}")
    short = clamp(margin - take_along_dim(rows, at, 1) + rows, min=0)
    if p == 2:
        short = short * short
    if weight is not None:
        short = short * weight[at]
    others = wrap(at._array != xp.arange(classes))
    return reduce_loss(_class_mean(short * others, classes).reshape(target.shape), how)


def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The hinge loss of several classes, more than one of which may be right;
    as ``torch.nn.functional.multilabel_margin_loss``.

    For a sample: ``sum of max(0, 1 - x[y] + x[i]) / C`` over its classes y and all other classes i.

    Parameters
    ----------
    input : Tensor
        (N, C) or (C,)
    target : Tensor
        int64, of the same shape: the classes of a sample, and -1 behind the last of them.
    reduction : {"mean", "sum", "none"}

    Raises
    ------
    RuntimeError
        If the shapes do not fit or a target is no class.
    """
    how = reduction_of(size_average, reduce, reduction)
    rows = _as_rows("multilabel_margin_loss", input, target, tuple(input.shape))
    classes = rows.shape[1]
    at: Any = target._array.reshape(rows.shape)
    xp = namespace(at)
    if xp.name == "cpu" and at.size and (int(xp.min(at)) < -1 or int(xp.max(at)) >= classes):
        raise RuntimeError(f"multilabel_margin_loss: target out of range: it must be from -1 to {classes - 1}")
    counts = xp.cumprod(xp.asarray(at >= 0, dtype=at.dtype), axis=1)  # 1 up to the first -1
    at = at[:, : int(xp.max(xp.sum(counts, axis=1))) if at.size else 0]
    counts = counts[:, : at.shape[1]]
    at = xp.where(counts > 0, at, 0)
    is_target = xp.scatter_add(counts, at, rows.shape, 1) > 0
    right = take_along_dim(rows, wrap(at), 1)
    short = clamp(1 - right.unsqueeze(2) + rows.unsqueeze(1), min=0)  # (N, right classes, C)
    counted = wrap(xp.logical_and(counts[:, :, None] > 0, xp.logical_not(is_target)[:, None, :]))
    losses = _pair_sum(short * counted) / classes
    return reduce_loss(losses if input.ndim == 2 else losses.squeeze(0), how)


def _pair_sum(pairs: Tensor) -> Tensor:
    """The sum over both dimensions behind the first."""
    return reduction.sum(pairs, (1, 2))


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin) with `pairwise_distance` d;
    as ``torch.nn.functional.triplet_margin_loss``.

    Parameters
    ----------
    anchor, positive, negative : Tensor
        (N, D) or (D,)
    margin : float
        Positive.
    p, eps : float
        As for `pairwise_distance`.
    swap : bool
        Whether the smaller of d(anchor, negative) and d(positive, negative) is taken (Balntas et al., "Learning shallow
        convolutional feature descriptors with triplet losses", 2016).
    reduction : {"mean", "sum", "none"}

    Raises
    ------
    ValueError
        If the margin is not positive.
    RuntimeError
        If the numbers of dimensions differ.
    """
    how = reduction_of(size_average, reduce, reduction)
    return _triplets("triplet_margin_loss", (anchor, positive, negative), lambda a, b: pairwise_distance(a, b, p, eps), margin, swap, how)


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """`triplet_margin_loss` with any distance; as ``torch.nn.functional.triplet_margin_with_distance_loss``.

    Parameters
    ----------
    anchor, positive, negative : Tensor
    distance_function : callable, optional
        `pairwise_distance` unless given.
    margin : float
        Positive.
    swap : bool
    reduction : {"mean", "sum", "none"}
    """
    how = reduction_of(None, None, reduction)
    distance = pairwise_distance if distance_function is None else distance_function
    return _triplets("triplet_margin_with_distance_loss", (anchor, positive, negative), distance, margin, swap, how)


def _triplets(
    name: str, triplet: tuple[Tensor, Tensor, Tensor], distance: Callable[..., Tensor], margin: float, swap: bool, how: str
) -> Tensor:
    anchor, positive, negative = triplet
    if margin <= 0:
        raise ValueError(f"{name}: margin must be greater than 0, got {margin}")
    if anchor.ndim != positive.ndim or anchor.ndim != negative.ndim:
        raise RuntimeError(
            f"{name}: the anchor, positive, and negative tensors are expected to have the same number of dimensions, but got: "
            f"anchor {anchor.ndim}D, positive {positive.ndim}D, and negative {negative.ndim}D inputs"
        )
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = pointwise.minimum(far, distance(positive, negative))
    return reduce_loss(clamp(near - far + margin, min=0), how)
