"""Functions against their definitions in float64, without another framework; and the errors for what does not fit."""

import math

import numpy as np
import pytest

import disttorch

nn = disttorch.nn
F = nn.functional

RNG = np.random.default_rng(3)
X = RNG.normal(size=(5, 4))
T = RNG.normal(size=(5, 4))
P, Q = RNG.uniform(0.1, 0.9, (5, 4)), RNG.uniform(0, 1, (5, 4))
IMAGE = RNG.normal(size=(2, 3, 4, 4))
LABELS = np.array([3, 0, 1, -100, 2])
W = np.array([0.5, 2.0, 1.0, 0.25])
SCALE, SHIFT = RNG.normal(size=3), RNG.normal(size=3)
erf = np.vectorize(math.erf)


def soft(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def entropy(x, labels, weight, smoothing=0.0):
    logs = np.log(soft(x))
    losses, counts = [], []
    for row, label in zip(logs, labels):
        if label != -100:
            losses.append(-(1 - smoothing) * weight[label] * row[label] - smoothing / len(row) * (weight * row).sum())
            counts.append(weight[label])
    return sum(losses) / sum(counts)


def normal(x, axes, eps=1e-5):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def huber(d, beta):
    d = np.abs(d)
    return np.where(d < beta, d * d / (2 * beta), d - beta / 2)


def length(rows):
    return np.sqrt((rows * rows).sum(-1))


SIGNS = np.array([1.0, -1.0, -1.0, 1.0, -1.0])
COSINE = (X * T).sum(1) / (length(X) * length(T))
PER_CHANNEL = (slice(None), None, None)

FORMULAS = [
    ("relu", (X,), {}, np.maximum(X, 0)),
    ("leaky_relu", (X, 0.1), {}, np.where(X > 0, X, 0.1 * X)),
    ("elu", (X, 2.0), {}, np.where(X > 0, X, 2 * np.expm1(X))),
    ("celu", (X, 0.7), {}, np.where(X > 0, X, 0.7 * np.expm1(X / 0.7))),
    ("gelu", (X,), {}, X * (1 + erf(X / math.sqrt(2))) / 2),
    ("gelu", (X,), {"approximate": "tanh"}, X / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (X + 0.044715 * X**3)))),
    ("silu", (X,), {}, X / (1 + np.exp(-X))),
    ("mish", (X,), {}, X * np.tanh(np.log1p(np.exp(X)))),
    ("softplus", (X, 2.0), {}, np.log1p(np.exp(2 * X)) / 2),
    ("logsigmoid", (X,), {}, -np.log1p(np.exp(-X))),
    ("hardsigmoid", (X * 4,), {}, np.clip(X * 4 + 3, 0, 6) / 6),
    ("hardswish", (X * 4,), {}, X * 4 * np.clip(X * 4 + 3, 0, 6) / 6),
    ("hardtanh", (X, -0.3, 0.4), {}, np.clip(X, -0.3, 0.4)),
    ("softshrink", (X, 0.4), {}, np.sign(X) * np.maximum(np.abs(X) - 0.4, 0)),
    ("hardshrink", (X, 0.4), {}, np.where(np.abs(X) > 0.4, X, 0)),
    ("glu", (X,), {}, X[:, :2] / (1 + np.exp(-X[:, 2:]))),
    ("softmax", (X, 1), {}, soft(X)),
    ("softmin", (X, 0), {}, soft(-X, 0)),
    ("log_softmax", (X, 1), {}, np.log(soft(X))),
    ("mse_loss", (X, T), {}, ((X - T) ** 2).mean()),
    ("l1_loss", (X, T), {"reduction": "sum"}, np.abs(X - T).sum()),
    ("smooth_l1_loss", (X, T), {"beta": 0.6}, huber(X - T, 0.6).mean()),
    ("huber_loss", (X, T), {"delta": 0.6}, 0.6 * huber(X - T, 0.6).mean()),
    ("binary_cross_entropy", (P, Q), {}, -(Q * np.log(P) + (1 - Q) * np.log(1 - P)).mean()),
    ("binary_cross_entropy_with_logits", (X, Q), {}, (np.log1p(np.exp(X)) - X * Q).mean()),
    ("kl_div", (np.log(P), Q), {"reduction": "batchmean"}, (Q * (np.log(Q) - np.log(P))).sum() / 5),
    ("cross_entropy", (X, LABELS), {}, entropy(X, LABELS, np.ones(4))),
    ("cross_entropy", (X, LABELS, W), {"label_smoothing": 0.3}, entropy(X, LABELS, W, 0.3)),
    ("cross_entropy", (X, soft(T)), {}, -(soft(T) * np.log(soft(X))).sum(1).mean()),
    ("nll_loss", (X, LABELS), {}, -(X[0, 3] + X[1, 0] + X[2, 1] + X[4, 2]) / 4),
    ("layer_norm", (X, (4,)), {"eps": 0.1}, normal(X, 1, 0.1)),
    ("rms_norm", (X, (4,)), {"eps": 0.1}, X / np.sqrt((X * X).mean(1, keepdims=True) + 0.1)),
    (
        "batch_norm",
        (IMAGE, None, None, SCALE, SHIFT),
        {"training": True},
        normal(IMAGE, (0, 2, 3)) * SCALE[PER_CHANNEL] + SHIFT[PER_CHANNEL],
    ),
    ("batch_norm", (IMAGE, SCALE, SHIFT**2), {"eps": 0.1}, (IMAGE - SCALE[PER_CHANNEL]) / np.sqrt(SHIFT[PER_CHANNEL] ** 2 + 0.1)),
    ("group_norm", (IMAGE, 3), {}, normal(IMAGE, (2, 3))),
    ("instance_norm", (IMAGE,), {}, normal(IMAGE, (2, 3))),
    ("normalize", (X,), {}, X / np.sqrt((X * X).sum(1, keepdims=True))),
    ("cosine_similarity", (X, T), {}, (X * T).sum(1) / np.sqrt((X * X).sum(1) * (T * T).sum(1))),
    ("pairwise_distance", (X, T), {"eps": 0.0}, np.sqrt(((X - T) ** 2).sum(1))),
    ("bilinear", (X, T, np.einsum("oi,oj->oij", X[:3], T[:3])), {}, (X @ X[:3].T) * (T @ T[:3].T)),
    ("hinge_embedding_loss", (X[:, 0], SIGNS), {}, np.where(SIGNS > 0, X[:, 0], np.maximum(0, 1 - X[:, 0])).mean()),
    ("margin_ranking_loss", (X[:, 0], X[:, 1], SIGNS, 0.5), {}, np.maximum(0, -SIGNS * (X[:, 0] - X[:, 1]) + 0.5).mean()),
    ("cosine_embedding_loss", (X, T, SIGNS), {"reduction": "sum"}, np.where(SIGNS > 0, 1 - COSINE, np.maximum(0, COSINE)).sum()),
    ("soft_margin_loss", (X[:, 0], SIGNS), {}, np.log1p(np.exp(-SIGNS * X[:, 0])).mean()),
    ("multi_margin_loss", (X[:1], np.array([2])), {"p": 2}, (np.maximum(0, 1 - X[0, 2] + X[0, [0, 1, 3]]) ** 2).sum() / 4),
    (
        "multilabel_margin_loss",
        (X[0], np.array([3, 1, -1, 0])),
        {},
        sum(max(0, 1 - X[0, y] + X[0, i]) for y in (3, 1) for i in (0, 2)) / 4,
    ),
    (
        "multilabel_soft_margin_loss",
        (X, Q),
        {},
        (np.log1p(np.exp(-X)) * Q + np.log1p(np.exp(X)) * (1 - Q)).mean(),
    ),
    ("triplet_margin_loss", (X, T, P), {"eps": 0.0}, np.maximum(0, length(X - T) - length(X - P) + 1).mean()),
    ("pdist", (X,), {"p": 3.0}, [(np.abs(X[i] - X[j]) ** 3).sum() ** (1 / 3) for i in range(5) for j in range(i + 1, 5)]),
    ("embedding_bag", (np.array([[1, 0], [4, 1]]), X), {}, (X[[1, 4]] + X[[0, 1]]) / 2),
    ("linear_cross_entropy", (X, T, LABELS), {"ignore_index": -100}, entropy(X @ T.T, LABELS, np.ones(5))),
    ("rrelu", (X, 0.2, 0.4), {}, np.where(X > 0, X, 0.3 * X)),
    ("max_pool2d", (IMAGE, 2), {}, IMAGE.reshape(2, 3, 2, 2, 2, 2).max((3, 5))),
    ("avg_pool2d", (IMAGE, 2), {}, IMAGE.reshape(2, 3, 2, 2, 2, 2).mean((3, 5))),
    ("adaptive_avg_pool2d", (IMAGE, 1), {}, IMAGE.mean((2, 3), keepdims=True)),
    ("adaptive_avg_pool1d", (X, 3), {}, np.stack([X[:, :2].mean(1), X[:, 1:3].mean(1), X[:, 2:].mean(1)], 1)),
    ("conv2d", (IMAGE, np.ones((1, 3, 4, 4))), {}, IMAGE.sum((1, 2, 3)).reshape(2, 1, 1, 1)),
    ("conv1d", (X[:, None, :], np.array([[[1.0, -1.0]]])), {}, (X[:, :-1] - X[:, 1:])[:, None, :]),
    ("embedding", (np.array([[1, 0], [4, 1]]), X), {}, X[[[1, 0], [4, 1]]]),
    ("one_hot", (np.array([1, 0, 3]),), {}, np.eye(4)[[1, 0, 3]]),
    ("pad", (X, (1, 2, 0, 1)), {"value": 7.0}, np.pad(X, ((0, 1), (1, 2)), constant_values=7.0)),
    ("pad", (X[None], (2, 3)), {"mode": "reflect"}, np.pad(X[None], ((0, 0), (0, 0), (2, 3)), mode="reflect")),
    ("pad", (X[None], (2, 3)), {"mode": "replicate"}, np.pad(X[None], ((0, 0), (0, 0), (2, 3)), mode="edge")),
    ("pad", (X[None], (4, 3)), {"mode": "circular"}, np.pad(X[None], ((0, 0), (0, 0), (4, 3)), mode="wrap")),
]


@pytest.mark.parametrize(("name", "arguments", "options", "expected"), FORMULAS, ids=lambda v: v if isinstance(v, str) else "")
def test_the_formula(name, arguments, options, expected):
    given = [disttorch.tensor(a) if isinstance(a, np.ndarray) else a for a in arguments]
    result = getattr(F, name)(*given, **options).numpy()
    assert result.shape == np.shape(expected)
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-13)


def test_extreme_logits_give_finite_losses_and_gradients():
    x = disttorch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    loss = F.cross_entropy(x, disttorch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == 1e4
    np.testing.assert_allclose(x.grad.numpy(), [[0, 0], [-0.5, 0.5]])
    y = disttorch.tensor([1e4, -1e4, 0.0], requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(y, disttorch.tensor([0.0, 0.0, 0.0]), reduction="none")
    loss.sum().backward()
    np.testing.assert_allclose(loss.numpy(force=True), [1e4, 0, math.log(2)], rtol=1e-6)
    np.testing.assert_allclose(y.grad.numpy(), [1, 0, 0.5])
    certain = disttorch.tensor([0.0, 1.0])
    assert F.binary_cross_entropy(certain, disttorch.tensor([1.0, 1.0]), reduction="none").tolist() == [100.0, 0.0]


def test_a_batch_where_nothing_counts_has_no_mean():
    x = disttorch.zeros(2, 3, requires_grad=True)
    target = disttorch.tensor([-100, -100])
    assert math.isnan(F.cross_entropy(x, target).item())
    loss = F.cross_entropy(x, target, reduction="sum")
    loss.backward()
    assert loss.item() == 0 and not x.grad.numpy().any()


def test_running_statistics():
    mean, var = disttorch.zeros(3, dtype=disttorch.float64), disttorch.ones(3, dtype=disttorch.float64)
    F.batch_norm(disttorch.tensor(IMAGE), mean, var, training=True, momentum=0.25)
    np.testing.assert_allclose(mean.numpy(), 0.25 * IMAGE.mean((0, 2, 3)))
    np.testing.assert_allclose(var.numpy(), 0.75 + 0.25 * IMAGE.var((0, 2, 3), ddof=1))
    layer = nn.BatchNorm2d(3, momentum=None).double()
    for part in (IMAGE[:1], IMAGE[1:], IMAGE):
        layer(disttorch.tensor(part))
    means = [part.mean((0, 2, 3)) for part in (IMAGE[:1], IMAGE[1:], IMAGE)]
    np.testing.assert_allclose(layer.running_mean.numpy(), np.mean(means, axis=0))
    assert layer.num_batches_tracked.item() == 3


def test_what_embedding_adds_up():
    weight = disttorch.zeros(4, 2, requires_grad=True)
    F.embedding(disttorch.tensor([1, 3, 1]), weight).sum().backward()
    assert weight.grad.tolist() == [[0, 0], [2, 2], [0, 0], [1, 1]]
    weight.grad = None
    F.embedding(disttorch.tensor([1, 3, 1]), weight, padding_idx=1, scale_grad_by_freq=True).sum().backward()
    assert weight.grad.tolist() == [[0, 0], [0, 0], [0, 0], [1, 1]]


def test_indices_changed_before_backward_are_noticed():
    weight, indices = disttorch.zeros(4, 2, requires_grad=True), disttorch.tensor([1, 3])
    y = F.embedding(indices, weight)
    indices.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def zeros(*shape, dtype="float32"):
    return disttorch.zeros(shape, dtype=getattr(disttorch, dtype))


MISTAKES = [
    (lambda: F.conv2d(zeros(1, 2, 5, 5), zeros(2, 3, 3, 3)), RuntimeError, r"\[2, 3, 3, 3\], expected input \[1, 2, 5, 5\] to have 3"),
    (lambda: F.conv2d(zeros(1, 3), zeros(2, 3, 3, 3)), RuntimeError, r"3D \(unbatched\) or 4D .* size: \[1, 3\]"),
    (lambda: F.conv2d(zeros(1, 3, 2, 2), zeros(2, 3, 3, 3)), RuntimeError, r"\(3, 3\).*does not fit.*\(2, 2\)"),
    (lambda: F.conv2d(zeros(1, 3, 5, 5), zeros(2, 3, 3)), RuntimeError, r"4 dimensions, but got weight of size \[2, 3, 3\]"),
    (lambda: F.conv2d(zeros(1, 3, 5, 5), zeros(2, 3, 3, 3), zeros(3)), RuntimeError, r"2 elements, but got bias of size \[3\]"),
    (lambda: F.conv2d(zeros(1, 2, 5, 5), zeros(3, 1, 3, 3), groups=2), RuntimeError, "divisible by 2 at dimension 0"),
    (lambda: F.conv2d(zeros(1, 3, 5, 5), zeros(2, 3, 3, 3, dtype="float64")), RuntimeError, "float32.*float64.*should be the same"),
    (lambda: F.conv2d(zeros(1, 3, 5, 5), zeros(2, 3, 3, 3), padding="same", stride=2), RuntimeError, "strided"),
    (lambda: F.conv2d(zeros(1, 3, 5, 5), zeros(2, 3, 3, 3), padding="full"), RuntimeError, "'full'"),
    (lambda: F.conv2d(zeros(1, 3, 5, 5), zeros(2, 3, 3, 3), stride=0), RuntimeError, "stride must be at least 1"),
    (lambda: F.conv2d(zeros(1, 3, 5, 5), zeros(2, 3, 3, 3), stride=(1, 2, 3)), RuntimeError, r"stride .* \(1, 2, 3\)"),
    (lambda: F.conv2d([1], zeros(2, 3, 3, 3)), TypeError, "'input' must be Tensor, not list"),
    (lambda: F.conv_transpose2d(zeros(1, 2, 3, 3), zeros(3, 1, 3, 3)), RuntimeError, r"\[1, 2, 3, 3\] to have 3 channels"),
    (lambda: F.conv_transpose1d(zeros(1, 2, 3), zeros(2, 1, 3), output_padding=1), RuntimeError, "output padding must be smaller"),
    (lambda: F.max_pool2d(zeros(1, 3, 5, 5), 2, padding=2), RuntimeError, r"at most half the .* but is \(2, 2\)"),
    (lambda: F.max_pool2d(zeros(2, 2), 2), RuntimeError, r"max_pool2d, but got input of size: \[2, 2\]"),
    (lambda: F.avg_pool2d(zeros(1, 1, 4, 4), 2, divisor_override=0), RuntimeError, "must not be zero"),
    (lambda: F.avg_pool2d(zeros(1, 1, 4, 4), 2.5), TypeError, "kernel_size must be integers, not 2.5"),
    (lambda: F.adaptive_avg_pool2d(zeros(1, 1, 4, 4), (1, 2, 3)), RuntimeError, r"\(1, 2, 3\)"),
    (lambda: F.linear(zeros(2, 4), zeros(2, 3)), RuntimeError, r"\[2, 4\] and weight \[2, 3\]"),
    (lambda: F.bilinear(zeros(2, 4), zeros(3, 4), zeros(1, 4, 4)), RuntimeError, r"\[2, 4\] and \[3, 4\]"),
    (lambda: F.cross_entropy(zeros(2, 3), disttorch.tensor([0, 3])), IndexError, r"[Tt]arget 3 .*out of bounds.*3"),
    (lambda: F.cross_entropy(zeros(2, 3), disttorch.tensor([0, -1])), IndexError, r"[Tt]arget -1 .*out of bounds"),
    (lambda: F.cross_entropy(zeros(2, 3), disttorch.tensor([0, 1, 2])), ValueError, r"shape \[2\] .* \[2, 3\], but got \[3\]"),
    (lambda: F.cross_entropy(zeros(2, 3), zeros(2)), RuntimeError, r"\[2, 3\], but got disttorch.float32 of shape \[2\]"),
    (lambda: F.cross_entropy(zeros(2, 3), disttorch.tensor([0, 1]), zeros(2)), RuntimeError, r"all 3 classes .* \[2\]"),
    (lambda: F.cross_entropy(zeros(2, 3), disttorch.tensor([0, 1]), label_smoothing=2.0), RuntimeError, "2.0"),
    (lambda: F.cross_entropy(zeros(2, 3), disttorch.tensor([0, 1]), reduction="avg"), ValueError, "'avg' is not a valid value"),
    (lambda: F.cross_entropy(zeros(2, 3, dtype="int64"), disttorch.tensor([0, 1])), RuntimeError, "not implemented for .*int64"),
    (lambda: F.nll_loss(zeros(2, 3), disttorch.tensor([0, 3])), IndexError, "Target 3 is out of bounds"),
    (lambda: F.binary_cross_entropy(zeros(2) + 2, zeros(2)), RuntimeError, "reach from 2.0 to 2.0"),
    (lambda: F.binary_cross_entropy(zeros(2), zeros(3)), ValueError, r"\[3\].*\[2\]"),
    (lambda: F.binary_cross_entropy_with_logits(zeros(2), zeros(2, 1)), ValueError, r"\[2, 1\].*\[2\]"),
    (lambda: F.mse_loss(zeros(2), 3.0), TypeError, "'target' must be Tensor, not float"),
    (lambda: F.smooth_l1_loss(zeros(2), zeros(2), beta=-1), RuntimeError, "-1"),
    (lambda: F.huber_loss(zeros(2), zeros(2), delta=0), RuntimeError, "non-positive values for delta, got 0"),
    (lambda: F.batch_norm(zeros(1, 3), None, None, training=True), ValueError, r"more than 1 value.*\[1, 3\]"),
    (lambda: F.batch_norm(zeros(2, 3), zeros(4), zeros(3)), RuntimeError, r"running_mean should contain 3 .*\[2, 3\], not .*\[4\]"),
    (lambda: F.batch_norm(zeros(2, 3), None, None), RuntimeError, "running_mean and running_var"),
    (lambda: F.layer_norm(zeros(2, 3), (4,)), RuntimeError, r"normalized_shape=\[4\].*\[\*, 4\].*\[2, 3\]"),
    (lambda: F.layer_norm(zeros(2, 3), (3,), zeros(2)), RuntimeError, r"weight of shape \[2\]"),
    (lambda: F.group_norm(zeros(2, 3, 4), 2), RuntimeError, r"\[2, 3, 4\] and num_groups=2"),
    (lambda: F.embedding(disttorch.tensor([5]), zeros(3, 2)), IndexError, r"index 5 is out of range: weight is \[3, 2\]"),
    (lambda: F.embedding(zeros(2), zeros(3, 2)), RuntimeError, "int64 or int32, but got disttorch.float32"),
    (lambda: F.embedding(disttorch.tensor([1]), zeros(3, 2), padding_idx=3), RuntimeError, "padding_idx 3 must be within the 3 rows"),
    (lambda: F.one_hot(disttorch.tensor([-1])), RuntimeError, "there is -1"),
    (lambda: F.one_hot(disttorch.tensor([3]), 3), RuntimeError, "there is 3 with num_classes=3"),
    (lambda: F.one_hot(zeros(2)), RuntimeError, "LongTensor"),
    (lambda: F.pad(zeros(2), (1, 2, 3)), RuntimeError, "must be even but instead it equals 3"),
    (lambda: F.pad(zeros(1, 2), (2, 0), "reflect"), RuntimeError, r"padding \(2, 0\) at dimension 1 of input \[1, 2\]"),
    (lambda: F.pad(zeros(1, 2), (-2, -1)), RuntimeError, "-2 and -1 resulted in a negative output size"),
    (lambda: F.pad(zeros(1, 2), (1, 1), "mirror"), NotImplementedError, "'mirror'"),
    (lambda: F.glu(zeros(3)), RuntimeError, "dimension 0 is size 3"),
    (lambda: F.prelu(zeros(2, 3), zeros(2)), RuntimeError, "numbers = 2 and channel size = 3"),
    (lambda: F.gelu(zeros(2), approximate="sigmoid"), RuntimeError, "'sigmoid'"),
    (lambda: F.softmax(zeros(2), 1), IndexError, r"\[-1, 0\], but got 1"),
    (lambda: F.softmax(zeros(2, dtype="int64"), 0), RuntimeError, "not implemented for .*int64"),
    (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "in_channels must be divisible by groups, but they are 3 and 2"),
    (lambda: nn.Conv2d(2, 4, 3, padding_mode="mirror"), ValueError, "'mirror'"),
    (lambda: nn.Conv2d(2, 4, 3, padding="same", stride=2), ValueError, r"strided convolutions, the stride is \(2, 2\)"),
    (lambda: nn.GroupNorm(2, 3), ValueError, r"num_channels \(3\) must be divisible by num_groups \(2\)"),
    (lambda: nn.BatchNorm2d(3)(zeros(2, 3)), ValueError, r"expected 4D input \(got 2D input of size \[2, 3\]\)"),
    (lambda: nn.BatchNorm1d(3)(zeros(2, 3, 4, 5)), ValueError, "expected 2D or 3D input"),
    (lambda: nn.Embedding(3, 2, padding_idx=3), ValueError, "padding_idx"),
    (lambda: nn.Threshold(1.0), TypeError, "missing a required argument: 'value'"),
    (lambda: nn.GELU(colour=1), TypeError, "unexpected keyword argument 'colour'"),
    (lambda: F.triplet_margin_loss(zeros(2), zeros(2), zeros(2), margin=0.0), ValueError, "greater than 0, got 0.0"),
    (lambda: F.multi_margin_loss(zeros(1, 3), disttorch.tensor([3])), RuntimeError, "from 0 to 2"),
    (lambda: F.multi_margin_loss(zeros(1, 3), disttorch.tensor([1]), p=3), ValueError, "got 3"),
    (lambda: F.multilabel_margin_loss(zeros(3), disttorch.tensor([0, 3, -1])), RuntimeError, "from -1 to 2"),
    (lambda: F.embedding_bag(disttorch.tensor([0, 1]), zeros(3, 2)), ValueError, "offsets"),
    (lambda: F.embedding_bag(disttorch.tensor([0, 1]), zeros(3, 2), disttorch.tensor([1])), RuntimeError, "However, got 1"),
    (lambda: F.embedding_bag(disttorch.tensor([[0, 1]]), zeros(3, 2), mode="min"), ValueError, "'min'"),
    (lambda: F.pdist(zeros(3)), RuntimeError, "got: 1D"),
    (lambda: F.ctc_loss(zeros(2, 1, 3), disttorch.tensor([[1]]), [3], [1]), RuntimeError, r"from 0 to 2, but got \[3\]"),
    (lambda: F.ctc_loss(zeros(2, 1, 3), disttorch.tensor([[3]]), [2], [1]), RuntimeError, "from 0 to 2, but reach from 3"),
    (lambda: F.cross_entropy(zeros(2, 3), zeros(2, 3), ignore_index=1), RuntimeError, "got 1"),
    (lambda: nn.MSELoss()(zeros(2)), TypeError, "takes 2 inputs, but 1 were given"),
]


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


WARNINGS = [
    (lambda: F.mse_loss(zeros(2, 1), zeros(2)), r"\[2\]\) that is different to the input size \(\[2, 1\]"),
    (lambda: F.softmax(zeros(2, 3)), "dim=1"),
    (lambda: nn.MSELoss(size_average=False), "reduction='sum'"),
    (lambda: F.mse_loss(zeros(2), zeros(2), reduce=False), "reduction='none'"),
]


@pytest.mark.parametrize(("call", "message"), WARNINGS, ids=range(len(WARNINGS)))
def test_doubtful_calls_warn_where_they_stand(call, message):
    with pytest.warns(UserWarning, match=message) as caught:
        call()
    assert caught[0].filename == __file__
