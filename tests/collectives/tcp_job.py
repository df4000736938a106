"""A rank of a job over TCP that checks every operation against plain NumPy: `python tcp_job.py CHECK...` under RANK, WORLD_SIZE, ...

Prints a line for each check that has passed. Expected values are computed from what each rank is known to give.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np

from collectives.errors import CollectiveMismatchError, CommunicationError
from collectives.reductions import REDUCTIONS
from collectives.tcp import TCPTransport, rendezvous
from collectives.tcp.algorithms import LONG
from collectives.tcp.calls import SHORT
from collectives.work import Work

BOOL, HALF = [np.bool_], [np.float16, ml_dtypes.bfloat16]
INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
FLOATS, COMPLEX = [np.float32, np.float64, np.longdouble], [np.complex64, np.complex128, np.clongdouble]
MOVED: list[Any] = [
    *BOOL, np.int16, np.float32, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ">f4", "M8[s]", "S3", np.clongdouble,
    [("a", "u1"), ("b", "f8")],
]  # fmt: skip
ALLOWED = {
    "sum": INTEGERS + HALF + FLOATS + COMPLEX,
    "avg": HALF + FLOATS + COMPLEX,
    "product": INTEGERS + HALF + FLOATS + COMPLEX,
    "min": BOOL + INTEGERS + HALF + FLOATS,
    "max": BOOL + INTEGERS + HALF + FLOATS,
} | dict.fromkeys(("band", "bor", "bxor", "land", "lor", "lxor"), BOOL + INTEGERS)  # fmt: skip
SHAPES = [(), (1,), (7,), (3, 5), (2, 3, 4), (50_021,)]


@lru_cache(maxsize=4096)
def given(rank: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """What a rank gives to a reduction: small whole numbers, so that exact results exist in every dtype."""
    random = np.random.default_rng([rank, *shape])
    low = 0 if np.dtype(dtype).kind in "bu" else -2
    values = random.integers(low, 3, shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * random.integers(low, 3, shape)
    result = np.asarray(values).astype(dtype)
    result.flags.writeable = False
    return result


def any_bytes(seed: int, count: int, dtype: Any) -> np.ndarray:
    """What a rank gives to be moved: any bytes at all, not-a-numbers among them."""
    dtype = np.dtype(dtype)
    content = np.random.default_rng(seed).integers(0, 256, count * dtype.itemsize, dtype=np.uint8)
    return (content & 1 if dtype.kind == "b" else content).view(dtype)


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


def same(got: np.ndarray, expected: np.ndarray, op: str = "") -> None:
    if op == "avg" and got.dtype.kind == "c":
        np.testing.assert_allclose(got, expected, rtol=2 * np.finfo(got.dtype).eps)
    elif op:
        np.testing.assert_array_equal(got, expected, strict=True)
    else:
        assert got.dtype == expected.dtype and got.shape == expected.shape
        assert got.tobytes() == expected.tobytes()


def done(work: Work) -> None:
    work.wait(60)


def counts_of(size: int, largest: int) -> list[int]:
    """Uneven parts, with empty ones among them."""
    return [(rank * 7919) % (largest + 1) if rank % 3 else 0 for rank in range(1, size + 1)]


def fails(kind: type[Exception], call: Callable[[], Work], *parts: str) -> None:
    try:
        done(call())
    except kind as error:
        for part in parts:
            assert part in str(error), f"{part!r} is not in {error}"
    else:
        raise AssertionError(f"{kind.__name__} expected")


# Checks --------------------------------------------------------------------------------------------------------------


def reductions(world: TCPTransport) -> None:
    size, rank, ranks = world.size, world.rank, range(world.size)
    for op, dtypes in ALLOWED.items():
        reduction = REDUCTIONS[op]
        for dtype in dtypes:
            # Many ranks on few cores take their time: they reduce fewer dtypes in every shape.
            whole = dtype in (np.float32, np.bool_, ml_dtypes.bfloat16) and (size < 8 or op in ("sum", "avg", "land"))
            for shape in SHAPES if whole else SHAPES[3:4] if size >= 8 else SHAPES[3:6:2]:
                mine = given(rank, shape, dtype)
                expected = reduced(op, [given(other, shape, dtype) for other in ranks])
                array = mine.copy()
                done(world.all_reduce(array, reduction))
                same(array, expected, op)

                root = (len(shape) + np.dtype(dtype).itemsize) % size
                array = mine.copy()
                done(world.reduce(array, root, reduction))
                same(array, expected if rank == root else mine, op)

                rows = (size, *shape)
                array = np.zeros(shape, dtype)
                source = given(rank, rows, dtype)
                done(world.reduce_scatter(array, source.copy(), reduction))
                same(array, reduced(op, [np.asarray(given(other, rows, dtype)[rank]) for other in ranks]), op)

            counts = counts_of(size, 1000)
            begin, end = sum(counts[:rank]), sum(counts[: rank + 1])
            array = np.zeros(counts[rank], dtype)
            done(world.reduce_scatter(array, given(rank, (sum(counts),), dtype).copy(), reduction, counts))
            same(array, reduced(op, [given(other, (sum(counts),), dtype) for other in ranks])[begin:end], op)


def sizes(world: TCPTransport) -> None:
    """Around every limit at which another algorithm or another kind of message begins."""
    ranks = range(world.size)
    limits = [1, world.size, LONG // 4, SHORT // 4, (1 << 18) // 4, (1 << 20) // 4, 1_000_003]
    for count in sorted({max(1, limit + off) for limit in limits for off in (-1, 0, 1)}):
        for dtype in (np.float32, np.float16):
            expected = reduced("sum", [given(rank, (count,), dtype) for rank in ranks])
            array = given(world.rank, (count,), dtype).copy()
            done(world.all_reduce(array, REDUCTIONS["sum"]))
            same(array, expected, "sum")
        given.cache_clear()
        array = any_bytes(world.rank, count, np.uint8)
        done(world.broadcast(array, count % world.size))
        same(array, any_bytes(count % world.size, count, np.uint8))


def same_bits(world: TCPTransport) -> None:
    """Sums of any numbers are the same bits on all ranks, and every time, whoever is late."""
    random = np.random.default_rng(world.rank)
    for dtype, eps in ((np.float32, 6e-8), (np.float64, 1.2e-16), (np.float16, 5e-4), (ml_dtypes.bfloat16, 4e-3)):
        for count in (3, 1000, 100_003):
            values = (random.standard_normal(count) * 10.0 ** random.integers(-2, 3, count)).astype(dtype)
            if count > 3:
                values[:4] = [0.0 if world.rank else -0.0, np.nan if world.rank == world.size - 1 else 1.0, np.inf, 1.0]
            everybody = np.empty((world.size, count), dtype)
            done(world.all_gather(everybody, values))
            exact = everybody.astype(np.longdouble)
            results = []
            for _ in range(3):
                time.sleep(random.random() * 0.01)
                for op in ("sum", "max"):
                    array = values.copy()
                    done(world.all_reduce(array, REDUCTIONS[op]))
                    results.append(array)
            all_bits = np.empty((world.size, 2, count), dtype)
            done(world.all_gather(all_bits, rows_of(results[:2])))
            for rank in range(world.size):
                same(all_bits[rank], all_bits[0])
            for again in results[2:]:
                same(again, results[0] if again is results[2] or again is results[4] else results[1])
            finite = slice(4, None) if count > 3 else slice(None)
            error = np.abs(results[0][finite].astype(np.longdouble) - exact.sum(0)[finite])
            assert (error <= eps * (world.size + 1) * np.abs(exact).sum(0)[finite]).all()


def movements(world: TCPTransport) -> None:
    size, rank = world.size, world.rank
    for dtype in MOVED:
        for count in (1, 15, 40_009 if np.dtype(dtype).itemsize > 1 else 200_003):
            for root in {0, size - 1, size // 2}:
                array = any_bytes(rank, count, dtype)
                done(world.broadcast(array, root))
                same(array, any_bytes(root, count, dtype))

                mine = any_bytes(rank, count, dtype)
                out = np.zeros((size, count), dtype) if rank == root else None
                done(world.gather(out, mine, root))
                if out is not None:
                    for other in range(size):
                        same(out[other], any_bytes(other, count, dtype))

                array = np.zeros(count, dtype)
                source = rows_of([any_bytes(100 + other, count, dtype) for other in range(size)]) if rank == root else None
                done(world.scatter(array, source, root))
                same(array, any_bytes(100 + rank, count, dtype))

            out = np.zeros((size, count), dtype)
            done(world.all_gather(out, any_bytes(rank, count, dtype)))
            for other in range(size):
                same(out[other], any_bytes(other, count, dtype))

            rows = rows_of([any_bytes(rank * size + other, count, dtype) for other in range(size)])
            out = np.zeros_like(rows)
            done(world.all_to_all(out, rows))
            for other in range(size):
                same(out[other], any_bytes(other * size + rank, count, dtype))


def uneven(world: TCPTransport) -> None:
    size, rank = world.size, world.rank
    for counts in (counts_of(size, 10), [0] * size, counts_of(size, 300_000), [100_000] + [0] * (size - 1)):
        for dtype in (np.float64, "S3"):
            mine = any_bytes(rank, counts[rank], dtype)
            everything = np.concatenate([any_bytes(other, counts[other], dtype) for other in range(size)])
            out = np.zeros(sum(counts), dtype)
            done(world.all_gather(out, mine, counts))
            same(out, everything)

            root = size - 1
            gathered = np.zeros(sum(counts), dtype) if rank == root else None
            done(world.gather(gathered, mine, root, counts))
            if gathered is not None:
                same(gathered, everything)

            array = np.zeros(counts[rank], dtype)
            done(world.scatter(array, everything if rank == root else None, root, counts))
            same(array, mine)

    def part(source: int, destination: int) -> np.ndarray:
        return any_bytes(source * size + destination, (source * 5 + destination * 3) % 4 * 30_000, np.int32)

    outgoing, incoming = [part(rank, other) for other in range(size)], [part(other, rank) for other in range(size)]
    out = np.zeros(sum(map(len, incoming)), np.int32)
    done(world.all_to_all(out, np.concatenate(outgoing), [*map(len, incoming)], [*map(len, outgoing)]))
    same(out, np.concatenate(incoming))


def messages(world: TCPTransport) -> None:
    size, rank = world.size, world.rank
    after, before = (rank + 1) % size, (rank - 1) % size
    for count in (0, 1, 1000, SHORT, SHORT + 1, 3_000_000):
        sent = world.send(any_bytes(rank, count, np.uint8), after, 5)
        array = np.zeros(count, np.uint8)
        received = world.recv(array, before, 5)
        done(received)
        done(sent)
        same(array, any_bytes(before, count, np.uint8))
        assert received.source == before
    # Tags are told apart, the messages of one tag keep their order, and long ones do not hold up short ones.
    works = [world.send(np.array([tag, turn] * (100_000 if turn == 1 else 1)), after, tag) for turn in range(3) for tag in (3, 1, 2)]
    for tag in (2, 3, 1):
        for turn in range(3):
            array = np.zeros(200_000 if turn == 1 else 2, int)
            done(world.recv(array, before, tag))
            assert (array.reshape(-1, 2) == [tag, turn]).all()
    for work in works:
        done(work)
    # From anybody, to rank 0: everybody's messages in their order.
    if rank:
        for turn in range(3):
            done(world.send(np.array([rank, turn]), 0, 9))
    else:
        seen: dict[int, int] = {}
        for _ in range(3 * (size - 1)):
            array = np.zeros(2, int)
            work = world.recv(array, None, 9)
            done(work)
            assert work.source == array[0] and seen.get(int(array[0]), 0) == array[1]
            seen[int(array[0])] = int(array[1]) + 1
    # To oneself, before and after it is expected.
    for early in (True, False):
        array = np.zeros(70_000)
        received = None if early else world.recv(array, rank, 1)
        done(world.send(np.arange(70_000.0), rank, 1))
        received = received or world.recv(array, rank, 1)
        done(received)
        assert received.source == rank and array[-1] == 69_999
    # Another length than expected, short and long: the message is lost, and the next one is not.
    for count in (10, 100_000):
        sent = world.send(np.zeros(count), after, 4)
        fails(
            CommunicationError, lambda: world.recv(np.zeros(1), before, 4),
            f"rank {rank} of {size} expects 8 bytes with tag 4, got {8 * count} from rank {before}",
        )  # fmt: skip
        done(sent)
    work = world.recv(np.zeros(1), None, 77)
    assert not work.test() and work.cancel()
    fails(CommunicationError, lambda: work, "cancelled", "tag 77")
    done(world.barrier())
    sent = world.send(np.array([1.0]), after, 77)
    array = np.zeros(1)
    done(world.recv(array, before, 77))
    done(sent)
    assert array[0] == 1


def barriers(world: TCPTransport) -> None:
    for turn in range(world.size):
        if world.rank == turn:
            time.sleep(0.02)
        # One machine has one monotonic clock.
        times = np.zeros((world.size, 2))
        came = time.monotonic()
        done(world.barrier())
        done(world.all_gather(times, np.array([came, time.monotonic()])))
        assert times[:, 0].max() <= times[:, 1].min()


def at_once(world: TCPTransport) -> None:
    """Many operations under way, waited for in any order; each goes on while the program waits for another."""
    size, rank = world.size, world.rank
    random = np.random.default_rng(rank)
    arrays = [np.full(count, rank + number, np.int64) for number, count in enumerate([1, 100_000, 7, 30_000, 500_000] * 3)]
    works = [world.all_reduce(array, REDUCTIONS["sum"]) for array in arrays]
    works.append(world.barrier())
    for number in random.permutation(len(works)):
        done(works[number])
    for number, array in enumerate(arrays):
        assert (array == sum(other + number for other in range(size))).all()
    # Rank 0 waits for a message that the others send only after their long all-reduce, which needs rank 0.
    array = np.ones(400_000)
    reduce = world.all_reduce(array, REDUCTIONS["sum"])
    if rank == 0:
        for other in range(1, size):
            done(world.recv(np.zeros(3), other, 1))
    else:
        done(reduce)
        done(world.send(np.zeros(3), 0, 1))
    done(reduce)
    assert (array == size).all()


def groups(world: TCPTransport) -> None:
    size, rank = world.size, world.rank
    half = world.split(rank % 2, -rank)
    assert half is not None
    members = sorted((other for other in range(size) if other % 2 == rank % 2), reverse=True)
    assert (half.rank, half.size) == (members.index(rank), len(members))
    nobody = world.split(None, 0)
    assert nobody is None
    some = world.split(7 if rank < 2 else None, rank)
    assert (some is None) == (rank >= 2)
    inner = half.split(half.rank // 2, 0)
    assert inner is not None
    for group, belong in ((half, members), (inner, members[half.rank // 2 * 2 :][:2])):
        for count in (1, 200_000):
            works, arrays = [], []
            for each, belonging in ((world, range(size)), (group, belong)):
                array = np.full(count, float(rank))
                arrays.append((array, sum(belonging)))
                works.append(each.all_reduce(array, REDUCTIONS["sum"]))
            for work in reversed(works):
                done(work)
            for array, expected in arrays:
                assert (array == expected).all()
        out = np.zeros((group.size, 1), int)
        done(group.all_gather(out, np.array([rank])))
        assert out[:, 0].tolist() == belong
        array = np.zeros(1, int)
        sent = group.send(np.array([rank]), (group.rank + 1) % group.size, 3)
        work = group.recv(array, None, 3)
        done(work)
        done(sent)
        assert work.source == (group.rank - 1) % group.size and array[0] == belong[work.source]
        group.close()
    done(world.barrier())


def mismatches(world: TCPTransport) -> None:
    """Ranks that call different things all get an error that says so, and go on together afterwards."""
    size, rank = world.size, world.rank
    if size == 1:
        return
    odd = rank == size - 1

    def sums(count: int, op: str = "sum", dtype: Any = float) -> Callable[[], Work]:
        return lambda: world.all_reduce(np.zeros(count, dtype), REDUCTIONS[op])

    rows = np.zeros((size, 3))
    for round_, (mine, others) in enumerate(
        (
            (world.barrier, sums(3)),
            (sums(3), sums(4)),
            (sums(3), sums(300_000)),
            (sums(3), sums(3, "max")),
            (sums(4), sums(8, dtype=np.float32)),
            (lambda: world.all_gather(rows.copy(), np.zeros(3)), lambda: world.all_to_all(rows.copy(), rows)),
        )
    ):
        try:
            done(mine() if odd else others())
        except CollectiveMismatchError as error:
            assert "rank" in str(error) and ("calls" in str(error) or "arrays differ" in str(error)), error
        except CommunicationError as error:
            assert "calls" in str(error) or "arrays differ" in str(error), error
        else:
            raise AssertionError(f"round {round_}: rank {rank} noticed nothing")
        array = np.ones(5)
        done(world.all_reduce(array, REDUCTIONS["sum"]))
        assert (array == size).all()


def another_root(world: TCPTransport) -> None:
    """A rank that gets what was meant for another call says so; ranks that had no part in it may not notice."""
    if world.size < 3:
        return  # two that both wait for the other's array can only wait
    if world.rank == world.size - 1:
        fails(CollectiveMismatchError, lambda: world.broadcast(np.zeros(3), 0), "another size, reduction, root or counts")
    else:
        with contextlib.suppress(CommunicationError):
            done(world.broadcast(np.zeros(3), world.size - 2))
    array = np.ones(5)
    done(world.all_reduce(array, REDUCTIONS["sum"]))
    assert (array == world.size).all()


def lateness(world: TCPTransport) -> None:
    """Who has not come is told from who has, and from who waits for it too."""
    if world.size == 1:
        return
    assert world.late() is None
    last = world.size - 1
    if world.rank == last:
        time.sleep(0.5)  # in no call, where it answers nobody
        for other in range(last):
            done(world.recv(np.zeros(1), other, 5))
        done(world.barrier())
    else:
        work, until = world.barrier(), time.monotonic() + 60
        while world.late() != [last]:  # others may be on their way
            assert time.monotonic() < until and not work.test()
        done(world.send(np.zeros(1), last, 5))
        done(work)
    done(world.all_reduce(np.zeros(100_000), REDUCTIONS["sum"]))
    if world.rank == 0:
        work = world.recv(np.zeros(1), last, 3)
        assert world.late() == [last]
        done(world.send(np.zeros(1), last, 4))
        done(work)
    elif world.rank == last:
        done(world.recv(np.zeros(1), 0, 4))
        done(world.send(np.zeros(1), 0, 3))


CHECKS = {
    check.__name__: check
    for check in (reductions, sizes, same_bits, movements, uneven, messages, barriers, at_once, groups, mismatches, another_root, lateness)
}

if __name__ == "__main__":
    store, rank, size = rendezvous(timeout=60)
    for again in range(2):
        # The second time: what the first leaves in the store is not mistaken for the second's.
        world = TCPTransport.world(store, rank, size, 60)
        for name in sys.argv[1:] if again else ["barriers"]:
            CHECKS[name](world)
            if again:
                print(f"{name}: passed", flush=True)
        done(world.barrier())
        world.close()
