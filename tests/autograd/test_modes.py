"""no_grad, enable_grad, set_grad_enabled, inference_mode: in blocks, as decorators, nested, in threads."""

import asyncio
import threading

import pytest

import disttorch
from disttorch import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled

x = disttorch.ones(2, requires_grad=True)


def records():
    assert (x * 2).requires_grad == is_grad_enabled()
    return is_grad_enabled()


@pytest.mark.parametrize(
    ("block", "inside"),
    [
        (no_grad, False),
        (enable_grad, True),
        (inference_mode, False),
        (lambda: set_grad_enabled(False), False),
        (lambda: set_grad_enabled(True), True),
        (lambda: inference_mode(False), True),
    ],
)
def test_blocks(block, inside):
    assert records()
    with block():
        assert records() is inside
        with enable_grad():
            assert records()
            with no_grad():
                assert not records()
            assert records()
        assert records() is inside
    assert records()
    with pytest.raises(KeyError), block():
        raise KeyError
    assert records()


@pytest.mark.parametrize(
    ("decorator", "inside"),
    [
        (no_grad(), False),
        (no_grad, False),
        (enable_grad(), True),
        (enable_grad, True),
        (inference_mode(), False),
        (inference_mode, False),
        (inference_mode(False), True),
    ],
)
def test_decorators(decorator, inside):
    @decorator
    def function(a, *, b=2):
        """Its text."""
        return records(), a, b

    assert function(1, b=3) == (inside, 1, 3)
    assert function.__name__ == "function" and function.__doc__ == "Its text."
    assert records()

    @decorator
    def recursive(n):
        return records() if n == 0 else recursive(n - 1)

    assert recursive(3) is inside and records()


def test_a_decorated_generator_records_by_the_mode_of_the_decorator():
    @no_grad()
    def generate():
        for _ in range(3):
            yield is_grad_enabled()

    seen = []
    for inside in generate():
        seen.append((inside, is_grad_enabled()))
    assert seen == [(False, True)] * 3


def test_set_grad_enabled_as_a_function_and_a_decorator():
    set_grad_enabled(False)
    assert not records()
    set_grad_enabled(True)
    assert records()

    @set_grad_enabled(False)
    def function():
        return records()

    assert records() and not function() and records()
    block = set_grad_enabled(False)
    with block:
        assert not records()
    assert records()


def test_a_block_can_be_used_again():
    block = no_grad()
    for _ in range(2):
        with block:
            with block:
                assert not records()
            assert not records()
        assert records()


def test_inference_mode_knows_itself():
    assert not disttorch.is_inference_mode_enabled()
    with inference_mode():
        assert disttorch.is_inference_mode_enabled()
    assert not disttorch.is_inference_mode_enabled()


def test_each_thread_and_task_has_its_own_mode():
    seen = []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append(is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]

    async def task(block, first, second, wait):
        with block():
            first.set()
            await wait.wait()
            second.append(is_grad_enabled())

    async def both():
        a, b, found = asyncio.Event(), asyncio.Event(), []
        await asyncio.gather(task(no_grad, a, found, b), task(enable_grad, b, found, a))
        return found

    assert sorted(asyncio.run(both())) == [False, True]


def test_no_grad_lets_parameters_change_in_place():
    w = disttorch.ones(2, requires_grad=True)
    with no_grad():
        w.sub_(0.5)
        w[0] = 7
        w += 1
    assert w.tolist() == [8.0, 1.5] and w.is_leaf and w.requires_grad
    y = w * w
    with no_grad():
        w.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_leaves_made_under_no_grad_may_require_grad():
    with no_grad():
        w = disttorch.zeros(2, requires_grad=True)
        v = x.detach().requires_grad_()
    assert w.requires_grad and (w * 2).requires_grad and v.requires_grad
