"""The error function and the activations against the C library, SciPy and float64 formulas."""

import math
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from scipy import special

TYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
LAST_PLACE = {np.float16: 2.0**-10, ml_dtypes.bfloat16: 2.0**-7, np.float32: 2.0**-23, np.float64: 2.0**-52}


def samples(dtype, largest=30.0):
    """Both tails, the middle, tiny numbers and the seams between the formulas."""
    rng = np.random.default_rng(5)
    x = np.concatenate(
        [
            np.linspace(-largest, largest, 6001),
            rng.normal(size=4000) * 2,
            rng.choice([-1, 1], 500) * 10.0 ** rng.uniform(-30, 0, 500),
            [s * math.nextafter(v, w) for s in (-1, 1) for v in (0.5, 1.0, 4.2) for w in (0, 9)],
        ]
    ).astype(dtype)
    return x[np.isfinite(x.astype(np.float64))]


def last_places(result, exact):
    """The largest error in units of the last place, of the smallest subnormal number where that is larger."""
    info = ml_dtypes.finfo(result.dtype)
    unit = np.maximum(np.abs(exact) * float(info.eps), float(info.smallest_subnormal))
    return float(np.max(np.abs(result.astype(np.float64) - exact) / unit))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("name", "exact", "bound"),
    [("erf", math.erf, {np.float32: 3.5, np.float64: 4}), ("erfc", math.erfc, {np.float64: 9})],
)
def test_error_functions_are_right_to_a_few_units_in_the_last_place(xp, name, exact, bound, dtype):
    x = samples(dtype)
    result = getattr(xp, name)(x)
    assert result.dtype == dtype and result.shape == x.shape
    assert last_places(result, np.array([exact(v) for v in x.astype(np.float64)])) <= bound.get(dtype, 0.51)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_error_functions_at_the_ends(xp, dtype):
    big = np.finfo(dtype).max
    x = np.array([0.0, -0.0, math.inf, -math.inf, math.nan, big, -big, 100], dtype)
    np.testing.assert_array_equal(xp.erf(x), np.array([0, -0.0, 1, -1, math.nan, 1, -1, 1]))
    np.testing.assert_array_equal(xp.erfc(x), np.array([1, 1, 0, 2, math.nan, 0, 2, 0]))
    assert list(np.signbit(xp.erf(x)[:2])) == [False, True]
    tiny = np.array([np.finfo(dtype).smallest_subnormal, np.finfo(dtype).tiny], dtype)
    np.testing.assert_allclose(xp.erf(tiny), tiny * 2 / math.sqrt(math.pi), atol=np.finfo(dtype).smallest_subnormal)


def test_erf_never_falls(xp):
    y = xp.erf(np.linspace(2, 12, 200001, dtype=np.float32)).astype(np.float64)
    assert all(b - a > -2.0**-22 for a, b in pairwise(y)) and y.max() <= 1


def phi(x):
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_tanh_slope(x):
    t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)


ACTIVATIONS = [
    ("sigmoid", (), special.expit),
    ("silu", (), lambda x: x * special.expit(x)),
    ("softplus", (1.0, 20.0), lambda x: np.where(x > 20, x, np.logaddexp(0, x))),
    ("softplus", (2.5, 5.0), lambda x: np.where(x * 2.5 > 5, x, np.logaddexp(0, 2.5 * x) / 2.5)),
    ("softplus", (-1.0, 20.0), lambda x: np.where(-x > 20, x, -np.logaddexp(0, -x))),
    ("gelu", ("none",), lambda x: x * special.ndtr(x)),
    ("gelu", ("tanh",), gelu_tanh),
]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("name", "parameters", "formula"), ACTIVATIONS)
def test_activations_follow_their_formulas(xp, name, parameters, formula, dtype):
    x = samples(dtype)
    result = getattr(xp, name)(x, *parameters)
    assert result.dtype == dtype
    np.testing.assert_allclose(
        result.astype(np.float64), formula(x.astype(np.float64)), rtol=4 * LAST_PLACE[dtype], atol=4 * LAST_PLACE[dtype]
    )


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("approximate", "slope"), [("none", lambda x: special.ndtr(x) + x * phi(x)), ("tanh", gelu_tanh_slope)]
)
def test_gelu_backward_is_the_derivative(xp, rng, approximate, slope, dtype):
    x = samples(dtype, 8.0)
    g = rng.normal(size=x.shape).astype(dtype)
    result = xp.gelu_backward(g, x, approximate)
    assert result.dtype == dtype
    exact, unit = g.astype(np.float64) * slope(x.astype(np.float64)), LAST_PLACE[dtype]
    np.testing.assert_allclose(result.astype(np.float64), exact, rtol=4 * unit, atol=32 * unit)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_keeps_its_relative_precision_and_never_leaves_0_to_1(xp, dtype):
    x = np.linspace(-80, 80, 4001).astype(dtype)
    np.testing.assert_allclose(xp.sigmoid(x), special.expit(x.astype(np.float64)), rtol=4 * LAST_PLACE[dtype])
    ends = np.array([-np.inf, np.finfo(dtype).min, -1000, 1000, np.finfo(dtype).max, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(xp.sigmoid(ends), [0, 0, 0, 1, 1, 1, np.nan])
    np.testing.assert_array_equal(xp.softplus(ends[3:], 1.0, 20.0), ends[3:])


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((0, 3), np.float32),
        np.float32([[1.5]]),
        np.arange(60, dtype=np.float32).reshape(3, 4, 5).transpose(2, 0, 1)[:, ::2] / 30 - 1,
        np.linspace(-3, 3, 100_001, dtype=np.float32)[::-1],
        np.array(0.25, np.float32),
    ],
    ids=lambda x: f"{x.shape}",
)
@pytest.mark.parametrize(("name", "parameters", "formula"), [("erf", (), special.erf), *ACTIVATIONS])
def test_any_shape_and_memory_order(xp, name, parameters, formula, x):
    kept = x.copy()
    result = getattr(xp, name)(x, *parameters)
    assert result.shape == x.shape
    np.testing.assert_allclose(result, formula(x.astype(np.float64)), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(x, kept)


def test_gelu_names_the_approximation_it_does_not_know(xp):
    with pytest.raises(RuntimeError, match="'none' or 'tanh', got 'sigmoid'"):
        xp.gelu(np.ones(2, np.float32), "sigmoid")
    with pytest.raises(RuntimeError, match="got ''"):
        xp.gelu_backward(np.ones(2, np.float32), np.ones(2, np.float32), "")
