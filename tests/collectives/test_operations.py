"""Every operation over every transport, on every number of ranks: dtype by shape by layout by reduction.

Expected values are computed by plain NumPy from what each rank is known to give: `given(rank, ...)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from collectives import REDUCTIONS, Communicator

pytestmark = pytest.mark.mpi

LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "contiguous": np.copy,
    "transposed": lambda values: values.T.copy().T,
    "every second": lambda values: np.repeat(values, 2, axis=-1)[..., ::2],
    "reversed": lambda values: values[..., ::-1].copy()[..., ::-1],
}
SHAPES = [(), (1,), (0,), (2, 0), (7,), (3, 5), (2, 3, 4), (100_003,)]
PLACES = [
    (shape, layout) for shape in SHAPES for layout in LAYOUTS if shape or layout == "contiguous"
]  # a scalar has no order

BOOL, HALF = [np.bool_], [np.float16, ml_dtypes.bfloat16]
INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
FLOATS, COMPLEX = [np.float32, np.float64, np.longdouble], [np.complex64, np.complex128, np.clongdouble]
ANY = [*BOOL, *INTEGERS, *HALF, *FLOATS, *COMPLEX, ml_dtypes.float8_e4m3fn, ">f4", "M8[s]", "S3", [("a", "u1"), ("b", "f8")]]
ALLOWED = {
    "sum": INTEGERS + HALF + FLOATS + COMPLEX,
    "avg": HALF + FLOATS + COMPLEX,
    "product": INTEGERS + HALF + FLOATS + COMPLEX,
    "min": BOOL + INTEGERS + HALF + FLOATS,
    "max": BOOL + INTEGERS + HALF + FLOATS,
} | dict.fromkeys(("band", "bor", "bxor", "land", "lor", "lxor"), BOOL + INTEGERS)  # fmt: skip
REDUCED = [(op, dtype) for op, dtypes in ALLOWED.items() for dtype in dtypes]


def name_of(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else str(value).replace(" ", "")


def given(rank: int, shape: tuple[int, ...], dtype: Any, op: str = "sum") -> np.ndarray:
    """What a rank gives to a reduction: small whole numbers, so that exact results exist in every dtype."""
    random = np.random.default_rng(rank)
    low = 0 if np.dtype(dtype).kind in "bu" else -2
    values = random.integers(low, 3, shape)
    if np.dtype(dtype).kind == "c":
        return (values + 1j * random.integers(low, 3, shape)).astype(dtype)
    return np.asarray(values).astype(dtype)


def any_bytes(rank: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """What a rank gives to be moved: any bytes at all, not-a-numbers among them."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=int))
    content = np.random.default_rng(rank).integers(0, 256, count * dtype.itemsize, dtype=np.uint8)
    return (content & 1 if dtype.kind == "b" else content).view(dtype).reshape(shape)


def rows_of(arrays: list[np.ndarray]) -> np.ndarray:
    """One array of them all; unlike np.stack it leaves the byte order alone."""
    rows = np.empty((len(arrays), *arrays[0].shape), arrays[0].dtype)
    for row, array in enumerate(arrays):
        rows[row] = array
    return rows


def reduced(op: str, contributions: list[np.ndarray]) -> np.ndarray:
    """The reduction in the widest dtype of its kind, rounded once."""
    dtype = contributions[0].dtype
    wide: Any = {"c": np.clongdouble, "i": np.int64, "u": np.uint64, "b": np.bool_}.get(dtype.kind, np.longdouble)
    result = contributions[0].astype(wide)
    if op[0] == "l" and len(contributions) == 1:
        result = result != 0
    for contribution in contributions[1:]:
        result = REDUCTIONS[op].function(result, contribution.astype(wide))
    if op == "avg":
        result = result / len(contributions)
    return np.asarray(result).astype(dtype)


def same(got: np.ndarray, expected: np.ndarray, op: str = "sum") -> None:
    if op == "avg" and got.dtype.kind == "c":
        # A complex division by a real number may differ in the last bit from one in a wider dtype.
        np.testing.assert_allclose(got, expected, rtol=2 * np.finfo(got.dtype).eps)
    else:
        np.testing.assert_array_equal(got, expected, strict=True)


@pytest.mark.parametrize(("op", "dtype"), REDUCED, ids=name_of)
def test_reductions(world: Communicator, op: str, dtype: Any) -> None:
    shape, ranks, root = (3, 5), range(world.size), world.size - 1
    mine = given(world.rank, shape, dtype)
    expected = reduced(op, [given(rank, shape, dtype) for rank in ranks])

    array = mine.copy()
    world.all_reduce(array, op)
    same(array, expected, op)

    array = mine.copy()
    world.reduce(array, root, op)
    same(array, expected if world.rank == root else mine, op)

    rows = (world.size, *shape)
    array = np.zeros(shape, dtype)
    world.reduce_scatter(array, given(world.rank, rows, dtype), op)
    same(array, reduced(op, [given(rank, rows, dtype)[world.rank] for rank in ranks]), op)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.bool_], ids=name_of)
@pytest.mark.parametrize(("shape", "layout"), PLACES, ids=name_of)
@pytest.mark.parametrize("async_op", [False, True], ids=["sync", "async"])
def test_places_of_reductions(
    world: Communicator, shape: tuple[int, ...], layout: str, dtype: Any, async_op: bool
) -> None:
    lay, ranks, root = LAYOUTS[layout], range(world.size), 0
    op = "bxor" if dtype is np.bool_ else "sum"
    mine = given(world.rank, shape, dtype)
    expected = reduced(op, [given(rank, shape, dtype) for rank in ranks])
    array = lay(mine)
    world.all_reduce(array, op, async_op=async_op).wait()
    same(array, expected)
    array = lay(mine)
    world.reduce(array, root, op, async_op=async_op).wait()
    same(array, expected if world.rank == root else mine)
    rows = (world.size, *shape)
    array, source = lay(np.zeros(shape, dtype)), lay(given(world.rank, rows, dtype))
    world.reduce_scatter(array, source, op, async_op=async_op).wait()
    same(array, reduced(op, [given(rank, rows, dtype)[world.rank] for rank in ranks]))
    same(source, given(world.rank, rows, dtype))


def moves(world: Communicator, shape: tuple[int, ...], dtype: Any, lay: Callable[..., np.ndarray], async_op: bool) -> None:
    """Every operation that moves data, compared byte by byte."""
    rank, size = world.rank, world.size
    mine = any_bytes(rank, shape, dtype)
    everyone = rows_of([any_bytes(other, shape, dtype) for other in range(size)])
    empty, empty_rows = any_bytes(99, shape, dtype), any_bytes(99, everyone.shape, dtype)
    in_rows = [any_bytes(other, everyone.shape, dtype) for other in range(size)]
    left, right = (rank - 1) % size, (rank + 1) % size

    def check(got: np.ndarray, expected: np.ndarray) -> None:
        assert got.shape == expected.shape and got.tobytes() == expected.tobytes()

    for root in {0, size - 1}:
        array = lay(mine)
        world.broadcast(array, root, async_op=async_op).wait()
        check(array, everyone[root])
        out = lay(empty_rows) if rank == root else None
        world.gather(out, lay(mine), root, async_op=async_op).wait()
        if out is not None:
            check(out, everyone)
        array = lay(empty)
        world.scatter(array, lay(in_rows[root]) if rank == root else None, root, async_op=async_op).wait()
        check(array, in_rows[root][rank])
    out = lay(empty_rows)
    world.all_gather(out, lay(mine), async_op=async_op).wait()
    check(out, everyone)
    out = lay(empty_rows)
    world.all_to_all(out, lay(in_rows[rank]), async_op=async_op).wait()
    check(out, rows_of([rows[rank] for rows in in_rows]))
    array = lay(empty)
    receive = world.recv(array, left, tag=3, async_op=True)
    send = world.send(lay(mine), right, tag=3, async_op=True)
    receive.wait()
    send.wait()
    check(array, everyone[left])
    assert receive.source == left


@pytest.mark.parametrize("dtype", ANY, ids=name_of)
def test_movement_of_every_dtype(world: Communicator, dtype: Any) -> None:
    moves(world, (3, 5), dtype, np.copy, async_op=False)


@pytest.mark.parametrize(("shape", "layout"), PLACES, ids=name_of)
@pytest.mark.parametrize("async_op", [False, True], ids=["sync", "async"])
def test_places_of_movement(world: Communicator, shape: tuple[int, ...], layout: str, async_op: bool) -> None:
    moves(world, shape, np.complex64, LAYOUTS[layout], async_op)


@pytest.mark.parametrize("largest_count", [7, 4096])
def test_arrays_longer_than_an_old_mpi_counts(
    mpi: Communicator, monkeypatch: pytest.MonkeyPatch, largest_count: int
) -> None:
    """The way taken from 2**31 elements on, by a library older than MPI-4, with a smaller limit."""
    world = mpi
    monkeypatch.setattr(world._transport, "largest_count", largest_count)
    monkeypatch.setattr(world._transport, "_counts_are_large", False)
    for shape in ((1,), (7,), (29,), (10_007,)):
        moves(world, shape, np.int16, np.copy, async_op=False)
        ranks, rows = range(world.size), (world.size, *shape)
        expected = reduced("sum", [given(rank, shape, np.int32) for rank in ranks])
        mine = given(world.rank, shape, np.int32)
        array = mine.copy()
        world.all_reduce(array, async_op=True).wait()
        same(array, expected)
        array = mine.copy()
        world.reduce(array, 0)
        same(array, expected if world.rank == 0 else mine)
        array = np.zeros(shape, np.int32)
        world.reduce_scatter(array, given(world.rank, rows, np.int32), async_op=True).wait()
        same(array, reduced("sum", [given(rank, rows, np.int32)[world.rank] for rank in ranks]))


@pytest.mark.parametrize(("dtype", "large"), [(np.float16, 2048), (ml_dtypes.bfloat16, 256)], ids=name_of)
def test_half_precision_is_rounded_once(world: Communicator, dtype: Any, large: int) -> None:
    """Beside `large` a single one is lost in half precision, but several together are not."""
    ones = 3.0
    array = np.array([large if world.rank == 0 else ones], dtype)
    world.all_reduce(array)
    assert array[0] == np.array(large + ones * (world.size - 1)).astype(dtype)
    mean = np.array([np.finfo(np.float16).max if dtype is np.float16 else large], dtype)
    expected = mean.copy()
    world.all_reduce(mean, "avg")
    assert mean[0] == expected[0], "the sum of large halves overflows, their mean does not"


def test_a_half_precision_sum_out_of_range_is_infinite(world: Communicator) -> None:
    array = np.full(3, np.finfo(np.float16).max / 2 + 1000, np.float16)
    world.all_reduce(array, "sum")
    expected = np.inf if world.size > 1 else array[0]
    assert (array == expected).all()


def test_outputs_may_overlap_inputs(world: Communicator) -> None:
    rank, size = world.rank, world.size
    rows = np.zeros((size, 3))
    rows[rank] = rank + 1
    world.all_gather(rows, rows[rank])
    np.testing.assert_array_equal(rows, np.arange(1, size + 1)[:, None] * np.ones(3))
    rows = np.full((size, 3), rank + 1.0)
    world.reduce_scatter(rows[rank], rows)
    expected = np.full((size, 3), rank + 1.0)
    expected[rank] = size * (size + 1) / 2
    np.testing.assert_array_equal(rows, expected)
    rows = np.arange(size * 2.0).reshape(size, 2) + 100 * rank
    world.all_to_all(rows, rows)
    np.testing.assert_array_equal(rows, [[100 * other + 2 * rank, 100 * other + 2 * rank + 1] for other in range(size)])
