"""Optimizer steps against the formulas on PyTorch's pages in float64, and against PyTorch's own steps."""

from itertools import product

import ml_dtypes
import numpy as np
import pytest

from disttorch.backend.kernels.optimization import adam, sgd

TYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
TOLERANCE = {np.float16: 2.0**-9, ml_dtypes.bfloat16: 2.0**-6, np.float32: 1e-6, np.float64: 1e-13}
SIZES = [(5,), (0,), (), (3, 4), (70_000,)]


def sgd_by_definition(p, gradients, lr, momentum, dampening, weight_decay, nesterov, maximize):
    b = None
    for g in gradients:
        g = -g if maximize else g
        g = g + weight_decay * p
        if momentum is not None:
            b = g if b is None else momentum * b + (1 - dampening) * g
            g = g + momentum * b if nesterov else b
        p = p - lr * g
    return p, b


def adam_by_definition(p, gradients, amsgrad, lr, beta1, beta2, eps, weight_decay, decoupled, maximize):
    m, v, largest = np.zeros(p.shape), np.zeros(p.shape), np.zeros(p.shape)
    for t, g in enumerate(gradients, 1):
        g = -g if maximize else g
        if decoupled:
            p = p - lr * weight_decay * p
        else:
            g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        largest = np.maximum(largest, v)
        second = (largest if amsgrad else v) / (1 - beta2**t)
        p = p - lr * (m / (1 - beta1**t)) / (np.sqrt(second) + eps)
    return p, m, v, largest


def sgd_(xp, p, g, buffer, first_step, lr, momentum, dampening, weight_decay, nesterov, maximize):
    numbers = {"lr": lr, "momentum": momentum, "dampening": dampening, "nesterov": nesterov, "first_step": first_step}
    xp.step_(sgd, p, g, (buffer,), numbers, maximize, weight_decay)


def adam_(xp, p, g, mean, square, largest, step, lr, beta1, beta2, eps, weight_decay, decoupled, maximize):
    numbers = {"step_size": lr / (1 - beta1**step), "root": (1 - beta2**step) ** 0.5, "beta1": beta1, "beta2": beta2, "eps": eps}
    add, shrink = (0.0, 1 - lr * weight_decay) if decoupled else (weight_decay, 1.0)
    xp.step_(adam, p, g, (mean, square, largest), numbers, maximize, add, shrink)


def near(result, exact, dtype):
    np.testing.assert_allclose(result.astype(np.float64), exact, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


SGD = [
    (lr, momentum, dampening, weight_decay, nesterov, maximize)
    for lr, momentum, dampening, weight_decay, nesterov, maximize in product(
        [0.1], [None, 0.9], [0.0, 0.3], [0.0, 0.2], [False, True], [False, True]
    )
    if (momentum or not (nesterov or dampening)) and not (nesterov and dampening)
]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("settings", SGD, ids=str)
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_sgd(xp, rng, shape, settings, dtype):
    lr, momentum, dampening, weight_decay, nesterov, maximize = settings
    p = rng.normal(size=shape).astype(dtype)
    gradients = [rng.normal(size=shape).astype(dtype) for _ in range(3)]
    exact_p, exact_b = sgd_by_definition(p.astype(np.float64), [g.astype(np.float64) for g in gradients], *settings)
    p, kept = np.asarray(p), [g.copy() for g in gradients]
    # what it held before does not matter on the first step
    buffer = None if momentum is None else np.full(shape, np.nan, dtype)
    for i, g in enumerate(gradients):
        sgd_(xp, p, g, buffer, i == 0, lr, momentum or 0.0, dampening, weight_decay, nesterov, maximize)
    assert p.dtype == dtype
    near(p, exact_p, dtype)
    if buffer is not None:
        near(buffer, exact_b, dtype)
    for g, before in zip(gradients, kept):
        np.testing.assert_array_equal(g, before)


ADAM = list(product([False, True], [0.0, 0.1], [False, True], [False, True]))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("amsgrad", "weight_decay", "decoupled", "maximize"), ADAM)
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_adam(xp, rng, shape, amsgrad, weight_decay, decoupled, maximize, dtype):
    numbers = (0.05, 0.9, 0.95, 1e-4, weight_decay, decoupled, maximize)
    p = np.asarray(rng.normal(size=shape).astype(dtype))
    gradients = [np.asarray((rng.normal(size=shape) / t).astype(dtype)) for t in range(1, 4)]
    exact = adam_by_definition(p.astype(np.float64), [g.astype(np.float64) for g in gradients], amsgrad, *numbers)
    state = [np.zeros(shape, dtype) for _ in range(3 if amsgrad else 2)]
    kept = [g.copy() for g in gradients]
    for step, g in enumerate(gradients, 1):
        adam_(xp, p, g, *state, *([] if amsgrad else [None]), step, *numbers)
    assert p.dtype == dtype
    for result, value in zip([p, *state], exact):
        near(result, value, dtype)
    for g, before in zip(gradients, kept):
        np.testing.assert_array_equal(g, before)


@pytest.mark.parametrize(
    ("theirs", "options", "decoupled"),
    [
        ("AdamW", {"lr": 1e-2, "weight_decay": 0.1}, True),
        ("Adam", {"lr": 1e-2, "weight_decay": 0.1, "amsgrad": True}, False),
        ("Adam", {"lr": 1e-2, "betas": (0.8, 0.99), "maximize": True}, False),
        ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}, None),
        ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "maximize": True}, None),
    ],
)
def test_twenty_steps_follow_pytorch(xp, rng, theirs, options, decoupled):
    torch = pytest.importorskip("torch", reason="needs PyTorch to compare with")
    p = rng.normal(size=1000).astype(np.float32)
    parameter = torch.nn.Parameter(torch.tensor(p.copy()))
    optimizer = getattr(torch.optim, theirs)([parameter], **options)
    state = [np.zeros(1000, np.float32) for _ in range(3)]
    for step in range(1, 21):
        g = rng.normal(size=1000).astype(np.float32)
        parameter.grad = torch.tensor(g.copy())
        optimizer.step()
        decay, maximize = options.get("weight_decay", 0.0), options.get("maximize", False)
        if theirs == "SGD":
            dampening, nesterov = options.get("dampening", 0.0), options.get("nesterov", False)
            sgd_(xp, p, g, state[0], step == 1, options["lr"], 0.9, dampening, decay, nesterov, maximize)
        else:
            largest = state[2] if options.get("amsgrad") else None
            betas = options.get("betas", (0.9, 0.999))
            adam_(xp, p, g, *state[:2], largest, step, options["lr"], *betas, 1e-8, decay, decoupled, maximize)
    np.testing.assert_allclose(p, parameter.detach().numpy(), rtol=2e-5, atol=2e-6)


def test_views_are_stepped_in_place(xp, rng):
    whole = rng.normal(size=(6, 8)).astype(np.float32)
    before = whole.copy()
    p, g = whole.T[::2], rng.normal(size=(4, 6)).astype(np.float32)
    sgd_(xp, p, g, None, True, 0.5, 0.0, 0.0, 0.0, False, False)
    np.testing.assert_array_equal(whole[:, 1::2], before[:, 1::2])
    np.testing.assert_allclose(whole[:, ::2], before[:, ::2] - g.T / 2, rtol=1e-6)
    state = np.zeros((2, 4, 6), np.float32)
    adam_(xp, p, g, state[0], state[1], None, 1, 0.25, 0.9, 0.999, 0.0, 0.0, True, False)
    np.testing.assert_allclose(whole[:, ::2], before[:, ::2] - g.T / 2 - 0.25 * np.sign(g.T), rtol=1e-5, atol=1e-6)
