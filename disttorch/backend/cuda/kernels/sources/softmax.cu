// Softmax, its logarithm, and their gradients; and cross entropy with class indices, of which two numbers a row are kept.
//
// Rows that lie in memory as such are read twice: once for the greatest value and the sum at the same time (Milakov and Gimelshein,
// "Online normalizer calculation for softmax", 2018), once for the result, when they are in the cache. A row is a warp's work, or a
// block's (the launch decides by blockDim.y: rows a block). Along another axis neighbouring threads take neighbouring columns.

typedef Wide<ELEMENT>::type wide_t;

// The greatest value so far, and the sum of exp(x - greatest), or of exp(x) while there is nothing but -inf and NaN.
struct Online {
    wide_t greatest, sum;

    // the new greatest value; returns what is subtracted from now on
    __device__ __forceinline__ wide_t raise(wide_t x) {
        wide_t before = greatest;
        greatest = larger(greatest, x);
        wide_t base = greatest == minus_infinity<wide_t>() ? wide_t(0) : greatest;
        sum *= exp_of(before - base);  // nothing has been added where before is -inf, but for NaN
        return base;
    }

    __device__ __forceinline__ void add(wide_t x) {
        wide_t base = raise(x);
        sum += exp_of(x - base);
    }

    __device__ __forceinline__ void add(const Pack<ELEMENT>& pack) {
        wide_t m = wide(pack.at[0]);
#pragma unroll
        for (int k = 1; k < Pack<ELEMENT>::SIZE; ++k) m = larger(m, wide(pack.at[k]));
        wide_t base = raise(m);
#pragma unroll
        for (int k = 0; k < Pack<ELEMENT>::SIZE; ++k) sum += exp_of(wide(pack.at[k]) - base);
    }

    __device__ __forceinline__ void join(wide_t other_greatest, wide_t other_sum) {
        wide_t base = raise(other_greatest);
        sum += other_sum * exp_of(other_greatest - base);
    }
};

// One row for each threadIdx.y, of the threads with the same threadIdx.y: a warp of several, or the whole block.
struct Row {
    int64 number;
    int first, step;
};

__device__ __forceinline__ Row my_row() {
    return {int64(blockIdx.x) * blockDim.y + threadIdx.y, int(threadIdx.x), int(blockDim.x)};
}

__device__ __forceinline__ wide_t sum_of_row(wide_t x) { return blockDim.y > 1 ? warp_sum(x) : block_sum(x); }

// f for each element of a row; by packs where they are aligned
template <typename F>
__device__ __forceinline__ void visit(const ELEMENT* x, int64 n, const Row& row, F f) {
    const int SIZE = Pack<ELEMENT>::SIZE;
    if (aligned(x) && n % SIZE == 0) {
        for (int64 i = int64(row.first) * SIZE; i < n; i += int64(row.step) * SIZE) {
            Pack<ELEMENT> a = load_pack(x + i);
#pragma unroll
            for (int k = 0; k < SIZE; ++k) f(wide(a.at[k]), i + k);
        }
    } else {
        for (int64 i = row.first; i < n; i += row.step) f(wide(x[i]), i);
    }
}

template <typename F>
__device__ __forceinline__ void visit(const ELEMENT* x, const ELEMENT* y, int64 n, const Row& row, F f) {
    const int SIZE = Pack<ELEMENT>::SIZE;
    if (aligned(x, y) && n % SIZE == 0) {
        for (int64 i = int64(row.first) * SIZE; i < n; i += int64(row.step) * SIZE) {
            Pack<ELEMENT> a = load_pack(x + i), b = load_pack(y + i);
#pragma unroll
            for (int k = 0; k < SIZE; ++k) f(wide(a.at[k]), wide(b.at[k]));
        }
    } else {
        for (int64 i = row.first; i < n; i += row.step) f(wide(x[i]), wide(y[i]));
    }
}

// out[i] = f(x[i], i) for a row
template <typename F>
__device__ __forceinline__ void fill(const ELEMENT* x, ELEMENT* out, int64 n, const Row& row, F f) {
    const int SIZE = Pack<ELEMENT>::SIZE;
    if (aligned(x, out) && n % SIZE == 0) {
        for (int64 i = int64(row.first) * SIZE; i < n; i += int64(row.step) * SIZE) {
            Pack<ELEMENT> a = load_pack(x + i);
#pragma unroll
            for (int k = 0; k < SIZE; ++k) a.at[k] = narrow<ELEMENT>(f(wide(a.at[k]), i + k));
            store_pack(out + i, a);
        }
    } else {
        for (int64 i = row.first; i < n; i += row.step) out[i] = narrow<ELEMENT>(f(wide(x[i]), i));
    }
}

template <typename F>
__device__ __forceinline__ void fill(const ELEMENT* x, const ELEMENT* y, ELEMENT* out, int64 n, const Row& row, F f) {
    const int SIZE = Pack<ELEMENT>::SIZE;
    if (aligned(x, y, out) && n % SIZE == 0) {
        for (int64 i = int64(row.first) * SIZE; i < n; i += int64(row.step) * SIZE) {
            Pack<ELEMENT> a = load_pack(x + i), b = load_pack(y + i);
#pragma unroll
            for (int k = 0; k < SIZE; ++k) a.at[k] = narrow<ELEMENT>(f(wide(a.at[k]), wide(b.at[k])));
            store_pack(out + i, a);
        }
    } else {
        for (int64 i = row.first; i < n; i += row.step) out[i] = narrow<ELEMENT>(f(wide(x[i]), wide(y[i])));
    }
}

// the greatest value and the sum of a row, the same in all its threads
__device__ __forceinline__ Online statistics(const ELEMENT* x, int64 n, const Row& row) {
    Online mine = {minus_infinity<wide_t>(), wide_t(0)};
    const int SIZE = Pack<ELEMENT>::SIZE;
    if (aligned(x) && n % SIZE == 0) {
        for (int64 i = int64(row.first) * SIZE; i < n; i += int64(row.step) * SIZE) mine.add(load_pack(x + i));
    } else {
        for (int64 i = row.first; i < n; i += row.step) mine.add(wide(x[i]));
    }
#pragma unroll
    for (int other = 16; other; other >>= 1) {
        wide_t m = __shfl_xor_sync(ALL_LANES, mine.greatest, other);
        wide_t s = __shfl_xor_sync(ALL_LANES, mine.sum, other);
        mine.join(m, s);
    }
    if (blockDim.y > 1 || blockDim.x == 32) return mine;
    __shared__ wide_t greatest[32];
    __shared__ wide_t sums[32];
    int lane = threadIdx.x & 31;
    if (lane == 0) {
        greatest[threadIdx.x >> 5] = mine.greatest;
        sums[threadIdx.x >> 5] = mine.sum;
    }
    __syncthreads();
    Online all = {greatest[0], sums[0]};
    for (int w = 1; w < int(blockDim.x >> 5); ++w) all.join(greatest[w], sums[w]);
    return all;
}

extern "C" __global__ void __launch_bounds__(1024) softmax_rows(const ELEMENT* x, ELEMENT* out, int64 rows, int64 n) {
    Row row = my_row();
    if (row.number >= rows) return;  // a whole warp
    x += row.number * n, out += row.number * n;
    Online s = statistics(x, n, row);
    wide_t scale = wide_t(1) / s.sum;
    fill(x, out, n, row, [=](wide_t v, int64) { return exp_of(v - s.greatest) * scale; });
}

extern "C" __global__ void __launch_bounds__(1024) log_softmax_rows(const ELEMENT* x, ELEMENT* out, int64 rows, int64 n) {
    Row row = my_row();
    if (row.number >= rows) return;
    x += row.number * n, out += row.number * n;
    Online s = statistics(x, n, row);
    wide_t log_sum = log_of(s.sum);
    fill(x, out, n, row, [=](wide_t v, int64) { return v - s.greatest - log_sum; });
}

extern "C" __global__ void __launch_bounds__(1024) softmax_rows_backward(const ELEMENT* g, const ELEMENT* y, ELEMENT* out, int64 rows,
        int64 n) {
    Row row = my_row();
    if (row.number >= rows) return;
    g += row.number * n, y += row.number * n, out += row.number * n;
    wide_t mine = 0;
    visit(g, y, n, row, [&](wide_t a, wide_t b) { mine += a * b; });
    wide_t dot = sum_of_row(mine);
    fill(g, y, out, n, row, [=](wide_t a, wide_t b) { return b * (a - dot); });
}

extern "C" __global__ void __launch_bounds__(1024) log_softmax_rows_backward(const ELEMENT* g, const ELEMENT* y, ELEMENT* out,
        int64 rows, int64 n) {
    Row row = my_row();
    if (row.number >= rows) return;
    g += row.number * n, y += row.number * n, out += row.number * n;
    wide_t mine = 0;
    visit(g, n, row, [&](wide_t a, int64) { mine += a; });
    wide_t total = sum_of_row(mine);
    fill(g, y, out, n, row, [=](wide_t a, wide_t b) { return a - exp_of(b) * total; });
}

// --- along another axis: arrays (outer, n, inner); a block takes 32 neighbouring columns, and its rows share their length -------

struct Column {
    int64 start;  // of the column's first element
    bool exists;
};

__device__ __forceinline__ Column my_column(int64 n, int64 inner) {
    int64 blocks = (inner + 31) / 32, outer = blockIdx.x / blocks, column = (blockIdx.x - outer * blocks) * 32 + threadIdx.x;
    return {outer * n * inner + column, column < inner};
}

__device__ __forceinline__ wide_t sum_of_column(wide_t mine) {
    __shared__ wide_t parts[8][33];
    parts[threadIdx.y][threadIdx.x] = mine;
    __syncthreads();
    wide_t total = 0;
    for (int i = 0; i < 8; ++i) total += parts[i][threadIdx.x];
    return total;
}

__device__ __forceinline__ Online statistics_of_column(const ELEMENT* x, int64 n, int64 inner, const Column& column) {
    Online mine = {minus_infinity<wide_t>(), wide_t(0)};
    if (column.exists)
        for (int64 i = threadIdx.y; i < n; i += 8) mine.add(wide(x[column.start + i * inner]));
    __shared__ wide_t greatest[8][33];
    __shared__ wide_t sums[8][33];
    greatest[threadIdx.y][threadIdx.x] = mine.greatest;
    sums[threadIdx.y][threadIdx.x] = mine.sum;
    __syncthreads();
    Online all = {greatest[0][threadIdx.x], sums[0][threadIdx.x]};
    for (int i = 1; i < 8; ++i) all.join(greatest[i][threadIdx.x], sums[i][threadIdx.x]);
    return all;
}

extern "C" __global__ void softmax_columns(const ELEMENT* x, ELEMENT* out, int64 n, int64 inner) {
    Column column = my_column(n, inner);
    Online s = statistics_of_column(x, n, inner, column);
    wide_t scale = wide_t(1) / s.sum;
    if (!column.exists) return;
    for (int64 i = threadIdx.y; i < n; i += 8) {
        int64 at = column.start + i * inner;
        out[at] = narrow<ELEMENT>(exp_of(wide(x[at]) - s.greatest) * scale);
    }
}

extern "C" __global__ void log_softmax_columns(const ELEMENT* x, ELEMENT* out, int64 n, int64 inner) {
    Column column = my_column(n, inner);
    Online s = statistics_of_column(x, n, inner, column);
    wide_t log_sum = log_of(s.sum);
    if (!column.exists) return;
    for (int64 i = threadIdx.y; i < n; i += 8) {
        int64 at = column.start + i * inner;
        out[at] = narrow<ELEMENT>(wide(x[at]) - s.greatest - log_sum);
    }
}

extern "C" __global__ void softmax_columns_backward(const ELEMENT* g, const ELEMENT* y, ELEMENT* out, int64 n, int64 inner) {
    Column column = my_column(n, inner);
    wide_t mine = 0;
    if (column.exists)
        for (int64 i = threadIdx.y; i < n; i += 8) mine += wide(g[column.start + i * inner]) * wide(y[column.start + i * inner]);
    wide_t dot = sum_of_column(mine);
    if (!column.exists) return;
    for (int64 i = threadIdx.y; i < n; i += 8) {
        int64 at = column.start + i * inner;
        out[at] = narrow<ELEMENT>(wide(y[at]) * (wide(g[at]) - dot));
    }
}

extern "C" __global__ void log_softmax_columns_backward(const ELEMENT* g, const ELEMENT* y, ELEMENT* out, int64 n, int64 inner) {
    Column column = my_column(n, inner);
    wide_t mine = 0;
    if (column.exists)
        for (int64 i = threadIdx.y; i < n; i += 8) mine += wide(g[column.start + i * inner]);
    wide_t total = sum_of_column(mine);
    if (!column.exists) return;
    for (int64 i = threadIdx.y; i < n; i += 8) {
        int64 at = column.start + i * inner;
        out[at] = narrow<ELEMENT>(wide(g[at]) - exp_of(wide(y[at])) * total);
    }
}

// --- cross entropy ----------------------------------------------------------------------------------------------------
// For each row the loss -(1 - s) w[t] log p[t] - s / n sum(w log p), 0 where t is ignored; and the greatest logit and
// the logarithm of the sum of exponentials, of which the backward pass makes p again.

extern "C" __global__ void __launch_bounds__(1024) cross_entropy_rows(const ELEMENT* x, const int64* target, const ELEMENT* weight,
        ELEMENT* losses, wide_t* kept, int64 rows, int64 n, int64 ignore_index, double smoothing) {
    Row row = my_row();
    if (row.number >= rows) return;
    x += row.number * n;
    Online s = statistics(x, n, row);
    wide_t log_sum = log_of(s.sum);
    wide_t smooth = 0;
    if (smoothing != 0) {
        wide_t mine = 0;
        visit(x, n, row, [&](wide_t v, int64 i) {
            wide_t log_p = v - s.greatest - log_sum;
            mine += weight ? log_p * wide(weight[i]) : log_p;
        });
        smooth = sum_of_row(mine);
    }
    if (row.first != 0) return;
    kept[2 * row.number] = s.greatest;
    kept[2 * row.number + 1] = log_sum;
    int64 t = target[row.number];
    wide_t loss = 0;
    if (t != ignore_index) {
        if (t < 0 || t >= n) {  // no class: nothing is read, and the loss shows it
            loss = not_a_number<wide_t>();
        } else {
            loss = -(wide(x[t]) - s.greatest - log_sum);
            if (weight) loss *= wide(weight[t]);
            if (smoothing != 0) loss = wide_t(1 - smoothing) * loss - wide_t(smoothing / double(n)) * smooth;
        }
    }
    losses[row.number] = narrow<ELEMENT>(loss);
}

extern "C" __global__ void __launch_bounds__(1024) cross_entropy_rows_backward(const ELEMENT* g, const ELEMENT* x, const wide_t* kept,
        const int64* target, const ELEMENT* weight, ELEMENT* out, int64 rows, int64 n, int64 ignore_index, double smoothing) {
    Row row = my_row();
    if (row.number >= rows) return;
    x += row.number * n, out += row.number * n;
    int64 t = target[row.number];
    if (t == ignore_index) {
        fill(x, out, n, row, [](wide_t, int64) { return wide_t(0); });
        return;
    }
    bool is_class = t >= 0 && t < n;
    wide_t greatest = kept[2 * row.number], log_sum = kept[2 * row.number + 1];
    wide_t from_above = is_class ? wide(g[row.number]) : not_a_number<wide_t>();
    wide_t chosen = wide_t(1 - smoothing), share = wide_t(smoothing / double(n));
    if (weight == nullptr) {
        fill(x, out, n, row, [=](wide_t v, int64 i) {
            return from_above * (exp_of(v - greatest - log_sum) - (i == t ? chosen : wide_t(0)) - share);
        });
        return;
    }
    wide_t all = 0;
    if (smoothing != 0) {
        wide_t mine = 0;
        visit(weight, n, row, [&](wide_t w, int64) { mine += w; });
        all = sum_of_row(mine) * share;
    }
    wide_t picked = is_class ? wide(weight[t]) : wide_t(0);
    wide_t factor = picked * chosen + all;
    fill(x, out, n, row, [=](wide_t v, int64 i) {
        return from_above * (exp_of(v - greatest - log_sum) * factor - (i == t ? chosen * picked : wide_t(0)) - wide(weight[i]) * share);
    });
}
