"""Draws have their distribution, and gradients through them are those of the expectation."""

import numpy as np
import pytest
import scipy.special as sp
import scipy.stats as st

import disttorch as torch
import disttorch.distributions as D
from disttorch.backend.cpu import cpu as xp

CONTINUOUS = {
    "normal": (lambda: D.Normal(1.5, 2.0), st.norm(1.5, 2)),
    "log-normal": (lambda: D.LogNormal(0.5, 0.7), st.lognorm(0.7, scale=np.exp(0.5))),
    "half-normal": (lambda: D.HalfNormal(2.0), st.halfnorm(scale=2)),
    "Laplace": (lambda: D.Laplace(1.0, 0.5), st.laplace(1, 0.5)),
    "Cauchy": (lambda: D.Cauchy(1.0, 0.5), st.cauchy(1, 0.5)),
    "half-Cauchy": (lambda: D.HalfCauchy(0.5), st.halfcauchy(scale=0.5)),
    "Gumbel": (lambda: D.Gumbel(1.0, 0.5), st.gumbel_r(1, 0.5)),
    "Student": (lambda: D.StudentT(3.0, 1.0, 0.5), st.t(3, 1, 0.5)),
    "uniform": (lambda: D.Uniform(-1.0, 3.0), st.uniform(-1, 4)),
    "exponential": (lambda: D.Exponential(2.5), st.expon(scale=0.4)),
    "gamma": (lambda: D.Gamma(2.5, 2.0), st.gamma(2.5, scale=0.5)),
    "gamma below 1": (lambda: D.Gamma(0.3, 2.0), st.gamma(0.3, scale=0.5)),
    "chi2": (lambda: D.Chi2(3.0), st.chi2(3)),
    "inverse gamma": (lambda: D.InverseGamma(2.5, 2.0), st.invgamma(2.5, scale=2)),
    "beta": (lambda: D.Beta(0.5, 2.0), st.beta(0.5, 2)),
    "F": (lambda: D.FisherSnedecor(3.0, 7.0), st.f(3, 7)),
    "part of a Dirichlet": (lambda: D.Dirichlet(torch.tensor([0.5, 1.5, 0.5])), st.beta(0.5, 2)),
    "tanh": (lambda: D.TransformedDistribution(D.Normal(0.0, 1.0), D.TanhTransform()), None),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_kolmogorov_smirnov(name):
    torch.manual_seed(2)
    make, theirs = CONTINUOUS[name]
    draws = make().sample((4000,)).double().numpy()
    draws = draws[:, 0] if draws.ndim == 2 else draws
    cdf = theirs.cdf if theirs is not None else lambda v: st.norm.cdf(np.arctanh(v))
    assert st.kstest(draws, cdf).pvalue > 1e-3


DISCRETE = {
    "Bernoulli": (lambda: D.Bernoulli(0.3), st.bernoulli(0.3)),
    "binomial": (lambda: D.Binomial(5, 0.3), st.binom(5, 0.3)),
    "geometric": (lambda: D.Geometric(0.4), st.geom(0.4, loc=-1)),
    "negative binomial": (lambda: D.NegativeBinomial(2.5, 0.4), st.nbinom(2.5, 0.6)),
    "Poisson": (lambda: D.Poisson(1.7), st.poisson(1.7)),
    "categorical": (lambda: D.Categorical(torch.tensor([1.0, 2.0, 5.0])), st.rv_discrete(values=([0, 1, 2], [1 / 8, 2 / 8, 5 / 8]))),
    "part of a multinomial": (lambda: D.Multinomial(5, torch.tensor([0.3, 0.5, 0.2])), st.binom(5, 0.3)),
}


@pytest.mark.parametrize("name", DISCRETE)
def test_frequencies(name):
    torch.manual_seed(3)
    make, theirs = DISCRETE[name]
    draws = make().sample((8000,)).double().numpy()
    draws = draws[:, 0] if draws.ndim == 2 else draws
    for k in range(4):
        p = theirs.pmf(k)
        assert abs((draws == k).mean() - p) <= 5 * np.sqrt(p * (1 - p) / 8000) + 1e-12, k


def test_a_mixture_and_vectors():
    torch.manual_seed(4)
    mixture = D.MixtureSameFamily(D.Categorical(torch.tensor([0.25, 0.75])), D.Normal(torch.tensor([-3.0, 1.0]), torch.tensor([0.5, 2.0])))
    draws = mixture.sample((4000,)).double().numpy()
    assert st.kstest(draws, lambda v: 0.25 * st.norm.cdf(v, -3, 0.5) + 0.75 * st.norm.cdf(v, 1, 2)).pvalue > 1e-3
    covariance = torch.tensor([[2.0, 0.8], [0.8, 1.0]])
    for matrix in ({"covariance_matrix": covariance}, {"precision_matrix": covariance.inverse()}):
        normal = D.MultivariateNormal(torch.ones(2), **matrix)
        draws = normal.sample((20000,))
        assert torch.allclose(draws.mean(0), torch.ones(2), atol=0.05)
        assert torch.allclose(draws.T.cov(), covariance, atol=0.08)


@pytest.mark.parametrize("a", [0.02, 0.3, 1.0, 2.5, 9.0, 40.0, 800.0])
def test_how_a_gamma_draw_follows_its_parameter(a):
    """Beside a difference of SciPy's quantile function, or of the logarithm's series where the draw is tiny."""
    for p in (0.01, 0.3, 0.6, 0.97, 0.9999):
        h = 1e-5 * a
        upper = p > 0.5
        quantile = (lambda b, p=p: sp.gammainccinv(b, 1 - p)) if upper else (lambda b, p=p: sp.gammaincinv(b, p))
        x = quantile(a)
        if x < 1e-200:  # x = (p gamma(a + 1)) ** (1 / a)
            log_x = (np.log(p) + sp.gammaln(a + 1)) / a
            expected = (sp.digamma(a + 1) - log_x) / a
        else:
            log_x = np.log(x)
            expected = (np.log(quantile(a + h)) - np.log(quantile(a - h))) / (2 * h)
        found = xp.log_gamma_slope(np.array([a]), np.array([log_x]))[0]
        assert found == pytest.approx(expected, rel=2e-6), (a, p)


#: name: (of its parameter, the parameter, its expectation's derivative)
PATHWISE = {
    "normal": (lambda s: D.Normal(1.0, s), 2.0, 0.0),
    "gamma": (lambda a: D.Gamma(a, 2.0), 1.7, 0.5),
    "gamma, small": (lambda a: D.Gamma(a, 2.0), 0.2, 0.5),
    "beta": (lambda a: D.Beta(a, 2.0), 1.5, 2.0 / 3.5**2),
    "chi2": (lambda a: D.Chi2(a), 3.0, 1.0),
    "exponential": (lambda r: D.Exponential(r), 2.0, -0.25),
    "log-normal": (lambda m: D.LogNormal(m, 0.5), 0.3, np.exp(0.3 + 0.125)),
    "uniform": (lambda h: D.Uniform(0.0, h), 2.0, 0.5),
    "Gumbel": (lambda s: D.Gumbel(0.0, s), 1.0, 0.5772156649),
    "Dirichlet": (lambda a: D.Dirichlet(torch.stack([a, a * 0 + 1, a * 0 + 1])), 1.5, 2 / 3.5**2),
    "inverse gamma": (lambda b: D.InverseGamma(4.0, b), 2.0, 1 / 3),
}


@pytest.mark.parametrize("name", PATHWISE)
def test_gradients_through_draws(name):
    torch.manual_seed(5)
    make, value, expected = PATHWISE[name]
    parameter = torch.full((20000,), value, dtype=torch.float64, requires_grad=True)
    distribution = make(parameter) if name != "Dirichlet" else D.Dirichlet(torch.stack([parameter, *torch.ones(2, 20000).double()], -1))
    draws = distribution.rsample()
    draws = draws[:, 0] if draws.ndim == 2 else draws
    (each,) = torch.autograd.grad(draws.sum(), parameter)
    error = each.std().item() / np.sqrt(20000)
    assert abs(each.mean().item() - expected) <= 5 * error + 1e-12


def test_tiny_shares():
    torch.manual_seed(0)
    a = torch.full((500, 3), 0.004, requires_grad=True)
    shares = D.Dirichlet(a).rsample()
    assert bool(shares.isfinite().all()) and torch.allclose(shares.sum(-1), torch.ones(500))
    (gradient,) = torch.autograd.grad((shares[:, 0] ** 2).sum(), a)
    assert bool(gradient.isfinite().all())
    inside = D.Beta(torch.full((500,), 0.004), 0.004).sample()
    assert bool(((inside > 0) & (inside < 1)).all())


def test_samples_carry_no_gradient_and_repeat_with_the_seed():
    loc = torch.zeros(3, requires_grad=True)
    assert not D.Normal(loc, 1.0).sample().requires_grad
    assert D.Normal(loc, 1.0).rsample().requires_grad
    torch.manual_seed(1)
    first = D.Gamma(loc + 1, 1.0).sample((2,))
    torch.manual_seed(1)
    assert torch.equal(first, D.Gamma(loc + 1, 1.0).sample((2,)))
    with pytest.raises(NotImplementedError, match="Poisson has no rsample"):
        D.Poisson(1.0).rsample()


def test_second_derivatives_through_a_gamma_draw():
    """Those by the rate are there; those by the shape parameter are refused and not taken as 0."""
    a, rate = (torch.tensor(2.5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    x = D.Gamma(a, rate).rsample()
    by_a, by_rate = torch.autograd.grad(x * x, (a, rate), create_graph=True)
    (second,) = torch.autograd.grad(by_rate, rate, retain_graph=True)
    assert second.item() == pytest.approx(6 * x.item() ** 2 / 2.5**2)
    with pytest.raises(NotImplementedError, match="second derivative of a gamma-distributed draw"):
        torch.autograd.grad(by_a, a)
