"""Mixed precision on the device: which dtype each operation computes in, and scaled gradients."""

import numpy as np
import pytest

import disttorch
from disttorch import nn
from tests.gpu.agreement import exact

HALVES = [disttorch.float16, disttorch.bfloat16]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_autocast_chooses_dtypes(dtype, device):
    x, w = disttorch.randn(8, 8, device=device), disttorch.randn(8, 8, device=device)
    with disttorch.autocast("cuda", dtype=dtype):
        assert (x @ w).dtype is dtype
        assert nn.functional.linear(x, w).dtype is dtype
        assert nn.functional.conv2d(x.view(1, 1, 8, 8), w.view(1, 1, 8, 8)).dtype is dtype
        half = x @ w
        assert half.exp().dtype is disttorch.float32
        assert nn.functional.softmax(half, 1).dtype is disttorch.float32
        assert nn.functional.cross_entropy(half, disttorch.zeros(8, dtype=disttorch.int64, device=device)).dtype is disttorch.float32
        assert (half + x).dtype is disttorch.float32
        assert half.relu().dtype is dtype
        with disttorch.autocast("cuda", enabled=False):
            assert (x @ w).dtype is disttorch.float32
    assert (x @ w).dtype is disttorch.float32


def network(where):
    disttorch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(), nn.Flatten(), nn.LayerNorm(8 * 64), nn.Linear(8 * 64, 10)
    )
    return model.to(where)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_gradients_under_autocast_are_float32s_but_for_rounding(dtype, device):
    rng = np.random.default_rng(0)
    x, y = disttorch.tensor(rng.standard_normal((16, 3, 8, 8)), dtype=disttorch.float32), disttorch.tensor(rng.integers(0, 10, 16))
    exact_model, model = network("cpu").double(), network(device)
    loss = nn.functional.cross_entropy(exact_model(x.double()), y)
    loss.backward()
    with disttorch.autocast("cuda", dtype=dtype):
        found = nn.functional.cross_entropy(model(x.to(device)), y.to(device))
    found.backward()
    assert exact(found) == pytest.approx(exact(loss), rel=2e-2)
    for (name, p), q in zip(exact_model.named_parameters(), model.parameters()):
        assert q.grad.dtype is disttorch.float32
        size = float(p.grad.abs().max().item())
        if size < 1e-6:
            continue  # the gradient of a bias in front of a normalization is zero but for rounding
        assert np.abs(exact(p.grad) - exact(q.grad)).max() < 5e-2 * size, name


def test_the_scaler_skips_steps_with_infinities_and_finds_its_scale(device):
    w = nn.Parameter(disttorch.ones(4, device=device))
    optimizer = disttorch.optim.SGD([w], lr=0.5)
    scaler = disttorch.amp.GradScaler("cuda", init_scale=1024.0, growth_interval=2)
    scales = []
    for factor in (1.0, float("inf"), 1.0, 1.0, float("nan")):
        optimizer.zero_grad()
        scaler.scale((w * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    assert scales == [1024, 512, 512, 1024, 512]
    np.testing.assert_array_equal(exact(w), 1 - 3 * 0.5)


@pytest.mark.parametrize("name", ["SGD", "AdamW", "Adagrad", "RMSprop"])
def test_scaled_steps_are_the_unscaled_ones(name, device):
    rng = np.random.default_rng(0)
    start, x = rng.standard_normal((16, 16)), disttorch.tensor(rng.standard_normal((8, 16)), dtype=disttorch.float32).to(device)
    found = []
    for scaled in (True, False):
        w = nn.Parameter(disttorch.tensor(start, dtype=disttorch.float32).to(device))
        optimizer = getattr(disttorch.optim, name)([w], lr=0.01)
        scaler = disttorch.amp.GradScaler("cuda", init_scale=2.0**10, enabled=scaled)
        for _ in range(4):
            optimizer.zero_grad()
            scaler.scale((x @ w).tanh().square().mean()).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_([w], 0.05)
            scaler.step(optimizer)
            scaler.update()
        found.append(exact(w))
    np.testing.assert_allclose(*found, rtol=1e-6, atol=1e-7)
