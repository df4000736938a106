"""Function: operations whose derivative the user writes."""

import gc
import weakref

import pytest

import disttorch
from disttorch.autograd import Function, grad, gradcheck, gradgradcheck


def leaf(*values, dtype=disttorch.float64):
    return disttorch.tensor(values, dtype=dtype, requires_grad=True)


class Cube(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * x * x


class Exp(Function):
    """Saves its result."""

    @staticmethod
    def forward(ctx, x):
        out = x.exp()
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx, g):
        (out,) = ctx.saved_tensors
        return g * out


class Scaled(Function):
    """Takes numbers and None, keeps attributes, has setup_context."""

    @staticmethod
    def forward(x, factor, y=None):
        return x * factor if y is None else x * factor + y

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.factor = inputs[1]
        assert isinstance(output, disttorch.Tensor)

    @staticmethod
    def backward(ctx, g):
        return g * ctx.factor, None, g if ctx.needs_input_grad[-1] else None


class SumAndProduct(Function):
    """Two results, of which one may not be used."""

    materialize = True

    @classmethod
    def switch(cls, materialize):
        return type("Switched", (cls,), {"materialize": materialize})

    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return x + y, x * y

    @staticmethod
    def backward(ctx, g_sum, g_product):
        x, y = ctx.saved_tensors
        return g_sum + g_product * y, g_sum + g_product * x


class Normalized(Function):
    """Saves an intermediate result that is neither input nor output."""

    @staticmethod
    def forward(ctx, x):
        size = x.norm()
        out = x / size
        ctx.save_for_backward(out, size)
        return out

    @staticmethod
    def backward(ctx, g):
        out, size = ctx.saved_tensors
        return (g - out * (g * out).sum()) / size


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (Cube.apply, (leaf(1.0, -2.0),)),
        (Exp.apply, (leaf(0.5, -0.5),)),
        (lambda x: Scaled.apply(x, 3.0, None), (leaf(1.0, 2.0),)),
        (lambda x, y: Scaled.apply(x, 3.0, y), (leaf(1.0, 2.0), leaf(3.0, 4.0))),
        (SumAndProduct.apply, (leaf(1.0, 2.0), leaf(3.0, 4.0))),
        (lambda x, y: SumAndProduct.apply(x, y)[1], (leaf(1.0, 2.0), leaf(3.0, 4.0))),
        (Normalized.apply, (leaf(1.0, 2.0, -1.0),)),
    ],
)
def test_derivatives(function, inputs):
    assert gradcheck(function, inputs)


@pytest.mark.parametrize("function", [Cube.apply, Exp.apply, lambda x: Exp.apply(Cube.apply(x)) * x])
def test_second_derivatives(function):
    assert gradgradcheck(function, leaf(0.5, -0.25))


def test_results_and_their_names():
    x = leaf(2.0)
    y = Cube.apply(x)
    assert y.grad_fn.name() == "CubeBackward" and not y.is_leaf and y.item() == 8
    assert not Cube.apply(x.detach()).requires_grad
    with disttorch.no_grad():
        assert not Cube.apply(x).requires_grad


def test_what_forward_does_is_not_recorded():
    class Watching(Function):
        @staticmethod
        def forward(ctx, x):
            assert not disttorch.is_grad_enabled()
            y = x * 2
            assert not y.requires_grad
            return y

        @staticmethod
        def backward(ctx, g):
            assert not disttorch.is_grad_enabled()
            return g * 2

    Watching.apply(leaf(1.0)).sum().backward()


def test_gradients_of_unused_results():
    seen = []

    class Two(Function):
        @staticmethod
        def forward(ctx, x, materialize):
            ctx.set_materialize_grads(materialize)
            return x * 2, x * 3

        @staticmethod
        def backward(ctx, g, h):
            seen.append(None if h is None else h.tolist())
            return g * 2, None

    for materialize in (True, False):
        Two.apply(leaf(1.0, 2.0), materialize)[0].sum().backward()
    assert seen == [[0.0, 0.0], None]


def test_non_differentiable_results():
    class SortedWithOrder(Function):
        @staticmethod
        def forward(ctx, x):
            values, order = x.sort()
            ranks = order.double()
            ctx.mark_non_differentiable(ranks)
            ctx.order = order
            return values, order, ranks

        @staticmethod
        def backward(ctx, g, *rest):
            return disttorch.zeros_like(g).scatter_add(0, ctx.order, g)

    x = leaf(3.0, 1.0, 2.0)
    values, order, ranks = SortedWithOrder.apply(x)
    assert values.requires_grad and not order.requires_grad and not ranks.requires_grad
    (values * disttorch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert x.grad.tolist() == [100.0, 1.0, 10.0]


class DoubleInPlace(Function):
    @staticmethod
    def forward(ctx, x):
        x.mul_(2)
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx, g):
        return g * 2


def test_mark_dirty():
    x = leaf(1.0, 2.0)
    y = x * 3
    z = DoubleInPlace.apply(y)
    assert z is y and y.tolist() == [6.0, 12.0] and y.grad_fn.name() == "DoubleInPlaceBackward"
    z.sum().backward()
    assert x.grad.tolist() == [6.0, 6.0]
    a = x * 1
    b = a.exp()
    DoubleInPlace.apply(b)
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        b.sum().backward()
    with pytest.raises(RuntimeError, match="leaf"):
        DoubleInPlace.apply(leaf(1.0))


def test_returning_an_input_unchanged():
    class Same(Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 5

    x = leaf(1.0)
    y = Same.apply(x)
    assert y is not x and x.is_leaf and not y.is_leaf
    y.sum().backward()
    assert x.grad.item() == 5


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (lambda g: (), RuntimeError, r"expected 2, got 0"),
        (lambda g: g, RuntimeError, r"expected 2, got 1"),
        (lambda g: (g, None, g), RuntimeError, r"expected 2, got 3"),
        (lambda g: (g, g), RuntimeError, "position 2.*not a Tensor"),
        (lambda g: (1.0, None), TypeError, "float at position 1"),
        (lambda g: (g.sum().reshape(1, 1).expand(3, 3), None), RuntimeError, r"\[3, 3\].*\[2\]"),
    ],
)
def test_wrong_gradients(returned, error, message):
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x, number):
            return x * number

        @staticmethod
        def backward(ctx, g):
            return returned(g)

    with pytest.raises(error, match=message):
        Wrong.apply(leaf(1.0, 2.0), 3).sum().backward()


def test_none_after_the_last_argument_is_forgiven():
    class Forgiven(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2, None

    x = leaf(1.0)
    Forgiven.apply(x).sum().backward()
    assert x.grad.item() == 2


def test_saved_tensors_are_freed_and_guarded():
    x = leaf(1.0, 2.0)
    y = Cube.apply(x)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()
    a = x * 1
    y = Cube.apply(a)
    a.zero_()
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation.*CubeBackward"):
        y.sum().backward()
    with pytest.raises(TypeError, match="int"):

        class Bad(Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x, 1)
                return x

        Bad.apply(x)


def test_missing_methods():
    class Empty(Function):
        pass

    class OnlyForward(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

    with pytest.raises(NotImplementedError, match="forward"):
        Empty.apply(leaf(1.0))
    with pytest.raises(NotImplementedError, match="backward"):
        OnlyForward.apply(leaf(1.0)).sum().backward()


@pytest.mark.parametrize("function", [Cube, Exp, Normalized])
def test_no_reference_cycle_keeps_the_graph_alive(function):
    gc.collect()
    gc.disable()
    try:
        x = leaf(1.0, 2.0)
        y = function.apply(x)
        node = weakref.ref(y.grad_fn)
        del y
        assert node() is None
    finally:
        gc.enable()


def test_inside_of_other_graphs_and_of_itself():
    class Outer(Function):
        @staticmethod
        def forward(ctx, x):
            with disttorch.enable_grad():
                inner = x.detach().requires_grad_()
                out = Cube.apply(inner).sum()
            (ctx.gradient,) = grad(out, inner)
            return out.detach()

        @staticmethod
        def backward(ctx, g):
            return g * ctx.gradient

    x = leaf(1.0, 2.0)
    (Outer.apply(x * 2) * 3).backward()
    assert x.grad.tolist() == [3 * 3 * 4 * 2, 3 * 3 * 16 * 2]
