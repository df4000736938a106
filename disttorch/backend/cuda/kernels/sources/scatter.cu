// Values into places of an array, of which some may come twice: added, multiplied, or the largest or smallest kept. NaN counts as the
// largest and as the smallest. Who comes first is chance: sums and products of floating-point numbers may differ in their last bits.

#define ADD 0
#define MULTIPLY 1
#define MAXIMUM 2
#define MINIMUM 3

// int64 is added as what CUDA has an addition for
template <typename T>
struct Added {
    typedef T type;
};
template <>
struct Added<int64> {
    typedef uint64 type;
};
typedef Added<TYPE>::type added_t;

template <int BYTES>
struct Word;
template <>
struct Word<4> {
    typedef uint32 type;
};
template <>
struct Word<8> {
    typedef uint64 type;
};

typedef Word<sizeof(TYPE)>::type word_t;

union Element {
    TYPE value;
    word_t word;
};

__device__ __forceinline__ TYPE combined(TYPE x, TYPE y) {
    if (HOW == ADD) return x + y;
    if (HOW == MULTIPLY) return x * y;
    if (x != x) return x;
    if (HOW == MAXIMUM) return x > y ? x : y;
    return x < y ? x : y;
}

__device__ __forceinline__ void put(TYPE* place, TYPE value) {
    word_t* address = reinterpret_cast<word_t*>(place);
    Element seen, next;
    seen.word = *address;
    for (;;) {
        next.value = combined(seen.value, value);
        if (next.word == seen.word) return;
        word_t found = atomicCAS(address, seen.word, next.word);
        if (found == seen.word) return;
        seen.word = found;
    }
}

extern "C" __global__ void scatter(TYPE* a, const int64* places, const TYPE* values, int64 n) {
    for (int64 i = global_thread(); i < n; i += global_threads()) {
        if (HOW == ADD)
            atomicAdd(reinterpret_cast<added_t*>(a + places[i]), static_cast<added_t>(values[i]));
        else
            put(a + places[i], values[i]);
    }
}
