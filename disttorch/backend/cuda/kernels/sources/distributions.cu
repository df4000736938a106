// Numbers of distributions that are drawn by rejection: gamma, Poisson, binomial. Each element has one place of the generator's stream
// (see random.cu), and draws as many turns of it as it needs.

struct Stream {
    uint64 key, place, turn;
    double left;
    bool has_left;

    // in [0, 1)
    __device__ double uniform() {
        if (has_left) {
            has_left = false;
            return left;
        }
        Bits b = philox(key, place, ++turn);  // turn 0 is what simple draws take
        left = unit_double(b.z, b.w);
        has_left = true;
        return unit_double(b.x, b.y);
    }

    __device__ double normal() {
        double radius = sqrt(-2.0 * log(1.0 - uniform()));
        return radius * cospi(2.0 * uniform());
    }
};

// Marsaglia and Tsang, "A simple method for generating gamma variables", 2000; below shape 1 by a power of a uniform number
__device__ double gamma(Stream& stream, double shape) {
    if (!(shape > 0)) return shape == 0 ? 0.0 : not_a_number<double>();
    if (shape - shape != 0) return shape;  // infinite: no number below would be taken
    double boost = shape < 1 ? pow(1.0 - stream.uniform(), 1.0 / shape) : 1.0;
    double d = (shape < 1 ? shape + 1.0 : shape) - 1.0 / 3.0, c = 1.0 / sqrt(9.0 * d);
    for (;;) {
        double x = stream.normal(), root = 1.0 + c * x;
        if (root <= 0) continue;
        double v = root * root * root;
        if (log(1.0 - stream.uniform()) < 0.5 * x * x + d * (1.0 - v + log(v))) return boost * d * v;
    }
}

// Small rates: how many exponential waits fit. Others: Hoermann, "The transformed rejection method for generating Poisson random
// variables", 1993, algorithm PTRS.
__device__ int64 poisson(Stream& stream, double rate) {
    if (!(rate > 0)) return 0;
    if (rate < 10) {
        double product = 1, limit = exp(-rate);
        for (int64 k = 0;; ++k) {
            product *= 1.0 - stream.uniform();
            if (product <= limit) return k;
        }
    }
    double log_rate = log(rate), b = 0.931 + 2.53 * sqrt(rate), a = -0.059 + 0.02483 * b;
    double log_inverse_alpha = log(1.1239 + 1.1328 / (b - 3.4)), inside = 0.9277 - 3.6224 / (b - 2.0);
    for (;;) {
        double u = stream.uniform() - 0.5, v = 1.0 - stream.uniform(), edge = 0.5 - fabs(u);
        double k = floor((2.0 * a / edge + b) * u + rate + 0.43);
        if (edge >= 0.07 && v <= inside) return int64(k);
        if (k < 0 || (edge < 0.013 && v > edge)) continue;
        if (log(v) + log_inverse_alpha - log(a / (edge * edge) + b) <= k * log_rate - rate - lgamma(k + 1.0)) return int64(k);
    }
}

// p is at most 1/2. Few expected: the distribution function inverted. Others: Hoermann, "The generation of binomial random variates",
// 1993, algorithm BTRS.
__device__ double binomial_of_half(Stream& stream, double n, double p) {
    double q = 1.0 - p, ratio = p / q, spread = sqrt(n * p * q);
    if (n * p < 10) {
        double first = exp(n * log1p(-p)), limit = fmin(n, n * p + 10.0 * spread + 20.0);
        for (;;) {
            double u = stream.uniform(), chance = first, k = 0;
            while (u > chance && k <= limit) {
                u -= chance;
                k += 1;
                chance *= (n - k + 1) * ratio / k;
            }
            if (k <= limit) return k;
        }
    }
    double b = 1.15 + 2.53 * spread, a = -0.0873 + 0.0248 * b + 0.01 * p, c = n * p + 0.5;
    double inside = 0.92 - 4.2 / b, alpha = (2.83 + 5.1 / b) * spread, m = floor((n + 1) * p);
    double at_m = lgamma(m + 1.0) + lgamma(n - m + 1.0), log_ratio = log(ratio);
    for (;;) {
        double u = stream.uniform() - 0.5, v = 1.0 - stream.uniform(), edge = 0.5 - fabs(u);
        double k = floor((2.0 * a / edge + b) * u + c);
        if (k < 0 || k > n) continue;
        if (edge >= 0.07 && v <= inside) return k;
        if (log(v * alpha / (a / (edge * edge) + b)) <= at_m - lgamma(k + 1.0) - lgamma(n - k + 1.0) + (k - m) * log_ratio) return k;
    }
}

__device__ int64 binomial(Stream& stream, int64 count, double p) {
    if (count <= 0 || !(p > 0)) return 0;
    if (p >= 1) return count;
    return p > 0.5 ? count - int64(binomial_of_half(stream, double(count), 1.0 - p)) : int64(binomial_of_half(stream, double(count), p));
}

template <typename F>
__device__ __forceinline__ void draw(RandomState* state, int64 n, F f) {
    uint64 key = state->key, first = state->place;
    for (int64 i = global_thread(); i < n; i += global_threads()) {
        Stream stream = {key, first + uint64(i), 0, 0.0, false};
        f(i, stream);
    }
    advance(state, uint64(n));
}

extern "C" __global__ void draw_gamma(RandomState* state, const double* shape, double* out, int64 n) {
    draw(state, n, [=](int64 i, Stream& stream) { out[i] = gamma(stream, shape[i]); });
}

extern "C" __global__ void draw_poisson(RandomState* state, const double* rate, int64* out, int64 n) {
    draw(state, n, [=](int64 i, Stream& stream) { out[i] = poisson(stream, rate[i]); });
}

extern "C" __global__ void draw_binomial(RandomState* state, const int64* count, const double* p, int64* out, int64 n) {
    draw(state, n, [=](int64 i, Stream& stream) { out[i] = binomial(stream, count[i], p[i]); });
}
