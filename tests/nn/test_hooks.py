"""Hooks of modules: their order, what they may change, and the gradients they see (as PyTorch's see them)."""

import gc
import weakref

import numpy as np
import pytest

import disttorch

nn = disttorch.nn


class Double(nn.Module):
    def forward(self, x, *, plus=0):
        return x * 2 + plus


class TestForward:
    def test_order_and_removal(self):
        m, log = Double(), []
        handles = [
            m.register_forward_pre_hook(lambda module, args: log.append("pre 1")),
            m.register_forward_pre_hook(lambda module, args: log.append("pre 2")),
            m.register_forward_pre_hook(lambda module, args: log.append("pre 0"), prepend=True),
            m.register_forward_hook(lambda module, args, out: log.append("post 1")),
            m.register_forward_hook(lambda module, args, out: log.append("post 0"), prepend=True),
        ]
        m(1)
        assert log == ["pre 0", "pre 1", "pre 2", "post 0", "post 1"]
        for handle in handles:
            handle.remove()
        log.clear()
        assert m(1) == 2 and log == []

    def test_they_replace_arguments_and_results(self):
        m = Double()
        m.register_forward_pre_hook(lambda module, args: args[0] + 1)
        m.register_forward_pre_hook(lambda module, args, kwargs: (args, {"plus": kwargs["plus"] * 10}), with_kwargs=True)
        m.register_forward_hook(lambda module, args, out: out + 0.5)
        m.register_forward_hook(lambda module, args, kwargs, out: (out, kwargs["plus"]), with_kwargs=True)
        assert m(1, plus=2) == (24.5, 20)

    def test_a_hook_with_kwargs_returns_both(self):
        m = Double()
        m.register_forward_pre_hook(lambda module, args, kwargs: args, with_kwargs=True)
        with pytest.raises(RuntimeError, match="tuple of \\(new_args, new_kwargs\\)"):
            m(1)

    def test_always_call(self):
        m, log = Double(), []
        m.register_forward_hook(lambda module, args, out: log.append("usual"))
        m.register_forward_hook(lambda module, args, out: log.append(("always", out)), always_call=True)
        with pytest.raises(TypeError, match="unexpected keyword"):
            m(1, wrong=2)
        assert log == [("always", None)]

        def broken(module, args, out):
            raise ValueError("broken")

        m.register_forward_hook(broken, always_call=True)
        with pytest.warns(UserWarning, match="silenced as another error.*broken"), pytest.raises(TypeError):
            m(1, wrong=2)

    def test_a_hook_may_remove_itself(self):
        m, log = Double(), []

        def once(module, args, out):
            log.append(out)
            handle.remove()

        handle = m.register_forward_hook(once)
        m(1), m(2)
        assert log == [2]


def seen_by(framework, mode):
    """What backward hooks of one framework see of a module with two inputs and two results, as lists."""
    log = []

    class Pair(framework.nn.Module):
        def forward(self, x, y, note=None):
            return x * y, note, x + y

    m = Pair()
    x = framework.tensor([1.0, 2.0], requires_grad=mode != "no input")
    y = framework.tensor([3.0, 4.0], requires_grad=mode == "both")
    w = framework.tensor(2.0, requires_grad=True)
    if mode == "no input":
        m.forward = lambda x, y, note=None: (x * w, note, y + w)

    def plain(gradients):
        return [None if g is None else g.tolist() for g in gradients]

    m.register_full_backward_pre_hook(lambda module, out: log.append(("pre", plain(out))))
    m.register_full_backward_hook(lambda module, into, out: log.append(("first", plain(into), plain(out))))
    if mode != "no input":
        m.register_full_backward_hook(lambda module, into, out: tuple(None if g is None else g * 10 for g in into))
    m.register_full_backward_hook(lambda module, into, out: log.append(("last", plain(into))))
    first, _, second = m(x, y, "note")
    (first.sum() + 3 * second.sum()).backward()
    return log, [None if t.grad is None else t.grad.tolist() for t in (x, y, w)]


class TestBackward:
    @pytest.mark.filterwarnings("ignore:Full backward hook is firing")
    @pytest.mark.parametrize("mode", ["both", "one", "no input"])
    def test_they_see_what_pytorchs_see(self, mode):
        torch = pytest.importorskip("torch", reason="needs PyTorch to compare with")
        assert seen_by(disttorch, mode) == seen_by(torch, mode)

    def test_by_the_formula(self):
        log, gradients = seen_by(disttorch, "both")
        # d(x * y) / dx = y, d(x + y) / dx = 1, with 3 as the gradient of the sum
        assert log == [
            ("pre", [[1.0, 1.0], None, [3.0, 3.0]]),
            ("first", [[6.0, 7.0], [4.0, 5.0], None], [[1.0, 1.0], None, [3.0, 3.0]]),
            ("last", [[60.0, 70.0], [40.0, 50.0], None]),
        ]
        assert gradients == [[60.0, 70.0], [40.0, 50.0], None]

    def test_the_pre_hook_replaces_the_gradient_of_the_result(self):
        m = nn.Linear(2, 1, bias=False)
        m.register_full_backward_pre_hook(lambda module, out: (out[0] * 5,))
        x = disttorch.ones(1, 2, requires_grad=True)
        m(x).backward()
        np.testing.assert_allclose(m.weight.grad.numpy(), [[5.0, 5.0]])
        np.testing.assert_allclose(x.grad.numpy(), 5 * m.weight.numpy(force=True))

    def test_a_wrong_number_of_gradients_is_named(self):
        m = Double()
        m.register_full_backward_hook(lambda module, into, out: (into[0], into[0]))
        with pytest.raises(RuntimeError, match="Double returned an invalid number of gradients, got 2, but expected 1"):
            m(disttorch.ones(1, requires_grad=True)).backward()

    def test_a_gradient_for_no_input_is_refused(self):
        m = nn.Linear(1, 1)
        m.register_full_backward_hook(lambda module, into, out: (out[0],))
        with pytest.raises(RuntimeError, match="no input requires gradient should always return None"):
            m(disttorch.ones(1)).backward()

    def test_second_derivatives_pass_through(self):
        m = Double()
        m.register_full_backward_hook(lambda module, into, out: (into[0] * into[0],))
        x = disttorch.tensor(3.0, requires_grad=True)
        (g,) = disttorch.autograd.grad(m(x) * x, x, create_graph=True)
        # the hook makes (2 x) squared of the part through the module; 2 x comes from the other factor
        assert g.item() == 4 * 9 + 6
        (second,) = disttorch.autograd.grad(g, x)
        # of 4 x squared; and of 2 x, which goes through the module and its hook
        assert second.item() == 8 * 3 + 2**2

    def test_without_recording_there_is_nothing_to_hook(self):
        m = Double()
        m.register_full_backward_hook(lambda module, into, out: pytest.fail("there was no backward"))
        with disttorch.no_grad():
            assert not m(disttorch.ones(1, requires_grad=True)).requires_grad

    def test_a_change_in_place_of_a_hooked_result_is_noticed(self):
        class Exp(nn.Module):
            def forward(self, x):
                return x.exp()  # saves its result

        m = Exp()
        m.register_full_backward_hook(lambda module, into, out: None)
        y = m(disttorch.ones(2, requires_grad=True))
        y.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()

    def test_nothing_is_kept_alive(self):
        m = nn.Linear(2, 2)
        m.register_full_backward_hook(lambda module, into, out: None)
        x = disttorch.ones(1, 2, requires_grad=True)
        y = m(x)
        y.sum().backward()
        watch = weakref.ref(m)
        del m, y
        gc.collect()
        assert watch() is None
