// What a step of a recurrent layer does behind the product with its state, and the step's gradient before the product with the weights.
//
// Rows are sequences; a thread has one unit of one sequence, and nobody else reads what it changes, so states change in place. Values
// of a gate lie one row of `hidden` numbers behind those of the gate before it.

typedef ELEMENT real;

__device__ __forceinline__ real sigmoid(real x) { return real(1) / (real(1) + exp_of(-x)); }

// What goes into a gate is the input's share, the state's product and the bias.
struct Gates {
    const real *input, *state, *bias;
    int64 hidden;

    __device__ __forceinline__ real own(int gate) const { return state[gate * hidden] + (bias ? bias[gate * hidden] : real(0)); }
    __device__ __forceinline__ real sum(int gate) const { return input[gate * hidden] + own(gate); }
};

struct Tanh {
    static const int GATES = 1, KEPT = 1;
    static __device__ __forceinline__ real forward(Gates gates, real, real*, real* kept) { return kept[0] = tanh_of(gates.sum(0)); }
    static __device__ __forceinline__ void backward(real g, real*, real*, const real* kept, real, real, real* d, real*, int64) {
        d[0] = g * (real(1) - kept[0] * kept[0]);
    }
};

struct Relu {
    static const int GATES = 1, KEPT = 1;
    static __device__ __forceinline__ real forward(Gates gates, real, real*, real* kept) {
        real x = gates.sum(0);
        return kept[0] = x < 0 ? real(0) : x;  // NaN stays
    }
    static __device__ __forceinline__ void backward(real g, real*, real*, const real* kept, real, real, real* d, real*, int64) {
        d[0] = kept[0] > 0 ? g : real(0);
    }
};

struct Lstm {
    static const int GATES = 4, KEPT = 4;  // input, forget, cell, output
    static __device__ __forceinline__ real forward(Gates gates, real, real* c, real* kept) {
        int64 n = gates.hidden;
        real i = sigmoid(gates.sum(0)), f = sigmoid(gates.sum(1)), g = tanh_of(gates.sum(2)), o = sigmoid(gates.sum(3));
        kept[0] = i, kept[n] = f, kept[2 * n] = g, kept[3 * n] = o;
        *c = f * *c + i * g;
        return o * tanh_of(*c);
    }
    static __device__ __forceinline__ void backward(real above, real*, real* dc, const real* kept, real, real c, real* d, real*, int64 n) {
        real i = kept[0], f = kept[n], g = kept[2 * n], o = kept[3 * n];
        real t = tanh_of(f * c + i * g), cell = *dc + above * o * (real(1) - t * t);
        d[0] = cell * g * i * (real(1) - i);
        d[n] = cell * c * f * (real(1) - f);
        d[2 * n] = cell * i * (real(1) - g * g);
        d[3 * n] = above * t * o * (real(1) - o);
        *dc = cell * f;
    }
};

struct Gru {
    static const int GATES = 3, KEPT = 4;  // reset, update, new; and the state's own share of the new
    static __device__ __forceinline__ real forward(Gates gates, real h, real*, real* kept) {
        int64 n = gates.hidden;
        real r = sigmoid(gates.sum(0)), z = sigmoid(gates.sum(1)), own = gates.own(2);
        real fresh = tanh_of(gates.input[2 * n] + r * own);
        kept[0] = r, kept[n] = z, kept[2 * n] = fresh, kept[3 * n] = own;
        return fresh + z * (h - fresh);
    }
    // What goes to the state past the weights is left in dh, to which the product is added.
    static __device__ __forceinline__ void backward(
        real above, real* dh, real*, const real* kept, real h, real, real* d, real* d_state, int64 n
    ) {
        real r = kept[0], z = kept[n], fresh = kept[2 * n], own = kept[3 * n];
        real d_new = above * (real(1) - z) * (real(1) - fresh * fresh);
        d[0] = d_state[0] = d_new * own * r * (real(1) - r);
        d[n] = d_state[n] = above * (h - fresh) * z * (real(1) - z);
        d[2 * n] = d_new;
        d_state[2 * n] = d_new * r;
        *dh = above * z;
    }
};

typedef CELL cell;  // one of the above

// The rows from `start` on of what all steps share; those of the states and of the product are the first.
extern "C" __global__ void forward(
    const real* input, const real* product, const real* bias, real* h, real* c, real* y, real* kept, real* before, real* cells,
    int64 start, int64 rows, int64 hidden
) {
    for (int64 k = global_thread(); k < rows * hidden; k += global_threads()) {
        int64 row = k / hidden, unit = k % hidden, there = start * hidden + k;
        Gates gates = {
            input + (start + row) * cell::GATES * hidden + unit, product + row * cell::GATES * hidden + unit, bias ? bias + unit : bias, hidden
        };
        real old = h[k];
        before[there] = old;
        if (cells) cells[there] = c[k];
        y[there] = h[k] = cell::forward(gates, old, c ? c + k : c, kept + (start + row) * cell::KEPT * hidden + unit);
    }
}

extern "C" __global__ void backward(
    const real* g, real* dh, real* dc, const real* kept, const real* before, const real* cells, real* d_input, real* d_state, int64 start,
    int64 rows, int64 hidden
) {
    for (int64 k = global_thread(); k < rows * hidden; k += global_threads()) {
        int64 row = k / hidden, unit = k % hidden, there = start * hidden + k, gate = (start + row) * cell::GATES * hidden + unit;
        cell::backward(
            dh[k] + g[there], dh + k, dc ? dc + k : dc, kept + (start + row) * cell::KEPT * hidden + unit, before[there],
            cells ? cells[there] : real(0), d_input + gate, d_state + gate, hidden
        );
    }
}
