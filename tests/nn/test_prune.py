"""Pruning: which entries go, what pruning again looks at, and what is left when it is made permanent."""

import numpy as np
import pytest

import disttorch
from disttorch.nn.utils import prune

nn = disttorch.nn
WEIGHT = np.array([[0.1, -5.0, 0.3, 4.0], [-0.2, 2.0, -3.0, 0.4], [1.0, -0.6, 0.7, 6.0]], np.float32)


def layer():
    made = nn.Linear(4, 3)
    made.weight.data = disttorch.tensor(WEIGHT)
    return made


def mask(module):
    return module.weight_mask.numpy()


def test_the_smallest_entries_go():
    module = prune.l1_unstructured(layer(), "weight", 4)
    assert sorted(np.abs(WEIGHT[mask(module) == 0])) == sorted(np.float32([0.1, 0.2, 0.3, 0.4]))
    np.testing.assert_allclose(module.weight.detach().numpy(), WEIGHT * mask(module))
    assert sorted(module.state_dict()) == ["bias", "weight_mask", "weight_orig"]
    assert [n for n, _ in module.named_parameters()] == ["bias", "weight_orig"]


def test_a_part_and_scores_of_ones_own():
    assert (mask(prune.l1_unstructured(layer(), "weight", 0.5)) == 0).sum() == 6
    scores = disttorch.arange(12.0).reshape(3, 4)
    assert mask(prune.l1_unstructured(layer(), "weight", 4, importance_scores=scores)).tolist() == [[0] * 4, [1] * 4, [1] * 4]


def test_pruned_entries_have_no_gradient_and_stay_zero():
    module = prune.l1_unstructured(layer(), "weight", 0.5)
    optimizer = disttorch.optim.SGD(module.parameters(), lr=1.0)
    module(disttorch.ones(2, 4)).sum().backward()
    assert (module.weight_orig.grad.numpy()[mask(module) == 0] == 0).all()
    optimizer.step()
    module(disttorch.ones(2, 4))
    assert (module.weight.detach().numpy()[mask(module) == 0] == 0).all()
    np.testing.assert_allclose(module.weight.detach().numpy()[mask(module) == 1], (WEIGHT - 2)[mask(module) == 1])


@pytest.mark.parametrize(("n", "dim"), [(1, 0), (2, 0), (2, 1), (float("inf"), -1)])
def test_the_smallest_channels_go(n, dim):
    module = prune.ln_structured(layer(), "weight", 1, n=n, dim=dim)
    norms = np.linalg.norm(WEIGHT, n, axis=1 - dim % 2)
    gone = np.moveaxis(mask(module), dim, 0).sum(1) == 0
    assert gone.tolist() == [i == norms.argmin() for i in range(len(norms))]


def test_pruning_again_looks_only_at_what_is_left():
    module = prune.l1_unstructured(layer(), "weight", 4)
    prune.l1_unstructured(module, "weight", 2)
    assert sorted(np.abs(WEIGHT[mask(module) == 0])) == sorted(np.float32([0.1, 0.2, 0.3, 0.4, 0.6, 0.7]))
    prune.ln_structured(module, "weight", 1, n=2, dim=0)
    assert (mask(module)[1] == 0).all()  # 2 and -3 against larger rows
    hooks = list(module._hooks.before.values())
    assert len(hooks) == 1 and isinstance(hooks[0][0], prune.PruningContainer) and len(hooks[0][0]) == 3


def test_random_pruning():
    disttorch.manual_seed(1)
    assert (mask(prune.random_unstructured(layer(), "weight", 5)) == 0).sum() == 5
    columns = mask(prune.random_structured(layer(), "weight", 0.5, dim=1)).sum(0)
    assert sorted(columns) == [0, 0, 3, 3]


def test_all_parameters_are_compared_globally():
    one, two = layer(), layer()
    two.weight.data *= 100
    prune.global_unstructured([(one, "weight"), (two, "weight"), (two, "bias")], prune.L1Unstructured, amount=10)
    assert (mask(one) == 0).sum() + int((two.bias_mask == 0).sum()) == 10 and mask(two).all()


def test_removal_makes_it_permanent():
    module = prune.custom_from_mask(layer(), "weight", disttorch.tensor(WEIGHT > 0))
    original = module.weight_orig
    assert prune.is_pruned(nn.Sequential(module))
    prune.remove(module, "weight")
    assert module.weight is original and sorted(module.state_dict()) == ["bias", "weight"]
    np.testing.assert_allclose(module.weight.detach().numpy(), np.maximum(WEIGHT, 0))
    assert not prune.is_pruned(module)


def test_identity_changes_nothing():
    np.testing.assert_allclose(prune.identity(layer(), "weight").weight.detach().numpy(), WEIGHT)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: prune.l1_unstructured(m, "weight", 1.5), ValueError, "amount=1.5"),
        (lambda m: prune.l1_unstructured(m, "weight", "all"), TypeError, "all"),
        (lambda m: prune.l1_unstructured(m, "weight", 13), ValueError, "prune=12"),
        (lambda m: prune.ln_structured(m, "bias", 1, n=2, dim=0), ValueError, r"shape \[3\]"),
        (lambda m: prune.remove(m, "weight"), ValueError, "has to be pruned"),
        (lambda m: prune.global_unstructured(m, prune.L1Unstructured, amount=1), TypeError, "not an Iterable"),
        (lambda m: prune.global_unstructured([(m, "weight")], prune.LnStructured, amount=1, n=2), TypeError, "structured"),
    ],
    ids=range(7),
)
def test_mistakes_leave_the_module_as_it_was(call, error, message):
    module = layer()
    with pytest.raises(error, match=message):
        call(module)
    assert list(module.state_dict()) == ["weight", "bias"] or sorted(module.state_dict()) == ["bias", "weight"]
    assert not prune.is_pruned(module)
