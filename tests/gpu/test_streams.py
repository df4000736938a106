"""Streams and events: order between streams, times, and copies that run beside computing."""

import statistics

import numpy as np
import pytest

import disttorch
from disttorch import cuda


def busy(x, rounds=30):
    """Keep a stream at work for a while."""
    for _ in range(rounds):
        x = (x @ x) / x.shape[0]
    return x


def test_a_stream_waits_for_another(device):
    side = cuda.Stream(device)
    x = disttorch.full((512, 512), 1.0, device=device)
    y = busy(x)
    side.wait_stream(cuda.current_stream(device))
    with cuda.stream(side):
        z = y + 1
        y.record_stream(side)
    event = side.record_event()
    cuda.current_stream(device).wait_event(event)
    np.testing.assert_allclose((z * 2).cpu().numpy(), 4.0, rtol=1e-6)


def test_events_say_when_and_how_long(device):
    begin, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    x = disttorch.randn(1024, 1024, device=device)
    begin.record()
    busy(x)
    end.record()
    end.synchronize()
    assert begin.query() and end.query()
    assert begin.elapsed_time(end) >= 0
    with pytest.raises((RuntimeError, ValueError)):
        cuda.Event(enable_timing=False).elapsed_time(end)


def test_the_current_stream_is_the_with_blocks(device):
    side = cuda.Stream(device)
    before = cuda.current_stream(device)
    with cuda.stream(side):
        assert cuda.current_stream(device) == side
    assert cuda.current_stream(device) == before
    assert cuda.default_stream(device) != side
    assert before.query() in (True, False)


def test_backward_runs_on_the_streams_of_forward(device):
    side = cuda.Stream(device)
    w = disttorch.randn(256, 256, device=device).requires_grad_()
    side.wait_stream(cuda.current_stream(device))
    with cuda.stream(side):
        loss = busy(w, 3).sum()
    cuda.current_stream(device).wait_stream(side)
    loss.backward()
    expected = w.detach().cpu().double().requires_grad_()
    busy(expected, 3).sum().backward()
    np.testing.assert_allclose(w.grad.cpu().numpy(), expected.grad.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pin", [False, True])
def test_copies_without_waiting_are_right(pin, device):
    values = np.random.default_rng(0).standard_normal((300, 1000))
    host = disttorch.tensor(values)
    host = host.pin_memory() if pin else host
    assert host.is_pinned() is pin
    there = host.to(device, non_blocking=True)
    back = disttorch.empty(host.shape, dtype=host.dtype, pin_memory=pin)
    back.copy_(there * 2, non_blocking=True)
    cuda.synchronize()
    np.testing.assert_array_equal(back.numpy(), values * 2)


@pytest.mark.real
@pytest.mark.alone
def test_copies_from_pinned_memory_run_beside_computing(device):
    """Together they take less than one after the other, by a good part of the shorter one."""
    host = disttorch.empty(64 << 20, dtype=disttorch.float32, pin_memory=True).fill_(1.0)
    there = disttorch.empty(64 << 20, dtype=disttorch.float32, device=device)
    x = disttorch.randn(8192, 8192, device=device)
    side = cuda.Stream(device)

    def copy():
        with cuda.stream(side):
            there.copy_(host, non_blocking=True)

    def compute():
        return busy(x, 1)

    def milliseconds(*actions):
        times = []
        for _ in range(5):
            begin, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
            cuda.synchronize()
            begin.record()
            side.wait_event(begin)
            for action in actions:
                action()
            cuda.current_stream(device).wait_stream(side)
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
        return statistics.median(times)

    milliseconds(copy, compute)
    copying, computing, both = milliseconds(copy), milliseconds(compute), milliseconds(copy, compute)
    assert both < copying + computing - 0.4 * min(copying, computing), (copying, computing, both)


@pytest.mark.real
@pytest.mark.alone
def test_a_launch_does_not_wait_for_the_device(device):
    """The host comes back long before the work is done."""
    x = disttorch.randn(8192, 8192, device=device)
    busy(x, 1)
    cuda.synchronize()
    event = cuda.Event()
    busy(x, 20)
    event.record()
    assert not event.query()
    event.synchronize()
