"""Every optimizer with every set of options on the device, one kernel for many parameters, beside the CPU's steps in float64."""

import inspect

import numpy as np
import pytest

import disttorch
from disttorch import optim
from tests.gpu.agreement import exact
from tests.optim.test_optimizers import CASES, IDS, SHAPES, problem

TOLERANCE = {"float64": 1e-10, "float32": 2e-5, "float16": 2e-2, "bfloat16": 6e-2}
#: How a step is computed: each is the same step.
WAYS = [{}, {"foreach": True}, {"foreach": False}, {"fused": True}, {"capturable": True}]


def trained(name, options, dtype, where, steps=7):
    """The parameters after steps with given gradients, some of which are missing."""
    start, gradients = problem("float64")
    if name == "Adafactor":  # which divides by the number of elements
        keep = [i for i, shape in enumerate(SHAPES) if 0 not in shape]
        start, gradients = [start[i] for i in keep], [[step[i] for i in keep] for step in gradients]
    kind = getattr(disttorch, dtype)
    params = [disttorch.tensor(w).to(where, kind).requires_grad_() for w in start]
    optimizer = getattr(optim, name)(params, **options)
    for step in gradients[:steps]:
        for p, g in zip(params, step):
            p.grad = None if g is None else disttorch.tensor(g).to(where, kind)
        optimizer.step()
    return params, optimizer


def accepts(name, way):
    parameters = inspect.signature(getattr(optim, name)).parameters
    return all(option in parameters for option in way)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_steps_of_every_kind_are_the_cpus(name, options, dtype, device):
    expected, _ = trained(name, options, "float64", "cpu")
    for way in WAYS:
        if not accepts(name, way):
            continue
        found, _ = trained(name, {**options, **way}, dtype, device)
        for e, f in zip(expected, found):
            assert f.device == device
            np.testing.assert_allclose(exact(f), exact(e), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype], err_msg=str(way))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_steps_in_half_precision(name, dtype, device):
    options = {"lr": 0.01, **({"eps": 1e-4} if name != "SGD" else {"momentum": 0.9})}
    expected, _ = trained(name, options, dtype, "cpu")
    found, _ = trained(name, options, dtype, device)
    for e, f in zip(expected, found):
        np.testing.assert_allclose(exact(f), exact(e), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize(("name", "options"), CASES[::3], ids=IDS[::3])
def test_state_goes_to_the_cpu_and_back(name, options, device):
    """What was saved of a device's optimizer continues on the CPU as if it had always been there."""
    whole, _ = trained(name, options, "float64", "cpu")
    half, optimizer = trained(name, options, "float64", device, steps=3)
    _, gradients = problem("float64")
    if name == "Adafactor":
        keep = [i for i, shape in enumerate(SHAPES) if 0 not in shape]
        gradients = [[step[i] for i in keep] for step in gradients]
    params = [p.detach().cpu().requires_grad_() for p in half]
    continued = getattr(optim, name)(params, **options)
    continued.load_state_dict(optimizer.state_dict())
    for step in gradients[3:]:
        for p, g in zip(params, step):
            p.grad = None if g is None else disttorch.tensor(g)
        continued.step()
    for w, p in zip(whole, params):
        np.testing.assert_allclose(exact(p), exact(w), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", [1.0, 2.0, float("inf")])
def test_gradients_are_clipped_as_on_the_cpu(norm, device):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s) * 10 for s in SHAPES]
    totals, clipped = [], []
    for where in ("cpu", device):
        params = [disttorch.zeros(a.shape, dtype=disttorch.float64, device=where).requires_grad_() for a in arrays]
        for p, a in zip(params, arrays):
            p.grad = disttorch.tensor(a).to(where)
        totals.append(disttorch.nn.utils.clip_grad_norm_(params, 1.5, norm))
        clipped.append([exact(p.grad) for p in params])
    assert totals[1].device == device
    np.testing.assert_allclose(exact(totals[1]), exact(totals[0]), rtol=1e-10)
    for a, b in zip(*clipped):
        np.testing.assert_allclose(b, a, rtol=1e-10)
