// Window model where copies differ in amplitude, a ~ N(1, v), integrated out (docs/model.md 7). Maps hold gains g without energies; `lost` is half
// the energy of each rotation, e / 2. If invalid pixels change it, `lost` has the layout of the maps: one value per window.

__device__ inline Pack lost_at(const Pack* lost, bool everywhere, int k, offset here) {
    if (everywhere) return lost[here];
    const real one = reinterpret_cast<const real*>(lost)[k];
    return {{one, one, one, one}};
}

// Lambda: the log-likelihood ratio of a copy of any amplitude.
__device__ inline real log_ratio(real gain, real lost, real variance) {
    const real grown = real(1) + (variance + variance) * lost;
    return (gain - lost + real(0.5) * variance * gain * gain) / grown - real(0.5) * log(grown);
}

// As window_odds; `bias` is added to the ratios of each rotation.
extern "C" __global__ void amplitude_odds(const Pack* maps, const Pack* lost, const real* bias, const Corners* corners,
                                          Pack* odds, real variance, real log_prior, int everywhere, int rotations,
                                          int items, int rows, int columns) {
    const int packs = rows * columns / 4;
    for (int m = blockIdx.y; m < items; m += gridDim.y) {
        const Corners tile = corners[m];
        THREAD_STRIDE(p, packs) {
            LogSum total[4] = {nothing(), nothing(), nothing(), nothing()};
            for (int k = 0; k < rotations; ++k) {
                const offset here = (offset(k) * items + m) * packs + p;
                const Pack gain = maps[here], half = lost_at(lost, everywhere, k, here);
                for (int j = 0; j < 4; ++j)
                    add(total[j], log_ratio(gain.v[j], half.v[j], variance) + bias[k] + log_prior);
            }
            const int row = 4 * p / columns, column = 4 * p - row * columns;
            Pack out;
            for (int j = 0; j < 4; ++j) {
                const bool inside = row < tile.rows && column + j < tile.columns;
                out.v[j] = inside ? value(total[j]) : log_zero();
            }
            odds[offset(m) * packs + p] = out;
        }
    }
}

// As window_weights; each weight times the posterior mean of a^moment, which is 1 for moment 0. `lost` and `bias` start at the first
// rotation of these maps.
extern "C" __global__ void amplitude_weights(const Pack* maps, const Pack* lost, const real* bias, const Pack* normaliser,
                                             Pack* weights, real variance, real log_prior, int everywhere, int moment,
                                             int rotations, int items, int packs) {
    for (int m = blockIdx.y; m < items; m += gridDim.y) {
        THREAD_STRIDE(p, packs) {
            const Pack norm = normaliser[offset(m) * packs + p];
            for (int k = blockIdx.z; k < rotations; k += gridDim.z) {
                const offset here = (offset(k) * items + m) * packs + p;
                const Pack gain = maps[here], half = lost_at(lost, everywhere, k, here);
                Pack weight;
                for (int j = 0; j < 4; ++j) {
                    const real ratio = log_ratio(gain.v[j], half.v[j], variance);
                    const real shrink = real(1) / (real(1) + (variance + variance) * half.v[j]);
                    const real mean = shrink * (real(1) + variance * gain.v[j]);
                    const real factor = moment == 0 ? real(1) : moment == 1 ? mean : mean * mean + variance * shrink;
                    weight.v[j] = exp(ratio + bias[k] + log_prior - norm.v[j]) * factor;
                }
                weights[here] = weight;
            }
        }
    }
}
