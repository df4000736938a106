"""Beside capture and replay: graphs that are kept for changes, events that cross their border, inputs that must live."""

import numpy as np
import pytest

from tests import stand_in
from tests.stand_in import graphs, host_cuda
from tests.stand_in.session import tensors

needs_compiler = pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available()))


@pytest.fixture
def torch():
    with tensors() as module:
        yield module


def captured(torch, work, keep_graph=False, **options):
    graph = torch.cuda.CUDAGraph(keep_graph)
    with torch.cuda.graph(graph, **options):
        result = work()
    return graph, result


# --- graphs that are kept ----------------------------------------------------------------------------------------------


def test_a_kept_graph_is_what_it_was_when_it_was_made_ready(torch):
    x = torch.ones(3, device="cuda")
    graph, _ = captured(torch, lambda: x.add_(1), keep_graph=True)
    graph.instantiate()
    ready = graph.raw_cuda_graph_exec()
    operations = graphs._graphs[graph.raw_cuda_graph()].operations
    operations.append(operations[0])  # as a user changes the driver's graph
    graph.replay()
    assert x.tolist() == [2, 2, 2]
    graph.instantiate()
    assert graph.raw_cuda_graph_exec() != ready
    graph.replay()
    assert x.tolist() == [4, 4, 4]


def test_a_kept_graph_is_made_ready_by_its_first_replay(torch):
    x = torch.ones(3, device="cuda")
    graph, _ = captured(torch, lambda: x.add_(1), keep_graph=True)
    graph.replay()
    ready = graph.raw_cuda_graph_exec()
    graph.replay()
    assert x.tolist() == [3, 3, 3] and graph.raw_cuda_graph_exec() == ready


def test_what_was_made_ready_is_given_back(torch):
    before = set(graphs.executables)
    graph, _ = captured(torch, lambda: torch.ones(3, device="cuda"), keep_graph=True)
    graph.instantiate()
    graph.instantiate()
    assert len(set(graphs.executables) - before) == 1
    graph.reset()
    assert set(graphs.executables) == before


@pytest.mark.parametrize(
    "keep, wrong, message",
    [
        (False, lambda g: g.instantiate(), "keep_graph=True"),
        (False, lambda g: g.raw_cuda_graph(), "keep_graph=True"),
        (True, lambda g: g.raw_cuda_graph_exec(), "before instantiate"),
    ],
)
def test_what_a_graph_refuses(torch, keep, wrong, message):
    graph, _ = captured(torch, lambda: torch.ones(3, device="cuda") + 1, keep_graph=keep)
    with pytest.raises(RuntimeError, match=message):
        wrong(graph)


@pytest.mark.parametrize("name", ["instantiate", "raw_cuda_graph", "raw_cuda_graph_exec"])
def test_what_an_empty_graph_refuses(torch, name):
    with pytest.raises(RuntimeError, match="before capture_end"):
        getattr(torch.cuda.CUDAGraph(keep_graph=True), name)()


def test_marks_for_other_tools_are_refused(torch):
    with pytest.raises(NotImplementedError, match="enable_annotations"):
        torch.cuda.graph(torch.cuda.CUDAGraph(), enable_annotations=True)


# --- events that cross the border --------------------------------------------------------------------------------------


def test_each_replay_records_an_external_event(torch):
    x, side, event = torch.ones(8, device="cuda"), torch.cuda.Stream(), torch.cuda.Event(external=True)

    def work():
        y = x * 2
        event.record()
        return y

    graph, y = captured(torch, work)
    for value in (3.0, 5.0):
        x.fill_(value)
        graph.replay()
        side.wait_event(event)
        with torch.cuda.stream(side):
            z = y + 1
            assert z.tolist() == [2 * value + 1] * 8
        torch.cuda.current_stream().wait_stream(side)


def test_each_replay_waits_for_an_external_event(torch):
    x, side, event = torch.zeros(8, device="cuda"), torch.cuda.Stream(), torch.cuda.Event(external=True)

    def work():
        event.wait()
        return x * 2

    graph, y = captured(torch, work)
    side.wait_stream(torch.cuda.current_stream())
    gate = stand_in.gate(side._stream)  # the other stream is busy
    with torch.cuda.stream(side):
        x.fill_(4.0)
        event.record()
    flag = event._event.flag
    assert not flag.is_set()
    graph.replay()
    assert not torch.cuda.current_stream().query()
    gate.set()
    torch.cuda.synchronize()
    assert y.tolist() == [8.0] * 8


# --- inputs that must live ---------------------------------------------------------------------------------------------


def optimizer_step(torch):
    p = torch.ones(4, device="cuda", requires_grad=True)
    p.grad = torch.ones(4, device="cuda")
    optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9)
    optimizer.step()  # its state is there before the capture
    return optimizer


def in_a_list(torch, held):
    return torch.cat([held["x"], torch.zeros(2, device="cuda")])


def by_its_name(torch, held):
    return torch.add(input=torch.zeros(4, device="cuda"), other=held["x"])


def in_backward(torch, held):
    held["leaf"].grad = None
    held["loss"].backward()


INPUTS = {
    "an operand": lambda torch, held: held["x"] * 2,
    "in a list": in_a_list,
    "by its name": by_its_name,
    "a view": lambda torch, held: held["x"].reshape(2, 2) + 1,
}


@needs_compiler
@pytest.mark.parametrize("name", INPUTS)
def test_an_input_that_is_gone_is_named(torch, name):
    held = {"x": torch.ones(4, device="cuda")}
    graph, _ = captured(torch, lambda: INPUTS[name](torch, held), check_input_liveness=True)
    graph.replay()
    kept = held["x"].reshape(4)  # a view keeps the memory
    held.clear()
    graph.replay()
    del kept
    with pytest.raises(RuntimeError, match=r"1 of the \d tensors .* is gone since the capture: float32 of shape \((4|2, 2),?\), used by"):
        graph.replay()


@needs_compiler
def test_what_a_node_has_saved_is_an_input(torch):
    leaf = torch.ones(4, device="cuda", requires_grad=True)
    held = {"leaf": leaf, "loss": (leaf.exp() * leaf.sin()).sum()}
    graph, _ = captured(torch, lambda: in_backward(torch, held), check_input_liveness=True)
    held.clear()  # with the graph of the forward pass, its intermediate results
    with pytest.raises(RuntimeError, match=r"gone since the capture: .*Backward"):
        graph.replay()


@needs_compiler
def test_what_an_optimizer_reads_is_an_input(torch):
    held = [optimizer_step(torch)]
    graph, _ = captured(torch, lambda: held[0].step(), check_input_liveness=True)
    graph.replay()
    p = held[0].param_groups[0]["params"][0].detach()
    np.testing.assert_allclose(p.cpu().numpy(), [1 - 0.1 - 0.19] * 4, rtol=1e-6)
    held.clear()  # the parameter's elements are still there, its gradient and its momentum are not
    with pytest.raises(RuntimeError, match=r"gone since the capture: .*SGD\.step"):
        graph.replay()


def test_what_the_graph_made_itself_may_go(torch):
    x = torch.ones(4, device="cuda")
    graph, y = captured(torch, lambda: (x * 2 + 1).sum(), check_input_liveness=True)
    del y
    graph.replay()
    graph.replay()


def test_who_does_not_ask_pays_nothing(torch):
    from disttorch.autograd import profiler

    graph, _ = captured(torch, lambda: torch.ones(3, device="cuda") + 1)
    assert graph._inputs is None and not profiler._running
    graph, _ = captured(torch, lambda: torch.ones(3, device="cuda") + 1, check_input_liveness=True)
    assert not profiler._running
    with pytest.raises(ZeroDivisionError):
        captured(torch, lambda: 1 / 0, check_input_liveness=True)
    assert not profiler._running
