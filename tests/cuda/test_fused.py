"""Optimizer steps and other changes of many arrays as traced kernels, run on the stand-in: against the same steps on the CPU in float64."""

import contextlib
import inspect
import logging

import ml_dtypes
import numpy as np
import pytest

import disttorch
from disttorch import nn, optim
from tests import stand_in
from tests.optim.test_optimizers import CASES, IDS
from tests.stand_in import host_cuda

pytestmark = pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available()))

SHAPES = [(3, 5), (1,), (), (20000,), (0, 4), (2, 3, 4)]
FORMULAS = [(n, o) for n, o in CASES if getattr(optim, n).formula is not None]
FORMULA_IDS = [i for i, (n, _) in zip(IDS, CASES) if getattr(optim, n).formula is not None]


@pytest.fixture(autouse=True)
def cupy():
    with stand_in.installed() as module:
        yield module


def problem(dtype=np.float64, steps=5, shapes=SHAPES):
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(s).astype(dtype) for s in shapes]
    gradients = [[rng.standard_normal(s).astype(dtype) for s in shapes] for _ in range(steps)]
    gradients[2][0] = None  # a parameter without a gradient is left alone: it counts fewer steps than the others
    return weights, gradients


def trained(device, make, weights, gradients, before_step=lambda optimizer, step: None):
    params = [disttorch.from_numpy(np.array(w)).to(device, copy=True).requires_grad_() for w in weights]
    optimizer = make(params)
    for i, step in enumerate(gradients):
        for p, g in zip(params, step):
            p.grad = None if g is None else disttorch.from_numpy(np.array(g)).to(device, copy=True)
        before_step(optimizer, i)
        optimizer.step()
    return params, optimizer


def same(ours, theirs, tolerance):
    for a, b in zip(ours, theirs):
        a, b = (np.asarray(t.detach().cpu().numpy(), np.float64) for t in (a, b))
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def states(optimizer):
    return [v for s in optimizer.state.values() for k, v in sorted(s.items()) if isinstance(v, disttorch.Tensor)]


def has(name, option):
    return option in inspect.signature(getattr(optim, name)).parameters


@pytest.mark.parametrize(("name", "options"), FORMULAS, ids=FORMULA_IDS)
@pytest.mark.parametrize("counted", [False, True], ids=["numbers by value", "numbers on the device"])
def test_steps_are_the_cpus(name, options, counted):
    cls = getattr(optim, name)
    weights, gradients = problem()
    expected, there = trained("cpu", lambda p: cls(p, **options), weights, gradients)
    if counted:
        lr = options.get("lr", inspect.signature(cls).parameters["lr"].default)
        on_device = {"lr": disttorch.tensor(lr, dtype=disttorch.float64, device="cuda")}
        options = {**options, **({"capturable": True} if has(name, "capturable") else on_device)}
    with stand_in.calls() as calls:
        found, here = trained("cuda", lambda p: cls(p, **options), weights, gradients)
    same(found, expected, 1e-12)
    same(states(here), states(there), 1e-12 if not counted else 1e-6)  # counters are float32
    kernels = [c for c in calls if c in ("fused", "numbers")]
    # the first parameter counts by itself from the third step on, where the host counts
    assert len(kernels) <= (2 * len(gradients) if counted else 2 * len(gradients) - 1)
    assert not {"multiply", "subtract", "divide", "sqrt"} & set(calls)


HALF = [
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.3, "amsgrad": True}),
    ("RMSprop", {"lr": 0.05, "momentum": 0.9, "centered": True, "eps": 1e-2}),
    ("Rprop", {"lr": 0.1}),
]


@pytest.mark.parametrize(("name", "options"), HALF, ids=[n for n, _ in HALF])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32], ids=["float16", "bfloat16", "float32"])
def test_half_types_are_computed_in_float32_and_rounded_once(name, options, dtype):
    cls = getattr(optim, name)
    weights, gradients = problem(dtype, steps=3)
    expected, there = trained("cpu", lambda p: cls(p, **options), weights, gradients)
    found, here = trained("cuda", lambda p: cls(p, **options), weights, gradients)
    unit = {np.float16: 2.0**-10, ml_dtypes.bfloat16: 2.0**-7, np.float32: 1e-6}[dtype]
    same(found, expected, unit)
    same(states(here), states(there), unit)


@pytest.mark.parametrize("count", [200, 2000])
def test_more_arrays_than_a_launch_takes(count):
    rng = np.random.default_rng(1)
    weights = [rng.standard_normal(n % 7).astype(np.float32) for n in range(count)]
    gradients = [[rng.standard_normal(n % 7).astype(np.float32) for n in range(count)] for _ in range(2)]
    expected, _ = trained("cpu", optim.AdamW, weights, gradients)
    for counted in (False, True):
        with stand_in.calls() as calls:
            found, _ = trained("cuda", lambda p, counted=counted: optim.AdamW(p, capturable=counted), weights, gradients)
        same(found, expected, 1e-6)
        assert calls.count("fused") <= 2 * (count // 80 + 1)
        assert calls.count("numbers") <= 2 * counted * (count // 500 + 1)


def test_arrays_at_odd_addresses_and_of_many_chunks():
    rng = np.random.default_rng(2)
    whole, gradient = (rng.standard_normal(40001).astype(np.float32) for _ in range(2))
    memory = disttorch.from_numpy(whole).to("cuda", copy=True)
    w = memory[1:].requires_grad_()
    w.grad = disttorch.from_numpy(gradient).to("cuda", copy=True)[1:]
    optim.SGD([w], lr=0.5).step()
    np.testing.assert_allclose(memory.detach().cpu().numpy()[1:], whole[1:] - gradient[1:] / 2, rtol=1e-6, atol=1e-6)
    assert memory[0].item() == whole[0]


@pytest.mark.parametrize("counted", [False, True])
def test_arrays_with_gaps_are_stepped_too(counted):
    rng = np.random.default_rng(3)
    whole, gradient = rng.standard_normal((6, 4)), rng.standard_normal((4, 3))
    results = []
    for device in ("cpu", "cuda"):
        memory = disttorch.from_numpy(whole).to(device, copy=True)
        w = memory.T[:, ::2].requires_grad_()
        optimizer = optim.AdamW([w], lr=0.1, weight_decay=0.5, capturable=counted and device == "cuda")
        for _ in range(2):
            w.grad = disttorch.from_numpy(np.asfortranarray(gradient)).to(device, copy=True)
            optimizer.step()
        results.append(memory)
    same(results[:1], results[1:], 1e-12)


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("shape", [(3,), (), (4, 6)])
@pytest.mark.parametrize("with_gaps", [False, True])
def test_complex_parameters(counted, shape, with_gaps):
    rng = np.random.default_rng(4)
    value, *gradients = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape) for _ in range(4))
    results = []
    for device in ("cpu", "cuda"):
        memory = disttorch.from_numpy(np.array(value)).to(device, copy=True)
        w = (memory.T[1:] if with_gaps and len(shape) == 2 else memory).requires_grad_()
        optimizer = optim.NAdam([w], lr=0.1, capturable=counted and device == "cuda")
        for g in gradients:
            grad = disttorch.from_numpy(np.array(g)).to(device, copy=True)
            w.grad = grad.T[1:] if w.shape != memory.shape else grad
            optimizer.step()
        results.append((memory, optimizer.state[w]["mu_product"]))
    (expected, product), (found, counted_product) = results
    np.testing.assert_allclose(found.detach().cpu().numpy(), expected.detach().numpy(), rtol=1e-6)
    assert counted_product.item() == pytest.approx(product.item(), rel=1e-6)


def test_a_gradient_that_was_expanded():
    w = disttorch.zeros(3, 4, device="cuda", requires_grad=True)
    w.grad = disttorch.ones(1, 1, device="cuda").expand(3, 4)
    optim.SGD([w], lr=1.0).step()
    assert w.tolist() == [[-1.0] * 4] * 3


# Without a host that waits


def test_a_learning_rate_on_the_device_is_not_looked_at():
    weights, gradients = problem(np.float32)
    lr = disttorch.tensor(0.0, device="cuda")

    def rate(optimizer, step):
        lr.fill_(0.1 * (step + 1))

    with contextlib.ExitStack() as stack:

        def sgd(params):
            optimizer = optim.SGD(params, lr=lr, momentum=0.9)  # which asks once whether it is negative
            stack.enter_context(stand_in.no_synchronisation())
            return optimizer

        found, _ = trained("cuda", sgd, weights, gradients, rate)
    expected, _ = trained(
        "cpu", lambda p: optim.SGD(p, momentum=0.9), weights, gradients, lambda o, i: o.param_groups[0].update(lr=0.1 * (i + 1))
    )
    same(found, expected, 1e-6)


@pytest.mark.parametrize("name", ["Adam", "NAdam", "ASGD", "Rprop", "RAdam", "SGD", "Adagrad"])
@pytest.mark.parametrize("scale", [None, 8.0], ids=["unscaled", "scaled"])
def test_found_inf_and_grad_scale_are_the_devices(name, scale):
    cls = getattr(optim, name)
    weights, gradients = problem()
    taken = [g for i, g in enumerate(gradients) if i not in (1, 3)]
    expected, there = trained("cpu", lambda p: cls(p, lr=0.1), weights, taken)
    if scale is not None:
        gradients = [[None if a is None else a * scale for a in g] for g in gradients]

    def scaler(optimizer, step):
        optimizer.found_inf = disttorch.tensor(float(step in (1, 3)), device="cuda")
        optimizer.grad_scale = None if scale is None else disttorch.tensor(scale, device="cuda")

    with stand_in.no_synchronisation():
        found, here = trained("cuda", lambda p: cls(p, lr=0.1), weights, gradients, scaler)
    assert here._step_supports_amp_scaling
    assert not there._step_supports_amp_scaling
    tolerance = 1e-6 if name == "ASGD" else 1e-12
    same(found, expected, tolerance)
    same(states(here), states(there), 1e-6)
    same([p.grad for p in found], [p.grad for p in expected], 1e-12)  # left without the scale


def test_a_whole_iteration_with_a_grad_scaler():
    with stand_in.no_synchronisation():
        w = disttorch.ones(4, device="cuda", requires_grad=True)
        optimizer, scaler = optim.AdamW([w], lr=0.1), disttorch.amp.GradScaler("cuda", init_scale=4.0)
        for factor in (1.0, float("inf"), 1.0):
            optimizer.zero_grad()
            scaler.scale((w * factor).sum()).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_([w], 1.0)
            scaler.step(optimizer)
            scaler.update()
    v = disttorch.ones(4, requires_grad=True)
    other = optim.AdamW([v], lr=0.1)
    for _ in range(2):
        v.grad = disttorch.ones(4) / 2
        other.step()
    same([w], [v], 1e-5)
    assert optimizer.state[w]["step"].item() == 2
    assert scaler.get_scale() == 2.0


CAPTURABLE = ["Adadelta", "Adam", "AdamW", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop"]


@pytest.mark.parametrize("name", CAPTURABLE)
def test_a_captured_step_counts_when_it_is_replayed(name):
    cls = getattr(optim, name)
    rng = np.random.default_rng(5)
    weight, *gradients = (rng.standard_normal(50) for _ in range(7))
    expected, _ = trained("cpu", lambda p: cls(p, lr=0.1), [weight], [[g] for g in gradients])

    w = disttorch.from_numpy(weight).to("cuda", copy=True).requires_grad_()
    w.grad = disttorch.zeros(50, dtype=disttorch.float64, device="cuda")
    lr = disttorch.tensor(0.0, dtype=disttorch.float64, device="cuda") if name not in ("ASGD", "Rprop") else 0.1
    optimizer = cls([w], lr=lr, capturable=True)
    given = [disttorch.from_numpy(g).to("cuda") for g in gradients]

    def before(g):
        w.grad.copy_(g)
        if not isinstance(lr, float):
            lr.fill_(0.1)

    before(given[0])
    optimizer.step()
    before(given[1])
    graph = disttorch.cuda.CUDAGraph()
    with disttorch.cuda.graph(graph):
        optimizer.step()
    for g in given[1:]:
        before(g)
        graph.replay()
    same([w], expected, 1e-6 if name == "ASGD" else 1e-12)
    assert optimizer.state[w]["step"].item() == 6


def test_a_step_counted_on_the_host_is_not_captured():
    w = disttorch.zeros(3, device="cuda", requires_grad=True)
    w.grad = disttorch.ones(3, device="cuda")
    optimizer = optim.Adam([w])
    optimizer.step()
    with (
        pytest.raises(RuntimeError, match=r"Attempting CUDA graph capture of step\(\) for an instance of Adam but"),
        disttorch.cuda.graph(disttorch.cuda.CUDAGraph()),
    ):
        optimizer.step()
    assert optimizer.state[w]["step"].item() == 1


@pytest.mark.parametrize("option", ["capturable", "fused"])
def test_where_steps_are_counted(option):
    w = disttorch.zeros(3, device="cuda", requires_grad=True)
    w.grad = disttorch.ones(3, device="cuda")
    counting, plain = optim.Adam([w], **{option: True}), optim.Adam([w])
    for optimizer in (counting, plain):
        optimizer.step()
    assert counting.state[w]["step"].device.type == "cuda"
    assert plain.state[w]["step"].device.type == "cpu"
    saved = counting.state_dict(), plain.state_dict()
    for optimizer, state in zip((counting, plain), saved):
        optimizer.load_state_dict(state)
        optimizer.step()
        assert optimizer.state[w]["step"].item() == 2
    assert counting.state[w]["step"].device.type == "cuda"
    assert plain.state[w]["step"].device.type == "cpu"


# What has no kernel


def test_optimizers_without_a_formula():
    names = {n for n in optim.__all__ if isinstance(getattr(optim, n), type) and issubclass(getattr(optim, n), optim.Optimizer)}
    assert {n for n in names if getattr(optim, n).formula is None} == {"Adafactor", "LBFGS", "Muon", "Optimizer", "SparseAdam"}


@pytest.mark.parametrize("counted", [False, True])
def test_a_formula_that_cannot_be_traced_runs_operation_by_operation_and_says_so_once(counted, caplog):
    class Clever(optim.SGD):
        """Looks at the gradient's values."""

        @staticmethod
        def formula(xp, p, g, velocity, *, lr, momentum, dampening, nesterov, first_step):
            return (p - g * lr if bool(xp.any(g > 0)) else p), velocity

    w = disttorch.zeros(3, device="cuda", requires_grad=True)
    w.grad = disttorch.ones(3, device="cuda")
    optimizer = Clever([w], lr=disttorch.tensor(1.0, device="cuda") if counted else 1.0)
    with caplog.at_level(logging.DEBUG, "disttorch"):
        optimizer.step()
        optimizer.step()
    assert w.tolist() == [-2.0] * 3
    assert [r.getMessage() for r in caplog.records if "not traced" in r.getMessage()] == [
        f"{Clever.formula.__qualname__} is not traced into a kernel, and runs operation by operation: it calls any"
    ]


# Other changes of many arrays


def parameters_with_gradients(dtype=np.float32, shapes=SHAPES):
    rng = np.random.default_rng(6)
    made = []
    for shape in shapes:
        p = nn.Parameter(disttorch.zeros(shape, device="cuda", dtype=disttorch.from_numpy(np.zeros(0, dtype)).dtype))
        p.grad = disttorch.from_numpy(np.array(rng.standard_normal(shape).astype(dtype))).to("cuda", copy=True)
        made.append(p)
    return made, [p.grad.cpu().numpy() for p in made]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("order", [2.0, 1.0, np.inf, 3.0])
def test_clipping_by_norm(dtype, order):
    params, values = parameters_with_gradients(dtype)
    norm = np.linalg.norm(np.concatenate([v.ravel() for v in values]).astype(np.float64), order)
    with stand_in.no_synchronisation(), stand_in.calls() as calls:
        total = nn.utils.clip_grad_norm_(params, 0.5, order)
    assert calls.count("fused") == 1
    tolerance = {np.float16: 2e-3, np.float32: 1e-5, np.float64: 1e-7}[dtype]
    assert total.item() == pytest.approx(norm, rel=tolerance)
    for p, v in zip(params, values):
        np.testing.assert_allclose(p.grad.cpu().numpy(), v * (0.5 / norm), rtol=2 * tolerance, atol=1e-7)


def test_small_gradients_stay_and_infinite_norms_are_errors_where_asked():
    params, values = parameters_with_gradients()
    nn.utils.clip_grad_norm_(params, 1e6)
    for p, v in zip(params, values):
        np.testing.assert_array_equal(p.grad.cpu().numpy(), v)
    params[1].grad.fill_(float("inf"))
    with pytest.raises(RuntimeError, match="non-finite"):
        nn.utils.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)


def test_clipping_by_value():
    params, values = parameters_with_gradients()
    with stand_in.no_synchronisation(), stand_in.calls() as calls:
        nn.utils.clip_grad_value_(params, 0.3)
    assert calls.count("fused") == 1
    for p, v in zip(params, values):
        np.testing.assert_array_equal(p.grad.cpu().numpy(), np.clip(v, np.float32(-0.3), np.float32(0.3)))


def test_gradients_set_to_zero_are_one_launch():
    params, _ = parameters_with_gradients()
    with stand_in.no_synchronisation(), stand_in.calls() as calls:
        optim.SGD(params).zero_grad(set_to_none=False)
    assert calls == ["fused"]
    assert all(p.grad.abs().sum().item() == 0 for p in params)


@pytest.mark.parametrize("multi", ["get_ema_multi_avg_fn", "get_swa_multi_avg_fn", None])
def test_averaged_models(multi):
    def averaged(device):
        disttorch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).to(device)
        function = getattr(optim.swa_utils, multi)() if multi else None
        average = optim.swa_utils.AveragedModel(model, device=device, multi_avg_fn=function)
        rng = np.random.default_rng(7)
        for _ in range(3):
            for p in model.parameters():
                p.data.copy_(disttorch.from_numpy(rng.standard_normal(p.shape).astype(np.float32)))
            average.update_parameters(model)
        return list(average.module.parameters())

    with stand_in.no_synchronisation():
        found = averaged("cuda")
    same(found, averaged("cpu"), 1e-6)


# Several devices


@pytest.mark.parametrize("counted", [False, True])
def test_parameters_of_two_devices(counted):
    stand_in.set_count(2)
    weights, gradients = problem()

    def train(places):
        params = [disttorch.from_numpy(np.array(w)).to(d, copy=True).requires_grad_() for w, d in zip(weights, places)]
        lr = disttorch.tensor(0.1, dtype=disttorch.float64, device=places[0]) if counted else 0.1
        optimizer = optim.AdamW(params, lr=lr, weight_decay=0.1, capturable=counted and places[0] != "cpu")
        norms = []
        for i, step in enumerate(gradients):
            for p, g, d in zip(params, step, places):
                p.grad = None if g is None else disttorch.from_numpy(np.array(g)).to(d, copy=True)
            norms.append(nn.utils.clip_grad_norm_(params, 10.0).cpu())
            if counted and places[0] != "cpu":
                optimizer.found_inf = disttorch.tensor(float(i == 1), device=places[0])
            if not (counted and places[0] == "cpu" and i == 1):
                optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        assert all(p.grad is None or not p.grad.cpu().any() for p in params)
        return params, norms

    expected, norms = train(["cpu"] * len(weights))
    found, found_norms = train([f"cuda:{i % 2}" for i in range(len(weights))])
    assert {p.device.index for p in found} == {0, 1}
    same(found, expected, 1e-10)
    same(found_norms, norms, 1e-10)


def test_an_optimizer_of_ones_own_may_say_that_it_scales():
    class Own(optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})
            self._step_supports_amp_scaling = True

        def step(self):
            seen.append((self.grad_scale, self.found_inf.item()))

    seen = []
    w = disttorch.ones(2, device="cuda", requires_grad=True)
    optimizer, scaler = Own([w]), disttorch.amp.GradScaler("cuda")
    scaler.scale(w.sum()).backward()
    scaler.step(optimizer)
    assert seen == [(None, 0.0)]
    assert not optim.Adafactor([w])._step_supports_amp_scaling
