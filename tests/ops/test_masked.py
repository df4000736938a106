"""Masked reductions: what the unmasked function gives of the elements that are left, row by row."""

import math

import numpy as np
import pytest

import disttorch
from disttorch import masked
from disttorch.autograd import gradcheck

RNG = np.random.default_rng(17)
A = RNG.normal(size=(4, 6))
MASK = RNG.random((4, 6)) < 0.6
MASK[:, 0] = True

# name, further arguments, the same of one row's remaining elements
REDUCTIONS = [
    ("sum", {}, np.sum),
    ("prod", {}, np.prod),
    ("amax", {}, np.max),
    ("amin", {}, np.min),
    ("mean", {}, np.mean),
    ("median", {}, lambda r: np.sort(r)[(len(r) - 1) // 2]),
    ("logsumexp", {}, lambda r: np.log(np.sum(np.exp(r)))),
    ("norm", {"ord": 3}, lambda r: np.sum(np.abs(r) ** 3) ** (1 / 3)),
    ("norm", {"ord": -math.inf}, lambda r: np.min(np.abs(r))),
    ("var", {"unbiased": False}, np.var),
    ("std", {"correction": 0}, np.std),
]


@pytest.mark.parametrize(("name", "options", "formula"), REDUCTIONS, ids=[r[0] for r in REDUCTIONS])
def test_reductions(name, options, formula):
    x, mask = disttorch.tensor(A, requires_grad=True), disttorch.tensor(MASK)

    def call(v):
        return getattr(masked, name)(v, dim=1, mask=mask, **options)

    np.testing.assert_allclose(call(x).detach().numpy(), [formula(r[m]) for r, m in zip(A, MASK)], rtol=1e-12)
    assert gradcheck(call, x)
    call(x).sum().backward()
    assert not x.grad.numpy()[~MASK].any()
    plain = getattr(masked, name)(x, dim=1, **options).detach().numpy()
    np.testing.assert_allclose(plain, [formula(r) for r in A], rtol=1e-12)


SHAPED = [
    ("softmax", lambda r, m: np.where(m, np.exp(r), 0) / np.exp(r[m]).sum()),
    ("log_softmax", lambda r, m: np.where(m, r, -np.inf) - np.log(np.exp(r[m]).sum())),
    ("softmin", lambda r, m: np.where(m, np.exp(-r), 0) / np.exp(-r[m]).sum()),
    ("cumsum", lambda r, m: np.cumsum(np.where(m, r, 0))),
    ("cumprod", lambda r, m: np.cumprod(np.where(m, r, 1))),
    ("argmax", lambda r, m: float(np.argmax(np.where(m, r, -np.inf)))),
    ("argmin", lambda r, m: float(np.argmin(np.where(m, r, np.inf)))),
]


@pytest.mark.parametrize(("name", "formula"), SHAPED, ids=[s[0] for s in SHAPED])
def test_functions_that_keep_the_shape_or_say_places(name, formula):
    found = getattr(masked, name)(disttorch.tensor(A), 1, mask=disttorch.tensor(MASK)).numpy()
    np.testing.assert_allclose(found, [formula(r, m) for r, m in zip(A, MASK)], rtol=1e-12)


def test_normalize_logaddexp_and_broadcast_masks():
    mask = disttorch.tensor([True, False, True, False, True, False])
    unit = masked.normalize(disttorch.tensor(A), 2.0, 1, mask=mask).numpy()
    np.testing.assert_allclose((unit**2).sum(1), 1, rtol=1e-12)
    assert not unit[:, 1::2].any()
    x, y = disttorch.tensor([1.0, 2.0]), disttorch.tensor([3.0, 4.0])
    one = masked.logaddexp(x, y, input_mask=disttorch.tensor([True, False]))
    np.testing.assert_allclose(one.tolist(), [np.logaddexp(1, 3), 4.0], rtol=1e-6)


def test_nothing_left_and_wrong_masks():
    x, none = disttorch.ones(2), disttorch.zeros(2, dtype=disttorch.bool)
    assert masked.sum(x, mask=none).item() == 0 and math.isnan(masked.mean(x, mask=none).item())
    assert masked.amax(x, mask=none).item() == -math.inf
    with pytest.raises(TypeError, match="float32"):
        masked.sum(x, mask=x)
    with pytest.raises(IndexError, match=r"\[1, 2\]"):
        masked.sum(x, mask=none[None])
    with pytest.raises(ValueError, match="int64"):
        masked.mean(x.long())
