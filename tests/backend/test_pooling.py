"""Pooling and its gradients against loops over windows, and against PyTorch for its choice of maxima."""

from itertools import product
from math import prod

import ml_dtypes
import numpy as np
import pytest

TYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
LAST_PLACE = {np.float16: 2.0**-10, ml_dtypes.bfloat16: 2.0**-7, np.float32: 2.0**-23, np.float64: 2.0**-52}

# x, kernel, stride, padding, dilation, ceil_mode
CASES = [
    ((2, 3, 6, 8), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((2, 3, 7, 9), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((2, 3, 7, 9), (2, 2), (2, 2), (0, 0), (1, 1), True),
    ((2, 2, 7, 7), (3, 3), (2, 2), (1, 1), (1, 1), False),
    ((2, 2, 8, 7), (3, 3), (2, 2), (1, 1), (1, 1), True),
    ((1, 2, 9, 9), (3, 2), (1, 3), (1, 0), (2, 3), False),
    ((1, 2, 10, 8), (3, 3), (2, 2), (1, 1), (2, 2), True),
    ((2, 1, 9, 9), (2, 2), (4, 3), (0, 0), (1, 1), False),
    ((2, 1, 9, 9), (2, 2), (4, 3), (1, 1), (1, 1), True),
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0), (1, 1), False),
    ((0, 3, 4, 4), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((3, 0, 4, 4), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((1, 1, 18, 18), (17, 17), (1, 2), (3, 8), (1, 1), False),  # 289 offsets
    ((70, 40, 8, 8), (2, 2), (2, 2), (0, 0), (1, 1), False),  # several blocks
    ((2, 3, 11), (3,), (2,), (1,), (1,), True),
    ((1, 2, 5, 6, 4), (2, 3, 2), (2, 2, 1), (1, 1, 0), (1, 1, 1), False),
]
POOLS = [case for case in CASES if prod(case[0]) < 5000]


def windows(x_shape, kernel, stride, padding, dilation, ceil_mode):
    """The output's spatial shape, and for each window the input positions that it sees, from the definition."""
    shape = []
    for n, k, s, p, d in zip(x_shape[2:], kernel, stride, padding, dilation):
        room = (n + 2 * p - d * (k - 1) - 1) / s
        count = int(np.ceil(room) if ceil_mode else np.floor(room)) + 1
        shape.append(count - 1 if ceil_mode and (count - 1) * s >= n + p else count)
    seen = {}
    for at in product(*map(range, shape)):
        rays = [
            [i * s - p + j * d for j in range(k) if 0 <= i * s - p + j * d < n]
            for i, n, k, s, p, d in zip(at, x_shape[2:], kernel, stride, padding, dilation)
        ]
        seen[at] = list(product(*rays))
    return tuple(shape), seen


def maxima(x, *parameters):
    shape, seen = windows(x.shape, *parameters)
    out, indices = np.zeros(x.shape[:2] + shape), np.zeros(x.shape[:2] + shape, np.int64)
    for plane in np.ndindex(*x.shape[:2]):
        for at, positions in seen.items():
            # max takes the first of equals
            best = max(positions, key=lambda p: x[plane + p])
            out[plane + at] = x[plane + best]
            indices[plane + at] = np.ravel_multi_index(best, x.shape[2:])
    return out, indices


def numbers(rng, shape, dtype):
    """Few different values, so that many windows hold equal maxima."""
    return (rng.integers(-3, 4, shape) / 2).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", POOLS, ids=str)
def test_max_pool_takes_the_first_maximum(xp, rng, case, dtype):
    x_shape, *parameters = case
    x = numbers(rng, x_shape, dtype)
    out, indices = xp.max_pool(x, *parameters)
    exact_out, exact_indices = maxima(x.astype(np.float64), *parameters)
    assert out.dtype == dtype and indices.dtype == np.int64
    np.testing.assert_array_equal(out.astype(np.float64), exact_out)
    np.testing.assert_array_equal(indices, exact_indices)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int64])
def test_max_pool_of_integers(xp, rng, dtype):
    x = rng.integers(0, 100, (2, 2, 7, 7)).astype(dtype)
    if np.issubdtype(dtype, np.signedinteger):
        x = x - 200
    parameters = ((3, 3), (2, 2), (1, 1), (1, 1), False)
    exact_out, exact_indices = maxima(x.astype(np.float64), *parameters)
    out, indices = xp.max_pool(x, *parameters)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, exact_out)
    np.testing.assert_array_equal(indices, exact_indices)


def test_a_maximum_at_the_last_of_many_offsets(xp):
    x = np.arange(400, dtype=np.float32).reshape(1, 1, 20, 20)
    out, indices = xp.max_pool(x, (17, 17), (1, 1), (0, 0), (1, 1), False)
    np.testing.assert_array_equal(out, x[:, :, 16:, 16:])
    np.testing.assert_array_equal(indices, x[:, :, 16:, 16:])


@pytest.mark.parametrize("case", [c for c in CASES if prod(c[0][1:])], ids=str)  # PyTorch refuses zero channels
@pytest.mark.parametrize("special", [None, np.nan, np.inf, -np.inf])
def test_max_pool_agrees_with_pytorch_on_nan_and_infinity(xp, rng, case, special):
    torch = pytest.importorskip("torch", reason="needs PyTorch to compare with")
    x_shape, kernel, stride, padding, dilation, ceil_mode = case
    x = numbers(rng, x_shape, np.float32)
    if special is not None:
        # windows of nothing but minus infinity are to occur, and some without any nan
        x[rng.random(x_shape) < (0.9 if special == -np.inf else 0.2)] = special
    pool = getattr(torch.nn.functional, f"max_pool{len(kernel)}d")
    expected, where = pool(torch.tensor(x), kernel, stride, padding, dilation, ceil_mode, return_indices=True)
    out, indices = xp.max_pool(x, kernel, stride, padding, dilation, ceil_mode)
    np.testing.assert_array_equal(out, expected.numpy())
    np.testing.assert_array_equal(indices, where.numpy())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", POOLS, ids=str)
def test_gradients_go_to_the_maxima_and_are_gathered_there(xp, rng, case, dtype):
    x_shape, *parameters = case
    out, indices = maxima(numbers(rng, x_shape, np.float64), *parameters)
    g = rng.normal(size=out.shape).astype(dtype)
    exact = np.zeros((x_shape[0], x_shape[1], prod(x_shape[2:])))
    for at in np.ndindex(*g.shape):
        exact[at[:2] + (indices[at],)] += float(g[at])
    result = xp.max_pool_backward(g, indices, x_shape)
    assert result.dtype == dtype and result.shape == x_shape
    np.testing.assert_allclose(
        result.astype(np.float64).reshape(exact.shape), exact, rtol=LAST_PLACE[dtype], atol=4 * LAST_PLACE[dtype]
    )
    v = rng.normal(size=x_shape).astype(dtype)
    gathered = xp.max_pool_gather(v, indices)
    assert gathered.dtype == dtype
    flat = v.reshape(exact.shape)
    for n, c in np.ndindex(*x_shape[:2]):
        np.testing.assert_array_equal(gathered[n, c], flat[n, c][indices[n, c]])


AVERAGES = [(p, c, o) for p, c, o in product([False, True], [False, True], [None, 3]) if p or c or o]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("ceil_mode", "count_include_pad", "divisor"), AVERAGES)
@pytest.mark.parametrize(
    ("x_shape", "kernel", "stride", "padding"),
    [
        *(case[:4] for case in POOLS if max(case[4]) == 1 and not case[5] and prod(case[1]) < 100),
        ((2, 2, 7, 8), (4, 3), (3, 2), (2, 1)),
    ],
    ids=str,
)
def test_avg_pool_and_its_gradient(
    xp, rng, x_shape, kernel, stride, padding, ceil_mode, count_include_pad, divisor, dtype
):
    shape, seen = windows(x_shape, kernel, stride, padding, (1,) * len(kernel), ceil_mode)
    x, g = rng.normal(size=x_shape).astype(dtype), rng.normal(size=x_shape[:2] + shape).astype(dtype)
    out, gx = np.zeros(g.shape), np.zeros(x_shape)
    for at, positions in seen.items():
        counted = len(positions)
        if count_include_pad:
            counted = prod(
                min(i * s - p + k, n + p) - (i * s - p)
                for i, n, k, s, p in zip(at, x_shape[2:], kernel, stride, padding)
            )
        for plane in np.ndindex(*x_shape[:2]):
            out[plane + at] = sum(float(x[plane + p]) for p in positions) / (divisor or counted)
            for p in positions:
                gx[plane + p] += float(g[plane + at]) / (divisor or counted)
    parameters = (kernel, stride, padding, ceil_mode, count_include_pad, divisor)
    for result, exact in [(xp.avg_pool(x, *parameters), out), (xp.avg_pool_backward(g, x_shape, *parameters), gx)]:
        assert result.dtype == dtype
        np.testing.assert_allclose(
            result.astype(np.float64), exact, rtol=LAST_PLACE[dtype], atol=8 * LAST_PLACE[dtype]
        )


def test_larger_ones_agree_with_pytorch(xp, rng):
    torch = pytest.importorskip("torch", reason="needs PyTorch to compare with")
    x = rng.normal(size=(40, 30, 15, 17)).astype(np.float32)
    tx = torch.tensor(x, requires_grad=True)
    for pool, ours in [
        (
            lambda: torch.nn.functional.max_pool2d(tx, 3, 2, 1),
            lambda g: xp.max_pool_backward(g, xp.max_pool(x, (3, 3), (2, 2), (1, 1), (1, 1), False)[1], x.shape),
        ),
        (
            lambda: torch.nn.functional.avg_pool2d(tx, 3, 2, 1),
            lambda g: xp.avg_pool_backward(g, x.shape, (3, 3), (2, 2), (1, 1), False, True, None),
        ),
    ]:
        out = pool()
        g = rng.normal(size=out.shape).astype(np.float32)
        (expected,) = torch.autograd.grad(out, tx, torch.tensor(g))
        np.testing.assert_allclose(ours(g), expected.numpy(), rtol=1e-5, atol=1e-6)


def test_any_memory_order(xp, rng):
    x = numbers(rng, (6, 7, 2, 3), np.float32).transpose(2, 3, 0, 1)[:, ::-1, :, ::-1]
    kept = x.copy()
    parameters = ((2, 2), (2, 2), (0, 0), (1, 1), True)
    out, indices = xp.max_pool(x, *parameters)
    exact_out, exact_indices = maxima(x.astype(np.float64), *parameters)
    np.testing.assert_array_equal(out, exact_out)
    np.testing.assert_array_equal(indices, exact_indices)
    ones = np.broadcast_to(np.float32(1), out.shape)
    np.testing.assert_array_equal(xp.max_pool_backward(ones, indices, x.shape).sum(), out.size)
    shape = (2, 3, 3, 3)
    gx = xp.avg_pool_backward(np.broadcast_to(np.float32(1), shape), x.shape, (2, 2), (2, 2), (0, 0), False, True, None)
    np.testing.assert_array_equal(gx[0, 0], [[0.25] * 6 + [0]] * 6)
    np.testing.assert_array_equal(x, kept)


@pytest.mark.parametrize(
    ("kernel", "padding", "message"),
    [
        ((2, 2), (2, 0), r"padding must be .* at most half the kernel, but is \(2, 0\) .* size \(2, 2\)"),
        ((2, 2), (-1, 0), r"at least 0 .* \(-1, 0\)"),
        ((5, 2), (0, 0), r"kernel of size \(5, 2\) .* does not fit .* size \(4, 4\)"),
    ],
)
def test_windows_that_cannot_be_are_named(xp, kernel, padding, message):
    x = np.zeros((1, 1, 4, 4), np.float32)
    with pytest.raises(RuntimeError, match=message):
        xp.max_pool(x, kernel, (1, 1), padding, (1, 1), False)
    with pytest.raises(RuntimeError, match=message):
        xp.avg_pool(x, kernel, (1, 1), padding, False, True, None)


def test_gradients_of_the_wrong_shape_are_named(xp):
    with pytest.raises(RuntimeError, match=r"g has the shape \(1, 1, 3\) and its indices \(1, 1, 2\)"):
        xp.max_pool_backward(np.zeros((1, 1, 3), np.float32), np.zeros((1, 1, 2), np.int64), (1, 1, 4))
    with pytest.raises(RuntimeError, match=r"output has the shape \(1, 1, 2\), its gradient \(1, 1, 3\)"):
        xp.avg_pool_backward(np.zeros((1, 1, 3), np.float32), (1, 1, 4), (2,), (2,), (0,), False, True, None)
