"""Deep graphs, what is freed when, and several threads."""

import gc
import threading
import tracemalloc
import weakref

import numpy as np
import pytest

import disttorch

DEPTH = 100_000


@pytest.fixture
def without_gc():
    """Only reference counts free memory while such a test runs."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("use", ["backward", "grad", "forget", "retain"])
def test_a_graph_of_100_000_nodes(without_gc, use):
    x = disttorch.ones(1, requires_grad=True)
    y = x
    for _ in range(DEPTH):
        y = y + 1
    assert y.item() == DEPTH + 1
    first = weakref.ref(y.grad_fn)
    if use == "backward":
        y.backward()
        assert x.grad.item() == 1
    elif use == "grad":
        assert disttorch.autograd.grad(y, x)[0].item() == 1
    elif use == "retain":
        y.backward(retain_graph=True)
        y.backward()
        assert x.grad.item() == 2
    del y
    assert first() is None


def test_a_deep_graph_of_views_and_changes_in_place(without_gc):
    x = disttorch.ones(4, requires_grad=True)
    y = x * 1
    for _ in range(3000):
        y[1:3].mul_(1.0)
        y.add_(0)
    y.sum().backward()
    assert x.grad.tolist() == [1.0] * 4


def test_a_deep_chain_of_views(without_gc):
    x = disttorch.ones(2, 3, requires_grad=True)
    base = x * 1
    y = base
    for _ in range(DEPTH // 5):
        y = y.t()
    base.mul_(3)
    y.sum().backward()
    assert x.grad.tolist() == [[3.0] * 3] * 2
    node = weakref.ref(y.grad_fn)
    del y, base
    assert node() is None


def test_a_deep_graph_of_functions(without_gc):
    class Plus(disttorch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x + 1

        @staticmethod
        def backward(ctx, g):
            return g

    x = disttorch.ones(1, requires_grad=True)
    y = x
    for _ in range(20_000):
        y = Plus.apply(y)
    node = weakref.ref(y.grad_fn)
    y.backward()
    del y
    assert x.grad.item() == 1 and node() is None


def test_wide_graphs_share_nothing_but_the_leaf(without_gc):
    x = disttorch.ones(3, requires_grad=True)
    total = sum((x * float(i) for i in range(2000)), disttorch.zeros(3))
    total.sum().backward()
    assert x.grad.tolist() == [2000 * 1999 / 2] * 3


def test_training_steps_do_not_leak(without_gc):
    w = disttorch.ones(50, 50, requires_grad=True)

    def step():
        y = (w @ w).tanh() * 2
        y[0].mul_(2)
        loss = (y.reshape(-1)[:100].exp() * 2).mean() + y.max(dim=1)[0].sum() + w.t().sum()
        loss.backward()
        w.grad = None

    step()
    tracemalloc.start()
    for _ in range(3):
        step()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(30):
        step()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 20_000


def test_backward_frees_saved_arrays_as_it_passes(without_gc):
    x = disttorch.ones(1000, requires_grad=True)
    refs, alive = [], []
    y = x
    for _ in range(10):
        y = y.exp() * 0.1
        refs.append(weakref.ref(y._array.base if y._array.base is not None else y._array))
    x.register_hook(lambda g: alive.append(sum(r() is not None for r in refs)))
    y.sum().backward()
    assert alive == [1]  # only y itself, which the test holds


def test_what_no_rule_reads_is_not_kept(without_gc):
    x = disttorch.ones(1000, requires_grad=True)
    middle = x * 2
    array = weakref.ref(middle._array)
    y = middle + 1
    del middle
    assert array() is None
    kept = x * 2
    array = weakref.ref(kept._array)
    z = kept * x
    del kept
    assert array() is not None
    del y, z
    assert array() is None


def test_a_leaf_is_freed_with_its_last_reference(without_gc):
    x = disttorch.ones(3, requires_grad=True)
    x.register_hook(lambda g: None)
    x.register_post_accumulate_grad_hook(lambda t: None)
    y = (x * 2).sum()
    y.backward()
    gone = weakref.ref(x)
    del x, y
    assert gone() is None


def test_peak_memory_of_a_chain_of_views_is_one_gradient(without_gc):
    x = disttorch.ones(1000, 1000, requires_grad=True)
    y = x
    for _ in range(20):
        y = y.t()
    total = y.sum()
    tracemalloc.start()
    total.backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.2 * x.nbytes


def test_a_sum_of_gradients_needs_one_array_more(without_gc):
    x = disttorch.ones(1000, 1000, requires_grad=True)
    total = (x + x + x + x + x).sum()
    tracemalloc.start()
    total.backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert x.grad[0, 0].item() == 5 and peak < 3.2 * x.nbytes


def test_several_threads_run_backward_on_graphs_of_their_own():
    values = np.random.default_rng(0).standard_normal((8, 50))
    results, errors = [None] * 8, []

    def work(i):
        try:
            for _ in range(30):
                w = disttorch.tensor(values[i], requires_grad=True)
                (w.exp() * w.sin()).sum().backward()
                results[i] = w.grad.numpy()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    for i in range(8):
        v = values[i]
        np.testing.assert_allclose(results[i], np.exp(v) * (np.sin(v) + np.cos(v)))


def test_several_threads_accumulate_into_shared_parameters():
    w = disttorch.zeros(10_000, dtype=disttorch.float64, requires_grad=True)
    start = threading.Barrier(4)

    def work():
        start.wait()
        for _ in range(50):
            (w * 1.0).sum().backward()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert (w.grad == 200).all().item()


def test_threads_share_a_graph_that_is_kept():
    x = disttorch.ones(100, dtype=disttorch.float64, requires_grad=True)
    y = (x.exp() * x).sum()
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(disttorch.autograd.grad(y, x, retain_graph=True)[0].numpy()))
        for _ in range(6)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 6 and all(np.allclose(f, 2 * np.e) for f in found)


def test_a_deep_graph_of_gradients(without_gc):
    """Derivatives of a chain with create_graph: used, and forgotten."""
    x = disttorch.tensor([1.0], dtype=disttorch.float64, requires_grad=True)
    y = x
    for _ in range(DEPTH // 5):
        y = y * 1.00001
    y = y * y
    (g,) = disttorch.autograd.grad(y, x, create_graph=True)
    node = weakref.ref(g.grad_fn)
    (h,) = disttorch.autograd.grad(g, x, create_graph=True)
    scale = 1.00001 ** (DEPTH // 5)
    assert g.item() == pytest.approx(2 * scale**2) and h.item() == pytest.approx(2 * scale**2)
    del g, h, y
    assert node() is None


def test_a_deep_graph_in_which_hooks_saved(without_gc):
    x = disttorch.tensor([1.0], dtype=disttorch.float64, requires_grad=True)
    y = x
    with disttorch.autograd.graph.saved_tensors_hooks(lambda t: t.numpy(), disttorch.from_numpy):
        for _ in range(DEPTH // 10):
            y = y.sin()
    node = weakref.ref(y.grad_fn)
    y.backward()
    assert 0 < x.grad.item() < 1
    del y
    assert node() is None


def run_in_threads(work, count=6):
    errors = []

    def guarded(k):
        try:
            work(k)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(k,)) for k in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        raise errors[0]


def test_hooks_and_shared_leaves_in_several_threads():
    w = disttorch.ones(50, dtype=disttorch.float64, requires_grad=True)
    shared = w * 2
    seen, post = [], []
    w.register_hook(lambda g: seen.append(1))
    w.register_post_accumulate_grad_hook(lambda p: post.append(1))
    both = []
    disttorch.autograd.graph.register_multi_grad_hook([w, shared], lambda gs: both.append([g is not None for g in gs]))

    def work(k):
        for _ in range(30):
            (shared * shared + w).sum().backward(retain_graph=True)

    run_in_threads(work)
    assert len(seen) == len(post) == len(both) == 180 and all(b == [True, True] for b in both)
    np.testing.assert_allclose(w.grad.numpy(), 180 * (8 + 1))


def test_views_and_modes_in_several_threads():
    base = disttorch.zeros(6, 100)
    before = weakref.ref(base)

    def work(k, base=base):
        rows = []
        for i in range(100):
            with disttorch.no_grad():
                row = base[k]
                rows.append(row[i : i + 1])
                row[i] += k + 1
        assert all(r.item() == k + 1 for r in rows)
        with disttorch.autograd.detect_anomaly() if k % 2 else disttorch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            x = disttorch.ones(3, requires_grad=True)
            x.exp().sum().backward()

    run_in_threads(work)
    assert (base == disttorch.arange(1.0, 7)[:, None]).all()
    assert len(base._version) < 1500
    del base, work
    gc.collect()
    assert before() is None


def test_transforms_in_several_threads():
    from disttorch.func import grad, vmap

    def work(k):
        x = disttorch.ones(4, 3, dtype=disttorch.float64) * (k + 1)
        for _ in range(20):
            found = vmap(grad(lambda x: (x**3).sum()))(x)
            np.testing.assert_allclose(found.numpy(), 3 * (k + 1) ** 2)

    run_in_threads(work)


def resident():
    """Bytes of memory of the process's own. Pages of files, such as libraries, come and go as the system has room."""
    with open("/proc/self/status") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith("RssAnon:"))


def test_10_000_steps_take_no_more_memory():
    disttorch.manual_seed(0)
    model = disttorch.nn.Sequential(disttorch.nn.Linear(8, 16), disttorch.nn.Tanh(), disttorch.nn.Linear(16, 1))
    optimizer = disttorch.optim.Adam(model.parameters(), 1e-3)
    x = disttorch.randn(32, 8)
    y = x[:, :1] * 0.5

    def steps(count):
        for _ in range(count):
            optimizer.zero_grad()
            disttorch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()

    steps(500)
    gc.collect()
    start = resident()
    steps(9500)
    gc.collect()
    assert resident() - start < 2**20
