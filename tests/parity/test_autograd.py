"""Programs of autograd, torch.func and checkpointing, run with PyTorch and with ours: the same results, the same errors."""

import warnings

import numpy as np
import pytest

import disttorch
import disttorch.utils.checkpoint

torch = pytest.importorskip("torch")
pytest.importorskip("torch.utils.checkpoint")

X = np.random.default_rng(0).standard_normal((3, 4))
V = np.random.default_rng(1).standard_normal(4)


def x(t, grad=False):
    return t.tensor(X.tolist(), dtype=t.float64, requires_grad=grad)


def v(t, grad=False):
    return t.tensor(V.tolist(), dtype=t.float64, requires_grad=grad)


def z(t, grad=True):
    return t.tensor((V + 1j * V[::-1]).tolist(), dtype=t.complex128, requires_grad=grad)


def batched_backward(t):
    a = v(t, True)
    y = a.sin() * a.sum()
    return t.autograd.grad(y, a, t.eye(4, dtype=t.float64), is_grads_batched=True)


def hooked(t):
    a = v(t, True)
    seen = []
    with t.autograd.graph.saved_tensors_hooks(lambda s: (seen.append(list(s.shape)), s * 2)[1], lambda s: s / 2):
        y = (a.exp() * a).sum()
    y.backward()
    return a.grad, t.tensor(len(seen))


def multi_hook(t):
    a, b = v(t, True), v(t, True)
    seen = []
    t.autograd.graph.register_multi_grad_hook((a, b), lambda gs: seen.extend(gs))
    (a * b * 2).sum().backward()
    return seen


def mutated(t):
    a = v(t, True)
    with t.autograd.graph.allow_mutation_on_saved_tensors():
        b = a.clone()
        y = (b**2).sum()
        b.sin_()
        (y + b.sum()).backward()
    return a.grad


def dual(t):
    fw = t.autograd.forward_ad
    with fw.dual_level():
        a = fw.make_dual(v(t), t.ones(4, dtype=t.float64))
        return list(fw.unpack_dual((a.exp() * a.sum()).sin()))


def custom(t, **options):
    class Sine(t.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(a, factor):
            return a.sin() * factor

        @staticmethod
        def setup_context(ctx, inputs, output):
            a, factor = inputs
            ctx.save_for_backward(a)
            ctx.save_for_forward(a)
            ctx.factor = factor

        @staticmethod
        def backward(ctx, g):
            (a,) = ctx.saved_tensors
            return g * a.cos() * ctx.factor, None

        @staticmethod
        def jvp(ctx, a_t, _):
            (a,) = ctx.saved_tensors
            return a_t * a.cos() * ctx.factor

    f = lambda a: Sine.apply(a, 3.0)  # noqa: E731
    return [
        t.func.vmap(f)(x(t)),
        t.func.vmap(t.func.grad(lambda a: f(a).sum()))(x(t)),
        *t.func.jvp(f, (v(t),), (v(t),)),
        t.func.jacrev(f)(v(t)),
        t.func.hessian(lambda a: f(a).sum())(v(t)),
    ]


def checkpointed(t, **options):
    a = x(t, True)
    y = t.utils.checkpoint.checkpoint(lambda a: (a.exp() @ a.t()).sin(), a, **options)
    (y**2).sum().backward()
    return y, a.grad


def module_gradients(t):
    model = t.nn.Sequential(t.nn.Linear(4, 3), t.nn.Tanh(), t.nn.Linear(3, 2)).double()
    values = {n: t.linspace(-1, 1, p.numel(), dtype=t.float64).reshape(p.shape) for n, p in model.named_parameters()}
    loss = lambda p, a: (t.func.functional_call(model, p, (a,)) ** 2).sum()  # noqa: E731
    found = t.func.vmap(t.func.grad(loss), in_dims=(None, 0))(values, x(t))
    return [found[n] for n in sorted(found)]


PROGRAMS = {
    "batched backward": batched_backward,
    "saved tensors hooks": hooked,
    "multi grad hook": multi_hook,
    "mutation on saved tensors": mutated,
    "dual numbers": dual,
    "custom function": custom,
    "checkpoint": lambda t: checkpointed(t, use_reentrant=False),
    "checkpoint, reentrant": lambda t: checkpointed(t, use_reentrant=True),
    "per-sample gradients": module_gradients,
    "complex gradient": lambda t: grad_of_complex(t),
    "complex second derivative": lambda t: second_of_complex(t),
    "jacobian": lambda t: t.autograd.functional.jacobian(lambda a, b: (a.sum(0) * b, b.exp()), (x(t), v(t))),
    "jacobian, vectorized": lambda t: t.autograd.functional.jacobian(lambda a: a.exp() @ a.t(), x(t), vectorize=True),
    "jacobian, forward": lambda t: t.autograd.functional.jacobian(lambda a: a.exp() @ a.t(), x(t), vectorize=True, strategy="forward-mode"),
    "hessian": lambda t: t.autograd.functional.hessian(lambda a, b: (a @ b).pow(3).sum(), (x(t), v(t))),
    "vjp": lambda t: t.autograd.functional.vjp(lambda a: a.sum(0).sin(), x(t), v(t)),
    "jvp": lambda t: t.autograd.functional.jvp(lambda a: a.sum(0).sin(), x(t), x(t)),
    "vhp": lambda t: t.autograd.functional.vhp(lambda a: a.pow(3).sum(), x(t), x(t)),
    "hvp": lambda t: t.autograd.functional.hvp(lambda a: a.pow(3).sum(), x(t), x(t)),
    "func.grad": lambda t: t.func.grad(lambda a, b: (a @ b).sin().sum(), argnums=(0, 1))(x(t), v(t)),
    "func.grad of grad": lambda t: t.func.grad(lambda a: t.func.grad(lambda b: (a * b * b).sum())(a).sum())(v(t)),
    "func.vjp": lambda t: t.func.vjp(lambda a: (a @ v(t)).exp(), x(t))[1](t.ones(3, dtype=t.float64)),
    "func.jvp": lambda t: t.func.jvp(lambda a: (a @ v(t)).exp(), (x(t),), (x(t),)),
    "func.linearize": lambda t: t.func.linearize(lambda a: a.exp(), v(t))[1](v(t)),
    "func.jacrev": lambda t: t.func.jacrev(lambda a: {"y": a.exp() @ v(t)})(x(t))["y"],
    "func.jacfwd": lambda t: t.func.jacfwd(lambda a: a.exp() @ v(t))(x(t)),
    "func.hessian": lambda t: t.func.hessian(lambda a: (a @ v(t)).exp().sum())(x(t)),
    "vmap of a hessian": lambda t: t.func.vmap(t.func.hessian(lambda a: a.pow(4).sum() * a[0]))(x(t)),
    "vmap, dims": lambda t: t.func.vmap(lambda a, b: a.unsqueeze(-1) * b, in_dims=(1, None), out_dims=1)(x(t), v(t)),
    "vmap, structures": lambda t: t.func.vmap(lambda d: d["a"] * d["b"][0], in_dims=({"a": 0, "b": [None]},))({"a": x(t), "b": [v(t)]}),
    "vmap, nested": lambda t: t.func.vmap(lambda a: t.func.vmap(lambda b: (a * b).sum())(x(t)))(x(t)),
    "vmap, chunks": lambda t: t.func.vmap(lambda a: a.sum() * a, chunk_size=2)(x(t)),
    "vmap, outer gradient": lambda t: outer_gradient(t),
    "sort under vmap": lambda t: list(t.func.vmap(lambda a: a.sort())(x(t))),
    "indexing under vmap": lambda t: t.func.vmap(lambda a, i: a[i] * a[0], in_dims=(0, 0))(x(t), t.tensor([[0, 1], [2, 3], [3, 3]])),
    "in place under vmap": lambda t: t.func.vmap(lambda a: a.clone().add_(1).mul_(a))(x(t)),
    "cross entropy under vmap": lambda t: t.func.vmap(
        t.func.grad(lambda a, c: t.nn.functional.cross_entropy(a.unsqueeze(0), c.unsqueeze(0)))
    )(x(t), t.tensor([0, 1, 3])),
}


def grad_of_complex(t):
    a = z(t)
    return t.autograd.grad((a.exp() * a.conj()).abs().sum(), a)


def second_of_complex(t):
    a = z(t)
    (g,) = t.autograd.grad((a**3).real.sum(), a, create_graph=True)
    return g, *t.autograd.grad(g.abs().sum(), a)


def outer_gradient(t):
    w = v(t, True)
    t.func.vmap(lambda a: (a * w).sin().sum())(x(t)).sum().backward()
    return w.grad


def leaves(value):
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in leaves(part)]
    return [value]


@pytest.mark.parametrize("name", PROGRAMS)
def test_results(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch's own parts
        expected = leaves(PROGRAMS[name](torch))
    found = leaves(PROGRAMS[name](disttorch))
    assert len(found) == len(expected)
    for f, e in zip(found, expected):
        assert tuple(f.shape) == tuple(e.shape) and str(f.dtype).split(".")[1] == str(e.dtype).split(".")[1]
        np.testing.assert_allclose(f.detach().numpy(), e.detach().numpy(), rtol=1e-9, atol=1e-12)


ERRORS = {
    "grad of a vector": lambda t: t.autograd.grad(v(t, True) * 2, v(t, True)),
    "grad of what has no graph": lambda t: t.autograd.grad(v(t).sum(), v(t, True)),
    "unused": lambda t: t.autograd.grad(v(t, True).sum(), v(t, True)),
    "materialize": lambda t: t.autograd.grad(v(t, True).sum(), v(t, True), allow_unused=False, materialize_grads=True),
    "no inputs": lambda t: t.autograd.backward(v(t, True).sum(), inputs=[]),
    "wrong shape": lambda t: (v(t, True) * 2).backward(t.ones(3)),
    "hook mode": lambda t: t.autograd.graph.register_multi_grad_hook((v(t, True),), print, mode="some"),
    "dual outside": lambda t: t.autograd.forward_ad.make_dual(v(t), v(t)),
    "jacobian of no tensor": lambda t: t.autograd.functional.jacobian(lambda a: a, 3.0),
    "jacobian, strict": lambda t: t.autograd.functional.jacobian(lambda a: t.ones(2), v(t), strict=True),
    "jacobian, forward": lambda t: t.autograd.functional.jacobian(lambda a: a, v(t), strategy="forward-mode"),
    "jacobian, both": lambda t: t.autograd.functional.jacobian(lambda a: a, v(t), strict=True, vectorize=True),
    "hessian of a vector": lambda t: t.autograd.functional.hessian(lambda a: a, v(t)),
    "vjp without v": lambda t: t.autograd.functional.vjp(lambda a: a, v(t)),
    "vmap of nothing": lambda t: t.func.vmap(lambda: 1)(),
    "vmap, in_dims": lambda t: t.func.vmap(lambda a: a, in_dims=(0, 0))(v(t)),
    "vmap, dim": lambda t: t.func.vmap(lambda a: a, in_dims=2)(v(t)),
    "vmap, sizes": lambda t: t.func.vmap(lambda a, b: a)(v(t), x(t)),
    "vmap, None": lambda t: t.func.vmap(lambda a: a, in_dims=None)(v(t)),
    "vmap, item": lambda t: t.func.vmap(lambda a: a.item() * a)(v(t)),
    "vmap, if": lambda t: t.func.vmap(lambda a: a if a > 0 else -a)(v(t)),
    "vmap, random": lambda t: t.func.vmap(lambda a: a + t.rand(2))(v(t)),
    "vmap, no tensor": lambda t: t.func.vmap(lambda a: 1.0)(v(t)),
    "vmap, out_dims": lambda t: t.func.vmap(lambda a: a, out_dims=(0, 0))(v(t)),
    "vmap, backward": lambda t: t.func.vmap(lambda a: (a.sum().backward(), a)[1])(x(t, True)),
    "func.grad of a vector": lambda t: t.func.grad(lambda a: a)(v(t)),
    "func.jvp, primals": lambda t: t.func.jvp(lambda a: a, v(t), (v(t),)),
    "checkpoint, keyword": lambda t: t.utils.checkpoint.checkpoint(lambda a: a, v(t, True), use_reentrant=True, b=3),
    "checkpoint, check": lambda t: t.utils.checkpoint.checkpoint(lambda a: a, v(t, True), use_reentrant=False, determinism_check="x"),
    "gradcheck of nothing": lambda t: t.autograd.gradcheck(lambda a: a, v(t)),
    "gradcheck of a wrong rule": lambda t: t.autograd.gradcheck(lambda a: a.detach() * a, v(t, True)),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    def error(t):
        with warnings.catch_warnings(), pytest.raises(Exception) as caught:
            warnings.simplefilter("ignore")
            ERRORS[name](t)
        return caught.value

    expected, found = error(torch), error(disttorch)
    kinds = [c.__name__ for c in type(found).__mro__]
    assert type(expected).__name__ in kinds, f"{found!r} instead of {expected!r}"


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (lambda t: (lambda a: a.exp() * a), {}),
        (lambda t: (lambda a: a.exp() * a), {"fast_mode": True}),
        (lambda t: (lambda a: a.exp() * a), {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}),
        (lambda t: (lambda a: (a.sin(), a.sum())), {"check_undefined_grad": True, "check_grad_dtypes": True}),
        (lambda t: (lambda a: a.detach() * a), {"raise_exception": False}),
        (lambda t: (lambda a: a.detach() * a), {"raise_exception": False, "fast_mode": True}),
        (lambda t: (lambda a: a.detach() * 1), {"raise_exception": False}),
    ],
)
@pytest.mark.parametrize("kind", [v, z])
@pytest.mark.filterwarnings("ignore")
def test_gradcheck(function, options, kind):
    a = {t: kind(t, True) for t in (torch, disttorch)}
    results = [t.autograd.gradcheck(function(t), a[t], **options) for t in (torch, disttorch)]
    assert results[0] == results[1]
    if results[0]:
        assert all(t.autograd.gradgradcheck(function(t), a[t], fast_mode=options.get("fast_mode", False)) for t in (torch, disttorch))
