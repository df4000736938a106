"""Distributions beside PyTorch's: densities, moments, quantiles, entropies and divergences, with the gradients by their parameters."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import disttorch

rng = np.random.default_rng(7)
POSITIVE = rng.uniform(0.3, 3.0, (3, 1))
POSITIVE2 = rng.uniform(0.3, 3.0, (4,))
REAL = rng.standard_normal((3, 1))
PROBS = rng.uniform(0.1, 0.9, (3, 4))
LOGITS = rng.standard_normal((3, 4))
SHARES = rng.dirichlet(np.ones(4), 3)
COVARIANCE = np.eye(4) * 0.5 + 0.3
FACTOR = np.linalg.cholesky(COVARIANCE)
BATCH_FACTOR = np.stack([np.linalg.cholesky(COVARIANCE + np.eye(4) * k) for k in range(3)])
COUNTS = np.array([[0.0, 1.0, 3.0, 2.0]])
VALUES = {
    "real": rng.standard_normal((2, 3, 4)) * 2,
    "positive": rng.uniform(0.1, 4.0, (2, 3, 4)),
    "unit": rng.uniform(0.05, 0.95, (2, 3, 4)),
    "bool": rng.integers(0, 2, (2, 3, 4)).astype(float),
    "count": rng.integers(0, 5, (2, 3, 4)).astype(float),
    "index": rng.integers(0, 4, (2, 3)),
    "one hot": np.eye(4)[rng.integers(0, 4, (2, 3))],
    "counts": np.broadcast_to(COUNTS, (3, 4)).copy(),
    "shares": rng.dirichlet(np.ones(4), (2, 3)),
    "shares5": rng.dirichlet(np.ones(5), (2, 3)),
    "inside": rng.uniform(-0.9, 0.9, (2, 3, 4)),
}

#: name: (class, parameters, what its values are)
CASES = {
    "Normal": ("Normal", {"loc": REAL, "scale": POSITIVE2}, "real"),
    "LogNormal": ("LogNormal", {"loc": REAL, "scale": POSITIVE2}, "positive"),
    "HalfNormal": ("HalfNormal", {"scale": POSITIVE2}, "positive"),
    "Laplace": ("Laplace", {"loc": REAL, "scale": POSITIVE2}, "real"),
    "Cauchy": ("Cauchy", {"loc": REAL, "scale": POSITIVE2}, "real"),
    "HalfCauchy": ("HalfCauchy", {"scale": POSITIVE2}, "positive"),
    "Gumbel": ("Gumbel", {"loc": REAL, "scale": POSITIVE2 + 1}, "positive"),
    "StudentT": ("StudentT", {"df": POSITIVE + 2.5, "loc": REAL, "scale": POSITIVE2}, "real"),
    "StudentT, few degrees": ("StudentT", {"df": np.array([0.5, 1.5, 2.5, 9.0])}, "real"),
    "Uniform": ("Uniform", {"low": -POSITIVE - 9, "high": POSITIVE2 + 9}, "real"),
    "Exponential": ("Exponential", {"rate": POSITIVE2}, "positive"),
    "Gamma": ("Gamma", {"concentration": POSITIVE, "rate": POSITIVE2}, "positive"),
    "InverseGamma": ("InverseGamma", {"concentration": POSITIVE, "rate": POSITIVE2}, "positive"),
    "Chi2": ("Chi2", {"df": POSITIVE2}, "positive"),
    "FisherSnedecor": ("FisherSnedecor", {"df1": POSITIVE, "df2": POSITIVE2 * 4}, "positive"),
    "Beta": ("Beta", {"concentration1": POSITIVE, "concentration0": POSITIVE2}, "unit"),
    "Dirichlet": ("Dirichlet", {"concentration": POSITIVE + PROBS * 2}, "shares"),
    "Bernoulli": ("Bernoulli", {"probs": PROBS}, "bool"),
    "Bernoulli, logits": ("Bernoulli", {"logits": LOGITS}, "bool"),
    "Binomial": ("Binomial", {"total_count": 5, "probs": PROBS}, "count"),
    "Binomial, logits": ("Binomial", {"total_count": 5, "logits": LOGITS}, "count"),
    "Geometric": ("Geometric", {"probs": PROBS}, "count"),
    "Geometric, logits": ("Geometric", {"logits": LOGITS}, "count"),
    "NegativeBinomial": ("NegativeBinomial", {"total_count": POSITIVE2, "probs": PROBS}, "count"),
    "NegativeBinomial, logits": ("NegativeBinomial", {"total_count": 3, "logits": LOGITS}, "count"),
    "Poisson": ("Poisson", {"rate": POSITIVE}, "count"),
    "Categorical": ("Categorical", {"probs": PROBS}, "index"),
    "Categorical, logits": ("Categorical", {"logits": LOGITS}, "index"),
    "OneHotCategorical": ("OneHotCategorical", {"probs": PROBS}, "one hot"),
    "OneHotCategorical, logits": ("OneHotCategorical", {"logits": LOGITS}, "one hot"),
    "Multinomial": ("Multinomial", {"total_count": 6, "probs": PROBS}, "counts"),
    "Multinomial, logits": ("Multinomial", {"total_count": 6, "logits": LOGITS}, "counts"),
    "MultivariateNormal": ("MultivariateNormal", {"loc": LOGITS, "covariance_matrix": COVARIANCE}, "real"),
    "MultivariateNormal, precision": ("MultivariateNormal", {"loc": LOGITS[0], "precision_matrix": COVARIANCE}, "real"),
    "MultivariateNormal, factor": ("MultivariateNormal", {"loc": LOGITS, "scale_tril": FACTOR}, "real"),
    "MultivariateNormal, batch": ("MultivariateNormal", {"loc": LOGITS[0], "scale_tril": BATCH_FACTOR}, "real"),
    "LogisticNormal": ("LogisticNormal", {"loc": LOGITS, "scale": POSITIVE2}, "shares5"),
    "RelaxedBernoulli": ("RelaxedBernoulli", {"temperature": np.array(0.7), "probs": PROBS}, "unit"),
    "RelaxedBernoulli, logits": ("RelaxedBernoulli", {"temperature": np.array(0.7), "logits": LOGITS}, "unit"),
    "RelaxedOneHotCategorical": ("RelaxedOneHotCategorical", {"temperature": np.array(0.7), "probs": PROBS}, "shares"),
    "RelaxedOneHotCategorical, logits": ("RelaxedOneHotCategorical", {"temperature": np.array(0.7), "logits": LOGITS}, "shares"),
}
#: names of what is computed, for every case; what one library lacks the other must lack too
ATTRIBUTES = "mean mode variance stddev batch_shape event_shape has_rsample has_enumerate_support".split()
METHODS = "entropy perplexity enumerate_support".split()


def tensors(module, parameters):
    """Arrays as tensors that ask for their gradients."""
    made = {}
    for name, value in parameters.items():
        made[name] = module.tensor(value, dtype=module.float64, requires_grad=True) if isinstance(value, np.ndarray) else value
    return made


def result(action):
    try:
        return action()
    except (NotImplementedError, AttributeError) as error:
        return type(error) if isinstance(error, AttributeError) else NotImplementedError


def plain(value):
    return value.detach().numpy() if hasattr(value, "detach") else value


def agree(ours, theirs, what, rtol=1e-9):
    if not hasattr(theirs, "detach"):
        assert (tuple(ours) == tuple(theirs)) if isinstance(theirs, tuple) else ours == theirs, (what, ours, theirs)
        return
    assert str(ours.dtype).rpartition(".")[2] == str(theirs.dtype).rpartition(".")[2], what
    assert tuple(ours.shape) == tuple(theirs.shape), (what, ours.shape, theirs.shape)
    np.testing.assert_allclose(plain(ours), plain(theirs), rtol=rtol, atol=1e-10, err_msg=what)


def made(name):
    """The distribution of a case in both libraries, with its parameters."""
    cls, parameters, _ = CASES[name]
    both = []
    for module, package in ((disttorch, disttorch.distributions), (torch, torch.distributions)):
        ts = tensors(module, parameters)
        both.append((getattr(package, cls)(**ts), [t for t in ts.values() if hasattr(t, "detach")]))
    return both


def check_gradients(ours, mine, theirs, other, what, rtol=1e-8):
    """The gradients of a result's sum by the parameters."""
    if not getattr(theirs, "requires_grad", False):
        return
    a = disttorch.autograd.grad(ours.sum(), mine, allow_unused=True, retain_graph=True)
    b = torch.autograd.grad(theirs.sum(), other, allow_unused=True, retain_graph=True)
    for x, y in zip(a, b):
        if x is not None and y is not None:
            agree(x, y, f"gradient of {what}", rtol)
        else:
            assert not np.any(plain(y if x is None else x)) if (x is None) != (y is None) else True, what


@pytest.mark.parametrize("name", CASES)
def test_moments(name):
    (ours, mine), (theirs, other) = made(name)
    for attribute in ATTRIBUTES:
        a, b = (result(lambda d=d, attribute=attribute: getattr(d, attribute)) for d in (ours, theirs))
        agree(a, b, attribute)
        if attribute != "mode":
            check_gradients(a, mine, b, other, attribute)
    for method in METHODS:
        a, b = (result(lambda d=d, method=method: getattr(d, method)()) for d in (ours, theirs))
        if b is not NotImplementedError:  # PyTorch lacks a few entropies
            rtol = 1e-6 if name.startswith("Multinomial") else 1e-8  # PyTorch's entropy is in float32 in part
            agree(a, b, method, rtol)
            check_gradients(a, mine, b, other, method, rtol)


@pytest.mark.parametrize("name", CASES)
def test_densities(name):
    (ours, mine), (theirs, other) = made(name)
    value = VALUES[CASES[name][2]]
    for method, values in (("log_prob", value), ("cdf", value), ("icdf", VALUES["unit"])):
        a = result(lambda method=method, values=values: getattr(ours, method)(disttorch.tensor(values)))
        b = result(lambda method=method, values=values: getattr(theirs, method)(torch.tensor(values)))
        if b is not NotImplementedError:
            agree(a, b, method)
            if name not in ("Gamma", "Chi2", "InverseGamma") or method != "cdf":  # not differentiable by the shape parameter
                check_gradients(a, mine, b, other, method)


@pytest.mark.parametrize("name", CASES)
def test_description_and_expansion(name):
    (ours, _), (theirs, _) = made(name)
    # those that PyTorch makes of others name no parameters, or the others'
    if not name.startswith(("Relaxed", "Logistic", "LogNormal", "Half", "InverseGamma", "Chi2", "Beta", "OneHot", "Multinomial")):
        assert repr(ours).replace("disttorch.", "torch.") == repr(theirs)
    value = VALUES[CASES[name][2]]
    shape = value.shape[: value.ndim - len(theirs.event_shape)]
    ours, theirs = ours.expand(shape), theirs.expand(shape)
    assert (ours.batch_shape, ours.event_shape) == (tuple(theirs.batch_shape), tuple(theirs.event_shape))
    assert tuple(ours.sample((5,)).shape) == tuple(theirs.sample((5,)).shape)
    assert str(ours.sample().dtype).rpartition(".")[2] == str(theirs.sample().dtype).rpartition(".")[2]
    agree(ours.log_prob(disttorch.tensor(value)), theirs.log_prob(torch.tensor(value)), "log_prob")
    support = result(lambda: theirs.support)
    assert repr(ours.support).replace("disttorch.", "torch.") == repr(support) or "Independent" in repr(support)


@pytest.mark.parametrize("name", CASES)
def test_divergences(name):
    (p, mine), (p2, other) = made(name)
    cls, parameters, _ = CASES[name]
    moved = {}
    for k, v in parameters.items():
        moved[k] = v
        if isinstance(v, np.ndarray):
            moved[k] = v * 0.9 if k in ("probs", "covariance_matrix", "scale_tril", "precision_matrix") else v * 1.2 + 0.01
    q = getattr(disttorch.distributions, cls)(**tensors(disttorch, moved))
    q2 = getattr(torch.distributions, cls)(**tensors(torch, moved))
    a, b = result(lambda: disttorch.distributions.kl_divergence(p, q)), result(lambda: torch.distributions.kl_divergence(p2, q2))
    if b is not NotImplementedError:
        agree(a, b, "kl_divergence")
        check_gradients(a, mine, b, other, "kl_divergence")


PAIRS = [
    ("Exponential", "Gamma"), ("Gamma", "Exponential"), ("Uniform", "Normal"), ("Laplace", "Normal"), ("Uniform", "Uniform"),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_divergences_of_two_families(first, second):
    (p, mine), (p2, other) = made(first)
    (q, _), (q2, _) = made(second)
    a, b = disttorch.distributions.kl_divergence(p, q), torch.distributions.kl_divergence(p2, q2)
    agree(a, b, f"{first} from {second}")
    check_gradients(a, mine, b, other, f"{first} from {second}")


#: name: (how to make it, arguments)
TRANSFORMS = {
    "exp": (lambda D, t: D.ExpTransform(), "real"),
    "sigmoid": (lambda D, t: D.SigmoidTransform(), "real"),
    "softplus": (lambda D, t: D.SoftplusTransform(), "real"),
    "tanh": (lambda D, t: D.TanhTransform(cache_size=1), "real"),
    "affine": (lambda D, t: D.AffineTransform(t(REAL), t(-POSITIVE2)), "real"),
    "affine of vectors": (lambda D, t: D.AffineTransform(1.0, 2.0, event_dim=1), "real"),
    "power": (lambda D, t: D.PowerTransform(t(POSITIVE2)), "positive"),
    "softmax": (lambda D, t: D.SoftmaxTransform(), "real"),
    "stick breaking": (lambda D, t: D.StickBreakingTransform(), "real"),
    "reshape": (lambda D, t: D.ReshapeTransform((3, 4), (2, 6)), "real"),
    "independent": (lambda D, t: D.IndependentTransform(D.ExpTransform(), 1), "real"),
    "compose": (lambda D, t: D.ComposeTransform([D.AffineTransform(0.5, 2.0), D.TanhTransform(), D.AffineTransform(0.0, 3.0)]), "real"),
    "compose with vectors": (lambda D, t: D.ComposeTransform([D.AffineTransform(0.5, 2.0), D.StickBreakingTransform()]), "real"),
    "inverse": (lambda D, t: D.ExpTransform().inv, "positive"),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name):
    make, kind = TRANSFORMS[name]
    ours = make(disttorch.distributions, disttorch.tensor)
    theirs = make(torch.distributions, torch.tensor)
    x, x2 = disttorch.tensor(VALUES[kind]), torch.tensor(VALUES[kind])
    y, y2 = ours(x), theirs(x2)
    agree(y, y2, "value")
    agree(ours.inv(y + 0), theirs.inv(y2 + 0), "inverse")
    assert ours.bijective == theirs.bijective
    assert ours.domain.event_dim == theirs.domain.event_dim and ours.codomain.event_dim == theirs.codomain.event_dim
    assert tuple(ours.forward_shape(x.shape)) == tuple(theirs.forward_shape(x2.shape))
    assert tuple(ours.inverse_shape(y.shape)) == tuple(theirs.inverse_shape(y2.shape))
    if theirs.bijective:
        agree(ours.log_abs_det_jacobian(x, y), theirs.log_abs_det_jacobian(x2, y2), "log_abs_det_jacobian")
        agree(ours.inv.log_abs_det_jacobian(y, x), theirs.inv.log_abs_det_jacobian(y2, x2), "of the inverse")


def test_the_transform_of_correlation_matrices():
    x = rng.standard_normal((2, 6))
    ours, theirs = disttorch.distributions.CorrCholeskyTransform(), torch.distributions.CorrCholeskyTransform()
    y, y2 = ours(disttorch.tensor(x)), theirs(torch.tensor(x))
    agree(y, y2, "value")
    agree(ours.inv(y), theirs.inv(y2), "inverse", 1e-6)
    agree(ours.log_abs_det_jacobian(disttorch.tensor(x), y), theirs.log_abs_det_jacobian(torch.tensor(x), y2), "log_abs_det_jacobian")


#: name: (how to make it, values)
MADE_OF_OTHERS = {
    "tanh": (lambda D, t: D.TransformedDistribution(D.Normal(t(REAL), t(POSITIVE2)), [D.TanhTransform(cache_size=1)]), "inside"),
    "falling": (lambda D, t: D.TransformedDistribution(D.Normal(t(REAL), t(POSITIVE2)), D.AffineTransform(1.0, -2.0)), "real"),
    "shares": (lambda D, t: D.TransformedDistribution(D.Normal(t(LOGITS), t(POSITIVE2)), D.StickBreakingTransform()), "shares5"),
    "of vectors": (lambda D, t: D.TransformedDistribution(D.MultivariateNormal(t(LOGITS), t(COVARIANCE)), [D.ExpTransform()]), "positive"),
    "independent": (lambda D, t: D.Independent(D.Normal(t(REAL), t(POSITIVE2)), 1), "real"),
    "independent, twice": (lambda D, t: D.Independent(D.Normal(t(REAL), t(POSITIVE2)), 2), "real"),
    "mixture": (lambda D, t: D.MixtureSameFamily(D.Categorical(t(SHARES[0])), D.Normal(t(LOGITS), 1.0)), "positive"),
    "mixture of vectors": (
        lambda D, t: D.MixtureSameFamily(D.Categorical(t(SHARES[0, :3])), D.Independent(D.Normal(t(LOGITS), 1.0), 1)),
        "real",
    ),
}


@pytest.mark.parametrize("name", MADE_OF_OTHERS)
def test_distributions_made_of_others(name):
    make, kind = MADE_OF_OTHERS[name]
    ours, theirs = make(disttorch.distributions, disttorch.tensor), make(torch.distributions, torch.tensor)
    value = VALUES[kind][..., 0] if name == "mixture" else VALUES[kind]
    value = value[..., :2, :].mean(-2) if name == "mixture of vectors" else value
    for attribute in ATTRIBUTES:
        a, b = (result(lambda d=d, attribute=attribute: getattr(d, attribute)) for d in (ours, theirs))
        if b is not NotImplementedError:
            agree(a, b, attribute)
    for method in ("log_prob", "cdf", "icdf"):
        values = VALUES["unit"][..., : value.shape[-1]] if method == "icdf" else value
        a = result(lambda method=method, values=values: getattr(ours, method)(disttorch.tensor(values)))
        b = result(lambda method=method, values=values: getattr(theirs, method)(torch.tensor(values)))
        if b is not NotImplementedError:
            agree(a, b, method)
    shape = (2, *theirs.batch_shape)
    assert tuple(ours.expand(shape).sample((6,)).shape) == tuple(theirs.expand(shape).sample((6,)).shape)


@pytest.mark.parametrize("registry", ["biject_to", "transform_to"])
@pytest.mark.parametrize(
    "name",
    "real positive nonnegative unit_interval simplex lower_cholesky positive_definite corr_cholesky real_vector".split(),
)
def test_transforms_to_constraints(registry, name):
    D, D2 = disttorch.distributions, torch.distributions
    try:
        theirs = getattr(D2, registry)(getattr(D2.constraints, name))
    except NotImplementedError:
        pytest.skip("PyTorch has none")
    constraint = getattr(D.constraints, name)
    ours = getattr(D, registry)(constraint)
    x = rng.standard_normal((5, 4, 4) if theirs.domain.event_dim == 2 else (5, 6))
    y = ours(disttorch.tensor(x))
    agree(y, theirs(torch.tensor(x)), name)
    assert constraint.check(y).all()


REFUSED = {
    "scale": lambda D, t: D.Normal(0.0, -1.0),
    "nan": lambda D, t: D.Normal(float("nan"), 1.0),
    "probability": lambda D, t: D.Bernoulli(1.5),
    "both": lambda D, t: D.Bernoulli(probs=0.5, logits=0.1),
    "neither": lambda D, t: D.Categorical(),
    "no dimension": lambda D, t: D.Categorical(t(0.5)),
    "negative": lambda D, t: D.Categorical(t([0.5, -0.1])),
    "interval": lambda D, t: D.Uniform(1.0, 0.0),
    "covariance": lambda D, t: D.MultivariateNormal(t([0.0, 0.0]), t([[1.0, 2.0], [2.0, 1.0]])),
    "two matrices": lambda D, t: D.MultivariateNormal(t([0.0]), t([[1.0]]), t([[1.0]])),
    "outside": lambda D, t: D.Beta(1.0, 1.0).log_prob(t(1.5)),
    "no integer": lambda D, t: D.Poisson(1.0).log_prob(t(1.5)),
    "no class": lambda D, t: D.Categorical(t([0.5, 0.5])).log_prob(t(2)),
    "shape": lambda D, t: D.Normal(t([0.0, 1.0]), 1.0).log_prob(t([0.0, 0.0, 0.0])),
    "event shape": lambda D, t: D.Dirichlet(t([1.0, 1.0])).log_prob(t([0.2, 0.3, 0.5])),
    "no tensor": lambda D, t: D.Normal(0.0, 1.0).log_prob(0.5),
    "string": lambda D, t: D.Normal("a", 1.0),
    "too many": lambda D, t: D.Independent(D.Normal(t([0.0]), 1.0), 2),
    "no divergence": lambda D, t: D.kl_divergence(D.Normal(0.0, 1.0), D.Bernoulli(0.5)),
    "no rsample": lambda D, t: D.Bernoulli(0.5).rsample(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    with pytest.raises(Exception) as theirs:
        REFUSED[name](torch.distributions, torch.tensor)
    with pytest.raises(Exception) as ours:
        REFUSED[name](disttorch.distributions, disttorch.tensor)
    assert ours.type.__mro__[0].__name__ == theirs.type.__mro__[0].__name__, (ours.value, theirs.value)
