"""CUDA graphs on the stand-in: captured, replayed at the same addresses, whole training steps, and errors that say what was wrong."""

import threading

import numpy as np
import pytest

import disttorch.nn.functional as F
from tests import stand_in
from tests.stand_in import driver, host_cuda
from tests.stand_in.session import tensors

needs_compiler = pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available()))


@pytest.fixture
def torch():
    with tensors() as module:
        yield module
        assert driver.mode_of_this_thread() == 0  # what was set for a moment was set back


def captured(torch, work, **options):
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, **options):
        result = work()
    return graph, result


# --- capture and replay ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["global", "thread_local", "relaxed"])
def test_a_replay_computes_with_new_values(torch, mode):
    x = torch.zeros(4, device="cuda")
    graph, y = captured(torch, lambda: (x * 2 + 1).sum(), capture_error_mode=mode)
    address = y.data_ptr()
    for values in ([1.0, 2, 3, 4], [5.0, 6, 7, 8]):
        x.copy_(torch.tensor(values))
        graph.replay()
        assert y.item() == 2 * sum(values) + 4
    assert y.data_ptr() == address
    assert not torch.cuda.is_current_stream_capturing()


def test_a_capture_does_nothing_yet(torch):
    x = torch.ones(3, device="cuda")
    graph, _ = captured(torch, lambda: x.add_(1))
    assert x.tolist() == [1, 1, 1]
    graph.replay()
    graph.replay()
    assert x.tolist() == [3, 3, 3]


def test_a_graph_keeps_its_memory(torch):
    x = torch.ones(1000, device="cuda")
    graph, y = captured(torch, lambda: ((x + 1) * 3) ** 2)
    reserved = torch.cuda.memory_reserved()
    others = [torch.full((1000,), 7.0, device="cuda") for _ in range(8)]
    torch.cuda.empty_cache()
    graph.replay()
    assert y[0].item() == 36
    assert all(o.sum().item() == 7000 for o in others)
    addresses = {o.data_ptr() for o in others}
    assert y.data_ptr() not in addresses
    del y, others
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() > 4096  # the graph's intermediate results
    graph.reset()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < reserved


def test_a_result_outlives_its_graph(torch):
    graph, y = captured(torch, lambda: torch.ones(1000, device="cuda") * 2)
    graph.replay()
    graph.reset()
    del graph
    torch.cuda.empty_cache()
    assert y.sum().item() == 2000


def test_graphs_share_memory(torch):
    pool = torch.cuda.graph_pool_handle()
    x = torch.ones(1000, device="cuda")
    first, y = captured(torch, lambda: x + 1, pool=pool)
    results = [y]
    second, z = captured(torch, lambda: (results[0] + 1) * 2 - 1, pool=first.pool())
    assert first.pool() == second.pool() == pool
    first.replay()
    second.replay()
    assert z.sum().item() == 5000
    both = [torch.cuda.memory_reserved()]
    del z
    for graph in (first, second):
        graph.reset()
        torch.cuda.empty_cache()
        both.append(torch.cuda.memory_reserved())
    assert both[0] - both[1] < 4096  # the memory belongs to both
    results.clear()
    del y
    torch.cuda.empty_cache()
    assert both[1] - torch.cuda.memory_reserved() >= 8192


def test_branches_that_come_together(torch):
    x, side = torch.ones(8, device="cuda"), torch.cuda.Stream()

    def work():
        main = torch.cuda.current_stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            a = x * 3
        b = x + 1
        main.wait_stream(side)
        a.record_stream(main)
        return a + b

    graph, y = captured(torch, work)
    x.fill_(2.0)
    graph.replay()
    assert y.tolist() == [9.0] * 8


def test_another_thread_may_pin_memory_meanwhile(torch):
    """As a loader's does: CuPy asks its events then, and the driver for memory."""
    x, found = torch.ones(3, device="cuda"), []

    def pin():
        found.append(torch.arange(3.0).pin_memory().tolist())

    def work():
        thread = threading.Thread(target=pin)
        thread.start()
        thread.join()
        return x + 1

    graph, y = captured(torch, work)
    graph.replay()
    assert (found, y.tolist()) == ([[0, 1, 2]], [2, 2, 2])


def test_what_is_read_on_the_host_is_kept(torch):
    graph, y = captured(torch, lambda: torch.tensor([1.0, 2, 3]).to("cuda") + 1)
    others = [torch.full((3,), 9.0).pin_memory() for _ in range(4)]
    graph.replay()
    assert y.tolist() == [2, 3, 4]
    del others


def test_many_small_arrays_joined(torch):
    parts = [torch.full((2, 3), float(i), device="cuda") for i in range(70)]
    graph, (joined, stacked) = captured(torch, lambda: (torch.cat(parts, 1), torch.stack(parts, -1)))
    for part in parts:
        part.add_(1)
    graph.replay()
    assert joined.shape == (2, 210) and stacked.shape == (2, 3, 70)
    assert joined[1].tolist() == [float(i + 1) for i in range(70) for _ in range(3)]
    assert stacked[1, 2].tolist() == [float(i + 1) for i in range(70)]


def test_random_numbers_are_new_in_each_replay(torch):
    torch.manual_seed(3)
    graph, y = captured(torch, lambda: torch.rand(100, device="cuda"))
    drawn = []
    for _ in range(3):
        graph.replay()
        drawn.append(y.cpu().numpy())
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])
    torch.cuda.manual_seed(3)
    graph.replay()
    np.testing.assert_array_equal(y.cpu().numpy(), drawn[0])


def test_the_graph_can_be_looked_at(torch, tmp_path):
    x = torch.ones(3, device="cuda")
    graph, _ = captured(torch, lambda: x + 1)
    graph.enable_debug_mode()
    graph.debug_dump(str(tmp_path / "graph.dot"))
    assert (tmp_path / "graph.dot").read_text().startswith("digraph")


# --- training ----------------------------------------------------------------------------------------------------------


def model_and_data(torch):
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).to("cuda")
    batches = [(rng.standard_normal((5, 6)).astype("f"), rng.integers(0, 3, 5)) for _ in range(6)]
    return model, [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in batches]


@needs_compiler
@pytest.mark.parametrize("scaled", [False, True])
def test_a_whole_training_step(torch, scaled):
    def run(capture):
        model, batches = model_and_data(torch)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, capturable=True)
        scaler = torch.amp.GradScaler("cuda", init_scale=1024.0, growth_interval=3, enabled=scaled)
        x, y = (t.to("cuda") for t in batches[0])

        def step():
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            return loss

        losses = [step().item() for _ in range(2)]
        if capture:
            torch.cuda.synchronize()
            graph, loss = captured(torch, step)
        for new_x, new_y in batches:
            x.copy_(new_x)
            y.copy_(new_y)
            if capture:
                with stand_in.no_synchronisation():
                    graph.replay()
            else:
                loss = step()
            losses.append(loss.item())
        return losses, [p.detach().cpu().numpy() for p in model.parameters()], scaler.state_dict()

    (eager, weights, state), (replayed, same_weights, same_state) = run(False), run(True)
    np.testing.assert_allclose(replayed, eager, rtol=1e-6)
    for a, b in zip(same_weights, weights):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert state == same_state


@needs_compiler
def test_graphed_callables_are_as_the_originals(torch):
    def run(graphed):
        model, batches = model_and_data(torch)
        first, second = model[0], model[2]
        head = lambda h: F.relu(h)  # noqa: E731
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x = batches[0][0].to("cuda")
        if graphed:
            h = torch.zeros(5, 8, device="cuda", requires_grad=True)
            first, head, second = torch.cuda.make_graphed_callables(
                (first, head, second), ((x.clone(),), (h,), (h.detach().clone().requires_grad_(),))
            )
        losses = []
        for new_x, y in batches:
            optimizer.zero_grad()
            loss = F.cross_entropy(second(head(first(new_x.to("cuda")))), y.to("cuda"))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, [p.detach().cpu().numpy() for p in model.parameters()]

    (eager, weights), (graphed, same) = run(False), run(True)
    np.testing.assert_allclose(graphed, eager, rtol=1e-6)
    for a, b in zip(same, weights):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_a_graphed_module_is_itself_in_the_other_mode(torch):
    layer = torch.nn.Linear(2, 2).to("cuda")
    calls = []
    original = layer.forward
    layer.forward = lambda x: calls.append(1) or original(x)
    x = torch.ones(3, 2, device="cuda")
    graphed = torch.cuda.make_graphed_callables(layer, (x,))
    assert graphed is layer
    calls.clear()
    want = original(x + 1)
    np.testing.assert_allclose(layer(x + 1).tolist(), want.tolist(), rtol=1e-6)
    assert not calls
    layer.eval()
    layer(x)
    assert calls == [1]


@needs_compiler
def test_a_graphed_module_keeps_what_backward_does_not_need(torch):
    """The product's memory is free again when dropout has read it, and the backward graph may take it for a gradient that stays."""
    layer = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5)).to("cuda")
    graphed = torch.cuda.make_graphed_callables(layer, (torch.zeros(6, 4, device="cuda", requires_grad=True),))
    sums = torch.zeros_like(layer[0].bias)
    for i in range(3):
        out = graphed(torch.full((6, 4), i + 1.0, device="cuda", requires_grad=True))
        sums += 2 * (out != 0).sum(0)
        out.sum().backward()
        np.testing.assert_array_equal(layer[0].bias.grad.tolist(), sums.tolist())


def test_nested_results_of_graphed_functions(torch):
    x = torch.ones(3, device="cuda", requires_grad=True)
    graphed = torch.cuda.make_graphed_callables(lambda a: {"twice": a * 2, "more": [a + 1, a.detach() * 5]}, (x,))
    given = torch.full((3,), 2.0, device="cuda", requires_grad=True)
    out = graphed(given)
    assert [out["twice"].tolist(), out["more"][0].tolist(), out["more"][1].tolist()] == [[4.0] * 3, [3.0] * 3, [10.0] * 3]
    assert not out["more"][1].requires_grad
    (out["twice"] * 3 + out["more"][0]).sum().backward()
    assert given.grad.tolist() == [7, 7, 7]


def test_what_cannot_be_graphed(torch):
    x = torch.ones(2, 2, device="cuda")
    layer = torch.nn.Linear(2, 2).to("cuda")
    handle = layer.register_forward_hook(lambda *a: None)
    with pytest.raises(RuntimeError, match="hooks registered"):
        torch.cuda.make_graphed_callables(layer, (x,))
    handle.remove()
    layer.register_buffer("b", torch.ones(1, device="cuda", requires_grad=True))
    with pytest.raises(RuntimeError, match="requires_grad=False"):
        torch.cuda.make_graphed_callables(layer, (x,))
    with pytest.raises(TypeError, match="must contain only tensors, not int"):
        torch.cuda.make_graphed_callables(torch.relu, (3,))
    with torch.autocast("cuda"), pytest.raises(RuntimeError, match="cache_enabled=False"):
        torch.cuda.make_graphed_callables(torch.relu, (x,))


# --- errors ------------------------------------------------------------------------------------------------------------


def test_reading_a_value_is_refused_and_says_where(torch):
    x = torch.ones(3, device="cuda")
    graph = torch.cuda.CUDAGraph()
    says = r"a copy to the host waits for the device.*elements\.item, called at .*test_graphs\.py:\d+"
    with pytest.raises(RuntimeError, match=says), torch.cuda.graph(graph):
        x.sum().item()
    with pytest.raises(RuntimeError, match="without a preceding successful capture"):
        graph.replay()
    again, y = captured(torch, lambda: x + 1)  # nothing is left of the failure
    again.replay()
    assert y.tolist() == [2, 2, 2]


def test_waiting_is_refused_and_says_where(torch):
    event = torch.cuda.Event()
    event.record()
    for wait, who in (
        (torch.cuda.synchronize, r"disttorch\.cuda\.synchronize"),
        (lambda: torch.cuda.current_stream().synchronize(), r"disttorch\.cuda\.streams\.synchronize"),
        (event.synchronize, r"disttorch\.cuda\.streams\.synchronize"),
    ):
        with pytest.raises(RuntimeError, match=rf"waits for the device.*asked for by {who}, called at .*test_graphs\.py:\d+"):
            captured(torch, wait)


def test_a_kernel_of_ours_may_be_used_for_the_first_time_in_a_capture(torch):
    x = torch.ones(100, device="cuda")
    graph, y = captured(torch, lambda: torch.nn.functional.silu(x))
    graph.replay()
    assert y.sum().item() == pytest.approx(100 / (1 + np.exp(-1)))


def test_a_kernel_of_cupys_cannot_be_loaded_in_a_capture(torch):
    import cupy

    code = 'extern "C" __global__ void nothing(long long n) {}'
    with pytest.raises(RuntimeError, match=r"cuda\.graph: a kernel is used for the first time.*do once before"):
        captured(torch, lambda: cupy.RawModule(code=code).get_function("nothing"))


def test_a_branch_that_does_not_come_back(torch):
    x, side = torch.ones(8, device="cuda"), torch.cuda.Stream()

    def work():
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            x.add_(1)

    with pytest.raises(RuntimeError, match="another stream that does not lead back"):
        captured(torch, work)


def test_an_error_in_the_block_is_the_error(torch):
    with pytest.raises(ZeroDivisionError):
        captured(torch, lambda: 1 / 0)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()


def test_wrong_calls(torch):
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="non-default stream"):
        graph.capture_begin()
    for call, text in (
        (graph.replay, "without a preceding successful capture"),
        (graph.capture_end, "no capture is under way"),
        (graph.pool, "has not begun a capture"),
    ):
        with pytest.raises(RuntimeError, match=text):
            call()
    with torch.cuda.stream(torch.cuda.Stream()):
        with pytest.raises(ValueError, match="global, thread_local, relaxed"):
            graph.capture_begin(capture_error_mode="loose")
        graph.capture_begin()
        assert torch.cuda.is_current_stream_capturing()
        with pytest.raises(RuntimeError, match="already"):
            torch.cuda.CUDAGraph().capture_begin()
        graph.capture_end()
    with pytest.raises(RuntimeError, match="already owns a captured graph"), torch.cuda.graph(graph):
        pass


def test_a_scaler_that_begins_in_a_capture(torch):
    scaler, x = torch.amp.GradScaler("cuda"), torch.ones((), device="cuda")
    with pytest.raises(RuntimeError, match="run an iteration before the capture"):
        captured(torch, lambda: scaler.scale(x))


def test_memory_freed_in_a_capture_waits_for_its_streams(torch):
    side, x = torch.cuda.Stream(), torch.ones(1000, device="cuda")
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        x.add_(1)
    x.record_stream(side)
    kept = [x]
    del x
    y = torch.ones(1, device="cuda")
    graph, _ = captured(torch, lambda: (kept.clear(), y + 1))
    assert torch.cuda.memory_stats()["active_bytes.all.current"] > torch.cuda.memory_allocated()
    torch.cuda.synchronize()
    torch.ones(1, device="cuda")
    assert torch.cuda.memory_stats()["active_bytes.all.current"] == torch.cuda.memory_allocated()
    graph.replay()
