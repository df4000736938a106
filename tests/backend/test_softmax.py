"""Softmax, log-sum-exp and cross entropy against SciPy and float64 formulas."""

import ml_dtypes
import numpy as np
import pytest
from scipy import special

TYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
LAST_PLACE = {np.float16: 2.0**-10, ml_dtypes.bfloat16: 2.0**-7, np.float32: 2.0**-23, np.float64: 2.0**-52}
SHAPES = [
    ((4, 7), -1),
    ((4, 7), 0),
    ((3, 4, 5), 1),
    ((2, 3, 4, 5), 3),
    ((1, 1), 1),
    ((6,), 0),
    ((0, 5), 1),
    ((5, 0), 1),
    ((3, 2000), 1),
    ((700, 130), -1),
]


def close(result, exact, dtype, factor=8):
    assert result.dtype == dtype
    np.testing.assert_allclose(
        result.astype(np.float64), exact, rtol=factor * LAST_PLACE[dtype], atol=factor * LAST_PLACE[dtype]
    )


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_softmax_family_and_gradients(xp, rng, shape, axis, dtype):
    x, g = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    x = (x * dtype(3)).astype(dtype)
    x64, g64 = x.astype(np.float64), g.astype(np.float64)
    p = special.softmax(x64, axis) if x.size else x64
    log_p = special.log_softmax(x64, axis) if x.size else x64
    close(xp.softmax(x, axis), p, dtype)
    close(xp.log_softmax(x, axis), log_p, dtype)
    out, log_out = p.astype(dtype), log_p.astype(dtype)
    p, log_p = out.astype(np.float64), log_out.astype(np.float64)
    close(xp.softmax_backward(g, out, axis), p * (g64 - (p * g64).sum(axis, keepdims=True)), dtype)
    total = g64.sum(axis, keepdims=True)
    factor = 8 + np.abs(g64).sum(axis).max(initial=0)
    close(xp.log_softmax_backward(g, log_out, axis), g64 - np.exp(log_p) * total, dtype, factor)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), (0, 1, 2)])
def test_logsumexp(xp, rng, axis, keepdims, dtype):
    x = (rng.normal(size=(3, 4, 5)) * 10).astype(dtype)
    exact = special.logsumexp(x.astype(np.float64), axis, keepdims=keepdims)
    result = xp.logsumexp(x, axis, keepdims)
    assert result.shape == exact.shape
    close(result, exact, dtype)


INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("row", "softmax", "log_softmax", "logsumexp"),
    [
        ([-INF, -INF, -INF], [NAN] * 3, [NAN] * 3, -INF),
        ([INF, 0, 0], [NAN] * 3, [NAN] * 3, INF),  # inf - inf stands in the sum
        ([NAN, 0, 1], [NAN] * 3, [NAN] * 3, NAN),
        ([0, 1, NAN], [NAN] * 3, [NAN] * 3, NAN),
        ([-INF, 0, 0], [0, 0.5, 0.5], [-INF, -np.log(2), -np.log(2)], np.log(2)),
        ([3e38, -3e38, 0], [1, 0, 0], [0, -INF, -3e38], 3e38),
        ([1e4, 1e4, 1e4], [1 / 3] * 3, [-np.log(3)] * 3, 1e4 + np.log(3)),
    ],
)
@pytest.mark.parametrize("axis", [0, 1])
def test_rows_that_hold_infinities(xp, row, softmax, log_softmax, logsumexp, axis):
    x = np.tile(np.array(row, np.float32), (2, 1))
    x = x if axis else x.T
    across = lambda a: a if axis else a.T  # noqa: E731
    np.testing.assert_allclose(across(xp.softmax(x, axis)), [softmax] * 2, rtol=1e-6)
    np.testing.assert_allclose(across(xp.log_softmax(x, axis)), [log_softmax] * 2, rtol=1e-6)
    np.testing.assert_allclose(xp.logsumexp(x, axis, False), [logsumexp] * 2, rtol=1e-6)


def test_logsumexp_of_nothing_is_minus_infinity(xp):
    np.testing.assert_array_equal(xp.logsumexp(np.zeros((2, 0), np.float32), 1, False), [-INF, -INF])


def by_definition(logits, target, weight, ignore_index, smoothing):
    """Losses and their gradients (N, C) sample by sample, from the formula on PyTorch's page."""
    log_p = special.log_softmax(logits, 1)
    n, classes = logits.shape
    w = np.ones(classes) if weight is None else weight
    losses, grads = np.zeros(n), np.zeros((n, classes))
    for i, t in enumerate(target):
        if t == ignore_index:
            continue
        at_log_p = -w * smoothing / classes
        at_log_p[t] -= w[t] * (1 - smoothing)
        losses[i] = at_log_p @ log_p[i]
        grads[i] = at_log_p - np.exp(log_p[i]) * at_log_p.sum()
    return losses, log_p, grads


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("n", "classes", "ignore_index"), [(9, 5, -100), (9, 5, 2), (1, 1, -100), (0, 4, -100), (4, 1500, 7), (300, 120, 0)]
)
def test_cross_entropy_and_its_gradient(xp, rng, n, classes, ignore_index, weighted, smoothing, dtype):
    logits = (rng.normal(size=(n, classes)) * 2).astype(dtype)
    target = rng.integers(0, classes, n)
    target[::4] = ignore_index
    weight = rng.uniform(0.5, 2, classes).astype(dtype) if weighted else None
    g = rng.normal(size=n).astype(dtype)
    wide = None if weight is None else weight.astype(np.float64)
    losses, log_p, grads = by_definition(logits.astype(np.float64), target, wide, ignore_index, smoothing)
    result, log_probabilities = xp.cross_entropy(logits, target, weight, ignore_index, smoothing)
    assert result.shape == (n,)
    close(result, losses, dtype, 16)
    close(log_probabilities, log_p, dtype)
    # A half type's log-probabilities are rounded: the gradient from the exact ones is what the kernel is to give.
    result = xp.cross_entropy_backward(g, log_p.astype(dtype), target, weight, ignore_index, smoothing)
    size = np.abs(log_p).max(initial=1)
    close(result, g.astype(np.float64)[:, None] * grads, dtype, 4 + 8 * size)


def test_ignored_samples_do_not_matter_whatever_they_hold(xp):
    logits = np.float32([[0, 0], [-INF, -INF], [NAN, 1]])
    target = np.array([0, -100, -100])
    losses, log_p = xp.cross_entropy(logits, target, None, -100, 0.0)
    np.testing.assert_allclose(losses, [np.log(2), 0, 0], rtol=1e-6)
    grad = xp.cross_entropy_backward(np.float32([1, NAN, 1]), log_p, target, None, -100, 0.0)
    np.testing.assert_allclose(grad, [[-0.5, 0.5], [0, 0], [0, 0]], rtol=1e-6)


def test_a_class_ruled_out_has_infinite_loss(xp):
    losses, log_p = xp.cross_entropy(np.float32([[0, -INF]]), np.array([1]), None, -100, 0.0)
    assert losses[0] == INF
    np.testing.assert_array_equal(
        xp.cross_entropy_backward(np.float32([1]), log_p, np.array([1]), None, -100, 0.0), [[1, -1]]
    )


@pytest.mark.parametrize("target", [[0, 3, 1], [0, -1, 1]])
def test_the_cpu_names_a_target_that_is_no_class(target):
    from disttorch.backend import cpu

    message = rf"target {target[1]} of sample 1 is out of bounds: with logits of shape \(3, 3\) .* from 0 to 2"
    with pytest.raises(IndexError, match=message):
        cpu.cross_entropy(np.zeros((3, 3), np.float32), np.array(target), None, -100, 0.0)


@pytest.mark.parametrize("order", ["transposed", "stepped", "reversed"])
def test_any_memory_order(xp, rng, order):
    base = rng.normal(size=(6, 8)).astype(np.float32)
    x = {"transposed": base.T, "stepped": base[::2, 1::3], "reversed": base[::-1, ::-1]}[order]
    g = np.broadcast_to(np.float32(1.5), x.shape)
    kept = x.copy()
    p, g64 = special.softmax(x.astype(np.float64), 1), g.astype(np.float64)
    np.testing.assert_allclose(xp.softmax(x, 1), p, rtol=1e-6)
    np.testing.assert_allclose(
        xp.softmax_backward(x, p.astype(np.float32), 1), p * (x - (p * x).sum(1, keepdims=True)), atol=1e-6
    )
    np.testing.assert_allclose(
        xp.log_softmax_backward(g, np.log(p).astype(np.float32), 1), g64 - p * g64.sum(1, keepdims=True), atol=1e-5
    )
    np.testing.assert_array_equal(x, kept)
