"""Factorizations that NumPy lacks, against LAPACK through SciPy."""

import numpy as np
import pytest
import scipy.linalg
from scipy.linalg import lapack

from disttorch.backend import cpu

DTYPES = ["float32", "float64", "complex64", "complex128"]


@pytest.fixture
def xp():
    """There is one implementation, which writes into arrays of its own and so asks for a whole backend."""
    return cpu


def made(rng, shape, dtype):
    a = rng.normal(size=shape)
    return (a + 1j * rng.normal(size=shape) if dtype.startswith("complex") else a).astype(dtype)


def close(found, expected, dtype):
    tolerance = 2e-3 if dtype in ("float32", "complex64") else 1e-9
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (70, 70), (40, 70), (70, 40)])
def test_lu_is_lapacks(xp, rng, shape, dtype):
    a = np.stack([made(rng, shape, dtype) for _ in range(2)])
    lu, pivots, info = xp.lu_factor(a)
    (getrf,) = lapack.get_lapack_funcs(("getrf",), (a,))
    assert lu.dtype == a.dtype and pivots.dtype == info.dtype == np.int32 and not info.any()
    for i in range(2):
        expected, swaps, _ = getrf(a[i])
        close(lu[i], expected, dtype)
        assert (pivots[i] == swaps + 1).all()
    order, back = (xp.permutation(pivots, shape[0], inverse) for inverse in (False, True))
    n, k = shape[0], min(shape)
    for i in range(2):
        lower = np.tril(lu[i][:, :k], -1) + np.eye(n, k)
        close(lower @ np.triu(lu[i][:k]), a[i][order[i]], dtype)
        assert (order[i][back[i]] == np.arange(n)).all()


def test_lu_of_a_singular_matrix(xp):
    a = np.array([[[1.0, 2], [2, 4]], [[0, 0], [0, 0]], [[1, 2], [3, 4]]])
    lu, _, info = xp.lu_factor(a)
    assert info.tolist() == [2, 1, 0] and np.isfinite(lu).all()
    assert [x.shape for x in xp.lu_factor(np.zeros((0, 2, 3)))] == [(0, 2, 3), (0, 2), (0,)]
    assert [x.shape for x in xp.lu_factor(np.zeros((2, 0, 3)))] == [(2, 0, 3), (2, 0), (2,)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 5, 80])
@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("unit", [False, True])
def test_solve_triangular(xp, rng, upper, unit, n, dtype):
    a = made(rng, (n, n), dtype) / n + np.eye(n, dtype=dtype)
    b = made(rng, (3, n, 2), dtype)
    found = xp.solve_triangular(a, b, upper, unit)
    assert found.dtype == a.dtype
    for i in range(3):
        close(found[i], scipy.linalg.solve_triangular(a, b[i], lower=not upper, unit_diagonal=unit), dtype)
    close(xp.solve_triangular(a.T, b, not upper, unit)[0], scipy.linalg.solve_triangular(a.T, b[0], lower=upper, unit_diagonal=unit), dtype)


@pytest.mark.parametrize(("dtype", "hermitian"), [(d, False) for d in DTYPES] + [("complex64", True), ("complex128", True)])
@pytest.mark.parametrize("n", [1, 2, 6, 30])
def test_ldl_is_lapacks(xp, rng, n, dtype, hermitian):
    a = made(rng, (2, n, n), dtype)
    a = a + (a.conj() if hermitian else a).swapaxes(-1, -2)
    a[1] *= 1 - np.eye(n)  # a zero diagonal needs blocks of two
    ld, pivots, info = xp.ldl_factor(a, hermitian)
    (sytrf,) = lapack.get_lapack_funcs(("hetrf" if hermitian else "sytrf",), (a,))
    for i in range(2):
        expected, swaps, code = sytrf(a[i], lower=1)
        assert pivots[i].tolist() == np.where(swaps >= 0, swaps + 1, swaps).tolist() or (pivots[i] == swaps).all()
        close(np.tril(ld[i]), np.tril(expected), dtype)
        assert info[i] == code
    if n > 1:
        b = made(rng, (2, n, 3), dtype)
        x = xp.ldl_solve(ld, pivots, b, hermitian)
        close(x, np.linalg.solve(a, b), dtype)


def test_ldl_of_zero(xp):
    assert xp.ldl_factor(np.zeros((2, 3, 3)), False)[2].tolist() == [1, 1]
    assert [x.shape for x in xp.ldl_factor(np.zeros((2, 0, 0)), False)] == [(2, 0, 0), (2, 0), (2,)]


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 30.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_matrix_exp(xp, rng, dtype, scale):
    a = np.stack([made(rng, (6, 6), dtype), 1e-2 * made(rng, (6, 6), dtype)]) * np.dtype(dtype).type(scale)
    found = xp.matrix_exp(a)
    assert found.dtype == a.dtype
    for i in range(2):
        expected = scipy.linalg.expm(a[i].astype("complex128"))
        tolerance = (1e-6 if dtype in ("float32", "complex64") else 1e-12) * max(1, scale)
        assert np.abs(found[i] - expected).max() <= tolerance * np.abs(expected).max()


def test_matrix_exp_of_nan_is_nan(xp):
    assert np.isnan(xp.matrix_exp(np.full((2, 2), np.nan))).all()
    assert xp.matrix_exp(np.zeros((3, 0, 0))).shape == (3, 0, 0)


def test_cholesky_says_which_minor_is_not_positive(xp, rng):
    a = made(rng, (3, 5, 5), "complex128")
    a = a @ a.conj().swapaxes(-1, -2) + np.eye(5)
    lower, info = xp.cholesky(a)
    close(lower @ lower.conj().swapaxes(-1, -2), a, "float64")
    assert not info.any()
    a[1, 3, 3] = -1
    again, info = xp.cholesky(a)
    assert info.tolist() == [0, 4, 0]
    close(again[[0, 2]], lower[[0, 2]], "float64")


def test_solving_with_a_singular_matrix_of_a_batch(xp):
    a = np.stack([np.eye(2), np.zeros((2, 2))])
    x, info = xp.solve(a, np.ones((2, 1)))
    assert info.tolist() == [0, 1] and x[0].tolist() == [[1.0], [1.0]] and not np.isfinite(x[1]).any()
    x, info = xp.inv(a)
    assert info.tolist() == [0, 1] and x[0].tolist() == np.eye(2).tolist()


@pytest.mark.parametrize(("n", "hop"), [(4, 4), (5, 2), (6, 9), (3, 1)])
def test_overlap_add_is_transposed_to_frames(xp, rng, n, hop):
    x = rng.normal(size=(2, 23))
    frames = xp.frames(x, n, hop)
    assert (frames[1, 1] == x[1, hop : hop + n]).all()
    g = rng.normal(size=frames.shape)
    np.testing.assert_allclose((frames * g).sum(), (x * xp.overlap_add(g, hop, 23)).sum())
