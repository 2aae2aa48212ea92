// ---------------------------------------------------------------- patch model, very small boxes: all in registers

// Appended to kernels.cu, compiled with it. A thread owns one rotation of one patch at a time: pixels, target, the gains
// of all (2 L - 1)^2 shifts and its own sums stay in registers, since every loop below is unrolled; the threads of a
// patch normalise through shared memory. Float32 only, every pixel valid, no margin; patch_direct does all
// other cases. The double build would not fit in registers and holds no code.

// Patches per thread: number of terms summed in float32 before they are summed in float64 over the block.
#define SMALL_RUN 16
#define SMALL_THREADS 128

template <int L>
__device__ inline void patch_small(const real* pixels, const real* target, const real* square, double* sums,
                                   double* log_evidence, double* empty_mass, real log_shown, real log_empty,
                                   int rotations, int items) {
    DYNAMIC_SHARED(memory);
    constexpr int AREA = L * L, REACH = 2 * L - 1, POSES = REACH * REACH;
    LogSum* parts = reinterpret_cast<LogSum*>(memory);                    // one per thread
    real* energy = reinterpret_cast<real*>(parts + SMALL_THREADS);        // (K, 2L - 1, 2L - 1), and log_shown in it
    real* own = energy + rotations * POSES;                               // (2 L^2, threads)
    const int slots = SMALL_THREADS / rotations;                          // patches that a block works on together
    const int slot = threadIdx.x / rotations, k = threadIdx.x - slot * rotations;

    for (int i = threadIdx.x; i < rotations * POSES; i += SMALL_THREADS) {
        const int turned = i / POSES, row = (i - turned * POSES) / REACH - L + 1, column = i % REACH - L + 1;
        real lost = 0;
        for (int y = 0; y < L; ++y) {
            for (int x = 0; x < L; ++x) {
                const bool shows = y + row >= 0 && y + row < L && x + column >= 0 && x + column < L;
                if (shows) lost += square[turned * AREA + y * L + x];
            }
        }
        energy[i] = lost - log_shown;
    }
    real seen[AREA], covered[AREA], image[AREA];
#pragma unroll
    for (int i = 0; i < AREA; ++i) {
        seen[i] = covered[i] = 0;
        image[i] = slot < slots ? target[k * AREA + i] : real(0);
    }
    for (int round = 0; round < SMALL_RUN; ++round) {
        const int m = (blockIdx.x * SMALL_RUN + round) * slots + slot;
        const bool busy = slot < slots && m < items;
        real patch[AREA], gain[POSES];
        __syncthreads();  // energies are there, the parts of the previous patch are read
        if (busy) {
#pragma unroll
            for (int i = 0; i < AREA; ++i) patch[i] = pixels[offset(m) * AREA + i];
            real top = log_zero();
#pragma unroll
            for (int row = 1 - L; row < L; ++row) {
#pragma unroll
                for (int column = 1 - L; column < L; ++column) {
                    const int pose = (row + L - 1) * REACH + column + L - 1;
                    real score = -energy[k * POSES + pose];
#pragma unroll
                    for (int y = (row < 0 ? -row : 0); y < (row < 0 ? L : L - row); ++y) {
#pragma unroll
                        for (int x = (column < 0 ? -column : 0); x < (column < 0 ? L : L - column); ++x) {
                            score += patch[(y + row) * L + x + column] * image[y * L + x];
                        }
                    }
                    gain[pose] = score;
                    top = score > top ? score : top;
                }
            }
            real sum = 0;
#pragma unroll
            for (int pose = 0; pose < POSES; ++pose) {
                gain[pose] = exp(gain[pose] - top);
                sum += gain[pose];
            }
            parts[threadIdx.x] = {top, double(sum)};
        }
        __syncthreads();
        if (busy) {
            LogSum total = nothing();
            for (int turned = 0; turned < rotations; ++turned) total = merge(total, parts[slot * rotations + turned]);
            add(total, log_empty);
            const real scale = exp(parts[threadIdx.x].max - total.max) * real(1.0 / total.sum);
#pragma unroll
            for (int row = 1 - L; row < L; ++row) {
                real mass[L] = {};
#pragma unroll
                for (int column = 1 - L; column < L; ++column) {
                    const real weight = gain[(row + L - 1) * REACH + column + L - 1] * scale;
#pragma unroll
                    for (int x = (column < 0 ? -column : 0); x < (column < 0 ? L : L - column); ++x) {
                        mass[x] += weight;
#pragma unroll
                        for (int y = (row < 0 ? -row : 0); y < (row < 0 ? L : L - row); ++y) {
                            seen[y * L + x] += weight * patch[(y + row) * L + x + column];
                        }
                    }
                }
#pragma unroll
                for (int y = (row < 0 ? -row : 0); y < (row < 0 ? L : L - row); ++y) {
#pragma unroll
                    for (int x = 0; x < L; ++x) covered[y * L + x] += mass[x];
                }
            }
            if (k == 0) {
                log_evidence[m] = double(total.max) + log(total.sum);
                empty_mass[m] = exp(double(log_empty) - double(total.max)) / total.sum;
            }
        }
    }
#pragma unroll
    for (int i = 0; i < AREA; ++i) {
        own[i * SMALL_THREADS + threadIdx.x] = seen[i];
        own[(AREA + i) * SMALL_THREADS + threadIdx.x] = covered[i];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * rotations * AREA; i += SMALL_THREADS) {
        const int of = i / (rotations * AREA), turned = i / AREA % rotations, pixel = i % AREA;
        double total = 0;
        for (int s = 0; s < slots; ++s) total += own[(of * AREA + pixel) * SMALL_THREADS + s * rotations + turned];
        sums[offset(blockIdx.x) * 2 * rotations * AREA + i] = total;
    }
}

#define PATCH_SMALL(name, L)                                                                                         \
    extern "C" __global__ void __launch_bounds__(SMALL_THREADS)                                                      \
        name(const real* pixels, const real* target, const real* square, double* sums, double* log_evidence,         \
             double* empty_mass, real log_shown, real log_empty, int rotations, int items) {                         \
        if constexpr (sizeof(real) == 4) {                                                                           \
            patch_small<L>(pixels, target, square, sums, log_evidence, empty_mass, log_shown, log_empty, rotations,  \
                           items);                                                                                   \
        }                                                                                                            \
    }

PATCH_SMALL(patch_small_3, 3)
PATCH_SMALL(patch_small_4, 4)
PATCH_SMALL(patch_small_5, 5)
