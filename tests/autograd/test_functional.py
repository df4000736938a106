"""autograd.functional and forward mode: against formulas and finite differences."""

import numpy as np
import pytest

import disttorch
from disttorch.autograd import Function, forward_ad, grad
from disttorch.autograd import functional as F
from disttorch.autograd.function import once_differentiable

GENERATOR = np.random.default_rng(3)
X, Y = GENERATOR.standard_normal((2, 3)), GENERATOR.standard_normal(3)
W = GENERATOR.standard_normal((3, 2))

#: name -> (function of tensors or arrays, its arguments)
FUNCTIONS = {
    "one": (lambda m, x: m.tanh(x) * x.sum(), (X,)),
    "two": (lambda m, x, y: m.exp(x) * y + m.sin(y) * x.sum(), (X, Y)),
    "scalar": (lambda m, x, y: (x * x * y).sum() * y.sum(), (X, Y)),
    "linear": (lambda m, x: x * 3.0, (X,)),
    "matmul": (lambda m, x: m.tanh(x @ m.asarray(W)), (X,)),
}


class Arrays:
    tanh, exp, sin, asarray = np.tanh, np.exp, np.sin, staticmethod(np.asarray)


class Tensors:
    tanh, exp, sin = disttorch.tanh, disttorch.exp, disttorch.sin
    asarray = staticmethod(disttorch.from_numpy)


def slopes(function, values, eps=1e-6):
    """Jacobians by central differences, (*output, *input) for each argument."""
    blocks = []
    for i, v in enumerate(values):
        columns = []
        for place in np.ndindex(v.shape):
            step = np.zeros_like(v)
            step[place] = eps
            ends = [function(Arrays, *values[:i], v + s * step, *values[i + 1 :]) for s in (1, -1)]
            columns.append((np.asarray(ends[0]) - ends[1]) / (2 * eps))
        blocks.append(np.stack(columns, -1).reshape(*np.shape(columns[0]), *v.shape))
    return blocks


def tensors(values, requires_grad=False):
    return tuple(disttorch.from_numpy(v.copy()).requires_grad_(requires_grad) for v in values)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"vectorize": True},
        {"create_graph": True},
        {"vectorize": True, "create_graph": True},
        {"vectorize": True, "strategy": "forward-mode"},
        {"strict": True},
    ],
)
@pytest.mark.parametrize("asks", [False, True])
def test_jacobian(name, options, asks):
    function, values = FUNCTIONS[name]
    found = F.jacobian(lambda *a: function(Tensors, *a), tensors(values, asks), **options)
    for block, expected in zip(found, slopes(function, values)):
        assert block.requires_grad == (options.get("create_graph", False) and name != "linear")
        np.testing.assert_allclose(block.detach().numpy(), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_products(name):
    function, values = FUNCTIONS[name]
    blocks = slopes(function, values)
    out = np.asarray(function(Arrays, *values))
    v = np.random.default_rng(1).standard_normal(out.shape)
    us = [np.random.default_rng(2).standard_normal(x.shape) for x in values]
    value, pulled = F.vjp(lambda *a: function(Tensors, *a), tensors(values), disttorch.asarray(v))
    np.testing.assert_allclose(value.numpy(), out)
    for p, block in zip(pulled, blocks):
        np.testing.assert_allclose(p.numpy(), np.tensordot(v, block, v.ndim), rtol=1e-6, atol=1e-8)
    value, pushed = F.jvp(lambda *a: function(Tensors, *a), tensors(values), tensors(us))
    expected = sum(np.tensordot(block, u, u.ndim) for block, u in zip(blocks, us))
    np.testing.assert_allclose(value.numpy(), out)
    np.testing.assert_allclose(pushed.numpy(), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("options", [{}, {"vectorize": True}, {"vectorize": True, "outer_jacobian_strategy": "forward-mode"}])
def test_hessian_and_its_products(options):
    a = np.random.default_rng(5).standard_normal((3, 3))
    x = disttorch.from_numpy(np.random.default_rng(6).standard_normal(3))

    def function(x):
        return (x @ disttorch.from_numpy(a) @ x) * x.sum()

    def gradient(x):
        return (a + a.T) @ x * x.sum() + x @ a @ x

    values = x.numpy()
    eps = 1e-6
    expected = np.stack([(gradient(values + eps * e) - gradient(values - eps * e)) / (2 * eps) for e in np.eye(3)])
    np.testing.assert_allclose(F.hessian(function, x, **options).numpy(), expected, rtol=1e-6)
    v = disttorch.tensor([1.0, -2.0, 0.5], dtype=disttorch.float64)
    for product in (F.hvp, F.vhp):
        value, found = product(function, x, v)
        assert value.item() == pytest.approx(function(x).item())
        np.testing.assert_allclose(found.numpy(), expected @ v.numpy(), rtol=1e-6)


def test_results_can_be_differentiated_on():
    x = disttorch.tensor([1.0, 2.0], dtype=disttorch.float64, requires_grad=True)
    for product in (F.hvp, F.vhp):
        _, found = product(lambda x: (x**4).sum(), x, x.detach(), create_graph=True)
        np.testing.assert_allclose(grad(found.sum(), x)[0].numpy(), 24 * x.detach().numpy() ** 2)
    _, found = F.jvp(lambda x: x**3, x, x.detach(), create_graph=True)
    np.testing.assert_allclose(grad(found.sum(), x)[0].numpy(), 6 * x.detach().numpy() ** 2)


X1 = disttorch.ones(1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: F.jacobian(lambda x: disttorch.ones(3), x, strict=True), RuntimeError, "does not require gradients"),
        (
            lambda x: F.jacobian(lambda x: disttorch.ones(3, requires_grad=True) * 1, x, strict=True),
            RuntimeError,
            "independent of input 0",
        ),
        (lambda x: F.hessian(lambda x: x.sum(), x, strict=True), RuntimeError, "jacobian of the user-provided function"),
        (lambda x: F.hessian(lambda x: x * 2, x), RuntimeError, "should contain a single element"),
        (lambda x: F.vjp(lambda x: x * 2, x), RuntimeError, "v can only be None"),
        (lambda x: F.vjp(lambda x: x * 2, x, disttorch.ones(5)), RuntimeError, "invalid size"),
        (lambda x: F.jvp(lambda x: x * 2, x), RuntimeError, "v can only be None"),
        (lambda x: F.jacobian(lambda x: x, 3), TypeError, "must be either a Tensor or a tuple of Tensors"),
        (lambda x: F.jacobian(lambda x: 3, x), TypeError, "outputs of the user-provided function"),
        (lambda x: F.jacobian(lambda x: x, x, strategy="forward-mode"), NotImplementedError, "vectorize=True"),
        (lambda x: F.jacobian(lambda x: x, x, strict=True, vectorize=True), RuntimeError, "not supported together"),
        (lambda x: F.jacobian(lambda x: x, x, strategy="other"), AssertionError, "Expected strategy"),
        (lambda x: forward_ad.make_dual(x, x), RuntimeError, "no level exists"),
        (lambda x: forward_ad.exit_dual_level(), RuntimeError, "positive number"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(disttorch.ones(3))


def test_zeros_where_nothing_depends():
    x = disttorch.ones(2)
    assert F.jacobian(lambda x: disttorch.ones(3), x).tolist() == [[0.0, 0.0]] * 3
    assert F.jvp(lambda x: disttorch.ones(3), x, x)[1].tolist() == [0.0] * 3
    assert F.hvp(lambda x: x.sum(), x, x)[1].tolist() == [0.0, 0.0]


def test_dual_tensors():
    x = disttorch.tensor([1.0, 2.0], dtype=disttorch.float64)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, disttorch.tensor([1.0, 0.5], dtype=disttorch.float64))
        other = forward_ad.make_dual(x, x)
        primal, tangent = forward_ad.unpack_dual(dual.exp() * other)
        assert not primal.requires_grad and not tangent.requires_grad
        np.testing.assert_allclose(tangent.numpy(), np.exp(x.numpy()) * (x.numpy() * [1.0, 0.5] + x.numpy()))
        assert forward_ad.unpack_dual(x).tangent is None
        assert forward_ad.unpack_dual(dual).tangent.tolist() == [1.0, 0.5]
        with pytest.raises(RuntimeError, match="Nested"):
            forward_ad.enter_dual_level()
        with pytest.raises(RuntimeError, match="already has a forward gradient"):
            forward_ad.make_dual(dual, x)
        with pytest.raises(RuntimeError, match="different size"):
            forward_ad.make_dual(x, disttorch.ones(3))
        with pytest.raises(ValueError, match="floating point"):
            forward_ad.make_dual(disttorch.arange(2), x)
    assert forward_ad.unpack_dual(dual).tangent is None


def test_a_tangent_of_a_parameter_keeps_its_graph():
    w = disttorch.tensor([3.0, 4.0], dtype=disttorch.float64, requires_grad=True)
    x = disttorch.tensor([1.0, 2.0], dtype=disttorch.float64)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(forward_ad.make_dual(x, disttorch.ones(2, dtype=disttorch.float64)) ** 2 * w).tangent
    assert grad(tangent.sum(), w)[0].tolist() == [2.0, 4.0]


class WithJvp(Function):
    """3 x^2, whose backward is said not to be differentiable, and whose push-forward is given."""

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(inputs[0], output)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * x**2

    @staticmethod
    def jvp(ctx, t):
        x, out = ctx.saved_tensors
        assert out.shape == x.shape
        return t * 3 * x**2


def test_functions_with_a_push_forward_of_their_own():
    x = disttorch.tensor([1.0, 2.0], dtype=disttorch.float64)
    value, tangent = F.jvp(WithJvp.apply, x, disttorch.ones(2, dtype=disttorch.float64))
    assert value.tolist() == [1.0, 8.0] and tangent.tolist() == [3.0, 12.0]
    x.requires_grad_()
    start = disttorch.ones(2, dtype=disttorch.float64, requires_grad=True)
    (g,) = grad(WithJvp.apply(x), x, start, create_graph=True)
    assert g.tolist() == [3.0, 12.0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()
    (g,) = grad(WithJvp.apply(x).sum(), x)
    assert not g.requires_grad
