"""Special functions: values against SciPy, edges, and derivatives against finite differences."""

import math

import numpy as np
import pytest
import scipy.special as exact

import disttorch
from disttorch import special
from disttorch.autograd import gradcheck, gradgradcheck

RNG = np.random.default_rng(4)


def line(low, high, count=3001):
    return np.concatenate([np.linspace(low, high, count), RNG.uniform(low, high, count)])


def sizes(low, high, count=2000):
    """Numbers of all sizes from 10 ** low to 10 ** high."""
    return 10.0 ** RNG.uniform(low, high, count)


POSITIVE = np.concatenate([line(1e-8, 20), sizes(-10, 3)])
# name, SciPy's, where; compared where SciPy's is finite, by the smaller of absolute and relative error (near zeros of a function
# only the absolute one has a meaning)
VALUES = [
    ("gammaln", exact.gammaln, np.concatenate([POSITIVE, line(-20, 0), sizes(3, 8)])),
    # not right beside a pole, where SciPy's is 1e-3 from mpmath's and ours is not
    ("digamma", exact.digamma, np.concatenate([POSITIVE, np.rint(line(-9, -1)) + RNG.uniform(0.01, 0.99, 6002)])),
    ("psi", exact.psi, POSITIVE),
    ("erfinv", exact.erfinv, np.concatenate([line(-1, 1), 1 - sizes(-15, 0)])),
    ("ndtri", exact.ndtri, np.concatenate([line(1e-9, 1), sizes(-300, 0)])),
    ("ndtr", exact.ndtr, line(-37, 10)),
    ("log_ndtr", exact.log_ndtr, np.concatenate([line(-200, 10), line(-2, 2)])),
    ("erfcx", exact.erfcx, np.concatenate([line(-5, 60), sizes(-5, 8)])),
    ("entr", exact.entr, line(-1, 5)),
    ("i0", exact.i0, line(-30, 30)),
    ("i0e", exact.i0e, line(-300, 300)),
    ("i1", exact.i1, line(-30, 30)),
    ("i1e", exact.i1e, np.concatenate([line(-300, 300), sizes(-20, 0)])),
    ("modified_bessel_i0", exact.i0, line(-30, 30)),
    ("modified_bessel_i1", exact.i1, line(-30, 30)),
    ("modified_bessel_k0", exact.k0, POSITIVE),
    ("modified_bessel_k1", exact.k1, POSITIVE),
    ("scaled_modified_bessel_k0", exact.k0e, POSITIVE),
    ("scaled_modified_bessel_k1", exact.k1e, POSITIVE),
    ("bessel_j0", exact.j0, line(-100, 100)),
    ("bessel_j1", exact.j1, line(-100, 100)),
    ("bessel_y0", exact.y0, np.concatenate([POSITIVE, line(1e-3, 100)])),
    ("bessel_y1", exact.y1, np.concatenate([POSITIVE, line(1e-3, 100)])),
    ("spherical_bessel_j0", lambda x: exact.spherical_jn(0, x), line(1e-3, 100)),
    ("airy_ai", lambda x: exact.airy(x)[0], np.concatenate([line(-30, 30), line(-5.5, 3)])),
    ("expit", exact.expit, line(-40, 40)),
    ("sinc", np.sinc, line(-5, 5)),
    ("logit", exact.logit, line(0.001, 0.999)),
]
BOUND = {"float64": 1e-12, "float32": 1e-6}


def error(found, expected):
    """The largest of the smaller of absolute and relative errors, where `expected` is finite."""
    there = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(found), there)
    distance = np.abs(found - expected)[there]
    return np.max(np.minimum(distance, distance / np.maximum(np.abs(expected[there]), 1e-300)))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("name", "scipys", "x"), VALUES, ids=[v[0] for v in VALUES])
def test_values_against_scipy(name, scipys, x, dtype):
    x = x.astype(dtype)
    if dtype == "float32":
        x = x[np.abs(x) > 1e-30]
    expected = np.asarray(scipys(x.astype("float64")))
    if dtype == "float32":
        fits = (np.abs(expected) < 1e38) & np.isfinite(expected)
        x, expected = x[fits], expected[fits]
    result = getattr(special, name)(disttorch.from_numpy(x))
    assert str(result.dtype) == f"disttorch.{dtype}"
    assert error(result.numpy().astype("float64"), expected) < BOUND[dtype]


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_polygamma_against_scipy(n):
    assert np.max(np.abs(special.polygamma(n, disttorch.tensor(POSITIVE)).numpy() / exact.polygamma(n, POSITIVE) - 1)) < 1e-12
    x = line(-6.9, -0.1)  # reflected, and shifted up
    expected = np.array([float(v) for v in (-1) ** (n + 1) * math.factorial(n) * hurwitz(n + 1, x)])
    np.testing.assert_allclose(special.polygamma(n, disttorch.tensor(x)).numpy(), expected, rtol=1e-9)


def hurwitz(s, q):
    """The zeta function by its terms up to q > 0, and SciPy from there."""
    q, total = q.copy(), np.zeros_like(q)
    while (q < 0).any():
        total[q < 0] += q[q < 0] ** -float(s)
        q[q < 0] += 1
    return total + exact.zeta(float(s), q)


def test_zeta_and_the_incomplete_gamma_functions_against_scipy():
    s, q = RNG.uniform(1.01, 40, 5000), sizes(-3, 3, 5000)
    np.testing.assert_allclose(special.zeta(disttorch.tensor(s), disttorch.tensor(q)).numpy(), exact.zeta(s, q), rtol=1e-13)
    a = sizes(-2, 4, 5000)
    for x in (a * RNG.uniform(0.3, 2, 5000), sizes(-3, 4, 5000)):
        for ours, scipys in ((special.gammainc, exact.gammainc), (special.gammaincc, exact.gammaincc)):
            found, expected = ours(disttorch.tensor(a), disttorch.tensor(x)).numpy(), scipys(a, x)
            assert np.max(np.abs(found - expected)) < 1e-13
            seen = expected > 1e-100
            assert np.max(np.abs(found / np.where(seen, expected, 1) - 1)[seen]) < 1e-9


POLYNOMIALS = [
    ("chebyshev_polynomial_t", exact.eval_chebyt),
    ("chebyshev_polynomial_u", exact.eval_chebyu),
    ("shifted_chebyshev_polynomial_t", exact.eval_sh_chebyt),
    ("shifted_chebyshev_polynomial_u", exact.eval_sh_chebyu),
    ("hermite_polynomial_h", exact.eval_hermite),
    ("hermite_polynomial_he", exact.eval_hermitenorm),
    ("laguerre_polynomial_l", exact.eval_laguerre),
    ("legendre_polynomial_p", exact.eval_legendre),
    # by their definition: V and W of cos(t) are cos and sin of (n + 1/2) t over those of t / 2
    ("chebyshev_polynomial_v", lambda n, x: np.cos((n + 0.5) * np.arccos(x)) / np.cos(0.5 * np.arccos(x))),
    ("chebyshev_polynomial_w", lambda n, x: np.sin((n + 0.5) * np.arccos(x)) / np.sin(0.5 * np.arccos(x))),
]


@pytest.mark.parametrize(("name", "scipys"), POLYNOMIALS, ids=[p[0] for p in POLYNOMIALS])
def test_polynomials_against_scipy(name, scipys):
    inner = name.endswith(("_v", "_w"))
    x, n = RNG.uniform(-0.99 if inner else -1.2, 0.99 if inner else 1.2, 3000), RNG.integers(0, 25, 3000)
    expected = scipys(n, x)
    found = getattr(special, name)(disttorch.tensor(x), disttorch.tensor(n)).numpy()
    # relative to the largest nearby: SciPy's own formula loses as much near zeros
    assert np.max(np.abs(found - expected) / (1 + np.abs(expected))) < 1e-11
    ends = disttorch.tensor([1.0, -1.0, 0.0])
    assert getattr(special, name)(ends, -1).tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_array_equal(getattr(special, name)(ends, 0).tolist(), [1.0, 1.0, 1.0])


INF, NAN = math.inf, math.nan
EDGES = [
    ("lgamma", [0.0, -1.0, -2.0, INF, -INF, NAN, 1.0, 2.0], [INF, INF, INF, INF, INF, NAN, 0.0, 0.0]),
    ("digamma", [0.0, -0.0, -1.0, INF, NAN], [-INF, INF, NAN, INF, NAN]),
    ("erfinv", [1.0, -1.0, 0.0, 1.5, NAN], [INF, -INF, 0.0, NAN, NAN]),
    ("special.ndtri", [0.0, 1.0, 0.5, -0.1, 1.1, NAN], [-INF, INF, 0.0, NAN, NAN, NAN]),
    ("special.bessel_y0", [0.0, -1.0, INF], [-INF, NAN, 0.0]),
    ("special.modified_bessel_k0", [0.0, -1.0, 1e4], [INF, NAN, 0.0]),
    ("special.bessel_j0", [INF, -INF, NAN], [0.0, 0.0, NAN]),
    ("special.i1e", [0.0, NAN], [0.0, NAN]),
    ("i0", [INF, -INF, NAN], [INF, INF, NAN]),
    ("special.entr", [0.0, -1.0, 1.0, NAN], [0.0, -INF, 0.0, NAN]),
    ("special.airy_ai", [1e4, NAN], [0.0, NAN]),
    ("special.spherical_bessel_j0", [0.0, INF], [1.0, 0.0]),
    ("special.log_ndtr", [-INF, INF, NAN], [-INF, 0.0, NAN]),
]


@pytest.mark.parametrize(("name", "x", "expected"), EDGES, ids=[e[0] for e in EDGES])
def test_edges(name, x, expected):
    module, name = (special, name[8:]) if name.startswith("special.") else (disttorch, name)
    np.testing.assert_array_equal(getattr(module, name)(disttorch.tensor(x, dtype=disttorch.float64)).tolist(), expected)


# name, further arguments, an interval on which it is smooth
SMOOTH = [
    ("gammaln", (), 0.3, 5),
    ("gammaln", (), -2.8, -2.2),
    ("digamma", (), 0.6, 5),
    ("erfinv", (), -0.95, 0.95),
    ("erfcx", (), -1.5, 3),
    ("ndtr", (), -2, 2),
    ("ndtri", (), 0.05, 0.95),
    ("log_ndtr", (), -3, 2),
    ("entr", (), 0.2, 3),
    ("sinc", (), 0.2, 0.9),
    ("logit", (), 0.2, 0.8),
    ("logit", (0.1,), 0.2, 0.8),
    ("i0", (), 0.3, 3),
    ("i0e", (), 0.3, 3),
    ("i1", (), 0.3, 3),
    ("i1e", (), 0.3, 3),
    ("modified_bessel_k0", (), 0.3, 3),
    ("modified_bessel_k1", (), 0.3, 3),
    ("scaled_modified_bessel_k0", (), 0.3, 3),
    ("scaled_modified_bessel_k1", (), 0.3, 3),
    ("bessel_j0", (), 0.3, 9),
    ("bessel_j1", (), 0.3, 9),
    ("bessel_y0", (), 0.6, 9),
    ("bessel_y1", (), 0.6, 9),
    ("spherical_bessel_j0", (), 0.3, 5),
    ("multigammaln", (3,), 1.3, 5),
]


@pytest.mark.parametrize(("name", "arguments", "low", "high"), SMOOTH, ids=[s[0] for s in SMOOTH])
def test_derivatives(name, arguments, low, high):
    x = disttorch.tensor(RNG.uniform(low, high, (2, 3)), requires_grad=True)

    def call(v):
        return getattr(special, name)(v, *arguments)

    assert gradcheck(call, x)
    assert gradgradcheck(call, x)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_derivatives_of_polygamma(n):
    x = disttorch.tensor(RNG.uniform(0.8, 4, 5), requires_grad=True)
    assert gradcheck(lambda v: disttorch.polygamma(n, v), x) and gradgradcheck(lambda v: disttorch.polygamma(n, v), x)
    np.testing.assert_array_equal(x.detach().polygamma(n).numpy(), disttorch.polygamma(n, x).detach().numpy())


@pytest.mark.parametrize("name", ["zeta", "gammainc", "gammaincc", "xlog1py", "xlogy"])
def test_derivatives_of_two_operands(name):
    a = disttorch.tensor(RNG.uniform(1.5, 4, (2, 3)), requires_grad=name.startswith("x"))
    b = disttorch.tensor(RNG.uniform(0.5, 4, 3), requires_grad=True)
    function = getattr(special, name)
    if name.startswith("x"):
        assert gradcheck(function, (a, b)) and gradgradcheck(function, (a, b))
    else:  # PyTorch, too, has the derivative with respect to the second operand only
        assert gradcheck(lambda v: function(a, v), b) and gradgradcheck(lambda v: function(a, v), b)


def test_xlogy_and_its_relative_at_zero():
    zero, other = disttorch.zeros(4), disttorch.tensor([0.0, -2.0, INF, NAN])
    np.testing.assert_array_equal(special.xlogy(zero, other).tolist(), [0, 0, 0, NAN])
    np.testing.assert_array_equal(special.xlog1py(zero, other).tolist(), [0, 0, 0, NAN])
    x = disttorch.zeros(2, requires_grad=True)
    special.xlogy(x, disttorch.tensor([0.0, 2.0])).sum().backward()
    np.testing.assert_allclose(x.grad.tolist(), [0.0, math.log(2)], rtol=1e-6)


def test_integers_and_wrong_arguments():
    assert disttorch.lgamma(disttorch.tensor([1, 2])).dtype is disttorch.float32
    assert special.zeta(2, disttorch.tensor([1])).dtype is disttorch.float32
    with pytest.raises(RuntimeError, match="negative n, got -1"):
        disttorch.polygamma(-1, disttorch.ones(1))
    with pytest.raises(RuntimeError, match="got 0"):
        disttorch.mvlgamma(disttorch.ones(1), 0)
    with pytest.raises(TypeError, match="int"):
        disttorch.igamma(disttorch.ones(1), 2)


def test_names_of_the_face():
    for name in special.__all__:
        assert callable(getattr(special, name))
    assert special.round(disttorch.tensor([1.25, 1.75]), decimals=1).tolist() == pytest.approx([1.2, 1.8])
    x = disttorch.tensor([[0.0, 1.0]])
    assert special.logsumexp(x, 1).item() == pytest.approx(math.log(1 + math.e))
    assert special.softmax(x, 1).sum().item() == pytest.approx(1)
