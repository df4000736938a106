"""The loss of connectionist temporal classification: labels without saying when."""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor, wrap
from ...backend import dtypes as dt
from ...backend import namespace
from .. import pointwise
from .arguments import check_floating
from .loss import reduce_loss, reduction_of

__all__ = ["ctc_loss"]

_ctc = Operation(
    "ctc_loss",
    lambda xp, log_probs, targets, input_lengths, target_lengths, *, blank, zero_infinity: _forward(
        xp, log_probs, targets, input_lengths, target_lengths, blank, zero_infinity
    ),
    extras=("losses", "alpha"),
    recompute=lambda xp, log_probs, targets, input_lengths, target_lengths, *, blank, zero_infinity: xp.ctc_loss(
        log_probs, targets, input_lengths, target_lengths, blank
    ),
    log_probs=lambda g, log_probs, targets, input_lengths, target_lengths, losses, alpha, blank, zero_infinity, xp: (
        xp.ctc_loss_backward(g, log_probs, targets, input_lengths, target_lengths, losses, alpha, blank, zero_infinity)
    ),
)


def _forward(xp: Any, log_probs: Any, targets: Any, inputs: Any, labels: Any, blank: int, zero_infinity: bool) -> tuple:
    losses, alpha = xp.ctc_loss(log_probs, targets, inputs, labels, blank)
    return (xp.where(xp.isinf(losses), xp.zeros_like(losses), losses) if zero_infinity else xp.array(losses)), losses, alpha


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Minus the logarithm of the probability of a label sequence over all alignments; as ``torch.nn.functional.ctc_loss``.

    Parameters
    ----------
    log_probs : Tensor
        (T, N, C) or (T, C), float32 or float64: logarithms of probabilities, as log_softmax gives them. The gradient is,
        as in PyTorch, that at the input of the log_softmax.
    targets : Tensor
        Integer: (N, S), rows of labels; or (sum of the lengths,), all labels one sample behind the other.
    input_lengths, target_lengths : Tensor or sequence of int
        (N,) or (): how much of each sample's input and target counts.
    blank : int
        The class that stands for no label.
    reduction : {"mean", "sum", "none"}
        The mean is one over the batch of the losses divided by the target's length.
    zero_infinity : bool
        Whether the loss of a target that does not fit into its input is 0, and its gradient too, instead of infinite.

    Returns
    -------
    Tensor
        Without dimensions; for ``"none"`` (N,) or ().

    Raises
    ------
    RuntimeError
        If shapes, lengths or labels do not fit.

    Examples
    --------
    >>> import disttorch
    >>> log_probs = disttorch.zeros(5, 1, 4).log_softmax(2)
    >>> disttorch.nn.functional.ctc_loss(log_probs, disttorch.tensor([[1, 2]]), [5], [2], reduction="none")
    tensor([3.3761])
    """
    how = reduction_of(None, None, reduction)
    check_floating("ctc_loss", log_probs)
    if log_probs.ndim not in (2, 3):
        raise RuntimeError(f"ctc_loss: log_probs must be (T, N, C) or (T, C), but has shape {list(log_probs.shape)}")
    if log_probs.dtype.itemsize < 4:
        raise NotImplementedError(f"ctc_loss is not implemented for {log_probs.dtype}")
    if targets._array.dtype not in dt.INTEGRAL or targets._array.dtype == dt.bool_.numpy:
        raise RuntimeError(f"ctc_loss: targets must be integers, but are {targets.dtype}")
    alone = log_probs.ndim == 2
    steps, classes = log_probs.shape[0], log_probs.shape[-1]
    count = 1 if alone else log_probs.shape[1]
    if not 0 <= blank < classes:
        raise RuntimeError(f"ctc_loss: blank must be in label range, from 0 to {classes - 1}, but is {blank}")
    inputs = _lengths("input_lengths", input_lengths, log_probs, count)
    labels = _lengths("target_lengths", target_lengths, log_probs, count)
    xp = namespace(log_probs._array)
    if xp.name == "cpu" and count and (int(xp.max(inputs)) > steps or int(xp.min(inputs)) < 0):
        raise RuntimeError(f"ctc_loss: Expected input_lengths to be from 0 to {steps}, but got {inputs.tolist()}")
    rows = _rows(xp, targets._array, labels, count, alone, classes, blank)
    x = log_probs.unsqueeze(1) if alone else log_probs
    losses = apply(_ctc, x, wrap(rows), wrap(inputs), wrap(labels), blank=blank, zero_infinity=zero_infinity)
    if how == "mean":
        losses = pointwise.div(losses, wrap(xp.asarray(xp.maximum(labels, 1), dtype=losses._array.dtype)))
    return reduce_loss(losses.squeeze(0) if alone else losses, how)


def _lengths(name: str, lengths: Any, log_probs: Tensor, count: int) -> Any:
    """One length for each sample, an int64 array on the device of `log_probs`."""
    xp = namespace(log_probs._array)
    a = lengths._array if isinstance(lengths, Tensor) else xp.asarray(lengths)
    if namespace(a) is not xp:
        a = namespace(a).move(a, log_probs.device)
    if a.size and a.dtype not in dt.INTEGRAL:
        raise RuntimeError(f"ctc_loss: {name} must be integers, but are {a.dtype}")
    if a.size != count or a.ndim > 1:
        raise RuntimeError(f"ctc_loss: {name} must be of size batch_size, {count}, but have shape {list(a.shape)}")
    return a.reshape(count).astype(dt.int64.numpy)


def _rows(xp: Any, targets: Any, lengths: Any, count: int, alone: bool, classes: int, blank: int) -> Any:
    """The labels as (N, S), int64, where what is behind a sample's length is the blank."""
    longest = int(xp.max(lengths)) if count else 0
    places = xp.arange(longest)
    if count and int(xp.min(lengths)) < 0:
        raise RuntimeError(f"ctc_loss: Expected target_lengths to have value at least 0, but got {lengths.tolist()}")
    if targets.ndim == 1 and not alone:
        if int(xp.sum(lengths)) > targets.shape[0]:
            raise RuntimeError(f"ctc_loss: target_lengths sum up to {int(xp.sum(lengths))}, but there are {targets.shape[0]} targets")
        starts = xp.cumsum(lengths, axis=0) - lengths
        at = xp.minimum(starts[:, None] + places, max(targets.shape[0] - 1, 0))
        rows = targets[at] if targets.size else xp.zeros((count, longest), dt.int64.numpy)
    else:
        rows = targets.reshape(1, -1) if alone else targets
        if rows.ndim != 2 or rows.shape[0] != count or rows.shape[1] < longest:
            raise RuntimeError(
                f"ctc_loss: Expected targets of shape ({count}, at least {longest}) or one-dimensional, but got {list(targets.shape)}"
            )
        rows = rows[:, :longest]
    rows = xp.where(places < lengths[:, None], rows, blank).astype(dt.int64.numpy)
    if xp.name == "cpu" and rows.size and (int(xp.min(rows)) < 0 or int(xp.max(rows)) >= classes):
        raise RuntimeError(f"ctc_loss: targets must be from 0 to {classes - 1}, but reach from {int(xp.min(rows))} to {int(xp.max(rows))}")
    return rows
