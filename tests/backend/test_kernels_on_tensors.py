"""Plain kernels in the world of tensors: the same numbers as on arrays, and gradients that are finite differences."""

import numpy as np
import pytest

import disttorch
from disttorch.backend.kernels import PLAIN
from disttorch.backend.namespace import Namespace
from disttorch.ops.world import tensors

ARRAYS = Namespace("cpu", np)
TARGET = np.array([1, -100, 0, 4])

# kernel, shapes of its arrays, then its other arguments; a kernel that takes None or an array has both cases
CASES = [
    ("softmax", [(3, 4)], (1,)),
    ("softmax_backward", [(3, 4), (3, 4)], (0,)),
    ("log_softmax", [(3, 4)], (0,)),
    ("log_softmax_backward", [(3, 4), (3, 4)], (1,)),
    ("logsumexp", [(3, 4)], (1, False)),
    ("logsumexp", [(2, 3, 2)], ((0, 2), True)),
    ("batch_norm_stats", [(3, 2, 4)], ()),
    ("batch_norm", [(3, 2, 4), (2,), (2,), (2,), (2,)], ()),
    ("batch_norm_backward", [(3, 2, 4), (3, 2, 4), (2,), (2,), (2,)], ()),
    ("layer_norm", [(3, 5), (5,), (5,)], (1, 1e-5)),
    ("layer_norm_backward", [(3, 5), (3, 5), (5,), (3, 1), (3, 1)], (1,)),
    ("rms_norm", [(3, 5), (5,)], (1, 1e-5)),
    ("rms_norm_backward", [(3, 5), (3, 5), (5,), (3, 1)], (1,)),
    ("gelu", [(6,)], ("none",)),
    ("gelu", [(6,)], ("tanh",)),
    ("gelu_backward", [(6,), (6,)], ("none",)),
    ("gelu_backward", [(6,), (6,)], ("tanh",)),
    ("silu", [(6,)], ()),
    ("softplus", [(6,)], (1.5, 20.0)),
]


def as_tuple(result):
    return result if isinstance(result, tuple) else (result,)


def check(run_arrays, run_tensors, arrays):
    given = [disttorch.tensor(a, requires_grad=True) for a in arrays]
    results, exact = as_tuple(run_tensors(*given)), as_tuple(run_arrays(*arrays))
    for result, value in zip(results, exact):
        np.testing.assert_allclose(result.detach().numpy(), value, rtol=1e-12, atol=1e-12)
    rng = np.random.default_rng(3)
    weights = [rng.normal(size=np.shape(value)) for value in exact]
    sum((r * disttorch.tensor(w)).sum() for r, w in zip(results, weights)).backward()
    for i, a in enumerate(arrays):
        slope = np.zeros(a.shape)
        for at in np.ndindex(*a.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [b.copy() for b in arrays]
                moved[i][at] += step
                ends.append(sum(np.sum(w * r) for w, r in zip(weights, as_tuple(run_arrays(*moved)))))
            slope[at] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(given[i].grad.numpy(), slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "shapes", "rest"), CASES, ids=str)
def test_values_and_gradients(rng, name, shapes, rest):
    plain, arrays = PLAIN[name], [rng.normal(size=shape) for shape in shapes]
    check(lambda *a: plain(ARRAYS, *a, *rest), lambda *t: plain(tensors, *t, *rest), arrays)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_backward(rng, weighted, smoothing):
    plain = PLAIN["cross_entropy_backward"]

    def on_arrays(g, log_p, *weight):
        return plain(ARRAYS, g, log_p, TARGET, *(weight or (None,)), -100, smoothing)

    def on_tensors(g, log_p, *weight):
        return plain(tensors, g, log_p, disttorch.tensor(TARGET), *(weight or (None,)), -100, smoothing)

    shapes = [(4,), (4, 5), (5,)] if weighted else [(4,), (4, 5)]
    check(on_arrays, on_tensors, [rng.normal(size=s) for s in shapes])


@pytest.mark.parametrize("dtype", [disttorch.float16, disttorch.bfloat16])
def test_half_types_keep_their_type(rng, dtype):
    x = disttorch.tensor(rng.normal(size=(3, 4)).astype(np.float32)).to(dtype).requires_grad_()
    out = PLAIN["softmax"](tensors, x, 1)
    assert out.dtype is dtype
    (out * out).sum().backward()
    assert x.grad.dtype is dtype
