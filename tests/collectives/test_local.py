"""A world of one rank, and the checks that all transports share."""

from __future__ import annotations

import gc
import pickle
import threading
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from collectives import REDUCTIONS, CommunicationError, Communicator, Transport, Work
from collectives.connect import Settings, world_over
from collectives.local import LocalTransport


def alone() -> Communicator:
    return world_over(LocalTransport(), "local", Settings(), {})


ALONE = alone()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int8, np.complex128, np.bool_])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3)])
def test_one_rank_receives_what_it_gave(dtype: Any, shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    op = "bor" if dtype is np.bool_ else "sum"
    for in_place in (ALONE.all_reduce, lambda array, op: ALONE.reduce(array, 0, op)):
        array = values.copy()
        in_place(array, op)
        np.testing.assert_array_equal(array, values)
    array = values.copy()
    ALONE.broadcast(array)
    np.testing.assert_array_equal(array, values)
    for collect in (ALONE.all_gather, ALONE.gather, lambda out, array: ALONE.all_to_all(out, array[None])):
        out = np.zeros((1, *shape), dtype)
        collect(out, values)
        np.testing.assert_array_equal(out[0], values)
    for hand_out in (ALONE.scatter, lambda array, source: ALONE.reduce_scatter(array, source, op)):
        array = np.zeros(shape, dtype)
        hand_out(array, values[None])
        np.testing.assert_array_equal(array, values)


@pytest.mark.parametrize("op", REDUCTIONS)
def test_a_reduction_of_one_contribution_is_the_table_s_function_with_its_neutral_element(op: str) -> None:
    values = np.array([0, 1, 5], np.float32 if op == "avg" else np.int32)
    neutral = {"product": 1, "min": np.iinfo(np.int32).max, "band": -1, "land": 1}.get(op, 0)
    expected = REDUCTIONS[op].function(values, np.array(neutral, values.dtype)).astype(values.dtype)
    ALONE.all_reduce(values, op)
    np.testing.assert_array_equal(values, expected)


def test_objects_are_copies_except_the_root_s_own() -> None:
    obj = {"key": [1, 2]}
    assert ALONE.all_gather_object(obj) == [obj]
    assert ALONE.all_gather_object(obj)[0] is not obj
    assert ALONE.gather_object(obj) == [obj]
    assert ALONE.broadcast_object(obj) is obj


def test_messages_to_oneself_are_matched_in_order_and_by_tag() -> None:
    world, first, second, other = alone(), np.zeros(1), np.zeros(1), np.zeros(1)
    early = world.recv(first, 0, tag=1, async_op=True)
    assert not early.test()
    for value, tag in ((1.0, 1), (2.0, 1), (3.0, 2)):
        world.send(np.array([value]), 0, tag, async_op=True)
    world.recv(other, tag=2)
    world.recv(second, tag=1)
    early.wait()
    assert (first[0], second[0], other[0]) == (1.0, 2.0, 3.0)
    assert early.source == 0


def test_a_message_that_can_never_come_is_an_error() -> None:
    with pytest.raises(CommunicationError, match="sent nothing more with tag 7"):
        alone().recv(np.zeros(1), 0, tag=7)


def test_a_message_of_another_length_is_an_error() -> None:
    world = alone()
    world.send(np.zeros(3), 0, async_op=True)
    with pytest.raises(CommunicationError, match="expects 16 bytes with tag 0, got 24"):
        world.recv(np.zeros(2), 0)


@pytest.mark.parametrize("shape", [6, np.int64(6), (2, 3), [2, np.int32(3)], np.array([2, 3]), (), 0])
def test_lengths_of_memory_are_integers_of_python_or_numpy(shape: Any) -> None:
    array = alone().allocate(shape, np.float64)
    assert array.shape == np.empty(shape).shape and array.dtype == np.float64


def test_split_and_close() -> None:
    world = alone()
    assert world.split(None) is None
    part = world.split(0)
    assert part is not None and (part.rank, part.size) == (0, 1)
    receive = part.recv(np.zeros(1), 0, async_op=True)
    part.close()
    part.close()
    assert isinstance(receive.exception(), CommunicationError)
    with pytest.raises(CommunicationError, match="all_reduce: rank 0: this communicator was closed"):
        part.all_reduce(np.zeros(1))
    world.all_reduce(np.zeros(1))


def test_a_transport_is_an_interface() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Transport(0, 1)  # type: ignore[abstract]


# The checks ----------------------------------------------------------------------------------------------------------

FLOATS, ROWS = np.zeros(3), np.zeros((1, 3))
READ_ONLY = np.zeros(3)
READ_ONLY.flags.writeable = False
READ_ONLY_ROWS = READ_ONLY[None]

REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a list": (lambda: ALONE.all_reduce([1.0]), TypeError, "all_reduce: array must be a numpy.ndarray or a cupy.ndarray, got list"),
    "a scalar": (lambda: ALONE.broadcast(np.float32(1)), TypeError, "broadcast: array must be .* got numpy.float32"),
    "objects": (lambda: ALONE.broadcast(np.array([{}])), TypeError, "broadcast: array has the dtype object: use the _object"),
    "read-only": (lambda: ALONE.all_reduce(READ_ONLY), ValueError, r"array of shape \(3,\) and dtype float64 is read-only"),
    "read-only out": (lambda: ALONE.all_gather(READ_ONLY_ROWS, FLOATS), ValueError, "all_gather: out .* is read-only"),
    "read-only part": (lambda: ALONE.scatter(READ_ONLY, ROWS), ValueError, "scatter: array .* is read-only"),
    "read-only recv": (lambda: ALONE.recv(READ_ONLY, 0), ValueError, "recv: array .* is read-only"),
    "unknown op": (lambda: ALONE.all_reduce(FLOATS, "mean"), ValueError, "no reduction 'mean'; it is one of sum, avg"),
    "op is no string": (lambda: ALONE.all_reduce(FLOATS, np.add), ValueError, "no reduction <ufunc 'add'>"),
    "bits of floats": (lambda: ALONE.all_reduce(FLOATS, "band"), TypeError, "'band' is not defined for float64; .*bool, integer"),
    "average of integers": (lambda: ALONE.reduce(np.zeros(2, int), 0, "avg"), TypeError, "'avg' is not defined for int64; convert"),
    "sum of bools": (lambda: ALONE.all_reduce(np.zeros(2, bool)), TypeError, "'sum' is not defined for bool; use 'bor'"),
    "order of complex": (lambda: ALONE.all_reduce(np.zeros(2, "c8"), "max"), TypeError, "'max' is not defined for complex64"),
    "float8": (lambda: ALONE.all_reduce(np.zeros(2, ml_dtypes.float8_e5m2)), TypeError, "not defined for float8_e5m2"),
    "swapped bytes": (lambda: ALONE.all_reduce(np.zeros(2, ">f4")), TypeError, "byte order, array.astype"),
    "empty with a wrong op": (lambda: ALONE.all_reduce(np.zeros(0), "bxor"), TypeError, "'bxor' is not defined"),
    "root": (lambda: ALONE.broadcast(FLOATS, 1), ValueError, "broadcast: root is 1, but the ranks of this group are 0 to 0"),
    "root negative": (lambda: ALONE.reduce(FLOATS, -1), ValueError, "reduce: root is -1"),
    "root no integer": (lambda: ALONE.gather(ROWS, FLOATS, "0"), TypeError, "gather: root must be a rank.* got '0'"),
    "root is a truth value": (lambda: ALONE.gather(ROWS, FLOATS, False), TypeError, "got False"),
    "root of objects": (lambda: ALONE.broadcast_object(1, root=2), ValueError, "broadcast_object: root is 2"),
    "out on the root": (lambda: ALONE.gather(None, FLOATS), TypeError, "gather: out must be a numpy.ndarray .* NoneType"),
    "source on the root": (lambda: ALONE.scatter(FLOATS, None), TypeError, "scatter: source must be a numpy.ndarray"),
    "out's shape": (lambda: ALONE.all_gather(np.zeros(3), FLOATS), ValueError, r"\(1, 3\) on 1 rank, got \(3,\)"),
    "out's dtype": (lambda: ALONE.all_gather(np.zeros((1, 3), "f4"), FLOATS), TypeError, "out has float32, array float64"),
    "source's shape": (lambda: ALONE.reduce_scatter(FLOATS, FLOATS), ValueError, r"source must have the shape .* got \(3,\)"),
    "source's dtype": (lambda: ALONE.scatter(FLOATS, np.zeros((1, 3), int)), TypeError, "source has int64, array float64"),
    "rows to all": (lambda: ALONE.all_to_all(np.zeros((2, 3)), np.zeros((2, 3))), ValueError, r"begins with the 1 ranks.*\(2, 3\)"),
    "shapes to all": (lambda: ALONE.all_to_all(np.zeros((1, 2)), ROWS), ValueError, r"out has \(1, 2\), array \(1, 3\)"),
    "scalars to all": (lambda: ALONE.all_to_all(np.zeros(()), np.zeros(())), ValueError, r"out has \(\)"),
    "destination": (lambda: ALONE.send(FLOATS, 1), ValueError, "send: destination is 1"),
    "synchronous to oneself": (lambda: ALONE.send(FLOATS, 0), ValueError, "rank 0 would wait for itself"),
    "source rank": (lambda: ALONE.recv(FLOATS, 3), ValueError, "recv: source is 3"),
    "tag": (lambda: ALONE.recv(FLOATS, 0, -1), ValueError, "recv: tag must not be negative, got -1"),
    "tag no integer": (lambda: ALONE.send(FLOATS, 0, 1.5), TypeError, "send: tag must be an integer, got 1.5"),
    "color": (lambda: ALONE.split(-1), ValueError, "split: color must not be negative .* got -1"),
    "color no integer": (lambda: ALONE.split("a"), TypeError, "split: color must be an integer, got 'a'"),
    "key": (lambda: ALONE.split(0, None), TypeError, "split: key must be an integer, got None"),
    "a group's timeout": (lambda: ALONE.split(0, timeout=-1), ValueError, "split: timeout must be a positive number of seconds, got -1"),
    "timeout no number": (lambda: ALONE.subgroup([0], timeout="5"), TypeError, "split: timeout must be .* got '5'"),
    "length negative": (lambda: ALONE.allocate((2, -1)), ValueError, r"allocate: lengths must not be negative, got the shape \(2, -1\)"),
    "length no integer": (lambda: ALONE.allocate(2.5), TypeError, "allocate: each length of shape must be an integer, got 2.5"),
    "memory of objects": (lambda: ALONE.allocate(3, object), TypeError, "allocate: the dtype object is of Python objects"),
    "no pickle": (lambda: ALONE.all_gather_object(threading.Lock()), CommunicationError, "object of rank 0 cannot be pickled: "),
    "no pickle from the root": (lambda: ALONE.broadcast_object(lambda: 0), CommunicationError, "broadcast_object: .* rank 0"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_mistakes_are_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_read_only_array_may_be_sent() -> None:
    ALONE.broadcast(READ_ONLY)
    ALONE.all_gather(np.zeros((1, 3)), READ_ONLY)
    ALONE.send(READ_ONLY, 0, async_op=True)


# Work ----------------------------------------------------------------------------------------------------------------


class Steps:
    """A transport's request that is done after some tests."""

    def __init__(self, tests: int, error: Exception | None = None) -> None:
        self.left, self.error = tests, error

    def __call__(self) -> bool:
        self.left -= 1
        if self.left <= 0 and self.error is not None:
            raise self.error
        return self.left <= 0


def test_a_work_finishes_once_in_order() -> None:
    done: list[str] = []
    work = Work("all_reduce", Steps(3))
    work.then(lambda: done.append("round")).then(lambda: done.append("copy back"))
    assert (work.test(), work.done(), done) == (False, False, [])
    assert repr(work) == "<Work all_reduce: under way>"
    work.wait()
    work.wait()
    work.then(lambda: done.append("late"))
    assert work.done() and done == ["round", "copy back", "late"]


def test_a_work_times_out_and_goes_on() -> None:
    arrived: list[bool] = []
    work = Work("recv", lambda: bool(arrived))
    with pytest.raises(TimeoutError, match=r"recv: not complete after 0\.01 s"):
        work.wait(timeout=0.01)
    assert not work.done()
    arrived.append(True)
    work.wait(timeout=10)
    assert work.done()


def test_a_failure_is_raised_by_every_wait_and_kept() -> None:
    error = CommunicationError("broken")
    work = Work("all_reduce", Steps(1, error))
    copied: list[bool] = []
    work.then(lambda: copied.append(True))
    assert work.exception() is None
    assert work.test()
    for _ in range(2):
        with pytest.raises(CommunicationError, match="broken"):
            work.wait()
    assert work.exception() is error
    assert not copied


@pytest.mark.parametrize("then", [None, CommunicationError("aborted")], ids=["goes on", "fails, too"])
def test_who_gives_a_work_up_says_why(then: Exception | None) -> None:
    """Another thread may do so while this one asks."""
    ended: list[Work] = []

    def poll() -> bool:
        work.fail(CommunicationError("no prospect"))
        if then is not None:
            raise then
        return False

    work = Work("all_reduce", poll)
    work.ended = ended.append
    for _ in range(2):
        with pytest.raises(CommunicationError, match="no prospect"):
            work.wait()
    work._advance()  # as a thread does that has looked just before
    assert str(work.exception()) == "no prospect" and ended == [work]


def test_a_failure_that_nobody_saw_is_told() -> None:
    work = Work("all_reduce", Steps(1, CommunicationError("broken")))
    work.test()
    with pytest.warns(RuntimeWarning, match="nobody waited for a failed all_reduce: broken"):
        del work
        gc.collect()


def test_arrays_are_kept_until_completion_and_no_longer() -> None:
    class Array(np.ndarray):
        freed = 0

        def __del__(self) -> None:
            Array.freed += 1

    work = Work("send", Steps(2), keep=(np.zeros(3).view(Array),))
    work.test()
    gc.collect()
    assert Array.freed == 0
    work.test()
    gc.collect()
    assert Array.freed == 1


def test_errors_travel_between_processes() -> None:
    assert str(pickle.loads(pickle.dumps(CommunicationError("rank 1: lost")))) == "rank 1: lost"
