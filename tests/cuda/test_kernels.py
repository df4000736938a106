"""Our own CUDA kernels, compiled for the host and run on the stand-in, against the plain kernels in float64.

Each runs twice, with the threads of its blocks in opposite orders: the results are the same bits, or a barrier is missing.
"""

import copy
import math
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest

import disttorch
from disttorch.backend import cpu
from disttorch.backend.kernels import PLAIN
from tests import stand_in
from tests.stand_in import host_cuda

pytestmark = pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available()))

TYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
#: the distance from 1 to the next number
LAST_PLACE = {np.float16: 2.0**-10, ml_dtypes.bfloat16: 2.0**-7, np.float32: 2.0**-23, np.float64: 2.0**-52}


@pytest.fixture(autouse=True)
def cupy():
    with stand_in.installed() as module:
        yield module


@pytest.fixture
def cuda(cupy):
    from disttorch.backend.cuda import cuda

    return cuda


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def map_arrays(function, value):
    """A structure with a function applied to the arrays in it."""
    if isinstance(value, list | tuple):
        return type(value)(map_arrays(function, v) for v in value)
    return function(value) if isinstance(value, np.ndarray) else value


def in_float64(a):
    return a.astype(np.float64) if a.dtype.kind in "fV" and a.dtype != bool else a


@dataclass
class Case:
    """A kernel, its arguments, and what it launches."""

    name: str
    launches: str
    parts: tuple  # arguments, or functions of a random generator and the dtype that make them
    factor: float = 4  # of the last place

    def __str__(self):
        return f"{self.name}-{self.launches}"


def normal(*shape, scale=1.0):
    return lambda rng, dtype: (rng.normal(size=shape) * scale).astype(dtype)


def made(parts, rng, dtype):
    return [made(p, rng, dtype) if isinstance(p, list) else p(rng, dtype) if callable(p) else p for p in parts]


def case(name, launches, *parts, factor=4):
    return Case(name, launches, parts, factor)


def integers(low, high, *shape, dtype=np.int64):
    return lambda rng, _: rng.integers(low, high, shape).astype(dtype)


def probabilities(*shape, axis=-1):
    def make(rng, dtype):
        e = np.exp(rng.normal(size=shape))
        return (e / e.sum(axis, keepdims=True)).astype(dtype)

    return make


def logarithms(*shape, axis=-1):
    return lambda rng, dtype: np.log(probabilities(*shape, axis=axis)(rng, np.float64)).astype(dtype)


def statistics(*shape):
    """Means or reciprocals of deviations, which are float32 for half types."""
    return lambda rng, dtype: rng.uniform(0.5, 1.5, shape).astype(np.float64 if dtype == np.float64 else np.float32)


CASES = [
    # rows of a warp, of a block, not of whole packs; columns
    *[
        case("softmax", kernel, normal(*shape, scale=3.0), axis)
        for kernel, shape, axis in [
            ("softmax_rows", (5, 7), 1), ("softmax_rows", (3, 4, 64), -1), ("softmax_rows", (3, 2000), 1), ("softmax_rows", (2, 2049), 1),
            ("softmax_rows", (6,), 0), ("softmax_columns", (4, 7), 0), ("softmax_columns", (3, 40, 37), 1),
            ("softmax_columns", (2, 3, 2, 64), 2),
        ]
    ],
    *[
        case("log_softmax", kernel, normal(*shape, scale=3.0), axis, factor=6)
        for kernel, shape, axis in [
            ("log_softmax_rows", (5, 7), 1), ("log_softmax_rows", (3, 4096), 1), ("log_softmax_columns", (3, 40, 37), 1)
        ]
    ],
    *[
        case("softmax_backward", kernel, normal(*shape), probabilities(*shape, axis=axis), axis)
        for kernel, shape, axis in [
            ("softmax_rows_backward", (5, 7), 1), ("softmax_rows_backward", (3, 1200), 1), ("softmax_columns_backward", (3, 40, 37), 1)
        ]
    ],
    *[
        case("log_softmax_backward", kernel, normal(*shape), logarithms(*shape, axis=axis), axis, factor=16)
        for kernel, shape, axis in [
            ("log_softmax_rows_backward", (5, 7), 1), ("log_softmax_rows_backward", (3, 1200), 1),
            ("log_softmax_columns_backward", (3, 40, 37), 1),
        ]
    ],
    *[
        case("layer_norm", "layer_norm", normal(*shape), *affine, ndim, 1e-5)
        for shape, affine, ndim in [
            ((5, 7), (normal(7), normal(7)), 1), ((3, 4, 16), (normal(4, 16), None), 2), ((2, 3000), (None, None), 1),
            ((70, 24), (normal(24), normal(24)), 1),
        ]
    ],
    *[
        case("layer_norm_backward", "norm_backward", normal(*s), normal(*s), weight, statistics(*kept), statistics(*kept), ndim, factor=32)
        for s, weight, kept, ndim in [
            ((5, 7), normal(7), (5, 1), 1), ((3, 4, 16), None, (3, 1, 1), 2), ((70, 24), normal(24), (70, 1), 1),
            ((3, 7000), normal(7000), (3, 1), 1),
        ]
    ],
    *[
        case("rms_norm", "rms_norm", normal(*shape), weight, 1, 1e-5)
        for shape, weight in [((5, 7), normal(7)), ((2, 3000), None), ((70, 24), normal(24))]
    ],
    *[
        case("rms_norm_backward", "norm_backward", normal(*shape), normal(*shape), weight, statistics(shape[0], 1), 1, factor=32)
        for shape, weight in [((5, 7), normal(7)), ((70, 24), normal(24)), ((3, 13000), None)]
    ],
    *[case("gelu", "forward", normal(*shape, scale=2.0), kind, factor=16) for shape in [(5,), (3, 1000)] for kind in ("none", "tanh")],
    *[
        case("gelu_backward", "backward", normal(*shape), normal(*shape, scale=2.0), kind, factor=16)
        for shape in [(5,), (3, 1000)]
        for kind in ("none", "tanh")
    ],
    *[case("silu", "forward", normal(*shape, scale=2.0)) for shape in [(5,), (3, 1000)]],
    *[case("silu_backward", "backward", normal(*shape), normal(*shape, scale=2.0)) for shape in [(5,), (3, 1000)]],
    *[
        case("biased", "biased_forward", normal(*shape), normal(shape[-1]), kind)
        for shape in [(3, 7), (2, 40, 64)]
        for kind in ("none", "silu")
    ],
    *[
        case("biased_backward", "biased_backward", normal(*shape), normal(*shape), normal(shape[-1]), kind, factor=64)
        for shape in [(3, 7), (2, 40, 64)]
        for kind in ("tanh", "silu")
    ],
    *[
        case("add_rows", "sum_chunks", normal(m, width), integers(0, rows, m, dtype=kind), rows, factor=32)
        for m, width, rows, kind in [
            (1, 1, 1, np.int64), (300, 5, 3, np.int32), (100, 64, 1000, np.int64), (5000, 8, 70000, np.int64), (2500, 3, 300, np.int32)
        ]
    ],
    case("add_rows", "join_chunks", normal(400, 16), lambda rng, dtype: np.zeros(400, np.int64), 5, factor=64),
    *[
        case("total_norm", kernel, [normal(3), normal(20000), normal(0), normal(7, 9)], p, factor=32)
        for p, kernel in [(1.0, "norm_of_sizes"), (2.0, "norm_of_squares"), (3.0, "norm_of_powers"), (math.inf, "norm_of_greatest")]
    ],
    case("sum_of_squares", "squares_of_parts", normal(40, 700), factor=32),
    case("where_kept", "where_kept", normal(9, 33), lambda rng, dtype: rng.random((9, 33)) < 0.5, 1.25),
]  # fmt: skip


def flat(results):
    return [r for r in (results if isinstance(results, tuple) else (results,)) if r is not None]


@pytest.mark.parametrize("dtype", TYPES, ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_the_plain_kernel_in_float64(cupy, cuda, rng, case, dtype):
    arguments = made(case.parts, rng, dtype)
    wide = map_arrays(in_float64, arguments)
    expected = flat(cpu.add_rows(*wide) if case.name == "add_rows" else PLAIN[case.name](cpu, *wide))
    results = []
    for order in (0, 1):
        with host_cuda.schedule(order), stand_in.calls() as calls:
            results.append([cupy.asnumpy(r) for r in flat(getattr(cuda, case.name)(*map_arrays(cupy.asarray, arguments)))])
        assert case.launches in calls
    for result, again, exact in zip(*results, expected, strict=True):
        assert result.tobytes() == again.tobytes()
        exact = np.asarray(exact)
        assert result.shape == exact.shape
        last = max(LAST_PLACE[dtype], LAST_PLACE[np.float32] if result.dtype == np.float32 else 0)
        size = np.abs(exact).max(initial=0.0)
        np.testing.assert_allclose(result.astype(np.float64), exact, rtol=case.factor * last, atol=case.factor * last * size)


@pytest.mark.parametrize("dtype", TYPES, ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("rows", "classes"), [(40, 7), (3, 1504)])
def test_cross_entropy(cupy, cuda, rng, rows, classes, weighted, smoothing, dtype):
    logits, g = (rng.normal(size=s).astype(dtype) for s in ((rows, classes), rows))
    target = rng.integers(0, classes, rows)
    target[1] = -100
    weight = rng.uniform(0.5, 1.5, classes).astype(dtype) if weighted else None
    wide = map_arrays(in_float64, [logits, target, weight])
    losses, kept = PLAIN["class_losses"](cpu, *wide, -100, smoothing)
    gradient = PLAIN["class_losses_backward"](cpu, in_float64(g), wide[0], kept, *wide[1:], -100, smoothing)
    there = map_arrays(cupy.asarray, [logits, target, weight])
    with stand_in.calls() as calls:
        ours, held = cuda.class_losses(*there, -100, smoothing)
        way_back = cuda.class_losses_backward(cupy.asarray(g), there[0], held, *there[1:], -100, smoothing)
    assert {"cross_entropy_rows", "cross_entropy_rows_backward"} <= set(calls)
    assert held.size == 2 * rows
    for result, exact in ((ours, losses), (way_back, gradient)):
        result = cupy.asnumpy(result)
        assert result.dtype == dtype
        np.testing.assert_allclose(in_float64(result), exact, rtol=16 * LAST_PLACE[dtype], atol=16 * LAST_PLACE[dtype])


def test_a_target_that_is_no_class_is_seen_in_the_loss(cupy, cuda):
    logits, target = cupy.zeros((3, 4), np.float32), cupy.asarray([1, 4, -1])
    losses, kept = cuda.class_losses(logits, target, None, -100, 0.0)
    np.testing.assert_array_equal(np.isnan(cupy.asnumpy(losses)), [False, True, True])
    g = cuda.class_losses_backward(cupy.ones(3, np.float32), logits, kept, target, None, -100, 0.0)
    np.testing.assert_array_equal(np.isnan(cupy.asnumpy(g)).all(1), [False, True, True])


INF, NAN = np.inf, np.nan


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("length", [3, 8, 2048])
@pytest.mark.parametrize("row", [[-INF, -INF, -INF], [INF, 0, 0], [NAN, 0, 1], [-INF, NAN, -INF], [-INF, 0, 0], [3e38, -3e38, 0]], ids=str)
def test_rows_that_hold_infinities(cupy, cuda, row, length, axis):
    x = np.resize(np.array(row, np.float32), (2, length))
    x = x if axis else np.ascontiguousarray(x.T)
    for name in ("softmax", "log_softmax"):
        expected = PLAIN[name](cpu, x.astype(np.float64), axis).astype(np.float32)
        np.testing.assert_allclose(cupy.asnumpy(getattr(cuda, name)(cupy.asarray(x), axis)), expected, rtol=1e-6)


def test_views_and_other_types_give_what_the_plain_kernels_give(cupy, cuda, rng):
    x = rng.normal(size=(6, 8))
    there = cupy.asarray(x)
    for view in (lambda a: a.T, lambda a: a[::2, ::-1], lambda a: a[1:, 1:]):
        np.testing.assert_allclose(cupy.asnumpy(cuda.softmax(view(there), 1)), PLAIN["softmax"](cpu, view(x), 1), rtol=1e-12)
        np.testing.assert_allclose(cupy.asnumpy(cuda.gelu(view(there), "none")), PLAIN["gelu"](cpu, view(x), "none"), rtol=1e-9)
        ours, theirs = cuda.layer_norm(view(there), None, None, 1, 1e-5), PLAIN["layer_norm"](cpu, view(x), None, None, 1, 1e-5)
        np.testing.assert_allclose(cupy.asnumpy(ours[0]), theirs[0], rtol=1e-9)
        np.testing.assert_allclose(float(cuda.total_norm([view(there)], 2.0)), np.sqrt((view(x) ** 2).sum()), rtol=1e-12)
    z = x + 1j
    np.testing.assert_allclose(cupy.asnumpy(cuda.silu(cupy.asarray(z))), z / (1 + np.exp(-z)), rtol=1e-12)
    assert cuda.softmax(cupy.zeros((0, 3), np.float32), 1).shape == (0, 3)
    assert cuda.add_rows(cupy.zeros((0, 3), np.float32), cupy.zeros(0, np.int64), 4).shape == (4, 3)


def test_mixed_precision_normalization(cupy, cuda, rng):
    """Half-precision inputs with float32 weights, as models under autocast have them."""
    x, g = (rng.normal(size=(5, 32)).astype(np.float16) for _ in range(2))
    weight, bias = (rng.normal(size=32).astype(np.float32) for _ in range(2))
    with stand_in.calls() as calls:
        out, mean, rstd = cuda.layer_norm(*map_arrays(cupy.asarray, [x, weight, bias]), 1, 1e-5)
        gradients = cuda.layer_norm_backward(*map_arrays(cupy.asarray, [g, x, weight]), mean, rstd, 1)
        alone = cuda.layer_norm_backward(*map_arrays(cupy.asarray, [g, x, weight]), mean, rstd, 1, False)
    assert {"layer_norm", "norm_backward"} <= set(calls)
    exact = PLAIN["layer_norm"](cpu, in_float64(x), weight, bias, 1, 1e-5)
    expected = PLAIN["layer_norm_backward"](cpu, in_float64(g), in_float64(x), weight, exact[1], exact[2], 1)
    assert [a.dtype for a in (out, *gradients)] == [np.float16, np.float16, np.float32, np.float32]
    for ours, theirs, tolerance in zip((out, *gradients), (exact[0], *expected), (2e-3, 2e-3, 2e-5, 2e-5)):
        np.testing.assert_allclose(in_float64(cupy.asnumpy(ours)), theirs, rtol=tolerance, atol=tolerance)
    assert alone[1] is None and alone[2] is None
    np.testing.assert_array_equal(cupy.asnumpy(alone[0]), cupy.asnumpy(gradients[0]))


@pytest.mark.parametrize("value", [INF, -INF, NAN, None])
@pytest.mark.parametrize("dtype", TYPES, ids=lambda t: np.dtype(t).name)
def test_unscale(cupy, cuda, rng, dtype, value):
    # more arrays than one launch takes
    arrays = [rng.normal(size=1 + n % 7).astype(dtype) for n in range(200)] + [rng.normal(size=s).astype(dtype) for s in (0, (5, 40000))]
    if value is not None:
        arrays[-1][3, 17] = value
    there = map_arrays(cupy.asarray, arrays)
    found = cupy.zeros((), np.float32)
    with stand_in.no_synchronisation(), stand_in.calls() as calls:
        cuda.unscale_(there, cupy.full((), 0.25, np.float32), found)
    assert calls.count("unscale") == 2
    assert float(found) == (value is not None)
    for ours, before in zip(there, arrays):
        np.testing.assert_array_equal(in_float64(cupy.asnumpy(ours)), in_float64(before * dtype(0.25)))


def test_update_of_the_scale(cupy, cuda):
    state = [cupy.full((), 8.0, np.float32), cupy.zeros((), np.int32)]
    seen = []
    for found in (0, 0, 0, 1, 0):
        cuda.update_scale_(*state, cupy.full((), float(found), np.float32), 2.0, 0.5, 2)
        seen.append((float(state[0]), int(state[1])))
    assert seen == [(8, 1), (16, 0), (16, 1), (8, 0), (8, 1)]


@pytest.mark.parametrize("p", [1.0, 2.0, INF])
def test_a_norm_shows_nan(cupy, cuda, p):
    arrays = [cupy.ones(40), cupy.asarray([1.0, NAN, 2.0])]
    assert np.isnan(float(cuda.total_norm(arrays, p)))
    assert float(cuda.total_norm([cupy.asarray([1.0, -INF])], p)) == INF


def test_rows_by_numbers_that_are_none_are_left_out(cupy, cuda):
    index = cupy.asarray([0, -1, 5, 3, -9])
    np.testing.assert_array_equal(cupy.asnumpy(cuda.add_rows(cupy.ones((5, 2), np.float32), index, 4)), [[1, 1], [0, 0], [0, 0], [2, 2]])


@pytest.mark.parametrize("dtype", [np.bool_, np.float16, np.int32, np.float64, np.complex128], ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize(("shape", "axis", "length"), [((5,), 0, 7), ((3, 40), 1, 2), ((3, 4, 5), 1, 6), ((3, 4), 0, 1)])
def test_gather(cupy, cuda, rng, shape, axis, length, dtype):
    x = (rng.normal(size=shape) * 3).astype(dtype)
    index = rng.integers(-shape[axis], shape[axis], (*shape[:axis], length, *shape[axis + 1 :]))
    with stand_in.calls() as calls:
        taken = cuda.gather(cupy.asarray(x), cupy.asarray(index), axis)
    assert f"gather_{x.itemsize}" in calls
    np.testing.assert_array_equal(cupy.asnumpy(taken), np.take_along_axis(x, index, axis))


@pytest.mark.parametrize("dtype", [*TYPES, np.int8, np.int64, np.complex64], ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize("part", [np.s_[::2], np.s_[1::3], np.s_[::-1]])
def test_values_put_into_an_array_with_gaps(cupy, cuda, part, dtype):
    whole = np.arange(12).astype(dtype)
    there = cupy.asarray(whole)
    cuda.add_at(there[part], cupy.asarray([0, 1, 1, 3]), cupy.asarray([1, 2, 3, 4]).astype(dtype))
    for place, value in zip((0, 1, 1, 3), (1, 2, 3, 4)):
        whole[part][place] += np.array(value).astype(dtype)
    np.testing.assert_array_equal(cupy.asnumpy(there), whole)


def test_float16_is_added_up_in_float32(cupy, cuda):
    far = cupy.asarray([6e4, 6e4, -6e4, -6e4], np.float16)
    assert cuda.sum(far).dtype == np.float16
    assert float(cuda.sum(far)) == 0
    assert cuda.sum(cupy.broadcast_to(far, (2, 4)).copy(), 1, True).tolist() == [[0], [0]]
    assert float(cuda.prod(cupy.asarray([300, 300, 0.01, 0.01], np.float16))) == pytest.approx(9, rel=1e-2)


@pytest.mark.parametrize("dtype", TYPES, ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize("name", ["remainder", "floor_divide"])
def test_rounded_quotients_are_pythons(cupy, cuda, name, dtype):
    x = np.array([1, 1, -1, 1e4, 5, -5, 5, 0, 6, -6, 3, 0.3], dtype)
    y = np.array([0.1, -0.1, 0.1, 0.1, INF, INF, 0.7, 3, 3, 3, -2, 0.1], dtype)
    found = getattr(cuda, name)(cupy.asarray(x), cupy.asarray(y))
    assert found.dtype == dtype
    operation = {"remainder": lambda a, b: a % b, "floor_divide": lambda a, b: a // b}[name]
    wide = [operation(np.float64(a), np.float64(b)) for a, b in zip(in_float64(x), in_float64(y))]
    np.testing.assert_array_equal(cupy.asnumpy(found), np.array(wide).astype(dtype))


def test_quotients_by_zero(cupy, cuda):
    x, y = cupy.asarray([1.0, -1.0, 0.0, 2.0]), cupy.asarray([0.0, 0.0, 0.0, -0.0])
    np.testing.assert_array_equal(cupy.asnumpy(cuda.floor_divide(x, y)), [INF, -INF, np.nan, -INF])
    assert np.isnan(cupy.asnumpy(cuda.remainder(x, y))).all()


def test_remainders_of_large_integers(cupy, cuda):
    x = np.array([2**62 + 1, -(2**62) - 1, 7, -7])
    y = np.array([10, 10, -4, 4])
    np.testing.assert_array_equal(cupy.asnumpy(cuda.fmod(cupy.asarray(x), cupy.asarray(y))), np.fmod(x, y))
    np.testing.assert_array_equal(cupy.asnumpy(cuda.remainder(cupy.asarray(x), cupy.asarray(y))), x % y)


@pytest.mark.parametrize("name", ["tril", "triu"])
def test_triangles_of_half_types(cupy, cuda, name):
    for dtype in TYPES[:2]:
        a = np.arange(1, 13).reshape(3, 4).astype(dtype)
        made = getattr(cuda, name)(cupy.asarray(a).T, 1)
        assert made.dtype == dtype
        np.testing.assert_array_equal(cupy.asnumpy(made), getattr(np, name)(a.T, 1))


@pytest.mark.parametrize("activation", ["gelu", disttorch.nn.GELU("tanh"), disttorch.nn.SiLU(), disttorch.nn.functional.silu])
def test_a_transformer_layer_adds_its_bias_with_the_activation(cupy, activation):
    layer = disttorch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation=activation, batch_first=True, dtype=disttorch.float64)
    x = disttorch.randn(2, 3, 8, dtype=disttorch.float64)
    layer(x).square().sum().backward()
    there = copy.deepcopy(layer).to("cuda")
    there.zero_grad()
    with stand_in.calls() as calls:
        out = there(x.to("cuda"))
        out.square().sum().backward()
    assert {"biased_forward", "biased_backward"} <= set(calls)
    np.testing.assert_allclose(out.detach().cpu().numpy(), layer(x).detach().numpy(), rtol=1e-9)
    for ours, theirs in zip(there.parameters(), layer.parameters()):
        np.testing.assert_allclose(ours.grad.cpu().numpy(), theirs.grad.numpy(), rtol=1e-7, atol=1e-9)
    seen = []
    there.linear1.register_forward_hook(lambda module, args, result: seen.append(result.shape))
    there(x.to("cuda"))
    assert seen == [(2, 3, 16)]  # who watches the layer sees what it gives
