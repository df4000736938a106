"""Operations on tensors of a device that is not the current one, on the stand-in, whose devices refuse each other's memory."""

import io
import threading

import numpy as np
import pytest

from tests.stand_in import host_cuda
from tests.stand_in.session import tensors

needs_compiler = pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available()))


@pytest.fixture
def torch():
    with tensors(devices=2) as module:
        yield module


@pytest.fixture
def three():
    with tensors(devices=3) as module:
        yield module


def made(torch, *shape, device="cuda:1", **options):
    values = np.linspace(-1, 2, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    return torch.tensor(values, device=device, **options)


#: name: a function of the module, a matrix (4, 4) and a vector (4,) on the device
FAMILIES = {
    "elementwise": lambda t, m, v: m.sin() * 2 + v / 3 - m,
    "numbers on the left": lambda t, m, v: 2 ** (1 - m),
    "0-dimensional of the CPU": lambda t, m, v: t.tensor(2.0) * m + t.tensor(1),
    "integers become floats": lambda t, m, v: t.arange(4, device="cuda:1").sqrt() + v,
    "comparison": lambda t, m, v: (m > v) & (m != 0),
    "out=": lambda t, m, v: t.add(m, v, out=t.empty(4, 4, device="cuda:1")),
    "out= resized": lambda t, m, v: t.add(m, v, out=t.empty(0, device="cuda:1")),
    "in place": lambda t, m, v: m.clone().add_(v).mul_(2).clamp_(-1, 1),
    "in place by operators": lambda t, m, v: _in_place(m.clone(), v),
    "filled": lambda t, m, v: m.clone().fill_(3).zero_().add_(v),
    "reduction": lambda t, m, v: m.sum(0) + m.mean() + m.var(1) + m.norm() + m.prod(0),
    "extremes": lambda t, m, v: m.max(0).values + m.argmax(1) + t.maximum(m, v).amin(),
    "cumulative": lambda t, m, v: m.cumsum(0) + v.cumprod(0) + m.logcumsumexp(1),
    "sorted": lambda t, m, v: m.sort(1).values + m.topk(4).indices + v.argsort(),
    "unique": lambda t, m, v: v.round().unique(),
    "views": lambda t, m, v: m.T.reshape(-1)[2:6] + m.view(2, 8)[0, ::2] + m.diagonal(),
    "not contiguous": lambda t, m, v: m.t().contiguous().flatten().unfold(0, 4, 4).clone(),
    "joined": lambda t, m, v: t.cat([m, v[None]]) + t.stack([v] * 5),
    "split": lambda t, m, v: m.split(2)[1].repeat(2, 1) + m.chunk(2)[0].tile(2, 1),
    "indexed": lambda t, m, v: m[t.tensor([0, 2], device="cuda:1")] + m[m[:, 0] > -9][:2] + m[[1, 3]],
    "indexed from the CPU": lambda t, m, v: m[t.tensor([0, 2])],
    "written to": lambda t, m, v: _written(m.clone(), v),
    "gathered": lambda t, m, v: m.gather(1, t.zeros(4, 1, dtype=t.int64, device="cuda:1")).expand(4, 4),
    "selected": lambda t, m, v: m.index_select(0, t.arange(4, device="cuda:1")) + m.take(t.tensor(3, device="cuda:1")),
    "scattered": lambda t, m, v: m.clone().scatter_add_(0, t.zeros(1, 4, dtype=t.int64, device="cuda:1"), v[None]),
    "masked": lambda t, m, v: m.masked_fill(m > 0, 1.0) + t.where(m > 0, m, v),
    "product": lambda t, m, v: m @ m + t.addmm(v, m, m) + (m @ v) + t.einsum("ij,jk->ik", m, m),
    "linear algebra": lambda t, m, v: t.linalg.inv(m @ m.T + 4 * t.eye(4, device="cuda:1")) + t.linalg.solve(m + 9 * t.diag(v.exp()), m),
    "fft": lambda t, m, v: t.fft.irfft(t.fft.rfft(m)),
    "special": lambda t, m, v: t.special.erf(m) + t.lgamma(v + 3),
    "dtypes": lambda t, m, v: m.double().half().to(t.float32) + m.type_as(v) + v.int(),
    "made like it": lambda t, m, v: t.zeros_like(m) + m.new_ones(4) + t.full_like(v, 2) + m.new_tensor([1.0]),
    "made there": lambda t, m, v: t.eye(4, device="cuda:1") + t.arange(4.0, device="cuda:1") + t.linspace(0, 1, 4, device="cuda:1"),
    "windows": lambda t, m, v: t.hann_window(4, device="cuda:1") * v,
    "activation": lambda t, m, v: t.nn.functional.gelu(m) + t.nn.functional.softmax(m, 1) + t.nn.functional.silu(m),
    "loss": lambda t, m, v: t.nn.functional.cross_entropy(m, t.arange(4, device="cuda:1")) + t.nn.functional.mse_loss(m, m * 2),
    "normalized": lambda t, m, v: t.nn.functional.layer_norm(m, (4,), v, v) + t.nn.functional.batch_norm(m, None, None, training=True),
    "convolution": lambda t, m, v: t.nn.functional.conv2d(m[None, None], m[:2, :2][None, None]),
    "pooling": lambda t, m, v: t.nn.functional.max_pool2d(m[None], 2) + t.nn.functional.adaptive_avg_pool2d(m[None], 2),
    "pooling modules": lambda t, m, v: t.nn.MaxPool2d(2)(m[None]) + t.nn.AvgPool2d(2)(m[None]) + t.nn.AdaptiveMaxPool2d(2)(m[None]),
    "embedding": lambda t, m, v: t.nn.functional.embedding(t.tensor([1, 2], device="cuda:1"), m),
    "attention": lambda t, m, v: t.nn.functional.scaled_dot_product_attention(m[None], m[None], m[None]),
    "resampled": lambda t, m, v: t.nn.functional.interpolate(m[None, None], scale_factor=2, mode="bilinear"),
    "vmap": lambda t, m, v: t.func.vmap(lambda row: row.sin().sum() * row)(m),
    "jacobian": lambda t, m, v: t.func.jacrev(lambda x: x.sin())(v),
    "a function of the standard": lambda t, m, v: m.__array_namespace__().add(m, v),
}  # fmt: skip

RANDOM = {
    "dropout": lambda t, m, v: t.nn.functional.dropout(m, 0.5),
    "drawn like it": lambda t, m, v: t.randn_like(m) + t.rand_like(v),
    "drawn there": lambda t, m, v: t.randn(4, device="cuda:1") + t.randint(3, (4,), device="cuda:1") + t.randperm(4, device="cuda:1"),
    "drawn in place": lambda t, m, v: m.clone().normal_() + v.clone().uniform_().bernoulli_(),
    "drawn by parameters": lambda t, m, v: t.bernoulli(m.sigmoid()) + t.poisson(m.exp()) + t.normal(m, m.exp()),
    "multinomial": lambda t, m, v: t.multinomial(m.exp(), 2),
    "own generator": lambda t, m, v: t.rand(3, device="cuda:1", generator=t.Generator("cuda:1").manual_seed(3)),
    "truncated normal": lambda t, m, v: t.nn.init.trunc_normal_(m.clone()),
    "orthogonal": lambda t, m, v: t.nn.init.orthogonal_(m.clone()),
}


def _in_place(m, v):
    m += v
    m *= 2
    m /= v + 5
    return m


def _written(m, v):
    m[0] = v
    m[1:3, 1] = 7
    m[m > 5] = 0.5
    m[[0, 3]] = v * 2
    return m


@needs_compiler
@pytest.mark.parametrize("name", FAMILIES)
def test_operations_on_another_device_than_the_current_one(torch, name):
    family = FAMILIES[name]
    found = family(torch, made(torch, 4, 4), made(torch, 4))
    assert str(found.device) == "cuda:1" and torch.cuda.current_device() == 0
    with torch.cuda.device(1):
        wanted = family(torch, made(torch, 4, 4), made(torch, 4))
    np.testing.assert_array_equal(found.cpu().numpy(), wanted.cpu().numpy())


@needs_compiler
@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers_on_another_device_than_the_current_one(torch, name):
    found = []
    for _ in range(2):
        torch.cuda.manual_seed_all(5)
        found.append(RANDOM[name](torch, made(torch, 4, 4), made(torch, 4)))
    assert str(found[0].device) == "cuda:1" and torch.cuda.current_device() == 0
    np.testing.assert_array_equal(*(f.cpu().numpy() for f in found))


GRADIENTS = (
    "elementwise", "numbers on the left", "0-dimensional of the CPU", "reduction", "cumulative", "views", "joined", "split", "indexed",
    "written to", "gathered", "selected", "scattered", "masked", "product", "linear algebra", "fft", "special", "dtypes", "activation",
    "loss", "normalized", "convolution", "pooling", "pooling modules", "embedding", "attention", "resampled", "vmap",
)  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("second", [False, True], ids=["backward", "create_graph"])
def test_gradients(torch, name, second):
    def gradients():
        m, v = made(torch, 4, 4, requires_grad=True), made(torch, 4, requires_grad=True)
        result = FAMILIES[name](torch, m, v).float().square().sum()
        if not second:
            torch.autograd.backward([result])
            return m.grad, v.grad
        first = torch.autograd.grad(result, (m, v), create_graph=True, allow_unused=True)
        sum(g.square().sum() for g in first if g is not None).backward()
        return m.grad, v.grad

    found = gradients()
    assert torch.cuda.current_device() == 0 and all(g is None or str(g.device) == "cuda:1" for g in found)
    with torch.cuda.device(1):
        wanted = gradients()
    for f, w in zip(found, wanted):
        assert (f is None) == (w is None)
        if f is not None:
            np.testing.assert_array_equal(f.cpu().numpy(), w.cpu().numpy())


# --- tensors of several devices ----------------------------------------------------------------------------------------

MIXED = {
    "add": lambda t, x, y: x + y,
    "mul": lambda t, x, y: t.mul(x, y),
    "matmul": lambda t, x, y: x @ y,
    "linear": lambda t, x, y: t.nn.functional.linear(x, y),
    "cat": lambda t, x, y: t.cat([x, y]),
    "stack": lambda t, x, y: t.stack((x, y)),
    "where": lambda t, x, y: t.where(x > 0, x, y),
    "add_": lambda t, x, y: x.add_(y),
    "addmm": lambda t, x, y: t.addmm(x, x, y),
    "layer_norm": lambda t, x, y: t.nn.functional.layer_norm(x, (2, 2), y),
    "index_select": lambda t, x, y: x.index_select(0, y[0].long()),
    "eq": lambda t, x, y: x == y,
}  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("places", [("cuda:0", "cuda:1"), ("cuda:1", "cuda:0"), ("cuda:0", "cpu"), ("cpu", "cuda:1")], ids=" ".join)
def test_tensors_on_different_devices(torch, name, places):
    x, y = (torch.zeros(2, 2, device=place) for place in places)
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device, but found at least two devices") as error:
        MIXED[name](torch, x, y)
    said = "matmul" if name == "addmm" and "cpu" in places else name.strip("_")  # a sum with a product, by which it is computed
    assert said in str(error.value) and all(place in str(error.value) for place in places)
    assert torch.cuda.current_device() == 0


@needs_compiler
def test_a_tensor_without_dimensions_of_another_gpu_is_refused(torch):
    with pytest.raises(RuntimeError, match="cuda:0 and cuda:1"):
        torch.zeros(2, device="cuda:0") * torch.tensor(2.0, device="cuda:1")


@needs_compiler
def test_the_current_device_is_what_it_was_after_errors(torch):
    x = made(torch, 4)
    for wrong in (lambda: x.view(5), lambda: x @ made(torch, 3), lambda: x[9], lambda: x.sum(7), lambda: torch.cat([x, made(torch, 2, 2)])):
        with pytest.raises((RuntimeError, IndexError)):
            wrong()
        assert torch.cuda.current_device() == 0
    y = made(torch, 4, requires_grad=True)
    y.register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        (y * 2).sum().backward()
    assert torch.cuda.current_device() == 0


@needs_compiler
def test_values_written_from_another_device(three):
    x, y = made(three, 2, 2, device="cuda:0"), made(three, 2, 2, device="cuda:2")
    x.copy_(y)
    x[0] = y[1]
    x[1:] = y[0]
    np.testing.assert_array_equal(x.cpu().numpy(), y.flip(0).cpu().numpy())
    assert y.expand_as(x).device == y.view_as(x).device == three.device("cuda:2") and x.type_as(y).device == y.device
    with pytest.raises(RuntimeError, match="cuda:0 and cuda:2"):
        x[three.tensor([0], device="cuda:2")]


@needs_compiler
@pytest.mark.parametrize("place", ["cuda:0", "cpu"])
def test_gradients_of_what_is_written_from_another_device(torch, place):
    source = torch.ones(2, device=place, requires_grad=True)
    target = torch.zeros(3, 2, device="cuda:1")
    target[0].copy_(source)
    target[1] = source * 2
    (target * 3).sum().backward()
    assert source.grad.device == source.device and source.grad.tolist() == [9.0, 9.0]


@needs_compiler
def test_where_a_device_without_number_is(torch):
    x = made(torch, 2)
    assert str(x.to("cuda").device) == str(x.cuda().device) == str(torch.ones_like(x, device="cuda").device) == "cuda:0"
    with torch.cuda.device(1):
        assert str(torch.ones(1, device="cuda:0").cuda().device) == "cuda:1"


# --- training ----------------------------------------------------------------------------------------------------------


def halves(torch, first, second):
    torch.manual_seed(0)
    nn = torch.nn

    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU())
            self.second = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))

        def forward(self, x):
            h = self.first(x.to(first))
            return self.second(h.to(second)) + h.sum(1, keepdim=True).to(second)

    model = Halves()
    model.first.to(first)
    model.second.to(second)
    return model


OPTIMIZERS = {
    "SGD": {"lr": 0.1, "momentum": 0.9}, "AdamW": {"lr": 0.01}, "AdamW capturable": {"lr": 0.01, "capturable": True},
    "Adam fused": {"lr": 0.01, "fused": True}, "RMSprop": {"lr": 0.01}, "Adafactor": {"lr": 0.01},
    "Adam differentiable": {"lr": 0.01, "differentiable": True},
}  # fmt: skip


def trained(torch, first, second, optimizer, steps=3):
    model = halves(torch, first, second)
    options = OPTIMIZERS[optimizer]
    stepping = getattr(torch.optim, optimizer.split()[0])(model.parameters(), **options)
    x, y = made(torch, 5, 6, device="cpu"), torch.tensor([0, 1, 2, 1, 0], device=second)
    losses = []
    for _ in range(steps):
        stepping.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        if options.get("differentiable"):
            with torch.no_grad():
                stepping.step()
        else:
            stepping.step()
        losses.append(loss.item())
    assert torch.cuda.current_device() == 0
    return losses, [p.detach().cpu().numpy() for p in model.parameters()]


@needs_compiler
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_half_of_a_model_on_each_device(torch, optimizer):
    wanted, there = trained(torch, "cuda:0", "cuda:0", optimizer)
    found, here = trained(torch, "cuda:0", "cuda:1", optimizer)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    for a, b in zip(here, there):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@needs_compiler
def test_a_whole_model_on_another_device(torch):
    wanted, _ = trained(torch, "cuda:0", "cuda:0", "AdamW")
    found, _ = trained(torch, "cuda:1", "cuda:1", "AdamW")
    assert found == wanted


@needs_compiler
def test_scaled_gradients_on_two_devices(torch):
    model = halves(torch, "cuda:0", "cuda:1")
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cuda", init_scale=4.0)
    before = [p.detach().cpu().numpy() for p in model.parameters()]
    with torch.autocast("cuda", torch.bfloat16):
        loss = model(made(torch, 5, 6, device="cuda:0")).float().square().mean()
    scaler.scale(loss).backward()
    scaler.unscale_(sgd)
    gradients = [p.grad.cpu().numpy() for p in model.parameters()]
    scaler.step(sgd)
    scaler.update()
    for p, b, g in zip(model.parameters(), before, gradients):
        np.testing.assert_allclose(p.detach().cpu().numpy(), b - 0.1 * g, rtol=1e-5, atol=1e-6)
    next(model.second.parameters()).grad.fill_(float("inf"))
    after = [p.detach().cpu().numpy() for p in model.parameters()]
    scaler.step(sgd)
    scaler.update()
    assert scaler.get_scale() == 2.0 and all((p.detach().cpu().numpy() == a).all() for p, a in zip(model.parameters(), after))


@needs_compiler
def test_a_closure_of_lbfgs_on_another_device(torch):
    x = made(torch, 3, requires_grad=True)
    lbfgs = torch.optim.LBFGS([x], line_search_fn="strong_wolfe")

    def closure():
        lbfgs.zero_grad()
        loss = (x - 1).square().sum()
        loss.backward()
        return loss

    lbfgs.step(closure)
    np.testing.assert_allclose(x.detach().cpu().numpy(), 1, atol=1e-4)


@needs_compiler
def test_checkpoint_and_saved_tensors(torch):
    checkpoint = torch.utils.checkpoint.checkpoint

    def gradient(run):
        torch.cuda.manual_seed_all(1)
        x = made(torch, 4, requires_grad=True)
        h = run(lambda x: torch.nn.functional.dropout(x.sin(), 0.5) * 2, x).to("cuda:0")
        run(lambda h: h.exp(), h).sum().backward()
        return x.grad.cpu().numpy()

    wanted = gradient(lambda f, x: f(x))
    np.testing.assert_array_equal(gradient(lambda f, x: checkpoint(f, x, use_reentrant=False)), wanted)
    np.testing.assert_array_equal(gradient(lambda f, x: checkpoint(f, x, use_reentrant=True)), wanted)
    with torch.autograd.graph.save_on_cpu():
        np.testing.assert_array_equal(gradient(lambda f, x: f(x)), wanted)


@needs_compiler
def test_custom_functions_hooks_and_retained_gradients(torch):
    seen = []

    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, g):
            seen.append((torch.cuda.current_device(), torch.ones(1, device="cuda").device.index))
            return g * 2 + 0 * ctx.saved_tensors[0]

    x = made(torch, 3, requires_grad=True)
    y = Twice.apply(x)
    y.register_hook(lambda g: g + 1)
    y.retain_grad()
    (y * 3 + y.to("cuda:0").to("cuda:1")).sum().backward()
    assert x.grad.tolist() == [10.0] * 3 and y.grad.tolist() == [5.0] * 3
    assert seen == [(1, 1)] and torch.cuda.current_device() == 0


@needs_compiler
def test_a_gradient_on_a_wrong_device_is_refused(torch):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g.to("cuda:0")

    x = made(torch, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="cuda:1 was computed on cuda:0"):
        Wrong.apply(x).sum().backward()


# --- what else there is of a device ------------------------------------------------------------------------------------


@needs_compiler
def test_saved_and_loaded(torch):
    model = halves(torch, "cuda:0", "cuda:1")
    for kind in ("safetensors", "torch"):
        file = io.BytesIO()
        torch.save(model.state_dict(), file, format=kind)
        file.seek(0)
        loaded = torch.load(file, map_location="cuda:1")
        assert {str(v.device) for v in loaded.values()} == {"cuda:1"}
        other = halves(torch, "cuda:1", "cuda:0")
        other.load_state_dict(loaded)
        for p, q in zip(model.parameters(), other.parameters()):
            np.testing.assert_array_equal(p.detach().cpu().numpy(), q.detach().cpu().numpy())


@needs_compiler
def test_texts_numbers_and_other_libraries(torch):
    import cupy

    x = made(torch, 3)
    assert "device='cuda:1'" in repr(x) and x.tolist() == [-1.0, 0.5, 2.0] and float(x[1]) == 0.5 and bool(x[2] > 1) and 2.0 in x
    assert [float(v) for v in x] == x.tolist() and f"{x[0]:.1f}" == "-1.0" and x.to_dense() is x if hasattr(x, "to_dense") else True
    array = cupy.from_dlpack(x)
    assert array.device.id == 1
    for back in (torch.from_dlpack(array), torch.from_dlpack(x), torch.as_tensor(array), torch.tensor(array), torch.asarray(array)):
        assert str(back.device) == "cuda:1" and back.tolist() == x.tolist()
    assert str(torch.tensor(array, device="cuda:0").device) == "cuda:0"
    import copy
    import pickle

    assert copy.deepcopy(x).device == pickle.loads(pickle.dumps(x)).device == x.device


@needs_compiler
def test_streams_and_events_of_another_device(torch):
    cuda = torch.cuda
    stream = cuda.Stream("cuda:1")
    x = made(torch, 4)
    stream.wait_stream(cuda.current_stream(1))
    with cuda.stream(stream):
        assert cuda.current_device() == 1 and cuda.current_stream() == stream
        z = torch.ones(3, device="cuda:0") * 2  # on the first device's own stream
        y = x * 2
        event = stream.record_event()
    assert cuda.current_device() == 0 and event.device == torch.device("cuda:1")
    cuda.current_stream(1).wait_event(event)
    assert (y + 1).tolist() == [v * 2 + 1 for v in x.tolist()] and z.tolist() == [2.0] * 3
    y.record_stream(cuda.current_stream(1))


@needs_compiler
def test_random_streams_are_the_devices_own(torch):
    torch.cuda.manual_seed_all(3)
    first, second = torch.rand(4, device="cuda:0"), torch.rand(4, device="cuda:1")
    assert first.tolist() == second.tolist() and torch.cuda.get_rng_state(1).tolist() == torch.cuda.get_rng_state(0).tolist()
    state = torch.cuda.get_rng_state_all()
    more = torch.rand(4, device="cuda:1")
    assert torch.cuda.get_rng_state(1).tolist() != torch.cuda.get_rng_state(0).tolist()
    torch.cuda.set_rng_state_all(state)
    assert torch.rand(4, device="cuda:1").tolist() == more.tolist()
    with pytest.raises(RuntimeError, match="Expected a 'cuda:1' generator device but found 'cuda:0'"):
        torch.rand(3, device="cuda:1", generator=torch.Generator("cuda:0"))


@needs_compiler
def test_threads_with_current_devices_of_their_own(torch):
    found, both = {}, threading.Barrier(2)

    def work(number):
        torch.cuda.set_device(number)
        mine = made(torch, 4, device="cuda", requires_grad=True)
        other = made(torch, 4, device=f"cuda:{1 - number}", requires_grad=True)
        for _ in range(5):
            both.wait(120)
            loss = (mine.sin() * 2).sum() + (other.exp() * 3).sum().to("cuda")
            loss.backward()
            both.wait(120)  # the first time kernels are compiled
        places = str(mine.grad.device), str(other.grad.device), torch.cuda.current_device()
        found[number] = *places, mine.grad.cpu().numpy(), other.grad.cpu().numpy()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    values = np.linspace(-1, 2, 4, dtype=np.float32)
    for number in range(2):
        mine, other, current, g, h = found[number]
        assert (mine, other, current) == (f"cuda:{number}", f"cuda:{1 - number}", number)
        np.testing.assert_allclose(g, 10 * np.cos(values), rtol=1e-5)
        np.testing.assert_allclose(h, 15 * np.exp(values), rtol=1e-5)


# --- when it is there --------------------------------------------------------------------------------------------------


def is_guarded(torch):
    from disttorch.backend import in_use

    return in_use.several()


@needs_compiler
def test_one_gpu_pays_nothing(three):
    torch = three
    add, apply = torch.add, torch.Tensor.__add__
    torch.cuda.get_device_properties(2)
    torch.cuda.set_device(2)  # as each rank does, before there are tensors
    x = torch.ones(3, device="cuda") + torch.ones(3, device="cuda:2")
    with torch.cuda.device(2), torch.cuda.stream(torch.cuda.Stream()):
        torch.ones(3, device="cuda") * 2
    torch.cuda.mem_get_info(0)
    assert not is_guarded(torch) and torch.add is add and torch.Tensor.__add__ is apply
    assert str(x.device) == "cuda:2"


USES = {
    "a tensor there": lambda t: t.ones(1, device="cuda:1"),
    "a copy": lambda t: t.ones(1).to("cuda:1"),
    "the current device": lambda t: t.cuda.set_device(1),
    "a block": lambda t: t.cuda.device(1).__enter__(),
    "a stream": lambda t: t.cuda.set_stream(t.cuda.Stream("cuda:1")),
}  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("use", USES)
def test_the_second_gpu_brings_it(torch, use):
    x = torch.ones(3, device="cuda")
    assert not is_guarded(torch)
    USES[use](torch)
    assert is_guarded(torch)
    assert (x * 2).device == torch.device("cuda:0")


@needs_compiler
def test_a_profile_that_runs_goes_on(torch):
    with torch.autograd.profiler.profile() as profile:
        x = made(torch, 3, requires_grad=True)
        (torch.mul(x, 2) + x).sum().backward()
    assert {"mul", "add", "sum", "MulBackward0"} <= {e.key for e in profile.key_averages()}
    assert str(torch.mul(x, 2).device) == "cuda:1"
    with torch.autograd.profiler.profile() as profile:
        torch.mul(x, 2)
    assert [e.name for e in profile.function_events] == ["mul"] and str(torch.mul(x, 2).device) == "cuda:1"


@needs_compiler
def test_it_can_be_taken_away(torch):
    from disttorch.autograd import several_devices

    before = torch.add, torch.Tensor.exp, torch.autograd.graph.OperationNode.propagate
    made(torch, 3)
    assert torch.add is not before[0]
    several_devices.remove()
    assert (torch.add, torch.Tensor.exp, torch.autograd.graph.OperationNode.propagate) == before
