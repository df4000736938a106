"""Memory of the device: what is counted, what is kept for other streams, and what an error says when there is no more."""

import gc

import numpy as np
import pytest

import disttorch
from disttorch import cuda, nn

MB = 1 << 20


@pytest.fixture(autouse=True)
def clean(device):
    gc.collect()
    cuda.synchronize()
    cuda.empty_cache()


def test_allocated_and_peak_are_counted(device):
    before = cuda.memory_allocated(device)
    cuda.reset_peak_memory_stats(device)
    x = disttorch.zeros(4 * MB, device=device)
    assert cuda.memory_allocated(device) - before == 16 * MB
    y = x + 1
    assert cuda.memory_allocated(device) - before == 32 * MB
    del x, y
    assert cuda.memory_allocated(device) == before
    assert cuda.max_memory_allocated(device) - before == 32 * MB
    assert cuda.memory_reserved(device) >= 32 * MB
    cuda.reset_peak_memory_stats(device)
    assert cuda.max_memory_allocated(device) == before
    cuda.empty_cache()
    assert cuda.memory_reserved(device) < 32 * MB + before
    assert str(cuda.get_device_name(device)) in cuda.memory_summary(device)


def test_a_forward_pass_keeps_what_its_derivatives_need(device):
    """Of exp the result is kept, of an addition nothing."""
    x = disttorch.zeros(MB, device=device).requires_grad_()
    before = cuda.memory_allocated(device)
    y = (x + 1).exp()
    z = (y + 1) + 1
    assert cuda.memory_allocated(device) - before == 8 * MB
    del y, z


def test_memory_that_another_stream_uses_is_not_recycled(device):
    side = cuda.Stream(device)
    big = disttorch.randn(2048, 2048, device=device)
    x = disttorch.full((MB,), 3.0, device=device)
    side.wait_stream(cuda.current_stream(device))
    with cuda.stream(side):
        for _ in range(20):
            big = big @ big / 2048
        y = x * 1
        x.record_stream(side)
        big.record_stream(side)
    del x
    others = [disttorch.full((MB,), 7.0, device=device) for _ in range(4)]  # would take the freed block at once
    cuda.current_stream(device).wait_stream(side)
    np.testing.assert_array_equal(y.cpu().numpy(), 3.0)
    del others


def test_out_of_memory_says_how_much_and_what(device):
    free, total = cuda.mem_get_info(device)
    assert 0 < free <= total
    count = 2 * total // 4
    with pytest.raises(cuda.OutOfMemoryError, match=r"(?is)(gib|mib|bytes)") as caught:
        disttorch.empty(count, device=device)
    text = str(caught.value)
    assert "free" in text and isinstance(caught.value, RuntimeError)
    assert float(disttorch.ones(3, device=device).sum()) == 3.0  # and one can go on


def test_a_limit_on_this_process(device):
    total = cuda.mem_get_info(device)[1]
    cuda.set_per_process_memory_fraction(0.25, device)
    try:
        with pytest.raises(cuda.OutOfMemoryError):
            disttorch.empty(total // 4 // 2, device=device)
    finally:
        cuda.set_per_process_memory_fraction(1.0, device)


def test_a_thousand_steps_take_no_more_memory_than_ten(device, is_real):
    """Neither tensors nor blocks of the pool pile up, with dropout, an optimizer with state, clipping and a scaler."""
    disttorch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Dropout(0.1), nn.LayerNorm(128), nn.Linear(128, 10)).to(device)
    optimizer = disttorch.optim.AdamW(model.parameters(), lr=1e-3)
    scaler = disttorch.amp.GradScaler("cuda")
    rng = np.random.default_rng(0)
    images = disttorch.tensor(rng.standard_normal((256, 64)), dtype=disttorch.float32)
    labels = disttorch.tensor(rng.integers(0, 10, 256))
    batches = disttorch.utils.data.DataLoader(
        disttorch.utils.data.TensorDataset(images, labels), batch_size=64, shuffle=True, pin_memory=True
    )
    after, steps, losses = {}, 0, []
    marks = (10, 1000) if is_real else (10, 40)
    while steps < marks[1]:
        for x, y in batches:
            optimizer.zero_grad()
            with disttorch.autocast("cuda", dtype=disttorch.float16):
                loss = nn.functional.cross_entropy(model(x.to(device, non_blocking=True)), y.to(device, non_blocking=True))
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.detach())
            steps += 1
            if steps in marks:
                recorded = [float(v) for v in losses]
                losses.clear()
                del loss
                gc.collect()
                cuda.synchronize()
                after[steps] = (cuda.memory_allocated(device), cuda.memory_reserved(device))
                assert np.isfinite(recorded).all()
            if steps == marks[1]:
                break
    first, last = (after[m] for m in marks)
    assert last[0] <= first[0]
    assert last[1] <= first[1] + 4 * MB  # one loss for each step was kept in between
