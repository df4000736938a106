"""Lazy modules: what they are before and after their first call, and how their state is saved and loaded."""

import copy

import numpy as np
import pytest

import disttorch
from disttorch import nn
from disttorch.nn.lazy import LazyModuleMixin

# the lazy class, its arguments, an input, the class it becomes, the arguments that say the same
CASES = [
    ("LazyLinear", (4,), (2, 3), "Linear", (3, 4)),
    ("LazyConv1d", (4, 3), (2, 6, 5), "Conv1d", (6, 4, 3)),
    ("LazyConv2d", (4, 3), (2, 6, 5, 5), "Conv2d", (6, 4, 3)),
    ("LazyConv3d", (4, 3), (6, 5, 5, 5), "Conv3d", (6, 4, 3)),
    ("LazyConvTranspose1d", (4, 3), (2, 6, 5), "ConvTranspose1d", (6, 4, 3)),
    ("LazyConvTranspose2d", (4, 3), (2, 6, 5, 5), "ConvTranspose2d", (6, 4, 3)),
    ("LazyConvTranspose3d", (4, 3), (2, 6, 5, 5, 5), "ConvTranspose3d", (6, 4, 3)),
    ("LazyBatchNorm1d", (), (2, 6), "BatchNorm1d", (6,)),
    ("LazyBatchNorm2d", (), (2, 6, 3, 3), "BatchNorm2d", (6,)),
    ("LazyBatchNorm3d", (), (2, 6, 3, 3, 3), "BatchNorm3d", (6,)),
    ("LazyInstanceNorm1d", (), (2, 6, 3), "InstanceNorm1d", (6, 1e-5, 0.1, True, True)),
    ("LazyInstanceNorm2d", (), (2, 6, 3, 3), "InstanceNorm2d", (6, 1e-5, 0.1, True, True)),
    ("LazyInstanceNorm3d", (), (2, 6, 3, 3, 3), "InstanceNorm3d", (6, 1e-5, 0.1, True, True)),
]


@pytest.mark.parametrize(("lazy", "args", "shape", "eager", "same"), CASES, ids=[c[0] for c in CASES])
def test_the_first_call_makes_it_the_layer(lazy, args, shape, eager, same):
    x = disttorch.randn(*shape)
    module, other = getattr(nn, lazy)(*args), getattr(nn, eager)(*same)
    assert module.has_uninitialized_params()
    assert list(module.state_dict()) == list(other.state_dict())
    parameters = list(module.parameters())
    assert all(p.requires_grad and isinstance(p, nn.Parameter) for p in parameters)
    result = module(x)
    assert type(module) is getattr(nn, eager)
    assert [p is q for p, q in zip(parameters, module.parameters())] == [True] * len(parameters)
    assert {type(p) for p in parameters} == {nn.Parameter}
    assert repr(module) == repr(other)
    assert {k: v.shape for k, v in module.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}
    fresh = getattr(nn, eager)(*same)
    fresh.load_state_dict(module.state_dict())
    fresh.eval()
    np.testing.assert_allclose(module.eval()(x).detach().numpy(), fresh(x).detach().numpy(), rtol=1e-6)
    result.sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in parameters)


@pytest.mark.parametrize(("lazy", "args", "shape", "eager", "same"), CASES, ids=[c[0] for c in CASES])
def test_a_state_gives_the_shapes(lazy, args, shape, eager, same):
    x, other = disttorch.randn(*shape), getattr(nn, eager)(*same)
    module = getattr(nn, lazy)(*args)
    module.load_state_dict(other.state_dict())
    assert not module.has_uninitialized_params()
    np.testing.assert_array_equal(module.eval()(x).detach().numpy(), other.eval()(x).detach().numpy())
    assert repr(module) == repr(other)


def test_nothing_can_be_done_with_what_is_not_there():
    weight = nn.LazyLinear(4).weight
    assert repr(weight) == "<UninitializedParameter>"
    with pytest.raises(RuntimeError, match="shape"):
        weight.shape  # noqa: B018
    for use in (lambda w: w + 1, lambda w: w.numel(), lambda w: disttorch.relu(w)):
        with pytest.raises(ValueError, match="uninitialized parameter"):
            use(weight)


def test_dtype_and_device_are_kept_for_later():
    module = nn.LazyBatchNorm2d().double()
    assert module.weight.dtype == module.running_mean.dtype == disttorch.float64
    module(disttorch.zeros(2, 3, 2, 2).double())
    assert {t.dtype for t in module.state_dict().values()} == {disttorch.float64, disttorch.int64}
    assert nn.LazyLinear(2, dtype=disttorch.float16).to("cpu").weight.dtype == disttorch.float16


def test_a_lazy_state_does_not_fit_a_layer_but_a_lazy_one():
    lazy = nn.LazyLinear(4)
    nn.LazyLinear(4).load_state_dict(lazy.state_dict())
    with pytest.raises(RuntimeError, match="uninitialized"):
        nn.Linear(3, 4).load_state_dict(lazy.state_dict())


def test_copies_are_lazy_too():
    module = copy.deepcopy(nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(2)))
    assert tuple(module(disttorch.ones(3, 5)).shape) == (3, 2)
    assert [type(m) for m in module] == [nn.Linear, nn.ReLU, nn.Linear]


def test_frozen_parameters_stay_frozen():
    module = nn.LazyLinear(4).requires_grad_(False)
    module(disttorch.ones(1, 2))
    assert not any(p.requires_grad for p in module.parameters())


def test_groups_and_dimensions_are_checked():
    with pytest.raises(ValueError, match="divisible by groups"):
        nn.LazyConv2d(4, 3, groups=2)(disttorch.ones(1, 3, 4, 4))
    with pytest.raises(RuntimeError, match="LazyConv2d"):
        nn.LazyConv2d(4, 3)(disttorch.ones(3, 4))


def test_the_mixin_makes_other_modules_lazy():
    class Scale(LazyModuleMixin, nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.UninitializedParameter()
            self.initialized = 0

        def initialize_parameters(self, x):
            self.initialized += 1
            self.factor.materialize(x.shape[-1:])
            nn.init.ones_(self.factor)

        def forward(self, x):
            return x * self.factor

    class Forgetful(Scale):
        def initialize_parameters(self, x):
            pass

    module = Scale()
    for _ in range(2):
        assert module(disttorch.ones(2, 3)).sum().item() == 6
    assert module.initialized == 1
    with pytest.raises(RuntimeError, match="not been fully initialized"):
        Forgetful()(disttorch.ones(2, 3))
