"""`GradScaler` and `autocast` on the stand-in: whether to step is decided on the device, and as on the CPU."""

from contextlib import nullcontext

import numpy as np
import pytest

from tests import stand_in
from tests.stand_in import host_cuda
from tests.stand_in.session import tensors

pytestmark = pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available()))

OPTIMIZERS = [("SGD", {"momentum": 0.9}), ("Adam", {}), ("AdamW", {"amsgrad": True}), ("RMSprop", {"centered": True}), ("Adagrad", {})]
SLOPES = (1.0, 2.0, float("inf"), 1.0, float("nan"), 3.0, 1.0, 1.0, 1.0)


@pytest.fixture
def torch():
    with tensors() as module:
        yield module


def train(torch, device, make, watch, slopes=SLOPES, unscale=False):
    """Weights and scale after each step, and what `watch` says."""
    w = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0], device=device))
    optimizer = make([w])
    scaler = torch.amp.GradScaler(device, init_scale=8.0, growth_interval=2)
    history = []
    for slope in slopes:
        factor = torch.tensor([1.0, slope, -1.0], device=device)
        optimizer.zero_grad()
        with watch():
            scaler.scale((w * factor).sum()).backward()
            if unscale:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_([w], 1.0)
            scaler.step(optimizer)
            scaler.update()
        history.append((scaler.get_scale(), scaler.state_dict()["_growth_tracker"], *w.tolist()))
    return history


@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("name, options", OPTIMIZERS)
def test_a_step_does_not_wait_for_the_device(torch, name, options, unscale):
    def make(params):
        return getattr(torch.optim, name)(params, lr=0.1, **options)

    ours = train(torch, "cuda", make, stand_in.no_synchronisation, unscale=unscale)
    cpu = train(torch, "cpu", make, nullcontext, unscale=unscale)
    np.testing.assert_allclose(ours, cpu, rtol=1e-5)
    assert len({scale for scale, *_ in ours}) > 2


def test_an_optimizer_that_asks_the_host_is_asked_whether_to_step(torch):
    """LBFGS and the like are no formulas: for them the host looks."""

    class Plain(torch.optim.SGD):
        _step_supports_amp_scaling = False

    ours = train(torch, "cuda", lambda p: Plain(p, lr=0.1), nullcontext)
    cpu = train(torch, "cpu", lambda p: torch.optim.SGD(p, lr=0.1), nullcontext)
    np.testing.assert_allclose(ours, cpu, rtol=1e-6)


def test_gradients_are_left_unscaled(torch):
    w = torch.nn.Parameter(torch.tensor([1.0], device="cuda"))
    optimizer, scaler = torch.optim.SGD([w], lr=0.5), torch.amp.GradScaler("cuda")
    scaler.scale((w * 2).sum()).backward()
    assert w.grad.item() == 2.0 * 2**16
    scaler.step(optimizer)
    assert (w.grad.item(), w.item()) == (2, 0)
    assert not hasattr(optimizer, "found_inf")


def test_parameters_on_two_devices():
    with tensors(devices=2) as torch:
        params = [torch.nn.Parameter(torch.ones(3, device=f"cuda:{i}")) for i in range(2)]
        optimizer, scaler = torch.optim.SGD(params, lr=0.5), torch.amp.GradScaler("cuda", init_scale=4.0)
        scaler.scale(params[0].sum())
        for bad in (False, True):
            for p in params:
                p.grad = torch.full((3,), 8.0, device=p.device)
            if bad:
                with torch.cuda.device(1):
                    params[1].grad.fill_(float("inf"))
            scaler.step(optimizer)
            scaler.update()
            assert scaler.get_scale() == (2.0 if bad else 4.0)
            assert [p.cpu().tolist() for p in params] == [[0.0] * 3] * 2


def test_the_state_goes_on_in_the_same_arrays(torch):
    scaler = torch.amp.GradScaler("cuda", init_scale=4.0)
    scaler.scale(torch.ones((), device="cuda"))
    before = scaler._scale
    scaler.load_state_dict({**scaler.state_dict(), "scale": 32.0, "_growth_tracker": 7})
    assert scaler._scale is before
    assert (scaler.get_scale(), scaler.state_dict()["_growth_tracker"]) == (32.0, 7)
    scaler.update(torch.tensor([2.0], device="cuda"))
    assert (scaler._scale is before, scaler.get_scale()) == (True, 2.0)
    with pytest.raises(ValueError, match="one element"):
        scaler.update(torch.ones(2, device="cuda"))


def test_autocast_on_a_device(torch):
    x = torch.ones(4, 4, device="cuda")
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cuda", dtype=dtype):
            assert (x @ x).dtype is dtype
            assert torch.nn.functional.linear(x, x).dtype is dtype
            assert torch.nn.functional.mse_loss((x @ x), x).dtype is torch.float32
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.float32  # the CPU's are left
    with torch.autocast("cpu"):
        assert (x @ x).dtype is torch.float32
    layer = torch.nn.Linear(4, 4).to("cuda")
    with torch.autocast("cuda"):
        loss = layer(x).float().pow(2).mean()
    loss.backward()
    assert layer.weight.grad.dtype is torch.float32
