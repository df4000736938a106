"""The profiler: what it counts and how it nests; that nothing is left behind."""

import json
import threading
import time

import numpy as np
import pytest

import disttorch
import disttorch.optim
from disttorch.autograd.profiler import profile, record_function
from disttorch.profiler import (
    ProfilerAction,
    ProfilerActivity,
    schedule,
    supported_activities,
    tensorboard_trace_handler,
)
from disttorch.profiler import profile as profile_steps


def network():
    return disttorch.nn.Sequential(disttorch.nn.Linear(4, 3), disttorch.nn.ReLU(), disttorch.nn.Linear(3, 2))


def counts(prof):
    return {e.key: e.count for e in prof.key_averages()}


def test_operations_forward_and_backward_and_steps():
    model = network()
    optimizer = disttorch.optim.SGD(model.parameters(), 0.1)
    x = disttorch.ones(5, 4)
    with profile() as prof:
        for _ in range(3):
            model(x).pow(2).sum().backward()
            optimizer.step()
    seen = counts(prof)
    assert seen["linear"] == 6 and seen["relu"] == 3 and seen["sum"] == 3 and seen["backward"] == 3
    assert seen["LinearBackward0"] == 6 and seen["ReluBackward0"] == 3 and seen["PowBackward0"] == 3
    assert seen["Optimizer.step#SGD.step"] == 3
    before = len(prof.function_events)
    model(x)
    assert len(prof.function_events) == before


def test_what_is_exchanged_is_put_back():
    before = (disttorch.add, disttorch.Tensor.__add__, disttorch.Tensor.sum, disttorch.nn.functional.relu, disttorch.optim.SGD.step)
    with profile(), profile():
        assert disttorch.add is not before[0] and disttorch.Tensor.__add__ is not before[1]
    with pytest.raises(KeyError), profile():
        raise KeyError
    after = (disttorch.add, disttorch.Tensor.__add__, disttorch.Tensor.sum, disttorch.nn.functional.relu, disttorch.optim.SGD.step)
    assert after == before


def test_times_are_nested():
    with profile() as prof, record_function("outer"):
        time.sleep(0.02)
        with record_function("inner"):
            time.sleep(0.03)
        disttorch.ones(2) + 1
    outer, inner, *rest = prof.function_events
    assert (outer.name, inner.name) == ("outer", "inner") and inner.cpu_parent is outer and inner in outer.cpu_children
    assert [e.name for e in rest] == ["ones", "add"] and all(e.cpu_parent is outer for e in rest)
    assert inner.cpu_time_total >= 30e3 and outer.cpu_time_total >= 50e3
    assert 20e3 <= outer.self_cpu_time_total <= outer.cpu_time_total - inner.cpu_time_total
    assert prof.self_cpu_time_total == pytest.approx(outer.cpu_time_total)
    assert prof.total_average().count == 4


def test_what_else_is_noted(tmp_path):
    a, b = disttorch.ones(3, 4), disttorch.ones(4, 5)
    with profile(record_shapes=True, with_flops=True, profile_memory=True, with_stack=True) as prof:
        a @ b
        disttorch.mm(a, b)
        disttorch.nn.functional.conv2d(disttorch.ones(1, 2, 5, 5), disttorch.ones(3, 2, 2, 2))
    by_name = {e.name: e for e in prof.function_events}
    product = by_name["mm"]
    assert product.input_shapes == [[3, 4], [4, 5]] and product.flops == 2 * 3 * 4 * 5 and product.cpu_memory_usage >= 60
    assert by_name["conv2d"].flops == 2 * (3 * 4 * 4) * (2 * 2 * 2)
    assert "test_profiler.py" in product.stack[0] and "test_what_else_is_noted" in product.stack[0]
    grouped = prof.key_averages(group_by_input_shape=True)
    assert {str(e.input_shapes) for e in grouped if e.key == "mm"} == {"[[3, 4], [4, 5]]"}
    table = grouped.table(sort_by="self_cpu_time_total", row_limit=2, header="mine")
    for word in ("mine", "Name", "Self CPU", "# of Calls", "CPU Mem", "Total FLOPs", "Self CPU time total"):
        assert word in table
    prof.export_chrome_trace(tmp_path / "trace.json")
    trace = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert {e["name"] for e in trace} >= {"mm", "conv2d"} and all(e["ph"] == "X" and e["dur"] >= 0 for e in trace)
    prof.export_stacks(tmp_path / "stacks.txt")
    prof.key_averages(group_by_stack_n=1)
    with pytest.raises(ValueError, match="self_cpu_time_total"):
        prof.export_stacks(tmp_path / "stacks.txt", "self_cuda_time_total")


def test_disabled_and_as_a_decorator():
    with profile(enabled=False) as prof:
        disttorch.ones(2)
    assert len(prof.function_events) == 0 and "unfinished" in str(prof)

    @record_function("named")
    def function():
        return disttorch.ones(2)

    with profile() as prof:
        function()
    assert counts(prof) == {"named": 1, "ones": 1}


def test_several_threads():
    def work():
        for _ in range(20):
            disttorch.ones(3).exp().sum()

    with profile() as prof:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert counts(prof) == {"ones": 60, "exp": 60, "sum": 60}


def test_results_are_the_same():
    x = disttorch.arange(6.0).reshape(2, 3).requires_grad_()
    def value():
        return disttorch.autograd.grad((x.exp() @ x.t()).sum(), x)[0].numpy()

    expected = value()
    with profile(with_flops=True):
        np.testing.assert_array_equal(value(), expected)
        assert (x + "text" if False else x + 1).shape == (2, 3)
        with pytest.raises(TypeError):
            x + "text"


def test_schedule():
    plan = schedule(skip_first=1, wait=1, warmup=1, active=2, repeat=2)
    expected = ["NONE", "NONE", "WARMUP", "RECORD", "RECORD_AND_SAVE", "NONE", "WARMUP", "RECORD", "RECORD_AND_SAVE", "NONE", "NONE"]
    assert [plan(i).name for i in range(11)] == expected
    assert schedule(wait=1, warmup=0, active=1, skip_first_wait=1)(0) is ProfilerAction.RECORD_AND_SAVE
    with pytest.raises(AssertionError):
        schedule(wait=0, warmup=0, active=0)


def test_some_steps_of_many(tmp_path):
    ready = []
    with profile_steps(
        activities=[ProfilerActivity.CPU],
        schedule=schedule(wait=1, warmup=1, active=2, repeat=2),
        on_trace_ready=lambda p: ready.append(counts(p)),
    ) as prof:
        for _ in range(10):
            disttorch.ones(2) + 1
            prof.step()
    assert [(r["add"], r["ProfilerStep#2"] if "ProfilerStep#2" in r else r["ProfilerStep#6"]) for r in ready] == [(2, 1), (2, 1)]
    assert prof.step_num == 10 and ProfilerActivity.CPU in supported_activities()
    with profile_steps(on_trace_ready=tensorboard_trace_handler(str(tmp_path), "worker", use_gzip=True)) as prof:
        disttorch.ones(2)
    assert len(list(tmp_path.glob("worker.*.pt.trace.json.gz"))) == 1
    assert [e.name for e in prof.events()] == ["ones"]
    with pytest.raises(AssertionError, match="no step has been recorded"):
        profile_steps(schedule=schedule(wait=5, warmup=0, active=1)).key_averages()
