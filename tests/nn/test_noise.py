"""Activations that draw random numbers: their distributions, and their gradients for what was drawn."""

import numpy as np
import pytest

import disttorch

F, nn = disttorch.nn.functional, disttorch.nn


class TestRReLU:
    def test_slopes_are_uniform_between_the_bounds(self):
        disttorch.manual_seed(0)
        x = disttorch.full((20000,), -2.0)
        slopes = F.rrelu(x, 0.1, 0.5, training=True).numpy() / -2
        assert slopes.min() >= 0.1 and slopes.max() <= 0.5
        assert slopes.mean() == pytest.approx(0.3, abs=5e-3) and slopes.std() == pytest.approx(0.4 / 12**0.5, abs=5e-3)
        np.testing.assert_array_equal(F.rrelu(-x, training=True).numpy(), 2)

    def test_the_gradient_is_the_slope_that_was_drawn(self):
        x = disttorch.tensor([-1.0, -2.0, 3.0], requires_grad=True)
        out = F.rrelu(x, training=True)
        out.sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), out.detach().numpy() / x.detach().numpy(), rtol=1e-6)

    def test_evaluation_takes_the_mean(self):
        layer = nn.RReLU(0.2, 0.4).eval()
        assert layer(disttorch.tensor([-1.0, 2.0])).tolist() == pytest.approx([-0.3, 2.0])
        x = disttorch.tensor([-1.0, 2.0])
        assert F.rrelu_(x, 0.2, 0.4) is x and x.tolist() == pytest.approx([-0.3, 2.0])


class TestGumbelSoftmax:
    def test_classes_come_with_their_probabilities(self):
        disttorch.manual_seed(0)
        p = np.array([0.1, 0.2, 0.7])
        drawn = F.gumbel_softmax(disttorch.tensor(np.log(p)).expand(20000, 3), hard=True)
        assert set(np.unique(drawn.numpy())) == {0.0, 1.0}
        np.testing.assert_allclose(drawn.numpy().sum(1), 1)
        np.testing.assert_allclose(drawn.numpy().mean(0), p, atol=0.015)

    def test_soft_samples_sum_to_1_and_are_sharper_when_it_is_cold(self):
        disttorch.manual_seed(0)
        logits = disttorch.zeros(500, 4)
        warm, cold = (F.gumbel_softmax(logits, tau=t).numpy() for t in (5.0, 0.1))
        np.testing.assert_allclose(warm.sum(1), 1, rtol=1e-5)
        assert warm.max(1).mean() < 0.5 < 0.9 < cold.max(1).mean()

    def test_the_gradient_of_a_hard_sample_is_that_of_the_soft_one(self):
        gradients = []
        for hard in (False, True):
            disttorch.manual_seed(4)
            logits = disttorch.zeros(3, 4, requires_grad=True)
            (F.gumbel_softmax(logits, hard=hard, dim=0) * disttorch.arange(12.0).reshape(3, 4)).sum().backward()
            gradients.append(logits.grad.numpy())
        np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-6)
        assert gradients[0].any()
