"""backward and grad: what reaches .grad, whose memory it is, and what is an error."""

import numpy as np
import pytest

import disttorch
from disttorch.autograd import backward, grad, gradcheck


def leaf(*values, dtype=None):
    return disttorch.tensor(values if len(values) != 1 else values[0], dtype=dtype, requires_grad=True)


def test_gradients_accumulate():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    first = x.grad
    (x * 3).sum().backward()
    assert x.grad is first and x.grad.tolist() == [5.0, 7.0]
    x.grad = None
    x.sum().backward()
    assert x.grad is not first and first.tolist() == [5.0, 7.0]


def test_a_tensor_used_many_times_gets_all_contributions():
    x = leaf(2.0)
    y = x * x
    (y * y + y + x).backward()
    assert x.grad.item() == 4 * 8 + 2 * 2 + 1


# gradients that could come from one array
SHARING = [
    ("a + b", lambda a, b: (a + b).sum()),
    ("a + b + a", lambda a, b: (a + b + a).sum()),
    ("a - -b", lambda a, b: (a - -b).sum()),
    ("views", lambda a, b: (a.reshape(2, 2) + b.view(2, 2).t().t()).sum()),
    ("expand", lambda a, b: a.expand(3, 4).sum() + b.expand(3, 4).sum()),
    ("cat", lambda a, b: disttorch.cat([a, b]).sum()),
    ("stack", lambda a, b: disttorch.stack([a, b]).sum()),
    ("unbind", lambda a, b: disttorch.stack([a, b]).unbind(0)[0].sum() + b.sum()),
    ("clone", lambda a, b: (a.clone() + b.clone()).sum()),
    ("chain", lambda a, b: ((a + b) + (a + b)).sum()),
    ("where", lambda a, b: disttorch.where(a > 0, a, b).sum() + b.sum()),
    ("sum", lambda a, b: a.sum() + b.sum()),
]


@pytest.mark.parametrize(("name", "function"), SHARING, ids=[n for n, _ in SHARING])
def test_gradients_never_share_memory(name, function):
    a, b = leaf([1.0, 2.0, 3.0, 4.0]), leaf([5.0, 6.0, 7.0, 8.0])
    function(a, b).backward()
    assert not np.shares_memory(a.grad.numpy(), b.grad.numpy())
    for t in (a, b):
        assert t.grad.is_contiguous() and t.grad.numpy().flags.writeable
        assert not np.shares_memory(t.grad.numpy(), t.detach().numpy())
    before = b.grad.tolist()
    a.grad.add_(100)
    assert b.grad.tolist() == before


def test_the_gradient_given_to_backward_is_not_kept():
    x, start = leaf(1.0, 2.0), disttorch.ones(2)
    (x + 0).backward(start)
    start.zero_()
    assert x.grad.tolist() == [1.0, 1.0]
    x.grad.add_(1)
    assert start.tolist() == [0.0, 0.0]
    y = leaf(1.0, 2.0)
    y.backward(start)
    start.fill_(7)
    assert y.grad.tolist() == [0.0, 0.0]


def test_what_grad_returns_shares_no_memory():
    a, b, start = leaf(1.0, 2.0), leaf(3.0, 4.0), disttorch.ones(2)
    ga, gb = grad(a + b, (a, b), start)
    ga.add_(1)
    assert gb.tolist() == [1.0, 1.0] and start.tolist() == [1.0, 1.0]


def test_gradients_do_not_alias_what_was_saved():
    a, b = leaf(1.0, 2.0), disttorch.tensor([3.0, 4.0])
    (a * b).sum().backward()
    a.grad.zero_()
    assert b.tolist() == [3.0, 4.0]
    x = leaf(0.5, 0.25)
    out = x.exp()
    out.backward(disttorch.ones(2))
    x.grad.zero_()
    np.testing.assert_allclose(out.detach().numpy(), np.exp([0.5, 0.25]), rtol=1e-6)


@pytest.mark.parametrize(
    "function", [lambda x: x * x, lambda x: x.exp(), lambda x: x.sum(), lambda x: x @ x, lambda x: x[0]]
)
def test_a_second_backward_is_an_error_where_something_was_saved(function):
    x = leaf(1.0, 2.0)
    y = function(x).sum()
    y.backward()
    try:
        y.backward()
    except RuntimeError as error:
        assert "second time" in str(error) and "retain_graph=True" in str(error)
    else:
        assert function(x).grad_fn.name() in ("SumBackward0", "SelectBackward0")
    x.grad = None
    y = function(x).sum()
    y.backward(retain_graph=True)
    once = x.grad.numpy().copy()
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * once)


def test_numbers_may_be_used_again():
    x = leaf(1.0, 2.0)
    y = (2.0 * x / 4 + 1).sum()
    y.backward()
    y.backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_third_derivatives():
    x = leaf(2.0, dtype=disttorch.float64)
    y, values = x**5, []
    for _ in range(3):
        (y,) = grad(y, x, create_graph=True)
        values.append(y.item())
    assert values == [5 * 2**4, 20 * 2**3, 60 * 2**2]
    z = leaf(0.3, dtype=disttorch.float64)
    y = z.sin()
    for expected in (np.cos(0.3), -np.sin(0.3), -np.cos(0.3), np.sin(0.3)):
        (y,) = grad(y, z, create_graph=True)
        assert y.item() == pytest.approx(expected, rel=1e-12)


def test_backward_with_create_graph_gives_a_gradient_with_a_graph():
    x = leaf(3.0)
    (x**3).backward(create_graph=True)
    g = x.grad
    assert g.requires_grad and g.item() == 27
    x.grad = None
    g.backward()
    assert x.grad.item() == 18
    (x**2).backward()
    assert x.grad.item() == 24


def test_gradient_penalty():
    w = disttorch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=disttorch.float64, requires_grad=True)
    x = leaf(0.5, -0.5, dtype=disttorch.float64)

    def penalty(w):
        (g,) = grad((w @ x).tanh().sum(), x, create_graph=True)
        return (g * g).sum()

    assert gradcheck(penalty, w)


def test_grad_of_unused_inputs():
    x, unused = leaf(1.0), leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"number 1 of shape \[2\].*allow_unused=True"):
        grad(x * 2, (x, unused))
    assert grad(x * 2, (x, unused), allow_unused=True)[1] is None
    zeros = grad(x * 2, (x, unused), materialize_grads=True)[1]
    assert zeros.tolist() == [0.0, 0.0] and zeros.dtype is disttorch.float32
    with pytest.raises(ValueError, match="materialize_grads"):
        grad(x * 2, x, allow_unused=False, materialize_grads=True)


def test_grad_leaves_dot_grad_alone():
    x, y = leaf(1.0), leaf(2.0)
    assert [g.item() for g in grad(x * y, (x, y))] == [2.0, 1.0]
    assert x.grad is None and y.grad is None


def test_grad_of_results_on_the_way():
    x = leaf(3.0)
    y = x * x
    z = y * y
    gy, gx = grad(z, (y, x))
    assert gy.item() == 18 and gx.item() == 108
    (same,) = grad(y, y, disttorch.tensor(5.0))
    assert same.item() == 5


def test_grad_does_not_visit_what_it_need_not():
    x = leaf(3.0)
    y = x * x
    calls = []
    x.register_hook(lambda g: calls.append(g))
    (gy,) = grad(y * 2, y)
    assert gy.item() == 2 and not calls
    y.backward()  # what y saved is still there: only the node after it was used
    assert calls


def test_inputs_of_backward():
    a, b = leaf(2.0), leaf(3.0)
    y = a * b
    (y * y).backward(inputs=[a], retain_graph=True)
    assert a.grad.item() == 36 and b.grad is None
    z = y * y
    y.retain_grad()
    z.backward(inputs=(y,), retain_graph=True)
    assert y.grad.item() == 12 and a.grad.item() == 36
    w = a * 3
    (w * w).backward(inputs=(w,))
    assert w.grad.item() == 12
    with pytest.raises(RuntimeError, match="empty"):
        (a * b).backward(inputs=[])
    with pytest.raises(RuntimeError, match="require"):
        (a * b).backward(inputs=[disttorch.ones(1)])


def test_several_roots():
    x = leaf(1.0, 2.0)
    y = x * x
    backward([y.sum(), y, x], [None, disttorch.tensor([1.0, 10.0]), disttorch.ones(2)])
    assert x.grad.tolist() == [2 + 2 + 1, 4 + 40 + 1]
    a = leaf(3.0)
    b = a * a
    backward([b, b])
    assert a.grad.item() == 12


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: (x * 2).backward(), RuntimeError, r"scalar outputs.*\[2\]"),
        (lambda x: (x * 2).backward(disttorch.ones(3)), RuntimeError, r"\[3\].*\[2\]"),
        (lambda x: disttorch.ones(1).backward(), RuntimeError, "does not require grad"),
        (lambda x: grad(x.sum(), disttorch.ones(1)), RuntimeError, "does not require grad"),
        (lambda x: backward([x.sum(), x.sum()], [disttorch.ones(())]), RuntimeError, "2 tensors and 1 gradients"),
        (lambda x: grad(x.sum(), x, is_grads_batched=True), RuntimeError, "is_grads_batched"),
        (lambda x: backward([1.0]), TypeError, "float"),
        (lambda x: x.numpy(), RuntimeError, "detach"),
        (lambda x: (x > 0).sum().backward(), RuntimeError, "does not require grad"),
        (lambda x: disttorch.tensor([1, 2], requires_grad=True), RuntimeError, "floating point"),
        (lambda x: (x * 2).requires_grad_(False), RuntimeError, "leaf"),
        (lambda x: setattr(x, "grad", disttorch.ones(3)), RuntimeError, r"\[3\].*\[2\]"),
        (lambda x: setattr(x, "grad", disttorch.ones(2).double()), RuntimeError, "float64"),
        (lambda x: setattr(x, "grad", 1.0), TypeError, "float"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(leaf(1.0, 2.0))


def test_operations_with_several_results():
    x = leaf([[1.0, 5.0, 2.0], [7.0, 3.0, 4.0]])
    values, indices = x.max(dim=1)
    assert indices.tolist() == [1, 0] and not indices.requires_grad
    values.backward(disttorch.tensor([1.0, 10.0]))
    assert x.grad.tolist() == [[0, 1, 0], [10, 0, 0]]
    x.grad = None
    a, b = x.split([1, 2], dim=1)
    b.sum().backward()
    assert x.grad.tolist() == [[0, 1, 1], [0, 1, 1]]
    x.grad = None
    a, b = x.split([1, 2], dim=1)
    (a.sum() * 2 + b.sum()).backward()
    assert x.grad.tolist() == [[2, 1, 1], [2, 1, 1]]


# what the engine does to a gradient so that it fits the input: dtype and shape
FITS = [
    ("float16", lambda x: (x * disttorch.ones(3, dtype=disttorch.float32)).sum(), 1.0),
    ("bfloat16", lambda x: (x.float() * 2).sum(), 2.0),
    ("float32", lambda x: (x * disttorch.ones(3, dtype=disttorch.float64) * 3).sum(), 3.0),
    ("float64", lambda x: x.half().sum() * 2, 2.0),
    ("float32", lambda x: (x + disttorch.zeros(2, 4, 1)).sum(), 8.0),
    ("float16", lambda x: (x.reshape(1, 3, 1) * disttorch.ones(5, 1, 2)).sum(), 10.0),
    ("float32", lambda x: (x * 1j).abs().sum(), 1.0),
]


@pytest.mark.parametrize(("dtype", "function", "each"), FITS)
def test_the_gradient_has_the_shape_and_dtype_of_its_tensor(dtype, function, each):
    x = disttorch.ones(3, dtype=getattr(disttorch, dtype), requires_grad=True)
    function(x).backward()
    assert x.grad.dtype is x.dtype and x.grad.shape == x.shape
    assert x.grad.tolist() == pytest.approx([each] * 3)


def test_gradients_may_have_a_home():
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    flat = np.full(8, 99.0, np.float32)
    x._node.home = flat[2:6].reshape(2, 2)
    (x * x).sum().backward()
    assert np.shares_memory(x.grad.numpy(), flat)
    assert flat.tolist() == [99, 99, 2, 4, 6, 8, 99, 99]
    (x * x).sum().backward()
    assert flat.tolist() == [99, 99, 4, 8, 12, 16, 99, 99]
    x.grad = None
    x.t().sum().backward()
    assert flat.tolist() == [99, 99, 1, 1, 1, 1, 99, 99] and np.shares_memory(x.grad.numpy(), flat)


def test_a_leaf_that_is_gone_gets_nothing():
    x, y = leaf(1.0), leaf(2.0)
    z = x * y
    del x
    z.backward()
    assert y.grad.item() == 1


def test_detach_stops_the_gradient_and_shares_memory():
    x = leaf(1.0, 2.0)
    d = (x * 2).detach()
    assert not d.requires_grad and d.grad_fn is None and d.is_leaf
    (d * x).sum().backward()
    assert x.grad.tolist() == [2.0, 4.0]
    e = x.detach()
    assert np.shares_memory(e.numpy(), x.detach().numpy())
    y = x * 3
    assert y.detach_() is y and y.is_leaf and not y.requires_grad
    with pytest.raises(RuntimeError, match="views"):
        disttorch.ones(3)[1:].detach_()


def test_requires_grad_spreads_and_leaves_know_that_they_are():
    x, y = leaf(1.0), disttorch.ones(())
    assert x.is_leaf and x.grad_fn is None and y.is_leaf
    z = x + y
    assert z.requires_grad and not z.is_leaf and z.grad_fn.name() == "AddBackward0"
    assert not (y + y).requires_grad
    assert repr(z.grad_fn) == "<AddBackward0>"
    assert [n for n, _ in z.grad_fn.next_functions][1] is None
    assert z.grad_fn.next_functions[0][0].name() == "AccumulateGrad"
    y.requires_grad = True
    assert (y + 1).requires_grad
    y.requires_grad_(False)
    assert not (y + 1).requires_grad


COMPLEX = [
    ("abs", lambda m, z: z.abs().sum()),
    ("product", lambda m, z: (z * z * (1 + 1j)).sum().real),
    ("imag", lambda m, z: z.exp().imag.sum()),
    ("conj", lambda m, z: (z.conj() * z).real.sum()),
    ("norm", lambda m, z: z.norm()),
    ("division", lambda m, z: (1 / z + z / (2 - 1j)).real.sum()),
    ("matrix", lambda m, z: (z.reshape(2, 1) @ z.reshape(1, 2)).abs().sum()),
    ("index", lambda m, z: (z[1] * z[0]).imag),
    ("power", lambda m, z: (z**3).mean().real),
    ("with real", lambda m, z: (z * m.tensor([2.0, 3.0])).imag.sum()),
]


@pytest.mark.parametrize(("name", "function"), COMPLEX, ids=[n for n, _ in COMPLEX])
def test_complex_gradients_against_pytorch(name, function, torch):
    values = [1 + 2j, 3 - 1j]
    z, theirs = disttorch.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    function(disttorch, z).backward()
    function(torch, theirs).backward()
    np.testing.assert_allclose(z.grad.numpy(), theirs.grad.numpy(), rtol=1e-5)


def test_complex_second_derivative():
    x = leaf(0.5, -0.25, dtype=disttorch.float64)

    def function(x):
        return ((x * (1 + 2j)).exp() * (x + 1j)).abs()

    assert gradcheck(function, x) and disttorch.autograd.gradgradcheck(function, x)
