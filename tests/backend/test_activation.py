"""The CPU's activation kernels against the plain ones, on arrays of several blocks, and where pieces meet or numbers are extreme."""

import inspect

import ml_dtypes
import numpy as np
import pytest

from disttorch.backend.cpu_kernels import activation as fast
from disttorch.backend.kernels import PLAIN
from disttorch.backend.namespace import Namespace

ARRAYS = Namespace("cpu", np)
#: values of the parameters that kernels have
PARAMETERS = {"slope": [0.1, -0.5, 2.0], "alpha": [1.5], "scale": [1.1], "rate": [0.5], "beta": [0.7], "threshold": [0.3]}


def cases():
    for name in fast.__all__:
        names = list(inspect.signature(PLAIN[name]).parameters)[1:]
        arrays = [n for n in names if n in ("g", "x", "target")]
        values = [PARAMETERS[n] for n in names[len(arrays) :]]
        for i in range(max([len(v) for v in values], default=1)):
            yield pytest.param(name, len(arrays), [v[min(i, len(v) - 1)] for v in values], id=f"{name}-{i}")


@pytest.mark.parametrize(("name", "count", "parameters"), list(cases()))
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16], ids=str)
def test_blocks_give_what_the_plain_kernel_gives(name, count, parameters, dtype):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(scale=3, size=(70, 1001)).astype(dtype) for _ in range(count)]
    expected = PLAIN[name](ARRAYS, *arrays, *parameters)
    result = getattr(fast, name)(*arrays, *parameters)
    assert result.dtype == expected.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(result, expected)
    if count > 1:  # a mean's gradient is one number broadcast
        arrays[0] = np.broadcast_to(np.asarray(0.5, dtype), (70, 1001))
        np.testing.assert_array_equal(getattr(fast, name)(*arrays, *parameters), PLAIN[name](ARRAYS, *arrays, *parameters))
    np.testing.assert_array_equal(
        getattr(fast, name)(*(a.T for a in arrays), *parameters), PLAIN[name](ARRAYS, *(a.T for a in arrays), *parameters)
    )


INF, NAN = np.inf, np.nan
EXTREMES = [
    ("leaky_relu", [-INF, -0.0, 0.0, INF], [0.1], [-INF, 0, 0, INF]),
    ("leaky_relu", [-2.0, 0.0, 2.0], [-0.5], [1, 0, 2]),
    ("elu", [-INF, -1e5, 0.0, 1e5, INF], [2.0, 1.0, 1.0], [-2, -2, 0, 1e5, INF]),
    ("logsigmoid", [-INF, -1e5, 0.0, 1e5], [], [-INF, -1e5, -np.log(2), 0]),
    ("mish", [-1e5, 0.0, 1e5], [], [0, 0, 1e5]),
    ("hardsigmoid", [-INF, -3.0, 0.0, 3.0, INF], [], [0, 0, 0.5, 1, 1]),
    ("hardswish", [-1e5, -3.0, 0.0, 3.0, INF], [], [0, 0, 0, 3, INF]),
    ("smooth_l1", [-INF, -2.0, 0.0, 0.5, 2.0], [1.0], [INF, 1.5, 0, 0.125, 1.5]),
]
SLOPES = [
    ("leaky_relu_backward", [-INF, -1.0, 0.0, 1.0, INF], [0.1], [0.1, 0.1, 0.1, 1, 1]),
    ("elu_backward", [-INF, 0.0, 1.0, 1e5], [2.0, 3.0, 0.5], [0, 3, 3, 3]),
    ("softplus_backward", [-1e5, 0.0, 5.0, 1e5], [1.0, 4.0], [0, 0.5, 1, 1]),
    ("mish_backward", [-1e4, 0.0, 1e4], [], [0, 0.6, 1]),
    ("hardsigmoid_backward", [-INF, -3.0, 0.0, 3.0, INF], [], [0, 0, 1 / 6, 0, 0]),
    ("hardswish_backward", [-INF, -3.0, 0.0, 3.0, INF], [], [0, 0, 0.5, 1, 1]),
    ("smooth_l1_backward", [-INF, -0.5, 0.0, 1.0, INF], [2.0], [-1, -0.25, 0, 0.5, 1]),
    ("silu_backward", [-100.0, 0.0, 100.0], [], [0, 0.5, 1]),
]


@pytest.mark.parametrize(("name", "x", "parameters", "expected"), EXTREMES)
def test_extreme_values(name, x, parameters, expected):
    np.testing.assert_allclose(getattr(fast, name)(np.array(x), *parameters), expected, rtol=1e-12, atol=1e-30)
    assert np.isnan(getattr(fast, name)(np.array([NAN]), *parameters)).all()


@pytest.mark.parametrize(("name", "x", "parameters", "expected"), SLOPES)
def test_slopes_where_pieces_meet(name, x, parameters, expected):
    x = np.array(x)
    np.testing.assert_allclose(getattr(fast, name)(np.ones_like(x), x, *parameters), expected, rtol=1e-12, atol=1e-30)
