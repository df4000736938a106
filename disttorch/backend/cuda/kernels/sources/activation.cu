// GELU in both forms and SiLU, with or without a bias of the last dimension before them, and their gradients.

typedef Wide<ELEMENT>::type wide_t;

#define ROOT_HALF 0.70710678118654752440       // sqrt(1 / 2)
#define DENSITY_AT_0 0.39894228040143267794    // 1 / sqrt(2 pi)
#define SLOPE 0.79788456080286535588           // sqrt(2 / pi), of the form with the hyperbolic tangent
#define CUBIC 0.044715

__device__ __forceinline__ wide_t sigmoid(wide_t x) { return wide_t(1) / (wide_t(1) + exp_of(-x)); }

struct Gelu {
    static __device__ __forceinline__ wide_t value(wide_t x) { return x * wide_t(0.5) * (wide_t(1) + erf_of(x * wide_t(ROOT_HALF))); }
    static __device__ __forceinline__ wide_t slope(wide_t x) {
        return wide_t(0.5) * (wide_t(1) + erf_of(x * wide_t(ROOT_HALF))) + x * exp_of(x * x * wide_t(-0.5)) * wide_t(DENSITY_AT_0);
    }
};

struct GeluTanh {
    static __device__ __forceinline__ wide_t value(wide_t x) {
        return x * wide_t(0.5) * (wide_t(1) + tanh_of(x * (wide_t(SLOPE) + wide_t(SLOPE * CUBIC) * x * x)));
    }
    // with s for (1 + tanh u) / 2, a sigmoid: 1 - tanh(u)^2 is 4 s (1 - s), in which nothing cancels
    static __device__ __forceinline__ wide_t slope(wide_t x) {
        wide_t square = x * x, twice_u = x * (wide_t(2 * SLOPE) + wide_t(2 * SLOPE * CUBIC) * square);
        wide_t e = exp_of(-size_of(twice_u)), larger_part = wide_t(1) / (wide_t(1) + e), smaller_part = e * larger_part;
        wide_t s = twice_u < 0 ? smaller_part : larger_part;
        return s + x * larger_part * smaller_part * (wide_t(2 * SLOPE) + wide_t(6 * SLOPE * CUBIC) * square);
    }
};

struct Silu {
    static __device__ __forceinline__ wide_t value(wide_t x) { return x * sigmoid(x); }
    static __device__ __forceinline__ wide_t slope(wide_t x) {
        wide_t s = sigmoid(x);
        return s * (wide_t(1) + x * (wide_t(1) - s));
    }
};

typedef KIND kind;  // one of the above

extern "C" __global__ void forward(const ELEMENT* x, ELEMENT* out, int64 n) {
    map(x, out, n, [](wide_t v) { return kind::value(v); });
}

extern "C" __global__ void backward(const ELEMENT* g, const ELEMENT* x, ELEMENT* out, int64 n) {
    map(g, x, out, n, [](wide_t from_above, wide_t v) { return from_above * kind::slope(v); });
}

// rows of x with a bias added before the function; a thread has one pack of columns for all its rows, so its bias is read once
extern "C" __global__ void biased_forward(const ELEMENT* x, const ELEMENT* bias, ELEMENT* out, int64 rows, int64 n) {
    const int SIZE = Pack<ELEMENT>::SIZE;
    if (n % SIZE == 0 && aligned(x, bias, out)) {
        int64 column = (int64(blockIdx.x) * blockDim.x + threadIdx.x) * SIZE;
        if (column >= n) return;
        Pack<ELEMENT> b = load_pack(bias + column);
        for (int64 row = blockIdx.y; row < rows; row += gridDim.y) {
            Pack<ELEMENT> a = load_pack(x + row * n + column);
#pragma unroll
            for (int k = 0; k < SIZE; ++k) a.at[k] = narrow<ELEMENT>(kind::value(wide(a.at[k]) + wide(b.at[k])));
            store_pack(out + row * n + column, a);
        }
    } else {
        for (int64 row = blockIdx.y; row < rows; row += gridDim.y)
            for (int64 i = int64(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += int64(gridDim.x) * blockDim.x)
                out[row * n + i] = narrow<ELEMENT>(kind::value(wide(x[row * n + i]) + wide(bias[i])));
    }
}

// The gradient at x, and its sums over the rows of each of gridDim.y parts; block (c, p) has 32 columns.
extern "C" __global__ void biased_backward(const ELEMENT* g, const ELEMENT* x, const ELEMENT* bias, ELEMENT* gx, wide_t* sums,
        int64 rows, int64 n) {
    __shared__ wide_t parts[8][33];
    int64 column = int64(blockIdx.x) * 32 + threadIdx.x;
    wide_t total = 0;
    if (column < n) {
        wide_t b = wide(bias[column]);
        for (int64 row = int64(blockIdx.y) * 8 + threadIdx.y; row < rows; row += int64(gridDim.y) * 8) {
            wide_t v = wide(g[row * n + column]) * kind::slope(wide(x[row * n + column]) + b);
            gx[row * n + column] = narrow<ELEMENT>(v);
            total += v;
        }
    }
    parts[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y != 0 || column >= n) return;
    for (int i = 1; i < 8; ++i) total += parts[i][threadIdx.x];
    sums[blockIdx.y * n + column] = total;
}

extern "C" __global__ void add_up(const wide_t* sums, ELEMENT* out, int64 parts, int64 n) {
    int64 column = global_thread();
    if (column >= n) return;
    wide_t total = 0;
    for (int64 part = 0; part < parts; ++part) total += sums[part * n + column];
    out[column] = narrow<ELEMENT>(total);
}
