// Kernels of the CUDA backend: everything between the Fourier transforms, and a fused direct path for small boxes.
//
//   docs/model.md             here
//   M_m                       pixels, item m: one patch, or one tile of windows, invalid pixels 0
//   box (masked: valid)       valid, one per item, or one shared by all items
//   R_k F / sigma^2           target, rotation k           (divided by N1 N2: the transforms are unnormalised)
//   (R_k F)^2 / (2 sigma^2)   square, rotation k           (likewise)
//   hat                       suffix _hat: half spectrum of F = N1 (N2 / 2 + 1) frequencies
//   (c - e/2) / sigma^2       gain(l, k) = Lambda(x, k)
//   log rho                   log_shown for one pose that shows the target, log_empty for all the empty ones together
//   log(lambda / K)           log_prior
//   A(x) = log sum_k a_k(x)   odds
//   log S(x), log(1 + S(x))   competition, normaliser
//   w                         weight, written over gain
//
// Maps are (K, items, N1, N2), row-major; N2 is a multiple of 4, so every plane is a whole number of Packs and every
// load and store is 128 bits wide and coalesced. Shift l of an item sits at l mod (N1, N2). Sums over more than a few
// terms are float64. Without atomics, the same launch gives the same bits.
//
// Compiled by NVRTC with -DREAL=float or -DREAL=double; the tests compile the same text as C++ with HOST_SHIM defined.

#ifdef HOST_SHIM
#include "cuda_shim.h"
#else
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

typedef REAL real;
typedef long long offset;  // flat offsets: maps may exceed 2^31 elements

struct alignas(2 * sizeof(real)) Complex {
    real re, im;
};
struct alignas(16) Pack {
    real v[4];
};
struct alignas(16) ComplexPack {
    Complex v[2];
};

#define THREAD_STRIDE(i, n) for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += gridDim.x * blockDim.x)

// ---------------------------------------------------------------- sums in the log domain

__device__ inline real log_zero() { return -__int_as_float(0x7f800000); }

// exp(max) * sum, kept apart so that neither overflows.
struct LogSum {
    real max;
    double sum;
};

__device__ inline LogSum nothing() { return {log_zero(), 0.0}; }

__device__ inline void add(LogSum& total, real value) {
    if (value == log_zero()) return;
    if (value <= total.max) {
        total.sum += exp(value - total.max);
    } else {
        total.sum = total.sum * exp(total.max - value) + 1.0;
        total.max = value;
    }
}

__device__ inline LogSum merge(LogSum a, LogSum b) {
    if (a.max < b.max) {
        const LogSum c = a;
        a = b;
        b = c;
    }
    if (b.sum > 0.0) a.sum += b.sum * exp(b.max - a.max);
    return a;
}

__device__ inline real value(LogSum a) { return a.max + static_cast<real>(log(a.sum)); }

__device__ inline real log_one_plus_exp(real x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }

struct Pair {
    double first, second;
};

__device__ inline Pair merge(Pair a, Pair b) { return {a.first + b.first, a.second + b.second}; }

// ---------------------------------------------------------------- reductions over a warp and a block

__device__ inline LogSum partner(LogSum a, int lanes) {
    return {__shfl_xor_sync(0xffffffffu, a.max, lanes), __shfl_xor_sync(0xffffffffu, a.sum, lanes)};
}

__device__ inline Pair partner(Pair a, int lanes) {
    return {__shfl_xor_sync(0xffffffffu, a.first, lanes), __shfl_xor_sync(0xffffffffu, a.second, lanes)};
}

// Total over the block, in every thread. `scratch` holds one T per warp. The block must be whole warps.
template <typename T>
__device__ T block_total(T mine, T* scratch) {
    for (int lanes = 16; lanes > 0; lanes /= 2) mine = merge(mine, partner(mine, lanes));
    __syncthreads();  // the scratch may still be read from an earlier call
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = mine;
    __syncthreads();
    T total = scratch[0];
    for (unsigned warp = 1; warp < blockDim.x / 32; ++warp) total = merge(total, scratch[warp]);
    return total;
}

// ---------------------------------------------------------------- spectra

__device__ inline Complex times_conjugate(Complex a, Complex b) {
    return {a.re * b.re + a.im * b.im, a.im * b.re - a.re * b.im};
}

// gain_hat_k = M_hat conj(target_hat_k) - valid_hat conj(square_hat_k): score and energy in one inverse transform.
// `square_hat` null: energies are the same at every shift, and part of `level`. `level`, null or (K,), is added to
// gain_hat_k(0): a constant on the map.
// A thread keeps its frequencies of rotation blockIdx.y in registers and loops over the items.
extern "C" __global__ void correlate_spectra(const ComplexPack* pixels_hat, const ComplexPack* valid_hat,
                                             const ComplexPack* target_hat, const ComplexPack* square_hat,
                                             const real* level, ComplexPack* gain_hat, int rotations, int items,
                                             int masks, int packs) {
    for (int k = blockIdx.y; k < rotations; k += gridDim.y) {
        THREAD_STRIDE(f, packs) {
            const ComplexPack target = target_hat[offset(k) * packs + f];
            ComplexPack square = {};
            if (square_hat != nullptr) square = square_hat[offset(k) * packs + f];
            for (int m = blockIdx.z; m < items; m += gridDim.z) {
                const ComplexPack pixels = pixels_hat[offset(m) * packs + f];
                ComplexPack valid = {}, out;
                if (square_hat != nullptr) valid = valid_hat[offset(masks == 1 ? 0 : m) * packs + f];
                for (int j = 0; j < 2; ++j) {
                    const Complex score = times_conjugate(pixels.v[j], target.v[j]);
                    const Complex energy = times_conjugate(valid.v[j], square.v[j]);
                    out.v[j] = {score.re - energy.re, score.im - energy.im};
                }
                if (level != nullptr && f == 0) out.v[0].re += level[k];
                gain_hat[(offset(k) * items + m) * packs + f] = out;
            }
        }
    }
}

// sums[0] = sum_m M_hat conj(w_hat_mk), sums[1] = sum_m valid_hat conj(w_hat_mk), one partial sum per group of items
// (blockIdx.z): back-projection and coverage before their inverse transform. Runs of 16 terms are summed in `real`,
// the runs in float64: float64 arithmetic is slow on many cards, and rounding of 16 terms is below the precision of the data.
// mass (groups, K) is the sum of all weights. `valid_hat` null: only sums[0]; the coverage is the mass at every pixel.
// `more`: add to the contents of sums and mass.
extern "C" __global__ void backproject_spectra(const ComplexPack* pixels_hat, const ComplexPack* valid_hat,
                                               const ComplexPack* weight_hat, ComplexPack* sums, double* mass,
                                               int rotations, int items, int masks, int packs, int more) {
    const int RUN = 16;
    const int groups = gridDim.z;
    const int first = int(offset(items) * blockIdx.z / groups), last = int(offset(items) * (blockIdx.z + 1) / groups);
    for (int k = blockIdx.y; k < rotations; k += gridDim.y) {
        THREAD_STRIDE(f, packs) {
            const offset here = (offset(blockIdx.z) * rotations + k) * packs + f;
            const offset there = here + offset(groups) * rotations * packs;  // of the coverage
            double total[8] = {}, weighed = 0;
            if (more) {
                const ComplexPack seen = sums[here], covered = valid_hat != nullptr ? sums[there] : ComplexPack{};
                for (int j = 0; j < 2; ++j) {
                    total[4 * j] = seen.v[j].re;
                    total[4 * j + 1] = seen.v[j].im;
                    total[4 * j + 2] = covered.v[j].re;
                    total[4 * j + 3] = covered.v[j].im;
                }
            }
            for (int start = first; start < last; start += RUN) {
                real run[8] = {};
                const int stop = start + RUN < last ? start + RUN : last;
#pragma unroll 4
                for (int m = start; m < stop; ++m) {
                    const ComplexPack weight = weight_hat[(offset(k) * items + m) * packs + f];
                    const ComplexPack pixels = pixels_hat[offset(m) * packs + f];
                    ComplexPack valid = {};
                    if (valid_hat != nullptr) valid = valid_hat[offset(masks == 1 ? 0 : m) * packs + f];
                    if (f == 0) weighed += weight.v[0].re;
                    for (int j = 0; j < 2; ++j) {
                        const Complex seen = times_conjugate(pixels.v[j], weight.v[j]);
                        const Complex covered = times_conjugate(valid.v[j], weight.v[j]);
                        run[4 * j] += seen.re;
                        run[4 * j + 1] += seen.im;
                        run[4 * j + 2] += covered.re;
                        run[4 * j + 3] += covered.im;
                    }
                }
                for (int i = 0; i < 8; ++i) total[i] += run[i];
            }
            ComplexPack seen, covered;
            for (int j = 0; j < 2; ++j) {
                seen.v[j] = {real(total[4 * j]), real(total[4 * j + 1])};
                covered.v[j] = {real(total[4 * j + 2]), real(total[4 * j + 3])};
            }
            sums[here] = seen;
            if (valid_hat != nullptr) sums[there] = covered;
            if (f == 0) {
                double* mine = &mass[offset(blockIdx.z) * rotations + k];
                *mine = weighed + (more ? *mine : 0.0);
            }
        }
    }
}

// ---------------------------------------------------------------- patch model (docs/model.md 3)

// Whether torus position i of an N x N plane holds a shift that shows some of an L x L target.
__device__ inline bool shown(int i, int side, int box) {
    const int row = i / side, column = i - row * side;
    return (row < box || row > side - box) && (column < box || column > side - box);
}

// One block per patch: log-sum-exp over all shifts and rotations, then the weights in place. The empty poses all have
// gain 0 and enter as one term; their map positions, and positions that are no shift, become 0.
extern "C" __global__ void __launch_bounds__(256)
    patch_posterior(Pack* maps, double* log_evidence, double* empty_mass, real log_shown, real log_empty, int rotations,
                    int items, int side, int box) {
    DYNAMIC_SHARED(scratch);
    const int packs = side * side / 4;
    for (int m = blockIdx.x; m < items; m += gridDim.x) {
        LogSum mine = nothing();
        for (int i = threadIdx.x; i < rotations * packs; i += blockDim.x) {
            const int k = i / packs, p = i - k * packs;
            const Pack gain = maps[(offset(k) * items + m) * packs + p];
            for (int j = 0; j < 4; ++j) {
                if (shown(4 * p + j, side, box)) add(mine, gain.v[j] + log_shown);
            }
        }
        LogSum total = block_total(mine, reinterpret_cast<LogSum*>(scratch));
        add(total, log_empty);
        const real scale = real(1.0 / total.sum);
        for (int i = threadIdx.x; i < rotations * packs; i += blockDim.x) {
            const int k = i / packs, p = i - k * packs;
            Pack* here = &maps[(offset(k) * items + m) * packs + p];
            const Pack gain = *here;
            Pack weight;
            for (int j = 0; j < 4; ++j) {
                const bool on = shown(4 * p + j, side, box);
                weight.v[j] = on ? exp(gain.v[j] + log_shown - total.max) * scale : real(0);
            }
            *here = weight;
        }
        if (threadIdx.x == 0) {
            log_evidence[m] = double(total.max) + log(total.sum);
            empty_mass[m] = exp(double(log_empty) - double(total.max)) / total.sum;
        }
    }
}

// ---------------------------------------------------------------- window model (docs/model.md 7)

// Numbers of corners of a tile, and ranges of the owned ones (half-open).
struct Corners {
    int rows, columns, first_row, last_row, first_column, last_column;
};

// A(x) = log sum_k exp(Lambda(x, k)) + log(lambda / K) at the corners of each tile, log 0 elsewhere.
extern "C" __global__ void window_odds(const Pack* maps, const Corners* corners, Pack* odds, real log_prior,
                                       int rotations, int items, int rows, int columns) {
    const int packs = rows * columns / 4;
    for (int m = blockIdx.y; m < items; m += gridDim.y) {
        const Corners tile = corners[m];
        THREAD_STRIDE(p, packs) {
            LogSum total[4] = {nothing(), nothing(), nothing(), nothing()};
#pragma unroll 4
            for (int k = 0; k < rotations; ++k) {
                const Pack gain = maps[(offset(k) * items + m) * packs + p];
                for (int j = 0; j < 4; ++j) add(total[j], gain.v[j] + log_prior);
            }
            const int row = 4 * p / columns, column = 4 * p - row * columns;  // columns is a multiple of 4
            Pack out;
            for (int j = 0; j < 4; ++j) {
                const bool inside = row < tile.rows && column + j < tile.columns;
                out.v[j] = inside ? value(total[j]) : log_zero();
            }
            odds[offset(m) * packs + p] = out;
        }
    }
}

// exp and log of the special function units: their error, some units in the last place, is that of the float32 gains.
__device__ inline float quick_exp(float x) { return __expf(x); }
__device__ inline float quick_log(float x) { return __logf(x); }
__device__ inline double quick_exp(double x) { return exp(x); }
__device__ inline double quick_log(double x) { return log(x); }

// A sum of exponentials as (largest exponent, sum relative to it): one exponential per term and no branch. The empty sum has
// the exponent -1e30, so that differences are finite.
struct NearSum {
    real max, sum;
};

#define NOTHING_NEAR real(-1e30)

// Adds `sum` times exp(value); `sum` is at least 1 and not much larger.
__device__ inline void add(NearSum& total, real value, real sum = 1) {
    const real apart = value - total.max, smaller = quick_exp(-fabs(apart));
    total.sum = apart > 0 ? total.sum * smaller + sum : total.sum + sum * smaller;
    total.max = apart > 0 ? value : total.max;
}

// Along one axis: out(x) = log sum_{|x' - x| < d} exp(in(x')), O(1) per position (van Herk): the axis is cut into
// spans as long as the window, so that every window is the end of one span and the start of the next. A block loads
// `lines` neighbouring lines, a power of two, and `spans` spans of each into shared memory, with loads and stores along
// the contiguous axis. A thread owns one span of one line: it makes the suffix sums backwards over this span, then the
// prefix sums forwards over the next one, in place; all threads add the two when they store. Neighbouring threads have
// neighbouring lines (stride 1 in shared memory) or neighbouring spans (stride 2 d - 1, odd), so that a warp has no bank
// conflicts.
extern "C" __global__ void __launch_bounds__(256)
    slide_log_sum(const real* in, real* out, int items, offset item_stride, int line_count, int line_stride, int length,
                  int stride, int separation, int lines, int spans) {
    DYNAMIC_SHARED(memory);
    const int window = 2 * separation - 1, owned = spans * window, extent = owned + window - 1;
    const bool across = line_stride == 1;  // lines are neighbours in memory
    const int x_step = across ? lines : 1, in_step = across ? 1 : extent | 1, out_step = across ? 1 : owned | 1;
    real* inputs = reinterpret_cast<real*>(memory);
    real* suffixes = inputs + (across ? extent * lines : lines * in_step);
    const int groups = (line_count + lines - 1) / lines, stretches = (length + owned - 1) / owned;
    // the contiguous axis varies fastest over the threads
    const int threads = blockDim.x, own_line = across ? threadIdx.x % lines : 0;
    const int own_x = across ? threadIdx.x / lines : threadIdx.x, next_x = across ? threads / lines : threads;
    for (int m = blockIdx.y; m < items; m += gridDim.y) {
        for (int b = blockIdx.x; b < groups * stretches; b += gridDim.x) {
            const int group = b % groups, first_line = group * lines, first = (b / groups) * owned;
            const offset origin = offset(m) * item_stride + offset(first_line) * line_stride + offset(first) * stride;
            __syncthreads();  // the sums of the previous stretch are written
            for (int line = own_line; line < lines; line += across ? lines : 1) {
                const real* from = in + origin + offset(line) * line_stride;
                const bool known = first_line + line < line_count;
                for (int x = own_x; x < extent; x += next_x) {
                    const int ahead = x - (separation - 1), source = first + ahead;
                    const bool there = known && source >= 0 && source < length;
                    const real value = there ? from[offset(ahead) * stride] : NOTHING_NEAR;
                    inputs[x * x_step + line * in_step] = value > NOTHING_NEAR ? value : NOTHING_NEAR;
                }
            }
            __syncthreads();
            for (int i = threadIdx.x; i < lines * spans; i += threads) {
                const int line = across ? i % lines : i / spans, span = across ? i / lines : i % spans;
                const real* from = inputs + line * in_step + span * window * x_step;
                real* to = suffixes + line * out_step + span * window * x_step;
                NearSum suffix = {NOTHING_NEAR, 0};
                for (int x = window - 1; x >= 0; --x) {
                    add(suffix, from[x * x_step]);
                    to[x * x_step] = suffix.max + quick_log(suffix.sum);
                }
            }
            __syncthreads();  // the inputs have been read
            for (int i = threadIdx.x; i < lines * spans; i += threads) {
                const int line = across ? i % lines : i / spans, span = across ? i / lines : i % spans;
                real* own = inputs + line * in_step + (span + 1) * window * x_step;
                NearSum prefix = {NOTHING_NEAR, 0};
                for (int x = 0; x < window - 1; ++x) {
                    add(prefix, own[x * x_step]);
                    own[x * x_step] = prefix.max + quick_log(prefix.sum);
                }
            }
            __syncthreads();
            for (int line = own_line; line < lines; line += across ? lines : 1) {
                real* to = out + origin + offset(line) * line_stride;
                const int end = first_line + line < line_count ? (length - first < owned ? length - first : owned) : 0;
                int within = own_x % window;  // position in a span: 0 where the window is one span
                for (int x = own_x; x < end; x += next_x) {
                    real near = suffixes[x * x_step + line * out_step];
                    if (within != 0) {
                        const real next = inputs[(x + window - 1) * x_step + line * in_step], apart = next - near;
                        near = (apart > 0 ? next : near) + quick_log(real(1) + quick_exp(-fabs(apart)));
                    }
                    to[offset(x) * stride] = near;
                    within = (within + next_x) % window;
                }
            }
        }
    }
}

// Number of corners of an axis within reach of one of them.
__device__ inline int neighbours(int x, int separation, int corners) {
    const int first = x - separation + 1 > 0 ? x - separation + 1 : 0;
    const int last = x + separation < corners ? x + separation : corners;
    return last - first;
}

// competition(x) -> log(1 + S(x)) at owned corners and +infinity elsewhere (weight 0), in place; partial sums per
// block of the evidence log(1 + S) - log(1 + S_0) and of the expected count sum_k w = exp(A - log(1 + S)).
extern "C" __global__ void __launch_bounds__(256)
    window_normaliser(const real* odds, real* competition, const Corners* corners, Pair* sums, real log_activity,
                      int separation, int items, int rows, int columns) {
    DYNAMIC_SHARED(scratch);
    for (int m = blockIdx.y; m < items; m += gridDim.y) {
        const Corners tile = corners[m];
        const offset plane = offset(m) * rows * columns;
        Pair mine = {0.0, 0.0};
        THREAD_STRIDE(i, rows * columns) {
            const int row = i / columns, column = i - row * columns;
            real normaliser = -log_zero();
            if (row >= tile.first_row && row < tile.last_row && column >= tile.first_column &&
                column < tile.last_column) {
                const int near = neighbours(row, separation, tile.rows) * neighbours(column, separation, tile.columns);
                normaliser = log_one_plus_exp(competition[plane + i]);
                const real blank = log_one_plus_exp(log_activity + log(real(near)));
                mine = merge(mine, {double(normaliser) - double(blank), double(exp(odds[plane + i] - normaliser))});
            }
            competition[plane + i] = normaliser;
        }
        const Pair total = block_total(mine, reinterpret_cast<Pair*>(scratch));
        if (threadIdx.x == 0) sums[m * gridDim.x + blockIdx.x] = total;
    }
}

// w(x, k) = exp(Lambda(x, k) + log(lambda / K) - log(1 + S(x))); `weights` may be `maps`.
extern "C" __global__ void window_weights(const Pack* maps, const Pack* normaliser, Pack* weights, real log_prior,
                                          int rotations, int items, int packs) {
    for (int m = blockIdx.y; m < items; m += gridDim.y) {
        THREAD_STRIDE(p, packs) {
            const Pack norm = normaliser[offset(m) * packs + p];
            for (int k = blockIdx.z; k < rotations; k += gridDim.z) {
                const offset here = (offset(k) * items + m) * packs + p;
                const Pack gain = maps[here];
                Pack weight;
                for (int j = 0; j < 4; ++j) weight.v[j] = exp(gain.v[j] + log_prior - norm.v[j]);
                weights[here] = weight;
            }
        }
    }
}

// ---------------------------------------------------------------- patch model, small boxes: one fused kernel

// <image, target shifted by o> for the four shifts o = (a or a - L, b or b - L): together exactly L^2 products, so
// every thread does the same work. Order: (a, b), (a, b - L), (a - L, b), (a - L, b - L).
__device__ inline void four_shifts(const real* image, const real* target, int box, int a, int b, real out[4]) {
    out[0] = out[1] = out[2] = out[3] = 0;
    for (int i = 0; i < box; ++i) {
        const real* pixels = image + (a + i < box ? a + i : a + i - box) * box;
        real near = 0, far = 0;
        for (int j = 0; j < box - b; ++j) near += pixels[b + j] * target[i * box + j];
        for (int j = box - b; j < box; ++j) far += pixels[b + j - box] * target[i * box + j];
        if (a + i < box) {
            out[0] += near;
            out[1] += far;
        } else {
            out[2] += near;
            out[3] += far;
        }
    }
}

// One block per patch at a time; patch, targets, energies and weights are in shared memory, only the sums are
// written. Shift o has its weight at o + L - 1; the sums of a block over its patches are float64.
// `valid` null: every pixel is valid, and the energies are computed once.
extern "C" __global__ void __launch_bounds__(256)
    patch_direct(const real* pixels, const unsigned char* valid, const real* target, const real* square, double* sums,
                 double* log_evidence, double* empty_mass, real log_shown, real log_empty, int rotations, int items,
                 int box, int margin) {
    DYNAMIC_SHARED(memory);
    const int area = box * box, reach = 2 * box - 1, poses = reach * reach;
    const int side = box + 2 * margin, frame = side * side;
    double* seen = reinterpret_cast<double*>(memory);  // (K, B, B)
    double* covered = seen + rotations * frame;        // (K, B, B)
    LogSum* scratch = reinterpret_cast<LogSum*>(covered + rotations * frame);
    real* turned = reinterpret_cast<real*>(scratch + 32);  // (K, L, L)
    real* squared = turned + rotations * area;             // (K, L, L)
    real* patch = squared + rotations * area;              // (L, L)
    real* mask = patch + area;                             // (L, L)
    real* energy = mask + area;                            // (K, 2L - 1, 2L - 1)
    real* weight = energy + rotations * poses;             // (K, 2L - 1, 2L - 1)

    for (int i = threadIdx.x; i < 2 * rotations * frame; i += blockDim.x) seen[i] = 0.0;
    for (int i = threadIdx.x; i < rotations * area; i += blockDim.x) {
        turned[i] = target[i];
        squared[i] = square[i];
    }
    bool energy_known = false;
    for (int m = blockIdx.x; m < items; m += gridDim.x) {
        __syncthreads();  // the previous patch is no longer read
        for (int i = threadIdx.x; i < area; i += blockDim.x) {
            patch[i] = pixels[offset(m) * area + i];
            mask[i] = valid == nullptr || valid[offset(m) * area + i] ? 1 : 0;
        }
        __syncthreads();
        LogSum mine = nothing();
        for (int i = threadIdx.x; i < rotations * area; i += blockDim.x) {
            const int k = i / area, a = (i - k * area) / box, b = i % box;
            real score[4], lost[4];
            four_shifts(patch, turned + k * area, box, a, b, score);
            if (!energy_known) four_shifts(mask, squared + k * area, box, a, b, lost);
            for (int j = 0; j < 4; ++j) {
                if ((j >= 2 && a == 0) || (j % 2 == 1 && b == 0)) continue;  // shift -L shows nothing
                const int row = (j >= 2 ? a - 1 : a + box - 1), column = (j % 2 == 1 ? b - 1 : b + box - 1);
                const int pose = k * poses + row * reach + column;
                if (!energy_known) energy[pose] = lost[j];
                weight[pose] = score[j] - energy[pose] + log_shown;
                add(mine, weight[pose]);
            }
        }
        energy_known = valid == nullptr;
        LogSum total = block_total(mine, scratch);  // its barriers also publish `weight`
        add(total, log_empty);
        const real scale = real(1.0 / total.sum);
        for (int i = threadIdx.x; i < rotations * poses; i += blockDim.x) {
            weight[i] = exp(weight[i] - total.max) * scale;
        }
        __syncthreads();
        for (int i = threadIdx.x; i < rotations * frame; i += blockDim.x) {
            const int k = i / frame, row = (i - k * frame) / side - margin, column = i % side - margin;
            // target pixel (row, column) meets patch pixel x under shift o = x - (row, column), |o| < L
            const int x0 = row - box + 1 > 0 ? row - box + 1 : 0, x1 = row + box < box ? row + box : box;
            const int y0 = column - box + 1 > 0 ? column - box + 1 : 0, y1 = column + box < box ? column + box : box;
            real pixel = 0, mass = 0;
            for (int x = x0; x < x1; ++x) {
                const real* w = weight + k * poses + (x - row + box - 1) * reach - column + box - 1;
                for (int y = y0; y < y1; ++y) {
                    pixel += w[y] * patch[x * box + y];
                    mass += valid == nullptr ? w[y] : w[y] * mask[x * box + y];
                }
            }
            seen[i] += pixel;
            covered[i] += mass;
        }
        if (threadIdx.x == 0) {
            log_evidence[m] = double(total.max) + log(total.sum);
            empty_mass[m] = exp(double(log_empty) - double(total.max)) / total.sum;
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * rotations * frame; i += blockDim.x) {
        sums[offset(blockIdx.x) * 2 * rotations * frame + i] = seen[i];
    }
}
