"""Normalization against float64 formulas; the gradients against finite differences of those formulas' sums."""

import ml_dtypes
import numpy as np
import pytest

TYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
LAST_PLACE = {np.float16: 2.0**-10, ml_dtypes.bfloat16: 2.0**-7, np.float32: 2.0**-23, np.float64: 2.0**-52}
EPS = 1e-5


def close(result, exact, dtype, factor=16.0):
    assert result.dtype == dtype and result.shape == exact.shape
    size = np.abs(exact).max(initial=1)
    bound = LAST_PLACE[dtype] * np.abs(exact) + factor * max(LAST_PLACE[np.float32], LAST_PLACE[dtype] ** 2) * size
    if dtype == np.float64:
        bound = 64 * factor * LAST_PLACE[dtype] * size
    assert np.all(np.abs(result.astype(np.float64) - exact) <= bound), np.abs(result.astype(np.float64) - exact).max()


def statistics_type(dtype):
    return np.float64 if dtype == np.float64 else np.float32


def slopes(f, x, g):
    """The gradient of sum(g * f(x)) by central differences in float64, which are right to about 1e-9."""
    result = np.zeros(x.shape)
    for at in np.ndindex(*x.shape):
        step = np.zeros(x.shape)
        step[at] = h = 1e-5
        result[at] = np.sum(g * (f(x + step) - f(x - step))) / (2 * h)
    return result


def affine(h, weight, bias, shape=None):
    h = h if weight is None else h * weight.astype(np.float64).reshape(shape or weight.shape)
    return h if bias is None else h + bias.astype(np.float64).reshape(shape or bias.shape)


def over_batch(x, eps=EPS):
    axes = (0, *range(2, x.ndim))
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def over_last(x, ndim, eps=EPS):
    axes = tuple(range(x.ndim - ndim, x.ndim))
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def root_mean_square(x, ndim, eps=EPS):
    axes = tuple(range(x.ndim - ndim, x.ndim))
    return x / np.sqrt((x * x).mean(axes, keepdims=True) + eps)


def parameters(rng, shape, dtype, given):
    return tuple(rng.normal(size=shape).astype(dtype) if g else None for g in given)


BATCHES = [(6, 3), (4, 3, 5), (3, 2, 4, 5), (2, 2, 2, 3, 2), (1, 1, 2), (2, 5, 1, 1)]
GIVEN = [(True, True), (True, False), (False, False)]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("shape", BATCHES)
def test_batch_norm(xp, rng, shape, given, dtype):
    x = (rng.normal(size=shape) * 2 + 1).astype(dtype)
    weight, bias = parameters(rng, shape[1], dtype, given)
    x64, axes, column = x.astype(np.float64), (0, *range(2, len(shape))), (-1,) + (1,) * (len(shape) - 2)
    mean, var = xp.batch_norm_stats(x)
    close(mean, x64.mean(axes), statistics_type(dtype))
    close(var, x64.var(axes), statistics_type(dtype))
    mean64, rstd64 = x64.mean(axes), 1 / np.sqrt(x64.var(axes) + EPS)
    mean, rstd = mean64.astype(statistics_type(dtype)), rstd64.astype(statistics_type(dtype))
    h = over_batch(x64)
    close(xp.batch_norm(x, weight, bias, mean, rstd), affine(h, weight, bias, column), dtype, 64)
    g = rng.normal(size=shape).astype(dtype)
    g64 = g.astype(np.float64)
    gx, gw, gb = xp.batch_norm_backward(g, x, weight, mean, rstd)
    parameter_type = statistics_type(dtype) if weight is None else dtype
    close(gw, (g64 * h).sum(axes), parameter_type, 64)
    close(gb, g64.sum(axes), parameter_type)
    exact = slopes(lambda a: affine(over_batch(a), weight, None, column), x64, g64)
    np.testing.assert_allclose(gx.astype(np.float64), exact, rtol=LAST_PLACE[dtype], atol=2e-5)
    assert gx.dtype == dtype


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize(
    ("shape", "ndim"), [((4, 7), 1), ((2, 3, 5), 1), ((2, 3, 5), 2), ((6,), 1), ((3, 1), 1), ((2, 3), 2)]
)
def test_layer_norm_and_rms_norm(xp, rng, shape, ndim, given, dtype):
    x = (rng.normal(size=shape) * 2 + 1).astype(dtype)
    inner, batch = shape[len(shape) - ndim :], tuple(range(len(shape) - ndim))
    weight, bias = parameters(rng, inner, dtype, given)
    x64, axes = x.astype(np.float64), tuple(range(len(shape) - ndim, len(shape)))
    h = over_last(x64, ndim)
    out, mean, rstd = xp.layer_norm(x, weight, bias, ndim, EPS)
    close(out, affine(h, weight, bias), dtype, 64)
    close(mean, x64.mean(axes, keepdims=True), statistics_type(dtype))
    close(rstd, 1 / np.sqrt(x64.var(axes, keepdims=True) + EPS), statistics_type(dtype))
    g = rng.normal(size=shape).astype(dtype)
    g64 = g.astype(np.float64)
    gx, gw, gb = xp.layer_norm_backward(g, x, weight, mean, rstd, ndim)
    parameter_type = statistics_type(dtype) if weight is None else dtype
    close(gw, (g64 * h).sum(batch), parameter_type, 64)
    close(gb, g64.sum(batch), parameter_type)
    exact = slopes(lambda a: affine(over_last(a, ndim), weight, None), x64, g64)
    np.testing.assert_allclose(gx.astype(np.float64), exact, rtol=LAST_PLACE[dtype], atol=2e-5)
    assert gx.dtype == dtype

    h = root_mean_square(x64, ndim)
    out, rstd = xp.rms_norm(x, weight, ndim, EPS)
    close(out, affine(h, weight, None), dtype, 64)
    close(rstd, 1 / np.sqrt((x64 * x64).mean(axes, keepdims=True) + EPS), statistics_type(dtype))
    gx, gw = xp.rms_norm_backward(g, x, weight, rstd, ndim)
    close(gw, (g64 * h).sum(batch), parameter_type, 64)
    exact = slopes(lambda a: affine(root_mean_square(a, ndim), weight, None), x64, g64)
    np.testing.assert_allclose(gx.astype(np.float64), exact, rtol=LAST_PLACE[dtype], atol=2e-5)
    assert gx.dtype == dtype


def test_many_blocks_agree_with_pytorch(xp, rng):
    torch = pytest.importorskip("torch", reason="needs PyTorch to compare with")
    x, g = (rng.normal(size=(17, 70, 33, 29)).astype(np.float32) for _ in range(2))
    w, b = (rng.normal(size=70).astype(np.float32) for _ in range(2))
    tx, tw, tb = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, w, b))
    out = torch.nn.functional.batch_norm(tx, None, None, tw, tb, True, 0.1, EPS)
    out.backward(torch.tensor(g, dtype=torch.float64))
    mean, var = xp.batch_norm_stats(x)
    rstd = 1 / np.sqrt(var + np.float32(EPS))
    results = [xp.batch_norm(x, w, b, mean, rstd), *xp.batch_norm_backward(g, x, w, mean, rstd)]
    for result, exact in zip(results, [out, tx.grad, tw.grad, tb.grad]):
        np.testing.assert_allclose(result, exact.detach().numpy(), rtol=1e-4, atol=1e-4)

    x, g = (rng.normal(size=(500, 300)).astype(np.float32) for _ in range(2))
    w, b = (rng.normal(size=300).astype(np.float32) for _ in range(2))
    for ours, backward, theirs in [
        (
            lambda: xp.layer_norm(x, w, b, 1, EPS),
            lambda *s: xp.layer_norm_backward(g, x, w, *s, 1),
            lambda x, w, b: torch.nn.functional.layer_norm(x, (300,), w, b, EPS),
        ),
        (
            lambda: xp.rms_norm(x, w, 1, EPS),
            lambda *s: xp.rms_norm_backward(g, x, w, *s, 1),
            lambda x, w, b: torch.nn.functional.rms_norm(x, (300,), w, EPS),
        ),
    ]:
        tx, tw, tb = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, w, b))
        exact = theirs(tx, tw, tb)
        exact.backward(torch.tensor(g, dtype=torch.float64))
        out, *statistics = ours()
        for result, value in zip([out, *backward(*statistics)], [exact, tx.grad, tw.grad, tb.grad]):
            np.testing.assert_allclose(result, value.detach().numpy(), rtol=1e-4, atol=1e-4)


def test_a_mean_far_from_zero_does_not_spoil_the_variance(xp, rng):
    x = (rng.normal(size=(64, 3, 20)) + 1000).astype(np.float32)
    x64 = x.astype(np.float64)
    mean, var = xp.batch_norm_stats(x)
    np.testing.assert_allclose(var, x64.var((0, 2)), rtol=1e-4)
    out = xp.batch_norm(x, None, None, mean, 1 / np.sqrt(var + np.float32(EPS)))
    np.testing.assert_allclose(out, over_batch(x64), atol=1e-3)
    np.testing.assert_allclose(xp.layer_norm(x, None, None, 1, EPS)[0], over_last(x64, 1), atol=1e-3)


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4), (2, 3, 0)])
def test_nothing_to_normalize(xp, shape):
    x = np.zeros(shape, np.float32)
    weight, bias, mean, rstd = np.ones((4, 3), np.float32)
    assert xp.batch_norm(x, weight, bias, mean, rstd).shape == shape
    gx, gw, gb = xp.batch_norm_backward(x, x, weight, mean, rstd)
    assert gx.shape == shape and not gw.any() and not gb.any()


def test_a_batch_of_no_rows(xp):
    x, weight = np.zeros((0, 5), np.float32), np.ones(5, np.float32)
    out, mean, rstd = xp.layer_norm(x, weight, weight, 1, EPS)
    assert out.shape == (0, 5) and mean.shape == rstd.shape == (0, 1)
    gx, gw, gb = xp.layer_norm_backward(x, x, weight, mean, rstd, 1)
    assert gx.shape == (0, 5) and not gw.any() and not gb.any()
    out, rstd = xp.rms_norm(x, weight, 1, EPS)
    assert xp.rms_norm_backward(x, x, weight, rstd, 1)[0].shape == (0, 5)


def test_any_memory_order(xp, rng):
    x = rng.normal(size=(4, 5, 2, 3)).astype(np.float32).transpose(2, 3, 0, 1)[:, :, ::-1]
    g = np.broadcast_to(np.float32(0.5), x.shape)
    kept, x64 = x.copy(), x.astype(np.float64)
    mean, var = xp.batch_norm_stats(x)
    rstd = 1 / np.sqrt(var + np.float32(EPS))
    np.testing.assert_allclose(xp.batch_norm(x, None, None, mean, rstd), over_batch(x64), atol=1e-5)
    np.testing.assert_allclose(xp.batch_norm_backward(g, x, None, mean, rstd)[0], 0 * x64, atol=1e-5)
    out, mean, rstd = xp.layer_norm(x, None, None, 2, EPS)
    np.testing.assert_allclose(out, over_last(x64, 2), atol=1e-5)
    np.testing.assert_allclose(xp.layer_norm_backward(g, x, None, mean, rstd, 2)[0], 0 * x64, atol=1e-5)
    np.testing.assert_array_equal(x, kept)
