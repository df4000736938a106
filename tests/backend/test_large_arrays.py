"""What the CPU computes in another way where arrays are large, against NumPy in float64 or element by element."""

import numpy as np
import pytest

import disttorch
from disttorch.backend import cpu
from disttorch.backend.cpu_kernels import resampling, rows
from disttorch.backend.cpu_kernels.embedding import ROUNDS, row_sums
from disttorch.backend.cpu_kernels.indexing import BLOCK, gather
from disttorch.backend.kernels import PLAIN
from disttorch.backend.namespace import Namespace

RNG = np.random.default_rng(11)
NUMPY = Namespace("cpu", np)
FLOAT32 = np.float32


@pytest.mark.parametrize("shape", [(300, 500), (17, 1025), (70001,), (40, 5, 500), (9, 4096), (2, 9000), (5000, 65)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_sums_of_float32(shape, keepdims):
    x = RNG.random(shape).astype(FLOAT32)
    for axis in (None, -1, len(shape) - 1, (len(shape) - 1,), (-1, -2)[: len(shape)], (0,), (0, -1)[: len(shape)], ()):
        found, exact = cpu.sum(x, axis, keepdims), x.sum(axis, np.float64, keepdims=keepdims)
        assert found.shape == exact.shape and found.dtype == FLOAT32
        rounding = 1e-5 if axis == (0,) else 2e-6  # down columns NumPy adds one after the other
        np.testing.assert_allclose(found, exact, rtol=rounding)
        np.testing.assert_allclose(cpu.mean(x, axis, keepdims), x.mean(axis, np.float64, keepdims=keepdims), rtol=rounding)


def test_sums_of_infinity_and_nan():
    x = np.ones((100, 400), FLOAT32)
    x[3, 7], x[5, 8], x[6, 1], x[6, 2] = np.inf, np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(cpu.sum(x, 1)[[2, 3, 5, 6]], [400, np.inf, np.nan, np.nan])
    assert np.isnan(cpu.sum(x)) and cpu.sum(x[:5].repeat(20, 0)) == np.inf


@pytest.mark.parametrize("shape", [(50, 400), (3, 40, 500), (400, 3, 40)])
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i4"])
def test_cumsum(shape, dtype):
    x = (10 * RNG.standard_normal(shape)).astype(dtype)
    for axis in range(-len(shape), len(shape)):
        exact = x.cumsum(axis, np.float64)
        found = cpu.cumsum(x, axis)
        assert found.dtype == (dtype if dtype[0] == "f" else np.int64)
        bound = {"f2": 0.5, "f4": 1e-2, "f8": 1e-10, "i4": 0}[dtype]
        np.testing.assert_allclose(found.astype(np.float64), exact, atol=bound, rtol=1e-3 if dtype == "f2" else 0)
    np.testing.assert_array_equal(cpu.cumsum(x.T, 0), cpu.cumsum(x, len(shape) - 1).T)


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i4"])
def test_relu(dtype):
    x = (10 * RNG.standard_normal((70, 90))).astype(dtype)
    if dtype[0] == "f":
        x[0, :3] = np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(cpu.relu(x), np.maximum(x, np.zeros((), dtype)))


@pytest.mark.parametrize("count", [70, 70000])
def test_rows_summed_by_number(count):
    numbers = np.concatenate((RNG.integers(0, count, 300), [3] * (2 * ROUNDS), [5] * ROUNDS, [count - 1] * (ROUNDS - 1)))
    RNG.shuffle(numbers)
    values = RNG.standard_normal((len(numbers), 20))
    expected = np.zeros((count, 20))
    np.add.at(expected, numbers, values)
    distinct, sums = row_sums(values, numbers, count)
    assert sorted(distinct) == sorted(set(numbers.tolist()))
    np.testing.assert_allclose(sums, expected[distinct], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_gather_in_blocks(axis, dtype):
    shape = [20, 60, 50]
    x = RNG.standard_normal(shape)
    index = RNG.integers(0, shape[axis], (19, 59, 49)).astype(dtype)
    assert index.size > BLOCK
    np.testing.assert_array_equal(gather(x, index, axis), PLAIN["gather"](cpu, x, index, axis))


@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (0, 2)])
def test_one_hot(shape):
    index = RNG.integers(0, 6, shape)
    found = cpu.one_hot(np.asarray(index), 6)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, np.eye(6, dtype=int)[index])


@pytest.mark.parametrize("width", [1, 3, rows.NARROW, rows.NARROW + 1])
def test_sampled_rows(width):
    table, weights, indices = RNG.standard_normal((30, width)), RNG.standard_normal((4, 50)), RNG.integers(0, 30, (4, 50))
    g = RNG.standard_normal((50, width))
    np.testing.assert_allclose(cpu.weighted_rows(table, weights, indices), PLAIN["weighted_rows"](NUMPY, table, weights, indices))
    np.testing.assert_allclose(cpu.row_products(g, table, indices), PLAIN["row_products"](NUMPY, g, table, indices))
    expected = np.zeros((30, width))
    for k in range(4):
        np.add.at(expected, indices[k], weights[k][:, None] * g)
    np.testing.assert_allclose(cpu.spread_rows(g, weights, indices, 30), expected, atol=1e-13)


@pytest.mark.parametrize(
    "positions",
    [[0], [4, 3, 2], [1, 0, 1, 2, 3, 4, 3], [2, 2, 2], [0, 0, 1, 1, 2], [3, 4, 0, 1, 2, 3, 4, 0], [0, 2, 4], [4, 0], [1, 0, 0, 1, 4, 3]],
)
@pytest.mark.parametrize("axis", [0, 1])
def test_picked_by_slices(positions, axis):
    x = RNG.standard_normal((5, 5))
    np.testing.assert_array_equal(resampling.picked(x, np.array(positions), axis), x.take(positions, axis))


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("dtype", ["f4", "f2", "i8"])
def test_topk_of_many(largest, dtype):
    a = (100 * RNG.standard_normal((6, 900))).astype(dtype)
    if dtype[0] == "f":
        a[0, 5] = a[1, :8] = np.nan
    values, indices = disttorch.topk(disttorch.tensor(a), 5, largest=largest)
    order = np.sort(a, 1)  # NaN last
    np.testing.assert_array_equal(values.numpy(), order[:, ::-1][:, :5] if largest else order[:, :5])
    np.testing.assert_array_equal(np.take_along_axis(a, indices.numpy(), 1), values.numpy())


@pytest.mark.parametrize("dtype", ["f4", "f2", "i8", "?"])
def test_unique_with_counts(dtype):
    a = RNG.integers(0, 40, (30, 20)).astype(dtype)
    values, counts = disttorch.unique(disttorch.tensor(a), return_counts=True)
    expected, how_often = np.unique(a, return_counts=True)
    np.testing.assert_array_equal(values.numpy(), expected)
    np.testing.assert_array_equal(counts.numpy(), how_often)
