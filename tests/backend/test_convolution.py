"""Convolution and its two gradients against loops over single numbers in float64."""

from importlib import import_module
from itertools import product

import ml_dtypes
import numpy as np
import pytest

from disttorch.backend import cpu

# x, weight, stride, padding, dilation, groups
CASES = [
    ((2, 3, 5, 6), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((2, 3, 5, 6), (4, 3, 3, 2), (1, 1), (0, 0), (1, 1), 1),
    ((2, 4, 7, 8), (6, 2, 3, 3), (2, 2), (1, 1), (1, 1), 2),
    ((1, 2, 9, 8), (2, 2, 3, 3), (2, 3), (2, 1), (2, 1), 1),
    ((2, 2, 9, 9), (2, 2, 2, 2), (4, 3), (0, 0), (1, 1), 1),  # stride beyond the kernel: some inputs are never seen
    ((2, 3, 6, 6), (3, 1, 3, 3), (1, 1), (1, 1), (1, 1), 3),  # depthwise
    ((2, 3, 7, 6), (6, 1, 3, 3), (2, 1), (1, 2), (1, 1), 3),  # depthwise, two outputs a channel
    ((3, 4, 5, 5), (5, 4, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((3, 4, 5, 5), (6, 2, 1, 1), (2, 2), (0, 0), (1, 1), 2),
    ((2, 4, 3, 3), (2, 4, 1, 1), (1, 1), (1, 1), (1, 1), 1),  # 1x1 with padding
    ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((1, 2, 3, 3), (3, 2, 3, 3), (1, 1), (0, 0), (1, 1), 1),  # one window
    ((2, 1, 4, 4), (1, 1, 4, 4), (1, 1), (3, 3), (1, 1), 1),  # more padding than input
    ((0, 3, 5, 5), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((0, 3, 5, 5), (4, 3, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((2, 3, 9), (4, 3, 3), (2,), (1,), (2,), 1),
    ((2, 4, 7), (4, 1, 3), (1,), (2,), (1,), 4),
    ((1, 2, 4, 5, 4), (3, 2, 2, 3, 3), (1, 2, 1), (1, 1, 0), (1, 1, 1), 1),
    ((2, 2, 5, 4, 4), (2, 1, 3, 1, 2), (2, 1, 1), (1, 0, 1), (2, 1, 1), 2),
]


def windows(x_shape, weight_shape, stride, padding, dilation, groups):
    """Every product of the definition as (index of the output, of the input, of the weight)."""
    spatial, kernel = x_shape[2:], weight_shape[2:]
    out = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(spatial, kernel, stride, padding, dilation)
    ]
    per_group = weight_shape[0] // groups
    for n, o, c in product(range(x_shape[0]), range(weight_shape[0]), range(weight_shape[1])):
        channel = o // per_group * weight_shape[1] + c
        for at, k in product(product(*map(range, out)), product(*map(range, kernel))):
            seen = tuple(i * s - p + j * d for i, j, s, p, d in zip(at, k, stride, padding, dilation))
            if all(0 <= i < size for i, size in zip(seen, spatial)):
                yield (n, o, *at), (n, channel, *seen), (o, c, *k)


def output(x_shape, weight_shape, stride, padding, dilation, groups):
    return (
        x_shape[0],
        weight_shape[0],
        *(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(x_shape[2:], weight_shape[2:], stride, padding, dilation)
        ),
    )


def by_definition(x, w, g, *parameters):
    y, gx, gw = np.zeros(output(x.shape, w.shape, *parameters)), np.zeros(x.shape), np.zeros(w.shape)
    x, w, g = (a.astype(np.float64) for a in (x, w, g))
    for i, j, k in windows(x.shape, w.shape, *parameters):
        y[i] += x[j] * w[k]
        gx[j] += g[i] * w[k]
        gw[k] += g[i] * x[j]
    return y, gx, gw


TOLERANCE = {np.float64: 1e-13, np.float32: 2e-6, np.float16: 2.0**-10, ml_dtypes.bfloat16: 2.0**-7}


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_convolution_and_gradients_are_the_definition(xp, rng, case, dtype):
    x_shape, w_shape, *parameters = case
    x, w = rng.normal(size=x_shape).astype(dtype), rng.normal(size=w_shape).astype(dtype)
    g = rng.normal(size=output(*case)).astype(dtype)
    results = (
        xp.convolution(x, w, *parameters),
        xp.convolution_input(g, w, x_shape, *parameters),
        xp.convolution_weight(g, x, w_shape, *parameters),
    )
    for result, exact in zip(results, by_definition(x, w, g, *parameters)):
        assert result.dtype == dtype and result.shape == exact.shape
        np.testing.assert_allclose(result, exact, rtol=0, atol=TOLERANCE[dtype] * (1 + np.abs(exact).max(initial=0)))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("column_bytes", [1, 2000, 20_000])
def test_blocks_of_any_size_give_the_same(monkeypatch, rng, case, column_bytes):
    monkeypatch.setattr(import_module("disttorch.backend.cpu_kernels.convolution"), "COLUMN_BYTES", column_bytes)
    x_shape, w_shape, *parameters = case
    x, w, g = (rng.normal(size=s).astype(np.float32) for s in (x_shape, w_shape, output(*case)))
    results = (
        cpu.convolution(x, w, *parameters),
        cpu.convolution_input(g, w, x_shape, *parameters),
        cpu.convolution_weight(g, x, w_shape, *parameters),
    )
    for result, exact in zip(results, by_definition(x, w, g, *parameters)):
        np.testing.assert_allclose(result, exact, rtol=0, atol=2e-6 * (1 + np.abs(exact).max(initial=0)))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_types_are_summed_in_float32_and_rounded_once(xp, rng, dtype):
    case = ((2, 8, 6, 6), (4, 8, 3, 3), (1, 1), (1, 1), (1, 1), 1)
    x_shape, w_shape, *parameters = case
    x, w, g = (rng.normal(size=s).astype(dtype) for s in (x_shape, w_shape, output(*case)))
    results = (
        xp.convolution(x, w, *parameters),
        xp.convolution_input(g, w, x_shape, *parameters),
        xp.convolution_weight(g, x, w_shape, *parameters),
    )
    for result, exact in zip(results, by_definition(x, w, g, *parameters)):
        assert result.dtype == dtype
        # half a unit in the last place of each element, and float32's error where terms cancel
        bound = TOLERANCE[dtype] / 2 * np.abs(exact) * 1.01 + 2e-5
        assert np.all(np.abs(result.astype(np.float64) - exact) <= bound)


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "stride", "padding"),
    [
        ((3, 64, 32, 32), (16, 64, 3, 3), (1, 1), (1, 1)),
        ((3, 3, 40, 40), (8, 3, 7, 7), (2, 2), (3, 3)),
        ((9, 32, 14, 14), (24, 32, 3, 3), (1, 1), (1, 1)),
        ((70, 1, 12, 12), (8, 1, 3, 3), (1, 1), (1, 1)),
        ((5, 16, 20, 20), (32, 16, 1, 1), (2, 2), (0, 0)),
    ],
)
def test_larger_ones_agree_with_pytorch(xp, rng, x_shape, w_shape, stride, padding):
    torch = pytest.importorskip("torch", reason="needs PyTorch to compare with")
    x, w = rng.normal(size=x_shape).astype(np.float32), rng.normal(size=w_shape).astype(np.float32)
    tx, tw = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, w))
    ty = torch.nn.functional.conv2d(tx, tw, None, stride, padding)
    g = rng.normal(size=ty.shape).astype(np.float32)
    ty.backward(torch.tensor(g, dtype=torch.float64))
    rest = (stride, padding, (1, 1), 1)
    for result, exact in [
        (xp.convolution(x, w, *rest), ty),
        (xp.convolution_input(g, w, x_shape, *rest), tx.grad),
        (xp.convolution_weight(g, x, w_shape, *rest), tw.grad),
    ]:
        exact = exact.detach().numpy()
        np.testing.assert_allclose(result, exact, rtol=0, atol=1e-5 * np.abs(exact).max())


def test_inputs_in_any_memory_order_are_read_and_not_changed(xp, rng):
    x = rng.normal(size=(6, 7, 2, 3)).astype(np.float32).transpose(2, 3, 0, 1)[:, :, ::-1]
    w = rng.normal(size=(3, 3, 3, 8)).astype(np.float32).transpose(3, 2, 0, 1)[::2]
    parameters = ((1, 1), (1, 1), (1, 1), 1)
    g = np.broadcast_to(np.float32(0.5), (2, 4, 6, 7))
    kept = x.copy(), w.copy()
    exact = by_definition(x, w, g, *parameters)
    np.testing.assert_allclose(xp.convolution(x, w, *parameters), exact[0], atol=1e-5)
    np.testing.assert_allclose(xp.convolution_input(g, w, x.shape, *parameters), exact[1], atol=1e-5)
    np.testing.assert_allclose(xp.convolution_weight(g, x, w.shape, *parameters), exact[2], atol=1e-4)
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(w, kept[1])


ONE = ((1, 1), (0, 0), (1, 1), 1)


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "parameters", "message"),
    [
        ((1, 3, 5, 5), (4, 2, 3, 3), ONE, r"\(4, 2, 3, 3\) expects 2 input channels .* shape \(1, 3, 5, 5\)"),
        ((1, 4, 5, 5), (3, 2, 3, 3), (*ONE[:3], 2), r"groups=2, .* output channels divisible by 2"),
        ((1, 3, 2, 5), (4, 3, 3, 3), ONE, r"size \(3, 3\) .* does not fit .* size \(2, 5\) .* size \(0, 3\)"),
        ((3, 5, 5), (4, 3, 3, 3), ONE, r"\(N, C, \*spatial\) .* got the shapes \(3, 5, 5\) and \(4, 3, 3, 3\)"),
    ],
)
def test_shapes_that_do_not_match_are_named(xp, x_shape, w_shape, parameters, message):
    with pytest.raises(RuntimeError, match=message):
        xp.convolution(np.zeros(x_shape, np.float32), np.zeros(w_shape, np.float32), *parameters)


def test_a_gradient_of_the_wrong_shape_is_named(xp):
    x, w, g = (np.zeros(s, np.float32) for s in ((1, 1, 4, 4), (1, 1, 3, 3), (1, 1, 3, 3)))
    message = r"output has the shape \(1, 1, 2, 2\), its gradient \(1, 1, 3, 3\)"
    with pytest.raises(RuntimeError, match=message):
        xp.convolution_input(g, w, x.shape, *ONE)
    with pytest.raises(RuntimeError, match=message):
        xp.convolution_weight(g, x, w.shape, *ONE)
