"""The same program on the same ranks with PyTorch's DistributedDataParallel: the same parameters and gradients."""

import socket
from datetime import timedelta

import numpy as np
import pytest

import disttorch
import disttorch.distributed as dist
from disttorch.nn.parallel import DistributedDataParallel as OurDDP
from disttorch.nn.parallel.distributed import _MixedPrecision

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.mpi(min_size=1)

STEPS = 4
TINY = 1e-4  # MiB


@pytest.fixture(scope="module", autouse=True)
def pytorchs_group(process_group):
    """PyTorch's own process group between the ranks, through the loopback device."""
    port = [0]
    if dist.get_rank() == 0:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port[0] = probe.getsockname()[1]
    dist.broadcast_object_list(port, src=0)
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port[0]}", rank=dist.get_rank(), world_size=dist.get_world_size(),
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    yield
    torch.distributed.destroy_process_group()


def model_of(lib):
    class Model(lib.nn.Module):
        """Two ways, one of which a pass may leave out, and one that is never taken."""

        def __init__(self):
            super().__init__()
            self.first = lib.nn.Linear(3, 4)
            self.left, self.right, self.never = (lib.nn.Linear(4, 2) for _ in range(3))
            self.register_buffer("seen", lib.zeros(1, dtype=lib.float64))

        def forward(self, x, way="both"):
            self.seen += x.sum().detach()
            h = lib.tanh(self.first(x))
            return {"left": self.left, "right": self.right, "both": lambda h: self.left(h) * self.right(h)}[way](h)

    model = Model().double()
    rng = np.random.default_rng(5)
    for p in model.parameters():
        p.data = lib.tensor(rng.standard_normal(tuple(p.shape)))
    return model


def x_of(lib, step, rank):
    return lib.tensor(np.random.default_rng([step, rank]).standard_normal((2, 3)))


def plain(lib, model, rank):
    for step in range(STEPS):
        yield "zero"
        (model(x_of(lib, step, rank)) ** 2).mean().backward()


def accumulate(lib, model, rank):
    for step in range(STEPS):
        if step % 2:
            (model(x_of(lib, step, rank)) ** 2).mean().backward()
            yield "zero"
        else:
            with model.no_sync():
                (model(x_of(lib, step, rank)) ** 2).mean().backward()


def forks(lib, model, rank):
    for step in range(STEPS):
        yield "zero"
        (model(x_of(lib, step, rank), "left" if (step + rank) % 2 else "right") ** 2).mean().backward()


def kept(lib, model, rank):
    """Gradients are never set to None: what is used nowhere keeps what it has."""
    for step in range(STEPS):
        (model(x_of(lib, step, rank), "left" if step > 1 else "both") ** 2).mean().backward()
        yield None


def two_forwards(lib, model, rank):
    for step in range(STEPS):
        yield "zero"
        ((model(x_of(lib, step, rank)) + model(x_of(lib, step + 100, rank))) ** 2).mean().backward()


def joined(lib, model, rank, by_initial):
    with model.join(divide_by_initial_world_size=by_initial):
        for step in range(1 + 2 * rank):
            yield "zero"
            (model(x_of(lib, step, rank)) ** 2).mean().backward()


def delayed(*names, until):
    """Options of a model: the reduction of some parameters waits for another one's gradient."""
    return lambda model: {
        "delay_all_reduce_named_params": [(name, model.get_parameter(name)) for name in names],
        "param_to_hook_all_reduce": model.get_parameter(until),
        "bucket_cap_mb": TINY,
    }


PROGRAMS = [
    # the program, and the options of both
    ("plain", plain, {"find_unused_parameters": True}),
    ("plain, small buckets", plain, {"find_unused_parameters": True, "bucket_cap_mb": TINY}),
    ("plain, static graph", plain, {"static_graph": True}),
    ("accumulation", accumulate, {"find_unused_parameters": True, "bucket_cap_mb": TINY}),
    ("forks", forks, {"find_unused_parameters": True, "bucket_cap_mb": TINY}),
    ("kept gradients", kept, {"find_unused_parameters": True}),
    ("kept gradients, small buckets", kept, {"find_unused_parameters": True, "bucket_cap_mb": TINY}),
    ("two forward passes", two_forwards, {"find_unused_parameters": True}),
    ("delayed", plain, delayed("right.weight", "right.bias", "never.weight", "never.bias", until="first.weight")),
    ("delayed, accumulation", accumulate, delayed("left.weight", "never.weight", "never.bias", until="first.bias")),
    ("delayed, two forward passes", two_forwards, delayed("right.bias", "never.weight", "never.bias", until="first.weight")),
    ("join", lambda *a: joined(*a, True), {"find_unused_parameters": True}),
    ("join, those that are left", lambda *a: joined(*a, False), {"find_unused_parameters": True, "bucket_cap_mb": TINY}),
]


def run(lib, ddp, program, options, as_view):
    """Parameters and gradients after each step, and the buffer at the end."""
    rank = dist.get_rank()
    model = model_of(lib)
    model = ddp(model, gradient_as_bucket_view=as_view, **(options(model) if callable(options) else options))
    optimizer = lib.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    states = []

    def note():
        states.append(
            {
                name: (p.detach().numpy().copy(), None if p.grad is None else p.grad.numpy().copy())
                for name, p in model.named_parameters()
            }
        )

    steps = program(lib, model, rank)
    for number, then in enumerate(steps):
        if number:
            note()
            optimizer.step()
        if then == "zero":
            optimizer.zero_grad()
    states.append({name: (p.detach().numpy().copy(), None) for name, p in model.named_parameters()})
    return states, model.module.seen.item()


@pytest.mark.parametrize("as_view", [True, False])
@pytest.mark.parametrize(("program", "options"), [p[1:] for p in PROGRAMS], ids=[p[0] for p in PROGRAMS])
def test_trains_as_pytorch_does(program, options, as_view, monkeypatch):
    if callable(options):
        # PyTorch makes the buffer of delayed gradients in the default dtype, and does not wait until it is reduced
        reduce = torch.distributed.all_reduce
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda t, group, async_op: reduce(t, group=group))
        torch.set_default_dtype(torch.float64)
    try:
        expected, seen_there = run(torch, torch.nn.parallel.DistributedDataParallel, program, options, as_view)
    finally:
        torch.set_default_dtype(torch.float32)
    found, seen_here = run(disttorch, OurDDP, program, options, as_view)
    assert len(found) == len(expected)
    for there, here in zip(expected, found):
        for name, (parameter, gradient) in there.items():
            np.testing.assert_allclose(here[name][0], parameter, rtol=1e-9, atol=1e-12, err_msg=name)
            assert (here[name][1] is None) == (gradient is None), name
            if gradient is not None:
                np.testing.assert_allclose(here[name][1], gradient, rtol=1e-9, atol=1e-12, err_msg=name)
    if program is not accumulate:
        # buffers are copied where a pass that is reduced begins; PyTorch does it in the first pass after such a one
        assert seen_here == pytest.approx(seen_there, rel=1e-9)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision_computes_as_pytorchs_operations_do(dtype):
    """PyTorch's own needs a GPU; here its model is called with parameters that were cast."""
    model = model_of(torch).float()
    low = {n: p.detach().to(getattr(torch, dtype)).requires_grad_() for n, p in model.named_parameters()}
    total = {n: np.zeros(tuple(p.shape)) for n, p in low.items()}
    for rank in range(dist.get_world_size()):
        y = torch.func.functional_call(model, low, (x_of(torch, 0, rank).to(getattr(torch, dtype)),))
        gradients = torch.autograd.grad((y.float() ** 2).mean(), low.values(), allow_unused=True)
        for n, g in zip(low, gradients):
            total[n] += 0 if g is None else g.double().numpy() / dist.get_world_size()
    ours = OurDDP(
        model_of(disttorch).float(), find_unused_parameters=True,
        mixed_precision=_MixedPrecision(getattr(disttorch, dtype), disttorch.float32),
    )  # fmt: skip
    y = ours(x_of(disttorch, 0, dist.get_rank()))
    assert y.dtype is getattr(disttorch, dtype)
    (y.float() ** 2).mean().backward()
    for n, p in ours.module.named_parameters():
        if not n.startswith("never"):
            step = float(torch.finfo(getattr(torch, dtype)).eps)
            np.testing.assert_allclose(p.grad.numpy(), total[n], rtol=4 * step, atol=4 * step * np.abs(total[n]).max(), err_msg=n)
