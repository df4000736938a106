// What all our kernels stand on: storage types, 16 bytes at a time, sums over warps and blocks, and counter-based random bits.
//
// No header is included, so that NVRTC needs no include path. Half types are storage only: values are computed in float32 and
// rounded once (to nearest, ties to even).

struct float16 {
    unsigned short bits;
};
struct bfloat16 {
    unsigned short bits;
};
typedef float float32;
typedef double float64;
typedef long long int64;
typedef int int32;
typedef unsigned long long uint64;
typedef unsigned int uint32;

#define ALL_LANES 0xffffffffu

// --- storage and computation ------------------------------------------------------------------------------------------

template <typename T>
struct Wide {
    typedef T type;
};
template <>
struct Wide<float16> {
    typedef float type;
};
template <>
struct Wide<bfloat16> {
    typedef float type;
};

__device__ __forceinline__ float wide(float x) { return x; }
__device__ __forceinline__ double wide(double x) { return x; }

__device__ __forceinline__ float wide(bfloat16 x) { return __uint_as_float(uint32(x.bits) << 16); }

__device__ __forceinline__ float wide(float16 x) {
#ifdef __CUDA_ARCH__
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(x.bits));
    return result;
#else
    uint32 sign = uint32(x.bits & 0x8000) << 16, exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
    if (exponent) return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
    float size = float(fraction) * 5.9604644775390625e-8f;  // a subnormal number counts in units of 2^-24
    return sign ? -size : size;
#endif
}

template <typename T>
struct Narrow {
    static __device__ __forceinline__ T of(T x) { return x; }
};

template <>
struct Narrow<float16> {
    static __device__ __forceinline__ float16 of(float x) {
        float16 result;
#ifdef __CUDA_ARCH__
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
#else
        uint32 bits = __float_as_uint(x), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffffu;
        if (size > 0x7f800000u) {
            result.bits = (unsigned short)(sign | 0x7fff);
        } else if (size >= 0x477ff000u) {  // from halfway above the largest number on
            result.bits = (unsigned short)(sign | 0x7c00);
        } else if (size < 0x38800000u) {  // subnormal: adding 0.5 leaves units of 2^-24, rounded, in the last bits
            result.bits = (unsigned short)(sign | (__float_as_uint(__uint_as_float(size) + 0.5f) - 0x3f000000u));
        } else {
            result.bits = (unsigned short)(sign | (size - 0x38000000u + 0xfffu + (size >> 13 & 1)) >> 13);
        }
#endif
        return result;
    }
};

template <>
struct Narrow<bfloat16> {
    static __device__ __forceinline__ bfloat16 of(float x) {
        bfloat16 result;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
#else
        uint32 bits = __float_as_uint(x);
        if ((bits & 0x7fffffffu) > 0x7f800000u)
            result.bits = (unsigned short)(bits >> 16 | 0x40);
        else
            result.bits = (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
#endif
        return result;
    }
};

template <typename T>
__device__ __forceinline__ T narrow(typename Wide<T>::type x) {
    return Narrow<T>::of(x);
}

// --- mathematics under one name for both widths -----------------------------------------------------------------------

__device__ __forceinline__ float exp_of(float x) { return expf(x); }
__device__ __forceinline__ double exp_of(double x) { return exp(x); }
__device__ __forceinline__ float log_of(float x) { return logf(x); }
__device__ __forceinline__ double log_of(double x) { return log(x); }
__device__ __forceinline__ float tanh_of(float x) { return tanhf(x); }
__device__ __forceinline__ double tanh_of(double x) { return tanh(x); }
__device__ __forceinline__ float erf_of(float x) { return erff(x); }
__device__ __forceinline__ double erf_of(double x) { return erf(x); }
__device__ __forceinline__ float sqrt_of(float x) { return sqrtf(x); }
__device__ __forceinline__ double sqrt_of(double x) { return sqrt(x); }
__device__ __forceinline__ float larger(float a, float b) { return fmaxf(a, b); }
__device__ __forceinline__ double larger(double a, double b) { return fmax(a, b); }
__device__ __forceinline__ float size_of(float x) { return fabsf(x); }
__device__ __forceinline__ double size_of(double x) { return fabs(x); }

template <typename W>
__device__ __forceinline__ W not_a_number();
template <>
__device__ __forceinline__ float not_a_number<float>() {
    return __int_as_float(0x7fc00000);
}
template <>
__device__ __forceinline__ double not_a_number<double>() {
    return __longlong_as_double(0x7ff8000000000000ll);
}

template <typename W>
__device__ __forceinline__ W minus_infinity();
template <>
__device__ __forceinline__ float minus_infinity<float>() {
    return __int_as_float(int(0xff800000u));
}
template <>
__device__ __forceinline__ double minus_infinity<double>() {
    return __longlong_as_double((long long)0xfff0000000000000ull);
}

// --- memory, 16 bytes at a time ---------------------------------------------------------------------------------------

template <typename T>
struct __align__(16) Pack {
    static const int SIZE = 16 / sizeof(T);
    T at[16 / sizeof(T)];
};

template <typename T>
__device__ __forceinline__ Pack<T> load_pack(const T* from) {
    return *reinterpret_cast<const Pack<T>*>(from);
}

template <typename T>
__device__ __forceinline__ void store_pack(T* to, const Pack<T>& pack) {
    *reinterpret_cast<Pack<T>*>(to) = pack;
}

__device__ __forceinline__ bool aligned(const void* a) { return (reinterpret_cast<uint64>(a) & 15) == 0; }
__device__ __forceinline__ bool aligned(const void* a, const void* b) { return aligned(a) && aligned(b); }
__device__ __forceinline__ bool aligned(const void* a, const void* b, const void* c) { return aligned(a, b) && aligned(c); }

__device__ __forceinline__ int64 global_thread() { return int64(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ __forceinline__ int64 global_threads() { return int64(gridDim.x) * blockDim.x; }

// out[i] = f(x[i]) over a whole array
template <typename T, typename F>
__device__ __forceinline__ void map(const T* x, T* out, int64 n, F f) {
    int64 done = 0;
    if (aligned(x, out)) {
        int64 packs = n / Pack<T>::SIZE;
        done = packs * Pack<T>::SIZE;
        for (int64 p = global_thread(); p < packs; p += global_threads()) {
            Pack<T> a = load_pack(x + p * Pack<T>::SIZE);
#pragma unroll
            for (int i = 0; i < Pack<T>::SIZE; ++i) a.at[i] = narrow<T>(f(wide(a.at[i])));
            store_pack(out + p * Pack<T>::SIZE, a);
        }
    }
    for (int64 i = done + global_thread(); i < n; i += global_threads()) out[i] = narrow<T>(f(wide(x[i])));
}

// out[i] = f(x[i], y[i])
template <typename T, typename F>
__device__ __forceinline__ void map(const T* x, const T* y, T* out, int64 n, F f) {
    int64 done = 0;
    if (aligned(x, y, out)) {
        int64 packs = n / Pack<T>::SIZE;
        done = packs * Pack<T>::SIZE;
        for (int64 p = global_thread(); p < packs; p += global_threads()) {
            Pack<T> a = load_pack(x + p * Pack<T>::SIZE), b = load_pack(y + p * Pack<T>::SIZE);
#pragma unroll
            for (int i = 0; i < Pack<T>::SIZE; ++i) a.at[i] = narrow<T>(f(wide(a.at[i]), wide(b.at[i])));
            store_pack(out + p * Pack<T>::SIZE, a);
        }
    }
    for (int64 i = done + global_thread(); i < n; i += global_threads()) out[i] = narrow<T>(f(wide(x[i]), wide(y[i])));
}

// --- sums over the 32 lanes of a warp, and over a block ----------------------------------------------------------------
// All threads take part and all get the result. Blocks have one dimension, of whole warps.

template <typename W>
__device__ __forceinline__ W warp_sum(W x) {
#pragma unroll
    for (int other = 16; other; other >>= 1) x += __shfl_xor_sync(ALL_LANES, x, other);
    return x;
}

template <typename W>
__device__ __forceinline__ W warp_max(W x) {
#pragma unroll
    for (int other = 16; other; other >>= 1) x = larger(x, __shfl_xor_sync(ALL_LANES, x, other));
    return x;
}

template <typename W>
__device__ W block_sum(W x) {
    __shared__ W parts[32];
    int lane = threadIdx.x & 31;
    x = warp_sum(x);
    if (blockDim.x == 32) return x;
    if (lane == 0) parts[threadIdx.x >> 5] = x;
    __syncthreads();
    x = warp_sum(lane < (blockDim.x >> 5) ? parts[lane] : W(0));
    __syncthreads();  // parts may be written again
    return x;
}

template <typename W>
__device__ W block_max(W x) {
    __shared__ W parts[32];
    int lane = threadIdx.x & 31;
    x = warp_max(x);
    if (blockDim.x == 32) return x;
    if (lane == 0) parts[threadIdx.x >> 5] = x;
    __syncthreads();
    x = warp_max(lane < (blockDim.x >> 5) ? parts[lane] : minus_infinity<W>());
    __syncthreads();
    return x;
}

// --- Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) ------------------------------
// 128 random bits for each counter (place, turn) under a key.

struct Bits {
    uint32 x, y, z, w;
};

__device__ __forceinline__ Bits philox(uint64 key, uint64 place, uint64 turn) {
    uint32 k0 = uint32(key), k1 = uint32(key >> 32);
    Bits c = {uint32(place), uint32(place >> 32), uint32(turn), uint32(turn >> 32)};
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        uint32 high0 = __umulhi(0xD2511F53u, c.x), low0 = 0xD2511F53u * c.x;
        uint32 high1 = __umulhi(0xCD9E8D57u, c.z), low1 = 0xCD9E8D57u * c.z;
        c = {high1 ^ c.y ^ k0, low1, high0 ^ c.w ^ k1, low0};
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

// in [0, 1), all bits of the fraction random
__device__ __forceinline__ float unit_float(uint32 bits) { return float(bits >> 8) * 5.9604644775390625e-8f; }
__device__ __forceinline__ double unit_double(uint32 high, uint32 low) {
    return double((uint64(high) << 32 | low) >> 11) * 1.1102230246251565e-16;
}

// Where a stream of random numbers is: in device memory, so that a captured graph goes on with it at every replay. `arrived`
// counts the blocks of a grid that have read it.
struct RandomState {
    uint64 key, place, arrived;
};

// Called by all threads of all blocks, once they have read the state; the last block moves it on.
__device__ __forceinline__ void advance(RandomState* state, uint64 used) {
    __syncthreads();
    if (threadIdx.x == 0) {
        uint64 blocks = uint64(gridDim.x) * gridDim.y * gridDim.z;
        __threadfence();
        if (atomicAdd(&state->arrived, uint64(1)) == blocks - 1) {
            state->place += used;
            state->arrived = 0;
            __threadfence();
        }
    }
}
