"""Every function of nn.functional that has a derivative, one line each: values and gradients as PyTorch's, first and
second derivatives as finite differences say, and half types as float32 rounded.
"""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import disttorch
from disttorch.autograd import gradcheck, gradgradcheck

F = disttorch.nn.functional


class Case:
    """A call ``getattr(F, name)(*inputs, **options)``; strings say what an input is made of.

    Parameters
    ----------
    name : str
    *inputs : tuple of int, or array
        A shape stands for normally distributed numbers that ask for a gradient; an array is a constant.
    derivative : bool
        Whether what backward gives is the derivative, and not on purpose something else.
    positive : bool
        Whether numbers are drawn from (0.1, 0.9).
    """

    def __init__(self, name: str, *inputs: Any, derivative: bool = True, positive: bool = False, **options: Any):
        self.name, self.inputs, self.options, self.derivative, self.positive = name, inputs, options, derivative, positive

    def arrays(self) -> list[Any]:
        rng = np.random.default_rng(20240811)
        made = []
        for i in self.inputs:
            if isinstance(i, tuple):
                made.append(rng.uniform(0.1, 0.9, i) if self.positive else rng.normal(size=i))
            else:
                made.append(i)
        return made

    def options_for(self, make: Any) -> dict[str, Any]:
        return {k: make(v) if isinstance(v, np.ndarray) else v for k, v in self.options.items()}

    def __repr__(self) -> str:
        shapes = ["x".join(map(str, i)) if isinstance(i, tuple) else "const" for i in self.inputs]
        options = [f"{k}={v if not isinstance(v, np.ndarray) else 'array'}" for k, v in self.options.items()]
        return "-".join([self.name, *shapes, *options])


CLASSES = np.array([2, 0, 3, 1])
WITH_IGNORED = np.array([2, -100, 3, 0])
PIXELS = np.array([[[2, 0], [1, 1]], [[3, 3], [0, -100]]])
WEIGHTS = np.array([0.5, 2.0, 1.0, 0.25])
PROBABILITIES = np.array([[0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
INDICES = np.array([[1, 4, 1], [0, 2, 4]])

SIGNS = np.array([1.0, -1.0, -1.0, 1.0])
LABEL_SETS = np.array([[2, 0, -1, 3], [1, -1, -1, -1], [0, 1, 2, 3]])

CASES = [
    # convolution
    Case("conv1d", (2, 3, 7), (4, 3, 3), (4,), stride=2, padding=1),
    Case("conv2d", (2, 4, 5, 6), (6, 2, 3, 2), (6,), groups=2, padding=(1, 0), dilation=(1, 2)),
    Case("conv2d", (3, 5, 5), (2, 3, 3, 3)),
    Case("conv2d", (1, 2, 5, 6), (3, 2, 2, 4), padding="same"),
    Case("conv2d", (1, 2, 5, 6), (3, 2, 2, 4), padding="valid", stride=(2, 1)),
    Case("conv3d", (1, 2, 3, 4, 3), (2, 2, 2, 2, 2), (2,), padding=(0, 1, 1)),
    Case("conv_transpose1d", (2, 3, 4), (3, 2, 3), (2,), stride=2, padding=1, output_padding=1),
    Case("conv_transpose2d", (1, 4, 3, 3), (4, 1, 3, 2), (2,), groups=2, stride=(2, 1)),
    Case("conv_transpose3d", (1, 1, 2, 2, 2), (1, 2, 2, 1, 2), dilation=2),
    # pooling
    Case("max_pool1d", (2, 2, 7), kernel_size=3, stride=2, padding=1, ceil_mode=True),
    Case("max_pool2d", (2, 2, 5, 6), kernel_size=(2, 3), dilation=(2, 1)),
    Case("max_pool2d", (2, 4, 4), kernel_size=2),
    Case("max_pool3d", (1, 1, 4, 4, 4), kernel_size=2, padding=1),
    Case("avg_pool1d", (2, 2, 7), kernel_size=3, stride=2, padding=1, ceil_mode=True),
    Case("avg_pool2d", (2, 2, 5, 6), kernel_size=(2, 3), padding=(1, 1), count_include_pad=False),
    Case("avg_pool2d", (2, 5, 6), kernel_size=2, divisor_override=3),
    Case("avg_pool3d", (1, 1, 4, 4, 4), kernel_size=2),
    Case("adaptive_avg_pool1d", (1, 2, 7), output_size=3),
    Case("adaptive_avg_pool2d", (2, 2, 6, 5), output_size=(3, None)),
    Case("adaptive_avg_pool2d", (2, 2, 4, 5), output_size=(5, 3)),
    Case("adaptive_avg_pool2d", (2, 2, 4, 5), output_size=1),
    Case("adaptive_avg_pool3d", (1, 1, 4, 3, 5), output_size=(2, 2, 5)),
    # activations
    Case("relu", (3, 4)),
    Case("leaky_relu", (3, 4), negative_slope=0.2),
    Case("prelu", (2, 3, 4), (3,)),
    Case("prelu", (2, 3), (1,)),
    Case("elu", (3, 4), alpha=1.5),
    Case("selu", (3, 4)),
    Case("celu", (3, 4), alpha=0.7),
    Case("gelu", (3, 4)),
    Case("gelu", (3, 4), approximate="tanh"),
    Case("silu", (3, 4)),
    Case("mish", (3, 4)),
    Case("softplus", (3, 4), beta=2.0, threshold=1.0),
    Case("softplus", (3, 4)),
    Case("logsigmoid", (3, 4)),
    Case("sigmoid", (3, 4)),
    Case("tanh", (3, 4)),
    Case("hardtanh", (3, 4), min_val=-0.5, max_val=0.6),
    Case("relu6", np.array([[-1.0, 2.0, 7.0]])),
    Case("hardsigmoid", (3, 4)),
    Case("hardswish", (3, 4)),
    Case("hardshrink", (3, 4)),
    Case("softshrink", (3, 4)),
    Case("tanhshrink", (3, 4)),
    Case("softsign", (3, 4)),
    Case("threshold", (3, 4), threshold=0.1, value=20.0),
    Case("glu", (3, 4), dim=1),
    Case("rrelu", (3, 4), lower=0.1, upper=0.3),
    # softmax
    Case("softmax", (2, 3, 4), dim=1),
    Case("softmax", (2, 5), dim=-1),
    Case("log_softmax", (2, 3, 4), dim=0),
    Case("log_softmax", (2, 5), dim=1),
    Case("softmin", (2, 5), dim=1),
    # losses of classes
    Case("cross_entropy", (4, 5), CLASSES),
    Case("cross_entropy", (4,), np.array(2)),
    Case("cross_entropy", (4, 4), WITH_IGNORED, WEIGHTS),
    Case("cross_entropy", (4, 4), WITH_IGNORED, WEIGHTS, reduction="none"),
    Case("cross_entropy", (4, 4), WITH_IGNORED, WEIGHTS, reduction="sum", label_smoothing=0.1),
    Case("cross_entropy", (4, 4), WITH_IGNORED, label_smoothing=0.2),
    Case("cross_entropy", (2, 4, 2, 2), PIXELS, WEIGHTS),
    Case("cross_entropy", (2, 4, 2, 2), PIXELS, ignore_index=-100, reduction="none"),
    Case("cross_entropy", (3, 4), PROBABILITIES, WEIGHTS, label_smoothing=0.1),
    Case("cross_entropy", (4,), PROBABILITIES[0], reduction="sum"),
    Case("nll_loss", (4, 4), WITH_IGNORED, WEIGHTS),
    Case("nll_loss", (4,), np.array(1)),
    Case("nll_loss", (2, 4, 2, 2), PIXELS, reduction="none"),
    Case("binary_cross_entropy", (3, 4), (3, 4), positive=True),
    Case("binary_cross_entropy", (3, 4), (3, 4), positive=True, weight=WEIGHTS, reduction="sum"),
    Case("binary_cross_entropy_with_logits", (3, 4), (3, 4), positive=True),
    Case("binary_cross_entropy_with_logits", (3, 4), (3, 4), pos_weight=WEIGHTS, weight=WEIGHTS, reduction="none"),
    # losses of numbers
    Case("mse_loss", (3, 4), (3, 4)),
    Case("mse_loss", (3, 4), (3, 4), weight=np.ones((3, 4)) * 2, reduction="mean"),
    Case("l1_loss", (3, 4), (3, 4), reduction="sum"),
    Case("smooth_l1_loss", (3, 4), (3, 4), beta=0.5),
    Case("smooth_l1_loss", (3, 4), (3, 4), beta=0.0, reduction="none"),
    Case("huber_loss", (3, 4), (3, 4), delta=0.7),
    Case("kl_div", (3, 4), (3, 4), reduction="batchmean", positive=True),
    Case("kl_div", (3, 4), (3, 4), reduction="sum", log_target=True),
    Case("poisson_nll_loss", (3, 4), np.full((3, 4), 2.0), full=True),
    Case("poisson_nll_loss", (3, 4), (3, 4), log_input=False, positive=True),
    Case("gaussian_nll_loss", (3, 4), (3, 4), (3, 1), full=True, positive=True),
    # losses with a margin
    Case("margin_ranking_loss", (4,), (4,), SIGNS, margin=0.3),
    Case("hinge_embedding_loss", (4,), SIGNS, margin=0.7, reduction="sum"),
    Case("cosine_embedding_loss", (4, 3), (4, 3), SIGNS, margin=0.1, reduction="none"),
    Case("cosine_embedding_loss", (3,), (3,), np.array(-1.0), margin=-0.5),
    Case("soft_margin_loss", (4,), SIGNS),
    Case("multi_margin_loss", (4, 4), CLASSES, margin=0.8),
    Case("multi_margin_loss", (4, 4), CLASSES, p=2, weight=WEIGHTS, reduction="none"),
    Case("multi_margin_loss", (4,), np.array(2), reduction="sum"),
    Case("multilabel_margin_loss", (3, 4), LABEL_SETS),
    Case("multilabel_margin_loss", (4,), LABEL_SETS[0], reduction="none"),
    Case("multilabel_soft_margin_loss", (3, 4), (LABEL_SETS >= 0).astype(float), WEIGHTS),
    Case("triplet_margin_loss", (3, 4), (3, 4), (3, 4), margin=2.0, reduction="none"),
    Case("triplet_margin_loss", (3, 4), (3, 4), (3, 4), p=3, swap=True),
    Case("triplet_margin_with_distance_loss", (3, 4), (3, 4), (3, 4), margin=1.5, swap=True),
    Case("linear_cross_entropy", (4, 3), (4, 3), CLASSES, weight=WEIGHTS, label_smoothing=0.1),
    Case("linear_cross_entropy", (2, 3), (4, 2, 2, 3), PIXELS, reduction="none"),
    # normalization
    Case("batch_norm", (3, 2, 4), None, None, (2,), (2,), training=True),
    Case("batch_norm", (5, 2), None, None, training=True, eps=0.1),
    Case("batch_norm", (3, 2, 2, 2), np.array([0.1, -0.2]), np.array([0.5, 2.0]), (2,), (2,)),
    Case("layer_norm", (3, 4, 2), (4, 2), (4, 2), (4, 2)),
    Case("layer_norm", (3, 5), (5,)),
    Case("rms_norm", (3, 4, 2), (2,), (2,), eps=0.1),
    Case("group_norm", (2, 4, 3), 2, (4,), (4,)),
    Case("instance_norm", (2, 3, 4)),
    Case("instance_norm", (2, 3, 2, 2), None, None, (3,), (3,)),
    # the rest
    Case("linear", (2, 3, 4), (5, 4), (5,)),
    Case("bilinear", (2, 3), (2, 4), (5, 3, 4), (5,)),
    Case("embedding", INDICES, (5, 3)),
    Case("embedding", INDICES, (5, 3), padding_idx=-1, derivative=False),
    Case("embedding", INDICES, (5, 3), scale_grad_by_freq=True, derivative=False),
    Case("pad", (2, 3, 4), pad=(1, 2, 0, 1), value=1.5),
    Case("pad", (2, 3, 4), pad=(-1, 2, 1, -1)),
    Case("pad", (1, 2, 3, 4), pad=(2, 1, 1, 2), mode="reflect"),
    Case("pad", (1, 2, 3, 4), pad=(2, 5, 1, 0), mode="replicate"),
    Case("pad", (1, 2, 3, 4), pad=(4, 1, 0, 3), mode="circular"),
    Case("normalize", (3, 4)),
    Case("normalize", (3, 4), p=3.0, dim=0),
    Case("cosine_similarity", (3, 4), (3, 4), dim=-1),
    Case("pairwise_distance", (3, 4), (3, 4)),
    *(Case("pdist", (4, 3), p=p) for p in (0.0, 1.0, 1.5, 2.0, 3.0, float("inf"))),
    *(Case("embedding_bag", INDICES, (5, 3), mode=mode) for mode in ("sum", "mean", "max")),
    Case("embedding_bag", INDICES, (5, 3), mode="mean", padding_idx=1, derivative=False),
    *(Case("embedding_bag", INDICES.ravel(), (5, 3), offsets=np.array([0, 1, 1, 4]), mode=mode) for mode in ("sum", "mean", "max")),
    Case("embedding_bag", INDICES.ravel(), (5, 3), offsets=np.array([0, 2, 6]), mode="max", include_last_offset=True),
    Case("embedding_bag", INDICES, (5, 3), mode="sum", per_sample_weights=np.array([[0.5, 2.0, 1.0], [1.0, 3.0, 0.1]])),
]
# layer_norm's and rms_norm's second argument is a shape, not a tensor of that shape
SHAPES = {"layer_norm": 1, "rms_norm": 1}


def call(case: Case, functions: Any, inputs: list[Any], options: dict[str, Any]) -> Any:
    return getattr(functions, case.name)(*inputs, **options)


def tensors_of(case: Case, make: Any) -> list[Any]:
    """The inputs as tensors of either framework; what has a shape in the table asks for a gradient."""
    made: list[Any] = []
    for i, (spec, array) in enumerate(zip(case.inputs, case.arrays())):
        if SHAPES.get(case.name) == i:
            made.append(list(spec))
        elif isinstance(array, np.ndarray):
            made.append(make(array, isinstance(spec, tuple)))
        else:
            made.append(array)
    return made


def ours(dtype: Any) -> Any:
    def make(array: Any, requires_grad: bool = False) -> Any:
        return disttorch.tensor(
            array.astype(dtype) if array.dtype.kind == "f" else array, requires_grad=requires_grad
        )

    return make


def asking(inputs: list[Any]) -> list[Any]:
    return [t for t in inputs if isinstance(t, disttorch.Tensor) and t.requires_grad]


@pytest.mark.parametrize("case", CASES, ids=repr)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-7), (np.float32, 2e-5)], ids=["float64", "float32"])
# PyTorch keeps some constants (1 / 6, 1 / alpha) in float32 in float64, too; test_formulas.py is exact
@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel lengths")
def test_values_and_gradients_are_pytorchs(case, dtype, tolerance):
    torch = pytest.importorskip("torch", reason="needs PyTorch to compare with")

    def theirs(array: Any, requires_grad: bool = False) -> Any:
        return torch.tensor(array.astype(dtype) if array.dtype.kind == "f" else array, requires_grad=requires_grad)

    mine, other = tensors_of(case, ours(dtype)), tensors_of(case, theirs)
    result = call(case, F, mine, case.options_for(ours(dtype)))
    expected = call(case, torch.nn.functional, other, case.options_for(theirs))
    assert tuple(result.shape) == tuple(expected.shape)
    assert result.numpy(force=True).dtype == dtype
    np.testing.assert_allclose(result.numpy(force=True), expected.detach().numpy(), rtol=tolerance, atol=tolerance)
    if not asking(mine):
        return
    g = np.random.default_rng(7).normal(size=tuple(expected.shape)).astype(dtype)
    result.backward(disttorch.tensor(g))
    expected.backward(torch.tensor(g))
    for a, b in zip(mine, other):
        if isinstance(b, torch.Tensor) and b.requires_grad:
            np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", [c for c in CASES if c.derivative and any(isinstance(i, tuple) for i in c.inputs)], ids=repr)
@pytest.mark.parametrize("check", [gradcheck, gradgradcheck], ids=["first", "second"])
def test_derivatives_are_finite_differences(case, check):
    inputs = tensors_of(case, ours(np.float64))
    sources = asking(inputs)
    options = case.options_for(ours(np.float64))

    def function(*given: Any) -> Any:
        rest = iter(given)
        return call(case, F, [next(rest) if any(t is s for s in sources) else t for t in inputs], options)

    assert check(function, tuple(sources))


HALVES = [
    Case("conv2d", (2, 4, 5, 6), (6, 4, 3, 3), (6,)),
    Case("max_pool2d", (2, 2, 4, 4), kernel_size=2),
    Case("avg_pool2d", (2, 2, 4, 4), kernel_size=2),
    Case("gelu", (3, 4)),
    Case("silu", (3, 4)),
    Case("elu", (3, 4)),
    Case("leaky_relu", (3, 4)),
    Case("hardtanh", (3, 4)),
    Case("softmax", (2, 5), dim=1),
    Case("log_softmax", (2, 5), dim=1),
    Case("cross_entropy", (4, 5), CLASSES, label_smoothing=0.1),
    Case("nll_loss", (4, 5), CLASSES),
    Case("binary_cross_entropy_with_logits", (3, 4), (3, 4), positive=True),
    Case("mse_loss", (3, 4), (3, 4)),
    Case("smooth_l1_loss", (3, 4), (3, 4)),
    Case("batch_norm", (3, 2, 4), None, None, (2,), (2,), training=True),
    Case("layer_norm", (3, 5), (5,), (5,), (5,)),
    Case("rms_norm", (3, 5), (5,), (5,)),
    Case("group_norm", (2, 4, 3), 2, (4,), (4,)),
    Case("embedding", INDICES, (5, 3)),
    Case("pad", (2, 3), pad=(1, 1)),
    Case("linear", (2, 3, 4), (5, 4), (5,)),
]


@pytest.mark.parametrize("case", HALVES, ids=repr)
@pytest.mark.parametrize(("dtype", "unit"), [(np.float16, 2.0**-10), (ml_dtypes.bfloat16, 2.0**-7)], ids=["float16", "bfloat16"])
def test_half_types_stay_and_are_float64s_result_rounded(case, dtype, unit):
    inputs = tensors_of(case, ours(dtype))
    exact_inputs = [
        disttorch.tensor(t.detach().to(disttorch.float64), requires_grad=t.requires_grad)
        if isinstance(t, disttorch.Tensor) and t.is_floating_point()
        else t
        for t in inputs
    ]
    result, exact = (call(case, F, given, case.options) for given in (inputs, exact_inputs))
    assert result.numpy(force=True).dtype == dtype
    result.sum().backward()
    exact.sum().backward()
    pairs = [(result, exact), *((a.grad, b.grad) for a, b in zip(asking(inputs), asking(exact_inputs)))]
    for got, wanted in pairs:
        got, wanted = got.numpy(force=True), wanted.numpy(force=True)
        assert got.dtype == dtype
        # a few roundings: formulas of several steps round after each
        np.testing.assert_allclose(got.astype(np.float64), wanted, rtol=4 * unit, atol=4 * unit * (1 + np.abs(wanted).max()))
