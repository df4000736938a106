"""vmap: the samples at once are the samples one by one."""

from collections import namedtuple

import numpy as np
import pytest

import disttorch
from disttorch.func import grad, vmap
from disttorch.utils._pytree import flatten

F = disttorch.nn.functional
Pair = namedtuple("Pair", "left right")
I = disttorch.tensor


def draw(*shape, seed=0, dtype=np.float64):
    return disttorch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


def integers(*shape, high=3, seed=0):
    return disttorch.from_numpy(np.random.default_rng(seed).integers(0, high, shape))


def one_by_one(function, in_dims, args):
    """The loop that vmap stands for."""
    size = next(a.shape[d] for a, d in zip(args, in_dims) if d is not None)
    results = [
        flatten(function(*(a if d is None else a.select(d, k) for a, d in zip(args, in_dims))))[0] for k in range(size)
    ]
    return [disttorch.stack(column) for column in zip(*results)]


def agree(found, expected):
    found, expected = flatten(found)[0], flatten(expected)[0]
    assert len(found) == len(expected)
    for f, e in zip(found, expected):
        assert f.shape == e.shape and f.dtype == e.dtype
        np.testing.assert_allclose(f.detach().numpy(), e.detach().numpy(), rtol=1e-9, atol=1e-12)


#: function, arguments of one sample with the samples' dimension where in_dims says, in_dims
CASES = {
    "elementwise of other dimensions": (lambda x, y: x * y + y.exp(), (draw(4, 3), draw(4, 2, 3)), (0, 0)),
    "one is the same for all": (lambda x, y: x / (1 + y * y), (draw(4, 3), draw(3)), (0, None)),
    "in another dimension": (lambda x: x.sum(0) * x.shape[1], (draw(2, 3, 4),), (-1,)),
    "reductions": (lambda x: (x.sum(), x.mean(1), x.std(), x.max(0).values, x.argmin(), x.amax((0, 1))), (draw(4, 2, 3),), (0,)),
    "of no dimensions": (lambda x: (x.sum(), x.max(), x.reshape(1), x.cumsum(0), x.softmax(0)), (draw(4),), (0,)),
    "matmul": (lambda a, b: a @ b, (draw(5, 2, 3), draw(5, 3, 4)), (0, 0)),
    "matmul by one": (lambda a, b: a @ b, (draw(5, 2, 3), draw(3, 4)), (0, None)),
    "one by many": (lambda a, b: a @ b, (draw(2, 3), draw(3, 5, 4)), (None, 1)),
    "vectors": (lambda a, b: (a @ b, disttorch.outer(a, b), disttorch.dot(a, b)), (draw(5, 3), draw(5, 3)), (0, 0)),
    "matrix and vector": (lambda a, b: (a @ b, b @ a), (draw(5, 3, 3), draw(3)), (0, None)),
    "batches of matrices": (lambda a, b: a @ b, (draw(5, 2, 3), draw(5, 6, 3, 2)), (0, 0)),
    "einsum": (lambda a, b: disttorch.einsum("ij,jk->ki", a, b), (draw(5, 2, 3), draw(3, 4)), (0, None)),
    "shapes": (
        lambda x: (x.reshape(-1), x.t(), x.unsqueeze(1), x.flatten(), x.expand(2, 2, 3), x.flip(0), x.roll(1, 1), x.tril(), x.diagonal()),
        (draw(4, 2, 3),),
        (0,),
    ),
    "joining": (lambda x, y: (disttorch.cat((x, y), 0), disttorch.stack((x, x), 1)), (draw(4, 2, 3), draw(1, 3)), (0, None)),
    "splitting": (lambda x: (*x.split(1, 1), *x.unbind(0), *x.chunk(2, -1)), (draw(4, 2, 4),), (0,)),
    "basic indices": (lambda x: (x[0], x[..., 1], x[:, None, ::2], x[-1:, 1:]), (draw(4, 3, 4),), (0,)),
    "the same indices": (
        lambda x: (x[I([2, 0])], x[:, I([[0, 1], [1, 1]])], x[I([0, 1]), :, I([0, 2])]),
        (draw(4, 3, 2, 3),),
        (0,),
    ),
    "indices of each": (lambda x, i: (x[i], x[:, i], x[i, i], x[i, :, i]), (draw(4, 3, 3, 2), integers(4, 5, high=2)), (0, 0)),
    "an index of each": (lambda x, i: (x[i], x[:, i]), (draw(4, 3, 3), integers(4)), (0, 0)),
    "indices into what is the same": (lambda x, i: (x[i], x[1, i]), (draw(3, 3), integers(4, 5)), (None, 0)),
    "gather": (lambda x, i: (x.gather(1, i), x.index_select(0, i[0]), x.take(i)), (draw(4, 2, 3), integers(4, 2, 3, high=2)), (0, 0)),
    "scatter": (
        lambda x, i, s: (x.scatter_add(1, i, s), x.scatter(0, i[:1] % 1, s)),
        (draw(2, 3), integers(4, 2, 3, high=2), draw(2, 3)),
        (None, 0, None),
    ),
    "where": (
        lambda x, y: (disttorch.where(x > y, x, 0.0), x.masked_fill(x > 0, 2.0), x.clamp(-0.5, 0.5)),
        (draw(4, 3), draw(3)),
        (0, None),
    ),
    "sorting": (lambda x: (*x.sort(0), *x.topk(2), x.argsort()), (draw(4, 3),), (0,)),
    "linear": (lambda x, w, b: F.linear(x, w, b), (draw(4, 2, 3), draw(5, 3), draw(5)), (0, None, None)),
    "linear of each": (lambda x, w, b: F.linear(x, w, b), (draw(2, 3), draw(4, 5, 3), draw(4, 5)), (None, 0, 0)),
    "conv2d": (lambda x, w: F.conv2d(x, w, padding=1), (draw(3, 2, 2, 5, 5), draw(4, 2, 3, 3)), (0, None)),
    "conv2d of each": (lambda x, w: F.conv2d(x, w, stride=2), (draw(2, 2, 5, 5), draw(3, 4, 2, 3, 3)), (None, 0)),
    "conv2d of both": (lambda x, w: F.conv2d(x, w, groups=2), (draw(3, 2, 4, 5, 5), draw(3, 4, 2, 3, 3)), (0, 0)),
    "conv_transpose1d": (lambda x, w: F.conv_transpose1d(x, w, stride=2), (draw(3, 2, 4, 5), draw(3, 4, 2, 3)), (0, 0)),
    "pools": (lambda x: (F.max_pool2d(x, 2), F.avg_pool2d(x, 2), F.adaptive_avg_pool2d(x, 1)), (draw(3, 2, 2, 4, 4),), (0,)),
    "norms": (
        lambda x, w: (F.layer_norm(x, (3,), w), F.batch_norm(x, None, None, training=True), F.group_norm(x, 3), F.rms_norm(x, (3,))),
        (draw(4, 5, 3), draw(4, 3)),
        (0, 0),
    ),
    "activations": (lambda x: (F.softmax(x, -1), F.log_softmax(x, 0), F.gelu(x), F.silu(x), F.leaky_relu(x)), (draw(4, 2, 3),), (0,)),
    "embedding": (lambda i, w: F.embedding(i, w), (integers(4, 5), draw(3, 2)), (0, None)),
    "losses": (
        lambda x, t: (F.cross_entropy(x, t), F.nll_loss(x, t), F.mse_loss(x, x * 2), F.cross_entropy(x, t, reduction="none")),
        (draw(4, 2, 3), integers(4, 2)),
        (0, 0),
    ),
    "attention": (lambda q, k: F.scaled_dot_product_attention(q, k, k), (draw(4, 2, 3, 5), draw(4, 2, 6, 5)), (0, 0)),
    "linear algebra": (
        lambda a: (disttorch.linalg.solve(a, a[0]), disttorch.linalg.det(a), disttorch.linalg.inv(a), disttorch.linalg.norm(a)),
        (draw(4, 3, 3),),
        (0,),
    ),
    "new tensors": (lambda x: (disttorch.zeros_like(x) + x, x.new_ones(2) * x.sum(), disttorch.arange(3) * x), (draw(4, 3),), (0,)),
    "without a rule": (lambda x: (disttorch.histc(x, 4, -1, 1), disttorch.cov(x.reshape(1, -1))), (draw(4, 6),), (0,)),
}


@pytest.mark.parametrize("name", CASES)
def test_values(name):
    function, args, in_dims = CASES[name]
    agree(vmap(function, in_dims)(*args), one_by_one(function, in_dims, args))


def total(function):
    """The sum of the squares of all floating-point results."""

    def one(*args):
        return sum((r * r).sum() for r in flatten(function(*args))[0] if r.is_floating_point())

    return one


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("without a rule",)])
def test_gradients_of_each_sample_and_of_all(name):
    function, args, in_dims = CASES[name]
    floating = tuple(i for i, a in enumerate(args) if a.is_floating_point())
    derivative = grad(total(function), floating)
    agree(vmap(derivative, in_dims)(*args), one_by_one(derivative, in_dims, args))
    # from outside: what is the same for all gets the sum
    leaves = [a.clone().requires_grad_(a.is_floating_point()) for a in args]
    vmap(total(function), in_dims)(*leaves).sum().backward()
    again = [a.clone().requires_grad_(a.is_floating_point()) for a in args]
    one_by_one(total(function), in_dims, again)[0].sum().backward()
    for one, other in zip(leaves, again):
        if one.requires_grad and other.grad is not None:
            agree(one.grad, other.grad)


def test_where_samples_are():
    x = disttorch.ones(2, 3)
    where = []
    vmap(lambda a: where.append((a.device, a.is_cpu, a.is_cuda)) or a)(x)
    assert where == [(x.device, x.is_cpu, x.is_cuda)]


def test_nested():
    x, y = draw(3, 2), draw(4, 2)
    found = vmap(lambda a: vmap(lambda b: (a * b).sum())(y))(x)
    np.testing.assert_allclose(found.numpy(), x.numpy() @ y.numpy().T)
    found = vmap(vmap(vmap(lambda a, b: a.exp() * b, (None, 0)), (0, None)))(draw(5, 3), draw(5, 4))
    np.testing.assert_allclose(found.numpy(), np.exp(draw(5, 3).numpy())[:, :, None] * draw(5, 4).numpy()[:, None])
    # per-sample gradients of a function that itself maps
    w = draw(2)
    loss = lambda w, x: vmap(lambda row: (row * w).sum() ** 2)(x).sum()  # noqa: E731
    agree(vmap(grad(loss), (None, 0))(w, draw(3, 4, 2)), one_by_one(grad(loss), (None, 0), (w, draw(3, 4, 2))))
    index = integers(3, 4)
    table = draw(3, 3, seed=5)
    found = vmap(lambda i, t: vmap(lambda j: t[j] * 2)(i), (0, None))(index, table)
    np.testing.assert_allclose(found.numpy(), table.numpy()[index.numpy()] * 2)


def test_nested_structures():
    inputs = {"a": draw(4, 2), "b": [draw(3, 4), Pair(draw(4), draw(2))]}
    in_dims = {"a": 0, "b": [1, Pair(0, None)]}

    def function(d, scale, offset=0.0):
        return {"sum": d["a"].sum() + offset, "parts": Pair(d["b"][0] * scale, [d["b"][1].left * d["b"][1].right])}

    found = vmap(function, (in_dims, None), out_dims={"sum": 0, "parts": 1})(inputs, 2.0, offset=1.0)
    assert isinstance(found["parts"], Pair) and found["parts"].left.shape == (3, 4) and found["parts"].right[0].shape == (2, 4)
    np.testing.assert_allclose(found["sum"].numpy(), inputs["a"].numpy().sum(1) + 1)


@pytest.mark.parametrize("chunk_size", [1, 2, 5, 7])
def test_chunks(chunk_size):
    x = draw(3, 5)
    sizes = []

    def function(x):
        sizes.append(x.shape)
        return x * 2, x.sum()

    found = vmap(function, 1, (1, 0), chunk_size=chunk_size)(x)
    np.testing.assert_allclose(found[0].numpy(), x.numpy() * 2)
    np.testing.assert_allclose(found[1].numpy(), x.numpy().sum(0))
    assert len(sizes) == -(-5 // chunk_size)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + disttorch.rand(3),
        lambda x: x + disttorch.randn_like(x),
        lambda x: F.dropout(disttorch.ones(3), 0.5) + 0 * x,
        lambda x: x + disttorch.randperm(3),
        lambda x: x + disttorch.randint(0, 100, (3,)),
        lambda x: F.scaled_dot_product_attention(x[:, None], x[:, None], disttorch.eye(3)[None] + 0 * x, dropout_p=0.5)[0, 0],
    ],
)
def test_random_numbers(function):
    disttorch.manual_seed(0)
    x = disttorch.zeros(40, 3)
    with pytest.raises(RuntimeError, match="randomness error mode"):
        vmap(function)(x)
    same = vmap(function, randomness="same")(x)
    assert bool((same == same[0]).all())
    different = vmap(function, randomness="different")(x)
    assert len(np.unique(different.numpy(), axis=0)) > 3
    nested = vmap(lambda a: vmap(function, randomness="different")(x[:2]), randomness="same")(x[:5])
    assert bool((nested == nested[0]).all())


def test_changes_in_place():
    x = draw(4, 3)
    values = x.numpy().copy()

    def function(x, y):
        y = x * 2
        y.add_(1)
        y[0] = 5
        y[1:].mul_(x[1:])
        return y

    expected = values * 2 + 1
    expected[:, 0] = 5
    expected[:, 1:] *= values[:, 1:]
    np.testing.assert_allclose(vmap(function, (0, None))(x, x).numpy(), expected)
    vmap(lambda x: x.zero_(), 1)(x)
    assert not x.numpy().any()
    with pytest.raises(RuntimeError, match="cannot be changed in place"):
        vmap(lambda x, y: y.add_(x), (0, None))(draw(4, 3), draw(3))


def test_running_statistics():
    model = disttorch.nn.Sequential(disttorch.nn.BatchNorm1d(3)).double()
    x = draw(4, 5, 3)
    with pytest.raises(RuntimeError, match="running statistics"):
        vmap(model)(x)
    means, variances = disttorch.zeros(4, 3, dtype=x.dtype), disttorch.ones(4, 3, dtype=x.dtype)
    vmap(lambda x, m, v: F.batch_norm(x, m, v, training=True))(x, means, variances)
    np.testing.assert_allclose(means.numpy(), 0.1 * x.numpy().mean(1))
    agree(vmap(model.eval())(x), one_by_one(model, (0,), (x,)))
    model = disttorch.func.replace_all_batch_norm_modules_(model.train())
    agree(vmap(model)(x), one_by_one(model, (0,), (x,)))


def test_gradients_through_changes_in_place():
    def function(x):
        y = x * 2
        y[1:] = y[:1].clone() * x[1:]
        y.mul_(x)
        return y.sum()

    x = draw(4, 3)
    agree(vmap(grad(function))(x), one_by_one(grad(function), (0,), (x,)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: vmap(lambda x: x)(), ValueError, "no inputs"),
        (lambda x: vmap(lambda x: x, None)(x), ValueError, "at least one input"),
        (lambda x: vmap(lambda x: x, 3)(x), ValueError, "dimensionality 2"),
        (lambda x: vmap(lambda x, y: x, (0, 0))(x, 1.0), ValueError, "float"),
        (lambda x: vmap(lambda x, y: x, (0, 0, 0))(x, x), ValueError, "not compatible"),
        (lambda x: vmap(lambda x: x, "0")(x), ValueError, "expected `in_dims`"),
        (lambda x: vmap(lambda x, y: x, (0, 1))(x, x), ValueError, "same size in the mapped dimension"),
        (lambda x: vmap(lambda x: 3.0)(x), ValueError, "only return Tensors, got type float"),
        (lambda x: vmap(lambda x: (x, x), out_dims=(0, 0, 0))(x), ValueError, "out_dims is not compatible"),
        (lambda x: vmap(lambda x: x, out_dims=None)(x), ValueError, "out_dim is None"),
        (lambda x: vmap(lambda x: x, out_dims=5)(x), IndexError, "out_dim 5"),
        (lambda x: vmap(lambda x: x, randomness="other")(x), RuntimeError, "Only allowed values for randomness"),
        (lambda x: vmap(lambda x: x, chunk_size=0)(x), ValueError, "chunk_size"),
        (lambda x: vmap(lambda x: x if x.sum() > 0 else -x)(x), RuntimeError, "where"),
        (lambda x: vmap(lambda x: x * x.sum().item())(x), RuntimeError, "item"),
        (lambda x: vmap(lambda x: x.numpy())(x), RuntimeError, "NumPy array"),
        (lambda x: vmap(lambda x: x[x > 0])(x), RuntimeError, "mask|shape differs"),
        (lambda x: vmap(lambda x: (x > 0).nonzero())(x), RuntimeError, "shape differs"),
        (lambda x: vmap(lambda x: (x.requires_grad_().sum().backward(), x)[1])(x), RuntimeError, "backward"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(draw(3, 2))


class Scaled(disttorch.autograd.Function):
    """x * y with a rule of its own for vmap."""

    seen: list = []  # noqa: RUF012

    @staticmethod
    def forward(x, y):
        return x * y

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return g * y, g * x

    @staticmethod
    def vmap(info, in_dims, x, y):
        Scaled.seen.append((info.batch_size, info.randomness, in_dims))
        x = x if in_dims[0] is None else x.movedim(in_dims[0], 0)
        y = y if in_dims[1] is None else y.movedim(in_dims[1], 0)
        return Scaled.apply(x, y), 0


def test_functions_with_a_rule_of_their_own():
    x, y = draw(4, 3), draw(3)
    np.testing.assert_allclose(vmap(Scaled.apply, (0, None))(x, y).numpy(), x.numpy() * y.numpy())
    assert Scaled.seen[-1] == (4, "error", (0, None))
    derivative = grad(lambda x, y: Scaled.apply(x, y).sum(), 1)
    np.testing.assert_allclose(vmap(derivative, (0, None))(x, y).numpy(), x.numpy())
    leaf = y.clone().requires_grad_()
    vmap(Scaled.apply, (0, None))(x, leaf).sum().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), x.numpy().sum(0))


class Generated(disttorch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.exp()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0]


def test_functions_without_one():
    x = draw(4, 3)
    derivative = grad(lambda x: Generated.apply(x).sum())
    np.testing.assert_allclose(vmap(derivative)(x).numpy(), np.exp(x.numpy()))


def test_no_loop_over_samples():
    """The operations run are as many for 1000 samples as for 2."""
    calls = []

    class Counting(disttorch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            calls.append(x.shape)
            return x.sin()

    for n in (2, 1000):
        calls.clear()
        vmap(lambda x: Counting.apply(x @ x))(draw(n, 3))
        assert len(calls) == 1
