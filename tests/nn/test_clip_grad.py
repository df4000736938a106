"""Clipping of gradients: norms against NumPy's, and gradients that lie in one buffer as one array."""

import numpy as np
import pytest

import disttorch
from disttorch.backend.cpu_kernels import CPU_KERNELS
from disttorch.nn.utils.clip_grad import _runs

nn, utils = disttorch.nn, disttorch.nn.utils
SHAPES = [(3, 4), (5,), (2, 2)]


def parameters(in_one_buffer, gap=0):
    """Parameters with random gradients, of their own or side by side in one buffer; the gradients as one array, too."""
    made = [nn.Parameter(disttorch.zeros(s)) for s in SHAPES]
    values = np.random.default_rng(0).normal(size=21).astype(np.float32)
    buffer = disttorch.zeros(21 + 2 * gap)
    start = 0
    for i, p in enumerate(made):
        part = disttorch.tensor(values[start : start + p.numel()].reshape(p.shape))
        home = buffer[start + i * gap : start + i * gap + p.numel()].reshape(p.shape)
        p.grad = home.copy_(part) if in_one_buffer else part
        start += p.numel()
    return made, values


def gradients(made):
    return np.concatenate([p.grad.numpy().ravel() for p in made])


@pytest.mark.parametrize("in_one_buffer", [False, True])
@pytest.mark.parametrize("order", [1, 1.5, 2, 3, np.inf])
def test_norms_and_clipped_gradients(in_one_buffer, order):
    made, values = parameters(in_one_buffer)
    norm = np.linalg.norm(values.astype(np.float64), order)
    total = utils.clip_grad_norm_(made, 0.5, norm_type=order)
    assert float(total) == pytest.approx(norm, rel=1e-6)
    np.testing.assert_allclose(gradients(made), values * (0.5 / norm), rtol=1e-5)


@pytest.mark.parametrize("in_one_buffer", [False, True])
def test_small_gradients_stay(in_one_buffer):
    made, values = parameters(in_one_buffer)
    utils.clip_grad_norm_(made, 1e3)
    np.testing.assert_array_equal(gradients(made), values)


@pytest.mark.parametrize("in_one_buffer", [False, True])
def test_values(in_one_buffer):
    made, values = parameters(in_one_buffer)
    utils.clip_grad_value_(made, 0.3)
    np.testing.assert_allclose(gradients(made), np.clip(values, np.float32(-0.3), np.float32(0.3)))


@pytest.mark.cpu_only("on a GPU all gradients are one launch, wherever they lie")
def test_gradients_side_by_side_are_one_array_without_a_copy():
    made, values = parameters(True)
    (whole,) = _runs([made[i].grad for i in (1, 2, 0)])
    np.testing.assert_array_equal(whole, values)
    whole[:] = 1
    assert all((p.grad.numpy() == 1).all() for p in made)


@pytest.mark.parametrize("arrange", [lambda: parameters(False)[0], lambda: parameters(True, gap=1)[0]], ids=["apart", "gaps"])
def test_others_are_not_joined(arrange):
    assert len(_runs([p.grad for p in arrange()])) == 3


@pytest.mark.cpu_only("on a GPU all gradients are one launch, wherever they lie")
def test_transposed_gradients_in_a_buffer_are_joined_and_those_with_gaps_are_not():
    a, b = disttorch.zeros(12).chunk(2)
    assert [len(run) for run in _runs([a.reshape(2, 3).T, b])] == [12]
    assert len(_runs([a.reshape(2, 3)[:, :2], b])) == 2
    c = disttorch.zeros(6).reshape(3, 2).T
    runs = _runs([c, a, b])
    assert len(runs) == 2 and sum(run.size for run in runs) == 18


def test_nothing_to_clip_and_infinite_norms():
    assert float(utils.clip_grad_norm_([], 1.0)) == 0
    p = nn.Parameter(disttorch.zeros(2))
    assert float(utils.clip_grad_norm_(p, 1.0)) == 0
    p.grad = disttorch.tensor([1.0, float("inf")])
    with pytest.raises(RuntimeError, match="non-finite"):
        utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
    assert p.grad.tolist() == [1.0, float("inf")]


@pytest.mark.parametrize("size", [0, 1, 100, 70000, 300000])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex64])
def test_sums_of_squares_keep_their_digits(size, dtype):
    values = np.random.default_rng(1).normal(1, 0.1, size).astype(dtype)
    found = CPU_KERNELS["sum_of_squares"](values)
    exact = (np.abs(values.astype(np.complex128)) ** 2).sum()
    np.testing.assert_allclose(found, exact, rtol=1e-5)
