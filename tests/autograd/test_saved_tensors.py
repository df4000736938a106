"""Hooks on what the graph saves: packing, unpacking, copies before a change in place."""

import gc
import weakref

import numpy as np
import pytest

import disttorch
from disttorch.autograd import Function, grad
from disttorch.autograd.graph import (
    allow_mutation_on_saved_tensors,
    disable_saved_tensors_hooks,
    increment_version,
    save_on_cpu,
    saved_tensors_hooks,
)


class Cube(Function):
    @staticmethod
    def forward(ctx, x):
        out = x * x * x
        ctx.save_for_backward(x, out)
        return out

    @staticmethod
    def backward(ctx, g):
        x, out = ctx.saved_tensors
        return g * 3 * x * x + 0 * out


#: each saves something: an input, a result, a tensor beside a number, an extra, a view's base, several results
FUNCTIONS = {
    "exp": lambda x: x.exp(),
    "mul": lambda x: x * x.sin(),
    "number": lambda x: (x * 2.0) ** 3,
    "matmul": lambda x: x @ x.t(),
    "max": lambda x: x.max(dim=1).values,
    "softmax": lambda x: disttorch.nn.functional.softmax(x, 1),
    "layer_norm": lambda x: disttorch.nn.functional.layer_norm(x, (3,)),
    "function": Cube.apply,
    "in place": lambda x: (x * 1).mul_(x).exp_(),
    "index": lambda x: x[disttorch.tensor([1, 0, 1])] * x,
    "svd": lambda x: disttorch.linalg.svd(x, full_matrices=False).S,
}


def square():
    generator = np.random.default_rng(0)
    return disttorch.from_numpy(generator.standard_normal((3, 3))).requires_grad_()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_pass_through_packed_tensors(name, create_graph):
    x, function = square(), FUNCTIONS[name]
    expected = grad(function(x).sum(), x, create_graph=create_graph)[0]
    packed = []

    def pack(t):
        assert isinstance(t, disttorch.Tensor) and not t.requires_grad
        packed.append(t.shape)
        return t.numpy().copy()

    with saved_tensors_hooks(pack, disttorch.from_numpy):
        y = function(x)
    (found,) = grad(y.sum(), x, create_graph=create_graph)
    assert packed
    np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-12)
    if create_graph and name not in ("max",):
        second, wanted = (grad((g * g).sum(), x)[0].numpy() for g in (found, expected))
        np.testing.assert_allclose(second, wanted, rtol=1e-9, atol=1e-9)


def test_the_innermost_hooks_are_used_and_the_block_ends():
    seen = []

    def hooks(name):
        return saved_tensors_hooks(lambda t: seen.append(name) or t, lambda t: t)

    x = square()
    with hooks("outer"):
        x.exp()
        with hooks("inner"):
            x.exp()
        x.exp()
    x.exp()
    with hooks("outer"), disttorch.no_grad():
        x.exp()
        with disttorch.enable_grad():
            x.exp()
    assert seen == ["outer", "inner", "outer", "outer"]

    @hooks("decorated")
    def function(x):
        return x.exp()

    function(x)
    assert seen[-1] == "decorated"


def test_what_hooks_save_is_freed_by_backward():
    class Held:
        def __init__(self, t):
            self.array = t.numpy().copy()

    alive = []

    def pack(t):
        held = Held(t)
        alive.append(weakref.ref(held))
        return held

    gc.disable()
    try:
        x = square()
        with saved_tensors_hooks(pack, lambda h: disttorch.from_numpy(h.array)):
            y = x.exp().sin()
        assert all(w() is not None for w in alive) and len(alive) == 2
        y.sum().backward()
        assert all(w() is None for w in alive)
        with pytest.raises(RuntimeError, match="second time"):
            y.sum().backward()
    finally:
        gc.enable()


def test_wrong_hooks():
    x = square()
    with (
        saved_tensors_hooks(lambda t: t.mul_(2), lambda t: t),
        pytest.raises(RuntimeError, match="pack hook is modifying its input"),
    ):
        (x * 1).exp()
    with saved_tensors_hooks(lambda t: t, lambda t: 3):
        y = x.exp()
    with pytest.raises(TypeError, match="expected to be a Tensor but got result of type int"):
        y.sum().backward()
    with disable_saved_tensors_hooks("not here"):
        x.exp().sum().backward()
        with pytest.raises(RuntimeError, match="not here"), saved_tensors_hooks(lambda t: t, lambda t: t):
            pass
    with pytest.raises(RuntimeError, match="not there"), saved_tensors_hooks(lambda t: t, lambda t: t):  # noqa: SIM117
        with disable_saved_tensors_hooks("not there"):
            pass
    with saved_tensors_hooks(lambda t: t, lambda t: t):
        x.exp()


@pytest.mark.parametrize("pin_memory", [False, True])
def test_save_on_cpu(pin_memory):
    x = square()
    with save_on_cpu(pin_memory=pin_memory):
        y = x.exp() * x
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), (np.exp(x.detach().numpy()) * (1 + x.detach().numpy())))


def test_saved_tensors_may_be_changed_where_that_is_allowed():
    x = square()
    values = x.detach().numpy().copy()
    with allow_mutation_on_saved_tensors() as copies:
        a = x * 1
        y = (a * a).sum()
        b = a.exp()
        a.zero_()
        with disttorch.no_grad():
            b.mul_(0)
        (g,) = grad(y + b.detach().sum() * 0, x)
        np.testing.assert_allclose(g.numpy(), 2 * values)
        c = x.sin()
        d = c.exp()
        d[0] = 0
        (g,) = grad(d.sum(), x)
        expected = np.exp(np.sin(values)) * np.cos(values)
        expected[0] = 0
        np.testing.assert_allclose(g.numpy(), expected)
        copies.clear()
    a = x * 1
    y = (a * a).sum()
    a.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        y.backward()


def test_increment_version():
    x = square()
    a, b = x * 1, x * 2
    y = (a * a).sum()
    z = (b * b).sum()
    increment_version(a)
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        y.backward()
    increment_version([b])
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        z.backward()
