"""Changing tensors in place: what the graph follows, and what it must refuse. Values and gradients against PyTorch."""

import numpy as np
import pytest

import disttorch
from disttorch.autograd import grad, gradcheck

# programs on a leaf x of shape (3, 4), by either library
PROGRAMS = {
    "multiply a result": lambda m, x: (x * 2).mul_(3),
    "multiply by itself": lambda m, x: square_in_place(x * 2),
    "add a function of itself": lambda m, x: add_own_exp(x * 1),
    "chain of in-place steps": lambda m, x: (x + 3).log_().add_(1).sin_().mul_(x),
    "change a view, read the base": lambda m, x: through_view(x * 1, lambda v: v.mul_(5)),
    "change the base, read the view": lambda m, x: through_base(x * 1, lambda b: b.mul_(x)),
    "change a view of a view": lambda m, x: through_view_of_view(x * 1),
    "two overlapping views": lambda m, x: overlapping(x * 1),
    "view made before, used after": lambda m, x: view_before(x * x),
    "transpose": lambda m, x: transposed(x * 1),
    "select, unsqueeze, expand": lambda m, x: many_views(m, x * 1),
    "setitem of an integer": lambda m, x: assign(x * 1, 1, 7.0),
    "setitem of a slice by a function": lambda m, x: assign(x * 1, slice(0, 2), (x[1:] * 3)),
    "setitem of a column": lambda m, x: assign(x * 1, (slice(None), 2), x[:, 0].exp()),
    "setitem by mask": lambda m, x: assign(x * 1, m.tensor(np.arange(12).reshape(3, 4) % 3 == 0), 0.5),
    "setitem by index list": lambda m, x: assign(x * 1, ([0, 2], [1, 3]), x[0, :2] * 2),
    "setitem broadcast": lambda m, x: assign(x * 1, (slice(None), slice(1, 3)), x[0, 0]),
    "setitem through a view": lambda m, x: assign_through_view(x * 1, x),
    "setitem into zeros": lambda m, x: assign(m.zeros(3, 4, dtype=m.float64), (slice(1, None), 0), x[0, :2]),
    "setitem of itself": lambda m, x: assign_itself(x * 1),
    "augmented setitem": lambda m, x: augmented(x * 1, x),
    "copy_": lambda m, x: (x * 2).copy_(x * 5),
    "copy_ broadcast": lambda m, x: (x * 2).copy_(x[0]),
    "copy_ into a part": lambda m, x: through_view(x * 1, lambda v: v.copy_((x * x)[1:])),
    "fill_": lambda m, x: (x * 2).fill_(3) + x,
    "fill_ a part": lambda m, x: through_view(x * 1, lambda v: v.fill_(3)),
    "zero_ a part": lambda m, x: through_view(x * 2, lambda v: v.zero_()) * x,
    "into a tensor without gradient": lambda m, x: m.ones(3, 4, dtype=m.float64).mul_(x).mul_(x.exp()),
    "into a view of a tensor without gradient": lambda m, x: part_of_constant(m, x),
    "clamp_, masked_fill_": lambda m, x: (x * 1).clamp_(-0.5, 0.5).masked_fill_(x.detach() > 0.3, 2.0),
    "pow_ and div_": lambda m, x: ((x * 1).pow_(2)).div_(x + 10),
    "relu_ of a product": lambda m, x: (x * 2).mul_(x.exp()).relu_(),
    "operators": lambda m, x: operators(x * 1, x),
    "unbind then change": lambda m, x: change_pieces((x * 1), lambda t: t.unbind(0)),
    "split then change the base": lambda m, x: split_then_base(x * 1),
    "detached neighbour": lambda m, x: (x * 1).add_(x.detach()),
    "addition with alpha": lambda m, x: (x * 1).add_(x, alpha=3).sub_(x, alpha=2),
    "scatter_add_": lambda m, x: (x * 1).scatter_add_(1, m.tensor([[0, 1], [1, 1]]), x[:2, :2] * 2),
    "scatter_": lambda m, x: (x * 1).scatter_(1, m.tensor([[0, 1], [2, 1]]), x[:2, :2] * 2),
    "diagonal": lambda m, x: through_diagonal(x * 1),
    "reshape of a contiguous tensor": lambda m, x: through_reshape(x * 1),
    "squeeze": lambda m, x: through_squeeze(x * 1),
    "cumsum_ and tril_": lambda m, x: (x * 1).cumsum_(1).tril_(),
}


def square_in_place(y):
    return y.mul_(y.clone())


def add_own_exp(y):
    return y.add_(y.exp())


def through_view(base, change):
    change(base[1:])
    return base * base


def through_base(base, change):
    view = base[1:, ::2]
    change(base)
    return view * view


def through_view_of_view(base):
    base[1:].t()[0].mul_(4)
    return base * base


def overlapping(base):
    a, b = base[:2], base[1:]
    a.mul_(2)
    b.mul_(3)
    a.add_(b.clone())
    return base * a.sum()


def view_before(base):
    view, other = base[0], base[:, 1]
    base.add_(1)
    view.mul_(2)
    return other * view[:3]


def transposed(base):
    base.t().mul_(2)
    base.permute(1, 0).add_(1)
    return base * base


def many_views(m, base):
    base.select(1, 2).mul_(2)
    base.unsqueeze(0)[0, 1].mul_(3)
    base.narrow(0, 1, 2).view(8)[2:5].mul_(5)
    return base * base


def assign(y, index, value):
    y[index] = value
    return y * y


def assign_through_view(base, x):
    view = base[1:]
    view[0, 1:3] = x[0, :2] * 2
    return base * base


def assign_itself(y):
    y[0] = y[1]
    y[1] = y[0].clone() * y[2].clone()
    return y * y


def augmented(y, x):
    y[0] += x[1]
    y[:, 1] *= 3
    y[1:] -= y[0].clone()
    return y * y


def part_of_constant(m, x):
    base = m.ones(5, 4, dtype=m.float64)
    base[1:4].mul_(x)
    return base * base


def operators(y, x):
    y += x
    y *= 2
    y -= 1
    y /= 3
    y **= 2
    return y


def change_pieces(base, pieces):
    for i, piece in enumerate(pieces(base)):
        if i == 1:
            base[i].mul_(3)
        assert piece is not None
    return base * base


def split_then_base(base):
    top, rest = base[:1], base[1:]
    base.mul_(2)
    return top.sum() * rest


def through_diagonal(base):
    base.diagonal().mul_(3)
    return base * base


def through_reshape(base):
    base.reshape(2, 6)[0].mul_(3)
    base.flatten().mul_(2)
    return base * base


def through_squeeze(base):
    base.unsqueeze(1).squeeze(1).mul_(2)
    return base * base


START = np.random.default_rng(5).uniform(-1, 1, (3, 4))


@pytest.mark.parametrize("name", PROGRAMS)
def test_values_and_gradients_against_pytorch(name, torch):
    ours = disttorch.tensor(START, requires_grad=True)
    theirs = torch.tensor(START, requires_grad=True)
    results = []
    for module, x in ((disttorch, ours), (torch, theirs)):
        result = PROGRAMS[name](module, x)
        weights = module.tensor(np.linspace(0.5, 1.5, result.numel()).reshape(tuple(result.shape)))
        (result * weights).sum().backward()
        results.append((result.detach().numpy(), x.grad.numpy()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-12)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_against_finite_differences(name):
    x = disttorch.tensor(START, requires_grad=True)
    if name == "clamp_, masked_fill_":
        pytest.skip("is not continuous, as its mask follows the values")
    if name == "detached neighbour":
        pytest.skip("what is detached is a function of the input for finite differences")
    assert gradcheck(lambda x: PROGRAMS[name](disttorch, x), x)


@pytest.mark.parametrize(
    "name", ["chain of in-place steps", "change a view of a view", "setitem through a view", "two overlapping views"]
)
def test_second_derivatives(name):
    program = PROGRAMS[name]
    x = disttorch.tensor(START + 2, requires_grad=True)
    assert disttorch.autograd.gradgradcheck(lambda x: program(disttorch, x), x)


# what is saved and then changed
SPOILED = [
    ("an input", lambda a, b: (a * b, a)),
    ("the other input", lambda a, b: (a * b, b)),
    ("the output", lambda a, b: (lambda y: (y, y))(a.exp())),
    ("through a view of the input", lambda a, b: (a * b, b[0])),
    ("through the base of the input", lambda a, b: (a[0] * b[0], b)),
    ("through a detached tensor", lambda a, b: (a * b, b.detach())),
    ("of a matrix product", lambda a, b: (a @ b, b)),
    ("of a power", lambda a, b: (a**3, a)),
    ("of a softmax-like chain", lambda a, b: (a.logsumexp(1), a)),
    ("of where's condition-free input", lambda a, b: (a / b, b)),
    ("of amax", lambda a, b: (a.amax(1), a)),
    ("of prod", lambda a, b: (a.prod(1), a)),
]


@pytest.mark.parametrize(("name", "make"), SPOILED, ids=[n for n, _ in SPOILED])
def test_a_change_of_what_was_saved_is_noticed(name, make):
    x = disttorch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    a, b = x * 1, x * 2
    result, changed = make(a, b)
    changed.mul_(2)
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation.*shape.*1 time"):
        result.sum().backward()


UNSPOILED = [
    ("an input that no rule reads", lambda a, b: (a + b, a)),
    ("a result that no rule reads", lambda a, b: (lambda y: (y, y))(a * b)),
    ("data", lambda a, b: (a * b, b.data)),
    ("a copy", lambda a, b: (a * b, b.clone())),
    ("shape only", lambda a, b: (a.sum(0), a)),
]


@pytest.mark.parametrize(("name", "make"), UNSPOILED, ids=[n for n, _ in UNSPOILED])
def test_a_change_of_what_was_not_saved_is_no_error(name, make):
    x = disttorch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    a, b = x * 1, x * 2
    result, changed = make(a, b)
    changed.mul_(2)
    result.sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.add_(1), "a leaf Variable that requires grad"),
        (lambda x: x[0].add_(1), "a view of a leaf"),
        (lambda x: x.__setitem__(0, 1.0), "a leaf Variable"),
        (lambda x: x.view(4)[1:].zero_(), "a view of a leaf"),
        (lambda x: x.copy_(disttorch.ones(2, 2)), "a leaf Variable"),
        (lambda x: x.fill_(1), "a leaf Variable"),
        (lambda x: x.uniform_(), "a leaf Variable"),
        (lambda x: x.clamp_(0, 1), "a leaf Variable"),
    ],
)
def test_leaves_that_require_grad_are_not_changed(change, message):
    x = disttorch.ones(2, 2, requires_grad=True)
    with pytest.raises(RuntimeError, match=message):
        change(x)
    assert x.tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_an_integer_tensor_cannot_take_a_gradient():
    x = disttorch.ones(2, requires_grad=True)
    counts = disttorch.tensor([1, 2])
    with pytest.raises(RuntimeError, match="int64"):
        counts.mul_(x)
    assert counts.tolist() == [1, 2]


def test_versions_are_shared_by_views_and_detached_tensors():
    x = disttorch.ones(4)
    v, d = x[1:], x.detach()
    before = x._version_count
    v.add_(1)
    d.mul_(2)
    assert x._version_count == v._version_count == d._version_count == before + 2


def test_a_tensor_becomes_part_of_the_graph_by_what_is_put_into_it():
    x = disttorch.ones(2, requires_grad=True)
    y = disttorch.zeros(4)
    part = y[:2]
    part.copy_(x * 3)
    assert y.requires_grad and part.requires_grad and not y.is_leaf
    assert grad(y.sum(), x)[0].tolist() == [3.0, 3.0]


def test_views_that_are_gone_are_forgotten():
    base = disttorch.ones(1000, requires_grad=True) * 1
    for i in range(1000):
        base[i : i + 1]
    assert len(base._version) < 600
    base.mul_(2)
    assert grad(base.sum(), base)[0].tolist() == [1.0] * 1000


def test_random_fill_cuts_the_history():
    x = disttorch.ones(3, requires_grad=True)
    y = x * 2
    y.uniform_()
    (y.sum() + x.sum()).backward()
    assert x.grad.tolist() == [1.0, 1.0, 1.0]


def test_multiplying_a_tensor_by_itself_in_place():
    x = disttorch.tensor([2.0, 3.0], requires_grad=True)
    y = x * 1
    y.mul_(y)
    y.sum().backward()
    assert x.grad.tolist() == [4.0, 6.0]
