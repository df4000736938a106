"""Recurrent layers' CUDA kernels, compiled for the host and run on the stand-in, against the plain kernels in float64."""

import itertools

import ml_dtypes
import numpy as np
import pytest

from disttorch.backend import cpu
from disttorch.backend.kernels import PLAIN
from tests import stand_in
from tests.stand_in import host_cuda
from tests.stand_in.session import tensors

pytestmark = pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available()))

GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}
SIZES = [(1,), (3, 3, 3), (3, 2, 2, 1)]
#: of a result in this type, which half types are rounded to once
TOLERANCE = {np.float16: 2e-3, ml_dtypes.bfloat16: 1.6e-2, np.float32: 1e-5, np.float64: 1e-12}
FEATURES, HIDDEN = 3, 5


@pytest.fixture
def cupy():
    with stand_in.installed() as module:
        yield module


def arguments(rng, mode, sizes, biased, dtype):
    rows, batch = GATES[mode] * HIDDEN, sizes[0]
    shapes = [(sum(sizes), FEATURES), (batch, HIDDEN), (batch, HIDDEN), (rows, FEATURES), (rows, HIDDEN), (rows,), (rows,)]
    absent = {2: mode != "LSTM", 5: not biased, 6: not biased}
    return [None if absent.get(i) else (rng.normal(size=s) * 0.7).astype(dtype) for i, s in enumerate(shapes)]


def wide(arrays):
    return [None if a is None else a.astype(np.float64) for a in arrays]


def compare(found, expected, tolerance):
    for ours, exact in zip(found, expected, strict=True):
        assert (ours is None) == (exact is None)
        if exact is not None:
            np.testing.assert_allclose(ours.astype(np.float64), exact, rtol=tolerance, atol=tolerance * max(1, np.abs(exact).max()))


def both_ways(cupy, given, g, mode, sizes, reverse, need_x=True):
    """The results and the gradients, by our kernels."""
    from disttorch.backend.cuda import cuda

    there = [None if a is None else cupy.asarray(a) for a in given]
    way_back = [None if a is None else cupy.asarray(a) for a in g]
    with stand_in.calls() as calls:
        y, h, c, *held = cuda.recurrent(*there, None, mode, sizes, reverse)
        gradients = cuda.recurrent_backward(*way_back, there[0], there[3], there[4], None, *held, mode, sizes, reverse, need_x)
    back = [[None if a is None else cupy.asnumpy(a) for a in arrays] for arrays in ((y, h, c), gradients, there)]
    return *back, calls


@pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize(
    ("mode", "sizes", "biased", "reverse"),
    [*itertools.product(GATES, SIZES[1:], [True], [False, True]), ("LSTM", SIZES[0], False, False), ("GRU", SIZES[2], False, True)],
)
def test_against_the_plain_kernel_in_float64(cupy, mode, sizes, biased, reverse, dtype):
    rng = np.random.default_rng(5)
    given = arguments(rng, mode, sizes, biased, dtype)
    g = [(rng.normal(size=s)).astype(dtype) for s in ((sum(sizes), HIDDEN), (sizes[0], HIDDEN), (sizes[0], HIDDEN))]
    g[2] = g[2] if mode == "LSTM" else None
    y, h, c, *held = PLAIN["recurrent"](cpu, *wide(given), None, mode, sizes, reverse)
    exact = wide(given)
    gradients = PLAIN["recurrent_backward"](cpu, *wide(g), exact[0], exact[3], exact[4], None, *held, mode, sizes, reverse, True)
    results = []
    for order in (0, 1):
        with host_cuda.schedule(order):
            found, back, after, calls = both_ways(cupy, given, g, mode, sizes, reverse)
        assert calls.count("forward") == calls.count("backward") == len(sizes)
        assert all(a is None or a.dtype == dtype for a in (*found, *back))
        for before, now in zip(given, after):  # nothing that was given is changed
            assert before is None or before.tobytes() == now.tobytes()
        results.append((found, back))
    for one, two in zip(*results):
        assert [None if a is None else a.tobytes() for a in one] == [None if a is None else a.tobytes() for a in two]
    tolerance = TOLERANCE[dtype]
    compare(results[0][0], (y, h, c), tolerance)
    compare(results[0][1], gradients, 4 * tolerance)


def test_what_is_not_asked_for_is_not_computed(cupy):
    rng = np.random.default_rng(1)
    given = arguments(rng, "GRU", (2, 2), True, np.float32)
    g = [np.ones((4, HIDDEN), np.float32), np.zeros((2, HIDDEN), np.float32), None]
    _, back, _, _ = both_ways(cupy, given, g, "GRU", (2, 2), False, need_x=False)
    assert back[0] is None and back[2] is None and back[7] is None


def test_what_the_kernels_do_not_know_takes_the_plain_way(cupy):
    """A projection, types that differ, and nothing to do."""
    from disttorch.backend.cuda import cuda

    rng = np.random.default_rng(2)
    x, h, c, w_ih, w_hh, b_ih, b_hh = (cupy.asarray(a) for a in arguments(rng, "LSTM", (2, 2), True, np.float32))
    w_hr = cupy.asarray(rng.normal(size=(2, HIDDEN)).astype(np.float32))
    cases = [
        ((x, h[:, :2], c, w_ih, w_hh[:, :2], b_ih, b_hh, w_hr), (4, 2)),
        ((x.astype(np.float64), h, c, w_ih, w_hh, b_ih, b_hh, None), (4, HIDDEN)),
    ]
    for given, shape in cases:
        with stand_in.calls() as calls:
            y = cuda.recurrent(*given, "LSTM", (2, 2), False)[0]
        assert y.shape == shape and "forward" not in calls


def test_a_layer_trains_and_is_captured():
    """By the modules, on the device: LSTM and GRU give what they give on the CPU, and a captured step is replayed."""
    with tensors() as torch:
        for name in ("LSTM", "GRU", "RNN"):
            torch.manual_seed(0)
            layer = getattr(torch.nn, name)(FEATURES, HIDDEN, num_layers=2, bidirectional=True, batch_first=True)
            x = torch.randn(2, 4, FEATURES)
            layer(x)[0].square().sum().backward()
            expected = [p.grad.tolist() for p in layer.parameters()]
            layer.zero_grad()
            layer.cuda()
            there = x.cuda()
            layer(there)[0].square().sum().backward()
            for p, e in zip(layer.parameters(), expected):
                np.testing.assert_allclose(p.grad.tolist(), e, rtol=2e-5, atol=2e-5)
            graph = torch.cuda.CUDAGraph()
            with torch.no_grad():
                with torch.cuda.graph(graph):
                    out = layer(there)[0]
                there.copy_(there * 2)
                graph.replay()
                np.testing.assert_allclose(out.tolist(), layer(there)[0].tolist(), rtol=1e-6)
