"""Schedules against their formulas, and step by step against PyTorch's."""

import math
import warnings

import pytest

import disttorch
from disttorch.optim import lr_scheduler

STEPS = 25
#: (name, arguments) with optimizers of two groups of rates 0.5 and 0.05
SCHEDULES = [
    ("LambdaLR", {"lr_lambda": lambda step: 0.9**step}),
    ("LambdaLR", {"lr_lambda": [lambda step: 1 / (step + 1), lambda step: step]}),
    ("MultiplicativeLR", {"lr_lambda": lambda step: 0.95 + 0.01 * step}),
    ("StepLR", {"step_size": 4}),
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [2, 5, 5, 11], "gamma": 0.3}),
    ("ConstantLR", {}),
    ("ConstantLR", {"factor": 0.2, "total_iters": 7}),
    ("LinearLR", {}),
    ("LinearLR", {"start_factor": 0.1, "end_factor": 0.7, "total_iters": 9}),
    ("ExponentialLR", {"gamma": 0.8}),
    ("PolynomialLR", {}),
    ("PolynomialLR", {"total_iters": 12, "power": 2.5}),
    ("CosineAnnealingLR", {"T_max": 10}),
    ("CosineAnnealingLR", {"T_max": 7, "eta_min": 0.01}),
    ("CosineAnnealingWarmRestarts", {"T_0": 5}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2, "eta_min": 0.02}),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.9, "step_size_up": 4}),
    (
        "CyclicLR",
        {"base_lr": [0.1, 0.2], "max_lr": [0.9, 1.0], "step_size_up": 3, "step_size_down": 5, "mode": "triangular2"},
    ),
    (
        "CyclicLR",
        {"base_lr": 0.1, "max_lr": 0.9, "step_size_up": 4, "mode": "exp_range", "gamma": 0.9, "cycle_momentum": False},
    ),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.9, "step_size_up": 4, "scale_fn": lambda x: 1 / x, "base_momentum": 0.1}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": STEPS + 1}),
    (
        "OneCycleLR",
        {"max_lr": [1.0, 0.5], "epochs": 5, "steps_per_epoch": 6, "pct_start": 0.4, "anneal_strategy": "linear"},
    ),
    (
        "OneCycleLR",
        {"max_lr": 1.0, "total_steps": 30, "three_phase": True, "div_factor": 10.0, "final_div_factor": 100.0},
    ),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 30, "cycle_momentum": False}),
]
IDS = [
    f"{n}-{'-'.join(f'{k}={v}' for k, v in o.items() if 'lambda' not in k and not callable(v))}" for n, o in SCHEDULES
]


def optimizer_of(module, kind="SGD"):
    a, b = (module.ones(1, requires_grad=True) for _ in range(2))
    options = {"momentum": 0.9} if kind == "SGD" else {}
    return getattr(module.optim, kind)([{"params": [a], "lr": 0.5}, {"params": [b], "lr": 0.05}], lr=1.0, **options)


def rates(optimizer, scheduler, steps=STEPS, measures=None):
    found = []
    for i in range(steps):
        found.append(
            [g["lr"] for g in optimizer.param_groups]
            + [g.get("momentum", g.get("betas", [0])[0] if "betas" in g else 0) for g in optimizer.param_groups]
        )
        optimizer.step()
        scheduler.step(*(() if measures is None else (measures[i],)))
    assert scheduler.get_last_lr() == [g["lr"] for g in optimizer.param_groups]
    return found


def close(found, expected):
    for i, (a, b) in enumerate(zip(found, expected)):
        assert a == pytest.approx(b, rel=1e-10, abs=1e-13), f"step {i}"


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="compared with PyTorch where it is installed")


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize(("name", "options"), SCHEDULES, ids=IDS)
def test_steps_are_pytorchs(torch, name, options, kind):
    found = []
    for module in (disttorch, torch):
        optimizer = optimizer_of(module, kind)
        found.append(rates(optimizer, getattr(module.optim.lr_scheduler, name)(optimizer, **options)))
    close(*found)


@pytest.mark.parametrize(("name", "options"), SCHEDULES, ids=IDS)
def test_goes_on_from_its_state(name, options):
    whole = optimizer_of(disttorch)
    expected = rates(whole, getattr(lr_scheduler, name)(whole, **options))
    first = optimizer_of(disttorch)
    scheduler = getattr(lr_scheduler, name)(first, **options)
    rates(first, scheduler, 9)
    saved = scheduler.state_dict(), first.state_dict()
    second = optimizer_of(disttorch)
    scheduler = getattr(lr_scheduler, name)(second, **options)
    scheduler.load_state_dict(saved[0])
    second.load_state_dict(saved[1])
    close(rates(second, scheduler, STEPS - 9), expected[9:])


@pytest.mark.parametrize(
    ("name", "options"), [s for s in SCHEDULES if s[0] not in ("CyclicLR", "OneCycleLR", "MultiplicativeLR")]
)
def test_goes_on_from_a_last_epoch(torch, name, options):
    found = []
    for module in (disttorch, torch):
        optimizer = optimizer_of(module)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        scheduler = getattr(module.optim.lr_scheduler, name)(optimizer, **options, last_epoch=3)
        found.append(rates(optimizer, scheduler, 10))
    close(*found)


PLATEAU = [
    {"patience": 2},
    {"patience": 0, "cooldown": 2, "factor": 0.5, "mode": "max"},
    {"patience": 1, "threshold": 0.3, "threshold_mode": "abs", "min_lr": [0.1, 0.001]},
    {"patience": 1, "threshold": 0.1, "eps": 0.1},
]


@pytest.mark.parametrize("options", PLATEAU, ids=str)
def test_plateaus_are_pytorchs(torch, options):
    measures = [
        3,
        2.5,
        2.4,
        2.4,
        2.5,
        2.39,
        2.41,
        2.4,
        2.4,
        1.0,
        1.1,
        1.2,
        1.3,
        1.4,
        1.5,
        1.6,
        1.7,
        0.9,
        0.9,
        0.9,
        0.9,
        0.9,
        0.9,
        0.9,
        0.9,
    ]
    found = []
    for module in (disttorch, torch):
        optimizer = optimizer_of(module)
        found.append(
            rates(optimizer, module.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options), measures=measures)
        )
    close(*found)


def composed(module, which, optimizer):
    s = module.optim.lr_scheduler
    if which == "warmup and cosine":
        return s.SequentialLR(
            optimizer, [s.LinearLR(optimizer, 0.1, total_iters=5), s.CosineAnnealingLR(optimizer, T_max=15)], [5]
        )
    if which == "three":
        parts = [s.ConstantLR(optimizer, 0.1, 2), s.ExponentialLR(optimizer, 0.9), s.StepLR(optimizer, 3)]
        return s.SequentialLR(optimizer, parts, [2, 10])
    if which == "chained":
        return s.ChainedScheduler([s.ConstantLR(optimizer, 0.1, 4), s.ExponentialLR(optimizer, 0.9)])
    if which == "sequence of chains":
        chain = s.ChainedScheduler([s.ConstantLR(optimizer, 0.1, 4), s.ExponentialLR(optimizer, 0.9)])
        return s.ChainedScheduler([chain, s.StepLR(optimizer, 6)], optimizer)
    return s.SequentialLR(
        optimizer,
        [
            s.SequentialLR(optimizer, [s.ConstantLR(optimizer, 0.5, 2), s.ExponentialLR(optimizer, 0.9)], [2]),
            s.StepLR(optimizer, 2),
        ],
        [8],
    )


@pytest.mark.parametrize(
    "which", ["warmup and cosine", "three", "chained", "sequence of chains", "sequence of sequences"]
)
def test_compositions_are_pytorchs(torch, which):
    found = []
    for module in (disttorch, torch):
        optimizer = optimizer_of(module)
        with warnings.catch_warnings():
            if module is torch:  # deprecations within itself
                warnings.simplefilter("ignore")
            found.append(rates(optimizer, composed(module, which, optimizer)))
    close(*found)


def test_a_composition_goes_on_from_its_state():
    def made():
        optimizer = optimizer_of(disttorch)
        return optimizer, composed(disttorch, "warmup and cosine", optimizer)

    expected = rates(*made())
    optimizer, scheduler = made()
    rates(optimizer, scheduler, 8)
    later = made()
    later[1].load_state_dict(scheduler.state_dict())
    later[0].load_state_dict(optimizer.state_dict())
    close(rates(*later, STEPS - 8), expected[8:])


def test_formulas():
    optimizer = optimizer_of(disttorch)
    found = rates(optimizer, lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS))
    close([[f[0]] for f in found], [[0.25 * (1 + math.cos(math.pi * i / STEPS))] for i in range(STEPS)])
    optimizer = optimizer_of(disttorch)
    found = rates(optimizer, lr_scheduler.LinearLR(optimizer, 0.5, 1.0, total_iters=10))
    close([[f[1]] for f in found], [[0.05 * min(1.0, 0.5 + 0.05 * i)] for i in range(STEPS)])


def test_a_rate_that_is_a_tensor_is_changed_in_place():
    lr = disttorch.tensor(1.0)
    optimizer = disttorch.optim.SGD([disttorch.ones(1, requires_grad=True)], lr=lr)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr.item() == 0.5


def test_callable_objects_keep_their_state():
    class Warm:
        def __init__(self):
            self.height = 1.0

        def __call__(self, step):
            return self.height

    optimizer, warm = optimizer_of(disttorch), Warm()
    scheduler = lr_scheduler.LambdaLR(optimizer, warm)
    warm.height = 0.25
    saved = scheduler.state_dict()
    other = lr_scheduler.LambdaLR(optimizer_of(disttorch), Warm())
    other.load_state_dict(saved)
    assert other.lr_lambdas[0].height == 0.25


BAD = [
    (lambda o: lr_scheduler.StepLR("optimizer", 3), TypeError, "str is not an Optimizer"),
    (lambda o: lr_scheduler.LambdaLR(o, [abs]), ValueError, "Expected 2 lr_lambdas, but got 1"),
    (lambda o: lr_scheduler.ExponentialLR(o, 0.9, last_epoch=3), KeyError, "initial_lr"),
    (lambda o: lr_scheduler.ConstantLR(o, 1.5), ValueError, "between 0 and 1, not 1.5"),
    (lambda o: lr_scheduler.LinearLR(o, 0.0), ValueError, "greater than 0"),
    (lambda o: lr_scheduler.OneCycleLR(o, 1.0), ValueError, "total_steps OR"),
    (lambda o: lr_scheduler.OneCycleLR(o, 1.0, total_steps=0), ValueError, "positive integer total_steps, but got 0"),
    (lambda o: lr_scheduler.CyclicLR(o, 0.1, [1.0]), ValueError, "1 for 2"),
    (lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 0), ValueError, "positive integer T_0, but got 0"),
    (lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=1.0), ValueError, "not 1.0"),
    (lambda o: lr_scheduler.ReduceLROnPlateau(o, "least"), ValueError, "mode least is unknown"),
    (
        lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.StepLR(o, 1)], [3]),
        ValueError,
        "milestones to be equal to 1",
    ),
    (lambda o: lr_scheduler.ChainedScheduler([]), ValueError, "at least one scheduler"),
    (lambda o: lr_scheduler.StepLR(o, 1).step(), UserWarning, "before `optimizer.step"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[m for _, _, m in BAD])
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call(optimizer_of(disttorch))
