"""Our own kernels at the sizes of real models, beside the CPU's in float64.

tests/backend compares each kernel at all shapes and corners; here rows are long and many, so that every thread of a block and
every block of a grid has something to do, and some does not fit.
"""

import numpy as np
import pytest

import disttorch
from tests.gpu.agreement import TOLERANCE, error

DTYPES = ("float32", "float16", "bfloat16", "float64")
# rows and their length: whole vectors, odd lengths, one element, none, more than a block's threads, a vocabulary
SHAPES = [(8, 1024), (7, 1023), (1, 1), (64, 1), (5, 0), (3, 4097), (2, 50257), (1025, 129)]


@pytest.fixture(scope="module")
def worlds():
    """The device's namespace with our kernels, and the CPU's."""
    from disttorch.backend import cpu
    from disttorch.backend.cuda import cuda

    return cuda, cpu


class Draw:
    """Numbers as one of the two worlds sees them: on the device in a dtype, or the same numbers on the CPU in float64."""

    def __init__(self, xp, dtype):
        self.xp, self.dtype, self.seed = xp, getattr(disttorch, dtype).numpy, 0

    def __call__(self, *shape, scale=1.0, positive=False):
        self.seed += 1
        values = np.random.default_rng(self.seed).standard_normal(shape) * scale
        rounded = (np.abs(values) + 0.1 if positive else values).astype(self.dtype)
        return self.place(rounded if self.xp.name == "cuda" else rounded.astype(np.float64))

    def indices(self, high, *shape):
        self.seed += 1
        return self.place(np.random.default_rng(self.seed).integers(0, high, shape))

    def place(self, array):
        return self.xp.from_host(array) if self.xp.name == "cuda" else array


def softmax(xp, draw, n, c):
    x, g = draw(n, c, scale=3.0), draw(n, c)
    out, logs = xp.softmax(x, -1), xp.log_softmax(x, -1)
    return out, logs, xp.softmax_backward(g, out, -1), xp.log_softmax_backward(g, logs, -1)


def softmax_of_columns(xp, draw, n, c):
    x = draw(n, c, scale=3.0)
    return xp.softmax(x, 0) if n and c else None


def cross_entropy(xp, draw, n, c):
    if not c:
        return None
    x, g, target = draw(n, c, scale=3.0), draw(n), draw.indices(c, n)
    found = []
    for weight, ignore, smoothing in ((None, -100, 0.0), (None, 0, 0.1), (draw(c, positive=True), -100, 0.2)):
        losses, kept = xp.class_losses(x, target, weight, ignore, smoothing)
        found += [losses, xp.class_losses_backward(g, x, kept, target, weight, ignore, smoothing)]
    return found


def layer_norm(xp, draw, n, c):
    if not c:
        return None
    x, g, weight, bias = draw(n, c), draw(n, c), draw(c), draw(c)
    out, mean, rstd = xp.layer_norm(x, weight, bias, 1, 1e-5)
    return [out, *xp.layer_norm_backward(g, x, weight, mean, rstd, 1)]


def rms_norm(xp, draw, n, c):
    if not c:
        return None
    x, g, weight = draw(n, c), draw(n, c), draw(c)
    out, rstd = xp.rms_norm(x, weight, 1, 1e-5)
    return [out, *xp.rms_norm_backward(g, x, weight, rstd, 1)]


def activations(xp, draw, n, c):
    x, g = draw(n, c, scale=3.0), draw(n, c)
    return [xp.silu_backward(g, x), xp.mish(x), xp.hardswish(x), xp.leaky_relu(x, 0.1)]


def added_rows(xp, draw, n, c):
    """Some rows of a table are looked up often, some never."""
    return xp.add_rows(draw(n, c), draw.indices(max(1, n // 3), n), n)


CASES = [softmax, softmax_of_columns, cross_entropy, layer_norm, rms_norm, activations, added_rows]


def arrays(value):
    if value is None:
        return []
    return [a for v in value for a in arrays(v)] if isinstance(value, (list, tuple)) else [value]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_kernel_computes_what_the_cpu_does(case, shape, dtype, worlds):
    fast, exact = worlds
    found = arrays(case(fast, Draw(fast, dtype), *shape))
    expected = arrays(case(exact, Draw(exact, dtype), *shape))
    assert len(found) == len(expected)
    for i, (f, e) in enumerate(zip(found, expected)):
        f = fast.to_host(f).astype(np.float64)
        assert f.shape == e.shape
        size = max(1.0, float(np.abs(e).max(initial=0.0)))
        assert error(f, e) <= 2 * TOLERANCE[dtype] * size, (i, error(f, e), size)


GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1}


def recurrent_layer(xp, draw, mode):
    """Sequences of two lengths through a layer, and its gradients."""
    n, features, hidden, sizes, rows = 33, 96, 200, (33,) * 6 + (20,) * 4, GATES[mode] * 200
    x, h, w_ih, w_hh = draw(sum(sizes), features), draw(n, hidden), draw(rows, features, scale=0.1), draw(rows, hidden, scale=0.1)
    b_ih, b_hh, gy, gh = draw(rows), draw(rows), draw(sum(sizes), hidden), draw(n, hidden)
    c, gc = (draw(n, hidden), draw(n, hidden)) if mode == "LSTM" else (None, None)
    *found, kept, before, cells = xp.recurrent(x, h, c, w_ih, w_hh, b_ih, b_hh, None, mode, sizes, False)
    return found, xp.recurrent_backward(gy, gh, gc, x, w_ih, w_hh, None, kept, before, cells, mode, sizes, False, True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", GATES)
def test_a_recurrent_layer_computes_what_the_cpus_does(mode, dtype, worlds):
    fast, exact = worlds
    found, expected = (arrays(recurrent_layer(xp, Draw(xp, dtype), mode)) for xp in (fast, exact))
    for i, (f, e) in enumerate(zip(found, expected, strict=True)):
        f, size = fast.to_host(f).astype(np.float64), max(1.0, float(np.abs(e).max()))
        assert error(f, e) <= 2 * TOLERANCE[dtype] * size, (i, error(f, e), size)


@pytest.mark.parametrize("case", [layer_norm, cross_entropy, added_rows], ids=lambda case: case.__name__)
def test_the_same_bits_every_time(case, worlds):
    """Sums over rows are added up in one order."""
    fast, _ = worlds
    first, *others = [[fast.to_host(a) for a in arrays(case(fast, Draw(fast, "float32"), 1025, 129))] for _ in range(4)]
    for other in others:
        for a, b in zip(first, other):
            np.testing.assert_array_equal(a, b)
