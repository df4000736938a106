"""Matrix products."""

from __future__ import annotations

from math import prod
from typing import Any

from ..autograd.grad_mode import recording
from ..autograd.operation import Operation, apply, as_array, in_one_world, record
from ..autograd.variable import Tensor, wrap
from ..backend import NAMESPACES
from ..backend.dtypes import COMPLEX_DTYPES, DTYPES
from .operands import as_operands, write_out

# What users find of this family, and where: see ops/public.py.
BOTH = "bmm dot matmul mm mv vdot"


def _matmul_x(g: Any, x_shape: Any, y: Any, xp: Any) -> Any:
    if len(x_shape) == 1 and y.ndim == 1:
        return g * y
    if y.ndim == 1:
        return xp.expand_dims(g, -1) * y
    if len(x_shape) == 1:
        # (n) @ (..., n, m): the engine sums over the dimensions that x was broadcast over
        return xp.matmul(xp.expand_dims(g, -2), xp.swapaxes(y, -1, -2))[..., 0, :]
    return xp.matmul(g, xp.swapaxes(y, -1, -2))


def _matmul_y(g: Any, x: Any, y_shape: Any, xp: Any) -> Any:
    if x.ndim == 1 and len(y_shape) == 1:
        return g * x
    if x.ndim == 1:
        return xp.expand_dims(x, -1) * xp.expand_dims(g, -2)
    if len(y_shape) == 1:
        return xp.matmul(xp.reshape(g, (-1,)), _rows(xp, x))
    if len(y_shape) == 2 and x.ndim > 2:
        # one large product instead of a sum of small ones
        return xp.matmul(xp.swapaxes(_rows(xp, x), 0, 1), _rows(xp, g))
    return xp.matmul(xp.swapaxes(x, -1, -2), g)


def _rows(xp: Any, a: Any) -> Any:
    """All leading dimensions as one."""
    return xp.reshape(a, (prod(a.shape[:-1]), a.shape[-1]))


_matmul = Operation("matmul", lambda xp, x, y: xp.matmul(x, y), x=_matmul_x, y=_matmul_y)

_linear = Operation(
    "linear",
    lambda xp, x, weight, bias: xp.linear(x, weight, bias),
    x=lambda g, weight, xp: xp.matmul(g, weight),
    weight=lambda g, x, xp: xp.matmul(xp.swapaxes(_rows(xp, g), 0, 1), _rows(xp, x)),
    bias=lambda g, xp: xp.sum(g, axis=tuple(range(g.ndim - 1))) if g.ndim > 1 else g,
)


def matmul(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The matrix product, batched and broadcast over leading dimensions; as ``torch.matmul``.

    Parameters
    ----------
    input : Tensor
        (..., n, k) or (k,)
    other : Tensor
        (..., k, m) or (k,)

    Returns
    -------
    Tensor
        (..., n, m), without the dimension that a vector does not have.

    Raises
    ------
    RuntimeError
        If the shapes do not fit, or the dtypes differ.
    """
    try:
        x, y = input._array, other._array
    except AttributeError:
        raise TypeError(
            f"matmul(): arguments must be Tensors, not {type(input).__name__} and {type(other).__name__}"
        ) from None
    a, b = x.shape, y.shape
    if x.dtype is not y.dtype or not a or not b:
        _check_product("matmul", input, other)
    if a[-1] != b[-2 if len(b) > 1 else 0]:
        raise RuntimeError(
            f"mat1 and mat2 shapes cannot be multiplied ({_of(a)} and {_of(b)}): matmul needs the last dimension of the first, "
            f"{a[-1]}, to equal the {'second to last' if len(b) > 1 else 'only'} one of the second, {b[-2 if len(b) > 1 else 0]}"
        )
    if x.__class__ is not y.__class__:
        x, y = in_one_world(_matmul, (input, other), (x, y))
    try:
        product = NAMESPACES[x.__class__].matmul(x, y)
        result = wrap(product if product.__class__ is x.__class__ else as_array(product))
        mode = recording.get()
        if mode and (input._node is not None or other._node is not None):
            record(_matmul, (input, other), (x, y), result, (), {}, mode)
    except ValueError:
        raise RuntimeError(f"matmul: the leading dimensions of {list(a)} and {list(b)} cannot be broadcast") from None
    return result if out is None else write_out("matmul", result, out)


def _of(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _check_product(name: str, input: Tensor, other: Tensor) -> None:
    for operand in (input, other):
        if not isinstance(operand, Tensor):
            raise TypeError(f"{name}(): arguments must be Tensors, not {type(operand).__name__}")
    if not input.ndim or not other.ndim:
        raise RuntimeError(
            f"both arguments to {name} need to be at least 1D, but they are {input.ndim}D and {other.ndim}D"
        )
    if input._array.dtype != other._array.dtype:
        raise RuntimeError(
            f"{name}: expected both tensors to have the same dtype, but got {DTYPES[input._array.dtype]} and {DTYPES[other._array.dtype]}"
        )


def _check_dimensions(name: str, input: Tensor, other: Tensor, first: int, second: int) -> None:
    _check_product(name, input, other)
    if (input.ndim, other.ndim) != (first, second):
        raise RuntimeError(f"{name}: expected a {first}D and a {second}D tensor, got {list(input.shape)} and {list(other.shape)}")


def mm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """`matmul` of two matrices; as ``torch.mm``."""
    _check_dimensions("mm", input, mat2, 2, 2)
    return matmul(input, mat2, out=out)


def mv(input: Tensor, vec: Tensor, *, out: Tensor | None = None) -> Tensor:
    """`matmul` of a matrix and a vector; as ``torch.mv``."""
    _check_dimensions("mv", input, vec, 2, 1)
    return matmul(input, vec, out=out)


def dot(input: Tensor, tensor: Tensor, *, out: Tensor | None = None) -> Tensor:
    """`matmul` of two vectors; as ``torch.dot``."""
    _check_dimensions("dot", input, tensor, 1, 1)
    return matmul(input, tensor, out=out)


def bmm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """`matmul` of two tensors of three dimensions, without broadcasting; as ``torch.bmm``.

    Raises
    ------
    RuntimeError
        If the sizes do not fit.
    """
    _check_dimensions("bmm", input, mat2, 3, 3)
    if input.shape[0] != mat2.shape[0]:
        raise RuntimeError(f"bmm: batch sizes differ: {list(input.shape)} and {list(mat2.shape)}")
    return matmul(input, mat2, out=out)


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """All products of the elements of two vectors; as ``torch.outer``."""
    for operand in (input, vec2):
        if not isinstance(operand, Tensor):
            raise TypeError(f"outer(): arguments must be Tensors, not {type(operand).__name__}")
    if input.ndim != 1 or vec2.ndim != 1:
        raise RuntimeError(f"outer: Expected 1-D arguments, but got {list(input.shape)} and {list(vec2.shape)}")
    return input.unsqueeze(1) * vec2


def vdot(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The dot product of two vectors, the first conjugated; as ``torch.vdot``."""
    return dot(
        input.conj() if isinstance(input, Tensor) and input._array.dtype in COMPLEX_DTYPES else input, other, out=out
    )


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
    """input @ weight.T + bias; as ``torch.nn.functional.linear``.

    Parameters
    ----------
    input : Tensor
        (..., in_features)
    weight : Tensor
        (out_features, in_features) or (in_features,)
    bias : Tensor, optional
        (out_features,)

    Raises
    ------
    RuntimeError
        If the shapes do not fit, or the dtypes differ.
    """
    if weight.ndim == 1:
        product = matmul(input, weight)
        product = product if bias is None else product + bias
        return product if out is None else write_out("linear", product, out)
    _check_product("linear", input, weight)
    if input._array.shape[-1] != weight._array.shape[1]:
        raise RuntimeError(
            f"linear: mat1 and mat2 shapes cannot be multiplied: input is {list(input.shape)} and weight {list(weight.shape)}; "
            f"the last dimension of the input, {input.shape[-1]}, must be in_features, {weight.shape[1]}"
        )
    if bias is not None and bias._array.shape not in ((weight._array.shape[0],), ()):
        raise RuntimeError(
            f"linear: bias of shape {list(bias.shape)} does not fit weight of shape {list(weight.shape)}"
        )
    if bias is not None and bias._array.dtype != input._array.dtype:
        bias = bias.to(dtype=as_operands(input._array, bias._array)[0].dtype)
    result = apply(_linear, input, weight, bias)
    return result if out is None else write_out("linear", result, out)
