"""Parametrizations: what is trained, what is computed, how they are assigned, copied and removed."""

import copy
import pickle

import numpy as np
import pytest

import disttorch

nn = disttorch.nn
P = nn.utils.parametrize
made = nn.utils.parametrizations


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).transpose(-1, -2)

    def right_inverse(self, x):
        return x.triu()


class Scale(nn.Module):
    def __init__(self, by=2.0):
        super().__init__()
        self.by = by

    def forward(self, x):
        return x * self.by


class Sum(nn.Module):
    def forward(self, a, b):
        return a + b

    def right_inverse(self, x):
        return x / 2, x / 2


class TestRegistration:
    def test_the_tensor_is_computed_and_the_original_trained(self):
        layer = nn.Linear(3, 3)
        before = layer.weight
        P.register_parametrization(layer, "weight", Scale())
        np.testing.assert_allclose(layer.weight.detach().numpy(), before.detach().numpy() * 2)
        assert layer.parametrizations.weight.original is before  # an optimizer that knows it goes on
        assert [n for n, _ in layer.named_parameters()] == ["bias", "parametrizations.weight.original"]
        layer(disttorch.ones(1, 3)).sum().backward()
        np.testing.assert_allclose(before.grad.numpy(), 2)
        assert type(layer).__name__ == "ParametrizedLinear" and isinstance(layer, nn.Linear)
        assert P.type_before_parametrizations(layer) is nn.Linear

    def test_several_are_applied_one_after_the_other(self):
        layer = nn.Linear(3, 3)
        value = layer.weight.detach().numpy().copy()
        P.register_parametrization(layer, "weight", Symmetric())
        P.register_parametrization(layer, "weight", Scale(3.0))
        symmetric = np.triu(value) + np.triu(value, 1).T
        np.testing.assert_allclose(layer.weight.detach().numpy(), symmetric * 3, rtol=1e-6)

    def test_assignment_goes_through_the_right_inverse(self):
        layer = P.register_parametrization(nn.Linear(2, 2), "weight", Symmetric())
        layer.weight = disttorch.tensor([[1.0, 2.0], [2.0, 3.0]])
        assert layer.weight.tolist() == [[1, 2], [2, 3]]
        assert layer.parametrizations.weight.original.tolist() == [[1, 2], [0, 3]]
        P.register_parametrization(layer, "bias", Scale())
        with pytest.raises(RuntimeError, match="Scale does not implement right_inverse"):
            layer.bias = disttorch.zeros(2)

    def test_several_originals_and_buffers(self):
        layer = nn.BatchNorm1d(2)
        P.register_parametrization(layer, "weight", Sum())
        P.register_parametrization(layer, "running_mean", Scale())
        keys = list(layer.state_dict())
        assert keys[-3:] == [f"parametrizations.{k}" for k in ("weight.original0", "weight.original1", "running_mean.original")]
        np.testing.assert_allclose(layer.weight.detach().numpy(), 1)
        assert "parametrizations.running_mean.original" in dict(layer.named_buffers())
        with pytest.raises(ValueError, match="sequence of tensors"):
            P.remove_parametrizations(layer, "weight", leave_parametrized=False)
        P.remove_parametrizations(layer, "weight")
        assert P.is_parametrized(layer) and not P.is_parametrized(layer, "weight")

    def test_mistakes(self):
        with pytest.raises(ValueError, match="with name 'nothing'"):
            P.register_parametrization(nn.Linear(2, 2), "nothing", Scale())
        with pytest.raises(ValueError, match=r"shape: \[2, 2\]\n.*\[4\]"):
            P.register_parametrization(nn.Linear(2, 2), "weight", nn.Flatten(0))
        layer = P.register_parametrization(nn.Linear(2, 2), "weight", nn.Flatten(0), unsafe=True)
        assert layer.weight.shape == (4,)
        with pytest.raises(ValueError, match="does not have a parametrization on bias"):
            P.remove_parametrizations(layer, "bias")


@pytest.mark.parametrize("leave", [True, False])
def test_removal(leave):
    layer = nn.Linear(2, 3)
    original = layer.weight
    value = original.detach().numpy().copy()
    P.register_parametrization(layer, "weight", Scale())
    P.remove_parametrizations(layer, "weight", leave_parametrized=leave)
    assert type(layer) is nn.Linear and layer.weight is original
    assert list(layer.state_dict()) == ["bias", "weight"]
    np.testing.assert_allclose(layer.weight.detach().numpy(), value * (2 if leave else 1))


def test_cached_computes_once():
    calls = []

    class Counted(Scale):
        def forward(self, x):
            calls.append(1)
            return super().forward(x)

    layer = P.register_parametrization(nn.Linear(2, 2), "weight", Counted(), unsafe=True)
    calls.clear()
    with P.cached():
        with P.cached():
            assert layer.weight is layer.weight
        assert layer.weight is layer.weight
    assert len(calls) == 1
    assert layer.weight is not layer.weight


def test_copies_have_classes_of_their_own():
    layer = P.register_parametrization(nn.Linear(2, 2), "weight", Scale())
    other = copy.deepcopy(layer)
    P.remove_parametrizations(layer, "weight")
    assert P.is_parametrized(other, "weight") and other.weight.shape == (2, 2)
    assert type(other) is not type(layer)
    with pytest.raises(RuntimeError, match="state_dict"):
        pickle.dumps(other)


def test_they_can_be_given_to_another_module():
    one, two = P.register_parametrization(nn.Linear(2, 2), "weight", Scale()), nn.Linear(2, 2)
    P.transfer_parametrizations_and_params(one, two)
    np.testing.assert_allclose(two.weight.detach().numpy(), one.weight.detach().numpy())


class TestWeightNorm:
    @pytest.mark.parametrize(("dim", "axes"), [(0, (1, 2)), (1, (0, 2)), (None, (0, 1, 2))])
    def test_norms_and_directions(self, dim, axes):
        layer = nn.Conv1d(3, 4, 2)
        value = layer.weight.detach().numpy().copy()
        made.weight_norm(layer, dim=dim)
        np.testing.assert_allclose(layer.weight.detach().numpy(), value, rtol=1e-5)
        g = layer.parametrizations.weight.original0
        np.testing.assert_allclose(g.detach().numpy(), np.sqrt((value**2).sum(axes, keepdims=dim is not None)), rtol=1e-6)
        g.data *= 2
        np.testing.assert_allclose(layer.weight.detach().numpy(), value * 2, rtol=1e-5)

    def test_states_of_the_hook_are_read(self):
        with pytest.warns(FutureWarning):
            old = nn.utils.weight_norm(nn.Linear(3, 2))
        assert list(old.state_dict()) == ["bias", "weight_g", "weight_v"]
        new = made.weight_norm(nn.Linear(3, 2))
        new.load_state_dict(old.state_dict())
        x = disttorch.randn(4, 3)
        np.testing.assert_allclose(new(x).detach().numpy(), old(x).detach().numpy(), rtol=1e-6)

    @pytest.mark.filterwarnings("ignore:.weight_norm. is deprecated")
    def test_the_hook_and_its_removal(self):
        layer = nn.Linear(3, 2)
        value = layer.weight.detach().numpy().copy()
        nn.utils.weight_norm(layer)
        layer.weight_g.data *= 3
        layer(disttorch.ones(1, 3)).sum().backward()
        np.testing.assert_allclose(layer.weight.detach().numpy(), value * 3, rtol=1e-5)
        assert layer.weight_g.grad is not None and layer.weight_v.grad is not None
        with pytest.raises(RuntimeError, match="two weight_norm hooks"):
            nn.utils.weight_norm(layer)
        nn.utils.remove_weight_norm(layer)
        assert list(layer.state_dict()) == ["bias", "weight"]
        np.testing.assert_allclose(layer.weight.detach().numpy(), value * 3, rtol=1e-5)
        with pytest.raises(ValueError, match="not found"):
            nn.utils.remove_weight_norm(layer)


def largest(matrix):
    return np.linalg.svd(matrix, compute_uv=False)[0]


class TestSpectralNorm:
    @pytest.mark.parametrize("spectral", [made.spectral_norm, nn.utils.spectral_norm], ids=["parametrization", "hook"])
    @pytest.mark.parametrize(("layer", "as_matrix"), [
        (lambda: nn.Linear(5, 4), lambda w: w),
        (lambda: nn.Conv2d(3, 4, 2), lambda w: w.reshape(4, -1)),
        (lambda: nn.ConvTranspose2d(3, 4, 2), lambda w: w.transpose(1, 0, 2, 3).reshape(4, -1)),
    ], ids=["linear", "conv", "transposed"])  # fmt: skip
    def test_the_largest_singular_value_becomes_1(self, spectral, layer, as_matrix):
        module = layer()
        module.weight.data *= 3
        value = module.weight.detach().numpy().copy()
        spectral(module, n_power_iterations=50)
        x = disttorch.ones(1, 5) if isinstance(module, nn.Linear) else disttorch.ones(1, 3, 4, 4)
        module(x)
        np.testing.assert_allclose(module.weight.detach().numpy(), value / largest(as_matrix(value)), rtol=1e-3)

    def test_evaluation_leaves_the_vectors(self):
        layer = made.spectral_norm(nn.Linear(5, 4))
        keys = ["bias", *(f"parametrizations.weight.{k}" for k in ("original", "0._u", "0._v"))]
        assert list(layer.state_dict()) == keys
        layer.eval()
        before = layer.parametrizations.weight[0]._u.clone()
        layer(disttorch.ones(1, 5))
        assert layer.parametrizations.weight[0]._u.tolist() == before.tolist()

    def test_the_hook_is_removed(self):
        layer = nn.utils.spectral_norm(nn.Linear(5, 4))
        assert sorted(layer.state_dict()) == ["bias", "weight_orig", "weight_u", "weight_v"]
        layer(disttorch.ones(1, 5))
        value = layer.weight.detach().numpy()
        nn.utils.remove_spectral_norm(layer.eval())
        assert list(layer.state_dict()) == ["bias", "weight"]
        np.testing.assert_allclose(layer.weight.detach().numpy(), value, rtol=1e-5)


class TestOrthogonal:
    @pytest.mark.parametrize("shape", [(4, 4), (6, 4), (3, 5)])
    @pytest.mark.parametrize("kind", ["matrix_exp", "cayley", "householder", None])
    @pytest.mark.parametrize("trivialized", [True, False])
    def test_the_weight_is_orthogonal_and_stays_so_in_training(self, shape, kind, trivialized):
        layer = nn.Linear(*shape[::-1], bias=False).double()
        made.orthogonal(layer, orthogonal_map=kind, use_trivialization=trivialized)
        optimizer = disttorch.optim.SGD(layer.parameters(), lr=0.1)
        values = []
        for _ in range(3):
            w = layer.weight
            product = (w @ w.T if shape[0] < shape[1] else w.T @ w).detach().numpy()
            np.testing.assert_allclose(product, np.eye(min(shape)), atol=1e-10)
            values.append(w.detach().numpy())
            optimizer.zero_grad()
            (w * disttorch.arange(w.numel()).reshape(w.shape)).sum().backward()
            optimizer.step()
        assert np.abs(values[2] - values[0]).max() > 1e-2

    @pytest.mark.parametrize("kind", ["matrix_exp", "cayley", "householder"])
    @pytest.mark.parametrize("shape", [(4, 4), (6, 4), (3, 5)])
    def test_any_orthogonal_matrix_can_be_assigned(self, kind, shape):
        layer = made.orthogonal(nn.Linear(*shape[::-1]).double(), orthogonal_map=kind)
        q = np.linalg.qr(np.random.default_rng(1).normal(size=(max(shape), min(shape))))[0]
        q = q if shape[0] >= shape[1] else q.T
        layer.weight = disttorch.tensor(q)
        np.testing.assert_allclose(layer.weight.detach().numpy(), q, atol=1e-10)

    def test_mistakes(self):
        with pytest.raises(ValueError, match="Got: rotation"):
            made.orthogonal(nn.Linear(2, 2), orthogonal_map="rotation")
        with pytest.raises(ValueError, match="1 dimensions"):
            made.orthogonal(nn.Linear(2, 2), "bias")
        layer = made.orthogonal(nn.Linear(2, 2), use_trivialization=False)
        with pytest.raises(NotImplementedError, match="use_trivialization=False"):
            layer.weight = disttorch.eye(2)
