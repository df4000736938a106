"""Parts of different lengths, on every transport and number of ranks, against plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from collectives import Communicator, connect, scaled_sum

pytestmark = pytest.mark.mpi

# How many rows each rank has, by rank and number of ranks: none at all, none on some, one large among small ones.
COUNTS = {
    "different": lambda rank, size: 2 * rank + 1,
    "some empty": lambda rank, size: 3 * (rank % 2),
    "all on the last": lambda rank, size: 40_000 if rank == size - 1 else 0,
    "none": lambda rank, size: 0,
    "equal": lambda rank, size: 4,
}
ROWS = {"numbers": (), "rows": (3,), "empty rows": (0,)}
DTYPES = [np.float32, np.float16, np.int64, np.bool_]


def counts_of(kind: str, size: int) -> list[int]:
    return [COUNTS[kind](rank, size) for rank in range(size)]


def part(rank: int, count: int, row: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.random.default_rng(rank).integers(0, 2, (count, *row)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("kind", COUNTS)
def test_counts(world: Communicator, kind: str, row: tuple[int, ...], dtype: Any) -> None:
    size, rank = world.size, world.rank
    counts = counts_of(kind, size)
    parts = [part(r, counts[r], row, dtype) for r in range(size)]
    whole = np.concatenate(parts)

    out = np.zeros_like(whole)
    world.all_gather(out, parts[rank], counts=counts)
    np.testing.assert_array_equal(out, whole, strict=True)

    for root in {0, size - 1}:
        out = np.zeros_like(whole)
        world.gather(out if rank == root else None, parts[rank], root, counts=counts)
        np.testing.assert_array_equal(out, whole if rank == root else np.zeros_like(whole))
        mine = np.zeros_like(parts[rank])
        world.scatter(mine, whole if rank == root else None, root, counts=counts, async_op=True).wait()
        np.testing.assert_array_equal(mine, parts[rank], strict=True)

    op = "bor" if dtype is np.bool_ else "sum"
    mine, own = np.zeros_like(parts[rank]), part(100 + rank, sum(counts), row, dtype)
    world.reduce_scatter(mine, own, op, counts=counts)
    function = np.bitwise_or if dtype is np.bool_ else np.add
    expected = function.reduce([part(100 + r, sum(counts), row, dtype) for r in range(size)], axis=0)
    start = sum(counts[:rank])
    np.testing.assert_array_equal(mine, expected[start : start + counts[rank]])


@pytest.mark.parametrize("scale", [1, 5000])
def test_uneven_all_to_all(world: Communicator, scale: int) -> None:
    size, rank = world.size, world.rank
    sent = [[scale * ((2 * r + q) % 3) for q in range(size)] for r in range(size)]  # by rank r to rank q

    def block(r: int, q: int) -> np.ndarray:
        return np.full((sent[r][q], 2), 10 * r + q, np.float32)

    array = np.concatenate([block(rank, q) for q in range(size)])
    received = [sent[r][rank] for r in range(size)]
    out = np.empty((sum(received), 2), np.float32)
    world.all_to_all(out, array, counts=sent[rank], out_counts=received)
    np.testing.assert_array_equal(out, np.concatenate([block(r, rank) for r in range(size)]))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.complex64])
def test_scaled_sum(world: Communicator, dtype: Any) -> None:
    """Every rank with a factor of its own; sources are left as they were."""
    size, rank = world.size, world.rank
    factors = [0.5 * (r + 1) for r in range(size)]
    given = [np.arange(6).reshape(2, 3).astype(dtype) + r for r in range(size)]
    expected = sum(factor * array.astype(np.complex128 if dtype is np.complex64 else np.float64)
                   for factor, array in zip(factors, given))  # fmt: skip
    array = given[rank].copy()
    world.all_reduce(array, scaled_sum(factors[rank]))
    np.testing.assert_array_equal(array, expected.astype(dtype))
    array = given[rank].copy()
    world.reduce(array, size - 1, scaled_sum(factors[rank]))
    np.testing.assert_array_equal(array, expected.astype(dtype) if rank == size - 1 else given[rank])
    rows = np.stack([given[rank]] * size)
    array = np.empty((2, 3), dtype)
    world.reduce_scatter(array, rows, scaled_sum(factors[rank]))
    np.testing.assert_array_equal(array, expected.astype(dtype))
    np.testing.assert_array_equal(rows, np.stack([given[rank]] * size))


REFUSED = {
    "a sum": (lambda w, n: w.all_gather(np.zeros(n), np.zeros(1), counts=[1] * n + [1]), ValueError, "counts must have"),
    "negative": (lambda w, n: w.all_gather(np.zeros(n), np.zeros(1), counts=[-1] * n), ValueError, "not negative"),
    "no numbers": (lambda w, n: w.all_gather(np.zeros(n), np.zeros(1), counts=["1"] * n), TypeError, "each of counts"),
    "no sequence": (lambda w, n: w.all_gather(np.zeros(n), np.zeros(1), counts=n), TypeError, "must be a sequence"),
    "the whole": (lambda w, n: w.all_gather(np.zeros(n + 1), np.zeros(1), counts=[1] * n), ValueError, "must have . rows"),
    "this part": (lambda w, n: w.all_gather(np.zeros(n), np.zeros(2), counts=[1] * n), ValueError, r"array must have .*\(1,\)"),
    "another dtype": (lambda w, n: w.all_gather(np.zeros(n), np.zeros(1, int), counts=[1] * n), TypeError, "one dtype"),
    "one of two": (lambda w, n: w.all_to_all(np.zeros(n), np.zeros(n), counts=[1] * n), ValueError, "both or not at all"),
    "rows of another shape": (
        lambda w, n: w.all_to_all(np.zeros((n, 2)), np.zeros((n, 3)), counts=[1] * n, out_counts=[1] * n),
        ValueError, "but for the first dimension",
    ),
    "a factor": (lambda w, n: w.all_reduce(np.zeros(1), scaled_sum("2")), TypeError, "real number, got '2'"),
    "integers scaled": (lambda w, n: w.all_reduce(np.zeros(1, int), scaled_sum(2.0)), TypeError, "'scaled_sum' is not defined"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_mistakes_are_named(call: Any, error: type[Exception], message: str) -> None:
    """Before anything is sent, so one rank's mistake needs no other rank."""
    with pytest.raises(error, match=message):
        world = connect("local")
        call(world, world.size)
