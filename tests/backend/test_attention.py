"""Attention against the formula with the whole matrix of weights, in float64, however it is cut into blocks."""

import ml_dtypes
import numpy as np
import pytest

import disttorch.backend.cpu_kernels.attention as fast_module
import disttorch.backend.kernels.attention as plain_module
from disttorch.backend import cpu
from disttorch.backend.namespace import Namespace

SCALE = 0.37


@pytest.fixture(params=["one block", "many blocks"])
def cut(request, monkeypatch):
    """The sizes that blocks have for real, and ones that cut even small arrays."""
    if request.param == "many blocks":
        monkeypatch.setattr(plain_module, "BLOCK", 40)
        for name, value in {"BLOCK": 24, "HEADS": 30, "FEWEST": 2, "CAUSAL": 3}.items():
            monkeypatch.setattr(fast_module, name, value)


@pytest.fixture(params=["plain", "fast"])
def xp(request):
    """The namespace under test; a bare one has no random numbers, so the plain kernels take the CPU's."""
    if request.param == "fast":
        return cpu
    plain = Namespace("cpu", np)
    plain.attention_keep = cpu.attention_keep
    return plain


def by_formula(q, k, v, mask, causal, keep=None):
    scores = SCALE * q @ np.swapaxes(k, -1, -2)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    weights = np.exp(scores - np.maximum(scores.max(-1, keepdims=True), -1e300))
    total = weights.sum(-1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return (weights if keep is None else weights * keep) @ v


def masked(rng, shape, kind):
    if shape is None:
        return None
    values = rng.normal(size=shape)
    if kind == "bool":
        mask = values > -0.3
        mask[..., 0, :] = False  # a query without a key, if the mask has a row for each
        return mask
    return np.where(values > 1, -np.inf, values) if kind == "inf" else values


SHAPES = [((), 7, 7), ((3,), 5, 9), ((2, 3), 9, 5), ((2, 3), 1, 6), ((2,), 6, 1)]
MASKS = [(None, ""), *((w, k) for w in ("whole", "shared", "row", "column", "number", "heads") for k in ("bool", "add", "inf"))]


def mask_shape(which, batch, length, keys):
    ones = (1,) * len(batch)
    return {
        "whole": (*batch, length, keys), "shared": (*ones, length, keys), "row": (*batch, 1, keys), "column": (*ones, length, 1),
        "number": (*ones, 1, 1), "heads": (*ones[1:], *batch[-1:], length, keys), None: None,
    }[which]  # fmt: skip


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("which", "kind"), MASKS)
@pytest.mark.parametrize(("batch", "length", "keys"), SHAPES, ids=str)
def test_values_and_gradients(xp, cut, rng, batch, length, keys, which, kind, causal):
    q, k, v = (rng.normal(size=(*batch, n, d)) for n, d in ((length, 4), (keys, 4), (keys, 3)))
    mask = masked(rng, mask_shape(which, batch, length, keys), kind)
    exact = by_formula(q, k, v, mask, causal)
    out, lse = xp.attention(q, k, v, mask, causal, SCALE, 0.0, 0)
    np.testing.assert_allclose(out, exact, rtol=1e-11, atol=1e-12)
    assert lse.shape == (*batch, length, 1)
    g = rng.normal(size=out.shape)
    need_mask = mask is not None and kind != "bool"
    gradients = xp.attention_backward(g, q, k, v, mask, out, lse, causal, SCALE, 0.0, 0, need_mask)
    assert need_mask == (gradients[3] is not None)
    arrays = [q, k, v, mask]
    for i, gradient in enumerate(gradients):
        if gradient is None:
            continue
        assert gradient.shape == arrays[i].shape
        direction = np.where(np.isfinite(arrays[i]), rng.normal(size=arrays[i].shape), 0)
        ends = []
        for step in (1e-6, -1e-6):
            moved = [*arrays[:i], arrays[i] + step * direction, *arrays[i + 1 :]]
            ends.append(np.sum(g * by_formula(*moved, causal)))
        np.testing.assert_allclose(np.sum(gradient * direction), (ends[0] - ends[1]) / 2e-6, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("causal", [False, True])
def test_dropout_is_the_same_mask_forward_and_backward(xp, cut, rng, causal):
    batch, length, keys, p = (2, 3), 9, 11, 0.3
    q, k, v, g = (rng.normal(size=(*batch, n, 4)) for n in (length, keys, keys, length))
    keep = cpu.attention_keep(q, (6, length, keys), 0, length, p, 77).reshape(*batch, length, keys) / (1 - p)
    out, lse = xp.attention(q, k, v, None, causal, SCALE, p, 77)
    np.testing.assert_allclose(out, by_formula(q, k, v, None, causal, keep), rtol=1e-11, atol=1e-12)
    gradients = xp.attention_backward(g, q, k, v, None, out, lse, causal, SCALE, p, 77, False)
    for i, gradient in enumerate(gradients[:3]):
        direction = rng.normal(size=gradient.shape)
        ends = []
        for step in (1e-6, -1e-6):
            moved = [a + step * direction if j == i else a for j, a in enumerate((q, k, v))]
            ends.append(np.sum(g * by_formula(*moved, None, causal, keep)))
        np.testing.assert_allclose(np.sum(gradient * direction), (ends[0] - ends[1]) / 2e-6, rtol=1e-6, atol=1e-7)
    assert not xp.attention(q, k, v, None, causal, SCALE, 1.0, 77)[0].any()


def test_dropout_keeps_its_share():
    keep = cpu.attention_keep(None, (16, 64, 100), 0, 64, 0.2, 5)
    assert abs(keep.mean() - 0.8) < 5 * (0.16 / keep.size) ** 0.5
    assert (keep[0] != keep[1]).any() and (keep[:, 0] != keep[:, 1]).any()
    assert (keep != cpu.attention_keep(None, (16, 64, 100), 0, 64, 0.2, 6)).any()
    part = cpu.attention_keep(None, (16, 64, 100), 3, 10, 0.2, 5)
    np.testing.assert_array_equal(part, keep[:, 3:10])


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float16, 2e-3), (ml_dtypes.bfloat16, 2e-2)])
def test_dtypes(xp, cut, rng, dtype, tolerance):
    q, k, v, g = (rng.normal(size=(2, n, 8)).astype(dtype) for n in (6, 7, 7, 6))
    mask = rng.normal(size=(1, 6, 7)).astype(dtype)
    wide = [a.astype(np.float64) for a in (q, k, v, mask)]
    out, lse = xp.attention(q, k, v, mask, False, SCALE, 0.0, 0)
    assert out.dtype == dtype and lse.dtype == np.float32
    exact = by_formula(*wide, False)
    np.testing.assert_allclose(out.astype(np.float64), exact, rtol=tolerance, atol=tolerance)
    gradients = xp.attention_backward(g, q, k, v, mask, out, lse, False, SCALE, 0.0, 0, True)
    out64, lse64 = cpu.attention(*wide, False, SCALE, 0.0, 0)
    exact_gradients = cpu.attention_backward(g.astype(np.float64), *wide, out64, lse64, False, SCALE, 0.0, 0, True)
    for gradient, exact in zip(gradients, exact_gradients):
        assert gradient.dtype == dtype
        np.testing.assert_allclose(gradient.astype(np.float64), exact, rtol=tolerance, atol=2 * tolerance * np.abs(exact).max())


@pytest.mark.parametrize("shape", [((0, 2), 3, 4), ((2,), 0, 4), ((2,), 3, 0)], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_nothing_to_attend_gives_zeros(xp, shape, causal):
    batch, length, keys = shape
    q, k, v = (np.ones((*batch, n, 2)) for n in (length, keys, keys))
    out, lse = xp.attention(q, k, v, None, causal, SCALE, 0.0, 0)
    assert out.shape == q.shape and not out.any()
    gradients = xp.attention_backward(np.ones_like(out), q, k, v, None, out, lse, causal, SCALE, 0.0, 0, False)
    for gradient, a in zip(gradients, (q, k, v)):
        assert gradient.shape == a.shape and not gradient.any()


def test_large_products_do_not_overflow(xp):
    q, k, v = np.full((3, 4), 1e3, np.float32), np.eye(4, dtype=np.float32) * 1e3, np.eye(4, dtype=np.float32)
    k[1] *= 2
    out, _ = xp.attention(q, k, v, None, False, 1.0, 0.0, 0)
    np.testing.assert_array_equal(out, np.tile(np.float32([0, 1, 0, 0]), (3, 1)))
