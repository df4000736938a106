// Many arrays in one launch: gradients unscaled and looked through for infinities, their norm, and the scale's next value.
//
// The arrays' addresses and sizes are an argument by value, so nothing has to be copied to the device first, and a captured graph
// keeps them. A block has one part of one array.

#define ARRAYS 180   // of one launch: 20 bytes each in the 4 KB that arguments may have
#define PART 16384   // elements of a block

struct Table {
    ELEMENT* data[ARRAYS];
    int64 sizes[ARRAYS];
    int32 first_blocks[ARRAYS + 1];  // which block begins an array; from the last array on, the number of blocks
    int32 unused;
};

struct Part {
    ELEMENT* data;
    int64 size;
};

__device__ __forceinline__ Part my_part(const Table& table) {
    int low = 0, high = ARRAYS;  // first_blocks[low] <= block < first_blocks[high]
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (table.first_blocks[middle] <= int(blockIdx.x))
            low = middle;
        else
            high = middle;
    }
    int64 start = int64(int(blockIdx.x) - table.first_blocks[low]) * PART, left = table.sizes[low] - start;
    return {table.data[low] + start, left < PART ? left : PART};
}

// f(element) for all of a part; it may change the element where `writes`
template <bool writes, typename F>
__device__ __forceinline__ void each(const Part& part, F f) {
    const int SIZE = Pack<ELEMENT>::SIZE;
    int64 done = 0;
    if (aligned(part.data)) {
        int64 packs = part.size / SIZE;
        done = packs * SIZE;
        for (int64 p = threadIdx.x; p < packs; p += blockDim.x) {
            Pack<ELEMENT> a = load_pack(part.data + p * SIZE);
#pragma unroll
            for (int k = 0; k < SIZE; ++k) f(a.at[k]);
            if (writes) store_pack(part.data + p * SIZE, a);
        }
    }
    for (int64 i = done + threadIdx.x; i < part.size; i += blockDim.x) {
        ELEMENT a = part.data[i];
        f(a);
        if (writes) part.data[i] = a;
    }
}

typedef Wide<ELEMENT>::type wide_t;

extern "C" __global__ void unscale(Table table, const float* inverse_scale, float* found_inf) {
    Part part = my_part(table);
    wide_t factor = wide_t(*inverse_scale);
    bool finite = true;
    each<true>(part, [&](ELEMENT& a) {
        wide_t v = wide(a);
        finite = finite && v - v == wide_t(0);  // of infinities and NaN that is NaN
        a = narrow<ELEMENT>(v * factor);
    });
    if (!finite) *found_inf = 1.0f;  // whoever writes, writes the same
}

// One step of GradScaler's scale
extern "C" __global__ void update_scale(float* scale, int* growth_tracker, const float* found_inf, double growth, double backoff,
        int64 interval) {
    if (*found_inf != 0) {
        *scale = float(double(*scale) * backoff);
        *growth_tracker = 0;
        return;
    }
    int count = *growth_tracker + 1;
    if (int64(count) == interval) {
        float larger_scale = float(double(*scale) * growth);
        if (larger_scale - larger_scale == 0.0f) *scale = larger_scale;
        count = 0;
    }
    *growth_tracker = count;
}

// --- norms: the part that each block adds, and all parts together ------------------------------------------------------

// Sizes added up, as squares or powers; or the greatest of them, where NaN is the greatest.
struct Sizes {
    template <typename W>
    static __device__ __forceinline__ W of(W size, double) {
        return size;
    }
    static __device__ double root(double sum, double) { return sum; }
};
struct Squares {
    template <typename W>
    static __device__ __forceinline__ W of(W size, double) {
        return size * size;
    }
    static __device__ double root(double sum, double) { return sqrt(sum); }
};
struct Powers {
    template <typename W>
    static __device__ __forceinline__ W of(W size, double power) {
        return W(pow(double(size), power));
    }
    static __device__ double root(double sum, double power) { return pow(sum, 1.0 / power); }
};

template <typename W>
__device__ __forceinline__ W greater(W a, W b) {
    return b > a || b != b ? b : a;
}

template <typename Kind>
__device__ __forceinline__ void add_part(const Table& table, double* parts, int64 first, double power) {
    wide_t mine = 0;
    each<false>(my_part(table), [&](ELEMENT& a) { mine += Kind::of(size_of(wide(a)), power); });
    mine = block_sum(mine);
    if (threadIdx.x == 0) parts[first + blockIdx.x] = double(mine);
}

extern "C" __global__ void sizes_of_parts(Table table, double* parts, int64 first, double power) {
    add_part<Sizes>(table, parts, first, power);
}
extern "C" __global__ void squares_of_parts(Table table, double* parts, int64 first, double power) {
    add_part<Squares>(table, parts, first, power);
}
extern "C" __global__ void powers_of_parts(Table table, double* parts, int64 first, double power) {
    add_part<Powers>(table, parts, first, power);
}

extern "C" __global__ void greatest_of_parts(Table table, double* parts, int64 first, double) {
    __shared__ wide_t of_warps[32];
    wide_t mine = 0;
    each<false>(my_part(table), [&](ELEMENT& a) { mine = greater(mine, size_of(wide(a))); });
    for (int other = 16; other; other >>= 1) mine = greater(mine, __shfl_xor_sync(ALL_LANES, mine, other));
    if ((threadIdx.x & 31) == 0) of_warps[threadIdx.x >> 5] = mine;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int i = 1; i < int(blockDim.x >> 5); ++i) mine = greater(mine, of_warps[i]);
    parts[first + blockIdx.x] = double(mine);
}

// Into a double or a float; one block of 256 threads
__device__ __forceinline__ void store(double result, double* out, float* out_float) {
    if (out_float)
        *out_float = float(result);
    else
        *out = result;
}

template <typename Kind>
__device__ __forceinline__ void add_up(const double* parts, double* out, float* out_float, int64 count, double power, int64 root) {
    double mine = 0;
    for (int64 i = threadIdx.x; i < count; i += blockDim.x) mine += parts[i];
    mine = block_sum(mine);
    if (threadIdx.x == 0) store(root ? Kind::root(mine, power) : mine, out, out_float);
}

extern "C" __global__ void norm_of_sizes(const double* parts, double* out, float* out_float, int64 count, double power, int64 root) {
    add_up<Sizes>(parts, out, out_float, count, power, root);
}
extern "C" __global__ void norm_of_squares(const double* parts, double* out, float* out_float, int64 count, double power, int64 root) {
    add_up<Squares>(parts, out, out_float, count, power, root);
}
extern "C" __global__ void norm_of_powers(const double* parts, double* out, float* out_float, int64 count, double power, int64 root) {
    add_up<Powers>(parts, out, out_float, count, power, root);
}

extern "C" __global__ void norm_of_greatest(const double* parts, double* out, float* out_float, int64 count, double, int64) {
    __shared__ double of_threads[256];
    double mine = 0;
    for (int64 i = threadIdx.x; i < count; i += 256) mine = greater(mine, parts[i]);
    of_threads[threadIdx.x] = mine;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int i = 1; i < 256; ++i) mine = greater(mine, of_threads[i]);
    store(mine, out, out_float);
}
