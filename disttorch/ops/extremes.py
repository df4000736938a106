"""The greatest and the smallest: of all elements, along dimensions, of two tensors, and where they are."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..autograd.grad_mode import recording
from ..autograd.node import NEVER_CHANGED, OperationNode
from ..autograd.operation import Operation, apply, as_array, record
from ..autograd.variable import Tensor, wrap
from ..backend import NAMESPACES, namespace
from ..backend import dtypes as dt
from ..backend.dtypes import DIFFERENTIABLE
from . import pointwise
from .dims import normal_dim, normal_dims
from .operands import expect_tensors, write_out
from .reducing import Extreme, axis_of, refuse_empty, restored, spread

# What users find of this family, and where: see ops/public.py.
BOTH = "amax amin aminmax argmax argmin max min"
OUT = "amax amin argmax argmin"


def _shared_rule(g: Any, x: Any, out: Any, dim: Any, keepdim: bool, xp: Any) -> Any:
    """Equal extremes share the gradient, as PyTorch documents."""
    wide_out = spread(xp, out, x.shape, dim, keepdim)
    share = xp.astype((x == wide_out) | (xp.isnan(x) & xp.isnan(wide_out)), g.dtype)
    total = xp.sum(share, axis=axis_of(dim), keepdims=keepdim)
    return spread(xp, g / total, x.shape, dim, keepdim) * share


_amax = Operation("amax", lambda xp, x, *, dim, keepdim: xp.max(x, axis=axis_of(dim), keepdims=keepdim), x=_shared_rule)
_amin = Operation("amin", lambda xp, x, *, dim, keepdim: xp.min(x, axis=axis_of(dim), keepdims=keepdim), x=_shared_rule)


def _over_dims(operation: Operation, word: str) -> Any:
    name = operation.name

    def function(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
        expect_tensors(name, input)
        dims = normal_dims(dim, input.ndim, name)
        refuse_empty(name, input, dims)
        return apply(operation, input, dim=dims, keepdim=keepdim)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The {word} value over some dimensions or all; equal ones share the gradient. As ``torch.{name}``."
    return function


amax, amin = _over_dims(_amax, "greatest"), _over_dims(_amin, "smallest")


class MinMax(NamedTuple):
    """What `aminmax` returns."""

    min: Tensor
    max: Tensor


def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False, out: Any = None) -> MinMax:
    """The smallest and the greatest value of all elements or along a dimension; as ``torch.aminmax``."""
    dims = () if dim is None else normal_dim(dim, input.ndim, "aminmax")
    if out is not None:
        for o in out:
            if o.dtype is not input.dtype:
                raise RuntimeError(f"aminmax: expected out tensor to have dtype {input.dtype}, but got {o.dtype} instead")
    both = MinMax(amin(input, dims, keepdim), amax(input, dims, keepdim))
    return both if out is None else MinMax(*(write_out("aminmax", r, o) for r, o in zip(both, out)))


# --- values and indices along one dimension -----------------------------------------------------------------------------


def _chosen(kernel: str) -> Any:
    """max and min along one dimension: the values, and (an extra, as only they have a gradient) where they were."""

    def forward(xp: Any, x: Any, *, dim: int, keepdim: bool) -> Any:
        return getattr(xp, kernel)(x, dim, keepdim) if x.ndim else (xp.array(x), xp.zeros((), dt.int64.numpy))

    return forward


def _chosen_rule(g: Any, indices: Any, x_shape: Any, dim: int, keepdim: bool, xp: Any) -> Any:
    if not x_shape:
        return g
    if not keepdim:
        again = (slice(None),) * dim + (None,)
        g, indices = g[again], indices[again]
    return xp.put_chosen(g, indices, x_shape, dim)


_max_along = Operation("max", _chosen("max_with_index"), extras=("indices",), x=_chosen_rule)
_min_along = Operation("min", _chosen("min_with_index"), extras=("indices",), x=_chosen_rule)


def _extreme(name: str, along: Operation, whole: Operation, pairwise: str) -> Any:
    forward = along.forward

    def function(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None, out: Any = None, axis: Any = None) -> Any:
        expect_tensors(name, input)
        if other is not None or isinstance(dim, Tensor):
            return getattr(pointwise, pairwise)(input, dim if other is None else other, out=out)
        if dim is None and axis is None:
            refuse_empty(name, input, None)
            result = apply(whole, input, dim=None, keepdim=False)
            return result if out is None else write_out(name, result, out)
        a = input._array
        dim = normal_dim(dim if axis is None else axis, a.ndim, name)
        if not a.size and a.ndim:
            refuse_empty(name, input, (dim,))
        values, indices = forward(NAMESPACES[a.__class__], a, dim=dim, keepdim=keepdim)
        if values.__class__ is not a.__class__:
            values, indices = as_array(values), as_array(indices)
        both = _pair(Extreme, (wrap(values), wrap(indices)))
        if input._node is not None:
            mode = recording.get()
            if mode == 1 and values.dtype in DIFFERENTIABLE:
                # `record`, written out: it takes as long as the rest
                both[0]._node = node = _new(OperationNode)
                node.operation = along
                node.edges = (input._node,)
                node.shape = values.shape
                node.dtype = values.dtype
                node.params = {"dim": dim, "keepdim": keepdim}
                node.saved = (None, None, indices)
                node.versions = NEVER_CHANGED
                node.stamp = 0
            elif mode:
                record(along, (input,), (a,), both[0], (indices,), {"dim": dim, "keepdim": keepdim}, mode)
        return both if out is None else Extreme(*(write_out(name, r, o) for r, o in zip(both, out)))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""The {name}imum of all elements, along a dimension with its indices, or of two tensors; as ``torch.{name}``.

    Parameters
    ----------
    input : Tensor
    dim : int or Tensor, optional
        The dimension; or another tensor, for `{pairwise}`.
    keepdim : bool
        Whether that dimension stays with size 1.

    Returns
    -------
    Tensor, or with `dim` a named tuple (values, indices)
    """
    return function


_new = object.__new__
_pair = tuple.__new__  # a named tuple's own way takes as long as finding the maximum of a small array
max = _extreme("max", _max_along, _amax, "maximum")
min = _extreme("min", _min_along, _amin, "minimum")


def _arg(name: str) -> Any:
    def function(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
        expect_tensors(name, input)
        a = input._array
        xp = namespace(a)
        dims = None if dim is None else normal_dim(dim, a.ndim, name)
        if not a.size:
            if dims is None:
                raise IndexError(f"{name}(): Expected reduction dim to be specified for input.numel() == 0, the shape is {list(a.shape)}")
            refuse_empty(name, input, (dims,))
        if not a.ndim:
            return wrap(xp.zeros((), dt.int64.numpy))
        found = getattr(xp, name)(a, axis=dims)
        if keepdim:
            found = restored(xp, found, a.shape, tuple(range(a.ndim)) if dims is None else (dims,), False)
        return wrap(xp.asarray(found, dt.int64.numpy))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The index of the {name[3:]}imum, in the flattened tensor or along a dimension; as ``torch.{name}``."
    return function


argmax, argmin = _arg("argmax"), _arg("argmin")
