"""Rows of a table by their number: embeddings, and one-hot vectors."""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor, bump_version, wrap
from ...backend import dtypes as dt
from ...backend import namespace
from ...backend.batched import BatchedArray
from ...backend.dtypes import DTYPES

__all__ = ["check_rows", "embedding", "one_hot", "renormalize", "row_factors"]


def _embedding_rule(g: Any, indices: Any, weight_shape: Any, padding_idx: int | None, scale_grad_by_freq: bool, xp: Any) -> Any:
    at = getattr(indices, "_array", indices)
    width = weight_shape[1]
    g = xp.reshape(g, (at.size, width))
    at = at.reshape(-1)
    factors = row_factors(at, weight_shape[0], padding_idx, scale_grad_by_freq)
    if factors is not None:
        g = g * xp.asarray(factors if xp.ndarray is not Tensor else wrap(factors), dtype=g.dtype)[:, None]
    return xp.add_rows(g, at, weight_shape[0])


def row_factors(at: Any, rows: int, padding_idx: int | None, scale_grad_by_freq: bool) -> Any:
    """What the gradient of each looked-up row is multiplied by, an array; None for 1."""
    if padding_idx is None and not scale_grad_by_freq:
        return None
    xp = namespace(at)
    factors = xp.ones(at.shape, dt.float64.numpy)
    if scale_grad_by_freq:
        factors = factors / xp.bincount(at, minlength=rows)[at]
    return factors if padding_idx is None else xp.where(at == padding_idx, 0.0, factors)


_embedding = Operation(
    "embedding",
    lambda xp, weight, indices, *, padding_idx, scale_grad_by_freq: weight[indices],
    weight=_embedding_rule,
)


def check_rows(name: str, input: Any, weight: Tensor, padding_idx: int | None) -> int | None:
    """Refuse indices that are no rows; returns `padding_idx` counted from the start."""
    if not isinstance(input, Tensor) or input._array.dtype not in (dt.int64.numpy, dt.int32.numpy):
        got = DTYPES[input._array.dtype] if isinstance(input, Tensor) else type(input).__name__
        raise RuntimeError(f"{name}: expected tensor for argument 'input' to have dtype int64 or int32, but got {got}")
    if weight._array.ndim != 2:
        raise RuntimeError(f"{name}: 'weight' must be 2-D, but has shape {list(weight._array.shape)}")
    rows = weight._array.shape[0]
    if padding_idx is not None:
        if not -rows <= padding_idx < rows:
            raise RuntimeError(f"{name}: padding_idx {padding_idx} must be within the {rows} rows of weight")
        padding_idx %= rows
    a = input._array
    xp = namespace(a)
    # as an unsigned number a negative one is larger than any row
    if xp.name == "cpu" and a.size and a.view("uint64" if a.itemsize == 8 else "uint32").max() >= rows:
        low, high = int(xp.min(a)), int(xp.max(a))
        raise IndexError(f"{name}: index {low if low < 0 else high} is out of range: weight is {list(weight.shape)}")
    return padding_idx


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of a table by their number; as ``torch.nn.functional.embedding``.

    Parameters
    ----------
    input : Tensor
        Integer, of any shape.
    weight : Tensor
        (rows, features)
    padding_idx : int, optional
        A row that gets no gradient; may count from the end.
    max_norm : float, optional
        The largest norm a row may have: those that are looked up and larger are scaled down, in place.
    norm_type : float
        Which norm that is.
    scale_grad_by_freq : bool
        Whether a row's gradient is divided by how often it was looked up.
    sparse : bool
        Accepted as in PyTorch; the gradient is dense all the same.

    Returns
    -------
    Tensor
        (*input.shape, features)

    Raises
    ------
    IndexError
        If there is no such row.

    Examples
    --------
    >>> import disttorch
    >>> table = disttorch.tensor([[0.0, 0.0], [1.0, 10.0], [2.0, 20.0]])
    >>> disttorch.nn.functional.embedding(disttorch.tensor([2, 1, 2]), table)
    tensor([[ 2., 20.],
            [ 1., 10.],
            [ 2., 20.]])
    """
    padding_idx = check_rows("embedding", input, weight, padding_idx)
    if max_norm is not None:
        renormalize(weight, input._array, max_norm, norm_type)
    return apply(_embedding, weight, input, padding_idx=padding_idx, scale_grad_by_freq=scale_grad_by_freq)


def renormalize(weight: Tensor, at: Any, max_norm: float, norm_type: float) -> None:
    """Scale down, in place, those of a table's rows that are looked up and have a larger norm."""
    at = at.reshape(-1) if isinstance(at, BatchedArray) else namespace(at).unique(at)  # samples look up different rows
    table = weight._array[at]
    xp = namespace(table)
    size = xp.abs(table)
    if norm_type == float("inf"):
        norms = xp.max(size, axis=1, keepdims=True)
    else:
        norms = xp.sum(size**norm_type, axis=1, keepdims=True) ** (1.0 / norm_type)
    weight._array[at] = xp.where(norms > max_norm, table * (max_norm / (norms + 1e-7)), table)
    bump_version(weight)


def one_hot(input: Tensor, num_classes: int = -1) -> Tensor:
    """1 at each index and 0 elsewhere, along a new last dimension; as ``torch.nn.functional.one_hot``.

    Parameters
    ----------
    input : Tensor
        int64, not negative, of any shape.
    num_classes : int
        The size of the new dimension; one more than the greatest index unless given.

    Returns
    -------
    Tensor
        int64, (*input.shape, num_classes)

    Raises
    ------
    RuntimeError
        If an index is negative or too large, or the number of classes cannot be found out.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.nn.functional.one_hot(disttorch.tensor([0, 2]), 3)
    tensor([[1, 0, 0],
            [0, 0, 1]])
    """
    a = input._array
    if a.dtype != dt.int64.numpy:
        raise RuntimeError(f"one_hot is only applicable to index tensor of type LongTensor, got {input.dtype}")
    xp = namespace(a)
    if not a.size:
        if num_classes <= 0:
            raise RuntimeError("Can not infer total number of classes from empty tensor.")
    else:
        low, high = int(xp.min(a)), int(xp.max(a))
        if low < 0:
            raise RuntimeError(f"Class values must be non-negative, but there is {low}.")
        if num_classes == -1:
            num_classes = high + 1
        elif high >= num_classes:
            raise RuntimeError(f"Class values must be smaller than num_classes, but there is {high} with num_classes={num_classes}.")
    return wrap(xp.one_hot(a, num_classes))
