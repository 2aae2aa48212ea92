// ---------------------------------------------------------------- Fourier transforms in registers

// Our own transforms, fused with the steps before and after them, which a library would write and read once more. N points, a
// power of two, by N / POINTS threads: thread t holds points t, t + T, t + 2 T, ..., T = N / POINTS, before and after.
// Stockham's order: a stage is butterflies of 16 points or fewer in registers, and between stages the threads exchange
// points through shared memory. SIGN is that of the exponent; nothing is divided by N.
#define POINTS 8

__device__ inline Complex times(Complex a, Complex b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

// cos of k sixteenths of a turn; k is a compile-time constant at every call.
__device__ inline real cosine(int k) {
    const int folded = (k & 15) > 8 ? 16 - (k & 15) : (k & 15);
    const int quarter = folded > 4 ? 8 - folded : folded;
    const real value = quarter == 0   ? real(1)
                       : quarter == 1 ? real(0.92387953251128675613)
                       : quarter == 2 ? real(0.70710678118654752440)
                       : quarter == 3 ? real(0.38268343236508977173)
                                      : real(0);
    return folded > 4 ? -value : value;
}

// a times exp(2 pi i SIGN k / 16)
template <int SIGN>
__device__ inline Complex turned(Complex a, int k) {
    if (k == 0) return a;
    if (k == 4) return SIGN > 0 ? Complex{-a.im, a.re} : Complex{a.im, -a.re};
    return times(a, {cosine(k), SIGN * cosine(k - 4)});
}

// R points x[0], x[S], ... in place and in natural order: R / 4 or 2 transforms of every so manieth point, then across.
template <int R, int S, int SIGN>
struct Butterfly {
    __device__ inline void run(Complex* x) {
        constexpr int P = R == 16 ? 4 : 2, Q = R / P;
        Complex y[R];
#pragma unroll
        for (int j = 0; j < P; ++j) Butterfly<Q, P * S, SIGN>().run(x + j * S);
#pragma unroll
        for (int k = 0; k < Q; ++k) {
#pragma unroll
            for (int j = 0; j < P; ++j) y[j] = turned<SIGN>(x[(j + P * k) * S], j * k * (16 / R));
            Butterfly<P, 1, SIGN>().run(y);
#pragma unroll
            for (int j = 0; j < P; ++j) x[(j + P * k) * S] = y[j];
        }
#pragma unroll
        for (int i = 0; i < R; ++i) y[i] = x[i * S];
#pragma unroll
        for (int k = 0; k < Q; ++k) {
#pragma unroll
            for (int j = 0; j < P; ++j) x[(k + Q * j) * S] = y[j + P * k];
        }
    }
};

template <int S, int SIGN>
struct Butterfly<2, S, SIGN> {
    __device__ inline void run(Complex* x) {
        const Complex a = x[0], b = x[S];
        x[0] = {a.re + b.re, a.im + b.im};
        x[S] = {a.re - b.re, a.im - b.im};
    }
};

// Index of point i in shared memory: a gap after every POINTS points avoids bank conflicts of a warp.
__device__ constexpr int spaced(int i) { return i + i / POINTS; }

// Factors between the stages of a transform of N points, in shared memory: (R - 1) NS of them before butterflies of R
// points that are NS points apart, for r = 1, ..., R - 1 those of all NS.
__device__ constexpr int radix(int n, int ns) { return n / ns < POINTS ? n / ns : POINTS; }
__device__ constexpr int first_factor(int n, int ns) {
    return ns <= POINTS ? 0 : first_factor(n, ns / POINTS) + (POINTS - 1) * ns / POINTS;
}
__device__ constexpr int factors(int n) { return n - POINTS; }

template <int N, int NS, int SIGN>
__device__ inline void make_factors(Complex* table) {
    if constexpr (NS < N) {
        constexpr int R = radix(N, NS);
        if (NS > 1) {
            for (int i = threadIdx.x; i < (R - 1) * NS; i += blockDim.x) {
                Complex* factor = &table[first_factor(N, NS) + i];
                sincospi(real(2 * SIGN * (i % NS) * (i / NS + 1)) / real(NS * R), &factor->im, &factor->re);
            }
        }
        make_factors<N, NS * R, SIGN>(table);
    }
}

// Shared memory of transforms side by side in a block: the factors and, interleaved or one after another, their points.
template <int N>
__device__ inline Complex* points_of(unsigned char* memory) {
    return reinterpret_cast<Complex*>(memory) + factors(N);
}

// To be called before the first transform of a block. A barrier must follow; the first exchange has one.
template <int N, int SIGN>
__device__ inline void prepare(unsigned char* memory) {
    make_factors<N, 1, SIGN>(reinterpret_cast<Complex*>(memory));
}

// Stages from butterflies NS points apart on. Transforms side by side, `step` of them, lie interleaved in `points`.
template <int N, int NS, int SIGN>
__device__ inline void stages(Complex* x, int t, const Complex* table, Complex* points, int step) {
    constexpr int R = radix(N, NS), B = POINTS / R, T = N / POINTS;
#pragma unroll
    for (int b = 0; b < B; ++b) {
        if (NS > 1) {
            const Complex* factor = table + first_factor(N, NS) + (t + b * T) % NS;
#pragma unroll
            for (int r = 1; r < R; ++r) x[b + r * B] = times(x[b + r * B], factor[(r - 1) * NS]);
        }
        Butterfly<R, B, SIGN>().run(x + b);
    }
    if constexpr (NS * R < N) {
        const int first = (t / NS) * NS * R + t % NS;  // B is 1 before the last stage
        __syncthreads();  // the previous points have been read
#pragma unroll
        for (int r = 0; r < R; ++r) points[(spaced(first) + r * spaced(NS)) * step] = x[r];
        __syncthreads();
#pragma unroll
        for (int i = 0; i < POINTS; ++i) x[i] = points[(spaced(t) + i * spaced(T)) * step];
        stages<N, NS * R, SIGN>(x, t, table, points, step);
    }
}

// The whole transform, after `prepare`.
template <int N, int SIGN>
__device__ inline void transform(Complex* x, int t, unsigned char* memory, int place, int step) {
    stages<N, 1, SIGN>(x, t, reinterpret_cast<const Complex*>(memory), points_of<N>(memory) + place, step);
}
