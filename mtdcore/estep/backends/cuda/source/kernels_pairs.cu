// ---------------------------------------------------------------- window model through our own transforms

// Two templates at a time, as the real and the imaginary part of one image: pair p is F_2p - i F_2p+1 over sigma^2, and
//   M_hat conj(pair_hat) -> gain_2p + i gain_2p+1       M_hat conj(weight_hat) -> seen_2p - i seen_2p+1,
// weight = w_2p + i w_2p+1. Planes are complex, rows x columns. Every seen pixel must be valid.
// A plane is read and written four times: each transform of the lines of one axis includes the steps before and after it.

// Number of transforms along columns in a block, side by side; consecutive blocks together read and write whole lines of
// the cache.
#define LANES 4
#define NEIGHBOURS 4
#define COLUMN_THREADS(n) (LANES * (n) / POINTS)

// Number of transforms along rows in a block.
#define LINES(n) (2048 / (n))
#define ROW_THREADS(n) (LINES(n) * (n) / POINTS)

// Column and plane of this thread. Blocks of the same columns are consecutive, so that their pixels stay in
// the cache.
struct Place {
    int column, plane;
};

__device__ inline Place column_place(int planes) {
    const int b = blockIdx.x, group = b / NEIGHBOURS / planes * NEIGHBOURS + b % NEIGHBOURS;
    return {group * LANES + int(threadIdx.x) % LANES, b / NEIGHBOURS % planes};
}

// planes(p, m) = M_hat conj(pair_hat), inverse transform along the columns; rows with corners only. A block loops over the
// items of a group (blockIdx.y).
template <int N>
__device__ inline void correlate_lines(const Complex* pixels_hat, const Complex* pair_hat, const Corners* corners,
                                       Complex* planes, int pairs, int items, int columns) {
    DYNAMIC_SHARED(memory);
    const int T = N / POINTS, t = threadIdx.x / LANES, groups = gridDim.y;
    const Place place = column_place(pairs);
    const int first = int(offset(items) * blockIdx.y / groups), last = int(offset(items) * (blockIdx.y + 1) / groups);
    const offset start = offset(t) * columns + place.column;
    const Complex* from = pair_hat + offset(place.plane) * N * columns + start;
    Complex pair[POINTS];
#pragma unroll
    for (int i = 0; i < POINTS; ++i) pair[i] = from[offset(T * i) * columns];
    prepare<N, 1>(memory);
    for (int m = first; m < last; ++m) {
        const Complex* pixels = pixels_hat + offset(m) * N * columns + start;
        Complex x[POINTS];
#pragma unroll
        for (int i = 0; i < POINTS; ++i) x[i] = times_conjugate(pixels[offset(T * i) * columns], pair[i]);
        transform<N, 1>(x, t, memory, threadIdx.x % LANES, LANES);
        Complex* plane = planes + (offset(place.plane) * items + m) * N * columns + start;
        const int rows = corners[m].rows;
#pragma unroll
        for (int i = 0; i < POINTS; ++i) {
            if (t + T * i < rows) plane[offset(T * i) * columns] = x[i];
        }
    }
}

// Inverse transform along the rows, in place: gains plus `level` (K,), and their log-sum, odds(m, x) = A(x).
template <int N>
__device__ inline void odds_lines(Complex* planes, const real* level, const Corners* corners, real* odds,
                                  real log_prior, int pairs, int items, int rows) {
    DYNAMIC_SHARED(memory);
    const int T = N / POINTS, t = threadIdx.x % T, line = threadIdx.x / T;
    const int place = line * spaced(N);
    const int m = blockIdx.y, row = blockIdx.x * LINES(N) + line;
    const Corners tile = corners[m];
    if (int(blockIdx.x) * LINES(N) < tile.rows) {  // the same for the whole block
        NearSum total[POINTS];
#pragma unroll
        for (int i = 0; i < POINTS; ++i) total[i] = {NOTHING_NEAR, 0};
        prepare<N, 1>(memory);
        for (int p = 0; p < pairs; ++p) {
            Complex* plane = planes + ((offset(p) * items + m) * rows + row) * N + t;
            Complex x[POINTS];
#pragma unroll
            for (int i = 0; i < POINTS; ++i) x[i] = row < tile.rows ? plane[T * i] : Complex{0, 0};
            transform<N, 1>(x, t, memory, place, 1);
            const real first = level[2 * p], second = level[2 * p + 1];
#pragma unroll
            for (int i = 0; i < POINTS; ++i) {
                x[i] = {x[i].re + first, x[i].im + second};
                if (row < tile.rows) plane[T * i] = x[i];
                const real larger = x[i].re > x[i].im ? x[i].re : x[i].im, apart = fabs(x[i].re - x[i].im);
                add(total[i], larger, real(1) + quick_exp(-apart));
            }
        }
#pragma unroll
        for (int i = 0; i < POINTS; ++i) {
            const int column = t + T * i;
            const bool inside = row < tile.rows && column < tile.columns;
            if (row < rows) {
                odds[(offset(m) * rows + row) * N + column] =
                    inside ? total[i].max + quick_log(total[i].sum) + log_prior : log_zero();
            }
        }
    } else if (row < rows) {
        for (int i = 0; i < POINTS; ++i) odds[(offset(m) * rows + row) * N + t + T * i] = log_zero();
    }
}

// Converts gains to weights and transforms these along the rows, in place; owned rows only.
template <int N>
__device__ inline void weigh_lines(Complex* planes, const real* normaliser, const Corners* corners, real log_prior,
                                   int pairs, int items, int rows) {
    DYNAMIC_SHARED(memory);
    const int T = N / POINTS, t = threadIdx.x % T, line = threadIdx.x / T;
    const int place = line * spaced(N);
    const int m = blockIdx.y, first = corners[m].first_row + blockIdx.x * LINES(N), last = corners[m].last_row;
    if (first >= last) return;
    const int row = first + line;
    const real* norm = normaliser + (offset(m) * rows + row) * N + t;
    real own[POINTS];
#pragma unroll
    for (int i = 0; i < POINTS; ++i) own[i] = row < last ? norm[T * i] - log_prior : -log_zero();
    prepare<N, -1>(memory);
    for (int p = blockIdx.z; p < pairs; p += gridDim.z) {
        Complex* plane = planes + ((offset(p) * items + m) * rows + row) * N + t;
        Complex x[POINTS];
#pragma unroll
        for (int i = 0; i < POINTS; ++i) {
            x[i] = row < last ? plane[T * i] : Complex{0, 0};
            x[i] = {quick_exp(x[i].re - own[i]), quick_exp(x[i].im - own[i])};
        }
        transform<N, -1>(x, t, memory, place, 1);
        if (row < last) {
#pragma unroll
            for (int i = 0; i < POINTS; ++i) plane[T * i] = x[i];
        }
    }
}

// Transform along the columns, then sums over the items of a group (blockIdx.y) of 16 or fewer: M_hat conj(weight_hat), and
// the sums of the weights, mass (groups, K). `more`: add to the contents of sums and mass.
template <int N>
__device__ inline void backproject_lines(const Complex* planes, const Complex* pixels_hat, const Corners* corners,
                                         Complex* sums, double* mass, int pairs, int items, int columns, int more) {
    DYNAMIC_SHARED(memory);
    const int T = N / POINTS, t = threadIdx.x / LANES, groups = gridDim.y;
    const Place place = column_place(pairs);
    const int p = place.plane, column = place.column;
    const int first = int(offset(items) * blockIdx.y / groups), last = int(offset(items) * (blockIdx.y + 1) / groups);
    Complex total[POINTS];
    double weighed[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < POINTS; ++i) total[i] = {0, 0};
    prepare<N, -1>(memory);
    for (int m = first; m < last; ++m) {
        const Complex* plane = planes + (offset(p) * items + m) * N * columns + column;
        const Complex* pixels = pixels_hat + offset(m) * N * columns + column;
        const int top = corners[m].first_row, bottom = corners[m].last_row;
        Complex x[POINTS];
#pragma unroll
        for (int i = 0; i < POINTS; ++i) {
            const int row = t + T * i;
            x[i] = row >= top && row < bottom ? plane[offset(row) * columns] : Complex{0, 0};
        }
        transform<N, -1>(x, t, memory, threadIdx.x % LANES, LANES);
        weighed[0] += x[0].re;
        weighed[1] += x[0].im;
#pragma unroll
        for (int i = 0; i < POINTS; ++i) {
            const Complex seen = times_conjugate(pixels[offset(t + T * i) * columns], x[i]);
            total[i] = {total[i].re + seen.re, total[i].im + seen.im};
        }
    }
    Complex* out = sums + (offset(blockIdx.y) * pairs + p) * N * columns + column;
#pragma unroll
    for (int i = 0; i < POINTS; ++i) {
        Complex* here = out + offset(t + T * i) * columns;
        *here = more ? Complex{here->re + total[i].re, here->im + total[i].im} : total[i];
    }
    if (column == 0 && t == 0) {
        double* mine = mass + 2 * (offset(blockIdx.y) * pairs + p);
        for (int j = 0; j < 2; ++j) mine[j] = weighed[j] + (more ? mine[j] : 0.0);
    }
}

#define PAIR_KERNELS(n)                                                                                                \
    extern "C" __global__ void __launch_bounds__(COLUMN_THREADS(n))                                                    \
        correlate_lines_##n(const Complex* pixels_hat, const Complex* pair_hat, const Corners* corners,                \
                            Complex* planes, int pairs, int items, int columns) {                                      \
        correlate_lines<n>(pixels_hat, pair_hat, corners, planes, pairs, items, columns);                              \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(ROW_THREADS(n))                                                       \
        odds_lines_##n(Complex* planes, const real* level, const Corners* corners, real* odds, real log_prior,         \
                       int pairs, int items, int rows) {                                                               \
        odds_lines<n>(planes, level, corners, odds, log_prior, pairs, items, rows);                                    \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(ROW_THREADS(n))                                                       \
        weigh_lines_##n(Complex* planes, const real* normaliser, const Corners* corners, real log_prior, int pairs,    \
                        int items, int rows) {                                                                         \
        weigh_lines<n>(planes, normaliser, corners, log_prior, pairs, items, rows);                                    \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(COLUMN_THREADS(n))                                                    \
        backproject_lines_##n(const Complex* planes, const Complex* pixels_hat, const Corners* corners, Complex* sums, \
                              double* mass, int pairs, int items, int columns, int more) {                             \
        backproject_lines<n>(planes, pixels_hat, corners, sums, mass, pairs, items, columns, more);                    \
    }

PAIR_KERNELS(512)
PAIR_KERNELS(1024)
