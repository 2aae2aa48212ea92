// ---------------------------------------------------------------- patch model, boxes of 9 to 32: one fused kernel

// Appended after kernels_fourier.cu, compiled with it. A block processes one patch at a time, without global memory for
// maps: spectrum of the patch and gains of all its poses are in registers, sums over patches in shared memory. Two
// templates are the real and imaginary part of one image (kernels_pairs.cu). Float32, every pixel valid.
//
// Transforms of N x N points, N = 4 R, by R^2 threads of 16 points: row g + R a, column c + 4 i, with a and c below 4,
//   rows      thread (g, u): butterflies of R points over i for each line (a, c) = u, u + R, ...         -> column u
//   middle    thread (g, u): butterflies of 4 points over c and over a for its 16 points (a, c)
//   columns   thread (v, u): butterflies of R points over g for each line v, v + R, ... of those 16
// so three passes and two exchanges replace the four passes and three exchanges of separate rows and columns. The first
// exchange is among the R threads of g, which are in one warp; the second needs one barrier, because consecutive transforms
// alternate between two buffers. Points are not reordered: tables and sums have the order of the threads.

// Number of patches summed in float32 before they are added in float64.
#define FUSED_RUN 64

// 2^x, with an error of two units in the last place
__device__ inline real quick_exp2(real x) {
#ifdef HOST_SHIM
    return exp2(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(float(x)));
    return y;
#endif
}

template <int R>
struct Plane {
    static constexpr int THREADS = R * R, LINES = 16 / R;
    static constexpr int AREA = 16 * (R + 1) + (R == 8 ? 8 : 0);  // of a group in a buffer, without bank conflicts
    static constexpr int BUFFER = R * AREA;

    int g, u;                    // thread (g, u), and (v, u) with v = g
    Complex across[3], down[3];  // exp(2 pi i c u / N) and exp(2 pi i a g / N), c and a from 1 on
    Complex *here, *other;       // buffers: of this transform, and of the next
};

template <int R>
__device__ inline Plane<R> make_plane(Complex* buffers) {
    Plane<R> plane;
    plane.g = threadIdx.x / R;
    plane.u = threadIdx.x % R;
    plane.here = buffers;
    plane.other = buffers + Plane<R>::BUFFER;
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        sincospi(real(2 * (i + 1) * plane.u) / real(4 * R), &plane.across[i].im, &plane.across[i].re);
        sincospi(real(2 * (i + 1) * plane.g) / real(4 * R), &plane.down[i].im, &plane.down[i].re);
    }
    return plane;
}

template <int R>
__device__ inline void change_buffers(Plane<R>& plane) {
    Complex* last = plane.here;
    plane.here = plane.other;
    plane.other = last;
}

template <int SIGN>
__device__ inline Complex turn(Complex a, Complex factor) {
    return SIGN > 0 ? times(a, factor) : times_conjugate(a, factor);
}

// Butterflies of R points for each line of a thread
template <int R, int SIGN>
__device__ inline void line_butterflies(Complex* x) {
#pragma unroll
    for (int j = 0; j < 16 / R; ++j) Butterfly<R, 1, SIGN>().run(x + j * R);
}

// From positions, in the order of the rows pass, to frequencies, in the order of the columns pass.
template <int R>
__device__ inline void to_frequencies(Plane<R>& plane, Complex* x) {
    constexpr int AREA = Plane<R>::AREA, LINES = Plane<R>::LINES;
    Complex *line = plane.here + plane.g * AREA + plane.u * (R + 1), *point = plane.here + plane.g * AREA + plane.u;
    const Complex* column = plane.here + plane.g * R + plane.u;
    line_butterflies<R, -1>(x);
#pragma unroll
    for (int j = 0; j < LINES; ++j) {
#pragma unroll
        for (int i = 0; i < R; ++i) line[j * R * (R + 1) + i] = x[j * R + i];
    }
    __syncwarp();
#pragma unroll
    for (int l = 0; l < 16; ++l) x[l] = point[l * (R + 1)];
    __syncwarp();  // the area has been read
#pragma unroll
    for (int a = 0; a < 4; ++a) {
#pragma unroll
        for (int c = 1; c < 4; ++c) x[4 * a + c] = turn<-1>(x[4 * a + c], plane.across[c - 1]);
        Butterfly<4, 1, -1>().run(x + 4 * a);
    }
#pragma unroll
    for (int c = 0; c < 4; ++c) Butterfly<4, 4, -1>().run(x + c);
#pragma unroll
    for (int l = 0; l < 16; ++l) point[l * R] = l < 4 ? x[l] : turn<-1>(x[l], plane.down[l < 4 ? 0 : l / 4 - 1]);
    __syncthreads();
#pragma unroll
    for (int j = 0; j < LINES; ++j) {
#pragma unroll
        for (int i = 0; i < R; ++i) x[j * R + i] = column[i * AREA + j * R * R];
    }
    line_butterflies<R, -1>(x);
    change_buffers(plane);
}

// The inverse transform: the same steps in reverse order.
template <int R>
__device__ inline void to_positions(Plane<R>& plane, Complex* x) {
    constexpr int AREA = Plane<R>::AREA, LINES = Plane<R>::LINES;
    Complex *line = plane.here + plane.g * AREA + plane.u * (R + 1), *point = plane.here + plane.g * AREA + plane.u;
    Complex* column = plane.here + plane.g * R + plane.u;
    line_butterflies<R, 1>(x);
#pragma unroll
    for (int j = 0; j < LINES; ++j) {
#pragma unroll
        for (int i = 0; i < R; ++i) column[i * AREA + j * R * R] = x[j * R + i];
    }
    __syncthreads();
#pragma unroll
    for (int l = 0; l < 16; ++l) {
        const Complex found = point[l * R];
        x[l] = l < 4 ? found : turn<1>(found, plane.down[l < 4 ? 0 : l / 4 - 1]);
    }
    __syncwarp();  // the area has been read
#pragma unroll
    for (int c = 0; c < 4; ++c) Butterfly<4, 4, 1>().run(x + c);
#pragma unroll
    for (int a = 0; a < 4; ++a) {
        Butterfly<4, 1, 1>().run(x + 4 * a);
#pragma unroll
        for (int c = 1; c < 4; ++c) x[4 * a + c] = turn<1>(x[4 * a + c], plane.across[c - 1]);
    }
#pragma unroll
    for (int l = 0; l < 16; ++l) point[l * (R + 1)] = x[l];
    __syncwarp();
#pragma unroll
    for (int j = 0; j < LINES; ++j) {
#pragma unroll
        for (int i = 0; i < R; ++i) x[j * R + i] = line[j * R * (R + 1) + i];
    }
    line_butterflies<R, 1>(x);
    change_buffers(plane);
}

// Pixels of a patch that this thread loads: only columns below N / 2 hold pixels.
template <int R>
__device__ inline void read_patch(const Plane<R>& plane, const real* patch, int box, real* found) {
#pragma unroll
    for (int j = 0; j < Plane<R>::LINES; ++j) {
        const int line = plane.u + R * j, row = plane.g + R * (line / 4), column = line % 4;
#pragma unroll
        for (int i = 0; i < R / 2; ++i) {
            const bool inside = row < box && column + 4 * i < box;
            found[j * (R / 2) + i] = inside ? patch[row * box + column + 4 * i] : real(0);
        }
    }
}

// spectra (SLOTS, 8, R^2) packs: conj(pair_hat) over N^2 in units of log 2, pair_p = F_2p - i F_2p+1 over sigma^2.
// level (SLOTS, 8, R^2) packs: log prior minus energy of both templates at a shift in units of log 2, -1e30 where a
// position is no shift or there is no template. sums (blocks, 2, SLOTS, 8, R^2, 2): M_hat conj(weight_hat) and the
// weights, summed over patches. scores (blocks): log-evidence and empty mass.
template <int R, int SLOTS>
__device__ inline void patch_fused(const real* pixels, const ComplexPack* spectra, const ComplexPack* level, Pair* sums,
                                   Pair* scores, real log_empty, int items, int box) {
    DYNAMIC_SHARED(memory);
    constexpr int THREADS = R * R, WARPS = THREADS / 32, SUMS = 2 * SLOTS * 8 * THREADS;
    const real LOG_2 = real(0.69314718055994530942);
    ComplexPack* total = reinterpret_cast<ComplexPack*>(memory);  // as `sums`
    Complex* buffers = reinterpret_cast<Complex*>(total + SUMS);
    NearSum* warps = reinterpret_cast<NearSum*>(buffers + 2 * Plane<R>::BUFFER);
    Plane<R> plane = make_plane<R>(buffers);
    const int t = threadIdx.x, area = box * box, step = gridDim.x;
    Pair score = {0.0, 0.0};
    real ahead[8];
    read_patch(plane, pixels + offset(blockIdx.x) * area, box, ahead);
    for (int i = t; i < SUMS; i += THREADS) total[i] = {};
    int run = 0;
    bool begun = false;
    for (int m = blockIdx.x; m < items; m += step) {
        Complex image[16];
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            const int j = i / R, k = i % R;
            image[i] = {k < R / 2 ? ahead[k < R / 2 ? j * (R / 2) + k : 0] : real(0), real(0)};
        }
        to_frequencies(plane, image);

        // weights as powers of 2 relative to the largest of a warp, one pair at a time
        Complex gain[SLOTS][16];
        real largest[SLOTS], sum[SLOTS];
#pragma unroll
        for (int p = 0; p < SLOTS; ++p) {
            Complex* x = gain[p];
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const ComplexPack pair = spectra[(p * 8 + i) * THREADS + t];
                x[2 * i] = times(image[2 * i], pair.v[0]);
                x[2 * i + 1] = times(image[2 * i + 1], pair.v[1]);
            }
            to_positions(plane, x);
            real top = NOTHING_NEAR, whole = 0;
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const ComplexPack prior = level[(p * 8 + i) * THREADS + t];
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    Complex* here = &x[2 * i + j];
                    *here = {here->re + prior.v[j].re, here->im + prior.v[j].im};
                    top = fmaxf(top, fmaxf(here->re, here->im));
                }
            }
#pragma unroll
            for (int lanes = 16; lanes > 0; lanes /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, lanes));
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                x[i] = {quick_exp2(x[i].re - top), quick_exp2(x[i].im - top)};
                whole += x[i].re + x[i].im;
            }
            largest[p] = top;
            sum[p] = whole;
        }
        if (m + step < items) read_patch(plane, pixels + offset(m + step) * area, box, ahead);

        // then relative to the sum of all
        NearSum own = {largest[0], sum[0]};
#pragma unroll
        for (int p = 1; p < SLOTS; ++p) {
            const real top = fmaxf(own.max, largest[p]);
            own = {top, own.sum * quick_exp2(own.max - top) + sum[p] * quick_exp2(largest[p] - top)};
        }
#pragma unroll
        for (int lanes = 16; lanes > 0; lanes /= 2) own.sum += __shfl_xor_sync(0xffffffffu, own.sum, lanes);
        if (t % 32 == 0) warps[t / 32] = own;
        __syncthreads();
        real highest = log_empty;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) highest = fmaxf(highest, warps[w].max);
        const real empty = quick_exp2(log_empty - highest);
        real all = empty;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) all += warps[w].sum * quick_exp2(warps[w].max - highest);
        const real share = real(1) / all;
        if (t == 0) score = merge(score, {double(LOG_2 * highest) + double(log(all)), double(empty * share)});

#pragma unroll
        for (int p = 0; p < SLOTS; ++p) {
            Complex* x = gain[p];
            const real scale = quick_exp2(largest[p] - highest) * share;
            ComplexPack *seen = total + p * 8 * THREADS + t, *weighed = seen + SLOTS * 8 * THREADS;
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                ComplexPack here = weighed[i * THREADS];
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    Complex* w = &x[2 * i + j];
                    *w = {w->re * scale, w->im * scale};
                    here.v[j] = {here.v[j].re + w->re, here.v[j].im + w->im};
                }
                weighed[i * THREADS] = here;
            }
            to_frequencies(plane, x);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                ComplexPack here = seen[i * THREADS];
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    const Complex more = times_conjugate(image[2 * i + j], x[2 * i + j]);
                    here.v[j] = {here.v[j].re + more.re, here.v[j].im + more.im};
                }
                seen[i * THREADS] = here;
            }
        }

        const bool last = m + step >= items;
        if (++run == FUSED_RUN || last) {
            Pair* out = sums + offset(blockIdx.x) * SUMS * 2;
            for (int i = t; i < SUMS; i += THREADS) {
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    const Pair more = {double(total[i].v[j].re), double(total[i].v[j].im)};
                    out[2 * i + j] = begun ? merge(out[2 * i + j], more) : more;
                }
                total[i] = {};
            }
            run = 0;
            begun = true;
        }
    }
    if (t == 0) scores[blockIdx.x] = score;
}

#define PATCH_FUSED(name, R, SLOTS)                                                                              \
    extern "C" __global__ void __launch_bounds__((R) * (R))                                                      \
        name(const real* pixels, const ComplexPack* spectra, const ComplexPack* level, Pair* sums, Pair* scores, \
             real log_empty, int items, int box) {                                                               \
        if constexpr (sizeof(real) == 4) {                                                                       \
            patch_fused<R, SLOTS>(pixels, spectra, level, sums, scores, log_empty, items, box);                  \
        }                                                                                                        \
    }

PATCH_FUSED(patch_fused_32_1, 8, 1)
PATCH_FUSED(patch_fused_32_2, 8, 2)
PATCH_FUSED(patch_fused_64_1, 16, 1)
PATCH_FUSED(patch_fused_64_2, 16, 2)
