"""Shapes, expansion, what is refused, gradients of densities, transforms that undo themselves, and PyTorch's paths."""

import importlib

import pytest

import disttorch as torch
import disttorch.distributions as D

f64 = torch.float64


def positive(*shape):
    return torch.rand(*shape, dtype=f64, generator=torch.Generator().manual_seed(1)) + 0.5


def test_shapes():
    d = D.Normal(torch.zeros(4, 1), torch.ones(3))
    assert (d.batch_shape, d.event_shape) == ((4, 3), ()) and d.sample((2, 5)).shape == (2, 5, 4, 3)
    assert D.Normal(0, 1).batch_shape == () and D.Normal(0, 1).sample().dtype is torch.get_default_dtype()
    d = D.Dirichlet(torch.ones(2, 5))
    assert (d.batch_shape, d.event_shape) == ((2,), (5,)) and d.log_prob(d.sample((3,))).shape == (3, 2)
    d = D.Independent(D.Bernoulli(torch.full((2, 3, 4), 0.5)), 2)
    assert (d.batch_shape, d.event_shape) == ((2,), (3, 4)) and d.log_prob(d.sample((6,))).shape == (6, 2)
    d = D.MultivariateNormal(torch.zeros(3), torch.eye(3).expand(5, 3, 3))
    assert (d.batch_shape, d.event_shape) == ((5,), (3,)) and d.rsample((2,)).shape == (2, 5, 3)
    assert D.Categorical(torch.ones(2, 3)).expand((4, 2)).sample((5,)).shape == (5, 4, 2)
    assert D.Categorical(torch.ones(0, 3)).sample().shape == (0,)
    d = D.TransformedDistribution(D.Normal(torch.zeros(2, 3), 1.0), D.StickBreakingTransform())
    assert (d.batch_shape, d.event_shape) == ((2,), (4,)) and d.log_prob(d.sample((5,))).shape == (5, 2)


def test_what_is_given_is_kept_and_the_rest_computed_when_asked_for():
    logits = torch.zeros(3, requires_grad=True)
    d = D.Categorical(logits=logits)
    assert "probs" not in d.__dict__ and "probs" not in d.expand((2,)).__dict__
    with torch.no_grad():
        probs = d.probs
    assert probs is d.probs and probs.requires_grad


REFUSED = {
    "scale of shape": (lambda: D.Normal(torch.zeros(2), torch.tensor([1.0, -2.0])), "parameter scale .* of shape \\(2,\\).*-2"),
    "support": (lambda: D.Exponential(1.0).log_prob(torch.tensor(-1.0)), "within the support .*lower_bound=0.0"),
    "no integer": (lambda: D.Bernoulli(0.5).log_prob(torch.tensor(0.5)), "within the support"),
    "both": (lambda: D.Categorical(torch.ones(2), torch.ones(2)), "Either `probs` or `logits`"),
    "bounds": (lambda: D.Uniform(2.0, 1.0), "low >= high"),
    "shape": (lambda: D.Normal(torch.zeros(3), 1.0).log_prob(torch.zeros(2)), "\\(2,\\) vs \\(3,\\)"),
    "event": (lambda: D.Dirichlet(torch.ones(3)).log_prob(torch.ones(2) / 2), "\\(2,\\) vs \\(3,\\)"),
    "matrix": (lambda: D.MultivariateNormal(torch.zeros(2), -torch.eye(2)), "covariance_matrix"),
    "transforms": (lambda: D.TransformedDistribution(D.Normal(0.0, 1.0), [1]), "Transform or list"),
    "components": (lambda: D.MixtureSameFamily(D.Categorical(torch.ones(2)), D.Normal(torch.zeros(3), 1.0)), "\\(2\\) does not equal"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    action, message = REFUSED[name]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        action()


def test_checks_can_be_left_out():
    assert D.Normal(0.0, -1.0, validate_args=False).scale.item() == -1
    D.Distribution.set_default_validate_args(False)
    try:
        assert D.Exponential(-1.0).rate.item() == -1
    finally:
        D.Distribution.set_default_validate_args(True)
    with pytest.raises(ValueError, match="parameter rate"):
        D.Exponential(-1.0)


DENSITIES = {
    "normal": (lambda a, b: D.Normal(a, b).log_prob(b), 2),
    "gamma": (lambda a, b: D.Gamma(a, b).log_prob(a + b), 2),
    "beta": (lambda a, b: D.Beta(a, b).log_prob(a / (a + b)), 2),
    "Dirichlet": (lambda a: D.Dirichlet(a).log_prob(a / a.sum()), 1),
    "categorical": (lambda a: D.Categorical(logits=a).log_prob(torch.tensor([1])), 1),
    "Bernoulli": (lambda a: D.Bernoulli(logits=a).log_prob(torch.ones(3, dtype=f64)), 1),
    "Student": (lambda a, b: D.StudentT(a, 0.3, b).log_prob(b), 2),
    "vectors": (lambda a, b: D.MultivariateNormal(a, torch.diag(b) + 0.1).log_prob(b), 2),
    "tanh": (lambda a, b: D.TransformedDistribution(D.Normal(a, b), D.TanhTransform()).log_prob(a / 3), 2),
    "entropy": (lambda a, b: D.Gamma(a, b).entropy() + D.Beta(a, b).entropy(), 2),
    "divergence": (lambda a, b: D.kl_divergence(D.Gamma(a, b), D.Gamma(b, a)), 2),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_gradients_of_densities(name):
    function, count = DENSITIES[name]
    inputs = tuple((positive(3) + k * 0.3).requires_grad_() for k in range(count))
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


TRANSFORMS = [
    D.ExpTransform(), D.SigmoidTransform(), D.SoftplusTransform(), D.TanhTransform(), D.AffineTransform(1.0, -2.0),
    D.PowerTransform(1.5), D.ComposeTransform([D.AffineTransform(0.1, 0.5), D.TanhTransform()]), D.ExpTransform().inv,
]  # fmt: skip


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
def test_jacobians(transform):
    x = positive(5).requires_grad_()
    y = transform(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(transform.log_abs_det_jacobian(x, y), slope.abs().log(), atol=1e-9)
    assert torch.allclose(transform.inv(y.detach()), x, atol=1e-9)
    assert bool(transform.codomain.check(y).all())


@pytest.mark.parametrize("transform", [D.StickBreakingTransform(), D.CorrCholeskyTransform()], ids=repr)
def test_jacobians_of_vectors(transform):
    x = positive(6) - 1
    y = transform(x)
    jacobian = torch.autograd.functional.jacobian(transform, x).reshape(-1, 6)
    free = jacobian[:-1] if y.ndim == 1 else jacobian[[4, 8, 9, 12, 13, 14]]  # the entries that determine the others
    assert torch.allclose(transform.log_abs_det_jacobian(x, y), torch.linalg.slogdet(free)[1], atol=1e-9)
    assert torch.allclose(transform.inv(y), x, atol=1e-7)


def test_the_cache_gives_back_what_was_put_in():
    x = torch.tensor([20.0])
    cached, plain = D.TanhTransform(cache_size=1), D.TanhTransform()
    assert cached.inv(cached(x)) is x and plain.inv(plain(x)).item() == float("inf")
    assert plain == D.TanhTransform() and D.AffineTransform(0.0, 1.0) != D.AffineTransform(0.0, 2.0)


def test_transforms_to_where_a_constraint_holds():
    x = positive(4, 3, 3) - 1
    for name in ("positive", "unit_interval", "simplex", "lower_cholesky", "positive_definite", "real"):
        constraint = getattr(D.constraints, name)
        for registry in (D.biject_to, D.transform_to):
            assert bool(constraint.check(registry(constraint)(x)).all()), name
    assert bool(D.constraints.interval(2.0, 5.0).check(D.biject_to(D.constraints.interval(2.0, 5.0))(x)).all())
    with pytest.raises(NotImplementedError, match="_Boolean"):
        D.biject_to(D.constraints.boolean)


def test_pytorchs_paths():
    for path, name in {"normal": "Normal", "categorical": "Categorical", "multivariate_normal": "MultivariateNormal",
                       "bernoulli": "Bernoulli", "half_normal": "HalfNormal", "kl": "kl_divergence", "independent": "Independent",
                       "transformed_distribution": "TransformedDistribution", "transforms": "TanhTransform"}.items():
        assert getattr(importlib.import_module(f"disttorch.distributions.{path}"), name) is getattr(D, name)


def test_a_distribution_of_ones_own():
    class Triangle(D.Distribution):
        arg_constraints = {"width": D.constraints.positive}  # noqa: RUF012
        support = D.constraints.real

        def __init__(self, width, validate_args=None):
            self.width = torch.as_tensor(width)
            super().__init__(self.width.shape, validate_args=validate_args)

        def rsample(self, sample_shape=()):
            u = torch.rand(2, *self._extended_shape(sample_shape))
            return (u[0] - u[1]) * self.width

        def log_prob(self, value):
            if self._validate_args:
                self._validate_sample(value)
            return torch.log((1 - value.abs() / self.width).clamp(min=0) / self.width)

    d = Triangle(torch.tensor([1.0, 2.0]))
    assert d.expand((3, 2)).sample((4,)).shape == (4, 3, 2)
    assert D.Independent(d, 1).log_prob(torch.zeros(2)).shape == ()
    assert repr(d) == "Triangle(width: disttorch.Size([2]))"
    with pytest.raises(ValueError, match="parameter width"):
        Triangle(-1.0)
