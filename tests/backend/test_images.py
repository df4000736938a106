"""Resampling, folding, sums of rows and irregular pooling: plain and fast kernels against matrices and loops."""

from itertools import product

import ml_dtypes
import numpy as np
import pytest

from disttorch.backend import cpu
from disttorch.backend.kernels.resampling import Taps, nearest_taps, selected, smooth_taps

TYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
LAST_PLACE = {np.float16: 2.0**-10, ml_dtypes.bfloat16: 2.0**-7, np.float32: 2.0**-22, np.float64: 2.0**-51}

TABLES = [
    nearest_taps(5, 12, None, False),
    nearest_taps(12, 5, None, True),
    smooth_taps("linear", 5, 9, None, False, False),
    smooth_taps("cubic", 9, 4, None, True, False),
    smooth_taps("linear", 400, 31, None, False, True),  # too long for a matrix
    smooth_taps("lanczos", 20, 7, None, False, True),
    smooth_taps("linear", 1, 6, None, False, False),
    selected(4, [2, 1, 0, 1, 2, 3, 2]),
    selected(6, [1, 3, 5]),
    selected(3, []),
]


def matrix_of(taps):
    """The table as a matrix, entry by entry."""
    dense = np.zeros((taps.length, taps.size))
    for k, i in product(range(taps.count), range(taps.length if taps.size else 0)):
        dense[i, taps.indices[k, i]] += 1 if taps.weights is None else taps.weights[k, i]
    return dense


@pytest.mark.parametrize("taps", TABLES, ids=lambda t: f"{t.size}-{t.length}x{t.count}")
def test_tables(taps):
    np.testing.assert_array_equal(taps.matrix, matrix_of(taps))
    np.testing.assert_array_equal(matrix_of(taps.transposed), taps.matrix.T)
    np.testing.assert_array_equal(matrix_of(taps.transposed.transposed), taps.matrix)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("taps", TABLES, ids=lambda t: f"{t.size}-{t.length}x{t.count}")
@pytest.mark.parametrize("axis", [1, 2])
def test_resampling_is_a_matrix_product(xp, rng, taps, axis, dtype):
    for table in (taps, taps.transposed):
        shape = [3, 4, 5]
        shape[axis] = table.size
        x = rng.normal(size=shape).astype(dtype)
        found = xp.resample(x, ((axis, table),))
        expected = np.moveaxis(np.moveaxis(x.astype(np.float64), axis, -1) @ table.matrix.T, -1, axis)
        scale = np.abs(table.matrix).sum(1).max(initial=1) * 4
        assert found.dtype == dtype
        np.testing.assert_allclose(found.astype(np.float64), expected, rtol=LAST_PLACE[dtype], atol=LAST_PLACE[dtype] * scale)


def test_several_axes(xp, rng):
    x = rng.normal(size=(2, 6, 5, 7))
    tables = ((1, smooth_taps("cubic", 6, 9, None, False, False)), (2, nearest_taps(5, 2, None, False)), (3, selected(7, [6, 0])))
    expected = np.einsum("nabc,ia,jb,kc->nijk", x, *(t.matrix for _, t in tables))
    np.testing.assert_allclose(xp.resample(x, tables), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_, np.complex64])
def test_picking_takes_any_dtype(xp, dtype):
    x = np.array([[0, 1, 0], [1, 1, 0]]).astype(dtype)
    found = xp.resample(x, ((1, selected(3, [2, 1, 1, 0])),))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, x[:, [2, 1, 1, 0]])


def test_what_is_picked_is_a_copy(xp):
    x = np.arange(6.0).reshape(1, 6)
    found = xp.resample(x, ((1, selected(6, [1, 3, 5])),))
    found[...] = 0
    assert x.sum() == 15


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_taps_of_other_elements_do_not_see_infinities(xp, value):
    x = np.ones((2, 8))
    x[0, 3] = value
    found = xp.resample(x, ((1, smooth_taps("linear", 8, 16, None, False, False)),))
    assert np.isfinite(found[0, [0, 1, 2, 3, 4, 10, 15]]).all()
    assert not np.isfinite(found[0, 5:9]).any()
    assert np.isfinite(found[1]).all()


WINDOWS = [
    ((2, 3, 5, 6), (2, 3), (1, 1), (0, 0), (1, 1)),
    ((1, 2, 7, 6), (3, 2), (2, 1), (1, 1), (2, 3)),
    ((2, 1, 8), (3,), (1,), (2,), (2,)),
    ((1, 2, 4, 5, 3), (2, 2, 2), (1, 2, 1), (1, 0, 1), (2, 1, 1)),
    ((0, 2, 4, 4), (2, 2), (1, 1), (0, 0), (1, 1)),
]


@pytest.mark.parametrize(("shape", "kernel", "dilation", "padding", "stride"), WINDOWS)
def test_windows_as_columns_and_back(xp, rng, shape, kernel, dilation, padding, stride):
    x = rng.normal(size=shape)
    around = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    counts = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in zip(shape[2:], kernel, dilation, padding, stride)]
    expected = np.empty((shape[0], shape[1], *kernel, *counts))
    for offset, at in product(product(*map(range, kernel)), product(*map(range, counts))):
        place = tuple(o * d + i * s for o, d, i, s in zip(offset, dilation, at, stride))
        expected[(slice(None), slice(None), *offset, *at)] = around[(slice(None), slice(None), *place)]
    columns = xp.unfold_windows(x, kernel, dilation, padding, stride)
    np.testing.assert_array_equal(columns, expected.reshape(shape[0], shape[1] * np.prod(kernel), np.prod(counts)))
    g = rng.normal(size=columns.shape)
    back = xp.fold_windows(g, shape[2:], kernel, dilation, padding, stride)
    assert back.shape == shape
    np.testing.assert_allclose((back * x).sum(), (columns * g).sum(), rtol=1e-12, atol=1e-12)  # <Ax, g> = <x, A'g>


@pytest.mark.parametrize(("rows", "columns", "points", "taps"), [(5, 3, 7, 4), (1, 1, 1, 1), (300, 40, 2000, 2), (4, 0, 3, 2)])
def test_sums_of_rows(xp, rng, rows, columns, points, taps):
    xp.add_at = cpu.add_at  # the plain namespace of the tests has none
    r, w = rng.normal(size=(rows, columns)), rng.normal(size=(taps, points))
    i, g = rng.integers(0, rows, (taps, points)), rng.normal(size=(points, columns))
    close = {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(xp.weighted_rows(r, w, i), np.einsum("kp,kpc->pc", w, r[i]), **close)
    np.testing.assert_allclose(xp.row_products(g, r, i), np.einsum("pc,kpc->kp", g, r[i]), **close)
    expected = np.zeros_like(r)
    for k, p in product(range(taps), range(points)):
        expected[i[k, p]] += w[k, p] * g[p]
    np.testing.assert_allclose(xp.spread_rows(g, w, i, rows), expected, **close)


@pytest.mark.parametrize("shape", [(1,), (3,), (4,), (11,)])
def test_adaptive_maxima_find_the_first_and_nan(xp, shape):
    x = np.array([[[1.0, 5.0, 5.0, 2.0, np.nan, 3.0, np.nan]]])
    out, at = xp.adaptive_max_pool(x, shape)
    n = shape[0]
    for i in range(n):
        window = range(i * 7 // n, -(-(i + 1) * 7 // n))
        values = x[0, 0, list(window)]
        best = next((j for j in window if np.isnan(x[0, 0, j])), None)
        best = window[int(np.argmax(values))] if best is None else best
        assert at[0, 0, i] == best
        np.testing.assert_array_equal(out[0, 0, i], x[0, 0, best])
    assert at.dtype == np.int64


def test_maxima_go_back_to_their_places(xp):
    x, at = np.array([[[3.0, 4.0], [5.0, 6.0]]]), np.array([[[0, 3], [4, 1]]])
    np.testing.assert_array_equal(xp.max_unpool(x, at, (5,)), [[[3, 0, 0, 4, 0], [0, 6, 0, 0, 5]]])


def test_a_table_that_changes_nothing_says_so():
    assert selected(3, [0, 1, 2]).is_identity
    assert nearest_taps(4, 4, None, True).is_identity
    assert smooth_taps("linear", 4, 4, None, False, False).is_identity
    assert not selected(3, [0, 2, 1]).is_identity
    assert not Taps(3, np.arange(3)[None], np.full((1, 3), 2.0)).is_identity
