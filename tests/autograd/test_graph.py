"""Nodes and edges as users see them, hooks on several tensors, and many gradients at once."""

import gc

import numpy as np
import pytest

import disttorch
from disttorch.autograd import backward, grad
from disttorch.autograd.graph import GradientEdge, Node, get_gradient_edge, register_multi_grad_hook


def leaf(*values):
    return disttorch.tensor(values, dtype=disttorch.float64, requires_grad=True)


def test_nodes_tell_of_themselves():
    x = leaf(1.0, 2.0)
    y = x.exp() * x
    node = y.grad_fn
    assert isinstance(node, Node) and node.name() == "MulBackward0"
    (first, i), (second, j) = node.next_functions
    assert (first.name(), i, second.name(), j) == ("ExpBackward0", 0, "AccumulateGrad", 0)
    node.metadata["mine"] = 3
    assert y.grad_fn.metadata == {"mine": 3}
    assert node._saved_other.tolist() == [1.0, 2.0]
    assert first._saved_result.tolist() == pytest.approx(np.exp([1.0, 2.0]).tolist())
    with pytest.raises(AttributeError, match="has no attribute"):
        node._saved_nothing  # noqa: B018
    y.sum().backward()
    with pytest.raises(RuntimeError, match="freed"):
        node._saved_other  # noqa: B018


def test_gradient_edges_stand_for_tensors():
    x = leaf(1.0, 2.0)
    a = x * 2
    edge = get_gradient_edge(a)
    y = (a * a).sum()
    assert edge.node is a.grad_fn and edge.output_nr == 0
    del a
    gc.collect()
    assert grad(y, edge, retain_graph=True)[0].tolist() == [4.0, 8.0]
    assert grad(edge, x, disttorch.ones(2, dtype=disttorch.float64), retain_graph=True)[0].tolist() == [2.0, 2.0]
    backward(edge, disttorch.ones(2, dtype=disttorch.float64), inputs=[get_gradient_edge(x)])
    assert x.grad.tolist() == [2.0, 2.0]
    with pytest.raises(RuntimeError, match="does not require gradients"):
        get_gradient_edge(disttorch.ones(1))


def test_edges_of_several_results():
    x = leaf(3.0, 1.0)
    values, second = x.split(1)
    edge = get_gradient_edge(second)
    y = (values * 5 + second * 7).sum()
    assert grad(y, edge, retain_graph=True)[0].tolist() == [7.0]
    by_hand = GradientEdge(edge.node, edge.output_nr)
    assert grad(y, by_hand)[0].tolist() == [7.0]


@pytest.mark.parametrize("create_graph", [False, True])
def test_many_gradients_at_once(create_graph):
    x = leaf(1.0, 2.0, 3.0)
    y = x.exp() * x.sum()
    starts = disttorch.eye(3, dtype=disttorch.float64)
    (rows,) = grad(y, x, starts, is_grads_batched=True, retain_graph=True, create_graph=create_graph)
    for k in range(3):
        (row,) = grad(y, x, starts[k], retain_graph=True)
        np.testing.assert_allclose(rows[k].detach().numpy(), row.numpy())
    if create_graph:
        total = (rows * rows).sum()
        (second,) = grad(total, x)
        jacobian = lambda v: (np.diag(np.exp(v)) * v.sum() + np.exp(v)[:, None])  # noqa: E731
        v, eps = x.detach().numpy(), 1e-6
        slopes = [
            ((jacobian(v + eps * e) ** 2).sum() - (jacobian(v - eps * e) ** 2).sum()) / (2 * eps) for e in np.eye(3)
        ]
        np.testing.assert_allclose(second.numpy(), slopes, rtol=1e-6)
    with pytest.raises(RuntimeError, match="interpret the first dimension of each grad_output as the batch"):
        grad(y, x, starts[:, :2], is_grads_batched=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: grad(x.sum(), leaf(1.0)), RuntimeError, "to not have been used in the graph"),
        (lambda x: grad(x.sum(), x, allow_unused=False, materialize_grads=True), ValueError, "Expected allow_unused to be True"),
        (lambda x: grad(x * 2, x), RuntimeError, "only for scalar outputs"),
        (lambda x: grad((x * 1j).sum(), x), RuntimeError, "only for real scalar outputs"),
        (lambda x: grad(x * 2, x, disttorch.ones(3)), RuntimeError, r"Mismatch in shape"),
        (lambda x: grad(x * 2, x, disttorch.ones(2) * 1j), RuntimeError, "complex"),
        (lambda x: backward(x.sum(), inputs=()), RuntimeError, "cannot be empty"),
        (lambda x: grad(3, x), TypeError, "int"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(leaf(1.0, 2.0))


def test_hooks_on_several_tensors():
    x, y, z = leaf(1.0), leaf(2.0), leaf(3.0)
    a, b, c = x * 2, y * 3, z * 4
    seen, first = [], []
    handle = register_multi_grad_hook([a, b, c], lambda gs: seen.append([None if g is None else g.item() for g in gs]))
    register_multi_grad_hook([a, b, c], lambda g: first.append(g.item()), mode="any")
    (a * b + c).sum().backward(retain_graph=True)
    assert seen == [[6.0, 2.0, 1.0]] and len(first) == 1
    (a * 5).sum().backward(retain_graph=True)
    assert seen[1:] == [[5.0, None, None]] and first[1:] == [5.0]
    handle.remove()
    (a * 5).sum().backward()
    assert len(seen) == 2
    with pytest.raises(ValueError, match="'all', 'any'"):
        register_multi_grad_hook([a], print, mode="some")


def test_a_failed_pass_does_not_disturb_the_hooks_of_the_next():
    x, y = leaf(1.0), leaf(2.0)
    a, b = x * 2, y * 3
    seen = []
    register_multi_grad_hook([a, b], lambda gs: seen.append([g.item() for g in gs]))

    def fail(g):
        raise KeyError("mine")

    handle = y.register_hook(fail)
    b_fails = b.register_hook(lambda g: fail(g))
    with pytest.raises(KeyError):
        (a + b).sum().backward(retain_graph=True)
    handle.remove()
    b_fails.remove()
    (a + b).sum().backward()
    assert seen[-1] == [1.0, 1.0]
