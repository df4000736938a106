"""Arguments by their other names, and what is said where an argument is no tensor."""

import pytest

import disttorch as torch

X = torch.tensor([[3.0, 1.0, 2.0], [4.0, 6.0, 5.0]])


@pytest.mark.parametrize(
    "other, own",
    [
        (lambda: X.sum(axis=1, keepdims=True), lambda: X.sum(1, True)),
        (lambda: torch.mean(X, axis=(0, 1), keepdims=True), lambda: torch.mean(X, (0, 1), True)),
        (lambda: X.amax(axis=0, keepdims=True), lambda: X.amax(0, True)),
        (lambda: torch.argmax(X, axis=1), lambda: torch.argmax(X, 1)),
        (lambda: torch.cat((X, X), axis=1), lambda: torch.cat((X, X), 1)),
        (lambda: X.clone().cumsum_(axis=1), lambda: X.cumsum(1)),
        (lambda: X.softmax(axis=0), lambda: X.softmax(0)),
        (lambda: torch.logsumexp(X, axis=0, out=torch.empty(3)), lambda: torch.logsumexp(X, 0)),
        (lambda: torch.linalg.norm(x=X, axis=1), lambda: torch.linalg.norm(X, dim=1)),
        (lambda: torch.linalg.svdvals(input=X), lambda: torch.linalg.svdvals(A=X)),
        (lambda: torch.fft.rfft(X, axis=0), lambda: torch.fft.rfft(X, dim=0)),
        (lambda: torch.tensor_split(X, sections=2)[1], lambda: torch.tensor_split(X, 2)[1]),
        (lambda: X.split(split_size=1)[0], lambda: X.split(1)[0]),
        (lambda: torch.special.chebyshev_polynomial_t(x=X, n=2), lambda: torch.special.chebyshev_polynomial_t(X, 2)),
        (lambda: X.clone().copy_(other=X + 1), lambda: X + 1),
        (lambda: X.squeeze(0, 1), lambda: X),
        (lambda: X.broadcast_to(2, 2, 3), lambda: X.expand(2, 2, 3)),
    ],
)
def test_means_the_same(other, own):
    assert torch.equal(other(), own())


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: torch.sum([1, 2]), r"sum\(\): argument 'input' must be Tensor, not list"),
        (lambda: torch.reshape([1, 2], (2, 1)), r"reshape\(\): argument 'input' must be Tensor, not list"),
        (lambda: torch.amax(3.0, 0), r"amax\(\): .*must be Tensor, not float"),
        (lambda: torch.logsumexp([1.0], 0), r"logsumexp\(\): argument 'input' must be Tensor, not list"),
        (lambda: torch.index_select(X, 0, [0]), r"index_select\(\).*Tensor, not list|index"),
        (lambda: torch.exp(X, out=1), r"exp\(\): argument 'out' must be Tensor, not int"),
        (lambda: torch.amax(X, dim=0, axis=1), r"amax\(\) got several values for argument 'dim', also called 'axis'"),
        (lambda: torch.amax(X, axes=1), "axes"),
        (lambda: X.sum(0, 1), "'keepdim' must be bool, not int"),
        (lambda: X.mean(0, 1), "'keepdim' must be bool, not int"),
        (lambda: X.sum("a"), "dim must be a number"),
        (lambda: X.var(0, unbiased=False, correction=1), "only one of them"),
        (lambda: torch.arange(), "must be given"),
    ],
)
def test_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_an_error_inside_stays_what_it_is():
    with pytest.raises(AttributeError, match="no_such_name"):
        torch.sum(X).no_such_name  # noqa: B018


def test_backward_by_the_older_name():
    x = torch.ones(2, requires_grad=True)
    torch.autograd.backward(x * 3, grad_variables=torch.tensor([1.0, 2.0]))
    assert x.grad.tolist() == [3.0, 6.0]
    with pytest.raises(RuntimeError, match="both given"):
        torch.autograd.backward(x * 3, torch.ones(2), grad_variables=torch.ones(2))
