// Rows added up by their number, in an order that depends on the numbers alone: the sorted numbers (see sort.cu) are cut into chunks of
// equal length; each chunk's sums are made by one walk, and a sum that goes on in the next chunks is put together in a second step.

typedef Wide<ELEMENT>::type wide_t;

// COUNT neighbouring columns of a row
template <int COUNT>
struct Columns {
    wide_t at[COUNT];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int k = 0; k < COUNT; ++k) at[k] = 0;
    }
    __device__ __forceinline__ void add(const ELEMENT* from) {
        if (COUNT == 1) {
            at[0] += wide(*from);
        } else {
            Pack<ELEMENT> pack = load_pack(from);
#pragma unroll
            for (int k = 0; k < COUNT; ++k) at[k] += wide(pack.at[k]);
        }
    }
    __device__ __forceinline__ void add_wide(const wide_t* from) {
#pragma unroll
        for (int k = 0; k < COUNT; ++k) at[k] += from[k];
    }
    __device__ __forceinline__ void store_wide(wide_t* to) const {
#pragma unroll
        for (int k = 0; k < COUNT; ++k) to[k] = at[k];
    }
    __device__ __forceinline__ void store(ELEMENT* to) const {
#pragma unroll
        for (int k = 0; k < COUNT; ++k) to[k] = narrow<ELEMENT>(at[k]);
    }
};

// What a chunk's first sum, if it began before, and its last, if it goes on, come to: rows of `heads` and `tails`.
template <int COUNT>
__device__ __forceinline__ void sum_chunk(const ELEMENT* g, const uint32* keys, const uint32* places, ELEMENT* out, wide_t* heads,
        wide_t* tails, int64 m, int64 width, int64 rows, int64 length, int64 chunk, int64 column) {
    int64 start = chunk * length, end = start + length < m ? start + length : m;
    uint32 key = keys[start];
    bool began_before = start > 0 && keys[start - 1] == key;
    Columns<COUNT> sum;
    sum.clear();
    for (int64 e = start; e < end; ++e) {
        uint32 next = keys[e];
        if (next != key) {
            if (began_before)
                sum.store_wide(heads + chunk * width + column);
            else if (key < rows)
                sum.store(out + int64(key) * width + column);
            sum.clear();
            key = next;
            began_before = false;
        }
        sum.add(g + int64(places[e]) * width + column);
    }
    bool goes_on = end < m && keys[end] == key;
    if (began_before)
        sum.store_wide(heads + chunk * width + column);
    else if (goes_on)
        sum.store_wide(tails + chunk * width + column);
    else if (key < rows)
        sum.store(out + int64(key) * width + column);
}

// Blocks of (32, 8): 32 threads for neighbouring columns, 8 chunks.
extern "C" __global__ void sum_chunks(const ELEMENT* g, const uint32* keys, const uint32* places, ELEMENT* out, wide_t* heads,
        wide_t* tails, int64 m, int64 width, int64 rows, int64 length, int64 chunks) {
    const int SIZE = Pack<ELEMENT>::SIZE;
    int64 chunk = int64(blockIdx.x) * blockDim.y + threadIdx.y;
    if (chunk >= chunks) return;
    if (width % SIZE == 0 && aligned(g, out)) {
        for (int64 column = (int64(blockIdx.y) * 32 + threadIdx.x) * SIZE; column < width; column += int64(gridDim.y) * 32 * SIZE)
            sum_chunk<SIZE>(g, keys, places, out, heads, tails, m, width, rows, length, chunk, column);
    } else {
        for (int64 column = int64(blockIdx.y) * 32 + threadIdx.x; column < width; column += int64(gridDim.y) * 32)
            sum_chunk<1>(g, keys, places, out, heads, tails, m, width, rows, length, chunk, column);
    }
}

// For each chunk whose last sum begins there and goes on: that sum.
extern "C" __global__ void join_chunks(const uint32* keys, ELEMENT* out, const wide_t* heads, const wide_t* tails, int64 m, int64 width,
        int64 rows, int64 length, int64 chunks) {
    int64 chunk = int64(blockIdx.x) * blockDim.y + threadIdx.y;
    if (chunk >= chunks - 1) return;
    int64 start = chunk * length, end = start + length;
    uint32 key = keys[end - 1];
    bool begins_here = start == 0 || keys[start - 1] != key;
    if (!begins_here || keys[end] != key || key >= rows) return;
    for (int64 column = int64(blockIdx.y) * 32 + threadIdx.x; column < width; column += int64(gridDim.y) * 32) {
        wide_t sum = tails[chunk * width + column];
        for (int64 next = chunk + 1; next < chunks; ++next) {
            sum += heads[next * width + column];
            int64 next_end = (next + 1) * length;
            if (next_end >= m || keys[next_end] != key) break;
        }
        out[int64(key) * width + column] = narrow<ELEMENT>(sum);
    }
}
