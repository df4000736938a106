"""Elements chosen by a mask: where, masked_fill, masked_scatter; and fill."""

from __future__ import annotations

import math
from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor, wrap
from ...backend import dtypes as dt
from ...backend import namespace
from ...backend.dtypes import DTYPES
from ..operands import write_out

# What users find of this family, and where: see ops/public.py.
BOTH = "fill masked_fill masked_scatter"
FUNCTIONS = "where"
TWINS = "masked_fill masked_scatter"

_where = Operation(
    "where",
    lambda xp, condition, x, y: xp.where(condition, x, y),
    x=lambda g, condition, xp: xp.where(condition, g, xp.zeros_like(g)),
    y=lambda g, condition, xp: xp.where(condition, xp.zeros_like(g), g),
    elementwise=True,
)


def where(condition: Tensor, input: Any = None, other: Any = None, *, out: Tensor | None = None) -> Any:
    """Elements of `input` where the condition is true, else of `other`; as ``torch.where``.

    Parameters
    ----------
    condition : Tensor
        bool.
    input, other : Tensor or number
        Broadcast with the condition. Without them, ``nonzero(condition, as_tuple=True)``.

    Raises
    ------
    RuntimeError
        If the condition is not bool.

    Examples
    --------
    >>> import disttorch
    >>> x = disttorch.tensor([-1.0, 2.0])
    >>> disttorch.where(x > 0, x, 0)
    tensor([0., 2.])
    """
    if input is None and other is None:
        from .selection import nonzero  # where stands below it

        return nonzero(condition, as_tuple=True)
    if input is None or other is None:
        raise TypeError("where(): takes the condition alone, or with both input and other")
    if condition._array.dtype != dt.bool_.numpy:
        if condition.dtype is not dt.uint8:
            raise RuntimeError(f"where expected condition to be a boolean tensor, but got a tensor with dtype {condition.dtype}")
        condition = condition.to(dtype=dt.bool_)
    x, y = input, other
    if not (isinstance(x, Tensor) and isinstance(y, Tensor) and x._array.dtype == y._array.dtype):
        result = dt.result_type(input, other).numpy
        x, y = (_as_operand(condition, v, result) for v in (input, other))
    try:
        chosen = apply(_where, condition, x, y)
    except ValueError:
        raise RuntimeError(
            f"where: condition of shape {list(condition.shape)}, input of {list(x.shape)} and other of {list(y.shape)} cannot be broadcast"
        ) from None
    return chosen if out is None else write_out("where", chosen, out)


def _as_operand(condition: Tensor, value: Any, dtype: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value if value._array.dtype == dtype else value.to(dtype=dtype)
    xp = namespace(condition._array)
    return wrap(xp.asarray(xp.scalar(value, dtype)))


def _filler(name: str, input: Tensor, value: Any) -> Tensor:
    """A number, or a tensor without dimensions, in the dtype of another tensor."""
    d = DTYPES[input._array.dtype]
    if isinstance(value, Tensor):
        if value.ndim:
            raise RuntimeError(f"{name} only supports a 0-dimensional value tensor, but got tensor with {value.ndim} dimension(s).")
        if value.dtype.is_complex and not d.is_complex:
            raise RuntimeError(f"value cannot be converted to type {d} without overflow")
        return value if value._array.dtype == input._array.dtype else value.to(dtype=d)
    if isinstance(value, complex) and not d.is_complex:
        raise RuntimeError(f"value {value} cannot be converted to type {d} without overflow")
    xp = namespace(input._array)
    return wrap(xp.asarray(xp.scalar(value, input._array.dtype)))


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """`input` with a value where the mask is true; as ``torch.masked_fill``."""
    if mask._array.dtype != dt.bool_.numpy:
        raise RuntimeError(f"masked_fill only supports boolean masks, but got mask with dtype {mask.dtype}")
    return apply(_where, mask, _filler("masked_fill", input, value), input)


def fill(input: Tensor, value: Any) -> Tensor:
    """A tensor of the shape and dtype of `input` filled with a value; as ``torch.fill``."""
    return apply(_fill, input, _filler("fill_", input, value))


_fill = Operation(
    "fill",
    lambda xp, x, value: xp.array(xp.broadcast_to(value, x.shape)),
    x=lambda g, xp: xp.zeros_like(g),
    value=lambda g: g,
)


_masked_scatter = Operation(
    "masked_scatter",
    lambda xp, x, source, *, mask: xp.put_at(x, mask, xp.reshape(source, (-1,))[: int(mask.sum())]),
    x=lambda g, mask, xp: xp.where(mask, xp.zeros_like(g), g),
    source=lambda g, mask, source_shape, xp: _taken(g, mask, source_shape, xp),
)


def _taken(g: Any, mask: Any, source_shape: Any, xp: Any) -> Any:
    """What went into the mask's places, the rest of the source being unused."""
    values = g[mask]
    size = math.prod(source_shape)
    return xp.reshape(xp.put_slice(values, (size,), slice(0, values.shape[0])), tuple(source_shape))


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """`input` with the elements of `source`, in order, where the mask is true; as ``torch.masked_scatter``.

    Raises
    ------
    RuntimeError
        If the dtypes differ, or the source has too few elements.
    """
    if mask._array.dtype != dt.bool_.numpy:
        raise RuntimeError(f"masked_scatter_ only supports boolean masks, but got mask with dtype {mask.dtype}")
    if source._array.dtype != input._array.dtype:
        raise RuntimeError(f"masked_scatter: expected self and source to have same dtypes but got {input.dtype} and {source.dtype}")
    from ..shape.views import broadcast_tensors

    input, mask = broadcast_tensors(input, mask)
    count = int(mask._array.sum())
    if source.numel() < count:
        raise RuntimeError(f"masked_scatter: the mask has {count} true elements, but the source only {source.numel()} elements")
    if not input.ndim:
        return apply(_masked_scatter, input.reshape(1), source, mask=mask._array.reshape(1)).reshape(())
    return apply(_masked_scatter, input, source, mask=mask._array)
