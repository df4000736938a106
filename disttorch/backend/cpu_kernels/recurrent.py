"""Recurrent layers with everything standing on its side, (features, sequences): BLAS takes half the time for (4H, H) @ (H, B) that
it takes for (B, H) @ (H, 4H), and each gate is one contiguous block.

All steps' input products are made first, and each weight's gradient at the end, in one large product. In between a step is
one product and a dozen array calls that write into memory made beforehand. Sigmoids are hyperbolic tangents of half the
argument, as that is what NumPy is fast at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..kernels.precision import wide
from ..kernels.recurrent import segments

__all__ = ["recurrent", "recurrent_backward"]

#: From how many sequences on the input products are made standing; below, BLAS likes them lying and the rest is small.
MANY = 12


def recurrent(
    x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any, mode: str, sizes: Sequence[int], reverse: bool
) -> tuple[Any, Any, Any, Any, Any, Any]:
    cell, dtype = CELLS[mode], x.dtype
    x, h, c, w_ih, w_hh, b_ih, b_hh, w_hr = [None if a is None else wide(np, a) for a in (x, h, c, w_ih, w_hh, b_ih, b_hh, w_hr)]
    total, (batch, features), rows = len(x), h.shape, len(w_ih)
    hidden = rows // cell.gates
    bias, own_bias = biases(cell, b_ih, b_hh, hidden, batch)
    kept = input_products(x, w_ih, bias, sizes, cell.kept * hidden)
    h = h.T.copy()
    c = None if c is None else c.T.copy()
    y, before = np.empty((total, features), x.dtype), side_by_side(features, total, x.dtype)
    cells = None if c is None else np.empty(total * hidden, x.dtype)
    products = np.empty(rows * batch, x.dtype)
    for start, n in segments(sizes, reverse):
        state, gates, product = h[:, :n], block(kept, cell.kept * hidden, start, n), block(products, rows, 0, n)
        before[:, start : start + n] = state
        np.matmul(w_hh, state, product)
        if c is None:
            cell.forward(gates, product, state, None if own_bias is None else own_bias[:, :n])
        else:
            block(cells, hidden, start, n)[...] = c[:, :n]
            cell.forward(gates, product, state if w_hr is None else product[:hidden], c[:, :n])
            if w_hr is not None:
                np.matmul(w_hr, product[:hidden], state)
        y[start : start + n] = state.T
    last_c = None if c is None else np.ascontiguousarray(c.T, dtype)
    return y.astype(dtype, copy=False), np.ascontiguousarray(h.T, dtype), last_c, kept, before, cells


def recurrent_backward(
    gy: Any, gh: Any, gc: Any, x: Any, w_ih: Any, w_hh: Any, w_hr: Any, kept: Any, before: Any, cells: Any, mode: str,
    sizes: Sequence[int], reverse: bool, need_x: bool,
) -> tuple[Any, ...]:  # fmt: skip
    cell, dtype = CELLS[mode], x.dtype
    gy, gh, gc, x, w_ih, w_hh, w_hr = [None if a is None else wide(np, a) for a in (gy, gh, gc, x, w_ih, w_hh, w_hr)]
    total, batch, hidden = len(x), len(gh), len(w_ih) // cell.gates
    dh, dc = gh.T.copy(), None if gc is None else gc.T.copy()
    all_d = side_by_side(cell.slopes * hidden, total, x.dtype)
    own = slice((cell.slopes - cell.gates) * hidden, None)  # the rows for w_hh; those for w_ih are the first
    step_d, work = np.empty(cell.slopes * hidden * batch, x.dtype), np.empty(6 * hidden * batch, x.dtype)
    outer: Any = None
    unprojected: Any = None
    if w_hr is not None:
        outer, unprojected = side_by_side(len(w_hr), total, x.dtype), side_by_side(hidden, total, x.dtype)
    for start, n in segments(sizes, not reverse):
        columns = slice(start, start + n)
        here, d, gates = dh[:, :n], block(step_d, cell.slopes * hidden, 0, n), block(kept, cell.kept * hidden, start, n)
        here += gy[columns].T
        room = block(work, 6 * hidden, 0, n)
        if dc is None:
            direct = cell.backward(d, gates, here, before[:, columns], room)
        elif outer is None:
            direct = cell.backward(d, gates, here, dc[:, :n], block(cells, hidden, start, n), room)
        else:
            outer[:, columns] = here
            direct = cell.backward(d, gates, w_hr.T @ here, dc[:, :n], block(cells, hidden, start, n), room, unprojected[:, columns])
        all_d[:, columns] = d
        np.matmul(w_hh.T, d[own], here)
        if direct is not None:
            here += direct
    d_input, d_state = all_d[: len(w_ih)], all_d[own]
    gw_ih, gb_ih = cell.order_back(d_input @ x), cell.order_back(np.add.reduce(d_input, 1))
    gradients = (
        d_input.T @ cell.order(w_ih) if need_x else None,
        np.ascontiguousarray(dh.T),
        None if dc is None else np.ascontiguousarray(dc.T),
        gw_ih,
        d_state @ before.T,
        gb_ih,
        np.add.reduce(d_state, 1),
        None if outer is None else outer @ unprojected.T,
    )
    return tuple([None if a is None else a.astype(dtype, copy=False) for a in gradients])


def block(memory: Any, rows: int, start: int, n: int) -> Any:
    """What belongs to the `n` sequences from `start` on, as a contiguous matrix with a column for each."""
    return memory[rows * start : rows * (start + n)].reshape(rows, n)


def side_by_side(rows: int, count: int, dtype: Any) -> Any:
    """A matrix whose rows begin an odd number of cache lines apart, so that a few columns of all rows fit into the cache."""
    stride = (-(-count * dtype.itemsize // 64) | 1) * 64 // dtype.itemsize
    return np.empty((rows, stride), dtype)[:, :count]


def biases(cell: Cell, b_ih: Any, b_hh: Any, hidden: int, batch: int) -> tuple[Any, Any]:
    """What is added to all input products (rows,); and a GRU's bias of the new gate's own product, (H, B)."""
    if b_ih is None:
        return None, None
    bias = b_ih + b_hh
    if cell.kept == cell.gates:
        return bias, None
    bias[2 * hidden :] = b_ih[2 * hidden :]
    return bias, np.repeat(b_hh[2 * hidden :], batch).reshape(hidden, batch)


def input_products(x: Any, w_ih: Any, bias: Any, sizes: Sequence[int], width: int) -> Any:
    """``w_ih @ x.T + bias`` of each step as a block, in memory for blocks of `width` rows."""
    memory, rows, n = np.empty(len(x) * width, x.dtype), len(w_ih), sizes[0]
    if n < MANY:
        lying = x @ w_ih.T
        if bias is not None:
            lying += bias
        start = 0
        for n in sizes:
            block(memory, width, start, n)[:rows] = lying[start : start + n].T
            start += n
        return memory
    spread = None if bias is None else np.repeat(bias, n).reshape(rows, n)
    if n == sizes[-1]:
        out = memory.reshape(-1, width, n)[:, :rows]
        np.matmul(w_ih, x.reshape(-1, n, x.shape[1]).swapaxes(1, 2), out)
        if spread is not None:
            out += spread
        return memory
    start = 0
    for n in sizes:
        out = block(memory, width, start, n)[:rows]
        np.matmul(w_ih, x[start : start + n].T, out)
        if spread is not None:
            out += spread[:, :n]
        start += n
    return memory


def sigmoid_(a: Any) -> None:
    """The sigmoid in place: (1 + tanh(x / 2)) / 2."""
    half, one = NUMBERS[a.dtype]
    a *= half
    np.tanh(a, a)
    a += one
    a *= half


NUMBERS = {np.dtype(d): (np.asarray(0.5, d), np.asarray(1, d)) for d in (np.float32, np.float64)}


def tanh_forward(gates: Any, product: Any, state: Any, bias: Any) -> None:
    gates += product
    np.tanh(gates, gates)
    state[...] = gates


def tanh_backward(d: Any, gates: Any, dh: Any, before: Any, room: Any) -> None:
    np.multiply(gates, gates, d)
    np.subtract(NUMBERS[d.dtype][1], d, d)
    d *= dh


def relu_forward(gates: Any, product: Any, state: Any, bias: Any) -> None:
    gates += product
    np.maximum(gates, 0, out=gates)
    state[...] = gates


def relu_backward(d: Any, gates: Any, dh: Any, before: Any, room: Any) -> None:
    np.multiply(dh, gates > 0, d)


def lstm_forward(gates: Any, product: Any, state: Any, c: Any) -> None:
    half, one = NUMBERS[gates.dtype]
    hidden = len(c)
    gates += product
    i, f, g, o = gates.reshape(4, *c.shape)
    i_and_f = gates[: 2 * hidden]
    # sigmoid_ of three gates and the hyperbolic tangent of the fourth, with one call of tanh
    i_and_f *= half
    o *= half
    np.tanh(gates, gates)
    i_and_f += one
    i_and_f *= half
    o += one
    o *= half
    room = product[hidden : 2 * hidden]
    np.multiply(i, g, room)
    c *= f
    c += room
    np.tanh(c, room)
    np.multiply(o, room, state)


def lstm_backward(d: Any, gates: Any, dh: Any, dc: Any, c: Any, room: Any, unprojected: Any = None) -> None:
    one, hidden = NUMBERS[d.dtype][1], len(c)
    i, f, g, o = gates.reshape(4, *c.shape)
    di, df, dg, do = d.reshape(4, *c.shape)
    slopes, t, u = room[: 4 * hidden], room[4 * hidden : 5 * hidden], room[5 * hidden :]
    np.multiply(f, c, t)
    np.multiply(i, g, u)
    t += u
    np.tanh(t, t)
    if unprojected is not None:
        np.multiply(o, t, unprojected)
    np.multiply(dh, t, do)
    t *= t
    np.subtract(one, t, t)
    t *= o
    t *= dh
    dc += t
    np.multiply(dc, g, di)
    np.multiply(dc, c, df)
    np.multiply(dc, i, dg)
    dc *= f
    # s - s * s for the sigmoids; 1 - g * g for the hyperbolic tangent
    np.multiply(gates, gates, slopes)
    np.subtract(gates, slopes, slopes)
    slope_g = slopes[2 * hidden : 3 * hidden]
    slope_g -= g
    slope_g += one
    d *= slopes


def gru_forward(gates: Any, product: Any, state: Any, bias: Any) -> None:
    hidden = len(state)
    r_and_z, n, own = gates[: 2 * hidden], gates[2 * hidden : 3 * hidden], gates[3 * hidden :]
    r_and_z += product[: 2 * hidden]
    sigmoid_(r_and_z)
    if bias is None:
        own[...] = product[2 * hidden :]
    else:
        np.add(product[2 * hidden :], bias, own)
    room = product[:hidden]
    np.multiply(gates[:hidden], own, room)
    n += room
    np.tanh(n, n)
    np.subtract(state, n, room)
    room *= gates[hidden : 2 * hidden]
    np.add(n, room, state)


def gru_backward(d: Any, gates: Any, dh: Any, before: Any, room: Any) -> Any:
    one, hidden = NUMBERS[d.dtype][1], len(dh)
    r, z, n, own = gates.reshape(4, *dh.shape)
    dn, dr, dz, down = d.reshape(4, *dh.shape)
    slopes, t, u = room[: 2 * hidden], room[2 * hidden : 3 * hidden], room[3 * hidden : 4 * hidden]
    np.multiply(gates[: 2 * hidden], gates[: 2 * hidden], slopes)
    np.subtract(gates[: 2 * hidden], slopes, slopes)
    np.subtract(before, n, dz)
    dz *= dh
    dz *= slopes[hidden:]
    np.multiply(n, n, u)
    np.subtract(one, u, u)
    np.subtract(one, z, t)
    t *= dh
    np.multiply(t, u, dn)
    np.multiply(dn, own, dr)
    dr *= slopes[:hidden]
    np.multiply(dn, r, down)
    return np.multiply(dh, z, t)


def as_it_is(a: Any) -> Any:
    return a


class Cell(NamedTuple):
    """One step and its gradient, in place.

    Attributes
    ----------
    gates, kept, slopes : int
        Multiples of H: rows of the weights; rows kept for the gradient; rows of the gradient at the gates, of which the first `gates`
        are for the input's weights and the last `gates` for the state's.
    forward, backward : callable
    order, order_back : callable
        The rows of the input's weight as they stand in that gradient, and back.
    """

    gates: int
    kept: int
    slopes: int
    forward: Callable[..., None]
    backward: Callable[..., Any]
    order: Callable[[Any], Any] = as_it_is
    order_back: Callable[[Any], Any] = as_it_is


CELLS = {
    "RNN_TANH": Cell(1, 1, 1, tanh_forward, tanh_backward),
    "RNN_RELU": Cell(1, 1, 1, relu_forward, relu_backward),
    "LSTM": Cell(4, 4, 4, lstm_forward, lstm_backward),
    # the new gate's gradient is another one for the input's weights than for the state's: it stands first and last
    "GRU": Cell(
        3, 4, 4, gru_forward, gru_backward,
        lambda w: np.roll(w, len(w) // 3, axis=0),
        lambda w: np.roll(w, -(len(w) // 3), axis=0),
    ),
}  # fmt: skip
