"""grad, vjp, jvp, Jacobians and Hessians: against formulas, finite differences and each other."""

import numpy as np
import pytest

import disttorch
from disttorch.func import (
    functional_call,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    stack_module_state,
    value_and_grad,
    vjp,
    vmap,
)


def draw(*shape, seed=0):
    return disttorch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def close(found, expected, rtol=1e-7):
    np.testing.assert_allclose(found.detach().numpy(), np.asarray(expected), rtol=rtol, atol=1e-10)


def test_grad():
    x, y = draw(3), draw(3, seed=1)
    function = lambda x, y: (x**2 * y).sum()  # noqa: E731
    close(grad(function)(x, y), 2 * x.numpy() * y.numpy())
    by_x, by_y = grad(function, (0, 1))(x, y)
    close(by_x, 2 * x.numpy() * y.numpy())
    close(by_y, x.numpy() ** 2)
    close(grad(function, -1)(x, y), x.numpy() ** 2)
    gradient, value = grad_and_value(function)(x, y)
    assert value.item() == pytest.approx(function(x, y).item())
    (value, aux), gradient = value_and_grad(lambda x: (x.sum(), x * 2), has_aux=True)(x)
    assert aux.tolist() == (x * 2).tolist() and gradient.tolist() == [1.0] * 3 and value.item() == x.sum().item()
    gradient, aux = grad(lambda x: (x.sum(), {"twice": x * 2}), has_aux=True)(x)
    assert not aux["twice"].requires_grad
    tree = grad(lambda p: (p["w"] * p["b"][0]).sum())({"w": x, "b": [y]})
    close(tree["w"], y.numpy())
    close(tree["b"][0], x.numpy())


def test_grad_has_no_graph_unless_something_asks():
    x = draw(3)
    assert not grad(lambda x: (x**3).sum())(x).requires_grad
    leaf = x.clone().requires_grad_()
    found = grad(lambda x: (x**3).sum())(leaf)
    (second,) = disttorch.autograd.grad(found.sum(), leaf)
    close(second, 6 * x.numpy())
    w = draw(3, seed=2).requires_grad_()
    found = grad(lambda x: (x**3 * w).sum())(x)
    found.sum().backward()
    close(w.grad, 3 * x.numpy() ** 2)
    assert leaf.grad is None
    with disttorch.no_grad():
        found = grad(lambda x: (x**3 * w).sum())(leaf)
        assert not found.requires_grad
        close(found, 3 * x.numpy() ** 2 * w.numpy(force=True))


def test_derivatives_of_derivatives():
    x = disttorch.tensor(0.7, dtype=disttorch.float64)
    function = disttorch.sin
    for expected in (np.cos, lambda v: -np.sin(v), lambda v: -np.cos(v), np.sin):
        function = grad(function)
        close(function(x), expected(0.7))
    # the inner derivative is by the inner x alone
    close(grad(lambda x: x * grad(lambda y: x * y)(x))(x), 2 * 0.7)
    close(grad(lambda x: grad(lambda y: y**2 * x)(x) * x)(x), 6 * 0.7**2)


def test_vjp_and_jvp():
    a = draw(4, 3)
    x, t, c = draw(3), draw(3, seed=1), draw(4, seed=2)
    function = lambda x: disttorch.tanh(a @ x)  # noqa: E731
    jacobian = (1 - np.tanh(a.numpy() @ x.numpy()) ** 2)[:, None] * a.numpy()
    value, pull_back = vjp(function, x)
    close(value, np.tanh(a.numpy() @ x.numpy()))
    close(pull_back(c)[0], jacobian.T @ c.numpy())
    close(vmap(pull_back)(disttorch.eye(4, dtype=disttorch.float64))[0], jacobian)
    value, pushed = jvp(function, (x,), (t,))
    close(pushed, jacobian @ t.numpy())
    assert not pushed.requires_grad and not value.requires_grad
    value, push = linearize(function, x)
    close(push(t), jacobian @ t.numpy())
    close(vmap(push)(disttorch.eye(3, dtype=disttorch.float64)), jacobian.T)
    value, pull_back, aux = vjp(lambda x, y: ((x * y, x.sum()), "aux"), x, t, has_aux=True)
    assert aux == "aux"
    by_x, by_y = pull_back((c[:3], c[3]))
    close(by_x, t.numpy() * c.numpy()[:3] + c.numpy()[3])
    close(by_y, x.numpy() * c.numpy()[:3])
    _, tangents, aux = jvp(lambda d: ({"y": d["x"] ** 2}, 5), ({"x": x},), ({"x": t},), has_aux=True)
    close(tangents["y"], 2 * x.numpy() * t.numpy())
    assert jvp(lambda x: disttorch.ones(2), (x,), (t,))[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("transform", [jacrev, jacfwd, lambda f, **o: jacrev(f, chunk_size=2, **o)])
def test_jacobians(transform):
    x, y = draw(2, 3), draw(3, seed=1)
    function = lambda x, y: {"a": x.exp() * y, "b": (x @ y, y.sum())}  # noqa: E731
    found = transform(function, argnums=(0, 1))(x, y)
    e = np.exp(x.numpy())
    expected = np.zeros((2, 3, 2, 3))
    for i, j in np.ndindex(2, 3):
        expected[i, j, i, j] = e[i, j] * y.numpy()[j]
    close(found["a"][0], expected)
    close(found["a"][1], e[:, :, None] * np.eye(3))
    close(found["b"][0][0], np.eye(2)[:, :, None] * y.numpy())
    close(found["b"][0][1], x.numpy())
    close(found["b"][1][0], np.zeros((2, 3)))
    close(found["b"][1][1], np.ones(3))


def test_hessians():
    a = draw(3, 3)
    function = lambda x: (x @ a @ x) * x.sum()  # noqa: E731
    x = draw(3, seed=1)
    gradient = lambda v: (a.numpy() + a.numpy().T) @ v * v.sum() + v @ a.numpy() @ v  # noqa: E731
    eps = 1e-6
    expected = np.stack([(gradient(x.numpy() + eps * e) - gradient(x.numpy() - eps * e)) / (2 * eps) for e in np.eye(3)])
    for found in (hessian(function)(x), jacrev(jacrev(function))(x), jacfwd(jacfwd(function))(x), jacrev(jacfwd(function))(x)):
        close(found, expected, rtol=1e-6)
    batch = draw(5, 3, seed=3)
    found = vmap(hessian(function))(batch)
    for k in range(5):
        close(found[k], hessian(function)(batch[k]).numpy())


def test_per_sample_gradients_of_a_network():
    model = disttorch.nn.Sequential(
        disttorch.nn.Conv2d(1, 2, 3), disttorch.nn.ReLU(), disttorch.nn.MaxPool2d(2), disttorch.nn.Flatten(), disttorch.nn.Linear(8, 3)
    ).double()
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters, x, target):
        logits = functional_call(model, parameters, (x.unsqueeze(0),))
        return disttorch.nn.functional.cross_entropy(logits, target.unsqueeze(0))

    x, target = draw(6, 1, 6, 6), disttorch.tensor([0, 1, 2, 0, 1, 2])
    found = vmap(grad(loss), (None, 0, 0))(parameters, x, target)
    for k in range(6):
        model.zero_grad()
        loss(dict(model.named_parameters()), x[k], target[k]).backward()
        for name, p in model.named_parameters():
            close(found[name][k], p.grad.numpy())


def test_an_ensemble_trains_as_its_members():
    models = [disttorch.nn.Linear(3, 2).double() for _ in range(4)]
    parameters, buffers = stack_module_state(models)
    assert buffers == {} and parameters["weight"].shape == (4, 2, 3) and parameters["weight"].is_leaf
    x = draw(5, 3)
    out = vmap(lambda p, x: functional_call(models[0], p, (x,)), (0, None))(parameters, x)
    (out**2).sum().backward()
    for k, model in enumerate(models):
        own = model(x)
        close(out[k], own.detach().numpy())
        (own**2).sum().backward()
        close(parameters["weight"].grad[k], model.weight.grad.numpy())
    with pytest.raises(RuntimeError, match="at least one model"):
        stack_module_state([])
    with pytest.raises(RuntimeError, match="same class"):
        stack_module_state([models[0], disttorch.nn.ReLU()])
    with pytest.raises(RuntimeError, match="same training/eval mode"):
        stack_module_state([models[0], disttorch.nn.Linear(3, 2).eval()])


def test_functional_call():
    class Tied(disttorch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = disttorch.nn.Linear(2, 2, bias=False)
            self.b = self.a
            self.register_buffer("count", disttorch.zeros(1))

        def forward(self, x, scale=1.0):
            self.count.add_(1)
            return self.b(self.a(x)) * scale

    module = Tied()
    before = module.a.weight
    new = {"a.weight": 2 * disttorch.eye(2)}
    count = disttorch.zeros(1)
    x = disttorch.ones(2)
    assert functional_call(module, (new, {"count": count}), x, {"scale": 3.0}).tolist() == [12.0, 12.0]
    assert count.item() == 1 and module.count.item() == 0 and module.a.weight is before
    assert functional_call(module, new, (x,), tie_weights=True).tolist() == [4.0, 4.0]
    with pytest.raises(ValueError, match="multiple values"):
        functional_call(module, {"a.weight": x, "b.weight": disttorch.ones(2)}, x)
    with pytest.raises(ValueError, match="multiple dictionaries"):
        functional_call(module, (new, new), x)
    with pytest.raises(RuntimeError, match=r"missing key\(s\): \['count'\]"):
        functional_call(module, new, x, strict=True)
    with pytest.raises(RuntimeError, match=r"unexpected key\(s\): \['other'\]"):
        functional_call(module, {**new, "count": count, "other": x}, x, strict=True)
    with pytest.raises(ValueError, match="Expected parameter_and_buffer_dicts"):
        functional_call(module, 3, x)
    with pytest.raises(RuntimeError):
        functional_call(module, {"a.weight": disttorch.ones(3, 3)}, x)
    assert module.a.weight is before


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: grad(lambda x: x * 2)(x), RuntimeError, "scalar"),
        (lambda x: grad(lambda x: (x.sum(), x))(x), RuntimeError, "one Tensor"),
        (lambda x: grad(lambda x: x.sum(), has_aux=True)(x), RuntimeError, "has_aux"),
        (lambda x: grad(lambda x: x.sum(), argnums=2)(x), RuntimeError, "argnum=2"),
        (lambda x: grad(lambda x: x.sum())(3.0), ValueError, "float"),
        (lambda x: grad(lambda x: x.sum())(disttorch.arange(3)), RuntimeError, "int64"),
        (lambda x: vjp(lambda x: (x, x), x)[1](x), RuntimeError, "nested like"),
        (lambda x: vjp(lambda x: 3, x), RuntimeError, "int"),
        (lambda x: jvp(lambda x: x, x, (x,)), RuntimeError, "tuple"),
        (lambda x: jvp(lambda x: x, (x,), (disttorch.ones(5),)), RuntimeError, "shape"),
        (lambda x: jvp(lambda x: x, (x,), (x, x)), RuntimeError, "nested"),
        (lambda x: jvp(lambda x: disttorch.ones(1), (x,), (x,), strict=True), RuntimeError, "strict"),
        (lambda x: linearize(lambda: 1), RuntimeError, "at least one"),
        (lambda x: jacrev(lambda x: x, chunk_size=0), ValueError, "chunk_size"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(draw(3))
