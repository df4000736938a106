"""The kernels of all optimizers' formulas compile with NVRTC, without a GPU, for every dtype and way in which a step is taken."""

import importlib.util

import pytest

import disttorch
from disttorch import optim
from disttorch.backend.kernels.optimization import decay
from disttorch.backend.tracing import python
from tests import stand_in
from tests.cuda.test_sources import LIBRARY, Nvrtc, all_options, needs_nvrtc
from tests.optim.test_optimizers import CASES, IDS

DTYPES = ("float16", "bfloat16", "float32", "float64")
FORMULAS = [(n, o) for n, o in CASES if getattr(optim, n).formula is not None]
FORMULA_IDS = [i for i, (n, _) in zip(IDS, CASES) if getattr(optim, n).formula is not None]


@pytest.fixture(scope="module")
def fused():
    """The modules that write and keep the kernels; importing them needs CuPy or what stands for it."""
    if importlib.util.find_spec("cupy") is None:
        with stand_in.installed():
            from disttorch.backend.cuda.fused import plans, steps

            return plans, steps
    from disttorch.backend.cuda.fused import plans, steps

    return plans, steps


def plan_of(fused, name, options, dtype, counted, scaled=False, found_inf="float32"):
    """The plan of one step, as `steps_` (numbers by value) or `counted_steps_` make it."""
    plans, steps = fused
    w = disttorch.zeros(1, requires_grad=True)
    optimizer = getattr(optim, name)([w], **options)
    (group,) = optimizer.param_groups
    state = optimizer.state[w] or optimizer.init_state(w, group)
    choices = optimizer.choices(w, state, group)
    given = {k: v for k, v in group.items() if k in optimizer.defaults}
    dtypes = (dtype, dtype, *(None if n is None or n not in state else dtype for n in optimizer.moments_of(group)))
    add, shrink = decay(given)
    body = steps._step_of(optimizer.formula, group["maximize"], add != 0, shrink != 1, scaled)
    if not counted:
        numbers = optimizer.numbers(python, dict.fromkeys(optimizer.counters, 1.0), given) | dict(choices)
        numbers |= ({"to add": add} if add != 0 else {}) | ({"to shrink": shrink} if shrink != 1 else {})
        return plans.plan(body, dtypes, None, (), plans.settled(numbers)[0], found_inf)
    kinds, _ = plans.settled(given)
    kinds = tuple((k, found_inf if k == "lr" else ("choice", None) if k == "weight_decay" and not v else v) for k, v in kinds)
    kinds += (("scale of gradients", "float32"),) if scaled else ()
    numbers = steps._numbers_of(optimizer.numbers, add != 0 or shrink != 1, shrink != 1, scaled, choices)
    return plans.plan(body, dtypes, numbers, tuple((c, "float32") for c in optimizer.counters), kinds, found_inf)


#: for each architecture dtypes, whether the numbers are computed on the device, and whether gradients are scaled
WAYS = {
    "compute_70": [("float16", False, False), ("float32", True, False)],
    "compute_80": [("bfloat16", True, True), ("float64", False, False)],
    "compute_90": [("float32", False, False), ("bfloat16", True, False)],
}


@needs_nvrtc
@pytest.mark.parametrize("architecture", WAYS)
@pytest.mark.parametrize(("name", "options"), FORMULAS, ids=FORMULA_IDS)
def test_formulas_compile(fused, name, options, architecture):
    plans, _ = fused
    nvrtc = Nvrtc(LIBRARY)
    if not nvrtc.supports(architecture):
        pytest.skip(f"this NVRTC no longer knows {architecture}")
    flags = all_options(plans.OPTIONS, architecture)
    for dtype, counted, scaled in WAYS[architecture]:
        plan = plan_of(fused, name, options, dtype, counted, scaled)
        assert set(plan.sources) == ({"fused", "numbers"} if plan.counts else {"fused"})
        for kernel in plan.sources:
            fine, log = nvrtc.compile(plan.text_of(kernel), kernel, flags)
            assert fine, log
            assert not [line for line in log.splitlines() if line.strip("\0 ") and "Architectures prior to" not in line], log


@pytest.mark.parametrize(("name", "options"), FORMULAS, ids=FORMULA_IDS)
def test_a_launch_has_no_more_parameters_than_cuda_takes(fused, name, options):
    for dtype in DTYPES:
        for counted in (False, True):
            plan = plan_of(fused, name, options, dtype, counted, counted)
            columns = len(plan.given)
            by_value = 0 if plan.counts else len(plan.uniforms)
            assert 8 * ((2 + columns) * plan.rows + 4 + by_value) <= 4096
            assert 8 * (len(plan.counters) * plan.counted_rows + 4 + len(plan.options)) <= 4096
            assert plan.rows >= 60


@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_a_plan_is_made_once(fused, name):
    assert plan_of(fused, name, {}, "float32", True) is plan_of(fused, name, {"lr": 0.5}, "float32", True)
    assert plan_of(fused, name, {}, "float32", False) is plan_of(fused, name, {"lr": 0.5}, "float32", False)
    assert plan_of(fused, name, {}, "float32", False) is not plan_of(fused, name, {"maximize": True}, "float32", False)
