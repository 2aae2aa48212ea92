// ---------------------------------------------------------------- patch model as matrix products (docs/gpu.md)

// Appended after kernels_matrix.cu, compiled with it. Scores of a patch are a row: one for every pose, that is for
// every shift (row, column) and rotation, then padding columns, whose `shift` is -1e30.

struct Peak {
    float top;
};

__device__ inline Peak merge(Peak a, Peak b) { return {fmaxf(a.top, b.top)}; }

__device__ inline Peak partner(Peak a, int lanes) { return {__shfl_xor_sync(0xffffffffu, a.top, lanes)}; }

// w(pose) = factor exp(score + shift) / (sum over poses + exp(log_empty)), one block per patch. The first `kept`
// packs of a row stay in shared memory between the maximum, the sum and the weights; the others are read again.
extern "C" __global__ void __launch_bounds__(512)
    patch_rows(const FloatPack* scores, const FloatPack* shift, HalfQuad* weights, double* log_evidence,
               double* empty_mass, float log_empty, float factor, int items, int packs, int kept) {
    DYNAMIC_SHARED(memory);
    Pair* scratch = reinterpret_cast<Pair*>(memory);                // one per warp
    FloatPack* held = reinterpret_cast<FloatPack*>(scratch + 16);
    for (int m = blockIdx.x; m < items; m += gridDim.x) {
        const FloatPack* row = scores + offset(m) * packs;
        Peak mine = {log_empty};
#pragma unroll 4
        for (int p = threadIdx.x; p < packs; p += blockDim.x) {
            FloatPack gain = row[p];
            const FloatPack more = shift[p];
            for (int j = 0; j < 4; ++j) {
                gain.v[j] += more.v[j];
                mine.top = fmaxf(mine.top, gain.v[j]);
            }
            if (p < kept) held[p] = gain;
        }
        const float top = block_total(mine, reinterpret_cast<Peak*>(memory)).top;
        float sum = 0;
        for (int p = threadIdx.x; p < packs; p += blockDim.x) {
            FloatPack gain = p < kept ? held[p] : row[p];
            for (int j = 0; j < 4; ++j) {
                if (p >= kept) gain.v[j] += shift[p].v[j];
                gain.v[j] = fast_exp(gain.v[j] - top);
                sum += gain.v[j];
            }
            if (p < kept) held[p] = gain;
        }
        const double empty = exp(double(log_empty) - double(top));
        const double total = block_total(Pair{double(sum), 0.0}, scratch).first + empty;
        const float scale = float(double(factor) / total);
        for (int p = threadIdx.x; p < packs; p += blockDim.x) {
            const FloatPack gain = p < kept ? held[p] : row[p];
            HalfQuad weight;
            for (int j = 0; j < 4; ++j) {
                const float grown = p < kept ? gain.v[j] : fast_exp(gain.v[j] + shift[p].v[j] - top);
                weight.v[j] = to_half(grown * scale);
            }
            weights[offset(m) * packs + p] = weight;
        }
        if (threadIdx.x == 0) {
            log_evidence[m] = double(top) + log(total);
            empty_mass[m] = empty / total;
        }
    }
}

// From sum_m w_m(pose) M_m(x), rows of poses (shift row, rotation, shift column) by columns of patch pixels, to frames:
// pixel i of the frame meets pixel x = i + o of the patch under shift o. A block for a row of shifts and a rotation;
// frames (shift row, 2, K, B, B): back-projection and coverage of that row of shifts.
extern "C" __global__ void __launch_bounds__(256)
    patch_frames(const float* product, double* frames, float factor, float pixel_factor, int first_row, int rotations,
                 int box, int margin, int padded, int width, int first_pixel, int ones) {
    const int side = box + 2 * margin, frame = side * side, shift_row = first_row + blockIdx.x, k = blockIdx.y;
    const float* poses = product + (offset(blockIdx.x) * rotations + k) * padded * width;
    double* seen = frames + (offset(blockIdx.x) * 2 * rotations + k) * frame;
    double* covered = seen + offset(rotations) * frame;
    for (int i = threadIdx.x; i < frame; i += blockDim.x) {
        const int row = i / side - margin + shift_row, column = i % side - margin;
        double pixel = 0, mass = 0;
        if (row >= 0 && row < box) {
            const int first = -column > 1 - box ? -column : 1 - box;
            const int most = box - 1 - column, last = most < box - 1 ? most : box - 1;
            for (int o = first; o <= last; ++o) {
                const float* here = poses + offset(o + box - 1) * width;
                pixel += here[row * box + column + o + first_pixel];
                mass += here[ones];
            }
        }
        seen[i] = double(pixel_factor) * pixel;
        covered[i] = double(factor) * mass;
    }
}
