"""Dropout: elements, or whole channels, set to 0 at random."""

from __future__ import annotations

from collections.abc import Callable

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor, wrap
from ...backend import dtypes as dt
from ..conversion import overwrite
from ..random import default_generator

__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout", "keep_mask"]

_dropout = Operation(
    "dropout",
    lambda xp, x, mask, *, scale: xp.multiply(x, mask) * xp.scalar(scale, x.dtype),
    x=lambda g, mask, scale: g * mask * scale,
)


def keep_mask(input: Tensor, shape: tuple[int, ...], p: float) -> Tensor:
    """A bool tensor, true with probability 1 - p, from the generator of the input's device."""
    return wrap(default_generator(input.device).uniform(shape, dt.float32) >= p)


def _check(name: str, p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"{name}: dropout probability has to be between 0 and 1, but got {p}")


def _drop(name: str, input: Tensor, p: float, training: bool, inplace: bool, shape: tuple[int, ...]) -> Tensor:
    _check(name, p)
    if not training or p == 0 or not input._array.size:
        return input
    result = apply(_dropout, input, keep_mask(input, shape, p), scale=1 / (1 - p) if p < 1 else 0.0)
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


def _of_channels(ndim: int) -> Callable[..., Tensor]:
    name = f"dropout{ndim}d"

    def function(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        shape = input._array.shape
        if len(shape) not in (ndim + 1, ndim + 2):
            raise RuntimeError(
                f"{name}: expected input (N, C, *spatial) or (C, *spatial) with {ndim} spatial dimensions, but got size: {list(shape)}"
            )
        return _drop(name, input, p, training, inplace, (*shape[: len(shape) - ndim], *(1,) * ndim))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""`dropout` of whole channels, of (N, C, *spatial) or (C, *spatial); as ``torch.nn.functional.{name}``."""
    return function


dropout1d, dropout2d, dropout3d = (_of_channels(n) for n in (1, 2, 3))

#: The value of SELU far below zero: minus its scale times its alpha (Klambauer et al., "Self-normalizing neural networks", 2017).
SELU_FLOOR = -1.7580993408473766


def _alpha(name: str, input: Tensor, p: float, training: bool, inplace: bool, shape: tuple[int, ...]) -> Tensor:
    _check(name, p)
    if not training or p == 0 or not input._array.size:
        return input
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
    return _alpha("alpha_dropout", input, p, training, inplace, input._array.shape)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """`alpha_dropout` of whole channels, of (N, C, ...); as ``torch.nn.functional.feature_alpha_dropout``."""
    shape = input._array.shape
    if len(shape) < 2:
        raise RuntimeError(f"feature_alpha_dropout: feature dropout requires at least 2 dimensions in the input, got {list(shape)}")
    return _alpha("feature_alpha_dropout", input, p, training, inplace, (*shape[:2], *(1,) * (len(shape) - 2)))


