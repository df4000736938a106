"""What runs CUDA sources on the host: that it runs them as a GPU does, and finds what must not be."""

import numpy as np
import pytest

from tests.stand_in import host_cuda
from tests.stand_in.host_cuda import HostModule

pytestmark = pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available()))

SOURCE = r"""
extern "C" __global__ void where(int* out) {
    int i = (blockIdx.y * gridDim.x + blockIdx.x) * blockDim.x * blockDim.y + threadIdx.y * blockDim.x + threadIdx.x;
    out[i] = 1000 * blockIdx.y + 100 * blockIdx.x + 10 * threadIdx.y + threadIdx.x;
}
extern "C" __global__ void __launch_bounds__(256) total(const float* x, float* out, long long n) {
    __shared__ float parts[8];
    float sum = 0;
    for (long long i = threadIdx.x; i < n; i += blockDim.x) sum += x[i];
    for (int other = 16; other; other >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, other);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        sum = 0;
        for (int i = 0; i < 8; ++i) sum += parts[i];
        *out = sum;
    }
}
extern "C" __global__ void warp(int* out) {
    int lane = threadIdx.x;
    out[lane] = __shfl_up_sync(0xffffffffu, lane, 1);
    out[32 + lane] = __shfl_down_sync(0xffffffffu, lane, 3, 8);
    out[64 + lane] = __shfl_sync(0xffffffffu, lane, 5, 16);
    out[96 + lane] = int(__ballot_sync(0xffffffffu, lane % 3 == 0));
    out[128 + lane] = int(__match_any_sync(0xffffffffu, lane / 8));
    if (lane < 16) out[160 + lane] = __shfl_xor_sync(0x0000ffffu, lane, 1);
    else out[160 + lane] = __shfl_xor_sync(0xffff0000u, lane, 2) + __shfl_xor_sync(0xffff0000u, 100, 4);
    out[192 + lane] = __any_sync(0xffffffffu, lane == 7) + 2 * __all_sync(0xffffffffu, lane >= 0);
}
extern "C" __global__ void votes(int* out) {
    out[threadIdx.x] = __syncthreads_count(threadIdx.x % 2) * 10 + __syncthreads_or(threadIdx.x == 3);
}
extern "C" __global__ void atomics(unsigned* count, float* sum, unsigned long long* largest) {
    atomicAdd(count, 1u);
    atomicAdd(sum, 0.5f);
    atomicMax(largest, (unsigned long long)(threadIdx.x));
}
struct Pair { float* data; long long n; };
extern "C" __global__ void structure(Pair pair, double value) { for (long long i = 0; i < pair.n; ++i) pair.data[i] = float(value); }
extern "C" __global__ void in_one_branch() { if (threadIdx.x < 32) __syncthreads(); }
extern "C" __global__ void in_two_branches() {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}
extern "C" __global__ void wrong_mask() { if (threadIdx.x < 16) __shfl_sync(0xffffffffu, 1, 0); }
extern "C" __global__ void not_in_mask() { __shfl_sync(1u, 1, 0); }
extern "C" __global__ void missing_lanes() { __syncwarp(); }
extern "C" __global__ void different_calls() {
    if (threadIdx.x < 16)
        __syncwarp();
    else
        __ballot_sync(0xffffffffu, 1);
}
extern "C" __global__ void unset(float* out) {
    extern __shared__ float memory[];
    if (threadIdx.x == 0) memory[0] = 3;
    out[threadIdx.x] = memory[threadIdx.x];
}
extern "C" __global__ void no_barrier(int* out) {
    __shared__ int seen[64];
    seen[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = seen[63 - threadIdx.x];
}
extern "C" __global__ void stops() { __trap(); }
"""


@pytest.fixture(scope="module")
def module():
    return HostModule(SOURCE)


@pytest.fixture(params=[0, 1, 2], ids=["forward", "backward", "shuffled"])
def order(request):
    with host_cuda.schedule(request.param):
        yield


def address(a):
    return a.ctypes.data


def test_places_of_blocks_and_threads(module, order):
    out = np.zeros((2, 3, 4, 5), np.int32)
    module.get_function("where")((3, 2), (5, 4), (address(out),))
    y, x, j, i = np.indices(out.shape)
    np.testing.assert_array_equal(out, 1000 * y + 100 * x + 10 * j + i)


def test_a_sum_over_a_block(module, order):
    x, out = np.arange(1000, dtype=np.float32), np.zeros(1, np.float32)
    module.get_function("total")((1,), (256,), (address(x), address(out), np.int64(1000)))
    assert out[0] == 499500


def test_functions_of_a_warp(module, order):
    out = np.zeros((7, 32), np.int32)
    module.get_function("warp")((1,), (32,), (address(out),))
    lane = np.arange(32)
    np.testing.assert_array_equal(out[0], np.maximum(lane - 1, 0))
    np.testing.assert_array_equal(out[1], np.where(lane % 8 < 5, lane + 3, lane))
    np.testing.assert_array_equal(out[2], lane // 16 * 16 + 5)
    assert set(out[3].astype(np.uint32)) == {sum(1 << i for i in range(0, 32, 3))}
    np.testing.assert_array_equal(out[4].astype(np.uint32), 0xFF << (lane // 8 * 8))
    np.testing.assert_array_equal(out[5], np.where(lane < 16, lane ^ 1, (lane ^ 2) + 100))
    np.testing.assert_array_equal(out[6], 3)


def test_votes_of_a_block_and_atomics(module, order):
    out = np.zeros(64, np.int32)
    module.get_function("votes")((1,), (64,), (address(out),))
    np.testing.assert_array_equal(out, 321)
    count, total, largest = np.zeros(1, np.uint32), np.zeros(1, np.float32), np.zeros(1, np.uint64)
    module.get_function("atomics")((3,), (64,), (address(count), address(total), address(largest)))
    assert (count[0], total[0], largest[0]) == (192, 96, 63)


def test_structures_by_value(module):
    data = np.zeros(3, np.float32)
    pair = np.array([(address(data), 2)], np.dtype([("data", "u8"), ("n", "i8")]))
    module.get_function("structure")((1,), (1,), (pair, 2.5))
    np.testing.assert_array_equal(data, [2.5, 2.5, 0])


@pytest.mark.parametrize(
    ("name", "threads", "message"),
    [
        ("in_one_branch", 64, "32 of 64 threads wait at __syncthreads"),
        ("in_two_branches", 64, "__syncthreads of lines"),
        ("wrong_mask", 32, "lanes 0000ffff of mask ffffffff wait"),
        ("not_in_mask", 32, "does not name it"),
        ("missing_lanes", 16, "names lanes that the block does not have"),
        ("different_calls", 32, "different calls"),
        ("stops", 1, "__trap"),
    ],
)
def test_threads_that_do_not_meet_are_errors(module, order, name, threads, message):
    with pytest.raises(RuntimeError, match=message):
        module.get_function(name)((1,), (threads,), ())
    # and the next launch knows nothing of it
    test_a_sum_over_a_block(module, None)


def test_unset_shared_memory_is_nan(module):
    out = np.zeros(2, np.float32)
    module.get_function("unset")((1,), (2,), (address(out),), 8)
    np.testing.assert_array_equal(out, [3, np.nan])


def test_a_missing_barrier_changes_the_result_with_the_order(module):
    seen = []
    for seed in (0, 1):
        out = np.zeros(64, np.int32)
        with host_cuda.schedule(seed):
            module.get_function("no_barrier")((1,), (64,), (address(out),))
        seen.append(out)
    assert (seen[0] != seen[1]).any()


@pytest.mark.parametrize("argument", [np.int32(1000), np.float64(1000), np.zeros(2, np.int64)], ids=["int32", "float", "two"])
def test_arguments_of_another_type_are_errors(module, argument):
    x = np.zeros(1000, np.float32)
    with pytest.raises(TypeError, match="argument 2"):
        module.get_function("total")((1,), (256,), (address(x), address(x), argument))


def test_what_cuda_has_not_is_an_error(module):
    function = module.get_function("stops")
    with pytest.raises(ValueError, match="more than CUDA's 1024"):
        function((1,), (64, 32), ())
    with pytest.raises(ValueError, match="no grid"):
        function((0,), (1,), ())
    with pytest.raises(TypeError, match="takes 0 arguments"):
        function((1,), (1,), (1,))
    with pytest.raises(ValueError, match="no kernel 'other'"):
        module.get_function("other")


def test_a_source_that_does_not_compile_says_why():
    with pytest.raises(host_cuda.CompileException, match="undefined_name"):
        HostModule('extern "C" __global__ void f(float* x) { *x = undefined_name; }')
