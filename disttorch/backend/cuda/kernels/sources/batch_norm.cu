// Batch normalization: the statistics of channels, the normalization, and the gradients.
//
// In memory a channel is in every image a plane of neighbouring elements, (outer, channels, inner), or, where there are no planes or
// channels come last, a column, (outer, channels). Sums over a channel are made in two steps of fixed order: `gridDim.y` parts of the
// batch, then these. A part's variance is about its own mean, so that nothing cancels, and parts are put together by the formula of
// Chan, Golub and LeVeque ("Updating formulae and a pairwise algorithm for computing sample variances", 1979).
// Blocks have 256 threads, as 8 warps.

typedef Wide<ELEMENT>::type wide_t;

static const int SIZE = Pack<ELEMENT>::SIZE;

__device__ __forceinline__ int64 part_begin(int64 n, int64 part, int64 parts) { return n * part / parts; }

// f(place) for what a thread does of the elements of a channel in the planes [begin, end)
template <typename F>
__device__ __forceinline__ void in_planes(int64 begin, int64 end, int64 channel, int64 channels, int64 inner, F f) {
    int lane = threadIdx.x & 31;
    for (int64 o = begin + (threadIdx.x >> 5); o < end; o += 8)
        for (int64 i = lane; i < inner; i += 32) f((o * channels + channel) * inner + i);
}

extern "C" __global__ void stats_of_planes(const ELEMENT* x, wide_t* means, wide_t* squares, int64 outer, int64 channels, int64 inner) {
    int64 channel = blockIdx.x, begin = part_begin(outer, blockIdx.y, gridDim.y), end = part_begin(outer, blockIdx.y + 1, gridDim.y);
    wide_t n = wide_t((end - begin) * inner), mine = 0;
    in_planes(begin, end, channel, channels, inner, [&](int64 i) { mine += wide(x[i]); });
    wide_t mean = block_sum(mine) / n;
    mine = 0;
    in_planes(begin, end, channel, channels, inner, [&](int64 i) { mine += (wide(x[i]) - mean) * (wide(x[i]) - mean); });
    mine = block_sum(mine);
    if (threadIdx.x == 0) {
        means[blockIdx.y * channels + channel] = mean;
        squares[blockIdx.y * channels + channel] = mine;
    }
}

extern "C" __global__ void sums_of_planes(const ELEMENT* g, const ELEMENT* x, const wide_t* mean, const wide_t* rstd, wide_t* sums_gh,
                                          wide_t* sums_g, int64 outer, int64 channels, int64 inner) {
    int64 channel = blockIdx.x, begin = part_begin(outer, blockIdx.y, gridDim.y), end = part_begin(outer, blockIdx.y + 1, gridDim.y);
    wide_t middle = mean[channel], all = 0, products = 0;
    in_planes(begin, end, channel, channels, inner, [&](int64 i) {
        all += wide(g[i]);
        products += wide(g[i]) * (wide(x[i]) - middle);
    });
    products = block_sum(products);
    all = block_sum(all);
    if (threadIdx.x == 0) {
        sums_gh[blockIdx.y * channels + channel] = products * rstd[channel];
        sums_g[blockIdx.y * channels + channel] = all;
    }
}

// The sum over the 8 warps of what each lane has for its column; every thread gets it.
__device__ __forceinline__ wide_t sum_of_warps(wide_t x) {
    __shared__ wide_t parts[8][33];
    int lane = threadIdx.x & 31;
    parts[threadIdx.x >> 5][lane] = x;
    __syncthreads();
    x = parts[0][lane];
    for (int i = 1; i < 8; ++i) x += parts[i][lane];
    __syncthreads();
    return x;
}

extern "C" __global__ void stats_of_columns(const ELEMENT* x, wide_t* means, wide_t* squares, int64 outer, int64 channels) {
    int64 channel = int64(blockIdx.x) * 32 + (threadIdx.x & 31);
    int64 begin = part_begin(outer, blockIdx.y, gridDim.y), end = part_begin(outer, blockIdx.y + 1, gridDim.y);
    bool inside = channel < channels;
    wide_t mine = 0;
    if (inside)
        for (int64 o = begin + (threadIdx.x >> 5); o < end; o += 8) mine += wide(x[o * channels + channel]);
    wide_t mean = sum_of_warps(mine) / wide_t(end - begin);
    mine = 0;
    if (inside)
        for (int64 o = begin + (threadIdx.x >> 5); o < end; o += 8) {
            wide_t d = wide(x[o * channels + channel]) - mean;
            mine += d * d;
        }
    mine = sum_of_warps(mine);
    if (inside && threadIdx.x < 32) {
        means[blockIdx.y * channels + channel] = mean;
        squares[blockIdx.y * channels + channel] = mine;
    }
}

extern "C" __global__ void sums_of_columns(const ELEMENT* g, const ELEMENT* x, const wide_t* mean, const wide_t* rstd, wide_t* sums_gh,
                                           wide_t* sums_g, int64 outer, int64 channels) {
    int64 channel = int64(blockIdx.x) * 32 + (threadIdx.x & 31);
    int64 begin = part_begin(outer, blockIdx.y, gridDim.y), end = part_begin(outer, blockIdx.y + 1, gridDim.y);
    bool inside = channel < channels;
    wide_t all = 0, products = 0, middle = inside ? mean[channel] : wide_t(0);
    if (inside)
        for (int64 o = begin + (threadIdx.x >> 5); o < end; o += 8) {
            wide_t from_above = wide(g[o * channels + channel]);
            all += from_above;
            products += from_above * (wide(x[o * channels + channel]) - middle);
        }
    products = sum_of_warps(products);
    all = sum_of_warps(all);
    if (inside && threadIdx.x < 32) {
        sums_gh[blockIdx.y * channels + channel] = products * rstd[channel];
        sums_g[blockIdx.y * channels + channel] = all;
    }
}

// A channel's mean and biased variance from those of its parts; one thread for each channel.
extern "C" __global__ void stats_of_parts(const wide_t* means, const wide_t* squares, wide_t* mean, wide_t* var, int64 parts,
                                          int64 channels, int64 outer, int64 inner) {
    int64 channel = global_thread();
    if (channel >= channels) return;
    wide_t count = 0, middle = 0, square = 0;
    for (int64 part = 0; part < parts; ++part) {
        wide_t n = wide_t((part_begin(outer, part + 1, parts) - part_begin(outer, part, parts)) * inner);
        wide_t d = means[part * channels + channel] - middle, whole = count + n;
        middle += d * (n / whole);
        square += squares[part * channels + channel] + d * d * (count * (n / whole));
        count = whole;
    }
    mean[channel] = middle;
    var[channel] = square / count;
}

extern "C" __global__ void sums_of_parts(const wide_t* sums_gh, const wide_t* sums_g, wide_t* gw, wide_t* gb, int64 parts, int64 channels) {
    int64 channel = global_thread();
    if (channel >= channels) return;
    wide_t products = 0, all = 0;
    for (int64 part = 0; part < parts; ++part) {
        products += sums_gh[part * channels + channel];
        all += sums_g[part * channels + channel];
    }
    gw[channel] = products;
    gb[channel] = all;
}

__device__ __forceinline__ wide_t normalized(wide_t x, wide_t mean, wide_t scale, wide_t bias) { return (x - mean) * scale + bias; }

// blockIdx.x: 8 planes, a warp for each; blockIdx.y: a part of the planes
extern "C" __global__ void norm_of_planes(const ELEMENT* x, const wide_t* weight, const wide_t* bias, const wide_t* mean, const wide_t* rstd,
                                          ELEMENT* out, int64 planes, int64 channels, int64 inner) {
    int64 plane = int64(blockIdx.x) * 8 + (threadIdx.x >> 5);
    if (plane >= planes) return;
    int64 channel = plane % channels;
    wide_t middle = mean[channel], scale = weight ? rstd[channel] * weight[channel] : rstd[channel], shift = bias ? bias[channel] : wide_t(0);
    x += plane * inner, out += plane * inner;
    int64 first = int64(blockIdx.y) * 32 + (threadIdx.x & 31), step = int64(gridDim.y) * 32;
    if (inner % SIZE == 0 && aligned(x, out)) {
        for (int64 i = first * SIZE; i < inner; i += step * SIZE) {
            Pack<ELEMENT> a = load_pack(x + i);
#pragma unroll
            for (int k = 0; k < SIZE; ++k) a.at[k] = narrow<ELEMENT>(normalized(wide(a.at[k]), middle, scale, shift));
            store_pack(out + i, a);
        }
    } else {
        for (int64 i = first; i < inner; i += step) out[i] = narrow<ELEMENT>(normalized(wide(x[i]), middle, scale, shift));
    }
}

// blockIdx.x: 32 columns; blockIdx.y: a part of the rows
extern "C" __global__ void norm_of_columns(const ELEMENT* x, const wide_t* weight, const wide_t* bias, const wide_t* mean, const wide_t* rstd,
                                           ELEMENT* out, int64 outer, int64 channels) {
    int64 channel = int64(blockIdx.x) * 32 + (threadIdx.x & 31);
    if (channel >= channels) return;
    wide_t middle = mean[channel], scale = weight ? rstd[channel] * weight[channel] : rstd[channel], shift = bias ? bias[channel] : wide_t(0);
    for (int64 o = int64(blockIdx.y) * 8 + (threadIdx.x >> 5); o < outer; o += int64(gridDim.y) * 8) {
        int64 i = o * channels + channel;
        out[i] = narrow<ELEMENT>(normalized(wide(x[i]), middle, scale, shift));
    }
}

// (g - mean(g) - h * mean(g * h)) * scale
struct Back {
    wide_t mean, rstd, mean_g, mean_gh, scale;
    __device__ __forceinline__ Back(int64 c, const wide_t* weight, const wide_t* means, const wide_t* rstds, const wide_t* gw,
                                    const wide_t* gb, wide_t count)
        : mean(means[c]), rstd(rstds[c]), mean_g(gb[c] / count), mean_gh(gw[c] / count), scale(weight ? rstds[c] * weight[c] : rstds[c]) {}
    __device__ __forceinline__ wide_t operator()(wide_t g, wide_t x) const { return (g - mean_g - (x - mean) * rstd * mean_gh) * scale; }
};

extern "C" __global__ void back_of_planes(const ELEMENT* g, const ELEMENT* x, const wide_t* weight, const wide_t* mean, const wide_t* rstd,
                                          const wide_t* gw, const wide_t* gb, ELEMENT* gx, int64 planes, int64 channels, int64 inner) {
    int64 plane = int64(blockIdx.x) * 8 + (threadIdx.x >> 5);
    if (plane >= planes) return;
    Back back(plane % channels, weight, mean, rstd, gw, gb, wide_t(planes / channels * inner));
    g += plane * inner, x += plane * inner, gx += plane * inner;
    int64 first = int64(blockIdx.y) * 32 + (threadIdx.x & 31), step = int64(gridDim.y) * 32;
    if (inner % SIZE == 0 && aligned(g, x, gx)) {
        for (int64 i = first * SIZE; i < inner; i += step * SIZE) {
            Pack<ELEMENT> a = load_pack(g + i), b = load_pack(x + i);
#pragma unroll
            for (int k = 0; k < SIZE; ++k) a.at[k] = narrow<ELEMENT>(back(wide(a.at[k]), wide(b.at[k])));
            store_pack(gx + i, a);
        }
    } else {
        for (int64 i = first; i < inner; i += step) gx[i] = narrow<ELEMENT>(back(wide(g[i]), wide(x[i])));
    }
}

extern "C" __global__ void back_of_columns(const ELEMENT* g, const ELEMENT* x, const wide_t* weight, const wide_t* mean, const wide_t* rstd,
                                           const wide_t* gw, const wide_t* gb, ELEMENT* gx, int64 outer, int64 channels) {
    int64 channel = int64(blockIdx.x) * 32 + (threadIdx.x & 31);
    if (channel >= channels) return;
    Back back(channel, weight, mean, rstd, gw, gb, wide_t(outer));
    for (int64 o = int64(blockIdx.y) * 8 + (threadIdx.x >> 5); o < outer; o += int64(gridDim.y) * 8) {
        int64 i = o * channels + channel;
        gx[i] = narrow<ELEMENT>(back(wide(g[i]), wide(x[i])));
    }
}
