// ---------------------------------------------------------------- window model as matrix products (docs/gpu.md)

// Appended to kernels.cu, compiled with it. Windows, templates and weights are half precision, in rows of a multiple
// of 8 numbers, as tensor cores require; their products are float. `real` is not used here.

#ifdef HOST_SHIM
__device__ inline unsigned short to_half(float x) {
    const _Float16 half = static_cast<_Float16>(x);
    unsigned short bits;
    std::memcpy(&bits, &half, sizeof bits);
    return bits;
}
__device__ inline float fast_exp(float x) { return std::exp(x); }
#else
__device__ inline unsigned short to_half(float x) {  // without a header, which NVRTC does not find everywhere
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
__device__ inline float fast_exp(float x) { return __expf(x); }  // far more precise than half, to which it is rounded
#endif

struct alignas(16) FloatPack {
    float v[4];
};
struct alignas(16) HalfPack {
    unsigned short v[8];
};
struct alignas(8) HalfQuad {
    unsigned short v[4];
};
struct alignas(16) IntPack {
    int v[4];
};

// A column of the matrix holds the pixel at an offset in the tile (negative in a margin), or one of these constants.
#define COLUMN_OF_ZEROS (-(1 << 30))
#define COLUMN_OF_ONES (COLUMN_OF_ZEROS - 1)

// Windows of `count` corners in row-major order, from corner `first` on, of a tile with `corner_columns` corners in a
// row: out(x, q) = r(x) factor M[x + offsets[q]]. `odds` null: r = 1. Otherwise r = exp(A(x) - log(1 + S(x)) - top),
// the posterior of a copy at x relative to the largest of the tile, so that small posteriors keep their digits in half.
extern "C" __global__ void cut_windows(const float* pixels, const IntPack* offsets, const float* odds,
                                       const float* normaliser, const float* top, HalfPack* out, float factor,
                                       int count, int first, int corner_columns, int pixel_stride, int odds_stride,
                                       int packs) {
    const offset total = offset(count) * packs;
    for (offset i = offset(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += offset(gridDim.x) * blockDim.x) {
        const int window = int(i / packs), pack = int(i - offset(window) * packs);
        const int corner = first + window, row = corner / corner_columns, column = corner - row * corner_columns;
        float share = 1;
        if (odds != nullptr) {
            const offset here = offset(row) * odds_stride + column;
            share = fast_exp(odds[here] - normaliser[here] - top[0]);
        }
        const float* origin = pixels + offset(row) * pixel_stride + column;
        const IntPack where[2] = {offsets[2 * pack], offsets[2 * pack + 1]};
        HalfPack cut;
        for (int j = 0; j < 8; ++j) {
            const int o = where[j / 4].v[j % 4];
            float pixel = o == COLUMN_OF_ONES ? 1.0f : 0.0f;
            // a corner that is not owned has share 0, and its frame may reach beyond the tile
            if (o > COLUMN_OF_ZEROS && share > 0) pixel = factor * origin[o];
            cut.v[j] = to_half(share * pixel);
        }
        out[i] = cut;
    }
}

// A(x) = log sum_k exp(score(x, k) + shift_k) + log_prior for `count` corners, one warp per corner; padding columns
// have a shift of -1e30, which replaces log 0 without NaN.
extern "C" __global__ void __launch_bounds__(256)
    row_log_sums(const FloatPack* scores, const FloatPack* shift, float* odds, float log_prior, int count, int first,
                 int corner_columns, int odds_stride, int packs) {
    const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    for (int x = blockIdx.x * warps + threadIdx.x / 32; x < count; x += gridDim.x * warps) {
        const FloatPack* row = scores + offset(x) * packs;
        float top = -1e30f, sum = 0;
#pragma unroll 4
        for (int p = lane; p < packs; p += 32) {
            FloatPack gain = row[p];
            const FloatPack more = shift[p];
            for (int j = 0; j < 4; ++j) gain.v[j] += more.v[j];
            const float here = fmaxf(fmaxf(gain.v[0], gain.v[1]), fmaxf(gain.v[2], gain.v[3]));
            if (here > top) {
                sum *= fast_exp(top - here);
                top = here;
            }
            for (int j = 0; j < 4; ++j) sum += fast_exp(gain.v[j] - top);
        }
        for (int lanes = 16; lanes > 0; lanes /= 2) {
            const float other_top = __shfl_xor_sync(0xffffffffu, top, lanes);
            const float other_sum = __shfl_xor_sync(0xffffffffu, sum, lanes);
            const float larger = fmaxf(top, other_top);
            sum = sum * fast_exp(top - larger) + other_sum * fast_exp(other_top - larger);
            top = larger;
        }
        if (lane == 0) {
            const int corner = first + x, line = corner / corner_columns;
            odds[offset(line) * odds_stride + corner - line * corner_columns] = top + logf(sum) + log_prior;
        }
    }
}

// The posterior of each template given a copy at x: exp(score(x, k) + shift_k + log_prior - A(x)), which
// sums to 1 over k. A warp for each corner.
extern "C" __global__ void __launch_bounds__(256)
    row_shares(const FloatPack* scores, const FloatPack* shift, const float* odds, HalfQuad* shares, float log_prior,
               int count, int first, int corner_columns, int odds_stride, int packs) {
    const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    for (int x = blockIdx.x * warps + threadIdx.x / 32; x < count; x += gridDim.x * warps) {
        const int corner = first + x, line = corner / corner_columns;
        const float total = odds[offset(line) * odds_stride + corner - line * corner_columns] - log_prior;
        const FloatPack* row = scores + offset(x) * packs;
        HalfQuad* out = shares + offset(x) * packs;
#pragma unroll 4
        for (int p = lane; p < packs; p += 32) {
            const FloatPack gain = row[p], more = shift[p];
            HalfQuad share;
            for (int j = 0; j < 4; ++j) share.v[j] = to_half(fast_exp(gain.v[j] + more.v[j] - total));
            out[p] = share;
        }
    }
}
