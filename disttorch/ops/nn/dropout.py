"""Dropout: elements, or whole channels, set to 0 at random."""

from __future__ import annotations

from typing import Any

from ...autograd.operation import Operation, apply, as_array
from ...autograd.variable import Tensor, wrap
from ...backend import dtypes as dt
from ...backend import namespace
from .. import pointwise
from ..conversion import overwrite
from ..random import default_generator
from .arguments import warn

__all__ = [
    "alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout", "keep_mask", "native_dropout",
    "native_dropout_backward",
]  # fmt: skip

# What users find of this family, and where: see ops/public.py.
FUNCTIONS = "native_dropout native_dropout_backward"

_dropout = Operation(
    "dropout",
    lambda xp, x, mask, *, scale: xp.where_kept(x, mask, scale),
    x=lambda g, mask, scale, xp: xp.where_kept(g, mask, scale),
)

# drawn and applied at once
_drawn_dropout = Operation(
    "dropout",
    lambda xp, x, *, generator, p, scale: generator.dropout(x, p, scale),
    extras=("mask",),
    x=lambda g, mask, scale, xp: xp.where_kept(g, mask, scale),
)


def keep_mask(input: Tensor, shape: tuple[int, ...], p: float) -> Tensor:
    """A bool tensor, true with probability 1 - p, from the generator of the input's device."""
    return wrap(as_array(default_generator(input.device).kept(shape, p)))


def _check(name: str, p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"{name}: dropout probability has to be between 0 and 1, but got {p}")


def _drop(name: str, input: Tensor, p: float, training: bool, inplace: bool, shape: tuple[int, ...]) -> Tensor:
    _check(name, p)
    if not training or p == 0 or not input._array.size:
        return input
    scale = 1 / (1 - p) if p < 1 else 0.0
    generator = default_generator(input.device)
    if generator.fuses(input._array) and shape == input._array.shape:
        result = apply(_drawn_dropout, input, generator=generator, p=p, scale=scale)
    else:
        result = apply(_dropout, input, keep_mask(input, shape, p), scale=scale)
    return overwrite(name, input, result) if inplace else result


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Each element 0 with probability p, else divided by 1 - p; as ``torch.nn.functional.dropout``.

    Parameters
    ----------
    input : Tensor
    p : float
        The probability of an element to become 0.
    training : bool
        If not, the input is returned as it is.
    inplace : bool

    Raises
    ------
    ValueError
        If p is no probability.
    """
    return _drop("dropout", input, p, training, inplace, input._array.shape)


def _channels(name: str, input: Tensor, leading: int) -> tuple[int, ...]:
    """The shape of a mask of whole channels, where they are the first `leading` dimensions."""
    shape = input._array.shape
    if len(shape) < 2:
        raise RuntimeError(f"{name}: feature dropout requires at least 2 dimensions in the input, got {list(shape)}")
    return (*shape[:leading], *(1,) * (len(shape) - leading))


def _warn(name: str, ndim: int, text: str) -> None:
    warn(f"{name}: Received a {ndim}-D input to {name}, {text}")


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels of (N, C, L) or (C, L); as ``torch.nn.functional.dropout1d``.

    Raises
    ------
    RuntimeError
        If the input has another number of dimensions.
    """
    _check("dropout1d", p)
    ndim = input.ndim
    if ndim not in (2, 3):
        raise RuntimeError(
            f"dropout1d: Expected 2D or 3D input, but received a {ndim}D input. Note that dropout1d exists to provide channel-wise "
            "dropout on inputs with 1 spatial dimension, a channel dimension, and an optional batch dimension (i.e. 2D or 3D inputs)."
        )
    return _drop("dropout1d", input, p, training, inplace, _channels("dropout1d", input, ndim - 1))


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels of (N, C, H, W), or of (N, C, L); as ``torch.nn.functional.dropout2d``.

    As in PyTorch, three dimensions are taken for (N, C, L), with a warning.
    """
    _check("dropout2d", p)
    ndim = input.ndim
    if ndim not in (3, 4):
        _warn("dropout2d", ndim, "which is deprecated and will result in an error in a future release.")
    if ndim == 3:
        _warn("dropout2d", ndim, "and assuming that channel-wise 1D dropout behavior is desired - input is interpreted as shape (N, C, L).")
    return _drop("dropout2d", input, p, training, inplace, _channels("dropout2d", input, 2))


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels of (N, C, D, H, W) or (C, D, H, W); as ``torch.nn.functional.dropout3d``."""
    _check("dropout3d", p)
    ndim = input.ndim
    if ndim not in (4, 5):
        _warn("dropout3d", ndim, "which is deprecated and will result in an error in a future release.")
    return _drop("dropout3d", input, p, training, inplace, _channels("dropout3d", input, 1 if ndim == 4 else 2))


#: The value of SELU far below zero: minus its scale times its alpha (Klambauer et al., "Self-normalizing neural networks", 2017).
SELU_FLOOR = -1.7580993408473766


def _alpha(name: str, input: Tensor, p: float, training: bool, inplace: bool, whole_channels: bool) -> Tensor:
    _check(name, p)
    if not training or p == 0 or not input._array.size:
        return input
    shape = _channels(name, input, 2) if whole_channels else input._array.shape
    if p == 1:
        result = input * 0.0
    else:
        # the affine map keeps mean 0 and variance 1 where the dropped elements have SELU's lowest value
        a = ((1 - p) * (1 + p * SELU_FLOOR**2)) ** -0.5
        mask = keep_mask(input, shape, p)
        dropped = (~mask).to(dtype=input.dtype) * (a * SELU_FLOOR)
        result = apply(_dropout, input, mask, scale=a) + (dropped - a * p * SELU_FLOOR)
    return overwrite(name, input, result) if inplace else result


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout that keeps mean 0 and variance 1 of what SELU gives; as ``torch.nn.functional.alpha_dropout``."""
    return _alpha("alpha_dropout", input, p, training, inplace, False)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """`alpha_dropout` of whole channels, of (N, C, ...); as ``torch.nn.functional.feature_alpha_dropout``."""
    return _alpha("feature_alpha_dropout", input, p, training, inplace, True)


def native_dropout(input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """`dropout` and the bool tensor of what it kept; as ``torch.native_dropout``."""
    _check("native_dropout", p)
    a: Any = input._array
    if train is False or not a.size:
        return input.clone(), wrap(namespace(a).ones(a.shape, dt.bool_.numpy))
    mask = keep_mask(input, a.shape, p)
    return apply(_dropout, input, mask, scale=1 / (1 - p) if p < 1 else 0.0), mask


def native_dropout_backward(grad_output: Tensor, mask: Tensor, scale: float) -> Tensor:
    """The gradient at the input of `native_dropout`; as PyTorch's operation of that name."""
    return pointwise.mul(pointwise.mul(grad_output, mask), scale)
