// What products are measured against: chains of multiply-adds in registers, whose end nobody asks for.

#include "device.cuh"

#define CHAINS 16

struct Chains {
    float *out;
    int rounds;
};

PLAIN_KERNEL(dpo_multiply_adds, Chains, 256) {
    float sums[CHAINS], total = 0.0f;
    UNROLL for (int c = 0; c < CHAINS; c++) sums[c] = __int2float_rn((int)threadIdx.x + c);
    for (int round = 0; round < p.rounds; round++) {
        UNROLL for (int c = 0; c < CHAINS; c++) sums[c] = fused(sums[c], 0.999f, 0.001f);
    }
    UNROLL for (int c = 0; c < CHAINS; c++) total = add(total, sums[c]);
    // Never, but the compiler doesn't know.
    if (total == -1.0f) *p.out = total;
}
