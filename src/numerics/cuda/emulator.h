// The GPU's side of the language, for a C compiler: a block's threads are fibers of one thread of the machine.

#ifndef DPO_EVAL_EMULATOR
#define DPO_EVAL_EMULATOR

#include <math.h>
#include <stddef.h>
#include <string.h>

#define INLINE static inline
// What a block's threads share: blocks run one after another on a thread of the machine, and find what the one before left.
#define SHARED static _Thread_local
#define UNROLL

struct dpo_dimensions {
    unsigned x, y, z;
};
extern _Thread_local struct dpo_dimensions dpo_thread, dpo_block, dpo_block_size;
#define threadIdx dpo_thread
#define blockIdx dpo_block
#define blockDim dpo_block_size

// What a launch needs of a kernel.
struct dpo_kernel {
    void (*body)(const void *parameters);
    size_t parameters;
    unsigned threads;
    int barriers;
};
#define DPO_KERNEL(name, Parameters, threads, barriers)                                                      \
    static void name##_body(const struct Parameters p);                                                      \
    static void name##_call(const void *parameters) { name##_body(*(const struct Parameters *)parameters); } \
    const struct dpo_kernel name = {name##_call, sizeof(struct Parameters), threads, barriers};              \
    static void name##_body(const struct Parameters p)
#define PLAIN_KERNEL(name, Parameters, threads) DPO_KERNEL(name, Parameters, threads, 0)
#define BLOCK_KERNEL(name, Parameters, threads, together) DPO_KERNEL(name, Parameters, threads, 1)

void dpo_barrier(void);
#define __syncthreads dpo_barrier

typedef struct {
    float x, y, z, w;
} float4;

INLINE float __fadd_rn(float a, float b) { return a + b; }
INLINE float __fsub_rn(float a, float b) { return a - b; }
INLINE float __fmul_rn(float a, float b) { return a * b; }
INLINE float __fdiv_rn(float a, float b) { return a / b; }
INLINE float __fsqrt_rn(float x) { return __builtin_sqrtf(x); }
INLINE float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
INLINE double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
INLINE double __dadd_rn(double a, double b) { return a + b; }
INLINE float __int2float_rn(int n) { return (float)n; }

INLINE unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

INLINE float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

INLINE int min(int a, int b) { return a < b ? a : b; }
INLINE int max(int a, int b) { return a > b ? a : b; }

#endif
