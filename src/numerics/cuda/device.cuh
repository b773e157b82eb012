// What the kernels are written in: C that nvcc compiles for the GPU and a C compiler for the emulator, with every rounding named.
//
// A kernel takes one structure by value. Its blocks are one-dimensional and their barriers are reached by all of their threads.

#ifndef DPO_EVAL_DEVICE
#define DPO_EVAL_DEVICE

#ifdef __CUDACC__

#include <stddef.h>

#define INLINE static __device__ __forceinline__
#define SHARED __shared__ __align__(16)
#define UNROLL _Pragma("unroll")
// A kernel without barriers; and one with, of which a processor's registers must hold so many blocks together.
#define PLAIN_KERNEL(name, Parameters, threads) BLOCK_KERNEL(name, Parameters, threads, 1)
#define BLOCK_KERNEL(name, Parameters, threads, together) \
    extern "C" __global__ void __launch_bounds__(threads, together) name(const struct Parameters p)

#else

#include "emulator.h"

#endif

typedef unsigned long long u64;
typedef long long i64;

// The lanes of a row reduction are part of its definition.
#define LANES 16

INLINE float add(float a, float b) { return __fadd_rn(a, b); }
INLINE float sub(float a, float b) { return __fsub_rn(a, b); }
INLINE float mul(float a, float b) { return __fmul_rn(a, b); }
INLINE float quotient(float a, float b) { return __fdiv_rn(a, b); }
INLINE float root(float x) { return __fsqrt_rn(x); }
// a * b + c, rounded once.
INLINE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }

INLINE float infinity(void) { return __uint_as_float(0x7f800000u); }

// The number of this thread in the whole grid: element by element, a thread an element.
INLINE u64 element(void) { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }

// The fixed tree over sixteen lanes, 16 → 8 → 4 → 2 → 1, joining lane l + half to lane l. Whoever asks works it out by itself.
INLINE float tree_sum(const float *lanes) {
    float sums[LANES / 2];
    UNROLL for (int l = 0; l < 8; l++) sums[l] = add(lanes[l], lanes[l + 8]);
    UNROLL for (int l = 0; l < 4; l++) sums[l] = add(sums[l], sums[l + 4]);
    UNROLL for (int l = 0; l < 2; l++) sums[l] = add(sums[l], sums[l + 2]);
    return add(sums[0], sums[1]);
}

// The larger; the second where either is NaN.
INLINE float larger(float x, float most) { return x > most ? x : most; }

INLINE float tree_max(const float *lanes) {
    float most[LANES / 2];
    UNROLL for (int l = 0; l < 8; l++) most[l] = larger(lanes[l], lanes[l + 8]);
    UNROLL for (int l = 0; l < 4; l++) most[l] = larger(most[l], most[l + 4]);
    UNROLL for (int l = 0; l < 2; l++) most[l] = larger(most[l], most[l + 2]);
    return larger(most[0], most[1]);
}

#endif
