"""Recurrent layers: a whole sequence through one layer in one direction, and its gradients back through time.

A batch of sequences is one array (N, features): step after step, and in each step a row for every sequence that is that long.
``sizes`` says how many those are; it never grows, as the longest sequences come first. A batch of equal lengths is the case in
which all sizes are the same. Formulas: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html, .../torch.nn.GRU.html
and .../torch.nn.RNN.html.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from . import kernel
from .precision import narrow, wide

__all__ = ["recurrent", "recurrent_backward", "segments"]


@kernel
def recurrent(
    xp: Any, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any, mode: str, sizes: Sequence[int], reverse: bool
) -> tuple[Any, Any, Any, Any, Any, Any]:
    """One layer in one direction over all steps.

    Parameters
    ----------
    x : array (N, input)
    h : array (B, P)
        The first state; P is H, or smaller with a projection.
    c : array (B, H) or None
        The first cell state of an LSTM.
    w_ih, w_hh : array (gates * H, input), (gates * H, P)
    b_ih, b_hh : array (gates * H,) or None
    w_hr : array (P, H) or None
        An LSTM's projection.
    mode : {"RNN_TANH", "RNN_RELU", "LSTM", "GRU"}
    sizes : sequence of int
        How many sequences take part in each step; never growing, N in all.
    reverse : bool
        From each sequence's last step to its first.

    Returns
    -------
    y : array (N, P)
    h, c : array (B, P), array (B, H) or None
        The states after each sequence's last step.
    kept, before, cells : array (N, ...), in a layout of the kernel's own
        For the gradient: values of the gates, and the states before each step.
    """
    cell, dtype = CELLS[mode], x.dtype
    x, h, c, w_ih, w_hh, b_ih, b_hh, w_hr = (None if a is None else wide(xp, a) for a in (x, h, c, w_ih, w_hh, b_ih, b_hh, w_hr))
    projected = xp.linear(x, w_ih, b_ih)
    steps: dict[int, tuple] = {}
    for start, count in segments(sizes, reverse):
        h_here, c_here = h[:count], None if c is None else c[:count]
        h_next, c_next, kept = cell.forward(xp, projected[start : start + count], h_here, c_here, w_hh, b_hh)
        if w_hr is not None:
            h_next = xp.linear(h_next, w_hr, None)
        steps[start] = (h_next, kept, h_here, c_here)
        h = _replace_rows(xp, h, h_next)
        c = None if c is None else _replace_rows(xp, c, c_next)
    y, kept, before, cells = (None if parts[0] is None else xp.concatenate(parts, axis=0) for parts in zip(*map(steps.get, sorted(steps))))
    return narrow(xp, y, dtype), narrow(xp, h, dtype), None if c is None else narrow(xp, c, dtype), kept, before, cells


@kernel
def recurrent_backward(
    xp: Any, gy: Any, gh: Any, gc: Any, x: Any, w_ih: Any, w_hh: Any, w_hr: Any, kept: Any, before: Any, cells: Any, mode: str,
    sizes: Sequence[int], reverse: bool, need_x: bool,
) -> tuple[Any, Any, Any, Any, Any, Any, Any, Any]:  # fmt: skip
    """The gradients at x, h, c, w_ih, w_hh, b_ih, b_hh and w_hr of `recurrent` where `gy`, `gh` and `gc` are those at its results."""
    cell, dtype = CELLS[mode], x.dtype
    gy, x, w_ih, w_hh, dh = (wide(xp, a) for a in (gy, x, w_ih, w_hh, gh))
    dc, w_hr = (None if a is None else wide(xp, a) for a in (gc, w_hr))
    steps: dict[int, tuple] = {}
    for start, count in segments(sizes, not reverse):
        rows = slice(start, start + count)
        here = dh[:count] + gy[rows]
        c_here = None if dc is None else cells[rows]
        outer: Any = None
        unprojected: Any = None
        if w_hr is not None:
            outer, unprojected = here, _unprojected(xp, kept[rows], c_here)
            here = xp.matmul(here, w_hr)
        d_input, d_recurrent, direct, dc_next = cell.backward(
            xp, here, None if dc is None else dc[:count], kept[rows], before[rows], c_here
        )
        steps[start] = (d_input, d_recurrent, outer, unprojected)
        dh_next = xp.matmul(d_recurrent, w_hh)
        dh = _replace_rows(xp, dh, dh_next if direct is None else dh_next + direct)
        dc = None if dc is None else _replace_rows(xp, dc, dc_next)
    d_input, d_recurrent, outer, unprojected = (
        None if parts[0] is None else xp.concatenate(parts, axis=0) for parts in zip(*map(steps.get, sorted(steps)))
    )
    gx = xp.matmul(d_input, w_ih) if need_x else None
    gradients = (
        gx,
        dh,
        dc,
        xp.matmul(xp.swapaxes(d_input, 0, 1), x),
        xp.matmul(xp.swapaxes(d_recurrent, 0, 1), before),
        xp.sum(d_input, axis=0),
        xp.sum(d_recurrent, axis=0),
        None if w_hr is None else xp.matmul(xp.swapaxes(outer, 0, 1), unprojected),
    )
    return tuple(None if a is None else narrow(xp, a, dtype) for a in gradients)  # type: ignore[return-value]


def segments(sizes: Sequence[int], reverse: bool) -> Iterator[tuple[int, int]]:
    """(first row, number of rows) of each step, in the order in which steps are taken."""
    starts, total = [], 0
    for count in sizes:
        starts.append((total, count))
        total += count
    return reversed(starts) if reverse else iter(starts)


def _replace_rows(xp: Any, state: Any, rows: Any) -> Any:
    """The state with its first rows new; the others' sequences have ended, or not begun."""
    return rows if rows.shape[0] == state.shape[0] else xp.concatenate((rows, state[rows.shape[0] :]), axis=0)


def _parts(a: Any, count: int) -> list[Any]:
    size = a.shape[1] // count
    return [a[:, i * size : (i + 1) * size] for i in range(count)]


class Cell(NamedTuple):
    """One step and its gradient.

    forward(xp, a, h, c, w_hh, b_hh) takes the input's share `a` of what goes into the gates, and returns the new h and c, and
    what is kept. backward(xp, dh, dc, kept, h, c) returns the gradient at that share; at the state's share, which is
    h @ w_hh.T + b_hh; what of it goes to h without the weights, or None; and the gradient at c.
    """

    forward: Callable[..., tuple]
    backward: Callable[..., tuple]


def _simple(activation: str, slope: Callable[..., Any]) -> Cell:
    def forward(xp: Any, a: Any, h: Any, c: Any, w_hh: Any, b_hh: Any) -> tuple:
        h = getattr(xp, activation)(a + xp.linear(h, w_hh, b_hh))
        return h, None, h

    def backward(xp: Any, dh: Any, dc: Any, kept: Any, h: Any, c: Any) -> tuple:
        d = dh * slope(xp, kept)
        return d, d, None, None

    return Cell(forward, backward)


def _lstm(xp: Any, a: Any, h: Any, c: Any, w_hh: Any, b_hh: Any) -> tuple:
    i, f, g, o = _parts(a + xp.linear(h, w_hh, b_hh), 4)
    i, f, g, o = xp.sigmoid(i), xp.sigmoid(f), xp.tanh(g), xp.sigmoid(o)
    c = f * c + i * g
    return o * xp.tanh(c), c, xp.concatenate((i, f, g, o), axis=1)


def _lstm_backward(xp: Any, dh: Any, dc: Any, kept: Any, h: Any, c: Any) -> tuple:
    i, f, g, o = _parts(kept, 4)
    t = xp.tanh(f * c + i * g)
    dc = dc + dh * o * (1 - t * t)
    d = xp.concatenate((dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * t * o * (1 - o)), axis=1)
    return d, d, None, dc * f


def _unprojected(xp: Any, kept: Any, c: Any) -> Any:
    """An LSTM's state before the projection, again."""
    i, f, g, o = _parts(kept, 4)
    return o * xp.tanh(f * c + i * g)


def _gru(xp: Any, a: Any, h: Any, c: Any, w_hh: Any, b_hh: Any) -> tuple:
    (ar, az, an), (ur, uz, un) = _parts(a, 3), _parts(xp.linear(h, w_hh, b_hh), 3)
    r, z = xp.sigmoid(ar + ur), xp.sigmoid(az + uz)
    n = xp.tanh(an + r * un)
    return n + z * (h - n), None, xp.concatenate((r, z, n, un), axis=1)


def _gru_backward(xp: Any, dh: Any, dc: Any, kept: Any, h: Any, c: Any) -> tuple:
    r, z, n, un = _parts(kept, 4)
    dn = dh * (1 - z) * (1 - n * n)
    dr, dz = dn * un * r * (1 - r), dh * (h - n) * z * (1 - z)
    return xp.concatenate((dr, dz, dn), axis=1), xp.concatenate((dr, dz, dn * r), axis=1), dh * z, None


CELLS = {
    "RNN_TANH": _simple("tanh", lambda xp, h: 1 - h * h),
    "RNN_RELU": _simple("relu", lambda xp, h: xp.asarray(h > 0, dtype=h.dtype)),
    "LSTM": Cell(_lstm, _lstm_backward),
    "GRU": Cell(_gru, _gru_backward),
}
