"""Padding: with a constant, or with the input's own elements mirrored, repeated or wrapped around."""

from __future__ import annotations

from collections.abc import Sequence

from ...autograd.variable import Tensor
from ...backend.kernels.resampling import selected
from ..shape import constant_pad_nd
from .resampling import resample

__all__ = ["pad"]

def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """The tensor with elements added around it, or, where a width is negative, taken away; as ``torch.nn.functional.pad``.

    Parameters
    ----------
    input : Tensor
    pad : sequence of int
        (before, after) of the last dimension, then of the one before it, and so on.
    mode : {"constant", "reflect", "replicate", "circular"}
        ``"reflect"`` mirrors at the border elements without repeating them.
    value : float, optional
        For ``"constant"``; 0 unless given.

    Raises
    ------
    RuntimeError
        If there are more widths than dimensions, or more to mirror or wrap around than there is.
    NotImplementedError
        For another mode.

    Examples
    --------
    >>> import disttorch
    >>> disttorch.nn.functional.pad(disttorch.tensor([1, 2, 3]), (1, 2), "reflect")
    tensor([2, 1, 2, 3, 2, 1])
    """
    if mode == "constant":
        return constant_pad_nd(input, pad, 0 if value is None else value)
    widths = _widths(input, pad)
    if value is not None and value != 0:
        raise ValueError(f"Padding mode '{mode}' doesn't take in value argument, but got value={value}")
    if mode not in _SOURCES:
        raise NotImplementedError(f"Unrecognised padding mode {mode!r}; there are 'constant', {', '.join(map(repr, _SOURCES))}")
    along = []
    for dim, (before, after) in enumerate(widths):
        if mode == "circular" and min(before, after) < 0:
            # what is left is wrapped around
            input = _cut(input, [(0, 0)] * dim + [(before, after)])
            before, after = max(before, 0), max(after, 0)
        if before or after:
            along.append((dim, selected(input.shape[dim], _positions(input, dim, before, after, mode))))
    return resample(input, along) if along else input.clone()


def _widths(input: Tensor, pad: Sequence[int]) -> list[tuple[int, int]]:
    """(before, after) of each dimension, the first first."""
    given = [int(n) for n in pad]
    shape = input._array.shape
    if len(given) % 2 or len(given) > 2 * len(shape):
        raise RuntimeError(
            f"pad(): needs an even number of widths, at most 2 for each dimension of the input of size {list(shape)}, but got {given}"
        )
    return [(0, 0)] * (len(shape) - len(given) // 2) + list(zip(given[-2::-2], given[::-2]))


def _cut(input: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Without what negative widths take away."""
    shape = input._array.shape
    for dim, (size, (before, after)) in enumerate(zip(shape, widths)):
        if size + min(before, 0) + min(after, 0) < 0:
            raise RuntimeError(f"pad(): {before} and {after} take more than there is of dimension {dim} of size {list(shape)}")
    return input[tuple(slice(max(-b, 0), n + min(a, 0)) for n, (b, a) in zip(shape, widths))]


def _positions(input: Tensor, dim: int, before: int, after: int, mode: str) -> list[int]:
    """Which of the input's elements stand at each place of the padded dimension."""
    size = input._array.shape[dim]
    room = {"reflect": size - 1, "circular": size}.get(mode)
    if (room is not None and max(before, after) > room) or (size == 0 and max(before, after) > 0):
        raise RuntimeError(
            f"Padding size should be less than {'the' if mode == 'reflect' else 'or equal to the'} corresponding input dimension, but "
            f"got: padding ({before}, {after}) at dimension {dim} of input {list(input._array.shape)}"
        )
    if size + before + after < 0:
        raise RuntimeError(f"pad(): {before} and {after} take more than there is of dimension {dim} of {list(input._array.shape)}")
    source = _SOURCES[mode]
    return [source(at, size) for at in range(-before, size + after)]


# a place from -before to size + after - 1, as a place of the input
_SOURCES = {
    "reflect": lambda at, size: (size - 1) - abs((size - 1) - abs(at)),
    "replicate": lambda at, size: min(max(at, 0), size - 1),
    "circular": lambda at, size: at % size,
}
