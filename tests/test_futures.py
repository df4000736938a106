"""Futures against PyTorch's documentation, and against PyTorch where it is installed."""

import threading

import pytest

from disttorch.futures import Future, collect_all, wait_all

try:
    import torch.futures as theirs
except ImportError:
    theirs = None


def outcome(call):
    try:
        return call()
    except Exception as error:
        return type(error)


def chain(Future):
    first = Future()
    second = first.then(lambda done: done.value() + 1)
    third = second.then(lambda done: done.value() * 10)
    before = [f.done() for f in (first, second, third)]
    first.set_result(4)
    return before, [f.done() for f in (first, second, third)], [f.wait() for f in (first, second, third)], third.value()


def twice(Future):
    future = Future()
    future.set_result(1)
    return outcome(lambda: future.set_result(2)), future.value()


def too_early(Future):
    return outcome(Future().value)


def an_error(Future):
    future = Future()
    child = future.then(lambda done: "the error is seen" if outcome(done.value) is ValueError else "not seen")
    future.set_exception(ValueError("wrong"))
    return outcome(future.wait), outcome(future.value), child.wait(), future.done()


def callbacks(Future):
    seen = []
    future = Future()
    future.add_done_callback(lambda done: seen.append(("before", done.value())))
    future.set_result("x")
    future.add_done_callback(lambda done: seen.append(("after", done.value())))
    return seen, future.then(lambda done: done.value() * 2).wait()


BEHAVIOURS = {
    # what happens, and what must come of it
    chain: ([False] * 3, [True] * 3, [4, 5, 50], 50),
    twice: None,
    too_early: None,
    an_error: (ValueError, ValueError, "the error is seen", True),
    callbacks: ([("before", "x"), ("after", "x")], "xx"),
}


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda b: b.__name__)
def test_behaviour(behaviour):
    found = behaviour(Future)
    expected = {"twice": (RuntimeError, 1), "too_early": RuntimeError}.get(behaviour.__name__, BEHAVIOURS[behaviour])
    assert found == expected
    if theirs is not None:
        assert behaviour(theirs.Future) == expected


def test_a_callback_that_fails_fails_the_new_future_only():
    future = Future()
    child = future.then(lambda done: 1 / 0)
    future.set_result(3)
    assert future.wait() == 3
    with pytest.raises(ZeroDivisionError):
        child.wait()


def test_waiting_for_another_thread():
    future = Future()
    timer = threading.Timer(0.05, future.set_result, ["there"])
    timer.start()
    assert future.wait() == "there"
    timer.join()


def test_many():
    futures = [Future() for _ in range(3)]
    together = collect_all(futures)
    for number, future in enumerate(futures):
        assert not together.done()
        future.set_result(number)
    assert together.wait() == futures
    assert wait_all(futures) == [0, 1, 2]
    assert wait_all([]) == []
    failed = Future()
    failed.set_exception(KeyError("k"))
    with pytest.raises(KeyError):
        wait_all([*futures, failed])


def test_only_exceptions_are_errors():
    with pytest.raises(TypeError, match="'text' is of type str, not an exception"):
        Future().set_exception("text")
