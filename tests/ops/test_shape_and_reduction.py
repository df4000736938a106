"""Views, joins and reductions: against NumPy, finite differences and PyTorch."""

import numpy as np
import pytest

import disttorch
from disttorch.autograd import gradcheck, gradgradcheck

START = np.random.default_rng(11).permutation(24).reshape(2, 3, 4) * 0.37 - 3.1

# name, what is computed from x of shape (2, 3, 4) by either library, the same in NumPy, whether it is a view of x
VIEWS = [
    ("reshape", lambda m, x: x.reshape(4, 6), lambda a: a.reshape(4, 6), True),
    ("reshape with -1", lambda m, x: x.reshape((3, -1)), lambda a: a.reshape(3, -1), True),
    (
        "reshape that copies",
        lambda m, x: x.transpose(0, 2).reshape(8, 3),
        lambda a: a.swapaxes(0, 2).reshape(8, 3),
        False,
    ),
    ("view", lambda m, x: x.view(6, 4), lambda a: a.reshape(6, 4), True),
    ("view of Size", lambda m, x: x.view(m.zeros(4, 6).shape), lambda a: a.reshape(4, 6), True),
    ("flatten", lambda m, x: x.flatten(), lambda a: a.reshape(-1), True),
    ("flatten from 1", lambda m, x: x.flatten(1), lambda a: a.reshape(2, 12), True),
    ("flatten to -2", lambda m, x: m.flatten(x, 0, -2), lambda a: a.reshape(6, 4), True),
    ("unflatten", lambda m, x: x.unflatten(-1, (2, -1)), lambda a: a.reshape(2, 3, 2, 2), True),
    ("ravel", lambda m, x: x.ravel(), lambda a: a.ravel(), True),
    ("permute", lambda m, x: x.permute(2, 0, 1), lambda a: a.transpose(2, 0, 1), True),
    ("permute negative", lambda m, x: x.permute((-1, 0, -2)), lambda a: a.transpose(2, 0, 1), True),
    ("transpose", lambda m, x: x.transpose(0, -1), lambda a: a.swapaxes(0, 2), True),
    ("swapaxes", lambda m, x: x.swapaxes(0, 1), lambda a: a.swapaxes(0, 1), True),
    ("t", lambda m, x: x[0].t(), lambda a: a[0].T, True),
    ("T", lambda m, x: x[0].T, lambda a: a[0].T, True),
    ("mT", lambda m, x: x.mT, lambda a: a.swapaxes(1, 2), True),
    ("movedim", lambda m, x: x.movedim(0, -1), lambda a: np.moveaxis(a, 0, -1), True),
    ("movedim of several", lambda m, x: m.movedim(x, (0, 1), (-1, 0)), lambda a: np.moveaxis(a, (0, 1), (-1, 0)), True),
    ("squeeze", lambda m, x: x[:1, :, :1].squeeze(), lambda a: a[0, :, 0], True),
    ("squeeze dim", lambda m, x: x[:1].squeeze(0), lambda a: a[0], True),
    ("squeeze of a size above 1", lambda m, x: x.squeeze(1), lambda a: a, True),
    ("squeeze dims", lambda m, x: x[:1, :1].squeeze((0, 1)), lambda a: a[0, 0], True),
    ("unsqueeze", lambda m, x: x.unsqueeze(-1), lambda a: a[..., None], True),
    ("unsqueeze in front", lambda m, x: x.unsqueeze(-4), lambda a: a[None], True),
    ("expand", lambda m, x: x[:, :1].expand(-1, 3, 4), lambda a: np.broadcast_to(a[:, :1], (2, 3, 4)), True),
    ("expand to more", lambda m, x: x[0].expand(5, 3, 4), lambda a: np.broadcast_to(a[0], (5, 3, 4)), True),
    ("expand_as", lambda m, x: x[:1].expand_as(x), lambda a: np.broadcast_to(a[:1], (2, 3, 4)), True),
    ("broadcast_to", lambda m, x: m.broadcast_to(x[0, 0], (3, 4)), lambda a: np.broadcast_to(a[0, 0], (3, 4)), True),
    ("diagonal", lambda m, x: x.diagonal(dim1=1, dim2=2), lambda a: np.diagonal(a, 0, 1, 2), True),
    ("diagonal above", lambda m, x: x.diagonal(1, 0, 2), lambda a: np.diagonal(a, 1, 0, 2), True),
    ("diagonal below", lambda m, x: m.diagonal(x, -1, -1, -2), lambda a: np.diagonal(a, -1, 2, 1), True),
    ("narrow", lambda m, x: x.narrow(-1, 1, 2), lambda a: a[..., 1:3], True),
    ("select", lambda m, x: x.select(1, -1), lambda a: a[:, -1], True),
    ("unbind", lambda m, x: x.unbind(1)[2], lambda a: a[:, 2], True),
    ("split", lambda m, x: x.split(2, dim=-1)[1], lambda a: a[..., 2:], True),
    ("split in sizes", lambda m, x: m.split(x, [1, 2], 1)[1], lambda a: a[:, 1:], True),
    ("chunk", lambda m, x: x.chunk(2, 1)[0], lambda a: a[:, :2], True),
    ("chunk in too many", lambda m, x: x.chunk(5, 2)[3], lambda a: a[..., 3:], True),
    ("view_as", lambda m, x: x.view_as(m.zeros(24)), lambda a: a.reshape(24), True),
    ("contiguous", lambda m, x: x.mT.contiguous(), lambda a: a.swapaxes(1, 2), False),
    ("clone", lambda m, x: x.clone(), lambda a: a, False),
    ("cat", lambda m, x: m.cat([x, x * 2, x[:, :1]], dim=1), lambda a: np.concatenate([a, a * 2, a[:, :1]], 1), False),
    ("cat with empty", lambda m, x: m.cat([m.zeros(0), x[0, 0]]), lambda a: a[0, 0], False),
    ("concat of one", lambda m, x: m.concat((x,), -1), lambda a: a, False),
    ("stack", lambda m, x: m.stack([x, x * 3], -1), lambda a: np.stack([a, a * 3], -1), False),
    ("repeat", lambda m, x: x[0].repeat(2, 1, 3), lambda a: np.tile(a[0], (2, 1, 3)), False),
    ("tile", lambda m, x: x.tile((2,)), lambda a: np.tile(a, 2), False),
    ("flip", lambda m, x: x.flip(0, -1), lambda a: np.flip(a, (0, 2)), False),
    ("roll", lambda m, x: x.roll(2, -1), lambda a: np.roll(a, 2, -1), False),
    ("roll flat", lambda m, x: m.roll(x, 5), lambda a: np.roll(a, 5), False),
    ("roll several", lambda m, x: m.roll(x, (1, -1), (0, 2)), lambda a: np.roll(a, (1, -1), (0, 2)), False),
    ("tril", lambda m, x: x.tril(), lambda a: np.tril(a), False),
    ("triu above", lambda m, x: x.triu(1), lambda a: np.triu(a, 1), False),
    (
        "meshgrid",
        lambda m, x: m.meshgrid(x[0, 0], x[0, :, 0], indexing="ij")[0],
        lambda a: np.meshgrid(a[0, 0], a[0, :, 0], indexing="ij")[0],
        False,
    ),
    (
        "meshgrid xy",
        lambda m, x: m.meshgrid(x[0, 0], x[0, :, 0], indexing="xy")[1],
        lambda a: np.meshgrid(a[0, 0], a[0, :, 0])[1],
        False,
    ),
    (
        "broadcast_tensors",
        lambda m, x: m.broadcast_tensors(x[:1], x[:, :1])[0],
        lambda a: np.broadcast_to(a[:1], (2, 3, 4)),
        False,
    ),
]


def lse(a, axis, keepdims=False):
    return np.log(np.exp(a).sum(axis, keepdims=keepdims))


REDUCTIONS = [
    ("sum", lambda m, x: x.sum(), lambda a: a.sum()),
    ("sum dim", lambda m, x: x.sum(1), lambda a: a.sum(1)),
    ("sum dims, keepdim", lambda m, x: x.sum((0, -1), keepdim=True), lambda a: a.sum((0, 2), keepdims=True)),
    ("sum axis", lambda m, x: x.sum(axis=-1), lambda a: a.sum(-1)),
    ("mean", lambda m, x: x.mean(), lambda a: a.mean()),
    ("mean dims", lambda m, x: m.mean(x, [1, 2]), lambda a: a.mean((1, 2))),
    ("mean keepdim", lambda m, x: x.mean(-2, True), lambda a: a.mean(1, keepdims=True)),
    ("prod", lambda m, x: (x / 3).prod(), lambda a: (a / 3).prod()),
    ("prod dim", lambda m, x: x.prod(-1), lambda a: a.prod(-1)),
    ("prod keepdim", lambda m, x: x.prod(0, keepdim=True), lambda a: a.prod(0, keepdims=True)),
    ("amax", lambda m, x: x.amax(), lambda a: a.max()),
    ("amax dims", lambda m, x: x.amax((0, 2)), lambda a: a.max((0, 2))),
    ("amin keepdim", lambda m, x: m.amin(x, 1, keepdim=True), lambda a: a.min(1, keepdims=True)),
    ("max", lambda m, x: x.max(), lambda a: a.max()),
    ("max dim", lambda m, x: x.max(1)[0], lambda a: a.max(1)),
    ("max keepdim", lambda m, x: m.max(x, -1, keepdim=True).values, lambda a: a.max(-1, keepdims=True)),
    ("min dim", lambda m, x: x.min(dim=0).values, lambda a: a.min(0)),
    ("var", lambda m, x: x.var(), lambda a: a.var(ddof=1)),
    ("var dim", lambda m, x: x.var(1, keepdim=True), lambda a: a.var(1, ddof=1, keepdims=True)),
    ("var unbiased=False", lambda m, x: x.var((0, 1), unbiased=False), lambda a: a.var((0, 1))),
    ("var correction", lambda m, x: x.var(-1, correction=2), lambda a: a.var(-1, ddof=2)),
    ("std", lambda m, x: x.std(), lambda a: a.std(ddof=1)),
    ("std dim", lambda m, x: m.std(x, 2), lambda a: a.std(2, ddof=1)),
    ("logsumexp", lambda m, x: x.logsumexp(1), lambda a: lse(a, 1)),
    ("logsumexp dims", lambda m, x: m.logsumexp(x, (0, 2), keepdim=True), lambda a: lse(a, (0, 2), True)),
    ("norm", lambda m, x: x.norm(), lambda a: np.sqrt((a * a).sum())),
    ("norm 1", lambda m, x: x.norm(1, dim=1), lambda a: abs(a).sum(1)),
    ("norm 3", lambda m, x: x.norm(3, dim=(0, 1)), lambda a: (abs(a) ** 3).sum((0, 1)) ** (1 / 3)),
    ("norm inf", lambda m, x: x.norm(float("inf"), dim=-1, keepdim=True), lambda a: abs(a).max(-1, keepdims=True)),
    ("norm -inf", lambda m, x: x.norm(-float("inf"), dim=-1), lambda a: abs(a).min(-1)),
    ("norm 2 dim", lambda m, x: m.norm(x, 2, 0), lambda a: np.sqrt((a * a).sum(0))),
    ("cumsum", lambda m, x: x.cumsum(1), lambda a: a.cumsum(1)),
    ("cumsum last", lambda m, x: m.cumsum(x, dim=-1), lambda a: a.cumsum(-1)),
    ("sort", lambda m, x: x.sort()[0], lambda a: np.sort(a)),
    ("sort descending", lambda m, x: m.sort(x, dim=1, descending=True).values, lambda a: -np.sort(-a, 1)),
    ("topk", lambda m, x: x.topk(2)[0], lambda a: -np.sort(-a)[..., :2]),
    ("topk smallest", lambda m, x: x.topk(2, dim=1, largest=False).values, lambda a: np.sort(a, 1)[:, :2]),
]
WHOLE = [
    ("argmax", lambda m, x: x.argmax(), lambda a: a.argmax()),
    ("argmax dim", lambda m, x: x.argmax(1, keepdim=True), lambda a: a.argmax(1)[:, None]),
    ("argmin", lambda m, x: m.argmin(x, dim=-1), lambda a: a.argmin(-1)),
    ("argmax keepdim", lambda m, x: x.argmax(keepdim=True), lambda a: np.array(a.argmax()).reshape(1, 1, 1)),
    ("argsort", lambda m, x: x.argsort(1), lambda a: a.argsort(1)),
    ("argsort descending", lambda m, x: m.argsort(x, descending=True), lambda a: (-a).argsort()),
    ("max indices", lambda m, x: x.max(1).indices, lambda a: a.argmax(1)),
    ("min indices", lambda m, x: x.min(-1, keepdim=True)[1], lambda a: a.argmin(-1)[..., None]),
    ("topk indices", lambda m, x: x.topk(3, 2)[1], lambda a: (-a).argsort(2)[..., :3]),
    ("all", lambda m, x: (x > -100).all(), lambda a: np.True_),
    ("any dim", lambda m, x: (x > 4).any(1), lambda a: (a > 4).any(1)),
    ("all keepdim", lambda m, x: m.all(x > -2, dim=-1, keepdim=True), lambda a: (a > -2).all(-1, keepdims=True)),
    ("norm 0", lambda m, x: x.detach().clamp(min=0).norm(0), lambda a: np.float64((a > 0).sum())),
    ("bool sum", lambda m, x: (x > 0).sum(1), lambda a: (a > 0).sum(1)),
]
DIFFERENTIABLE = [row[:3] for row in VIEWS] + REDUCTIONS
EVERYTHING = DIFFERENTIABLE + WHOLE


def names(rows):
    return [r[0] for r in rows]


@pytest.fixture
def x():
    return disttorch.tensor(START, requires_grad=True)


@pytest.mark.parametrize(("name", "function", "formula"), EVERYTHING, ids=names(EVERYTHING))
def test_values(name, function, formula, x):
    result, expected = function(disttorch, x), np.asarray(formula(START))
    assert result.shape == expected.shape
    np.testing.assert_allclose(result.detach().numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(("name", "function", "formula"), EVERYTHING, ids=names(EVERYTHING))
def test_against_pytorch(name, function, formula, torch, same, x):
    theirs = torch.tensor(START, requires_grad=True)
    ours, expected = function(disttorch, x), function(torch, theirs)
    same(ours, expected, what=name)
    assert ours.requires_grad == expected.requires_grad
    if ours.requires_grad:
        weights = np.random.default_rng(1).standard_normal(tuple(ours.shape))
        (ours * disttorch.tensor(weights)).sum().backward()
        (expected * torch.tensor(weights)).sum().backward()
        same(x.grad, theirs.grad, what=f"gradient of {name}")


@pytest.mark.parametrize(("name", "function", "formula"), DIFFERENTIABLE, ids=names(DIFFERENTIABLE))
def test_derivatives(name, function, formula, x):
    assert gradcheck(lambda x: function(disttorch, x), x)
    if "norm 3" not in name:  # whose second derivative is large
        assert gradgradcheck(lambda x: function(disttorch, x), x)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize(("name", "function", "formula"), DIFFERENTIABLE, ids=names(DIFFERENTIABLE))
def test_dtypes_are_kept(name, function, formula, dtype):
    x = disttorch.tensor(START, dtype=getattr(disttorch, dtype), requires_grad=True)
    result = function(disttorch, x)
    assert result.dtype is (disttorch.float32 if name == "cat with empty" else x.dtype)
    tolerance = {"float16": 5e-3, "bfloat16": 4e-2, "float32": 1e-5}[dtype]
    expected = formula(x.detach().double().numpy())
    if np.isfinite(expected).all() and np.abs(expected).max() < 60000:
        np.testing.assert_allclose(result.detach().double().numpy(), expected, rtol=tolerance, atol=tolerance)
    result.sum().backward()
    assert x.grad.dtype is x.dtype and x.grad.shape == x.shape


@pytest.mark.parametrize(("name", "function", "formula", "is_view"), VIEWS, ids=names(VIEWS))
def test_views_share_memory_and_copies_do_not(name, function, formula, is_view):
    x = disttorch.tensor(START)
    result = function(disttorch, x)
    if name in ("concat of one", "broadcast_tensors", "meshgrid", "meshgrid xy"):
        pytest.skip("may be either")
    assert np.shares_memory(result.numpy(), x.numpy()) is is_view
    assert (result._base is x) is is_view or name == "squeeze of a size above 1"


ZERO_DIM = [
    "sum",
    "mean",
    "prod",
    "amax",
    "amin",
    "max",
    "min",
    "argmax",
    "argmin",
    "all",
    "any",
    "sort",
    "argsort",
    "norm",
    "std",
    "var",
    "flatten",
    "ravel",
    "squeeze",
    "t",
    "clone",
    "contiguous",
]


@pytest.mark.parametrize("name", ZERO_DIM)
def test_tensors_without_dimensions(name, torch, same):
    ours, theirs = disttorch.tensor(2.5), torch.tensor(2.5)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(getattr(ours, name)(), getattr(theirs, name)(), what=name)
        if name in ("sum", "mean", "prod", "amax", "amin", "max", "min", "argmax", "all", "any", "sort", "squeeze"):
            for dim in (0, -1):
                same(tuple_of(getattr(ours, name)(dim)), tuple_of(getattr(theirs, name)(dim)), what=(name, dim))
    for extra in (
        lambda t: t.logsumexp(0),
        lambda t: t.cumsum(0),
        lambda t: t.topk(1)[0],
        lambda t: t.unsqueeze(0),
        lambda t: t.expand(3),
        lambda t: t.reshape(1, 1),
        lambda t: t.repeat(2),
        lambda t: t.permute(()),
    ):
        same(extra(ours), extra(theirs))


def tuple_of(value):
    return tuple(value) if isinstance(value, tuple) else value


EMPTY = [
    ("sum", lambda m, x: x.sum()),
    ("sum 1", lambda m, x: x.sum(1)),
    ("sum 0", lambda m, x: x.sum(0)),
    ("prod", lambda m, x: x.prod()),
    ("mean", lambda m, x: x.mean()),
    ("mean 1", lambda m, x: x.mean(1)),
    ("all", lambda m, x: x.all()),
    ("any", lambda m, x: x.any()),
    ("cat", lambda m, x: m.cat([x, x])),
    ("exp", lambda m, x: x.exp()),
    ("reshape", lambda m, x: x.reshape(3, 0)),
    ("t", lambda m, x: x.t()),
    ("cumsum", lambda m, x: x.cumsum(0)),
    ("sort", lambda m, x: x.sort(1)[0]),
    ("max 1", lambda m, x: x.max(1)[0]),
    ("logsumexp", lambda m, x: x.logsumexp(0)),
    ("norm", lambda m, x: x.norm()),
    ("index", lambda m, x: x[:, 1]),
    ("mask", lambda m, x: x[x > 0]),
    ("matmul", lambda m, x: x @ m.ones(3, 2)),
    ("matmul t", lambda m, x: x.t() @ x),
    ("nonzero", lambda m, x: x.nonzero()),
    ("topk", lambda m, x: x.topk(2)[0]),
    ("unbind", lambda m, x: x.unbind(1)[0]),
    ("split", lambda m, x: x.split(1, 0)[0]),
    ("expand", lambda m, x: x.unsqueeze(0).expand(2, 0, 3)),
    ("var", lambda m, x: x.var(1)),
]


@pytest.mark.parametrize(("name", "function"), EMPTY, ids=names(EMPTY))
def test_empty_tensors(name, function, torch, same):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(function(disttorch, disttorch.zeros(0, 3)), function(torch, torch.zeros(0, 3)), what=name)
    x = disttorch.zeros(0, 3, requires_grad=True)
    result = function(disttorch, x)
    if result.requires_grad:
        result.sum().backward()
        assert x.grad.shape == (0, 3)


TIES = [
    ("amax", lambda x: x.amax(), "share"),
    ("amin", lambda x: x.amin(0), "share"),
    ("max", lambda x: x.max(), "share"),
    ("min", lambda x: x.min(), "share"),
    ("max dim", lambda x: x.max(0)[0], "first"),
    ("min dim", lambda x: x.min(0).values, "first"),
]


@pytest.mark.parametrize(("name", "function", "who"), TIES, ids=names(TIES))
def test_ties(name, function, who):
    x = disttorch.tensor([2.0, 2.0, 2.0, 2.0], requires_grad=True)
    function(x).backward()
    assert x.grad.tolist() == ([0.25] * 4 if who == "share" else [1.0, 0, 0, 0])


def test_sorting_is_stable():
    x = disttorch.tensor([1, 0, 1, 0, 1])
    assert x.sort()[1].tolist() == [1, 3, 0, 2, 4]
    assert x.sort(descending=True)[1].tolist() == [0, 2, 4, 1, 3]
    assert x.argsort(stable=True).tolist() == [1, 3, 0, 2, 4]


@pytest.mark.parametrize("values", [[0.0, 2.0, 3.0], [0.0, 0.0, 3.0], [1.0, 2.0, 3.0], [5.0]], ids=str)
def test_prod_with_zeros(values):
    x = disttorch.tensor(values, dtype=disttorch.float64, requires_grad=True)
    for function in (
        lambda x: x.prod(),
        lambda x: x.prod(0),
        lambda x: x.prod(0, keepdim=True),
        lambda x: x.reshape(1, -1).prod(1),
    ):
        assert gradcheck(function, x)
        assert gradgradcheck(function, x)


def test_nan_in_reductions():
    x = disttorch.tensor([1.0, float("nan"), 3.0])
    for name in ("sum", "mean", "max", "min", "amax", "amin", "prod", "norm", "std"):
        assert np.isnan(getattr(x, name)().item()), name
    assert x.argmax().item() == 1 and x.max(0)[1].item() == 1


def test_half_sums_are_added_in_float32():
    x = disttorch.ones(5000, dtype=disttorch.float16)
    assert x.sum().item() == 5000 and x.mean().item() == 1 and x.cumsum(0)[-1].item() == 5000
    b = disttorch.ones(1000, dtype=disttorch.bfloat16)
    assert b.sum().item() == 1000 and b.mean().item() == 1
    y = disttorch.full((300, 300), 100.0, dtype=disttorch.float16)
    assert y.mean().item() == 100


def test_large_means_and_variances_are_accurate():
    a = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32) + 1000
    x = disttorch.from_numpy(a)
    assert abs(x.mean().item() - a.astype(float).mean()) < 1e-3
    assert abs(x.var().item() / a.astype(float).var(ddof=1) - 1) < 1e-3


def test_dtype_and_out_of_reductions():
    x = disttorch.tensor([[1, 2], [3, 4]])
    assert x.sum(dtype=disttorch.float32).dtype is disttorch.float32
    assert x.mean(dtype=disttorch.float64).item() == 2.5
    out = disttorch.empty(2, dtype=disttorch.int64)
    assert disttorch.sum(x, 0, out=out) is out and out.tolist() == [4, 6]
    values, indices = disttorch.empty(2, dtype=disttorch.int64), disttorch.empty(2, dtype=disttorch.int64)
    result = disttorch.max(x, 1, out=(values, indices))
    assert result.values is values and values.tolist() == [2, 4] and indices.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: x.reshape(5, 5), RuntimeError, r"\[5, 5\].*24"),
        (lambda x: x.reshape(-1, -1), RuntimeError, "one dimension"),
        (lambda x: x.reshape(-1, 7), RuntimeError, "24"),
        (lambda x: x.reshape(-1, 0), RuntimeError, "-1"),
        (lambda x: x.reshape(-2, 12), RuntimeError, "-2"),
        (lambda x: x.reshape(2.0, 12), TypeError, "float"),
        (lambda x: x.mT.view(24), RuntimeError, "not compatible"),
        (lambda x: x.permute(0, 1), RuntimeError, "2 dims.*3 dimensions"),
        (lambda x: x.permute(0, 0, 1), RuntimeError, "more than once"),
        (lambda x: x.transpose(0, 3), IndexError, r"\[-3, 2\], but got 3"),
        (lambda x: x.t(), RuntimeError, "3D"),
        (lambda x: x.sum(3), IndexError, "got 3"),
        (lambda x: x.sum((0, 0)), RuntimeError, "more than once"),
        (lambda x: x.sum((0, -3)), RuntimeError, "more than once"),
        (lambda x: x.unsqueeze(4), IndexError, "got 4"),
        (lambda x: x.squeeze(-4), IndexError, "got -4"),
        (lambda x: x.expand(3, 3, 4), RuntimeError, r"\(3\).*\(2\).*\[3, 3, 4\]"),
        (lambda x: x.expand(3, 4), RuntimeError, "number of sizes"),
        (lambda x: x.expand(-1, 2, 3, 4), RuntimeError, "-1"),
        (lambda x: x.narrow(0, 1, 2), RuntimeError, r"start \(1\) \+ length \(2\)"),
        (lambda x: x.select(0, 2), IndexError, "2"),
        (lambda x: x.split([1, 3], 1), RuntimeError, "sum exactly to 3"),
        (lambda x: x.split(0), RuntimeError, "split_size=0"),
        (lambda x: x.chunk(0), RuntimeError, "greater than 0"),
        (lambda x: disttorch.cat([]), (ValueError, RuntimeError), "non-empty"),
        (lambda x: disttorch.cat([x, x[0]]), RuntimeError, "same number of dimensions"),
        (lambda x: disttorch.cat([x, x[:, :2]]), RuntimeError, r"except in dimension 0.*\[2, 2, 4\]"),
        (lambda x: disttorch.stack([x, x[:1]]), RuntimeError, "equal size"),
        (lambda x: disttorch.stack([]), RuntimeError, "non-empty"),
        (lambda x: x.repeat(2), RuntimeError, "repeat dims"),
        (lambda x: x.diagonal(0, 1, 1), RuntimeError, "identical"),
        (lambda x: x.topk(5), RuntimeError, "k is 5.*size 4"),
        (lambda x: x[0, :0].max(), (IndexError, RuntimeError), "reduction dim"),
        (lambda x: x[:, :0].amax(1), IndexError, "non-zero size"),
        (lambda x: x[:, :0].argmax(), (IndexError, RuntimeError), "reduction dim"),
        (lambda x: disttorch.tensor([1, 2]).mean(), RuntimeError, "int64"),
        (lambda x: x[0, 0].tril(), RuntimeError, "at least 2"),
        (lambda x: disttorch.broadcast_shapes((2, 3), (4, 3)), RuntimeError, "mismatch"),
        (lambda x: disttorch.meshgrid(x[0, 0], indexing="no"), RuntimeError, "'no'"),
        (lambda x: x.norm("nuc"), RuntimeError, "2 dimensions"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(disttorch.tensor(START))


def test_size():
    size = disttorch.zeros(2, 3, 4).shape
    assert size == (2, 3, 4) and size.numel() == 24 and repr(size) == "disttorch.Size([2, 3, 4])"
    assert isinstance(size[1:], disttorch.Size) and size[-1] == 4 and isinstance(size + (5,), disttorch.Size)
    x = disttorch.zeros(2, 3, 4)
    assert x.size() == size and x.size(-1) == 4 and x.dim() == x.ndim == 3 and x.numel() == 24 and len(x) == 2
    assert x.stride() == (12, 4, 1) and x.stride(1) == 4
    assert disttorch.broadcast_shapes((2, 1), (3,), ()) == (2, 3)
    with pytest.raises(IndexError, match="got 3"):
        x.size(3)
