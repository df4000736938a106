"""The memory of devices: counted exactly, given back, kept while streams use it, and copies that do not wait."""

import gc
import re
import threading

import numpy as np
import pytest

from tests import stand_in
from tests.stand_in.session import tensors

MiB = 2**20


@pytest.fixture
def torch():
    with tensors() as module:
        yield module


@pytest.fixture
def counts(torch):
    """Allocated now and at most, in bytes."""
    torch.cuda.reset_peak_memory_stats()
    return lambda: (torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated())


# --- counting ----------------------------------------------------------------------------------------------------------


def test_what_tensors_hold_and_held_at_most(torch, counts):
    a = torch.ones(256, device="cuda")  # 1024 bytes
    b = torch.ones(1, device="cuda")  # rounded up to 512
    assert counts() == (1536, 1536)
    view = a[::2]
    assert counts() == (1536, 1536)
    del a
    assert counts() == (1536, 1536)
    del view
    assert counts() == (512, 1536)
    torch.cuda.reset_peak_memory_stats()
    assert counts() == (512, 512)
    c = b + torch.ones(1, device="cuda")
    assert counts() == (1024, 1536)
    del b, c
    assert counts() == (0, 1536)


def test_statistics_by_pytorchs_keys(torch):
    theirs = pytest.importorskip("torch").cuda.memory_stats
    assert theirs() == {}  # PyTorch knows none without a GPU: these are of its documentation
    kept = [torch.ones(100, device="cuda") for _ in range(3)]
    del kept[0]
    stats = torch.cuda.memory_stats()
    assert {k: v for k, v in stats.items() if k.startswith("allocat")} == {
        "allocated_bytes.all.allocated": 3 * 512, "allocated_bytes.all.current": 2 * 512, "allocated_bytes.all.freed": 512,
        "allocated_bytes.all.peak": 3 * 512, "allocation.all.allocated": 3, "allocation.all.current": 2, "allocation.all.freed": 1,
        "allocation.all.peak": 3,
    }  # fmt: skip
    assert stats["requested_bytes.all.current"] == 2 * 400
    assert stats["reserved_bytes.all.current"] == torch.cuda.memory_reserved() == 3 * 512
    assert (stats["num_ooms"], stats["num_alloc_retries"], stats["segment.all.current"]) == (0, 0, 3)
    assert list(stats) == sorted(stats)
    assert torch.cuda.memory_stats_as_nested_dict()["active_bytes"]["all"]["current"] == 2 * 512
    torch.cuda.reset_accumulated_memory_stats()
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == 2


def test_the_summary_is_a_table(torch):
    a = torch.ones(MiB, device="cuda")
    text = torch.cuda.memory_summary()
    rows = [line for line in text.splitlines() if line[0] in "+|"]
    assert len({len(row) for row in rows}) == 1
    assert "| held by tensors                |     4.00 MiB |     4.00 MiB |     4.00 MiB |      0 bytes |" in rows
    assert "80.00 GiB" in text
    assert "blocks" not in torch.cuda.memory_summary(abbreviated=True)
    del a


def test_memory_goes_back_to_the_driver(torch):
    free, total = torch.cuda.mem_get_info()
    a = torch.ones(MiB, device="cuda")
    assert torch.cuda.mem_get_info() == (free - 4 * MiB, total)
    del a
    assert (torch.cuda.memory_allocated(), torch.cuda.memory_reserved()) == (0, 4 * MiB)
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() == 0
    assert torch.cuda.max_memory_reserved() == 4 * MiB
    assert torch.cuda.mem_get_info() == (free, total)


def test_threads_count_together(torch, counts):
    def work():
        for _ in range(50):
            torch.ones(100, device="cuda").add(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts()[0] == 0
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == torch.cuda.memory_stats()["allocation.all.freed"] >= 400


def test_each_device_has_its_own_count():
    with tensors(devices=2) as torch:
        a = torch.ones(1, device="cuda:1")
        assert (torch.cuda.memory_allocated(0), torch.cuda.memory_allocated("cuda:1")) == (0, 512)
        del a
        assert torch.cuda.memory_allocated(1) == 0


def test_an_allocator_of_the_users_is_asked():
    with stand_in.installed() as cupy:
        asked = []
        pool = cupy.cuda.MemoryPool()

        def theirs(size):
            asked.append(size)
            return pool.malloc(size)

        cupy.cuda.set_allocator(theirs)
        with tensors() as torch:
            a = torch.ones(10, device="cuda")
            assert (asked, torch.cuda.memory_allocated()) == ([40], 512)
            del a
        cupy.cuda.set_allocator(cupy.get_default_memory_pool().malloc)


def leave(torch, free):
    """Let the device have so many bytes free, and return how many it has then."""
    torch.cuda.empty_cache()
    now, total = torch.cuda.mem_get_info()
    stand_in.total_memory[0] = total - now + free
    return stand_in.total_memory[0]


# --- too much ----------------------------------------------------------------------------------------------------------


def test_a_full_device_says_who_has_what(torch):
    leave(torch, 10 * MiB)
    kept = torch.ones(MiB, device="cuda")
    with pytest.raises(torch.cuda.OutOfMemoryError) as failed:
        torch.relu(torch.ones(1, device="cuda").expand(4 * MiB))
    text = str(failed.value)
    assert text.startswith("CUDA out of memory: 16.00 MiB were asked for by disttorch.relu, called at ")
    assert "test_memory.py:" in text
    assert "(torch.relu(torch.ones(1" in text
    assert re.search(r"GPU 0 has \d+\.\d\d MiB, of which 6\.00 MiB are free\.", text)
    assert "Tensors hold 4.00 MiB (at most 4.00 MiB so far)" in text
    assert isinstance(failed.value, RuntimeError)
    assert failed.value.__cause__ is None
    assert torch.cuda.memory_stats()["num_ooms"] == 1
    del kept, failed
    gc.collect()
    assert torch.ones(2 * MiB, device="cuda").sum().item() == 2 * MiB


def test_a_full_device_in_a_backward_pass(torch):
    x = torch.ones(MiB, device="cuda", requires_grad=True)
    y = x.sin().sum()
    leave(torch, MiB)
    with pytest.raises(torch.cuda.OutOfMemoryError, match=r"by the backward pass of disttorch\.sin, called at .*test_memory"):
        y.backward()


def test_what_is_kept_is_given_back_before_giving_up(torch):
    leave(torch, 10 * MiB)
    small = [torch.ones(MiB // 4, device="cuda") for _ in range(8)]
    del small
    assert torch.cuda.memory_reserved() == 8 * MiB
    large = torch.ones(2 * MiB, device="cuda")
    assert torch.cuda.memory_reserved() == 8 * MiB
    assert torch.cuda.memory_stats()["num_alloc_retries"] == 1
    del large


def test_a_fraction_of_the_device(torch):
    fraction = 5 * MiB / leave(torch, 10 * MiB)
    torch.cuda.set_per_process_memory_fraction(fraction)
    assert torch.cuda.get_per_process_memory_fraction() == fraction
    a = torch.ones(MiB, device="cuda")
    with pytest.raises(torch.cuda.OutOfMemoryError, match=r"This process may use 5.00 MiB of them"):
        torch.ones(MiB, device="cuda")
    torch.cuda.set_per_process_memory_fraction(1.0)
    b = torch.ones(MiB, device="cuda")
    del a, b
    for wrong, error in ((2.0, ValueError), (1, TypeError)):
        with pytest.raises(error, match="fraction"):
            torch.cuda.set_per_process_memory_fraction(wrong)


# --- streams -----------------------------------------------------------------------------------------------------------


def test_memory_that_another_stream_uses_is_not_used_again(torch, counts):
    side, main = torch.cuda.Stream(), torch.cuda.current_stream()
    a = torch.arange(1000.0, device="cuda")
    address = a.data_ptr()
    side.wait_stream(main)
    with stand_in.held(side._stream):
        with torch.cuda.stream(side):
            b = a * 2
        a.record_stream(side)
        del a
        assert torch.cuda.memory_stats()["active_bytes.all.current"] == torch.cuda.memory_allocated() + 4096
        c = torch.zeros(1000, device="cuda")  # would be the same memory, and the side stream would read zeros
        assert c.data_ptr() != address
    main.wait_stream(side)
    assert b.sum().item() == 999 * 1000
    d = torch.zeros(1000, device="cuda")
    assert torch.cuda.memory_stats()["active_bytes.all.current"] == torch.cuda.memory_allocated()
    del b, c, d


def test_without_record_stream_it_would_be(torch):
    side, main = torch.cuda.Stream(), torch.cuda.current_stream()
    a = torch.arange(1000.0, device="cuda")
    side.wait_stream(main)
    with torch.cuda.stream(side):
        b = a * 2
    del a
    with pytest.raises(stand_in.OrderError):
        torch.zeros(1000, device="cuda")
    main.wait_stream(side)
    del b


def test_a_full_device_waits_for_other_streams(torch):
    leave(torch, 10 * MiB)
    side = torch.cuda.Stream()
    a = torch.ones(MiB, device="cuda")
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        b = a[:10] * 2
    a.record_stream(side)
    del a
    assert torch.ones(2 * MiB, device="cuda").size(0) == 2 * MiB
    torch.cuda.current_stream().wait_stream(side)
    assert b.sum().item() == 20


def test_memory_that_another_devices_stream_reads():
    with tensors(devices=2) as torch:
        a = torch.arange(1000.0, device="cuda:0")
        address, there = a.data_ptr(), torch.cuda.Stream(1)
        with torch.cuda.device(1):
            there.wait_stream(torch.cuda.current_stream(0))
            with stand_in.held(there._stream):
                with torch.cuda.stream(there):
                    b = torch.empty(1000, device="cuda:1")
                    b._array.data.copy_from_device_async(a._array.data, 4000)
                a.record_stream(there)
                a.record_stream(torch.cuda.default_stream(1))
                del a
                with torch.cuda.device(0):
                    c = torch.zeros(1000, device="cuda:0")
                assert c.data_ptr() != address
            there.synchronize()
            assert b.sum().item() == 999 * 500


def test_only_tensors_of_devices_have_streams(torch):
    with pytest.raises(RuntimeError, match="only tensors on a GPU"):
        torch.ones(1).record_stream(torch.cuda.current_stream())


def test_memory_of_another_library_is_as_large_as_its_elements_reach(torch):
    import cupy

    array = cupy.arange(24.0).reshape(4, 6)
    a = torch.from_dlpack(array)
    assert a.as_strided((24,), (1,)).tolist() == list(range(24))
    assert torch.from_dlpack(array[1:, 2:]).as_strided((2,), (9,)).tolist() == [8, 17]
    assert torch.from_dlpack(array[:0]).shape == (0, 6)
    a += 1
    assert array.tolist()[3][5] == 24


# --- copies ------------------------------------------------------------------------------------------------------------


def test_pinned_memory(torch):
    a = torch.arange(6.0)
    assert not a.is_pinned()
    b = a.pin_memory()
    assert b.is_pinned()
    assert b[2:].view(2, 2).is_pinned()  # a view of it is, too
    assert b.pin_memory() is b
    assert b.tolist() == a.tolist()
    assert not b.clone().is_pinned()
    assert not torch.ones(1, device="cuda").is_pinned()


def test_a_copy_to_the_device_does_not_wait(torch):
    side = torch.cuda.Stream()
    a = torch.arange(1000.0).pin_memory()
    with stand_in.held(side._stream):
        with torch.cuda.stream(side), stand_in.no_synchronisation():
            b = a.to("cuda", non_blocking=True)
        address = a.data_ptr()
        del a
        c = torch.zeros(1000).pin_memory()  # the pinned memory is kept until it has been read
        assert c.data_ptr() != address
    torch.cuda.current_stream().wait_stream(side)
    assert b.sum().item() == 999 * 500


@pytest.mark.parametrize("form", ["to", "cuda", "copy_", "positional"])
def test_forms_of_copies_to_the_device(torch, form):
    a = torch.arange(12.0).reshape(3, 4).pin_memory()
    with stand_in.no_synchronisation():
        if form == "to":
            b = a.to("cuda", non_blocking=True)
        elif form == "positional":
            b = a.to("cuda", torch.float32, True)
        elif form == "cuda":
            b = a.cuda(non_blocking=True)
        else:
            b = torch.empty(3, 4, device="cuda").copy_(a, non_blocking=True)
    assert b.cpu().tolist() == a.tolist()
    assert a.t().to("cuda", non_blocking=True).cpu().tolist() == a.t().tolist()


def test_a_copy_that_may_wait_lets_the_source_be_changed(torch):
    a = torch.arange(4.0).pin_memory()
    b = a.to("cuda")
    a.fill_(7)
    assert b.tolist() == [0, 1, 2, 3]


def test_a_copy_to_the_host_does_not_wait(torch):
    a = torch.arange(12.0, device="cuda").reshape(3, 4)
    target = torch.empty(3, 4).pin_memory()
    with stand_in.no_synchronisation():
        b = a.to("cpu", non_blocking=True)
        c = a.t().to("cpu", non_blocking=True)
        target.copy_(a, non_blocking=True)
    torch.cuda.synchronize()
    assert b.is_pinned()
    assert b.tolist() == target.tolist() == a.tolist()
    assert c.tolist() == a.t().tolist()
    assert target.zero_().copy_(a).tolist() == a.tolist()  # waits
    assert torch.empty(3, 4, dtype=torch.float64).copy_(a).tolist() == a.tolist()


def test_gradients_pass_through_copies(torch):
    x = torch.arange(3.0).pin_memory().requires_grad_()
    (x.to("cuda", non_blocking=True) ** 2).sum().backward()
    assert x.grad.device.type == "cpu"
    np.testing.assert_allclose(x.grad.numpy(), [0, 2, 4])


def test_copies_between_devices_are_in_order():
    with tensors(devices=2) as torch:
        first = torch.cuda.Stream(0)
        with torch.cuda.stream(first):
            a = torch.arange(1000.0, device="cuda:0") + 1
            b = a.to("cuda:1")  # waits for the one device's stream, and lets it wait before the memory is written again
            a.zero_()
        with torch.cuda.device(1):
            assert (b.device.index, b.sum().item()) == (1, 500500)
        c = torch.empty(1000, device="cuda:0")
        c.copy_(b)
        assert (c.device.index, c.sum().item()) == (0, 500500)


def test_saved_tensors_in_pinned_memory(torch):
    x = torch.arange(4.0, device="cuda", requires_grad=True)
    with torch.autograd.graph.save_on_cpu(pin_memory=True), stand_in.no_synchronisation():
        y = (x.exp() * x).sum()
        y.backward()
    want = np.exp(np.arange(4.0)) * (np.arange(4.0) + 1)
    np.testing.assert_allclose(x.grad.cpu().numpy(), want, rtol=1e-6)


def test_the_error_has_pytorchs_names(torch):
    assert torch.OutOfMemoryError is torch.cuda.OutOfMemoryError
    assert issubclass(torch.OutOfMemoryError, RuntimeError)
    with pytest.raises(torch.OutOfMemoryError, match="may use 0 bytes"):
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(0.0)
        torch.ones(1, device="cuda")
    torch.cuda.set_per_process_memory_fraction(1.0)
