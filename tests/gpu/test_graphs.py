"""CUDA graphs: a captured step is the eager one to the bit, and goes on from step to step."""

import numpy as np
import pytest

import disttorch
from disttorch import cuda, nn


def warmed_up(function, device, times=3):
    """Run on a stream of its own before a capture, as PyTorch asks for."""
    side = cuda.Stream(device)
    side.wait_stream(cuda.current_stream(device))
    with cuda.stream(side):
        for _ in range(times):
            function()
    cuda.current_stream(device).wait_stream(side)


class Training:
    """A model, an optimizer whose step can be captured, and a step on a fixed place for the batch."""

    def __init__(self, device, optimizer, amp=None):
        disttorch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.model.to(device)
        self.optimizer = optimizer(self.model.parameters())
        self.x = disttorch.zeros(16, 32, device=device)
        self.y = disttorch.zeros(16, dtype=disttorch.int64, device=device)
        self.amp = amp
        self.scaler = disttorch.amp.GradScaler("cuda", init_scale=64.0, enabled=amp is disttorch.float16)
        self.loss = None

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        with disttorch.autocast("cuda", dtype=self.amp or disttorch.float16, enabled=self.amp is not None):
            self.loss = nn.functional.cross_entropy(self.model(self.x), self.y)
        self.scaler.scale(self.loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def feed(self, batch):
        self.x.copy_(batch[0])
        self.y.copy_(batch[1])


def batches(device, count):
    rng = np.random.default_rng(1)
    pairs = [(rng.standard_normal((16, 32)).astype("float32"), rng.integers(0, 10, 16)) for _ in range(count)]
    return [(disttorch.tensor(x).to(device), disttorch.tensor(y).to(device)) for x, y in pairs]


OPTIMIZERS = {
    "SGD": lambda params: disttorch.optim.SGD(params, lr=0.1, momentum=0.9),
    "Adam": lambda params: disttorch.optim.Adam(params, lr=1e-2, capturable=True),
    "AdamW": lambda params: disttorch.optim.AdamW(params, lr=1e-2, capturable=True, fused=True),
    "RMSprop": lambda params: disttorch.optim.RMSprop(params, lr=1e-3, capturable=True),
}


@pytest.mark.parametrize("amp", [None, disttorch.bfloat16, disttorch.float16], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_captured_step_is_the_eager_one_to_the_bit(name, amp, device):
    data = batches(device, 6)
    eager, captured = Training(device, OPTIMIZERS[name], amp), Training(device, OPTIMIZERS[name], amp)
    for t in (eager, captured):
        t.feed(data[0])
        warmed_up(t.step, device)
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        captured.step()
    for batch in data[1:]:
        eager.feed(batch)
        eager.step()
        captured.feed(batch)
        graph.replay()
        np.testing.assert_array_equal(captured.loss.detach().cpu().numpy(), eager.loss.detach().cpu().numpy())
    for a, b in zip(eager.model.parameters(), captured.model.parameters()):
        np.testing.assert_array_equal(a.detach().cpu().numpy(), b.detach().cpu().numpy())


def test_random_numbers_differ_from_replay_to_replay(device):
    drop = nn.Dropout(0.5)
    x = disttorch.ones(4096, device=device)
    disttorch.manual_seed(3)
    warmed_up(lambda: drop(x), device)
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        y = drop(x)
        noise = disttorch.randn(4096, device=device)
    seen = []
    for _ in range(3):
        graph.replay()
        seen.append((y.cpu().numpy().copy(), noise.cpu().numpy().copy()))
    for i in range(2):
        assert (seen[i][0] != seen[i + 1][0]).mean() > 0.3
        assert (seen[i][1] != seen[i + 1][1]).mean() > 0.9
    for mask, values in seen:
        assert set(np.unique(mask)) == {0.0, 2.0} and abs(mask.mean() - 1) < 0.15
        assert abs(values.mean()) < 0.1 and abs(values.std() - 1) < 0.1


def test_graphed_callables_have_derivatives(device):
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4)).to(device)
    copy = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4)).to(device)
    copy.load_state_dict(model.state_dict())
    sample = disttorch.randn(8, 16, device=device).requires_grad_()
    graphed = cuda.make_graphed_callables(copy, (sample,))
    for seed in range(3):
        disttorch.manual_seed(seed)
        x = disttorch.randn(8, 16, device=device)
        found = []
        for m in (model, graphed):
            leaf = x.clone().requires_grad_()
            m.zero_grad()
            loss = m(leaf).square().mean()
            loss.backward()
            found.append([loss.detach(), leaf.grad, *(p.grad.clone() for p in m.parameters())])
        for a, b in zip(*found):
            np.testing.assert_allclose(b.cpu().numpy(), a.cpu().numpy(), rtol=1e-5, atol=1e-6)


def test_waiting_for_the_device_in_a_capture_is_an_error(device):
    x = disttorch.ones(4, device=device)
    graph = cuda.CUDAGraph()
    with pytest.raises(RuntimeError), cuda.graph(graph):
        (x + 1).sum().item()
    assert float((x + 1).sum()) == 8.0  # the device is as before


def test_two_graphs_share_a_pool(device):
    x = disttorch.ones(1000, device=device)
    pool = cuda.graph_pool_handle()
    first, second = cuda.CUDAGraph(), cuda.CUDAGraph()
    warmed_up(lambda: (x * 2 + 1) * 3, device)
    with cuda.graph(first, pool=pool):
        y = x * 2 + 1
    with cuda.graph(second, pool=pool):
        z = y * 3
    for value in (1.0, 2.0):
        x.fill_(value)
        first.replay()
        second.replay()
        np.testing.assert_array_equal(z.cpu().numpy(), (value * 2 + 1) * 3)


def test_a_graph_that_is_kept_for_changes(device):
    x = disttorch.zeros(1000, device=device)
    warmed_up(lambda: x.add_(1), device)
    x.zero_()
    graph = cuda.CUDAGraph(keep_graph=True)
    with cuda.graph(graph):
        x.add_(1)
    graph.instantiate()
    before = graph.raw_cuda_graph_exec()
    graph.replay()
    graph.instantiate()
    assert graph.raw_cuda_graph() and graph.raw_cuda_graph_exec() and before
    graph.replay()
    np.testing.assert_array_equal(x.cpu().numpy(), 2.0)


def test_events_that_a_graph_records_and_waits_for(device):
    x, side = disttorch.zeros(1000, device=device), cuda.Stream(device)
    filled, doubled = cuda.Event(external=True), cuda.Event(external=True)
    warmed_up(lambda: x * 2, device)
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        filled.wait()
        y = x * 2
        doubled.record()
    for value in (3.0, 5.0):
        side.wait_stream(cuda.current_stream(device))
        with cuda.stream(side):
            x.fill_(value)
            filled.record()
        graph.replay()
        side.wait_event(doubled)
        with cuda.stream(side):
            z = y + 1
            np.testing.assert_array_equal(z.cpu().numpy(), value * 2 + 1)
        cuda.current_stream(device).wait_stream(side)


def test_an_input_that_is_gone_is_an_error(device):
    held = [disttorch.ones(1000, device=device)]
    warmed_up(lambda: held[0] * 2, device)
    graph = cuda.CUDAGraph()
    with cuda.graph(graph, check_input_liveness=True):
        y = held[0] * 2
    graph.replay()
    assert float(y.sum()) == 2000.0
    held.clear()
    with pytest.raises(RuntimeError, match=r"1 of the 1 tensors from outside .* is gone"):
        graph.replay()
