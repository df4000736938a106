"""Connectionist temporal classification against the definition: the sum over all alignments, one by one."""

import itertools
import math

import numpy as np
import pytest

import disttorch
from disttorch.autograd import gradcheck, gradgradcheck

F = disttorch.nn.functional


def collapse(path, blank):
    return [label for label, _ in itertools.groupby(path) if label != blank]


def by_definition(log_probs, target, steps, blank):
    """-log of the summed probability of all paths (classes at each time) that collapse to the target."""
    total = 0.0
    for path in itertools.product(range(log_probs.shape[1]), repeat=steps):
        if collapse(path, blank) == list(target):
            total += math.exp(sum(log_probs[t, c] for t, c in enumerate(path)))
    return -math.log(total) if total else math.inf


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


LOGITS = np.random.default_rng(0).normal(size=(5, 4, 3))
TARGETS = np.array([[1, 2, 0], [1, 1, 2], [2, 0, 0], [0, 0, 0]])
INPUT_LENGTHS, TARGET_LENGTHS = [5, 5, 3, 4], [2, 3, 1, 0]
EXACT = [
    by_definition(log_softmax(LOGITS)[:, i], TARGETS[i, :n], steps, 0)
    for i, (steps, n) in enumerate(zip(INPUT_LENGTHS, TARGET_LENGTHS))
]


def losses(logits, targets=TARGETS, **options):
    given = disttorch.tensor(targets) if isinstance(targets, np.ndarray) else targets
    return F.ctc_loss(logits.log_softmax(-1), given, INPUT_LENGTHS, TARGET_LENGTHS, **options)


def test_losses_are_the_sum_over_all_alignments():
    result = losses(disttorch.tensor(LOGITS), reduction="none")
    np.testing.assert_allclose(result.numpy(), EXACT, rtol=1e-12)
    assert float(losses(disttorch.tensor(LOGITS), reduction="sum")) == pytest.approx(sum(EXACT))
    mean = np.mean(np.array(EXACT) / np.maximum(TARGET_LENGTHS, 1))
    assert float(losses(disttorch.tensor(LOGITS))) == pytest.approx(mean)


def test_another_blank():
    log_probs = log_softmax(LOGITS[:4, :1])
    result = F.ctc_loss(disttorch.tensor(log_probs), disttorch.tensor([[0, 1]]), [4], [2], blank=2, reduction="sum")
    assert float(result) == pytest.approx(by_definition(log_probs[:, 0], [0, 1], 4, 2))


def test_concatenated_targets_and_tensors_for_lengths():
    flat = np.concatenate([t[:n] for t, n in zip(TARGETS, TARGET_LENGTHS)])
    np.testing.assert_allclose(losses(disttorch.tensor(LOGITS), flat, reduction="none").numpy(), EXACT)
    log_probs = disttorch.tensor(LOGITS).log_softmax(-1)
    lengths = [disttorch.tensor(v, dtype=disttorch.int32) for v in (INPUT_LENGTHS, TARGET_LENGTHS)]
    np.testing.assert_allclose(F.ctc_loss(log_probs, disttorch.tensor(flat), *lengths, reduction="none").numpy(), EXACT)


def test_one_sample_without_a_batch():
    log_probs = disttorch.tensor(LOGITS[:, 0]).log_softmax(-1)
    result = F.ctc_loss(log_probs, disttorch.tensor([1, 2]), disttorch.tensor(5), disttorch.tensor(2), reduction="none")
    assert result.shape == () and float(result) == pytest.approx(EXACT[0])


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_derivatives_at_the_logits_are_finite_differences(check, reduction):
    logits = disttorch.tensor(LOGITS, requires_grad=True)
    assert check(lambda x: losses(x, reduction=reduction), (logits,))


def test_the_gradient_at_the_log_probabilities_is_that_at_the_logits():
    """As in PyTorch: p minus the posterior, which sums to 0 over the classes; 0 behind the end of an input."""
    log_probs = disttorch.tensor(log_softmax(LOGITS), requires_grad=True)
    F.ctc_loss(log_probs, disttorch.tensor(TARGETS), INPUT_LENGTHS, TARGET_LENGTHS, reduction="sum").backward()
    logits = disttorch.tensor(LOGITS, requires_grad=True)
    losses(logits, reduction="sum").backward()
    np.testing.assert_allclose(log_probs.grad.numpy(), logits.grad.numpy(), atol=1e-12)
    np.testing.assert_allclose(log_probs.grad.numpy().sum(-1), 0, atol=1e-12)
    assert not log_probs.grad.numpy()[3:, 2].any()


def test_a_target_that_does_not_fit():
    """1 1 needs a blank in between, and so three steps."""
    arguments = disttorch.tensor([[1, 1], [1, 2]]), [2, 2], [2, 2]
    for zero_infinity in (False, True):
        logits = disttorch.tensor(LOGITS[:2, :2], requires_grad=True)
        result = F.ctc_loss(logits.log_softmax(-1), *arguments, reduction="none", zero_infinity=zero_infinity)
        assert float(result[0]) == (0.0 if zero_infinity else math.inf)
        assert math.isfinite(float(result[1]))
        result.sum().backward()
        gradient = logits.grad.numpy()
        assert (gradient[:, 0] == 0).all() if zero_infinity else np.isnan(gradient[:, 0]).all()
        assert np.isfinite(gradient[:, 1]).all() and gradient[:, 1].any()


def test_impossible_classes_and_long_inputs_stay_finite():
    log_probs = np.log(np.array([[0.0, 1.0, 0.0]] * 400 + [[1.0, 0.0, 0.0]] * 400, dtype=np.float32))[:, None]
    result = F.ctc_loss(disttorch.tensor(log_probs), disttorch.tensor([[1]]), [800], [1], reduction="sum")
    assert float(result) == pytest.approx(0.0, abs=1e-4)
    logits = disttorch.tensor(np.zeros((2000, 1, 5), np.float32), requires_grad=True)
    result = F.ctc_loss(logits.log_softmax(-1), disttorch.tensor([[1, 2, 3, 4]]), [2000], [4], reduction="sum")
    result.backward()
    assert math.isfinite(float(result)) and np.isfinite(logits.grad.numpy()).all()


def test_an_empty_input():
    log_probs = disttorch.zeros(0, 2, 3)
    result = F.ctc_loss(log_probs, disttorch.tensor([[1], [1]]), [0, 0], [0, 1], reduction="none")
    assert result.tolist() == [0.0, math.inf]
