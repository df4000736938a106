"""Losses of classes: cross entropy, negative log likelihood, and their twins for two classes.

Class indices and probabilities may have any number of dimensions behind the classes, (N, C, ...); what is computed is
a matrix (samples, classes).
"""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from ...backend import dtypes as dt
from ...backend import namespace
from .. import pointwise, reduction
from ..shape import expand
from .activation import SOFTPLUS_IS_LINEAR, softplus
from .arguments import check_floating
from .loss import reduce_loss, reduction_of
from .softmax import log_softmax

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "check_bounds", "check_indices", "counted", "cross_entropy", "nll_loss",
]  # fmt: skip

_cross_entropy = Operation(
    "cross_entropy_loss",
    lambda xp, logits, target, weight, *, ignore_index, label_smoothing: xp.class_losses(
        logits, target, weight, ignore_index, label_smoothing
    ),
    extras=("kept",),
    recompute=lambda xp, logits, target, weight, **_: (xp.log_softmax(logits, 1),),
    logits=lambda g, logits, kept, target, weight, ignore_index, label_smoothing, xp: xp.class_losses_backward(
        g, logits, kept, target, weight, ignore_index, label_smoothing
    ),
)


def counted(xp: Any, target: Any, weight: Any, ignore_index: int, dtype: Any) -> tuple[Any, Any]:
    """For each sample the class to look at, and what its loss counts: its class's weight, 0 where it is ignored."""
    ignored = target == ignore_index
    at = xp.where(ignored, 0, target)
    factor = xp.astype(~ignored, dtype) if weight is None else xp.where(ignored, xp.scalar(0, weight.dtype), weight[at])
    return at, factor


def _nll_forward(xp: Any, x: Any, target: Any, weight: Any, *, ignore_index: int) -> tuple:
    at, factor = counted(xp, target, weight, ignore_index, x.dtype)
    picked = xp.take_along_axis(x, at[:, None], axis=1)[:, 0]
    # an infinite loss that does not count must not make 0 * inf
    return xp.where(factor == 0, xp.zeros_like(picked), -picked * factor), at[:, None], factor[:, None]


_nll = Operation(
    "nll_loss",
    _nll_forward,
    extras=("at", "factor"),
    x=lambda g, at, factor, x_shape, xp: xp.scatter_add(-(g[:, None] * factor), at, x_shape, 1),
)
_mean_of_counted = Operation(
    "mean_of_counted",
    lambda xp, x, *, counts: xp.sum(x) / counts,
    x=lambda g, x_shape, counts, xp: xp.broadcast_to(g / counts, x_shape),
)
_bce_with_logits = Operation(
    "binary_cross_entropy_with_logits",
    lambda xp, x, target: xp.bce_with_logits(x, target),
    x=lambda g, x, target, xp: xp.bce_with_logits_backward(g, x, target),
    target=lambda g, x: -g * x,
)
_bce = Operation(
    "binary_cross_entropy",
    # logarithms are bounded by -100, so that a certain and wrong answer has a finite loss
    lambda xp, x, target: (target - xp.scalar(1, x.dtype)) * xp.maximum(xp.log1p(-x), xp.scalar(-100, x.dtype))
    - target * xp.maximum(xp.log(x), xp.scalar(-100, x.dtype)),
    x=lambda g, x, target, xp: g * (x - target) / xp.maximum((1 - x) * x, xp.scalar(1e-12, x.dtype)),
    target=lambda g, x, xp: g * (xp.log1p(-x) - xp.log(x)),
)


def _as_matrix(x: Tensor) -> Tensor:
    """(N, C, ...) as (samples, C)."""
    if x._array.ndim == 2:
        return x
    if x._array.ndim == 1:
        return x.reshape(1, -1)
    return x.movedim(1, -1).reshape(-1, x._array.shape[1])


def check_indices(name: str, shape: tuple[int, ...], target: Tensor, weight: Tensor | None) -> None:
    """Refuse class indices, or a weight, that do not fit an input of a shape (N, C, ...) or (C,)."""
    if not shape:
        raise RuntimeError(f"{name}: expected an input (N, C, ...) or (C,), but got shape []")
    have = target._array.shape
    if len(shape) > 1 and have and have[0] != shape[0]:
        raise ValueError(
            f"{name}: Expected input batch_size ({shape[0]}) to match target batch_size ({have[0]}): expected a target of shape "
            f"{[shape[0], *shape[2:]]} for an input of shape {list(shape)}, but got {list(have)}"
        )
    if target._array.dtype not in dt.INTEGRAL or target._array.dtype == dt.bool_.numpy:
        raise RuntimeError(
            f"{name}: expected a target of integer class indices, or of probabilities in the input's shape {list(shape)}, but got "
            f"{target.dtype} of shape {list(target.shape)}"
        )
    classes = shape[0] if len(shape) == 1 else shape[1]
    expected = () if len(shape) == 1 else (shape[0], *shape[2:])
    if have != expected:
        raise RuntimeError(
            f"{name}: Expected target size {list(expected)} for an input of shape {list(shape)}, got {list(target.shape)}"
        )
    _check_weight(name, weight, classes)


def check_bounds(name: str, shape: tuple[int, ...], target: Any, ignore_index: int) -> None:
    """Refuse an index that is no class. On a GPU to look would mean to wait."""
    xp = namespace(target)
    classes = shape[0] if len(shape) == 1 else shape[1]
    if xp.name == "cpu" and target.size and (int(xp.min(target)) < 0 or int(xp.max(target)) >= classes):
        wrong = target[((target < 0) | (target >= classes)) & (target != ignore_index)]
        if wrong.size:
            raise IndexError(
                f"{name}: Target {int(wrong[0])} is out of bounds: input of shape {list(shape)} has {classes} classes "
                f"(and ignore_index is {ignore_index})"
            )


def _check_weight(name: str, weight: Tensor | None, classes: int) -> None:
    if weight is not None and weight._array.shape != (classes,):
        raise RuntimeError(
            f"{name}: weight tensor should be defined either for all {classes} classes or no classes but got weight tensor of shape: "
            f"{list(weight.shape)}"
        )


def _check_weight_dtype(name: str, input: Tensor, weight: Tensor | None) -> None:
    if weight is not None and weight._array.dtype != input._array.dtype:
        raise RuntimeError(f"{name}: expected scalar type {input.dtype} for the weight but found {weight.dtype}")


def _reduce(losses: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, how: str) -> Tensor:
    """Losses (samples,) of class indices: a mean is one by the weights of the classes, without what is ignored."""
    if how == "none":
        return losses.reshape(target._array.shape)
    if how == "sum":
        return reduction.sum(losses)
    xp = namespace(losses._array)
    if weight is None:
        counts = xp.sum(target._array != ignore_index)
    else:
        counts = xp.sum(counted(xp, target._array, weight._array, ignore_index, losses._array.dtype)[1])
    return apply(_mean_of_counted, losses, counts=xp.asarray(counts, dtype=losses._array.dtype))


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The negative log likelihood -input[target]; as ``torch.nn.functional.nll_loss``.

    Parameters
    ----------
    input : Tensor
        (N, C, ...) or (C,), logarithms of probabilities.
    target : Tensor
        Integer, (N, ...) or (), class indices from 0 to C - 1.
    weight : Tensor, optional
        (C,), how much each class counts.
    ignore_index : int
        A target that does not count.
    reduction : {"mean", "sum", "none"}

    Raises
    ------
    IndexError
        If a target is no class.
    """
    how = reduction_of(size_average, reduce, reduction)
    check_floating("nll_loss", input)
    check_indices("nll_loss", input._array.shape, target, weight)
    _check_weight_dtype("nll_loss", input, weight)
    check_bounds("nll_loss", input._array.shape, target._array, ignore_index)
    losses = apply(_nll, _as_matrix(input), target.reshape(-1), weight, ignore_index=ignore_index)
    return _reduce(losses, target, weight, ignore_index, how)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The cross entropy of softmax(input) with a target; as ``torch.nn.functional.cross_entropy``.

    Parameters
    ----------
    input : Tensor
        (N, C, ...) or (C,), logits.
    target : Tensor
        Integer, (N, ...) or (): class indices from 0 to C - 1. Or floating point, of the input's shape: probabilities.
    weight : Tensor, optional
        (C,), how much each class counts.
    ignore_index : int
        A class index that does not count.
    reduction : {"mean", "sum", "none"}
        The mean of class indices is one by the weights.
    label_smoothing : float
        From 0 to 1, how much of the target is spread over all classes alike.

    Raises
    ------
    RuntimeError, ValueError
        If shapes or the smoothing do not fit.
    IndexError
        If a target is no class.

    Examples
    --------
    >>> import disttorch
    >>> logits = disttorch.tensor([[2.0, 0.0], [0.0, 2.0]])
    >>> disttorch.nn.functional.cross_entropy(logits, disttorch.tensor([0, 0]))
    tensor(1.1269)
    """
    how = reduction_of(size_average, reduce, reduction)
    check_floating("cross_entropy", input)
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    if input._array.shape == target._array.shape and input._array.ndim:
        if target._array.dtype not in dt.FLOATING:
            raise RuntimeError(f"cross_entropy: Expected floating point type for target with class probabilities, got {target.dtype}")
        if ignore_index >= 0:
            raise RuntimeError(f"cross_entropy: ignore_index is not supported for floating point target, got {ignore_index}")
        return _with_probabilities(input, target, weight, how, label_smoothing)
    check_indices("cross_entropy", input._array.shape, target, weight)
    _check_weight_dtype("cross_entropy", input, weight)
    losses = apply(
        _cross_entropy, _as_matrix(input), target.reshape(-1), weight, ignore_index=ignore_index, label_smoothing=label_smoothing
    )
    return _reduce(losses, target, weight, ignore_index, how)


def _with_probabilities(input: Tensor, target: Tensor, weight: Tensor | None, how: str, label_smoothing: float) -> Tensor:
    if input._array.dtype.itemsize < 4:  # rounded once, at the end
        x, t = input.to(dtype=dt.float32), target.to(dtype=dt.float32)
        w = None if weight is None else weight.to(dtype=dt.float32)
        return _with_probabilities(x, t, w, how, label_smoothing).to(dtype=input.dtype)
    dim = 0 if input._array.ndim == 1 else 1
    classes = input._array.shape[dim]
    _check_weight("cross_entropy", weight, classes)
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / classes
    if weight is not None:
        target = target * weight.reshape(-1, *(1,) * (input._array.ndim - dim - 1))
    losses = -reduction.sum(log_softmax(input, dim) * target, dim)
    return reduce_loss(losses, how)


def _check_same_shape(name: str, input: Tensor, target: Tensor) -> None:
    check_floating(name, input)
    if input._array.shape != target._array.shape:
        raise ValueError(
            f"{name}: target size ({list(target._array.shape)}) must be the same as input size ({list(input._array.shape)})"
        )


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-(t * log(x) + (1 - t) * log(1 - x)); as ``torch.nn.functional.binary_cross_entropy``.

    Parameters
    ----------
    input : Tensor
        Probabilities. Their logarithms are not taken to be below -100.
    target : Tensor
        Of the input's shape, from 0 to 1.
    weight : Tensor, optional
        What each loss is multiplied by; broadcast.
    reduction : {"mean", "sum", "none"}

    Raises
    ------
    ValueError
        If the shapes differ.
    RuntimeError
        If the input has something else than probabilities.
    """
    how = reduction_of(size_average, reduce, reduction)
    _check_same_shape("binary_cross_entropy", input, target)
    xp = namespace(input._array)
    if xp.name == "cpu" and input._array.size and not (float(xp.min(input._array)) >= 0 and float(xp.max(input._array)) <= 1):
        raise RuntimeError(
            "binary_cross_entropy: all elements of input should be between 0 and 1, but they reach from "
            f"{float(xp.min(input._array))} to {float(xp.max(input._array))}; for logits see binary_cross_entropy_with_logits"
        )
    losses = apply(_bce, input, target.to(dtype=input.dtype))
    return reduce_loss(losses if weight is None else losses * expand(weight, input._array.shape), how)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """`binary_cross_entropy` of sigmoid(input), without overflow; as ``torch.nn.functional.binary_cross_entropy_with_logits``.

    Parameters
    ----------
    input : Tensor
        Logits.
    target : Tensor
        Of the input's shape, from 0 to 1.
    weight : Tensor, optional
        What each loss is multiplied by; broadcast.
    reduction : {"mean", "sum", "none"}
    pos_weight : Tensor, optional
        What the first term, that of the positive class, is multiplied by; broadcast.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    how = reduction_of(size_average, reduce, reduction)
    _check_same_shape("binary_cross_entropy_with_logits", input, target)
    target = target.to(dtype=input.dtype)
    if pos_weight is None:
        losses = apply(_bce_with_logits, input, target)
    else:
        # -log(sigmoid(x)) is softplus(-x), -log(1 - sigmoid(x)) is x + softplus(-x)
        positive = pointwise.mul(pos_weight - 1, target) + 1
        losses = pointwise.sub(1, target) * input + positive * softplus(-input, 1.0, SOFTPLUS_IS_LINEAR)
    return reduce_loss(losses if weight is None else losses * weight, how)
