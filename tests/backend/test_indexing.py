"""The CPU's way to add many values into few places, against NumPy's own."""

import numpy as np
import pytest

from disttorch.backend import cpu
from disttorch.backend.cpu_kernels.indexing import accumulate_at, gather
from disttorch.backend.kernels import PLAIN

RNG = np.random.default_rng(2)
# shape, index: as many places and elements as it takes to leave NumPy's own way
INDICES = {
    "vector": ((50,), RNG.integers(-50, 50, 900)),
    "rows": ((40, 7), RNG.integers(0, 40, 300)),
    "wide rows": ((40, 64), RNG.integers(-40, 40, 100)),
    "wide rows, most of them once": ((4000, 33), RNG.integers(0, 4000, 700)),
    "wide rows, all for one place": ((9, 40), np.zeros(400, np.int64)),
    "matrix of rows": ((30, 5), RNG.integers(0, 30, (20, 15))),
    "columns": ((6, 30, 4), (slice(None), RNG.integers(0, 30, 80))),
    "last": ((9, 50), (slice(None), RNG.integers(0, 50, 200))),
    "two": ((12, 13, 6), (RNG.integers(0, 12, 300), RNG.integers(-13, 13, 300))),
    "broadcast": ((12, 13), (np.arange(12)[:, None], RNG.integers(0, 13, (12, 100)))),
    "apart": ((12, 5, 13), (RNG.integers(0, 12, 200), slice(None), RNG.integers(0, 13, 200))),
    "mask": ((40, 40), RNG.random((40, 40)) < 0.7),
    "few": ((5, 3), RNG.integers(0, 5, 10)),
    "int32": ((50,), RNG.integers(0, 50, 900).astype(np.int32)),
    "slices": ((40, 40), (slice(3, 30), RNG.integers(0, 40, 50))),
}


@pytest.mark.parametrize("how", ["add", "multiply", "maximum", "minimum"])
@pytest.mark.parametrize("name", INDICES)
def test_accumulate_at(name, how):
    shape, index = INDICES[name]
    start = RNG.standard_normal(shape)
    values = RNG.uniform(0.9, 1.1, start[index].shape)
    expected, found = start.copy(), start.copy()
    getattr(np, how).at(expected, index, values)
    accumulate_at(found, index, values, how)
    np.testing.assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.parametrize("name", INDICES)
def test_a_number_for_all_places(name):
    shape, index = INDICES[name]
    expected, found = np.zeros(shape), np.zeros(shape)
    np.add.at(expected, index, 1.0)
    accumulate_at(found, index, np.ones(()))
    np.testing.assert_array_equal(found, expected)


def test_memory_in_another_order():
    a = np.zeros((40, 30)).T
    index = RNG.integers(0, 30, 700)
    accumulate_at(a, index, np.ones((700, 40)))
    np.testing.assert_array_equal(a[:, 0], np.bincount(index, minlength=30))


@pytest.mark.parametrize("places", [[30], [-31]])
def test_places_that_are_not_there(places):
    index = np.array(places * 600)
    with pytest.raises(IndexError, match="30"):
        accumulate_at(np.zeros(30), index, np.ones(600))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("turned", [False, True])
def test_gather(axis, turned):
    x = RNG.standard_normal((5, 6, 7))
    index = RNG.integers(0, x.shape[axis], (3, 4, 2))
    x = np.ascontiguousarray(x.T).T if turned else x
    np.testing.assert_array_equal(gather(x, index, axis), PLAIN["gather"](cpu, x, index, axis))
