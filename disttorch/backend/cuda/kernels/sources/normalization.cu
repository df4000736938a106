// Layer and RMS normalization of rows, and their gradients.
//
// A row is read from memory once and then again from the cache: for the mean, for the variance about the mean, for the result. The
// gradients of weight and bias are sums over rows, made in two steps of fixed order: each block goes over its rows and adds up in
// shared memory, where every thread has columns of its own; then the blocks' sums are added up. So the same input gives the same
// bits, and gradient and input are read once for all.

typedef Wide<ELEMENT>::type wide_t;

static const int SIZE = Pack<ELEMENT>::SIZE;

// f(place of the first of SIZE elements) for a row in packs, which threads take in turn
template <typename F>
__device__ __forceinline__ void packs(int64 n, int first, int step, F f) {
    for (int64 i = int64(first) * SIZE; i < n; i += int64(step) * SIZE) f(i);
}

__device__ __forceinline__ wide_t sum_of_row(wide_t x) { return blockDim.y > 1 ? warp_sum(x) : block_sum(x); }

// f(x) for the elements of a row
template <typename F>
__device__ __forceinline__ void visit(const ELEMENT* x, int64 n, bool by_packs, F f) {
    if (by_packs) {
        packs(n, threadIdx.x, blockDim.x, [&](int64 i) {
            Pack<ELEMENT> a = load_pack(x + i);
#pragma unroll
            for (int k = 0; k < SIZE; ++k) f(wide(a.at[k]));
        });
    } else {
        for (int64 i = threadIdx.x; i < n; i += blockDim.x) f(wide(x[i]));
    }
}

// out[i] = f(x[i], i)
template <typename F>
__device__ __forceinline__ void fill(const ELEMENT* x, ELEMENT* out, int64 n, bool by_packs, F f) {
    if (by_packs) {
        packs(n, threadIdx.x, blockDim.x, [&](int64 i) {
            Pack<ELEMENT> a = load_pack(x + i);
#pragma unroll
            for (int k = 0; k < SIZE; ++k) a.at[k] = narrow<ELEMENT>(f(wide(a.at[k]), i + k));
            store_pack(out + i, a);
        });
    } else {
        for (int64 i = threadIdx.x; i < n; i += blockDim.x) out[i] = narrow<ELEMENT>(f(wide(x[i]), i));
    }
}

extern "C" __global__ void __launch_bounds__(1024) layer_norm(const ELEMENT* x, const WEIGHT* weight, const WEIGHT* bias, ELEMENT* out,
        wide_t* means, wide_t* rstds, int64 rows, int64 n, double eps) {
    int64 row = int64(blockIdx.x) * blockDim.y + threadIdx.y;
    if (row >= rows) return;  // a whole warp
    x += row * n, out += row * n;
    bool by_packs = n % SIZE == 0 && aligned(x, out);
    wide_t mine = 0;
    visit(x, n, by_packs, [&](wide_t v) { mine += v; });
    wide_t mean = sum_of_row(mine) / wide_t(n);
    mine = 0;
    visit(x, n, by_packs, [&](wide_t v) { mine += (v - mean) * (v - mean); });
    wide_t rstd = wide_t(1) / sqrt_of(sum_of_row(mine) / wide_t(n) + wide_t(eps));
    fill(x, out, n, by_packs, [=](wide_t v, int64 i) {
        wide_t h = (v - mean) * rstd;
        if (weight) h *= wide(weight[i]);
        return bias ? h + wide(bias[i]) : h;
    });
    if (threadIdx.x == 0) means[row] = mean, rstds[row] = rstd;
}

extern "C" __global__ void __launch_bounds__(1024) rms_norm(const ELEMENT* x, const WEIGHT* weight, ELEMENT* out, wide_t* rstds,
        int64 rows, int64 n, double eps) {
    int64 row = int64(blockIdx.x) * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    x += row * n, out += row * n;
    bool by_packs = n % SIZE == 0 && aligned(x, out);
    wide_t mine = 0;
    visit(x, n, by_packs, [&](wide_t v) { mine += v * v; });
    wide_t rstd = wide_t(1) / sqrt_of(sum_of_row(mine) / wide_t(n) + wide_t(eps));
    fill(x, out, n, by_packs, [=](wide_t v, int64 i) { return weight ? v * rstd * wide(weight[i]) : v * rstd; });
    if (threadIdx.x == 0) rstds[row] = rstd;
}

// Where column i of a row lies in a row of sums: the columns of a pack are apart, so that neighbouring threads, which have
// neighbouring packs, touch neighbouring words.
__device__ __forceinline__ int64 place(int64 i, int64 n, bool by_packs) { return by_packs ? i % SIZE * (n / SIZE) + i / SIZE : i; }

// One block for several rows: gx, and the block's sums of g * h and of g by columns, in rows blockIdx.x of the two arrays of sums
// (null where they are not asked for). With `means` null it is RMS normalization.
extern "C" __global__ void __launch_bounds__(512) norm_backward(const ELEMENT* g, const ELEMENT* x, const WEIGHT* weight,
        const wide_t* means, const wide_t* rstds, ELEMENT* gx, wide_t* sums_gh, wide_t* sums_g, int64 rows, int64 n) {
    extern __shared__ wide_t sums[];  // 2 n, or n for RMS normalization
    bool by_packs = n % SIZE == 0 && aligned(x, g, gx);
    int of_block = means ? 2 : 1;
    if (sums_gh)
        for (int64 i = threadIdx.x; i < of_block * n; i += blockDim.x) sums[i] = 0;
    __syncthreads();  // the columns that a thread sets to 0 are not those it adds to
    for (int64 row = blockIdx.x; row < rows; row += gridDim.x) {
        const ELEMENT *row_g = g + row * n, *row_x = x + row * n;
        ELEMENT* row_gx = gx + row * n;
        wide_t mean = means ? means[row] : wide_t(0), rstd = rstds[row];
        wide_t sum_v = 0, sum_vh = 0;
        auto look = [&](wide_t from_above, wide_t value, int64 i) {
            wide_t h = (value - mean) * rstd, v = weight ? from_above * wide(weight[i]) : from_above;
            sum_v += v;
            sum_vh += v * h;
            if (sums_gh) {
                int64 at = place(i, n, by_packs);
                sums[at] += from_above * h;
                if (means) sums[n + at] += from_above;
            }
        };
        if (by_packs) {
            packs(n, threadIdx.x, blockDim.x, [&](int64 i) {
                Pack<ELEMENT> a = load_pack(row_g + i), b = load_pack(row_x + i);
#pragma unroll
                for (int k = 0; k < SIZE; ++k) look(wide(a.at[k]), wide(b.at[k]), i + k);
            });
        } else {
            for (int64 i = threadIdx.x; i < n; i += blockDim.x) look(wide(row_g[i]), wide(row_x[i]), i);
        }
        wide_t mean_v = means ? block_sum(sum_v) / wide_t(n) : wide_t(0), mean_vh = block_sum(sum_vh) / wide_t(n);
        auto result = [&](wide_t from_above, wide_t value, int64 i) {
            wide_t v = weight ? from_above * wide(weight[i]) : from_above;
            return (v - mean_v - (value - mean) * rstd * mean_vh) * rstd;
        };
        if (by_packs) {
            packs(n, threadIdx.x, blockDim.x, [&](int64 i) {
                Pack<ELEMENT> a = load_pack(row_g + i), b = load_pack(row_x + i);
#pragma unroll
                for (int k = 0; k < SIZE; ++k) a.at[k] = narrow<ELEMENT>(result(wide(a.at[k]), wide(b.at[k]), i + k));
                store_pack(row_gx + i, a);
            });
        } else {
            for (int64 i = threadIdx.x; i < n; i += blockDim.x) row_gx[i] = narrow<ELEMENT>(result(wide(row_g[i]), wide(row_x[i]), i));
        }
    }
    if (sums_gh == nullptr) return;
    __syncthreads();
    for (int64 i = threadIdx.x; i < n; i += blockDim.x) {
        int64 at = place(i, n, by_packs);
        sums_gh[blockIdx.x * n + i] = sums[at];
        if (means) sums_g[blockIdx.x * n + i] = sums[n + at];
    }
}

// The first step for rows too long for shared memory: block (c, p) adds up 32 columns over the p-th part of the rows.
extern "C" __global__ void norm_column_sums(const ELEMENT* g, const ELEMENT* x, const wide_t* means, const wide_t* rstds,
        wide_t* sums_gh, wide_t* sums_g, int64 rows, int64 n) {
    __shared__ wide_t parts_gh[8][33];
    __shared__ wide_t parts_g[8][33];
    int64 column = int64(blockIdx.x) * 32 + threadIdx.x;
    wide_t gh = 0, all = 0;
    if (column < n)
        for (int64 row = int64(blockIdx.y) * 8 + threadIdx.y; row < rows; row += int64(gridDim.y) * 8) {
            wide_t from_above = wide(g[row * n + column]);
            gh += from_above * (wide(x[row * n + column]) - (means ? means[row] : wide_t(0))) * rstds[row];
            all += from_above;
        }
    parts_gh[threadIdx.y][threadIdx.x] = gh;
    parts_g[threadIdx.y][threadIdx.x] = all;
    __syncthreads();
    if (threadIdx.y != 0 || column >= n) return;
    for (int i = 1; i < 8; ++i) gh += parts_gh[i][threadIdx.x], all += parts_g[i][threadIdx.x];
    sums_gh[blockIdx.y * n + column] = gh;
    if (means) sums_g[blockIdx.y * n + column] = all;
}

// The second step: the sums of all blocks' rows.
extern "C" __global__ void norm_add_up(const wide_t* sums_gh, const wide_t* sums_g, WEIGHT* gw, WEIGHT* gb, int64 parts, int64 n) {
    __shared__ wide_t parts_gh[8][33];
    __shared__ wide_t parts_g[8][33];
    int64 column = int64(blockIdx.x) * 32 + threadIdx.x;
    wide_t gh = 0, all = 0;
    if (column < n)
        for (int64 part = threadIdx.y; part < parts; part += 8) {
            gh += sums_gh[part * n + column];
            if (sums_g) all += sums_g[part * n + column];
        }
    parts_gh[threadIdx.y][threadIdx.x] = gh;
    parts_g[threadIdx.y][threadIdx.x] = all;
    __syncthreads();
    if (threadIdx.y != 0 || column >= n) return;
    for (int i = 1; i < 8; ++i) gh += parts_gh[i][threadIdx.x], all += parts_g[i][threadIdx.x];
    gw[column] = narrow<WEIGHT>(typename Wide<WEIGHT>::type(gh));
    if (gb) gb[column] = narrow<WEIGHT>(typename Wide<WEIGHT>::type(all));
}
