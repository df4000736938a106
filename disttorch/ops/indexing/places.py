"""The operations behind scatter and its family: values put at places, or added, multiplied, ... with what is there.

An index here is what the array library takes: an array, or a tuple of slices and arrays.
"""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation
from ...autograd.variable import Tensor
from ...backend import dtypes as dt
from ...backend import namespace

__all__ = ["BY_KERNEL", "BY_NAME", "INDEX_DTYPES", "add_at_op", "gather_op", "multiply_at_op", "put_at_op"]

INDEX_DTYPES = (dt.int64.numpy, dt.PUBLIC_DTYPES["int32"].numpy)

gather_op = Operation(
    "gather",
    lambda xp, x, index, *, dim: xp.gather(x, index, dim),
    x=lambda g, index, x_shape, dim, xp: xp.scatter_add(g, index, x_shape, dim),
)
put_at_op = Operation(
    "put",
    lambda xp, x, source, *, index: xp.put_at(x, index, source),
    x=lambda g, index, xp: xp.put_at(g, index, xp.zeros((), g.dtype)),
    source=lambda g, index: g[index],
)


def _added_rule(g: Any, index: Any, include_self: bool, needs: Any, xp: Any) -> tuple:
    return (
        None if not needs[0] else g if include_self else xp.put_at(g, index, xp.zeros((), g.dtype)),
        g[index] if needs[1] else None,
    )


add_at_op = Operation(
    "scatter_add",
    lambda xp, x, source, *, index, include_self: xp.reduce_at(x, index, source, "add", include_self),
    gradients=_added_rule,
)


def _multiplied_rule(g: Any, x: Any, source: Any, out: Any, index: Any, include_self: bool, needs: Any, xp: Any) -> tuple:
    """The product of all others, also where one of them is zero."""
    gradient_x = gradient_source = None
    if needs[0]:
        others = xp.reduce_at(xp.ones_like(x), index, source, "multiply", True)
        gradient_x = g * others if include_self else xp.put_at(g, index, xp.zeros((), g.dtype))
    if needs[1]:
        raw_source = source._array if isinstance(source, Tensor) else source
        raw = namespace(raw_source)
        is_zero = raw_source == 0
        if not bool(is_zero.any()):
            gradient_source = (g * out)[index] / source
        else:
            raw_x = x._array if isinstance(x, Tensor) else x
            zeros = raw.reduce_at(raw.zeros(raw_x.shape, INDEX_DTYPES[0]), index, is_zero.astype(INDEX_DTYPES[0]), "add")[index]
            safe = xp.where(is_zero, xp.ones_like(source), source)
            rest = xp.reduce_at(x, index, safe, "multiply", include_self)
            # at a zero that is alone the rest, at one among others 0, elsewhere the product over what stands there
            of_zeros = xp.where(zeros == 1, (g * rest)[index], xp.zeros_like(source))
            gradient_source = xp.where(is_zero, of_zeros, (g * out)[index] / safe)
    return gradient_x, gradient_source


multiply_at_op = Operation(
    "scatter_reduce",
    lambda xp, x, source, *, index, include_self: xp.reduce_at(x, index, source, "multiply", include_self),
    gradients=_multiplied_rule,
)


def _extreme_rule(g: Any, x: Any, source: Any, out: Any, index: Any, include_self: bool, needs: Any, xp: Any) -> tuple:
    """All that are the greatest, or smallest, share the gradient."""
    raw_x, raw_source, raw_out = (v._array if isinstance(v, Tensor) else v for v in (x, source, out))
    raw = namespace(raw_out)
    x_counts = (raw_x == raw_out).astype(raw_x.dtype)
    source_counts = (raw_source == raw_out[index]).astype(raw_x.dtype)
    share = g / raw.reduce_at(x_counts, index, source_counts, "add")
    gradient_x = share * x_counts
    if not include_self:
        gradient_x = xp.put_at(gradient_x, index, xp.zeros((), g.dtype))
    return gradient_x if needs[0] else None, share[index] * source_counts if needs[1] else None


def _extreme(how: str) -> Operation:
    return Operation(
        "scatter_reduce",
        lambda xp, x, source, *, index, include_self: xp.reduce_at(x, index, source, how, include_self),
        gradients=_extreme_rule,
    )


maximum_at_op, minimum_at_op = _extreme("maximum"), _extreme("minimum")
BY_NAME = {"sum": add_at_op, "prod": multiply_at_op, "amax": maximum_at_op, "amin": minimum_at_op, "mean": add_at_op}
BY_KERNEL = {"add": add_at_op, "multiply": multiply_at_op, "maximum": maximum_at_op, "minimum": minimum_at_op}
