"""Sorting, medians, quantiles, running values, distinct values, histograms: against NumPy, and derivatives."""

import math

import numpy as np
import pytest

import disttorch
from disttorch.autograd import gradcheck, gradgradcheck

RNG = np.random.default_rng(21)
NAN, INF = math.nan, math.inf
A = RNG.permutation(60).reshape(3, 4, 5) * 0.31 - 5  # all different
TIED = RNG.integers(0, 4, (5, 40)).astype(float)
GAPPED = np.where(RNG.random((4, 9)) < 0.3, NAN, RNG.normal(size=(4, 9)))
ZEROS = RNG.normal(size=(3, 5)) * (RNG.random((3, 5)) < 0.6)


def lower_median(a, axis):
    return np.sort(a, axis).take((a.shape[axis] - 1) // 2, axis)


def variance(a, axis, correction):
    return a.var(axis, ddof=correction)


def lower_nanmedian(a, axis):
    return np.apply_along_axis(lambda r: np.sort(r[~np.isnan(r)])[(np.sum(~np.isnan(r)) - 1) // 2], axis, a)


# name, call, the same in NumPy, array
SMOOTH = [
    ("median", lambda x: x.median(), lambda a: np.sort(a, None)[29], A),
    ("median dim", lambda x: x.median(1).values, lambda a: lower_median(a, 1), A),
    ("median keepdim", lambda x: x.median(-1, keepdim=True)[0], lambda a: lower_median(a, 2)[..., None], A),
    ("kthvalue", lambda x: x.kthvalue(2, 0).values, lambda a: np.sort(a, 0)[1], A),
    ("kthvalue keepdim", lambda x: x.kthvalue(5, keepdim=True).values, lambda a: np.sort(a)[..., 4:], A),
    ("topk", lambda x: x.topk(3, 1).values, lambda a: -np.sort(-a, 1)[:, :3], A),
    ("topk of many", lambda x: x.reshape(-1).topk(2, largest=False).values, lambda a: np.sort(a, None)[:2], A),
    ("sort", lambda x: x.sort(0, descending=True).values, lambda a: -np.sort(-a, 0), A),
    ("msort", lambda x: x.msort(), lambda a: np.sort(a, 0), A),
    ("mode", lambda x: x.mode(1).values, lambda a: a.min(1), A),
    ("quantile", lambda x: disttorch.quantile(x, 0.3), lambda a: np.quantile(a, 0.3), A),
    ("quantile dim", lambda x: x.quantile(0.3, dim=1, keepdim=True), lambda a: np.quantile(a, 0.3, axis=1, keepdims=True), A),
    (
        "quantiles",
        lambda x: x.quantile(disttorch.tensor([0.1, 0.5, 1.0], dtype=disttorch.float64), 2),
        lambda a: np.quantile(a, [0.1, 0.5, 1.0], axis=2),
        A,
    ),
    *[
        (
            f"quantile {way}",
            lambda x, way=way: x.quantile(0.37, dim=-1, interpolation=way),
            lambda a, way=way: np.quantile(a, 0.37, axis=-1, method=way),
            A,
        )
        for way in ("lower", "higher", "midpoint", "nearest")
    ],
    ("cummax", lambda x: x.cummax(1).values, lambda a: np.maximum.accumulate(a, 1), A),
    ("cummin", lambda x: x.cummin(-1).values, lambda a: np.minimum.accumulate(a, 2), A),
    ("cumprod", lambda x: x.cumprod(1), lambda a: a.cumprod(1), A / 3),
    ("cumprod with zeros", lambda x: x.cumprod(1), lambda a: a.cumprod(1), ZEROS),
    ("prod with zeros", lambda x: x.prod(1), lambda a: a.prod(1), ZEROS),
    ("prod of all with one zero", lambda x: x.prod(), lambda a: a.prod(), np.array([[1.5, 0.0], [2.0, -3.0]])),
    ("logcumsumexp", lambda x: x.logcumsumexp(1), lambda a: np.log(np.cumsum(np.exp(a), 1)), A / 4),
    ("diff", lambda x: x.diff(2, dim=1), lambda a: np.diff(a, 2, 1), A),
    (
        "diff with ends",
        lambda x: x.diff(prepend=x[..., :1], append=x[..., :2]),
        lambda a: np.diff(a, prepend=a[..., :1], append=a[..., :2]),
        A,
    ),
    ("gradient", lambda x: disttorch.gradient(x, spacing=0.5)[1], lambda a: np.gradient(a, 0.5, axis=1), A),
    ("gradient edges", lambda x: disttorch.gradient(x, dim=2, edge_order=2)[0], lambda a: np.gradient(a, axis=2, edge_order=2), A),
    *[
        (
            f"gradient at places, edge order {order}",
            lambda x, order=order: disttorch.gradient(
                x, spacing=(disttorch.tensor([0.0, 1.0, 3.0, 3.5], dtype=disttorch.float64),), dim=1, edge_order=order
            )[0],
            lambda a, order=order: np.gradient(a, [0.0, 1.0, 3.0, 3.5], axis=1, edge_order=order),
            A,
        )
        for order in (1, 2)
    ],
    ("trapezoid", lambda x: disttorch.trapezoid(x, dx=0.5), lambda a: np.trapezoid(a, dx=0.5), A),
    ("trapz along x", lambda x: disttorch.trapz(x, disttorch.tensor(A**2), dim=1), lambda a: np.trapezoid(a, A**2, axis=1), A),
    (
        "cumulative_trapezoid",
        lambda x: disttorch.cumulative_trapezoid(x, dim=0),
        lambda a: np.cumsum((a[1:] + a[:-1]) / 2, 0),
        A,
    ),
    ("nansum", lambda x: x.nansum(1), lambda a: np.nansum(a, 1), GAPPED),
    ("nanmean", lambda x: x.nanmean(0), lambda a: np.nanmean(a, 0), GAPPED),
    ("nanmedian", lambda x: x.nanmedian(1).values, lambda a: lower_nanmedian(a, 1), GAPPED),
    ("nanmedian of all", lambda x: x.nanmedian(), lambda a: lower_nanmedian(a.reshape(-1), 0), GAPPED),
    ("nanquantile", lambda x: disttorch.nanquantile(x, 0.6, 1), lambda a: np.nanquantile(a, 0.6, axis=1), GAPPED),
    ("var correction", lambda x: x.var((0, 2), correction=2), lambda a: variance(a, (0, 2), 2), A),
    ("std_mean", lambda x: disttorch.std_mean(x, 1)[0], lambda a: a.std(1, ddof=1), A),
    ("var_mean", lambda x: disttorch.var_mean(x, (1, 2), unbiased=False)[1], lambda a: a.mean((1, 2)), A),
    ("aminmax", lambda x: disttorch.aminmax(x, dim=1).max, lambda a: a.max(1), A),
    ("max indices", lambda x: x.max(0).values, lambda a: a.max(0), A),
    ("min of complex parts", lambda x: disttorch.complex(x, x * 2).var(1), lambda a: 5 * a.var(1, ddof=1), A),
]


@pytest.mark.parametrize(("name", "call", "formula", "array"), SMOOTH, ids=[s[0] for s in SMOOTH])
def test_values_and_derivatives(name, call, formula, array):
    x = disttorch.tensor(array, requires_grad=True)
    np.testing.assert_allclose(call(x).detach().numpy(), formula(array), rtol=1e-12, atol=1e-12)
    there = disttorch.tensor(np.where(np.isnan(array), 0.5, array), requires_grad=True)
    if "nan" in name:
        hole = disttorch.tensor(np.where(np.isnan(array), NAN, 0.0))
        assert gradcheck(lambda v: call(v + hole), there)
    else:
        assert gradcheck(call, x)
    if "prod" in name or name in ("logcumsumexp", "std_mean") or name.startswith("var"):
        assert gradgradcheck(call, x)


def last_maxima(a):
    """For each element the last place up to there where the maximum up to there stands."""
    return [[max(j for j in range(i + 1) if r[j] == r[: i + 1].max()) for i in range(len(r))] for r in a]


def last_modes(a):
    return [np.nonzero(r == np.bincount(r.astype(int)).argmax())[0][-1] for r in a]


WHOLE = [
    ("sort indices", lambda x: x.sort(1, stable=True).indices, lambda a: a.argsort(1, kind="stable")),
    ("argsort descending", lambda x: x.argsort(1, descending=True), lambda a: (-a).argsort(1, kind="stable")),
    ("count_nonzero", lambda x: x.count_nonzero(1), lambda a: np.count_nonzero(a, 1)),
    ("cummax indices", lambda x: x.cummax(1).indices, last_maxima),
    ("mode", lambda x: x.mode(1).values, lambda a: np.array([np.bincount(r.astype(int)).argmax() for r in a], float)),
    ("mode index", lambda x: x.mode(1).indices, last_modes),
    ("bincount", lambda x: x.long().reshape(-1).bincount(minlength=9), lambda a: np.bincount(a.astype(int).reshape(-1), minlength=9)),
    ("any", lambda x: (x > 2).any(0), lambda a: (a > 2).any(0)),
    ("all of several", lambda x: (x < 4).all((0, 1)), lambda a: np.True_),
    ("argmax", lambda x: x.argmax(1, keepdim=True), lambda a: a.argmax(1)[:, None]),
]


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "int8", "uint8", "int64"])
@pytest.mark.parametrize(("name", "call", "formula"), WHOLE, ids=[w[0] for w in WHOLE])
def test_whole_results_with_equal_elements(name, call, formula, dtype):
    result = call(disttorch.tensor(TIED).to(dtype=getattr(disttorch, dtype)))
    np.testing.assert_array_equal(result.double().numpy() if "mode" == name else result.numpy(), formula(TIED))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_nan_is_the_largest(dtype):
    x = disttorch.tensor([2.0, NAN, -INF, INF, -1.0], dtype=getattr(disttorch, dtype))
    np.testing.assert_array_equal(x.sort().values.float().numpy(), [-INF, -1, 2, INF, NAN])
    np.testing.assert_array_equal(x.sort(descending=True).values.float().numpy(), [NAN, INF, 2, -1, -INF])
    assert x.argmax().item() == 1 and x.argmin().item() == 1 and x.topk(2).indices.tolist() == [1, 3]
    assert x.kthvalue(5).indices.item() == 1 and math.isnan(x.median().item()) and x.nanmedian().item() == -1.0
    assert x.median(0).indices.item() == 1
    np.testing.assert_array_equal(x.cummax(0).values.float().numpy(), [2, NAN, NAN, NAN, NAN])
    assert math.isnan(x.max().item()) and math.isnan(x.max(0).values.item())


def test_quantile_with_nan():
    x = disttorch.tensor([[1.0, NAN, 3.0], [1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(disttorch.quantile(x, 0.5, 1).tolist(), [NAN, 2.0])
    assert disttorch.nanquantile(x, 0.5, 1).tolist() == [2.0, 2.0]


@pytest.mark.parametrize("dim", [None, 0, 1, -1])
@pytest.mark.parametrize("dtype", ["int64", "float64", "bool", "bfloat16"])
def test_unique(dtype, dim):
    a = np.array([[1, 0, 1, 1], [0, 0, 1, 0], [1, 0, 1, 1]])
    x = disttorch.tensor(a).to(dtype=getattr(disttorch, dtype))
    values, inverse, counts = disttorch.unique(x, return_inverse=True, return_counts=True, dim=dim)
    expected, places, numbers = np.unique(a, return_inverse=True, return_counts=True, axis=dim)
    np.testing.assert_array_equal(values.long().numpy(), expected)
    np.testing.assert_array_equal(inverse.numpy(), places.reshape(inverse.shape))
    np.testing.assert_array_equal(counts.numpy(), numbers)
    assert values.dtype is x.dtype


def test_unique_consecutive_and_empty():
    x = disttorch.tensor([1, 1, 2, 2, 2, 1])
    values, inverse, counts = disttorch.unique_consecutive(x, return_inverse=True, return_counts=True)
    assert values.tolist() == [1, 2, 1] and inverse.tolist() == [0, 0, 1, 1, 1, 2] and counts.tolist() == [2, 3, 1]
    assert disttorch.unique(disttorch.tensor([])).shape == (0,)
    rows = disttorch.tensor([[1, 2], [1, 2], [3, 4]])
    assert disttorch.unique_consecutive(rows, dim=0).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "int64", "bfloat16"])
def test_searchsorted(dtype, right):
    edges, values = np.sort(RNG.integers(0, 20, (3, 9)), 1), RNG.integers(-2, 22, (3, 30))
    e, v = (disttorch.tensor(a).to(dtype=getattr(disttorch, dtype)) for a in (edges, values))
    side = "right" if right else "left"
    expected = np.stack([np.searchsorted(r, x, side) for r, x in zip(edges, values)])
    np.testing.assert_array_equal(disttorch.searchsorted(e, v, right=right).numpy(), expected)
    np.testing.assert_array_equal(disttorch.searchsorted(e[0], v, side=side).numpy(), np.searchsorted(edges[0], values, side))
    np.testing.assert_array_equal(disttorch.bucketize(v, e[0], right=right).numpy(), np.searchsorted(edges[0], values, side))
    mixed = RNG.permuted(edges, axis=1)
    order = disttorch.tensor(mixed.argsort(1))
    found = disttorch.searchsorted(disttorch.tensor(mixed).to(dtype=e.dtype), v, sorter=order, right=right, out_int32=True)
    assert found.dtype is disttorch.int32
    np.testing.assert_array_equal(found.numpy(), expected)


def test_histograms_against_numpy():
    a = RNG.normal(size=500)
    x, weight = disttorch.tensor(a), RNG.random(500)
    for options in ({}, {"density": True}, {"range": (-1.0, 2.0)}, {"weight": weight}):
        theirs = {{"weight": "weights"}.get(k, k): v for k, v in options.items()}
        ours = {k: disttorch.tensor(v) if k == "weight" else v for k, v in options.items()}
        hist, edges = disttorch.histogram(x, 12, **ours)
        expected, borders = np.histogram(a, 12, **theirs)
        np.testing.assert_allclose(hist.numpy(), expected, rtol=1e-12)
        np.testing.assert_allclose(edges.numpy(), borders, rtol=1e-12)
    borders = np.array([-2.0, -0.5, 0.0, 3.0])
    np.testing.assert_array_equal(disttorch.histogram(x, disttorch.tensor(borders)).hist.numpy(), np.histogram(a, borders)[0])
    np.testing.assert_array_equal(disttorch.histc(x, 10, -1, 1).numpy(), np.histogram(a, 10, (-1, 1))[0])
    points = RNG.normal(size=(300, 2))
    hist, edges = disttorch.histogramdd(disttorch.tensor(points), [4, 6])
    expected, borders = np.histogramdd(points, [4, 6])
    np.testing.assert_array_equal(hist.numpy(), expected)
    for e, b in zip(edges, borders):
        np.testing.assert_allclose(e.numpy(), b, rtol=1e-12)


def test_edges_of_running_values():
    x = disttorch.tensor([-INF, -INF, 0.0, INF], dtype=disttorch.float64, requires_grad=True)
    np.testing.assert_array_equal(x.logcumsumexp(0).tolist(), [-INF, -INF, 0.0, INF])
    y = disttorch.tensor([-INF, 0.0, 1000.0], dtype=disttorch.float64, requires_grad=True)
    y.logcumsumexp(0).sum().backward()
    np.testing.assert_allclose(y.grad.tolist(), [0.0, 1.0, 1.0])
    assert disttorch.tensor(3.0).cumsum(0).item() == 3.0 and disttorch.tensor(3.0).cummax(-1).indices.item() == 0
    assert disttorch.ones(3, dtype=disttorch.int8).cumsum(0).dtype is disttorch.int64
    assert disttorch.ones(3, dtype=disttorch.int8).cumsum(0, dtype=disttorch.int16).dtype is disttorch.int16
    assert disttorch.ones(3, dtype=disttorch.int64).sum(dtype=disttorch.int32).dtype is disttorch.int32
    assert disttorch.zeros(2, 0).logsumexp(1).tolist() == [-INF, -INF]


def test_variance_of_few_elements():
    one = disttorch.ones(1, requires_grad=True)
    assert math.isnan(one.var().item()) and one.var(correction=0).item() == 0.0
    same = disttorch.ones(4, requires_grad=True)
    same.std().backward()
    assert same.grad.tolist() == [0.0] * 4


ERRORS = [
    (lambda x: x.kthvalue(6), RuntimeError, "k is 6, the size 5"),
    (lambda x: x.median(3), IndexError, "3"),
    (lambda x: x[:, :0].median(1), IndexError, "non-zero size"),
    (lambda x: x[:, :0].mode(1), IndexError, "non-zero size"),
    (lambda x: x.quantile(1.5), RuntimeError, "1.5"),
    (lambda x: x.quantile(0.5, interpolation="cubic"), RuntimeError, "'cubic'"),
    (lambda x: x.half().quantile(0.5), RuntimeError, "float16"),
    (lambda x: (x * 1j).sort(), RuntimeError, "complex"),
    (lambda x: disttorch.searchsorted(x[0], x[0, 0], right=True, side="left"), RuntimeError, "opposites"),
    (lambda x: disttorch.searchsorted(x[0, 0], x[0].float()), RuntimeError, "float32"),
    (lambda x: disttorch.bucketize(x, x), RuntimeError, "1 dimension"),
    (lambda x: x.diff(-1), RuntimeError, "-1"),
    (lambda x: disttorch.gradient(x, spacing=[1.0, 2.0]), RuntimeError, "length 3"),
    (lambda x: disttorch.gradient(x, edge_order=3), RuntimeError, "3"),
    (lambda x: x.histc(0), RuntimeError, "got 0"),
    (lambda x: x.nanmean(dtype=disttorch.float64) and x.long().nanmean(), RuntimeError, "int64"),
    (lambda x: disttorch.trapezoid(x, x, dx=1), TypeError, "one"),
    (lambda x: x.long().var(), RuntimeError, "int64"),
    (lambda x: x.long().reshape(-1).bincount(), RuntimeError, "non-negative"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(disttorch.tensor(A))
