"""nn.init: the distributions' moments and bounds, exact forms, and nn.utils against float64 formulas."""

import math

import numpy as np
import pytest

import disttorch

nn = disttorch.nn
init = nn.init

RANDOM = [
    # function, options, shape, mean, standard deviation, bounds
    ("uniform_", {"a": -1.0, "b": 3.0}, (200, 100), 1.0, 4 / math.sqrt(12), (-1.0, 3.0)),
    ("normal_", {"mean": 2.0, "std": 0.5}, (200, 100), 2.0, 0.5, (-1.0, 5.0)),
    ("xavier_uniform_", {"gain": 2.0}, (30, 20, 5, 4), 0.0, 2 * math.sqrt(2 / (50 * 20)), (-0.155, 0.155)),
    ("xavier_normal_", {}, (200, 100), 0.0, math.sqrt(2 / 300), (-0.5, 0.5)),
    ("kaiming_uniform_", {"a": math.sqrt(5)}, (200, 100), 0.0, math.sqrt(1 / 300), (-0.1, 0.1)),
    ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "relu"}, (20, 30, 5, 4), 0.0, math.sqrt(2 / 400), (-0.5, 0.5)),
    ("trunc_normal_", {"std": 0.02}, (200, 100), 0.0, 0.02, (-0.1, 0.1)),
    # standard deviation of the normal distribution between -1 and 1
    ("trunc_normal_", {"a": -1.0, "b": 1.0}, (200, 100), 0.0, 0.53956, (-1.0, 1.0)),
    # narrow, and in the tail: by quantiles. Mean and deviation from phi(a) - phi(b) over Phi(b) - Phi(a)
    ("trunc_normal_", {"a": -0.1, "b": 0.1}, (200, 100), 0.0, 0.0577, (-0.1, 0.1)),
    ("trunc_normal_", {"a": 1.5, "b": 3.0}, (200, 100), 1.9155, 0.3363, (1.5, 3.0)),
    ("trunc_normal_", {"a": -3.0, "b": -1.5}, (200, 100), -1.9155, 0.3363, (-3.0, -1.5)),
]


@pytest.mark.parametrize(("name", "options", "shape", "mean", "std", "bounds"), RANDOM)
def test_the_moments_are_those_of_the_distribution(name, options, shape, mean, std, bounds):
    t = disttorch.empty(shape)
    generator = disttorch.Generator().manual_seed(5)
    assert getattr(init, name)(t, **options, generator=generator) is t
    values = t.numpy().astype(float)
    n = values.size
    assert values.mean() == pytest.approx(mean, abs=5 * std / math.sqrt(n))
    assert values.std() == pytest.approx(std, rel=5 * math.sqrt(0.75 / n) + 2e-3)
    assert bounds[0] <= values.min() and values.max() <= bounds[1]
    again = disttorch.empty(shape)
    getattr(init, name)(again, **options, generator=disttorch.Generator().manual_seed(5))
    np.testing.assert_array_equal(again.numpy(), t.numpy())


def test_truncated_normals_are_distributed_as_their_function_says():
    stats = pytest.importorskip("scipy.stats", reason="needs SciPy's distribution function")
    for a, b in ((-1.0, 2.0), (-0.3, 0.2), (1.0, 1.5), (2.5, 8.0), (-9.0, -2.5)):
        t = init.trunc_normal_(
            disttorch.empty(20000, dtype=disttorch.float64), mean=0.3, a=a, b=b, generator=disttorch.Generator().manual_seed(2)
        )
        exact = stats.truncnorm(a - 0.3, b - 0.3, loc=0.3)
        assert stats.kstest(t.numpy(), exact.cdf).pvalue > 1e-4


@pytest.mark.parametrize(("shape", "gain"), [((5, 8), 1.0), ((8, 5), 2.0), ((6, 6), 1.0), ((4, 3, 2, 2), 0.5), ((30, 4), 1.0)])
def test_orthogonal_matrices_are(shape, gain):
    t = init.orthogonal_(disttorch.empty(shape, dtype=disttorch.float64), gain)
    matrix = t.numpy().reshape(shape[0], -1)
    product = matrix @ matrix.T if shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, gain**2 * np.eye(len(product)), atol=1e-12)


def test_the_others_are_exact():
    t = disttorch.empty(3, 4)
    assert (init.ones_(t).numpy() == 1).all() and not init.zeros_(t).numpy().any() and (init.constant_(t, 2.5).numpy() == 2.5).all()
    np.testing.assert_array_equal(init.eye_(t).numpy(), np.eye(3, 4))
    zeros_in_columns = (init.sparse_(disttorch.empty(10, 6), 0.35).numpy() == 0).sum(0)
    assert zeros_in_columns.tolist() == [4] * 6


@pytest.mark.parametrize(("shape", "groups"), [((3, 3, 3), 1), ((5, 2, 3, 3), 1), ((4, 2, 3, 3), 2), ((2, 3, 1, 3, 5), 1)])
def test_dirac_passes_channels_on(shape, groups):
    weight = init.dirac_(disttorch.empty(shape), groups)
    x = disttorch.randn(2, shape[1] * groups, *(7,) * (len(shape) - 2))
    conv = getattr(nn.functional, f"conv{len(shape) - 2}d")
    y = conv(x, weight, padding=tuple(k // 2 for k in shape[2:]), groups=groups).numpy()
    kept = min(shape[0] // groups, shape[1])
    for group in range(groups):
        mine = y[:, group * shape[0] // groups :][:, : shape[0] // groups]
        np.testing.assert_array_equal(mine[:, :kept], x.numpy()[:, group * shape[1] :][:, :kept])
        assert not mine[:, kept:].any()


@pytest.mark.parametrize(
    ("name", "param", "gain"),
    [("linear", None, 1), ("tanh", None, 5 / 3), ("relu", None, 2**0.5), ("leaky_relu", 0.2, (2 / 1.04) ** 0.5), ("selu", None, 0.75)],
)
def test_gains(name, param, gain):
    assert init.calculate_gain(name, param) == pytest.approx(gain, rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: init.calculate_gain("cosine"), "Unsupported nonlinearity cosine"),
        (lambda: init.calculate_gain("leaky_relu", "x"), "negative_slope 'x'"),
        (lambda: init.xavier_normal_(disttorch.empty(3)), r"fewer than 2 dimensions.*\[3\]"),
        (lambda: init.kaiming_normal_(disttorch.empty(3, 3), mode="fan"), "Mode fan not supported"),
        (lambda: init.eye_(disttorch.empty(3)), r"2 dimensions.*\[3\]"),
        (lambda: init.orthogonal_(disttorch.empty(3)), r"2 or more dimensions.*\[3\]"),
        (lambda: init.dirac_(disttorch.empty(3, 3)), r"3, 4, or 5 dimensions.*\[3, 3\]"),
        (lambda: init.dirac_(disttorch.empty(3, 3, 1), 2), "divisible by groups"),
        (lambda: init.sparse_(disttorch.empty(3), 0.5), r"2 dimensions.*\[3\]"),
        (lambda: init.trunc_normal_(disttorch.empty(3), a=2.0, b=1.0), "a=2.0, b=1.0"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_parameters_are_filled_without_being_recorded():
    p = nn.Parameter(disttorch.empty(2, 2))
    for fill in (init.ones_, init.eye_, init.uniform_, init.orthogonal_, init.trunc_normal_):
        fill(p)
        assert p.is_leaf and p.requires_grad
    with pytest.warns(UserWarning, match="zero-element"):
        init.kaiming_uniform_(disttorch.empty(0, 3))


# --- nn.utils ---------------------------------------------------------------------------------------------------------


def with_gradients(dtype="float32"):
    rng = np.random.default_rng(1)
    made = []
    for shape in ((3, 4), (5,), ()):
        p = nn.Parameter(disttorch.zeros(shape, dtype=getattr(disttorch, dtype)))
        p.grad = disttorch.tensor(rng.normal(size=shape)).to(p.dtype)
        made.append(p)
    return [*made, nn.Parameter(disttorch.zeros(2))]  # the last one has none


def gradients_of(parameters):
    return np.concatenate([p.grad.to(disttorch.float64).numpy().reshape(-1) for p in parameters if p.grad is not None])


@pytest.mark.parametrize("p", [2.0, 1.0, 3.0, math.inf])
@pytest.mark.parametrize(("max_norm", "dtype"), [(0.5, "float32"), (100.0, "float32"), (0.5, "float16"), (0.5, "bfloat16")])
def test_gradients_are_scaled_to_a_norm(p, max_norm, dtype):
    parameters = with_gradients(dtype)
    before = gradients_of(parameters)
    norm = np.linalg.norm(before, p)
    total = nn.utils.clip_grad_norm_(parameters, max_norm, p)
    assert total.dtype is disttorch.float32 and total.item() == pytest.approx(norm, rel=1e-5)
    expected = before * min(1.0, max_norm / (norm + 1e-6))
    unit = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 1.6e-2}[dtype]
    np.testing.assert_allclose(gradients_of(parameters), expected, rtol=unit, atol=unit * 0.1)
    assert nn.utils.get_total_norm([q.grad for q in parameters[:3]], p).item() == pytest.approx(np.linalg.norm(expected, p), rel=unit)


def test_clipping_alone_cases():
    p = nn.Parameter(disttorch.zeros(2))
    assert nn.utils.clip_grad_norm_([p], 1.0).item() == 0.0
    p.grad = disttorch.tensor([3.0, 4.0])
    assert nn.utils.clip_grad_norm_(p, 1.0).item() == 5.0
    p.grad = disttorch.tensor([math.inf, 1.0])
    with pytest.raises(RuntimeError, match=r"order 2.0 .* non-finite \(inf\)"):
        nn.utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_gradients_are_bounded_one_by_one(dtype):
    parameters = with_gradients(dtype)
    before = gradients_of(parameters)
    nn.utils.clip_grad_value_(parameters, 0.5)
    np.testing.assert_array_equal(gradients_of(parameters), np.clip(before, -0.5, 0.5))
    assert parameters[0].grad.dtype is getattr(disttorch, dtype)


def test_a_clipped_gradient_counts_as_changed():
    p = nn.Parameter(disttorch.ones(2))
    p.grad = disttorch.tensor([3.0, 4.0], requires_grad=True).detach()
    kept = p.grad.requires_grad_()
    squared = kept * kept
    nn.utils.clip_grad_norm_(p, 1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        squared.sum().backward()


def test_parameters_as_a_vector_and_back():
    m = nn.Linear(3, 2)
    vector = nn.utils.parameters_to_vector(m.parameters())
    np.testing.assert_array_equal(vector.numpy(force=True), [*m.weight.numpy(force=True).reshape(-1), *m.bias.numpy(force=True)])
    vector.sum().backward()
    assert (m.weight.grad.numpy() == 1).all()
    nn.utils.vector_to_parameters(disttorch.arange(8, dtype=disttorch.float32), m.parameters())
    assert m.weight.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]] and m.bias.tolist() == [6.0, 7.0] and m.weight.requires_grad
    with pytest.raises(RuntimeError, match="has 7 elements"):
        nn.utils.vector_to_parameters(disttorch.zeros(7), m.parameters())
    with pytest.raises(TypeError, match="list"):
        nn.utils.vector_to_parameters([], m.parameters())


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (6, 2, 3, 3)])
def test_what_layers_of_users_ask_for(shape):
    # by these names, though they are not meant for it
    theirs = pytest.importorskip("torch").nn.init
    weight = disttorch.empty(shape)
    expected = theirs._calculate_fan_in_and_fan_out(theirs.torch.empty(shape))
    assert init._calculate_fan_in_and_fan_out(weight) == expected
    assert (init._calculate_correct_fan(weight, "fan_in"), init._calculate_correct_fan(weight, "FAN_OUT")) == expected
