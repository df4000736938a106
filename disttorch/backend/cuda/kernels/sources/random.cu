// Random numbers: uniform, normal, integers, truth values, and dropout. One stream for a generator, whose place lies in device memory.
//
// Four words of 32 random bits belong to each place (Philox, see common.cuh). A draw of n numbers takes as many places as it needs,
// whatever the grid, so the same seed gives the same numbers on every device; the last block to have read the place moves it on.

struct Place {
    uint64 key, first;
};

__device__ __forceinline__ Place here(const RandomState* state) { return {state->key, state->place}; }

extern "C" __global__ void set_state(RandomState* state, int64 key, int64 place) {
    state->key = uint64(key), state->place = uint64(place), state->arrived = 0;
}

// how many of a type are made of the four words of one place
template <typename T>
struct PerPlace {
    static const int COUNT = 4;
};
template <>
struct PerPlace<double> {
    static const int COUNT = 2;
};

// Uniform in [0, 1). Half types have as few bits as never round up to 1.
__device__ __forceinline__ void uniform(Bits b, float16* out) {
    uint32 words[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] = narrow<float16>(float(words[i] >> 21) * 4.8828125e-4f);
}
__device__ __forceinline__ void uniform(Bits b, bfloat16* out) {
    uint32 words[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] = narrow<bfloat16>(float(words[i] >> 24) * 3.90625e-3f);
}
__device__ __forceinline__ void uniform(Bits b, float* out) {
    out[0] = unit_float(b.x), out[1] = unit_float(b.y), out[2] = unit_float(b.z), out[3] = unit_float(b.w);
}
__device__ __forceinline__ void uniform(Bits b, double* out) { out[0] = unit_double(b.x, b.y), out[1] = unit_double(b.z, b.w); }

// Normal, by the method of Box and Muller (1958): of one minus a uniform number, which is never 0, the radius, of another the angle.
__device__ __forceinline__ void normal_pair(float u, float v, float* out) {
    float radius = sqrtf(-2.0f * logf(1.0f - u)), s, c;
    sincospif(2.0f * v, &s, &c);
    out[0] = radius * c, out[1] = radius * s;
}
__device__ __forceinline__ void normal(Bits b, float* out) {
    normal_pair(unit_float(b.x), unit_float(b.y), out);
    normal_pair(unit_float(b.z), unit_float(b.w), out + 2);
}
__device__ __forceinline__ void normal(Bits b, double* out) {
    double radius = sqrt(-2.0 * log(1.0 - unit_double(b.x, b.y))), s, c;
    sincospi(2.0 * unit_double(b.z, b.w), &s, &c);
    out[0] = radius * c, out[1] = radius * s;
}
template <typename T>
__device__ __forceinline__ void normal(Bits b, T* out) {
    float wide_out[4];
    normal(b, wide_out);
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] = narrow<T>(wide_out[i]);
}

// out[i] for all i, COUNT of them made of each place
template <int COUNT, typename T, typename F>
__device__ __forceinline__ void draw(RandomState* state, T* out, int64 n, F f) {
    Place place = here(state);
    int64 groups = (n + COUNT - 1) / COUNT;
    for (int64 i = global_thread(); i < groups; i += global_threads()) {
        T made[COUNT];
        f(philox(place.key, place.first + uint64(i), 0), made);
#pragma unroll
        for (int k = 0; k < COUNT; ++k)
            if (i * COUNT + k < n) out[i * COUNT + k] = made[k];
    }
    advance(state, uint64(groups));
}

extern "C" __global__ void draw_uniform(RandomState* state, ELEMENT* out, int64 n) {
    draw<PerPlace<ELEMENT>::COUNT>(state, out, n, [](Bits b, ELEMENT* made) { uniform(b, made); });
}

extern "C" __global__ void draw_normal(RandomState* state, ELEMENT* out, int64 n) {
    draw<PerPlace<ELEMENT>::COUNT>(state, out, n, [](Bits b, ELEMENT* made) { normal(b, made); });
}

// In [low, low + range), range 0 standing for 2^64: the upper half of the product of 64 random bits and the range, of which no number
// is more than range / 2^64 too likely.
extern "C" __global__ void draw_integers(RandomState* state, int64* out, int64 n, int64 low, int64 range) {
    draw<2>(state, out, n, [=](Bits b, int64* made) {
        uint64 words[2] = {uint64(b.x) << 32 | b.y, uint64(b.z) << 32 | b.w};
#pragma unroll
        for (int k = 0; k < 2; ++k) made[k] = int64(uint64(low) + (range ? __umul64hi(words[k], uint64(range)) : words[k]));
    });
}

// True with probability 1 - p
extern "C" __global__ void draw_kept(RandomState* state, bool* out, int64 n, double p) {
    float limit = float(p);
    draw<4>(state, out, n, [=](Bits b, bool* made) {
        made[0] = unit_float(b.x) >= limit, made[1] = unit_float(b.y) >= limit;
        made[2] = unit_float(b.z) >= limit, made[3] = unit_float(b.w) >= limit;
    });
}

// The same without a stream: the key is a number plus one in device memory, if there is one.
extern "C" __global__ void kept_by_seed(const int64* seed, bool* out, int64 n, int64 added, double p) {
    float limit = float(p);
    uint64 key = uint64(added) + (seed ? uint64(*seed) : 0);
    for (int64 i = global_thread(); i * 4 < n; i += global_threads()) {
        Bits b = philox(key, uint64(i), 0);
        uint32 words[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
        for (int k = 0; k < 4; ++k)
            if (i * 4 + k < n) out[i * 4 + k] = unit_float(words[k]) >= limit;
    }
}

// Each element times 0 with probability p, else times scale; and which were kept. A thread has 8 elements at a time.
extern "C" __global__ void dropout(RandomState* state, const ELEMENT* x, ELEMENT* out, bool* kept, int64 n, double p, double scale) {
    typedef Wide<ELEMENT>::type wide_t;
    const int SIZE = 8;
    float limit = float(p);
    wide_t factor = wide_t(scale);
    Place place = here(state);
    int64 groups = (n + SIZE - 1) / SIZE;
    bool by_packs = aligned(x, out) && (reinterpret_cast<uint64>(kept) & 7) == 0;
    for (int64 i = global_thread(); i < groups; i += global_threads()) {
        Bits b = philox(place.key, place.first + 2 * uint64(i), 0), c = philox(place.key, place.first + 2 * uint64(i) + 1, 0);
        uint32 words[SIZE] = {b.x, b.y, b.z, b.w, c.x, c.y, c.z, c.w};
        int64 start = i * SIZE;
        if (by_packs && start + SIZE <= n) {
            const int PARTS = SIZE / Pack<ELEMENT>::SIZE;
            uint64 mask = 0;
#pragma unroll
            for (int part = 0; part < PARTS; ++part) {
                Pack<ELEMENT> a = load_pack(x + start + part * Pack<ELEMENT>::SIZE);
#pragma unroll
                for (int k = 0; k < Pack<ELEMENT>::SIZE; ++k) {
                    int at = part * Pack<ELEMENT>::SIZE + k;
                    bool keep = unit_float(words[at]) >= limit;
                    mask |= uint64(keep) << (8 * at);
                    a.at[k] = narrow<ELEMENT>(wide(a.at[k]) * (keep ? factor : wide_t(0)));
                }
                store_pack(out + start + part * Pack<ELEMENT>::SIZE, a);
            }
            *reinterpret_cast<uint64*>(kept + start) = mask;
        } else {
#pragma unroll
            for (int k = 0; k < SIZE; ++k) {
                if (start + k >= n) continue;
                bool keep = unit_float(words[k]) >= limit;
                kept[start + k] = keep;
                out[start + k] = narrow<ELEMENT>(wide(x[start + k]) * (keep ? factor : wide_t(0)));
            }
        }
    }
    advance(state, 2 * uint64(groups));
}

// x times scale where it was kept, else times 0
extern "C" __global__ void where_kept(const ELEMENT* x, const bool* kept, ELEMENT* out, int64 n, double scale) {
    typedef Wide<ELEMENT>::type wide_t;
    const int SIZE = Pack<ELEMENT>::SIZE;
    wide_t factor = wide_t(scale);
    int64 done = 0;
    if (aligned(x, out)) {
        int64 packs = n / SIZE;
        done = packs * SIZE;
        for (int64 p = global_thread(); p < packs; p += global_threads()) {
            Pack<ELEMENT> a = load_pack(x + p * SIZE);
#pragma unroll
            for (int k = 0; k < SIZE; ++k) a.at[k] = narrow<ELEMENT>(wide(a.at[k]) * (kept[p * SIZE + k] ? factor : wide_t(0)));
            store_pack(out + p * SIZE, a);
        }
    }
    for (int64 i = done + global_thread(); i < n; i += global_threads())
        out[i] = narrow<ELEMENT>(wide(x[i]) * (kept[i] ? factor : wide_t(0)));
}
