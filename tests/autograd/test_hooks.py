"""Hooks on tensors, leaves and nodes: when they run, in which order, and what they may change."""

import pytest

import disttorch
from disttorch.autograd import backward, grad, queue_callback


def leaf(*values):
    return disttorch.tensor(values, requires_grad=True)


def test_hooks_see_the_gradient_in_order_and_may_replace_it():
    x, seen = leaf(1.0, 2.0), []
    y = x * 3
    y.register_hook(lambda g: seen.append(("first", g.tolist())))
    y.register_hook(lambda g: g * 10)
    y.register_hook(lambda g: seen.append(("third", g.tolist())))
    x.register_hook(lambda g: seen.append(("leaf", g.tolist())))
    y.sum().backward()
    assert seen == [("first", [1.0, 1.0]), ("third", [10.0, 10.0]), ("leaf", [30.0, 30.0])]
    assert x.grad.tolist() == [30.0, 30.0]


def test_a_hook_sees_the_whole_gradient_once():
    x, seen = leaf(1.0), []
    y = x * 2
    y.register_hook(lambda g: seen.append(g.item()))
    (y * 3 + y * 4 + y.exp() * 0).sum().backward()
    assert seen == [7.0]


def test_hooks_can_be_removed():
    x, seen = leaf(1.0), []
    handle = x.register_hook(seen.append)
    with x.register_hook(lambda g: g * 2):
        x.sum().backward()
    handle.remove()
    handle.remove()
    x.sum().backward()
    assert len(seen) == 1 and x.grad.item() == 3


def test_a_hook_on_a_leaf_changes_what_accumulates_and_not_what_others_get():
    x, y = leaf(1.0), leaf(2.0)
    x.register_hook(lambda g: g * 100)
    (x + y).sum().backward()
    assert x.grad.item() == 100 and y.grad.item() == 1


def test_a_hook_that_changes_its_argument_in_place_does_not_spoil_others():
    x, y = leaf(1.0), leaf(2.0)
    x.register_hook(lambda g: g.clone().mul_(100))
    (x + y).sum().backward()
    assert y.grad.item() == 1


@pytest.mark.parametrize(
    ("hook", "error", "message"),
    [
        (lambda g: 1.0, TypeError, "float"),
        (lambda g: g.sum(), RuntimeError, r"MulBackward0.*\[2\].*\[\]"),
        (lambda g: 1 / 0, ZeroDivisionError, "division"),
    ],
)
def test_errors_of_hooks(hook, error, message):
    y = leaf(1.0, 2.0) * 2
    y.register_hook(hook)
    with pytest.raises(error, match=message):
        y.sum().backward()


def test_hooks_need_a_gradient():
    with pytest.raises(RuntimeError, match="doesn't require gradient"):
        disttorch.ones(1).register_hook(print)
    with pytest.raises(RuntimeError, match="leaf"):
        (leaf(1.0) * 2).register_post_accumulate_grad_hook(print)
    with pytest.raises(RuntimeError, match="requires_grad=False"):
        disttorch.ones(1).retain_grad()


def test_retain_grad():
    x = leaf(1.0, 2.0)
    y = x * 3
    assert not y.retains_grad
    y.retain_grad()
    y.retain_grad()
    x.retain_grad()
    assert y.retains_grad and not x.retains_grad
    (y * y).sum().backward(retain_graph=True)
    assert y.grad.tolist() == [6.0, 12.0]
    (y * y).sum().backward()
    assert y.grad.tolist() == [12.0, 24.0]
    y.grad.zero_()
    assert x.grad.tolist() == [36.0, 72.0]


def test_retain_grad_sees_what_hooks_made_of_it():
    x = leaf(1.0)
    y = x * 3
    y.register_hook(lambda g: g * 2)
    y.retain_grad()
    y.sum().backward()
    assert y.grad.item() == 2 and x.grad.item() == 6


def test_the_retained_gradient_is_memory_of_its_own():
    x = leaf(1.0, 2.0)
    y = x + 0
    y.retain_grad()
    (y + 0).sum().backward()
    y.grad.add_(5)
    assert x.grad.tolist() == [1.0, 1.0]


def test_post_accumulate_hooks():
    x, seen = leaf(1.0, 2.0), []

    def hook(t):
        seen.append((t is x, t.grad.tolist()))
        t.grad = None

    handle = x.register_post_accumulate_grad_hook(hook)
    (x * 2).sum().backward()
    (x * 3).sum().backward()
    assert seen == [(True, [2.0, 2.0]), (True, [3.0, 3.0])] and x.grad is None
    handle.remove()
    x.sum().backward()
    assert len(seen) == 2 and x.grad.tolist() == [1.0, 1.0]
    grad(x.sum(), x)
    assert len(seen) == 2


def test_node_hooks_and_prehooks():
    x, seen = leaf(1.0, 2.0), []
    y = x * 3
    y.grad_fn.register_prehook(lambda outputs: (outputs[0] * 2,))
    y.grad_fn.register_hook(lambda inputs, outputs: seen.append((inputs[0].tolist(), outputs[0].tolist())))
    handle = y.grad_fn.register_hook(lambda inputs, outputs: (inputs[0] + 1, None))
    y.sum().backward(retain_graph=True)
    assert seen == [([6.0, 6.0], [2.0, 2.0])] and x.grad.tolist() == [7.0, 7.0]
    handle.remove()
    x.grad = None
    y.sum().backward()
    assert x.grad.tolist() == [6.0, 6.0]


def test_hooks_while_the_graph_of_the_gradient_is_recorded():
    x = leaf(3.0)
    y = x * x
    y.register_hook(lambda g: g * y)
    (g,) = grad(y, x, disttorch.ones(1), create_graph=True)
    assert g.item() == 9 * 6 and g.requires_grad
    (second,) = grad(g, x)
    # g = 2 x y, so dg/dx = 2 y + 2 x (dy/dx), and the hook multiplies what comes through y by y again
    assert second.item() == 2 * 9 + 2 * 3 * 9 * 6


def test_hooks_on_one_of_several_results():
    x, seen = leaf(1.0, 3.0, 2.0), []
    values, _ = x.reshape(1, 3).max(dim=1)
    values.register_hook(lambda g: seen.append(g.tolist()))
    values.sum().backward()
    assert seen == [[1.0]] and x.grad.tolist() == [0.0, 1.0, 0.0]


def test_callbacks_at_the_end_of_backward():
    x, seen = leaf(1.0), []
    x.register_hook(lambda g: queue_callback(lambda: seen.append(x.grad.item())))
    (x * 2).sum().backward()
    assert seen == [2.0]
    with pytest.raises(RuntimeError, match="no backward"):
        queue_callback(print)


def test_backward_inside_a_hook():
    x, z = leaf(2.0), leaf(5.0)
    y = x * x

    @disttorch.enable_grad()
    def hook(g):
        (z * z).sum().backward()

    y.register_hook(hook)
    backward(y.sum())
    assert x.grad.item() == 4 and z.grad.item() == 10


def test_a_hook_stays_when_the_tensor_is_changed_in_place():
    x, seen = leaf(1.0), []
    y = x * 2
    y.register_hook(lambda g: seen.append(g.item()))
    y.mul_(3)
    y.sum().backward()
    assert seen == [3.0] and x.grad.item() == 6
