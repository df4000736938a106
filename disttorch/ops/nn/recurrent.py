"""Recurrent layers: one operation for a whole sequence through one layer in one direction, and stacks of those.

What the rules need of the forward pass are the gates' values and the states before each step, in a layout of the kernel's
own; where a gradient is differentiated itself they are computed again as functions of the inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...autograd.operation import Operation, apply
from ...autograd.variable import Tensor
from ..shape import cat
from .dropout import dropout

__all__ = ["MODES", "layer", "stack"]


def _operation(mode: str) -> Operation:
    """The operation of a mode; an LSTM has a cell state among its inputs and results."""
    has_cell = mode == "LSTM"

    def forward(
        xp: Any, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any, *, sizes: Any, reverse: bool
    ) -> tuple:
        y, h, c, *extras = xp.recurrent(x, h, c, w_ih, w_hh, b_ih, b_hh, w_hr, mode, sizes, reverse)
        return (y, h, c, *extras) if has_cell else (y, h, *extras)

    def recompute(xp: Any, *inputs: Any, sizes: Any, reverse: bool) -> tuple:
        return tuple(xp.recurrent(*inputs, mode, sizes, reverse)[3:])

    def gradients(
        g: Any, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any, kept: Any, before: Any, cells: Any,
        sizes: Any, reverse: bool, needs: tuple, xp: Any,
    ) -> tuple:  # fmt: skip
        # h, c and the biases are only read where a gradient is differentiated, by `recompute`
        gy, gh, gc = g if has_cell else (*g, None)
        found = xp.recurrent_backward(gy, gh, gc, x, w_ih, w_hh, w_hr, kept, before, cells, mode, sizes, reverse, needs[0])
        return tuple(gradient if asked else None for gradient, asked in zip(found, needs))

    return Operation(
        mode.lower(), forward, extras=("kept", "before", "cells"), recompute=recompute, results=2 + has_cell, gradients=gradients
    )


#: the operations by PyTorch's names of the modes
MODES = {mode: _operation(mode) for mode in ("RNN_TANH", "RNN_RELU", "LSTM", "GRU")}


def layer(
    mode: str, x: Tensor, h: Tensor, c: Tensor | None, weights: Sequence[Tensor | None], sizes: Sequence[int], reverse: bool = False
) -> tuple[Tensor, ...]:
    """One layer in one direction.

    Parameters
    ----------
    mode : {"RNN_TANH", "RNN_RELU", "LSTM", "GRU"}
    x : Tensor
        (N, input), step after step.
    h, c : Tensor
        (B, P) and, for an LSTM, (B, H): the first states.
    weights : sequence of Tensor or None
        w_ih, w_hh, b_ih, b_hh, w_hr.
    sizes : sequence of int
        How many sequences take part in each step; never growing.
    reverse : bool
        From the last step to the first.

    Returns
    -------
    y : Tensor
        (N, P)
    h, c : Tensor
        The last states; c of an LSTM only.

    Raises
    ------
    RuntimeError
        If dtypes differ.
    """
    for tensor in (h, c, *weights):
        if tensor is not None and tensor._array.dtype != x._array.dtype:
            raise RuntimeError(f"{mode}: input, states and weights must have the same dtype, but got {x.dtype} and {tensor.dtype}")
    return apply(MODES[mode], x, h, c, *weights, sizes=tuple(sizes), reverse=reverse)


def stack(
    mode: str,
    x: Tensor,
    h: Tensor,
    c: Tensor | None,
    weights: Sequence[Sequence[Tensor | None]],
    sizes: Sequence[int],
    bidirectional: bool,
    p: float,
    training: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Layers on top of each other, in one direction or both, with dropout in between.

    Parameters
    ----------
    h, c : Tensor
        (layers * directions, B, ...)
    weights : sequence of sequences
        Of each layer, and each direction in it, as `layer` takes them.
    p : float
        The probability of dropout.

    Returns
    -------
    y : Tensor
        (N, directions * P)
    h, c : list of Tensor
        The last states of each layer and direction.
    """
    directions = 2 if bidirectional else 1
    last_h, last_c = [], []
    for first in range(0, len(weights), directions):
        outputs = []
        for i in range(first, first + directions):
            y, *states = layer(mode, x, h[i], None if c is None else c[i], weights[i], sizes, reverse=i > first)
            outputs.append(y)
            last_h.append(states[0])
            last_c.extend(states[1:])
        x = outputs[0] if directions == 1 else cat(outputs, -1)
        if p and first + directions < len(weights):
            x = dropout(x, p, training)
    return x, last_h, last_c
