// Rows of logits (the arithmetic contract, 6), and sums of squares in binary64 (7). A row has a block: all of its threads work out
// exponentials, a piece at a time; of each sum sixteen threads continue the lanes.

#include "elementary.cuh"

#define THREADS 256
#define PIECE 1024

struct Logits {
    // (rows, width); they become gradients in the backward pass.
    float *x;
    // Of the KL: what the first is compared with.
    const float *other;
    const unsigned *tokens;
    const float *dlogp;
    // (rows, 4), or (rows,).
    float *out;
    int rows, width;
};

// The largest element of a row, NaN passed over; every thread gets it.
INLINE float row_maximum(const float *x, int width, float *most) {
    float own = -infinity();
    for (int i = (int)threadIdx.x; i < width; i += THREADS) own = larger(x[i], own);
    most[threadIdx.x] = own;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) most[threadIdx.x] = larger(most[threadIdx.x], most[threadIdx.x + half]);
        __syncthreads();
    }
    float found = most[0];
    __syncthreads();
    return found;
}

BLOCK_KERNEL(dpo_token_scores, Logits, THREADS, 1) {
    SHARED float most[THREADS], e[PIECE], shifted[PIECE], logit[PIECE], lanes[4][LANES];
    const float *x = p.x + (i64)blockIdx.x * p.width;
    int t = (int)threadIdx.x, sum = t / 32, lane = t % 32;
    float m = row_maximum(x, p.width, most), own = 0.0f;
    for (int first = 0; first < p.width; first += PIECE) {
        int count = min(PIECE, p.width - first);
        for (int i = t; i < count; i += THREADS) {
            logit[i] = x[first + i];
            shifted[i] = sub(logit[i], m);
            e[i] = exponential(shifted[i]);
        }
        __syncthreads();
        // Sums of e, e · shifted, e² and the logits, each by a warp of its own.
        if (sum < 4 && lane < LANES) {
            for (int i = lane; i < count; i += LANES) {
                own = sum == 0 ? add(own, e[i]) : sum == 3 ? add(own, logit[i]) : fused(e[i], sum == 1 ? shifted[i] : e[i], own);
            }
        }
        __syncthreads();
    }
    if (sum < 4 && lane < LANES) lanes[sum][lane] = own;
    __syncthreads();
    if (t == 0) {
        float total = tree_sum(lanes[0]), log_total = logarithm(total), *out = p.out + 4 * (i64)blockIdx.x;
        out[0] = sub(x[p.tokens[blockIdx.x]], add(m, log_total));
        out[1] = sub(log_total, quotient(tree_sum(lanes[1]), total));
        out[2] = quotient(tree_sum(lanes[3]), __int2float_rn(p.width));
        out[3] = sub(logarithm(tree_sum(lanes[2])), mul(2.0f, log_total));
    }
}

// The row becomes dlogp · (one-hot(token) − softmax).
BLOCK_KERNEL(dpo_token_backward, Logits, THREADS, 1) {
    SHARED float most[THREADS], e[PIECE], lanes[LANES];
    float *x = p.x + (i64)blockIdx.x * p.width;
    int t = (int)threadIdx.x;
    float m = row_maximum(x, p.width, most), own = 0.0f;
    for (int first = 0; first < p.width; first += PIECE) {
        int count = min(PIECE, p.width - first);
        for (int i = t; i < count; i += THREADS) x[first + i] = e[i] = exponential(sub(x[first + i], m));
        __syncthreads();
        if (t < LANES) {
            for (int i = t; i < count; i += LANES) own = add(own, e[i]);
        }
        __syncthreads();
    }
    if (t < LANES) lanes[t] = own;
    __syncthreads();
    float dlogp = p.dlogp[blockIdx.x], factor = quotient(-dlogp, tree_sum(lanes));
    int token = (int)p.tokens[blockIdx.x];
    for (int i = t; i < p.width; i += THREADS) {
        float d = mul(x[i], factor);
        x[i] = i == token ? add(d, dlogp) : d;
    }
}

// KL(softmax(x) ‖ softmax(other)).
BLOCK_KERNEL(dpo_row_kl, Logits, THREADS, 1) {
    SHARED float most[THREADS], e[PIECE], e_other[PIECE], difference[PIECE], lanes[3][LANES];
    const float *x = p.x + (i64)blockIdx.x * p.width, *other = p.other + (i64)blockIdx.x * p.width;
    int t = (int)threadIdx.x, sum = t / 32, lane = t % 32;
    float m = row_maximum(x, p.width, most), m_other = row_maximum(other, p.width, most), own = 0.0f;
    for (int first = 0; first < p.width; first += PIECE) {
        int count = min(PIECE, p.width - first);
        for (int i = t; i < count; i += THREADS) {
            float shifted = sub(x[first + i], m), shifted_other = sub(other[first + i], m_other);
            e[i] = exponential(shifted);
            e_other[i] = exponential(shifted_other);
            difference[i] = sub(shifted, shifted_other);
        }
        __syncthreads();
        if (sum < 3 && lane < LANES) {
            for (int i = lane; i < count; i += LANES) {
                own = sum == 0 ? add(own, e[i]) : sum == 1 ? add(own, e_other[i]) : fused(e[i], difference[i], own);
            }
        }
        __syncthreads();
    }
    if (sum < 3 && lane < LANES) lanes[sum][lane] = own;
    __syncthreads();
    if (t == 0) {
        float total = tree_sum(lanes[0]), total_other = tree_sum(lanes[1]);
        p.out[blockIdx.x] = sub(quotient(tree_sum(lanes[2]), total), sub(logarithm(total), logarithm(total_other)));
    }
}

struct Squares {
    // Addresses and lengths of the tensors, a block each.
    const float *const *tensors;
    const u64 *lengths;
    double *sums;
};

#define DOUBLE_PIECE 4096

BLOCK_KERNEL(dpo_sum_squares, Squares, THREADS, 1) {
    SHARED float values[DOUBLE_PIECE];
    SHARED double lanes[LANES];
    const float *x = p.tensors[blockIdx.x];
    u64 n = p.lengths[blockIdx.x];
    int t = (int)threadIdx.x;
    double own = 0.0;
    for (u64 first = 0; first < n; first += DOUBLE_PIECE) {
        int count = n - first < DOUBLE_PIECE ? (int)(n - first) : DOUBLE_PIECE;
        for (int i = t; i < count; i += THREADS) values[i] = x[first + i];
        __syncthreads();
        // A square is exact in binary64, so that rounding once is rounding the sum.
        if (t < LANES) {
            for (int i = t; i < count; i += LANES) own = __fma_rn((double)values[i], (double)values[i], own);
        }
        __syncthreads();
    }
    if (t < LANES) lanes[t] = own;
    __syncthreads();
    if (t == 0) {
        double sums[LANES];
        for (int l = 0; l < LANES; l++) sums[l] = lanes[l];
        for (int half = LANES / 2; half > 0; half /= 2) {
            for (int l = 0; l < half; l++) sums[l] = __dadd_rn(sums[l], sums[l + half]);
        }
        p.sums[blockIdx.x] = sums[0];
    }
}

#undef THREADS
