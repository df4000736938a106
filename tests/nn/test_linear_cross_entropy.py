"""linear_cross_entropy in chunks: the same numbers as the composition, whose logits it never has whole; and the adaptive softmax."""

import tracemalloc

import numpy as np
import pytest

import disttorch
from disttorch.autograd import gradcheck, gradgradcheck

F, nn = disttorch.nn.functional, disttorch.nn
RNG = np.random.default_rng(2)
CHUNKS = nn.LinearCrossEntropyOptions(batch_chunk_size=3)
TARGET = disttorch.tensor([4, 0, 2, -100, 1, 3, 3])


def inputs():
    return [disttorch.tensor(RNG.normal(size=s), requires_grad=True) for s in ((7, 3), (5, 3), (5,))]


OPTIONS = [
    {},
    {"reduction": "sum"},
    {"weight": disttorch.tensor([0.5, 1.0, 2.0, 1.5, 0.1]), "label_smoothing": 0.2},
    {"ignore_index": 3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_chunks_give_what_the_composition_gives(options):
    options = {k: v.double() if k == "weight" else v for k, v in options.items()}
    target = TARGET if "ignore_index" not in options else TARGET.clamp(0)
    x, w, b = inputs()
    chunked = F.linear_cross_entropy(x, w, target, linear_bias=b, options=CHUNKS, **options)
    whole = F.cross_entropy(F.linear(x, w, b), target, **options)
    np.testing.assert_allclose(float(chunked), float(whole), rtol=1e-12)
    for one, other in zip(disttorch.autograd.grad(chunked * 3, (x, w, b)), disttorch.autograd.grad(whole * 3, (x, w, b))):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
@pytest.mark.parametrize("options", OPTIONS[:3], ids=repr)
def test_derivatives_of_chunks_are_finite_differences(check, options):
    options = {k: v.double() if k == "weight" else v for k, v in options.items()}
    assert check(lambda x, w, b: F.linear_cross_entropy(x, w, TARGET, linear_bias=b, options=CHUNKS, **options), tuple(inputs()))


def test_the_logits_are_never_whole_in_memory():
    samples, features, classes = 512, 8, 4096
    x, w = (disttorch.randn(*s).requires_grad_() for s in ((samples, features), (classes, features)))
    target = disttorch.randint(0, classes, (samples,))
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=32)
    tracemalloc.start()
    F.linear_cross_entropy(x, w, target, options=options).backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < samples * classes * 4 / 2


def test_what_chunks_are_not_for_is_computed_at_once_with_a_warning():
    x, w, b = inputs()
    with pytest.warns(UserWarning, match="at once"):
        result = F.linear_cross_entropy(x, w, TARGET, linear_bias=b, reduction="none", options=CHUNKS)
    np.testing.assert_allclose(result.detach().numpy(), F.cross_entropy(F.linear(x, w, b), TARGET, reduction="none").detach().numpy())


@pytest.mark.parametrize(
    "wrong", [{"batch_chunk_size": 0}, {"chunking_method": "rows"}, {"chunking_method": "aspect_ratio:0"}, {"acc_policy": "best"}], ids=repr
)
def test_options_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        nn.LinearCrossEntropyOptions(**wrong)


class TestAdaptiveSoftmax:
    def test_outputs_are_the_log_probabilities_of_the_targets(self):
        layer = nn.AdaptiveLogSoftmaxWithLoss(6, 20, [4, 9, 15], div_value=1.5, head_bias=True).double()
        x = disttorch.tensor(RNG.normal(size=(50, 6)))
        target = disttorch.tensor(RNG.integers(0, 20, 50))
        whole = layer.log_prob(x)
        np.testing.assert_allclose(whole.exp().sum(1).detach().numpy(), 1)
        output, loss = layer(x, target)
        np.testing.assert_allclose(output.detach().numpy(), whole.detach().numpy()[np.arange(50), target.numpy()])
        assert float(loss) == pytest.approx(-float(output.mean()))
        np.testing.assert_array_equal(layer.predict(x).numpy(), whole.detach().numpy().argmax(1))
        one = layer(x[0], target[0])
        assert one.output.shape == () and float(one.output) == pytest.approx(float(output[0]))

    def test_gradients_go_through_the_clusters(self):
        layer = nn.AdaptiveLogSoftmaxWithLoss(4, 7, [2, 4], div_value=1.0).double()
        target = disttorch.tensor([6, 0, 3, 2, 1])
        x = disttorch.tensor(RNG.normal(size=(5, 4)), requires_grad=True)
        assert gradcheck(lambda x: layer(x, target).output, (x,))

    @pytest.mark.parametrize("cutoffs", [[], [5, 3], [0, 3], [3, 3], [7]])
    def test_cutoffs_that_make_no_sense(self, cutoffs):
        with pytest.raises(ValueError, match="cutoffs"):
            nn.AdaptiveLogSoftmaxWithLoss(4, 7, cutoffs)
