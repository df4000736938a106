// Numbers of rows sorted, each with the place it comes from; stable, by 8 bits at a time from the lowest (a radix sort). Nothing here
// depends on the order in which blocks run, and the host is told nothing, so it can be part of a captured graph.

#define TILE 2048  // elements of a block: 8 warps with 8 rounds of 32
#define WARPS 8
#define ROUNDS 8
#define DIGITS 256

// Negative numbers count from the end; what is no row becomes `rows`, the last.
template <typename T>
__device__ __forceinline__ void to_keys(const T* index, uint32* keys, int64 m, int64 rows) {
    for (int64 i = global_thread(); i < m; i += global_threads()) {
        int64 at = int64(index[i]);
        if (at < 0) at += rows;
        keys[i] = uint32(at < 0 || at > rows ? rows : at);
    }
}

extern "C" __global__ void keys_of_int64(const int64* index, uint32* keys, int64 m, int64 rows) { to_keys(index, keys, m, rows); }
extern "C" __global__ void keys_of_int32(const int32* index, uint32* keys, int64 m, int64 rows) { to_keys(index, keys, m, rows); }

// How often each digit is in each block's tile, at counts[digit][block]; 256 threads
extern "C" __global__ void count_digits(const uint32* keys, uint32* counts, int64 m, int64 shift) {
    __shared__ uint32 mine[DIGITS];
    mine[threadIdx.x] = 0;
    __syncthreads();
    int64 start = int64(blockIdx.x) * TILE;
    for (int i = threadIdx.x; i < TILE && start + i < m; i += blockDim.x) atomicAdd(&mine[keys[start + i] >> shift & (DIGITS - 1)], 1u);
    __syncthreads();
    counts[int64(threadIdx.x) * gridDim.x + blockIdx.x] = mine[threadIdx.x];
}

// Each count becomes the sum of those before it; one block of 1024 threads
extern "C" __global__ void __launch_bounds__(1024) sum_counts(uint32* counts, int64 n) {
    __shared__ uint32 of_warps[32];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    uint32 before = 0;
    for (int64 start = 0; start < n; start += 1024) {
        int64 i = start + threadIdx.x;
        uint32 mine = i < n ? counts[i] : 0, sum = mine;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            uint32 other = __shfl_up_sync(ALL_LANES, sum, step);
            if (lane >= step) sum += other;
        }
        if (lane == 31) of_warps[warp] = sum;
        __syncthreads();
        uint32 of_lower_warps = 0, all = 0;
        for (int w = 0; w < 32; ++w) {
            if (w < warp) of_lower_warps += of_warps[w];
            all += of_warps[w];
        }
        if (i < n) counts[i] = before + of_lower_warps + sum - mine;
        before += all;
        __syncthreads();
    }
}

// The elements moved to where they belong by one digit; `places` null stands for 0, 1, 2, ...; 256 threads
extern "C" __global__ void move_by_digit(const uint32* keys, const uint32* places, uint32* new_keys, uint32* new_places,
        const uint32* counts, int64 m, int64 shift) {
    __shared__ uint32 seen[WARPS][DIGITS];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    for (int i = threadIdx.x; i < WARPS * DIGITS; i += blockDim.x) seen[i / DIGITS][i % DIGITS] = 0;
    __syncthreads();
    int64 start = int64(blockIdx.x) * TILE + warp * (TILE / WARPS);
    uint32 ranks[ROUNDS];  // of an element among those of its digit in its warp's part
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
        int64 i = start + round * 32 + lane;
        uint32 digit = i < m ? keys[i] >> shift & (DIGITS - 1) : DIGITS;
        uint32 same = __match_any_sync(ALL_LANES, digit), lower = same & ((1u << lane) - 1);
        if (digit < DIGITS) ranks[round] = seen[warp][digit] + __popc(lower);
        __syncwarp();
        if (digit < DIGITS && lower == 0) seen[warp][digit] += __popc(same);
        __syncwarp();
    }
    __syncthreads();
    uint32 first = counts[int64(threadIdx.x) * gridDim.x + blockIdx.x];  // of this thread's digit
    for (int w = 0; w < WARPS; ++w) {
        uint32 of_warp = seen[w][threadIdx.x];
        seen[w][threadIdx.x] = first;
        first += of_warp;
    }
    __syncthreads();
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
        int64 i = start + round * 32 + lane;
        if (i >= m) continue;
        uint32 key = keys[i], to = seen[warp][key >> shift & (DIGITS - 1)] + ranks[round];
        new_keys[to] = key;
        new_places[to] = places ? places[i] : uint32(i);
    }
}
