"""Activations and dropout written over their input: the values and gradients of the function, in the same memory."""

import numpy as np
import pytest

import disttorch

F = disttorch.nn.functional
X = np.random.default_rng(6).normal(size=(4, 5)) * 2

CASES = [
    ("relu", (), {}),
    ("relu6", (), {}),
    ("leaky_relu", (0.2,), {}),
    ("leaky_relu", (-0.2,), {}),
    ("elu", (1.5,), {}),
    ("elu", (-1.5,), {}),
    ("selu", (), {}),
    ("celu", (0.7,), {}),
    ("hardtanh", (-0.5, 0.6), {}),
    ("hardsigmoid", (), {}),
    ("hardswish", (), {}),
    ("silu", (), {}),
    ("mish", (), {}),
    ("threshold", (0.1, 20.0), {}),
    ("rrelu", (0.1, 0.3), {}),
    ("rrelu", (0.1, 0.3), {"training": True}),
    ("dropout", (0.4,), {}),
    ("alpha_dropout", (0.4,), {"training": True}),
    ("feature_alpha_dropout", (0.4,), {"training": True}),
]


@pytest.mark.parametrize(("name", "arguments", "options"), CASES)
def test_the_value_and_the_gradient_are_the_functions(name, arguments, options):
    function = getattr(F, name)
    found = []
    for inplace in (False, True):
        disttorch.manual_seed(9)
        leaf = disttorch.tensor(X, requires_grad=True)
        x = leaf * 1.0
        out = function(x, *arguments, inplace=inplace, **options)
        assert (out is x) == inplace
        (out * out).sum().backward()
        found.append((out.detach().numpy(), leaf.grad.numpy()))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-14)
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-12)


@pytest.mark.parametrize("name", ["relu_", "leaky_relu_", "elu_", "selu_", "celu_", "hardtanh_", "rrelu_"])
def test_twins_have_names_of_their_own(name):
    x = disttorch.tensor(X)
    expected = getattr(F, name[:-1])(x)
    assert getattr(F, name)(x) is x
    np.testing.assert_array_equal(x.numpy(), expected.numpy())


@pytest.mark.parametrize("name", ["celu_", "relu_", "rrelu_", "selu_"])
def test_some_are_functions_of_the_package(name):
    x = disttorch.tensor(X)
    assert getattr(disttorch, name)(x) is x


def test_a_leaf_cannot_be_written_over():
    with pytest.raises(RuntimeError, match="leaf"):
        F.elu_(disttorch.tensor(X, requires_grad=True))


def test_results_can_be_put_into_a_given_tensor():
    x = disttorch.tensor(X)
    for name in ("gelu", "hardshrink", "logsigmoid", "softplus", "softshrink"):
        out = disttorch.zeros(4, 5, dtype=disttorch.float64)
        assert getattr(F, name)(x, out=out) is out
        np.testing.assert_array_equal(out.numpy(), getattr(F, name)(x).numpy())
