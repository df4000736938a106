"""Padding: with a constant, or with the input's own elements mirrored, repeated or wrapped around."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from ...backend import namespace

__all__ = ["pad"]

_pad = Operation(
    "constant_pad_nd",
    lambda xp, x, *, widths, value: xp.pad(x, widths, constant_values=value),
    x=lambda g, x_shape, widths: g[tuple(slice(before, before + n) for (before, _), n in zip(widths, x_shape))],
)


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
    given = [int(n) for n in pad]
    shape = input._array.shape
    if len(given) % 2 or len(given) > 2 * len(shape):
        raise RuntimeError(
            f"pad(): needs an even number of widths, at most 2 for each dimension of the input of size {list(shape)}, but got {given}"
        )
    widths = [(0, 0)] * (len(shape) - len(given) // 2) + list(zip(given[-2::-2], given[::-2]))
    if mode == "constant":
        return _constant(input, widths, 0 if value is None else value)
    if value is not None and value != 0:
        raise ValueError(f"Padding mode '{mode}' doesn't take in value argument, but got value={value}")
    if mode not in _SOURCES:
        raise NotImplementedError(f"Unrecognised padding mode {mode!r}; there are 'constant', {', '.join(map(repr, _SOURCES))}")
    for dim, (before, after) in enumerate(widths):
        if before or after:
            input = input[(slice(None),) * dim + (_positions(input, dim, before, after, mode),)]
    return input


def _constant(input: Tensor, widths: list[tuple[int, int]], value: float) -> Tensor:
    if any(n < 0 for pair in widths for n in pair):
        for dim, (size, (before, after)) in enumerate(zip(input._array.shape, widths)):
            if size + min(before, 0) + min(after, 0) < 0:
                raise RuntimeError(f"pad(): {before} and {after} take more than there is of dimension {dim} of size {list(input.shape)}")
        kept = tuple(slice(max(-b, 0), n + min(a, 0)) for n, (b, a) in zip(input._array.shape, widths))
        input = input[kept]
        widths = [(max(b, 0), max(a, 0)) for b, a in widths]
        if not any(n for pair in widths for n in pair):
            return input.clone()
    return apply(_pad, input, widths=tuple(widths), value=value)


def _positions(input: Tensor, dim: int, before: int, after: int, mode: str) -> Any:
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
    xp = namespace(input._array)
    return _SOURCES[mode](xp, xp.arange(-before, size + after), size)


# places from -before to size + after - 1, as places of the input
_SOURCES = {
    "reflect": lambda xp, at, size: (size - 1) - xp.abs((size - 1) - xp.abs(at)),
    "replicate": lambda xp, at, size: xp.clip(at, 0, size - 1),
    "circular": lambda xp, at, size: at % size,
}
