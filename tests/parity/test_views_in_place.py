"""Views taken and changed in place at random: values, gradients and second gradients are PyTorch's.

Where PyTorch refuses (it does not follow changes through several results of one function, or of views made without a graph),
ours may go on, and is not compared.
"""

import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import disttorch


def pairs_fit(x):
    """Whether view_as_complex takes it."""
    return (
        x.ndim > 0
        and x.shape[-1] == 2
        and x.stride()[-1] == 1
        and not any(s % 2 for s in x.stride()[:-1])
        and x.storage_offset() % 2 == 0
    )


VIEWS = [
    lambda m, x: x.transpose(0, -1) if x.ndim > 1 else x,
    lambda m, x: x.permute(*reversed(range(x.ndim))),
    lambda m, x: x.movedim(0, -1) if x.ndim > 1 else x,
    lambda m, x: x[1:] if x.ndim and x.shape[0] > 1 else x,
    lambda m, x: x[::2] if x.ndim else x,
    lambda m, x: x[0] if x.ndim > 1 else x,
    lambda m, x: x[..., -1] if x.ndim > 1 else x,
    lambda m, x: x.unsqueeze(0),
    lambda m, x: x.squeeze(),
    lambda m, x: x.view(-1) if x.is_contiguous() else x,
    lambda m, x: x.diagonal() if x.ndim > 1 else x,
    lambda m, x: x.unfold(0, 2, 2) if x.ndim and x.shape[0] > 1 else x,
    lambda m, x: x.as_strided((2, 2), (1, 2)) if x.numel() > 3 and x.is_contiguous() else x,
    lambda m, x: x.as_strided((2,), (3,), x.storage_offset()) if x.numel() > 3 and x.is_contiguous() else x,
    lambda m, x: m.view_as_real(m.view_as_complex(x)) if pairs_fit(x) else x,
    lambda m, x: x.split(2)[-1] if x.ndim and x.shape[0] else x,
]
CHANGES = [
    lambda m, x, c: x.mul_(c),
    lambda m, x, c: x.add_(c),
    lambda m, x, c: x.pow_(2),
    lambda m, x, c: x.sin_(),
    lambda m, x, c: x.zero_(),
    lambda m, x, c: x.copy_(c.expand(x.shape)),
    lambda m, x, c: x.__setitem__(..., c),
    lambda m, x, c: x.__setitem__(0, c) if x.ndim else x.copy_(c),
    lambda m, x, c: x.__setitem__(x.detach() > 0, c),
    lambda m, x, c: x.t_() if x.ndim == 2 else x,
    lambda m, x, c: x.unsqueeze_(0),
    lambda m, x, c: x.squeeze_(),
]


def run(m, seed):
    rng = random.Random(seed)
    x = m.tensor(np.random.default_rng(seed).standard_normal((4, 4, 2)), requires_grad=True)
    c = m.tensor(1.5, dtype=m.float64, requires_grad=True)
    living = [x.transpose(0, 1) * 1.0 if rng.random() < 0.3 else x * 1.0]
    for _ in range(rng.randrange(3, 8)):
        chosen = rng.choice(living)
        if rng.random() < 0.6:
            living.append(rng.choice(VIEWS)(m, chosen))
        else:
            rng.choice(CHANGES)(m, chosen, c)
    total = sum((v * v * (i + 1)).sum() for i, v in enumerate(living) if v.numel())
    first = m.autograd.grad(total, [x, c], create_graph=True, allow_unused=True)
    second = [None, None]
    if first[0].requires_grad:
        second = m.autograd.grad((first[0] * first[0]).sum(), [x, c], allow_unused=True)
    zeros = (np.zeros((4, 4, 2)), np.zeros(()))
    gradients = [z if g is None else g.detach().numpy() for g, z in zip((*first, *second), zeros * 2)]
    return [v.detach().numpy() for v in living] + gradients


@pytest.mark.parametrize("start", range(0, 1200, 100))
def test_views_changed_in_place(start):
    compared = 0
    for seed in range(start, start + 100):
        try:
            expected = run(torch, seed)
        except RuntimeError:
            continue
        compared += 1
        found = run(disttorch, seed)
        for i, (a, b) in enumerate(zip(found, expected)):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9, err_msg=f"seed {seed}, result {i} of {len(expected)}")
    assert compared > 70
