// Elements taken by their number along one axis: out[o, j, i] = x[o, index[o, j, i], i].

struct __align__(16) Sixteen {
    uint64 low, high;
};

template <typename T>
__device__ __forceinline__ void take(const T* x, const int64* index, T* out, int64 n, int64 along_x, int64 along_index, int64 inner) {
    for (int64 i = global_thread(); i < n; i += global_threads()) {
        int64 before = i / inner, outer = before / along_index, at = index[i];
        if (at < 0) at += along_x;
        // what is no place is taken from the nearest one, so that nothing else is read
        at = at < 0 ? 0 : at >= along_x ? along_x - 1 : at;
        out[i] = x[(outer * along_x + at) * inner + (i - before * inner)];
    }
}

// by the bytes of an element
extern "C" __global__ void gather_1(const unsigned char* x, const int64* index, unsigned char* out, int64 n, int64 along_x,
        int64 along_index, int64 inner) {
    take(x, index, out, n, along_x, along_index, inner);
}
extern "C" __global__ void gather_2(const unsigned short* x, const int64* index, unsigned short* out, int64 n, int64 along_x,
        int64 along_index, int64 inner) {
    take(x, index, out, n, along_x, along_index, inner);
}
extern "C" __global__ void gather_4(const uint32* x, const int64* index, uint32* out, int64 n, int64 along_x, int64 along_index,
        int64 inner) {
    take(x, index, out, n, along_x, along_index, inner);
}
extern "C" __global__ void gather_8(const uint64* x, const int64* index, uint64* out, int64 n, int64 along_x, int64 along_index,
        int64 inner) {
    take(x, index, out, n, along_x, along_index, inner);
}
extern "C" __global__ void gather_16(const Sixteen* x, const int64* index, Sixteen* out, int64 n, int64 along_x, int64 along_index,
        int64 inner) {
    take(x, index, out, n, along_x, along_index, inner);
}
