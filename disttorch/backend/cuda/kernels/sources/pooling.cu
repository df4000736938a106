// Max and average pooling over up to 3 spatial dimensions (fewer: the first have size 1), and their gradients.
//
// One thread for each element of the result. An average's gradient is gathered from the windows that have seen an element; a maximum's
// is put where the maximum was found, by atomic additions to sums of wide numbers, or, where the same bits are asked for every time, by
// one thread for each plane.
//
// Arrays are (outer, spatial, inner) in memory: in C order inner is 1 and outer counts images and channels, with channels last inner counts
// channels.

typedef Wide<ELEMENT>::type wide_t;

struct Window {
    int64 in[3], out[3], kernel[3], stride[3], padding[3], dilation[3];
};

// The first place along a dimension, not before 0, that a window sees.
__device__ __forceinline__ int64 first_inside(int64 start, int64 dilation) {
    return start < 0 ? start + dilation * ((dilation - 1 - start) / dilation) : start;
}

struct Place {
    int64 outer, inner, at[3];
    __device__ __forceinline__ Place(int64 i, const int64* sizes, int64 width) {
        inner = i % width, i /= width;
        at[2] = i % sizes[2], i /= sizes[2];
        at[1] = i % sizes[1], i /= sizes[1];
        at[0] = i % sizes[0], outer = i / sizes[0];
    }
    // Where the elements of another array begin that lie above and below this one, in dimensions of these sizes.
    __device__ __forceinline__ int64 start(const int64* sizes, int64 width) const {
        return outer * sizes[0] * sizes[1] * sizes[2] * width + inner;
    }
};

extern "C" __global__ void max_pool(const ELEMENT* x, ELEMENT* out, int64* indices, int64 n, Window w, int64 width) {
    for (int64 i = global_thread(); i < n; i += global_threads()) {
        Place p(i, w.out, width);
        const ELEMENT* plane = x + p.start(w.in, width);
        int64 from[3], to[3];
#pragma unroll
        for (int d = 0; d < 3; ++d) {
            int64 start = p.at[d] * w.stride[d] - w.padding[d], end = start + w.dilation[d] * (w.kernel[d] - 1) + 1;
            from[d] = first_inside(start, w.dilation[d]);
            to[d] = end < w.in[d] ? end : w.in[d];
        }
        int64 best_at = (from[0] * w.in[1] + from[1]) * w.in[2] + from[2];
        wide_t best = minus_infinity<wide_t>();
        ELEMENT value = narrow<ELEMENT>(best);
        for (int64 a = from[0]; a < to[0]; a += w.dilation[0])
            for (int64 b = from[1]; b < to[1]; b += w.dilation[1])
                for (int64 c = from[2]; c < to[2]; c += w.dilation[2]) {
                    int64 at = (a * w.in[1] + b) * w.in[2] + c;
                    ELEMENT here = plane[at * width];
                    wide_t seen = wide(here);
                    if (seen > best || seen != seen) best = seen, value = here, best_at = at;
                }
        out[i] = value;
        indices[i] = best_at;
    }
}

extern "C" __global__ void max_pool_backward(const ELEMENT* g, const int64* indices, wide_t* gx, int64 planes, int64 outputs, int64 inputs,
                                             int64 width, int64 in_order) {
    if (in_order) {
        for (int64 p = global_thread(); p < planes; p += global_threads()) {
            int64 outer = p / width, inner = p % width;
            for (int64 at = outer * outputs; at < (outer + 1) * outputs; ++at) {
                int64 i = at * width + inner;
                gx[(outer * inputs + indices[i]) * width + inner] += wide(g[i]);
            }
        }
    } else {
        for (int64 i = global_thread(); i < planes * outputs; i += global_threads()) {
            int64 outer = i / width / outputs, inner = i % width;
            atomicAdd(gx + (outer * inputs + indices[i]) * width + inner, wide(g[i]));
        }
    }
}

// What the sum of the window that begins at `start` along a dimension is divided by, for its part.
__device__ __forceinline__ int64 counted(int64 start, int64 kernel, int64 size, int64 padding, int64 with_padding) {
    int64 end = start + kernel < size + padding ? start + kernel : size + padding;  // overhang beyond the padding never counts
    if (with_padding) return end - start;
    return (end < size ? end : size) - (start > 0 ? start : 0);
}

__device__ __forceinline__ wide_t divisor(const int64* at, const Window& w, int64 with_padding, int64 instead) {
    if (instead) return wide_t(instead);
    int64 count = 1;
#pragma unroll
    for (int d = 0; d < 3; ++d)
        count *= counted(at[d] * w.stride[d] - w.padding[d], w.kernel[d], w.in[d], w.padding[d], with_padding);
    return wide_t(count);
}

extern "C" __global__ void avg_pool(const ELEMENT* x, ELEMENT* out, int64 n, Window w, int64 width, int64 with_padding, int64 instead) {
    for (int64 i = global_thread(); i < n; i += global_threads()) {
        Place p(i, w.out, width);
        const ELEMENT* plane = x + p.start(w.in, width);
        int64 from[3], to[3];
#pragma unroll
        for (int d = 0; d < 3; ++d) {
            int64 start = p.at[d] * w.stride[d] - w.padding[d], end = start + w.kernel[d];
            from[d] = start > 0 ? start : 0;
            to[d] = end < w.in[d] ? end : w.in[d];
        }
        wide_t sum = 0;
        for (int64 a = from[0]; a < to[0]; ++a)
            for (int64 b = from[1]; b < to[1]; ++b)
                for (int64 c = from[2]; c < to[2]; ++c) sum += wide(plane[((a * w.in[1] + b) * w.in[2] + c) * width]);
        out[i] = narrow<ELEMENT>(sum / divisor(p.at, w, with_padding, instead));
    }
}

extern "C" __global__ void avg_pool_backward(const ELEMENT* g, ELEMENT* gx, int64 n, Window w, int64 width, int64 with_padding,
                                             int64 instead) {
    for (int64 i = global_thread(); i < n; i += global_threads()) {
        Place p(i, w.in, width);
        const ELEMENT* plane = g + p.start(w.out, width);
        int64 from[3], to[3];  // the windows that have seen it
#pragma unroll
        for (int d = 0; d < 3; ++d) {
            int64 at = p.at[d] + w.padding[d];
            from[d] = at < w.kernel[d] ? 0 : (at - w.kernel[d]) / w.stride[d] + 1;
            to[d] = at / w.stride[d] + 1 < w.out[d] ? at / w.stride[d] + 1 : w.out[d];
        }
        wide_t sum = 0;
        for (int64 a = from[0]; a < to[0]; ++a)
            for (int64 b = from[1]; b < to[1]; ++b)
                for (int64 c = from[2]; c < to[2]; ++c) {
                    int64 at[3] = {a, b, c};
                    sum += wide(plane[((a * w.out[1] + b) * w.out[2] + c) * width]) / divisor(at, w, with_padding, instead);
                }
        gx[i] = narrow<ELEMENT>(sum);
    }
}
