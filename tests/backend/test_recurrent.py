"""Recurrent layers against their formulas, one sequence and one step at a time in float64; and the fast kernels against the plain."""

import ml_dtypes
import numpy as np
import pytest

from disttorch.backend import cpu
from disttorch.backend.namespace import Namespace

PLAIN = Namespace("cpu", np)
GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}
# one step, one sequence, lengths that shrink, and more sequences than are made lying
SIZES = [(1,), (3, 3, 3), (3, 2, 2, 1), (14, 14), (14, 13, 13, 2)]
MODES = [("RNN_TANH", False), ("RNN_RELU", False), ("LSTM", False), ("LSTM", True), ("GRU", False)]


def arguments(rng, mode, sizes, projected=False, biased=True, dtype=np.float64, features=3, hidden=5):
    rows, width, batch = GATES[mode] * hidden, 2 if projected else hidden, sizes[0]
    shapes = [(sum(sizes), features), (batch, width), (batch, hidden), (rows, features), (rows, width), (rows,), (rows,), (width, hidden)]
    made = [(rng.normal(size=s) * 0.7).astype(dtype) for s in shapes]
    absent = {2: mode != "LSTM", 5: not biased, 6: not biased, 7: not projected}
    return [None if absent.get(i) else a for i, a in enumerate(made)]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_formula(x, h, c, w_ih, w_hh, b_ih, b_hh, w_hr, mode, sizes, reverse):
    """Each sequence by itself, as PyTorch's pages write the formulas."""
    b_ih, b_hh = (np.zeros(len(w_ih)) if b is None else b for b in (b_ih, b_hh))
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    y, last_h, last_c = np.zeros((len(x), h.shape[1])), h.copy(), None if c is None else c.copy()
    for b in range(sizes[0]):
        rows = [start + b for start, n in zip(starts, sizes) if n > b]
        state, cell = h[b], None if c is None else c[b]
        for row in reversed(rows) if reverse else rows:
            a, u = w_ih @ x[row] + b_ih, w_hh @ state + b_hh
            if mode == "LSTM":
                i, f, g, o = np.split(a + u, 4)
                cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
                state = sigmoid(o) * np.tanh(cell)
                if w_hr is not None:
                    state = w_hr @ state
            elif mode == "GRU":
                (ar, az, an), (ur, uz, un) = np.split(a, 3), np.split(u, 3)
                z, n = sigmoid(az + uz), np.tanh(an + sigmoid(ar + ur) * un)
                state = (1 - z) * n + z * state
            else:
                state = np.tanh(a + u) if mode == "RNN_TANH" else np.maximum(a + u, 0)
            y[row] = state
        last_h[b] = state
        if c is not None:
            last_c[b] = cell
    return y, last_h, last_c


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(("mode", "projected"), MODES)
def test_formulas(xp, rng, mode, projected, sizes, biased, reverse):
    given = arguments(rng, mode, sizes, projected, biased)
    results = xp.recurrent(*given, mode, sizes, reverse)[:3]
    for result, exact in zip(results, by_formula(*given, mode, sizes, reverse)):
        assert (result is None) == (exact is None)
        if exact is not None:
            np.testing.assert_allclose(result, exact, rtol=1e-12, atol=1e-13)


def gradients(xp, given, above, mode, sizes, reverse):
    x, _, _, w_ih, w_hh, _, _, w_hr = given
    kept = xp.recurrent(*given, mode, sizes, reverse)[3:]
    return xp.recurrent_backward(*above, x, w_ih, w_hh, w_hr, *kept, mode, sizes, reverse, True)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sizes", [(3, 2, 2, 1), (13, 13)], ids=str)
@pytest.mark.parametrize(("mode", "projected"), MODES)
def test_gradients_are_finite_differences_of_the_formulas(xp, rng, mode, projected, sizes, reverse):
    given = arguments(rng, mode, sizes, projected, features=2, hidden=3)
    above = [None if r is None else rng.normal(size=r.shape) for r in by_formula(*given, mode, sizes, reverse)]
    found = gradients(xp, given, above, mode, sizes, reverse)

    def total(at, direction, step):
        moved = [a if i != at else a + step * direction for i, a in enumerate(given)]
        return sum(np.sum(g * r) for g, r in zip(above, by_formula(*moved, mode, sizes, reverse)) if g is not None)

    for i, (a, gradient) in enumerate(zip(given, found)):
        if a is None:
            assert gradient is None or i in (5, 6)
            continue
        assert gradient.shape == a.shape
        for _ in range(3):  # along a direction in which everything changes
            direction = rng.normal(size=a.shape)
            slope = (total(i, direction, 1e-6) - total(i, direction, -1e-6)) / 2e-6
            np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=2e-7, atol=2e-8)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float16, 2e-3), (ml_dtypes.bfloat16, 2e-2)])
@pytest.mark.parametrize(("mode", "projected"), MODES)
def test_fast_is_plain_in_every_dtype(rng, mode, projected, dtype, tolerance):
    sizes = (13, 13, 5)
    given = arguments(rng, mode, sizes, projected, dtype=dtype)
    results, exact = cpu.recurrent(*given, mode, sizes, False)[:3], PLAIN.recurrent(*given, mode, sizes, False)[:3]
    above = [None if r is None else rng.normal(size=r.shape).astype(dtype) for r in results]
    found, expected = (gradients(xp, given, above, mode, sizes, False) for xp in (cpu, PLAIN))
    for fast, plain in [*zip(results, exact), *zip(found, expected)]:
        assert (fast is None) == (plain is None)
        if plain is not None:
            assert fast.dtype == plain.dtype == dtype
            size = np.abs(plain.astype(np.float64)).max()
            np.testing.assert_allclose(fast.astype(np.float64), plain.astype(np.float64), rtol=tolerance, atol=tolerance * size)


@pytest.mark.parametrize("mode", GATES)
def test_saturated_gates_give_no_nan(xp, mode):
    given = [np.full((4, 2), 1e4), np.ones((2, 3)), np.ones((2, 3)) if mode == "LSTM" else None]
    given += [np.full((GATES[mode] * 3, n), -1e3) for n in (2, 3)] + [None, None, None]
    y, h, _, *_ = xp.recurrent(*given, mode, (2, 2), False)
    assert np.isfinite(y).all() and np.isfinite(h).all()
    above = [np.ones_like(y), np.ones_like(h), np.ones((2, 3)) if mode == "LSTM" else None]
    assert all(np.isfinite(g).all() for g in gradients(xp, given, above, mode, (2, 2), False) if g is not None)


def test_without_the_inputs_gradient_there_is_none(xp, rng):
    given = arguments(rng, "GRU", (2, 2))
    kept = xp.recurrent(*given, "GRU", (2, 2), False)
    found = xp.recurrent_backward(kept[0], kept[1], None, given[0], *given[3:5], None, *kept[3:], "GRU", (2, 2), False, False)
    assert found[0] is None and found[3] is not None


def test_what_is_given_is_left_alone(xp, rng):
    given = arguments(rng, "LSTM", (3, 2))
    before = [None if a is None else a.copy() for a in given]
    results = xp.recurrent(*given, "LSTM", (3, 2), False)
    first = [r.copy() for r in results]
    above = [np.ones_like(r) for r in results[:3]]
    args = (*above, given[0], *given[3:5], None, *results[3:], "LSTM", (3, 2), False, True)
    once, again = xp.recurrent_backward(*args), xp.recurrent_backward(*args)
    for a, b in [*zip(given, before), *zip(results, first), *zip(once, again)]:
        assert a is b is None or np.array_equal(a, b)
    assert all(np.array_equal(a, np.ones_like(a)) for a in above)
