"""Scans and extremes with indices: plain and fast implementations against NumPy's one-pass functions."""

import numpy as np
import pytest

from disttorch.backend.cpu import cpu
from disttorch.backend.kernels import PLAIN
from disttorch.backend.namespace import Namespace

NUMPY = Namespace("cpu", np)
NUMPY.add_at = cpu.add_at
SHAPES = [((7,), 0), ((1, 5), 0), ((3, 8), 1), ((4, 1, 6), 2), ((5, 3, 2), 0), ((40, 300), 1), ((2, 0), 1)]
RNG = np.random.default_rng(9)


def draw(shape, dtype="float64"):
    a = RNG.integers(-9, 9, shape).astype(dtype)
    if a.dtype.kind == "f" and a.size > 4:
        a.reshape(-1)[3] = np.nan
    return a


def both(name):
    return [lambda *a: PLAIN[name](NUMPY, *a), getattr(cpu, name)]


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64"])
def test_running_extremes(shape, axis, dtype):
    a = draw(shape, dtype)
    for name, ufunc in (("cumulative_maximum", np.maximum), ("cumulative_minimum", np.minimum)):
        for function in both(name):
            np.testing.assert_array_equal(function(a, axis), ufunc.accumulate(a, axis))


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_running_logsumexp(shape, axis):
    a = RNG.normal(size=shape) * 30
    for function in both("logcumsumexp"):
        np.testing.assert_allclose(function(a, axis), np.logaddexp.accumulate(a, axis), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_recurrence(shape, axis):
    a, b = RNG.uniform(-1, 1, shape), RNG.normal(size=shape)
    expected, last = np.zeros(shape), 0.0
    for i in reversed(range(shape[axis])):
        at = (slice(None),) * axis + (i,)
        expected[at] = last = b[at] + a[at] * last
    np.testing.assert_allclose(PLAIN["suffix_recurrence"](NUMPY, a, b, axis), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(("shape", "axis"), SHAPES[:-1])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64"])
def test_extremes_with_indices(shape, axis, dtype, keepdims):
    a = draw(shape, dtype)
    for name, value, place in (("max_with_index", np.max, np.argmax), ("min_with_index", np.min, np.argmin)):
        for function in both(name):
            values, index = function(a, axis, keepdims)
            np.testing.assert_array_equal(values, value(a, axis, keepdims=keepdims))
            np.testing.assert_array_equal(index, place(a, axis, keepdims=keepdims))


@pytest.mark.parametrize(("shape", "axis"), SHAPES[:-1])
def test_put_chosen(shape, axis):
    order = RNG.permuted(np.broadcast_to(np.arange(shape[axis]).reshape((-1,) + (1,) * (len(shape) - 1 - axis)), shape), axis=axis)
    for count in {1, (shape[axis] + 1) // 2, shape[axis]}:
        index = order[(slice(None),) * axis + (slice(0, count),)]
        source = RNG.normal(size=index.shape)
        expected = np.zeros(shape)
        np.put_along_axis(expected, index, source, axis)
        for function in both("put_chosen"):
            np.testing.assert_array_equal(function(source, index, shape, axis), expected)


@pytest.mark.parametrize("name", ["lgamma", "digamma", "erfinv", "i0", "bessel_j1", "airy_ai", "log_ndtr", "erfcx", "k1e"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_special_functions_block_by_block(name, dtype):
    x = RNG.uniform(0.01, 0.99, (3, 30000)).astype(dtype)
    plain = PLAIN[name](NUMPY, x)
    assert plain.dtype == dtype
    np.testing.assert_array_equal(getattr(cpu, name)(x), plain)
    assert getattr(cpu, name)(x[:0]).shape == (0, 30000)
