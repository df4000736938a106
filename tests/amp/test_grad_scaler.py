"""`GradScaler`: the scale goes up and down, steps with infinities are skipped, and calls in a wrong order are refused."""

import copy
import io
import pickle

import numpy as np
import pytest

import disttorch as torch


def scaler(**options):
    return torch.amp.GradScaler("cpu", **{"init_scale": 4.0, "growth_interval": 2, **options})


def setup(value=1.0):
    w = torch.nn.Parameter(torch.tensor([value]))
    return w, torch.optim.SGD([w], lr=0.5)


def step(s, w, optimizer, slope=2.0):
    optimizer.zero_grad()
    s.scale((w * slope).sum()).backward()
    s.step(optimizer)
    s.update()


def test_the_step_is_that_without_scaling():
    w, optimizer = setup()
    s = scaler()
    loss = s.scale((w * 2).sum())
    assert loss.item() == 8
    loss.backward()
    assert w.grad.item() == 8
    s.step(optimizer)
    assert (w.grad.item(), w.item()) == (2, 0)


def test_the_scale_grows_and_backs_off():
    w, optimizer = setup()
    s, scales = scaler(), []
    for slope in (1, 1, 1, float("inf"), 1, 1, float("nan"), 1):
        before = w.item()
        step(s, w, optimizer, slope)
        scales.append(s.get_scale())
        assert (w.item() == before) == (slope != 1)
    assert scales == [4, 8, 8, 4, 4, 8, 4, 4]


def test_against_pytorch():
    theirs = pytest.importorskip("torch")
    for package in (torch, theirs):
        w = package.nn.Parameter(package.tensor([1.0]))
        optimizer = package.optim.Adam([w], lr=0.1)
        s = package.amp.GradScaler("cpu", init_scale=2.0**15, growth_interval=3)
        history = []
        for i in range(12):
            step(s, w, optimizer, float("inf") if i in (4, 5) else float(i))
            history.append((s.get_scale(), w.item()))
        if package is torch:
            ours, state = history, s.state_dict()
    np.testing.assert_allclose(ours, history, rtol=1e-6)
    assert state == s.state_dict()


def test_gradients_can_be_clipped_between():
    w, optimizer = setup()
    s = scaler()
    s.scale((w * 100).sum()).backward()
    s.unscale_(optimizer)
    assert w.grad.item() == 100
    torch.nn.utils.clip_grad_norm_([w], 1.0)
    s.step(optimizer)
    np.testing.assert_allclose(w.item(), 0.5, rtol=1e-5)


def test_several_losses_and_optimizers():
    (a, first), (b, second) = setup(), setup()
    s = scaler()
    for loss in s.scale([(a * 2).sum(), (b * float("inf")).sum()]):
        loss.backward()
    s.step(first)
    s.step(second)
    s.update()
    assert (a.item(), b.item(), s.get_scale()) == (0, 1, 2)
    assert isinstance(s.scale((a, [b])), tuple)
    with pytest.raises(ValueError, match="iterable of Tensors"):
        s.scale(3)
    with pytest.raises(ValueError, match="iterable of Tensors"):
        s.scale("loss")


def test_calls_in_a_wrong_order():
    w, optimizer = setup()
    s = scaler()
    w.grad = torch.ones(1)
    for call in (lambda: s.step(optimizer), lambda: s.unscale_(optimizer), s.update):
        with pytest.raises(AssertionError, match="no loss was scaled"):
            call()
    assert (w.item(), w.grad.item()) == (1, 1)  # it was not divided by a scale that it never had
    s.scale(w.sum()).backward()
    with pytest.raises(AssertionError, match="No inf checks"):
        s.update()
    s.unscale_(optimizer)
    with pytest.raises(RuntimeError, match=r"unscale_\(\) has already been called"):
        s.unscale_(optimizer)
    s.step(optimizer)
    with pytest.raises(RuntimeError, match=r"unscale_\(\) is being called after step"):
        s.unscale_(optimizer)
    with pytest.raises(RuntimeError, match=r"step\(\) has already been called"):
        s.step(optimizer)
    with pytest.raises(AssertionError, match="pickled"):
        pickle.dumps(s)
    s.update()
    with pytest.raises(RuntimeError, match="Closure"):
        s.step(optimizer, closure=lambda: None)


def test_without_gradients_there_is_nothing_to_step():
    for library in (torch, pytest.importorskip("torch")):
        w, unused = (library.nn.Parameter(library.ones(1)) for _ in range(2))
        s = library.amp.GradScaler("cpu")
        idle, busy = library.optim.SGD([unused], lr=0.5), library.optim.SGD([w], lr=0.5)
        s.scale(w.sum()).backward()
        with pytest.raises(AssertionError, match="No inf checks were recorded for this optimizer"):
            s.step(idle)
        with pytest.raises(AssertionError, match="No inf checks were recorded prior to update"):
            s.update()
        s.step(busy)
        s.update()
        assert w.item() == 0.5


def test_float16_gradients_are_refused():
    w = torch.nn.Parameter(torch.ones(1, dtype=torch.float16))
    w.grad = torch.ones(1, dtype=torch.float16)
    s = scaler()
    s.scale(w.sum())
    with pytest.raises(ValueError, match="Attempting to unscale FP16 gradients"):
        s.unscale_(torch.optim.SGD([w], lr=0.1))


def test_what_step_returns():
    w, optimizer = setup()
    optimizer.step = lambda: "stepped"
    s = scaler(init_scale=1.0)
    s.scale(w.sum()).backward()
    assert s.step(optimizer) == "stepped"
    s.update()
    w.grad = torch.tensor([float("inf")])
    assert s.step(optimizer) is None


def test_saving():
    w, optimizer = setup()
    s = scaler()
    step(s, w, optimizer)
    state = s.state_dict()
    assert state == {"scale": 4.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2, "_growth_tracker": 1}
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    for other in (torch.amp.GradScaler("cpu"), copy.deepcopy(s), pickle.loads(pickle.dumps(s))):
        other.load_state_dict(torch.load(io.BytesIO(file.getvalue())))
        assert other.state_dict() == state
    with pytest.raises(RuntimeError, match="source state dict is empty"):
        s.load_state_dict({})


def test_settings():
    s = scaler()
    s.set_growth_factor(3.0)
    s.set_backoff_factor(0.1)
    s.set_growth_interval(7)
    assert (s.get_growth_factor(), s.get_backoff_factor(), s.get_growth_interval(), s.is_enabled()) == (3.0, 0.1, 7, True)
    s.update(16.0)
    assert s.get_scale() == 16
    s.update(torch.tensor(32.0))
    assert s.get_scale() == 32
    for wrong in ({"growth_factor": 1.0}, {"backoff_factor": 1.0}):
        with pytest.raises(AssertionError, match="factor"):
            scaler(**wrong)


def test_the_scale_stays_finite():
    w, optimizer = setup()
    s = scaler(init_scale=2.0**126, growth_interval=1)
    s.scale(w.sum())
    for _ in range(3):
        w.grad = torch.zeros(1)
        s.step(optimizer)
        s.update()
    assert s.get_scale() == 2.0**127


def test_disabled():
    w, optimizer = setup()
    s = scaler(enabled=False)
    x = torch.ones(1)
    assert s.scale(x) is x
    s.unscale_(optimizer)
    w.grad = torch.ones(1)
    s.step(optimizer)
    s.update()
    assert (w.item(), s.get_scale(), s.state_dict(), s.is_enabled()) == (0.5, 1.0, {}, False)
    s.load_state_dict({})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu():
    for make in (torch.amp.GradScaler, torch.cuda.amp.GradScaler):
        with pytest.warns(UserWarning, match="CUDA is not available"):
            assert not make().is_enabled()
