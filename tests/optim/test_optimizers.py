"""Optimizers against PyTorch's, step by step, and against formulas in float64 where PyTorch is not installed."""

import math

import numpy as np
import pytest

import disttorch
from disttorch import optim

CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.8, "dampening": 0.3, "maximize": True}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.05, "amsgrad": True}),
    ("Adam", {"lr": 0.05, "maximize": True, "amsgrad": True, "weight_decay": 0.01}),
    ("Adam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.3, "amsgrad": True}),
    ("AdamW", {"lr": 0.05, "maximize": True}),
    ("Adamax", {}),
    ("Adamax", {"lr": 0.05, "betas": (0.8, 0.9), "weight_decay": 0.1, "maximize": True}),
    ("NAdam", {}),
    ("NAdam", {"lr": 0.05, "weight_decay": 0.1, "momentum_decay": 0.1, "maximize": True}),
    ("NAdam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"lr": 0.05}),
    ("RAdam", {"lr": 0.05, "betas": (0.8, 0.7), "weight_decay": 0.1}),
    ("RAdam", {"lr": 0.05, "betas": (0.8, 0.7), "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
    ("Adagrad", {}),
    (
        "Adagrad",
        {
            "lr": 0.1,
            "lr_decay": 0.5,
            "weight_decay": 0.1,
            "initial_accumulator_value": 0.3,
            "eps": 1e-3,
            "maximize": True,
        },
    ),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.7, "eps": 1e-3, "weight_decay": 0.1, "maximize": True}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.05, "alpha": 0.8, "centered": True, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.05, "momentum": 0.9, "centered": True, "maximize": True}),
    ("Rprop", {}),
    ("Rprop", {"lr": 0.1, "etas": (0.3, 1.5), "step_sizes": (0.01, 0.2), "maximize": True}),
    ("ASGD", {}),
    ("ASGD", {"lr": 0.1, "lambd": 0.1, "alpha": 0.5, "t0": 2, "weight_decay": 0.1, "maximize": True}),
    ("Adafactor", {}),
    (
        "Adafactor",
        {"lr": 0.1, "beta2_decay": -0.5, "eps": (1e-3, 1e-2), "d": 2.0, "weight_decay": 0.1, "maximize": True},
    ),
]
SHAPES = [(3, 5), (1,), (), (70000,), (0, 4), (2, 3, 4)]
IDS = [f"{name}-{'-'.join(f'{k}={v}' for k, v in options.items())}" for name, options in CASES]


def problem(dtype):
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(s).astype(dtype) for s in SHAPES]
    gradients = [[rng.standard_normal(s).astype(dtype) for s in SHAPES] for _ in range(7)]
    for step in gradients[2:4]:
        step[0] = None  # a parameter without a gradient is left alone
    return weights, gradients


def run(module, optimizer_class, options, dtype, steps=slice(None), state=None, weights=None):
    start, gradients = problem(dtype)
    if optimizer_class.__name__ == "Adafactor":  # PyTorch's divides by the number of elements
        start, gradients = ([a for a, s in zip(arrays, SHAPES) if 0 not in s] for arrays in (start, zip(*gradients)))
        gradients = list(zip(*gradients))
    params = [module.tensor(w).requires_grad_() for w in (weights or start)]
    optimizer = optimizer_class(params, **options)
    if state is not None:
        optimizer.load_state_dict(state)
    for step in gradients[steps]:
        for p, g in zip(params, step):
            p.grad = None if g is None else module.tensor(g)
        optimizer.step()
    return params, optimizer


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_are_pytorchs(name, options, dtype):
    torch = pytest.importorskip("torch", reason="compared with PyTorch where it is installed")
    ours, _ = run(disttorch, getattr(optim, name), options, dtype)
    theirs, _ = run(torch, getattr(torch.optim, name), options, dtype)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_continues_from_its_state(name, options):
    whole, _ = run(disttorch, getattr(optim, name), options, "float64")
    half, optimizer = run(disttorch, getattr(optim, name), options, "float64", slice(0, 3))
    rest, _ = run(
        disttorch,
        getattr(optim, name),
        {**options, "lr": 123.0},  # what was saved counts
        "float64",
        slice(3, None),
        optimizer.state_dict(),
        [p.detach().numpy() for p in half],
    )
    for a, b in zip(whole, rest):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_state_dict_is_interchangeable_with_pytorchs(name, options):
    torch = pytest.importorskip("torch", reason="compared with PyTorch where it is installed")
    half, theirs = run(torch, getattr(torch.optim, name), options, "float64", slice(0, 3))
    _, mine = run(disttorch, getattr(optim, name), options, "float64", slice(0, 3))
    foreign = theirs.state_dict()
    own = mine.state_dict()
    assert [set(g) for g in own["param_groups"]] == [set(g) for g in foreign["param_groups"]]
    assert {k: set(v) for k, v in own["state"].items()} == {k: set(v) for k, v in foreign["state"].items()}
    foreign["state"] = {
        k: {n: disttorch.from_numpy(t.numpy()) if isinstance(t, torch.Tensor) else t for n, t in v.items()}
        for k, v in foreign["state"].items()
    }
    weights = [p.detach().numpy() for p in half]
    rest, _ = run(disttorch, getattr(optim, name), options, "float64", slice(3, None), foreign, weights)
    whole, _ = run(torch, getattr(torch.optim, name), options, "float64")
    for a, b in zip(rest, whole):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-12)


def test_sgd_with_momentum_by_hand():
    w = disttorch.tensor([1.0], dtype=disttorch.float64, requires_grad=True)
    optimizer = optim.SGD([w], lr=0.1, momentum=0.9)
    velocity, expected = 0.0, 1.0
    for _ in range(5):
        optimizer.zero_grad()
        (w * w).sum().backward()
        optimizer.step()
        velocity = 0.9 * velocity + 2 * expected
        expected -= 0.1 * velocity
    assert w.item() == pytest.approx(expected, rel=1e-14)


def test_adamw_by_hand():
    w = disttorch.tensor([1.0], dtype=disttorch.float64, requires_grad=True)
    optimizer = optim.AdamW([w], lr=0.1, weight_decay=0.5)
    m = v = 0.0
    expected = 1.0
    for t in range(1, 6):
        optimizer.zero_grad()
        (w * w).sum().backward()
        optimizer.step()
        g = 2 * expected
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
    assert w.item() == pytest.approx(expected, rel=1e-12)


def test_groups_have_their_own_options():
    a, b = (disttorch.ones(2, requires_grad=True) for _ in range(2))
    optimizer = optim.SGD([{"params": [a]}, {"params": [b], "lr": 1.0}], lr=0.0)
    a.grad, b.grad = disttorch.ones(2), disttorch.ones(2)
    optimizer.step()
    assert a.tolist() == [1, 1]
    assert b.tolist() == [0, 0]


def test_closure_hooks_and_zero_grad():
    w = disttorch.ones(1, requires_grad=True)
    optimizer = optim.SGD([w], lr=0.5)
    seen = []
    optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append("pre"))
    handle = optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append("post"))

    def closure():
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        seen.append("loss")
        return loss

    assert optimizer.step(closure).item() == 1
    handle.remove()
    optimizer.step(closure)
    assert seen == ["pre", "loss", "post", "pre", "loss"]
    w.grad = disttorch.ones(1)
    kept = w.grad
    optimizer.zero_grad(set_to_none=False)
    assert w.grad.item() == 0
    assert kept.item() == 0
    optimizer.zero_grad()
    assert w.grad is None


def test_a_step_is_noticed_by_a_graph_that_saved_the_parameter():
    w = disttorch.ones(1, requires_grad=True)
    loss = (w * w).sum()
    w.grad = disttorch.ones(1)
    optim.SGD([w], lr=0.1).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


DIFFERENTIABLE = [
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1}),
    ("AdamW", {"weight_decay": 0.1}),
    ("Adamax", {}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"betas": (0.8, 0.7)}),
    ("Adagrad", {}),
    ("Adadelta", {"eps": 1e-2}),
    ("RMSprop", {"momentum": 0.9, "eps": 1e-2}),
    ("RMSprop", {"centered": True, "alpha": 0.5}),
    ("Rprop", {}),
    ("ASGD", {"t0": 1, "lambd": 0.1}),
]


@pytest.mark.parametrize(("name", "options"), DIFFERENTIABLE, ids=[n for n, _ in DIFFERENTIABLE])
def test_a_differentiable_step(name, options):
    rng = np.random.default_rng(3)
    lr = disttorch.tensor(0.1, dtype=disttorch.float64, requires_grad=name in ("SGD", "Adam", "AdamW"))

    def trained(start, gradients, lr):
        weight = start.clone()
        optimizer = getattr(optim, name)([weight], lr=lr, differentiable=True, **options)
        for g in gradients:
            weight.grad = g
            optimizer.step()
        return weight

    start = disttorch.tensor(rng.standard_normal(4)).requires_grad_()
    gradients = disttorch.tensor(rng.standard_normal((3, 4))).requires_grad_()
    assert disttorch.autograd.gradcheck(trained, (start, gradients, lr))


W = disttorch.ones(1, requires_grad=True)
BAD = [
    (lambda: optim.SGD([W], lr=-1), ValueError, "Invalid learning rate: -1"),
    (lambda: optim.SGD([W], nesterov=True), ValueError, "Nesterov momentum requires"),
    (lambda: optim.Adam([W], betas=(1.0, 0.9)), ValueError, "Invalid beta parameter at index 0: 1.0"),
    (lambda: optim.Adam([W], eps=-1), ValueError, "Invalid epsilon value"),
    (lambda: optim.Adam([]), ValueError, "empty parameter list"),
    (lambda: optim.Adam(W), TypeError, "iterable of Tensors"),
    (lambda: optim.Adam([1.0]), TypeError, "can only optimize Tensors, but one of the params is float"),
    (lambda: optim.Adam([W * 2]), ValueError, "non-leaf"),
    (lambda: optim.Adam([W, W]), UserWarning, "duplicate"),
    (lambda: optim.Adam([{"params": [W]}, {"params": [W]}]), ValueError, "more than one parameter group"),
    (lambda: optim.SGD([W]).load_state_dict({"state": {}, "param_groups": []}), ValueError, "0 parameter groups"),
    (
        lambda: optim.SGD([W]).load_state_dict({"state": {}, "param_groups": [{"params": [0, 1]}]}),
        ValueError,
        "2 parameters there, 1 here",
    ),
    (
        lambda: optim.SGD([W]).load_state_dict(
            {"state": {0: {"momentum_buffer": disttorch.ones(3)}}, "param_groups": [{"params": [0]}]}
        ),
        ValueError,
        r"momentum_buffer of parameter 0 has shape \[3\], the parameter \[1\]",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[m for _, _, m in BAD])
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
