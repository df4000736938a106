"""The CPU's own way to select elements, against NumPy's: the same bits."""

import numpy as np
import pytest

from disttorch.backend import cpu
from disttorch.backend.cpu_kernels import selecting

RNG = np.random.default_rng(5)
SHAPE = (90, 500)
assert SHAPE[0] * SHAPE[1] > selecting.BLOCK  # so that there is more than one block


def same_bits(found, expected):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    unsigned = f"u{expected.itemsize}"
    np.testing.assert_array_equal(np.asarray(found).view(unsigned), np.asarray(expected).view(unsigned))


PARTS = {
    "as they are": lambda c, x, y: (c, x, y),
    "rows of x": lambda c, x, y: (c, x[:1], y),
    "a row of the condition": lambda c, x, y: (np.tile(c[:1, :450], (1, 10)), np.tile(x[:, :450], 10), np.tile(y[:, :450], 10)),
    "column of y": lambda c, x, y: (c, x, y[:, :1]),
    "a number": lambda c, x, y: (c, x, np.zeros((), y.dtype)),
    "two numbers": lambda c, x, y: (c, x[3, 4].reshape(()), y[5, 6].reshape(())),
    "a number everywhere": lambda c, x, y: (c, np.broadcast_to(x[0, 0], SHAPE), y),
    "transposed": lambda c, x, y: (c.T, x.T, y.T),
    "every second": lambda c, x, y: (c[:, ::2], x[:, ::2], y[:, ::2]),
    "everywhere the same": lambda c, x, y: (np.broadcast_to(c[0, 0], SHAPE), x, y),
    "more dimensions": lambda c, x, y: (c, np.stack((x, y)), y),
}


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i8", "u1", "?", "c8"])
@pytest.mark.parametrize("name", PARTS)
def test_where(name, dtype):
    x, y = ((10 * RNG.standard_normal(SHAPE)).astype(dtype) for _ in range(2))
    if dtype[0] == "f":
        x[::7], y[::5] = np.nan, np.inf
    arrays = PARTS[name](RNG.random(SHAPE) < 0.5, x, y)
    found = cpu.where(*arrays)
    same_bits(found, np.where(*arrays))
    assert found.strides == np.where(*arrays).strides


def test_other_dtypes_and_numbers_are_left_to_numpy():
    c = RNG.random(9000) < 0.5
    x, z = RNG.standard_normal(9000), RNG.standard_normal(9000) * 1j
    for arrays in ((c, x, x.astype("f4")), (c, z, -z), (c, x, 1.0), (c.astype(int), x, -x)):
        np.testing.assert_array_equal(cpu.where(*arrays), np.where(*arrays))
