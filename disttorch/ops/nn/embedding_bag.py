"""Sums, means and maxima of bags of a table's rows."""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor, wrap
from ...backend import dtypes as dt
from ...backend import namespace
from .. import pointwise, reduction
from ..indexing import take_along_dim
from .embedding import check_rows, embedding, renormalize

__all__ = ["embedding_bag"]

# where each row goes: the derivative of looking rows up, and its own derivative's derivative
_gather_sum = Operation(
    "segment_sum",
    lambda xp, x, *, at, count: xp.add_rows(x, at, count),
    x=lambda g, at: g[at],
)


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """The sum, mean or maximum of each bag of a table's rows; as ``torch.nn.functional.embedding_bag``.

    Parameters
    ----------
    input : Tensor
        Integer: (B, N), a bag a row; or (M,), all bags one behind the other.
    weight : Tensor
        (rows, features)
    offsets : Tensor, optional
        (B,), where each bag starts in an input (M,). A bag may be empty, and its result is 0.
    max_norm, norm_type : float, optional
        As for `embedding`.
    scale_grad_by_freq : bool
        Whether a row's gradient is divided by how often it was looked up. Not for ``"max"``.
    mode : {"sum", "mean", "max"}
    sparse : bool
        Accepted as in PyTorch; the gradient is dense all the same. Not for ``"max"``.
    per_sample_weights : Tensor, optional
        Of the input's shape: what each looked-up row is multiplied by. For ``"sum"`` only.
    include_last_offset : bool
        Whether `offsets` has one more entry, the end of the last bag.
    padding_idx : int, optional
        A row that is left out of its bags, and gets no gradient.

    Returns
    -------
    Tensor
        (B, features)

    Raises
    ------
    ValueError
        If shapes or the mode do not fit.
    NotImplementedError
        For per_sample_weights in another mode than ``"sum"``.
    IndexError
        If there is no such row.

    Examples
    --------
    >>> import disttorch
    >>> table = disttorch.tensor([[0.0, 0.0], [1.0, 10.0], [2.0, 20.0]])
    >>> bags = disttorch.tensor([2, 1, 2]), table, disttorch.tensor([0, 1])
    >>> disttorch.nn.functional.embedding_bag(*bags, mode="sum")
    tensor([[ 2., 20.],
            [ 3., 30.]])
    """
    if per_sample_weights is not None and per_sample_weights.shape != input.shape:
        raise ValueError(
            f"embedding_bag: If per_sample_weights ({list(per_sample_weights.shape)}) is not None, then it must have the same shape as "
            f"the input ({list(input.shape)})"
        )
    _check_mode(mode, scale_grad_by_freq, sparse, per_sample_weights)
    at = input._array
    xp = namespace(at)
    if input.ndim == 2:
        if offsets is not None:
            raise ValueError("if input is 2D, then offsets has to be None, as input is treated is a mini-batch of fixed length sequences.")
        count, length = input.shape
        starts = xp.arange(count) * length
        ends = starts + length
    elif input.ndim == 1:
        starts, ends = _bounds(input, offsets, include_last_offset)
        count = len(starts)
    else:
        raise ValueError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.ndim}")
    padding_idx = check_rows("embedding_bag", input, weight, padding_idx)
    if max_norm is not None:
        renormalize(weight, at, max_norm, norm_type)
    flat = input.reshape(-1)
    at = flat._array
    # behind the last end there may be indices that belong to no bag
    bag = xp.searchsorted(ends, xp.arange(at.size), side="right")
    kept = bag < count if padding_idx is None else xp.logical_and(bag < count, at != padding_idx)
    rows = embedding(flat, weight, padding_idx, None, 2.0, scale_grad_by_freq)
    if mode == "max":
        return _maxima(xp, rows, xp.minimum(bag, max(count - 1, 0)), kept, starts, count)
    factors: Tensor | None = None
    if per_sample_weights is not None:
        factors = per_sample_weights.reshape(-1)
    bag = xp.where(kept, bag, count)
    if mode == "mean":
        members = xp.bincount(bag, minlength=count + 1)[:count]
        share = 1.0 / xp.maximum(members, 1)
        factors = wrap(xp.asarray(share[xp.minimum(bag, max(count - 1, 0))] if count else bag, dtype=rows._array.dtype))
    if factors is not None:
        rows = pointwise.mul(rows, factors.unsqueeze(1))
    # what is left out is added up in one bag more
    return apply(_gather_sum, rows, at=bag, count=count + 1)[:count]


def _check_mode(mode: str, scale_grad_by_freq: bool, sparse: bool, per_sample_weights: Tensor | None) -> None:
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"mode has to be one of sum, mean or max, not {mode!r}")
    if mode == "max" and scale_grad_by_freq:
        raise ValueError("max mode does not support scaling the gradient by the frequency")
    if mode == "max" and sparse:
        raise ValueError("max mode does not support sparse weights")
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError(
            "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported for mode='sum' "
            f"(got mode='{mode}')."
        )


def _bounds(input: Tensor, offsets: Tensor | None, include_last_offset: bool) -> tuple[Any, Any]:
    """Where each bag starts and ends, two arrays."""
    if offsets is None:
        raise ValueError("offsets has to be a 1D Tensor but got None")
    if offsets.ndim != 1:
        raise ValueError(f"offsets has to be a 1D Tensor, but has shape {list(offsets.shape)}")
    a = offsets._array
    if a.dtype not in (dt.int64.numpy, dt.int32.numpy):
        raise RuntimeError(f"embedding_bag: expected offsets of dtype int64 or int32, but got {offsets.dtype}")
    xp = namespace(a)
    if include_last_offset and not a.size:
        raise RuntimeError("embedding_bag: include_last_offset: number of offset should be at least 1")
    if a.size and int(a[0]) != 0:
        raise RuntimeError(
            "offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start from position 0. "
            f"However, got {int(a[0])}"
        )
    if a.size and int(a[-1]) > input.numel():
        raise RuntimeError(f"offsets[-1] can not be greater than input's length({input.numel()}), but got offsets[-1] of {int(a[-1])}")
    a = a.astype(dt.int64.numpy)
    if include_last_offset:
        return a[:-1], a[1:]
    end = xp.asarray([input.numel()][: min(1, a.size)], dtype=dt.int64.numpy)
    return a, xp.concatenate((a[1:], end))


def _maxima(xp: Any, rows: Tensor, bag: Any, kept: Any, starts: Any, count: int) -> Tensor:
    """The largest of each bag for each feature, the first where several are; 0 for an empty bag."""
    values: Any = rows._array
    width = values.shape[1]
    if not values.shape[0] or not count or not bool(xp.any(kept)):
        return rows.new_zeros((count, width)) + reduction.sum(rows) * 0
    place = xp.arange(values.shape[0]) - starts[bag]
    longest = int(xp.max(xp.where(kept, place, 0))) + 1
    # where in `rows` the i-th member of a bag stands; bags are padded with what cannot be the largest
    members = xp.zeros((count, longest), dt.int64.numpy)
    there = xp.zeros((count, longest), dt.bool_.numpy)
    members[bag[kept], place[kept]] = xp.arange(values.shape[0])[kept]
    there[bag[kept], place[kept]] = True
    candidates = xp.where(there[:, :, None], values[members], xp.scalar(-float("inf"), values.dtype))
    winner = xp.take_along_axis(members, xp.argmax(candidates, axis=1), axis=1)
    found = take_along_dim(rows, wrap(winner), 0)
    filled = xp.asarray(xp.any(there, axis=1), dtype=values.dtype)[:, None]
    return found * wrap(filled)
