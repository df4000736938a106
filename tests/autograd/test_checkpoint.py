"""Checkpointing: the same gradients, less memory, and an error that names what differs."""

import gc
import weakref

import numpy as np
import pytest

import disttorch
from disttorch.autograd import grad
from disttorch.utils.checkpoint import (
    CheckpointError,
    checkpoint,
    checkpoint_sequential,
    set_checkpoint_debug_enabled,
    set_checkpoint_early_stop,
)

F = disttorch.nn.functional
OPTIONS = [
    {"use_reentrant": False},
    {"use_reentrant": False, "early_stop": False},
    {"use_reentrant": False, "determinism_check": "none"},
    {"use_reentrant": True},
]


class Cube(disttorch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * x * x


def network():
    disttorch.manual_seed(5)
    return disttorch.nn.Sequential(
        disttorch.nn.Linear(4, 8), disttorch.nn.Dropout(0.5), disttorch.nn.GELU(), disttorch.nn.LayerNorm(8), disttorch.nn.Linear(8, 3)
    ).double()


def gradients(call, model, x):
    disttorch.manual_seed(11)
    model.zero_grad()
    leaf = x.clone().requires_grad_()
    (call(leaf) ** 2).sum().backward()
    return [p.grad.numpy().copy() for p in model.parameters()] + [leaf.grad.numpy()]


@pytest.mark.parametrize("options", OPTIONS)
def test_gradients_and_random_numbers(options):
    model, x = network(), disttorch.randn(5, 4, dtype=disttorch.float64)
    expected = gradients(model, model, x)
    for found in (
        gradients(lambda x: checkpoint(model, x, **options), model, x),
        gradients(
            lambda x: model[3:](checkpoint(model[:3], x, **options)), model, x
        ),
    ):
        for f, e in zip(found, expected):
            np.testing.assert_allclose(f, e, rtol=1e-12)
    state = disttorch.get_rng_state()
    checkpoint(model, x.requires_grad_(), **options)
    after = disttorch.rand(1)
    disttorch.set_rng_state(state)
    model(x)
    assert disttorch.rand(1).item() == after.item()


@pytest.mark.parametrize("options", OPTIONS[:3])
def test_nested_and_second_derivatives(options):
    x = disttorch.randn(4, dtype=disttorch.float64, requires_grad=True)
    inner = lambda x: Cube.apply(x.sin()) * x  # noqa: E731
    outer = lambda f: lambda x: f(x).exp() * f(x * 2)  # noqa: E731
    plain = outer(inner)
    nested = lambda x: checkpoint(outer(lambda x: checkpoint(inner, x, **options)), x, **options)  # noqa: E731
    for function in (nested, lambda x: nested(x * 1.5)):
        wanted = plain if function is nested else lambda x: plain(x * 1.5)
        (expected,) = grad(wanted(x).sum(), x, create_graph=True)
        (found,) = grad(function(x).sum(), x, create_graph=True)
        np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), rtol=1e-10)
        np.testing.assert_allclose(
            grad((found**2).sum(), x)[0].numpy(), grad((expected**2).sum(), x)[0].numpy(), rtol=1e-8
        )


def test_keyword_arguments_and_structures():
    def function(x, *, parts, scale):
        return {"a": x * parts[0] * scale, "b": [parts[1].exp()]}

    x, y, z = (disttorch.randn(3, requires_grad=True) for _ in range(3))
    out = checkpoint(function, x, use_reentrant=False, parts=[y, z], scale=2.0)
    (out["a"].sum() + out["b"][0].sum()).backward()
    np.testing.assert_allclose(y.grad.numpy(), 2 * x.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(z.grad.numpy(), np.exp(z.detach().numpy()), rtol=1e-6)


def test_nothing_is_kept():
    alive = []

    def function(x):
        for _ in range(3):
            x = x.exp()
            alive.append(weakref.ref(x._array.base if x._array.base is not None else x._array))
        return x * 1

    gc.disable()
    try:
        x = disttorch.zeros(100, requires_grad=True)
        y = checkpoint(function, x, use_reentrant=False)
        assert all(w() is None for w in alive) and len(alive) == 3
        y.sum().backward()
        assert len(alive) == 5 and all(w() is None for w in alive)
        # nested: what the outer one computes is not kept by the inner one
        alive.clear()
        y = checkpoint(lambda x: checkpoint(function, x.sin(), use_reentrant=False).cos(), x, use_reentrant=False)
        assert all(w() is None for w in alive)
        y.sum().backward()
    finally:
        gc.enable()


def test_early_stop():
    calls = []

    def function(x):
        calls.append("begin")
        y = x.exp() * 1
        calls.append("end")
        return y + 0

    x = disttorch.ones(2, requires_grad=True)
    checkpoint(function, x, use_reentrant=False).sum().backward()
    assert calls == ["begin", "end", "begin"]
    calls.clear()
    with set_checkpoint_early_stop(False):
        checkpoint(function, x, use_reentrant=False).sum().backward()
    assert calls == ["begin", "end", "begin", "end"]


def test_a_graph_that_is_kept_computes_again():
    x = disttorch.ones(2, requires_grad=True)
    calls = []
    y = checkpoint(lambda x: (calls.append(1), x.exp())[1], x, use_reentrant=False)
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    assert len(calls) == 3
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.exp([1.0, 1.0]), rtol=1e-6)


class Changing:
    def __init__(self, *functions):
        self.functions = list(functions)

    def __call__(self, x):
        return self.functions.pop(0)(x)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (lambda x: (x[:1].exp() * x[:1].sin()).sum(), r"position 0:\nsaved .*'shape': \[3\].*\nrecomputed .*'shape': \[1\]"),
        (lambda x: (x.double().exp() * x.sin()).sum(), r"recomputed metadata: .*float64"),
        (lambda x: x.exp().sum(), "different number of tensors.*\n.*forward: 4\n.*recomputation: 1"),
    ],
)
def test_what_differs_is_named(second, message):
    x = disttorch.ones(3, requires_grad=True)
    first = lambda x: (x.exp() * x.sin()).sum()  # noqa: E731
    y = checkpoint(Changing(first, second), x, use_reentrant=False)
    with pytest.raises(CheckpointError, match=message):
        y.backward()
    with set_checkpoint_debug_enabled(True):
        y = checkpoint(Changing(first, second), x, use_reentrant=False)
    with pytest.raises(CheckpointError, match=r"saved during forward  \|  during recomputation"):
        y.backward()


def test_contexts_and_modes():
    seen = []

    class Note:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            seen.append(self.name)

        def __exit__(self, *exception):
            pass

    x = disttorch.ones(2, requires_grad=True)
    y = checkpoint(lambda x: x.exp(), x, use_reentrant=False, context_fn=lambda: (Note("forward"), Note("again")))
    assert seen == ["forward"]
    y.sum().backward()
    assert seen == ["forward", "again"]
    with disttorch.no_grad():
        assert not checkpoint(lambda x: x.exp(), x, use_reentrant=False).requires_grad


def test_sequential():
    model, x = network(), disttorch.randn(5, 4, dtype=disttorch.float64)
    expected = gradients(model, model, x)
    for segments in (1, 2, 3, 5):
        for use_reentrant in (False, True):
            found = gradients(lambda x: checkpoint_sequential(model, segments, x, use_reentrant=use_reentrant), model, x)  # noqa: B023
            for f, e in zip(found, expected):
                np.testing.assert_allclose(f, e, rtol=1e-12)
    assert checkpoint_sequential([lambda x: x + 1, lambda x: x * 2], 2, disttorch.ones(1), use_reentrant=False).item() == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"use_reentrant": True, "scale": 1}, ValueError, "Unexpected keyword arguments: scale"),
        ({"use_reentrant": True, "debug": True}, ValueError, "only supported when use_reentrant=False"),
        ({"use_reentrant": False, "determinism_check": "some"}, ValueError, "determinism_check"),
        ({}, UserWarning, "use_reentrant parameter should be passed explicitly"),
    ],
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        checkpoint(lambda x: x * 2, disttorch.ones(1, requires_grad=True), **options)
    with pytest.warns(UserWarning, match="None of the inputs"):
        checkpoint(lambda x: x * 2, disttorch.ones(1), use_reentrant=True)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_the_second_call_has_the_precision_of_the_first(use_reentrant):
    model = disttorch.nn.Sequential(disttorch.nn.LayerNorm(8), disttorch.nn.Linear(8, 8), disttorch.nn.GELU(), disttorch.nn.Linear(8, 3))
    x = disttorch.randn(4, 8, requires_grad=True)
    found = []
    for checkpointed in (False, True):
        seen = []
        handle = model[1].register_forward_hook(lambda m, args, out, seen=seen: seen.append(out.dtype))
        with disttorch.autocast("cpu", dtype=disttorch.bfloat16):
            y = checkpoint(model, x, use_reentrant=use_reentrant) if checkpointed else model(x)
        y.float().sum().backward()  # outside of the block, as programs do it
        handle.remove()
        assert set(seen) == {disttorch.bfloat16}
        found.append([x.grad, *(p.grad for p in model.parameters())])
        x.grad = None
        model.zero_grad()
    assert all(disttorch.equal(a, b) for a, b in zip(*found))
