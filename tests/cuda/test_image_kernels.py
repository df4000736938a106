"""Our kernels for pooling and batch normalization, compiled for the host: against the plain kernels in float64."""

import itertools
from importlib import import_module

import ml_dtypes
import numpy as np
import pytest

from disttorch.backend.cpu import cpu
from disttorch.backend.kernels import PLAIN
from tests import stand_in
from tests.stand_in import host_cuda
from tests.stand_in.session import tensors

pytestmark = pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available()))

TOLERANCE = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 2e-6, "float64": 1e-14}


@pytest.fixture(scope="module")
def cuda():
    with tensors():
        yield import_module("disttorch.backend.cuda.world").cuda


@pytest.fixture(scope="module")
def cupy(cuda):
    return import_module("cupy")


def numbers(shape, dtype, seed=0):
    values = np.random.default_rng(seed).standard_normal(shape)
    return values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def wide(a):
    return None if a is None else a.astype(np.float64)


def close(found, expected, tolerance):
    assert found.shape == expected.shape
    limit = tolerance * max(1, np.abs(expected[np.isfinite(expected)]).max(initial=0))
    np.testing.assert_allclose(wide(found.get()), expected, rtol=tolerance, atol=limit)


def launched_only(launched, *names):
    assert set(launched) == set(names), launched


# --- pooling ----------------------------------------------------------------------------------------------------------------

#: input, kernel, stride, padding, dilation, ceil_mode
POOLS = {
    "one dimension": ((2, 3, 11), (3,), (2,), (1,), (1,), False),
    "two": ((2, 3, 6, 7), (2, 3), (2, 2), (1, 0), (1, 1), False),
    "overlapping": ((2, 2, 9, 8), (3, 3), (2, 1), (1, 1), (1, 1), False),
    "overhanging": ((1, 2, 7, 8), (3, 2), (2, 3), (1, 0), (1, 1), True),
    "dilated": ((1, 2, 9, 10), (3, 2), (2, 1), (1, 1), (2, 3), False),
    "dilated beyond the padding": ((1, 1, 5, 5), (4, 4), (1, 1), (2, 2), (1, 1), True),
    "gaps": ((1, 2, 9, 9), (1, 2), (3, 4), (0, 0), (1, 1), True),
    "three": ((2, 2, 5, 4, 6), (2, 3, 2), (1, 2, 2), (1, 1, 0), (1, 1, 1), True),
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", POOLS)
def test_max_pool(cuda, cupy, case, dtype):
    x_shape, *window = POOLS[case]
    x = numbers(x_shape, dtype)
    with stand_in.calls() as launched:
        out, indices = cuda.max_pool(cupy.asarray(x), *window)
    launched_only(launched, "max_pool", "copy_from_host")
    wanted, at = PLAIN["max_pool"](cpu, wide(x), *window)
    assert out.dtype == x.dtype
    assert indices.dtype == np.int64
    close(out, wanted, 0)
    np.testing.assert_array_equal(indices.get(), at)
    g = numbers(out.shape, dtype, 1)
    gx = cuda.max_pool_backward(cupy.asarray(g), indices, x_shape)
    assert gx.dtype == x.dtype
    close(gx, PLAIN["max_pool_backward"](cpu, wide(g), at, x_shape), TOLERANCE[dtype])


@pytest.mark.parametrize("values", [[1, 1, 1, 0], [np.nan, 1, np.nan, 2], [-np.inf] * 4, [0.0, -0.0, 0.0, -0.0]], ids=str)
@pytest.mark.parametrize("dilation", [1, 2])
def test_equal_maxima_and_no_numbers(cuda, cupy, values, dilation):
    x = np.array(values, "f").reshape(1, 1, 4)
    window = ((3,), (1,), (1,), (dilation,), dilation == 1)
    for found, wanted in zip(cuda.max_pool(cupy.asarray(x), *window), PLAIN["max_pool"](cpu, x, *window)):
        np.testing.assert_array_equal(found.get(), wanted)


def test_the_same_sums_every_time_by_choice(cuda, cupy):
    import disttorch

    g, at = np.float32([1e8, 1, -1e8, 1]).reshape(1, 1, 4), np.zeros((1, 1, 4), np.int64)
    disttorch.use_deterministic_algorithms(True)
    try:
        with host_cuda.schedule(7):
            found = cuda.max_pool_backward(cupy.asarray(g), cupy.asarray(at), (1, 1, 3))
    finally:
        disttorch.use_deterministic_algorithms(False)
    assert found.get().tolist() == [[[1, 0, 0]]]  # added up in order: 1e8 + 1 is 1e8 in float32


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", [c for c, w in POOLS.items() if set(w[4]) == {1}])
@pytest.mark.parametrize(("padding_counts", "divisor"), [(True, None), (False, None), (True, 5), (True, -3)])
def test_avg_pool(cuda, cupy, case, dtype, padding_counts, divisor):
    x_shape, kernel, stride, padding, _, ceil_mode = POOLS[case]
    rest = (kernel, stride, padding, ceil_mode, padding_counts, divisor)
    x = numbers(x_shape, dtype)
    with stand_in.calls() as launched:
        out = cuda.avg_pool(cupy.asarray(x), *rest)
    launched_only(launched, "avg_pool", "copy_from_host")
    close(out, PLAIN["avg_pool"](cpu, wide(x), *rest), TOLERANCE[dtype])
    g = numbers(out.shape, dtype, 1)
    gx = cuda.avg_pool_backward(cupy.asarray(g), x_shape, *rest)
    assert out.dtype == gx.dtype == x.dtype
    close(gx, PLAIN["avg_pool_backward"](cpu, wide(g), x_shape, *rest), TOLERANCE[dtype])


def test_pools_that_go_the_plain_way(cuda, cupy):
    window = ((2,), (2,), (0,), (1,), False)
    out, at = cuda.max_pool(cupy.asarray(np.array([[[3, 1, 2, 2]]])), *window)
    assert (out.get().tolist(), at.get().tolist()) == ([[[3, 2]]], [[[0, 2]]])
    out, at = cuda.max_pool(cupy.ones((0, 2, 4), "f"), *window)
    assert out.shape == at.shape == (0, 2, 2)
    assert cuda.max_pool_backward(out, at, (0, 2, 4)).shape == (0, 2, 4)
    with pytest.raises(RuntimeError, match="at most half the kernel"):
        cuda.max_pool(cupy.ones((1, 1, 4), "f"), (2,), (1,), (2,), (1,), False)
    with pytest.raises(RuntimeError, match="the pool's output has the shape"):
        cuda.avg_pool_backward(cupy.ones((1, 1, 4), "f"), (1, 1, 4), (2,), (2,), (0,), False, True, None)


# --- batch normalization ----------------------------------------------------------------------------------------------------


def in_order(cupy, a):
    return cupy.asarray(a)


def channels_last(cupy, a):
    return cupy.moveaxis(cupy.asarray(np.ascontiguousarray(np.moveaxis(a, 1, -1))), -1, 1)


def with_gaps(cupy, a):
    return cupy.asarray(np.repeat(a, 2, -1))[..., ::2]


SHAPES = [(5, 3), (4, 40), (300, 7), (2, 3, 9), (3, 5, 8, 8), (20, 2, 7, 7), (1, 70, 4, 4), (2, 2, 3, 4, 8), (2, 1, 5, 5), (300, 2, 16)]
#: all shapes in all layouts of one type, and two shapes of the others
CASES = [
    *((shape, "float32", place) for shape in SHAPES for place in (in_order, channels_last, with_gaps)),
    *((shape, dtype, place) for shape in SHAPES[3:5] for dtype in TOLERANCE for place in (in_order, channels_last) if dtype != "float32"),
]


@pytest.mark.parametrize(("shape", "dtype", "place"), CASES, ids=lambda a: getattr(a, "__name__", str(a)))
def test_batch_norm(cuda, cupy, shape, dtype, place):
    x, g = numbers(shape, dtype, 1) + numbers((1,), dtype, 5), numbers(shape, dtype, 2)
    weight, bias = numbers(shape[1:2], dtype, 3), numbers(shape[1:2], dtype, 4)
    on_device, above = place(cupy, x), place(cupy, g)
    mean, var = cuda.batch_norm_stats(on_device)
    wanted_mean, wanted_var = PLAIN["batch_norm_stats"](cpu, wide(x))
    tolerance = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 1e-5, "float64": 1e-12}[dtype]
    assert mean.dtype == var.dtype == (np.float64 if dtype == "float64" else np.float32)
    for found, wanted in ((mean, wanted_mean), (var, wanted_var)):
        close(found, wanted, 1e-12 if dtype == "float64" else 1e-5)
    rstd = 1 / (var + 1e-5) ** 0.5
    wanted_rstd = 1 / np.sqrt(wanted_var + 1e-5)
    w, b = cupy.asarray(weight), cupy.asarray(bias)
    for scale, shift in ((w, b), (w, None), (None, None)):
        out = cuda.batch_norm(on_device, scale, shift, mean, rstd)
        given = (None if scale is None else wide(weight), None if shift is None else wide(bias))
        close(out, PLAIN["batch_norm"](cpu, wide(x), *given, wanted_mean, wanted_rstd), tolerance)
    assert out.dtype == x.dtype
    if place is not with_gaps and x.ndim > 2 and shape[1] > 1:
        assert out.strides == on_device.strides
    for scale in (w, None):
        found = cuda.batch_norm_backward(above, on_device, scale, mean, rstd)
        wanted = PLAIN["batch_norm_backward"](
            cpu, wide(g), wide(x), None if scale is None else wide(weight), wanted_mean, wanted_rstd
        )
        for ours, theirs in zip(found, wanted):
            close(ours, theirs, tolerance)
        assert found[0].dtype == x.dtype
        assert found[1].dtype == found[2].dtype == (mean.dtype if scale is None else w.dtype)


def test_a_variance_does_not_cancel(cuda, cupy):
    x = (np.random.default_rng(0).standard_normal((40, 2, 300)) + 1000).astype("f")
    for place in (in_order, channels_last):
        close(cuda.batch_norm_stats(place(cupy, x))[1], wide(x).var((0, 2)), 1e-5)


@pytest.mark.parametrize(("dtype", "of_weights"), list(itertools.product(["float16", "bfloat16"], ["float32", "float16"])))
def test_weights_and_statistics_of_other_types(cuda, cupy, dtype, of_weights):
    x = numbers((3, 4, 5), dtype)
    weight, bias, mean, var = (np.abs(numbers((4,), of_weights, i)) + np.ones(1, of_weights) for i in range(4))
    found = cuda.batch_norm(cupy.asarray(x), *(cupy.asarray(a) for a in (weight, bias, mean, var)))
    assert found.dtype == x.dtype
    close(found, PLAIN["batch_norm"](cpu, wide(x), *map(wide, (weight, bias, mean, var))), 3e-2)


@pytest.mark.parametrize("seed", [1, 5])
def test_the_order_of_threads_does_not_matter(cuda, cupy, seed):
    x, g = cupy.asarray(numbers((9, 3, 50), "float32")), cupy.asarray(numbers((9, 3, 50), "float32", 1))
    mean, var = cuda.batch_norm_stats(x)
    found = cuda.batch_norm_backward(g, x, None, mean, var)
    with host_cuda.schedule(seed):
        again = cuda.batch_norm_stats(x)
        assert all((a == b).all() for a, b in zip((mean, var), again))
        assert all((a == b).all() for a, b in zip(found, cuda.batch_norm_backward(g, x, None, mean, var)))


def test_nothing_and_integers_go_the_plain_way(cuda, cupy):
    assert cuda.batch_norm(cupy.ones((0, 3), "f"), None, None, cupy.ones(3, "f"), cupy.ones(3, "f")).shape == (0, 3)
    assert cuda.batch_norm_stats(cupy.asarray(np.array([[1, 2], [3, 4]])))[0].get().tolist() == [2, 3]
