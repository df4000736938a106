"""Averages of weights against their formulas and PyTorch's."""

import numpy as np
import pytest

import disttorch
from disttorch.optim import swa_utils

WEIGHTS = [3.0, -1.0, 4.0, 1.5]
DECAY = 0.9


def ema():
    mean = WEIGHTS[0]
    for w in WEIGHTS[1:]:
        mean = DECAY * mean + (1 - DECAY) * w
    return mean


CASES = {
    "mean": ({}, np.mean(WEIGHTS)),
    "ema, one by one": ({"avg_fn": swa_utils.get_ema_avg_fn(DECAY)}, ema()),
    "ema": ({"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(DECAY)}, ema()),
    "mean, one by one": ({"avg_fn": swa_utils.get_swa_avg_fn()}, np.mean(WEIGHTS)),
    "own": ({"avg_fn": lambda average, current, n: average + current * int(n)}, 3.0 + 1 * -1.0 + 2 * 4.0 + 3 * 1.5),
}


@pytest.mark.parametrize(("options", "expected"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("use_buffers", [False, True])
def test_averages(options, expected, use_buffers):
    model = disttorch.nn.Sequential(disttorch.nn.Linear(2, 2), disttorch.nn.BatchNorm1d(2)).double()
    averaged = swa_utils.AveragedModel(model, use_buffers=use_buffers, **options)
    for i, w in enumerate(WEIGHTS):
        for p in model.parameters():
            p.data.fill_(w)
        model[1].running_mean.fill_(w)
        model[1].num_batches_tracked.fill_(i)
        averaged.update_parameters(model)
    assert averaged.n_averaged.item() == len(WEIGHTS)
    for p in averaged.module.parameters():
        np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-12)
    mean = averaged.module[1].running_mean.numpy()
    np.testing.assert_allclose(mean, expected if use_buffers else WEIGHTS[-1], rtol=1e-12)
    x = disttorch.ones(3, 2, dtype=disttorch.float64)
    averaged.eval()
    np.testing.assert_array_equal(averaged(x).detach().numpy(), averaged.module(x).detach().numpy())
    other = swa_utils.AveragedModel(model)
    other.load_state_dict(averaged.state_dict())
    assert other.n_averaged.item() == len(WEIGHTS)


def test_statistics_are_those_of_all_batches():
    rng = np.random.default_rng(0)
    batches = [rng.normal(2, 3, (8, 4)) for _ in range(5)]
    model = disttorch.nn.Sequential(disttorch.nn.BatchNorm1d(4)).double()
    model.eval()
    swa_utils.update_bn([(disttorch.tensor(b), 0) for b in batches], model)
    assert not model.training
    assert model[0].momentum == 0.1
    np.testing.assert_allclose(model[0].running_mean.numpy(), np.mean([b.mean(0) for b in batches], axis=0))
    np.testing.assert_allclose(model[0].running_var.numpy(), np.mean([b.var(0, ddof=1) for b in batches], axis=0))


@pytest.mark.parametrize(
    "options", [{}, {"anneal_epochs": 4}, {"anneal_strategy": "linear"}, {"anneal_epochs": 0}], ids=str
)
def test_rates_are_pytorchs(options):
    torch = pytest.importorskip("torch", reason="compared with PyTorch where it is installed")
    found = []
    for module in (disttorch, torch):
        optimizer = module.optim.SGD([module.ones(1, requires_grad=True)], lr=1.0)
        before = module.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        scheduler = __import__(f"{module.__name__}.optim.swa_utils", fromlist=["SWALR"]).SWALR(
            optimizer, 0.05, **options
        )
        rates = []
        for i in range(15):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            (before if i < 3 else scheduler).step()
        found.append(rates)
    np.testing.assert_allclose(*found, rtol=1e-12)


BAD = [
    (lambda o: swa_utils.get_ema_avg_fn(1.5), ValueError, "decay value 1.5"),
    (lambda o: swa_utils.SWALR(o, [0.1, 0.2]), ValueError, "swa_lr has 2"),
    (lambda o: swa_utils.SWALR(o, 0.1, anneal_strategy="steps"), ValueError, "instead got steps"),
    (lambda o: swa_utils.SWALR(o, 0.1, anneal_epochs=-1), ValueError, "got -1"),
    (
        lambda o: swa_utils.AveragedModel(disttorch.nn.Identity(), avg_fn=max, multi_avg_fn=max),
        AssertionError,
        "Only one",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[m for _, _, m in BAD])
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call(disttorch.optim.SGD([disttorch.ones(1, requires_grad=True)], lr=1.0))
