"""The stand-in for the device finds the mistakes that it is there for, and no others."""

from __future__ import annotations

import gc
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests import stand_in
from tests.cuda.views import VIEWS, facts
from tests.stand_in import host_cuda

with_compiler = pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available()))


@pytest.fixture(autouse=True)
def cupy() -> Any:
    with stand_in.installed(2) as module:
        yield module


@pytest.fixture
def side(cupy: Any) -> Any:
    return cupy.cuda.Stream(non_blocking=True)


# Arrays --------------------------------------------------------------------------------------------------------------


REFUSED = {
    "an array of NumPy as operand": (lambda cp, a: a + np.ones(3, np.float32), TypeError, "Unsupported type <class 'numpy.ndarray'>"),
    "on the left": (lambda cp, a: np.ones(3, np.float32) + a, TypeError, "ufunc|Unsupported"),
    "in place": (lambda cp, a: a.__iadd__(np.ones(3)), TypeError, "Unsupported type"),
    "of a function": (lambda cp, a: cp.maximum(a, np.ones(3)), TypeError, "Unsupported type"),
    "in a list": (lambda cp, a: cp.concatenate([a, np.ones(3)]), TypeError, "Unsupported type"),
    "put into places": (lambda cp, a: a.__setitem__(slice(2), np.ones(2)), ValueError, "non-scalar numpy.ndarray cannot be used for fill"),
    "conversion unasked": (lambda cp, a: np.asarray(a), TypeError, "Implicit conversion to a NumPy array is not allowed"),
    "a name of NumPy's only": (lambda cp, a: cp.float_power_, AttributeError, "no attribute 'float_power_'"),
    "an argument of NumPy's only": (lambda cp, a: cp.mean(a, where=True), TypeError, "where"),
    "an argument of a method": (lambda cp, a: a.sum(initial=1), TypeError, "initial"),
    "a dtype without loop": (lambda cp, a: cp.left_shift(a, 1), TypeError, "left_shift"),
    "where of an elementwise function": (lambda cp, a: cp.add(a, a, where=a > 0), TypeError, "Wrong arguments"),
    "bfloat16 in a triangle": (lambda cp, a: cp.tril(cp.ones((2, 2), ml_dtypes.bfloat16)), TypeError, "bfloat16"),
    "bfloat16 in a sort": (lambda cp, a: cp.sort(a.astype(ml_dtypes.bfloat16)), TypeError, "bfloat16"),
    "int64 added in places": (lambda cp, a: cp.add.at(a.astype(np.int64), cp.array([0]), 1), TypeError, r"cupy\.add\.at only supports"),
    "another device": (lambda cp, a: with_device_1(cp, lambda: a + 1), ValueError, "different from the current device"),
    "objects": (lambda cp, a: cp.array(["a"]), ValueError, "Unsupported dtype"),
    "float16 in a factorization": (lambda cp, a: cp.linalg.qr(cp.ones((2, 2), np.float16)), TypeError, "float16"),
}  # fmt: skip


def with_device_1(cp: Any, action: Any) -> None:
    with cp.cuda.Device(1):
        action()


@pytest.mark.parametrize(("action", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cupy_refuses(cupy: Any, action: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        action(cupy, cupy.arange(3, dtype=np.float32))


def test_results_without_dimensions_are_arrays(cupy: Any) -> None:
    a = cupy.arange(6.0).reshape(2, 3)
    for result in (a.sum(), a[1, 2], cupy.max(a), a.mean(), cupy.argmax(a), a.all(), cupy.array_equal(a, a)):
        assert type(result) is cupy.ndarray and result.shape == ()
    assert float(a[1, 2]) == 5 and bool(a[0, 1])


def test_indices_wrap_around(cupy: Any) -> None:
    a = cupy.arange(5)
    assert a[cupy.array([7, -8])].tolist() == [2, 2]
    assert cupy.take(a, cupy.array([5])).tolist() == [0]
    with pytest.raises(IndexError):
        a[5]


def test_types_follow_cupys_tables(cupy: Any) -> None:
    half, single = cupy.ones(2, ml_dtypes.bfloat16), cupy.ones(2, np.float32)
    assert (half + 1).dtype == ml_dtypes.bfloat16 and (half + single).dtype == np.float32
    assert (half + 1.5).dtype == np.float32, "a float is none of NumPy's weak numbers beside bfloat16"
    assert cupy.where(half > 0, half, half).dtype == np.float32, "CuPy's where has no bfloat16"
    assert (cupy.arange(3, dtype=np.int32) / 2).dtype == np.float64
    assert (single + 1.0).dtype == np.float32 and (single + np.float64(1)).dtype == np.float64


def test_views_share_memory(cupy: Any) -> None:
    a = cupy.zeros((2, 3))
    for view in (a[1], a.T, a.reshape(6), a.view(), a[:, ::2], cupy.diagonal(a), cupy.broadcast_to(a, (2, 2, 3)), a.ravel()):
        assert cupy.may_share_memory(a, view) and view.base is a
    a.T[0] = 1
    assert a[:, 0].tolist() == [1, 1] and a.copy().base is None
    assert cupy.exp(a.T).flags.c_contiguous


@pytest.mark.parametrize(("function", "shape", "strides", "offset", "base"), VIEWS.values(), ids=VIEWS)
def test_views_are_cupys(cupy: Any, function: Any, shape: Any, strides: Any, offset: int, base: str) -> None:
    assert facts(cupy, cupy.ones((4, 6), np.float32), function) == (shape, strides, offset, base)


def test_memory_begins_as_nan(cupy: Any) -> None:
    assert np.isnan(cupy.empty(4).get()).all()


def test_no_waiting(cupy: Any) -> None:
    a = cupy.arange(3)
    with stand_in.no_synchronisation("and this is a hot path"):
        b = a * 2 + a.sum()
        for wait in (b.get, lambda: bool(b[0]), lambda: b[b > 1], lambda: cupy.nonzero(b), cupy.cuda.get_current_stream().synchronize,
                     lambda: cupy.unique(b), cupy.cuda.Device().synchronize):  # fmt: skip
            with pytest.raises(stand_in.CUDARuntimeError, match="this is a hot path"):
                wait()
    assert b.tolist() == [3, 5, 7]


# Order ---------------------------------------------------------------------------------------------------------------


def test_reading_what_another_stream_writes(cupy: Any, side: Any) -> None:
    a = cupy.arange(4) + 1
    with side, pytest.raises(stand_in.OrderError, match=r"add on stream .* reads memory that add on the default stream of device 0 writes"):
        a + 1
    event = cupy.cuda.Stream.null.record()
    with side:
        side.wait_event(event)
        b = a + 1
    with pytest.raises(stand_in.OrderError, match="nothing orders one behind the other"):
        b.get()
    side.synchronize()
    assert b.tolist() == [2, 3, 4, 5]


def test_an_event_orders_what_was_before_it_only(cupy: Any, side: Any) -> None:
    a = cupy.zeros(4)
    event = cupy.cuda.Stream.null.record()
    a += 1
    with side:
        side.wait_event(event)
        with pytest.raises(stand_in.OrderError):
            a + 1


def test_order_passes_on(cupy: Any, side: Any) -> None:
    third = cupy.cuda.Stream(non_blocking=True)
    a = cupy.zeros(4)
    side.wait_event(cupy.cuda.Stream.null.record())
    with side:
        b = a + 1
    third.wait_event(side.record())
    with third:
        c = a + b
    cupy.cuda.Stream.null.wait_event(third.record())
    assert (c + a).tolist() == [1] * 4


def test_streams_that_wait_for_the_default_stream(cupy: Any) -> None:
    blocking = cupy.cuda.Stream()
    a = cupy.arange(3) + 1
    with blocking:
        b = a + 1
    assert (b + 1).tolist() == [3, 4, 5]


def test_writing_what_another_stream_reads(cupy: Any, side: Any) -> None:
    a, out = cupy.zeros(4), cupy.zeros(4)
    side.wait_event(cupy.cuda.Stream.null.record())
    with side:
        cupy.add(a, 1, out)
    with pytest.raises(stand_in.OrderError, match=r"writes memory that add on stream .* reads"):
        a += 1


def test_parts_of_a_block_are_told_apart(cupy: Any, side: Any) -> None:
    flat = cupy.zeros(8)
    side.wait_event(cupy.cuda.Stream.null.record())
    with side:
        flat[:4] += 1
    flat[4:] += 2
    side.synchronize()
    assert flat.tolist() == [1] * 4 + [2] * 4


def test_memory_that_is_used_again_too_early(cupy: Any, side: Any) -> None:
    a = cupy.zeros(1000) + 1
    side.wait_event(cupy.cuda.Stream.null.record())
    with side:
        b = a * 2
    pointer = a.data.ptr
    del a
    c = cupy.empty(1000)
    assert c.data.ptr == pointer, "the pool hands it out again"
    with pytest.raises(stand_in.OrderError, match=r"writes memory that multiply on stream .* reads"):
        c.fill(0)
    cupy.cuda.Stream.null.wait_event(side.record())
    c.fill(0)
    assert b.sum().item() == 2000


def test_an_event_says_done_only_when_it_is(cupy: Any, side: Any) -> None:
    a = cupy.zeros(3)
    side.wait_event(cupy.cuda.Stream.null.record())
    with stand_in.held(side):
        with side:
            b = a + 1
        event = side.record()
        assert not event.done and not side.done
        assert np.isnan(b._a).all(), "nothing has run"
    assert event.done and side.done
    assert b.tolist() == [1, 1, 1]


def test_elapsed_time(cupy: Any) -> None:
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    begin.record()
    end.record()
    end.synchronize()
    assert cupy.cuda.get_elapsed_time(begin, end) >= 0
    with pytest.raises(stand_in.CUDARuntimeError, match="without timing"):
        cupy.cuda.get_elapsed_time(begin, cupy.cuda.Event(disable_timing=True))


# Memory --------------------------------------------------------------------------------------------------------------


def test_a_pool(cupy: Any) -> None:
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc):
        a = cupy.empty(100, np.uint8)
        assert pool.used_bytes() == 512 == pool.total_bytes()
        pointer = a.data.ptr
        del a
        assert (pool.used_bytes(), pool.total_bytes(), pool.n_free_blocks()) == (0, 512, 1)
        assert cupy.empty(500, np.uint8).data.ptr == pointer
        pool.free_all_blocks()
        assert pool.total_bytes() == 0
        pool.set_limit(size=1024)
        kept = cupy.empty(1024, np.uint8)
        with pytest.raises(MemoryError, match=r"Out of memory allocating 512 bytes \(allocated so far: 1,024 bytes \(limit set to: 1,024"):
            cupy.empty(1, np.uint8)
        del kept
        assert cupy.empty(1, np.uint8).size == 1, "free blocks are given back first"


def test_a_device_that_is_full(cupy: Any) -> None:
    stand_in.total_memory[1] = 1 << 20
    with cupy.cuda.Device(1):
        free, total = cupy.cuda.runtime.memGetInfo()
        assert total == 1 << 20 >= free
        with pytest.raises(cupy.cuda.memory.OutOfMemoryError):
            cupy.empty(2 << 20, np.uint8)


def test_memory_that_was_given_back(cupy: Any) -> None:
    a = cupy.zeros(1 << 16)
    pointer = a.data.ptr
    del a
    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    with pytest.raises(stand_in.OrderError, match="no address of the device"):
        cupy.cuda.runtime.memsetAsync(pointer, 0, 8, 0)


def test_an_array_beyond_its_block(cupy: Any) -> None:
    a = cupy.zeros(64)
    with pytest.raises(stand_in.CUDARuntimeError, match="leaves its block"):
        cupy.ndarray((65,), np.float64, memptr=a.data)


def test_copies_to_pinned_memory(cupy: Any) -> None:
    import cupyx  # type: ignore[import-not-found]

    a, here = cupy.arange(4.0), cupyx.empty_pinned(4)
    a.data.copy_to_host_async(here.ctypes.data, a.nbytes, cupy.cuda.get_current_stream())
    assert np.isnan(here).all(), "it is not there before somebody has waited"
    cupy.cuda.get_current_stream().synchronize()
    assert here.tolist() == [0, 1, 2, 3]


def test_pinned_memory_that_changes_too_early(cupy: Any) -> None:
    import cupyx

    a, here = cupy.zeros(4), cupyx.zeros_pinned(4)
    a.data.copy_from_host_async(here.ctypes.data, a.nbytes, cupy.cuda.get_current_stream())
    here[0] = 1
    with pytest.raises(stand_in.OrderError, match="pinned memory has changed"):
        stand_in.check()


# Graphs --------------------------------------------------------------------------------------------------------------


def captured(cupy: Any, stream: Any, action: Any) -> tuple[Any, Any]:
    with stream:
        stream.begin_capture()
        result = action()
        return stream.end_capture(), result


def test_a_graph_runs_on_the_same_addresses(cupy: Any, side: Any) -> None:
    a = cupy.ones(3)
    side.wait_event(cupy.cuda.Stream.null.record())
    graph, b = captured(cupy, side, lambda: cupy.exp(a * 0) + a)
    assert np.isnan(b._a).all(), "a captured operation does not run"
    graph.launch(stream=side)
    side.synchronize()
    assert b.tolist() == [2] * 3
    a[...] = 5
    side.wait_event(cupy.cuda.Stream.null.record())
    graph.launch(stream=side)
    side.synchronize()
    assert b.tolist() == [6] * 3


def test_float16_is_added_up_in_float16_by_cub(cupy: Any) -> None:
    far = cupy.array([6e4, 6e4, -6e4, -6e4], np.float16)
    assert np.isnan(float(cupy.sum(far)))
    assert np.isnan(cupy.sum(cupy.stack([far, far]), 1).get()).all()
    assert float(cupy.sum(far, dtype=np.float32)) == 0
    assert cupy.sum(cupy.stack([far, far], 1), 0).tolist() == [0, 0]  # along other dimensions by CuPy's own kernel, in float32


COPIED = {
    "an array": lambda cp, a: cp.array([1.0, 2.0]),
    "an index": lambda cp, a: a[[0, 2]],
    "addresses of arrays": lambda cp, a: cp.concatenate([a] * 9),
}


@pytest.mark.parametrize("action", COPIED.values(), ids=COPIED)
def test_copies_from_the_host_within_a_capture(cupy: Any, side: Any, action: Any) -> None:
    a = cupy.arange(3, dtype=np.float32)
    cupy.cuda.Device().synchronize()
    action(cupy, a)
    with side:
        side.begin_capture()
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorCapturedEvent"):
            action(cupy, a)
        side.end_capture()


def test_waiting_within_a_capture(cupy: Any, side: Any) -> None:
    a = cupy.ones(3)
    side.wait_event(cupy.cuda.Stream.null.record())
    with side:
        side.begin_capture()
        with pytest.raises(stand_in.CUDARuntimeError, match=r"not permitted when stream is capturing \(get\)"):
            (a + 1).get()
        with pytest.raises(stand_in.CUDARuntimeError, match="Invalidated"):
            side.end_capture()


def test_two_streams_in_a_capture(cupy: Any, side: Any) -> None:
    other = cupy.cuda.Stream(non_blocking=True)
    a = cupy.ones(3)
    side.wait_event(cupy.cuda.Stream.null.record())
    with side:
        side.begin_capture()
        b = a + 1
        other.wait_event(side.record())
        with other:
            c = b * 2
        with pytest.raises(stand_in.OrderError, match="in one capture"):
            b += 1
        side.wait_event(other.record())
        d = b + c
        graph = side.end_capture()
        graph.launch()
    side.synchronize()
    assert d.tolist() == [6] * 3
    with side:
        side.begin_capture()
        other.wait_event(side.record())
        with other:
            a * 2
        with pytest.raises(stand_in.CUDARuntimeError, match="Unjoined"):
            side.end_capture()


def test_a_graph_whose_memory_somebody_else_has(cupy: Any, side: Any) -> None:
    a = [cupy.ones(1000)]
    side.wait_event(cupy.cuda.Stream.null.record())
    graph, b = captured(cupy, side, lambda: a[0] + 1)
    a.clear()
    taken = cupy.ones(1000)
    with pytest.raises(stand_in.OrderError, match="belongs to somebody else"):
        graph.launch(stream=side)
    assert taken.sum().item() == 1000 and b is not None


# Kernels -------------------------------------------------------------------------------------------------------------

SOURCE = """
extern "C" __global__ void twice(const float* from, float* to, long long n) {
    long long i = (long long)(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n) to[i] = 2 * from[i];
}
"""


@with_compiler
def test_a_kernel_of_our_own(cupy: Any, side: Any) -> None:
    kernel = cupy.RawModule(code=SOURCE, options=("--std=c++17",)).get_function("twice")
    a, b = cupy.arange(5, dtype=np.float32), cupy.zeros(5, np.float32)
    kernel((1,), (32,), (a, b, 5))
    assert b.tolist() == [0, 2, 4, 6, 8]
    with pytest.raises(stand_in.CUDARuntimeError, match="launched with"):
        kernel((1,), (2048,), (a, b, 5))
    with pytest.raises(TypeError, match="Unsupported type"):
        kernel((1,), (32,), (a, "b", 5))
    kernel((1,), (32,), (a, b, 5))
    with side, pytest.raises(stand_in.OrderError, match="twice on stream"):
        kernel((1,), (32,), (a, b, 5))


@with_compiler
def test_kernels_only_read_what_is_const(cupy: Any, side: Any) -> None:
    kernel = cupy.RawModule(code=SOURCE, options=()).get_function("twice")
    a, b, c = cupy.arange(5, dtype=np.float32), cupy.zeros(5, np.float32), cupy.zeros(5, np.float32)
    side.wait_event(cupy.cuda.Stream.null.record())
    kernel((1,), (32,), (a, b, 5))
    with side:
        kernel((1,), (32,), (a, c, 5))  # both read a


# Devices -------------------------------------------------------------------------------------------------------------


def test_devices(cupy: Any) -> None:
    assert cupy.cuda.runtime.getDeviceCount() == 2
    with cupy.cuda.Device(1):
        a = cupy.ones(2)
        assert a.device.id == 1 == cupy.cuda.runtime.getDevice()
    assert cupy.cuda.runtime.getDevice() == 0
    with pytest.raises(stand_in.CUDARuntimeError, match="invalid device ordinal"):
        cupy.cuda.Device(2).use()
    stream = cupy.cuda.Stream()
    with cupy.cuda.Device(1), pytest.raises(RuntimeError, match="Stream set for device"):
        stream.use()


def test_it_is_gone_afterwards(cupy: Any) -> None:
    import sys

    assert sys.modules["cupy"] is cupy and not hasattr(cupy, "__file__")
