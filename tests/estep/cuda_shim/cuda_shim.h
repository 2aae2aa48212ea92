// The part of CUDA C++ that kernels.cu uses, on the host: blocks one after another, the threads of a block as fibres
// of one system thread. Stricter than a device: a thread runs alone until it meets a barrier or a shuffle, in an order
// the caller chooses, so that a missing barrier changes the result; shared memory starts as NaN; divergent barriers,
// partial warps and reads beyond the shared memory that was asked for are errors.
#pragma once
#include <cmath>
#include <cstring>

#define __global__
#define __device__ static
#define __launch_bounds__(threads)
#define DYNAMIC_SHARED(name) unsigned char* name = shim::shared()

using std::exp;
using std::exp2;
using std::fabs;
using std::log;
using std::log1p;
template <typename T>
inline void sincospi(T x, T* sine, T* cosine) {
    *sine = std::sin(x * T(3.14159265358979323846L));
    *cosine = std::cos(x * T(3.14159265358979323846L));
}
inline float __expf(float x) { return exp(x); }
inline float __logf(float x) { return log(x); }
inline float fmaxf(float a, float b) { return a > b ? a : b; }

struct Dim {
    unsigned x, y, z;
};
extern Dim threadIdx, blockIdx, blockDim, gridDim;

namespace shim {
unsigned char* shared();
void barrier();
// Hands `value` to the warp, waits for its 32 lanes, and returns what lane (own lane ^ lanes) handed over.
double exchange(double value, int lanes);
}  // namespace shim

inline void __syncthreads() { shim::barrier(); }
inline void __syncwarp() { shim::exchange(0, 0); }

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
    static_assert(sizeof(T) <= sizeof(double), "shuffles move at most 8 bytes");
    return mask == 0xffffffffu ? static_cast<T>(shim::exchange(value, lanes)) : T(NAN);
}

inline float __int_as_float(int bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
