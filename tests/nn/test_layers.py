"""Every layer, one line each: it prints, names its state and computes as PyTorch's does, with the same weights."""

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest

import disttorch

nn = disttorch.nn

# (name, constructor's arguments, its options, shapes of the inputs); an input "i..." is integers below 4
LAYERS: list[tuple[str, tuple, dict[str, Any], list[Any]]] = [
    ("Linear", (4, 3), {}, [(2, 5, 4)]),
    ("Linear", (4, 3), {"bias": False}, [(4,)]),
    ("Bilinear", (3, 4, 2), {}, [(5, 3), (5, 4)]),
    ("Bilinear", (3, 4, 2), {"bias": False}, [(3,), (4,)]),
    ("Identity", (54,), {"unused": True}, [(2, 3)]),
    ("Flatten", (), {}, [(2, 3, 4)]),
    ("Flatten", (0, 1), {}, [(2, 3, 4)]),
    ("Unflatten", (1, (2, -1)), {}, [(2, 6, 3)]),
    ("Conv1d", (4, 6, 3), {"groups": 2, "padding": 1, "bias": False}, [(2, 4, 7)]),
    ("Conv2d", (3, 4, 3), {}, [(2, 3, 6, 7)]),
    ("Conv2d", (3, 4, (3, 1)), {"stride": 2, "padding": (1, 0), "dilation": (2, 1)}, [(3, 6, 7)]),
    ("Conv2d", (2, 2, 3), {"padding": "same", "padding_mode": "reflect", "dilation": 2}, [(1, 2, 6, 7)]),
    ("Conv2d", (2, 2, (2, 3)), {"padding": "same"}, [(1, 2, 6, 7)]),
    ("Conv2d", (2, 2, 3), {"padding": 1, "padding_mode": "circular"}, [(1, 2, 4, 5)]),
    ("Conv2d", (2, 2, 3), {"padding": "valid", "padding_mode": "replicate"}, [(1, 2, 4, 5)]),
    ("Conv3d", (2, 3, 2), {"padding": (1, 0, 1)}, [(1, 2, 3, 4, 3)]),
    ("ConvTranspose1d", (4, 2, 3), {"stride": 2, "output_padding": 1}, [(2, 4, 5)]),
    ("ConvTranspose2d", (4, 6, 3), {"groups": 2, "padding": 1, "dilation": 2}, [(2, 4, 5, 4)]),
    ("ConvTranspose3d", (2, 1, 2), {"bias": False}, [(1, 2, 2, 3, 2)]),
    ("MaxPool1d", (3, 2, 1, 2), {"ceil_mode": True}, [(2, 3, 9)]),
    ("MaxPool2d", (2,), {}, [(2, 3, 5, 6)]),
    ("MaxPool2d", ((2, 3),), {"stride": (1, 2), "padding": 1}, [(3, 5, 6)]),
    ("MaxPool3d", (2,), {}, [(1, 2, 4, 4, 4)]),
    ("AvgPool1d", (3,), {"stride": 2, "padding": 1, "count_include_pad": False}, [(2, 3, 9)]),
    ("AvgPool2d", (2,), {"divisor_override": 5}, [(2, 3, 5, 6)]),
    ("AvgPool3d", (2,), {"ceil_mode": True}, [(1, 2, 3, 4, 3)]),
    ("AdaptiveAvgPool1d", (3,), {}, [(2, 3, 8)]),
    ("AdaptiveAvgPool2d", ((2, None),), {}, [(2, 3, 5, 6)]),
    ("AdaptiveAvgPool2d", (1,), {}, [(3, 5, 6)]),
    ("AdaptiveAvgPool3d", ((1, 2, 3),), {}, [(1, 2, 4, 4, 5)]),
    ("BatchNorm1d", (3,), {}, [(5, 3)]),
    ("BatchNorm1d", (3,), {"momentum": None, "affine": False}, [(5, 3, 4)]),
    ("BatchNorm2d", (3,), {"track_running_stats": False}, [(2, 3, 4, 4)]),
    ("BatchNorm2d", (3,), {"bias": False}, [(2, 3, 4, 4)]),
    ("BatchNorm3d", (2,), {"eps": 1e-3, "momentum": 0.3}, [(2, 2, 2, 3, 2)]),
    ("InstanceNorm1d", (3,), {}, [(2, 3, 4)]),
    ("InstanceNorm2d", (3,), {"affine": True, "track_running_stats": True}, [(2, 3, 4, 4)]),
    ("InstanceNorm3d", (3,), {"affine": True}, [(3, 2, 4, 4)]),
    ("LayerNorm", (4,), {}, [(2, 3, 4)]),
    ("LayerNorm", ((3, 4),), {"bias": False, "eps": 1e-3}, [(2, 3, 4)]),
    ("LayerNorm", (4,), {"elementwise_affine": False}, [(2, 4)]),
    ("RMSNorm", (4,), {}, [(2, 3, 4)]),
    ("RMSNorm", ((3, 4),), {"eps": 1e-3, "elementwise_affine": False}, [(2, 3, 4)]),
    ("GroupNorm", (2, 4), {}, [(2, 4, 3, 3)]),
    ("GroupNorm", (2, 4), {"affine": False}, [(2, 4)]),
    ("ReLU", (), {}, [(3, 4)]),
    ("ReLU", (True,), {}, [(3, 4)]),
    ("ReLU6", (), {"inplace": True}, [(3, 4)]),
    ("LeakyReLU", (), {}, [(3, 4)]),
    ("LeakyReLU", (0.2,), {"inplace": True}, [(3, 4)]),
    ("PReLU", (), {}, [(3, 4)]),
    ("PReLU", (4,), {"init": 0.5}, [(3, 4, 2)]),
    ("ELU", (), {}, [(3, 4)]),
    ("CELU", (2.0,), {"inplace": True}, [(3, 4)]),
    ("SELU", (), {}, [(3, 4)]),
    ("GELU", (), {}, [(3, 4)]),
    ("GELU", ("tanh",), {}, [(3, 4)]),
    ("SiLU", (), {"inplace": True}, [(3, 4)]),
    ("Mish", (), {}, [(3, 4)]),
    ("Sigmoid", (), {}, [(3, 4)]),
    ("Tanh", (), {}, [(3, 4)]),
    ("LogSigmoid", (), {}, [(3, 4)]),
    ("Hardtanh", (), {"min_val": -2.0}, [(3, 4)]),
    ("Hardsigmoid", (), {}, [(3, 4)]),
    ("Hardswish", (), {}, [(3, 4)]),
    ("Hardshrink", (), {}, [(3, 4)]),
    ("Softshrink", (0.3,), {}, [(3, 4)]),
    ("Tanhshrink", (), {}, [(3, 4)]),
    ("Softsign", (), {}, [(3, 4)]),
    ("Softplus", (), {}, [(3, 4)]),
    ("Threshold", (0.1, 20.0), {}, [(3, 4)]),
    ("GLU", (), {}, [(3, 4)]),
    ("Softmax", (1,), {}, [(3, 4)]),
    ("Softmax2d", (), {}, [(2, 3, 4, 2)]),
    ("LogSoftmax", (), {"dim": 0}, [(3, 4)]),
    ("Softmin", (1,), {}, [(3, 4)]),
    ("Embedding", (4, 3), {}, ["i2x3"]),
    ("Embedding", (4, 3), {"padding_idx": 1, "scale_grad_by_freq": True}, ["i6"]),
    ("ZeroPad1d", (1,), {}, [(2, 3, 4)]),
    ("ZeroPad2d", ((1, 0, -1, 2),), {}, [(2, 3, 4, 4)]),
    ("ConstantPad2d", (1, 3.5), {}, [(2, 3, 4, 4)]),
    ("ReflectionPad1d", (2,), {}, [(2, 3, 4)]),
    ("ReflectionPad2d", ((1, 2, 0, 1),), {}, [(2, 3, 4, 4)]),
    ("ReplicationPad2d", (2,), {}, [(3, 4, 4)]),
    ("ReplicationPad3d", (1,), {}, [(1, 3, 2, 2, 2)]),
    ("CircularPad2d", (2,), {}, [(2, 3, 4, 4)]),
    ("Dropout", (0.0,), {}, [(3, 4)]),
    ("Dropout2d", (), {"p": 0.0, "inplace": True}, [(2, 3, 4, 4)]),
    ("AlphaDropout", (0.0,), {}, [(3, 4)]),
    ("CosineSimilarity", (), {"dim": -1}, [(3, 4), (3, 4)]),
    ("PairwiseDistance", (), {"p": 1.0, "keepdim": True}, [(3, 4), (3, 4)]),
    ("MSELoss", (), {}, [(3, 4), (3, 4)]),
    ("L1Loss", (), {"reduction": "sum"}, [(3, 4), (3, 4)]),
    ("SmoothL1Loss", (), {"beta": 0.5}, [(3, 4), (3, 4)]),
    ("HuberLoss", (), {"delta": 0.5}, [(3, 4), (3, 4)]),
    ("BCEWithLogitsLoss", (), {}, [(3, 4), (3, 4)]),
    ("KLDivLoss", (), {"reduction": "batchmean", "log_target": True}, [(3, 4), (3, 4)]),
    ("PoissonNLLLoss", (), {}, [(3, 4), (3, 4)]),
    ("CrossEntropyLoss", (), {"label_smoothing": 0.1}, [(6, 4), "i6"]),
    ("NLLLoss", (), {"ignore_index": 1}, [(6, 4), "i6"]),
]


def label(case: Any) -> str:
    name, args, options, _ = case
    return f"{name}({', '.join([*map(str, args), *(f'{k}={v}' for k, v in options.items())])})"


layers = pytest.mark.parametrize("case", LAYERS, ids=label)


def arrays_for(shapes: list[Any]) -> list[Any]:
    rng = np.random.default_rng(20240811)
    return [
        rng.integers(0, 4, [int(n) for n in s[1:].split("x")]) if isinstance(s, str) else rng.normal(size=s) for s in shapes
    ]


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="needs PyTorch to compare with")


def both(torch: Any, case: Any) -> tuple[Any, Any]:
    """Our layer and PyTorch's, in float64, with PyTorch's weights."""
    name, args, options, _ = case
    mine, other = getattr(nn, name)(*args, **options).double(), getattr(torch.nn, name)(*args, **options).double()
    mine.load_state_dict(other.state_dict())
    return mine, other


def agree(mine: Any, other: Any) -> None:
    np.testing.assert_allclose(mine.numpy(force=True), other.detach().numpy(), rtol=1e-7, atol=1e-7)


@layers
def test_it_prints_as_pytorchs(torch, case):
    name, args, options, _ = case
    assert repr(getattr(nn, name)(*args, **options)) == repr(getattr(torch.nn, name)(*args, **options))


@layers
def test_its_state_is_pytorchs(torch, case):
    name, args, options, _ = case
    mine, other = getattr(nn, name)(*args, **options), getattr(torch.nn, name)(*args, **options)

    def described(state: Any) -> list[tuple]:
        return [(k, tuple(v.shape), str(v.dtype).partition(".")[2]) for k, v in state.items()]

    assert described(mine.state_dict()) == described(other.state_dict())
    assert [n for n, _ in mine.named_parameters()] == [n for n, _ in other.named_parameters()]


@layers
@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel lengths")
def test_it_computes_and_differentiates_as_pytorchs(torch, case):
    mine, other = both(torch, case)
    arrays = arrays_for(case[3])
    for training in (True, True, False):  # twice, as running statistics change
        mine.train(training)
        other.train(training)
        xs = [disttorch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
        ys = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
        # times 1: an in-place layer may not write into a leaf
        result = mine(*(x * 1 for x in xs))
        expected = other(*(y * 1 for y in ys))
        agree(result, expected)
        if expected.requires_grad:
            g = np.random.default_rng(5).normal(size=tuple(expected.shape))
            result.backward(disttorch.tensor(g))
            expected.backward(torch.tensor(g))
        for x, y in zip(xs, ys):
            if y.grad is not None:
                agree(x.grad, y.grad)
        for (_, p), (_, q) in zip(mine.named_parameters(), other.named_parameters()):
            agree(p.grad, q.grad)
    for (_, b), (_, c) in zip(mine.named_buffers(), other.named_buffers()):
        agree(b, c)


@layers
def test_copies_are_equal_and_their_own(case):
    name, args, options, shapes = case
    layer = getattr(nn, name)(*args, **options).eval().double()
    xs = [disttorch.tensor(a) for a in arrays_for(shapes)]
    expected = layer(*(x.clone() for x in xs)).numpy(force=True)
    for made in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(made) == repr(layer)
        np.testing.assert_array_equal(made(*(x.clone() for x in xs)).numpy(force=True), expected)
        for p, q in zip(made.parameters(), layer.parameters()):
            assert isinstance(p, nn.Parameter) and p.requires_grad
            assert not np.shares_memory(p.numpy(force=True), q.numpy(force=True))


INITIAL = [
    # layer, parameter, bound of its uniform distribution
    (lambda: nn.Linear(100, 300), "weight", 0.1),
    (lambda: nn.Linear(100, 30000), "bias", 0.1),
    (lambda: nn.Conv2d(8, 64, 5, groups=2), "weight", 0.1),
    (lambda: nn.Conv2d(4, 20000, 5), "bias", 0.1),
    (lambda: nn.ConvTranspose1d(64, 16, 25, groups=4), "weight", 0.1),
    (lambda: nn.Bilinear(100, 20, 20), "weight", 0.1),
]


@pytest.mark.parametrize(("make", "name", "bound"), INITIAL)
def test_weights_are_drawn_from_pytorchs_distributions(make, name, bound):
    disttorch.manual_seed(1)
    values = make().get_parameter(name).numpy(force=True)
    assert np.abs(values).max() <= bound
    # of n uniform numbers, the mean square is bound^2 / 3 with a relative standard deviation of sqrt(0.8 / n)
    assert np.square(values.astype(float)).mean() == pytest.approx(bound**2 / 3, rel=5 * np.sqrt(0.8 / values.size))
    assert abs(values.astype(float).mean()) < 5 * bound / np.sqrt(3 * values.size)


def test_an_embeddings_rows_are_normal_and_its_padding_zero():
    disttorch.manual_seed(1)
    weight = nn.Embedding(100, 100, padding_idx=-2).weight.numpy(force=True)
    assert not weight[98].any()
    rest = np.delete(weight, 98, axis=0).astype(float)
    assert abs(rest.mean()) < 0.05 and rest.var() == pytest.approx(1, rel=0.07)


def test_embedding_renormalizes_the_rows_it_looks_up():
    table = disttorch.tensor([[3.0, 4.0], [0.3, 0.4], [6.0, 8.0]])
    layer = nn.Embedding.from_pretrained(table, max_norm=1.0)
    result = layer(disttorch.tensor([0, 1, 0]))
    np.testing.assert_allclose(result.numpy(), [[0.6, 0.8], [0.3, 0.4], [0.6, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(layer.weight.numpy()[2], [6.0, 8.0])  # was not looked up
    assert not layer.weight.requires_grad


def test_batch_norm_of_an_old_state_starts_to_count():
    layer = nn.BatchNorm1d(2)
    state = layer.state_dict()
    del state["num_batches_tracked"]
    state._metadata[""] = {"version": 1}
    assert not layer.load_state_dict(state).missing_keys
    state._metadata[""] = {"version": 2}
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        layer.load_state_dict(state)


def test_transposed_convolution_finds_the_padding_for_a_size():
    layer = nn.ConvTranspose2d(1, 1, 3, stride=2)
    assert layer(disttorch.ones(1, 1, 4, 4), output_size=(10, 9)).shape == (1, 1, 10, 9)
    with pytest.raises(ValueError, match=r"\[9, 9\] to \[10, 10\]"):
        layer(disttorch.ones(1, 1, 4, 4), output_size=(11, 9))


def test_max_pooling_gives_indices():
    x = disttorch.tensor([[[1.0, 5.0, 2.0], [7.0, 0.0, 9.0], [3.0, 8.0, 4.0]]])
    values, indices = nn.MaxPool2d(2, stride=1, return_indices=True)(x)
    assert values.tolist() == [[[7.0, 9.0], [8.0, 9.0]]]
    assert indices.tolist() == [[[3, 5], [7, 5]]]


class TestDropout:
    def test_the_share_and_the_scale(self):
        disttorch.manual_seed(3)
        x = disttorch.ones(200, 500, requires_grad=True)
        layer = nn.Dropout(0.3)
        y = layer(x)
        values = y.numpy(force=True)
        assert set(np.unique(values)) == {np.float32(0), np.float32(1 / 0.7)}
        assert (values == 0).mean() == pytest.approx(0.3, abs=0.01)
        y.sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), values)  # the same elements, the same scale

    def test_it_repeats_with_the_seed_and_not_without(self):
        x = disttorch.ones(50)
        drawn = []
        for seed in (1, 1, None):
            if seed is not None:
                disttorch.manual_seed(seed)
            drawn.append(nn.functional.dropout(x).tolist())
        assert drawn[0] == drawn[1] != drawn[2]

    @pytest.mark.parametrize(("ndim", "shape"), [(1, (20, 30, 4)), (2, (20, 30, 2, 3)), (3, (20, 30, 2, 2, 2)), (2, (30, 20, 6))])
    def test_channels_are_dropped_whole(self, ndim, shape):
        disttorch.manual_seed(3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # three dimensions are (N, C, L) for Dropout2d, which PyTorch warns of
            values = getattr(nn, f"Dropout{ndim}d")(0.5)(disttorch.ones(shape)).numpy().reshape(600, -1)
        assert (values == values[:, :1]).all()
        assert (values[:, 0] == 0).mean() == pytest.approx(0.5, abs=0.1)

    def test_everything_goes_where_p_is_1(self):
        assert not nn.Dropout(1.0)(disttorch.ones(5)).numpy().any()

    @pytest.mark.parametrize("name", ["AlphaDropout", "FeatureAlphaDropout"])
    def test_alpha_dropout_keeps_mean_and_variance(self, name):
        disttorch.manual_seed(3)
        x = disttorch.randn(400, 500)
        values = getattr(nn, name)(0.2)(x).numpy().astype(float)
        assert values.mean() == pytest.approx(0, abs=0.02)
        assert values.var() == pytest.approx(1, abs=0.02)

    def test_evaluation_returns_the_input_itself(self):
        x = disttorch.ones(3)
        assert nn.Dropout(0.9).eval()(x) is x

    @pytest.mark.parametrize("p", [-0.1, 1.1])
    def test_p_must_be_a_probability(self, p):
        with pytest.raises(ValueError, match=str(p)):
            nn.Dropout(p)
        with pytest.raises(ValueError, match=str(p)):
            nn.functional.dropout(disttorch.ones(2), p)
