"""Numbers drawn at random against their distributions' formulas; ranges, streams and their states."""

import math
import pickle

import numpy as np
import pytest
from scipy import stats

import disttorch

N = 20_000
# how a float64 tensor is overwritten, and the distribution that it then has
CONTINUOUS = [
    ("uniform_", lambda x: x.uniform_(-1, 3), stats.uniform(-1, 4)),
    ("uniform_ by name", lambda x: x.uniform_(**{"from": 2, "to": 3}), stats.uniform(2, 1)),
    ("normal_", lambda x: x.normal_(1, 2), stats.norm(1, 2)),
    ("exponential_", lambda x: x.exponential_(), stats.expon()),
    ("exponential_ with a rate", lambda x: x.exponential_(lambd=2.5), stats.expon(scale=1 / 2.5)),
    ("cauchy_", lambda x: x.cauchy_(1, 0.5), stats.cauchy(1, 0.5)),
    ("log_normal_", lambda x: x.log_normal_(0.5, 0.25), stats.lognorm(0.25, scale=math.exp(0.5))),
    ("rand", lambda x: disttorch.rand_like(x), stats.uniform()),
    ("randn", lambda x: disttorch.randn_like(x), stats.norm()),
    ("normal of tensors", lambda x: disttorch.normal(disttorch.full_like(x, 3), disttorch.full_like(x, 0.5)), stats.norm(3, 0.5)),
]
COUNTS = [
    ("geometric_", lambda x: x.geometric_(0.3), stats.geom(0.3)),
    ("geometric_, seldom", lambda x: x.geometric_(0.02), stats.geom(0.02)),
    ("bernoulli_", lambda x: x.bernoulli_(0.3), stats.bernoulli(0.3)),
    ("bernoulli_ of a tensor", lambda x: x.bernoulli_(disttorch.full((N,), 0.8)), stats.bernoulli(0.8)),
    ("bernoulli", lambda x: disttorch.bernoulli(disttorch.full((N,), 0.1)), stats.bernoulli(0.1)),
    ("poisson", lambda x: disttorch.poisson(disttorch.full((N,), 3.5)), stats.poisson(3.5)),
    ("binomial", lambda x: disttorch.binomial(disttorch.full((N,), 9.0), disttorch.full((N,), 0.4)), stats.binom(9, 0.4)),
    ("random_", lambda x: x.random_(2, 9), stats.randint(2, 9)),
    ("randint", lambda x: disttorch.randint(-3, 4, (N,)), stats.randint(-3, 4)),
    (
        "multinomial",
        lambda x: disttorch.multinomial(disttorch.tensor([[1.0, 0, 3, 4], [9, 9, 0, 0]]), N, True)[0],
        stats.rv_discrete(values=(range(4), (1 / 8, 0, 3 / 8, 1 / 2))),
    ),
]


@pytest.mark.parametrize(("name", "draw", "distribution"), CONTINUOUS, ids=[c[0] for c in CONTINUOUS])
def test_continuous_distributions(name, draw, distribution):
    disttorch.manual_seed(1)
    drawn = draw(disttorch.empty(N, dtype=disttorch.float64)).numpy()
    assert stats.kstest(drawn, distribution.cdf).pvalue > 1e-3


@pytest.mark.parametrize(("name", "draw", "distribution"), COUNTS, ids=[c[0] for c in COUNTS])
def test_distributions_of_counts(name, draw, distribution):
    disttorch.manual_seed(2)
    drawn = draw(disttorch.empty(N, dtype=disttorch.float64)).double().numpy()
    assert (drawn == np.round(drawn)).all()
    values, counts = np.unique(drawn, return_counts=True)
    expected = N * distribution.pmf(values)
    assert (expected > 0).all()
    common = expected > 5
    deviation = ((counts - expected)[common] ** 2 / expected[common]).sum()
    assert deviation < stats.chi2(common.sum()).ppf(0.9999)


def test_multinomial_never_draws_the_impossible():
    rows = disttorch.tensor([[0.0, 1e-8, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0, 0.0]])
    drawn = disttorch.multinomial(rows, 1000, replacement=True)
    assert set(drawn[0].tolist()) <= {1, 3} and set(drawn[1].tolist()) == {0, 2}
    alone = disttorch.multinomial(rows[1], 2)
    assert sorted(alone.tolist()) == [0, 2]


LIMITS = [("uint8", 0, 256), ("int8", -128, 128), ("int16", -32768, 32768), ("int64", -(2**63), 2**63 - 1), ("bool", 0, 2)]


@pytest.mark.parametrize(("dtype", "low", "high"), LIMITS)
def test_ranges_of_integers(dtype, low, high):
    d = getattr(disttorch, dtype)
    x = disttorch.randint(low, high, (2000,), dtype=d)
    assert x.dtype is d
    values = x.numpy().astype(object)
    assert min(values) >= low and max(values) < high and (max(values) - min(values)) > 0.9 * (high - 1 - low)
    with pytest.raises(RuntimeError, match="out of bounds"):
        disttorch.randint(0, 2**63 + 5 if dtype == "int64" else high + 1, (2,), dtype=d)


def test_random_in_place_uses_all_that_the_dtype_has():
    for dtype, most in (("uint8", 255), ("int16", 2**15 - 1), ("float16", 2**11), ("bool", 1)):
        x = disttorch.empty(5000, dtype=getattr(disttorch, dtype)).random_().double()
        assert x.min().item() >= 0 and x.max().item() <= most and x.max().item() > 0.95 * most


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: x.exponential_(0), RuntimeError, "lambda=0"),
        (lambda x: x.cauchy_(0, 0), RuntimeError, "sigma=0"),
        (lambda x: x.log_normal_(0, 0), RuntimeError, "std=0"),
        (lambda x: x.geometric_(1.0), RuntimeError, "p=1.0"),
        (lambda x: x.bernoulli_(1.5), RuntimeError, "p=1.5"),
        (lambda x: x.bernoulli_(disttorch.tensor([2.0])), RuntimeError, "p_in"),
        (lambda x: x.random_(5, 2), RuntimeError, "from=5 >= to=2"),
        (lambda x: x.long().uniform_(), NotImplementedError, "int64"),
        (lambda x: x.long().exponential_(), RuntimeError, "int64"),
        (lambda x: disttorch.bernoulli(x.long()), NotImplementedError, "int64"),
        (lambda x: disttorch.poisson(x - 5), RuntimeError, "non-negative"),
        (lambda x: disttorch.normal(x, -x - 1), RuntimeError, "std >= 0"),
        (lambda x: disttorch.multinomial(x + 1, 0), RuntimeError, "n_sample <= 0"),
        (lambda x: disttorch.randperm(-1), RuntimeError, "-1"),
        (lambda x: disttorch.randperm(300, dtype=disttorch.uint8), RuntimeError, "299"),
        (lambda x: x.requires_grad_().uniform_(), RuntimeError, "leaf"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(disttorch.zeros(3))


def test_what_is_overwritten_at_random_has_no_gradient():
    x = disttorch.ones(4, requires_grad=True)
    y = x * 2
    y[:2].normal_()
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 2.0, 2.0]
    p = disttorch.full((3,), 0.5, requires_grad=True)
    disttorch.bernoulli(p).sum().backward()
    assert p.grad.tolist() == [0.0] * 3


def test_streams_forked():
    disttorch.manual_seed(7)
    expected = disttorch.rand(4).tolist()
    disttorch.manual_seed(7)
    with disttorch.random.fork_rng():
        assert disttorch.rand(4).tolist() == expected
        disttorch.manual_seed(99)
        disttorch.rand(100)
    assert disttorch.rand(4).tolist() == expected
    with disttorch.random.fork_rng(enabled=False):
        disttorch.manual_seed(3)
    assert disttorch.initial_seed() == 3
    with pytest.raises(ZeroDivisionError), disttorch.random.fork_rng():
        state = disttorch.get_rng_state()
        disttorch.rand(1)
        raise ZeroDivisionError
    assert disttorch.get_rng_state().tolist() == state.tolist()
    assert disttorch.default_generator is disttorch.random.default_generator


def test_generators_copied():
    g = disttorch.Generator().manual_seed(11)
    disttorch.rand(3, generator=g)
    other, sent = g.clone_state(), pickle.loads(pickle.dumps(g))
    expected = disttorch.rand(5, generator=g).tolist()
    assert disttorch.rand(5, generator=other).tolist() == disttorch.rand(5, generator=sent).tolist() == expected
    assert other.initial_seed() == sent.initial_seed() == 11 and g.device == disttorch.device("cpu")
    with pytest.raises(TypeError, match="list"):
        g.set_state([1, 2])


FILLED = [
    ("empty_strided", lambda m: (m.empty_strided((2, 3), (1, 4)), ("shape", "stride"))),
    ("empty_permuted", lambda m: (m.empty_permuted((2, 3, 4), (0, 2, 1)), ("shape", "stride"))),
    ("new_empty_strided", lambda m: (m.zeros(1).new_empty_strided((2, 2), (1, 2)), ("shape", "stride"))),
    ("zeros_like keeps the layout", lambda m: (m.zeros_like(m.ones(2, 3).t()), ("shape", "stride"))),
    ("clone keeps the layout", lambda m: (m.ones(2, 3).t().clone(), ("shape", "stride"))),
    ("clone in C order", lambda m: (m.ones(2, 3).t().clone(memory_format=m.contiguous_format), ("shape", "stride"))),
]


@pytest.mark.parametrize(("name", "make"), FILLED, ids=[f[0] for f in FILLED])
def test_layouts_against_pytorch(name, make, torch):
    ours, theirs = make(disttorch)[0], make(torch)[0]
    assert tuple(ours.shape) == tuple(theirs.shape) and ours.stride() == theirs.stride()


def test_layouts_and_formats_are_constants():
    for name in ("contiguous_format", "channels_last", "channels_last_3d", "preserve_format", "strided"):
        constant = getattr(disttorch, name)
        assert repr(constant) == f"disttorch.{name}" and pickle.loads(pickle.dumps(constant)) is constant
    x = disttorch.zeros(2, layout=disttorch.strided, pin_memory=False)
    assert x.layout is disttorch.strided and isinstance(disttorch.channels_last, disttorch.memory_format)
    with pytest.raises(RuntimeError, match="no layout"):
        disttorch.zeros(2, layout="sparse")
