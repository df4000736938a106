"""Everything that both packages have is called with the same arguments as PyTorch's, but for what `exceptions` says."""

import inspect

import pytest

pytest.importorskip("torch")

import disttorch
from tests.parity import signatures
from tests.parity.exceptions import KEYWORDS_NOT_AGREED


def test_all_arguments_are_pytorchs():
    found = {name: differences for name, differences in signatures.compared() if differences}
    assert not found, "\n".join(f"{name}: {'; '.join(texts)}" for name, texts in found.items())


def test_most_of_the_vocabulary_is_compared():
    compared = [name for name, differences in signatures.compared() if differences is not None]
    assert len(compared) > 2000
    assert {".sum", "Tensor.add_", "nn.functional.conv2d", "linalg.norm", "fft.fft", "optim.Adam", "utils.data.DataLoader"} <= set(compared)


def test_no_exception_is_out_of_date():
    names = {name for name, _, _ in signatures.pairs()}
    assert not set(KEYWORDS_NOT_AGREED) - names


@pytest.mark.parametrize(
    "ours, theirs, expected",
    [
        (lambda input, dim: 0, "(Tensor input, int dim)", []),
        (lambda input, axis: 0, "(Tensor input, int dim)", ["dim: argument 1 is called axis", "dim: is missing"]),
        (lambda input, dim=1: 0, "(Tensor input, int dim = 0)", ["dim: default 1, not 0"]),
        (lambda input, dim: 0, "(Tensor input, int dim = 0)", ["dim: must be given, default is 0"]),
        (lambda input, dim=0: 0, "(Tensor input, int dim)", ["dim: need not be given, but must in PyTorch"]),
        (lambda input, alpha=1: 0, "(Tensor input, *, Number alpha = 1)", ["alpha: is taken without its name"]),
        (lambda input, *, alpha=1: 0, "(Tensor input, Number alpha = 1)", ["alpha: is not taken without its name"]),
        (lambda input, *sizes: 0, "(Tensor input, tuple of ints size)", ["size: is missing"]),
    ],
)
def test_what_counts_as_a_difference(ours, theirs, expected):
    found = signatures.differences(inspect.signature(ours), [signatures.parsed(theirs)], {}, by_parser=False)
    assert [f for f in found if "PyTorch has none such" not in f] == expected


@pytest.mark.parametrize("call", ["amax(x, axis=0, dim=0)", "softmax(x, dim=0, axis=0)", "linalg.norm(x, dim=0, axis=0)"])
def test_an_argument_under_two_names(call):
    with pytest.raises(TypeError, match="several values for argument 'dim'"):
        eval(f"torch.{call}", {"torch": disttorch, "x": disttorch.ones(2)})
