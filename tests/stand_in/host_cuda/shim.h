// CUDA C++ as far as our kernels use it, for a host compiler: what nvcc and NVRTC know without any header.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "runtime.h"

#define __host__
#define __device__
#define __global__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__
#define threadIdx (host_cuda_current->index)
#define blockIdx host_cuda_block_index
#define blockDim host_cuda_block
#define gridDim host_cuda_grid
#define warpSize 32

using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;

// --- vector types ---------------------------------------------------------------------------------------------------
#define HOST_CUDA_VECTORS(type, name, bytes)                                               \
    struct name##2 { type x, y; } __attribute__((aligned(2 * bytes)));                     \
    struct name##4 { type x, y, z, w; } __attribute__((aligned(bytes > 4 ? 16 : 4 * bytes))); \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                       \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
HOST_CUDA_VECTORS(int, int, 4)
HOST_CUDA_VECTORS(unsigned, uint, 4)
HOST_CUDA_VECTORS(float, float, 4)
HOST_CUDA_VECTORS(double, double, 8)
HOST_CUDA_VECTORS(short, short, 2)
HOST_CUDA_VECTORS(unsigned short, ushort, 2)
HOST_CUDA_VECTORS(unsigned long long, ulonglong, 8)
HOST_CUDA_VECTORS(long long, longlong, 8)

// --- block and warp -------------------------------------------------------------------------------------------------
inline void __syncthreads(int line = __builtin_LINE()) { host_cuda_barrier(0, 0, line); }
inline int __syncthreads_count(int predicate, int line = __builtin_LINE()) { return host_cuda_barrier(1, predicate, line); }
inline int __syncthreads_or(int predicate, int line = __builtin_LINE()) { return host_cuda_barrier(2, predicate, line); }
inline int __syncthreads_and(int predicate, int line = __builtin_LINE()) { return host_cuda_barrier(3, predicate, line); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
    char nothing = 0;
    host_cuda_warp_meet(mask, 1, &nothing, 1, line);
}

namespace host_cuda {
template <typename T>
T from_lane(int lane) {
    T value;
    std::memcpy(&value, static_cast<const unsigned char*>(host_cuda_received()) + size_t(lane) * sizeof(T), sizeof(T));
    return value;
}

template <typename T>
T exchanged(unsigned mask, int kind, T value, int lane, int line) {
    host_cuda_warp_meet(mask, kind, &value, sizeof(T), line);
    if (!(mask >> lane & 1)) host_cuda_fail("a warp shuffle reads a lane that is not in its mask");
    return from_lane<T>(lane);
}

inline int first_of(int width) { return host_cuda_lane() & ~(width - 1); }
}  // namespace host_cuda

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, int line = __builtin_LINE()) {
    return host_cuda::exchanged(mask, 2, value, host_cuda::first_of(width) + (lane & (width - 1)), line);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int other, int width = 32, int line = __builtin_LINE()) {
    int me = host_cuda_lane(), lane = me ^ other;
    return host_cuda::exchanged(mask, 3, value, lane < host_cuda::first_of(width) + width ? lane : me, line);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
    int me = host_cuda_lane(), lane = me - int(delta);
    return host_cuda::exchanged(mask, 4, value, lane >= host_cuda::first_of(width) ? lane : me, line);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
    int me = host_cuda_lane(), lane = me + int(delta);
    return host_cuda::exchanged(mask, 5, value, lane < host_cuda::first_of(width) + width ? lane : me, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    host_cuda_warp_meet(mask, 6, &predicate, sizeof predicate, line);
    unsigned votes = 0;
    for (int i = 0; i < 32; ++i)
        if ((mask >> i & 1) && host_cuda::from_lane<int>(i)) votes |= 1u << i;
    return votes;
}
inline int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) { return __ballot_sync(mask, predicate, line) != 0; }
inline int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) { return __ballot_sync(mask, predicate, line) == mask; }
template <typename T>
unsigned __match_any_sync(unsigned mask, T value, int line = __builtin_LINE()) {
    host_cuda_warp_meet(mask, 7, &value, sizeof value, line);
    unsigned same = 0;
    for (int i = 0; i < 32; ++i)
        if ((mask >> i & 1) && host_cuda::from_lane<T>(i) == value) same |= 1u << i;
    return same;
}

// --- shared memory: the declarations are rewritten to these before compiling ------------------------------------------
namespace host_cuda {
template <typename T>
T& static_shared(const void* site) {
    return *static_cast<T*>(host_cuda_static_shared(site, sizeof(T)));
}
template <typename T>
T* dynamic_shared() {
    return static_cast<T*>(host_cuda_dynamic_shared());
}
}  // namespace host_cuda

// --- atomics: one thread runs at a time -------------------------------------------------------------------------------
#define HOST_CUDA_ATOMIC(name, expression)              \
    template <typename T>                               \
    T name(T* address, std::common_type_t<T> value) {   \
        T old = *address;                               \
        *address = expression;                          \
        return old;                                     \
    }
HOST_CUDA_ATOMIC(atomicAdd, old + value)
HOST_CUDA_ATOMIC(atomicSub, old - value)
HOST_CUDA_ATOMIC(atomicMax, old < value ? value : old)
HOST_CUDA_ATOMIC(atomicMin, value < old ? value : old)
HOST_CUDA_ATOMIC(atomicOr, old | value)
HOST_CUDA_ATOMIC(atomicAnd, old& value)
HOST_CUDA_ATOMIC(atomicXor, old ^ value)
HOST_CUDA_ATOMIC(atomicExch, value)
#undef HOST_CUDA_ATOMIC
inline unsigned atomicInc(unsigned* address, unsigned limit) {
    unsigned old = *address;
    *address = old >= limit ? 0 : old + 1;
    return old;
}
template <typename T>
T atomicCAS(T* address, std::common_type_t<T> compare, std::common_type_t<T> value) {
    T old = *address;
    if (old == compare) *address = value;
    return old;
}

// --- arithmetic -------------------------------------------------------------------------------------------------------
template <typename T>
T host_cuda_bits(const void* from) {
    T to;
    std::memcpy(&to, from, sizeof to);
    return to;
}
inline int __float_as_int(float x) { return host_cuda_bits<int>(&x); }
inline unsigned __float_as_uint(float x) { return host_cuda_bits<unsigned>(&x); }
inline float __int_as_float(int x) { return host_cuda_bits<float>(&x); }
inline float __uint_as_float(unsigned x) { return host_cuda_bits<float>(&x); }
inline long long __double_as_longlong(double x) { return host_cuda_bits<long long>(&x); }
inline double __longlong_as_double(long long x) { return host_cuda_bits<double>(&x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((static_cast<unsigned __int128>(a) * b) >> 64);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float sinpif(float x) { return float(sin(M_PI * double(x))); }
inline float cospif(float x) { return float(cos(M_PI * double(x))); }
inline double sinpi(double x) { return sin(M_PI * x); }
inline double cospi(double x) { return cos(M_PI * x); }
inline void sincospif(float x, float* s, float* c) { *s = sinpif(x), *c = cospif(x); }
inline void sincospi(double x, double* s, double* c) { *s = sinpi(x), *c = cospi(x); }
inline float normcdff(float x) { return 0.5f * erfcf(x * -0.70710678f); }
inline double normcdf(double x) { return 0.5 * erfc(x * -0.70710678118654752440); }
template <typename T>
T __ldg(const T* p) {
    return *p;
}
template <typename T>
T __ldcs(const T* p) {
    return *p;
}
template <typename T>
void __stcs(T* p, std::common_type_t<T> value) {
    *p = value;
}
[[noreturn]] inline void __trap() {
    host_cuda_fail("__trap");
    __builtin_unreachable();
}
template <typename A, typename B>
constexpr std::common_type_t<A, B> min(A a, B b) {
    return b < a ? b : a;
}
template <typename A, typename B>
constexpr std::common_type_t<A, B> max(A a, B b) {
    return a < b ? b : a;
}

// --- how Python calls a kernel ----------------------------------------------------------------------------------------
namespace host_cuda {
template <typename... A, size_t... I>
void call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_const_t<std::remove_reference_t<A>>*>(args[I])...);
}
template <typename... A>
void call(void (*kernel)(A...), void** args) {
    call(kernel, args, std::index_sequence_for<A...>());
}

// each parameter as a letter (pointer, float, integer, unsigned, structure) and a number of bytes
template <typename T>
char* describe(char* to) {
    *to++ = std::is_pointer_v<T> ? 'p' : std::is_floating_point_v<T> ? 'f' : std::is_class_v<T> ? 's' : std::is_signed_v<T> ? 'i' : 'u';
    unsigned size = sizeof(T), digits = 1;
    for (unsigned n = size; n >= 10; n /= 10) ++digits;
    for (unsigned i = digits; i-- > 0; size /= 10) to[i] = char('0' + size % 10);
    to += digits;
    *to++ = ' ';
    return to;
}
template <typename... A>
const char* parameters(void (*)(A...)) {
    static char text[8 * (sizeof...(A) + 1)];
    char* end = text;
    ((end = describe<std::remove_const_t<A>>(end)), ...);
    *end = 0;
    return text;
}
}  // namespace host_cuda

#define HOST_CUDA_KERNEL(name)                                                                  \
    extern "C" void host_cuda_entry_##name(void** args) { host_cuda::call(&name, args); }       \
    extern "C" const char* host_cuda_parameters_##name() { return host_cuda::parameters(&name); }
